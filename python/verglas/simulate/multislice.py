r"""Thick specimens: the CTF through their thickness, and dynamic scattering by slices.

The beam travels along +z of a map, whose slabs of voxels stand at (i - N//2) voxels from its centre; the defocus is
that of the centre and grows with z. Contrast is that of images here: more matter, higher values.

Models of one image, for tests of what projects and reconstructs:

- :func:`project_layers`, weak scattering: each slab is imaged with the CTF at its own height, and the images add up.
  Summed over slabs this is the sum of two slices on Ewald's sphere (:mod:`verglas.reconstruction.ewald`, positive
  sign), here without a transform along z; :func:`project_3d_ctf` is that sum, the transform along z taken exactly.
- :func:`exit_wave` and :func:`image_of_wave`, scattering of any strength: the wave passes slab after slab, its phase
  turned by each, and travels in between (Cowley and Moodie 1957, Acta Cryst. 10, 609-619). Weak phases give
  :func:`project_layers`, thin specimens the projection.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from verglas import fourier, ops
from verglas.errors import InputError
from verglas.optics import wavelength_A
from verglas.types import Map, Optics
from verglas.types.arrays import Float32Array, FloatArray, any_arrays
from verglas.types.convert import MapLike, map_of

_DEFOCI, _VOLTAGE, _PHASE_SHIFT = slice(0, 2), 3, 6  # columns of Optics.as_params


def _one(optics: Optics, job: str) -> FloatArray:
    if len(optics) != 1:
        raise InputError(f"{job}: expected the optics of one image, got {len(optics)}; take one with optics[i]")
    return optics.as_params()


def _heights_A(volume: Map) -> FloatArray:
    """Of the slabs, along the beam."""
    return np.asarray((np.arange(volume.box) - volume.box // 2) * volume.pixel_size_A)


def project_layers(map: MapLike, optics: Optics, *, threads: int | None = None) -> Float32Array:
    r"""Image of a map along z with the CTF through its thickness.

    .. math:: I(k) = \sum_z \mathrm{CTF}(k;\, \Delta f + z)\, \hat V_z(k)

    Parameters
    ----------
    map : Map or path
        A cubic map.
    optics : Optics
        Of one image; the defocus is that of the map's centre.
    threads : int, optional
        Threads; all by default.

    Returns
    -------
    (N, N) float32

    Raises
    ------
    InputError
        The map is not a cube, or there are several optics.

    References
    ----------
    DeRosier (2000) Ultramicroscopy 81, 83-98.

    Examples
    --------
    >>> import numpy as np, verglas as vg
    >>> ball = vg.Map(np.pad(np.ones((4, 4, 4)), 6), 2.0)
    >>> vg.simulate.project_layers(ball, vg.Optics([15000], [15000])).shape
    (16, 16)
    """
    volume = map_of(map, "project_layers: map")
    params = _one(optics, "project_layers")
    box, total = volume.box, np.zeros((1, volume.box, volume.box // 2 + 1), np.complex128)
    for height_A, layer in zip(_heights_A(volume), volume.data, strict=True):
        if layer.any():
            here = params.copy()
            here[:, _DEFOCI] += height_A
            ctf = ops.ctf(here, box, volume.pixel_size_A, threads=threads)
            total += ctf * fourier.forward(layer[None], 2, threads=threads)
    return np.asarray(fourier.inverse(total.astype(np.complex64), (box, box), threads=threads)[0], np.float32)


def project_3d_ctf(map: MapLike, optics: Optics, *, threads: int | None = None) -> Float32Array:
    r"""Image of a map along z by the formula of the CTF through its thickness (3DCTF): two slices of its transform.

    .. math::
        I(k) = \frac{1}{2i} \left[ e^{i\chi(k)} V(k, -\tfrac{\lambda k^2}{2})
             - e^{-i\chi(k)} V(k, \tfrac{\lambda k^2}{2}) \right]

    The same as :func:`project_layers`, sine for exponentials; the 1/2i is left out in some texts.

    Parameters
    ----------
    map : Map or path
        A cubic map.
    optics : Optics
        Of one image; the defocus is that of the map's centre.
    threads : int, optional
        Threads; all by default.

    Returns
    -------
    (N, N) float32

    Raises
    ------
    InputError
        The map is not a cube, or there are several optics.

    Examples
    --------
    >>> import numpy as np, verglas as vg
    >>> ball, optics = vg.Map(np.pad(np.ones((4, 4, 4)), 6), 2.0), vg.Optics([15000], [15000])
    >>> layers = vg.simulate.project_layers(ball, optics)
    >>> bool(np.allclose(vg.simulate.project_3d_ctf(ball, optics), layers, atol=1e-5))
    True
    """
    volume = map_of(map, "project_3d_ctf: map")
    params = _one(optics, "project_3d_ctf")
    box, pixel_A = volume.box, volume.pixel_size_A
    quarter = params.copy()
    quarter[:, _PHASE_SHIFT] += 90
    sine, cosine = (ops.ctf(p, box, pixel_A, threads=threads)[0] for p in (params, quarter))
    both = cosine + 1j * sine
    k = np.fft.fftfreq(box, pixel_A)
    # what a layer at the height z has turned by: pi lambda k^2 z
    turn = np.pi * float(wavelength_A(params[0, _VOLTAGE])) * (k[:, None] ** 2 + np.fft.rfftfreq(box, pixel_A) ** 2)
    above, below = (np.zeros(turn.shape, np.complex128) for _ in range(2))
    for height_A, layer in zip(_heights_A(volume), volume.data, strict=True):
        if layer.any():
            flat, phase = fourier.forward(layer[None], 2, threads=threads)[0], np.exp(1j * turn * height_A)
            above += flat * phase
            below += flat * phase.conj()
    total = (both * above - both.conj() * below) / 2j
    return np.asarray(fourier.inverse(total[None].astype(np.complex64), (box, box), threads=threads)[0], np.float32)


def exit_wave(
    phase_rad: MapLike, voltage_kV: float, *, slab_px: int = 1, threads: int | None = None
) -> npt.NDArray[np.complex128]:
    r"""Electron wave behind a specimen, brought back to the plane of its centre; 1 where there is none.

    .. math:: \psi \leftarrow e^{-i\pi\lambda\,\Delta z\,k^2} \left[ e^{i\varphi_z} \psi \right]

    Parameters
    ----------
    phase_rad : Map or path
        Phase by which each voxel turns the wave: interaction constant times potential times the voxel's thickness.
    voltage_kV : float
    slab_px : int
        Voxels along z that are taken together.
    threads : int, optional
        Threads; all by default.

    Returns
    -------
    (N, N) complex128

    Raises
    ------
    InputError
        The map is not a cube, or ``slab_px`` is below 1.

    Examples
    --------
    >>> import numpy as np, verglas as vg
    >>> nothing = vg.Map(np.zeros((8, 8, 8)), 2.0)
    >>> bool(np.allclose(vg.simulate.exit_wave(nothing, 300), 1))
    True
    """
    volume = map_of(phase_rad, "exit_wave: phase_rad")
    if slab_px < 1:
        raise InputError(f"exit_wave: slab_px: expected 1 or more, got {slab_px}")
    box, pixel_A = volume.box, volume.pixel_size_A
    k = np.fft.fftfreq(box, pixel_A)
    turn = -np.pi * float(wavelength_A(voltage_kV)) * (k[:, None] ** 2 + k**2)

    def propagate(wave: npt.NDArray[np.complex128], path_A: float) -> npt.NDArray[np.complex128]:
        return np.asarray(np.fft.ifft2(np.fft.fft2(wave) * np.exp(1j * turn * path_A)))

    wave = np.ones((box, box), np.complex128)
    for begin in range(0, box, slab_px):
        slab = volume.data[begin : begin + slab_px]
        # its phase stands at its middle
        path_A = len(slab) * pixel_A / 2
        wave = propagate(propagate(wave, path_A) * np.exp(1j * slab.sum(axis=0, dtype=np.float64)), path_A)
    return propagate(wave, -(box - box // 2 - 0.5) * pixel_A)


@any_arrays
def image_of_wave(
    wave: npt.NDArray[np.complex128], optics: Optics, pixel_size_A: float, *, threads: int | None = None
) -> Float32Array:
    r"""What the microscope makes of a wave: half of what its intensity lacks, CTF times projection for weak phases.

    .. math:: I = \frac{1 - |\psi'|^2}{2}, \quad \hat\psi' = \delta + e^{i\chi} (\hat\psi - \delta)

    Parameters
    ----------
    wave : (N, N) complex128
        From :func:`exit_wave`.
    optics : Optics
        Of one image; the defocus is that of the plane in which the wave is given. Envelope and amplitude contrast are
        those of the scattered wave.
    pixel_size_A : float
    threads : int, optional
        Threads; all by default.

    Returns
    -------
    (N, N) float32

    Raises
    ------
    InputError
        There are several optics, or the wave is no square.

    Examples
    --------
    >>> import numpy as np, verglas as vg
    >>> image = vg.simulate.image_of_wave(np.ones((8, 8), complex), vg.Optics([15000], [15000]), 2.0)
    >>> bool(np.allclose(image, 0))
    True
    """
    params = _one(optics, "image_of_wave")
    if wave.ndim != 2 or wave.shape[0] != wave.shape[1]:
        raise InputError(f"image_of_wave: expected a square wave, got {wave.shape}")
    box = len(wave)
    quarter = params.copy()
    quarter[:, _PHASE_SHIFT] += 90
    sine, cosine = (_full_plane(ops.ctf(p, box, pixel_size_A, threads=threads)[0]) for p in (params, quarter))
    scattered = np.fft.ifft2(np.fft.fft2(wave - 1) * (cosine + 1j * sine))
    return np.asarray((1 - np.abs(1 + scattered) ** 2) / 2, np.float32)


def _full_plane(half: Float32Array) -> FloatArray:
    """A real, even half plane (N, N // 2 + 1) as the whole one in fft2's order."""
    box = len(half)
    columns = np.arange(box)
    mirrored = columns > box // 2
    rows = np.where(mirrored[None, :], (-np.arange(box)[:, None]) % box, np.arange(box)[:, None])
    return np.asarray(half[rows, np.where(mirrored, box - columns, columns)[None, :]], np.float64)
