"""Resolution of a map without half maps: its power inside the molecule against that of the solvent, scale by scale."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from verglas import fourier
from verglas.assessment.fsc import first_crossing
from verglas.assessment.local_bands import Band
from verglas.assessment.solvent import solvent_mask
from verglas.errors import InputError
from verglas.masks import checked_mask, distance_from
from verglas.types import Map
from verglas.types.arrays import BoolArray, Complex64Array, FloatArray, any_arrays
from verglas.types.convert import MapLike, map_of
from verglas.types.display import Shown

_SSNR = 1 / 3  # of the whole map, where half maps have an FSC of 1/7: 2 F / (1 - F)
_MARGIN = 0.08  # of the box, between molecule and solvent: what a band smears over
_HALF_WIDTH = 2.0  # of a band, Fourier pixels
_LEAST_SOLVENT = 0.005  # of the box: ten thousand voxels of 128^3
_FLAT = 1e-4  # of the molecule's power: a solvent with less was made flat
_ENDED = 1e-8  # of the largest power of a band: beyond a low-pass filter there is rounding alone


@dataclass(frozen=True, eq=False, repr=False)
class SingleMapResolution(Shown):
    """What one map says of its resolution.

    Attributes
    ----------
    frequency_per_A : (bands,) float64
    ssnr : (bands,) float64
        Power inside over that of the solvent, less 1; NaN beyond a low-pass filter.
    error : (bands,) float64
        Standard error of ``ssnr`` by the number of independent voxels.
    resolution_A : float
        Where ``ssnr`` falls below 1/3; NaN where it does not, or is below from the first band.
    never_falls : bool
        The molecule is stronger than the solvent at every scale the map holds: signal up to its sampling or filter, or,
        commoner in maps of archives, a solvent whose noise was suppressed. Neither tells a resolution.
    pixel_size_A : float
    """

    frequency_per_A: FloatArray
    ssnr: FloatArray
    error: FloatArray
    resolution_A: float
    never_falls: bool
    pixel_size_A: float

    def __repr__(self) -> str:
        return (
            "SingleMapResolution(never falls)"
            if self.never_falls
            else f"SingleMapResolution({self.resolution_A:.2f} A)"
        )

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready."""

        def numbers(values: FloatArray) -> list[float | None]:
            return [round(float(v), 6) if np.isfinite(v) else None for v in values]

        return {
            "resolution_A": numbers(np.array([self.resolution_A]))[0],
            "never_falls": self.never_falls,
            "pixel_size_A": self.pixel_size_A,
            "frequency_per_A": numbers(self.frequency_per_A),
            "ssnr": numbers(self.ssnr),
            "error": numbers(self.error),
        }


