"""Pictures of micrographs with their picks, and the page that judges a set of them."""

from __future__ import annotations

import html as _html
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from verglas.preprocess import MicrographQuality, PickResult, Verdict
from verglas.report import style
from verglas.report.html import Fragment, Gallery, Page, Picture, Section, Table, render

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# A page holds this many pictures: the flagged micrographs first. All of them lie in the folder beside it.
MOST_PICTURES = 60


@dataclass(frozen=True)
class PageRow:
    """One micrograph of the page: its quality, the reasons against it, its picture, and the path of the large one."""

    quality: MicrographQuality
    reasons: Sequence[str]
    picture: bytes = b""
    link: str = ""


def picks_picture(found: PickResult, title: str = "", width_in: float = 6.0) -> bytes:
    """A micrograph, binned, with circles of the particle's size about the picks; bad areas in orange.

    Parameters
    ----------
    found : PickResult
    title : str
        Above the picture.
    width_in : float
        Of the PNG.

    Returns
    -------
    bytes
        PNG.
    """
    height, width = found.small.grey.shape
    with style.styled():
        figure = style.new_figure(width_in, width_in * height / width + (0.3 if title else 0.0))
        axes = figure.subplots()
        draw_picks(axes, found)
        if title:
            axes.set_title(title)
        return style.png(figure)


def draw_picks(axes: Axes, found: PickResult) -> None:
    """Draw a micrograph with circles about its picks and the areas left out on given axes."""
    from matplotlib.collections import EllipseCollection

    small = found.small
    shown = -small.grey  # as recorded: protein dark
    height, width = shown.shape
    low, high = np.percentile(shown, (0.5, 99.5))
    axes.imshow(shown, cmap="gray", vmin=low, vmax=max(high, low + 1e-6), interpolation="bilinear")
    mask = found.bad.mask
    if mask.any():
        tint = np.zeros((*mask.shape, 4))
        tint[mask] = (0.84, 0.37, 0.0, 0.25)
        axes.imshow(tint, interpolation="nearest")
        axes.contour(mask, levels=[0.5], colors=[style.COLOURS[1]], linewidths=1.2)
    xy = small.from_micrograph(found.picks.xy_px)
    size = np.full(len(xy), 2 * small.radius_px)
    circles = EllipseCollection(
        size, size, np.zeros(len(xy)), units="xy", offsets=xy, transOffset=axes.transData,
        facecolors="none", edgecolors="#39d353", linewidths=0.9,
    )  # fmt: skip
    axes.add_collection(circles)
    axes.set(xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5))
    axes.set_axis_off()


def histograms(rows: Sequence[MicrographQuality]) -> bytes:
    """Histograms over micrographs of picks, bad area, and defocus and CTF resolution where they are known."""
    values: list[tuple[str, list[float]]] = [
        ("picks", [float(r.picks) for r in rows]),
        ("bad area, %", [100 * r.bad_fraction for r in rows]),
        ("defocus, µm", [r.defocus_A / 1e4 for r in rows if np.isfinite(r.defocus_A)]),
        ("CTF resolution, Å", [r.resolution_A for r in rows if np.isfinite(r.resolution_A)]),
    ]
    shown = [(label, found) for label, found in values if found]
    with style.styled():
        figure = style.new_figure(2.9 * len(shown), 2.3)
        for axes, (label, found) in zip(np.ravel(figure.subplots(1, len(shown))), shown, strict=True):
            spread = max(found) - min(found)
            bins: Any = min(20, max(5, int(np.sqrt(len(found)) * 2))) if spread > 0 else [found[0] - 1, found[0] + 1]
            axes.hist(found, bins=bins, color=style.COLOURS[0], rwidth=0.9)
            axes.set_xlabel(label)
            axes.yaxis.get_major_locator().set_params(integer=True)
        figure.supylabel("micrographs", fontsize=9)
        return style.png(figure)


_COLUMNS = ("micrograph", "picks", "bad area %", "separation", "defocus µm", "CTF Å", "flags")

SELECTOR_STYLE = """<style>
.qc tr.dropped { opacity: .45; }
.bar { display: flex; gap: .7rem; flex-wrap: wrap; align-items: center; margin: 0 0 .8rem; }
.bar button { font: inherit; padding: .35rem .8rem; border-radius: .4rem; border: 1px solid var(--line);
  background: var(--card); color: var(--ink); cursor: pointer; }
</style>"""

SELECTOR_SCRIPT = """
(function () {
  var table = document.querySelector('table.qc'), body = table.tBodies[0];
  var names = JSON.parse(document.getElementById('names').textContent);
  var boxes = function () { return Array.prototype.slice.call(body.querySelectorAll('input')); };
  var count = document.getElementById('count');
  function show() {
    var kept = 0;
    boxes().forEach(function (box) {
      box.closest('tr').classList.toggle('dropped', !box.checked);
      if (box.checked) { kept += 1; }
    });
    count.textContent = kept + ' of ' + names.length + ' micrographs kept';
  }
  body.addEventListener('change', show);
  document.getElementById('unflagged').addEventListener('click', function () {
    boxes().forEach(function (box) { box.checked = box.dataset.flagged === '0'; });
    show();
  });
  document.getElementById('everything').addEventListener('click', function () {
    boxes().forEach(function (box) { box.checked = true; });
    show();
  });
  document.getElementById('save').addEventListener('click', function () {
    var kept = boxes().filter(function (box) { return box.checked; }).map(function (box) { return +box.dataset.row; });
    kept.sort(function (a, b) { return a - b; });
    var lines = kept.map(function (row) {
      var name = names[row];
      return (/\\s/.test(name) ? '"' + name + '"' : name) + '\\n';
    });
    var text = '\\ndata_\\n\\nloop_\\n_rlnMicrographName #1\\n' + lines.join('') + '\\n';
    var link = document.createElement('a');
    link.href = URL.createObjectURL(new Blob([text], {type: 'text/plain'}));
    link.download = 'micrographs_kept.star';
    link.click();
    setTimeout(function () { URL.revokeObjectURL(link.href); }, 1000);
  });
  show();
})();
"""


