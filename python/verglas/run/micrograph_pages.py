"""Pages of sets of micrographs and movies, made of the files that their jobs leave, by jobs and again by report."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from verglas._version import __version__
from verglas.assessment.micrographs import MicrographQuality
from verglas.errors import InputError
from verglas.io import read_csv, read_json, read_particles, write_text
from verglas.report.ctf import ShownCtf
from verglas.report.ctf_page import CtfPicture, ctf_page, doubts, rows_to_show
from verglas.report.extract import ExtractShown, extract_page
from verglas.report.html import Page, render
from verglas.report.motion import motion_page
from verglas.report.picks import PageRow, picks_page
from verglas.types.verdict import Verdict

PAGE, VERDICT = "report.html", "verdict.json"
MOTION_NUMBERS = ("early_px", "late_px", "total_px", "local_px", "shift_error_px", "gain_nats")
PICTURES = "pictures"  # whether the job drew them: those in its folder may be of an earlier job
_SAMPLE = 24  # particles that the page of an extraction shows


def _account(folder: Path, needed: str) -> dict[str, Any]:
    """verdict.json, which other jobs write as well."""
    account = read_json(folder / VERDICT)
    if needed not in account:
        raise InputError(f"{folder / VERDICT}: no {needed!r}: of another job, or of an earlier version")
    return account


def _write(folder: Path, page: str) -> Path:
    write_text(folder / PAGE, page)
    return folder / PAGE


def motion_page_of(folder: Path) -> Page:
    """The page of corrected movies, of motion.csv, motion.json, run.json and the tracks under curves/ or png/."""
    table = read_csv(folder / "motion.csv", ("movie", "reason"), ("movie", "model", "reason", "flags"))
    if not table["reason"].isna().any():
        raise InputError(f"{folder / 'motion.csv'}: no movie was corrected; there is nothing to show")
    texts = {name: table[name].fillna("") for name in ("reason", "flags", "model") if name in table}
    numbers = {name: pd.to_numeric(table[name], errors="coerce").astype(float) for name in MOTION_NUMBERS}
    pictures = [f"png/{Path(movie).stem}.png" for movie in table["movie"]]
    curves = [curves_name(picture) for picture in pictures]
    method = read_json(folder / "run.json").get("settings", {}).get("method", "")
    account = read_json(folder / "motion.json")
    pattern = account.get("fixed_pattern") or {}
    # folders of an earlier version have no verdict
    doubts = Verdict.from_dict(account["verdict"]).reasons if "verdict" in account else ()
    footer = f"verglas {__version__}, motion {method}".rstrip()
    doubt = "; ".join(filter(None, [pattern.get("sentence", ""), *doubts]))
    return motion_page(table.assign(**texts, **numbers, picture=pictures, curves=curves), folder, footer, doubt)


def write_motion_page(folder: Path) -> Path:
    """``report.html`` of corrected movies."""
    return _write(folder, render(motion_page_of(folder)))


def ctf_picture_name(row: int, name: str) -> str:
    """Path of the picture of a micrograph's spectrum, from the folder."""
    return f"png/{row + 1:05d}_{Path(name).stem}.png"


def curves_name(picture: str) -> str:
    """Path of the numbers that a page draws in place of a picture, from the folder."""
    return f"curves/{Path(picture).stem}.json"


def _shown_ctf(folder: Path, picture: str) -> ShownCtf | None:
    """The curves of a micrograph; None where an earlier version kept its picture only."""
    path = folder / curves_name(picture)
    return ShownCtf.from_record(read_json(path)) if path.is_file() else None


