"""Common lines of projections: the search of all pairs, and the score of orientations by the lines they imply."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from verglas._array_module import to_host
from verglas._native import core, resolve_threads
from verglas.ops._device import as_array, cuda_session
from verglas.types.arrays import FloatArray


def common_lines(
    lines: npt.NDArray[np.complex64], loss: npt.NDArray[np.float32], *, device: str = "cpu", threads: int | None = None
) -> tuple[FloatArray, FloatArray]:
    r"""The pair of directions in which two images agree best, for every pair of images.

    .. math:: s = \sum_d \mathrm{Re}[x_d y_d^*] - l_x - l_y

    for a line x of image i at :math:`2 \pi a / n_\theta` and a line y of image j; half a turn on, a line is its
    conjugate. All directions are compared; between them the maximum is that of a quadratic through the largest and
    its neighbours.

    Parameters
    ----------
    lines : (n, half, depth) complex64
        Lines at the directions of the half circle, :math:`n_\theta` = 2 half.
    loss : (n, half) float32
        l of each.
    device : str
        ``"cpu"``, or ``"cuda:<number>"``, which takes host or device arrays and returns device arrays.
    threads : int, optional
        Threads; all by default. The result does not depend on it.

    Returns
    -------
    angle, score : (n, n) float64
        ``angle[i, j]``: direction in image i of its line with image j, radian, 0 to 2 pi; score symmetric; diagonals 0.

    Raises
    ------
    ValueError
        An array has another shape or dtype.
    DeviceError
        The device cannot be used.

    References
    ----------
    van Heel (1987) Ultramicroscopy 21, 111-124; Singer and Shkolnisky (2011) SIAM J. Imaging Sci. 4, 543-572.

    Examples
    --------
    >>> import numpy as np
    >>> from verglas import ops
    >>> x = np.random.default_rng(0).standard_normal((2, 90, 16)).astype(np.complex64)
    >>> x[1, 20] = 3 * x[0, 70]
    >>> angle, score = ops.common_lines(x, np.zeros((2, 90), np.float32))
    >>> (angle[[0, 1], [1, 0]] / np.deg2rad(2)).round().tolist()
    [70.0, 20.0]
    """
    if device != "cpu":
        return _common_lines_cuda(lines, loss, device)
    n = len(lines)
    angle, score = np.empty((n, n)), np.empty((n, n))
    core.common_lines(lines, loss, angle, score, resolve_threads(threads))
    return angle * (np.pi / lines.shape[1]), score


def common_line_scores(
    lines: npt.NDArray[np.complex64],
    loss: npt.NDArray[np.float32],
    rotations: npt.ArrayLike,
    candidates: npt.ArrayLike,
    image: npt.ArrayLike,
    *,
    device: str = "cpu",
    threads: int | None = None,
) -> FloatArray:
    """What candidate orientations of images are worth against given orientations of the others.

    The planes of a candidate and of image j meet in a line; its score (:func:`common_lines`, lines between directions
    by linear interpolation) is summed over all j but the candidate's own image. Planes that coincide count nothing.

    Parameters
    ----------
    lines, loss
        As of :func:`common_lines`.
    rotations : (n, 3, 3) float64
        Of all images: columns are the axes x, y of the image and its normal, in space.
    candidates : (m, 3, 3) float64
        Likewise.
    image : (m,) int64
        Image that each candidate is for.
    device : str
        ``"cpu"``, or ``"cuda:<number>"``, which takes host or device arrays and returns a device array.
    threads : int, optional
        Threads; all by default. The result does not depend on it.

    Returns
    -------
    (m,) float64

    Raises
    ------
    ValueError
        An array has another shape or dtype, or an index is out of range.
    DeviceError
        The device cannot be used.

    Examples
    --------
    >>> import numpy as np
    >>> from verglas import ops
    >>> x = np.ones((2, 90, 4), np.complex64)
    >>> turned = np.array([np.eye(3), [[1, 0, 0], [0, 0, -1], [0, 1, 0]]])
    >>> ops.common_line_scores(x, np.zeros((2, 90), np.float32), turned, turned[:1], [0]).tolist()
    [4.0]
    """
    if device != "cpu":
        return _scores_cuda(lines, loss, rotations, candidates, image, device)
    fixed, moving = as_array(rotations, np.float64), as_array(candidates, np.float64)
    out = np.empty(len(moving))
    core.common_line_scores(lines, loss, fixed, moving, as_array(image, np.int64), out, resolve_threads(threads))
    return out


def _common_lines_cuda(lines: Any, loss: Any, device: str) -> Any:
    cuda = cuda_session(device)
    with cuda.active() as stream:
        x, own = _device_lines(cuda, lines, loss)
        angle, score = (cuda.empty((len(x), len(x)), np.float64) for _ in range(2))
        cuda.kernels.common_lines(x, own, angle, score, stream)
        angle *= np.pi / x.shape[1]
    return angle, score


def _scores_cuda(lines: Any, loss: Any, rotations: Any, candidates: Any, image: Any, device: str) -> Any:
    # A few matrices, looked at on the host: a wrong index would read beyond the lines.
    fixed, moving = (as_array(to_host(m), np.float64) for m in (rotations, candidates))
    index = as_array(to_host(image), np.int64)
    if index.size and (index.min() < 0 or index.max() >= len(lines)):
        raise ValueError(f"image: expected indices from 0 to {len(lines) - 1}")
    if not all((np.abs(m) < 2).all() for m in (fixed, moving)):
        raise ValueError("rotations, candidates: expected rotation matrices")
    cuda = cuda_session(device)
    with cuda.active() as stream:
        x, own = _device_lines(cuda, lines, loss)
        out = cuda.empty((len(moving),), np.float64)
        arrays = [cuda.array(a, a.dtype) for a in (fixed, moving, index)]
        cuda.kernels.common_line_scores(x, own, *arrays, out, stream)
    return out


def _device_lines(cuda: Any, lines: Any, loss: Any) -> tuple[Any, Any]:
    """On the device; of the kind that the host's binding asks for, in its words."""
    for array, name, kind in ((lines, "lines", "complex64"), (loss, "loss", "float32")):
        if np.dtype(array.dtype) != kind:
            raise ValueError(f"{name}: expected a C-contiguous {kind} array, got {array.dtype}")
    return cuda.array(lines, np.complex64), cuda.array(loss, np.float32)
