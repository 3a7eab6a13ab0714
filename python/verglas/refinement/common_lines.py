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

from verglas import ops
from verglas.errors import InputError
from verglas.geometry import matrix_to_euler
from verglas.masks import soft_circle

FloatArray = npt.NDArray[np.float64]

_EDGE_PX = 3.0
_ROUNDS = 4  # of weighting lines by how well they fit
_FEWEST = 4
_MOST_SHARE = 0.98  # angles are sampled: even clean lines do not agree to the last digit


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
        Spacing of the angles searched, radian.
    """

    angle: FloatArray
    score: FloatArray
    step: float


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
    """

    angles_deg: FloatArray
    eigenvalues: FloatArray
    gap: float
    consistency_deg: float


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
    >>> from verglas.refinement.common_lines import sinogram
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


def find_common_lines(
    images: npt.ArrayLike, max_radius: int, *, diameter_px: float | None = None, n_theta: int = 180,
    noise_power: npt.ArrayLike | None = None, threads: int | None = None,
) -> CommonLines:  # fmt: skip
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
    n^2 n_theta^2 R / 2 multiply-adds as matrix products, one image against all later ones at a time.

    Examples
    --------
    >>> import numpy as np, verglas as vg
    >>> from verglas.refinement.common_lines import find_common_lines, synchronise
    >>> truth = vg.simulate.phantom(32, 4.0, 90.0)
    >>> p = vg.simulate.particles(truth, 40, 32, 4.0, ctf=False, shift_sd_A=0.0)
    >>> found = synchronise(find_common_lines(p.images(), 10))
    >>> found.gap > 0.3
    True
    """
    stack = np.ascontiguousarray(images, np.float32)
    if stack.ndim != 3 or len(stack) < 2:
        raise InputError(f"common lines: expected a stack of two or more images, got shape {stack.shape}")
    box, n = stack.shape[-1], len(stack)
    diameter = float(box if diameter_px is None else diameter_px)
    if diameter < box:
        stack = stack * soft_circle(box, min(diameter / 2, box / 2 - _EDGE_PX), _EDGE_PX).astype(np.float32)
    grid = ops.PolarGrid(box, max_radius, diameter_px=diameter, n_theta=n_theta)
    lines = ops.polar(stack, grid, threads=threads).transpose(0, 2, 1)  # (n, half circle, rings)
    if noise_power is None:
        noise_power = _noise_power(stack, diameter, threads)
    half = n_theta // 2
    lines, share = _principal(lines, np.broadcast_to(np.asarray(noise_power, np.float64), (max_radius,)))
    loss = ((np.abs(lines) ** 2) * (share**2 / (1 - share**2))).sum(axis=2)
    lines *= np.sqrt(2 * share / (1 - share**2)).astype(np.float32)
    real, imaginary = lines.real.copy(), lines.imag.copy()
    angle, score = np.zeros((n, n)), np.zeros((n, n))
    step = 2 * np.pi / n_theta
    for i in range(n - 1):
        later = n - i - 1
        first = real[i] @ real[i + 1 :].reshape(later * half, -1).T
        second = imaginary[i] @ imaginary[i + 1 :].reshape(later * half, -1).T
        # Line j as it is, and turned by half a turn, where its transform is conjugate.
        both = np.stack([first + second, first - second]).reshape(2, half, later, half).transpose(2, 1, 0, 3)
        both = both - loss[i][None, :, None, None] - loss[i + 1 :][:, None, None, :]
        best = both.reshape(later, -1).argmax(axis=1)
        value = np.take_along_axis(both.reshape(later, -1), best[:, None], axis=1)[:, 0]
        angle[i, i + 1 :] = best // n_theta * step
        angle[i + 1 :, i] = best % n_theta * step
        score[i, i + 1 :] = score[i + 1 :, i] = value
    return CommonLines(angle, score, step)


def _noise_power(stack: npt.NDArray[np.float32], diameter_px: float, threads: int | None) -> float:
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
    kept = share > 0.01
    made = flat @ vectors[:, kept].astype(np.float32)
    return made.reshape(*lines.shape[:2], -1).astype(np.complex64), share[kept]


def synchronise(lines: CommonLines) -> Synchronised:
    """Orientations from common lines by the eigenvectors of their matrix, lines weighted by how well they fit.

    Parameters
    ----------
    lines : CommonLines
        Of four or more images.

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
    ends = np.stack([np.cos(lines.angle), np.sin(lines.angle)], axis=-1)  # (i, j, 2): c_ij
    weight = trust = _trust(lines.score)
    first_values: FloatArray | None = None
    rotations = np.zeros((n, 3, 3))
    residual = np.zeros((n, n))
    for _ in range(_ROUNDS):
        values, vectors = _spectrum(ends, weight)
        first_values = values if first_values is None else first_values
        rotations = _rotations(vectors[:, :3].reshape(n, 2, 3))
        three = np.einsum("iab,ijb->ija", rotations[:, :, :2], ends)  # R_i c_ij
        cosine = np.clip((three * three.transpose(1, 0, 2)).sum(axis=-1), -1, 1)
        residual = np.arccos(cosine)
        width = max(2 * lines.step, float(np.median(residual[weight > 0])))
        weight = np.exp(-0.5 * (residual / width) ** 2) * trust
    assert first_values is not None
    gap = float((first_values[2] - first_values[3]) / max(first_values[2], 1e-12))
    off = ~np.eye(n, dtype=bool)
    angles = matrix_to_euler(rotations.transpose(0, 2, 1))
    return Synchronised(angles, first_values, gap, float(np.rad2deg(np.median(residual[off]))))


