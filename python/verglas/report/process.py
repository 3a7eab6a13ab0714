"""Pictures and the page of ``verglas process``: one micrograph, the set of them, the way to particles or a map."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from verglas.picking import PickResult
from verglas.report import style
from verglas.report.chart import Chart, charts_block, histogram_chart
from verglas.report.figures import _grey, _range, _scale_bar
from verglas.report.html import REFRESH_S, Fragment, Link, Page, Picture, Section, Table, command_block, folded, render
from verglas.report.refine import duration
from verglas.report.selector import SELECTOR_SCRIPT, SelectorRow, format_number, selector


@dataclass(frozen=True)
class SetRow:
    """One micrograph of the page.

    Attributes
    ----------
    name : str
        As the list to keep will call it.
    state : str
        "used", "flagged", "set aside", or what a watched file waits for.
    reason : str
        Why it is set aside or flagged.
    defocus_A, astigmatism_A, resolution_A, merit, bad_fraction, ice_ring : float
        NaN where not known.
    picks, particles : int or None
    picture : str
        PNG beside the page; empty where there is none.
    """

    name: str
    state: str
    reason: str = ""
    defocus_A: float = float("nan")
    astigmatism_A: float = float("nan")
    resolution_A: float = float("nan")
    merit: float = float("nan")
    bad_fraction: float = float("nan")
    ice_ring: float = float("nan")
    picks: int | None = None
    particles: int | None = None
    picture: str = ""


@dataclass(frozen=True)
class StageRow:
    """One stage of the page: verdict, reasons, time, its own page or files, and its name in words."""

    name: str
    state: str
    reasons: Sequence[str]
    seconds: float
    settings: Mapping[str, Any] = field(default_factory=dict)
    link: str = ""
    title: str = ""


@dataclass(frozen=True)
class ProcessShown:
    """What the page shows."""

    title: str
    summary: str
    numbers: Mapping[str, str]
    rows: Sequence[SetRow]
    stages: Sequence[StageRow]
    sections: Sequence[Section] = ()
    footer: str = ""
    running: bool = False
    keep_command: str = ""


# ---- one micrograph


def micrograph_picture(picks: PickResult, name: str, ctf: Mapping[str, Any], ctf_png: bytes | None) -> bytes:
    """A micrograph with its picks, its CTF panel and its numbers, as one PNG.

    Parameters
    ----------
    picks : PickResult
    name : str
    ctf : mapping
        defocus_u_A, defocus_v_A, astigmatism_A, resolution_A, merit, ice_ring.
    ctf_png : bytes, optional
        The picture of :func:`verglas.report.ctf.ctf_figure`.
    """
    from verglas.report.picks import draw_picks

    height, width = picks.small.grey.shape
    panel = 6.0
    with style.style_context():
        figure = style.new_figure(6.0 + panel, max(3.6, 6.0 * height / width))
        grid = figure.add_gridspec(2, 2, width_ratios=(6.0, panel), height_ratios=(1.0, 1.0))
        draw_picks(figure.add_subplot(grid[:, 0]), picks)
        right, below = figure.add_subplot(grid[0, 1]), figure.add_subplot(grid[1, 1])
        for axes in (right, below):
            axes.set_axis_off()
        if ctf_png is not None:
            import matplotlib.image

            right.imshow(matplotlib.image.imread(io.BytesIO(ctf_png)), interpolation="bilinear")
        lines = [f"{label}: {text}" for label, text in _facts(picks, ctf)]
        below.text(0.02, 0.98, "\n".join(lines), transform=below.transAxes, va="top", fontsize=11, linespacing=1.7)
        figure.suptitle(f"{name}: {len(picks.picks)} picks", fontsize=12)
        return style.few_colours(style.png(figure, 110))


def _facts(picking: PickResult, ctf: Mapping[str, Any]) -> list[tuple[str, str]]:
    resolution, ice = ctf.get("resolution_A"), ctf.get("ice_ring")
    return [
        ("defocus", f"{(ctf['defocus_u_A'] + ctf['defocus_v_A']) / 2e4:.2f} µm"),
        ("astigmatism", f"{ctf['astigmatism_A']:.0f} Å"),
        ("Thon rings to", "nowhere" if resolution is None else f"{resolution:.1f} Å, merit {ctf['merit']:.2f}"),
        ("crystalline ice ring", "not resolved by the pixels" if ice is None else f"{100 * ice:+.0f} %"),
        (
            "picks",
            f"{len(picking.picks)} of {len(picking.candidates)} candidates, threshold {picking.cut.threshold:.2f}",
        ),
        (
            "merits of particles and background",
            f"{picking.cut.separation:.1f} standard deviations apart"
            + ("" if picking.cut.clear else ", not clearly two populations"),
        ),
        ("left out", f"{100 * picking.bad.fraction:.0f} % of the area"),
    ]


def particles_picture(images: npt.NDArray[np.float32], pixel_size_A: float) -> bytes:
    """Particle images, each averaged over 2 x 2 pixels so that the eye finds them."""
    side = images.shape[-1] // 2 * 2
    small = images[:, :side, :side].reshape(len(images), side // 2, 2, side // 2, 2).mean(axis=(2, 4))
    columns, rows = 8, -(-len(images) // 8)
    with style.style_context():
        figure = style.new_figure(1.1 * columns, 1.15 * rows)
        for number, axes in enumerate(np.ravel(figure.subplots(rows, columns, squeeze=False))):
            axes.set_axis_off()
            if number < len(small):
                _grey(axes, small[number], *_range(small[number]))
                if number == 0:
                    _scale_bar(axes, side // 2, 2 * pixel_size_A)
        return style.png(figure)


def centring_picture(averages: Mapping[str, npt.NDArray[np.float32]], pixel_size_A: float) -> bytes:
    """The mean of all particles for every way of centring them, on one grey scale."""
    with style.style_context():
        figure = style.new_figure(2.3 * len(averages), 2.75)
        low, high = _range(np.stack(list(averages.values())))
        for axes, (title, image) in zip(np.ravel(figure.subplots(1, len(averages))), averages.items(), strict=True):
            _grey(axes, image, low, high)
            axes.set_title(title, fontsize=9)
        _scale_bar(figure.axes[0], image.shape[-1], pixel_size_A)
        return style.png(figure)


# ---- the set


def set_histograms(rows: Sequence[SetRow]) -> list[Chart]:
    """Histograms over micrographs: defocus, resolution of the CTF, ice, picks; those set aside apart."""
    measures: dict[str, Callable[[SetRow], float]] = {
        "defocus (µm)": lambda r: r.defocus_A / 1e4,
        "Thon rings to (Å)": lambda r: r.resolution_A,
        "area left out (%)": lambda r: 100 * r.bad_fraction,
        "crystalline ice ring (%)": lambda r: 100 * r.ice_ring,
        "picks": lambda r: float("nan") if r.picks is None else float(r.picks),
    }
    charts = []
    for label, value in measures.items():
        groups = {
            "used": [value(r) for r in rows if r.state != "set aside"],
            "set aside": [value(r) for r in rows if r.state == "set aside"],
        }
        charts.append(histogram_chart(label, groups, "micrographs", most_bins=20))
    return [one for one in charts if one is not None]


_COLUMNS = (
    "micrograph",
    "state",
    "reason",
    "defocus µm",
    "astig. Å",
    "rings to Å",
    "merit",
    "left out %",
    "ice ring %",
    "picks",
    "particles",
)


def _cells(row: SetRow) -> list[tuple[str | Link, str]]:
    """(shown, value to sort by) of every column."""
    name = row.name.rsplit("/", 1)[-1]
    link = Link(name, row.picture) if row.picture else name
    plain = [
        (row.state, row.state),
        (row.reason, row.reason),
        format_number(row.defocus_A / 1e4, 2),
        format_number(row.astigmatism_A, 0),
        format_number(row.resolution_A, 1),
        format_number(row.merit, 2),
        format_number(100 * row.bad_fraction, 0),
        format_number(100 * row.ice_ring, 0),
        format_number(row.picks, 0),
        format_number(row.particles, 0),
    ]
    return [(link, row.name), *plain]


def set_table(rows: Sequence[SetRow]) -> Fragment:
    """The sortable table; ticks choose the micrographs to keep, and the list is saved as a STAR file."""
    cells = [_cells(row) for row in rows]
    # What is known of no micrograph, such as ice that the pixels do not resolve, takes no column.
    kept = [k for k in range(len(_COLUMNS)) if k < 2 or any(one[k][1] for one in cells)]
    return selector(
        [_COLUMNS[k] for k in kept],
        [
            SelectorRow(r.name, r.state in ("used", "flagged"), r.state != "used", [one[k] for k in kept])
            for r, one in zip(rows, cells, strict=True)
        ],
    )


def _stages(stages: Sequence[StageRow]) -> Section:
    rows = [(s.title or s.name, s.state, "; ".join(s.reasons), duration(s.seconds)) for s in stages]
    links = [Link(f"{s.title or s.name}: page of its own", s.link) for s in stages if s.link]
    return Section(
        "Stages",
        "Each stage judges its own result before the next one starts.",
        [Table(("stage", "verdict", "because", "time"), rows), *links],
    )


def process_page(shown: ProcessShown) -> str:
    """The page as HTML, one self-contained file but for the links to pictures beside it."""
    rows = sorted(
        shown.rows,
        key=lambda r: (
            ("set aside", "flagged").index(r.state) if r.state != "used" and r.state in ("set aside", "flagged") else 2
        ),
    )
    sections = [_stages(shown.stages)] if shown.stages else []
    sections += list(shown.sections)
    if rows:
        bad = [(r.name.rsplit("/", 1)[-1], r.reason) for r in rows if r.state == "set aside"]
        blocks: list[Picture | Table | Link | Fragment] = [charts_block(set_histograms(rows))]
        sections.append(Section("The set of micrographs", blocks=blocks))
        if bad:
            sections.append(
                Section("Set aside", f"{len(bad)} micrographs are not used.", [Table(("micrograph", "reason"), bad)])
            )
        sections.append(
            Section(
                "Micrographs",
                "Click a heading to sort, a name for its picture. The saved list goes to the command below.",
                [set_table(rows), *([command_block(shown.keep_command)] if shown.keep_command else [])],
            )
        )
    settings = [
        (s.title or s.name, name, value)
        for s in shown.stages
        for name, value in s.settings.items()
        if value is not None
    ]
    if settings:
        words = f"{len(settings)} settings of {len(shown.stages)} stages"
        sections.append(Section("Settings", blocks=[folded(words, Table(("stage", "setting", "value"), settings))]))
    return render(
        Page(
            shown.title,
            shown.summary,
            dict(shown.numbers),
            sections,
            shown.footer,
            refresh_s=REFRESH_S if shown.running else None,
            script=SELECTOR_SCRIPT if rows else "",
        )
    )
