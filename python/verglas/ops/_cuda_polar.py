"""What the ops on polar samples keep on a device: a grid's tables, the tiles of the tensor cores, weighted images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from verglas.ops._device import optics_rows
from verglas.ops._images import PolarImages
from verglas.ops.polar import PolarGrid

if TYPE_CHECKING:
    from verglas._cuda_arrays import CudaSession

# A CuPy array: its types are not known where CuPy is not installed.
DeviceArray = Any


def free_bytes(cuda: CudaSession) -> int:
    """Memory that can still be had on the current device: what the driver has, and what CuPy keeps for reuse."""
    return int(cuda.cupy.cuda.Device().mem_info[0]) + int(cuda.cupy.get_default_memory_pool().free_bytes())


def angular_table(grid: PolarGrid) -> npt.NDArray[np.float32]:
    """Harmonic m of a half circle, (max_m + 1, 2, half): even m of real parts, odd m of imaginary ones, times 2."""
    m = np.arange(grid.max_m + 1)[:, None]
    angle = 2 * np.pi * (m * np.arange(grid.n_theta // 2) % grid.n_theta) / grid.n_theta
    c, s = 2 * np.cos(angle), 2 * np.sin(angle)
    odd = m % 2 == 1
    return np.stack([np.where(odd, s, c), np.where(odd, c, -s)], axis=1).astype(np.float32)


def tables(grid: PolarGrid, cuda: CudaSession) -> Any:
    """The grid on a device, made once and kept with the grid."""
    # The grid is frozen; its __dict__ is not. Tables so live as long as the grid, one set per device.
    cache = grid.__dict__.setdefault("_device_tables", {})
    key = (id(cuda.kernels), cuda.index)
    if key not in cache:
        theta = 2 * np.pi * np.arange(grid.n_theta // 2) / grid.n_theta
        arrays = {
            "radii": cuda.array(grid.radii, np.float64),
            "weights": cuda.array(grid.weights, np.float32),
            "limit": cuda.array(grid.limits, np.int32),
            "first_ring": cuda.array(grid.first_ring, np.int32),
            "offset": cuda.array(grid.offset, np.int32),
            "cos_theta": cuda.array(np.cos(theta), np.float64),
            "sin_theta": cuda.array(np.sin(theta), np.float64),
            "angular": cuda.array(angular_table(grid), np.float32),
            "size": grid.size,
        }
        cache[key] = cuda.kernels.PolarTables(grid.box, grid.n_theta, arrays)
    return cache[key]


@dataclass(frozen=True)
class TileLayout:
    """Where harmonics stand in the tiles that tensor cores read (cuda/polar_weighted.h).

    Attributes
    ----------
    first : (max_m + 2,) int32 on the device
        Fragment that each harmonic starts at.
    fragments : int
        Of all harmonics.
    n_power : int
        Even harmonics with rows for the power term.
    """

    first: DeviceArray
    fragments: int
    n_power: int
    floats: int

    @classmethod
    def of(cls, grid: PolarGrid, n_power: int, cuda: CudaSession) -> TileLayout:
        """Layout of a grid; ``n_power`` 0 keeps no rows for the power term."""
        m = np.arange(grid.max_m + 1)
        rows = grid.n_rings - grid.first_ring + np.where((m % 2 == 0) & (m < 2 * n_power), grid.n_rings, 0)
        first = np.concatenate([[0], np.cumsum(-(-rows // cuda.kernels.DEPTH))]).astype(np.int32)
        count = int(first[-1])
        return cls(cuda.array(first, np.int32), count, n_power, count * 2 * cuda.kernels.DEPTH * cuda.kernels.TILE)

    @property
    def native(self) -> tuple[DeviceArray, int, int]:
        """As the kernels take it."""
        return self.first, self.fragments, self.n_power


def weigh(
    images: PolarImages,
    grid: PolarGrid,
    cuda: CudaSession,
    stream: int,
    pixel_size_A: float,
    n_power: int,
    *,
    noise: bool = True,
    norm: bool = False,
) -> tuple[DeviceArray, DeviceArray, DeviceArray | None]:
    """C X / sigma2, the even harmonics of w_r C^2 / sigma2, and on request |X|^2 / sigma2 of each image."""
    cupy, n = cuda.cupy, len(images)
    y = cupy.empty(images.samples.shape, np.complex64)
    power = cupy.empty((n, grid.n_rings, n_power), np.complex64)
    norms = cupy.empty((n, grid.n_rings), np.float32) if norm else None
    batch = {
        "n": n,
        "samples": images.samples,
        "ctf": images.ctf,
        "pixel_size_A": pixel_size_A,
        "inv_sigma2": images.inv_sigma2 if noise else None,
    }
    cuda.kernels.weigh(tables(grid, cuda), batch, n_power, {"y": y, "power": power, "norm": norms}, stream)
    if norms is None:
        return y, power, None
    total = norms[:, 0].copy()  # ring by ring: a reduction's order may depend on how many images there are
    for j in range(1, grid.n_rings):
        total += norms[:, j]
    return y, power, total


def ring_power(images: PolarImages, grid: PolarGrid, cuda: CudaSession) -> npt.NDArray[np.float64]:
    """Mean of |X|^2 on each ring, (n, n_rings), on the host."""
    norms = cuda.cupy.empty((len(images), grid.n_rings), np.float32)
    batch = {"n": len(images), "samples": images.samples, "ctf": None, "inv_sigma2": None, "pixel_size_A": 1.0}
    with cuda.active() as stream:
        cuda.kernels.weigh(tables(grid, cuda), batch, 0, {"y": None, "power": None, "norm": norms}, stream)
    return norms.get().astype(np.float64) / (grid.weights * grid.n_theta)


_SCRATCH_BYTES = 256 << 20  # of transforms along one axis and both, at a time


def sampler(grid: PolarGrid, cuda: CudaSession) -> dict[str, Any]:
    """The tables that :func:`samples_of_images` interpolates with, made once per device and kept with the grid."""
    cache = grid.__dict__.setdefault("_device_samplers", {})
    key = (id(cuda.kernels), cuda.index)
    if key not in cache:
        arrays = cuda.kernels.sampler_tables(grid.box, grid.n_theta, grid.radii)
        cache[key] = {name: cuda.to_device_or_none(v) if isinstance(v, np.ndarray) else v for name, v in arrays.items()}
    return cache[key]


def samples_of_images(images: Any, grid: PolarGrid, cuda: CudaSession, stream: int) -> DeviceArray:
    """:func:`verglas.ops.polar` on a device, in batches whose transforms fit the scratch memory."""
    x = cuda.array(images, np.float32)
    taps = sampler(grid, cuda)
    side = 2 * (taps["reach"] + 1)
    batch = max(1, min(len(x), _SCRATCH_BYTES // (4 * side * (grid.box + side))))
    scratch_arrays = cuda.empty((batch, grid.box, side), np.float32), cuda.empty((batch, side, side), np.float32)
    out = cuda.empty((len(x), grid.n_rings, grid.n_theta // 2), np.complex64)
    for first in range(0, max(len(x), 1), batch):
        part = x[first : first + batch]
        scratch = tuple(a[: len(part)] for a in scratch_arrays)
        cuda.kernels.polar(tables(grid, cuda), taps, part, scratch, out[first : first + batch], stream)
    return out


def harmonics_of_samples(samples: Any, grid: PolarGrid, cuda: CudaSession, stream: int) -> DeviceArray:
    """:func:`verglas.ops.polar_harmonics` on a device: unmoved columns, without the rings' weights."""
    x = samples_on_device(samples, grid, cuda)
    n = len(x)
    rows = cuda.empty((n, grid.size), np.complex64)
    numbers, shifts = cuda.cupy.arange(n, dtype=np.int32), cuda.cupy.zeros((n, 2), np.float32)
    cuda.kernels.shifted_rows(tables(grid, cuda), x, numbers, shifts, rows, stream)
    rings = np.concatenate([np.arange(first, grid.n_rings) for first in grid.first_ring])
    rows *= cuda.array(1 / (grid.weights * grid.n_theta), np.float32)[cuda.array(rings, np.int64)]
    return rows


