"""Figures of maps, curves and orientations, as PNG bytes: the same look on every page, no window system needed.

matplotlib is loaded on first use and only through its object interface, so nothing of a caller's pyplot state changes.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from verglas.assessment.fsc import FSC
from verglas.errors import InputError
from verglas.geometry import direction_vectors, healpix_count, healpix_directions, healpix_index
from verglas.report import surface
from verglas.types import Map

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's colours: told apart with every common colour vision.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
_SURFACES = ((0.55, 0.58, 0.62), (0.30, 0.55, 0.74))
INK, FAINT = "#1f2933", "#9aa5b1"
_STYLE: Any = {
    "font.size": 10, "axes.edgecolor": FAINT, "axes.labelcolor": INK, "axes.titlecolor": INK, "text.color": INK,
    "xtick.color": INK, "ytick.color": INK, "axes.spines.top": False, "axes.spines.right": False,
    "axes.titlesize": 11, "axes.grid": False, "legend.frameon": False, "figure.facecolor": "white",
}  # fmt: skip
_DPI = 144


def _figure(width_in: float, height_in: float) -> Figure:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width_in, height_in), dpi=_DPI, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _styled() -> Any:
    import matplotlib

    return matplotlib.rc_context(_STYLE)


def png(figure: Figure, dpi: float = _DPI) -> bytes:
    """A figure as PNG bytes, without the date and version stamps that would make equal figures differ."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi, metadata={"Software": None})
    return buffer.getvalue()


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


def slices(maps: Mapping[str, Map]) -> bytes:
    """Three orthogonal central slices of each map, one column per map; one grey scale and scale bar for all.

    Parameters
    ----------
    maps : mapping of title -> Map
        Cubes of one box and pixel size.

    Raises
    ------
    InputError
        No maps, or maps of different boxes.

    Examples
    --------
    >>> import numpy as np, verglas as vg
    >>> from verglas.report import figures
    >>> figures.slices({"a map": vg.Map(np.eye(8)[None].repeat(8, 0), 2.0)})[1:4]
    b'PNG'
    """
    boxes = {m.box for m in maps.values()}
    if len(boxes) != 1:
        raise InputError(f"slices: expected maps of one box, got {sorted(boxes) or 'none'}")
    box, rows = boxes.pop(), ("z = 0", "y = 0", "x = 0")
    with _styled():
        figure = _figure(2.2 * len(maps) + 0.3, 6.9)
        grid = figure.subplots(3, len(maps), squeeze=False)
        low, high = _range(np.concatenate([np.ravel(central_slices(m.data)) for m in maps.values()]))
        for column, (title, volume) in enumerate(maps.items()):
            for row, image in enumerate(central_slices(volume.data)):
                _grey(grid[row, column], image, low, high)
            grid[0, column].set_title(title)
            _scale_bar(grid[0, column], box, volume.pixel_size_A)
        for axes, name in zip(grid[:, 0], rows, strict=True):
            axes.text(-0.05, 0.5, name, transform=axes.transAxes, rotation=90, ha="right", va="center", color=FAINT)
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
    with _styled():
        figure = _figure(1.25 * columns, 1.3 * rows)
        for index, axes in enumerate(np.ravel(figure.subplots(rows, columns, squeeze=False))):
            if index < len(images):
                _grey(axes, images[index], *_range(images[index]))
            axes.set_axis_off()
            if index == 0:
                _scale_bar(axes, images.shape[-1], pixel_size_A)
        return png(figure)


def draw_fsc(axes: Axes, curves: Mapping[str, FSC], thresholds: Sequence[float]) -> None:
    """Curves against frequency, with the resolution written along the axis."""
    top = max(float(c.frequency_per_A[-1]) for c in curves.values())
    for threshold in thresholds:
        axes.axhline(threshold, color=FAINT, lw=0.9, ls=(0, (4, 3)), zorder=0)
        axes.text(top * 1.01, threshold, f"{threshold:g}", ha="left", va="center", fontsize=8, color=FAINT)
    axes.axhline(0, color=FAINT, lw=0.6, zorder=0)
    for number, (title, c) in enumerate(curves.items()):
        axes.plot(c.frequency_per_A, c.curve, color=COLOURS[number % len(COLOURS)], lw=1.8, label=title)
    axes.set_xlim(0, top)
    low = min(float(c.curve.min()) for c in curves.values())
    axes.set_ylim(min(-0.05, max(low - 0.03, -1.0)), 1.03)
    ticks = [t for t in axes.get_xticks() if 0 <= t <= top * 1.001]
    axes.set_xticks(ticks, [f"{1 / t:.1f}" if t > 0 else "∞" for t in ticks])
    axes.set_xlabel("resolution (Å)")
    axes.set_ylabel("Fourier shell correlation")
    axes.legend(loc="lower left", bbox_to_anchor=(0.0, 0.19), fontsize=9)  # above both lines


def fsc(curves: Mapping[str, FSC], thresholds: Sequence[float] = (0.5, 0.143)) -> bytes:
    """Fourier shell correlations against resolution, with thresholds.

    Parameters
    ----------
    curves : mapping of title -> FSC
        Drawn in order.
    thresholds : sequence of float
        Dashed lines.

    Raises
    ------
    InputError
        No curves.
    """
    if not curves:
        raise InputError("fsc figure: expected at least one curve")
    with _styled():
        figure = _figure(6.6, 3.7)
        draw_fsc(figure.subplots(), curves, thresholds)
        return png(figure)


