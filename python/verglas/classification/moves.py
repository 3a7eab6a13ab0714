"""Starting points of 2D classification and changes between its iterations: seeds, grouping, refilling, centring."""

from __future__ import annotations

import numpy as np

from verglas import fourier, ops
from verglas.classification.em2d import Engine2D, Model2D, Stage, Sums
from verglas.search.grid_search import PoseGrid, SliceSums
from verglas.types.arrays import Float32Array, FloatArray, IntArray

# One shift, none; angles come with the posteriors.
_AS_THEY_LIE = PoseGrid(8, np.zeros((1, 2), np.float32))


def image_references(engine: Engine2D, rows: IntArray, sigma2: FloatArray, tau2: FloatArray) -> Float32Array:
    """What single images say of their class: the average of one image, unrotated, under the prior; (n, box, box)."""
    n, grid = len(rows), engine.grid
    plan = SliceSums(grid, n, _AS_THEY_LIE, engine.work.where)
    inv = (1 / sigma2[engine.work.group[rows]]).astype(np.float32)
    each = np.arange(n)
    plan.add(engine.batch(rows, engine.whole.get(rows), inv), ops.Posterior.from_lists(n, each, each, np.zeros(n)))
    num, den = plan.slices()
    samples = num / (den + (grid.weights / np.broadcast_to(tau2, (n, grid.n_rings)))[:, :, None])
    return ops.images_from_polar(samples, grid) * engine.geometry.mask


def subset_references(engine: Engine2D, subsets: list[IntArray], sigma2: FloatArray, tau2: FloatArray) -> Float32Array:
    """Averages of subsets of images as they lie, under the prior; (len(subsets), box, box)."""
    grid = engine.grid
    plan = SliceSums(grid, len(subsets), _AS_THEY_LIE, engine.work.where)
    for k, rows in enumerate(subsets):
        for begin in range(0, len(rows), 128):
            some = rows[begin : begin + 128]
            m = len(some)
            inv = (1 / sigma2[engine.work.group[some]]).astype(np.float32)
            where = ops.Posterior.from_lists(m, np.arange(m), np.full(m, k), np.zeros(m))
            plan.add(engine.batch(some, engine.whole.get(some), inv), where)
    num, den = plan.slices()
    samples = num / (den + (grid.weights / tau2)[:, None])
    return ops.images_from_polar(samples, grid) * engine.geometry.mask


def merging_losses(engine: Engine2D, model: Model2D, sums: Sums, stage: Stage) -> FloatArray:
    r"""Log-likelihood lost by merging each pair of classes at its best relative pose; (K, K), inf on the diagonal.

    With D the weights of the averages (one over the variance of their noise),

    .. math:: \Delta_{ab} = \frac12 \sum \frac{D_a D_b}{D_a + D_b} |A_a - A_b|^2 :

    Ward's criterion with noise in its units. Two averages of the same view differ by noise alone and lose about half
    a nat per coefficient.
    """
    k, threads = len(model), engine.work.where.threads
    grid = ops.PolarGrid(engine.geometry.box, stage.radius, diameter_px=engine.geometry.diameter_px)
    weight = (sums.denominator.sum(axis=1) / engine.grid.weights[:, None]).mean(axis=2)[:, : stage.radius]
    samples = ops.polar(model.averages, grid, threads=threads)
    power = (np.abs(samples) ** 2).mean(axis=2, dtype=np.float64) * grid.weights * grid.n_theta
    near = np.hypot(*stage.shifts_px.T) <= max(2 * stage.step_px, engine.geometry.box / 16)
    shifts = stage.shifts_px[near]
    losses = np.full((k, k), np.inf)
    plan = ops.ScorePlan(grid, stage.n_psi, n_power=1, window_nats=1e-3, max_candidates=1)
    for a in range(k - 1):
        plan.set_reference(samples[a : a + 1], log_prior=[[0.0, -np.inf]], threads=threads)
        both = weight[a] * weight[a + 1 :] / np.maximum(weight[a] + weight[a + 1 :], 1e-30)
        posterior = plan.run(
            samples[a + 1 :],
            shifts,
            inv_sigma2=np.maximum(both, 1e-30),
            log_shift=np.zeros(len(shifts)),
            log_psi=np.zeros(stage.n_psi),
            threads=threads,
        )
        loss = 0.5 * (power[a + 1 :] * both).sum(axis=1) - posterior.best_score
        losses[a, a + 1 :] = losses[a + 1 :, a] = np.maximum(loss, 0.0)
    return losses


