"""Resolution at every voxel of a map, from its half maps: windowed FSC, monogenic amplitudes, steerable filters."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from verglas import fourier
from verglas._screen import ListenerChoice, shown_to
from verglas.assessment.fsc import fsc
from verglas.assessment.independence import refuse_one_map_twice
from verglas.assessment.local_bands import BAND_OF_WINDOW, Band, linear_bands
from verglas.assessment.local_network import NetworkValues
from verglas.assessment.local_scan import (
    CorrelationValues,
    LocalValues,
    MonogenicValues,
    SignificanceValues,
    SteerableValues,
    scan_bands,
)
from verglas.assessment.solvent import solvent_mask
from verglas.errors import InputError
from verglas.masks import checked_mask
from verglas.types import Map
from verglas.types.arrays import Float32Array, FloatArray, any_arrays
from verglas.types.convert import MapLike, map_of
from verglas.types.display import Shown
from verglas.types.listener import phase_progress
from verglas.types.settings import JobSettings, setting, settings_from

_WINDOW_RESOLUTIONS = 2.0  # radius of the window, in resolutions of the whole map
_SMALLEST_WINDOW_PX = 4.0
_METHODS: dict[str, type[LocalValues]] = {
    "fsc": CorrelationValues,
    "significance": SignificanceValues,
    "monogenic": MonogenicValues,
    "steerable": SteerableValues,
    "network": NetworkValues,
}
# Methods that give more than a map of a cube.
_ELSEWHERE = {
    "directional": "assessment.local_directions",
    "tomogram": "assessment.local_resolution_of_tomogram",
}


@dataclass(frozen=True)
class LocalResolutionSettings(JobSettings, job="local_resolution"):
    """How the resolution of a voxel is judged."""

    method: Literal["fsc", "significance", "monogenic", "steerable", "network", "directional", "tomogram"] = setting(
        "fsc",
        "Windowed FSC against a fixed threshold, or against what noise reaches by chance; amplitudes above noise "
        "(monogenic signal; steerable filters, as ResMap); by a network trained on phantoms; in every direction "
        "(MonoDir); of a tomogram of any shape (MonoTomo)",
    )
    threshold: float = setting(0.143, "Of the windowed FSC, for the method fsc", more_than=0, at_most=0.95)
    window_radius_A: float | None = setting(
        None,
        "Of the window: full weight inside, a soft edge that ends at twice the radius; bands of long waves have one of "
        "three quarters of their wavelength at least",
        more_than=0,
        default_words="twice the resolution of the whole map",
    )
    false_discovery: float = setting(
        0.01,
        "Share of the voxels called resolved that may be noise, for the methods significance and steerable",
        more_than=0,
        at_most=0.5,
    )
    noise_quantile: float = setting(
        0.95,
        "Of the amplitudes of noise, which a voxel exceeds, for the methods monogenic, directional, tomogram",
        at_least=0.5,
        at_most=0.9999,
    )
    finest_A: float | None = setting(
        None, "Finest resolution looked for", more_than=0, default_words="a little over two voxels"
    )


@dataclass(frozen=True, eq=False, repr=False)
class LocalResolution(Shown):
    """Resolution of every voxel.

    Attributes
    ----------
    map : Map
        Resolution in angstrom; the coarsest that was looked for where not even that is resolved.
    mask : Map
        Where the molecule is: what the quantiles count.
    frequency_per_A : (bands,) float64
        Centres of the bands.
    threshold : (bands,) float64
        What a voxel had to exceed in each.
    independent : (bands,) float64
        Independent voxels under the window: the windowed FSC of noise has variance 1 / n.
    half_width_per_A : float
        Of a band, which is also the distance to the next.
    window_radius_A : float
        The least of the bands' windows.
    method : str
    global_A : float
        Resolution of the whole map, FSC 0.143 in the mask.
    """

    map: Map
    mask: Map
    frequency_per_A: FloatArray
    threshold: FloatArray
    independent: FloatArray
    half_width_per_A: float
    window_radius_A: float
    method: str
    global_A: float

    def __repr__(self) -> str:
        low, middle, high = self.quantiles_A((0.05, 0.5, 0.95))
        return f"LocalResolution({self.method}: {low:.2f} to {high:.2f} A, median {middle:.2f} A)"

    @property
    def data(self) -> Float32Array:
        """(z, y, x) resolution in angstrom, as the map's."""
        return self.map.data

    @property
    def pixel_size_A(self) -> float:
        """Of the map."""
        return self.map.pixel_size_A

    @property
    def origin_A(self) -> tuple[float, float, float]:
        """Of the map."""
        return self.map.origin_A

    def __array__(self, dtype: npt.DTypeLike | None = None, copy: bool | None = None) -> npt.NDArray:
        """For NumPy, as a map is."""
        return self.map.__array__(dtype, copy)

    @property
    def coarsest_A(self) -> float:
        """The value of voxels of which not even the first band is resolved."""
        return float(1 / self.frequency_per_A[0])

    @property
    def values_A(self) -> Float32Array:
        """Of the voxels in the mask."""
        return self.map.data[self.mask.data >= 0.5]

    def quantiles_A(self, quantiles: tuple[float, ...] = (0.05, 0.25, 0.5, 0.75, 0.95)) -> tuple[float, ...]:
        """Resolutions that these parts of the molecule's voxels are finer than."""
        return tuple(float(v) for v in np.quantile(self.values_A, quantiles))

    @property
    def unresolved(self) -> float:
        """Part of the molecule's voxels of which not even the first band is resolved."""
        return float(np.mean(self.values_A >= self.coarsest_A * (1 - 1e-4)))

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        names = ("q05", "q25", "median", "q75", "q95")
        return {
            "method": self.method,
            "resolution_A": dict(zip(names, (round(q, 4) for q in self.quantiles_A()), strict=True)),
            "global_A": round(self.global_A, 4) if np.isfinite(self.global_A) else None,
            "coarsest_A": round(self.coarsest_A, 3),
            "unresolved": round(self.unresolved, 5),
            "window_radius_A": round(self.window_radius_A, 3),
            "half_width_per_A": round(self.half_width_per_A, 6),
            "bands": [
                {"resolution_A": round(1 / f, 4), "threshold": round(t, 5), "independent": round(n, 1)}
                for f, t, n in zip(
                    self.frequency_per_A.tolist(), self.threshold.tolist(), self.independent.tolist(), strict=True
                )
            ],
        }


