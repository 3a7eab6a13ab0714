"""How well the frames of a movie agree, patch by patch, when each is moved back by its shift."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from verglas._native import core, resolve_threads
from verglas.ops._device import as_array, cuda_session, device_of
from verglas.types.arrays import Complex64Array, FloatArray


class ShiftScores(NamedTuple):
    """What :func:`shift_score` gives.

    Attributes
    ----------
    value : (n,) float64
        V of each patch.
    gradient : (n, frames, 2) float64 or None
        dV / dd_f per pixel, x then y.
    curvature : (n, frames, 3) float64 or None
        -d2V / dd_f dd_f per square pixel: xx, xy, yy.
    """

    value: FloatArray
    gradient: FloatArray | None
    curvature: FloatArray | None

    def derivatives(self) -> tuple[FloatArray, FloatArray]:
        """Gradient and curvature, which must have been asked for."""
        if self.gradient is None or self.curvature is None:
            raise ValueError("shift_score: derivatives were not asked for")
        return self.gradient, self.curvature


def shift_score(
    patches: Complex64Array,
    shifts_px: npt.ArrayLike,
    weights: npt.ArrayLike,
    frequencies_y: npt.ArrayLike,
    frequencies_x: npt.ArrayLike,
    *,
    derivatives: bool = True,
    device: str = "cpu",
    threads: int | None = None,
) -> ShiftScores:
    r"""Weighted correlation of every frame with the sum of the others, as a function of the shifts.

    With :math:`z_f(k) = F_f(k) e^{2\pi i k \cdot d_f}` and :math:`S = \sum_f z_f`, for every patch

    .. math::

        V = \sum_k w(k) \sum_f \mathrm{Re}[(S - z_f)^* z_f], \quad
        \frac{\partial V}{\partial d_f} = -4\pi \sum_k w\, k\, \mathrm{Im}[S^* z_f], \quad
        -\frac{\partial^2 V}{\partial d_f \partial d_f^T} = 8\pi^2 \sum_k w\, k k^T\, \mathrm{Re}[(S - z_f)^* z_f]

    Parameters
    ----------
    patches : (n, frames, rows, columns) complex64
        Parts of Fourier space: of the half plane, each frequency once.
    shifts_px : (n, frames, 2) array_like
        x, y: where the content of a frame lies, minus where it lies in the sum.
    weights : (rows, columns) array_like
        w(k), 0 or more; rows end at their last weight that is not zero.
    frequencies_y, frequencies_x : (rows,), (columns,) array_like
        Cycles per pixel.
    derivatives : bool
        Whether gradient and curvature are wanted.
    device : str
        ``"cpu"`` or ``"cuda:<number>"``: arrays may then lie on the device; what comes from the host is copied there.
    threads : int, optional
        Threads; all by default. The result does not depend on it. CPU only.

    Returns
    -------
    ShiftScores

    Raises
    ------
    ValueError
        Another shape or dtype, a weight below 0, a shift that is not finite (shifts that lie on the device are not
        looked at: where they are not finite the scores are NaN).
    DeviceError
        The device cannot be used.

    Examples
    --------
    >>> import numpy as np
    >>> from verglas import ops
    >>> k = np.array([0.1, 0.2])
    >>> moved = np.exp(-2j * np.pi * k * np.array([[0.0], [1.5]])).astype(np.complex64)[None, :, None]
    >>> right = ops.shift_score(moved, [[[0, 0], [1.5, 0]]], np.ones((1, 2)), [0.0], k)
    >>> right.value.round(5).tolist(), bool(np.abs(right.gradient).max() < 1e-4)
    ([4.0], True)
    """
    if device != "cpu":
        return _shift_score_cuda(
            patches, shifts_px, weights, _Frequencies(frequencies_y, frequencies_x), derivatives, device
        )
    n, frames = np.shape(patches)[:2]
    value = np.empty(n)
    gradient = np.empty((n, frames, 2)) if derivatives else None
    curvature = np.empty((n, frames, 3)) if derivatives else None
    core.shift_score(
        patches,
        as_array(shifts_px, np.float64),
        as_array(weights, np.float32),
        as_array(frequencies_y, np.float64),
        as_array(frequencies_x, np.float64),
        value,
        gradient,
        curvature,
        resolve_threads(threads),
    )
    return ShiftScores(value, gradient, curvature)


class _Frequencies(NamedTuple):
    y: Any
    x: Any


def _shift_score_cuda(
    patches: Any, shifts_px: Any, weights: Any, frequencies: _Frequencies, derivatives: bool, device: str
) -> ShiftScores:
    for name, values, least in (("weights", weights, 0.0), ("shifts", shifts_px, -np.inf)):
        host = None if device_of(values) != "cpu" else np.asarray(values)
        if host is not None and not (np.isfinite(host) & (host >= least)).all():
            raise ValueError(f"{name}: expected finite values" + (" of 0 or more" if least == 0 else ""))
    cuda = cuda_session(device)
    with cuda.active() as stream:
        data = cuda.to_device_or_none(patches)
        n, frames, rows, columns = data.shape
        value = cuda.empty((n,), np.float64)
        gradient = cuda.empty((n, frames, 2), np.float64) if derivatives else None
        curvature = cuda.empty((n, frames, 3), np.float64) if derivatives else None
        cuda.kernels.shift_score(
            data,
            cuda.array(shifts_px, np.float64),
            cuda.array(weights, np.float32),
            *(cuda.array(axis, np.float64) for axis in frequencies),
            (cuda.empty((n, rows, columns), np.complex64), cuda.empty((n, frames), np.float64)),
            value,
            gradient,
            curvature,
            stream,
        )
    return ShiftScores(value, gradient, curvature)
