"""What power spectra of micrographs tell: the CTF, ice, the magnification of a polycrystalline film."""

from functools import partial

from verglas.optics.fit.autoregressive import autoregressive_spectrum, enhance_spectrum
from verglas.optics.fit.estimate import CtfFit, CtfSettings, estimate_ctf
from verglas.optics.fit.ice import ice_ring
from verglas.optics.fit.polycrystal import RingMagnification, fit_ring_magnification

__all__ = [
    "CtfFit",
    "CtfSettings",
    "RingMagnification",
    "autoregressive_spectrum",
    "enhance_spectrum",
    "estimate_ctf",
    "fit_ring_magnification",
    "ice_ring",
]
__dir__ = partial(sorted, __all__)