def _trust(score: FloatArray) -> FloatArray:
    """Weight of every pair before anything is known of the orientations: lines of a low likelihood are mostly wrong."""
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
        mixed = a[:, pairs[:, 0]] * b[:, pairs[:, 1]] + a[:, pairs[:, 1]] * b[:, pairs[:, 0]]
        return mixed * np.where(pairs[:, 0] == pairs[:, 1], 0.5, 1.0)

    system = np.concatenate([products(x, x), products(y, y), products(x, y)])
    right = np.concatenate([np.ones(2 * len(rows)), np.zeros(len(rows))])
    scale = float(np.sqrt((rows**2).sum(axis=(1, 2)).mean() / 2))
    solved = np.linalg.lstsq(system / scale**2, right, rcond=None)[0] / scale**2
    gram = np.empty((3, 3))
    gram[pairs[:, 0], pairs[:, 1]] = gram[pairs[:, 1], pairs[:, 0]] = solved
    values, vectors = np.linalg.eigh(gram)
    root = vectors * np.sqrt(np.maximum(values, 1e-3 * values.max())) @ vectors.T
    first, second = x @ root, y @ root
    made = np.stack([first, second, np.cross(first, second)], axis=2)
    u, _, vt = np.linalg.svd(made)
    fixed = u @ vt
    fixed[:, :, 2] *= np.sign(np.linalg.det(fixed))[:, None]
    return fixed


def three_orientations(angle: npt.ArrayLike) -> FloatArray:
    """Relative orientations of three images from the common lines of their pairs: angular reconstitution.

    In each image the angle between its two lines is known; the three lines are unit vectors with these angles between
    them, and two of them fix each image (van Heel 1987, Ultramicroscopy 21, 111-124).

    Parameters
    ----------
    angle : (3, 3)
        ``angle[i, j]``: angle in image i of its line with image j, radian.

    Returns
    -------
    (3, 3) float64
        rot, tilt, psi of each; up to one rotation and the hand of all.

    Raises
    ------
    InputError
        No three directions have these angles between them: a line is wrong.

    Examples
    --------
    >>> import numpy as np
    >>> from verglas.refinement.common_lines import three_orientations
    >>> three_orientations([[0, 0, np.pi / 2], [0, 0, np.pi / 2], [0, np.pi / 2, 0]]).shape
    (3, 3)
    """
    lines = np.asarray(angle, np.float64)
    ends = np.stack([np.cos(lines), np.sin(lines)], axis=-1)
    # Lines 01, 02, 12: 01 and 02 lie in image 0, 01 and 12 in image 1, 02 and 12 in image 2.
    gram = np.eye(3)
    for i, j, value in ((0, 1, ends[0, 1] @ ends[0, 2]), (0, 2, ends[1, 0] @ ends[1, 2]),
                        (1, 2, ends[2, 0] @ ends[2, 1])):  # fmt: skip
        gram[i, j] = gram[j, i] = value
    values, vectors = np.linalg.eigh(gram)
    if values[0] < -1e-3:
        raise InputError("common lines: no three directions have these angles between them; one of the lines is wrong")
    where = vectors * np.sqrt(np.maximum(values, 0))  # row: the line in space
    inside = (((0, 1), (0, 2)), ((1, 0), (1, 2)), ((2, 0), (2, 1)))
    known = ((0, 1), (0, 2), (1, 2))
    made = np.empty((3, 3, 3))
    for image in range(3):
        flat = np.stack([ends[a, b] for a, b in inside[image]])
        space = where[list(known[image])]
        if abs(np.linalg.det(flat)) < 1e-6:
            raise InputError(f"common lines: both lines of image {image} are the same; three images need distinct ones")
        columns = np.linalg.solve(flat, space).T
        u, _, vt = np.linalg.svd(columns, full_matrices=False)
        first, second = (u @ vt).T
        made[image] = np.stack([first, second, np.cross(first, second)], axis=1)
    return matrix_to_euler(made.transpose(0, 2, 1))


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
    >>> from verglas.refinement.common_lines import orientation_error_deg
    >>> a = [[10, 20, 30], [40, 50, 60], [70, 100, 20]]
    >>> bool(orientation_error_deg(a, a).max() < 1e-4)
    True
    """
    from verglas.geometry import euler_to_matrix

    truth = euler_to_matrix(truth_deg)
    flip = np.diag([1.0, 1.0, -1.0])
    errors = []
    for found in (euler_to_matrix(angles_deg), flip @ euler_to_matrix(angles_deg) @ flip):
        u, _, vt = np.linalg.svd(np.einsum("nab,nac->bc", found, truth))
        turn = u @ np.diag([1.0, 1.0, np.linalg.det(u @ vt)]) @ vt
        cosine = (np.einsum("nab,nab->n", found @ turn, truth) - 1) / 2
        errors.append(np.rad2deg(np.arccos(np.clip(cosine, -1, 1))))
    return min(errors, key=lambda e: float(e.mean()))