def write_ctf_page(folder: Path) -> Path:
    """``report.html`` of CTF fits, of ctf.csv, verdict.json, the curves under curves/ and the pictures under png/."""
    table = read_csv(folder / "ctf.csv", ("micrograph", "reason"), ("micrograph", "reason", "flags"))
    table = table.assign(**{name: table[name].fillna("") for name in ("reason", "flags") if name in table})
    against, account = doubts(table), _account(folder, "seconds")
    names = {row: ctf_picture_name(row, str(table["micrograph"][row])) for row in rows_to_show(table)}
    pictures = []
    for row, name in names.items():
        if account.get(PICTURES, True) and (folder / name).is_file():
            shown = _shown_ctf(folder, name)
            png = b"" if shown is not None else (folder / name).read_bytes()
            pictures.append(CtfPicture(Path(str(table["micrograph"][row])).name, png, against[row], name, shown))
    footer = f"verglas {__version__}, {account['seconds']:.0f} s"
    return _write(folder, render(ctf_page(table, pictures, footer)))


def pick_picture_names(name: str) -> tuple[str, str]:
    """Paths of a micrograph's picture and of the small one that the page holds; two of one name stay apart."""
    path = Path(name)
    parts = [p for p in path.with_suffix("").parts if p not in ("/", "..", ".")]
    file = f"{'__'.join(parts) or 'micrograph'}.jpg"
    return f"pictures/{file}", f"pictures/small/{file}"


def write_pick_page(folder: Path) -> Path:
    """``report.html`` of picked micrographs, of quality.csv, verdict.json and the pictures."""
    table = read_csv(folder / "quality.csv", ("micrograph", "picks"), ("micrograph", "flags"))
    account = _account(folder, "seconds_per_micrograph")
    if PICTURES not in account and any((folder / "pictures").glob("*.jpg")):
        raise InputError(f"{folder}: of a version that did not keep what the page shows; give the same command again")
    flags = dict(account["flagged"])
    rows = []
    for row in table.to_dict("records"):
        name = str(row["micrograph"])
        picture, small = pick_picture_names(name)
        drawn = (folder / small).read_bytes() if account.get(PICTURES) and (folder / small).is_file() else b""
        quality = MicrographQuality(
            name,
            int(row["picks"]),
            float(row["bad_fraction"]),
            float(row["separation"]),
            clear=True,  # what is not is among the flags
            defocus_A=float(row["defocus_A"]),
            resolution_A=float(row["resolution_A"]),
        )
        rows.append(PageRow(quality, tuple(flags.get(name, ())), drawn, picture))
    shown = {
        "micrographs": str(len(table)),
        "picks": str(account["picks"]),
        "per micrograph, median": f"{np.median(table['picks']):.0f}",
        "seconds per micrograph": f"{account['seconds_per_micrograph']:.2f}",
    }
    if "comparison" in account:
        shown["F against given picks"] = f"{account['comparison']['f_score']:.3f}"
    verdict = Verdict.from_dict(account["verdict"])
    return _write(folder, picks_page(rows, verdict, account["set_aside"], shown))


def write_extract_page(folder: Path) -> Path:
    """``report.html`` of extracted particles, of particles.star, its stacks and verdict.json."""
    account = _account(folder, "coordinates")
    particles = read_particles(folder / "particles.star")
    assert particles.source is not None  # read from its stacks
    sizes_A, boxes = particles.pixel_sizes_A, particles.source.boxes()
    alike = np.flatnonzero((sizes_A == sizes_A[0]) & (boxes == boxes[0]))
    # Evenly over the set: the first ones would all be of one micrograph.
    sample = alike[np.unique(np.linspace(0, len(alike) - 1, _SAMPLE).astype(np.int64))]
    columns = particles.table
    names = columns["rlnMicrographName"].astype(str)
    shown = ExtractShown(
        Verdict.from_dict(account["verdict"]),
        account,
        np.asarray(particles.images(sample)),
        float(sizes_A[0]),
        names.groupby(names, sort=False).size(),
        columns["rlnDefocusU"].to_numpy(np.float64) if "rlnDefocusU" in columns else None,
    )
    return _write(folder, render(extract_page(shown, f"verglas {__version__}, {account['seconds']:.0f} s")))
