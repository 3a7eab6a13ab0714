"""Checks of the installation, each a tiny problem with a known answer, per device; what is wrong and how to mend it."""

from __future__ import annotations

import importlib
import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from scipy.spatial.transform import Rotation

from verglas import _native, fourier, gridding, ops, reference
from verglas._cuda_arrays import architecture_for, session
from verglas._version import __version__
from verglas.errors import VerglasError
from verglas.run.machine import _cuda_state, devices

BOX = 16
PIXEL_SIZE_A = 2.0
_LITTLE_FREE = 0.25
_PARAMS = np.array([[15000, 14000, 30, 300, 2.7, 0.1, 0, 20, 1], [8000, 8200, -60, 200, 0.01, 0.07, 90, 0, 0.9]])
_DEPENDENCIES = (
    "numpy",
    "scipy",
    "pandas",
    "mrcfile",
    "tifffile",
    "imagecodecs",
    "gemmi",
    "sklearn",
    "matplotlib",
    "rich",
    "typer",
)
_REINSTALL = "install verglas again: pip install --force-reinstall --no-deps verglas (or '.' in a clone)"


@dataclass(frozen=True)
class Check:
    """One finding.

    Attributes
    ----------
    name : str
        What was checked, with the device where there are several.
    status : str
        ``"ok"``, ``"note"`` (works, but not as well as it could), ``"skipped"`` (does not apply here) or ``"failed"``.
    detail : str
        What was found.
    remedy : str
        What to do about it; empty when there is nothing to do.
    """

    name: str
    status: str
    detail: str
    remedy: str = ""


class _Broken(Exception):
    """Raised inside a check: its finding (detail) and what to do (remedy)."""

    def __init__(self, detail: str, remedy: str = "") -> None:
        super().__init__(detail)
        self.detail, self.remedy = detail, remedy


Finding = str | Check


def _require_close(what: str, error: float, limit: float, remedy: str = "") -> str:
    if not error <= limit:  # a NaN is a failure too
        raise _Broken(f"{what}: error {error:.1e}, at most {limit:.0e} expected", remedy)
    return f"{what}: error {error:.1e}"


def _packages() -> Finding:
    missing = []
    for name in _DEPENDENCIES:
        try:
            importlib.import_module(name)
        # Not ImportError alone: a package whose binary does not fit raises what it likes.
        except Exception as error:
            missing.append(f"{name} ({type(error).__name__}: {error})")
    if missing:
        raise _Broken(f"cannot import {', '.join(missing)}", "pip install --upgrade verglas; pip check names conflicts")
    return f"{len(_DEPENDENCIES)} packages import"


def _core() -> Finding:
    core, usable = _native.core, _native.usable_levels()
    if core.version != __version__:
        raise _Broken(f"the compiled core is of version {core.version}, the Python files of {__version__}", _REINSTALL)
    text = f"{core.isa} of {', '.join(usable)}; compiler {core.compiler}"
    if core.isa != usable[-1]:
        return Check("", "note", text, "unset VERGLAS_ISA: a better build of the core is installed")
    reach = _native.processor_level()
    if reach and f"v{reach}" not in usable and "native" not in usable:
        return Check("", "note", f"{text}; the processor runs v{reach}", "build from source for the fastest kernels")
    return text


def _processor_quota() -> float | None:
    """Processors that the container may use (cgroup version 2), None without a limit."""
    path = Path("/sys/fs/cgroup/cpu.max")
    if not path.is_file():
        return None
    quota, _, period = path.read_text(encoding="ascii").strip().partition(" ")
    return None if quota == "max" else float(quota) / float(period or 100000)


def _threads() -> Finding:
    asks = _native.default_threads()
    count = int(_native.core.threads_used(asks))
    text = f"OpenMP starts {count} of {asks}"
    if count < asks:
        limits = {k: v for k, v in os.environ.items() if k in ("OMP_THREAD_LIMIT", "OMP_DYNAMIC")}
        return Check("", "note", f"{text} ({limits or 'a limit of the system'})", "unset the limit to use all")
    quota = _processor_quota()
    if quota is not None and quota < asks - 0.5:
        remedy = f"pass threads={max(1, round(quota))} (--threads on the command line), or raise the limit"
        return Check("", "note", f"{text}, but this container may use {quota:g} processors", remedy)
    return text


def _scratch() -> Finding:
    folder = Path(tempfile.gettempdir())
    try:
        with tempfile.NamedTemporaryFile(dir=folder, prefix="verglas-doctor-") as handle:
            handle.write(b"0" * 4096)
            handle.flush()
        free = shutil.disk_usage(folder).free
    except OSError as error:
        raise _Broken(f"cannot write in {folder}: {error}", "point TMPDIR at a folder you may write in") from error
    if free < 1 << 30:
        return Check("", "note", f"{folder}: {free / 1e9:.2f} GB free", "free some space, or point TMPDIR elsewhere")
    return f"{folder}: writable, {free / 1e9:.0f} GB free"


