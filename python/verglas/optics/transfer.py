"""Contrast transfer: the CTF of images, its zeros, its correction, and the small formulas of the microscope.

Spectra are half transforms of images, (..., box, box // 2 + 1), as :func:`verglas.fourier.forward` makes them. The sign
of the CTF is that of docs/conventions.md: underfocus positive, CTF(0) = +w without phase shift.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from verglas import fourier, ops
from verglas.errors import InputError
from verglas.types import Optics
from verglas.types.arrays import Array, FloatArray, any_arrays

__all__ = [
    "best_resolution_A",
    "compose_snr",
    "ctf",
    "ctf_zeros",
    "defocus_accuracy_A",
    "largest_pixel_size_A",
    "nyquist",
    "phase_flip",
    "specimen_pixel_size_A",
    "stage_snrs",
    "wavelength_A",
    "wiener",
    "wiener_sum",
]


def _positive(value: npt.ArrayLike, name: str, unit: str) -> FloatArray:
    numbers = np.asarray(value, dtype=np.float64)
    if not (np.isfinite(numbers) & (numbers > 0)).all():
        bad = numbers[~(np.isfinite(numbers) & (numbers > 0))].flat[0]
        raise InputError(f"{name}: expected a positive number{unit}, got {bad:g}")
    return numbers


@any_arrays
def wavelength_A(voltage_kV: npt.ArrayLike) -> FloatArray:
    r"""Relativistic electron wavelength.

    .. math:: \lambda = \frac{12.2643247}{\sqrt{V (1 + 0.978466 \cdot 10^{-6} V)}}, \quad V \text{ in volt}

    Parameters
    ----------
    voltage_kV : array_like
        Accelerating voltage in kilovolt.

    Returns
    -------
    float64, same shape
        Angstrom: 0.019687 at 300 kV, 0.025079 at 200 kV.

    Examples
    --------
    >>> from verglas import optics
    >>> float(optics.wavelength_A(300).round(5))
    0.01969
    """
    volt = 1e3 * _positive(voltage_kV, "voltage_kV", " of kilovolt")
    # h / sqrt(2 m e) and e / (2 m c^2), in A V^1/2 and 1/V. RELION's digits, 5e-6 off today's, so that both make one
    # CTF.
    return np.asarray(12.2643247 / np.sqrt(volt * (1 + 0.978466e-6 * volt)))


def ctf(
    optics: Optics, box: int, pixel_size_A: float | None = None, *, device: str = "cpu", threads: int | None = None
) -> npt.NDArray[np.float32]:
    """Contrast transfer functions of images; the formula is that of :func:`verglas.ops.ctf`.

    Parameters
    ----------
    optics : Optics
        n images; B-factor and scale are applied.
    box : int
        Image side in pixels.
    pixel_size_A : float, optional
        Pixel size in angstrom; ``optics.pixel_size_A`` by default, if it is known and the same for all.
    device : str
        ``"cpu"`` or a name of :func:`verglas.devices`.
    threads : int, optional
        Threads; all by default.

    Returns
    -------
    (n, box, box // 2 + 1) float32
        In rfft2 order.

    Raises
    ------
    InputError
        No pixel size, several pixel sizes, or a box or pixel size that is not positive.

    Examples
    --------
    >>> import verglas as vg
    >>> c = vg.ctf(vg.Optics(defocus_u_A=[15000, 20000], defocus_v_A=[15000, 20000]), box=8, pixel_size_A=2.0)
    >>> c.shape, round(float(c[1, 0, 0]), 6)
    ((2, 8, 5), 0.1)
    """
    if not isinstance(optics, Optics):
        raise InputError(f"ctf: expected an Optics (particles.optics), got {type(optics).__name__}")
    if pixel_size_A is None:
        sizes = np.unique(optics.pixel_size_A)
        if len(sizes) != 1 or not np.isfinite(sizes[0]):
            sizes_text = "none is known" if np.isnan(sizes).all() else f"found {', '.join(f'{s:g}' for s in sizes[:4])}"
            raise InputError(f"ctf: expected one pixel size for all images, {sizes_text}; pass pixel_size_A")
        pixel_size_A = float(sizes[0])
    if int(box) != box or box < 1:
        raise InputError(f"box: expected a whole number of pixels, at least 1, got {box}")
    _positive(pixel_size_A, "pixel_size_A", " of angstrom")
    return ops.ctf(optics.as_params(), int(box), pixel_size_A, device=device, threads=threads)


def ctf_zeros(optics: Optics, max_frequency_per_A: float) -> FloatArray:
    r"""Radii at which the CTF of one image is zero, astigmatism left out (mean defocus).

    With :math:`q = s^2` the phase is a multiple of :math:`\pi` where

    .. math::
        \tfrac12 C_s \lambda^3 q^2 - \lambda \Delta z\, q + n - \frac{\varphi + \arcsin w}{\pi} = 0

    for a whole number n; both roots of every n are taken. The form used divides by no :math:`C_s`, which may be 0.

    Parameters
    ----------
    optics : Optics
        One image.
    max_frequency_per_A : float
        Largest radius, 1/A.

    Returns
    -------
    (m,) float64
        Ascending radii in 1/A, zero frequency excluded.

    Raises
    ------
    InputError
        Several images, or a limit that is not positive.

    Examples
    --------
    >>> import verglas as vg
    >>> optics = vg.Optics(defocus_u_A=10000, defocus_v_A=10000, voltage_kV=300, cs_mm=0, amplitude_contrast=0)
    >>> (1 / vg.optics.ctf_zeros(optics, 0.125)).round(2).tolist()
    [14.03, 9.92, 8.1]
    """
    if len(optics) != 1:
        raise InputError(f"ctf_zeros: expected the optics of one image, got {len(optics)}; take one with optics[i]")
    limit = float(_positive(max_frequency_per_A, "max_frequency_per_A", " of 1/angstrom")) ** 2
    lam = float(wavelength_A(optics.voltage_kV)[0])
    linear = lam * float(optics.defocus_u_A[0] + optics.defocus_v_A[0]) / 2
    # 1e7: angstrom per millimetre.
    square = float(optics.cs_mm[0]) * 1e7 * lam**3 / 2
    offset = (np.deg2rad(optics.phase_shift_deg[0]) + np.arcsin(optics.amplitude_contrast[0])) / np.pi
    # Half turns linear q - square q^2 + offset over 0..limit take their extremes at the ends and at the vertex.
    ends = [0.0, limit]
    if square != 0 and 0 < linear / (2 * square) < limit:
        ends.append(linear / (2 * square))
    turns = [linear * q - square * q * q + offset for q in ends]
    constant = np.arange(np.ceil(min(turns)), np.floor(max(turns)) + 1) - offset
    root = np.sqrt(np.maximum(linear**2 - 4 * square * constant, 0.0))
    # Two roots without cancellation: half is a sum of numbers of one sign, and the roots' product is constant/square.
    half = (linear + np.copysign(root, linear)) / 2
    with np.errstate(divide="ignore", invalid="ignore"):
        roots = np.concatenate([constant / half, half / square if square != 0 else np.empty(0)])
    roots = roots[np.isfinite(roots) & (roots > 0) & (roots <= limit)]
    return np.unique(np.sqrt(roots))


def _same_grid(spectra: Array, ctfs: Array, op: str) -> None:
    if ctfs.ndim < 2 or spectra.shape[-2:] != ctfs.shape[-2:]:
        raise InputError(f"{op}: spectra {spectra.shape} and CTFs {ctfs.shape} are not on one grid")


@any_arrays
def phase_flip(spectra: npt.ArrayLike, ctfs: npt.ArrayLike, *, flipped: bool = False, undo: bool = False) -> Array:
    """Spectra times the sign of the CTF: exact, and its own inverse.

    Parameters
    ----------
    spectra : (..., box, box // 2 + 1) complex
    ctfs : same grid
        Real; where the CTF is 0 the sign is taken as +1, so that nothing is lost.
    flipped : bool
        What the metadata say: whether these spectra have been flipped already.
    undo : bool
        Take back an earlier flip. The operation is the same; the guard is the other way round.

    Returns
    -------
    (..., box, box // 2 + 1) complex
        The caller's metadata must now say ``flipped = not undo``.

    Raises
    ------
    InputError
        Flipping what is flipped, or undoing what is not: it would silently restore, or destroy, the phases.

    Examples
    --------
    >>> import numpy as np
    >>> from verglas import optics
    >>> c = np.array([[0.5, -0.5]])
    >>> x = optics.phase_flip(np.array([[1 + 1j, 2]]), c)
    >>> x.tolist(), optics.phase_flip(x, c, flipped=True, undo=True).tolist()
    ([[(1+1j), (-2-0j)]], [[(1+1j), (2+0j)]])
    """
    if flipped and not undo:
        raise InputError("phase_flip: these images are phase-flipped already; flipping again would undo it (undo=True)")
    if undo and not flipped:
        raise InputError("phase_flip: cannot undo, these images are not phase-flipped")
    x, c = np.asarray(spectra), np.asarray(ctfs)
    _same_grid(x, c, "phase_flip")
    if np.isnan(c).any():
        raise InputError("phase_flip: the CTF holds NaN")
    # Not x * sign(c): where c is 0 the coefficient would be lost, and flipping would not undo itself.
    return np.where(c < 0, -x, x)


def _noise_to_signal(k: npt.ArrayLike, like: Array, op: str) -> Array:
    """K = 1/SNR as a number or on the grid of ``like``, (..., box, box // 2 + 1)."""
    ratio = np.asarray(k, dtype=like.dtype)
    if ratio.size == 0 or not (ratio >= 0).all():
        bad = ratio[~(ratio >= 0)]
        raise InputError(f"{op}: expected k = 1/SNR of 0 or more everywhere, got {bad[0] if bad.size else 'nothing'}")
    if ratio.ndim == 1:
        box = like.shape[-2]
        return ratio[np.minimum(fourier.shells((box, box)), len(ratio) - 1)]
    return ratio


def _divide(numerator: Array, denominator: Array) -> Array:
    # 0/0 only: the CTF is exactly 0 and k = 0; nothing was measured there and the best estimate is 0.
    return np.divide(numerator, denominator, out=np.zeros_like(numerator), where=denominator != 0)


@any_arrays
def wiener(spectra: npt.ArrayLike, ctfs: npt.ArrayLike, k: npt.ArrayLike) -> Array:
    r"""Wiener estimate of each image by itself.

    .. math:: \hat A = \frac{C X}{C^2 + k}

    Parameters
    ----------
    spectra : (..., box, box // 2 + 1) complex
        X = C A + N.
    ctfs : same grid
        C, real.
    k : array_like
        1/SNR = noise power over the power of A (before the CTF): one number, a curve (m,) over the shells round(|k|),
        its last value held beyond its end, or an array on the grid. k = 0 divides by the CTF.

    Returns
    -------
    (..., box, box // 2 + 1) complex
        0 where both C and k are 0.

    Raises
    ------
    InputError
        Other grids, or a negative (or NaN) k.

    References
    ----------
    Saxton (1978) Computer Techniques for Image Processing in Electron Microscopy.

    Examples
    --------
    >>> import numpy as np
    >>> from verglas import optics
    >>> optics.wiener(np.array([[2.0 + 0j]]), np.array([[0.5]]), k=0.25).tolist()
    [[(2+0j)]]
    """
    x, c = np.asarray(spectra), np.asarray(ctfs)
    _same_grid(x, c, "wiener")
    numerator = c * x
    return _divide(numerator, np.broadcast_to(c * c + _noise_to_signal(k, c, "wiener"), numerator.shape))


@any_arrays
def wiener_sum(spectra: npt.ArrayLike, ctfs: npt.ArrayLike, k: npt.ArrayLike) -> Array:
    r"""Wiener estimate of one object from many images of it, with different CTFs.

    .. math:: \hat A = \frac{\sum_i C_i X_i}{k(s) + \sum_i C_i^2}, \quad k(s) = \frac{|N(s)|^2}{|A(s)|^2}

    Parameters
    ----------
    spectra : (n, box, box // 2 + 1) complex
        X_i = C_i A + N_i, aligned.
    ctfs : (n, box, box // 2 + 1)
        C_i, real.
    k : array_like
        As in :func:`wiener`, for one image.

    Returns
    -------
    (box, box // 2 + 1) complex

    Raises
    ------
    InputError
        Other shapes, or a negative (or NaN) k.

    References
    ----------
    Penczek (2010) Methods Enzymol. 482, 35-72.

    Examples
    --------
    >>> import numpy as np
    >>> from verglas import optics
    >>> optics.wiener_sum(np.array([[[1.0 + 0j]], [[-0.5 + 0j]]]), np.array([[[1.0]], [[-0.5]]]), k=0).tolist()
    [[(1+0j)]]
    """
    x, c = np.asarray(spectra), np.asarray(ctfs)
    if x.ndim != 3 or x.shape != c.shape:
        raise InputError(f"wiener_sum: expected spectra and CTFs (n, box, box // 2 + 1), got {x.shape} and {c.shape}")
    numerator = np.sum(c * x, axis=0)
    denominator = np.sum(c * c, axis=0) + _noise_to_signal(k, c, "wiener_sum")
    return _divide(numerator, np.broadcast_to(denominator, numerator.shape))


@any_arrays
def nyquist(pixel_size_A: npt.ArrayLike) -> FloatArray:
    """Highest frequency that a sampling carries: 1 / (2 pixel size), in 1/A.

    Examples
    --------
    >>> from verglas import optics
    >>> float(optics.nyquist(1.25))
    0.4
    """
    return np.asarray(1 / best_resolution_A(pixel_size_A))


@any_arrays
def best_resolution_A(pixel_size_A: npt.ArrayLike) -> FloatArray:
    """Finest detail that a sampling carries: 2 pixels, in angstrom.

    Examples
    --------
    >>> from verglas import optics
    >>> float(optics.best_resolution_A(3.0))
    6.0
    """
    return np.asarray(2 * _positive(pixel_size_A, "pixel_size_A", " of angstrom"))


@any_arrays
def largest_pixel_size_A(resolution_A: npt.ArrayLike, pixels_per_detail: float = 2.0) -> FloatArray:
    """Pixel size below which a resolution can be reached: resolution / 2 by Nyquist's rule, / 3 in common practice.

    Examples
    --------
    >>> from verglas import optics
    >>> float(optics.largest_pixel_size_A(4.0)), float(optics.largest_pixel_size_A(6.0, pixels_per_detail=3))
    (2.0, 2.0)
    """
    if not pixels_per_detail >= 2:
        raise InputError(f"pixels_per_detail: expected at least 2 (Nyquist), got {pixels_per_detail}")
    return np.asarray(_positive(resolution_A, "resolution_A", " of angstrom") / pixels_per_detail)


def specimen_pixel_size_A(detector_pitch_um: float, magnification: float) -> float:
    """Pixel size on the specimen of a detector with pixels of a given pitch: pitch / magnification.

    Parameters
    ----------
    detector_pitch_um : float
        Physical pixel of the detector (times binning), micrometre.
    magnification : float
        At the detector, not the nominal one on the film plane.

    Examples
    --------
    >>> from verglas import optics
    >>> optics.specimen_pixel_size_A(15, 50_000)
    3.0
    """
    pitch = float(_positive(detector_pitch_um, "detector_pitch_um", " of micrometres"))
    return pitch * 1e4 / float(_positive(magnification, "magnification", ""))


@any_arrays
def defocus_accuracy_A(resolution_A: npt.ArrayLike, voltage_kV: float = 300.0) -> FloatArray:
    r"""Largest defocus error that keeps the CTF's phase right to :math:`\pi/4` at a resolution.

    .. math:: \pi \lambda\, \delta z\, s^2 < \pi/4 \;\Rightarrow\; \delta z < \frac{1}{4 \lambda s^2}

    Parameters
    ----------
    resolution_A : array_like
        1/s, angstrom.
    voltage_kV : float
        Kilovolt.

    Returns
    -------
    float64, same shape
        Angstrom.

    References
    ----------
    Zhang and Zhou (2011) J. Struct. Biol. 175, 253-263.

    Examples
    --------
    >>> from verglas import optics
    >>> float(optics.defocus_accuracy_A(3.0).round(1))
    114.3
    """
    return np.asarray(_positive(resolution_A, "resolution_A", " of angstrom") ** 2 / (4 * wavelength_A(voltage_kV)))


@any_arrays
def stage_snrs(signal_power: float, noise_powers: npt.ArrayLike, gains: npt.ArrayLike = 1.0) -> FloatArray:
    r"""SNR of each stage of a chain that multiplies by a gain and then adds noise.

    Stage i makes :math:`x_i = G_i x_{i-1} + n_i`. Its SNR is the power of all that enters, the noise of earlier stages
    with it, over what it adds:

    .. math:: SNR_i = \frac{G_i^2 P_{i-1}}{N_i}, \quad P_i = G_i^2 P_{i-1} + N_i

    With this definition the SNRs of the stages compose by :func:`compose_snr`, whatever the gains.

    Parameters
    ----------
    signal_power : float
        Variance of the noise-free signal, P_0.
    noise_powers : (n,)
        Variances N_i.
    gains : (n,) or float
        Amplitude gains G_i.

    Returns
    -------
    (n,) float64

    Examples
    --------
    >>> from verglas import optics
    >>> optics.stage_snrs(4.0, [1.0, 1.0], gains=[0.5, 2.0]).tolist()
    [1.0, 8.0]
    """
    power = float(_positive(signal_power, "signal_power", ""))
    noise = np.atleast_1d(_positive(noise_powers, "noise_powers", ""))
    gain = np.broadcast_to(np.asarray(gains, dtype=np.float64), noise.shape)
    out = np.empty(len(noise))
    for i, (g, n) in enumerate(zip(gain, noise, strict=True)):
        out[i] = g * g * power / n
        power = g * g * power + n
    return out


@any_arrays
def compose_snr(snrs: npt.ArrayLike) -> float:
    r"""SNR of a chain of stages.

    .. math:: 1 + \frac{1}{SNR} = \prod_i \left(1 + \frac{1}{SNR_i}\right)

    The factors are the inverse correlation coefficients of the stages, which multiply. Each SNR_i counts the noise of
    earlier stages as part of what enters (:func:`stage_snrs` computes them, with gains).

    Parameters
    ----------
    snrs : (n,)
        Power ratios of the stages; ``inf`` for a stage without noise.

    Returns
    -------
    float
        ``inf`` if no stage adds noise.

    Raises
    ------
    InputError
        No stage, or an SNR that is not positive.

    References
    ----------
    Frank and Al-Ali (1975) Nature 256, 376-379; Baxter et al. (2009) J. Struct. Biol. 166, 126-132.

    Examples
    --------
    >>> from verglas import optics
    >>> optics.compose_snr([1.0, 8.0]) == 4 * 0.5**2 * 2**2 / (1 * 2**2 + 1)
    True
    """
    ratios = np.atleast_1d(np.asarray(snrs, dtype=np.float64))
    if ratios.size == 0 or not (ratios > 0).all():
        raise InputError(f"snrs: expected one or more positive power ratios, got {ratios.tolist()}")
    # log1p and expm1: many stages of high SNR lose nothing.
    excess = np.expm1(np.log1p(1 / ratios).sum())
    return float(1 / excess) if excess > 0 else float("inf")
