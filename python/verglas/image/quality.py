"""Images that no stage can use, and the spread of grey values that outliers do not move."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from verglas.types.arrays import any_arrays


@any_arrays
def find_unusable_images(images: npt.ArrayLike) -> dict[int, str]:
    """Images that carry no information, and why.

    Parameters
    ----------
    images : (n, y, x) array
        Real images.

    Returns
    -------
    dict of int -> str
        Number of the image (from 0) and the reason: not finite, or constant.

    Examples
    --------
    >>> import numpy as np
    >>> from verglas.image import find_unusable_images
    >>> images = np.arange(12.0).reshape(3, 2, 2)
    >>> images[1] = 7
    >>> find_unusable_images(images)
    {1: 'constant pixels'}
    """
    array = np.asarray(images)
    flat = array.reshape(len(array), int(np.prod(array.shape[1:])))  # -1 is undefined of no images
    finite = np.isfinite(flat).all(axis=1)
    reasons = {int(i): "not finite (NaN or infinity)" for i in np.flatnonzero(~finite)}
    constant = finite & (flat.min(axis=1) == flat.max(axis=1))
    reasons.update({int(i): "constant pixels" for i in np.flatnonzero(constant)})
    return reasons


@any_arrays
def robust_sigma(values: npt.ArrayLike) -> float:
    """Standard deviation from the median absolute deviation: 1.4826 times it, exact for a normal distribution.

    Where more than half of the values are equal, as in counting data, it is the plain standard deviation.
    """
    array = np.asarray(values)
    spread = float(np.median(np.abs(array - np.median(array))))
    # More than half of the values equal, as in counts: their median deviation is 0 and would make all others outliers.
    return 1.4826 * spread if spread > 0 else float(array.std())
