"""From two half maps to one sharpened map with an honest resolution."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from verglas import filters, fourier
from verglas._screen import ListenerChoice, shown_to
from verglas.assessment.fsc import FSC, THRESHOLDS, c_ref, fsc, threshold_name
from verglas.assessment.guinier import WILSON_FROM_A, Guinier, guinier
from verglas.assessment.independence import refuse_one_map_twice
from verglas.assessment.phase_randomisation import RESOLUTION_AT, correct_for_mask, vouches_for
from verglas.assessment.solvent import solvent_mask
from verglas.errors import InputError
from verglas.geometry import symmetry_order
from verglas.masks import checked_mask
from verglas.types import Map
from verglas.types.convert import MapLike, map_of
from verglas.types.display import Shown
from verglas.types.mtf import check_mtf
from verglas.types.settings import JobSettings, setting, settings_from
from verglas.types.verdict import Finding

Mtf = filters.Gain | npt.ArrayLike

# Mean power of a shell, on that of the strongest, below which it was filtered away.
_EMPTY = 1e-11
# A claim may be finer by this than the coarse end of the interval outside of which the resolution with the truth lies
# once in a thousand, on that side: more than 5 % too fine it is then as seldom.
_CLAIM_BEYOND, _CLAIM_COVERAGE = 1.05, 0.998
_PHASE = "FSC, mask, random phases, sharpening"
_CURVES = ("unmasked", "masked", "phase-randomised", "corrected")


@dataclass(frozen=True)
class PostprocessSettings(JobSettings, job="postprocess"):
    """Choices of :func:`postprocess` that seldom change.

    Attributes
    ----------
    fit_from_A : float
        Coarse end of the Guinier fit.
    fit_to_A : float, optional
        Fine end; the resolution if not given.
    low_pass_A : float, optional
        Low-pass of the sharpened map; the resolution if not given.
    weight : bool
        Multiply the sharpened map by sqrt(2 FSC / (1 + FSC)).
    randomise_below : float
        Phases are randomised from the shell on where the unmasked FSC first falls below this.
    symmetry : str
        Point group imposed on the half maps: thresholds that count voxels count the independent ones.
    seed : int
        Of the random phases.
    """

    fit_from_A: float = setting(WILSON_FROM_A, "Coarse end of the Guinier fit", more_than=0)
    fit_to_A: float | None = setting(None, "Fine end of the fit", more_than=0, default_words="the resolution")
    low_pass_A: float | None = setting(
        None,
        "Low-pass of the sharpened map",
        more_than=0,
        default_words="the resolution",
        former=("lowpass_A",),
    )
    weight: bool = setting(True, "Weight the sharpened map by sqrt(2 FSC / (1 + FSC))")
    randomise_below: float = setting(0.8, "Phases are random from where the unmasked FSC falls below this", more_than=0)
    symmetry: str = setting("C1", "Imposed on the maps: for voxel counts", flags=("--sym",))
    seed: int = setting(0, "Seed of the random phases", at_least=0)

    def _impossible(self) -> Iterator[tuple[str, str]]:
        for name in ("fit_from_A", "fit_to_A", "low_pass_A"):
            if getattr(self, name) == np.inf:
                yield name, "expected a finite number"
        if self.randomise_below >= 1:
            yield "randomise_below", f"expected less than 1, got {self.randomise_below:g}"


@dataclass(frozen=True, eq=False, repr=False)
class Postprocessed(Shown):
    """What :func:`postprocess` makes of two half maps.

    Attributes
    ----------
    map : Map
        Mean of the half maps, neither filtered nor masked.
    sharpened : Map
        The map divided by the MTF and its B-factor, weighted by C_ref, low-pass filtered; not masked.
    mask : Map
        Soft mask of the masked curves.
    mask_source : str
        'given' or how it was made.
    unmasked, masked, corrected : FSC
        Between the half maps; under the mask; corrected for the mask's effect.
    phase_randomised : FSC or None
        Under the mask with phases randomised; None if nothing was randomised.
    randomised_from_A : float or None
        Where phases begin to be random; None if the unmasked FSC never falls low enough, so nothing is corrected.
    guinier : Guinier
        Of the masked map.
    b_factor_A2 : float
        What was divided out of the sharpened map: exp(+B s^2 / 4); 0 if nothing.
    low_pass_A : float
        Of the sharpened map.
    data_to_A : float
        The last shell that the half maps fill: Nyquist, or where they were cut off.
    notes : tuple of Finding
        What a reader must see.
    vouched : bool
        Whether phase randomisation can vouch for the resolution in this mask.
    """

    map: Map
    sharpened: Map
    mask: Map
    mask_source: str
    unmasked: FSC
    masked: FSC
    phase_randomised: FSC | None
    corrected: FSC
    randomised_from_A: float | None
    guinier: Guinier
    b_factor_A2: float
    low_pass_A: float
    data_to_A: float
    notes: tuple[Finding, ...] = ()
    vouched: bool = True

    @property
    def trusted(self) -> FSC:
        """The curve that resolutions are read from: the corrected one, or, where not vouched for, at most the unmasked.

        Between, a mask tighter than the molecule once turned 7.1 A into 4.0.
        """
        return self.corrected if self.vouched else _no_more_than(self.corrected, self.unmasked)

    def __repr__(self) -> str:
        b = "" if not self.b_factor_A2 else f", B-factor {self.b_factor_A2:.0f} A^2"
        return f"Postprocessed({self.resolution_A:.2f} A at 0.143, corrected{b}; {self.map!r})"

    @property
    def resolution_A(self) -> float:
        """Where the trusted FSC falls to 0.143, or the maps end; inf if it is below from the first shell."""
        return max(self.trusted.resolution_A(RESOLUTION_AT), self.data_to_A)

    @property
    def resolution_interval_A(self) -> tuple[float, float]:
        """Finest and coarsest that chance in the shells makes of it (:meth:`FSC.resolution_interval_A`, 95 %)."""
        finest, coarsest = self.trusted.resolution_interval_A(RESOLUTION_AT)
        return max(finest, self.data_to_A), max(coarsest, self.data_to_A)

    @property
    def claimed_resolution_A(self) -> float:
        """What to state: ``resolution_A``, or, where chance leaves much open, what is hardly ever over 5 % too fine.

        No finer than 5 % beyond the coarse end of an interval that holds 99.8 %: the resolution with the truth is
        coarser than that end once in a thousand. :attr:`resolution_interval_A` is that of 95 %.
        """
        coarsest = self.trusted.resolution_interval_A(RESOLUTION_AT, _CLAIM_COVERAGE)[1]
        return max(self.resolution_A, coarsest / _CLAIM_BEYOND)

    @property
    def warnings(self) -> tuple[str, ...]:
        """The sentences of the notes."""
        return tuple(note.sentence for note in self.notes)

    @property
    def curves(self) -> dict[str, FSC]:
        """The curves by name, in the order of tables and legends; four, or three if nothing was randomised."""
        every = (self.unmasked, self.masked, self.phase_randomised, self.corrected)
        return {name: curve for name, curve in zip(_CURVES, every, strict=True) if curve is not None}

    def table(self) -> dict[str, dict[str, float]]:
        """Threshold -> curve -> resolution in angstrom, for the curves that say something about the maps."""
        shown = {name: curve for name, curve in self.curves.items() if name != "phase-randomised"}
        shown["corrected"] = self.trusted
        return {threshold_name(t): {name: c.resolution_A(t) for name, c in shown.items()} for t in THRESHOLDS}

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready; None for a resolution that does not exist."""
        g = self.guinier
        return {
            "resolution_A": finite_or_none(self.resolution_A),
            "claimed_resolution_A": finite_or_none(self.claimed_resolution_A),
            "resolution_interval_A": [finite_or_none(value) for value in self.resolution_interval_A],
            "limited_by_sampling": not self.trusted.crosses(RESOLUTION_AT),
            "vouched_by_phase_randomisation": self.vouched,
            "resolutions_A": {t: {c: finite_or_none(v) for c, v in row.items()} for t, row in self.table().items()},
            "untestable_thresholds": [threshold_name(t) for t in THRESHOLDS if not self.trusted.is_testable(t)],
            "randomised_from_A": self.randomised_from_A,
            "b_factor_A2": self.b_factor_A2,
            "fitted_b_factor_A2": g.b_factor_A2,
            "fitted_b_factor_error_A2": g.b_error_A2,
            "guinier_intercept": g.intercept,
            "fit_band_A": None if g.band_A is None else list(g.band_A),
            "low_pass_A": finite_or_none(self.low_pass_A),
            "mask": {"source": self.mask_source, "fraction": float(self.mask.data.mean(dtype=np.float64))},
            "pixel_size_A": self.map.pixel_size_A,
            "box": self.map.box,
            "notes": [note.as_dict() for note in self.notes],
        }


