"""What a refinement starts from: references on the particles' grid, masks, and what identifies the input."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from verglas.errors import InputError
from verglas.image import crop_or_pad, fourier_resample
from verglas.io import read_map
from verglas.masks import checked_mask
from verglas.optics import plain_images
from verglas.optics.one_grid import Grids
from verglas.types import Map, Particles
from verglas.types.verdict import Finding

_SAME_PIXEL = 0.01  # pixel sizes that differ by less are taken for the same
_LEAST_FIELD = 0.8  # of the diameter: masks about particles are generous
_FILES = ("particles", "references", "map", "maps", "mask", "masks")  # what records call files that were named
_SAMPLED = 16  # images whose values are compared when a run goes on


def as_map(value: Map | str | Path) -> Map:
    """A map, read if a path is given; a finite cube."""
    volume = value if isinstance(value, Map) else read_map(value)
    name = "the reference" if isinstance(value, Map) else str(value)
    if len(set(volume.data.shape)) != 1:
        raise InputError(f"{name}: a map of shape {volume.data.shape} (z, y, x); expected a cube")
    if not np.isfinite(volume.data).all():
        raise InputError(f"{name}: {np.count_nonzero(~np.isfinite(volume.data))} voxels are not finite numbers")
    return volume


def fit_to_particles(
    value: Map, particles: Particles, name: str, diameter_A: float | None = None
) -> tuple[Map, list[Finding]]:
    """A map on the grid of the particles, and what was done to it.

    Raises
    ------
    InputError
        Its pixel size is unknown; it is constant; or its box cannot hold a particle of ``diameter_A``.
    """
    notes = []
    box, pixel_size_A = particles.box, particles.pixel_size_A
    if not (value.pixel_size_A > 0 and np.isfinite(value.pixel_size_A)):
        raise InputError(f"{name}: its pixel size is {value.pixel_size_A:g} A; set it in the header of the file")
    if value.data.flat[0] and not np.ptp(value.data):
        raise InputError(f"{name} is {value.data.flat[0]:g} everywhere; expected a density")
    field_A = value.box * value.pixel_size_A
    # Where the particles' own images are too small, too, it is the diameter that is wrong, as settings will say.
    if diameter_A is not None and field_A < _LEAST_FIELD * diameter_A <= box * pixel_size_A:
        raise InputError(
            f"{name}: {value.box} px of {value.pixel_size_A:g} A are a box of {field_A:g} A, too small for a particle "
            f"of {diameter_A:g} A; is the pixel size in its header right? the particles have {pixel_size_A:g} A"
        )
    data = value.data
    ratio = value.pixel_size_A / pixel_size_A
    if abs(ratio - 1) > _SAME_PIXEL:
        new = max(4, 2 * round(len(data) * ratio / 2))
        data = fourier_resample(data, (new,) * 3)
        numbers = {"from_A": value.pixel_size_A, "to_A": pixel_size_A}
        sentence = f"{name} was resampled from {value.pixel_size_A:g} to {pixel_size_A:g} A per pixel"
        notes.append(Finding("resampled", "go on", sentence, numbers))
    # After resampling: only now are its pixels those of the particles.
    if len(data) != box:
        code = "cropped" if len(data) > box else "padded"
        sentence = f"{name} was {code} from {len(data)} to {box} px"
        notes.append(Finding(code, "go on", sentence, {"from_px": len(data), "to_px": box}))
        # Zeros about a map on a grey scale of its own would be the faces of a cube.
        data = crop_or_pad(data, (box,) * 3, fill="border")
    return Map(np.ascontiguousarray(data, np.float32), pixel_size_A), notes


def reference_name(value: Map | str | Path) -> str:
    """What a run's record calls a map that it was given."""
    return "a map in memory" if isinstance(value, Map) else str(value)


