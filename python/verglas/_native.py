"""Chooses the compiled core for this processor, and the CUDA module on first use.

A wheel holds the core once per instruction-set level (``_core_v2``, ``_core_v3``, ``_core_v4``; ``_core_generic``
elsewhere), an installation from source the one of the processor it was built on, a developer build ``_core_native``.
The best that the processor runs is taken; ``VERGLAS_ISA`` (v2, v3, v4, generic, native) overrides the choice.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import os
from collections.abc import Iterator
from typing import Any

from verglas.errors import DeviceError, InputError

_LEVELS = ("v2", "v3", "v4")
# A library that cannot start the threads it is asked for ends the process (100,000 did).
_MOST_THREADS = 4096


def processor_level() -> int:
    """x86-64 psABI level this processor runs, 0 on other processors."""
    return int(importlib.import_module("verglas._cpu").x86_level())


def available_levels() -> list[str]:
    """Levels that are installed, best last, whether or not this processor runs them."""
    names = ("generic", *_LEVELS, "native")
    return [name for name in names if importlib.util.find_spec(f"verglas._core_{name}") is not None]


def usable_levels() -> list[str]:
    """Installed levels that this processor runs, best last."""
    reach = processor_level()
    return [name for name in available_levels() if name not in _LEVELS or int(name[1:]) <= reach]


def _load_core() -> Any:
    usable = usable_levels()
    wanted = os.environ.get("VERGLAS_ISA", "").strip().lower()
    if wanted:
        if wanted not in usable:
            raise ImportError(
                f"VERGLAS_ISA={wanted}: this installation on this processor offers {', '.join(usable) or 'nothing'}; "
                "unset VERGLAS_ISA or choose one of these"
            )
        return importlib.import_module(f"verglas._core_{wanted}")
    if not usable:
        raise ImportError(
            f"no verglas core for this processor (x86-64 level {processor_level()}); "
            f"installed: {', '.join(available_levels()) or 'none'}. "
            "Install it again from source on this machine (pip install --no-cache-dir --no-binary verglas verglas), "
            "or build every level (--config-settings=cmake.define.VERGLAS_ISA_LEVELS=all)"
        )
    return importlib.import_module(f"verglas._core_{usable[-1]}")


@contextlib.contextmanager
def _patient_threads() -> Iterator[None]:
    """OpenMP, loaded meanwhile, lets threads that wait sleep, unless the environment says otherwise.

    By default they spin for some milliseconds after every parallel loop, and at its end for as long as another one has
    no processor: on a machine that does anything else besides, most of a job of many short loops is spinning.
    """
    name = "OMP_WAIT_POLICY"
    if name in os.environ or "GOMP_SPINCOUNT" in os.environ:
        yield
        return
    os.environ[name] = "passive"
    try:
        yield
    finally:
        del os.environ[name]  # read once, by the library as it is loaded; programs that we start have their own


# Any: compiled modules carry no types; ops gives each kernel its typed face.
with _patient_threads():
    core: Any = _load_core()


def default_threads() -> int:
    """Threads used when the caller names none: the processors this process may run on, or fewer by OMP_NUM_THREADS."""
    affinity = getattr(os, "sched_getaffinity", None)  # not on macOS
    processors = len(affinity(0)) if affinity is not None else os.cpu_count() or 1
    wanted = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()  # a list is one number per nested level
    if wanted.isdecimal() and int(wanted) > 0:
        processors = min(processors, int(wanted))
    return max(1, processors)


def resolve_threads(threads: int | None) -> int:
    """``None`` becomes :func:`default_threads`; anything below 1 is refused, and what no machine can start."""
    if threads is None:
        return default_threads()
    if not 1 <= threads <= _MOST_THREADS:
        raise InputError(f"threads: expected 1 to {_MOST_THREADS} (--threads), got {threads}")
    return int(threads)


def cuda_built() -> bool:
    """Whether the CUDA module is part of this installation (it is not loaded by asking)."""
    return importlib.util.find_spec("verglas._cuda") is not None


def load_cuda() -> Any:
    """The CUDA module, loaded on first use."""
    if not cuda_built():
        raise DeviceError(
            "this verglas was built without CUDA: with nvcc on PATH, install it again by "
            "pip install '.[cuda]' --config-settings=cmake.define.VERGLAS_CUDA=ON, or use device='cpu'"
        )
    try:
        return importlib.import_module("verglas._cuda")
    except ImportError as error:
        raise DeviceError(
            f"the CUDA module does not load: {error}; install verglas again, or use device='cpu'"
        ) from error
