"""From ``device="cuda:N"`` to a CuPy device and arrays: CuPy owns the memory, the kernels take its pointers.

Nothing here is imported before a caller names a CUDA device, and nothing falls back to the CPU in silence: each reason
why a device cannot be used is a :class:`~verglas.errors.DeviceError` of its own.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from verglas import _native
from verglas.errors import DeviceError


def device_index(device: str) -> int:
    """Number of a device name.

    Parameters
    ----------
    device : str
        ``"cuda"`` (the first device) or ``"cuda:<number>"``.

    Raises
    ------
    DeviceError
        Any other name.

    Examples
    --------
    >>> from verglas import _cuda_arrays
    >>> _cuda_arrays.device_index("cuda:1")
    1
    """
    match = re.fullmatch(r"cuda(?::(\d+))?", device) if isinstance(device, str) else None
    if match is None:
        raise DeviceError(f"device {device!r}: expected 'cpu' or 'cuda:<number>', for example 'cuda:0'")
    return int(match[1] or 0)


def _import_cupy() -> Any:
    try:
        return importlib.import_module("cupy")
    except ImportError as error:
        raise DeviceError(
            f"CUDA devices need CuPy, which could not be imported ({error}); pip install 'verglas[cuda]'"
        ) from error


def on_device(value: Any) -> bool:
    """Whether an array lies on a CUDA device."""
    return hasattr(value, "__cuda_array_interface__")


@dataclass(frozen=True)
class CudaSession:
    """What an op needs on one device: the kernels, CuPy, the device's number."""

    kernels: Any
    cupy: Any
    index: int

    @contextmanager
    def active(self) -> Iterator[int]:
        """Makes the device current; gives the address of CuPy's current stream for the kernel call."""
        with self.cupy.cuda.Device(self.index):
            yield int(self.cupy.cuda.get_current_stream().ptr)

    def array(self, value: Any, dtype: npt.DTypeLike) -> Any:
        """C-contiguous CuPy array: as it is where it already is one on this device, a copy otherwise."""
        return self.cupy.ascontiguousarray(self.cupy.asarray(value), dtype=dtype)

    def given(self, value: Any) -> Any:
        """A device array as it is, for the kernel to check; a host array copied across; None."""
        if value is None or on_device(value):
            return value
        return self.cupy.asarray(np.ascontiguousarray(value))

    def rotations(self, matrices: npt.ArrayLike) -> Any:
        """Rotation matrices (n, 3, 3) float64 on the device.

        Those that come from the host are checked here. Checking device arrays would wait for the device: the kernels
        give NaN for what is no rotation.
        """
        if on_device(matrices):
            return matrices
        host = np.ascontiguousarray(matrices, np.float64)
        self.kernels.check_rotations(host, "matrices")
        return self.cupy.asarray(host)

    def empty(self, shape: tuple[int, ...], dtype: npt.DTypeLike) -> Any:
        """A new array, uninitialised."""
        return self.cupy.empty(shape, dtype)


def session(device: str) -> CudaSession:
    """Open a CUDA device by name.

    Parameters
    ----------
    device : str
        ``"cuda:<number>"``.

    Raises
    ------
    DeviceError
        A name that is none; verglas was built without CUDA; no driver, or one too old; no device of that number; no
        CuPy. The message says which, and what to do.
    """
    index = device_index(device)
    kernels = _native.load_cuda()
    state = kernels.state()
    count = len(state["devices"])
    if count == 0:
        raise DeviceError(f"{device}: {state['reason']}")
    if index >= count:
        offered = "cuda:0" if count == 1 else f"cuda:0 to cuda:{count - 1}"
        raise DeviceError(f"{device}: this machine has {offered}")
    return CudaSession(kernels, _import_cupy(), index)
