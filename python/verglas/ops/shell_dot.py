"""Inner products of half transforms over shells."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from verglas._native import core, resolve_threads
from verglas.ops._device import as_array, require_cpu


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
        ``"cpu"``.
    threads : int, optional
        Threads; all by default. The result does not depend on it.

    Returns
    -------
    (n, max_radius + 1) float64

    Raises
    ------
    ValueError
        An array has another shape or dtype, or an index is out of range.

    Examples
    --------
    >>> import numpy as np
    >>> from verglas import fourier, ops
    >>> x = fourier.forward(np.ones((1, 8, 8), np.float32), 2)
    >>> ops.shell_dot(x).tolist()
    [[4096.0, 0.0, 0.0, 0.0]]
    """
    require_cpu(device, "shell_dot")
    radius = (a.shape[1] - 1) // 2 if max_radius is None else int(max_radius)
    index = None if b_of_a is None else as_array(b_of_a, np.int64)
    out = np.empty((len(a), max(radius, 0) + 1))
    core.shell_dot(a, a if b is None else b, index, radius, out, resolve_threads(threads))
    return out
