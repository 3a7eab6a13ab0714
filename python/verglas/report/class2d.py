"""The picture and the page of 2D classes; on the page a person ticks classes and downloads the selection."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from verglas.classification import Classes2D
from verglas.classification.classes import Iteration
from verglas.classification.kept import Standing
from verglas.report import figures, style
from verglas.report.chart import charts_block
from verglas.report.course import iteration_charts, time_charts
from verglas.report.html import (
    REFRESH_S,
    Fragment,
    Page,
    Picture,
    Section,
    Table,
    counted,
    name_text,
    render,
    templates,
    value_text,
)

_SHOWN = 200


@dataclass(frozen=True)
class _Card:
    """A class on the page; what ``left_out`` says keeps it from being ticked at first."""

    number: int
    particles: int
    lines: Sequence[str]
    picture: str = ""
    alt: str = ""
    left_out: str = ""


def _resolution(classes: Classes2D, value: float) -> str:
    if not np.isfinite(value):
        return "no resolution"
    # At the last ring of the averages: the sampling is the limit.
    return f"{'≤ ' if value * classes.frequency_per_A[-1] < 1.001 else ''}{value:.1f} Å"


def montage(classes: Classes2D, most: int = _SHOWN) -> bytes:
    """Averages in rank order, each with its number, size and resolution, as PNG bytes.

    Parameters
    ----------
    classes : Classes2D
        The empty class is left out.
    most : int
        Classes shown.
    """
    count = min(classes.n_classes, most)
    columns = min(10, count)
    rows = -(-count // columns)
    with style.style_context():
        figure = style.new_figure(1.15 * columns, 1.45 * rows)
        for i, axes in enumerate(np.ravel(figure.subplots(rows, columns, squeeze=False))):
            axes.set_axis_off()
            if i >= count:
                continue
            figures._grey(axes, classes.averages[i], *figures._range(classes.averages[i]))
            row = classes.table.iloc[i]
            axes.set_title(
                f"{i + 1}: {int(row['particles'])}\n{_resolution(classes, row['resolution_A'])}", fontsize=7, pad=2
            )
            if i == 0:
                figures._scale_bar(axes, classes.averages.shape[-1], classes.pixel_size_A)
        return style.png(figure)


def _thumbnail(image: npt.NDArray[np.float32]) -> str:
    from matplotlib.image import imsave

    low, high = figures._range(image)
    buffer = io.BytesIO()
    imsave(
        buffer,
        np.repeat(np.repeat(image, 2, 0), 2, 1) if image.shape[0] < 80 else image,
        cmap="gray",
        vmin=low,
        vmax=high,
        format="png",
    )
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def _cards(classes: Classes2D) -> list[_Card]:
    cards, left_out = [], classes.select().left_out
    for i, (_, row) in enumerate(classes.table.iterrows()):
        number, size = int(row["class"]), int(row["particles"])
        empty = number > classes.n_classes
        name = "explained by noise alone" if empty else _resolution(classes, row["resolution_A"])
        picture = "" if empty else _thumbnail(classes.averages[i])
        lines = (f"class {number}", counted(size, "particle"), name)
        cards.append(_Card(number, size, lines, picture, f"average of class {i + 1}", left_out.get(number, "")))
    return cards


def _classes(cards: Sequence[_Card], *, choose: bool) -> Fragment:
    shown = templates().get_template("classes.html").render(cards=cards, choose=choose)
    return Fragment(shown, scripts=("copy.js",) if choose else ())


def _frame(record: Sequence[Iteration]) -> pd.DataFrame:
    """What the charts show of each iteration; they count on where a level begins anew."""
    return pd.DataFrame(
        {
            "iteration": np.arange(1, len(record) + 1),
            "resolution_A": [line.resolution_A for line in record],
            "log_likelihood": [line.log_likelihood / max(1, line.particles) for line in record],
            "evidence": [line.evidence for line in record],
            "seconds": [line.seconds for line in record],
        }
    )


def _record(record: Sequence[Iteration]) -> Table:
    head = (
        "iteration",
        "finest data",
        "particles",
        "changed class",
        "log-likelihood",
        "evidence on unseen data",
        "seconds",
    )
    rows = [
        (
            line.number,
            f"{line.resolution_A:.1f} Å",
            line.particles,
            f"{100 * line.changed:.1f} %",
            f"{line.log_likelihood:.6g}",
            f"{line.evidence:.1f} σ",
            f"{line.seconds:.1f}",
        )
        for line in record
    ]
    return Table(head, rows)


def _settings_table(settings: Mapping[str, object]) -> Table:
    """Values as words: the same whether they come from the job or from its file."""
    return Table(("setting", "value"), [(name_text(name), value_text(value)) for name, value in settings.items()])


def page(classes: Classes2D, settings: Mapping[str, object], events: Sequence[str], footer: str) -> str:
    """The page as HTML.

    Parameters
    ----------
    classes : Classes2D
        What to show.
    settings : mapping
        Name -> value.
    events : sequence of str
        Events to list (classes begun anew, seeds grouped).
    footer : str
        Version and time.
    """
    numbers = {"particles": str(len(classes.particles)), "classes": str(classes.n_classes)}
    best = classes.table["resolution_A"].to_numpy(float)
    best = best[np.isfinite(best)]
    if classes.signal and len(best):
        numbers["best class"] = _resolution(classes, float(best.min()))
    if classes.set_aside:
        numbers["set aside"] = str(len(classes.set_aside))
    how = (
        "Ticked are the classes that look like particles, as verglas select --auto chooses them. Tick others, and "
        "download the selection, a small STAR file; then: verglas select particles.star --table "
        "selection.star --out selected.star. Best resolution first: where the Fourier ring correlation of the "
        "averages of two half sets falls to 0.143. Down to the finest data used it is optimistic, since both half sets "
        f"were aligned to one average. Each picture is {classes.averages.shape[-1] * classes.pixel_size_A:.0f} Å wide."
    )
    title = "2D classes"
    return render(
        Page(
            title,
            classes.verdict,
            numbers,
            [
                Section("Classes", how, [_classes(_cards(classes), choose=True)]),
                _course(classes.record, events),
                Section("Settings", "", [_settings_table(settings)]),
            ],
            footer,
        )
    )


def _course(record: Sequence[Iteration], events: Sequence[str]) -> Section:
    course = (
        "Evidence: agreement of the averages of two half sets in shells finer than any that alignment has used, in "
        "standard deviations of what noise gives. The largest of all iterations counts, since it falls where the "
        "search takes in finer data; if that is below 5, it is taken for noise."
    )
    frame = _frame(record)
    blocks: list[Picture | Table | Fragment] = [
        charts_block([*iteration_charts(frame), *time_charts(frame)]),
        _record(record),
    ]
    if events:
        blocks.append(Table(("event",), [(e,) for e in events]))
    return Section("Course", course, blocks)


def running_page(
    now: Standing, stopped: str, settings: Mapping[str, object], events: Sequence[str], footer: str
) -> Page:
    """The page while classes are still being made.

    Parameters
    ----------
    now : Standing
        With at least one iteration done.
    stopped : str
        Why it does not go on; empty while it does.
    settings, events, footer
        As for :func:`page`.
    """
    last, order = now.record[-1], np.argsort(-now.mass, kind="stable")[:_SHOWN]
    state = f"Stopped ({stopped})" if stopped else "Running"
    summary = (
        f"{state}: iteration {last.number} done, data to {last.resolution_A:.1f} Å, "
        f"{100 * last.changed:.1f} % of the particles changed class in the last."
    )
    if stopped:
        summary += " The same command goes on from there."
    numbers = {"classes": str(len(now.mass)), "iterations": str(last.number), "evidence": f"{last.evidence:.1f} σ"}
    cards = [
        _Card(
            k + 1,
            0,
            (f"about {counted(now.mass[k], 'particle')}",),
            _thumbnail(now.averages[k]),
            f"average of class {k + 1}",
        )
        for k in order
    ]
    classes = _classes(cards, choose=False)
    return Page(
        "2D classes",
        summary,
        numbers,
        [
            Section("Classes so far", "Largest first.", [classes]),
            _course(now.record, events),
            Section("Settings", "", [_settings_table(settings)]),
        ],
        footer,
        refresh_s=None if stopped else REFRESH_S,
    )
