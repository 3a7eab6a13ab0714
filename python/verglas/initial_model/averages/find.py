"""First maps of class averages by a named method: starts from several seeds, held-out averages, and a verdict."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from verglas import fourier
from verglas.errors import InputError
from verglas.geometry import matrix_to_euler
from verglas.image import fourier_resample
from verglas.initial_model.averages.annealed import anneal_directions
from verglas.initial_model.averages.joint import orient_by_lines, run_simple
from verglas.initial_model.averages.matching import (
    Round,
    finishing_course,
    keep_significant,
    match_projections,
    start_from_blobs,
    start_from_samples,
)
from verglas.initial_model.averages.pseudo_atoms import fit_pseudo_atoms
from verglas.initial_model.averages.swarm import swarm_consensus
from verglas.initial_model.averages.transport import map_by_diffusion
from verglas.initial_model.averages.views import Views
from verglas.initial_model.consensus import Comparison, Verdict, aspherical_fsc, judge, turn_onto
from verglas.initial_model.course import resample_to_box, working_box
from verglas.initial_model.optimisers import OPTIMISERS
from verglas.initial_model.settings import AUTO, AbInitioSettings
from verglas.initial_model.starts import Start
from verglas.map_geometry.hand import flip_hand as mirror_map
from verglas.map_geometry.hand import mirrored_angles
from verglas.map_geometry.sphere import aspherical_part, spherical_average
from verglas.search.state import HalfModel, PoseTable
from verglas.types import Map, Particles, Poses
from verglas.types.arrays import Float32Array, FloatArray, IntArray, any_arrays
from verglas.types.listener import Listener, phase_progress

Method = Callable[[Views, np.random.Generator], Float32Array]

SWARM = "swarm-consensus"
METHODS: dict[str, Method] = {
    **{name: partial(orient_by_lines, name) for name in OPTIMISERS},
    "simple": run_simple,
    "deterministic-annealing": anneal_directions,
    "ransac": start_from_samples,
    "significant": keep_significant,
    "random-blobs": start_from_blobs,
    "pseudo-atoms": fit_pseudo_atoms,
    "diffusion-map": map_by_diffusion,
}
USED_SETTINGS = ("symmetry", "diameter_A", "starts", "final_resolution_A", "held_out", "seed")
FEWEST = 16
_FEWEST_HELD_OUT = 5
_CONTROLS = 4
_FINE = 3  # HEALPix order of final poses, 7 degrees
_MOST = 1000
_SWARM_MEMBERS = ("significant", "random-blobs", "ransac")  # what a swarm begins with where no maps are given


@dataclass(frozen=True)
class AveragesMap:
    """What a method made of class averages.

    Attributes
    ----------
    method : str
    map : Map
        Of all averages, at their pixel size and box.
    particles : Particles
        Averages with poses.
    verdict : Verdict
    starts : list of Start
        By falling evidence; maps at the working pixel size.
    comparisons : list of Comparison
        The other starts, turned onto the best.
    working_pixel_size_A : float
    sphere : (n, n, n) float32
    settings : AbInitioSettings
    seconds : float
    """

    method: str
    map: Map
    particles: Particles
    verdict: Verdict
    starts: list[Start]
    comparisons: list[Comparison]
    working_pixel_size_A: float
    sphere: Float32Array
    settings: AbInitioSettings
    seconds: float

    def summary(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "method": self.method,
            "verdict": self.verdict.kind,
            "sentence": self.verdict.sentence,
            "hand": "undetermined",
            "gain_nats_per_average": round(self.verdict.gain, 3),
            "gain_error": round(self.verdict.gain_error, 3),
            "starts": self.verdict.starts,
            "starts_that_agree": self.verdict.agreeing,
            "ranking": [{"start": s.number + 1, "evidence_nats_per_average": round(s.score, 3)} for s in self.starts],
            "agreement_A": {
                str(c.number + 1): round(c.agreement_A, 2) if np.isfinite(c.agreement_A) else None
                for c in self.comparisons
            },
            "symmetry": self.settings.start_symmetry,
            "averages": len(self.particles),
            "working_pixel_size_A": round(self.working_pixel_size_A, 4),
            "seconds": round(self.seconds, 1),
        }


@any_arrays
def find_from_averages(
    images: npt.ArrayLike,
    pixel_size_A: float,
    method: str,
    settings: AbInitioSettings | None = None,
    *,
    volumes: Sequence[Map] = (),
    flip_hand: bool = False,
    threads: int | None = None,
    listener: Listener | None = None,
) -> AveragesMap:
    """A first map of class averages by one of the field's methods, and whether to believe it.

    Every start is made from averages of which some are held out, and ends in the same rounds of projection matching.
    Held-out averages rank the starts and say whether there is structure: they are compared with maps that have the best
    map's power in every shell and its spherical average, but random phases, which are as free to be turned.

    Parameters
    ----------
    images : (n, N, N) float32
        Class averages, centred, CTF corrected; 16 or more.
    pixel_size_A : float
    method : str
        A name of :data:`METHODS`, or "swarm-consensus".
    settings : AbInitioSettings, optional
        ``symmetry``, ``diameter_A``, ``starts``, ``final_resolution_A``, ``held_out`` and ``seed`` are used.
    volumes : sequence of Map
        Of "swarm-consensus": two maps or more; by default those of three other methods.
    flip_hand : bool
        Give the other hand.
    threads : int, optional
        Threads; all by default.
    listener : Listener, optional
        Is told how many starts are done.

    Returns
    -------
    AveragesMap

    Raises
    ------
    InputError
        An unknown method, fewer than 16 averages or more than 1000, symmetry "auto", maps that do not fit.

    Examples
    --------
    >>> import verglas as vg
    >>> from verglas.initial_model import AbInitioSettings, find_from_averages
    >>> truth = vg.simulate.phantom(32, 5.0, 110.0)
    >>> p = vg.simulate.particles(truth, 24, 32, 5.0, ctf=False, shift_sd_A=0.0, snr=4.0)
    >>> settings = AbInitioSettings(diameter_A=120, starts=2, final_resolution_A=20)
    >>> result = find_from_averages(p.images(), 5.0, "significant", settings)
    >>> result.map.box, len(result.particles), result.verdict.starts
    (32, 24, 2)
    """
    start_time = time.perf_counter()
    resolved = settings or AbInitioSettings()
    check_request(method, resolved, len(volumes))
    stack = np.asarray(images, np.float32)
    views, pixel = _prepare(stack, pixel_size_A, resolved, threads)
    rng = np.random.default_rng((resolved.seed, 2**32))
    count = max(_FEWEST_HELD_OUT, round(resolved.held_out * len(views)))
    held_out = np.sort(rng.permutation(len(views))[:count])
    training = views.of_rows(np.setdiff1d(np.arange(len(views)), held_out))
    members = [_member(v, views, pixel) for v in volumes]
    starts, tell = [], phase_progress(listener, "starts")
    for number in range(resolved.starts):
        rng = np.random.default_rng((resolved.seed, number))
        volume = start_from(method, training, rng, members)
        starts.append(_start(number, volume, evidence_of(views, volume, held_out), len(views)))
        tell(number + 1, resolved.starts)
    starts.sort(key=lambda s: (-s.score, s.number))
    best = starts[0]
    comparisons = [_compare(best, other, views, pixel) for other in starts[1:]]
    control = np.mean(
        [evidence_of(views, control_map(views, best.model.volumes[0], rng), held_out) for _ in range(_CONTROLS)], axis=0
    )
    verdict = judge(best, control, comparisons, resolved.final_resolution_A, "averages", "a map of random phases")
    volume = match_projections(views, best.model.volumes[0], [Round(_FINE, views.radius)] * 2)
    angles = matrix_to_euler(views.place(volume, _FINE).matrices)
    if flip_hand:
        volume, angles = mirror_map(volume), mirrored_angles(angles)
    made = Map(resample_to_box(volume, stack.shape[-1]), pixel_size_A)
    averages = Particles.from_images(stack, pixel_size_A, poses=Poses(angles, np.zeros((len(stack), 2))))
    return AveragesMap(
        method,
        made,
        averages,
        verdict,
        starts,
        comparisons,
        pixel,
        views.sphere,
        resolved,
        time.perf_counter() - start_time,
    )


def check_request(method: str, settings: AbInitioSettings, volumes: int = 0) -> None:
    """Refuse what can be refused before any image is looked at.

    Raises
    ------
    InputError
        An unknown method, symmetry "auto", one map alone for a swarm or maps for another method.
    """
    if method not in METHODS and method != SWARM:
        raise InputError(f"averages: expected method {', '.join([*METHODS, SWARM])}, got {method!r}")
    if settings.symmetry.lower() == AUTO:
        raise InputError(f"abinitio: {method} takes a point group; symmetry auto is searched by the method em")
    if volumes and method != SWARM:
        raise InputError(f"abinitio: maps are taken by the method {SWARM}, not by {method}")
    if volumes == 1:
        raise InputError(f"abinitio: {SWARM} takes two maps or more, or none; got 1")


def _prepare(
    stack: Float32Array, pixel_size_A: float, settings: AbInitioSettings, threads: int | None
) -> tuple[Views, float]:
    """Averages at the working pixel size."""
    if stack.ndim != 3 or not FEWEST <= len(stack) <= _MOST:
        raise InputError(
            f"averages: expected a stack of {FEWEST} to {_MOST} class averages, got shape {stack.shape}; make "
            "averages of particles by verglas class2d, or use the method em"
        )
    box = working_box(stack.shape[-1], pixel_size_A, settings.final_resolution_A)
    pixel = pixel_size_A * stack.shape[-1] / box
    small = stack if box == stack.shape[-1] else fourier_resample(stack, (len(stack), box, box), threads=threads)
    diameter_A = 0.8 * box * pixel if settings.diameter_A is None else settings.diameter_A
    if diameter_A > box * pixel:
        raise InputError(f"abinitio: expected a diameter of at most the box, {box * pixel:g} A, got {diameter_A:g} A")
    radius = int(np.clip(round(box * pixel / settings.final_resolution_A), 4, (box - 1) // 2))
    return Views.of(small, radius, diameter_A / pixel, settings.start_symmetry, threads=threads), pixel


def _member(volume: Map, views: Views, pixel: float) -> Float32Array:
    """A map given to a swarm, in the averages' working box."""
    if abs(volume.box * volume.pixel_size_A / (views.box * pixel) - 1) > 1e-3:
        raise InputError(
            f"swarm consensus: expected maps over {views.box * pixel:g} A, as the averages, got "
            f"{volume.box * volume.pixel_size_A:g} A; resample and crop or pad it (verglas resample)"
        )
    return np.asarray(resample_to_box(np.asarray(volume.data, np.float32), views.box), np.float32)


