"""Contrast transfer functions on the half-transform grid."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from verglas._native import core, resolve_threads
from verglas.ops._device import cuda_session, optics_rows


def ctf(
    params: npt.ArrayLike, box: int, pixel_size_A: float, *, device: str = "cpu", threads: int | None = None
) -> npt.NDArray[np.float32]:
    r"""Contrast transfer functions of ``n`` images.

    .. math::
        CTF(k) = s\, e^{-B k^2/4} \left[\sqrt{1-w^2}\,\sin(\chi + \varphi) + w \cos(\chi + \varphi)\right], \quad
        \chi = \pi\lambda\,\Delta z(\theta)\,k^2 - \tfrac{\pi}{2} C_s \lambda^3 k^4
        + k^4 (a_1 + a_2 \cos 2\theta + a_3 \sin 2\theta + a_4 \cos 4\theta + a_5 \sin 4\theta)

    with :math:`\Delta z = (u+v)/2 + (u-v)/2 \cos 2(\theta - \alpha)`, underfocus positive, :math:`\alpha` from +x
    towards +y.

    Parameters
    ----------
    params : (n, 14) or (n, 9) float64
        A NumPy array, or a CuPy array on the device. Columns: defocus u and v (A), angle (degrees), voltage (kV), Cs
        (mm), amplitude contrast w, phase shift (degrees), B-factor (A^2), scale; five terms a of fourth order (A^4).
        Rows of nine have none of those.
        :meth:`verglas.types.Optics.as_params` makes it.
    box : int
        Image side in pixels.
    pixel_size_A : float
        Pixel size in angstrom.
    device : str
        ``"cpu"`` or ``"cuda:<number>"``.
    threads : int, optional
        Threads; all processors of this process by default. The result does not depend on it. CPU only.

    Returns
    -------
    (n, box, box // 2 + 1) float32
        In ``rfft2`` order; a CuPy array on the device when ``device`` is not ``"cpu"``.

    Raises
    ------
    ValueError
        ``params`` has another shape, or ``box`` or ``pixel_size_A`` is not positive.
    DeviceError
        The device cannot be used; the message says why and what to do.

    References
    ----------
    Mindell and Grigorieff (2003) J. Struct. Biol. 142, 334-347, with the sign of docs/conventions.md.

    Examples
    --------
    >>> from verglas import ops
    >>> c = ops.ctf([[15000, 15000, 0, 300, 2.7, 0.1, 0, 0, 1]], box=8, pixel_size_A=2.0)
    >>> c.shape, round(float(c[0, 0, 0]), 6)
    ((1, 8, 5), 0.1)
    """
    if device != "cpu":
        return _ctf_cuda(params, int(box), float(pixel_size_A), device)
    return core.ctf(optics_rows(params), int(box), float(pixel_size_A), resolve_threads(threads))


def _ctf_cuda(params: npt.ArrayLike, box: int, pixel_size_A: float, device: str) -> Any:
    cuda = cuda_session(device)
    with cuda.active() as stream:
        rows = optics_rows(params, cuda.array)
        out = cuda.cupy.empty((len(rows), max(box, 0), max(box, 0) // 2 + 1), np.float32)
        cuda.kernels.ctf(rows, box, pixel_size_A, out, stream)
    return out
