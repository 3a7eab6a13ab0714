"""Inner products of half transforms over shells."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from verglas._native import core, resolve_threads
from verglas.ops._device import as_array, cuda_session, device_of


def shell_dot(
    a: npt.NDArray[np.complex64],
    b: npt.NDArray[np.complex64] | None = None,
    *,
    b_of_a: npt.ArrayLike | None = None,
    max_radius: int | None = None,
    device: str = "cpu",
    threads: int | None = None,
) -> npt.NDArray[np.float64]:
    r"""Inner products of images, shell by shell: power spectra, correlations with slices, residuals.

    .. math:: p_i(s) = \sum_{\mathrm{round}(|k|) = s} \mathrm{Re}[a_i^*(k)\, b_{j(i)}(k)]

    over the full Fourier plane, although half of it is stored.

    Parameters
    ----------
    a : (n, N, N // 2 + 1) complex64
        Phase-centred half transforms.
    b : (m, N, N // 2 + 1) complex64, optional
        Those to multiply with; ``a`` itself by default, which gives its power.
    b_of_a : (n,) int64, optional
        j(i), the transform of ``b`` that goes with each of ``a``; j = i without.
    max_radius : int, optional
        Last shell; (N - 1) // 2 by default.
    device : str
        ``"cpu"`` or ``"cuda:<number>"``: arrays may then lie on the device; what comes from the host is copied there.
    threads : int, optional
        Threads; all by default. The result does not depend on it. CPU only.

    Returns
    -------
    (n, max_radius + 1) float64

    Raises
    ------
    ValueError
        An array has another shape or dtype, or an index is out of range (its row is NaN where the indices come from
        the device).
    DeviceError
        The device cannot be used.

    Examples
    --------
    >>> import numpy as np
    >>> from verglas import fourier, ops
    >>> x = fourier.forward(np.ones((1, 8, 8), np.float32), 2)
    >>> ops.shell_dot(x).tolist()
    [[4096.0, 0.0, 0.0, 0.0]]
    """
    # From the rows: the columns are half as many, and do not say whether the side was even.
    radius = (a.shape[1] - 1) // 2 if max_radius is None else int(max_radius)
    if device != "cpu":
        return _shell_dot_cuda(a, b, b_of_a, radius, device)
    index = None if b_of_a is None else as_array(b_of_a, np.int64)
    out = np.empty((len(a), max(radius, 0) + 1))
    core.shell_dot(a, a if b is None else b, index, radius, out, resolve_threads(threads))
    return out


def _shell_dot_cuda(a: Any, b: Any, b_of_a: Any, radius: int, device: str) -> Any:
    if b_of_a is not None and device_of(b_of_a) == "cpu":  # those of the device are checked there
        host, last = np.asarray(b_of_a), len(a if b is None else b) - 1
        if host.size and not 0 <= host.min() <= host.max() <= last:
            raise ValueError(f"b_of_a: expected indices from 0 to {last}")
    cuda = cuda_session(device)
    with cuda.active() as stream:
        x = cuda.to_device_or_none(a)
        index = None if b_of_a is None else cuda.array(b_of_a, np.int64)
        out = cuda.empty((len(x), max(radius, 0) + 1), np.float64)
        cuda.kernels.shell_dot(x, x if b is None else cuda.to_device_or_none(b), index, radius, out, stream)
    return out
