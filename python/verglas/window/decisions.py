"""What a person decides in the window, as files that the command line takes, and the commands that take them.

Every file is replaced as a whole; the results of the jobs are never written into.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from verglas.classification import select_classes
from verglas.errors import InputError
from verglas.io import read_csv, read_json, read_stack, read_star, write_star
from verglas.report.chart import round_or_none
from verglas.report.grey import grey_bytes, grey_png
from verglas.run.edited_picks import EDITED
from verglas.run.select import class_table
from verglas.window import classes3d
from verglas.window.commands import diameter_word, extract_command, keep_command
from verglas.window.files import file_of
from verglas.window.job import Job
from verglas.window.versions import check_seen, seen_mark

SELECTION, KEPT = "selection.star", "micrographs_kept.star"
_LISTS = ("micrographs_ctf.star", "micrographs.star")
_COLUMNS = 10
_SPRITE_PX = 96


# ---- 2D classes


@dataclass(frozen=True)
class ClassCard:
    """A class as the page shows it; ``left_out`` says why the automatic selection leaves it out."""

    number: int
    particles: int
    resolution_A: float | None
    ticked: bool
    left_out: str


def has_classes(job: Job) -> bool:
    """Whether classes can be ticked, of averages or of maps."""
    return has_averages(job) or len(classes3d.map_numbers(job)) > 1


def has_averages(job: Job) -> bool:
    """Whether the classes are those of two dimensions."""
    return job.changeable and all(
        (job.folder / n).is_file() for n in ("classes.star", "averages.mrcs", "particles.star")
    )


def class_cards(job: Job) -> list[ClassCard]:
    """The classes of a job, ticked as they were saved last, or else as the automatic selection has it; maps: all."""
    if not has_averages(job):
        return _map_cards(job)
    path = job.folder / "classes.star"
    table = class_table(path)
    general = read_star(path).get("classification")
    general = general if isinstance(general, dict) else {}
    empty = int(general.get("verglasEmptyClass", 0)) or None
    automatic = select_classes(table, signal=bool(int(general.get("verglasSignalFound", 1))), empty_class=empty)
    saved = _saved_classes(job)
    cards = []
    for row in table.to_dict("records"):
        number, resolution = int(row["class"]), float(row["resolution_A"])
        ticked = number in (automatic.classes if saved is None else saved)
        shown = resolution if np.isfinite(resolution) else None
        cards.append(ClassCard(number, int(row["particles"]), shown, ticked, automatic.left_out.get(number, "")))
    return [card for card in cards if card.number != empty]


def _map_cards(job: Job) -> list[ClassCard]:
    counts, resolutions, saved = classes3d.particles_by_class(job), classes3d.resolutions_A(job), _saved_classes(job)
    return [
        ClassCard(k, counts.get(k, 0), resolutions.get(k), counts.get(k, 0) > 0 if saved is None else k in saved, "")
        for k in classes3d.map_numbers(job)
    ]


def _saved_classes(job: Job) -> list[int] | None:
    path = job.folder / SELECTION
    if not path.is_file():
        return None
    table = next((t for t in read_star(path).values() if isinstance(t, pd.DataFrame) and "rlnClassNumber" in t), None)
    return None if table is None else table["rlnClassNumber"].astype(int).tolist()


def class_pictures(job: Job) -> bytes:
    """All averages, or sums of the maps along z, in one PNG, ten a row, 96 pixels each."""
    if not has_averages(job):
        return _sheet(classes3d.projections(job, _SPRITE_PX))
    stack = read_stack(job.folder / "averages.mrcs")
    averages = np.asarray(stack[0] if isinstance(stack, tuple) else stack)
    return sheet_of(averages)


def sheet_of(averages: npt.NDArray[Any]) -> bytes:
    """Images (n, y, x) in one PNG, as the page of classes takes it."""
    place = np.rint(np.linspace(0, averages.shape[1] - 1, _SPRITE_PX)).astype(int)
    return _sheet({k: grey_bytes(image)[np.ix_(place, place)] for k, image in enumerate(averages, 1)})


def _sheet(cells: Mapping[int, npt.NDArray[np.uint8]]) -> bytes:
    rows = -(-max(cells, default=1) // _COLUMNS)
    sheet = np.zeros((rows * _SPRITE_PX, _COLUMNS * _SPRITE_PX), np.uint8)
    for number, cell in cells.items():
        y, x = divmod(number - 1, _COLUMNS)
        sheet[y * _SPRITE_PX : (y + 1) * _SPRITE_PX, x * _SPRITE_PX : (x + 1) * _SPRITE_PX] = cell
    return grey_png(sheet)


def classes_seen(job: Job) -> str:
    """The mark of the classes that were saved last, for :func:`save_classes`."""
    return seen_mark(_saved_classes(job))


def save_classes(job: Job, classes: Sequence[Any], seen: Any = None) -> dict[str, str]:
    """Write the ticked classes; returns ``command``, which takes them, and ``seen``, which the next save sends.

    Raises
    ------
    InputError
        None, or numbers of no class; others that another page has saved since ``seen``.
    """
    known = {card.number for card in class_cards(job)}
    if not isinstance(classes, list) or not classes or not all(type(one) is int and one in known for one in classes):
        raise InputError(f"selection: expected numbers of classes of {job.folder}, at least one")
    ticked = sorted(set(classes))
    check_seen("selection", seen, classes_seen(job), seen_mark(ticked))
    write_star(job.folder / SELECTION, {"selection": pd.DataFrame({"rlnClassNumber": ticked})})
    return {"command": classes_command(job), "seen": seen_mark(ticked)}


def classes_command(job: Job) -> str:
    """What takes the selection."""
    folder = job.folder
    words = ["verglas", "select", folder / "particles.star", "--table", folder / SELECTION]
    return shlex.join(map(str, [*words, "--out", folder / "selected_by_eye.star"]))


# ---- micrographs

_MEASURES = {
    "defocus_A": "defocus (Å)",
    "astigmatism_A": "astigmatism (Å)",
    "resolution_A": "Thon rings to (Å)",
    "merit": "CTF merit",
    "ice_ring": "ice ring",
    "motion_A": "motion (Å)",
    "picks": "picks",
    "separation": "separation of picks",
    "bad_fraction": "area left out",
}
_STAR = {
    "rlnCtfMaxResolution": "resolution_A",
    "rlnCtfFigureOfMerit": "merit",
    "rlnCtfAstigmatism": "astigmatism_A",
    "rlnAccumMotionTotal": "motion_A",
}


def micrograph_files(job: Job) -> list[Path]:
    """Tables of micrographs that a job has, or the stages of its project."""
    if job.command == "motion" and not (job.folder.parent / "project.json").is_file():
        return [path for path in (job.folder / "micrographs.star",) if path.is_file()]
    names = ("ctf.csv", "picks.csv", "quality.csv", "motion.csv", "micrographs_ctf.star", "corrected_micrographs.star")
    folders = [job.folder]
    if job.command == "process":
        folders += [job.folder / name for stage in ("motion", "ctf", "pick") for name in (stage, _former(stage))]
    files = [path for folder in folders for name in names if (path := folder / name).is_file()]
    csv = [path for path in files if path.suffix == ".csv"]
    return csv or files


def _former(stage: str) -> str:
    return {"ctf": "01_ctf", "pick": "02_pick"}.get(stage, stage)


def micrograph_table(job: Job) -> pd.DataFrame:
    """One row a micrograph: ``micrograph``, the measures that are known, and ``kept`` as it was saved last.

    Raises
    ------
    InputError
        The job has no micrographs.
    """
    whole: pd.DataFrame | None = None
    for path in micrograph_files(job):
        table = _measures(read_csv(path) if path.suffix == ".csv" else _star_table(path))
        if table is not None:
            fresh = [c for c in table if whole is None or c not in whole or c == "micrograph"]
            whole = table if whole is None else whole.merge(table[fresh], on="micrograph", how="outer", sort=False)
    if whole is None:
        raise InputError(f"{job.folder}: no table of micrographs")
    kept = _names_kept(job)
    whole["kept"] = True if kept is None else whole["micrograph"].isin(kept)
    return whole


def _star_table(path: Path) -> pd.DataFrame:
    tables = [t for t in read_star(path).values() if isinstance(t, pd.DataFrame) and "rlnMicrographName" in t]
    return tables[0] if tables else pd.DataFrame()


def _measures(table: pd.DataFrame) -> pd.DataFrame | None:
    # The stages of a project of movies call a micrograph by its movie.
    name = next((c for c in ("movie", "micrograph", "rlnMicrographName", "name") if c in table), None)
    if name is None:
        return None
    columns: dict[str, Any] = {"micrograph": table[name].astype(str)}
    for u, v in (("defocus_u_A", "defocus_v_A"), ("rlnDefocusU", "rlnDefocusV")):
        if u in table and v in table:
            columns["defocus_A"] = (pd.to_numeric(table[u]) + pd.to_numeric(table[v])) / 2
    for label, ours in _STAR.items():
        if label in table:
            columns[ours] = pd.to_numeric(table[label], errors="coerce")
    for ours in _MEASURES:
        if ours in table:
            columns[ours] = pd.to_numeric(table[ours], errors="coerce")
    return pd.DataFrame(columns).drop_duplicates("micrograph")


def _names_kept(job: Job) -> set[str] | None:
    path = job.folder / KEPT
    table = _star_table(path) if path.is_file() else pd.DataFrame()
    return set(table["rlnMicrographName"].astype(str)) if len(table) else None


def micrographs_json(job: Job) -> dict[str, Any]:
    """The table as the page takes it: names, whether they are kept, and numbers by column, rounded."""
    table = micrograph_table(job)
    measures = {
        words: round_or_none(table[name].to_numpy(np.float64))
        for name, words in _MEASURES.items()
        if name in table and table[name].notna().any()
    }
    names, kept = table["micrograph"].tolist(), table["kept"].tolist()
    return {"names": names, "kept": kept, "measures": measures, "seen": _dropped_mark(table)}


def _dropped_mark(table: pd.DataFrame) -> str:
    return seen_mark(sorted(table["micrograph"][~table["kept"].to_numpy(bool)]))


def save_micrographs(job: Job, dropped: Sequence[Any], seen: Any = None) -> dict[str, str]:
    """Write the list of micrographs without those named, or at the given rows.

    Returns ``command``, which takes it, and ``seen``, which the next save sends.

    Raises
    ------
    InputError
        Names or rows that there are not, or nothing left; a list that another page has saved since ``seen``.
    """
    table = micrograph_table(job)
    names = table["micrograph"].tolist()
    # Names where there are some: rows move when micrographs come while a page is open.
    rows = {name: row for row, name in enumerate(names)}
    dropped = [rows.get(one, -1) if isinstance(one, str) else one for one in dropped]
    if not all(type(row) is int and 0 <= row < len(names) for row in dropped):
        raise InputError(f"micrographs: expected names of the {len(names)} micrographs, or rows from 0")
    out = set(dropped)
    kept = [name for row, name in enumerate(names) if row not in out]
    if not kept:
        raise InputError("micrographs: none would be left")
    mark = seen_mark(sorted(names[row] for row in out))
    check_seen("micrographs", seen, _dropped_mark(table), mark)
    write_star(job.folder / KEPT, _kept_tables(job, kept))
    return {"command": micrographs_command(job), "seen": mark}


def _kept_tables(job: Job, kept: Sequence[str]) -> dict[str, Any]:
    """The job's own list with the rows kept, optics and CTFs with them; the names alone where it has none of them."""
    if not (job.folder.parent / "project.json").is_file():
        for path in (job.folder / name for name in _LISTS):
            tables = read_star(path) if path.is_file() else {}
            for block, table in tables.items():
                if isinstance(table, pd.DataFrame) and "rlnMicrographName" in table:
                    rows = table[table["rlnMicrographName"].astype(str).isin(set(kept))]
                    if len(rows) == len(kept):
                        return {**tables, block: rows.reset_index(drop=True)}
    return {"": pd.DataFrame({"rlnMicrographName": list(kept)}, dtype=object)}