def samples_on_device(samples: Any, grid: PolarGrid, cuda: CudaSession) -> DeviceArray:
    """Samples (n, n_rings, half), the leading axis added where it is missing."""
    x = cuda.array(samples, np.complex64)
    x = x[None] if x.ndim == 2 else x
    if x.shape[1:] != (grid.n_rings, grid.n_theta // 2):
        raise ValueError(f"samples: expected (n, {grid.n_rings}, {grid.n_theta // 2}), got {x.shape}")
    return x


def power_of_samples(samples: Any, grid: PolarGrid, n_power: int, cuda: CudaSession) -> DeviceArray:
    """:func:`verglas.ops.polar_power` on a device: a product with a small table."""
    x = samples_on_device(samples, grid, cuda)
    half = grid.n_theta // 2
    if not 1 <= n_power <= half:
        raise ValueError(f"n_power: expected 1 to {half}, got {n_power}")
    angle = 2 * np.pi * (np.arange(n_power) * np.arange(half)[:, None] % half) / half
    table = np.exp(-1j * angle) * (2 / grid.n_theta)
    squares = x.real**2 + x.imag**2
    out = cuda.empty((len(x), grid.n_rings, n_power), np.complex64)
    out.real = squares @ cuda.array(table.real, np.float32)
    out.imag = squares @ cuda.array(table.imag, np.float32)
    return out


def ctf_power(
    inv_sigma2: Any, grid: PolarGrid, n_power: int, ctf: Any, pixel_size_A: float, cuda: CudaSession, stream: int
) -> DeviceArray:
    """:func:`verglas.ops.polar_ctf_power` on a device."""
    inverse = cuda.array(inv_sigma2, np.float32)
    out = cuda.empty((len(inverse), grid.n_rings, n_power), np.complex64)
    params = None if ctf is None else optics_rows(ctf, cuda.array)
    images = {"n": len(inverse), "samples": None, "ctf": params, "pixel_size_A": pixel_size_A, "inv_sigma2": inverse}
    cuda.kernels.weigh(tables(grid, cuda), images, n_power, {"y": None, "power": out, "norm": None}, stream)
    return out


def weighted_harmonics(
    images: PolarImages, grid: PolarGrid, shifts_px: Any, pixel_size_A: float, cuda: CudaSession, stream: int
) -> DeviceArray:
    """:func:`verglas.ops.polar_weighted` on a device."""
    y, _, _ = weigh(images, grid, cuda, stream, pixel_size_A, 1)
    shifts = cuda.array(shifts_px, np.float32)
    if shifts.ndim != 2 or shifts.shape[1] != 2:
        raise ValueError(f"shifts_px: expected (n_shifts, 2), got {shifts.shape}")
    n, n_shifts, cupy = len(images), len(shifts), cuda.cupy
    rows = cuda.empty((n * n_shifts, grid.size), np.complex64)
    numbers = cupy.repeat(cupy.arange(n, dtype=np.int32), n_shifts)
    cuda.kernels.shifted_rows(tables(grid, cuda), y, numbers, cupy.tile(shifts, (n, 1)), rows, stream)
    return rows.reshape(n, n_shifts, grid.size)
