r"""Junk: particles that noise alone explains better than any map.

Log evidence of a particle under maps is relative to a model without density, of which it is 0. With a share w of junk,

.. math:: p_i = (1 - w) e^{e_i} + w,\quad \gamma_i = w / p_i,\quad w = \frac1n \sum_i \gamma_i

Evidence is that of the other half set's maps: a particle that is in a map is explained by it, whatever it is.
"""

from __future__ import annotations

import numpy as np

from verglas.types.arrays import FloatArray, any_arrays

_PASSES = 50
_FIRST = 0.1
_LEAST = 1e-6


@any_arrays
def junk_posterior(evidence: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Posterior of being junk, and the log evidence with junk allowed for.

    Parameters
    ----------
    evidence : (n,) float64
        Held-out log evidence under the maps.

    Returns
    -------
    (n,), (n,) float64

    Examples
    --------
    >>> import numpy as np
    >>> from verglas.heterogeneity.junk import junk_posterior
    >>> junk, evidence = junk_posterior(np.array([30.0, 25.0, 40.0, -12.0]))
    >>> junk.round(3).tolist(), evidence.round(2).tolist()
    ([0.0, 0.0, 0.0, 1.0], [29.71, 24.71, 39.71, -1.39])
    """
    share = _FIRST
    for _ in range(_PASSES):
        together = np.logaddexp(np.log1p(-share) + evidence, np.log(share))
        junk = np.exp(np.log(share) - together)
        # Never 0 or 1: a share that has reached an end can not leave it.
        share = float(np.clip(junk.mean(), _LEAST, 1 - _LEAST))
    return junk, together
