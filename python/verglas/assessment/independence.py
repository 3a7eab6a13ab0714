"""Whether two half maps can be independent at all: the same map twice, or one a multiple of the other, is one map."""

from __future__ import annotations

import warnings

import numpy as np
import numpy.typing as npt

from verglas.errors import InputError, VerglasWarning

# 1 minus the correlation of whole half maps: two halves of the best experiment differ by their noise, some of it beyond
# the resolution; one map written twice, on other scales or in half floats, by 1e-7.
_SAME = 1e-6
_PART = 1 << 18  # voxels


def proportional(a: npt.ArrayLike, b: npt.ArrayLike) -> bool:
    """Whether two maps are the same but for a positive scale and an offset, to the precision of half floats.

    Examples
    --------
    >>> import numpy as np
    >>> from verglas.assessment.independence import proportional
    >>> x, y = np.random.default_rng(0).normal(size=(2, 8, 8, 8))
    >>> proportional(x, 3 * x + 1), proportional(x, x + 0.01 * y)
    (True, False)
    """
    return bool(1 - _correlation(a, b) < _SAME)


def _correlation(a: npt.ArrayLike, b: npt.ArrayLike) -> float:
    """Of whole maps; NaN where one is constant. In float64 part by part: copies of a large map fill the memory."""
    arrays = [np.asarray(v).ravel() for v in (a, b)]
    means = [float(array.mean(dtype=np.float64)) for array in arrays]
    sums = np.zeros(3)
    for start in range(0, len(arrays[0]), _PART):
        x, y = (v[start : start + _PART].astype(np.float64) - mean for v, mean in zip(arrays, means, strict=True))
        sums += x @ y, x @ x, y @ y
    return float(sums[0] / np.sqrt(sums[1] * sums[2])) if sums[1] * sums[2] > 0 else np.nan


_OPPOSED = -0.3  # correlation of whole half maps: far below what noise makes of maps with a few shells


def check_pair(a: npt.ArrayLike, b: npt.ArrayLike, first: object, second: object, *, halves: bool = True) -> None:
    """Look for a map that holds nothing, or the other with its contrast turned over: their FSC would say "none".

    Parameters
    ----------
    a, b : array_like
    first, second
        How messages name them.
    halves : bool
        They are half maps, which cannot be opposed; of other maps it is warned of.

    Raises
    ------
    InputError
        One is constant, or half maps are opposed.

    Examples
    --------
    >>> import numpy as np
    >>> from verglas.assessment.independence import check_pair
    >>> x, y = np.random.default_rng(0).normal(size=(2, 8, 8, 8))
    >>> check_pair(x, y, "half1.mrc", "half2.mrc")
    >>> check_pair(x + y, -x, "half1.mrc", "half2.mrc")
    Traceback (most recent call last):
    verglas.errors.InputError: half1.mrc and half2.mrc correlate by -0.75: the contrast of one is inverted; ...
    """
    for name, array in zip((first, second), map(np.asarray, (a, b)), strict=True):
        if not np.ptp(array):  # a NaN is for others to judge
            raise InputError(f"{name} is constant, {array.flat[0]:g} everywhere; expected a density")
    correlation = _correlation(a, b)
    if correlation < _OPPOSED:
        sentence = (
            f"{first} and {second} correlate by {correlation:.2f}: the contrast of one is inverted; multiply it by -1"
        )
        if halves:
            raise InputError(sentence)
        warnings.warn(sentence, VerglasWarning, stacklevel=2)


def refuse_one_map_twice(a: npt.ArrayLike, b: npt.ArrayLike, job: str, names: str = "the half maps") -> None:
    """Raise where two half maps are one.

    Raises
    ------
    InputError
        They are identical or proportional.
    """
    if proportional(a, b):
        same = "identical" if np.array_equal(np.asarray(a), np.asarray(b)) else "proportional"
        raise InputError(
            f"{job}: {names} are {same}: an FSC of a map with itself is 1 everywhere and says nothing of its "
            "resolution; give the two half maps of independent halves of the particles"
        )
