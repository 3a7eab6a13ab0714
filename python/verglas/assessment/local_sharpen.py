"""Sharpening that follows the place: blur undone by the resolution of each voxel, or amplitudes taken from a model."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from verglas import fourier
from verglas.assessment.guinier import WILSON_FROM_A, amplitude_spectrum
from verglas.assessment.local_bands import BAND_OF_WINDOW, Band, Windowed, band_map, filter_by_bands, linear_bands
from verglas.assessment.map_model import Shells, best_cut
from verglas.errors import InputError
from verglas.masks import checked_mask
from verglas.types import Map
from verglas.types.arrays import Complex64Array, Float32Array, any_arrays
from verglas.types.convert import MapLike, map_of, values_of
from verglas.types.display import Shown
from verglas.types.listener import Listener, Silence
from verglas.types.settings import JobSettings, setting, settings_from

# Signal over noise, as power, to which the blur is taken to have brought the structure at a voxel's resolution. Half
# maps at FSC 0.143 say 1/3: but where a place is weak, not blurred, that undoes more than there is to undo and lowers
# the FSC with the truth in the shells where the blurred places are noise; blur that is left costs less.
_SNR_AT_RESOLUTION = 1.0
_BANDS = 24  # at most: a step of the blur is then finer than the blur
_LEAST_NOISE, _MOST_NOISE = 1e-3, 0.1
_NOISE_SHELLS = 0.9  # of Nyquist: what lies beyond, within it, is noise
_SMOOTHED = 0.6  # standard deviation of the weights, in resolutions: wider ones blur the edge between two parts
_OUTSIDE = 1e-3  # weight of a voxel outside the mask, in a mean of resolutions
_EDGE = 0.5  # a mask's voxels of at least this are the molecule
_EMPTY = 1e-6  # of the largest average of a band: less is the rounding of transforms


@dataclass(frozen=True)
class LocalSharpenSettings(JobSettings, job="local_sharpen"):
    """How a map is sharpened place by place."""

    noise_to_signal: float | None = setting(
        None,
        "Power of noise over that of the structure before it was blurred, for the method deblur",
        at_least=_LEAST_NOISE,
        at_most=_MOST_NOISE,
        default_words="from the map's spectrum",
    )
    most_iterations: int = setting(30, "Of the method deblur", at_least=1)
    change: float = setting(0.01, "The method deblur stops when an iteration changes less", more_than=0, at_most=0.5)
    window_radius_A: float = setting(
        12.5,
        "Of the window under which amplitudes are compared, for the method model: a soft edge ends at twice it",
        more_than=0,
    )
    finest_A: float | None = setting(
        None,
        "What is finer is cut, for the method model",
        more_than=0,
        default_words="beyond where map and model agree best: there noise would get the model's amplitudes",
    )


@dataclass(frozen=True, eq=False, repr=False)
class LocallySharpened(Shown):
    """A map sharpened place by place.

    Attributes
    ----------
    map : Map
    method : str
        "deblur" or "model".
    iterations : int
        Of the method deblur.
    noise_to_signal : float
        That was taken; NaN for the method model.
    finest_A : float
        What is finer was cut, by the method model; NaN for the method deblur.
    """

    map: Map
    method: str
    iterations: int = 0
    noise_to_signal: float = float("nan")
    finest_A: float = float("nan")

    def __repr__(self) -> str:
        return f"LocallySharpened({self.method}, {self.map!r})"


@any_arrays
def deblur_locally(
    volume: MapLike,
    resolution: MapLike,
    mask: MapLike | npt.ArrayLike | None = None,
    settings: LocalSharpenSettings | None = None,
    *,
    threads: int | None = None,
    listener: Listener | None = None,
    **changes: object,
) -> LocallySharpened:
    r"""Undo the blur of every voxel as far as its resolution allows (after LocalDeblur).

    The map is taken for a sharp structure u blurred place by place, and noise: V = W u + n with

    .. math:: (W u)(x) = \sum_b s_b(x)\, u_b(x), \qquad s_b(x) = s_c^{\,(k_b \rho(x))^2}

    u_b the band of u about the frequency k_b, and :math:`\rho(x)` the resolution of the voxel, smoothed over about its
    own length: a Gaussian blur, so
    wide that at the voxel's resolution signal over noise has fallen to 1 (FSC 0.143 of half maps means 1/3, with which
    the FSC with the truth falls in some shells). With noise to signal :math:`\mu` of the sharp structure, whose
    spectrum is flat at these resolutions (Wilson), that is :math:`s_c = \sqrt{\mu}`. The map is the solution of

    .. math:: \min_u |V - W u|^2 + \mu |u / m|^2

    with m the mask,
    by conjugate gradients: a Wiener filter of each place. LocalDeblur takes a logistic curve for s_b and steps of
    gradient descent, whose number stands for :math:`\mu`.

    Parameters
    ----------
    volume : Map
        A cube: the mean of the half maps, neither sharpened nor filtered.
    resolution : Map
        In angstrom, of the same box: from :func:`verglas.local_resolution` or any other program.
    mask : Map or array, optional
        Where the molecule is. Outside the map becomes flat: a resolution says nothing of signal over noise where there
        is no signal, and the noise there would be sharpened, too.
    settings : LocalSharpenSettings, optional
        Further keywords (``noise_to_signal=0.01``) change its fields.
    threads : int, optional
        Threads; the result does not depend on it.
    listener : Listener, optional
        Who is told how far it is (:class:`verglas.types.listener.Listener`).

    Returns
    -------
    LocallySharpened

    Raises
    ------
    InputError
        The maps do not go together, or a resolution is not positive.

    References
    ----------
    Ramirez-Aportela et al., Bioinformatics 36 (2020) 765.

    Examples
    --------
    >>> import numpy as np, verglas as vg
    >>> from verglas.assessment import deblur_locally
    >>> white = vg.Map(np.random.default_rng(0).normal(size=(32, 32, 32)), 2.0)
    >>> sharp = vg.filters.apply(white, vg.filters.low_pass(6.0))
    >>> blurred = vg.filters.apply(sharp, vg.filters.b_factor(300.0))
    >>> done = deblur_locally(blurred, blurred.with_data(np.full((32, 32, 32), 6.0)), noise_to_signal=0.01)
    >>> near = [float(np.corrcoef(m.data.ravel(), sharp.data.ravel())[0, 1]) for m in (blurred, done.map)]
    >>> near[1] > near[0] + 0.1
    True
    """
    chosen = settings_from("local_sharpen", LocalSharpenSettings, settings, **changes)
    volume = _cube(map_of(volume, "deblur_locally: the map"), "deblur_locally")
    resolution = map_of(resolution, "deblur_locally: the map of resolutions")
    if volume.data.shape != resolution.data.shape:
        raise InputError(
            f"deblur_locally: the map has shape {volume.data.shape} and that of resolutions {resolution.data.shape}"
        )
    if abs(volume.pixel_size_A - resolution.pixel_size_A) > 1e-3 * volume.pixel_size_A:
        raise InputError(
            f"deblur_locally: the map has voxels of {volume.pixel_size_A:g} A, that of resolutions of "
            f"{resolution.pixel_size_A:g} A"
        )
    inside = None
    if mask is not None:
        inside = checked_mask(
            values_of(mask, "deblur_locally: the mask"), volume.data.shape, "deblur_locally: the mask"
        )
    resolution = _smooth(_with_resolutions_everywhere(resolution, inside), inside)
    ratio = chosen.noise_to_signal or _noise_to_signal(volume, inside, threads)
    blur = _Blur(volume, resolution, float(np.sqrt(ratio * _SNR_AT_RESOLUTION)), inside, threads)
    data, iterations = _solve(blur, volume.data, ratio, chosen, listener or Silence())
    return LocallySharpened(volume.with_data(blur.inside * data), "deblur", iterations, ratio)


def _with_resolutions_everywhere(resolution: Map, inside: Float32Array | None) -> Map:
    """Of programs that leave 0 or NaN outside the molecule: there the coarsest of the molecule.

    Raises
    ------
    InputError
        A voxel of the molecule has none.
    """
    known = np.isfinite(resolution.data) & (resolution.data > 0)
    needed = np.ones_like(known) if inside is None else inside >= _EDGE
    if bad := np.count_nonzero(needed & ~known):
        raise InputError(
            f"deblur_locally: resolutions must be positive numbers in angstrom: {bad} of {np.count_nonzero(needed)} "
            "voxels have none" + ("; give the mask of the molecule" if inside is None else " inside the mask")
        )
    if known.all() or not needed.any():
        return resolution
    return resolution.with_data(np.where(known, resolution.data, resolution.data[needed].max()))


def _smooth(resolution: Map, inside: Float32Array | None) -> Map:
    """Means of the logarithm over about a resolution's length, of the molecule's voxels where there is a mask.

    A resolution is that of a window: what it varies by from voxel to voxel is its own error, and a filter that follows
    it mixes shells.
    """
    log = np.log(resolution.data)
    weight = np.ones_like(log) if inside is None else inside + np.float32(_OUTSIDE)
    sigma_px = _SMOOTHED * float(np.exp(np.average(log, weights=weight))) / resolution.pixel_size_A
    summed, weights = (ndimage.gaussian_filter(one, sigma_px, mode="nearest") for one in (weight * log, weight))
    return resolution.with_data(np.exp(summed / weights))


def _cube(volume: Map, job: str) -> Map:
    if len(set(volume.data.shape)) != 1:
        raise InputError(f"{job}: expected a cube, got shape {volume.data.shape}")
    if bad := np.count_nonzero(~np.isfinite(volume.data)):
        raise InputError(f"{job}: the map holds {bad} values that are not finite numbers")
    return volume


def _noise_to_signal(volume: Map, inside: Float32Array | None, threads: int | None) -> float:
    """Power close to Nyquist over what the spectrum has more where the molecule's shape no longer sets it."""
    data = volume.data if inside is None else volume.data * inside
    power = amplitude_spectrum(volume.with_data(data), threads=threads) ** 2
    shell = np.arange(len(power))
    noise = float(np.median(power[(shell >= _NOISE_SHELLS * shell[-1]) & (shell < shell[-1])]))
    at = round(volume.box * volume.pixel_size_A / WILSON_FROM_A)
    near = power[max(1, at - 2) : at + 3]
    signal = float(near.mean()) - noise if near.size else 0.0
    return float(np.clip(noise / signal, _LEAST_NOISE, _MOST_NOISE)) if signal > 0 else _MOST_NOISE