def finite_or_none(value: float) -> float | None:
    """The number, or None where JSON has none."""
    return float(value) if np.isfinite(value) else None


def mtf_gain(mtf: Mtf, pixel_size_A: float) -> filters.Gain:
    """A detector's modulation transfer function as a gain of s.

    Parameters
    ----------
    mtf : callable or (n, 2) array
        A gain of s in 1/angstrom, or a table of frequency in 1/pixel (0 to 0.5) and value, increasing.
    pixel_size_A : float
        Of the detector's pixel at the specimen: of the map, if it was not binned.

    Raises
    ------
    InputError
        A table of another shape, values that are not in (0, 1.5], or frequencies that do not go from 0 to about 0.5.

    Examples
    --------
    >>> from verglas.assessment import mtf_gain
    >>> mtf_gain([[0.0, 1.0], [0.5, 0.5]], 2.0)([0.125]).tolist()
    [0.75]
    """
    if callable(mtf):
        return mtf
    table = check_mtf(mtf)
    return filters.from_curve(table[:, 0] / pixel_size_A, table[:, 1])


def postprocess(
    half1: MapLike,
    half2: MapLike,
    mask: MapLike | None = None,
    *,
    mtf: Mtf | None = None,
    b_factor_A2: float | None = None,
    settings: PostprocessSettings | None = None,
    threads: int | None = None,
    listener: ListenerChoice = "screen",
    **changes: Any,
) -> Postprocessed:
    r"""Masked FSC corrected by phase randomisation, B-factor from the Guinier plot, and a sharpened map.

    The sharpened map is the mean of the half maps times

    .. math::
        \sqrt{\frac{2\,FSC}{1 + FSC}}\; e^{+B s^2/4}\; \frac{1}{MTF(s)}

    with the corrected FSC, up to its resolution at 0.143. Where that is coarser than about 10 A, no B-factor can be
    told from the molecule's shape: then the map is weighted and filtered, not sharpened, and ``guinier.reason`` says
    so.

    Parameters
    ----------
    half1, half2 : Map or path
        Unfiltered and unmasked half maps from independent halves of the particles, molecule bright.
    mask : Map or path, optional
        Soft mask; made from the mean map by :func:`solvent_mask` if not given.
    mtf : callable or (n, 2) array, optional
        To divide out: see :func:`mtf_gain`.
    b_factor_A2 : float, optional
        B of the map, which sharpening undoes (so 80 sharpens as others' "-80"); 0 for none; fitted if not given.
    settings : PostprocessSettings, optional
        Fit band, filter, symmetry, seed; further keywords (``symmetry="O"``) change its fields.
    threads : int, optional
        Threads; the result does not depend on it.
    listener : Listener, "screen" or None
        Who is told how it goes (:class:`verglas.types.listener.Listener`).

    Returns
    -------
    Postprocessed

    Raises
    ------
    InputError
        Maps that do not agree in box or pixel size, half maps that are one map, values that are not finite, a mask that
        is none (:func:`verglas.masks.checked_mask`), a negative B.

    References
    ----------
    Chen et al., Ultramicroscopy 135 (2013) 24; Rosenthal & Henderson, J. Mol. Biol. 333 (2003) 721.

    Examples
    --------
    >>> import numpy as np, verglas as vg
    >>> truth = vg.simulate.density(vg.simulate.phantom(32, 3.0, 70.0), 32, 3.0, b_factor_A2=80.0)
    >>> noise = np.random.default_rng(0).normal(size=(2, 32, 32, 32)) * 5 * truth.data.std()
    >>> result = vg.postprocess(*(truth.with_data(truth.data + n) for n in noise))
    >>> 6 < result.resolution_A < 12
    True
    """
    chosen = settings_from("postprocess", PostprocessSettings, settings, **changes)
    if b_factor_A2 is not None and not (np.isfinite(b_factor_A2) and b_factor_A2 >= 0):
        raise InputError(
            f"postprocess: b_factor_A2 is the B-factor of the map that sharpening undoes, >= 0, got {b_factor_A2:g}; "
            f"to sharpen by -80 A^2 give 80"
        )
    half1, half2 = map_of(half1, "postprocess: half1"), map_of(half2, "postprocess: half2")
    mask = None if mask is None else map_of(mask, "postprocess: mask")
    if half1.data.shape == half2.data.shape:
        refuse_one_map_twice(half1.data, half2.data, "postprocess")
    with shown_to(listener) as heard:
        heard.progress(_PHASE, 0, 4)
        unmasked = fsc(half1, half2, symmetry_order=symmetry_order(chosen.symmetry), threads=threads)
        average = half1.with_data(0.5 * (half1.data + half2.data))
        heard.progress(_PHASE, 1, 4)
        if mask is None:
            envelope = solvent_mask(average, threads=threads)
        else:
            envelope = average.with_data(checked_mask(mask.data, average.data.shape, "postprocess: the mask"))
        heard.progress(_PHASE, 2, 4)
        shell, masked, randomised, corrected = _in_mask((half1, half2), envelope, unmasked, chosen, threads)
        # Where half maps were cut off the mask spreads the last shells' signal beyond: no resolution is to be read
        # there.
        last = _last_with_data(average, threads)
        beyond = np.arange(len(corrected.curve)) > last
        corrected = replace(corrected, curve=np.where(beyond, 0.0, corrected.curve))
        vouched = vouches_for(shell, randomised, corrected)
        trusted = corrected if vouched else _no_more_than(corrected, unmasked)
        heard.progress(_PHASE, 3, 4)
        undo = _Undone(mtf, b_factor_A2)
        made = _sharpen(average, envelope, trusted, undo, chosen, threads)
        heard.progress(_PHASE, 4, 4)
    frequency = unmasked.frequency_per_A
    return Postprocessed(
        average,
        made.map,
        envelope,
        "given" if mask is not None else "from the map: low-pass, threshold, soft edge",
        unmasked,
        masked,
        randomised,
        corrected,
        None if shell is None else float(1.0 / frequency[shell]),
        made.plot,
        made.b_factor_A2,
        made.low_pass_A,
        float(1.0 / frequency[last]),
        tuple(_notes(randomised, trusted, shell, made.plot, vouched=vouched)),
        vouched,
    )


