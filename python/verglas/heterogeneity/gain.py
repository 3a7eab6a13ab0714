"""Mean gain of held-out evidence per particle, and its standard error, where rows may share an image."""

from __future__ import annotations

import numpy as np

from verglas.types.arrays import FloatArray, IntArray


def mean_gain(gain: FloatArray, image: IntArray) -> tuple[float, float]:
    r"""Mean, and its standard error over images: rows of one image share its noise and are no independent witnesses.

    .. math:: s^2 = \frac{G}{G - 1} \frac{1}{n^2} \sum_g \Bigl(\sum_{i \in g} (x_i - \bar x)\Bigr)^2

    over G images; with one row each, the usual standard deviation over :math:`\sqrt n`.

    Parameters
    ----------
    gain : (n,) float64
        Nats of each row.
    image : (n,) int64
        Which image it is of (:func:`verglas.reconstruction.half_sets.images_of`).

    References
    ----------
    Liang and Zeger (1986) Biometrika 73, 13-22.

    Examples
    --------
    >>> import numpy as np
    >>> from verglas.heterogeneity.gain import mean_gain
    >>> x = np.array([1.0, 2.0, 4.0, 5.0])
    >>> np.allclose(mean_gain(x, np.arange(4)), (3.0, x.std(ddof=1) / 2))
    True
    >>> expanded = mean_gain(np.repeat(x, 4), np.repeat(np.arange(4), 4))
    >>> np.allclose(expanded, mean_gain(x, np.arange(4)))
    True
    """
    mean = float(gain.mean())
    of_image = np.bincount(np.unique(image, return_inverse=True)[1], gain - mean)
    count = len(of_image)
    return mean, float(np.sqrt(count / max(1, count - 1) * np.square(of_image).sum()) / len(gain))
