r"""What a reconstruction makes small: the squared distance of images from projections of a map at their poses."""

from __future__ import annotations

import numpy as np

from verglas import fourier, gridding, ops
from verglas._array_module import to_host
from verglas.errors import InputError
from verglas.geometry import euler_to_matrix
from verglas.reconstruction.known_poses import max_radius_for
from verglas.types.arrays import FloatArray
from verglas.types.convert import MapLike, ParticlesLike, map_of, particles_of

_BATCH_PIXELS = 1 << 22
_SAME_PIXEL = 2e-3  # relative: pixel sizes of files are rounded


def objective(
    map: MapLike,
    particles: ParticlesLike,
    *,
    ctf: bool = True,
    max_resolution_A: float | None = None,
    threads: int | None = None,
    device: str = "cpu",
) -> FloatArray:
    r"""Of every particle :math:`\| I_i - C_i P_i V \|^2`; a map and poses are the better the smaller the sum.

    Over all frequencies up to Nyquist (or the resolution), the mean left out: the grey values' zero is nobody's.

    Parameters
    ----------
    map : Map or path
    particles : Particles or path
        With poses, of the map's box and pixel size.
    ctf : bool
        Whether the CTF is in the model.
    max_resolution_A : float, optional
        Finest data that count.
    threads : int, optional
        Threads; all by default.
    device : str
        Where the map is projected: "cpu" or "cuda:0"; the sums agree to 1e-5.

    Returns
    -------
    (n,) float64
        In squared grey values, summed over pixels.

    Raises
    ------
    InputError
        No poses, or another box or pixel size.

    Examples
    --------
    >>> import verglas as vg
    >>> from verglas.reconstruction import objective
    >>> model = vg.simulate.phantom(24, 5.0, 75.0)
    >>> p = vg.simulate.particles(model, 5, 24, 5.0, snr=10.0, listener=None)
    >>> truth = vg.simulate.density(model, 24, 5.0)
    >>> bool(objective(truth, p).sum() < objective(vg.Map(0 * truth.data, 5.0), p).sum())
    True
    """
    volume, images = map_of(map, "objective: map"), particles_of(particles, "objective: particles")
    if images.poses is None:
        raise InputError(f"{images.where}: objective: no poses (rlnAngleRot, rlnAngleTilt, rlnAnglePsi)")
    if volume.data.shape != (images.box,) * 3:
        raise InputError(f"objective: a map of shape {volume.data.shape} and images of {images.box} px")
    if abs(volume.pixel_size_A / images.pixel_size_A - 1) > _SAME_PIXEL:
        raise InputError(
            f"objective: a map of {volume.pixel_size_A:g} A and images of {images.pixel_size_A:g} A a pixel; "
            "resample one"
        )
    box = images.box
    radius = max_radius_for(box, images.pixel_size_A, max_resolution_A)
    grid = ops.Grid(box, max_radius=radius)
    spectrum = gridding.to_grid(volume.data.astype(np.float32), grid, threads=threads)
    matrices = euler_to_matrix(images.poses.angles_deg)
    shifts = -images.poses.shifts_A / images.pixel_size_A
    shells = fourier.shells((box, box))
    weight = np.where((shells > 0) & (shells <= radius), fourier.half_weights((box, box)), 0.0) / box**2
    out, step = np.empty(len(images)), max(1, _BATCH_PIXELS // box**2)
    for begin in range(0, len(images), step):
        part = slice(begin, min(begin + step, len(images)))
        params = images.optics.as_params()[part] if ctf else None
        factor = None if params is None else ops.ctf(params, box, images.pixel_size_A, threads=threads)
        made = to_host(
            ops.project(
                spectrum, grid, matrices[part], shifts_px=shifts[part], ctf=factor, threads=threads, device=device
            )
        )
        left = fourier.forward(images.images(part), 2, threads=threads) - made
        out[part] = (np.abs(left.astype(np.complex128)) ** 2 * weight).sum(axis=(1, 2))
    return out
