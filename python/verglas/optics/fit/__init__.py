"""The CTF of a micrograph, estimated from its power spectrum."""

from verglas.optics.fit.estimate import CtfFit, CtfSettings, estimate_ctf
from verglas.optics.fit.ice import ice_ring

__all__ = ["CtfFit", "CtfSettings", "estimate_ctf", "ice_ring"]