def _number(value: float, digits: int) -> tuple[str, str]:
    """(shown, to sort by); nothing where it is not known."""
    return (f"{value:.{digits}f}", f"{value:.6g}") if np.isfinite(value) else ("", "")


def _short(name: str) -> str:
    """A micrograph without its folder."""
    return name.rpartition("/")[2]


def _cells(row: PageRow) -> list[tuple[str, str]]:
    one = row.quality
    flags = "; ".join(row.reasons)
    return [
        (_short(one.name), one.name), _number(one.picks, 0), _number(100 * one.bad_fraction, 1),
        _number(one.separation, 2), _number(one.defocus_A / 1e4, 2), _number(one.resolution_A, 1), (flags, flags),
    ]  # fmt: skip


def _table(rows: Sequence[PageRow]) -> Fragment:
    head = "".join(f'<th scope="col">{_html.escape(c)}</th>' for c in ("keep", *_COLUMNS))
    body = []
    for number, row in enumerate(rows):
        flagged = bool(row.reasons)
        name = _html.escape(row.quality.name, quote=True)
        checked = "" if flagged else " checked"
        box = (f'<td data-value="{int(not flagged)}"><input type="checkbox" data-row="{number}" '
               f'data-flagged="{int(flagged)}" aria-label="keep {name}"{checked}></td>')  # fmt: skip
        cells = "".join(
            f'<td data-value="{_html.escape(key, quote=True)}">{_html.escape(shown)}</td>' for shown, key in _cells(row)
        )
        body.append(f'<tr class="marked">{box}{cells}</tr>' if flagged else f"<tr>{box}{cells}</tr>")
    names = json.dumps([row.quality.name for row in rows]).replace("<", "\\u003c")
    return Fragment(
        SELECTOR_STYLE + '<div class="bar"><span id="count"></span>'
        '<button type="button" id="unflagged">keep what has no flag</button>'
        '<button type="button" id="everything">keep all</button>'
        '<button type="button" id="save">save the kept list (STAR)</button></div>'
        f'<script type="application/json" id="names">{names}</script>'
        f'<div class="scroll"><table class="sortable qc"><thead><tr>{head}</tr></thead>'
        f"<tbody>{''.join(body)}</tbody></table></div>"
    )


def _gallery(rows: Sequence[PageRow]) -> Gallery:
    shown = [row for row in sorted(rows, key=lambda r: not r.reasons) if row.picture][:MOST_PICTURES]
    pictures = []
    for row in shown:
        name, against = _short(row.quality.name), "; ".join(row.reasons)
        caption = f"{name}: {row.quality.picks} picks" + (f". {against}" if against else "")
        pictures.append(Picture(row.picture, f"{name} with its picks", caption, row.link))
    return Gallery(pictures)


def picks_page(
    rows: Sequence[PageRow], verdict: Verdict, set_aside: Mapping[str, str], figures_of_merit: Mapping[str, str]
) -> str:
    """The page of a set of micrographs, one self-contained file.

    Parameters
    ----------
    rows : sequence of PageRow
    verdict : Verdict
        On the set.
    set_aside : mapping of name -> reason
        Files that could not be used.
    figures_of_merit : mapping of name -> value
        Shown large.

    Returns
    -------
    str
        HTML. The table sorts by any column, and the kept list is saved from it as a STAR file.
    """
    from verglas._version import __version__

    words = {"go on": "Ready for extraction.", "warn": "Look at the flagged micrographs before extraction.",
             "stop": "Do not go on before this has been looked into."}  # fmt: skip
    summary = " ".join([words[verdict.state], *(f"{reason[0].upper()}{reason[1:]}." for reason in verdict.reasons)])
    sections = []
    if rows:
        picture = Picture(histograms([r.quality for r in rows]), "histograms over micrographs")
        sections = [
            Section("The set", blocks=[picture]),
            Section("Micrographs", "Click a heading to sort; the kept list can be saved and given to the next stage.",
                    [_table(rows)]),
            Section("Pictures", "Circles are picks, orange is left out. Flagged micrographs come first."
                    + (f" The first {MOST_PICTURES}; all lie in the folder pictures." if len(rows) > MOST_PICTURES
                       else ""), [_gallery(rows)]),
        ]  # fmt: skip
    if set_aside:
        sections.append(Section("Set aside", blocks=[Table(("file", "reason"), list(set_aside.items()))]))
    return render(Page("Picking", summary, dict(figures_of_merit), sections, f"verglas {__version__}",
                       script=SELECTOR_SCRIPT if rows else ""))  # fmt: skip
