"""Whether two half maps can be independent at all: the same map twice, or one a multiple of the other, is one map."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from verglas.errors import InputError

# 1 minus the correlation of whole half maps: two halves of the best experiment differ by their noise, some of it beyond
# the resolution; one map written twice, on other scales or in half floats, by 1e-7.
_SAME = 1e-6


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
    first, second = (np.asarray(v, np.float64).ravel() for v in (a, b))
    first, second = first - first.mean(), second - second.mean()
    power = float(first @ first) * float(second @ second)
    return power > 0 and bool(1 - float(first @ second) / np.sqrt(power) < _SAME)


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
