"""What the project's page shows of each stage: maps that turn, curves, averages, pictures, numbers in words, files."""

from __future__ import annotations

import base64
import html
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

from verglas.io import read_map, read_stack, read_star
from verglas.pipeline.stage import StageRecord
from verglas.pipeline.stages import STAGES
from verglas.report.assessed import read_assessed, resolution_section
from verglas.report.grey import grey_bytes, grey_png
from verglas.report.html import Block, Fragment, Link, Picture, Section, Table, value_text
from verglas.report.volume import viewer_block
from verglas.run.select import class_table
from verglas.types import Map

TITLES = {
    "motion": "Motion correction",
    "ctf": "CTF",
    "pick": "Picking",
    "extract": "Extraction",
    "centre": "Centring",
    "class2d": "2D classes",
    "abinitio": "Ab initio map",
    "refine": "Refinement",
    "postprocess": "Resolution and sharpening",
    "ctf_refine": "CTF refinement",
    "polish": "Polishing",
}
"""Heading of a stage; others have their names."""
# Of the numbers of a verdict; names that are not here are taken apart.
_WORDS = {
    "way": "centred by",
    "moved": "boxes cut anew",
    "rms_shift_A": "root mean square shift (Å)",
    "power": "power of the mean image",
    "left_out": "classes left out",
    "gain_nats_per_particle": "held-out gain per particle (nats)",
    "verdict": "map",
    "peak_memory_GB": "largest memory (GB)",
    "box": "box (px)",
    "signal.gain_nats": "held-out gain per particle (nats)",
    "signal.gain_error_nats": "its standard error (nats)",
    "signal.particles": "particles asked",
    "directions.area_ratio": "resolution by direction, ratio of areas",
    "directions.area_ratio_by_chance": "the same by chance",
    "directions.sphericity": "sphericity",
    "directions.worst_resolution_A": "resolution in the worst direction (Å)",
    "directions.best_resolution_A": "resolution in the best direction (Å)",
    "directions.worst_direction": "worst direction (x, y, z)",
    "directions.coarse_axis": "axis of coarse directions (x, y, z)",
    "orientations.expected_share_far": "particles expected over 30° off",
    "orientations.median_radius_deg": "median 95 % credible radius of orientations (°)",
}
_VALUES = {"picks": "the picks as they are", "surrogate": "a surrogate's centre", "average": "the rotational average"}
_POWERS = {"picks": "as picked", "surrogate": "surrogate's centre", "average": "rotational average"}
_MAPS = ("map_sharpened", "map", "half1", "half2", "mask")
_TURNED = {"map_sharpened": "sharpened map", "map": "map", "mask": "mask"}  # of them, what the viewer shows
_FILES = (*(f"{name}.mrc" for name in _MAPS), "particles.star", "selected.star", "micrographs_ctf.star", "picks.star")
_MOST_CLASSES = 60
_CELL_PX = 96
_VIEWER_BYTES = 700_000


def label_of(name: str) -> str:
    """A field's name in words: rms_shift_A is "rms shift (Å)"."""
    if name in _WORDS:
        return _WORDS[name]
    name = name.replace(".", ", ")
    words, _, unit = name.rpartition("_")
    shown = {"A": "Å", "A2": "Å²", "px": "px", "deg": "°", "GB": "GB", "nats": "nats"}.get(unit)
    text = name if shown is None or not words else f"{words} ({shown})"
    return text.replace("_", " ").replace("b factor", "B-factor")


def format_value(name: str, value: Any) -> str:
    """A number of a verdict as a person reads it."""
    if name == "way":
        return _VALUES.get(str(value), str(value))
    if name == "power" and isinstance(value, Mapping):
        return ", ".join(f"{_POWERS.get(k, k)} {v:.2f}" for k, v in value.items()) or "none"
    if isinstance(value, bool) or value is None:
        return value_text(value)
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, Mapping):
        return "; ".join(f"{k}: {format_value('', v)}" for k, v in value.items()) or "none"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return "(" + ", ".join(format_value("", one) for one in value) + ")"
    return str(value)


