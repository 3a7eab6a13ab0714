"""The look that all figures share, and how a figure becomes PNG bytes; no window system needed.

matplotlib is loaded on first use and only through its object interface, so nothing of a caller's pyplot state changes.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from verglas.errors import InputError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Okabe and Ito's colours: told apart with every common colour vision.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
INK, FAINT = "#1f2933", "#9aa5b1"
STYLE: Any = {
    "font.size": 10,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 11,
    "axes.grid": False,
    "legend.frameon": False,
    "figure.facecolor": "white",
}
DPI = 144
# What each format would write of the time and the program; no date, so that equal figures give equal files.
_COLOURS = 32  # of a grey picture with some lines
_STAMPS: Any = {".png": {"Software": None}, ".svg": {"Date": None}, ".pdf": {"CreationDate": None}}


def new_figure(width_in: float, height_in: float, layout: Literal["constrained"] | None = "constrained") -> Figure:
    """An empty figure with a canvas of its own; to let its parts find their places takes half of the drawing."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width_in, height_in), dpi=DPI, layout=layout)
    FigureCanvasAgg(figure)
    return figure


def style_context() -> Any:
    """The context in which figures are drawn."""
    import matplotlib

    return matplotlib.rc_context(STYLE)


def png(figure: Figure, dpi: float = DPI) -> bytes:
    """A figure as PNG bytes, without the date and version stamps that would make equal figures differ."""
    return _draw(figure, dpi)


def figure_format(path: Path) -> str:
    """The format that a file's suffix asks for.

    Raises
    ------
    InputError
        Not PNG, SVG or PDF.
    """
    suffix = path.suffix.lower()
    if suffix not in _STAMPS:
        raise InputError(f"cannot write {path}: expected the suffix .png, .svg or .pdf")
    return suffix[1:]


def write_figure(figure: Figure, path: Path) -> None:
    """A figure as a PNG, SVG or PDF file, as the suffix says; equal figures give equal files."""
    import matplotlib

    from verglas.io import atomic_path

    kind = figure_format(path)
    with matplotlib.rc_context({"svg.hashsalt": "verglas"}), atomic_path(path) as temporary:
        figure.savefig(temporary, format=kind, metadata=_STAMPS[f".{kind}"])


def few_colours(picture: bytes) -> bytes:
    r"""A PNG of few colours: of a grey picture with some lines a quarter of the bytes.

    Examples
    --------
    >>> from verglas.report.style import few_colours, new_figure, png
    >>> few_colours(png(new_figure(1.0, 1.0)))[:4]
    b'\x89PNG'
    """
    from PIL import Image

    buffer = io.BytesIO()
    Image.open(io.BytesIO(picture)).convert("RGB").quantize(_COLOURS).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def jpeg(figure: Figure, dpi: float = DPI, quality: int = 55) -> bytes:
    """A figure that shows noise as JPEG bytes: a tenth of what PNG takes of it, which keeps every grain."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.open(io.BytesIO(_draw(figure, dpi))).convert("RGB").save(buffer, "JPEG", quality=quality, optimize=True)
    return buffer.getvalue()


def _draw(figure: Figure, dpi: float) -> bytes:
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    figure.set_dpi(dpi)
    engine = figure.get_layout_engine()
    if engine is not None:
        engine.execute(figure)
        figure.set_layout_engine("none")
    buffer = io.BytesIO()
    # Not by savefig, which draws a figure that has had a layout engine once more, unseen.
    # zlib's level 4: a tenth more bytes than 6 in half the time.
    canvas = figure.canvas
    assert isinstance(canvas, FigureCanvasAgg)
    canvas.print_png(buffer, metadata={"Software": None}, pil_kwargs={"compress_level": 4})
    return buffer.getvalue()
