"""Random conical tilt: maps from particles that lie alike in one image and are seen from aside in the other.

Particles of one class differ by a turn in the plane of the untilted image; in the tilted image they are thus seen from
all around, at the tilt. Nothing about the structure need be known (Radermacher et al. 1987). Two ways to centre and
place the tilted images:

``"standard"``
    Each is brought onto the average of the class, foreshortened as the tilt foreshortens it, and that is all.
``"revised"``
    As in Sorzano et al. (2015), what goes wrong is in the model: particles that lie on their faces (mirrors), errors of
    the in-plane angles, of the axis, and of the picks. After the standard's start each tilted image is compared with a
    map made from the others only, over small turns and shifts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from verglas import fourier, ops
from verglas._screen import ListenerChoice, shown_to
from verglas.classification import Alignment2D, align2d, in_reference_frame
from verglas.errors import InputError
from verglas.geometry import euler_to_matrix, matrix_to_euler
from verglas.image import Affine, shift, warp
from verglas.masks import soft_circle
from verglas.optics.transfer import phase_flip
from verglas.tilting.geometry import TiltGeometry
from verglas.tilting.missing import MissingCone, missing_cone
from verglas.tilting.projections import (
    ShiftPrior,
    mask_radius_px,
    reconstruct_tilted,
    refine_tilted,
    shift_prior,
    shift_range_px,
)
from verglas.types import Map, Particles, Poses
from verglas.types.arrays import Float32Array, FloatArray, any_arrays
from verglas.types.convert import ParticlesLike, particles_of
from verglas.types.display import one_line
from verglas.types.settings import JobSettings, setting, settings_from

_AVERAGING = 4  # alignments of a class to its own average, wide and narrow
# A particle counts as lying on its face where its image is so much likelier as the mirror image: the rest of the class
# lies as the average does, and a wrong face is a wrong half of a view.
_FACE_NATS = 5.0
_WIENER = 0.05  # noise over signal where the CTF is divided out
_STEEP_DEG = 72.0  # beyond, too little of the class average is left across the axis to centre by


@dataclass(frozen=True)
class ConicalSettings(JobSettings, job="conical_tilt"):
    """How :func:`conical_tilt` works.

    Attributes
    ----------
    method : {"revised", "standard"}
        See above.
    mirrors : bool
        Particles lie on both faces: each is compared with the mirror image of the average, too (revised only). Where
        all lie alike it only adds errors; a classification puts the two faces in two classes, too. Particles that come
        with poses keep the faces that these say.
    iterations : int
        Comparisons with maps of the others (revised only).
    shift_range_A : float, optional
        Largest displacement of a pick from its particle; an eighth of the box by default.
    pick_error_A : float, optional
        Standard deviation expected of the picks; by default the spread of the shifts along the axis (revised only).
    turn_error_deg : float
        Standard deviation expected of in-plane angles; turns are searched to twice that (revised only). 0, the default,
        takes the angles as they are: few noisy images gain nothing from a search of 25 times the work.
    diameter_A : float, optional
        Of the particle: average and maps are masked; four fifths of the box by default.
    max_resolution_A : float, optional
        Finest data used; Nyquist by default.
    symmetry : str
        Point group of the map, its axes in RELION's places: the class must then be seen along z.
    ctf : bool
        The CTF of the tilted images is in the model; without it for images that have none. The defocus is taken as each
        particle has it: one for a whole tilted micrograph is wrong away from the axis.
    """

    method: Literal["revised", "standard"] = setting("revised", "With mirrors and errors in the model, or without")
    mirrors: bool = setting(False, "Particles may lie on either face (revised)")
    iterations: int = setting(4, "Comparisons with maps of the other particles (revised)", at_least=0)
    shift_range_A: float | None = setting(
        None, "Largest displacement of a pick from its particle", more_than=0, default_words="an eighth of the box"
    )
    pick_error_A: float | None = setting(
        None, "Error expected of picks (revised)", more_than=0, default_words="the spread of shifts along the axis"
    )
    turn_error_deg: float = setting(0.0, "Error expected of in-plane angles, degrees (revised)", at_least=0)
    diameter_A: float | None = setting(
        None, "Diameter of the particle", more_than=0, default_words="four fifths of the box"
    )
    max_resolution_A: float | None = setting(None, "Finest data used", more_than=0, default_words="Nyquist")
    symmetry: str = setting("C1", "Point group, the class seen along z", flags=("--sym",))
    ctf: bool = setting(False, "The CTF is in the model; without it for images that have none")


@one_line
@dataclass(frozen=True)
class ConicalTilt:
    """What :func:`conical_tilt` gives.

    Attributes
    ----------
    map : Map
        The class is seen along its z.
    untilted, tilted : Particles
        With poses: in-plane angles (tilt 180 for those on their faces) and shifts; orientations and shifts.
    average : (box, box) float32
        Of the untilted images.
    mirrored : (n,) bool
        Particles that lie on their faces.
    missing : MissingCone
    """

    map: Map
    untilted: Particles
    tilted: Particles
    average: Float32Array
    mirrored: np.ndarray
    missing: MissingCone


@any_arrays
def conical_poses(angles_deg: FloatArray, geometries: TiltGeometry | Sequence[TiltGeometry]) -> FloatArray:
    """Orientations in the tilted images, (n, 3), of particles with these in the untilted ones.

    Parameters
    ----------
    angles_deg : (n, 3) float64
        rot, tilt, psi in the untilted images: rot 0, tilt 0 (180 for a particle on its face) and the in-plane angle for
        the members of a class.
    geometries : TiltGeometry, or n of them
        Of the pair that each particle comes from.

    Examples
    --------
    >>> from verglas.tilting import TiltGeometry, conical_poses
    >>> conical_poses([[0, 0, 30.0], [0, 180, 30.0]], TiltGeometry(60.0, 5.0, 2.0)).round(6).tolist()
    [[35.0, 60.0, -2.0], [145.0, 120.0, 178.0]]
    """
    given = euler_to_matrix(angles_deg)
    return matrix_to_euler(stage_turns(geometries, len(given)) @ given)


def stage_turns(geometries: TiltGeometry | Sequence[TiltGeometry], n: int) -> FloatArray:
    """(n, 3, 3): the stage's turn of each particle."""
    if isinstance(geometries, TiltGeometry):
        return np.broadcast_to(geometries.rotation, (n, 3, 3))
    if len(geometries) != n:
        raise InputError(f"tilt pairs: {n} particles but {len(geometries)} geometries; give one for all or one each")
    made = {id(g): g.rotation for g in geometries}  # many particles share one
    return np.stack([made[id(g)] for g in geometries]) if n else np.zeros((0, 3, 3))