@any_arrays
def local_resolution(
    half1: MapLike,
    half2: MapLike,
    mask: MapLike | npt.ArrayLike | None = None,
    settings: LocalResolutionSettings | None = None,
    *,
    threads: int | None = None,
    listener: ListenerChoice = "screen",
    **changes: Any,
) -> LocalResolution:
    r"""Resolution at every voxel of a map, from its half maps.

    Both halves are filtered into narrow bands k of Fourier shells; the products of the bands a, b are averaged under a
    window w about every voxel x:

    .. math:: FSC(x, k) = \frac{(w * a_k b_k)(x)}{\sqrt{(w * a_k^2)(x)\,(w * b_k^2)(x)}}

    A voxel's resolution is where this first falls below the threshold, from coarse to fine and in two bands in a row,
    less half a band's half width: of a band that is partly resolved the coarse side is. Where the signal over noise in
    the last resolved band, the third or a finer one, is less than a smooth spectrum through the bands before lets
    expect, it ends within that band, at the place that this share names. ``"fsc"`` has a fixed threshold.
    ``"significance"`` asks whether noise alone would reach the value: the correlation of noise under the window has n
    independent voxels (:meth:`verglas.assessment.local_bands.Band.independent`), hence Student's distribution, and the
    threshold of a band is where the false discovery rate over the molecule's voxels is as given (Benjamini and
    Hochberg); how far the last band that passes reaches is read as the windowed FSC is. ``"monogenic"`` compares the
    local amplitude of the mean map, square root of the windowed square of a band and its three Riesz transforms, with a
    quantile of the same of half the difference of the half maps. ``"steerable"`` is ResMap's
    question, whether a wave of the band in any direction and phase is there: the
    power of 16 steerable filters, against the gamma distribution of the noise's at the given false discovery rate.

    Of a wave that is longer than the window few independent voxels say anything: a band's window has a radius of at
    least three quarters of its wavelength, up to a sixth of the box (not ``"network"``, which was trained without, nor
    ``"directional"``).

    A window as large as a few wavelengths tells neither edges sharper than itself nor steps of the spectrum sharper
    than a band: a region well resolved shines into its neighbours (docs/guide/trust.md shows how far).

    Parameters
    ----------
    half1, half2 : Map or path
        Cubes of one box and pixel size, unfiltered and unmasked, from independent halves of the particles.
    mask : Map, path or array, optional
        Where the molecule is, 0 to 1; not multiplied with the maps. Made from the map if not given.
    settings : LocalResolutionSettings, optional
        Further keywords (``method="significance"``) change its fields.
    threads : int, optional
        Threads; the result does not depend on it.
    listener : Listener, "screen" or None
        Who is told how it goes (:class:`verglas.types.listener.Listener`).

    Returns
    -------
    LocalResolution
        Memory: 50 bytes per voxel beside the half maps, 75 for ``"monogenic"`` and ``"steerable"``.

    Raises
    ------
    InputError
        Maps or mask do not go together, half maps that are one map, a window that the box cannot hold.

    References
    ----------
    Cardone, Heymann and Steven, J. Struct. Biol. 184 (2013) 226 (windowed FSC); Beckers and Sachse, J. Struct. Biol.
    212 (2020) 107579 (significance); Vilas et al., Structure 26 (2018) 337 (monogenic signal); Kucukelbir, Sigworth
    and Tagare, Nat. Methods 11 (2014) 63 (steerable test).

    Examples
    --------
    >>> import numpy as np, verglas as vg
    >>> x, noise1, noise2 = np.random.default_rng(0).normal(size=(3, 32, 32, 32))
    >>> coarse = vg.filters.apply(vg.Map(x, 2.0), vg.filters.low_pass(8.0)).data
    >>> halves = [vg.Map(coarse + 0.1 * n, 2.0) for n in (noise1, noise2)]
    >>> found = vg.local_resolution(*halves, np.ones((32, 32, 32)), listener=None)
    >>> 6.5 < found.quantiles_A((0.5,))[0] < 9
    True
    """
    chosen = settings_from("local_resolution", LocalResolutionSettings, settings, **changes)
    if chosen.method in _ELSEWHERE:
        raise InputError(f"local_resolution: the method {chosen.method} is {_ELSEWHERE[chosen.method]}")
    pair = local_pair(half1, half2, mask, threads)
    first = pair.first
    method = _METHODS[chosen.method]
    plan = plan_bands(first, pair.global_A, chosen, method.window_waves)
    spectra = [fourier.forward(one.data, 3, threads=threads) for one in (first, pair.second)]
    values = method(spectra, first.box, pair.mask.data >= 0.5, chosen, threads)
    with shown_to(listener) as heard:
        frequency, thresholds = scan_bands(values, plan.bands, first.box, phase_progress(heard, "bands"), threads)
    resolution = first.with_data(first.box * first.pixel_size_A / frequency)
    return from_bands(plan, resolution, pair.mask, thresholds, chosen.method)


