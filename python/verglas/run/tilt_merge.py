"""One map of the classes of ``verglas tilt-pairs``: merged.mrc and what the summary says of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from verglas.assessment.fsc import fsc
from verglas.io import write_map, write_particles
from verglas.tilting import ConicalSettings, ConicalTilt
from verglas.tilting.merging import merge_classes
from verglas.tilting.projections import reconstruct_tilted
from verglas.types import Particles
from verglas.types.arrays import IntArray


@dataclass(frozen=True, eq=False)
class NumberedClass:
    """A class as the summary numbers it, its map, and which of the tilted images are its own."""

    number: int
    made: ConicalTilt
    rows: IntArray


def write_merged(
    out: Path,
    classes: Sequence[NumberedClass],
    tilted: Particles,
    settings: ConicalSettings,
    threads: int | None,
) -> dict[str, Any]:
    """Merge class maps, write merged.mrc and merged_tilted.star; what tilt_pairs.json says.

    Parameters
    ----------
    out : Path
        Folder.
    classes : sequence of NumberedClass
    tilted : Particles
        The tilted images of all.
    settings : ConicalSettings
    threads : int, optional
    """
    numbers = [one.number for one in classes]
    rows = [one.rows for one in classes]
    merged = merge_classes([one.made for one in classes], tilted, rows, settings, threads=threads)
    record: dict[str, Any] = {
        "classes": [n for n, inside in zip(numbers, merged.joined, strict=True) if inside],
        "left_out": [n for n, inside in zip(numbers, merged.joined, strict=True) if not inside],
        "correlation": {str(n): round(float(c), 3) for n, c in zip(numbers, merged.correlation, strict=True)},
    }
    if merged.joined.sum() < 2:
        return {**record, "map": None}
    write_map(out / "merged.mrc", merged.map)
    write_particles(out / "merged_tilted.star", merged.tilted)
    halves = [reconstruct_tilted(merged.tilted[start::2], settings, threads=threads) for start in (0, 1)]
    resolution = fsc(*halves).resolution_A(0.143)
    return {
        **record,
        "map": str(out / "merged.mrc"),
        "pairs": len(merged.tilted),
        "missing_share": round(merged.missing_share, 4),
        "half_set_resolution_A": round(resolution, 2) if np.isfinite(resolution) else None,
    }