def conical_tilt(
    untilted: ParticlesLike,
    tilted: ParticlesLike,
    geometries: TiltGeometry | Sequence[TiltGeometry],
    settings: ConicalSettings | None = None,
    *,
    threads: int | None = None,
    listener: ListenerChoice = None,
    **changes: object,
) -> ConicalTilt:
    """A map from one class of tilt pairs: random conical tilt, or orthogonal tilt where the turn is 90 degrees.

    Parameters
    ----------
    untilted, tilted : Particles
        The same particles, in the same order, in both images. Where the untilted ones have poses, their in-plane angles
        and shifts are taken (tilt 180: on its face); else they are aligned to their own average.
    geometries : TiltGeometry, or one for each particle
        Of the pairs. A tilt of 90 (images at -45 and +45) is orthogonal tilt reconstruction: nothing is missing.
    settings : ConicalSettings, optional
        Further keywords (``method="standard"``) change its fields.
    threads : int, optional
        Threads; all by default. The result does not depend on it.
    listener : Listener, "screen" or None

    Returns
    -------
    ConicalTilt

    Raises
    ------
    InputError
        Numbers, boxes or pixel sizes differ, or fewer than 3 particles.

    References
    ----------
    Radermacher, Wagenknecht, Verschoor and Frank (1987) J. Microsc. 146, 113-136; Leschziner and Nogales (2006)
    J. Struct. Biol. 153, 284-299; Sorzano et al. (2015) Sci. Rep. 5, 14290.

    Examples
    --------
    >>> import numpy as np, verglas as vg
    >>> from verglas.tilting import TiltGeometry, conical_tilt, fsc_outside_cone
    >>> truth = vg.simulate.density(vg.simulate.phantom(24, 4.0, 70.0), 24, 4.0)
    >>> stage, psi = TiltGeometry(60.0, 0.0, 0.0), np.arange(0.0, 360.0, 10.0)
    >>> poses = np.column_stack([0 * psi, 0 * psi, psi])
    >>> u = vg.project(truth, vg.Poses(poses))
    >>> t = vg.project(truth, vg.Poses(stage.tilted_angles_deg(poses)))
    >>> u, t = vg.Particles.from_images(u, 4.0, poses=vg.Poses(poses)), vg.Particles.from_images(t, 4.0)
    >>> found = conical_tilt(u, t, stage, method="standard", threads=1)
    >>> fsc_outside_cone(found.map, truth, 30.0).resolution_A() < 10
    True
    """
    chosen = settings_from("conical_tilt", ConicalSettings, settings, **changes)
    untilted = particles_of(untilted, "conical_tilt: untilted particles")
    tilted = particles_of(tilted, "conical_tilt: tilted particles")
    _check(untilted, tilted)
    turns = stage_turns(geometries, len(untilted))
    with shown_to(listener) as heard:
        steps = 2 + (chosen.iterations if chosen.method == "revised" else 0)
        heard.progress("tilt pairs", 0, steps)
        aligned, average = align_class(untilted, chosen, threads=threads)
        heard.progress("tilt pairs", 1, steps)
        poses, prior = _first_poses(tilted, aligned, turns, chosen, threads)
        stage_angles = poses.angles_deg
        if chosen.method == "revised":
            for number in range(chosen.iterations):
                poses = refine_tilted(tilted, poses, stage_angles, prior, chosen, threads=threads)
                heard.progress("tilt pairs", 2 + number, steps)
        placed = tilted.with_poses(poses)
        reconstruction = reconstruct_tilted(placed, chosen, threads=threads)
        heard.progress("tilt pairs", steps, steps)
    missing = missing_cone(poses.angles_deg)
    return ConicalTilt(reconstruction, aligned, placed, average, on_faces(aligned), missing)


