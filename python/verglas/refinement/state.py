"""What a refinement knows after an iteration: poses, half models, curves. All of it goes into a checkpoint."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from verglas.refinement.figures import Figures
from verglas.search.state import HalfModel, PoseTable
from verglas.types.arrays import FloatArray


@dataclass
class State:
    """A refinement between two iterations.

    Attributes
    ----------
    iteration : int
        Iterations done.
    poses : PoseTable
    halves : list of HalfModel
        Two.
    fsc : (classes, shells) float64
        Between half maps, in the mask in use.
    resolution_shell : float
        Where the FSC of the best class falls to 0.143.
    mask : (N, N, N) float32 or None
        Made from the map, once that is good enough.
    unimproved : int
        Iterations since the resolution last grew.
    finished : bool
        Converged.
    figures : list of Figures
        One per iteration.
    score_mask : (N, N, N) float32 or None
        What of the references is scored, in place of the mask (:mod:`verglas.refinement.score_mask`).
    """

    iteration: int
    poses: PoseTable
    halves: list[HalfModel]
    fsc: FloatArray
    resolution_shell: float
    mask: npt.NDArray[np.float32] | None = None
    unimproved: int = 0
    finished: bool = False
    figures: list[Figures] = field(default_factory=list)
    score_mask: npt.NDArray[np.float32] | None = None
