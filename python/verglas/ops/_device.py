"""What every op does with its ``device`` and array arguments before the kernel sees them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from verglas._array_module import array_module, to_host
from verglas.errors import DeviceError, InputError

if TYPE_CHECKING:
    from verglas._cuda_arrays import CudaSession


def require_cpu(device: str, op: str) -> None:
    """Refuse, in one sentence, a device that the op has no kernel for."""
    if device != "cpu":
        raise DeviceError(f"ops.{op}: no kernel for device {device!r}; use device='cpu'")


def cuda_session(device: str) -> CudaSession:
    """Open a CUDA device; the module that does it is loaded only now, so that the CPU path never needs it."""
    from verglas._cuda_arrays import session

    return session(device)


def device_of(*arrays: Any) -> str:
    """Where the first of the arrays that are not None lies: ``"cpu"`` or ``"cuda:<number>"``."""
    array: Any = next((a for a in arrays if a is not None), None)
    return f"cuda:{int(array.device.id)}" if hasattr(array, "__cuda_array_interface__") else "cpu"


def as_array(value: Any, dtype: npt.DTypeLike) -> np.ndarray:
    """C-contiguous array of ``dtype``: a view where it already is one, one conversion otherwise."""
    return np.ascontiguousarray(value, dtype=dtype)


def optics_rows(params: Any, array: Callable[[Any, npt.DTypeLike], Any] = as_array) -> Any:
    """CTF parameters (n, 14) float64, as the kernels take them; rows of nine have no aberrations of fourth order."""
    rows = array(params, np.float64)
    if rows.ndim != 2 or rows.shape[1] != 9:
        return rows  # the kernel refuses what is neither
    return array(array_module(rows).pad(rows, ((0, 0), (0, 5))), np.float64)


def refuse_non_finite(array: Any, what: str, first: int = 0) -> None:
    """Refuse NaN and infinity, naming the first row that holds one; ``what`` has a place {} for its number.

    An array on a device is looked at there, and the device is waited for; inside ``cuda.active()``.
    """
    if not len(array):
        return
    good = to_host(array_module(array).isfinite(array).reshape(len(array), -1).all(axis=1))
    bad = np.flatnonzero(~good)
    if bad.size:
        more = f" (and {bad.size - 1} more)" if bad.size > 1 else ""
        raise InputError(
            f"{what.format(first + int(bad[0]))} holds values that are not finite{more}; mend or leave out"
        )


def refuse_non_finite_on(device: str, array: Any, what: str) -> None:
    """refuse_non_finite, of an array on a device, made current for it."""
    if device == "cpu":
        refuse_non_finite(array, what)
    else:
        with cuda_session(device).active():
            refuse_non_finite(array, what)
