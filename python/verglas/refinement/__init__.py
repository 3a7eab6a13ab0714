"""Maps from particles and a reference: the loop, what follows from an iteration, the schedule."""

from functools import partial

from verglas.refinement.settings import RefineSettings

__all__ = ["RefineSettings"]
__dir__ = partial(sorted, __all__)
