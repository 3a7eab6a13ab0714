"""What a public archive asks of maps before it takes them: one grid, untouched half maps, a map that is theirs."""

from __future__ import annotations

import numpy as np

from verglas import fourier
from verglas.assessment.fsc import fsc
from verglas.assessment.validation import judge_independence
from verglas.types import Map
from verglas.types.arrays import FloatArray
from verglas.types.verdict import Finding

_SAME_VALUE = 0.005  # share of voxels: more of one value come from a mask
_FILTERED = 1e-3  # power beyond the resolution over that at it: noise is nearly white, a filter's end is not
_BELONGS = 0.9  # FSC of the map with the mean of its halves; sharpening and filters leave it at 1
_PIXEL_TOLERANCE = 1e-3
_CLOSE_TO_NYQUIST = 1.05
_DA_PER_A3 = 1 / 1.21  # of protein: partial specific volume 0.73 cm^3/g (Matthews 1968)
_HAND_MARGIN = 0.05


def contour_for_mass(volume: Map, mass_kDa: float, mask: Map | None = None) -> float:
    """Density level that encloses the volume of a protein of a mass, at 1.21 A^3 per dalton.

    Parameters
    ----------
    volume : Map
    mass_kDa : float
    mask : Map, optional
        Where the molecule is: noise outside, which a sharpened map has plenty of, encloses no mass.

    Examples
    --------
    >>> import numpy as np, verglas as vg
    >>> from verglas.assessment.deposition import contour_for_mass
    >>> ramp = vg.Map(np.arange(1000.0).reshape(10, 10, 10), 1.0)
    >>> round(contour_for_mass(ramp, 0.1 / 1.21))
    899
    """
    values = volume.data.ravel() if mask is None else volume.data[mask.data > 0.5]
    n_voxels = mass_kDa * 1000.0 / _DA_PER_A3 / volume.pixel_size_A**3
    return float(np.quantile(values, max(0.0, 1.0 - n_voxels / values.size)))


def judge_grid(maps: dict[str, Map]) -> Finding:
    """Whether all maps are on one grid: ``same-grid``."""
    (first, one), *others = maps.items()
    for name, other in others:
        if one.data.shape != other.data.shape:
            sentence = f"{name} has {other.data.shape} voxels (z, y, x) and {first} {one.data.shape}: resample one."
            return Finding("same-grid", "stop", sentence)
        if abs(one.pixel_size_A - other.pixel_size_A) > _PIXEL_TOLERANCE * one.pixel_size_A:
            sentence = f"{name} has voxels of {other.pixel_size_A:.4f} A and {first} of {one.pixel_size_A:.4f} A."
            return Finding("same-grid", "stop", sentence)
        if not np.allclose(one.origin_A, other.origin_A, atol=0.5 * one.pixel_size_A):
            sentence = f"{name} begins at {other.origin_A} A and {first} at {one.origin_A} A: they do not superimpose."
            return Finding("same-grid", "stop", sentence)
    numbers = {"box": one.box, "pixel_size_A": round(one.pixel_size_A, 5)}
    return Finding("same-grid", "go on", f"All maps have {one.box} voxels of {one.pixel_size_A:.4f} A.", numbers)


def judge_untouched(half: Map, name: str, resolution_A: float) -> Finding:
    """Whether a half map was masked or filtered after the reconstruction: ``untouched-halves``.

    A mask leaves voxels of one value; a low-pass filter ends the spectrum, where noise would go on.

    Examples
    --------
    >>> import numpy as np, verglas as vg
    >>> from verglas.assessment.deposition import judge_untouched
    >>> noise = vg.Map(np.random.default_rng(0).normal(size=(24, 24, 24)), 2.0)
    >>> judge_untouched(noise, "half1.mrc", 8.0).state
    'go on'
    >>> judge_untouched(noise.with_data(noise.data * (noise.data > 0)), "half1.mrc", 8.0).state
    'stop'
    """
    values, counts = np.unique(half.data, return_counts=True)
    share = float(counts.max() / half.data.size)
    if share > _SAME_VALUE:
        sentence = (
            f"{100 * share:.0f} % of the voxels of {name} are {values[counts.argmax()] + 0.0:g}: it was masked. "
            "Archives take half maps as the reconstruction left them."
        )
        return Finding("untouched-halves", "stop", sentence, {"share_of_one_value": round(share, 4)})
    power = fourier.power_spectrum(half.data, 3)
    last = half.box // 2 - 1
    shell = min(last - 1, round(half.box * half.pixel_size_A / resolution_A))
    beyond = float(np.median(power[shell + 1 : last + 1]) / max(float(power[shell]), 1e-300))
    if beyond < _FILTERED:
        sentence = (
            f"Beyond {resolution_A:.2f} A {name} has {beyond:.1g} of the power that it has there: it was filtered, or "
            "finer data were not used. Archives take half maps without a filter."
        )
        return Finding("untouched-halves", "warn", sentence, {"power_beyond": beyond})
    return Finding("untouched-halves", "go on", f"{name} was neither masked nor filtered.", {"power_beyond": beyond})


