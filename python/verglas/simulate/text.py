"""Phantoms of geometric bodies, described in a text file, with exact volumes and projections.

The format is that of the feature files of Xmipp's Phan3D (Bilbao-Castro et al. 2004, in "Parallelization of
reconstruction algorithms in three-dimensional electron microscopy"; San Martin et al. 1998). One item per line,
``#`` starts a comment, blank lines are skipped. The first line states the volume, each further line a feature::

    dimX dimY dimZ [background [scale]]
    sph op density x y z  radius
    ell op density x y z  rx ry rz  rot tilt psi
    cub op density x y z  sx sy sz  rot tilt psi
    cyl op density x y z  rx ry height  rot tilt psi
    dcy op density x y z  radius height separation  rot tilt psi
    gau op density x y z  sigma
    blo op density x y z  radius alpha order

``op`` is ``+`` (add the density) or ``=`` (set it, over what earlier lines put there). Lengths are voxels of the
stated volume, multiplied by ``scale``; x, y, z count from its centre (voxel N // 2). Sizes of ``cub`` and ``height``
are full lengths; ``dcy`` is two cylinders whose centres are ``separation + height`` apart along the axis. The Euler
angles, in degrees, take the volume frame to the body's: r' = A(rot, tilt, psi) (r - centre), A as in
docs/conventions.md; they may be left out. ``gau`` (density at its centre times exp(-r^2 / 2 sigma^2)) and ``blo``
(generalised Kaiser-Bessel window, Lewitt 1990, J. Opt. Soc. Am. A 7, 1834) have no sharp inside, so they only add.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from itertools import pairwise, product
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy.special import iv

from verglas import fourier
from verglas.errors import FormatError, InputError
from verglas.geometry import euler_to_matrix
from verglas.image import fourier_resample
from verglas.types import Map, Poses
from verglas.types.arrays import FloatArray

# Numbers after the centre: sizes, then three optional angles where the body has an orientation.
_SIZES = {"sph": 1, "ell": 3, "cub": 3, "cyl": 3, "dcy": 3, "gau": 1, "blo": 3}
_ORIENTED = ("ell", "cub", "cyl", "dcy")
_SOFT = ("gau", "blo")


@dataclass(frozen=True)
class Feature:
    """One body: lengths in voxels from the centre of the volume.

    Attributes
    ----------
    kind : str
        sph, ell, cub, cyl, gau or blo (a dcy of the file becomes two cyl).
    op : str
        "+" or "=".
    density : float
    centre : (3,) x, y, z
    size : the numbers of the file's line after the centre
    angles_deg : (3,) rot, tilt, psi
    """

    kind: str
    op: str
    density: float
    centre: tuple[float, ...]
    size: tuple[float, ...]
    angles_deg: tuple[float, ...] = (0.0, 0.0, 0.0)

    @property
    def matrix(self) -> FloatArray:
        """A, (3, 3): from the volume's axes to the body's."""
        return euler_to_matrix([self.angles_deg])[0]

    @property
    def semi_axes(self) -> FloatArray:
        """Half lengths of the box around the body in its own frame; 6 sigma of a Gaussian."""
        if self.kind in ("sph", "blo"):
            return np.full(3, self.size[0])
        if self.kind == "gau":
            return np.full(3, 6 * self.size[0])
        half = np.array(self.size)
        if self.kind == "cub":
            half = half / 2
        if self.kind == "cyl":
            half[2] /= 2
        return half

    @property
    def volume(self) -> float:
        """Voxels inside a body; for gau and blo the integral of the profile."""
        a, b, c = self.semi_axes
        if self.kind in ("sph", "ell"):
            return float(4 / 3 * np.pi * a * b * c)
        if self.kind == "cub":
            return float(8 * a * b * c)
        if self.kind == "cyl":
            return float(2 * np.pi * a * b * c)
        if self.kind == "gau":
            return float((2 * np.pi) ** 1.5 * self.size[0] ** 3)
        radius, alpha, order = self.size
        return float((2 * np.pi / alpha) ** 1.5 * radius**3 * iv(order + 1.5, alpha) / iv(order, alpha))

    @property
    def reach(self) -> FloatArray:
        """Half lengths, along x, y and z of the volume, of a box that holds the body."""
        turned = self.matrix.T * self.semi_axes
        return np.sqrt((turned**2).sum(1)) if self.kind in ("sph", "ell") else np.abs(turned).sum(1)

    @property
    def farthest(self) -> float:
        """How far the body reaches from its own centre."""
        if self.kind in ("cub", "cyl"):  # corners; the rim
            first, second, half_height = (float(v) for v in self.semi_axes)
            across = np.hypot(first, second) if self.kind == "cub" else max(first, second)
            return float(np.hypot(across, half_height))
        return float(max(self.semi_axes))

    def values(self, x: FloatArray, y: FloatArray, z: FloatArray) -> FloatArray:
        """1 inside and 0 outside, or the soft profile, at points whose coordinates are broadcast together.

        Flat faces belong to one side only, so that samples on both faces of a body do not count twice.
        """
        offset = (x - self.centre[0], y - self.centre[1], z - self.centre[2])
        # One row of A at a time; two broadcast sums, so that a grid costs no product per point.
        u, v, w = (
            (row[0] * offset[0] + row[1] * offset[1] + row[2] * offset[2]) / length
            for row, length in zip(self.matrix, self.semi_axes, strict=True)
        )
        if self.kind in ("sph", "ell"):
            return (u * u + v * v + w * w <= 1).astype(np.float64)
        if self.kind == "cub":
            return ((u >= -1) & (u < 1) & (v >= -1) & (v < 1) & (w >= -1) & (w < 1)).astype(np.float64)
        if self.kind == "cyl":
            return ((u * u + v * v <= 1) & (w >= -1) & (w < 1)).astype(np.float64)
        distance2 = u * u + v * v + w * w
        if self.kind == "gau":
            return np.exp(-18 * distance2)  # the unit is 6 sigma
        _, alpha, order = self.size
        root = np.sqrt(np.maximum(1 - distance2, 0))
        return np.where(root > 0, root**order * iv(order, alpha * root) / iv(order, alpha), 0.0)

    def interval(self, origins: FloatArray, direction: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Where the lines origins + t direction are inside a (convex) body: t from, t to; from = to if nowhere."""
        o = (origins - np.array(self.centre)) @ self.matrix.T / self.semi_axes
        d = self.matrix @ direction / self.semi_axes
        start, stop = np.full(len(o), -np.inf), np.full(len(o), np.inf)
        round_axes = {"sph": (0, 1, 2), "ell": (0, 1, 2), "cyl": (0, 1)}.get(self.kind, ())
        if round_axes:
            axes = list(round_axes)
            a, b, c = (d[axes] ** 2).sum(), o[:, axes] @ d[axes], (o[:, axes] ** 2).sum(1) - 1
            root = np.sqrt(np.maximum(b**2 - a * c, 0))
            if a > 1e-24:
                start, stop = (-b - root) / a, (-b + root) / a
            else:  # along the axis of a cylinder: everywhere or nowhere
                stop = np.where(c <= 0, np.inf, -np.inf)
        for axis in {0, 1, 2} - set(round_axes):
            with np.errstate(divide="ignore", invalid="ignore"):
                edges = (np.array([[-1.0], [1.0]]) - o[:, axis]) / d[axis]
            if abs(d[axis]) < 1e-12:
                inside = (o[:, axis] >= -1) & (o[:, axis] < 1)
                edges = np.where(inside, [[-np.inf], [np.inf]], [[np.inf], [-np.inf]])
            else:
                edges.sort(axis=0)
            start, stop = np.maximum(start, edges[0]), np.minimum(stop, edges[1])
        nowhere = start >= stop
        return np.where(nowhere, 0.0, start), np.where(nowhere, 0.0, stop)

    def soft_projection(self, origins: FloatArray, direction: FloatArray) -> FloatArray:
        """Line integrals of gau and blo."""
        o = origins - np.array(self.centre)
        distance2 = (o**2).sum(1) - (o @ direction) ** 2
        if self.kind == "gau":
            sigma = self.size[0]
            return np.sqrt(2 * np.pi) * sigma * np.exp(-distance2 / (2 * sigma**2))
        radius, alpha, order = self.size
        root = np.sqrt(np.maximum(1 - distance2 / radius**2, 0))
        m = order + 0.5
        return np.where(
            root > 0, radius * np.sqrt(2 * np.pi / alpha) * root**m * iv(m, alpha * root) / iv(order, alpha), 0.0
        )