def _check(untilted: Particles, tilted: Particles) -> None:
    if len(untilted) != len(tilted):
        raise InputError(f"conical_tilt: {len(untilted)} untilted but {len(tilted)} tilted particles; expected pairs")
    if len(untilted) < 3:
        raise InputError(f"conical_tilt: {len(untilted)} pairs; a map needs 3 or more")
    one, other = ((p.box, p.pixel_size_A) for p in (untilted, tilted))
    if one[0] != other[0] or abs(one[1] / other[1] - 1) > 1e-3:
        raise InputError(
            f"conical_tilt: untilted particles of {one[0]} px, {one[1]:g} A/px, tilted ones of {other[0]} px, "
            f"{other[1]:g} A/px; extract both alike"
        )


def on_faces(untilted: Particles) -> np.ndarray:
    """(n,) bool: which lie on their faces, tilt 180 instead of 0."""
    assert untilted.poses is not None
    return np.abs((untilted.poses.angles_deg[:, 1] + 180) % 360 - 180) > 90


# ---- the untilted images


def align_class(
    untilted: Particles, settings: ConicalSettings, *, threads: int | None = None
) -> tuple[Particles, Float32Array]:
    """In-plane angles and shifts of a class, and its average; poses that are there are kept.

    Parameters
    ----------
    untilted : Particles
    settings : ConicalSettings
    threads : int, optional

    Returns
    -------
    particles : Particles
        With poses: (0, 0, psi), or (0, 180, psi) for those that the mirror image of the average fits better.
    average : (box, box) float32
    """
    images = flipped_images(untilted, settings, threads=threads)
    pixel = untilted.pixel_size_A
    if untilted.poses is not None:
        return untilted, _average_of(images, untilted, pixel, threads)
    reach = shift_range_px(untilted.box, pixel, settings.shift_range_A)
    mirrors = settings.mirrors and settings.method == "revised"
    average, shifts = images[0], np.zeros((len(images), 2))
    aligned = untilted
    # Rings must fit the box at every shift, so that a wide search sees the middle of the particle only: the wide search
    # centres, and narrow ones about what it found, on the whole particle, turn.
    for narrow in [False] * _AVERAGING + [True] * _AVERAGING:
        centred = shift(images, shifts, threads=threads) if narrow else images
        most = 1 if narrow else reach
        radius = min(mask_radius_px(untilted.box, pixel, settings.diameter_A), (untilted.box + 1) // 2 - 3 - most)
        alignment = _align(centred, average, most, float(radius), mirrors=mirrors, threads=threads)
        # An image that is the average's mirror image in x at in-plane angle psi is its particle turned by 180 degrees
        # about y, then by psi.
        tilt = np.where(alignment.references == 1, 180.0, 0.0)
        angles = np.column_stack([np.zeros(len(tilt)), tilt, alignment.angles_deg])
        placed = alignment.shifts_px.astype(np.float64) + (shifts if narrow else 0.0)
        aligned = untilted.with_poses(Poses(angles, placed * pixel))
        average = _average_of(images, aligned, pixel, threads)
        if not narrow:
            shifts = placed
    return aligned, average


def flipped_images(particles: Particles, settings: ConicalSettings, *, threads: int | None = None) -> Float32Array:
    """Images with their phases flipped where the CTF is in the model.

    The signs of two CTFs disagree in every other band: an image at one defocus hardly correlates with an average of
    images at others, or finds itself displaced by a Thon ring.
    """
    images = particles.images()
    if not settings.ctf:
        return images
    box = particles.box
    ctfs = ops.ctf(particles.optics.as_params(), box, particles.pixel_size_A, threads=threads)
    spectra = phase_flip(fourier.forward(images, 2, threads=threads), ctfs)
    return fourier.inverse(spectra, (box, box), threads=threads)


def _align(
    images: Float32Array,
    average: Float32Array,
    reach: int,
    radius: float,
    *,
    mirrors: bool,
    threads: int | None,
) -> Alignment2D:
    """Images on an average within a radius, and with ``mirrors`` on its mirror image where that is surely better."""
    step = 2 if reach % 2 == 0 else 1

    def to(reference: Float32Array) -> Alignment2D:
        return align2d(images, reference, max_shift_px=reach, step_px=step, radius_px=(1.0, radius), threads=threads)

    direct = to(average)
    if not mirrors:
        return direct
    other = to(_mirror(average))
    pixels = np.pi * radius**2
    # An image against itself, the first average, has no residue.
    left = [np.maximum(1 - alignment.scores.astype(np.float64) ** 2, 1e-3) for alignment in (direct, other)]
    evidence = 0.5 * pixels * np.log(left[0] / left[1])
    down = evidence > _FACE_NATS
    return Alignment2D(
        np.where(down, other.angles_deg, direct.angles_deg),
        np.where(down[:, None], other.shifts_px, direct.shifts_px),
        down.astype(np.int32),
        np.where(down, other.scores, direct.scores),
    )


def _mirror(image: Float32Array) -> Float32Array:
    """X -> -x about pixel N // 2."""
    flipped = image[..., ::-1]
    return np.roll(flipped, 1, axis=-1) if image.shape[-1] % 2 == 0 else flipped


def _average_of(images: Float32Array, aligned: Particles, pixel: float, threads: int | None) -> Float32Array:
    assert aligned.poses is not None
    angles, faces = aligned.poses.angles_deg, on_faces(aligned)
    psi = angles[:, 2] + np.where(faces, -angles[:, 0], angles[:, 0])
    frames = in_reference_frame(images, psi, aligned.poses.shifts_A / pixel, threads=threads)
    frames[faces] = _mirror(frames[faces])
    return frames.mean(axis=0)


# ---- the tilted images


def foreshorten(average: Float32Array, angles_deg: FloatArray, turn: FloatArray) -> Float32Array:
    """The class average as a flat object would look in the tilted image.

    Parameters
    ----------
    average : (box, box) float32
    angles_deg : (3,) float64
        rot, tilt (0 or 180), psi of the particle in the untilted image.
    turn : (3, 3) float64
        The stage's turn.

    Returns
    -------
    (box, box) float32

    Examples
    --------
    >>> import numpy as np
    >>> from verglas.tilting import TiltGeometry
    >>> from verglas.tilting.conical import foreshorten
    >>> disc = (np.hypot(*(np.indices((33, 33)) - 16)) < 10).astype(np.float32)
    >>> seen = foreshorten(disc, np.zeros(3), TiltGeometry(60.0, 0.0, 0.0).rotation) > 0.5
    >>> int(seen[16].sum()), int(seen[:, 16].sum())          # half as wide across the axis
    (9, 19)
    """
    matrix = (turn @ euler_to_matrix(angles_deg[None])[0])[:2, :2]
    # A flat object under the turn; its density along the ray grows as its image shrinks, which correlation ignores.
    return warp(average, Affine.linear(matrix))


def _coarse_images(particles: Particles, settings: ConicalSettings, threads: int | None) -> Float32Array:
    """Images with the CTF divided out, and no detail finer than the particle.

    A thick particle is not its flat average: across the axis its details lie elsewhere, and the foreshortened average
    is found by them where it fits by chance. Only the centre of mass is where the flat one's is; about all that is left
    beyond it at frequencies of one over the diameter.
    """
    box, pixel = particles.box, particles.pixel_size_A
    spectra = fourier.forward(particles.images(), 2, threads=threads)
    if settings.ctf:
        ctfs = ops.ctf(particles.optics.as_params(), box, pixel, threads=threads)
        spectra = spectra * (ctfs / (ctfs**2 + _WIENER))
    diameter = 2 * mask_radius_px(box, pixel, settings.diameter_A)
    gain = np.exp(-((fourier.radius((box, box)) * diameter / box) ** 2)).astype(np.float32)
    return fourier.inverse((spectra * gain).astype(np.complex64), (box, box), threads=threads)


def _first_poses(
    tilted: Particles,
    aligned: Particles,
    turns: FloatArray,
    settings: ConicalSettings,
    threads: int | None,
) -> tuple[Poses, ShiftPrior]:
    """Orientations from the stage's turn, shifts from the foreshortened average where it tells anything."""
    assert aligned.poses is not None
    angles = matrix_to_euler(turns @ euler_to_matrix(aligned.poses.angles_deg))
    box, pixel = tilted.box, tilted.pixel_size_A
    shifts = np.zeros((len(tilted), 2))
    usable = np.abs(turns[:, 2, 2]) > np.cos(np.radians(_STEEP_DEG))
    if usable.any():
        coarse = _average_of(_coarse_images(aligned, settings, threads), aligned, pixel, threads)
        masked = coarse * soft_circle(box, mask_radius_px(box, pixel, settings.diameter_A), 3.0)
        rows = np.flatnonzero(usable)
        references = np.stack([foreshorten(masked, aligned.poses.angles_deg[i], turns[i]) for i in rows])
        reach = shift_range_px(box, pixel, settings.shift_range_A)
        images = _coarse_images(tilted[rows], settings, threads)
        peaks = ops.correlate(images, references, pairing="paired", max_shift_px=reach, threads=threads)
        shifts[rows] = peaks.shifts_px
    error = None if settings.pick_error_A is None else settings.pick_error_A / pixel
    prior = shift_prior(shifts, turns, error, usable, shift_range_px(box, pixel, settings.shift_range_A))
    if settings.method == "revised":
        shifts = prior.mean_px
    return Poses(angles, shifts * pixel), prior
