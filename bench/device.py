"""What the benchmarks of kernels on a GPU share: the floor of the machine, measured, and times that wait for it.

A kernel's row holds the operations and bytes that were counted, its time, the rates that follow, and beside them the
rates of a device copy and of a matrix product on the same device in the same run. Operations and bytes are also printed
without a GPU (``--count``); times never are.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from verglas._cuda_arrays import CudaSession, session

from common import timed

_COPY_BYTES = 1 << 30
_SIDE = 8192


@dataclass(frozen=True)
class Work:
    """Counted before anything runs.

    Attributes
    ----------
    gflop : float
        Floating-point operations that the formula needs, multiply and add counted apart, in units of 1e9.
    gbyte : float
        Bytes that must cross the device's memory at least once.
    tensor_gflop : float
        Operations that the tensor cores are asked for: fill of tiles and the split of operands included.
    """

    gflop: float
    gbyte: float
    tensor_gflop: float = 0.0

    def counted(self) -> dict[str, float]:
        """Columns of a row."""
        row = {"GFLOP": self.gflop, "GB": self.gbyte}
        return row | ({"tensor_GFLOP": self.tensor_gflop} if self.tensor_gflop else {})

    def row(self, ms: float, machine: Machine) -> dict[str, float]:
        """Rates, and the time over the floor of this machine."""
        per_ms = self.counted() | {
            "ms": ms,
            "GFLOP_per_s": 1e3 * self.gflop / ms,
            "GB_per_s": 1e3 * self.gbyte / ms,
            "copy_GB_per_s": machine.copy_GB_per_s,
            "float32_product_GFLOP_per_s": machine.product_GFLOP_per_s,
            "tf32_product_GFLOP_per_s": machine.tf32_GFLOP_per_s,
        }
        arithmetic = (
            self.tensor_gflop / machine.tf32_GFLOP_per_s
            if self.tensor_gflop
            else self.gflop / machine.product_GFLOP_per_s
        )
        floor_ms = 1e3 * max(arithmetic, self.gbyte / machine.copy_GB_per_s)
        return per_ms | {"floor_ms": floor_ms, "times_floor": ms / floor_ms}


@dataclass(frozen=True)
class Machine:
    """Measured rates of the device."""

    name: str
    copy_GB_per_s: float
    product_GFLOP_per_s: float
    tf32_GFLOP_per_s: float


def open_device(device: str) -> CudaSession:
    """The device, or a DeviceError that says why there is none."""
    return session(device)


def milliseconds(cuda: CudaSession, call: Callable[[], Any], repeats: int = 5) -> float:
    """Median wall time of a call and of all that it put on the device."""

    def whole() -> None:
        call()
        cuda.cupy.cuda.Device(cuda.index).synchronize()

    with cuda.active():
        return timed(whole, repeats)["ms"]


def measure(cuda: CudaSession) -> Machine:
    """Copy of 1 GiB (read and written) and products of 8192 x 8192 matrices, in float32 and in TF32."""
    cupy = cuda.cupy
    with cuda.active():
        name = cupy.cuda.runtime.getDeviceProperties(cuda.index)["name"]
        source, target = cupy.zeros(_COPY_BYTES, np.uint8), cupy.zeros(_COPY_BYTES, np.uint8)
        copy_ms = milliseconds(cuda, lambda: cupy.copyto(target, source), 9)
        a = cupy.ones((_SIDE, _SIDE), np.float32)
        out = cupy.empty_like(a)
        rates = []
        for tf32 in (False, True):
            handle = cupy.cuda.device.get_cublas_handle()
            cublas = cupy.cuda.cublas
            former = cublas.getMathMode(handle)
            cublas.setMathMode(handle, cublas.CUBLAS_TF32_TENSOR_OP_MATH if tf32 else cublas.CUBLAS_DEFAULT_MATH)
            try:
                rates.append(2e-6 * _SIDE**3 / milliseconds(cuda, lambda: cupy.matmul(a, a, out=out), 5))
            finally:
                cublas.setMathMode(handle, former)
    return Machine(
        name.decode() if isinstance(name, bytes) else str(name), 2e-6 * _COPY_BYTES / copy_ms, rates[0], rates[1]
    )