class _Blur:
    """W m and its transpose: bands of what lies in the mask, each times its field."""

    def __init__(
        self, volume: Map, resolution: Map, at_resolution: float, inside: Float32Array | None, threads: int | None
    ) -> None:
        box, self.threads = volume.box, threads
        self.inside = np.float32(1) if inside is None else inside
        self.shape = volume.data.shape
        step = max(1.0, box / 2 / _BANDS)
        self.bands = [Band(n * step, step, 1.0) for n in range(1, int(np.ceil(box / 2 / step)) + 1)]
        frequency = np.float32(box * volume.pixel_size_A) / resolution.data  # Fourier pixels
        self._falls = np.float32(np.log(at_resolution)) / frequency**2
        self.radius = fourier.radius(self.shape)

    def field(self, band: Band) -> Float32Array:
        """s_b."""
        return np.asarray(np.exp(self._falls * np.float32(band.centre**2)), np.float32)

    def of(self, data: Float32Array) -> Float32Array:
        """W m y."""
        return filter_by_bands(self.inside * data, self.bands, map(self.field, self.bands), threads=self.threads)

    def adjoint(self, data: Float32Array) -> Float32Array:
        """M W^T v: each band of its field times the map."""
        first = self.bands[0]
        rest = np.where(self.radius < first.centre, 1.0 - first.gain(self.radius), 0.0)
        total: Complex64Array = (fourier.forward(data, 3, threads=self.threads) * rest).astype(np.complex64)
        for band in self.bands:
            total += fourier.forward(self.field(band) * data, 3, threads=self.threads) * band.gain(self.radius)
        return np.asarray(self.inside * fourier.inverse(total, self.shape, threads=self.threads), np.float32)


