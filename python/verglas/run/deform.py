"""Job on files: what bends, between two maps, among several, or from particle to particle."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from scipy.spatial import cKDTree

from verglas._screen import ListenerChoice, shown_to
from verglas._version import __version__
from verglas.errors import InputError
from verglas.heterogeneity import DeformSettings
from verglas.heterogeneity.deform import (
    FlexibleAlignment,
    NormalModes,
    align_modes,
    fit_deformation,
    local_strain,
    normal_modes,
    pseudo_atoms,
    structmap,
    zernike_ways,
)
from verglas.image import find_unusable_images
from verglas.io import read_map, read_particles, write_csv, write_json, write_map, write_particles, write_text
from verglas.optics import for_job
from verglas.report import deform as pages
from verglas.report.html import Page, render
from verglas.run.kept_inputs import keeps_inputs
from verglas.run.live_page import footer_text
from verglas.run.numbered_files import remove_numbered
from verglas.run.set_aside import set_aside_sentence, write_set_aside
from verglas.run.tenure import Tenure, now_text, tenure
from verglas.simulate import Model, density
from verglas.types import Map, Particles
from verglas.types.arrays import FloatArray

_STATES = 5
_PERCENTILES = (5.0, 95.0)
_CUTOFF = 2.5  # spacings of the atoms
_WIDTH = 0.6
_CHUNK = 1024  # images that are looked at together
_PRIOR_A = 3.0  # of Zernike amplitudes, where none is given


@dataclass(frozen=True)
class DeformJob:
    """What ``verglas deform`` is asked for.

    Attributes
    ----------
    maps : list of Path
        Two: how one becomes the other. Three or more: how far they are from each other. One, with particles.
    out : Path
        Folder to write.
    particles, stack : Path, optional
        Particles with poses, whose images say how the map bends in each; image stack in place of the one named.
    settings : DeformSettings
    threads : int, optional
    """

    maps: Sequence[Path]
    out: Path
    particles: Path | None = None
    stack: Path | None = None
    settings: DeformSettings = field(default_factory=DeformSettings)
    threads: int | None = None


@keeps_inputs("deform")
def deform_files(job: DeformJob, *, listener: ListenerChoice = "screen") -> dict[str, Any]:
    """What ``verglas deform`` does; returns what ``deform.json`` holds.

    Parameters
    ----------
    job : DeformJob
    listener : Listener, "screen" or None

    Raises
    ------
    InputError
        One map without particles, several with them, one map twice; no image that can be used.
    """
    if twice := sorted({str(p) for p in job.maps if job.maps.count(p) > 1}):
        raise InputError(f"deform: {twice[0]} is given more than once; expected each map once")
    if (job.particles is None) != (len(job.maps) > 1):
        raise InputError(
            f"deform: {len(job.maps)} maps and {'no' if job.particles is None else 'a file of'} particles; expected "
            "two maps or more, or one map and --particles"
        )
    with shown_to(listener) as heard, tenure(job.out, "deform", heard) as held:
        held.write(state="running")
        maps = {
            path.stem if len({p.stem for p in job.maps}) == len(job.maps) else str(path): read_map(path)
            for path in job.maps
        }
        if job.particles is not None:
            made, page = _particles(job, next(iter(maps.values())), held)
        elif len(maps) == 2:
            made, page = _pair(job, maps)
        else:
            made, page = _several(job, maps, held)
        head = {"verglas": __version__, "command": "deform", "finished": now_text(), "settings": asdict(job.settings)}
        write_json(job.out / "deform.json", head | made)
        write_text(job.out / "report.html", render(page))
        return made


def _pair(job: DeformJob, maps: dict[str, Map]) -> tuple[dict[str, Any], Page]:
    how = job.settings
    (first, one), (second, two) = maps.items()
    steps = (2 * how.resolution_A, how.resolution_A)
    bend = fit_deformation(one, two, degree=how.degree, diameter_A=how.diameter_A, resolutions_A=steps)
    field_A = bend.field_A(two.box, two.pixel_size_A)
    strain = local_strain(field_A, two.pixel_size_A)
    volumes = {
        "displacement": np.linalg.norm(field_A, axis=-1),
        "rotation": strain.angle_deg,
        "strain": strain.magnitude,
        "volume_change": strain.volume,
    }
    weight = np.clip(two.data, 0, None).astype(np.float64)
    dense = two.data > 0.2 * two.data.max()
    made: dict[str, Any] = {
        "kind": "two maps",
        "first": first,
        "second": second,
        "correlation": bend.correlation,
        "residual": bend.residual,
        "displacement_A": float(np.sqrt(np.average(np.square(volumes["displacement"]), weights=weight))),
        "largest_A": float(volumes["displacement"][dense].max()),
        "largest_rotation_deg": float(volumes["rotation"][dense].max()),
        "largest_strain": float(volumes["strain"][dense].max()),
        "degree": bend.degree,
        "radius_A": bend.radius_A,
        "coefficients_A": bend.coefficients_A.tolist(),
    }
    shown = {name: two.with_data(values.astype(np.float32)) for name, values in volumes.items()}
    for name, volume in shown.items():
        write_map(job.out / f"{name}.mrc", volume)
    deformed = bend.apply(one)
    write_map(job.out / "deformed.mrc", deformed)
    maps = {"first": one, "deformed": deformed, "second": two}
    return made, pages.pair_page(made, maps, shown, asdict(how), footer_text())


def _several(job: DeformJob, maps: dict[str, Map], held: Tenure) -> tuple[dict[str, Any], Page]:
    how = job.settings
    steps = (2 * how.resolution_A, how.resolution_A)
    places = structmap(
        list(maps.values()),
        dimensions=min(how.dimensions, len(maps) - 1),
        degree=how.degree,
        listener=held,
        diameter_A=how.diameter_A,
        resolutions_A=steps,
    )
    names = list(maps)
    axes = {f"coordinate{k + 1}_A": column for k, column in enumerate(places.coordinates_A.T)}
    write_csv(job.out / "coordinates.csv", {"map": names, **axes})
    write_csv(job.out / "distances.csv", {"map": names, **dict(zip(names, places.distances_A.T, strict=True))})
    made = {
        "kind": "several maps",
        "maps": names,
        "distances_A": places.distances_A.tolist(),
        "coordinates_A": places.coordinates_A.tolist(),
        "stress": places.stress,
    }
    return made, pages.several_page(made, asdict(how), footer_text())


@dataclass(frozen=True, eq=False)
class _Atoms:
    """Pseudo-atoms of a map, their ways, and their prior; amplitudes over ``root`` are root mean square ways."""

    modes: NormalModes
    mass: FloatArray
    width_A: float
    prior_A: float | None

    @property
    def root(self) -> float:
        return float(np.sqrt(len(self.mass)))


def _atoms_of(volume: Map, how: DeformSettings) -> _Atoms:
    xyz, mass = pseudo_atoms(volume, how.atoms, seed=how.seed)
    spacing_A = float(np.median(cKDTree(xyz).query(xyz, 2)[0][:, 1]))
    prior_A = how.prior_A
    if how.basis == "zernike":
        modes = zernike_ways(xyz, max(2, how.degree)).modes
        prior_A = _PRIOR_A if prior_A is None else prior_A
    else:
        modes = normal_modes(xyz, how.cutoff_A or _CUTOFF * spacing_A, count=how.modes)
    return _Atoms(modes, mass, _WIDTH * spacing_A, None if prior_A is None else prior_A * np.sqrt(len(mass)))


def _particles(job: DeformJob, volume: Map, held: Tenure) -> tuple[dict[str, Any], Page]:
    how = job.settings
    assert job.particles is not None
    everything = read_particles(job.particles, stack=job.stack)
    given, excluded = _usable(everything, held)
    atoms = _atoms_of(volume, how)
    held.say(f"{len(atoms.mass)} pseudo-atoms of {volume.pixel_size_A:g} A voxels, {len(atoms.modes.vectors)} modes")
    aligned = align_modes(
        given,
        atoms.modes,
        weights=atoms.mass,
        width_A=atoms.width_A,
        resolution_A=how.resolution_A,
        n_modes=len(atoms.modes.vectors),
        refine_poses=how.poses,
        prior_A=atoms.prior_A,
        threads=job.threads,
    )
    motions = _motions_of(aligned, atoms, how)
    along, errors = motions.coordinates_A, motions.errors_A
    states = {
        f"motion{k + 1}_state{s}": _state(volume, atoms, motions.middle_A + way * value)
        for k, (way, column) in enumerate(zip(motions.ways_A, along.T, strict=True))
        for s, value in enumerate(_values_along(column), 1)
    }
    remove_numbered(job.out, r"motion(?P<number>\d+)_state\d+\.mrc", len(motions.ways_A))
    for name, one in states.items():
        write_map(job.out / f"{name}.mrc", one)
    write_particles(job.out / "particles.star", _with_motions(given, aligned, along, errors))
    write_set_aside(job.out, everything, excluded)
    made = {
        "kind": "particles",
        "particles": len(given),
        "excluded": len(excluded),
        "basis": how.basis,
        "ways": len(atoms.modes.vectors),
        "atoms": len(atoms.mass),
        "iterations": aligned.iterations,
        "spread_A": [float(v) for v in along.std(axis=0)],
        "error_A": [float(v) for v in np.median(errors, axis=0)],
    }
    return made, pages.particles_page(made, states, along, errors, asdict(how), footer_text())


def _usable(given: Particles, held: Tenure) -> tuple[Particles, dict[int, str]]:
    """Particles whose images can be used, and the reasons of those that are set aside."""
    if given.source is None or given.poses is None:
        missing = "images" if given.source is None else "poses"
        raise InputError(f"{given.where}: deform needs {missing}, and these particles have none")
    excluded = dict(for_job(given, "deform").optics.unusable())
    for begin in range(0, len(given), _CHUNK):
        bad = find_unusable_images(given.images(slice(begin, begin + _CHUNK)))
        excluded.update({begin + i: reason for i, reason in bad.items()})
    kept = np.setdiff1d(np.arange(len(given)), list(excluded))
    if not len(kept):
        raise InputError(f"{given.where}: deform: no particle can be used ({set_aside_sentence(excluded)})")
    if excluded:
        held.note("set_aside", set_aside_sentence(excluded))
    return given[kept] if excluded else given, excluded


@dataclass(frozen=True)
class _Motions:
    """Motions of pseudo-atoms, and the particles along them; angstrom.

    Attributes
    ----------
    middle_A : (n, 3) float64
        Displacement of the atoms in the middle of all motions.
    ways_A : (k, n, 3) float64
        Displacements of a root mean square of 1 A.
    coordinates_A, errors_A : (particles, k) float64
        Each particle's place along them, and its standard error.
    """

    middle_A: FloatArray
    ways_A: FloatArray
    coordinates_A: FloatArray
    errors_A: FloatArray


def _motions_of(aligned: FlexibleAlignment, atoms: _Atoms, how: DeformSettings) -> _Motions:
    """Motions that the page shows.

    Normal modes as they are, from the map at rest; of Zernike amplitudes the principal components, from their mean.
    """
    values, vectors, root = aligned.amplitudes_A, atoms.modes.vectors, atoms.root
    if how.basis == "modes":
        return _Motions(np.zeros(vectors.shape[1:]), vectors * root, values / root, aligned.errors_A / root)
    middle = values.mean(axis=0)
    axes = np.linalg.svd(values - middle, full_matrices=False)[2][: how.modes]
    errors = np.sqrt(np.square(aligned.errors_A) @ np.square(axes).T)
    ways = np.tensordot(axes, vectors, 1) * root
    return _Motions(np.tensordot(middle, vectors, 1), ways, (values - middle) @ axes.T / root, errors / root)


def _values_along(column: FloatArray) -> FloatArray:
    low, high = np.percentile(column, _PERCENTILES)
    return np.linspace(low, high, _STATES)


def _state(volume: Map, atoms: _Atoms, way: FloatArray) -> Map:
    """The pseudo-atoms moved, as a map."""
    spread_A2 = 8 * np.pi**2 * atoms.width_A**2
    n = len(atoms.mass)
    model = Model(atoms.modes.xyz_A + way, np.full(n, "C"), weights=atoms.mass, b_factors_A2=np.full(n, spread_A2))
    return density(model, volume.box, volume.pixel_size_A)


def _with_motions(given: Particles, aligned: FlexibleAlignment, along: FloatArray, errors: FloatArray) -> Particles:
    columns: dict[str, Any] = {n: None for n in map(str, given.table) if n.startswith("verglasMotion")}
    for k in range(along.shape[1]):
        columns[f"verglasMotion{k + 1}"] = along[:, k]
        columns[f"verglasMotionError{k + 1}"] = errors[:, k]
    return given.with_poses(aligned.poses).with_columns(**columns)