@dataclass(frozen=True)
class BandPlan:
    """What is scanned, and the cube whose frequencies the bands are.

    Attributes
    ----------
    window_A : float
        Radius of the window.
    bands : list of Band
    box : int
        Of the cube.
    global_A : float
        Resolution of the whole map.
    """

    window_A: float
    bands: list[Band]
    box: int
    global_A: float


def from_bands(plan: BandPlan, resolution: Map, mask: Map, thresholds: npt.ArrayLike, method: str) -> LocalResolution:
    """The result of a scan of bands."""
    extent_A = plan.box * resolution.pixel_size_A
    return LocalResolution(
        resolution,
        mask,
        np.array([band.centre for band in plan.bands]) / extent_A,
        np.array(thresholds),
        np.array([band.independent(plan.box) for band in plan.bands]),
        plan.bands[0].half_width / extent_A,
        plan.window_A,
        method,
        plan.global_A,
    )


@dataclass(frozen=True)
class LocalPair:
    """Half maps that go together, the mask of the molecule, and the resolution of the whole map inside it."""

    first: Map
    second: Map
    mask: Map
    global_A: float


def local_pair(half1: MapLike, half2: MapLike, mask: MapLike | npt.ArrayLike | None, threads: int | None) -> LocalPair:
    """Check half maps and mask, and measure the resolution of the whole map.

    Raises
    ------
    InputError
        As :func:`local_resolution`.
    """
    first, second = map_of(half1, "local_resolution: half1"), map_of(half2, "local_resolution: half2")
    _check_pair(first, second)
    envelope = _envelope(first, second, mask, threads)
    # Within the molecule: noise around a small particle hides how far it is resolved.
    return LocalPair(first, second, envelope, fsc(first, second, envelope, threads=threads).resolution_A(0.143))