def _working_folder() -> Finding:
    folder = Path.cwd()
    if not os.access(folder, os.W_OK):
        return Check("", "note", f"{folder} is read-only", "run commands with --out in a folder you may write in")
    return f"{folder}: writable"


def _fft() -> Finding:
    # Odd sides: at even ones a transform that swaps the halves wrongly passes.
    data = np.random.default_rng(0).normal(size=(3, BOX + 1, BOX + 1)).astype(np.float32)
    half = fourier.forward(data, 2)
    back = fourier.inverse(half, data.shape[1:])
    shifted = np.fft.ifftshift(data.astype(np.float64), axes=(1, 2))
    error = np.abs(half - np.fft.rfft2(shifted)).max() / np.abs(half).max()
    return _require_close("forward and back", max(float(error), float(np.abs(back - data).max())), 1e-5, _REINSTALL)


def _to_host(array: Any) -> np.ndarray:
    return array.get() if hasattr(array, "get") else np.asarray(array)


def _ctf(device: str) -> Finding:
    got = _to_host(ops.ctf(_PARAMS, BOX, PIXEL_SIZE_A, device=device))
    want = reference.ctf.ctf(_PARAMS, BOX, PIXEL_SIZE_A)
    return _require_close("against the reference", float(np.abs(got - want).max()), 2e-6, _REINSTALL)


def _ball() -> np.ndarray:
    """Noise inside a ball: every frequency is present, no symmetry hides a wrong axis."""
    x = np.arange(BOX) - BOX // 2
    inside = x[:, None, None] ** 2 + x[:, None] ** 2 + x**2 <= (0.375 * BOX) ** 2
    return (np.random.default_rng(1).normal(size=(BOX,) * 3) * inside).astype(np.float32)


def _matrices() -> np.ndarray:
    return Rotation.random(4, random_state=2).as_matrix()


def _project(device: str) -> Finding:
    volume, matrices, grid = _ball(), _matrices(), ops.Grid(BOX)
    got = _to_host(ops.project(gridding.to_grid(volume, grid), grid, matrices, device=device))
    want = reference.project.project(volume, matrices, grid.max_radius)
    error = np.linalg.norm(got - want) / np.linalg.norm(want)
    return _require_close("against the exact transform", float(error), 1e-3, _REINSTALL)


def _insert(device: str) -> Finding:
    """<P x, y> = <x, P* y>: the one equation that ties insertion to projection."""
    volume, matrices, grid = _ball(), _matrices(), ops.Grid(BOX)
    images = fourier.forward(np.random.default_rng(3).normal(size=(4, BOX, BOX)).astype(np.float32), 2)
    slices = _to_host(ops.project(gridding.to_grid(volume, grid), grid, matrices, device=device))
    sums = ops.GridSums.zeros(grid, weights=False)
    ops.insert(sums, images, matrices, device=device)
    ops.fold(sums)
    assert sums.values is not None
    inner = float(np.sum((slices * np.conj(images)).real * fourier.half_weights((BOX, BOX))))
    right = float(np.sum(volume.astype(np.float64) * gridding.from_grid(sums.values, grid)))
    scale = float(np.linalg.norm(slices) * np.linalg.norm(images))
    return _require_close("adjoint of project", abs(inner - right) / scale, 1e-5, _REINSTALL)


def _files() -> Finding:
    """A map, a stack and a STAR file, written and read back in a scratch folder."""
    from verglas import io
    from verglas.types import Map

    with tempfile.TemporaryDirectory(prefix="verglas-doctor-") as name:
        folder = Path(name)
        volume = Map(_ball(), PIXEL_SIZE_A)
        io.write_map(folder / "map.mrc", volume)
        back = io.read_map(folder / "map.mrc")
        # The header holds the cell in single precision, so the pixel size comes back rounded.
        if not (np.array_equal(back.data, volume.data) and abs(back.pixel_size_A - PIXEL_SIZE_A) < 1e-5):
            raise _Broken("a map read back from an MRC file differs", "pip install --upgrade mrcfile")
        images = volume.data[:3]
        io.write_stack(folder / "images.mrcs", images, PIXEL_SIZE_A)
        (folder / "particles.star").write_text(_STAR, encoding="utf-8")
        io.write_particles(folder / "again.star", io.read_particles(folder / "particles.star"))
        particles = io.read_particles(folder / "again.star")
        # Out of order: a reader that ignores the rows would pass in order.
        if not np.array_equal(particles.images([2, 0]), images[[2, 0]]):
            raise _Broken("particles read back through a STAR file differ", "pip install --upgrade pandas mrcfile")
    return "MRC map, MRC stack and STAR file: written and read back"


