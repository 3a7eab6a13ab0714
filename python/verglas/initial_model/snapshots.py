"""A start of an ab initio reconstruction between two mini-batches, and at its end, as snapshots."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from verglas import ops
from verglas.initial_model.batch_step import BatchSums
from verglas.search.state import HalfModel, PoseTable
from verglas.types.arrays import FloatArray, IntArray
from verglas.types.snapshot import Arrays, Snapshot, from_arrays, to_arrays


@dataclass
class UnderWay:
    """A start between two mini-batches.

    Attributes
    ----------
    rng : Generator
        Of batches.
    order, at : (n,) int64, int
        The particles it learns from, shuffled; those up to ``at`` have had their turn.
    model : HalfModel
    poses : PoseTable
    curves : (classes, shells) float64
        FSC of the halves of the last batch.
    resolved : float
        Shell that they agree to.
    sums : BatchSums or None
        Running mean; None before the first batch.
    iteration : int
        The next one, from 0.
    """

    rng: np.random.Generator
    order: IntArray
    at: int
    model: HalfModel
    poses: PoseTable
    curves: FloatArray
    resolved: float
    sums: BatchSums | None = None
    iteration: int = 0


def take_snapshot(now: UnderWay, total: int) -> Snapshot:
    """Everything that :func:`restore_start` needs."""
    arrays = _common_arrays(now.model, now.poses, now.curves) | {"order": now.order}
    if now.sums is not None:
        sums = now.sums
        arrays |= {"sums.squared": sums.squared, "sums.coefficients": sums.coefficients, "sums.mass": sums.mass}
        for k, pair in enumerate(sums.grids):
            for half, grid in enumerate(pair):
                assert grid.values is not None
                assert grid.weights is not None
                arrays |= {f"values{k}.{half}": grid.values, f"weights{k}.{half}": grid.weights}
    record = {
        "finished": False,
        "iteration": now.iteration,
        "of": total,
        "at": now.at,
        "resolved": now.resolved,
        "rng": now.rng.bit_generator.state,
    }
    return Snapshot(arrays, record)


def restore_start(snapshot: Snapshot, grid: ops.Grid) -> UnderWay:
    """The start that was taken; ``grid`` is that of its sums."""
    arrays, record = snapshot.arrays, snapshot.record
    # The generator goes on where it stood: from its seed again it would repeat batches that the start has seen.
    rng = np.random.default_rng()
    rng.bit_generator.state = record["rng"]
    sums = None
    if "sums.mass" in arrays:
        pairs = [
            tuple(ops.GridSums(grid, arrays[f"values{k}.{half}"], arrays[f"weights{k}.{half}"]) for half in (0, 1))
            for k in range(len(arrays["sums.mass"]))
        ]
        sums = BatchSums(
            [(one, two) for one, two in pairs], arrays["sums.squared"], arrays["sums.coefficients"], arrays["sums.mass"]
        )
    model, poses, curves = _unpack_arrays(arrays)
    return UnderWay(
        rng, arrays["order"], record["at"], model, poses, curves, record["resolved"], sums, record["iteration"]
    )


def take_final_snapshot(model: HalfModel, poses: PoseTable, evidence: FloatArray, curves: FloatArray) -> Snapshot:
    """A start that is finished."""
    return Snapshot(_common_arrays(model, poses, curves) | {"evidence": evidence}, {"finished": True})


def restore_final(snapshot: Snapshot | None) -> tuple[HalfModel, PoseTable, FloatArray, FloatArray] | None:
    """What :func:`take_final_snapshot` took; None if it is of another moment."""
    if snapshot is None or not snapshot.record["finished"]:
        return None
    model, poses, curves = _unpack_arrays(snapshot.arrays)
    return model, poses, snapshot.arrays["evidence"], curves


def _common_arrays(model: HalfModel, poses: PoseTable, curves: FloatArray) -> Arrays:
    return to_arrays("model.", model) | to_arrays("poses.", poses) | {"curves": curves}


def _unpack_arrays(arrays: dict[str, npt.NDArray[Any]]) -> tuple[HalfModel, PoseTable, FloatArray]:
    return from_arrays(HalfModel, "model.", arrays), from_arrays(PoseTable, "poses.", arrays), arrays["curves"]