def _check_pair(first: Map, second: Map) -> None:
    if len(set(first.data.shape)) != 1 or first.data.shape != second.data.shape:
        raise InputError(
            f"local_resolution: expected two cubes of one size, got shapes {first.data.shape} and {second.data.shape}"
        )
    refuse_useless_halves(first, second, "half map", "particles")


def refuse_useless_halves(first: Map, second: Map, name: str, content: str) -> None:
    """Refuse halves that are not finite, constant, or one map twice.

    Raises
    ------
    InputError
        They are; the message calls them by the name and says what they should hold.
    """
    for number, half in enumerate((first, second), 1):
        if bad := np.count_nonzero(~np.isfinite(half.data)):
            raise InputError(f"local_resolution: {name} {number} has {bad} voxels that are not finite numbers")
        if not np.ptp(half.data) > 0:
            raise InputError(f"local_resolution: {name} {number} is constant; expected two that hold {content}")
    refuse_one_map_twice(first.data, second.data, "local_resolution")


def _envelope(first: Map, second: Map, mask: MapLike | npt.ArrayLike | None, threads: int | None) -> Map:
    if mask is None:
        try:
            return solvent_mask(first.with_data(0.5 * (first.data + second.data)), threads=threads)
        except InputError as error:
            raise InputError(f"local_resolution: no mask can be made from the half maps ({error}); give one") from error
    values = mask if isinstance(mask, np.ndarray | list) else map_of(mask, "local_resolution: mask").data
    checked = checked_mask(values, first.data.shape, "local_resolution: the mask")
    if not checked.max() >= 0.5:
        raise InputError(
            f"local_resolution: the mask reaches {checked.max():.2g} only; what is at least 0.5 counts as the molecule"
        )
    return first.with_data(checked)


def plan_bands(like: Map, global_A: float, chosen: LocalResolutionSettings, least_waves: float = 0.0) -> BandPlan:
    """Radius of the window in angstrom, and the bands, whose windows hold so many of their waves at least."""
    pixel, extent = like.pixel_size_A, like.box * like.pixel_size_A
    window_A = chosen.window_radius_A
    if window_A is None:
        # Maps that agree nowhere still get an answer: nothing is resolved.
        known_A = global_A if np.isfinite(global_A) else extent / 10
        window_A = min(max(_WINDOW_RESOLUTIONS * known_A, _SMALLEST_WINDOW_PX * pixel), extent / 6)
    for problem in _problems(window_A, like, chosen):
        raise InputError(f"local_resolution: {problem}")
    finest_A = max(chosen.finest_A or 0.0, 2.04 * pixel)
    half_width = max(BAND_OF_WINDOW * extent / window_A, 1.0)
    bands = linear_bands(like.box, half_width, window_A / pixel, extent / finest_A, least_waves)
    if len(bands) < 2:
        raise InputError(
            f"local_resolution: a window of radius {window_A:.3g} A holds too few voxels for two bands coarser than "
            f"{finest_A:.3g} A; give a larger window"
        )
    return BandPlan(window_A, bands, like.box, global_A)


def _problems(window_A: float, like: Map, chosen: LocalResolutionSettings) -> Iterator[str]:
    extent = like.box * like.pixel_size_A
    if window_A > extent / 4:
        yield f"a window of radius {window_A:.3g} A is too large for a box of {extent:.3g} A; at most a quarter of it"
    if window_A < 2 * like.pixel_size_A:
        yield f"a window of radius {window_A:.3g} A is less than two voxels of {like.pixel_size_A:g} A"
    if chosen.finest_A is not None and chosen.finest_A < 2 * like.pixel_size_A:
        yield f"finest_A is {chosen.finest_A:g} A, finer than two voxels of {like.pixel_size_A:g} A"
