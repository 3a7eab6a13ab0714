r"""Images that show like views, by what does not change when an image is turned or mirrored.

In steerable components a turn by psi multiplies coefficients by :math:`e^{im\psi}`, so that the best turn of all pairs
of images is found with one short transform each; the coefficients wear Wiener's factor of their own noise. Many of the
first neighbours are wrong where noise is strong, but wrong turns contradict each other: the matrix of
:math:`e^{i\psi_{jk}}` between neighbours (mirror images as nodes of their own) has few large eigenvalues, and images
are neighbours whose paths over all others agree (vector diffusion maps; Singer, Zhao, Shkolnisky and Hadani 2011, SIAM
J. Imaging Sci. 4, 723-759; Zhao and Singer 2014, J. Struct. Biol. 186, 153-166).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import scipy.fft
import scipy.sparse as sp
import scipy.sparse.linalg as sla

from verglas import fourier
from verglas._native import resolve_threads
from verglas.classification.multivariate import SteerableEigenimages, steerable_eigenimages
from verglas.errors import InputError
from verglas.masks import distance_from, soft_circle
from verglas.types.arrays import Float32Array, FloatArray, IntArray, any_arrays

_COMPONENTS = 200
_EDGE_PX = 2.0
_NOISE_IMAGES = 200
_BLOCK_BYTES = 64 << 20
_FIRST = 20  # neighbours of each image in the graph
_EIGENVECTORS = 24  # of the sphere of views: 3 + 5 + 7 + 9
_POWER = 2  # of the eigenvalues: paths of twice as many steps


@dataclass(frozen=True)
class ViewNeighbours:
    r"""The images most alike to each image.

    Attributes
    ----------
    index : (n, k) int64
        Neighbours, the most alike first; never the image itself.
    psi_deg : (n, k) float64
        The image is its neighbour (its mirror image in x where ``mirrored``) with every harmonic m of its transform
        multiplied by :math:`e^{im\psi}`.
    mirrored : (n, k) bool
        The neighbour's view from behind is the one that is alike.
    likeness : (n, k) float64
        How well the paths between both agree, at most 1; the correlation of the denoised images without diffusion.
    """

    index: IntArray
    psi_deg: FloatArray
    mirrored: npt.NDArray[np.bool_]
    likeness: FloatArray


@any_arrays
def view_neighbours(
    images: npt.ArrayLike,
    k: int = 10,
    *,
    diameter_px: float | None = None,
    radius: int | None = None,
    diffusion: bool = True,
    threads: int | None = None,
) -> ViewNeighbours:
    """The k images whose views are most alike to each image's, whatever their in-plane angles and hands.

    Parameters
    ----------
    images : (n, box, box) float32
        Centred, not masked: what lies outside the particle tells the noise.
    k : int
        Neighbours of each.
    diameter_px : float, optional
        Of the particle; two thirds of the box by default.
    radius : int, optional
        Last ring of the transform in use; half of Nyquist by default.
    diffusion : bool
        Whether neighbours are sorted again by how well paths over other images agree.
    threads : int, optional
        Threads; all by default. The result does not depend on it.

    Returns
    -------
    ViewNeighbours

    Raises
    ------
    InputError
        Too few images for k, or no background beside the particle.

    Notes
    -----
    Cost :math:`n^2` times components and angles: for thousands of images, or class averages; not for millions.

    Examples
    --------
    >>> import verglas as vg
    >>> from verglas.classification import view_neighbours
    >>> model = vg.simulate.phantom(24, 5.0, 75.0)
    >>> p = vg.simulate.particles(model, 60, 24, 5.0, snr=5.0, ctf=False, shift_sd_A=0.0, listener=None)
    >>> view_neighbours(p.images(), 3).index.shape
    (60, 3)
    """
    stack = np.asarray(images, np.float32)
    if stack.ndim != 3 or stack.shape[1] != stack.shape[2] or not 1 <= k < len(stack):
        raise InputError(f"view_neighbours: expected square images, more than k = {k}, got shape {stack.shape}")
    box = stack.shape[-1]
    diameter = 2 * box / 3 if diameter_px is None else float(diameter_px)
    outside = distance_from((box, box)) > diameter / 2 + _EDGE_PX
    if np.count_nonzero(outside) < box:
        raise InputError(f"view_neighbours: a particle of {diameter:g} px leaves no background in a box of {box} px")
    mask = soft_circle(box, diameter / 2, _EDGE_PX)
    sigma = float(stack[:, outside].std())
    masked = (stack - stack[:, outside].mean(axis=1)[:, None, None]) * mask
    steerable = steerable_eigenimages(
        masked, _COMPONENTS, radius=radius or (box - 1) // 4, diameter_px=diameter + 2 * _EDGE_PX, threads=threads
    )
    own = steerable.coefficients(masked, threads=threads)
    other = steerable.coefficients(_mirror(masked), threads=threads)
    factor = _wiener(steerable, own, sigma, mask, threads)
    own, other = own * factor, other * factor
    if not diffusion:
        return _search(own, other, steerable.m, k, threads)
    return _diffuse(_search(own, other, steerable.m, min(max(k, _FIRST), len(stack) - 1), threads), k)


def _mirror(images: Float32Array) -> Float32Array:
    """X -> -x about pixel N // 2."""
    flipped = images[..., ::-1]
    return np.ascontiguousarray(np.roll(flipped, 1, axis=-1) if images.shape[-1] % 2 == 0 else flipped)