class _MaskedCurves(NamedTuple):
    """First shell with random phases; FSCs in the mask, of randomised phases, corrected by them."""

    shell: int | None
    masked: FSC
    randomised: FSC | None
    corrected: FSC


def _in_mask(
    halves: tuple[Map, Map], mask: Map, unmasked: FSC, chosen: PostprocessSettings, threads: int | None
) -> _MaskedCurves:
    order = symmetry_order(chosen.symmetry)
    masked = fsc(*halves, mask.data, symmetry_order=order, threads=threads)
    shell = _first_below(unmasked, chosen.randomise_below)
    if shell is None:
        return _MaskedCurves(None, masked, None, masked)
    spectra = [fourier.forward(half.data, 3, threads=threads) for half in halves]
    return _MaskedCurves(
        shell, masked, *correct_for_mask(masked, spectra, mask.data, shell, chosen.seed, threads=threads)
    )


def _last_with_data(average: Map, threads: int | None) -> int:
    """The last shell with more than what a filter leaves: noise is white to within a few orders of magnitude."""
    power = fourier.power_spectrum(average.data, 3, threads=threads)
    filled = np.flatnonzero(power[1:] > _EMPTY * power[1:].max())
    return int(filled[-1]) + 1 if filled.size else 1


def _first_below(curve: FSC, value: float) -> int | None:
    below = np.flatnonzero(curve.curve[1:] < value)
    return int(below[0]) + 1 if below.size else None