@any_arrays
def single_map_resolution(
    volume: MapLike, mask: MapLike | npt.ArrayLike | None = None, *, threads: int | None = None
) -> SingleMapResolution:
    r"""Estimate the resolution of a map that came alone.

    The map is split into bands of Fourier shells (scales); in each the mean square inside the molecule holds signal and
    noise, in the solvent noise alone:

    .. math:: \mathrm{SSNR}(k) = \frac{\langle v_k^2 \rangle_{inside}}{\langle v_k^2 \rangle_{solvent}} - 1

    The resolution is where this falls below 1/3, which is where half maps would have an FSC of 1/7. Filters do not
    change it. The solvent has to be as the reconstruction left it: where it was masked or flattened there is no answer
    (``never_falls``, or an error). Noise that is stronger inside, as wrongly aligned particles make it, passes for
    signal: half maps, where there are any, are the better witnesses.

    Parameters
    ----------
    volume : Map or path
        A cube with its solvent.
    mask : Map, path or array, optional
        Where the molecule is; made from the map if not given.
    threads : int, optional
        Threads; the result does not depend on it.

    Returns
    -------
    SingleMapResolution

    Raises
    ------
    InputError
        No cube, no solvent around the molecule, or a solvent that was made flat.

    References
    ----------
    The idea, bands of one map against its background, is that of multiscale spectral analysis (Yang et al. 2018) and of
    ResMap's form for a single map (Kucukelbir, Sigworth and Tagare, Nat. Methods 11 (2014) 63).

    Examples
    --------
    >>> import numpy as np, verglas as vg
    >>> from verglas.assessment import single_map_resolution
    >>> field = vg.Map(np.random.default_rng(0).normal(size=(48, 48, 48)), 1.5)
    >>> halves = vg.simulate.planted_halves(field, (6.0,), noise=1.0)
    >>> 5 < single_map_resolution(halves.half1, halves.inside.astype(float)).resolution_A < 7
    True
    """
    volume = map_of(volume, "single_map_resolution: the map")
    inside, solvent = _regions(volume, mask, threads)
    box, pixel = volume.box, volume.pixel_size_A
    inner, outer = (float(volume.data[part].astype(np.float64).var()) for part in (inside, solvent))
    if outer < _FLAT * inner:
        raise InputError(
            "single_map_resolution: the solvent around the molecule is flat (the map was masked), so that nothing "
            "tells how strong its noise is; give the map before masking"
        )
    # Narrower bands reach farther than the margin, but what strong shells smear into the solvent does not matter where
    # signal is a third of the noise.
    bands = [Band(centre, _HALF_WIDTH, 1.0) for centre in np.arange(_HALF_WIDTH, box / 2.04, _HALF_WIDTH).tolist()]
    spectrum = fourier.forward(volume.data, 3, threads=threads)
    powers = np.array([_powers(spectrum, band, inside, solvent, threads) for band in bands])
    ended = powers[:, 1] <= _ENDED * powers[:, 0].max()
    ratio = np.divide(powers[:, 0], powers[:, 1], out=np.full(len(bands), np.nan), where=~ended)
    frequency = np.array([band.centre for band in bands]) / (box * pixel)
    # Of a band of gain cos^2 as many shells count fully as its half width is.
    modes = 4 * np.pi * np.array([band.centre for band in bands]) ** 2 * _HALF_WIDTH
    error = ratio * np.sqrt(2 / (modes * inside.mean()) + 2 / (modes * solvent.mean()))
    known = int(np.argmax(ended)) if ended.any() else len(bands)
    # Of a band that is partly resolved the coarse side is: where its gain is one half.
    edges = frequency - 0.5 * _HALF_WIDTH / (box * pixel)
    resolution, crossing = first_crossing(edges[:known], ratio[:known] - 1 - _SSNR) if known else (np.nan, 0)
    told = crossing is not None and np.isfinite(resolution)
    return SingleMapResolution(
        frequency, ratio - 1, error, float(resolution) if told else float("nan"), crossing is None, pixel
    )


def _regions(volume: Map, mask: MapLike | npt.ArrayLike | None, threads: int | None) -> tuple[BoolArray, BoolArray]:
    """Voxels well inside the molecule, and those of the solvent, far from it and within the box's sphere."""
    name, shape = "single_map_resolution", volume.data.shape
    if len(set(shape)) != 1:
        raise InputError(f"{name}: expected a cube, got shape {shape}")
    if bad := np.count_nonzero(~np.isfinite(volume.data)):
        raise InputError(f"{name}: the map holds {bad} values that are not finite numbers")
    if not np.ptp(volume.data) > 0:
        raise InputError(f"{name}: the map is constant")
    if mask is None:
        weight = solvent_mask(volume, threads=threads).data
    else:
        values = mask if isinstance(mask, np.ndarray | list) else map_of(mask, f"{name}: the mask").data
        weight = checked_mask(values, shape, f"{name}: the mask")
    inside = weight >= 0.5
    if not inside.any():
        raise InputError(
            f"{name}: the mask reaches {weight.max():.2g} only; what is at least 0.5 counts as the molecule"
        )
    solvent = ndimage.distance_transform_edt(weight < 0.01) > _MARGIN * len(weight)
    sphere = distance_from(weight.shape) < 0.5 * len(weight) - 1
    # Beyond the sphere of the box many programs leave a constant.
    corners, within = (volume.data[solvent & part] for part in (~sphere, sphere))
    if corners.size and within.size and corners.std() < _FLAT * within.std():
        solvent &= sphere
    if solvent.mean() < _LEAST_SOLVENT:
        raise InputError(
            f"{name}: {solvent.mean():.1%} of the box are solvent away from the molecule, expected at least "
            f"{_LEAST_SOLVENT:.1%}: the box is too tight to tell the noise from it"
        )
    return inside, solvent


def _powers(
    spectrum: Complex64Array, band: Band, inside: BoolArray, solvent: BoolArray, threads: int | None
) -> tuple[float, float]:
    """Mean square of a band of the map inside the molecule and in the solvent."""
    gain = band.gain(fourier.radius(inside.shape))
    power = fourier.inverse((spectrum * gain).astype(np.complex64), inside.shape, threads=threads).astype(np.float64)
    power *= power
    return float(power[inside].mean()), float(power[solvent].mean())
