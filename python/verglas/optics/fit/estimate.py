"""CTF of a micrograph: defocus, astigmatism, phase shift, tilt, and how far they can be trusted."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from verglas.errors import InputError
from verglas.optics.fit import tilt as ctf_tilt
from verglas.optics.fit.curves import Envelopes, Rings, chi_turns, envelope_b_factor
from verglas.optics.fit.refined import HANN_CORRELATION, Freedom, Refined, Slab, refine
from verglas.optics.fit.search import SearchRange, SectorSearch
from verglas.optics.fit.spectrum import Spectra, of_average, tile_spectra
from verglas.types import Optics
from verglas.types.arrays import FloatArray
from verglas.types.convert import MicrographLike, micrograph_of
from verglas.types.ctf_ranges import OPTIONS, check_ctf
from verglas.types.display import one_line
from verglas.types.power_spectrum import PowerSpectrum
from verglas.types.settings import check_settings, setting, settings_from

_WINDOW_RINGS = 1.5  # rings in the window of the local correlation
_WINDOW_BINS = 9
_LARGEST_PIXEL = 1e12  # beyond it squares of sums overflow in float32; detectors count to 1e6
_FIT_CORRELATION = 0.5
# Rings that a search on noise alone finds, in standard deviations, and the merit below which rings are not believed.
_NOISE_SIGNIFICANCE, _LOW_MERIT = 5.5, 0.3


@dataclass(frozen=True)
class CtfSettings:
    """What is fitted, in which range.

    Attributes
    ----------
    voltage_kV, cs_mm, amplitude_contrast : float
        Of the microscope and the specimen.
    defocus_A : (float, float)
        Range of the mean underfocus.
    astigmatism_A : float
        Largest difference of the two defoci.
    resolution_A : (float, float)
        Band of the fit, coarse and fine; the fine end is at least 2.1 pixels.
    phase_shift_deg : float or (float, float)
        Fixed, or a range to search, as (0, 180) for a phase plate.
    tilt : bool
        Also fit the plane of a tilted specimen.

    Raises
    ------
    SettingError, InputError
        A value outside its range.

    Examples
    --------
    >>> from verglas.optics.fit import CtfSettings
    >>> CtfSettings(cs_mm=0.01, amplitude_contrast=0.07).defocus_A
    (3000.0, 40000.0)
    """

    voltage_kV: float = setting(300.0, "Accelerating voltage")
    cs_mm: float = setting(2.7, "Spherical aberration")
    amplitude_contrast: float = setting(0.1, "Amplitude contrast, a fraction")
    defocus_A: tuple[float, float] = setting((3000.0, 40000.0), "Range of the mean underfocus")
    astigmatism_A: float = setting(2000.0, "Largest difference of the two defoci", at_least=0)
    resolution_A: tuple[float, float] = setting((20.0, 4.0), "Band of the fit, coarse and fine")
    phase_shift_deg: float | tuple[float, float] = setting(0.0, "Range of the phase shift to search")
    tilt: bool = setting(False, "Fit the plane of a tilted specimen")

    def __post_init__(self) -> None:
        """Check once."""
        check_settings("ctf", self, self._wrong_ranges())
        microscope = {"voltage_kV": self.voltage_kV, "cs_mm": self.cs_mm, "amplitude_contrast": self.amplitude_contrast}
        check_ctf(microscope, "ctf", OPTIONS)

    def _wrong_ranges(self) -> Iterator[tuple[str, str]]:
        (low, high), (coarse, fine) = self.defocus_A, self.resolution_A
        if not 0 < low < high:
            yield "defocus_A", f"expected 0 < smallest < largest, got {low:g} and {high:g}"
        elif self.astigmatism_A > 2 * low:
            yield "astigmatism_A", f"expected 0 to twice the smallest defocus, got {self.astigmatism_A:g}"
        if not 0 < fine < coarse:
            yield "resolution_A", f"expected coarse > fine > 0, got {coarse:g} and {fine:g}"

    @property
    def phases_deg(self) -> tuple[float, float]:
        """The range of the phase shift."""
        p = self.phase_shift_deg
        return (float(p), float(p)) if isinstance(p, int | float) else (float(p[0]), float(p[1]))


@one_line
@dataclass(frozen=True)
class CtfFit:
    """The CTF of one micrograph.

    Attributes
    ----------
    optics : Optics
        One row: the CTF at the centre of the micrograph; u is the larger defocus.
    merit : float
        Correlation of the equiphase average, less the background, with the rings of the model, over the band, times
        1 - (5.5 / significance)^2 (not below 0), which takes away what a search finds in pure noise: 1 for perfect
        rings, about 0 for none.
    significance : float
        Ring amplitude over its standard error; 5.5 where there is only noise.
    resolution_A : float
        Where the local correlation of the two first falls below 0.5; infinite where it never reaches it.
    b_factor_A2 : float
        Fall-off of the rings, exp(-B k^2/4) in amplitude.
    errors : (4,) float64
        Standard errors of mean defocus, the two components of astigmatism (A) and phase shift (degrees), from the
        curvature of the likelihood; what is not fitted has 0.
    gradient : (2,) float64
        Change of underfocus along x and y, angstrom per angstrom; zero unless the tilt was fitted.
    centre_px : (2,) float64
        x, y of the pixel that ``optics`` belongs to.
    reason : str
        Why the fit should not be used; empty where nothing speaks against it.
    rings : Rings
        Equiphase average.
    envelopes : Envelopes
        Background and ring amplitude.
    local_correlation : (b,) float64
        At the frequencies of ``rings``.
    spectra : Spectra
        The tiles' mean spectrum, for pictures.
    name : str
        Of the micrograph.
    """

    optics: Optics
    merit: float
    significance: float
    resolution_A: float
    b_factor_A2: float
    errors: FloatArray
    gradient: FloatArray
    centre_px: FloatArray
    reason: str
    rings: Rings
    envelopes: Envelopes
    local_correlation: FloatArray
    spectra: Spectra
    name: str = ""

    @property
    def defocus_A(self) -> float:
        """Mean underfocus."""
        return float(self.optics.defocus_u_A[0] + self.optics.defocus_v_A[0]) / 2

    @property
    def astigmatism_A(self) -> float:
        """Difference of the two defoci."""
        return float(self.optics.defocus_u_A[0] - self.optics.defocus_v_A[0])

    @property
    def astigmatism_error_A(self) -> float:
        """Standard error of the difference of the two defoci; of a smaller difference nothing is known but that."""
        return float(np.sqrt(2 * (self.errors[1] ** 2 + self.errors[2] ** 2)))

    @property
    def tilt_deg(self) -> float:
        """Angle of the specimen against the plane across the beam."""
        return float(np.rad2deg(np.arctan(np.hypot(*self.gradient))))

    @property
    def tilt_axis_deg(self) -> float:
        """Direction of the tilt axis from +x towards +y; underfocus grows along it + 90 degrees."""
        gx, gy = self.gradient
        return float(np.rad2deg(np.arctan2(gy, gx)) - 90) % 360

    def optics_at(self, xy_px: npt.ArrayLike) -> Optics:
        """CTF at places (n, 2) of the micrograph: the defocus follows the tilt plane."""
        xy = np.atleast_2d(np.asarray(xy_px, np.float64))
        local = (xy - self.centre_px) * self.spectra.band.pixel_size_A @ self.gradient
        at = self.optics[np.zeros(len(xy), np.int64)]
        return replace(at, defocus_u_A=at.defocus_u_A + local, defocus_v_A=at.defocus_v_A + local)

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        o = self.optics
        return {
            "micrograph": self.name,
            "voltage_kV": float(o.voltage_kV[0]),
            "defocus_u_A": round(float(o.defocus_u_A[0]), 1),
            "defocus_v_A": round(float(o.defocus_v_A[0]), 1),
            "defocus_angle_deg": round(float(o.defocus_angle_deg[0]), 2),
            "phase_shift_deg": round(float(o.phase_shift_deg[0]), 2),
            "tilt_deg": round(self.tilt_deg, 2),
            "tilt_axis_deg": round(self.tilt_axis_deg, 2),
            "merit": round(self.merit, 4),
            "significance": round(self.significance, 1),
            "resolution_A": round(self.resolution_A, 3) if np.isfinite(self.resolution_A) else None,
            "b_factor_A2": round(self.b_factor_A2, 1),
            "defocus_error_A": round(float(self.errors[0]), 1),
            "astigmatism_error_A": round(self.astigmatism_error_A, 1),
            "reason": self.reason,
        }


def estimate_ctf(
    micrograph: MicrographLike,
    settings: CtfSettings | None = None,
    *,
    spectrum: PowerSpectrum | None = None,
    threads: int | None = 1,
    **changes: Any,
) -> CtfFit:
    """Estimate the CTF of a micrograph from its Thon rings.

    1. The power spectra of overlapping tiles are averaged.
    2. The logarithm of their mean in sectors of 10 degrees is correlated with squared CTFs of every defocus (and phase
       shift); smooth backgrounds are projected out of both. The sectors' curves added at
       z + A cos 2(theta - alpha) score every astigmatism.
    3. The best few are refined on all pixels of the spectrum: background (cubic splines) and ring amplitude (never
       negative) by linear least squares on the equiphase average, defocus, astigmatism and phase shift by
       Gauss-Newton steps (:func:`verglas.ops.ctf_score`), in turn.
    4. With ``tilt``, the plane of defocus that explains the tiles' own spectra best is searched and the CTF refined
       again with every tile at its defocus.

    Parameters
    ----------
    micrograph : Micrograph
        With a pixel size.
    settings : CtfSettings, optional
        Microscope and ranges; further keywords (``cs_mm=0.01``) change its fields.
    spectrum : PowerSpectrum, optional
        Mean spectrum of the micrograph's tiles where it is known already (motion correction writes it). A tilt needs
        the tiles' own, which are then taken from the micrograph.
    threads : int, optional
        Of the kernels; one by default, since micrographs are better spread over threads.

    Returns
    -------
    CtfFit
        ``reason`` says why a fit should not be used: no rings, a value at the edge of its range.

    Raises
    ------
    InputError
        No pixel size, a constant image, one with nothing but NaN, one of fewer than 64 pixels, a setting out of range.

    References
    ----------
    Rohou and Grigorieff (2015) J. Struct. Biol. 192, 216-221 (equiphase average, merit, fit resolution); Mindell and
    Grigorieff (2003) J. Struct. Biol. 142, 334-347 (tilt from tiles).

    Examples
    --------
    >>> import verglas as vg
    >>> m, truth = vg.simulate.micrograph(shape=(768, 768), pixel_size_A=2.0, defocus_u_A=12000, seed=1)
    >>> fit = vg.estimate_ctf(m)
    >>> bool(abs(fit.defocus_A - 12000) < 50), fit.merit > 0.8, fit.reason
    (True, True, '')
    """
    settings = settings_from("ctf", CtfSettings, settings, **changes)
    micrograph = micrograph_of(micrograph, "estimate_ctf: micrograph")
    pixel = micrograph.pixel_size_A
    if not np.isfinite(pixel):
        raise InputError(
            f"{micrograph.name or 'micrograph'}: the pixel size is unknown; give pixel_size_A (--pixel-size)"
        )
    largest = float(np.nanmax(np.abs(micrograph.data), initial=0.0))
    if largest > _LARGEST_PIXEL:
        raise InputError(f"{micrograph.name or 'micrograph'}: a pixel of {largest:g}: no counts, the file is damaged")
    coarse, fine = settings.resolution_A
    # Short of Nyquist by 5 %: into the last shells aliasing folds what lies beyond.
    fine = max(fine, 2.1 * pixel)
    if fine >= 0.7 * coarse:
        raise InputError(
            f"{micrograph.name or 'micrograph'}: pixels of {pixel:g} A hold rings down to {fine:.1f} A only"
        )
    if spectrum is None or settings.tilt:
        spectra = tile_spectra(micrograph, coarse, fine, keep=settings.tilt)
    else:
        if abs(spectrum.pixel_size_A / pixel - 1) > 1e-3:
            raise InputError(
                f"{micrograph.name or 'micrograph'}: pixels of {pixel:g} A, but its power spectrum has "
                f"{spectrum.pixel_size_A:g} A; leave the spectrum out, or give the pixel size that it has"
            )
        spectra = of_average(spectrum, coarse, fine)
    voltage, cs, contrast, size = (
        np.array([v]) for v in (settings.voltage_kV, settings.cs_mm, settings.amplitude_contrast, pixel)
    )
    nothing = np.zeros(1)
    base = Optics(nothing, nothing, nothing, voltage, cs, contrast, pixel_size_A=size)
    power = spectra.mean.ravel()[spectra.band.flat]
    span = SearchRange(settings.defocus_A, settings.astigmatism_A, settings.phases_deg)
    starts = SectorSearch(power, spectra.band, base, span).starts()
    slabs = [Slab(power, 0.0, float(len(spectra.centres_px)))]
    freedom = _freedom(settings)
    fits = [refine(s, slabs, spectra.band, freedom=freedom, rounds=2, threads=threads) for s in starts]
    best = min(fits, key=lambda fit: fit.cost)
    best = refine(best.optics, slabs, spectra.band, freedom=freedom, threads=threads)
    gradient = np.zeros(2)
    # The middle between the first and the last pixel, as the centres of the tiles are counted; not N // 2.
    centre = (np.array(micrograph.shape[::-1]) - 1) / 2
    if settings.tilt:
        best, gradient = ctf_tilt.fit_tilt(best, spectra, centre, freedom, threads)
    return _judge_fit(best, gradient, centre, spectra, settings, micrograph.name)


def _freedom(settings: CtfSettings) -> Freedom:
    low, high = settings.phases_deg
    half = settings.astigmatism_A / 2
    free = (True, half > 0, half > 0, high > low)
    return Freedom(
        free,
        np.array([settings.defocus_A[0], -half, -half, low]),
        np.array([settings.defocus_A[1], half, half, high]),
    )


def _judge_fit(
    best: Refined, gradient: FloatArray, centre: FloatArray, spectra: Spectra, settings: CtfSettings, name: str
) -> CtfFit:
    """Figures of merit, and what speaks against the fit."""
    rings = best.rings
    model = np.sin(2 * np.pi * chi_turns(best.optics, rings.k)) ** 2
    background, amplitude = best.envelopes.background(rings.k), best.envelopes.amplitude(rings.k)
    noise = np.maximum(background + amplitude / 2, 1e-12)
    local = local_correlation(best.optics, rings, (rings.power - background) / noise)
    significance = _significance(amplitude * model / noise, rings, best.cost, spectra)
    merit = _correlation((rings.power - background) / noise, amplitude * model / noise, rings.count)
    merit *= max(0.0, 1 - (_NOISE_SIGNIFICANCE / max(significance, 1e-9)) ** 2)
    below = np.flatnonzero(local < _FIT_CORRELATION)
    first = np.flatnonzero(local >= _FIT_CORRELATION)
    resolution = float("inf")
    if merit >= _LOW_MERIT and first.size and first[0] < len(local) // 2:
        after = below[below > first[0]]
        resolution = 1 / rings.k[(after[0] if after.size else len(rings.k)) - 1]
    b_factor = envelope_b_factor(rings, best.optics, spectra.band)
    reason = _reason(best.optics, merit, resolution, settings)
    errors = np.sqrt(np.maximum(np.diag(best.covariance), 0))
    return CtfFit(
        best.optics,
        merit,
        significance,
        float(resolution),
        b_factor,
        errors,
        gradient,
        centre,
        reason,
        rings,
        best.envelopes,
        local,
        spectra,
        name,
    )


def _significance(model: FloatArray, rings: Rings, cost: float, spectra: Spectra) -> float:
    """Norm of the rings less their mean, over the standard deviation of one independent pixel of the mean spectrum."""
    tiles = len(spectra.centres_px)
    centred = model - np.average(model, weights=rings.count)
    return float(np.sqrt((rings.count @ centred**2) / tiles / max(cost * HANN_CORRELATION, 1e-12)))


def _reason(optics: Optics, merit: float, resolution: float, settings: CtfSettings) -> str:
    mean = float(optics.defocus_u_A[0] + optics.defocus_v_A[0]) / 2
    if merit < _LOW_MERIT or not np.isfinite(resolution):
        return f"no Thon rings: merit {merit:.2f} (carbon, empty, drift, or a wrong pixel size)"
    low, high = settings.defocus_A
    if mean < low + 1 or mean > high - 1:
        return f"defocus {mean:.0f} A at the edge of the range of {low:.0f} to {high:.0f} A"
    if float(optics.defocus_u_A[0] - optics.defocus_v_A[0]) > 0.99 * settings.astigmatism_A > 0:
        return f"astigmatism at the edge of its range of {settings.astigmatism_A:.0f} A"
    return ""


def local_correlation(optics: Optics, rings: Rings, curve: FloatArray) -> FloatArray:
    """Correlation of a curve with the squared CTF in a window of 1.5 rings (at least 9 bins) about every frequency."""
    turns = chi_turns(optics, rings.k)
    model = np.sin(2 * np.pi * turns) ** 2
    out = np.zeros(len(turns))
    for i, t in enumerate(turns):
        # a ring is half a turn of the phase
        low = min(int(np.searchsorted(turns, t - _WINDOW_RINGS / 4)), i - _WINDOW_BINS // 2)
        high = max(int(np.searchsorted(turns, t + _WINDOW_RINGS / 4)), i + _WINDOW_BINS // 2 + 1)
        low, high = max(low, 0), min(high, len(turns))
        out[i] = _correlation(curve[low:high], model[low:high], rings.count[low:high])
    return out


def _correlation(a: FloatArray, b: FloatArray, weight: FloatArray) -> float:
    w = weight / weight.sum()
    a, b = a - w @ a, b - w @ b
    below = np.sqrt((w @ a**2) * (w @ b**2))
    return float((w * a) @ b / below) if below > 1e-12 else 0.0
