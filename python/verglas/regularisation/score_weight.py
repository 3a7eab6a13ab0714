r"""A weight of places for the search: where the half maps agree.

A belt of detergent, a neighbour or ice inside the solvent mask is in the references and pulls at poses. The weight of a
place is its Wiener gain over all bands k of n_k coefficients, on that of the best place,

.. math:: m(x) = \frac{\sum_k n_k G(x, k)}{\max_y \sum_k n_k G(y, k)}, \qquad w(x) = \min(1,\ m(x) / m_0)

with G the windowed FSC of the half maps (:mod:`verglas.regularisation.local`) less the standard deviation that chance
gives it, over the bands in which some place is surely beyond chance. It does not change when the halves are exchanged
and holds no phases. References are multiplied by w for the search alone; maps, FSC and solvent mask stay those of the
whole. What is left out of the references counts as noise, whose spectra are learned from the residuals.
"""

from __future__ import annotations

import numpy as np

from verglas.assessment.local_bands import interpolate_field
from verglas.regularisation.local import band_fields, prior_bands
from verglas.regularisation.protocol import HalfMaps
from verglas.types.arrays import Float32Array

_WHOLE_GAIN = 0.5  # m_0: a place with half of the best one's gain counts in full


def local_weight(given: HalfMaps) -> Float32Array | None:
    """Weight of every place, (N, N, N) float32; None where no place has a gain of its own.

    Parameters
    ----------
    given : HalfMaps
        Half maps before any regularisation, their FSC and mask.
    """
    bands = prior_bands(given)
    total = np.zeros((given.box,) * 3, np.float32)
    if len(bands) < 2:  # as for the prior: windows would hold too few voxels
        return None
    for one in band_fields(given, bands):
        if not one.own.any():  # nor will there be any in finer bands
            break
        # A shell of radius k has about k^2 coefficients, and all bands are as wide. Windows that lie outside the mask
        # see solvent alone.
        chance = min(1.0, one.band.independent(given.box) ** -0.5)
        gain = one.band.centre**2 * np.where(one.inside, np.maximum(one.correlation - chance, 0.0), 0.0)
        total += interpolate_field(gain.astype(np.float32), given.box)
    most = float(total.max())
    if not most > 0:
        return None
    return np.clip(total / (_WHOLE_GAIN * most), 0.0, 1.0).astype(np.float32)
