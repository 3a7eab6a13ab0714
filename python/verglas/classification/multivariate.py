"""Images as vectors: covariance, eigenimages (plain and rotation-aware), correspondence analysis, clusters."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from verglas import ops
from verglas.errors import InputError
from verglas.types.arrays import FloatArray, IntArray, any_arrays
from verglas.types.display import one_line


def _pixels(images: npt.ArrayLike, mask: npt.ArrayLike | None) -> tuple[FloatArray, npt.NDArray[np.bool_]]:
    stack = np.asarray(images, np.float64)
    if stack.ndim != 3 or not len(stack):
        raise InputError(f"expected images (n, y, x), at least one, got shape {stack.shape}")
    inside = np.ones(stack.shape[1:], bool) if mask is None else np.asarray(mask) > 0.5
    if inside.shape != stack.shape[1:] or not inside.any():
        raise InputError(f"mask: expected shape {stack.shape[1:]} with pixels inside, got {inside.shape}")
    bad = np.flatnonzero(~np.isfinite(stack).all(axis=(1, 2)))
    if bad.size:
        raise InputError(f"image {bad[0]} (from 0) holds values that are not finite; leave it out")
    return stack[:, inside], inside


@any_arrays
def covariance(images: npt.ArrayLike, mask: npt.ArrayLike | None = None) -> FloatArray:
    r"""Covariance of pixels over images, :math:`\langle x y \rangle - \langle x \rangle \langle y \rangle`.

    Parameters
    ----------
    images : (n, y, x) float
        Aligned images.
    mask : (y, x), optional
        Pixels above 0.5 count; all by default.

    Returns
    -------
    (pixels, pixels) float64
        Divided by n, not n - 1.

    Examples
    --------
    >>> import numpy as np
    >>> from verglas.classification import covariance
    >>> covariance(np.array([[[1.0, 2.0]], [[3.0, 6.0]]])).tolist()
    [[1.0, 2.0], [2.0, 4.0]]
    """
    x, _ = _pixels(images, mask)
    x = x - x.mean(axis=0)
    return x.T @ x / len(x)


@one_line
@dataclass(frozen=True)
class Eigenimages:
    r"""Principal components of images: :math:`x_i = \bar{x} + \sum_k c_{ik} e_k`.

    Attributes
    ----------
    mean : (y, x) float64
    vectors : (k, y, x) float64
        Orthonormal eigenimages, zero outside the mask, by falling eigenvalue.
    eigenvalues : (k,) float64
        Variance along each.
    coefficients : (n, k) float64
        Of the images they were made from.
    total_variance : float
        Sum of all eigenvalues, those left out included.
    mask : (y, x) bool
        Pixels that count.
    """

    mean: FloatArray
    vectors: FloatArray
    eigenvalues: FloatArray
    coefficients: FloatArray
    total_variance: float
    mask: npt.NDArray[np.bool_]

    def project(self, images: npt.ArrayLike) -> FloatArray:
        """Coefficients (n, k) of other images."""
        x, _ = _pixels(images, self.mask)
        return (x - self.mean[self.mask]) @ self.vectors[:, self.mask].T

    def reconstitute(self, coefficients: npt.ArrayLike | None = None, k: int | None = None) -> FloatArray:
        r"""Images :math:`\bar{x} + \sum_{j < k} c_j e_j`, (n, y, x).

        Parameters
        ----------
        coefficients : (n, >= k), optional
            Those of the images by default.
        k : int, optional
            Eigenimages used; all by default. With all of them an image of the set comes back exactly.
        """
        c = self.coefficients if coefficients is None else np.atleast_2d(np.asarray(coefficients, np.float64))
        k = min(len(self.vectors), c.shape[1]) if k is None else int(k)
        if not 0 <= k <= min(len(self.vectors), c.shape[1]):
            raise InputError(f"reconstitute: expected k from 0 to {min(len(self.vectors), c.shape[1])}, got {k}")
        return self.mean + np.tensordot(c[:, :k], self.vectors[:k], axes=1)


@any_arrays
def eigenimages(images: npt.ArrayLike, k: int | None = None, *, mask: npt.ArrayLike | None = None) -> Eigenimages:
    """Principal component analysis of aligned images.

    Parameters
    ----------
    images : (n, y, x) float
        Aligned images.
    k : int, optional
        Components kept; all min(n, pixels) by default.
    mask : (y, x), optional
        Pixels above 0.5 count; outside, eigenimages and mean are zero.

    Returns
    -------
    Eigenimages

    Notes
    -----
    From the singular values of the centred data, exact; cost n pixels min(n, pixels). The sign of an eigenimage is
    chosen so that its largest pixel is positive.

    References
    ----------
    van Heel and Frank (1981) Ultramicroscopy 6, 187-194; Borland and van Heel (1990) J. Opt. Soc. Am. A 7, 601-610.

    Examples
    --------
    >>> import numpy as np
    >>> from verglas.classification import eigenimages
    >>> x = np.random.default_rng(0).normal(size=(5, 4, 4))
    >>> result = eigenimages(x)
    >>> bool(np.allclose(result.reconstitute(), x))
    True
    """
    x, inside = _pixels(images, mask)
    mean = x.mean(axis=0)
    u, s, vt = np.linalg.svd(x - mean, full_matrices=False)
    k = len(s) if k is None else int(k)
    if not 1 <= k <= len(s):
        raise InputError(f"eigenimages: expected k from 1 to {len(s)}, got {k}")
    # Singular vectors are known up to their sign, which LAPACK builds choose differently.
    sign = np.sign(vt[np.arange(len(vt)), np.abs(vt).argmax(axis=1)])
    sign[sign == 0] = 1
    vectors = np.zeros((k, *inside.shape))
    vectors[:, inside] = (vt * sign[:, None])[:k]
    average = np.zeros(inside.shape)
    average[inside] = mean
    variance = s**2 / len(x)
    return Eigenimages(average, vectors, variance[:k], (u * s * sign)[:, :k], float(variance.sum()), inside)


@one_line
@dataclass(frozen=True)
class SteerableEigenimages:
    r"""Principal components of images and all their rotations.

    On rings, :math:`X(r, \theta) = \sum_m a_m(r) e^{im\theta}`; rotations mix no two m, so each m has its own small
    covariance over r. Component j is :math:`u_j(r) e^{i m_j \theta}`, and turning an image by psi multiplies its
    coefficient by :math:`e^{i m_j \psi}`.

    Attributes
    ----------
    grid : PolarGrid
    mean : (n_rings,) complex128
        Rotational average of the transforms (m = 0), weighted as below.
    m : (k,) int
        Angular frequency of each component.
    radial : (k, n_rings) complex128
        u_j, orthonormal for equal m, multiplied with :math:`\sqrt{2 \pi r s}`.
    eigenvalues : (k,) float64
        By falling variance; a component with m > 0 stands for two real eigenimages of half of it each.
    """

    grid: ops.PolarGrid
    mean: npt.NDArray[np.complex128]
    m: npt.NDArray[np.int64]
    radial: npt.NDArray[np.complex128]
    eigenvalues: FloatArray

    def coefficients(self, images: npt.ArrayLike, *, threads: int | None = None) -> npt.NDArray[np.complex128]:
        """Coefficients (n, k) of images; their moduli do not change when an image is turned."""
        a = _weighted_harmonics(images, self.grid, threads)
        a[:, 0] -= self.mean
        return np.einsum("njr,jr->nj", a[:, self.m], self.radial.conj())

    def images(self) -> npt.NDArray[np.float32]:
        """The components as real images (k, box, box); for m > 0 one of the two, the other turned by 90 / m degrees."""
        theta = 2 * np.pi * np.arange(self.grid.n_theta // 2) / self.grid.n_theta
        u = self.radial / np.sqrt(2 * np.pi * self.grid.radii * self.grid.spacing)
        wave = np.exp(1j * self.m[:, None] * theta)
        # Real images have a_(-m) = (-1)^m conj(a_m).
        samples = u[:, :, None] * wave[:, None, :]
        mirror = ((-1.0) ** self.m)[:, None, None] * samples.conj()
        return ops.images_from_polar(np.where(self.m[:, None, None] > 0, samples + mirror, samples), self.grid)


def _weighted_harmonics(images: npt.ArrayLike, grid: ops.PolarGrid, threads: int | None) -> npt.NDArray[np.complex128]:
    """Harmonics (n, m, rings) whose squared moduli, doubled for m > 0, add up to the power over the plane."""
    harmonics = ops.polar_harmonics(ops.polar(images, grid, threads=threads), grid, threads=threads)
    return grid.unpack(harmonics).astype(np.complex128) * np.sqrt(2 * np.pi * grid.radii * grid.spacing)


@any_arrays
def steerable_eigenimages(
    images: npt.ArrayLike,
    k: int = 50,
    *,
    radius: int | None = None,
    diameter_px: float | None = None,
    threads: int | None = None,
) -> SteerableEigenimages:
    """Rotation-aware principal component analysis, from polar Fourier harmonics.

    The components are those of a set that holds every image at every in-plane angle, at the cost of one polar
    transform per image.

    Parameters
    ----------
    images : (n, box, box) float32
        Centred images, masked to the diameter.
    k : int
        Components kept.
    radius : int, optional
        Largest ring, Fourier pixels; half of Nyquist by default.
    diameter_px : float, optional
        Diameter of the mask the images wear; the box by default.
    threads : int, optional
        Threads; all by default.

    Returns
    -------
    SteerableEigenimages

    References
    ----------
    Zhao, Shkolnisky and Singer (2016) IEEE Trans. Comput. Imaging 2, 1-12.

    Examples
    --------
    >>> import numpy as np
    >>> from verglas.classification import steerable_eigenimages
    >>> x = np.random.default_rng(0).normal(size=(20, 16, 16)).astype(np.float32)
    >>> result = steerable_eigenimages(x, 5)
    >>> same = result.coefficients(x), result.coefficients(np.roll(np.rot90(x, axes=(1, 2)), 1, axis=1))
    >>> result.eigenvalues.shape, same[0].shape
    ((5,), (20, 5))
    """
    stack = np.ascontiguousarray(images, np.float32)
    box = stack.shape[-1]
    grid = ops.PolarGrid(box, radius or max(1, (box - 1) // 4), diameter_px=diameter_px)
    a = _weighted_harmonics(stack, grid, threads)
    mean = a[:, 0].mean(axis=0)
    a[:, 0] -= mean
    candidates: list[tuple[float, int, npt.NDArray]] = []
    for m in range(a.shape[1]):
        # Inner rings hold no harmonics of high order: their entries are zero and would only add null vectors.
        own = a[:, m, grid.first_ring[m] :]
        values, vectors = np.linalg.eigh(own.T @ own.conj() / len(own))
        for value, vector in zip(values, vectors.T, strict=True):
            whole = np.zeros(grid.n_rings, np.complex128)
            whole[grid.first_ring[m] :] = vector
            candidates.append(((1 if m == 0 else 2) * float(value), m, whole))
    # Equal variances go by m: the order may not depend on the sort.
    candidates.sort(key=lambda item: (-item[0], item[1]))
    candidates = candidates[:k]
    return SteerableEigenimages(
        grid,
        mean,
        np.array([m for _, m, _ in candidates]),
        np.stack([u for _, _, u in candidates]),
        np.array([v for v, _, _ in candidates]),
    )


@dataclass(frozen=True)
class Correspondence:
    """Correspondence analysis of a table.

    Attributes
    ----------
    rows, columns : (n, k), (p, k) float64
        Principal coordinates; Euclidean distances of rows in all dimensions are their chi-squared distances.
    inertia : (k,) float64
        Of each dimension; all together chi-squared / total.
    row_mass, column_mass : (n,), (p,)
        Shares of the total.
    """

    rows: FloatArray
    columns: FloatArray
    inertia: FloatArray
    row_mass: FloatArray
    column_mass: FloatArray


@any_arrays
def correspondence_analysis(table: npt.ArrayLike, k: int | None = None) -> Correspondence:
    r"""Correspondence analysis: singular values of the standardised residuals under the chi-squared metric.

    .. math:: S = D_r^{-1/2} (P - r c^T) D_c^{-1/2} = U \Sigma V^T, \quad F = D_r^{-1/2} U \Sigma, \quad
              G = D_c^{-1/2} V \Sigma

    with P the table over its total and r, c its margins.

    Parameters
    ----------
    table : (n, p) or (n, y, x) float
        Non-negative; images as rows of pixels. Images with negative values need a constant added first.
    k : int, optional
        Dimensions kept; all min(n, p) - 1 by default.

    Returns
    -------
    Correspondence
        Columns without mass have coordinates 0.

    Raises
    ------
    InputError
        A value is negative or not finite, or a row is all zero; the message names the row.

    References
    ----------
    Benzecri (1973) L'analyse des donnees; Greenacre (1984) Theory and applications of correspondence analysis.

    Examples
    --------
    >>> import numpy as np
    >>> from verglas.classification import correspondence_analysis
    >>> t = np.array([[10.0, 0, 5], [2, 8, 5], [1, 1, 30]])
    >>> result = correspondence_analysis(t)
    >>> expected = t.sum(1, keepdims=True) * t.sum(0) / t.sum()
    >>> bool(np.isclose(result.inertia.sum(), ((t - expected) ** 2 / expected).sum() / t.sum()))
    True
    """
    x = np.asarray(table, np.float64)
    x = x.reshape(len(x), -1)
    bad = np.flatnonzero(~(np.isfinite(x) & (x >= 0)).all(axis=1))
    if bad.size:
        raise InputError(f"correspondence_analysis: row {bad[0]} (from 0): expected finite values, none negative")
    empty = np.flatnonzero(x.sum(axis=1) == 0)
    if empty.size:
        raise InputError(f"correspondence_analysis: row {empty[0]} (from 0) is all zero; leave it out")
    p = x / x.sum()
    r, c = p.sum(axis=1), p.sum(axis=0)
    root = np.sqrt(np.where(c > 0, c, 1))
    residual = (p - np.outer(r, c)) / np.sqrt(r)[:, None] / root
    u, s, vt = np.linalg.svd(residual, full_matrices=False)
    # The margins are taken out, which costs one dimension: the last singular value is zero but for rounding.
    most = min(x.shape) - 1
    k = most if k is None else int(k)
    if not 0 <= k <= most:
        raise InputError(f"correspondence_analysis: expected k from 0 to {most}, got {k}")
    rows = u[:, :k] * s[:k] / np.sqrt(r)[:, None]
    columns = np.where((c > 0)[:, None], vt[:k].T * s[:k] / root[:, None], 0.0)
    return Correspondence(rows, columns, s[:k] ** 2, r, c)


@any_arrays
def cluster(coefficients: npt.ArrayLike, n_clusters: int, *, method: str = "kmeans", seed: int = 0) -> IntArray:
    """Clusters of points, numbered by falling size.

    Parameters
    ----------
    coefficients : (n, k) float
        Coefficients of images, say.
    n_clusters : int
    method : {"kmeans", "ward", "average", "complete"}
        k-means (ten starts), or hierarchical clustering with this linkage (scikit-learn).
    seed : int
        Of k-means.

    Returns
    -------
    (n,) int64
        0 is the largest cluster.

    Raises
    ------
    InputError
        More clusters than points, or an unknown method.

    Examples
    --------
    >>> import numpy as np
    >>> from verglas.classification import cluster
    >>> x = np.array([[0.0], [0.1], [0.2], [5.0], [5.1]])
    >>> cluster(x, 2).tolist(), cluster(x, 2, method="ward").tolist()
    ([0, 0, 0, 1, 1], [0, 0, 0, 1, 1])
    """
    x = np.asarray(coefficients, np.float64)
    if x.ndim != 2 or not 1 <= n_clusters <= len(x):
        raise InputError(f"cluster: expected points (n, k) and 1 to n clusters, got shape {x.shape} and {n_clusters}")
    from sklearn.cluster import AgglomerativeClustering, KMeans

    if method == "kmeans":
        labels = KMeans(n_clusters, n_init=10, random_state=seed).fit_predict(x)
    elif method in ("ward", "average", "complete"):
        labels = AgglomerativeClustering(n_clusters, linkage=method).fit_predict(x)
    else:
        raise InputError(f"cluster: method: expected 'kmeans', 'ward', 'average' or 'complete', got {method!r}")
    order = np.argsort(-np.bincount(labels, minlength=n_clusters), kind="stable")
    return np.argsort(order)[labels].astype(np.int64)
