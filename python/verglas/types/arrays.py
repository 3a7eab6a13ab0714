"""The array types that annotations use, named once."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]
IntArray = npt.NDArray[np.int64]
Float32Array = npt.NDArray[np.float32]
Complex64Array = npt.NDArray[np.complex64]
Complex128Array = npt.NDArray[np.complex128]


def host_array(value: Any) -> Array:
    """An array of NumPy, PyTorch, CuPy, xarray or whatever NumPy takes, in the memory of this process.

    Parameters
    ----------
    value : array
        Of PyTorch from any device, and out of what it differentiates; of CuPy copied from the device; of others by
        ``__array__``, or by ``__dlpack__`` where that is all they have. An array of NumPy is returned as it is.

    Examples
    --------
    >>> import numpy as np
    >>> from verglas.types.arrays import host_array
    >>> a = np.eye(2)
    >>> host_array(a) is a, host_array([[1, 2]]).shape
    (True, (1, 2))
    """
    if isinstance(value, np.ndarray):
        return value
    if hasattr(value, "detach"):
        value = value.detach().cpu()
    elif hasattr(value, "__cuda_array_interface__") and hasattr(value, "get"):
        value = value.get()
    elif hasattr(value, "__dlpack__") and not hasattr(value, "__array__"):
        return np.from_dlpack(value)
    return np.asarray(value)


P = ParamSpec("P")
R = TypeVar("R")


def any_arrays(function: Callable[P, R]) -> Callable[P, R]:
    """Let a function of arrays of NumPy take those of PyTorch, CuPy, xarray and what speaks DLPack, lists of them too.

    Examples
    --------
    >>> import numpy as np
    >>> from verglas.types.arrays import any_arrays
    >>> class Labelled:
    ...     def __array__(self, dtype=None, copy=None):
    ...         return np.arange(3.0)
    >>> Labelled.__module__ = "other_library"  # what this package defines is left as it is
    >>> type(any_arrays(lambda values: values)(Labelled()))
    <class 'numpy.ndarray'>
    """

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        return function(*map(_host_or_same, args), **{name: _host_or_same(one) for name, one in kwargs.items()})

    call.__dict__["takes_any_array"] = True  # tests ask that every public function of arrays does
    return call


def _host_or_same(value: Any) -> Any:
    if type(value) in (list, tuple) and any(map(_is_foreign, value)):
        return type(value)(map(_host_or_same, value))
    return host_array(value) if _is_foreign(value) else value


def _is_foreign(value: Any) -> bool:
    """Whether a value is an array of another library; tables and what is ours say more than their numbers."""
    if value is None or isinstance(value, (np.ndarray, np.generic, str, int, float)):
        return False
    return is_array(value) and type(value).__module__.partition(".")[0] not in ("numpy", "pandas", "verglas")


def is_array(value: Any) -> bool:
    """Whether a value is an array of NumPy, PyTorch, CuPy or xarray; sequences and plain numbers are none."""
    return isinstance(value, np.ndarray) or any(
        hasattr(value, name) for name in ("__array__", "__dlpack__", "__cuda_array_interface__", "detach")
    )
