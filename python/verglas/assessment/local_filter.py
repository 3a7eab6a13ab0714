"""Low-pass filter that follows the resolution of each voxel."""

from __future__ import annotations

import numpy as np

from verglas.assessment.local_bands import Band, filter_by_bands
from verglas.errors import InputError
from verglas.types import Map
from verglas.types.arrays import Float32Array
from verglas.types.convert import MapLike, map_of

_BANDS = 32  # at most: a step of the filter is then finer than its edge


def filter_locally(volume: MapLike, resolution: MapLike, *, threads: int | None = None) -> Map:
    r"""Every voxel filtered to its own resolution; what is coarser than all resolutions keeps its grey values.

    .. math:: f(x) = \sum_b g_b(x)\, v_b(x), \quad \sum_b v_b = v

    with v_b raised-cosine bands of the map that add up to it, and g_b 1 below the voxel's frequency, 0 beyond it, with
    an edge of one band.

    Parameters
    ----------
    volume : Map
        A cube, such as the mean of the half maps, or the sharpened map.
    resolution : Map
        In angstrom, of the same box (:func:`verglas.local_resolution`).
    threads : int, optional
        Threads; the result does not depend on it.

    Returns
    -------
    Map

    Raises
    ------
    InputError
        The maps do not go together, or a resolution is not positive.

    Examples
    --------
    >>> import numpy as np, verglas as vg
    >>> from verglas.assessment import filter_locally
    >>> v = vg.Map(np.random.default_rng(0).normal(size=(24, 24, 24)), 2.0)
    >>> filtered = filter_locally(v, v.with_data(np.full((24, 24, 24), 8.0)))
    >>> bool(filtered.data.std() < 0.3), bool(abs(filtered.data.mean() - v.data.mean()) < 1e-6)
    (True, True)
    """
    volume = map_of(volume, "filter_locally: the map")
    resolution = map_of(resolution, "filter_locally: the map of resolutions")
    if volume.data.shape != resolution.data.shape:
        raise InputError(
            f"filter_locally: the map has shape {volume.data.shape} and that of resolutions {resolution.data.shape}"
        )
    if not (np.isfinite(resolution.data).all() and resolution.data.min() > 0):
        raise InputError("filter_locally: resolutions must be positive numbers in angstrom, got some that are not")
    box = volume.box
    frequency: Float32Array = np.float32(box * volume.pixel_size_A) / resolution.data  # Fourier pixels
    lowest, highest = float(frequency.min()), min(float(frequency.max()), box / 2)
    step = max(1.0, (highest - lowest) / _BANDS)
    first = max(1, int(np.floor(lowest / step)))
    bands = [Band(n * step, step, 1.0) for n in range(first, int(np.ceil(highest / step)) + 2)]
    gains = (np.clip((frequency - band.centre) / np.float32(step) + 0.5, 0, 1) for band in bands)
    return volume.with_data(filter_by_bands(volume.data, bands, gains, threads=threads))
