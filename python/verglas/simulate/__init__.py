"""Phantoms and atomic models to maps and particle images with a known answer."""

from verglas.simulate.density import density
from verglas.simulate.model import Model
from verglas.simulate.phantom import hinge, phantom

__all__ = ["Model", "density", "hinge", "phantom"]
