"""CuPy's face on the host's memory, as strict as CuPy: for running device code, kernels included, without a GPU.

:func:`modules` makes ``cupy`` and ``cupyx`` to be put into ``sys.modules``. Arrays know their device; host and device
arrays do not mix, nothing turns into a NumPy array by itself, fresh memory holds NaN, and a memory limit raises
``OutOfMemoryError``. Streams are always done. Functions that are not written here are NumPy's on the arrays' memory.
"""

from __future__ import annotations

import threading
import types
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import scipy.fft

N_DEVICES = 2
TOTAL_BYTES = 4 << 30


class OutOfMemoryError(MemoryError):
    """As cupy.cuda.memory.OutOfMemoryError."""


class _State(threading.local):
    device = 0
    stream: Any = None


_state = _State()
_limit: list[int | None] = [None] * N_DEVICES
_used = [0] * N_DEVICES
_lock = threading.Lock()


def _account(array: np.ndarray, device: int) -> None:
    limit = _limit[device] or TOTAL_BYTES
    with _lock:
        if _used[device] + array.nbytes > limit:
            raise OutOfMemoryError(
                f"Out of memory allocating {array.nbytes:,} bytes (allocated so far: {_used[device]:,} bytes, "
                f"limit set to: {limit:,} bytes)."
            )
        _used[device] += array.nbytes


def _release(device: int, nbytes: int) -> None:
    with _lock:
        _used[device] -= nbytes


class DeviceArray(np.lib.mixins.NDArrayOperatorsMixin):
    """cupy.ndarray."""

    __array_priority__ = 100

    def __init__(self, memory: np.ndarray, owner: DeviceArray | None = None) -> None:
        self._memory = memory
        self._owner = owner  # a view holds what it looks at
        self._device = _state.device if owner is None else owner._device
        if owner is None:
            _account(memory, self._device)
            weakref.finalize(self, _release, self._device, memory.nbytes)

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        face = dict(self._memory.__array_interface__)
        return {
            "shape": face["shape"],
            "typestr": face["typestr"],
            "strides": face["strides"],
            "data": (face["data"][0], False),
            "version": 3,
            "stream": 1,
        }

    def __array__(self, *_: Any, **__: Any) -> np.ndarray:
        raise TypeError(
            "Implicit conversion to a NumPy array is not allowed. Please use `.get()` to construct a NumPy array "
            "explicitly."
        )

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, out: Any = None, **keywords: Any) -> Any:
        keywords = {k: _open(v) for k, v in keywords.items()}
        if out is not None:
            keywords["out"] = tuple(_open(o) for o in out)
        result = getattr(ufunc, method)(*map(_open, inputs), **keywords)
        if out is not None:
            return out[0] if len(out) == 1 else out
        return _wrap(result)

    def __array_function__(self, function: Callable, _: Any, args: tuple, keywords: dict) -> Any:
        return _wrap(function(*map(_open, args), **{k: _open(v) for k, v in keywords.items()}))

    @property
    def device(self) -> Device:
        return Device(self._device)

    @property
    def data(self) -> types.SimpleNamespace:
        return types.SimpleNamespace(ptr=self._memory.ctypes.data, device=self.device)

    def get(self, stream: Any = None, order: str = "C", out: np.ndarray | None = None) -> np.ndarray:
        if out is None:
            return np.array(self._memory, order=order)
        if out.shape != self.shape or out.dtype != self.dtype:
            raise ValueError(f"out: expected {self.dtype} {self.shape}, got {out.dtype} {out.shape}")
        out[...] = self._memory
        return out

    def set(self, host: np.ndarray, stream: Any = None) -> None:
        if not isinstance(host, np.ndarray) or host.shape != self.shape or host.dtype != self.dtype:
            raise ValueError("set: expected a NumPy array of the same shape and dtype")
        self._memory[...] = host

    def __getitem__(self, index: Any) -> Any:
        part = self._memory[_open(index)]
        return _view(part, self) if isinstance(part, np.ndarray) and part.base is not None else _wrap(np.asarray(part))

    def __setitem__(self, index: Any, value: Any) -> None:
        self._memory[_open(index)] = _open(value)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        found = getattr(self._memory, name)
        if not callable(found):
            return _view(found, self) if isinstance(found, np.ndarray) else found

        def method(*args: Any, **keywords: Any) -> Any:
            result = found(*map(_open, args), **{k: _open(v) for k, v in keywords.items()})
            if isinstance(result, np.ndarray) and np.may_share_memory(result, self._memory):
                return _view(result, self)
            return _wrap(result) if name not in {"tolist", "item"} else result

        return method

    def __setattr__(self, name: str, value: Any) -> None:
        if name in {"real", "imag"}:
            setattr(self._memory, name, _open(value))
        elif name.startswith("_"):
            super().__setattr__(name, value)
        else:
            raise AttributeError(f"'cupy.ndarray' object attribute {name!r} is not set here")

    def __len__(self) -> int:
        return len(self._memory)

    def __iter__(self) -> Iterator[Any]:
        return (self[i] for i in range(len(self)))

    def __bool__(self) -> bool:
        return bool(self._memory)

    def __int__(self) -> int:
        return int(self._memory)

    def __index__(self) -> int:
        return self._memory.__index__()

    def __float__(self) -> float:
        return float(self._memory)

    def __complex__(self) -> complex:
        return complex(self._memory)

    def __repr__(self) -> str:
        return f"{self._memory!r} on cuda:{self._device}"

    __hash__ = None  # type: ignore[assignment]


