"""Images side by side in one PNG file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from verglas.errors import InputError


def montage(rows: Sequence[npt.ArrayLike], path: Path, *, labels: Sequence[str] = (), zoom: int = 1) -> None:
    """Write stacks of images as the rows of one grey-scale picture.

    Parameters
    ----------
    rows : sequence of (n, y, x)
        One stack per row, all of one shape; each row has its own grey scale, from 0.5 to 99.5 percent of its values.
    path : Path
        PNG file to write.
    labels : sequence of str
        One per row, written at its left.
    zoom : int
        Screen pixels per image pixel.

    Raises
    ------
    InputError
        The stacks have different shapes.

    Examples
    --------
    >>> import numpy as np, pathlib, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     montage([np.zeros((3, 8, 8)), np.eye(8)[None].repeat(3, 0)], pathlib.Path(folder, "m.png"))
    ...     pathlib.Path(folder, "m.png").stat().st_size > 100
    True
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    stacks = [np.asarray(stack, np.float32) for stack in rows]
    if len({stack.shape for stack in stacks}) != 1 or stacks[0].ndim != 3:
        raise InputError(f"montage: expected stacks of one shape (n, y, x), got {[s.shape for s in stacks]}")
    n, height, width = stacks[0].shape
    margin, dpi = (90 if labels else 0), 100
    size = (margin + n * width * zoom, len(stacks) * height * zoom)
    figure = Figure(figsize=(size[0] / dpi, size[1] / dpi), dpi=dpi)
    FigureCanvasAgg(figure)
    for i, stack in enumerate(stacks):
        bottom = 1 - (i + 1) / len(stacks)
        axes = figure.add_axes((margin / size[0], bottom, 1 - margin / size[0], 1 / len(stacks)))
        low, high = np.percentile(stack, (0.5, 99.5))
        axes.imshow(np.hstack(list(stack)), cmap="gray", vmin=low, vmax=max(high, low + 1e-12), aspect="auto")
        axes.axis("off")
        if labels:
            figure.text(margin / size[0] * 0.95, bottom + 0.5 / len(stacks), labels[i], ha="right", va="center")
    temporary = path.with_name(f".{path.stem}.part{path.suffix}")
    try:
        figure.savefig(temporary, dpi=dpi)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