def number_rows(numbers: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Numbers of a verdict in words: a part and its whole in one row, and no table of thresholds within the table."""
    rows = []
    for name, value in numbers.items():
        if name == "resolutions_A" or (name.startswith("of_") and name[3:] in numbers):
            continue
        whole = numbers.get(f"of_{name}")
        rows.append((label_of(name), format_value(name, value) + (f" of {whole}" if whole is not None else "")))
    return rows


def stage_sections(root: Path, records: Mapping[str, StageRecord]) -> list[Section]:
    """A section of every stage that has something to look at, the result first, then what led to it."""
    sections, turning, assessed_yet = [], True, False
    for name, record in reversed([*records.items()]):
        folder = root / record.folder
        blocks: list[Block] = []
        volumes = {n: path for n in _MAPS if (path := folder / f"{n}.mrc").is_file()}
        still = [_picture(folder / file, words) for file, words in _pictures(name) if (folder / file).is_file()]
        if turning and any(n in _TURNED for n in volumes):
            # One viewer: that of the last map. The others have pages of their own.
            blocks.append(_viewer(volumes, still))
            turning = False
        else:
            blocks += still
        if name == "class2d" and (folder / "averages.mrcs").is_file() and (folder / "classes.star").is_file():
            blocks.append(_averages(folder))
        assessed = None if assessed_yet else read_assessed(folder)  # once: what led to it has a page of its own
        if assessed is not None:
            blocks += resolution_section({"map": assessed}).blocks
            assessed_yet = True
        if not blocks:
            continue
        rows = number_rows(record.verdict.numbers)
        text = ". ".join(reason[:1].upper() + reason[1:] for reason in record.verdict.reasons)
        links = [Link(file, f"{record.folder}/{file}") for file in _FILES if (folder / file).is_file()]
        page = own_page(root, record)
        sections.append(
            Section(
                TITLES.get(name, name),
                f"{text}." if text and not text.endswith(".") else text,
                [
                    *blocks,
                    *([Table(("", ""), rows)] if rows else []),
                    *([_links(links, page)] if links or page else []),
                ],
            )
        )
    return sections


def own_page(root: Path, record: StageRecord) -> str:
    """The page that a stage has left in its folder, from the project's; empty without."""
    page = STAGES[record.name].page if record.name in STAGES else ""
    return f"{record.folder}/{page}" if page and (root / record.folder / page).is_file() else ""


def _pictures(name: str) -> tuple[tuple[str, str], ...]:
    return STAGES[name].pictures if name in STAGES else ()


def _picture(path: Path, words: str) -> Picture:
    return Picture(path.read_bytes(), words, words)


def _viewer(volumes: Mapping[str, Path], pictures: Sequence[Picture]) -> Fragment:
    """The maps of a stage, turned in the page; without WebGL2 their pictures."""
    maps: dict[str, Map] = {shown: read_map(volumes[name]) for name, shown in _TURNED.items() if name in volumes}
    still = "".join(
        f'<img src="{one.source}" width="{one.size[0]}" height="{one.size[1]}" alt="{html.escape(one.alt)}">'
        for one in pictures
    )
    return viewer_block(maps, most_bytes=_VIEWER_BYTES, still=still or "<p>This browser has no WebGL2.</p>")


def _averages(folder: Path) -> Fragment:
    """Averages, best first, with number, size and resolution in words of the page's size."""
    path = folder / "classes.star"
    table, general = class_table(path), read_star(path).get("classification")
    empty = int(general.get("verglasEmptyClass", 0)) if isinstance(general, dict) else 0
    averages = np.asarray(read_stack(folder / "averages.mrcs"))
    cards = []
    for row in table.head(_MOST_CLASSES).to_dict("records"):
        number, resolution = int(row["class"]), float(row["resolution_A"])
        if number > len(averages) or number == empty:
            continue  # the class of noise has no average
        image = averages[number - 1]
        place = np.rint(np.linspace(0, len(image) - 1, min(len(image), _CELL_PX))).astype(int)
        source = base64.b64encode(grey_png(grey_bytes(image)[np.ix_(place, place)])).decode("ascii")
        words = f"{number}: {int(row['particles']):,} particles" + (
            f", {resolution:.1f} Å" if np.isfinite(resolution) else ""
        )
        cards.append(
            f'<figure><img src="data:image/png;base64,{source}" width="{_CELL_PX}" height="{_CELL_PX}" '
            f'alt="average of class {number}"><figcaption>{html.escape(words)}</figcaption></figure>'
        )
    more = f'<p class="caption">{_MOST_CLASSES} of {len(table)}.</p>' if len(table) > _MOST_CLASSES else ""
    return Fragment(f'<div class="classes">{"".join(cards)}</div>{more}')


def _links(links: Sequence[Link], page: str) -> Fragment:
    every = [*([Link("its own page", page)] if page else []), *links]
    shown = ", ".join(f'<a href="{html.escape(quote(one.path))}">{html.escape(one.text)}</a>' for one in every)
    return Fragment(f'<p class="caption">Files: {shown}</p>')