@dataclass(frozen=True)
class _Undone:
    """What damped the map, as the caller states it: the detector's gain, and a B-factor that is not fitted."""

    mtf: Mtf | None
    b_factor_A2: float | None


class _Sharpened(NamedTuple):
    """A map, the Guinier plot of it before, the B-factor that was undone, and the low-pass."""

    map: Map
    plot: Guinier
    b_factor_A2: float
    low_pass_A: float


def _sharpen(
    average: Map,
    mask: Map,
    corrected: FSC,
    undo: _Undone,
    chosen: PostprocessSettings,
    threads: int | None,
) -> _Sharpened:
    if undo.mtf is not None:
        average = filters.apply(average, filters.inverse(mtf_gain(undo.mtf, average.pixel_size_A)), threads=threads)
    resolution = corrected.resolution_A(RESOLUTION_AT)
    weight = c_ref(corrected.curve)
    below = _first_below(corrected, RESOLUTION_AT)
    if below is not None:
        weight[below:] = 0.0  # what rises again beyond the resolution is noise
    inside = average.with_data(average.data * mask.data)
    plot = guinier(inside, weight, (chosen.fit_from_A, chosen.fit_to_A or min(resolution, 1e6)), threads=threads)
    b = plot.b_factor_A2 if undo.b_factor_A2 is None else undo.b_factor_A2
    b = max(b or 0.0, 0.0)
    low_pass = chosen.low_pass_A or resolution
    gains = [filters.b_factor(-b)]
    if chosen.weight:
        gains.append(filters.from_curve(corrected.frequency_per_A, c_ref(corrected.curve)))
    if np.isfinite(low_pass):
        step = float(corrected.frequency_per_A[1])
        # Two shells wide: a sharp end rings in real space.
        gains.append(filters.low_pass(low_pass, 2 * step))
    else:  # no shell is shared: nothing finer than the first is worth showing
        gains.append(filters.low_pass(float(1.0 / corrected.frequency_per_A[1])))
    return _Sharpened(filters.apply(average, filters.product(*gains), threads=threads), plot, b, low_pass)