def by_present_names(before: Mapping[str, Any], now: Mapping[str, Any], directory: str) -> dict[str, Any]:
    """A run's record with its files named as they are now, where that is another name of the same file.

    Parameters
    ----------
    before, now : mapping
        Of the run that was stopped, and of the call that goes on.
    directory : str
        What relative names of ``before`` are in; those of ``now`` are in the working directory.

    Examples
    --------
    >>> from verglas.run.refine_inputs import by_present_names
    >>> had = {"particles": "a.star", "references": ["b.mrc"], "mask": None, "seed": 0}
    >>> by_present_names(had, {"particles": "/job/a.star", "references": ["/other/b.mrc"]}, "/job")
    {'particles': '/job/a.star', 'references': ['b.mrc'], 'mask': None, 'seed': 0}
    """

    def present(was: Any, new: Any) -> Any:
        if isinstance(was, list) and isinstance(new, list) and len(was) == len(new):
            return [present(*pair) for pair in zip(was, new, strict=True)]
        if isinstance(was, str) and isinstance(new, str):
            same = os.path.realpath(os.path.join(directory, was)) == os.path.realpath(new)
            return new if same else was
        return was

    return {name: present(was, now.get(name)) if name in _FILES else was for name, was in before.items()}


def fitted_mask(value: Map, particles: Particles) -> npt.NDArray[np.float32]:
    """A user's solvent mask, which has to fit as it is."""
    if len(value.data) != particles.box or abs(value.pixel_size_A / particles.pixel_size_A - 1) > _SAME_PIXEL:
        raise InputError(
            f"the mask has {len(value.data)} px of {value.pixel_size_A:g} A, the particles {particles.box} px of "
            f"{particles.pixel_size_A:g} A; resample it first (verglas resample)"
        )
    return checked_mask(value.data)


def fits_in_memory(particles: Particles, limit_GB: float) -> bool:
    """Images stay in memory if they take less than a quarter of what is allowed."""
    return 4e-9 * len(particles) * particles.box**2 <= limit_GB / 4


def identity(particles: Particles) -> dict[str, Any]:
    """What tells one set of particles from another: count, box, pixel size, first and last image name."""
    names = particles.table["rlnImageName"].to_numpy(str) if "rlnImageName" in particles.table else [""]
    return {
        "n_particles": len(particles),
        "box": particles.box,
        "pixel_size_A": round(particles.pixel_size_A, 6),
        "first": str(names[0]),
        "last": str(names[-1]),
    }


def on_one_grid(particles: Particles) -> Particles:
    """Those of several pixel sizes or boxes as jobs see them; others as they are."""
    return particles if Grids.of(particles) is None else plain_images(particles)


def close_identity(particles: Particles) -> dict[str, Any]:
    """What a run that goes on must find again: the same, and fingerprints of columns and of sampled images."""
    particles = on_one_grid(particles)
    names = identity(particles)
    for name, table in (("column", particles.table), ("optics", particles.optics_table)):
        if table is None:
            continue
        for label in table.columns:
            names[f"{name} {label}"] = _digest(pd.util.hash_pandas_object(table[label], index=False).to_numpy())
    if len(particles) and particles.source is not None:
        rows = np.unique(np.linspace(0, len(particles) - 1, _SAMPLED).round().astype(int))
        names["images"] = _digest(np.ascontiguousarray(particles.images(rows)))
    return names


def _digest(values: npt.NDArray[Any]) -> str:
    # A fingerprint and no secret, which must be said where the system allows SHA-1 for nothing else.
    return hashlib.sha1(values.tobytes(), usedforsecurity=False).hexdigest()[:12]


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """In what two identities differ, in words; empty where they agree.

    Examples
    --------
    >>> from verglas.run.refine_inputs import differences
    >>> differences({"box": 64, "column rlnDefocusU": "a"}, {"box": 48, "column rlnDefocusU": "b"})
    'box: was 64, now 48; other values or order in column rlnDefocusU'
    >>> differences({"box": 64}, {"box": 64})
    ''
    """
    # "metadata" is a fingerprint of all columns at once that earlier versions wrote
    names = [key for key in {**before, **now} if before.get(key) != now.get(key) and key != "metadata"]
    # Checkpoints of earlier versions have no fingerprints by column: only what they have is compared.
    if "column" not in {key.split(" ")[0] for key in before}:
        names = [key for key in names if key in before]
    plain = [f"{key}: was {before.get(key)}, now {now.get(key)}" for key in names if not _is_print(key)]
    prints = [key for key in names if _is_print(key)]
    columns = [key for key in prints if key != "images"]
    if columns:
        more = f" and {len(columns) - 3} more" if len(columns) > 3 else ""
        plain.append(f"other values or order in {', '.join(columns[:3])}{more}")
    return "; ".join([*plain, *(["other images"] if "images" in prints else [])])


def _is_print(key: str) -> bool:
    return key == "images" or key.startswith(("column ", "optics "))
