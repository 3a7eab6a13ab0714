"""From ``device="cuda:N"`` to a CuPy device and arrays: CuPy owns the memory, the kernels take its pointers.

Nothing here is imported before a caller names a CUDA device, and nothing falls back to the CPU in silence: each reason
why a device cannot be used is a :class:`~verglas.errors.DeviceError` of its own.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from verglas import _native
from verglas._array_module import on_device
from verglas.errors import DeviceError, DeviceMemoryError


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


def architecture_for(architectures: Sequence[str], compute_capability: str) -> str | None:
    """Which of the compiled architectures runs on a GPU, None if none does.

    Machine code of ``sm_XY`` runs on compute capability X.Z with Z >= Y; ``compute_XY`` (PTX) is compiled by the driver
    for any that is not older (CUDA C++ Programming Guide, "Binary compatibility" and "PTX compatibility").

    Examples
    --------
    >>> from verglas._cuda_arrays import architecture_for
    >>> held = ["sm_80", "sm_90", "compute_90"]
    >>> [architecture_for(held, capability) for capability in ("8.6", "9.0", "12.0", "7.5")]
    ['sm_80', 'sm_90', 'compute_90', None]
    """
    major, minor = (int(part) for part in compute_capability.split("."))
    held = [(name, *divmod(int(re.sub(r"\D", "", name.split("_")[1])), 10)) for name in architectures]
    fits = [(m, n, name) for name, m, n in held if name.startswith("sm_") and m == major and n <= minor]
    fits = fits or [(m, n, name) for name, m, n in held if name.startswith("compute_") and (m, n) <= (major, minor)]
    return max(fits)[2] if fits else None


def _code_of(error: BaseException) -> int | None:
    """Number of CUDA's error inside an exception of CuPy's."""
    status = getattr(error, "status", None)
    return status if isinstance(status, int) else None


@contextmanager
def translate_errors(cupy: Any, kernels: Any, device: str) -> Iterator[None]:
    """CuPy's exceptions become DeviceErrors: which device, what happened, what to do."""
    try:
        yield
    except DeviceError:
        raise
    except cupy.cuda.memory.OutOfMemoryError as error:
        raise DeviceMemoryError(
            f"{device}: out of memory: {error}; work on fewer images at a time (--memory), use a smaller box, or end "
            "other programs on this GPU"
        ) from error
    except (cupy.cuda.runtime.CUDARuntimeError, cupy.cuda.driver.CUDADriverError) as error:
        code = _code_of(error)
        advice = "device='cpu' works without the GPU" if code is None else kernels.advice(code)
        raise DeviceError(f"{device}: {error}; {advice}") from error


@dataclass(frozen=True)
class CudaSession:
    """What an op needs on one device: the kernels, CuPy, the device's number."""

    kernels: Any
    cupy: Any
    index: int

    @contextmanager
    def active(self) -> Iterator[int]:
        """Makes the device current; gives the address of CuPy's current stream for the kernel call.

        What CuPy raises inside (no memory, a driver too old, a failed kernel) becomes a DeviceError with a remedy.
        """
        with translate_errors(self.cupy, self.kernels, f"cuda:{self.index}"), self.cupy.cuda.Device(self.index):
            yield int(self.cupy.cuda.get_current_stream().ptr)

    def array(self, value: Any, dtype: npt.DTypeLike) -> Any:
        """C-contiguous CuPy array: as it is where it already is one on this device, a copy otherwise."""
        return self.cupy.ascontiguousarray(self.cupy.asarray(value), dtype=dtype)

    def to_device_or_none(self, value: Any) -> Any:
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

    def curvatures(self, curvature: npt.ArrayLike | None, grid: Any, max_radius: int) -> Any:
        """Curvatures of slices (n,) on the host, checked there, float64 on the device: a wrong one leaves the grid."""
        if curvature is None:
            return None
        host = np.ascontiguousarray(curvature, np.float64)
        self.kernels.check_curvatures(grid.native_for(self.kernels), host, max_radius)
        return self.cupy.asarray(host)

    def empty(self, shape: tuple[int, ...], dtype: npt.DTypeLike) -> Any:
        """A new array, uninitialised."""
        return self.cupy.empty(shape, dtype)


def _refuse_unserved(device: str, gpu: Mapping[str, Any], architectures: Sequence[str]) -> None:
    """No kernel image for this GPU: said before a kernel fails."""
    capability = gpu.get("compute_capability")
    if capability is not None and architecture_for(architectures, capability) is None:
        raise DeviceError(
            f"{device}: {gpu['name']} has compute capability {capability}, this build holds code for "
            f"{', '.join(architectures)} only; install from source for it (pip install . --config-settings="
            f"cmake.define.VERGLAS_CUDA_ARCHITECTURES={capability.replace('.', '')}), or use device='cpu'"
        )


def session(device: str) -> CudaSession:
    """Open a CUDA device by name.

    Parameters
    ----------
    device : str
        ``"cuda:<number>"``.

    Raises
    ------
    DeviceError
        A name that is none; verglas was built without CUDA; no driver, or one too old; no device of that number,
        or one that this build has no code for; no CuPy. The message says which, and what to do.
    """
    index = device_index(device)
    kernels = _native.load_cuda()
    known = _opened.get((id(kernels), index))
    if known is not None and known.kernels is kernels:
        return known
    state = kernels.state()
    count = len(state["devices"])
    if count == 0:
        raise DeviceError(f"{device}: {state['reason']}")
    if index >= count:
        offered = "cuda:0" if count == 1 else f"cuda:0 to cuda:{count - 1}"
        raise DeviceError(f"{device}: this machine has {offered}")
    _refuse_unserved(device, state["devices"][index], state.get("architectures", []))
    opened = CudaSession(kernels, _import_cupy(), index)
    _opened[id(kernels), index] = opened
    return opened


# Asking the driver for its devices takes longer than a small kernel: each is asked for once.
_opened: dict[tuple[int, int], CudaSession] = {}