def _no_more_than(corrected: FSC, unmasked: FSC) -> FSC:
    return replace(corrected, curve=np.minimum(corrected.curve, unmasked.curve))


def _notes(
    randomised: FSC | None, corrected: FSC, shell: int | None, plot: Guinier, *, vouched: bool
) -> Iterator[Finding]:
    resolution = corrected.resolution_A(RESOLUTION_AT)
    if shell is None or randomised is None:
        yield Finding(
            "uncorrected",
            "warn",
            "the unmasked FSC never falls far enough to randomise phases: the masked curve is not corrected",
        )
    elif not vouched:
        yield Finding(
            "mask",
            "warn",
            "phase randomisation cannot vouch for the resolution in this mask: the mask is tighter than the "
            "molecule or has a sharp edge, or phases could be randomised only from the resolution on; the resolution "
            "given is that of the unmasked maps, and a wider, softer mask may show a better one",
        )
    if not np.isfinite(resolution):
        sentence = "the half maps share no signal: the corrected FSC is below 0.143 from its first shell"
        yield Finding("no_signal", "warn", sentence)
    elif not corrected.crosses(RESOLUTION_AT):
        sentence = "the corrected FSC stays above 0.143 up to the last shell: the pixel size limits the resolution"
        yield Finding("sampling", "warn", sentence)
    if plot.reason:
        yield Finding("no_b_factor", "warn", plot.reason)
    elif plot.b_factor_A2 is not None and plot.b_factor_A2 < 0:
        yield Finding(
            "sharpened_before",
            "warn",
            f"amplitudes rise with resolution (fitted B = {plot.b_factor_A2:.0f} A^2): the half maps may have been "
            "sharpened before; nothing was sharpened",
            {"b_factor_A2": plot.b_factor_A2},
        )