_STAR = f"""
data_optics

loop_
_rlnOpticsGroup #1
_rlnImagePixelSize #2
_rlnImageSize #3
_rlnImageDimensionality #4
_rlnVoltage #5
_rlnSphericalAberration #6
_rlnAmplitudeContrast #7
1 {PIXEL_SIZE_A} {BOX} 2 300 2.7 0.1

data_particles

loop_
_rlnImageName #1
_rlnOpticsGroup #2
_rlnDefocusU #3
_rlnDefocusV #4
_rlnDefocusAngle #5
1@images.mrcs 1 15000 14000 30
2@images.mrcs 1 15000 14000 30
3@images.mrcs 1 15000 14000 30
"""


def _cuda() -> Finding:
    state = _cuda_state()
    if not state["built"]:
        remedy = "nothing, unless you want to use a GPU: then install with cmake.define.VERGLAS_CUDA=ON (docs, Install)"
        return Check("", "skipped", "built without CUDA", remedy)
    text = f"built for {', '.join(state.get('architectures', []))}"
    if not state["devices"]:
        status = "skipped" if state.get("driver") is None and "architectures" in state else "failed"
        return Check("", status, f"{text}; {state['reason']}", "" if status == "skipped" else str(state["reason"]))
    count = len(state["devices"])
    return (
        f"{text}; driver of CUDA {state['driver']}, runtime {state['runtime']}; {count} GPU{'s' if count > 1 else ''}"
    )


def _gpu(index: int) -> Finding:
    """One GPU: what it is, whether this build has code for it, and how much of its memory is free."""
    state = _cuda_state()
    gpu, capability = state["devices"][index], state["devices"][index]["compute_capability"]
    text = f"{gpu['name']}, compute capability {capability}"
    served = architecture_for(state["architectures"], capability)
    if served is None:
        raise _Broken(
            f"{text}: this build has no code for it ({', '.join(state['architectures'])})",
            "install from source for it: pip install . --config-settings="
            f"cmake.define.VERGLAS_CUDA_ARCHITECTURES={capability.replace('.', '')}",
        )
    session(f"cuda:{index}")  # a missing CuPy is a DeviceError that says so
    free, total = _native.load_cuda().memory(index)
    text += f", served by {served}; {free / 1e9:.1f} of {total / 1e9:.1f} GB free"
    if free < _LITTLE_FREE * total:
        return Check("", "note", text, "other programs hold most of its memory: nvidia-smi shows them")
    return text


def _run(name: str, check: Callable[[], Finding]) -> Check:
    """One check; whatever it raises becomes a finding, so that the others still run."""
    try:
        outcome = check()
    except _Broken as broken:
        return Check(name, "failed", broken.detail, broken.remedy)
    except VerglasError as error:
        return Check(name, "failed", str(error), "the message says what to do")
    except Exception as error:
        return Check(name, "failed", f"{type(error).__name__}: {error}", _REINSTALL)
    if isinstance(outcome, Check):
        return Check(name, outcome.status, outcome.detail, outcome.remedy)
    return Check(name, "ok", outcome)


# Kernels with a CUDA version; the others are checked on the CPU alone.
_KERNELS: dict[str, tuple[Callable[[str], Finding], bool]] = {
    "ctf": (_ctf, True),
    "project": (_project, False),
    "insert": (_insert, False),
}


def doctor() -> list[Check]:
    """Run every check; takes about a second.

    Returns
    -------
    list of Check
        In a fixed order; the installation is sound when none has the status ``"failed"``.

    Examples
    --------
    >>> from verglas.run.doctor import doctor
    >>> [c.name for c in doctor() if c.status == "failed"]
    []
    """
    results = [
        _run("packages", _packages),
        _run("core", _core),
        _run("threads", _threads),
        _run("temporary folder", _scratch),
        _run("working folder", _working_folder),
        _run("files", _files),
        _run("fft", _fft),
        _run("cuda", _cuda),
    ]
    results += [_run(device, partial(_gpu, i)) for i, device in enumerate(devices()[1:])]
    for device in devices():
        for name, (check, on_cuda) in _KERNELS.items():
            if device == "cpu" or on_cuda:
                results.append(_run(f"{name} on {device}", partial(check, device)))
    return results


def as_rows(checks: list[Check]) -> list[dict[str, str]]:
    """JSON-ready rows."""
    return [asdict(check) for check in checks]
