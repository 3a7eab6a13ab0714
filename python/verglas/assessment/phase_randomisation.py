"""How much of a masked FSC the mask made: measured on maps whose phases are random beyond a shell."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from verglas import fourier
from verglas.assessment.fsc import FSC, correlate_shells
from verglas.types import Map
from verglas.types.arrays import Array, Float32Array, FloatArray
from verglas.types.convert import MapLike, map_of

RESOLUTION_AT = 0.143


# Shells from the first randomised one that are left uncorrected: there the mask spreads unrandomised signal of the
# shells before into the randomised ones, and FSC_n is no measure of the mask's own correlation.
SWITCH_SHELLS = 2


# The randomised maps may correlate this much at the resolution before the mask is called tight.
_TIGHT = 0.1


def randomise_phases(volume: MapLike, first_shell: int, seed: int, *, threads: int | None = None) -> Map:
    """The map with random phases, and its own amplitudes, from a shell on.

    The phases are those of the transform of white noise, so they have the symmetry that a real map's must have.

    Parameters
    ----------
    volume : Map
        A cube.
    first_shell : int
        First shell round(abs(k)) whose phases are replaced, at least 1.
    seed : int
        The same seed gives the same phases.
    threads : int, optional
        Threads; the result does not depend on it.

    Returns
    -------
    Map

    References
    ----------
    Chen et al., Ultramicroscopy 135 (2013) 24.

    Examples
    --------
    >>> import numpy as np, verglas as vg
    >>> from verglas.assessment import randomise_phases
    >>> x = vg.Map(np.random.default_rng(1).normal(size=(16, 16, 16)), 1.0)
    >>> curve = vg.fsc(x, randomise_phases(x, 5, seed=0)).curve
    >>> curve[:5].round(3).tolist(), bool(abs(curve[5:]).max() < 0.3)
    ([1.0, 1.0, 1.0, 1.0, 1.0], True)
    """
    volume = map_of(volume, "randomise_phases: the map")
    spectrum = fourier.forward(volume.data, 3, threads=threads)
    return volume.with_data(randomise_spectrum(spectrum, volume.box, first_shell, seed, threads=threads))


def randomise_spectrum(
    spectrum: Array, box: int, first_shell: int, seed: int, *, threads: int | None = None
) -> FloatArray | Float32Array:
    """Values of the map that :func:`randomise_phases` makes, from its half transform, which is used up."""
    shape = (box,) * 3
    noise = np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)
    # Phases of a real noise map, not drawn one by one: they obey Friedel's law, so that the map stays real.
    phases = fourier.forward(noise, 3, threads=threads)
    size = np.abs(phases)
    phases /= np.where(size > 0, size, 1.0)
    outer = fourier.shells(shape) >= max(first_shell, 1)
    spectrum[outer] = np.abs(spectrum[outer]) * phases[outer]
    return fourier.inverse(spectrum, shape, threads=threads)


def corrected_fsc(masked: FSC, randomised: FSC, first_shell: int) -> FSC:
    """FSC of what is under the mask, without the correlation that the mask itself makes.

    FSC_true = (FSC_t - FSC_n) / (1 - FSC_n), from two shells after the first randomised one; before, FSC_t.

    Parameters
    ----------
    masked, randomised : FSC
        FSC_t, and FSC_n of the maps whose phases were randomised before masking.
    first_shell : int
        First randomised shell.

    Returns
    -------
    FSC

    References
    ----------
    Chen et al., Ultramicroscopy 135 (2013) 24.

    Examples
    --------
    >>> import numpy as np
    >>> from verglas.assessment import FSC, corrected_fsc
    >>> def made(values):
    ...     return FSC(np.arange(4) / 8, np.array(values), np.full(4, 9), np.full(4, 5), 1.0)
    >>> corrected_fsc(made([1, 0.9, 0.7, 0.6]), made([1, 0.9, 0.3, 0.2]), 1).curve.round(6).tolist()
    [1.0, 0.9, 0.7, 0.5]
    """
    curve = masked.curve.copy()
    start = first_shell + SWITCH_SHELLS
    # Below 1, or the correction would divide by 0 where a mask of a few voxels makes the noise agree exactly.
    t, n = curve[start:], np.minimum(randomised.curve[start:], 1.0 - 1e-6)
    curve[start:] = np.clip((t - n) / (1.0 - n), -1.0, 1.0)
    return replace(masked, curve=curve)


def correct_for_mask(
    masked: FSC, spectra: list[Array], mask: Float32Array, first_shell: int, seed: int, *, threads: int | None = None
) -> tuple[FSC, FSC]:
    """FSC of half maps with random phases in the mask, and the curve ``masked`` corrected by it.

    Parameters
    ----------
    masked : FSC
        Of the half maps in the mask.
    spectra : list of (box, box, box//2+1)
        Half transforms of the half maps, which are used up; the list is emptied.
    mask : (box, box, box)
        The mask.
    first_shell, seed : int
        The first randomised shell, and what phases are drawn by.
    threads : int, optional
        Threads; the result does not depend on it.

    Returns
    -------
    (FSC, FSC)
        Randomised and corrected.
    """
    inside = []
    for number in range(2):
        # 2 seed and 2 seed + 1: two runs with neighbouring seeds share no noise.
        half = randomise_spectrum(spectra.pop(0), len(mask), first_shell, 2 * seed + number, threads=threads)
        inside.append(fourier.forward(np.asarray(half, np.float32) * mask, 3, threads=threads))
    # Thresholds count the same voxels: they depend on the mask and the symmetry alone.
    randomised = replace(masked, curve=correlate_shells(inside, mask.shape, masked.counts))
    return randomised, corrected_fsc(masked, randomised, first_shell)


def vouches_for(shell: int | None, randomised: FSC | None, corrected: FSC) -> bool:
    """Whether phase randomisation can vouch for the resolution of the corrected curve.

    It cannot where the resolution lies within the shells that it leaves uncorrected, nor where the randomised maps
    still correlate: there the mask is sharper than the maps, and the difference of two such correlations is no signal.
    """
    resolution = corrected.resolution_A(RESOLUTION_AT)
    if shell is None or randomised is None or not np.isfinite(resolution):
        return True
    at = round(1.0 / (resolution * corrected.frequency_per_A[1]))
    if at < shell + SWITCH_SHELLS:
        return False
    near = slice(max(at - 1, shell + SWITCH_SHELLS), at + 2)
    chance = 2 / np.sqrt(max(float(randomised.n[near].sum()), 1.0))
    return bool(randomised.curve[near].mean() <= _TIGHT + min(chance, _TIGHT))