def _wiener(
    steerable: SteerableEigenimages, own: npt.NDArray, sigma: float, mask: Float32Array, threads: int | None
) -> FloatArray:
    """Share of the signal in the power of each component; the noise's is that of white noise under the mask."""
    white = np.random.default_rng(0).standard_normal((_NOISE_IMAGES, *mask.shape)).astype(np.float32)
    # The mean, which is taken off images, is none of the noise's.
    coefficients = steerable.coefficients(white * mask, threads=threads)
    noise = sigma**2 * np.abs(coefficients - coefficients.mean(axis=0)).__pow__(2).mean(axis=0)
    power = (np.abs(own) ** 2).mean(axis=0)
    return np.clip(1 - noise / np.maximum(power, 1e-30), 0.0, 1.0)


def _unit(c: npt.NDArray, m: IntArray) -> npt.NDArray:
    """Scaled so that an image's correlation with itself is 1; harmonics beyond 0 stand for two."""
    twice = np.where(m > 0, 2.0, 1.0)
    norm = np.sqrt((twice * np.abs(c) ** 2).sum(axis=1, keepdims=True))
    return np.sqrt(twice) * c / np.maximum(norm, 1e-30)


def _search(own: npt.NDArray, other: npt.NDArray, m: IntArray, k: int, threads: int | None) -> ViewNeighbours:
    n, orders = len(own), int(m.max()) + 1
    angles = fourier.fast_size(4 * orders)
    unit, candidates = _unit(own, m).astype(np.complex64), [_unit(c, m).astype(np.complex64) for c in (own, other)]
    step = max(1, _BLOCK_BYTES // (8 * angles * n))
    parts: list[tuple[npt.NDArray, ...]] = []
    for begin in range(0, n, step):
        rows = np.arange(begin, min(begin + step, n))
        best = [_best_turns(unit[rows], c, m, angles, threads) for c in candidates]
        value = np.concatenate([score for score, _ in best], axis=1)
        turn = np.concatenate([psi for _, psi in best], axis=1)
        parts.append(_largest(value, turn, rows, k))
    return _as_neighbours(parts, n)


def _largest(value: FloatArray, turn: FloatArray, rows: IntArray, k: int) -> tuple[npt.NDArray, ...]:
    """The k largest of (rows, 2 n), images and mirror images, with their turns."""
    n = value.shape[1] // 2
    # Neither an image nor its own mirror image is a neighbour.
    value[np.arange(len(rows)), rows] = value[np.arange(len(rows)), n + rows] = -np.inf
    # Of an image and its mirror image the better one: a neighbour counts once.
    worse = value[:, :n] < value[:, n:]
    value[:, :n][worse] = -np.inf
    value[:, n:][~worse] = -np.inf
    order = np.argsort(-value, axis=1, kind="stable")[:, :k]
    return order, np.take_along_axis(turn, order, 1), np.take_along_axis(value, order, 1)


def _as_neighbours(parts: list[tuple[npt.NDArray, ...]], n: int) -> ViewNeighbours:
    order, turn, value = (np.concatenate(p) for p in zip(*parts, strict=True))
    return ViewNeighbours(order % n, turn, order >= n, value.astype(np.float64))


def _best_turns(
    rows: npt.NDArray, candidates: npt.NDArray, m: IntArray, angles: int, threads: int | None
) -> tuple[Float32Array, FloatArray]:
    """Largest correlation over all turns, and the turn in degrees, of every row with every candidate."""
    spectrum = np.zeros((len(rows), len(candidates), angles // 2 + 1), np.complex64)
    for order in np.unique(m):
        mine = m == order
        # irfft adds both signs of an order: half of what is scaled to stand for both.
        spectrum[:, :, order] = (rows[:, mine] @ candidates[:, mine].conj().T).conj() * (0.5 if order else 1.0)
    curves = scipy.fft.irfft(spectrum, angles, axis=-1, workers=resolve_threads(threads), norm="forward")
    at = curves.argmax(axis=-1)
    return np.take_along_axis(curves, at[..., None], -1)[..., 0], at * 360.0 / angles


def _diffuse(first: ViewNeighbours, k: int) -> ViewNeighbours:
    """Neighbours by vector diffusion over the graph of the first ones."""
    n, each = first.index.shape
    rows, columns = np.repeat(np.arange(n), each), first.index.ravel()
    turn, flip = np.exp(1j * np.deg2rad(first.psi_deg.ravel())), first.mirrored.ravel()
    # Nodes n .. 2n - 1 are the mirror images, which turn the other way.
    ends = np.concatenate([columns + n * flip, columns + n * ~flip])
    values = np.concatenate([turn, turn.conj()])
    graph = sp.csr_array((values, (np.concatenate([rows, rows + n]), ends)), shape=(2 * n, 2 * n))
    graph = graph + graph.conj().T
    degree = np.sqrt(np.asarray(abs(graph).sum(axis=1)).ravel())
    scaled = sp.diags_array(1 / degree) @ graph @ sp.diags_array(1 / degree)
    count = min(_EIGENVECTORS, 2 * n - 2)
    # A start of its own: the same eigenvectors whatever ran before.
    values, vectors = sla.eigsh(scaled.tocsc(), count, which="LA", v0=np.random.default_rng(0).standard_normal(2 * n))
    embedded = vectors * np.maximum(values, 0.0) ** _POWER
    embedded = embedded / np.maximum(np.linalg.norm(embedded, axis=1, keepdims=True), 1e-30)
    parts = []
    step = max(1, _BLOCK_BYTES // (16 * 2 * n))
    for begin in range(0, n, step):
        some = np.arange(begin, min(begin + step, n))
        product = embedded[some] @ embedded.conj().T
        parts.append(_largest(np.abs(product), np.rad2deg(np.angle(product)) % 360.0, some, k))
    return _as_neighbours(parts, n)
