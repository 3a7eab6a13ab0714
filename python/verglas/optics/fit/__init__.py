"""The CTF of a micrograph, estimated from its power spectrum."""

from functools import partial

from verglas.optics.fit.estimate import CtfFit, CtfSettings, estimate_ctf
from verglas.optics.fit.ice import ice_ring

__all__ = ["CtfFit", "CtfSettings", "estimate_ctf", "ice_ring"]
__dir__ = partial(sorted, __all__)