def _solve(
    blur: _Blur,
    data: Float32Array,
    ratio: float,
    chosen: LocalSharpenSettings,
    listener: Listener,
) -> tuple[Float32Array, int]:
    """Conjugate gradients for (m W^T W m + mu) y = m W^T V, from 0; m y is the map."""
    residual = blur.adjoint(data)
    u, direction = np.zeros_like(data), residual.copy()
    power = _dot(residual, residual)
    for number in range(1, chosen.most_iterations + 1):
        if not power > 0:
            return u, number - 1
        made = blur.adjoint(blur.of(direction)) + np.float32(ratio) * direction
        step = np.float32(power / _dot(direction, made))
        u += step * direction
        residual -= step * made
        before, power = power, _dot(residual, residual)
        listener.progress("iterations", number, chosen.most_iterations)
        if step * np.sqrt(_dot(direction, direction)) < chosen.change * np.sqrt(_dot(u, u)):
            return u, number
        direction = residual + np.float32(power / before) * direction
    return u, chosen.most_iterations


def _dot(a: Float32Array, b: Float32Array) -> float:
    return float(np.vdot(a.astype(np.float64), b.astype(np.float64)))


def scale_locally(
    volume: MapLike,
    reference: MapLike,
    settings: LocalSharpenSettings | None = None,
    *,
    threads: int | None = None,
    listener: Listener | None = None,
    **changes: object,
) -> LocallySharpened:
    r"""Give every place of a map the amplitudes that a reference has there (the LocScale family); phases stay.

    .. math:: V'(x) = \sum_b \sqrt{\frac{(w * r_b^2)(x)}{(w * v_b^2)(x)}}\; v_b(x)

    with v_b, r_b bands of map and reference and w a window: the root of a ratio of local power spectra, at every voxel
    for two transforms per band. Where the reference has nothing the map is damped to nothing, so that the solvent goes
    flat. Amplitudes come from the reference, and where the map holds noise only it looks as strong as structure: a map
    to look at and to model in, never one to measure with.

    Parameters
    ----------
    volume : Map
        A cube.
    reference : Map
        Of the same box: density of a model with refined B-factors (``assessment.model_density``).
    settings : LocalSharpenSettings, optional
        Further keywords (``window_radius_A=15``) change its fields.
    threads : int, optional
        Threads; the result does not depend on it.
    listener : Listener, optional
        Who is told how far it is (:class:`verglas.types.listener.Listener`).

    Returns
    -------
    LocallySharpened

    Raises
    ------
    InputError
        The maps do not go together; a window that the box cannot hold.

    References
    ----------
    Jakobi, Wilmanns and Sachse, eLife 6 (2017) e27131.

    Examples
    --------
    >>> import numpy as np, verglas as vg
    >>> from verglas.assessment import scale_locally
    >>> white = vg.Map(np.random.default_rng(0).normal(size=(32, 32, 32)), 2.0)
    >>> sharp = vg.filters.apply(white, vg.filters.low_pass(5.0))
    >>> blurred = vg.filters.apply(sharp, vg.filters.b_factor(100.0))
    >>> done = scale_locally(blurred, sharp)
    >>> bool(np.corrcoef(done.map.data.ravel(), sharp.data.ravel())[0, 1] > 0.95)
    True
    """
    chosen = settings_from("local_sharpen", LocalSharpenSettings, settings, **changes)
    volume = _cube(map_of(volume, "scale_locally: the map"), "scale_locally")
    reference = _cube(map_of(reference, "scale_locally: the reference"), "scale_locally: the reference")
    if volume.box != reference.box or abs(volume.pixel_size_A - reference.pixel_size_A) > 1e-3 * volume.pixel_size_A:
        raise InputError(
            f"scale_locally: the map has {volume.box} voxels of {volume.pixel_size_A:g} A, the reference "
            f"{reference.box} of {reference.pixel_size_A:g} A; resample one"
        )
    shells = Shells(volume)
    finest_A = chosen.finest_A or best_cut(shells.frequency, shells.products(volume.data, reference.data, threads))
    bands = _scaling_bands(volume, chosen.window_radius_A, finest_A)
    spectra = [fourier.forward(m.data, 3, threads=threads) for m in (volume, reference)]
    # What is coarser than the bands has one factor: without it that would stay on the map's own grey scale.
    coarse = _coarse_factor(spectra, volume.data.shape, bands[0])
    tell = (listener or Silence()).progress

    def gains() -> Iterator[Float32Array]:
        for number, band in enumerate(bands):
            tell("bands", number, len(bands))
            windowed = Windowed(band, volume.box, threads)
            powers = [windowed.average(band_map(s, band, volume.box, threads) ** 2) for s in spectra]
            own, wanted = (np.maximum(p, 0) for p in powers)
            known = own > _EMPTY * own.max() if own.max() > 0 else np.zeros_like(own, bool)
            ratio = np.divide(wanted, own, out=np.zeros_like(own), where=known)
            yield np.asarray(np.sqrt(ratio) / coarse, np.float32)
        tell("bands", len(bands), len(bands))

    scaled = coarse * filter_by_bands(volume.data, bands, gains(), threads=threads)
    return LocallySharpened(volume.with_data(scaled), "model", finest_A=finest_A)