def start_from(
    method: str, views: Views, rng: np.random.Generator, members: Sequence[Float32Array] = ()
) -> Float32Array:
    """One start of a method, with the rounds of projection matching that end all of them.

    Parameters
    ----------
    method : str
        A name of :data:`METHODS`, or "swarm-consensus".
    views : Views
        The averages that it learns from.
    rng : numpy.random.Generator
        Of everything that is left to chance.
    members : sequence of (N, N, N) float32
        Maps of "swarm-consensus"; those of three other methods if there are none.
    """
    if method == SWARM:
        made = list(members) or [METHODS[name](views, rng) for name in _SWARM_MEMBERS]
        volume = swarm_consensus(views, made, seed=int(rng.integers(2**31))).volume
    else:
        volume = METHODS[method](views, rng)
    return match_projections(views, volume, finishing_course(views))


def evidence_of(views: Views, volume: Float32Array, rows: IntArray) -> FloatArray:
    r"""Log-likelihood of some averages at their best poses against a map, nats; 0 without any correlation.

    :math:`-\frac{K}{2} \log(1 - c^2)`, the Gaussian likelihood with scale and noise of each average fitted, K the
    independent values.
    """
    correlation = np.clip(views.of_rows(rows).place(volume, _FINE).correlation, 0, 0.9999)
    return np.asarray(-0.5 * views.independent * np.log1p(-(correlation**2)))


