r"""Orientations from common lines: the transforms of two projections agree along one line through the origin.

With R_i = A_i^T the line at angle :math:`\theta_{ij}` in image i and at :math:`\theta_{ji}` in image j is the same
vector of the volume, :math:`R_i c_{ij} = R_j c_{ji}`, c = (cos, sin, 0). The 2n x 2n matrix of blocks
:math:`c_{ij} c_{ji}^T` then has three large eigenvalues, whose eigenvectors span the first two columns of all R_i
(Singer and Shkolnisky 2011, SIAM J. Imaging Sci. 4, 543-572). All pairs vote, so most lines may be wrong.
The hand is undetermined: J R_i J, J = diag(1, 1, -1), has the same lines.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import scipy.linalg
from scipy.spatial.transform import Rotation

from verglas import ops
from verglas._array_module import to_host
from verglas.errors import InputError
from verglas.geometry import euler_to_matrix, matrix_to_euler, random_orientations
from verglas.initial_model.three_images import three_orientations  # noqa: F401  its former place
from verglas.masks import soft_circle
from verglas.types.arrays import FloatArray, any_arrays
from verglas.types.display import one_line
from verglas.types.listener import Listener, phase_progress

_EDGE_PX = 3.0
_AGREE_DEG = 10.0
_ROUNDS = 4  # of weighting lines by how well they fit
_FEWEST = 4
_STEPS_DEG = (12.0, 6.0, 6.0, 3.0, 3.0, 1.5, 1.5, 0.75)  # of the moves of an orientation, sweep by sweep
_MOST_RELOCATED, _EVERYWHERE = 10, 3000  # images, and orientations each tries: about 17 degrees apart
_MOST_SHARE = 0.98  # angles are sampled: even clean lines do not agree to the last digit


@one_line
@dataclass(frozen=True)
class CommonLines:
    """The common line of every pair of images.

    Attributes
    ----------
    angle : (n, n) float64
        ``angle[i, j]`` is the angle in image i of its line with image j, radian; 0 on the diagonal.
    score : (n, n) float64
        Log-likelihood ratio of the two lines, up to a constant, symmetric; 0 on the diagonal.
    step : float
        Spacing of the angles searched, radian; the angles found lie between, by a quadratic.
    lines, loss : (n, half, depth) complex64, (n, half) float32
        What they were found from: lines in independent components, weighted (:func:`verglas.ops.common_lines`).
    """

    angle: FloatArray
    score: FloatArray
    step: float
    lines: npt.NDArray[np.complex64]
    loss: npt.NDArray[np.float32]


@dataclass(frozen=True)
class Synchronised:
    """Orientations that all common lines agree on best.

    Attributes
    ----------
    angles_deg : (n, 3) float64
        rot, tilt, psi; up to one rotation and the hand of all.
    eigenvalues : (k,) float64
        Largest eigenvalues of the normalised matrix of lines, falling, before any line was weighted; three are 1 where
        all lines are right.
    gap : float
        (third - fourth) / third eigenvalue: confidence, near 1 where lines are right, near 0 where they are noise.
    consistency_deg : float
        Median angle between the two ends R_i c_ij and R_j c_ji.
    agreeing : float
        Share of the lines found whose ends agree to 10 degrees; of random directions 0.008 do.
    """

    angles_deg: FloatArray
    eigenvalues: FloatArray
    gap: float
    consistency_deg: float
    agreeing: float


@any_arrays
def sinogram(images: npt.ArrayLike, n_theta: int = 180, *, threads: int | None = None) -> npt.NDArray[np.float32]:
    r"""Line integrals of images, from their transforms on polar lines (the projection theorem in two dimensions).

    .. math:: p_\theta(s) = \frac1N \sum_k X(k\cos\theta, k\sin\theta)\, e^{2\pi i k s/N}

    Parameters
    ----------
    images : (n, N, N) float32
    n_theta : int
        Directions on the full circle, even; those of the half circle are returned.
    threads : int, optional
        Threads; all by default.

    Returns
    -------
    (n, n_theta // 2, N) float32
        Row j: sums over lines perpendicular to (cos, sin) of :math:`2 \pi j / n_\theta`; s = 0 at sample N // 2.

    Examples
    --------
    >>> import numpy as np
    >>> from verglas.initial_model.common_lines import sinogram
    >>> image = np.zeros((1, 32, 32), np.float32); image[0, 16, 20] = 1  # x = 4
    >>> p = sinogram(image, 180)
    >>> int(p[0, 0].argmax()) - 16, int(p[0, 45].argmax()) - 16
    (4, 0)
    """
    stack = np.ascontiguousarray(images, np.float32)
    box = stack.shape[-1]
    radius = (box - 1) // 2
    grid = ops.PolarGrid(box, radius, n_theta=max(n_theta, ops.PolarGrid(box, radius).n_theta))
    if grid.n_theta != n_theta:
        raise InputError(f"sinogram: expected n_theta of {grid.n_theta} or more for a box of {box}, got {n_theta}")
    lines = np.zeros((len(stack), n_theta // 2, box // 2 + 1), np.complex64)
    lines[:, :, 0] = stack.sum(axis=(1, 2))[:, None]
    lines[:, :, 1 : radius + 1] = ops.polar(stack, grid, threads=threads).transpose(0, 2, 1)
    return np.fft.fftshift(np.fft.irfft(lines, n=box, axis=2), axes=2).astype(np.float32)


@any_arrays
def find_common_lines(
    images: npt.ArrayLike,
    max_radius: int,
    *,
    diameter_px: float | None = None,
    n_theta: int = 180,
    noise_power: npt.ArrayLike | None = None,
    device: str = "cpu",
    threads: int | None = None,
) -> CommonLines:
    r"""Search the common line of every pair of images, over all pairs of directions.

    Components x, y of two lines, of power 1 and with the share rho of the same signal, have against independent ones
    the log-likelihood ratio

    .. math:: \sum_r \frac{2 \rho_r \mathrm{Re}(x_r y_r^*) - \rho_r^2 (|x_r|^2 + |y_r|^2)}{1 - \rho_r^2} + const.

    Parameters
    ----------
    images : (n, N, N) float32
        Class averages or other images with a high signal-to-noise ratio, centred, CTF corrected.
    max_radius : int
        Last shell used.
    diameter_px : float, optional
        Images are masked by a circle of this diameter; the box by default.
    n_theta : int
        Directions on the full circle, even; 2 degrees apart by default.
    noise_power : float or (max_radius,) array, optional
        Power of the noise on each ring of the masked images; by default that of the rings next to Nyquist, as if the
        noise were white.
    threads : int, optional
        Threads; all by default.

    Returns
    -------
    CommonLines

    Notes
    -----
    n^2 n_theta^2 R / 2 multiply-adds, :func:`verglas.ops.common_lines`.

    Examples
    --------
    >>> import numpy as np, verglas as vg
    >>> from verglas.initial_model.common_lines import find_common_lines, synchronise
    >>> truth = vg.simulate.phantom(32, 4.0, 90.0)
    >>> p = vg.simulate.particles(truth, 40, 32, 4.0, ctf=False, shift_sd_A=0.0)
    >>> result = synchronise(find_common_lines(p.images(), 10))
    >>> result.gap > 0.3
    True
    """
    stack = np.ascontiguousarray(images, np.float32)
    if stack.ndim != 3 or len(stack) < 2:
        raise InputError(f"common lines: expected a stack of two or more images, got shape {stack.shape}")
    box = stack.shape[-1]
    diameter = float(box if diameter_px is None else diameter_px)
    if diameter < box:
        stack = stack * soft_circle(box, min(diameter / 2, box / 2 - _EDGE_PX), _EDGE_PX).astype(np.float32)
    grid = ops.PolarGrid(box, max_radius, diameter_px=diameter, n_theta=n_theta)
    lines = ops.polar(stack, grid, threads=threads).transpose(0, 2, 1)  # (n, half circle, rings)
    if noise_power is None:
        noise_power = noise_beyond(stack, diameter, threads)
    lines, share = _principal(lines, np.broadcast_to(np.asarray(noise_power, np.float64), (max_radius,)))
    loss = ((np.abs(lines) ** 2) * (share**2 / (1 - share**2))).sum(axis=2).astype(np.float32)
    lines *= np.sqrt(2 * share / (1 - share**2)).astype(np.float32)
    angle, score = (to_host(made) for made in ops.common_lines(lines, loss, device=device, threads=threads))
    return CommonLines(angle, score, 2 * np.pi / n_theta, lines, loss)


def noise_beyond(stack: npt.NDArray[np.float32], diameter_px: float, threads: int | None) -> float:
    """Power next to Nyquist, where white noise is alone."""
    last = (stack.shape[-1] - 1) // 2
    whole = ops.PolarGrid(stack.shape[-1], last, diameter_px=diameter_px)
    rings = ops.polar(stack[:64], whole, threads=threads)[:, -max(2, last // 5) :]
    return float((np.abs(rings) ** 2).mean())


def _principal(lines: npt.NDArray, noise: FloatArray) -> tuple[npt.NDArray[np.complex64], FloatArray]:
    """Lines in components that are independent and of power 1, and the share of the signal in each.

    All lines of a particle have something of one shape (its size); rings are correlated. In the components that
    diagonalise signal and whole at once every likelihood is a sum again. The covariance is real, because the turned
    line is the conjugate.
    """
    flat = lines.reshape(-1, lines.shape[2])
    mean = flat.real.mean(axis=0)
    flat = flat - mean
    whole = (flat.T @ flat.conj()).real.astype(np.float64) / len(flat)
    whole += np.diag(1e-3 * np.diag(whole) + 1e-12 * np.trace(whole))
    values, vectors = scipy.linalg.eigh(whole - np.diag(noise), whole)
    share = np.clip(values, 0.0, _MOST_SHARE)
    large = share > 0.01
    projection = flat @ vectors[:, large].astype(np.float32)
    return projection.reshape(*lines.shape[:2], -1).astype(np.complex64), share[large]


def synchronise(
    lines: CommonLines,
    *,
    refine: bool = True,
    threads: int | None = None,
    listener: Listener | None = None,
) -> Synchronised:
    """Orientations from common lines by the eigenvectors of their matrix, lines weighted by how well they fit.

    The lines found vote with their one best direction each, and many are wrong. In the end every orientation is
    therefore moved, one after the other and in falling steps, to where the lines that it implies with all other images
    are most likely together: no vote, the whole likelihood.

    Parameters
    ----------
    lines : CommonLines
        Of four or more images.
    refine : bool
        Whether to do the last.
    threads : int, optional
        Threads; all by default.
    listener : Listener, optional
        Is told how many of the moves of images are done.

    Returns
    -------
    Synchronised

    Raises
    ------
    InputError
        Fewer than four images.
    """
    n = len(lines.angle)
    if n < _FEWEST:
        raise InputError(f"common lines: expected {_FEWEST} or more images, got {n}; see three_orientations")
    ends = line_ends(lines)
    weight = trust = trust_of_lines(lines)
    first_values: FloatArray | None = None
    rotations = np.zeros((n, 3, 3))
    residual = np.zeros((n, n))
    for _ in range(_ROUNDS):
        values, vectors = _spectrum(ends, weight)
        first_values = values if first_values is None else first_values
        rotations = _rotations(vectors[:, :3].reshape(n, 2, 3))
        residual = line_misfit(rotations, ends)
        # Never narrower than two steps of the angles: lines cannot agree more closely than they were sampled.
        width = max(2 * lines.step, float(np.median(residual[weight > 0])))
        weight = np.exp(-0.5 * (residual / width) ** 2) * trust
    assert first_values is not None
    if refine:
        rotations = refine_rotations(lines, rotations, threads=threads, listener=listener)
    return summarise_lines(lines, rotations, first_values)


def summarise_lines(lines: CommonLines, rotations: FloatArray, eigenvalues: FloatArray | None = None) -> Synchronised:
    """How well orientations, however they were found, agree with the lines.

    Parameters
    ----------
    lines : CommonLines
    rotations : (n, 3, 3) float64
        Columns are the axes of the image and its normal.
    eigenvalues : (k,) float64, optional
        Of the matrix of lines, where they are known; they are found here without.
    """
    ends = line_ends(lines)
    values = _spectrum(ends, trust_of_lines(lines))[0] if eigenvalues is None else eigenvalues
    residual = line_misfit(rotations, ends)[~np.eye(len(ends), dtype=bool)]
    gap = float((values[2] - values[3]) / max(values[2], 1e-12))
    agreeing = float((residual < np.deg2rad(_AGREE_DEG)).mean())
    angles = matrix_to_euler(rotations.transpose(0, 2, 1))
    return Synchronised(angles, values, gap, float(np.rad2deg(np.median(residual))), agreeing)


def line_ends(lines: CommonLines) -> FloatArray:
    """Directions of all lines in their images, (i, j, 2): c_ij."""
    return np.stack([np.cos(lines.angle), np.sin(lines.angle)], axis=-1)


def refine_rotations(
    lines: CommonLines,
    rotations: FloatArray,
    *,
    threads: int | None = None,
    listener: Listener | None = None,
) -> FloatArray:
    """Orientations moved to the largest sum of scores of the lines in which their planes meet; (n, 3, 3).

    Coordinate ascent: the sum never falls. Halfway, images that the others explain worst look over all orientations.
    ``rotations`` have the axes of the image and its normal as columns.
    """
    result, rng = np.array(rotations, np.float64), np.random.default_rng(0)
    half, tell = len(_STEPS_DEG) // 2, phase_progress(listener, "averages oriented")
    for number, step_deg in enumerate(_STEPS_DEG):
        if number == half:
            everyone = np.arange(len(result))
            own = ops.common_line_scores(lines.lines, lines.loss, result, result, everyone, threads=threads)
            worst = np.argsort(own, kind="stable")[: int(np.clip(len(result) // 10, 1, _MOST_RELOCATED))]
            for i in worst:
                _relocate(lines, result, int(i), threads)
        for moved, i in enumerate(rng.permutation(len(result)), number * len(result) + 1):
            _step(lines, result, int(i), step_deg, threads)
            tell(moved, len(_STEPS_DEG) * len(result))
    return result


_GRID = np.array(np.meshgrid(*[(-1, 0, 1)] * 3)).reshape(3, -1).T
_MOVES = np.concatenate([_GRID, 2 * _GRID[np.abs(_GRID).sum(axis=1) == 1]])


def _step(lines: CommonLines, rotations: FloatArray, image: int, step_deg: float, threads: int | None) -> None:
    """The best of the turns by about a step, in place; none where it is as good to stay."""
    candidates = rotations[image] @ Rotation.from_rotvec(np.deg2rad(step_deg) * _MOVES).as_matrix()
    rows = np.full(len(candidates), image)
    value = ops.common_line_scores(lines.lines, lines.loss, rotations, candidates, rows, threads=threads)
    best = int(np.argmax(value))
    # The middle of the grid is no turn at all; it is computed anew, so that rounding cannot look like a gain.
    if value[best] > value[len(_GRID) // 2]:
        rotations[image] = candidates[best]


def _relocate(lines: CommonLines, rotations: FloatArray, image: int, threads: int | None) -> None:
    """The best of orientations everywhere, finished as far, if it is better than the present one; in place."""
    candidates = euler_to_matrix(random_orientations(_EVERYWHERE, 0))
    rows = np.full(len(candidates), image)
    value = ops.common_line_scores(lines.lines, lines.loss, rotations, candidates, rows, threads=threads)
    trial = rotations.copy()
    trial[image] = candidates[int(np.argmax(value))]
    for step_deg in _STEPS_DEG[: len(_STEPS_DEG) // 2]:
        _step(lines, trial, image, step_deg, threads)
    both = np.stack([rotations[image], trial[image]])
    value = ops.common_line_scores(lines.lines, lines.loss, rotations, both, [image, image], threads=threads)
    if value[1] > value[0]:
        rotations[image] = trial[image]


def line_misfit(rotations: FloatArray, ends: FloatArray) -> FloatArray:
    """Angle between the two ends of each line, R_i c_ij and R_j c_ji; (n, n)."""
    three = np.einsum("iab,ijb->ija", rotations[:, :, :2], ends)
    return np.arccos(np.clip((three * three.transpose(1, 0, 2)).sum(axis=-1), -1, 1))


def trust_of_lines(lines: CommonLines) -> FloatArray:
    """Weight of every pair before anything is known of the orientations: lines of a low likelihood are mostly wrong."""
    score = lines.score
    off = ~np.eye(len(score), dtype=bool)
    low, high = np.percentile(score[off], (20, 80))
    return np.where(off, np.clip((score - low) / max(high - low, 1e-12), 0.05, 1.0), 0.0)


def _spectrum(ends: FloatArray, weight: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Largest eigenvalues of the normalised matrix, falling, and eigenvectors scaled back, (2n, k).

    Where all lines are right, sum_j c_ij c_ji^T R_j^T = (sum_j c_ij c_ij^T) R_i^T: the columns wanted solve the
    generalised problem S v = D v exactly, for any number and distribution of views.
    """
    n = len(weight)
    blocks = ends[:, :, :, None] * ends.transpose(1, 0, 2)[:, :, None, :] * weight[:, :, None, None]
    own = np.einsum("ij,ija,ijb->iab", weight, ends, ends)
    own += 1e-6 * np.trace(own, axis1=1, axis2=2)[:, None, None] * np.eye(2) + 1e-12 * np.eye(2)
    values, vectors = np.linalg.eigh(own)
    root = vectors / np.sqrt(values)[:, None] @ vectors.transpose(0, 2, 1)
    blocks = np.einsum("iab,ijbc,jcd->ijad", root, blocks, root)
    matrix = blocks.transpose(0, 2, 1, 3).reshape(2 * n, 2 * n)
    values, vectors = np.linalg.eigh((matrix + matrix.T) / 2)
    order = np.argsort(-values, kind="stable")[: min(2 * n, 8)]
    scaled = root @ vectors[:, order].reshape(n, 2, -1)
    return values[order], scaled.reshape(2 * n, -1)


def _rotations(rows: FloatArray) -> FloatArray:
    """R_i from the (n, 2, 3) rows of three eigenvectors, by the linear map that makes their columns orthonormal."""
    x, y = rows[:, 0], rows[:, 1]
    pairs = np.array([(0, 0), (1, 1), (2, 2), (0, 1), (0, 2), (1, 2)])

    def products(a: FloatArray, b: FloatArray) -> FloatArray:
        cross_terms = a[:, pairs[:, 0]] * b[:, pairs[:, 1]] + a[:, pairs[:, 1]] * b[:, pairs[:, 0]]
        return cross_terms * np.where(pairs[:, 0] == pairs[:, 1], 0.5, 1.0)

    system = np.concatenate([products(x, x), products(y, y), products(x, y)])
    right = np.concatenate([np.ones(2 * len(rows)), np.zeros(len(rows))])
    # Eigenvectors shrink with n as 1 / sqrt(n): the system is solved at a scale of one, where lstsq's cut-off means
    # something.
    scale = float(np.sqrt((rows**2).sum(axis=(1, 2)).mean() / 2))
    solved = np.linalg.lstsq(system / scale**2, right, rcond=None)[0] / scale**2
    gram = np.empty((3, 3))
    gram[pairs[:, 0], pairs[:, 1]] = gram[pairs[:, 1], pairs[:, 0]] = solved
    values, vectors = np.linalg.eigh(gram)
    root = vectors * np.sqrt(np.maximum(values, 1e-3 * values.max())) @ vectors.T
    first, second = x @ root, y @ root
    matrices = np.stack([first, second, np.cross(first, second)], axis=2)
    u, _, vt = np.linalg.svd(matrices)
    orthogonal = u @ vt
    # The nearest orthogonal matrix may be a mirror; a rotation differs from it in the normal of the image only.
    orthogonal[:, :, 2] *= np.sign(np.linalg.det(orthogonal))[:, None]
    return orthogonal


def orientation_error_deg(angles_deg: npt.ArrayLike, truth_deg: npt.ArrayLike) -> FloatArray:
    """Angle of every orientation to the truth after the best common rotation, of the better hand.

    Parameters
    ----------
    angles_deg, truth_deg : (n, 3)
        rot, tilt, psi.

    Returns
    -------
    (n,) float64

    Examples
    --------
    >>> from verglas.initial_model.common_lines import orientation_error_deg
    >>> a = [[10, 20, 30], [40, 50, 60], [70, 100, 20]]
    >>> bool(orientation_error_deg(a, a).max() < 1e-4)
    True
    """
    truth = euler_to_matrix(truth_deg)
    # The hand of all orientations cannot be known from common lines: the mirror image has the same.
    flip = np.diag([1.0, 1.0, -1.0])
    errors = []
    for matrices in (euler_to_matrix(angles_deg), flip @ euler_to_matrix(angles_deg) @ flip):
        u, _, vt = np.linalg.svd(np.einsum("nab,nac->bc", matrices, truth))
        turn = u @ np.diag([1.0, 1.0, np.linalg.det(u @ vt)]) @ vt
        cosine = (np.einsum("nab,nab->n", matrices @ turn, truth) - 1) / 2
        errors.append(np.rad2deg(np.arccos(np.clip(cosine, -1, 1))))
    return min(errors, key=lambda e: float(e.mean()))
