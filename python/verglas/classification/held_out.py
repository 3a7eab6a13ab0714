"""Whether averages of one half of the particles say anything of the other half, which had no part in them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from verglas.classification import moves
from verglas.classification.em2d import Engine2D, Model2D, Stage, plan_stage
from verglas.types.arrays import FloatArray

_ITERATIONS = 6
_MOST_PER_HALF = 2000
_MOST_CLASSES = 10


def held_out_gain(engine: Engine2D, radius: int, shift_range_px: float, rng: np.random.Generator) -> float:
    r"""Log-likelihood that averages of one half set gain over noise on images of the other half; nats, of both ways.

    Each half is classified by itself, from its own random images; the other is then scored against its averages, poses
    and classes marginalised: :math:`\sum_i \log p(X_i | A) / p(X_i | 0)`. For images of noise the ratio has mean 1, so
    that more than g nats come with a probability of at most exp(-g) (Markov), whatever was aligned to what in making
    the averages. Noise is taken to have the power of the whole images, signal included, which only lowers the gain.
    Unlike evidence in rings beyond the search it needs no fine detail, which averages of many views have lost.

    Parameters
    ----------
    engine : Engine2D
    radius : int
        Rings used.
    shift_range_px : float
        Largest shift.
    rng : Generator
        For the choice of images.

    Returns
    -------
    float
        The mean of both ways.
    """
    stage = plan_stage(engine.geometry, radius, shift_range_px, engine.settings.step_deg)
    usable = engine.work.usable
    halves = [np.sort(rng.permutation(usable[engine.halves[usable] == h])[:_MOST_PER_HALF]) for h in (0, 1)]
    if min(len(half) for half in halves) < 4:
        return 0.0
    sigma2 = _whole_power(engine, np.concatenate(halves))
    gains = []
    for h in (0, 1):
        model = _classify(engine, halves[h], stage, sigma2, shift_range_px, rng)
        assignments, _ = engine.run(model, stage, halves[1 - h], sums=False)
        gains.append(float(assignments.log_evidence[halves[1 - h]].sum()))
    return float(np.mean(gains))


def _whole_power(engine: Engine2D, rows: npt.NDArray[np.int64]) -> FloatArray:
    """Power of masked images per group and ring, over the share of it that the mask leaves of noise."""
    total, number = np.zeros((engine.work.n_groups, engine.grid.n_rings)), np.zeros(engine.work.n_groups)
    for begin in range(0, len(rows), 128):
        some = rows[begin : begin + 128]
        np.add.at(total, engine.work.group[some], engine.whole.power(some, engine.whole.get(some)))
        np.add.at(number, engine.work.group[some], 1)
    mean = total.sum(axis=0) / number.sum()
    total = np.where(number[:, None] > 0, total / np.maximum(number, 1)[:, None], mean)
    return total / engine.share


def _classify(
    engine: Engine2D,
    rows: npt.NDArray[np.int64],
    stage: Stage,
    sigma2: FloatArray,
    shift_range_px: float,
    rng: np.random.Generator,
) -> Model2D:
    """A few iterations from averages of random thirds, aligned to nothing."""
    k = max(1, min(engine.settings.classes, _MOST_CLASSES, len(rows) // 4))
    subsets = [np.sort(rng.permutation(rows)[: max(1, len(rows) // 3)]) for _ in range(k)]
    _, tau2 = engine.spectra(rows)
    averages = moves.subset_references(engine, subsets, sigma2, tau2)
    share = -np.log(k + 1.0)
    model = Model2D(averages, np.full(k, share), share, sigma2, shift_range_px / 2, np.tile(tau2, (k, 1)))
    for _ in range(_ITERATIONS):
        _, sums = engine.run(model, stage, rows)
        assert sums is not None
        model = engine.maximise(model, sums)
        # There is always room for noise, so that an image is never worth much less than nothing.
        null = np.logaddexp(model.log_null, np.log(0.1))
        model = replace(model, sigma2=sigma2, log_null=float(null), log_share=model.log_share - np.log1p(0.1))
    total = np.logaddexp(model.log_null, np.logaddexp.reduce(model.log_share))
    return replace(model, log_null=model.log_null - total, log_share=model.log_share - total)
