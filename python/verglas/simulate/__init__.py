"""Phantoms and atomic models to maps and particle images with a known answer."""

from verglas.simulate.density import density
from verglas.simulate.model import Model
from verglas.simulate.noise import SNR, measured_snr
from verglas.simulate.phantom import hinge, phantom

__all__ = ["SNR", "Model", "density", "hinge", "measured_snr", "phantom"]
