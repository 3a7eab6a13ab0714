"""What half maps have in common where there is no molecule, close to Nyquist: noise that both share."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import special

from verglas import fourier
from verglas.assessment.solvent import find_solvent_mask
from verglas.masks import distance_from
from verglas.types import Map
from verglas.types.arrays import Float32Array

_BAND = (0.6, 0.8)  # of Nyquist: from nothing to all, softly, or the filter carries the molecule's signal far out
_APART_A, _APART_PX = 6.0, 8.0  # from the molecule, at least
# Of the common power per voxel in the molecule and about it, found as far outside as that.
_CARRIED = 0.005
_LEAST_SHARE = 0.1
_LEAST_VOXELS = 100.0
_FALSE_ALARM = 1e-3
_EMPTY = 1e-3  # of the power inside: the solvent was flattened
# Least noise power of the last shells (from 0.95 of the last) over that of those before, and over that of coarse ones,
# beside which nothing is left but rounding: where it is less, a filter has taken it.
_LAST, _FILLED, _ROUNDING = 0.95, 0.1, 1e-4
_MOST_CARRIED = 0.5  # of the noise power: where structure may carry out more, shared noise could not be seen


@dataclass(frozen=True)
class SolventNoise:
    """Noise power that two half maps share in the solvent.

    Attributes
    ----------
    share : float
        Of the noise power of a half, in the fine shells.
    limit : float
        What a share must exceed to be more than chance, or than what structure carries out there.
    independent : float
        Voxels of the solvent that count.
    """

    share: float
    limit: float
    independent: float


def solvent_noise(half1: Map, half2: Map, *, order: int = 1, threads: int | None = None) -> SolventNoise | None:
    r"""Correlation of the fine shells of two half maps outside the molecule.

    .. math:: s = \frac{\langle a b \rangle_{out} - 0.005\, \langle a b \rangle_{in}}
                       {\sqrt{\langle a^2 \rangle_{out} \langle b^2 \rangle_{out}}}

    Signal that is resolved to the last shell lies inside the molecule, noise everywhere: where the FSC alone cannot
    tell one from the other, their places do. The second term is the little that filters carry out.

    Parameters
    ----------
    half1, half2 : Map
        Cubes of one box.
    order : int
        Of the point group that both were made under.
    threads : int, optional
        Threads; the result does not depend on it.

    Returns
    -------
    SolventNoise or None
        None where the solvent cannot be asked: no molecule stands out, it fills the box, the solvent is empty, the maps
        were low-passed, so that signal rings far out, or the noise is less than what structure may carry out.

    Examples
    --------
    >>> import numpy as np, verglas as vg
    >>> from verglas.assessment.solvent_noise import solvent_noise
    >>> truth = vg.simulate.density(vg.simulate.phantom(48, 3.0, 60.0), 48, 3.0)
    >>> one, two, both = 2 * np.random.default_rng(0).normal(size=(3, 48, 48, 48)) * truth.data.std()
    >>> halves = [truth.with_data(truth.data + 0.5 * own + np.sqrt(0.75) * both) for own in (one, two)]
    >>> round(solvent_noise(*halves).share, 1)
    0.7
    """
    mean = half1.with_data(0.5 * (half1.data + half2.data))
    found = find_solvent_mask(mean, extend_A=max(_APART_A, _APART_PX * mean.pixel_size_A), threads=threads)
    if found is None:  # there is no molecule to be outside of
        return None
    mask = found.data
    outside = (mask <= 0) & (distance_from(mask.shape) <= mean.box / 2 - 1)
    inside = mask >= 1
    spectra = [fourier.forward(half.data, 3, threads=threads) for half in (half1, half2)]
    if not _has_fine_noise(spectra[0] - spectra[1], mean.box):
        return None
    gain = _gain(mean.box)
    counted = np.broadcast_to(fourier.half_weights(mask.shape), gain.shape)
    power = gain.astype(np.float64) ** 2
    spread = float((counted * power).sum()) ** 2 / float((counted * power**2).sum()) / mean.box**3
    independent = np.count_nonzero(outside) * spread / order
    if independent < _LEAST_VOXELS or not inside.any():
        return None
    a, b = (np.asarray(fourier.inverse(one * gain, mask.shape, threads=threads), np.float32) for one in spectra)
    common_out, common_in = (float(np.mean(a[where] * b[where])) for where in (outside, inside))
    scale = float(np.sqrt(np.mean(a[outside] ** 2) * np.mean(b[outside] ** 2)))
    whole = float(np.sqrt(np.mean(a[inside] ** 2) * np.mean(b[inside] ** 2)))
    if not scale > _EMPTY * whole:
        return None
    carried = _CARRIED * max(common_in, 0.0)
    if carried > _MOST_CARRIED * scale:
        return None
    share = (common_out - carried) / scale
    chance = -float(special.ndtri(_FALSE_ALARM)) / np.sqrt(independent)
    return SolventNoise(share, max(_LEAST_SHARE, float(chance)), float(independent))


def _gain(box: int) -> Float32Array:
    low, high = (0.5 * part * box for part in _BAND)
    rise = np.clip((fourier.radius((box,) * 3) - low) / (high - low), 0, 1)
    return np.asarray(np.sin(0.5 * np.pi * rise) ** 2, np.float32)


def _has_fine_noise(difference: npt.NDArray[np.complexfloating], box: int) -> bool:
    """Whether noise goes on to the last shells; of maps that are the same in both halves nothing is known."""
    radius = fourier.radius((box,) * 3) / ((box - 1) // 2)  # of the last shell that reconstructions fill
    power = np.abs(difference) ** 2
    ranges = ((0.0, _BAND[0]), _BAND, (_LAST, 1.0))
    coarse, before, last = (float(power[(radius >= low) & (radius <= high)].mean()) for low, high in ranges)
    return last >= _FILLED * before and last >= _ROUNDING * coarse