_ORDER = 4  # HEALPix cells of 3.7 degrees, half the width of the kernel


def view_density(
    angles_deg: npt.ArrayLike, longitude_rad: npt.NDArray, latitude_rad: npt.NDArray, width_deg: float = 7.0
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
    directions = np.asarray(angles_deg, np.float64)[:, :2]
    counts = np.bincount(healpix_index(_ORDER, directions), minlength=healpix_count(_ORDER))
    cells = direction_vectors(healpix_directions(_ORDER))
    wanted = _unit_vectors(latitude_rad[:, None], longitude_rad[None]).reshape(-1, 3)
    kernel = np.exp(((wanted @ cells.T - 1.0) / np.deg2rad(width_deg) ** 2).astype(np.float32))
    density = (kernel @ counts.astype(np.float32)) / (kernel.sum(axis=1) * max(counts.mean(), 1e-12))
    return density.reshape(len(latitude_rad), len(longitude_rad)).astype(np.float64)


def _unit_vectors(latitude: npt.NDArray, longitude: npt.NDArray) -> npt.NDArray[np.float64]:
    latitude, longitude = np.broadcast_arrays(latitude, longitude)
    return np.stack(
        [np.cos(latitude) * np.cos(longitude), np.cos(latitude) * np.sin(longitude), np.sin(latitude)], axis=-1
    )


def angular_distribution(angles_deg: npt.ArrayLike) -> bytes:
    """Viewing directions on a Mollweide (equal-area) projection, relative to a uniform distribution.

    Parameters
    ----------
    angles_deg : (n, 3) or (n, 2)
        rot, tilt(, psi): the direction has longitude rot and latitude 90 - tilt.
    """
    longitude, latitude = np.linspace(-np.pi, np.pi, 121), np.linspace(-np.pi / 2, np.pi / 2, 61)
    density = view_density(angles_deg, longitude, latitude)
    with _styled():
        figure = _figure(6.6, 3.3)
        axes = figure.add_subplot(projection="mollweide")
        shown: Any = {"cmap": "viridis", "vmin": 0, "vmax": max(2.0, density.max()), "shading": "gouraud"}
        mesh = axes.pcolormesh(longitude, latitude, density, **shown)
        axes.grid(color="white", lw=0.4, alpha=0.5)
        axes.set_xticks(np.deg2rad([-120, -60, 0, 60, 120]), ["-120°", "-60°", "rot 0°", "60°", "120°"], color="white")
        axes.set_yticks(np.deg2rad([-60, -30, 0, 30, 60]), ["150°", "120°", "tilt 90°", "60°", "30°"])
        axes.tick_params(labelsize=8)
        bar = figure.colorbar(mesh, ax=axes, shrink=0.75, pad=0.03)
        bar.set_label("views, relative to uniform", fontsize=9)
        bar.ax.tick_params(labelsize=8)
        return png(figure)


def _bounds(pictures: Sequence[npt.NDArray]) -> tuple[float, float]:
    """The central square, in pixels, that holds everything visible in all pictures."""
    size = len(pictures[0])
    seen = np.max([p[..., 3] for p in pictures], axis=0) > 0
    away = [np.abs(np.flatnonzero(seen.any(axis=a)) - size / 2).max(initial=size / 4) for a in (0, 1)]
    reach = min(1.06 * max(away), size / 2)
    return size / 2 - reach, size / 2 + reach


def overview(images: npt.NDArray[np.float32], maps: Mapping[str, Map], curves: Mapping[str, FSC]) -> bytes:
    """What went in, what came out and how good it is, in one row: particle images, surfaces of maps, FSC.

    Parameters
    ----------
    images : (n, y, x) float32
        The first nine are shown.
    maps : mapping of title -> Map
        Two maps of one box; each surface encloses the brightest 4 percent of its map's voxels.
    curves : mapping of title -> FSC
        As in :func:`fsc`.
    """
    size = 420
    pictures = [
        surface.shaded(volume, surface.level_for_volume(volume.data, 0.04), colour=colour, size=size)
        for volume, colour in zip(maps.values(), _SURFACES, strict=True)
    ]
    low, high = _bounds(pictures)
    with _styled():
        figure = _figure(13.2, 3.7)
        parts: Any = figure.subfigures(1, 4, width_ratios=(3.2, 3.2, 3.2, 4.4), wspace=0.02)
        titles = ("simulated particles", *maps, "Fourier shell correlation")
        for part, title in zip(parts, titles, strict=True):
            part.suptitle(title, fontsize=11)
        for index, axes in enumerate(np.ravel(parts[0].subplots(3, 3))):
            if index < len(images):
                _grey(axes, images[index], *_range(images[index]))
            axes.set_axis_off()
        for part, picture in zip(parts[1:3], pictures, strict=True):
            axes = part.subplots()
            axes.imshow(picture)
            axes.set(xlim=(low, high), ylim=(high, low))
            axes.set_axis_off()
        volume = next(iter(maps.values()))
        pixel_A = volume.box * volume.pixel_size_A / size
        length_A = _nice_length((high - low) * pixel_A)
        axes.plot([high - length_A / pixel_A, high], [high, high], color=INK, lw=2.5, clip_on=False)
        axes.text(high, high - 0.02 * (high - low), f"{length_A:g} Å", ha="right", va="bottom", fontsize=8)
        axes = parts[3].subplots()
        draw_fsc(axes, curves, (0.5, 0.143))
        axes.set_ylabel("")
        return png(figure)
