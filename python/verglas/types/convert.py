"""Paths where objects are meant: what a function takes for a map, a mask, particles or a micrograph.

Stages know no files. Whoever may read them (``import verglas``) leaves a reader for each kind in :data:`readers`.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from verglas.errors import InputError
from verglas.types.arrays import host_array, is_array
from verglas.types.map import Map

if TYPE_CHECKING:
    from verglas.types.atoms import Atoms
    from verglas.types.micrograph import Micrograph
    from verglas.types.movie import Movie
    from verglas.types.particles import Particles
    from verglas.types.poses import Poses

MapLike = Map | str | Path
ParticlesLike: TypeAlias = "Particles | str | Path"
MicrographLike: TypeAlias = "Micrograph | str | Path"
MovieLike: TypeAlias = "Movie | str | Path"
AtomsLike: TypeAlias = "Atoms | str | Path"

readers: dict[str, Callable[[str | Path], Any]] = {}


def map_of(value: Any, name: str, *, pixel_size_A: float | None = None) -> Map:
    """The map that is meant: itself, one read from a path, or an array whose pixel size is given.

    Parameters
    ----------
    value : Map, path or array
        Or a result that has a map: a local resolution, a refinement.
    name : str
        What messages call it, as "postprocess: the first half map".
    pixel_size_A : float, optional
        Of an array.

    Raises
    ------
    InputError
        Anything else; an array without a pixel size.

    Examples
    --------
    >>> import numpy as np
    >>> from verglas.types.convert import map_of
    >>> map_of(np.zeros((4, 4, 4)), "the map", pixel_size_A=2.0)
    Map(4 x 4 x 4, 2 A per voxel, 0)
    """
    if isinstance(value, Map):
        return value
    if isinstance(value, str | os.PathLike):
        volume: Map = _read("Map", value)
        return volume
    if isinstance(getattr(value, "map", None), Map):
        return map_of(value.map, name)
    if is_array(value) and value.ndim == 3:
        if pixel_size_A is None:
            raise InputError(f"{name}: an array has no pixel size; give vg.Map(array, pixel_size_A)")
        return Map(value, pixel_size_A)
    raise InputError(f"{name}: expected a Map or the path of one, got {_kind_of(value)}")


def particles_of(value: Any, name: str) -> Particles:
    """The particles that are meant: themselves, or read from a path.

    Raises
    ------
    InputError
        Anything else.
    """
    from verglas.types.particles import Particles

    if isinstance(value, Particles):
        return value
    if isinstance(value, str | os.PathLike):
        particles: Particles = _read("Particles", value)
        return particles
    hint = "; for an array of images, give vg.Particles.from_images(images, pixel_size_A)"
    said = hint if is_array(value) else ""
    raise InputError(f"{name}: expected Particles or the path of a STAR or CS file, got {_kind_of(value)}{said}")


def poses_of(value: Any, name: str) -> Poses:
    """The poses that are meant: themselves, or those of particles or of a path to particles.

    Raises
    ------
    InputError
        Anything else; particles without poses.
    """
    from verglas.types.poses import Poses

    if isinstance(value, Poses):
        return value
    if is_array(value) or value is None:
        raise InputError(f"{name}: expected Poses, or particles that have them, got {_kind_of(value)}; see vg.Poses")
    particles = particles_of(value, name)
    if particles.poses is None:
        raise InputError(f"{name}: {particles.where} has no poses: no columns of angles")
    return particles.poses


def micrograph_of(value: Any, name: str) -> Micrograph:
    """The micrograph that is meant: itself, or read from a path.

    Raises
    ------
    InputError
        Anything else.
    """
    from verglas.types.micrograph import Micrograph

    if isinstance(value, Micrograph):
        return value
    if isinstance(value, str | os.PathLike):
        micrograph: Micrograph = _read("Micrograph", value)
        return micrograph
    hint = "; for an array, give vg.Micrograph(array, pixel_size_A)" if is_array(value) else ""
    raise InputError(f"{name}: expected a Micrograph or the path of one, got {_kind_of(value)}{hint}")


def movie_of(value: Any, name: str) -> Movie:
    """The movie that is meant: itself, or read from a path.

    Raises
    ------
    InputError
        Anything else.
    """
    from verglas.types.movie import Movie

    if isinstance(value, Movie):
        return value
    if isinstance(value, str | os.PathLike):
        movie: Movie = _read("Movie", value)
        return movie
    hint = "; for an array of frames, give vg.Movie.from_array(frames, pixel_size_A)" if is_array(value) else ""
    raise InputError(f"{name}: expected a Movie or the path of one, got {_kind_of(value)}{hint}")


def atoms_of(value: Any, name: str) -> Atoms:
    """The model that is meant: its atoms, or read from a path.

    Raises
    ------
    InputError
        Anything else.
    """
    from verglas.types.atoms import Atoms

    if isinstance(value, Atoms):
        return value
    if isinstance(value, str | os.PathLike):
        atoms: Atoms = _read("Atoms", value)
        return atoms
    raise InputError(f"{name}: expected Atoms or the path of an mmCIF or PDB file, got {_kind_of(value)}")


def values_of(value: Any, name: str) -> Any:
    """The values of what may be a map, a path or an array.

    Examples
    --------
    >>> import numpy as np, verglas as vg
    >>> from verglas.types.convert import values_of
    >>> values_of(vg.Map(np.ones((2, 2, 2)), 1.0), "the map").sum(), values_of([1, 2], "values")
    (np.float32(8.0), [1, 2])
    """
    if isinstance(value, str | os.PathLike):
        return _read("Map", value).data
    if isinstance(value, Map):
        return value.data
    values = host_array(value)
    if values.dtype.kind not in "biufc":
        raise InputError(f"{name}: expected a Map, the path of one or an array, got {_kind_of(value)}")
    return values if is_array(value) else value


def _read(kind: str, path: Any) -> Any:
    if kind not in readers:
        raise InputError(f"{path}: import verglas first, which brings the readers of files")
    return readers[kind](path)


def _kind_of(value: Any) -> str:
    if is_array(value):
        return f"an array of shape {tuple(value.shape)}"
    return type(value).__name__