@dataclass(frozen=True)
class TextPhantom:
    """Features in a volume of stated size.

    Attributes
    ----------
    shape : (dimX, dimY, dimZ)
        Volume of the file, in voxels.
    background : float
        Density outside all features.
    features : tuple of Feature
        In the order of the file, which ``=`` depends on.
    name : str
        For titles and messages.
    """

    shape: tuple[int, int, int]
    background: float
    features: tuple[Feature, ...]
    name: str = "phantom"

    def radius_A(self, box: int, pixel_size_A: float) -> float:
        """How far its bodies reach from the centre of a box that it is scaled to."""
        reach = [float(np.linalg.norm(f.centre)) + f.farthest for f in self.features]
        return max(reach, default=0.0) * box / max(self.shape) * pixel_size_A

    def scale_lengths(self, factor: float) -> TextPhantom:
        """The same phantom with every length multiplied (``blo``'s alpha and order, and angles, are no lengths)."""
        x, y, z = (round(n * factor) for n in self.shape)
        return replace(
            self,
            shape=(x, y, z),
            features=tuple(
                replace(
                    f,
                    centre=tuple(factor * c for c in f.centre),
                    size=(factor * f.size[0], *f.size[1:]) if f.kind == "blo" else tuple(factor * s for s in f.size),
                )
                for f in self.features
            ),
        )

    def volume(self, box: int, pixel_size_A: float, *, samples: int = 3) -> Map:
        r"""Voxels of a cube, the phantom scaled so that its largest side becomes ``box``.

        Parameters
        ----------
        box : int
            Side in voxels.
        pixel_size_A : float
            Voxel size written into the map.
        samples : int
            Each voxel is the mean of samples^3 points.

        Examples
        --------
        >>> from verglas.simulate import text
        >>> m = text.parse_phantom("32 32 32 0\nsph + 1 0 0 0 8").volume(64, 2.0)
        >>> bool(abs(m.data.sum() / (4 / 3 * 3.14159 * 16**3) - 1) < 0.005)
        True
        """
        phantom = self.scale_lengths(box / max(self.shape))
        data = np.full((box, box, box), self.background)
        offsets = (np.arange(samples) + 0.5) / samples - 0.5
        for feature in phantom.features:
            spans = []
            for c, reach in zip(feature.centre, feature.reach, strict=True):
                low, high = int(np.floor(c - reach)) - 1 + box // 2, int(np.ceil(c + reach)) + 2 + box // 2
                spans.append(np.arange(max(low, 0), min(high, box)))
            x, y, z = spans
            if not (len(x) and len(y) and len(z)):
                continue
            cover = np.zeros((len(z), len(y), len(x)))
            for dz, dy, dx in product(offsets, repeat=3):
                grid = (x + dx - box // 2, (y + dy - box // 2)[:, None], (z + dz - box // 2)[:, None, None])
                cover += feature.values(*grid)
            cover /= samples**3
            part = np.ix_(z, y, x)
            if feature.op == "+":
                data[part] += feature.density * cover
            else:  # a voxel on the border is partly set
                data[part] = data[part] * (1 - cover) + feature.density * cover
        return Map(data.astype(np.float32), pixel_size_A)

    def project(self, angles_deg: npt.ArrayLike, box: int) -> npt.NDArray[np.float64]:
        """Exact line integrals through the pixel centres, scaled as in :meth:`volume`; background excluded.

        Along a ray the density is constant between the borders of the features, so the integral is a finite sum,
        also where ``=`` overrides.

        Parameters
        ----------
        angles_deg : (n, 3)
            rot, tilt, psi.
        box : int
            Image side.

        Returns
        -------
        (n, box, box) float64
            In units of density times pixel: comparable with the sum of voxels along the ray.
        """
        phantom = self.scale_lengths(box / max(self.shape))
        axis = np.arange(box) - box // 2
        y, x = (c.ravel() for c in np.meshgrid(axis, axis, indexing="ij"))
        images = []
        for matrix in euler_to_matrix(angles_deg):
            origins = np.column_stack([x, y, np.zeros(len(x))]) @ matrix  # A^T (x, y, 0)
            images.append(phantom._ray_sums(origins, matrix[2]).reshape(box, box))
        return np.array(images)

    def _ray_sums(self, origins: FloatArray, direction: FloatArray) -> FloatArray:
        solids = [f for f in self.features if f.kind not in _SOFT]
        total = np.zeros(len(origins))
        for feature in self.features:
            if feature.kind in _SOFT:
                total += feature.density * feature.soft_projection(origins, direction)
        if not solids:
            return total
        spans = [f.interval(origins, direction) for f in solids]
        # Between neighbouring borders no body begins or ends, so the value of the interval's middle is that of all of
        # it.
        borders = np.sort(np.array([t for span in spans for t in span]), axis=0)
        for low, high in pairwise(borders):
            middle, value = (low + high) / 2, np.full(len(origins), 0.0)
            for feature, (start, stop) in zip(solids, spans, strict=True):
                inside = (middle > start) & (middle < stop)
                added = feature.density + (value if feature.op == "+" else -self.background)
                value = np.where(inside, added, value)
            total += value * (high - low)
        return total


def read_phantom(path: str | os.PathLike[str]) -> TextPhantom:
    """Read a feature file (the grammar is in :mod:`verglas.simulate.text`).

    Raises
    ------
    FormatError
        Unknown feature, wrong number of values, or a value that is no number; file and line are named.
    """
    try:
        content = Path(path).read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise FormatError(f"{path}: not a readable text file: {error}") from None
    return parse_phantom(content, os.fspath(path))


def parse_phantom(content: str, name: str = "phantom") -> TextPhantom:
    r"""The phantom a text describes; ``name`` stands in messages.

    Examples
    --------
    >>> from verglas.simulate import text
    >>> p = text.parse_phantom("64 64 64 0\nell + 1  0 0 5  10 12 8  30 0 0   # body\nsph = 2  0 0 5  4")
    >>> [f.kind for f in p.features], round(p.features[0].volume)
    (['ell', 'sph'], 4021)
    """
    lines = [(i, line.split("#")[0].split()) for i, line in enumerate(content.splitlines(), 1)]
    lines = [(i, words) for i, words in lines if words]
    if not lines:
        raise FormatError(f"{name}: empty; expected a line 'dimX dimY dimZ [background [scale]]'")
    number, words = lines[0]
    if not 3 <= len(words) <= 5:
        raise FormatError(f"{name}, line {number}: expected 'dimX dimY dimZ [background [scale]]', got {words}")
    header = _numbers(words, name, number)
    if min(header[:3]) < 1 or any(v != int(v) for v in header[:3]):
        raise FormatError(f"{name}, line {number}: expected three positive whole sizes, got {words[:3]}")
    scale = header[4] if len(header) > 4 else 1.0
    if not scale > 0:
        raise FormatError(f"{name}, line {number}: expected a positive scale, got {scale:g}")
    features = [f for i, words in lines[1:] for f in _feature(words, name, i)]
    background = header[3] if len(header) > 3 else 0.0
    phantom = TextPhantom((1, 1, 1), background, tuple(features), os.path.basename(name)).scale_lengths(scale)
    return replace(phantom, shape=(int(header[0]), int(header[1]), int(header[2])))


def _numbers(words: list[str], name: str, line: int) -> list[float]:
    try:
        values = [float(w) for w in words]
    except ValueError as error:
        raise FormatError(f"{name}, line {line}: {error}") from None
    if not np.isfinite(values).all():
        raise FormatError(f"{name}, line {line}: expected finite numbers, got {words}")
    return values


def _feature(words: list[str], name: str, line: int) -> list[Feature]:
    kind = words[0]
    if kind not in _SIZES:
        raise FormatError(f"{name}, line {line}: unknown feature {kind!r}; known are {', '.join(_SIZES)}")
    if len(words) < 2 or words[1] not in ("+", "="):
        raise FormatError(f"{name}, line {line}: expected '+' or '=' after {kind}, got {words[1:2]}")
    if words[1] == "=" and kind in _SOFT:
        raise FormatError(f"{name}, line {line}: {kind} has no sharp border, so it can only be added ('+')")
    values = _numbers(words[2:], name, line)
    counts = [4 + _SIZES[kind]] + ([7 + _SIZES[kind]] if kind in _ORIENTED else [])
    if len(values) not in counts:
        expected = " or ".join(map(str, counts))
        raise FormatError(f"{name}, line {line}: {kind} takes {expected} numbers, got {len(values)}")
    size, angles = tuple(values[4 : counts[0]]), tuple(values[counts[0] :]) or (0.0, 0.0, 0.0)
    lengths = size[:2] if kind in ("blo", "dcy") else size
    if min(lengths) <= 0:
        raise FormatError(f"{name}, line {line}: expected positive sizes, got {size}")
    if kind != "dcy":
        return [Feature(kind, words[1], values[0], tuple(values[1:4]), size, angles)]
    radius, height, separation = size
    body = Feature("cyl", words[1], values[0], tuple(values[1:4]), (radius, radius, height), angles)
    step = (separation + height) / 2 * body.matrix[2]  # the body's axis in the volume frame
    return [replace(body, centre=tuple(np.array(body.centre) + s * step)) for s in (-1, 1)]


def check_phantom_fits(phantom: TextPhantom, box: int, pixel_size_A: float, shift_A: float = 0.0) -> None:
    """Refuse a phantom without bodies, or of which some body, turned anyhow and shifted, would leave the box."""
    if not phantom.features:
        raise InputError(f"phantom {phantom.name} has no bodies: expected lines such as 'sph + 1  0 0 0  10'")
    reach = phantom.radius_A(box, pixel_size_A)
    if reach + shift_A > box * pixel_size_A / 2:
        raise InputError(
            f"phantom {phantom.name} reaches {reach:.1f} A from the centre, shifted by up to {shift_A:.1f} A, and does "
            f"not fit a box of {box} px ({box * pixel_size_A:.1f} A across): its volume is scaled to the box; state a "
            "larger one in its first line, or smaller shifts"
        )


def spectra_of(
    phantom: TextPhantom,
    poses: Poses,
    box: int,
    pixel_size_A: float,
    b_factor_A2: float = 0.0,
    *,
    threads: int | None = None,
) -> npt.NDArray[np.complex64]:
    """Transforms (n, box, box // 2 + 1) of its projections at poses, band-limited to the box.

    Line integrals through pixels half as large: sharp edges would fold over at the pixel size itself.
    """
    fine = phantom.project(poses.angles_deg, 2 * box).astype(np.float32) / np.float32(2)
    spectra = fourier.forward(fourier_resample(fine, (box, box), threads=threads), 2, threads=threads)
    # The particle lies at minus its origin.
    spectra *= fourier.shift_phases((box, box), -poses.shifts_A / pixel_size_A)
    spectra *= np.exp(-b_factor_A2 / 4 * (fourier.radius((box, box)) / (box * pixel_size_A)) ** 2)
    return spectra


def volume_of(
    phantom: TextPhantom, box: int, pixel_size_A: float, b_factor_A2: float = 0.0, *, threads: int | None = None
) -> Map:
    """Its density with the envelope: what a perfect reconstruction of :func:`spectra_of` gives."""
    # Voxels of half the size: means over voxels fall off towards their Nyquist frequency (sinc), and fold over.
    fine = phantom.volume(2 * box, pixel_size_A / 2, samples=2).data - np.float32(phantom.background)
    volume = fourier_resample(fine, (box,) * 3, threads=threads)
    spectrum = fourier.forward(volume, 3, threads=threads)
    k = np.fft.fftfreq(box) / 2
    for axis, frequency in enumerate((k, k, np.fft.rfftfreq(box) / 2)):
        spectrum /= np.sinc(frequency).reshape([-1 if a == axis else 1 for a in range(3)])
    spectrum *= np.exp(-b_factor_A2 / 4 * (fourier.radius((box,) * 3) / (box * pixel_size_A)) ** 2)
    data = fourier.inverse(spectrum.astype(np.complex64), (box,) * 3, threads=threads)
    return Map(data + np.float32(phantom.background), pixel_size_A)