def judge_belonging(
    primary: Map, mean: Map, mirror_image: Map, resolution_A: float, threads: int | None = None
) -> Finding:
    """Whether the map is that of the half maps, of the same hand: ``map-of-halves``.

    Sharpening and filters change amplitudes only: on every shell the FSC with the mean of the halves stays near 1.
    """
    shells = slice(2, max(4, round(primary.box * primary.pixel_size_A / resolution_A)))

    def agreement(other: Map) -> float:
        curve = fsc(primary, other, threads=threads)
        return float(np.average(curve.curve[shells], weights=curve.n[shells]))

    same, mirrored = agreement(mean), agreement(mirror_image)
    numbers = {"fsc": round(same, 3), "fsc_of_mirror_image": round(mirrored, 3)}
    if mirrored > same + _HAND_MARGIN:
        sentence = "The map is the mirror image of its half maps: flip the half maps as well (verglas flip-hand)."
        return Finding("map-of-halves", "stop", sentence, numbers)
    if same < _BELONGS:
        sentence = (
            f"To {resolution_A:.2f} A the FSC of the map with the mean of the half maps is {same:.2f} (at least "
            f"{_BELONGS:g}): it was masked tightly, modified, or is another map."
        )
        return Finding("map-of-halves", "warn" if same > 0.5 else "stop", sentence, numbers)
    return Finding("map-of-halves", "go on", "The map is that of the half maps, sharpened or filtered.", numbers)


def judge_sampling(resolution_A: float, pixel_size_A: float) -> Finding:
    """Whether the pixels hold the stated resolution: ``sampling``.

    Examples
    --------
    >>> from verglas.assessment.deposition import judge_sampling
    >>> judge_sampling(3.0, 1.0).state, judge_sampling(2.05, 1.0).state, judge_sampling(1.9, 1.0).state
    ('go on', 'warn', 'stop')
    """
    nyquist_A = 2 * pixel_size_A
    numbers = {"resolution_A": round(resolution_A, 3), "nyquist_A": round(nyquist_A, 3)}
    if resolution_A < nyquist_A * (1 - _PIXEL_TOLERANCE):
        return Finding("sampling", "stop", f"{resolution_A:.2f} A is finer than Nyquist, {nyquist_A:.2f} A.", numbers)
    if resolution_A < _CLOSE_TO_NYQUIST * nyquist_A:
        sentence = f"{resolution_A:.2f} A is at Nyquist ({nyquist_A:.2f} A): pixels limit the resolution."
        return Finding("sampling", "warn", sentence, numbers)
    return Finding("sampling", "go on", f"Nyquist, {nyquist_A:.2f} A, is finer than the resolution.", numbers)


def judge_contrast(primary: Map, inside: FloatArray) -> Finding:
    """Whether the molecule is bright: ``contrast``."""
    molecule = inside > 0.5
    if not molecule.any() or molecule.all():
        return Finding("contrast", "go on", "Without a mask the sign of the density was not looked at.")
    difference = float(primary.data[molecule].mean() - primary.data[~molecule].mean())
    if difference < 0:
        sentence = "The map is darker inside the mask than outside: multiply it by -1; archives take bright molecules."
        return Finding("contrast", "stop", sentence, {"inside_minus_outside": difference})
    return Finding("contrast", "go on", "The molecule is bright.", {"inside_minus_outside": difference})


def judge_hand(evidence: str) -> Finding:
    """Whether it was said how the hand was found: ``hand``."""
    if evidence:
        return Finding("hand", "go on", f"Hand: {evidence.rstrip('.')}.", {"evidence": evidence})
    sentence = (
        "How the hand was found was not said: images of one view each explain the mirror image as well. Look for "
        "right-handed helices, or use tilt pairs, and say it (--hand)."
    )
    return Finding("hand", "warn", sentence)


def mean_of(half1: Map, half2: Map) -> Map:
    """The map that both halves make, without any weight."""
    return half1.with_data(0.5 * (half1.data + half2.data))


def judge_claim(resolution_A: float, withheld_by: str | None) -> list[Finding]:
    """``withheld-resolution`` where the verdict on the refinement does not let its resolution be stated; else nothing.

    Parameters
    ----------
    resolution_A : float
        Where the half maps cross.
    withheld_by : str or None
        Code of the finding.
    """
    if withheld_by is None:
        return []
    sentence = (
        f"The resolution {resolution_A:.2f} A is not to be stated: the refinement's verdict is {withheld_by}, and half "
        "maps agree on what both align wrongly in the same way, too. Refine the particles that are well oriented."
    )
    return [Finding("withheld-resolution", "stop", sentence, {"resolution_A": resolution_A})]


def judge_deposition(
    maps: dict[str, Map], mirror_image: Map, resolution_A: float, *, hand: str = "", threads: int | None = None
) -> list[Finding]:
    """Everything that an archive would ask of a map, its half maps and its mask.

    Parameters
    ----------
    maps : mapping
        ``"map"``, ``"half1"``, ``"half2"``, and where there is one ``"mask"``.
    mirror_image : Map
        Of the mean of the half maps, of the other hand.
    resolution_A : float
        As it will be stated.
    hand : str
        How the hand was found; empty where it was not.
    threads : int, optional
        Threads; the result does not depend on it.

    Returns
    -------
    list of Finding
        After a grid that is not one, nothing else can be asked.
    """
    grid = judge_grid(maps)
    if grid.state == "stop":
        return [grid]
    primary, half1, half2 = (maps[name] for name in ("map", "half1", "half2"))
    untouched = [judge_untouched(half, name, resolution_A) for name, half in (("half1", half1), ("half2", half2))]
    findings = [grid, judge_independence(half1, half2), *untouched]
    findings += [judge_belonging(primary, mean_of(half1, half2), mirror_image, resolution_A, threads)]
    findings += [judge_sampling(resolution_A, primary.pixel_size_A), judge_hand(hand)]
    if "mask" in maps:
        findings.append(judge_contrast(primary, np.asarray(maps["mask"].data, np.float64)))
    return findings
