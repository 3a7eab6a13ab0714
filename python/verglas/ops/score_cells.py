"""Log-likelihoods of chosen poses: every image has its own list of slices, psi and shifts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from verglas._native import core, resolve_threads
from verglas.errors import InputError
from verglas.ops._device import as_array, cuda_session
from verglas.ops._images import PolarImages
from verglas.ops.polar import PolarGrid, polar_harmonics, polar_power
from verglas.types.arrays import IntArray


@dataclass(frozen=True)
class CellTasks:
    """What to evaluate: tasks (slice, side, psi) of each image, each at all shifts of that image.

    Attributes
    ----------
    offsets : (n + 1,) int64
        Tasks of image i are ``offsets[i]:offsets[i + 1]`` of the next three.
    slice : (tasks,) int32
        Index of the slice. Sort by slice and side: tasks that follow each other on one slice share its cost.
    opposite : (tasks,) bool
        Whether the opposite direction of the slice is meant (rot + 180, 180 - tilt, same psi).
    psi : (tasks,) int32
        Index of the in-plane angle, (j + 1/2) 360 / n_psi degrees.
    shift_offsets : (n + 1,) int64
        Shifts of image i are ``shift_offsets[i]:shift_offsets[i + 1]`` of ``shifts_px``.
    shifts_px : (shifts, 2) float32
        x, y in pixels.
    """

    offsets: npt.ArrayLike
    slice: npt.ArrayLike
    opposite: npt.ArrayLike
    psi: npt.ArrayLike
    shift_offsets: npt.ArrayLike
    shifts_px: npt.ArrayLike

    def score_offsets(self) -> IntArray:
        """Where the scores of each image begin, (n + 1,): tasks times shifts, shift fastest."""
        counts = np.diff(np.asarray(self.offsets)) * np.diff(np.asarray(self.shift_offsets))
        return np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)


def score_cells(
    samples: npt.ArrayLike,
    reference: npt.ArrayLike,
    grid: PolarGrid,
    n_psi: int,
    tasks: CellTasks,
    *,
    n_power: int = 5,
    ctf: npt.ArrayLike | None = None,
    pixel_size_A: float = 1.0,
    inv_sigma2: npt.ArrayLike | None = None,
    device: str = "cpu",
    threads: int | None = None,
) -> npt.NDArray[np.float32]:
    r"""Log-likelihoods of chosen poses, without priors.

    .. math:: \sum_k \frac{\mathrm{Re}[(C A)^* X S_t]}{\sigma^2} - \frac12 \sum_k \frac{C^2 |A|^2}{\sigma^2}

    the same sum as :class:`verglas.ops.ScorePlan`, for windows instead of everything.

    Parameters
    ----------
    samples : (n, n_rings, n_theta // 2) complex64
        :func:`verglas.ops.polar` of the images.
    reference : (n_slices, n_rings, n_theta // 2) complex64
        Samples of the slices at psi = 0.
    grid : PolarGrid
        Rings and angles of both.
    n_psi : int
        Number of in-plane angles that ``tasks.psi`` counts in; any number.
    tasks : CellTasks
        What to evaluate.
    n_power : int
        Even harmonics of the power term.
    ctf, pixel_size_A, inv_sigma2
        As in :meth:`verglas.ops.ScorePlan.run`.
    device : str
        ``"cpu"`` or ``"cuda:<number>"``; samples and reference may then lie on that device.
    threads : int, optional
        Threads; all by default. The result does not depend on it. CPU only.

    Returns
    -------
    (scores,) float32
        Image by image, task by task, shift by shift; see :meth:`CellTasks.score_offsets`. A CuPy array where ``device``
        is not ``"cpu"``.

    Raises
    ------
    ValueError
        Shapes disagree, or an index is out of range.

    Examples
    --------
    >>> import numpy as np
    >>> from verglas import ops
    >>> grid = ops.PolarGrid(16, 5)
    >>> s = ops.polar(np.random.default_rng(0).standard_normal((1, 16, 16)).astype(np.float32), grid)
    >>> tasks = ops.CellTasks([0, 2], [0, 0], [False, False], [3, 4], [0, 1], [[0, 0]])
    >>> ops.score_cells(s, s, grid, 24, tasks).shape
    (2,)
    """
    n_harmonics = min(int(n_power), grid.max_m // 2 + 1, grid.n_theta // 2)
    images: dict[str, Any] = {"inv_sigma2": inv_sigma2, "ctf": ctf}
    if device != "cpu":
        return _on_device(
            device,
            _Batch(samples, images, float(pixel_size_A)),
            _Slices(reference, n_harmonics),
            grid,
            int(n_psi),
            tasks,
        )
    harmonics = polar_harmonics(reference, grid, threads=threads)
    power = polar_power(reference, grid, n_harmonics, threads=threads)
    x = PolarImages.of(grid, samples, **images)  # what is not finite shows in the scores
    opposite = np.ascontiguousarray(tasks.opposite, bool).view(np.uint8)
    scores = core.score_cells(
        grid.native,
        int(n_psi),
        (harmonics, power),
        x.samples,
        x.ctf,
        float(pixel_size_A),
        x.inv_sigma2,
        (as_array(tasks.shift_offsets, np.int64), as_array(tasks.shifts_px, np.float32)),
        (as_array(tasks.offsets, np.int64), as_array(tasks.slice, np.int32), opposite, as_array(tasks.psi, np.int32)),
        resolve_threads(threads),
    )
    _refuse_non_finite(np.isfinite(scores), tasks)
    return scores


class _Batch(NamedTuple):
    """Polar samples of images, their CTFs and noise by name, and the pixel size."""

    samples: Any
    weights: dict[str, Any]
    pixel_size_A: float


class _Slices(NamedTuple):
    """Polar samples of slices, and how many harmonics their power has."""

    samples: Any
    n_harmonics: int


def _on_device(
    device: str,
    batch: _Batch,
    reference: _Slices,
    grid: PolarGrid,
    n_psi: int,
    tasks: CellTasks,
) -> Any:
    from verglas.ops import _cuda_cells

    cuda, slices = cuda_session(device), reference.samples
    if n_psi < 1:
        raise ValueError(f"n_psi: expected at least 1, got {n_psi}")
    listed = _cuda_cells.Tasks(
        as_array(tasks.offsets, np.int64),
        as_array(tasks.slice, np.int32),
        np.ascontiguousarray(tasks.opposite, bool).view(np.uint8),
        as_array(tasks.psi, np.int32),
        as_array(tasks.shift_offsets, np.int64),
        as_array(tasks.shifts_px, np.float32),
    )
    with cuda.active():
        x = PolarImages.of(grid, batch.samples, **batch.weights, cuda=cuda)
        listed.check(len(x), len(slices), n_psi)
        packed = _cuda_cells.Slices(
            polar_harmonics(slices, grid, device=device),
            polar_power(slices, grid, reference.n_harmonics, device=device),
        )
        scores = _cuda_cells.score_cells(_cuda_cells.Job(cuda, grid, n_psi, packed, batch.pixel_size_A), x, listed)
        good = cuda.cupy.isfinite(scores)
        if not bool(good.all()):
            _refuse_non_finite(good.get(), tasks)
    return scores


def _refuse_non_finite(good: npt.NDArray[np.bool_], tasks: CellTasks) -> None:
    if good.all():
        return
    image = int(np.searchsorted(tasks.score_offsets(), np.flatnonzero(~good)[0], side="right")) - 1
    raise InputError(
        f"score_cells: image {image} of the batch has scores that are not finite; check its pixels, its CTF and "
        "noise, and the slices"
    )
