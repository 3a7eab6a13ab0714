"""Maps that turn in a notebook."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from verglas.errors import InputError
from verglas.io import read_atoms, read_map
from verglas.report.model import pack_model
from verglas.report.volume import show_volumes
from verglas.types import Map
from verglas.types.arrays import host_array
from verglas.types.atoms import Atoms


@dataclass(frozen=True)
class Shown:
    """Maps side by side in one viewer, for a notebook; ``write`` makes a page of it.

    Attributes
    ----------
    maps : dict of str -> Map
    height_px : int
    models : dict of str -> Atoms
    """

    maps: dict[str, Map] = field(repr=False)
    height_px: int = 640
    models: dict[str, Atoms] = field(default_factory=dict, repr=False)

    def _repr_html_(self) -> str:
        models = {name: pack_model(one, name) for name, one in self.models.items()}
        return show_volumes(self.maps, models=models, height_px=self.height_px)

    def __repr__(self) -> str:
        return f"Shown({', '.join(self.maps)})"


def show(
    *maps: Any,
    mask: Any = None,
    model: Any = None,
    names: Sequence[str] = (),
    pixel_size_A: float = 1.0,
    height_px: int = 640,
) -> Shown:
    """Show maps in a notebook as surfaces that turn, with slices, a level, a model, and colours of one by another.

    Parameters
    ----------
    *maps : Map, path or (z, y, x) array
        Of NumPy, PyTorch, CuPy or xarray.
    mask : Map, path or array, optional
        Offered as an outline; chooses the level to begin at.
    model : Atoms or path, optional
        mmCIF or PDB, in the frame of the maps: offered as tubes through its chains.
    names : sequence of str
        One per map; by default those of the files, or map, map 2, ...
    pixel_size_A : float
        Of arrays, which do not say it.
    height_px : int
        Of the frame.

    Returns
    -------
    Shown
        Drawn where a notebook shows a cell's value.

    Raises
    ------
    InputError
        No map, another number of names, or an array that is no volume.

    Examples
    --------
    >>> import numpy as np, verglas as vg
    >>> shown = vg.show(np.random.default_rng(0).normal(size=(16, 16, 16)), names=["noise"])
    >>> shown, shown._repr_html_().startswith("<iframe sandbox=")
    (Shown(noise), True)
    """
    if not maps:
        raise InputError("show: expected at least one map")
    if names and len(names) != len(maps):
        raise InputError(f"show: expected one name per map, got {len(names)} for {len(maps)}")
    given = list(names) or [_name_of(one, number) for number, one in enumerate(maps, 1)]
    shown = {name: _map_of(one, pixel_size_A) for name, one in zip(given, maps, strict=True)}
    if len(shown) != len(maps):
        raise InputError(f"show: expected names that differ, got {', '.join(given)}")
    if mask is not None:
        shown["mask"] = _map_of(mask, pixel_size_A)
    models = {} if model is None else _models_of(model)
    return Shown(shown, height_px, models)


def _models_of(value: Any) -> dict[str, Atoms]:
    atoms = value if isinstance(value, Atoms) else read_atoms(value)
    return {atoms.name: atoms}


def _name_of(value: Any, number: int) -> str:
    if isinstance(value, str | Path):
        return Path(value).stem
    return "map" if number == 1 else f"map {number}"


def _map_of(value: Any, pixel_size_A: float) -> Map:
    if isinstance(value, Map):
        return value
    if isinstance(value, str | Path):
        return read_map(value)
    return Map(host_array(value), pixel_size_A)
