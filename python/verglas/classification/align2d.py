"""Rotational and translational alignment of images to references."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt

from verglas import image as image_ops
from verglas import ops
from verglas._native import resolve_threads
from verglas.errors import InputError
from verglas.types.arrays import Float32Array, FloatArray, any_arrays

_NO_GAIN = 1e-6  # of a score in [-1, 1]: float32 rounding
_REWEIGHTED = 6  # fits of the grey scale, each without what the one before was far from


@dataclass(frozen=True)
class Alignment2D:
    """Pose of each image relative to its reference, in the convention of conventions.md.

    Attributes
    ----------
    angles_deg : (n,) float32
        In-plane angle psi: a feature at (x, y) of the reference, from the centre, stands at
        ``(x cos + y sin, -x sin + y cos) - shift`` in the image.
    shifts_px : (n, 2) float32
        x, y: added to the image, it brings the particle to the centre (rlnOrigin, in pixels).
    references : (n,) int32
        Number of the reference.
    scores : (n,) float32
        :func:`alignment_scores` of this pose.
    """

    angles_deg: Float32Array
    shifts_px: Float32Array
    references: npt.NDArray[np.int32]
    scores: Float32Array


@dataclass(frozen=True)
class _Problem:
    images: Float32Array
    references: Float32Array
    radius_px: tuple[float, float]
    max_shift_px: int
    threads: int


@any_arrays
def in_reference_frame(
    images: npt.ArrayLike, angles_deg: npt.ArrayLike, shifts_px: npt.ArrayLike, *, threads: int | None = None
) -> Float32Array:
    r"""Images moved and turned back onto their references, with one cubic-spline interpolation.

    .. math::
        g(r) = f(R_z(\psi)\, r - s), \qquad
        R_z(\psi) = \begin{pmatrix} \cos\psi & \sin\psi \\ -\sin\psi & \cos\psi \end{pmatrix}

    Parameters
    ----------
    images : (n, box, box) float32
    angles_deg : (n,) float
        psi.
    shifts_px : (n, 2) float
        x, y.
    threads : int, optional
        Threads; all by default.

    Returns
    -------
    (n, box, box) float32
        Zero where the image does not reach.

    Examples
    --------
    >>> import numpy as np
    >>> from verglas.classification import in_reference_frame
    >>> f = np.zeros((1, 9, 9), np.float32); f[0, 2, 4] = 1               # at (0, -2) from the centre
    >>> g = in_reference_frame(f, [90.0], [(0.0, 0.0)])                    # stood at (2, 0) in the reference
    >>> [int(i) for i in np.unravel_index(g.argmax(), g.shape)]
    [0, 4, 6]
    """
    stack = np.asarray(images, np.float32)
    turn = image_ops.Affine.rotation
    move = image_ops.Affine.translation

    def one(f: Float32Array, psi: float, s: Float32Array) -> Float32Array:
        return image_ops.warp(f, turn(float(psi)) @ move(s))

    poses = np.asarray(angles_deg, np.float64), np.asarray(shifts_px, np.float64)
    with ThreadPoolExecutor(resolve_threads(threads)) as pool:
        frames = list(pool.map(one, stack, *poses))
    return np.stack(frames) if frames else np.zeros_like(stack)


@any_arrays
def alignment_scores(
    images: npt.ArrayLike,
    references: npt.ArrayLike,
    alignment: Alignment2D,
    *,
    radius_px: float | None = None,
    measure: Literal["correlation", "correntropy"] = "correlation",
    threads: int | None = None,
) -> Float32Array:
    """How alike each image, brought onto its reference, is to it inside a disc.

    Parameters
    ----------
    images : (n, box, box) float32
    references : (m, box, box) float32
    alignment : Alignment2D
        Poses (its scores are not read).
    radius_px : float, optional
        Radius of the disc; half the box by default.
    measure : {"correlation", "correntropy"}
        Pearson's coefficient, or the correntropy (:func:`verglas.image.correntropy`) of the image and the reference on
        its grey scale, both robust, kernel the image's robust deviation: a few wild pixels cannot outvote the others.
    threads : int, optional
        Threads; all by default.

    Returns
    -------
    (n,) float32
        In [-1, 1], and (0, 1] of the correntropy; 0 for an image or reference that is constant in the disc.

    Examples
    --------
    >>> import numpy as np
    >>> from verglas.classification import Alignment2D, alignment_scores
    >>> f = np.random.default_rng(0).standard_normal((1, 16, 16)).astype(np.float32)
    >>> here = Alignment2D(*(np.zeros(s, np.float32) for s in [(1,), (1, 2)]), np.zeros(1, np.int32), np.zeros(1))
    >>> round(float(alignment_scores(f, f, here)[0]), 5)
    1.0
    """
    refs = np.asarray(references, np.float32)
    box = refs.shape[-1]
    y, x = np.indices((box, box)) - box // 2
    disc = np.hypot(x, y) <= (box / 2 if radius_px is None else radius_px)
    in_frame = in_reference_frame(images, alignment.angles_deg, alignment.shifts_px, threads=threads)
    f = in_frame[:, disc].astype(np.float64)
    g = refs[:, disc].astype(np.float64)[alignment.references]
    # Means and norms of the disc, not of the whole image: Pearson's coefficient of what is compared.
    f -= f.mean(axis=1, keepdims=True)
    g -= g.mean(axis=1, keepdims=True)
    norm = np.sqrt((f * f).sum(axis=1) * (g * g).sum(axis=1))
    if measure == "correntropy":
        alike = np.zeros(len(f))
        for i in np.flatnonzero(norm > 0):
            alike[i] = _robust_likeness(f[i], g[i])
        return alike.astype(np.float32)
    cross = (f * g).sum(axis=1)
    return np.divide(cross, norm, out=np.zeros_like(cross), where=norm > 0).astype(np.float32)


def _robust_likeness(image: FloatArray, reference: FloatArray) -> float:
    """Correntropy with the reference times a gain plus an offset, which pixels fit that are not far off.

    The gain is not negative: a reference in the other contrast is unlike.
    """
    sigma = max(image_ops.robust_sigma(image), 1e-12 * float(np.abs(image).max()))
    design = np.column_stack([reference, np.ones(len(reference))])
    weight = np.ones(len(image))
    fitted = np.zeros(len(image))
    for _ in range(_REWEIGHTED):
        factors = np.linalg.lstsq(design * weight[:, None], image * weight, rcond=None)[0]
        fitted = design @ factors if factors[0] > 0 else np.full(len(image), np.average(image, weights=weight**2))
        weight = np.exp(-0.25 * ((image - fitted) / sigma) ** 2)  # the root of the kernel
    return image_ops.correntropy(image, fitted, sigma)


@any_arrays
def align2d(
    images: npt.ArrayLike,
    references: npt.ArrayLike,
    *,
    max_shift_px: int = 6,
    step_px: int = 2,
    radius_px: tuple[float, float] | None = None,
    search: Literal["joint", "alternating"] = "joint",
    cycles: int = 4,
    threads: int | None = None,
) -> Alignment2D:
    """Align images to references by angle and shift, and choose the best reference of each.

    A first search gives each image its reference and a coarse pose. Then each cycle finds the sub-pixel shift at the
    known angle (FFT cross-correlation) and the angle at the known shift (polar rings); a step is kept only where it
    raises the score, so scores never fall.

    Parameters
    ----------
    images : (n, box, box) float32
        The box is a product of 2, 3, 5 and 7.
    references : (m, box, box) or (box, box) float32
        Centred references.
    max_shift_px : int
        Largest shift, on each axis.
    step_px : int
        Grid of the joint search; ``max_shift_px`` is a multiple of it.
    radius_px : (float, float), optional
        First and last ring, and the disc of the score; by default all rings that fit the box at every shift. Choose the
        particle's radius.
    search : {"joint", "alternating"}
        ``"joint"``: all angles at each of ``(2 max_shift_px / step_px + 1)**2`` shifts. ``"alternating"``: shift then
        angle and angle then shift, the better of the two; cheaper, but each step misjudges what the other has not yet
        mended, so it may settle on a wrong pose.
    cycles : int
        Most cycles of refinement after it; an image that a cycle does not improve is finished.
    threads : int, optional
        Threads; all by default. The result does not depend on it.

    Returns
    -------
    Alignment2D

    Raises
    ------
    InputError
        Shapes, sizes or options are wrong, or an image holds NaN or infinity (the message names it).

    References
    ----------
    Penczek, Radermacher and Frank (1992) Ultramicroscopy 40, 33-53; Joyeux and Penczek (2002) Ultramicroscopy 92, 33-46
    (that the two searches depend on each other).

    Examples
    --------
    >>> import numpy as np
    >>> from verglas.classification import align2d
    >>> y, x = np.indices((48, 48)) - 24
    >>> blob = lambda px, py: np.exp(-((x - px) ** 2 + (y - py) ** 2) / 8.0)
    >>> reference = blob(8, 0) + blob(-3, 7) + 2 * blob(0, -5)
    >>> image = blob(0 + 3, -8 - 1) + blob(7 + 3, 3 - 1) + 2 * blob(-5 + 3, 0 - 1)   # psi 90, then at (3, -1)
    >>> result = align2d(image[None], reference, max_shift_px=4)
    >>> result.angles_deg.round(1).tolist(), result.shifts_px.round(1).tolist()
    ([90.0], [[-3.0, 1.0]])
    """
    stack = np.ascontiguousarray(images, np.float32)
    refs = np.ascontiguousarray(references, np.float32)
    stack, refs = (a[None] if a.ndim == 2 else a for a in (stack, refs))
    if search not in ("joint", "alternating"):
        raise InputError(f"search: expected one of 'joint', 'alternating', got {search!r}")
    if cycles < 0:
        raise InputError(f"cycles: expected at least 0, got {cycles}")
    last = (stack.shape[-1] + 1) // 2 - 3 - max_shift_px
    radii = (1.0, float(last)) if radius_px is None else (float(radius_px[0]), float(radius_px[1]))
    problem = _Problem(stack, refs, radii, int(max_shift_px), resolve_threads(threads))
    if search == "joint":
        peaks = ops.correlate_rotations(
            stack, refs, max_shift_px=max_shift_px, step_px=step_px, radius_px=radii, threads=problem.threads
        )
        best = _score_poses(problem, peaks.angles_deg, peaks.shifts_px, peaks.references)
    else:
        best = _take_better(_shift_first(problem), _search_angles_first(problem))
    return _refine(problem, best, cycles)


def _refine(p: _Problem, best: Alignment2D, cycles: int) -> Alignment2D:
    """Alternate shift and angle; an image that gains nothing in a cycle leaves, alone, so batches do not matter."""
    active = np.arange(len(best.scores))
    for _ in range(cycles):
        if active.size == 0:
            break
        part, old = replace(p, images=p.images[active]), _rows(best, active)
        new = _take_better(old, _with_new_shifts(part, old))
        new = _take_better(new, _with_new_angles(part, new))
        for name in ("angles_deg", "shifts_px", "scores"):
            getattr(best, name)[active] = getattr(new, name)
        active = active[new.scores > old.scores + _NO_GAIN]
    return best


def _rows(a: Alignment2D, rows: npt.NDArray[np.intp]) -> Alignment2D:
    return Alignment2D(a.angles_deg[rows], a.shifts_px[rows], a.references[rows], a.scores[rows])


def _score_poses(
    p: _Problem, angles: npt.NDArray | None, shifts: npt.NDArray, references: npt.NDArray[np.int32]
) -> Alignment2D:
    angles = np.zeros(len(shifts), np.float32) if angles is None else np.asarray(angles, np.float32)
    pose = Alignment2D(angles, np.asarray(shifts, np.float32), references, np.zeros(len(shifts), np.float32))
    return replace(
        pose, scores=alignment_scores(p.images, p.references, pose, radius_px=p.radius_px[1], threads=p.threads)
    )


def _take_better(a: Alignment2D, b: Alignment2D) -> Alignment2D:
    """Image by image the pose with the higher score; a keeps ties."""
    new = b.scores > a.scores
    return Alignment2D(
        np.where(new, b.angles_deg, a.angles_deg),
        np.where(new[:, None], b.shifts_px, a.shifts_px),
        np.where(new, b.references, a.references),
        np.where(new, b.scores, a.scores),
    )


def _with_new_shifts(p: _Problem, pose: Alignment2D) -> Alignment2D:
    """The best shifts at the angles of ``pose``; a residue d in the reference's frame is R_z(psi) d in the image's."""
    in_frame = in_reference_frame(p.images, pose.angles_deg, pose.shifts_px, threads=p.threads)
    peaks = ops.correlate(
        in_frame, p.references[pose.references], pairing="paired", max_shift_px=p.max_shift_px, threads=p.threads
    )
    c, s = np.cos(np.deg2rad(pose.angles_deg)), np.sin(np.deg2rad(pose.angles_deg))
    x, y = peaks.shifts_px.T
    shifts = pose.shifts_px + np.stack([c * x + s * y, -s * x + c * y], axis=1)
    # A peak at the rim belongs to what lies beyond; its interpolation may step half a pixel over.
    inside = (np.abs(shifts) <= p.max_shift_px + 0.5).all(axis=1, keepdims=True)
    return _score_poses(p, pose.angles_deg, np.where(inside, shifts, pose.shifts_px), pose.references)


def _with_new_angles(p: _Problem, pose: Alignment2D) -> Alignment2D:
    """The best angles at the shifts of ``pose``, each image with its own reference."""
    # Shifted by spline, not by phase: what leaves at one border may not come in at the other.
    at_centre = image_ops.shift(p.images, pose.shifts_px, threads=p.threads)
    angles = pose.angles_deg.copy()
    for k in np.unique(pose.references):
        own = pose.references == k
        peaks = ops.correlate_rotations(at_centre[own], p.references[k], radius_px=p.radius_px, threads=p.threads)
        angles[own] = peaks.angles_deg
    return _score_poses(p, angles, pose.shifts_px, pose.references)


def _shift_first(p: _Problem) -> Alignment2D:
    peaks = ops.correlate(p.images, p.references, max_shift_px=p.max_shift_px, threads=p.threads)
    return _with_new_angles(p, _score_poses(p, None, peaks.shifts_px, peaks.references))


def _search_angles_first(p: _Problem) -> Alignment2D:
    peaks = ops.correlate_rotations(p.images, p.references, radius_px=p.radius_px, threads=p.threads)
    return _with_new_shifts(p, _score_poses(p, peaks.angles_deg, peaks.shifts_px, peaks.references))
