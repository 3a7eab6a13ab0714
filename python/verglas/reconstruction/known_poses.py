"""Reconstruction from particles whose poses are known."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, overload

import numpy as np
import numpy.typing as npt

from verglas._devices import work_on
from verglas._screen import ListenerChoice, shown_to
from verglas.errors import InputError, VerglasWarning
from verglas.geometry import symmetry_matrices
from verglas.image.outliers import inspect_images
from verglas.optics import for_job
from verglas.reconstruction.accumulate import Accumulator, Insertion, ReconstructSettings
from verglas.reconstruction.ewald_sign import EwaldEvidence, find_sign
from verglas.reconstruction.half_sets import split_halves
from verglas.reconstruction.iterated import ITERATED, TvWeight, choose_tv_weight
from verglas.reconstruction.sums import Symmetry
from verglas.types import Map
from verglas.types.convert import ParticlesLike, particles_of
from verglas.types.display import one_line
from verglas.types.listener import phase_progress
from verglas.types.settings import settings_from

if TYPE_CHECKING:
    from verglas.types import Particles

SsnrChoice = npt.NDArray[np.float64] | Callable[[Map, Map], npt.NDArray[np.float64]] | None


@one_line
@dataclass(frozen=True)
class Reconstruction:
    """What a reconstruction gives.

    Attributes
    ----------
    map : Map
        From all particles.
    half_maps : tuple of Map, or None
        From the particles of random subsets 1 and 2, where asked for.
    used : int
        Particles inserted.
    excluded : dict
        Particle number (from 0) -> reason, for particles set aside.
    residual : float
        Relative residual at the end (least-squares, sirt, cg, tv), density residual (gridding), NaN (direct).
    ewald : EwaldEvidence or None
        What held-out particles said of the sign of Ewald's sphere, where it was asked.
    tv : TvWeight or None
        Of method "tv": its weight, and what was tried.
    """

    map: Map
    half_maps: tuple[Map, Map] | None
    used: int
    excluded: dict[int, str]
    residual: float
    ewald: EwaldEvidence | None = None
    tv: TvWeight | None = None


def max_radius_for(box: int, pixel_size_A: float, max_resolution_A: float | None) -> int:
    """Last shell in use: round(box * pixel size / resolution), at most (box - 1) // 2.

    Examples
    --------
    >>> from verglas.reconstruction.known_poses import max_radius_for
    >>> max_radius_for(100, 1.0, 10.0), max_radius_for(100, 1.0, None)
    (10, 49)
    """
    # Without Nyquist, which has no mate of its own on an even side and cannot be turned.
    largest = (box - 1) // 2
    if max_resolution_A is None:
        return largest
    if not max_resolution_A > 0:
        raise InputError(f"max_resolution_A: expected a positive number of angstrom, got {max_resolution_A}")
    return min(largest, max(1, round(box * pixel_size_A / max_resolution_A)))


def half_sets(
    particles: Particles, *, seed: int = 0, copy_of: npt.NDArray[np.int64] | None = None
) -> npt.NDArray[np.int64]:
    """Random subsets 1 and 2; without usable ones, assigned at random within each micrograph.

    See :func:`verglas.reconstruction.half_sets.split_halves`, whose sentences become warnings here.

    Parameters
    ----------
    particles : Particles
        With rlnRandomSubset, which is then honoured, or without.
    seed : int
        Of the assignment.
    copy_of : (n,) int64, optional
        First particle with the same pixels.

    Returns
    -------
    (n,) int64
        1 or 2; where assigned, of equal size to one image.

    Examples
    --------
    >>> import numpy as np, verglas as vg
    >>> from verglas.reconstruction.known_poses import half_sets
    >>> p = vg.Particles.from_images(np.ones((6, 4, 4), np.float32), 1.0)
    >>> sorted(half_sets(p).tolist())
    [1, 1, 1, 2, 2, 2]
    """
    split = split_halves(particles, seed=seed, copy_of=copy_of)
    for note in split.notes:
        warnings.warn(note.sentence, VerglasWarning, stacklevel=3)
    return split.half


def reconstruct_report(
    particles: ParticlesLike,
    settings: ReconstructSettings | None = None,
    *,
    halves: bool = False,
    ssnr: SsnrChoice = None,
    threads: int | None = None,
    device: str = "cpu",
    listener: ListenerChoice = "screen",
    **changes: Any,
) -> Reconstruction:
    """Like :func:`reconstruct`, with what was set aside and how well the equations were solved.

    Parameters
    ----------
    particles : Particles or path
        Images, poses and optics.
    settings : ReconstructSettings, optional
        Further keywords (``symmetry="O"``) change its fields.
    halves, ssnr, threads, device, listener
        As in :func:`reconstruct`.

    Returns
    -------
    Reconstruction

    Raises
    ------
    InputError
        No poses, no particles that can be used, an unknown symmetry, mixed pixel or box sizes.
    DeviceError
        A GPU cannot be used, or its memory does not suffice.
    """
    chosen = settings_from("reconstruct", ReconstructSettings, settings, **changes)
    particles = particles_of(particles, "reconstruct: particles")
    if particles.poses is None:
        raise InputError(
            "reconstruct: the particles have no poses (rlnAngleRot, rlnAngleTilt, rlnAnglePsi); refine them first"
        )
    particles = for_job(particles, "reconstruct", ctf=chosen.ctf, posed=True)
    if ssnr is not None and chosen.method in ITERATED:
        raise InputError(
            f"reconstruct: an SSNR (Wiener's prior) is no part of method {chosen.method}; take direct or least-squares"
        )
    # The halves' difference says what is noise, and each half which weight explains the other.
    wanted = halves or callable(ssnr)
    halves = wanted or chosen.method == "tv"
    ask_sign = chosen.ewald and chosen.ewald_sign == "auto"
    group = Symmetry.of(symmetry_matrices(chosen.symmetry))
    radius = max_radius_for(particles.box, particles.pixel_size_A, chosen.max_resolution_A)
    inspection = inspect_images(particles)
    in_one = np.ones(len(particles), np.int64)
    subset = half_sets(particles, copy_of=inspection.copy_of) if halves or ask_sign else in_one
    with shown_to(listener) as heard:
        progress = phase_progress(heard, "particles inserted")
        insertion = Insertion(
            particles,
            subset,
            2,
            group,
            radius,
            chosen,
            progress,
            inspection.excluded,
            threads=threads,
            device=device,
        )
        evidence = find_sign(insertion, say=heard.say) if ask_sign else None
        if evidence is not None:
            known = replace(chosen, ewald=evidence.sign is not None, ewald_sign=evidence.sign or "auto")
            insertion = replace(insertion, settings=known)
        if not halves:
            insertion = replace(insertion, subset=in_one, n_sets=1)
        sets, excluded = insertion.run()
    device = sets[0].device

    tv: TvWeight | None = None
    if chosen.method == "tv":
        pairs = [one.normal_equations() for one in sets[:2]]
        equations = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
        tv = choose_tv_weight(*equations, chosen.tv_weight, chosen.iterations, threads=threads)
        del pairs, equations

    def solve_map(sums: Accumulator, ssnr: npt.NDArray[np.float64] | None, share: float = 0.5) -> tuple[Map, float]:
        with work_on(device):
            # Noise of b grows with the root of the number of particles.
            volume, residual = sums.solve(ssnr, 0.0 if tv is None else tv.weight * tv.noise * share**0.5)
        return Map(group.apply(volume, radius, threads=threads), particles.pixel_size_A), residual

    maps = (solve_map(sets[0], None)[0], solve_map(sets[1], None)[0]) if wanted else None
    weights = ssnr(*maps) if maps is not None and callable(ssnr) else ssnr
    assert not callable(weights)
    with work_on(device):
        everything = sets[0].plus(sets[1]) if halves else sets[0]
    full, residual = solve_map(everything, weights, 1.0)
    return Reconstruction(full, maps, len(particles) - len(excluded), excluded, residual, evidence, tv)


# What comes back, for type checkers; the function and its documentation follow.
@overload
def reconstruct(
    particles: ParticlesLike,
    symmetry: str | None = ...,
    max_resolution_A: float | None = ...,
    *,
    settings: ReconstructSettings | None = ...,
    halves: Literal[False] = ...,
    ssnr: SsnrChoice = ...,
    threads: int | None = ...,
    device: str = ...,
    listener: ListenerChoice = ...,
    **changes: Any,
) -> Map: ...
@overload
def reconstruct(
    particles: ParticlesLike,
    symmetry: str | None = ...,
    max_resolution_A: float | None = ...,
    *,
    settings: ReconstructSettings | None = ...,
    halves: Literal[True],
    ssnr: SsnrChoice = ...,
    threads: int | None = ...,
    device: str = ...,
    listener: ListenerChoice = ...,
    **changes: Any,
) -> tuple[Map, tuple[Map, Map]]: ...
def reconstruct(
    particles: ParticlesLike,
    symmetry: str | None = None,
    max_resolution_A: float | None = None,
    *,
    settings: ReconstructSettings | None = None,
    halves: bool = False,
    ssnr: SsnrChoice = None,
    threads: int | None = None,
    device: str = "cpu",
    listener: ListenerChoice = "screen",
    **changes: Any,
) -> Map | tuple[Map, tuple[Map, Map]]:
    r"""Map from particles with known poses.

    Minimises :math:`\sum_i \| X_i - C_i P_i V \|^2 + \| V \|^2_\Lambda` inside the largest ball of the box, with a weak
    ridge :math:`\Lambda`: on the grid point by point (``"direct"``), or exactly (``"least-squares"``). The CTF is
    thereby corrected, and the map is on the images' grey scale.

    Parameters
    ----------
    particles : Particles or path
        Images, poses and optics (``vg.read_particles``).
    symmetry : str, optional
        Point group, RELION's orientation; applied exactly. C1 by default.
    max_resolution_A : float, optional
        Data beyond are not used; Nyquist by default.
    settings : ReconstructSettings, optional
        All choices at once; what is given beside them goes before.
    halves : bool
        Also return the two half maps (rlnRandomSubset; without it, random halves of each micrograph).
    ssnr : array or callable, optional
        Spectral signal-to-noise ratio of the full map per shell, for a Wiener reconstruction; or a function of the two
        half maps that gives it, from which the full map is then solved with the sums at hand.
    threads : int, optional
        Threads; all by default.
    device : str
        ``"cpu"``, ``"cuda:0"``, several (``"cuda:0,cuda:1"``, which share the particles in contiguous blocks), or
        ``"cuda"`` for every GPU. The iterations of least-squares and gridding are made on the host in any case.
    listener : Listener, "screen" or None
        Who is told how it goes (:class:`verglas.types.listener.Listener`).
    **changes
        Single choices, as the fields of :class:`ReconstructSettings`: ``method="least-squares"``, ``ctf=False``.

    Returns
    -------
    Map, or (Map, (Map, Map)) with ``halves=True``

    Raises
    ------
    InputError
        No poses, no particles that can be used, an unknown symmetry, mixed pixel or box sizes.

    Warns
    -----
    UserWarning
        Particles were set aside (not finite, constant); the numbers and reasons are in the text.

    Examples
    --------
    >>> import numpy as np, verglas as vg
    >>> images = np.random.default_rng(0).normal(size=(20, 16, 16)).astype(np.float32)
    >>> poses = vg.Poses(np.random.default_rng(1).uniform(0, 180, size=(20, 3)))
    >>> particles = vg.Particles.from_images(images, 4.0, poses=poses)
    >>> vg.reconstruct(particles, ctf=False).data.shape
    (16, 16, 16)
    """
    changes |= {n: v for n, v in (("symmetry", symmetry), ("max_resolution_A", max_resolution_A)) if v is not None}
    where: dict[str, Any] = {"threads": threads, "device": device, "listener": listener}
    result = reconstruct_report(particles, settings, halves=halves, ssnr=ssnr, **where, **changes)
    if result.excluded:
        first = list(result.excluded.items())[:5]
        listed = "; ".join(f"particle {i}: {reason}" for i, reason in first)
        warnings.warn(f"{len(result.excluded)} particles set aside ({listed}, ...)", VerglasWarning, stacklevel=2)
    if result.half_maps is None:
        return result.map
    return result.map, result.half_maps
