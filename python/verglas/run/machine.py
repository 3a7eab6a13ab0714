"""What this installation and this machine offer: devices, instruction sets, versions."""

from __future__ import annotations

import os
import platform
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from verglas import _native
from verglas._version import __version__
from verglas.errors import DeviceError

_CUPY = ("cupy-cuda12x", "cupy-cuda13x")
_REPORTED_PACKAGES = ("numpy", "scipy", "pandas", "mrcfile", "tifffile", "gemmi", *_CUPY)


def _cuda_state() -> dict[str, Any]:
    """Driver, runtime and devices as the CUDA module sees them, or why it sees none."""
    if not _native.cuda_built():
        return {"built": False, "reason": "built without CUDA", "devices": []}
    try:
        cuda = _native.load_cuda()
    except (ImportError, DeviceError) as error:
        return {"built": True, "reason": str(error), "devices": []}
    return {"built": True, **cuda.state()}


def processor_name() -> str:
    """What the system calls the processor.

    Examples
    --------
    >>> from verglas.run.machine import processor_name
    >>> bool(processor_name())
    True
    """
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def devices() -> list[str]:
    """Devices that can be named in ``device=``.

    Returns
    -------
    list of str
        ``["cpu"]``, then ``"cuda:0"``, ... for each GPU the CUDA module can use.

    Examples
    --------
    >>> import verglas as vg
    >>> vg.devices()[0]
    'cpu'
    """
    return ["cpu", *(f"cuda:{i}" for i in range(len(_cuda_state()["devices"])))]


def allowed_memory_GB(share: float = 0.8) -> float:
    """Memory a job may plan with: a share of what the machine has or the control group allows, whichever is less.

    Examples
    --------
    >>> from verglas.run.machine import allowed_memory_GB
    >>> 0 < allowed_memory_GB(0.5) < allowed_memory_GB()
    True
    """
    total = float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    # cgroup v2, v1: "max" or a number close to 2^63 mean no limit
    for limit in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            text = Path(limit).read_text(encoding="ascii").strip()
        except OSError:
            continue
        if text.isdecimal():
            total = min(total, float(text))
    return share * total / 1e9


def _package_versions() -> dict[str, str | None]:
    versions: dict[str, str | None] = {}
    for name in _REPORTED_PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = None
    return versions


def info() -> dict[str, Any]:
    """Version, instruction set in use, threads, devices, driver and build options.

    Returns
    -------
    dict
        JSON-ready; the keys ``version``, ``isa``, ``isa_installed``, ``isa_usable``, ``threads``, ``devices``,
        ``cuda``, ``compiler``, ``python``, ``platform``, ``packages``.

    Examples
    --------
    >>> import verglas as vg
    >>> vg.info()["version"] == vg.__version__
    True
    """
    return {
        "version": __version__,
        "isa": _native.core.isa,
        "isa_installed": _native.available_levels(),
        "isa_usable": _native.usable_levels(),
        "isa_override": os.environ.get("VERGLAS_ISA"),
        "processor_level": _native.processor_level(),
        "threads": _native.default_threads(),
        "devices": devices(),
        "cuda": _cuda_state(),
        "compiler": _native.core.compiler,
        "python": sys.version.split()[0],
        "platform": platform.platform(),
        "packages": _package_versions(),
    }
