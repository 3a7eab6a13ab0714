"""Pictures in a notebook: arrays side by side, and the look of the curves around them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt

from verglas.errors import InputError
from verglas.report.style import COLOURS, INK, STYLE, new_figure, style_context

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Scale = Literal["own", "shared", "symmetric"]

_TITLE_IN = 0.32


def use_style() -> None:
    """Draw all further matplotlib figures of this session in the look of the reports.

    Thin axes, no frame, colours that are told apart with every common colour vision (Okabe and Ito), constrained
    layout. ``matplotlib.rcdefaults()`` takes it back.

    Examples
    --------
    >>> import matplotlib
    >>> from verglas.report import use_style
    >>> with matplotlib.rc_context():
    ...     use_style()
    ...     matplotlib.rcParams["axes.spines.top"]
    False
    """
    import matplotlib
    from cycler import cycler

    matplotlib.rcParams.update(STYLE)
    matplotlib.rcParams["axes.prop_cycle"] = cycler(color=COLOURS)
    matplotlib.rcParams["figure.constrained_layout.use"] = True
    matplotlib.rcParams["figure.dpi"] = 110


def gallery(
    images: npt.NDArray | Sequence[npt.ArrayLike],
    titles: Sequence[str] = (),
    *,
    columns: int | None = None,
    scale: Scale = "own",
    width_in: float = 1.7,
) -> Figure:
    """Images side by side, each pixel a square, with titles above them.

    Parameters
    ----------
    images : sequence of (y, x), or of (y, x, 3 or 4)
        Grey values, or colours from 0 to 1 as :func:`verglas.report.surface.shade_surface` gives.
    titles : sequence of str
        Of the images; fewer than images leave the last ones without.
    columns : int, optional
        Images in a row; up to six by default.
    scale : {"own", "shared", "symmetric"}
        Grey from the 0.3rd to the 99.7th percentile of each image, or of all; or blue to red about 0, of each.
    width_in : float
        Width of one image in inches.

    Returns
    -------
    matplotlib.figure.Figure
        A notebook shows it; ``figure.savefig`` writes it; ``figure.axes`` are the panels.

    Raises
    ------
    InputError
        No images, or one that is no picture.

    Examples
    --------
    >>> import numpy as np
    >>> from verglas.report import gallery
    >>> len(gallery([np.eye(8), np.ones((8, 8))], ["a diagonal", "a constant"]).axes)
    2
    """
    pictures = [np.asarray(image) for image in images]
    bad = [p.shape for p in pictures if p.ndim not in (2, 3)]
    if bad or not pictures:
        raise InputError(f"gallery: expected images (y, x) or (y, x, colour), got {bad[0] if bad else 'none'}")
    if scale not in ("own", "shared", "symmetric"):
        raise InputError(f"gallery: scale: expected 'own', 'shared' or 'symmetric', got {scale!r}")
    columns = min(len(pictures), 6) if columns is None else max(1, columns)
    rows = -(-len(pictures) // columns)
    height = width_in * pictures[0].shape[0] / pictures[0].shape[1]
    grey = [p for p in pictures if p.ndim == 2]
    shared = _limits(np.concatenate([g.ravel() for g in grey]), scale) if scale == "shared" and grey else None
    with style_context():
        titled = _TITLE_IN * max((t.count("\n") + 2 for t in titles), default=0) / 2
        figure = new_figure(columns * width_in, rows * (height + titled))
        figure.set_layout_engine("constrained", w_pad=0.02, h_pad=0.02, wspace=0.02, hspace=0.02)
        panels = np.ravel(figure.subplots(rows, columns, squeeze=False))
        for panel, picture in zip(panels, pictures, strict=False):
            if picture.ndim == 3:
                panel.imshow(picture, interpolation="bilinear")
            else:
                low, high = shared or _limits(picture, scale)
                colours = "RdBu_r" if scale == "symmetric" else "gray"
                panel.imshow(picture, cmap=colours, vmin=low, vmax=high, interpolation="nearest")
        for panel, title in zip(panels, titles, strict=False):
            panel.set_title(title, fontsize=9, color=INK)
        for panel in panels:
            panel.set_axis_off()
        for panel in panels[len(pictures) :]:
            panel.remove()
    return figure


def _limits(values: npt.NDArray, scale: Scale) -> tuple[float, float]:
    if scale == "symmetric":
        most = float(np.percentile(np.abs(values), 99.7)) or 1.0
        return -most, most
    low, high = (float(v) for v in np.percentile(values, (0.3, 99.7)))
    return low, high if high > low else low + 1.0
