"""Figures of maps, particles and orientations, as PNG bytes; curves are in :mod:`verglas.report.curves`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from verglas.assessment.fsc import FSC
from verglas.assessment.orientations import view_counts
from verglas.errors import InputError
from verglas.geometry import direction_vectors, healpix_directions
from verglas.image import plan_resample, resample
from verglas.report import surface
from verglas.report.curves import draw_fsc, fsc
from verglas.report.style import COLOURS, FAINT, INK, jpeg, new_figure, png, style_context
from verglas.report.volume import display_level
from verglas.types import Map

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["angular_distribution", "central_slices", "fsc", "overview", "particles", "slices", "view_density", "views"]

_SURFACES = ((0.62, 0.52, 0.34), (0.30, 0.55, 0.74), (0.55, 0.58, 0.62))


def _nice_length(extent_A: float) -> float:
    """The largest of 1, 2, 5 x 10^n below a third of the image."""
    power = 10.0 ** np.floor(np.log10(extent_A / 3))
    return float(max(m * power for m in (1, 2, 5) if m * power <= extent_A / 3))


def _scale_bar(axes: Axes, box: int, pixel_size_A: float) -> None:
    length_A = _nice_length(box * pixel_size_A)
    length, left, top = length_A / pixel_size_A, 0.05 * box, 0.95 * box
    axes.plot([left, left + length], [top, top], color="white", lw=2.5, solid_capstyle="butt")
    axes.text(left, top - 0.02 * box, f"{length_A:g} Å", color="white", ha="left", va="bottom", fontsize=8)


def _grey(axes: Axes, image: npt.ArrayLike, low: float, high: float) -> None:
    axes.imshow(image, cmap="gray", vmin=low, vmax=high, interpolation="bicubic")
    axes.set_axis_off()


def _range(values: npt.ArrayLike, low: float = 0.5, high: float = 99.8) -> tuple[float, float]:
    a, b = (float(v) for v in np.percentile(np.asarray(values), (low, high)))
    return a, b if b > a else a + 1.0


def central_slices(data: npt.NDArray[np.float32]) -> tuple[npt.NDArray[np.float32], ...]:
    """The slices z = N // 2, y = N // 2, x = N // 2 of a (z, y, x) volume."""
    z, y, x = (n // 2 for n in data.shape)
    return data[z], data[:, y], data[:, :, x]


def slices(maps: Mapping[str, Map], *, contour: Map | None = None, shared_scale: bool = True) -> bytes:
    """Three orthogonal central slices of each map, one column per map, with a scale bar.

    Parameters
    ----------
    maps : mapping of title -> Map
        Volumes of one shape and pixel size.
    contour : Map, optional
        A mask whose level 0.5 is drawn as a line on every slice.
    shared_scale : bool
        One grey scale for all; False: each map its own.

    Raises
    ------
    InputError
        No maps, or maps of different shapes.

    Examples
    --------
    >>> import numpy as np, verglas as vg
    >>> from verglas.report import figures
    >>> figures.slices({"a map": vg.Map(np.eye(8)[None].repeat(8, 0), 2.0)})[6:10]
    b'JFIF'
    """
    shapes = {m.data.shape for m in (*maps.values(), *([contour] if contour else []))}
    if len(shapes) != 1 or not maps:
        raise InputError(f"slices: expected maps of one shape, got {sorted(shapes) or 'none'}")
    width, rows = shapes.pop()[-1], ("z = 0", "y = 0", "x = 0")
    with style_context():
        figure = new_figure(2.2 * len(maps) + 0.3, 6.9)
        grid = figure.subplots(3, len(maps), squeeze=False)
        low, high = _range(np.concatenate([s.ravel() for m in maps.values() for s in central_slices(m.data)]))
        for column, (title, volume) in enumerate(maps.items()):
            if not shared_scale:
                low, high = _range(np.concatenate([s.ravel() for s in central_slices(volume.data)]))
            for row, image in enumerate(central_slices(volume.data)):
                _grey(grid[row, column], image, low, high)
                if contour is not None:
                    edge = central_slices(contour.data)[row]
                    grid[row, column].contour(edge, levels=[0.5], colors=[COLOURS[4]], linewidths=0.9)
            grid[0, column].set_title(title)
            _scale_bar(grid[0, column], width, volume.pixel_size_A)
        for axes, name in zip(grid[:, 0], rows, strict=True):
            axes.text(-0.05, 0.5, name, transform=axes.transAxes, rotation=90, ha="right", va="center", color=FAINT)
        return jpeg(figure, quality=85)


def _sides(volume: Map) -> list[Map]:
    """The map seen from z, y and x: axes permuted, which unlike a rotation costs nothing and blurs nothing."""
    # Two axes swapped are a mirror image; one of them reversed makes it a rotation, so that the hand stays.
    from_y = np.transpose(volume.data, (1, 0, 2))[:, ::-1]
    from_x = np.transpose(volume.data, (2, 0, 1))
    return [volume, volume.with_data(from_y), volume.with_data(from_x)]


_LARGEST_SURFACE = 128


def views(volume: Map, mask: Map | None = None) -> bytes:
    """The surface of a map from z, y and x, at the level that a fifth of the mask's volume exceeds, clear of noise.

    Parameters
    ----------
    volume : Map
        A cube; shown coarser beyond 128 voxels.
    mask : Map, optional
        Where the molecule is, a soft mask of the same box; without it the level is that of 4 percent of the box.
    """
    level = display_level(volume, mask)
    if mask is not None:
        volume = volume.with_data(volume.data * mask.data)
    if volume.box > _LARGEST_SURFACE:
        volume = resample(volume, plan_resample(volume.box, volume.pixel_size_A, None, _LARGEST_SURFACE))
    size = 300
    pictures = [surface.shade_surface(side, level, colour=_SURFACES[1], size=size) for side in _sides(volume)]
    low, high = _bounds(pictures)
    with style_context():
        figure = new_figure(8.4, 2.9)
        for axes, picture, title in zip(figure.subplots(1, 3), pictures, ("from z", "from y", "from x"), strict=True):
            axes.imshow(picture)
            axes.set(xlim=(low, high), ylim=(high, low))
            axes.set_title(title, color=FAINT, fontsize=9)
            axes.set_axis_off()
        pixel_A = volume.box * volume.pixel_size_A / size
        length_A = _nice_length((high - low) * pixel_A)
        axes.plot([high - length_A / pixel_A, high], [high, high], color=INK, lw=2.5, clip_on=False)
        axes.text(high, high - 0.02 * (high - low), f"{length_A:g} Å", ha="right", va="bottom", fontsize=8)
        return png(figure)


def particles(images: npt.NDArray[np.float32], pixel_size_A: float, columns: int = 6) -> bytes:
    """A few particle images side by side, each on its own grey scale.

    Parameters
    ----------
    images : (n, y, x) float32
        Shown in reading order.
    pixel_size_A : float
        For the scale bar.
    columns : int
        Images per row.
    """
    rows = -(-len(images) // columns)
    with style_context():
        figure = new_figure(1.25 * columns, 1.3 * rows)
        for index, axes in enumerate(np.ravel(figure.subplots(rows, columns, squeeze=False))):
            if index < len(images):
                _grey(axes, images[index], *_range(images[index]))
            axes.set_axis_off()
            if index == 0:
                _scale_bar(axes, images.shape[-1], pixel_size_A)
        return png(figure)


_ORDER = 4  # HEALPix cells of 3.7 degrees, half the width of the kernel


def view_density(
    angles_deg: npt.ArrayLike,
    longitude_rad: npt.NDArray,
    latitude_rad: npt.NDArray,
    width_deg: float = 7.0,
    symmetry: str = "C1",
) -> npt.NDArray[np.float64]:
    """Views per solid angle relative to a uniform distribution, smoothed on the sphere.

    Parameters
    ----------
    angles_deg : (n, 3) or (n, 2)
        rot, tilt(, psi) of the particles: the direction has longitude rot and latitude 90 - tilt.
    longitude_rad, latitude_rad : (m,), (k,)
        Where to evaluate.
    width_deg : float
        Standard deviation of the kernel (von Mises-Fisher, concentration 1 / width^2).
    symmetry : str
        Point group: every view counts with its copies, so that a uniform distribution is 1 everywhere whatever the
        asymmetric unit that the angles lie in.

    Returns
    -------
    (k, m) float64
        1 where views are as frequent as in a uniform distribution.

    Examples
    --------
    >>> import numpy as np
    >>> from verglas.report import figures
    >>> bool(figures.view_density([[0, 90]], np.zeros(1), np.zeros(1))[0, 0] > 10)
    True
    """
    # Angles of a grid lie on the edges of the cells that are counted: a file's twelve digits would put them in others.
    directions = np.asarray(angles_deg, np.float64)[:, :2].round(6)
    counts = view_counts(np.column_stack([directions, np.zeros(len(directions))]), symmetry)
    cells = direction_vectors(healpix_directions(_ORDER))
    weights = np.column_stack([counts / max(counts.mean(), 1e-12), np.ones(len(counts))]).astype(np.float32)
    density = np.empty((len(latitude_rad), len(longitude_rad)))
    for row, latitude in enumerate(latitude_rad):  # a row at a time: all places against all cells are 180 MB
        places = _unit_vectors(np.full(1, latitude), longitude_rad)
        # exp((cos a - 1) / w^2), nearly a Gaussian exp(-a^2 / 2 w^2), and smooth across the poles.
        kernel = np.exp(((places @ cells.T - 1.0) / np.deg2rad(width_deg) ** 2).astype(np.float32))
        views, evenly = (kernel @ weights).T
        density[row] = views / evenly
    return density


def _unit_vectors(latitude: npt.NDArray, longitude: npt.NDArray) -> npt.NDArray[np.float64]:
    latitude, longitude = np.broadcast_arrays(latitude, longitude)
    return np.stack(
        [np.cos(latitude) * np.cos(longitude), np.cos(latitude) * np.sin(longitude), np.sin(latitude)], axis=-1
    )


def angular_distribution(angles_deg: npt.ArrayLike, symmetry: str = "C1") -> bytes:
    """Viewing directions on a Mollweide (equal-area) projection, relative to a uniform distribution.

    Parameters
    ----------
    angles_deg : (n, 3) or (n, 2)
        rot, tilt(, psi): the direction has longitude rot and latitude 90 - tilt.
    symmetry : str
        Point group: every view is shown with its copies.
    """
    longitude, latitude = np.linspace(-np.pi, np.pi, 121), np.linspace(-np.pi / 2, np.pi / 2, 61)
    density = view_density(angles_deg, longitude, latitude, symmetry=symmetry)
    with style_context():
        figure = new_figure(6.6, 3.3)
        axes = figure.add_subplot(projection="mollweide")
        shown: Any = {"cmap": "viridis", "vmin": 0, "vmax": max(2.0, density.max()), "shading": "gouraud"}
        mesh = axes.pcolormesh(longitude, latitude, density, **shown)
        axes.grid(color="white", lw=0.4, alpha=0.5)
        axes.set_xticks(np.deg2rad([-120, -60, 0, 60, 120]), ["-120°", "-60°", "rot 0°", "60°", "120°"], color="white")
        # The projection has latitudes: 90 degrees less the tilt.
        axes.set_yticks(np.deg2rad([-60, -30, 0, 30, 60]), ["150°", "120°", "tilt 90°", "60°", "30°"])
        axes.tick_params(labelsize=8)
        bar = figure.colorbar(mesh, ax=axes, shrink=0.75, pad=0.03)
        bar.set_label("views, relative to uniform", fontsize=9)
        bar.ax.tick_params(labelsize=8)
        return png(figure)


def _bounds(pictures: Sequence[npt.NDArray]) -> tuple[float, float]:
    """The central square, in pixels, that holds everything visible in all pictures."""
    size = len(pictures[0])
    visible = np.max([p[..., 3] for p in pictures], axis=0) > 0
    away = [np.abs(np.flatnonzero(visible.any(axis=a)) - size / 2).max(initial=size / 4) for a in (0, 1)]
    reach = min(1.06 * max(away), size / 2)
    return size / 2 - reach, size / 2 + reach


def overview(images: npt.NDArray[np.float32], maps: Mapping[str, Map], curves: Mapping[str, FSC]) -> bytes:
    """What went in, what came out and how good it is, in one row: particle images, surfaces of maps, FSC.

    Parameters
    ----------
    images : (n, y, x) float32
        The first nine are shown.
    maps : mapping of title -> Map
        Up to three maps of one box; each surface encloses the brightest 4 percent of its map's voxels.
    curves : mapping of title -> FSC
        As in :func:`fsc`.
    """
    size = 420
    pictures = [
        surface.shade_surface(volume, surface.level_for_volume(volume.data, 0.04), colour=colour, size=size)
        for volume, colour in zip(maps.values(), _SURFACES, strict=False)
    ]
    low, high = _bounds(pictures)
    with style_context():
        figure = new_figure(3.0 * (len(maps) + 1) + 4.2, 3.7)
        widths = (*(3.0,) * (len(maps) + 1), 4.2)
        parts: Any = figure.subfigures(1, len(widths), width_ratios=widths, wspace=0.02)
        titles = ("simulated particles", *maps, "Fourier shell correlation")
        for part, title in zip(parts, titles, strict=True):
            part.suptitle(title, fontsize=11)
        for index, axes in enumerate(np.ravel(parts[0].subplots(3, 3))):
            if index < len(images):
                _grey(axes, images[index], *_range(images[index]))
            axes.set_axis_off()
        for part, picture in zip(parts[1:-1], pictures, strict=True):
            axes = part.subplots()
            axes.imshow(picture)
            axes.set(xlim=(low, high), ylim=(high, low))
            axes.set_axis_off()
        volume = next(iter(maps.values()))
        pixel_A = volume.box * volume.pixel_size_A / size
        length_A = _nice_length((high - low) * pixel_A)
        axes.plot([high - length_A / pixel_A, high], [high, high], color=INK, lw=2.5, clip_on=False)
        axes.text(high, high - 0.02 * (high - low), f"{length_A:g} Å", ha="right", va="bottom", fontsize=8)
        axes = parts[-1].subplots()
        draw_fsc(axes, curves, (0.5, 0.143))
        axes.set_ylabel("")
        return png(figure)
