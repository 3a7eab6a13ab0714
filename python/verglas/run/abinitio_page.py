"""The page of ab initio, written again from the files that it left."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from verglas.assessment import FSC
from verglas.errors import InputError
from verglas.initial_model.averages import AveragesMap
from verglas.initial_model.consensus import Comparison, Verdict
from verglas.initial_model.find import AbInitio
from verglas.initial_model.symmetry import SymmetryFound
from verglas.io import read_map, read_particles, write_map
from verglas.map_geometry.symmetry_search import SymmetryScore
from verglas.report.abinitio import MOST_SHOWN, AbInitioShown, StartShown, write_abinitio_page
from verglas.run.live_page import SHOWN, finished_summary, footer_text
from verglas.types import Map

SUMMARY = "abinitio.json"
STARTS = "starts"  # folder of the starts' maps, turned onto the best


def shown_result(
    result: AbInitio | AveragesMap, summary: dict[str, Any], settings: dict[str, Any] | None = None, **words: Any
) -> AbInitioShown:
    """A result as its page takes it."""
    assert result.particles.poses is not None
    best = result.starts[0].model
    return AbInitioShown(
        summary,
        result.verdict,
        [StartShown(start.number, start.score) for start in result.starts],
        [Map(volume * result.sphere, result.working_pixel_size_A) for volume in best.volumes],
        [float(weight) for weight in best.class_weight],
        result.comparisons,
        result.particles.poses.angles_deg,
        asdict(result.settings) if settings is None else settings,
        getattr(result, "symmetry", None),
        **words,
    )


def shown_record(folder: Path, shown: AbInitioShown) -> dict[str, Any]:
    """Write the starts' maps, and what else the page shows and no other file of the folder holds, for :data:`SUMMARY`.

    Parameters
    ----------
    folder : Path
        Of the run; maps go into its folder ``starts``, each turned onto the best, masked.
    shown : AbInitioShown
    """
    (folder / STARTS).mkdir(exist_ok=True)
    return {
        SHOWN: {
            "verdict": asdict(shown.verdict),
            "starts": [asdict(start) for start in shown.starts],
            "maps": _write_maps(folder, shown.starts[0].number, shown.maps),
            "pixel_size_A": shown.maps[0].pixel_size_A,
            "class_weight": list(shown.class_weight),
            # The page shows no maps of more; their agreement is in its table.
            "comparisons": [
                _comparison_record(folder, one, with_maps=i < MOST_SHOWN - 1) for i, one in enumerate(shown.comparisons)
            ],
            "settings": dict(shown.settings),
            "symmetry": _symmetry_record(shown.symmetry),
            "items": shown.items,
            "baseline": shown.baseline,
        }
    }


def _write_maps(folder: Path, number: int, maps: Sequence[Map]) -> list[str]:
    names = [f"{STARTS}/start{number + 1}_class{k}.mrc" for k in range(1, len(maps) + 1)]
    for name, volume in zip(names, maps, strict=True):
        write_map(folder / name, volume)
    return names


def _comparison_record(folder: Path, one: Comparison, *, with_maps: bool) -> dict[str, Any]:
    return {
        "number": one.number,
        "maps": _write_maps(folder, one.number, one.maps) if with_maps else [],
        "mirrored": [bool(m) for m in one.mirrored],
        "correlation": [float(c) for c in one.correlation],
        "curves": [
            {name: value.tolist() if isinstance(value, np.ndarray) else value for name, value in vars(curve).items()}
            for curve in one.curves
        ],
    }


def _symmetry_record(search: SymmetryFound | None) -> dict[str, Any] | None:
    """JSON has no NaN, which is the gain where no group was tried: null."""
    if search is None:
        return None
    scores = [{**vars(score), "matrix": score.matrix.tolist()} for score in search.scores]
    numbers = {name: float(getattr(search, name)) for name in ("gain", "gain_error")}
    return {
        "symmetry": search.symmetry,
        "scores": scores,
        "sentence": search.sentence,
        **{name: value if np.isfinite(value) else None for name, value in numbers.items()},
    }


def write_again(folder: Path) -> Path:
    """Write report.html again.

    Parameters
    ----------
    folder : Path
        Of a finished ``verglas abinitio``, by any method.

    Returns
    -------
    Path
        Of the page.

    Raises
    ------
    InputError
        The run has not finished, or is of a version that did not keep what its page shows.
    """
    summary = finished_summary(folder / SUMMARY, "run of abinitio", "report.html")
    shown = summary[SHOWN]
    poses = read_particles(folder / "particles.star").poses
    if poses is None:
        raise InputError(f"{folder / 'particles.star'}: no angles, which the page shows; give the same command again")
    pixel_size_A = float(shown["pixel_size_A"])
    page = AbInitioShown(
        summary,
        Verdict(**shown["verdict"]),
        [StartShown(**start) for start in shown["starts"]],
        _read_maps(folder, shown["maps"], pixel_size_A),
        shown["class_weight"],
        [_comparison(folder, one, pixel_size_A) for one in shown["comparisons"]],
        poses.angles_deg,
        shown["settings"],
        _symmetry(shown["symmetry"]),
        shown["items"],
        shown["baseline"],
    )
    return write_abinitio_page(folder, page, footer_text())


def _read_maps(folder: Path, names: Sequence[str], pixel_size_A: float) -> list[Map]:
    # The header's pixel size is a quotient of float32: the record's is what the run had.
    return [Map(read_map(folder / name).data, pixel_size_A) for name in names]


def _comparison(folder: Path, one: Mapping[str, Any], pixel_size_A: float) -> Comparison:
    curves = [_curve(curve) for curve in one["curves"]]
    maps = _read_maps(folder, one["maps"], pixel_size_A)
    return Comparison(one["number"], maps, one["mirrored"], one["correlation"], curves)


def _curve(record: Mapping[str, Any]) -> FSC:
    read: dict[str, Any] = {name: np.array(v) if isinstance(v, list) else v for name, v in record.items()}
    return FSC(**read)


def _symmetry(record: Mapping[str, Any] | None) -> SymmetryFound | None:
    if record is None:
        return None
    scores = [SymmetryScore(**{**score, "matrix": np.array(score["matrix"])}) for score in record["scores"]]
    gain, gain_error = (np.nan if record[name] is None else record[name] for name in ("gain", "gain_error"))
    return SymmetryFound(record["symmetry"], scores, gain, gain_error, record["sentence"])
