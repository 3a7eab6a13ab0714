"""Where the time of a job went, as bars: one per phase of ``profile.json``, made of its ops."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from verglas.errors import InputError
from verglas.io import read_json
from verglas.report.html import Fragment, Section

_MOST_BARS, _MOST_OPS = 60, 7
_WIDTH, _ROW, _TEXT = 640, 22, 200
_COLOURS = ("#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee", "#aa3377", "#ee8866")  # Paul Tol's bright set
_REST = "#bbbbbb"
_REST_NAME = "all else"


def profile_section(folder: Path) -> Section | None:
    """Bars of the last session of a run folder; None where there is no profile yet, or none that can be read."""
    path = folder / "profile.json"
    try:
        sessions = read_json(path)["sessions"] if path.is_file() else []
        phases = [phase for phase in sessions[-1]["phases"] if phase["seconds"] > 0] if sessions else []
        return _section(phases[-_MOST_BARS:], left_out=max(0, len(phases) - _MOST_BARS)) if phases else None
    except (InputError, KeyError, TypeError, AttributeError):
        return None


def _section(phases: Sequence[Mapping[str, Any]], *, left_out: int) -> Section:
    total = sum(phase["seconds"] for phase in phases)
    processor = sum(phase["processor_seconds"] for phase in phases)
    read = sum(phase["bytes_read"] for phase in phases) / 1e9
    text = (
        f"Wall time of each phase and what it was spent on: {total:.1f} s with {processor:.1f} s of processor time, "
        f"{read:.2f} GB of images read. Ops that worked side by side in threads share the time of their phase."
    )
    if left_out:
        text += f" The {left_out} phases before these are in profile.json."
    return Section("Where the time went", text, [Fragment(bars(phases))])


def shares(phase: Mapping[str, Any], names: Sequence[str]) -> list[float]:
    """Seconds of a phase by op, those of ``names`` and all else; ops that threads share take no more than the phase.

    Examples
    --------
    >>> from verglas.report.profile import shares
    >>> phase = {"seconds": 2.0, "ops": {"score": {"seconds": 3.0}, "polar": {"seconds": 1.0}}}
    >>> shares(phase, ["score"])
    [1.5, 0.5]
    """
    ops = {name: float(op["seconds"]) for name, op in phase["ops"].items()}
    seconds, counted = float(phase["seconds"]), sum(ops.values())
    scale = min(1.0, seconds / counted) if counted > 0 else 0.0
    named = [ops.get(name, 0.0) * scale for name in names]
    return [*named, max(0.0, seconds - sum(named))]


def bars(phases: Sequence[Mapping[str, Any]]) -> str:
    """An SVG with a bar for every phase, a colour for every op, and the same as words."""
    sums: dict[str, float] = {}
    for phase in phases:
        for name, op in phase["ops"].items():
            sums[name] = sums.get(name, 0.0) + float(op["seconds"])
    names = sorted(sums, key=lambda name: -sums[name])[:_MOST_OPS]
    longest = max(float(phase["seconds"]) for phase in phases)
    colours, words = [*_COLOURS[: len(names)], _REST], [*names, _REST_NAME]
    height = _ROW * (len(phases) + 2)
    parts = [
        f'<svg viewBox="0 0 {_TEXT + _WIDTH + 80} {height}" width="100%" role="img" font-size="13" fill="currentColor" '
        f'aria-label="Seconds of each phase by op; the longest took {longest:.1f} s">'
    ]
    step = (_TEXT + _WIDTH + 80) / len(words)
    for k, (word, colour) in enumerate(zip(words, colours, strict=True)):
        x = k * step
        parts.append(f'<rect x="{x:.1f}" y="2" width="12" height="12" fill="{colour}"/>')
        parts.append(f'<text x="{x + 16:.1f}" y="13">{html.escape(word)}</text>')
    for row, phase in enumerate(phases, 1):
        y, x = row * _ROW + 8, float(_TEXT)
        name, seconds = html.escape(str(phase["phase"])), float(phase["seconds"])
        parts.append(f'<text x="{_TEXT - 6}" y="{y + 13}" text-anchor="end">{name}</text>')
        for word, colour, value in zip(words, colours, shares(phase, names), strict=True):
            width = _WIDTH * value / longest
            if width >= 0.5:
                title = f"<title>{name}: {html.escape(word)} {value:.2f} s</title>"
                parts.append(
                    f'<rect x="{x:.1f}" y="{y}" width="{width:.1f}" height="{_ROW - 6}" fill="{colour}">{title}</rect>'
                )
            x += width
        parts.append(f'<text x="{x + 5:.1f}" y="{y + 13}">{seconds:.1f} s</text>')
    return "".join([*parts, "</svg>"])
