r"""Anisotropic magnification from the diffraction ring of a polycrystalline film.

Lattice planes of spacing d in all directions make a circle of radius 1/d in the power spectrum of the specimen. Through
a magnification matrix M (image(k) = specimen(Mk)) it is the ellipse

.. math:: k^T M^T M\, k = d^{-2}

whose only symmetric matrix is the one returned; a rotation of the whole image leaves no trace in it. The ellipse is the
one along which a narrow ring, of no mean against its surroundings, adds up most of the logarithm of the power (spots
of large grains count little more than many weak ones), found from wide rings to narrow ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy.optimize import minimize

from verglas.errors import InputError
from verglas.optics.aberrations import MAGNIFICATION
from verglas.optics.fit.spectrum import Band, tile_spectra
from verglas.types import Micrograph, Particles
from verglas.types.arrays import FloatArray

GOLD_111_A = 2.355  # spacing of the {111} planes of gold
_WIDTHS = (0.02, 0.01, 0.006, 0.0035)  # of the ring, of its radius, from one search to the next
_LEAST_WIDTH_PX = 1.2  # a spectrum under a Hann window is as wide
_SURROUNDINGS = 0.08  # beyond the largest distortion, of the radius, that the spectrum is taken on either side
_OFF = (-8.0, -6.5, -5.0, 5.0, 6.5, 8.0)  # widths from the ring where there is only noise
_SECTORS = 12  # of a half circle, whose spots know nothing of each other
_LEAST_SIGMA, _LEAST_SIGMA_OF_SECTOR = 7.0, 1.5  # of a ring: the best of many places in noise reaches about 5
_LEAST_SHARE = 0.6  # of the sectors in which a ring stands out, or its shape is not known


@dataclass(frozen=True, eq=False)
class RingMagnification:
    """Magnification as a polycrystalline film shows it.

    Attributes
    ----------
    matrix : (2, 2) float64
        M, symmetric, without its mean: its determinant is 1. What ``rlnMagMat00`` to ``11`` hold.
    pixel_size_A : float
        Of the image: with it and ``matrix`` the ring is a circle of the spacing given.
    error : float
        Standard error of an element of ``matrix``, from what sectors of the ring differ in.
    pixel_size_error_A : float
    sigma : float
        How far the ring stands out of noise, in standard deviations.
    """

    matrix: FloatArray
    pixel_size_A: float
    error: float
    pixel_size_error_A: float
    sigma: float

    @property
    def percent(self) -> float:
        """Larger over smaller magnification, less 1, in percent."""
        values = np.linalg.eigvalsh(self.matrix)
        return float(100 * (values[1] / values[0] - 1))

    @property
    def angle_deg(self) -> float:
        """Direction of the larger eigenvalue, from +x towards +y, 0 to 180: along it the image is the larger one."""
        vector = np.linalg.eigh(self.matrix)[1][:, 1]
        return float(np.rad2deg(np.arctan2(vector[1], vector[0])) % 180)

    def onto(self, particles: Particles) -> Particles:
        """The same particles, whose optics groups all say this matrix; every job corrects images and CTFs for it.

        Raises
        ------
        InputError
            Particles without an optics table.
        """
        if particles.optics_table is None:
            raise InputError(f"{particles.where}: no optics table to write a magnification matrix into")
        table = particles.table.drop(columns=[c for c in MAGNIFICATION if c in particles.table])
        optics = particles.optics_table.assign(**dict(zip(MAGNIFICATION, self.matrix.ravel(), strict=True)))
        return Particles(
            table,
            particles.source,
            optics_table=optics,
            tables=particles.tables,
            table_name=particles.table_name,
            where=particles.where,
        )


class _Ring(NamedTuple):
    """Pixels about a ring: frequencies over its radius, logarithms of power about their surroundings, sectors."""

    kx: FloatArray
    ky: FloatArray
    value: FloatArray
    sector: FloatArray

    def _off(self, shape: FloatArray) -> FloatArray:
        """How far each pixel is from an ellipse, of its radius."""
        scale, one, two = shape
        # the symmetric matrix [[1 + one, two], [two, 1 - one]] times the scale
        x = (1 + one) * self.kx + two * self.ky
        y = two * self.kx + (1 - one) * self.ky
        return np.asarray((1 + scale) * np.hypot(x, y) - 1)

    def near(self, shape: FloatArray, width: float) -> _Ring:
        """What counts for rings of this width that are not far from a shape."""
        kept = np.abs(self._off(shape)) < 8 * width
        return _Ring(*(part[kept] for part in self))

    def template(self, shape: FloatArray, width: float) -> FloatArray:
        """A ring of the shape (scale, and two of anisotropy) about its surroundings."""
        far = (self._off(shape) / width) ** 2
        # less one twice as wide: what lies further off, another part of the same ring too, counts for nothing
        return np.asarray(np.exp(-0.5 * far) - 0.5 * np.exp(-0.125 * far))

    def merit(self, shape: FloatArray, width: float) -> float:
        """Correlation with a ring."""
        ring = self.template(shape, width)
        return float(self.value @ ring / np.sqrt(ring @ ring))


def fit_ring_magnification(
    micrographs: Micrograph | Sequence[Micrograph], spacing_A: float = GOLD_111_A, *, largest: float = 0.05
) -> RingMagnification:
    """Magnification matrix and pixel size from images of a polycrystalline film.

    Parameters
    ----------
    micrographs : Micrograph, or several of one microscope and magnification
        With their nominal pixel size; motion-corrected.
    spacing_A : float
        Of the lattice planes whose ring is used; that of gold {111} by default.
    largest : float
        Error of the nominal pixel size and anisotropy that are searched, relative.

    Returns
    -------
    RingMagnification

    Raises
    ------
    InputError
        The ring lies beyond Nyquist, none stands out, or only in some directions; different pixel sizes.

    References
    ----------
    Zhao, Brubaker, Benlekbir and Rubinstein (2015) J. Struct. Biol. 192, 209-215; Grant and Grigorieff (2015) J.
    Struct. Biol. 192, 204-208.

    Examples
    --------
    >>> import numpy as np, verglas as vg
    >>> from verglas.optics.fit import fit_ring_magnification
    >>> film = vg.simulate.polycrystal((512, 512), 0.8, [[1.01, 0.0], [0.0, 0.99]], snr=0.3, seed=3)
    >>> found = fit_ring_magnification(film)
    >>> bool(abs(found.percent - 2.02) < 0.2), bool(abs(found.pixel_size_A / 0.8 - 1) < 0.002)
    (True, True)
    """
    images = [micrographs] if isinstance(micrographs, Micrograph) else list(micrographs)
    if not images:
        raise InputError("magnification of rings: no micrograph")
    if not (0 < spacing_A < np.inf and 0 <= largest < 1):
        raise InputError(
            "magnification of rings: expected a positive spacing_A, and a largest error of 0 to 1, got "
            f"{spacing_A} and {largest}"
        )
    pixel_A = images[0].pixel_size_A
    if any(not abs(image.pixel_size_A / pixel_A - 1) < 1e-4 for image in images):
        raise InputError("magnification of rings: expected micrographs of one known pixel size")
    far = 1 + largest + _SURROUNDINGS
    if far * 2 * pixel_A >= spacing_A:
        raise InputError(
            f"magnification of rings: a ring of {spacing_A:g} A lies too near Nyquist of pixels of {pixel_A:g} A; "
            f"expected less than {spacing_A / (2 * far):.3g} A"
        )
    ring, radius_px = _ring_of(images, spacing_A, far)
    widths = [max(width, _LEAST_WIDTH_PX / radius_px) for width in _WIDTHS]
    shape, width = _search(ring, widths, largest)
    sigma, covariance = _certainty(ring, shape, width)
    scale, one, two = shape
    matrix = np.array([[1 + one, two], [two, 1 - one]])
    mean = float(np.sqrt(np.linalg.det(matrix)))
    true_A = float(pixel_A / ((1 + scale) * mean))
    error = np.sqrt(np.diag(covariance))
    return RingMagnification(matrix / mean, true_A, float(error[1:].max()), float(true_A * error[0]), sigma)


def _ring_of(images: Sequence[Micrograph], spacing_A: float, far: float) -> tuple[_Ring, float]:
    """Pixels of the mean spectrum about the ring, and its radius in pixels."""
    spectra = [tile_spectra(image, spacing_A * far, spacing_A / far) for image in images]
    band: Band = spectra[0].band
    if any(one.band.tile != band.tile for one in spectra):
        raise InputError("magnification of rings: micrographs of different sizes; expected those of one detector")
    power = np.mean([one.mean for one in spectra], axis=0).ravel()[band.flat]
    value = np.log(np.maximum(power, 1e-30)).astype(np.float64)
    kx, ky = band.kx.astype(np.float64) * spacing_A, band.ky.astype(np.float64) * spacing_A
    radius, angle = np.hypot(kx, ky), np.arctan2(ky, kx)
    # what changes slowly along the radius and with the direction is no ring
    around = np.stack([np.ones_like(radius), radius, radius**2, np.cos(2 * angle), np.sin(2 * angle)], axis=1)
    value -= around @ np.linalg.lstsq(around, value, rcond=None)[0]
    sector = np.floor((angle / np.pi % 1.0) * _SECTORS).clip(max=_SECTORS - 1)
    return _Ring(kx, ky, value, sector), 1 / (spacing_A * band.step)


def _search(ring: _Ring, widths: Sequence[float], largest: float) -> tuple[FloatArray, float]:
    """Scale and anisotropy of the ring that adds up most, a grid of wide ones first; and its width."""
    steps = np.arange(-largest, largest + 1e-9, widths[0])
    # of a grid's many rings it is enough to see every fourth pixel
    thin = _Ring(*(part[::4] for part in ring))
    halves = steps[np.abs(steps) <= largest / 2 + widths[0] / 2]
    grid = [np.array([s, one, two]) for s in steps for one in halves for two in halves]
    shape = max(grid, key=lambda tried: thin.merit(tried, widths[0]))
    best = (-np.inf, shape, widths[0])
    for width in widths[1:]:
        about = ring.near(shape, width)
        corners = shape + np.vstack([np.zeros(3), 0.5 * width * np.eye(3)])
        options = {"initial_simplex": corners, "xatol": 1e-6, "fatol": 1e-9, "maxiter": 200}
        found = minimize(
            lambda tried, r=about, w=width: -r.merit(tried, w), shape, method="Nelder-Mead", options=options
        )
        shape = np.asarray(found.x, np.float64)
        best = max(best, (-float(found.fun), shape, width), key=lambda one: one[0])
    return best[1:]


def _certainty(ring: _Ring, shape: FloatArray, width: float) -> tuple[float, FloatArray]:
    """Standard deviations by which the ring stands out, and the covariance (3, 3) of its shape.

    Both from sums over sectors, which count as independent: neighbouring pixels of a spectrum under a window are not.
    """
    sectors = ring.sector.astype(int)

    def sums(tried: FloatArray) -> FloatArray:
        template = ring.template(tried, width)
        return np.bincount(sectors, ring.value * template, _SECTORS) / np.sqrt(template @ template)

    own = sums(shape)
    # far off the ring the same sums are those of noise
    off = np.array([sums(shape + np.array([shift * width, 0, 0])) for shift in _OFF])
    noise = max(float(np.sqrt((off**2).mean())), 1e-30)
    sigma = float(own.sum() / (noise * np.sqrt(_SECTORS)))
    standing = int((own > _LEAST_SIGMA_OF_SECTOR * noise).sum())
    if sigma < _LEAST_SIGMA or standing < _LEAST_SHARE * _SECTORS:
        raise InputError(
            f"magnification of rings: no ring to be relied on: it stands out by {sigma:.1f} standard deviations "
            f"(expected {_LEAST_SIGMA:.0f}), and in {standing} of {_SECTORS} directions; give more images, other "
            "planes (spacing_A), or a better pixel size"
        )
    step = 0.2 * width
    moves = step * np.eye(3)
    slopes = np.stack([(sums(shape + move) - sums(shape - move)) / (2 * step) for move in moves], axis=1)
    curvature = np.empty((3, 3))
    for i in range(3):
        for j in range(3):
            corners = [sums(shape + a * moves[i] + b * moves[j]).sum() for a in (1, -1) for b in (1, -1)]
            curvature[i, j] = (corners[0] - corners[1] - corners[2] + corners[3]) / (4 * step**2)
    back = np.linalg.inv(curvature)
    return sigma, np.asarray(back @ (slopes.T @ slopes) @ back)
