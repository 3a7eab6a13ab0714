"""A soft mask of the molecule from its map alone."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from verglas import filters, masks
from verglas.errors import InputError
from verglas.types import Map
from verglas.types.arrays import any_arrays
from verglas.types.convert import MapLike, map_of

# A level this many standard deviations of the solvent above it: one voxel in 4000 of Gaussian noise passes, and what
# passes are specks that are no part of the molecule.
_SIGMA = 3.5
# ... and at least this fraction of the way from the solvent to the mean of the molecule.
_LEAST_FRACTION = 0.2
# Detached parts stay if they hold this share of the largest one's voxels.
_PART = 0.05


@any_arrays
def solvent_level(values: npt.ArrayLike) -> float:
    """Density between solvent and molecule, from the histogram of a low-pass filtered map.

    The solvent is the side of the distribution below its median: its spread, mirrored, is the noise. The level lies 3.5
    standard deviations above, and not below a fifth of the way to the molecule's mean density, that of the voxels above
    Otsu's threshold.

    Parameters
    ----------
    values : (...) float
        Voxels, most of them solvent; molecule bright.

    Returns
    -------
    float

    Raises
    ------
    InputError
        All values are equal.

    References
    ----------
    Otsu, IEEE Trans. Syst. Man Cybern. 9 (1979) 62.

    Examples
    --------
    >>> import numpy as np
    >>> from verglas.assessment import solvent_level
    >>> x = np.random.default_rng(0).normal(size=10000); x[:500] += 20
    >>> 3.5 < solvent_level(x) < 5
    True
    """
    x = np.asarray(values, np.float64).ravel()
    if not np.ptp(x) > 0:
        raise InputError("solvent mask: all voxels of the map are equal, so there is nothing to enclose")
    middle = float(np.median(x))
    # The lower half only: the molecule lies in the upper one and would widen the solvent's spread.
    below = x[x < middle]
    sigma = 1.4826 * float(np.median(middle - below)) if below.size else 0.0
    molecule = float(x[x > _otsu(x)].mean())
    return max(middle + _SIGMA * sigma, middle + _LEAST_FRACTION * (molecule - middle))


def _otsu(x: npt.NDArray[np.float64]) -> float:
    """The threshold with the largest variance between the two classes."""
    counts, edges = np.histogram(x, bins=512)
    centres = 0.5 * (edges[1:] + edges[:-1])
    weight, total = np.cumsum(counts), counts.sum()
    moment = np.cumsum(counts * centres)
    with np.errstate(divide="ignore", invalid="ignore"):
        between = (moment[-1] * weight / total - moment) ** 2 / (weight * (total - weight))
    return float(centres[int(np.nanargmax(np.where(np.isfinite(between), between, -np.inf)))])


def solvent_mask(
    volume: MapLike,
    *,
    low_pass_A: float = 15.0,
    extend_A: float = 6.0,
    edge_A: float = 9.0,
    diameter_A: float | None = None,
    threads: int | None = None,
) -> Map:
    """Soft mask of the molecule: low-pass, threshold, large connected parts, dilation, raised-cosine edge.

    Parameters
    ----------
    volume : Map
        A cube, molecule bright, e.g. the mean of two half maps.
    low_pass_A : float
        Filter before the threshold.
    extend_A, edge_A : float
        Dilation, and width of the edge beyond it; at least two and four voxels.
    diameter_A : float, optional
        Nothing farther from the centre than half of this (and an edge) is inside; the box's inner sphere if not given.
    threads : int, optional
        Threads; all by default.

    Returns
    -------
    Map
        Values in [0, 1].

    Raises
    ------
    InputError
        A constant map, values that are not finite, or nothing within the diameter that stands out.

    Examples
    --------
    >>> import verglas as vg
    >>> from verglas.assessment import solvent_mask
    >>> model = vg.simulate.phantom(32, 4.0, 80.0)
    >>> mask = solvent_mask(vg.simulate.density(model, 32, 4.0))
    >>> bool(0.05 < mask.data.mean() < 0.5)
    True
    """
    volume = map_of(volume, "solvent_mask: the map")
    box, apix = volume.box, volume.pixel_size_A
    edge_px = max(edge_A / apix, 4.0)
    reach = box / 2 - 1 if diameter_A is None else min(diameter_A / 2 / apix, box / 2 - 1)
    nyquist = 2.05 * apix
    smooth = filters.apply(volume, filters.low_pass(max(low_pass_A, nyquist)), threads=threads).data
    distance = masks.distance_from(smooth.shape)
    inside = distance <= reach
    # Solvent is everywhere, so its level comes from the whole inner sphere, whatever the diameter.
    level = solvent_level(smooth[distance <= box / 2 - 1])
    molecule = (smooth >= level) & inside
    if not molecule.any():
        raise InputError(
            f"solvent_mask: nothing within {reach * apix:.0f} A of the centre stands out from the solvent; look "
            "at the map: is the molecule centred and bright, and is the diameter its own? Or give a mask"
        )
    mask = masks.soft_edge(_large_parts(molecule), edge_px, extend_px=max(extend_A / apix, 2.0))
    # The map is periodic: a mask that reaches the border would take in the other side.
    border = masks.soft_sphere(box, max(min(reach + extend_A / apix, box / 2 - 1 - edge_px), 1.0), edge_px)
    return volume.with_data(np.minimum(mask, border))


def find_solvent_mask(
    volume: Map, *, extend_A: float = 6.0, diameter_A: float | None = None, threads: int | None = None
) -> Map | None:
    """:func:`solvent_mask`, or None where no molecule stands out, as in a map of noise aligned to itself.

    Where maps are made a sphere then takes its place: that of the particle's diameter in refinement, which is inside it
    all along (``RefineProblem.sphere``), and one made by the job elsewhere (``run/half_maps.py``).
    """
    try:
        return solvent_mask(volume, extend_A=extend_A, diameter_A=diameter_A, threads=threads)
    except InputError:
        return None


def _large_parts(binary: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    labels, n_parts = ndimage.label(binary)
    if n_parts <= 1:
        return binary
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    return np.asarray((sizes >= _PART * sizes.max()) & (sizes > 0))[labels]