def _coarse_factor(spectra: list[Complex64Array], shape: tuple[int, ...], first: Band) -> np.float32:
    """Root of the ratio of powers, reference over map, below the first band's centre without the mean."""
    radius = fourier.radius(shape)
    there = (radius > 0) & (radius < first.centre)
    weight = np.broadcast_to(fourier.half_weights(shape), radius.shape)[there]
    own, wanted = (float((weight * np.abs(s[there]) ** 2).sum()) for s in spectra)
    return np.float32(np.sqrt(wanted / own)) if own > 0 and wanted > 0 else np.float32(1)


def _scaling_bands(volume: Map, window_A: float, finest_A: float) -> list[Band]:
    extent_A, pixel_A = volume.box * volume.pixel_size_A, volume.pixel_size_A
    if not 2 * pixel_A <= window_A <= extent_A / 4:
        raise InputError(
            f"scale_locally: a window of radius {window_A:.3g} A: expected at least two voxels ({2 * pixel_A:.3g} A) "
            f"and at most a quarter of the box ({extent_A / 4:.3g} A)"
        )
    if finest_A < 2 * pixel_A:
        raise InputError(f"scale_locally: finest_A is {finest_A:g} A, finer than two voxels of {pixel_A:g} A")
    half_width = max(BAND_OF_WINDOW * extent_A / window_A, 1.0)
    bands = linear_bands(volume.box, half_width, window_A / pixel_A, extent_A / finest_A)
    if not bands:
        raise InputError(f"scale_locally: no band of {finest_A:.3g} A and coarser fits under so small a window")
    return bands
