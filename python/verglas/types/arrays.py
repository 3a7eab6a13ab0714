"""The array types that annotations use, named once."""

from __future__ import annotations

from typing import Any

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


def is_array(value: Any) -> bool:
    """Whether a value is an array of NumPy, PyTorch, CuPy or xarray; sequences and plain numbers are none."""
    return isinstance(value, np.ndarray) or any(
        hasattr(value, name) for name in ("__array__", "__dlpack__", "__cuda_array_interface__", "detach")
    )