def micrographs_command(job: Job) -> str:
    """What takes the list; of another package's job it is downloaded, and nothing is written beside it."""
    listed = job.folder / KEPT if job.changeable else Path(KEPT)
    project = job.folder if (job.folder / "project.json").is_file() else job.folder.parent
    if job.changeable and (project / "project.json").is_file():
        return keep_command(project, listed)
    if job.changeable and (job.folder / "picks.star").is_file():
        edited = job.folder / f"{EDITED}.star"
        return extract_command(job, listed, edited if edited.is_file() else job.folder / "picks.star")
    stage = "ctf" if job.changeable and job.command == "motion" else "pick"
    out = job.folder.with_name(stage) if job.changeable else Path(stage)
    asked = ["--diameter", diameter_word(job)] if stage == "pick" else []
    return shlex.join(["verglas", stage, str(listed), *asked, "--out", str(out)])


# ---- a note beside a job

NOTE = "note.txt"
_MOST_NOTE = 20_000


def note_of(job: Job) -> str:
    """What a person wrote about a job; RELION's note.txt too."""
    path = file_of(job, NOTE)
    return "" if path is None else path.read_text(encoding="utf-8", errors="replace")[:_MOST_NOTE]


def settings_of_project(job: Job) -> dict[str, Any]:
    """What a ``process`` project was asked for, where it has settings of its own."""
    path = job.folder / "project.json"
    request = read_json(path).get("request", {}) if path.is_file() else {}
    return request if isinstance(request, dict) else {}
