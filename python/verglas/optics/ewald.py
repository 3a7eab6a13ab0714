r"""Depth of field: how thick a particle may be before the curvature of Ewald's sphere limits the resolution.

A projection is a central slice only as far as the sphere of radius 1 / lambda is flat over the particle's depth t. Its
sag at the frequency k is lambda k^2 / 2; the contrast of what lies t / 2 above and below the focus is lost beyond

.. math:: d = \sqrt{\lambda t / 1.4}
"""

from __future__ import annotations

import numpy as np

from verglas.errors import InputError
from verglas.optics.transfer import wavelength_A


def depth_of_field_resolution_A(thickness_A: float, voltage_kV: float) -> float:
    """Finest resolution that flat slices give of a particle of this depth.

    Parameters
    ----------
    thickness_A : float
        Its extent along the beam; the diameter, of particles seen from all sides.
    voltage_kV : float

    Returns
    -------
    float
        Angstroms.

    Raises
    ------
    InputError
        A value that is not positive.

    References
    ----------
    DeRosier (2000) Ultramicroscopy 81, 83-98.

    Examples
    --------
    >>> from verglas.optics import depth_of_field_resolution_A
    >>> round(depth_of_field_resolution_A(500, 300), 2), round(depth_of_field_resolution_A(1000, 300), 2)
    (2.65, 3.75)
    """
    if not 0 < thickness_A < np.inf:
        raise InputError(f"depth of field: expected a positive thickness_A, got {thickness_A}")
    return float(np.sqrt(wavelength_A(voltage_kV) * thickness_A / 1.4))


def depth_of_field_sentence(diameter_A: float, voltage_kV: float, finest_A: float, *, corrected: bool = False) -> str:
    """Whether Ewald's sphere matters for particles of a diameter up to a resolution.

    Examples
    --------
    >>> from verglas.optics import depth_of_field_sentence
    >>> depth_of_field_sentence(600, 300, 2.2)
    'depth of field: particles of 600 A at 300 kV are limited to 2.90 A by the curvature of the Ewald sphere, which is \
not corrected (--ewald does); data reach to 2.20 A'
    >>> depth_of_field_sentence(150, 300, 2.2)
    'depth of field: does not matter (150 A at 300 kV: 1.45 A; data reach to 2.20 A)'
    """
    limit = depth_of_field_resolution_A(diameter_A, voltage_kV)
    if limit > finest_A:
        fate = "corrected once poses are continuous" if corrected else "not corrected (--ewald does)"
        return (
            f"depth of field: particles of {diameter_A:.0f} A at {voltage_kV:.0f} kV are limited to {limit:.2f} A by "
            f"the curvature of the Ewald sphere, which is {fate}; data reach to {finest_A:.2f} A"
        )
    return (
        f"depth of field: does not matter ({diameter_A:.0f} A at {voltage_kV:.0f} kV: {limit:.2f} A; data reach to "
        f"{finest_A:.2f} A)"
    )
