"""Sums along parallel rays through the slices of a volume, and the transpose: tilt series, tomography."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from verglas._native import core, resolve_threads
from verglas.ops._device import as_array, cuda_session
from verglas.types.arrays import Float32Array


def radon(
    volume: npt.ArrayLike,
    angles_deg: npt.ArrayLike,
    width: int | None = None,
    *,
    device: str = "cpu",
    threads: int | None = None,
) -> Float32Array:
    r"""Project a volume that is tilted about its y axis.

    .. math:: p_i(y, t) = \int V(x, y, z)\,\delta(x \cos\theta_i - z \sin\theta_i - t)\,dx\,dz

    The sign is that of an Euler tilt (docs/conventions.md); all coordinates count from pixel N // 2. Every ray is
    sampled once a row (or column, where it is steeper) by linear interpolation.

    Parameters
    ----------
    volume : (z, y, x) array_like
        2D slices are volumes of one y.
    angles_deg : (n,) array_like
        Tilts.
    width : int, optional
        Detector pixels along x; those of the volume by default.
    device : str
        ``"cpu"``, or ``"cuda:<number>"``, which takes host or device arrays and returns a device array.
    threads : int, optional
        Threads; all by default. The result does not depend on it.

    Returns
    -------
    (n, y, width) float32

    Raises
    ------
    ValueError
        Another shape, an angle that is not finite.
    DeviceError
        The device cannot be used.

    Notes
    -----
    P. M. Joseph (1982) IEEE Trans. Med. Imaging 1, 192-196.

    Examples
    --------
    >>> import numpy as np
    >>> from verglas import ops
    >>> v = np.zeros((8, 1, 8), np.float32); v[4, 0, 6] = 1
    >>> ops.radon(v, [0.0, 90.0])[:, 0].argmax(axis=1).tolist()
    [6, 4]
    """
    if device != "cpu":
        return _radon_cuda(volume, angles_deg, width, device)
    data = as_array(volume, np.float32)
    angles = np.deg2rad(np.atleast_1d(np.asarray(angles_deg, np.float64)))
    n = data.shape[-1] if width is None else width
    out = np.empty((len(angles), data.shape[1] if data.ndim == 3 else 1, n), np.float32)
    core.radon(data, angles, out, resolve_threads(threads))
    return out


def radon_adjoint(
    images: npt.ArrayLike,
    angles_deg: npt.ArrayLike,
    shape: tuple[int, int],
    *,
    device: str = "cpu",
    threads: int | None = None,
) -> Float32Array:
    """Transpose of :func:`radon`: every voxel gets the rays through it, by the same weights.

    Parameters
    ----------
    images : (n, y, width) array_like
    angles_deg : (n,) array_like
    shape : (int, int)
        (z, x) of the volume.
    device : str
        ``"cpu"``, or ``"cuda:<number>"``, which takes host or device arrays and returns a device array.
    threads : int, optional
        Threads; all by default. The result does not depend on it.

    Returns
    -------
    (z, y, x) float32

    Raises
    ------
    ValueError
        Another shape, an angle that is not finite.
    DeviceError
        The device cannot be used.

    Examples
    --------
    >>> import numpy as np
    >>> from verglas import ops
    >>> ops.radon_adjoint(np.ones((2, 3, 8)), [0.0, 90.0], (8, 8)).shape
    (8, 3, 8)
    """
    if device != "cpu":
        return _radon_adjoint_cuda(images, angles_deg, shape, device)
    data = as_array(images, np.float32)
    angles = np.deg2rad(np.atleast_1d(np.asarray(angles_deg, np.float64)))
    out = np.zeros((shape[0], data.shape[1] if data.ndim == 3 else 1, shape[1]), np.float32)
    core.radon_adjoint(data, angles, out, resolve_threads(threads))
    return out


def _radon_cuda(volume: Any, angles_deg: npt.ArrayLike, width: int | None, device: str) -> Any:
    cuda = cuda_session(device)
    with cuda.active() as stream:
        data = cuda.array(volume, np.float32)
        _refuse_shape(data, "volume")
        nz, ny, nx = data.shape
        views = _views(cuda, angles_deg, nz, nx)
        out = cuda.empty((len(views), ny, nx if width is None else width), np.float32)
        cuda.kernels.radon(data, views, out, stream)
    return out


def _radon_adjoint_cuda(images: Any, angles_deg: npt.ArrayLike, shape: tuple[int, int], device: str) -> Any:
    cuda = cuda_session(device)
    with cuda.active() as stream:
        data = cuda.array(images, np.float32)
        _refuse_shape(data, "images")
        views = _views(cuda, angles_deg, *shape)
        out = cuda.cupy.zeros((shape[0], data.shape[1], shape[1]), np.float32)
        cuda.kernels.radon_adjoint(data, views, out, stream)
    return out


def _refuse_shape(data: Any, name: str) -> None:
    """As the host's binding, in whose words."""
    if data.ndim != 3:
        raise ValueError(f"{name}: expected a C-contiguous float32 array of three axes, got shape {data.shape}")


def _views(cuda: Any, angles_deg: npt.ArrayLike, nz: int, nx: int) -> Any:
    """What the kernels take of each angle, made on the host: cosines are exact there, and few."""
    angles = np.deg2rad(np.atleast_1d(np.asarray(angles_deg, np.float64)))
    return cuda.array(cuda.kernels.radon_views(angles.tolist(), int(nz), int(nx)), np.float64)