def control_map(views: Views, volume: Float32Array, rng: np.random.Generator) -> Float32Array:
    """A map with the same power in every shell and the same spherical average, but random phases of the rest."""
    round_ = spherical_average(volume)
    shape = volume.shape
    power = fourier.power_spectrum(volume - round_, 3, threads=views.threads)
    white = aspherical_part(rng.standard_normal(shape).astype(np.float32) * views.sphere)
    spectrum = fourier.forward(white, 3, threads=views.threads)
    own = fourier.power_spectrum(white, 3, threads=views.threads)
    gain = np.sqrt(power / np.maximum(own, 1e-30 + 1e-9 * own.max()))
    shells = np.minimum(fourier.shells(shape), len(gain) - 1)
    rest = fourier.inverse((spectrum * gain[shells]).astype(np.complex64), shape, threads=views.threads)
    return np.asarray(round_ + rest, np.float32)


def _start(number: int, volume: Float32Array, evidence: FloatArray, n: int) -> Start:
    shells = len(volume) // 2 + 1
    model = HalfModel(volume[None], np.ones((1, shells)), np.ones(1), np.ones(1))
    return Start(number, model, PoseTable.unknown(n), evidence, np.zeros((1, shells)))


def _compare(best: Start, other: Start, views: Views, pixel: float) -> Comparison:
    target = Map(best.model.volumes[0], pixel)
    onto = turn_onto(target, Map(other.model.volumes[0], pixel), views.radius, views.threads)
    curve = aspherical_fsc(target, onto.map, threads=views.threads)
    return Comparison(other.number, [onto.map], [onto.mirrored], [onto.correlation], [curve])