def vanishing_losses(engine: Engine2D, model: Model2D, sums: Sums, stage: Stage) -> FloatArray:
    r"""Log-likelihood lost by giving up each class for a reference of zero, :math:`\frac12 \sum D |A|^2`; (K,)."""
    grid = ops.PolarGrid(engine.geometry.box, stage.radius, diameter_px=engine.geometry.diameter_px)
    weight = (sums.denominator.sum(axis=1) / engine.grid.weights[:, None]).mean(axis=2)[:, : stage.radius]
    power = (np.abs(ops.polar(model.averages, grid, threads=engine.work.where.threads)) ** 2).mean(
        axis=2, dtype=np.float64
    )
    return 0.5 * (power * grid.weights * grid.n_theta * weight).sum(axis=1)


def group_classes(losses: FloatArray, mass: FloatArray, n_groups: int) -> list[IntArray]:
    """Agglomerate classes to ``n_groups``, always the pair that loses least (Ward's update); lists of classes.

    Parameters
    ----------
    losses : (K, K)
        Of all pairs; the diagonal is not read.
    mass : (K,)
        Particles of each class.
    n_groups : int
        Groups to leave.

    Examples
    --------
    >>> import numpy as np
    >>> from verglas.classification.moves import group_classes
    >>> x = np.array([0.0, 0.1, 5.0, 5.2])
    >>> [g.tolist() for g in group_classes((x - x[:, None]) ** 2, np.ones(4), 2)]
    [[0, 1], [2, 3]]
    """
    d = np.array(losses, np.float64)
    np.fill_diagonal(d, np.inf)
    n = np.maximum(np.asarray(mass, np.float64), 1e-6)
    members = {i: [i] for i in range(len(n))}
    while len(members) > n_groups:
        a, b = sorted(int(i) for i in np.unravel_index(np.argmin(d), d.shape))
        others = np.array([i for i in members if i not in (a, b)], np.int64)
        total = n[a] + n[b] + n[others]
        new = ((n[a] + n[others]) * d[a, others] + (n[b] + n[others]) * d[b, others] - n[others] * d[a, b]) / total
        d[a, others] = d[others, a] = new
        d[b, :] = d[:, b] = np.inf
        n[a] += n[b]
        members[a] += members.pop(b)
    return [np.array(sorted(group)) for _, group in sorted(members.items())]


def centre_averages(averages: Float32Array) -> tuple[Float32Array, FloatArray]:
    """Averages moved so that the centre of mass of their positive density is at the origin, and the moves (x, y).

    Only density above a third of the maximum of each average counts: below lies the noise of the surround.
    """
    box = averages.shape[-1]
    n = np.arange(box) - box // 2
    top = averages.max(axis=(1, 2), keepdims=True)
    weight = np.where(averages > top / 3, averages, 0).astype(np.float64)
    total = np.maximum(weight.sum(axis=(1, 2)), 1e-30)
    moves = (
        -np.stack([(weight.sum(axis=1) * n).sum(axis=1), (weight.sum(axis=2) * n).sum(axis=1)], axis=1) / total[:, None]
    )
    moves[top[:, 0, 0] <= 0] = 0
    return move_averages(averages, moves), moves


def move_averages(averages: Float32Array, moves_px: FloatArray) -> Float32Array:
    """Averages moved by (x, y) pixels, by phases."""
    shape = averages.shape[-2:]
    spectra = fourier.forward(averages, 2, threads=1)
    return fourier.inverse(spectra * fourier.shift_phases(shape, moves_px), shape, threads=1)