def _view(memory: np.ndarray, owner: DeviceArray) -> DeviceArray:
    return DeviceArray(memory, owner)


def _open(value: Any) -> Any:
    """The memory of a device array; NumPy arrays are refused, containers are searched."""
    if isinstance(value, DeviceArray):
        if value._device != _state.device:
            raise ValueError(
                f"Array device must be same as the current device: array device = {value._device} while "
                f"current = {_state.device}"
            )
        return value._memory
    if isinstance(value, np.ndarray) and value.ndim:
        raise TypeError(f"Unsupported type {type(value)}")
    if isinstance(value, tuple | list):
        return type(value)(map(_open, value))
    return value


def _wrap(value: Any) -> Any:
    if isinstance(value, tuple):
        return tuple(map(_wrap, value))
    if isinstance(value, list):
        return list(map(_wrap, value))
    return DeviceArray(np.array(value)) if isinstance(value, np.ndarray | np.generic) else value


class Device:
    """cupy.cuda.Device."""

    def __init__(self, device: int | None = None) -> None:
        self.id = _state.device if device is None else int(device)
        self._former: list[int] = []

    def use(self) -> None:
        if not 0 <= self.id < N_DEVICES:
            raise RuntimeError("cudaErrorInvalidDevice: invalid device ordinal")
        _state.device = self.id

    def __enter__(self) -> Device:
        self._former.append(_state.device)
        self.use()
        return self

    def __exit__(self, *_: object) -> None:
        _state.device = self._former.pop()

    def __int__(self) -> int:
        return self.id

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Device) and other.id == self.id

    __hash__ = None  # type: ignore[assignment]

    def synchronize(self) -> None:
        pass

    @property
    def compute_capability(self) -> str:
        return "80"

    @property
    def mem_info(self) -> tuple[int, int]:
        total = _limit[self.id] or TOTAL_BYTES
        return total - _used[self.id], total


class Stream:
    """cupy.cuda.Stream: work on it is done when it is asked for."""

    ptr = 0

    def __init__(
        self, null: bool = False, non_blocking: bool = False, ptds: bool = False, priority: Any = None
    ) -> None:
        self._former: list[Any] = []

    def __enter__(self) -> Stream:
        self._former.append(_state.stream)
        _state.stream = self
        return self

    def __exit__(self, *_: object) -> None:
        _state.stream = self._former.pop()

    def use(self) -> Stream:
        _state.stream = self
        return self

    def synchronize(self) -> None:
        pass

    def record(self, event: Event | None = None) -> Event:
        return event or Event()

    def wait_event(self, event: Event) -> None:
        pass

    @property
    def done(self) -> bool:
        return True


class Event:
    """cupy.cuda.Event."""

    done = True

    def __init__(self, block: bool = False, disable_timing: bool = False, interprocess: bool = False) -> None:
        pass

    def record(self, stream: Any = None) -> None:
        pass

    def synchronize(self) -> None:
        pass


class MemoryPool:
    """cupy.cuda.MemoryPool of the current device."""

    def used_bytes(self) -> int:
        return _used[_state.device]

    def total_bytes(self) -> int:
        return _used[_state.device]

    def free_bytes(self) -> int:
        return 0

    def free_all_blocks(self, stream: Any = None) -> None:
        pass

    def set_limit(self, size: int | None = None, fraction: float | None = None) -> None:
        _limit[_state.device] = size if size is not None else int(fraction * TOTAL_BYTES) if fraction else None

    def get_limit(self) -> int:
        return _limit[_state.device] or 0


@contextmanager
def memory_limit(nbytes: int, device: int = 0) -> Iterator[None]:
    """Less memory on one device, for tests of what happens then."""
    former, _limit[device] = _limit[device], nbytes
    try:
        yield
    finally:
        _limit[device] = former


def _poisoned(shape: Any, dtype: Any) -> np.ndarray:
    memory = np.empty(shape, dtype)
    memory.reshape(-1).view(np.uint8)[...] = 0xFF
    return memory


def _empty(shape: Any, dtype: Any = float, order: str = "C") -> DeviceArray:
    return DeviceArray(_poisoned(shape, dtype))


def _empty_like(a: Any, dtype: Any = None, **_: Any) -> DeviceArray:
    return _empty(a.shape, a.dtype if dtype is None else dtype)


