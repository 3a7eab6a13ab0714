r"""Maps that add up: every particle is :math:`X_i = a_i C_i P_i \sum_q z_{iq} U_q + n`, poses known.

Components (z Gaussian), classes (z one of the unit vectors) and a single map are all of this form. Here are the inner
products of images with slices that every posterior over z follows from, and the sums and equations of the maps given
the first and second moments of a z. All sums run over the full plane, and sigma^2 is E abs(n)^2 of one coefficient.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from verglas import gridding, ops
from verglas.assessment import fsc, ssnr_from_fsc
from verglas.heterogeneity.posed import PosedBatch, PosedImages
from verglas.reconstruction.accumulate import direct_grid
from verglas.reconstruction.direct import DensityWeights, grid_shells, invert
from verglas.reconstruction.sums import finish
from verglas.search import noise
from verglas.types import Map
from verglas.types.arrays import Complex64Array, Float32Array, FloatArray, IntArray

_FSC_MOST = 0.999
_RIDGE = 1e-3  # of the shell's mean weight, where nothing is known of the signal
_LEAST_NOISE = 1e-12


@dataclass(frozen=True)
class Products:
    r"""Inner products of images with slices, weighted by the noise.

    Attributes
    ----------
    batch : PosedBatch
    slices : (m, Q, pixels) complex64
        :math:`C_i P_i U_q`, each pixel times the square root of its weight over sigma^2.
    images : (m, pixels) complex64
        Likewise.
    gram : (m, Q, Q) float64
        :math:`\mathrm{Re} \sum_k \bar G_q G_{q'} / \sigma^2`.
    cross : (m, Q) float64
        :math:`\mathrm{Re} \sum_k \bar G_q X / \sigma^2`.
    """

    batch: PosedBatch
    slices: Complex64Array
    images: Complex64Array
    gram: FloatArray
    cross: FloatArray


def products(
    posed: PosedImages, volumes: Float32Array, sigma2: FloatArray, rows: IntArray, *, most: int | None = None
) -> Iterator[Products]:
    """Inner products of these particles with slices of volumes, batch by batch.

    Parameters
    ----------
    posed : PosedImages
    volumes : (Q, N, N, N) float32
    sigma2 : (groups, radius + 1) float64
    rows : (m,) int64
    most : int, optional
        Images at a time, where slices of many volumes would not fit.
    """
    grid = ops.Grid(posed.box, max_radius=posed.radius)
    spectra = [gridding.to_grid(v, grid, threads=posed.threads) for v in volumes]
    for batch in posed.batches(rows, sigma2, most):
        root = np.sqrt(batch.shell_weight[:, posed.pixel_shells] * posed.pixel_weights.astype(np.float32))
        slices = np.empty((len(batch), len(spectra), len(posed.pixels)), np.complex64)
        for q, spectrum in enumerate(spectra):
            made = ops.project(
                spectrum,
                grid,
                batch.matrices,
                shifts_px=batch.shifts_px,
                ctf=batch.ctf,
                threads=posed.threads,
            )
            slices[:, q] = made.reshape(len(batch), -1)[:, posed.pixels] * root
        images = np.ascontiguousarray(batch.images.reshape(len(batch), -1)[:, posed.pixels] * root)
        # Real and imaginary parts side by side: the real part of an inner product is a plain one.
        g, x = slices.view(np.float32), images.view(np.float32)
        gram = np.matmul(g, g.transpose(0, 2, 1)).astype(np.float64)
        cross = np.matmul(g, x[:, :, None])[:, :, 0].astype(np.float64)
        yield Products(batch, slices, images, gram, cross)


@dataclass
class LinearSums:
    """What the maps of a half set are solved from.

    Attributes
    ----------
    values : list of GridSums
        One per map: sums of first moments times C X / sigma^2, with the diagonal weights.
    mixed : dict
        (q, q') with q < q' -> weights of the second moment of both.
    squared : (groups, radius + 1) float64
        Expected squared residuals, a full-plane sum per shell.
    coefficients : (groups, radius + 1) float64
        How many coefficients they come from.
    """

    values: list[ops.GridSums]
    mixed: dict[tuple[int, int], ops.GridSums]
    squared: FloatArray
    coefficients: FloatArray

    @classmethod
    def zeros(cls, posed: PosedImages, n_maps: int, *, mixed: bool) -> LinearSums:
        """Empty sums; ``mixed`` if second moments of two maps are not zero."""
        grid = direct_grid(posed.box, posed.radius)
        pairs = [(p, q) for q in range(n_maps) for p in range(q)] if mixed else []
        shape = (posed.n_groups, posed.radius + 1)
        return cls(
            [ops.GridSums.zeros(grid) for _ in range(n_maps)],
            {pair: ops.GridSums.zeros(grid, values=False) for pair in pairs},
            np.zeros(shape),
            np.zeros(shape),
        )

    def add(
        self, posed: PosedImages, batch: PosedBatch, first: FloatArray, second: FloatArray, radii: list[int]
    ) -> None:
        """Insert images.

        Parameters
        ----------
        posed : PosedImages
        batch : PosedBatch
        first : (m, Q) float64
            E[a z].
        second : (m, Q, Q) float64
            E[a^2 z z'].
        radii : list of int
            Last shell inserted of each map.
        """
        for q, sums in enumerate(self.values):
            used = np.flatnonzero(second[:, q, q] > 0)
            own = second[used, q, q]
            _insert(sums, posed, batch.take(used), own, radii[q], first[used, q] / own)
        for (p, q), sums in self.mixed.items():
            _insert(sums, posed, batch, second[:, p, q], min(radii[p], radii[q]))

    def add_residuals(self, posed: PosedImages, made: Products, first: FloatArray, second: FloatArray) -> None:
        r"""Expected squared residuals of a batch.

        .. math:: E\Bigl|X - \sum_q w_q G_q\Bigr|^2 = \Bigl|X - \sum_q E[w_q] G_q\Bigr|^2
                  + \sum_{qq'} \mathrm{Cov}(w_q, w_{q'})\, \mathrm{Re}\, \bar G_q G_{q'},\quad w = a z

        Without the second term what is not known of the weights would be missing from the noise.

        Parameters
        ----------
        posed : PosedImages
        made : Products
        first, second : (m, Q), (m, Q, Q) float64
            E[w] and E[w w^T].
        """
        fitted = np.einsum("iq,iqp->ip", first.astype(np.float32), made.slices)
        power = np.square(np.abs(made.images - fitted))
        spread, vectors = np.linalg.eigh(second - first[:, :, None] * first[:, None, :])
        root = vectors * np.sqrt(np.maximum(spread, 0))[:, None, :]
        for q in range(root.shape[2]):
            part = root[:, :, q]
            if part.any():
                power += np.square(np.abs(np.einsum("iq,iqp->ip", part.astype(np.float32), made.slices)))
        group = posed.group[made.batch.rows]
        # The pixel weights are in the values already, and so is 1 / sigma^2, which is taken out again.
        of_shell = posed.shell_sums(power)
        of_shell /= made.batch.shell_weight[:, : posed.radius + 1]
        np.add.at(self.squared, group, of_shell)
        np.add.at(self.coefficients, group, np.broadcast_to(posed.shell_pixels, of_shell.shape))


def _insert(
    sums: ops.GridSums,
    posed: PosedImages,
    batch: PosedBatch,
    weight: FloatArray,
    radius: int,
    ratio: FloatArray | None = None,
) -> None:
    """Images times ``ratio``, each with its weight; without it the weights alone."""
    if not len(batch):
        return
    shell_weight = (weight[:, None] * batch.shell_weight[:, : radius + 1]).astype(np.float32)
    images = None if ratio is None else batch.images * ratio[:, None, None].astype(np.float32)
    for coset in posed.operators.cosets:
        ops.insert(
            sums,
            images,
            batch.matrices @ coset,
            max_radius=radius,
            shifts_px=batch.shifts_px,
            ctf=batch.ctf,
            shell_weight=np.ascontiguousarray(shell_weight),
            threads=posed.threads,
        )


def solve(posed: PosedImages, sums: LinearSums, ssnr: FloatArray | None) -> Float32Array:
    r"""Maps from folded sums: at every grid point :math:`(W + \Lambda) U = D`, a Q x Q system.

    Parameters
    ----------
    posed : PosedImages
    sums : LinearSums
        Folded (:func:`fold`).
    ssnr : (Q, radius + 1) float64, optional
        Prior of each map, :math:`\Lambda_q(s) = \bar w_{qq}(s) / SSNR_q(s)`; a weak ridge without.

    Returns
    -------
    (Q, N, N, N) float32
    """
    grid, n = sums.values[0].grid, len(sums.values)
    shells = grid_shells(grid)
    # Any map's: a class that has no particle in this half set must not take the others with it.
    inside = (shells <= posed.radius) & np.any([s.weights > 0 for s in sums.values if s.weights is not None], axis=0)
    of_point = shells[inside]
    count = np.maximum(np.bincount(of_point, minlength=posed.radius + 1), 1)
    system = np.zeros((len(of_point), n, n))
    right = np.zeros((len(of_point), n, 2))
    for q, each in enumerate(sums.values):
        assert each.weights is not None
        assert each.values is not None
        weights, values = each.weights[inside], each.values[inside]
        mean = np.bincount(of_point, weights, minlength=posed.radius + 1) / count
        ratio = np.full(posed.radius + 1, 1 / _RIDGE) if ssnr is None else np.maximum(ssnr[q], _RIDGE)
        # A map whose sums end earlier is zero there.
        system[:, q, q] = np.where(mean[of_point] > 0, weights + (mean / ratio)[of_point], 1.0)
        right[:, q, 0], right[:, q, 1] = values.real, values.imag
    for (p, q), each in sums.mixed.items():
        assert each.weights is not None
        system[:, p, q] = system[:, q, p] = each.weights[inside]
    solved = np.linalg.solve(system, right)
    made = np.empty((n, posed.box, posed.box, posed.box), np.float32)
    one = DensityWeights(np.ones(grid.shape), float("nan"))
    for q in range(n):
        values = np.zeros(grid.shape, np.complex128)
        values[inside] = solved[:, q, 0] + 1j * solved[:, q, 1]
        made[q] = invert(ops.GridSums(grid, values, None), one, threads=posed.threads)
        if len(posed.operators.cosets) > 1:
            made[q] = posed.operators.apply(made[q], posed.radius, threads=posed.threads)
    return made


def fold(posed: PosedImages, sums: LinearSums) -> None:
    """Add Friedel's mates and symmetrise, in place; once, after the last image."""
    sums.values = [finish(each, posed.operators, threads=posed.threads) for each in sums.values]
    sums.mixed = {pair: finish(each, posed.operators, threads=posed.threads) for pair, each in sums.mixed.items()}


def half_volumes(
    posed: PosedImages,
    halves: list[LinearSums],
    mask: Float32Array,
    *,
    T: float = 1.0,
    damped: FloatArray | None = None,
) -> tuple[list[Float32Array], FloatArray]:
    """Regularised maps of both halves, each from its own sums, and the FSC between them before regularisation.

    Parameters
    ----------
    posed : PosedImages
    halves : list of LinearSums
        Two, folded.
    mask : (N, N, N) or (Q, N, N, N) float32
        Of the maps and of the FSC.
    T : float
        Factor of the prior's variance.
    damped : (Q,) float64, optional
        Power of the factor by which regularisation makes each map smaller that is let stand: 1 (the default), or less.

    Returns
    -------
    list of (Q, N, N, N) float32, (Q, radius + 1) float64
    """
    raw = [solve(posed, s, None) * mask for s in halves]
    curves = np.stack([half_curve(posed, a, b) for a, b in zip(*raw, strict=True)])
    ssnr = T * np.stack([ssnr_from_fsc(np.clip(c, 0, _FSC_MOST)) for c in curves])
    made = [solve(posed, s, ssnr) * mask for s in halves]
    damped = np.ones(len(curves)) if damped is None else damped
    for q in np.flatnonzero(damped < 1):
        for volumes, before in zip(made, raw, strict=True):
            volumes[q] *= np.float32(_size_lost(volumes[q], before[q]) ** (1 - damped[q]))
    return made, curves


def _size_lost(volume: Float32Array, before: Float32Array) -> float:
    """Factor, not below 1, by which a regularised map comes closest to what it was before."""
    power = float(np.vdot(volume, volume))
    return max(1.0, float(np.vdot(volume, before)) / power) if power > 0 else 1.0


def half_curve(posed: PosedImages, first: Float32Array, second: Float32Array) -> FloatArray:
    """FSC of the maps of two half sets by shell; that of shell 0 is that of the next."""
    curve = np.zeros(posed.radius + 1)
    if first.any() and second.any():
        a, b = (Map(v, posed.pixel_size_A) for v in (first, second))
        curve = np.nan_to_num(fsc(a, b, threads=posed.threads).curve[: posed.radius + 1])
        curve[0] = curve[1]
    return curve


def noise_from(sums: list[LinearSums], before: FloatArray) -> FloatArray:
    """(groups, radius + 1) noise variance from squared residuals; shell 0, which is not used, that of shell 1."""
    squared, number = (np.sum([getattr(s, name) for s in sums], axis=0) for name in ("squared", "coefficients"))
    made = ops.noise_variance(squared, number, before=before)
    made[:, 0] = made[:, 1]
    return np.maximum(made, _LEAST_NOISE * made.max())


def first_noise(posed: PosedImages) -> FloatArray:
    """(groups, radius + 1): the mean power of the images, which at these signal-to-noise ratios is mostly noise.

    Shells are counted pixel by pixel here, on the coefficients that every pass uses; what follows from their power is
    :func:`verglas.search.noise.first_noise`, as for every job.
    """
    flat = np.ones((posed.n_groups, posed.radius + 1))
    total, number = np.zeros_like(flat), np.zeros_like(flat)
    for batch in posed.batches(np.arange(len(posed)), flat):
        values = batch.images.reshape(len(batch), -1)[:, posed.pixels]
        power = posed.shell_sums(np.square(np.abs(values)) * posed.pixel_weights)
        np.add.at(total, posed.group[batch.rows], power)
        np.add.at(number, posed.group[batch.rows], np.broadcast_to(posed.shell_pixels, power.shape))
    # A group may have lost all its images; its noise is then used by none.
    mean = np.where(number > 0, total, total.sum(axis=0)) / np.where(number > 0, number, number.sum(axis=0).clip(1))
    mean[:, 0] = mean[:, 1]
    return noise.first_noise(mean, job="heterogeneity")


Moments = Callable[[Products], tuple[FloatArray, FloatArray]]


def one_pass(
    posed: PosedImages,
    volumes: Float32Array,
    sigma2: FloatArray,
    rows: IntArray,
    moments: Moments,
    radii: list[int],
    *,
    mixed: bool,
) -> LinearSums:
    """Moments of these particles and the sums of their maps, folded.

    Parameters
    ----------
    posed : PosedImages
    volumes : (Q, N, N, N) float32
        Present maps.
    sigma2 : (groups, radius + 1) float64
    rows : (m,) int64
    moments : callable
        From :class:`Products` to E[a z], (m, Q), and E[a^2 z z'], (m, Q, Q).
    radii : list of int
        Last shell of each map that is made.
    mixed : bool
        Whether second moments of two maps are other than zero.
    """
    sums = LinearSums.zeros(posed, len(volumes), mixed=mixed)
    for made in products(posed, volumes, sigma2, rows):
        first, second = moments(made)
        sums.add(posed, made.batch, first, second, radii)
        sums.add_residuals(posed, made, first, second)
    fold(posed, sums)
    return sums