def _array(value: Any, dtype: Any = None, copy: bool = True, **_: Any) -> DeviceArray:
    """From the host (a copy across), or of what is already on the device."""
    if isinstance(value, DeviceArray):
        memory = _open(value)
        if not copy and (dtype is None or memory.dtype == dtype):
            return value
        return DeviceArray(np.array(memory, dtype))
    if isinstance(value, list | tuple) and any(isinstance(v, DeviceArray) for v in value):
        return DeviceArray(np.array([_open(v) for v in value], dtype))
    return DeviceArray(np.array(value, dtype))


def _asarray(value: Any, dtype: Any = None, **keywords: Any) -> DeviceArray:
    return _array(value, dtype, copy=False, **keywords)


def _ascontiguousarray(value: Any, dtype: Any = None) -> DeviceArray:
    found = _asarray(value, dtype)
    return found if found.flags.c_contiguous else DeviceArray(np.ascontiguousarray(found._memory))


def _asnumpy(value: Any, stream: Any = None, order: str = "C", out: Any = None, blocking: bool = True) -> np.ndarray:
    return value.get(out=out) if isinstance(value, DeviceArray) else np.asarray(value)


def _created(name: str) -> Callable[..., DeviceArray]:
    def make(*args: Any, **keywords: Any) -> DeviceArray:
        return DeviceArray(np.array(getattr(np, name)(*map(_open, args), **keywords)))

    return make


def _function(function: Callable) -> Callable:
    def on_memory(*args: Any, out: Any = None, **keywords: Any) -> Any:
        if out is not None:
            function(*map(_open, args), out=_open(out), **keywords)
            return out
        if args and isinstance(args[0], np.ndarray | float | int) and not isinstance(args[0], bool) and len(args) == 1:
            raise TypeError(f"Unsupported type {type(args[0])}")
        return _wrap(function(*map(_open, args), **{k: _open(v) for k, v in keywords.items()}))

    return on_memory


class _Module(types.ModuleType):
    """Falls back on a module of NumPy or SciPy for what is not set."""

    def __init__(self, name: str, behind: Any, **members: Any) -> None:
        super().__init__(name)
        self.__path__: list[str] = []
        self._behind = behind
        for key, value in members.items():
            setattr(self, key, value)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or self._behind is None:
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        found = getattr(self._behind, name)
        if isinstance(found, types.ModuleType):
            return _Module(f"{self.__name__}.{name}", found)
        if isinstance(found, type) or not callable(found):
            return found
        return _function(found)


def modules() -> dict[str, types.ModuleType]:
    """``cupy``, ``cupyx`` and their submodules, by name."""
    memory = _Module("cupy.cuda.memory", None, OutOfMemoryError=OutOfMemoryError, MemoryPool=MemoryPool)
    runtime = _Module(
        "cupy.cuda.runtime",
        None,
        getDeviceCount=lambda: N_DEVICES,
        memGetInfo=lambda: Device().mem_info,
        getDevice=lambda: _state.device,
        CUDARuntimeError=type("CUDARuntimeError", (RuntimeError,), {}),
        deviceSynchronize=lambda: None,
    )
    driver = _Module("cupy.cuda.driver", None, CUDADriverError=type("CUDADriverError", (RuntimeError,), {}))
    null = Stream(null=True)
    cuda = _Module(
        "cupy.cuda",
        None,
        Device=Device,
        Stream=Stream,
        Event=Event,
        MemoryPool=MemoryPool,
        memory=memory,
        runtime=runtime,
        driver=driver,
        get_current_stream=lambda: _state.stream or null,
        get_elapsed_time=lambda start, end: 0.0,
        alloc_pinned_memory=lambda nbytes: np.empty(nbytes, np.uint8),
    )
    cuda.Stream.null = null
    fft = _Module("cupy.fft", scipy.fft)  # SciPy's keeps single precision, as CuPy's does
    cupy = _Module(
        "cupy",
        np,
        ndarray=DeviceArray,
        cuda=cuda,
        fft=fft,
        empty=_empty,
        empty_like=_empty_like,
        array=_array,
        asarray=_asarray,
        asnumpy=_asnumpy,
        ascontiguousarray=_ascontiguousarray,
        **{
            name: _created(name)
            for name in ("zeros", "ones", "full", "arange", "linspace", "eye", "zeros_like", "ones_like", "full_like")
        },
        get_default_memory_pool=MemoryPool,
        get_array_module=lambda *a: cupy if any(isinstance(x, DeviceArray) for x in a) else np,
        __version__="13.0.0",
    )
    pinned = {
        "empty_pinned": lambda shape, dtype=float: np.empty(shape, dtype),
        "zeros_pinned": lambda shape, dtype=float: np.zeros(shape, dtype),
    }
    scipy_fft = _Module("cupyx.scipy.fft", scipy.fft)
    scipy_module = _Module("cupyx.scipy", None, fft=scipy_fft)
    cupyx = _Module("cupyx", None, scipy=scipy_module, **pinned)
    found = (cupy, cuda, memory, runtime, driver, fft, cupyx, scipy_module, scipy_fft)
    return {module.__name__: module for module in found}
