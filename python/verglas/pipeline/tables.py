"""What the micrographs of a project amount to: who is set aside and why, STAR files, verdicts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from verglas._version import __version__
from verglas.assessment.micrographs import (
    MicrographQuality,
    inverted_contrast,
    judge_ctfs,
    judge_micrographs,
    judge_set,
    untrusted_picks,
)
from verglas.errors import InputError
from verglas.io import atomic_path, read_json, read_micrographs, write_micrographs, write_picks, write_text
from verglas.io.coordinates import MICROGRAPH, match_names
from verglas.io.micrographs import METADATA, PATH, PIXEL
from verglas.io.rules import written_name
from verglas.pipeline.edited import edited_picks
from verglas.pipeline.micrographs import CtfStage, ctf_row, has_passed, picks_of, result_of, set_aside_sentence
from verglas.pipeline.project import Project, Shot
from verglas.pipeline.stage import digest, file_digest
from verglas.run.edited_picks import set_aside_edits
from verglas.types.verdict import Finding, Verdict

_PIXEL_DIFFERS = 0.02  # of the pixel size in a header and the one used
_MANY = 0.5  # share of micrographs set aside at which a stage stops
_POOR_A = 12.0  # median resolution of Thon rings that is worth a warning


@dataclass(frozen=True)
class Standing:
    """Where a micrograph stands.

    Attributes
    ----------
    shot : Shot
    stage : str
        That set it aside; empty where none has.
    reason : str
        Why.
    flags : tuple of str
        Reasons to look at it although it is used.
    """

    shot: Shot
    stage: str = ""
    reason: str = ""
    flags: tuple[str, ...] = ()

    @property
    def is_used(self) -> bool:
        """Whether it goes on."""
        return not self.reason


def standings(project: Project) -> list[Standing]:
    """Every micrograph: set aside by which stage and why, or flags."""
    odd = _odd_headers(project)
    listed_keys = _listed_keys(project)
    judgements = judge_micrographs([q for q in (quality(project, s) for s in project.shots) if q is not None])
    with_ctf = [shot for shot in project.shots if has_passed(project, "ctf", shot)]
    rings = dict(
        zip(
            (shot.key for shot in with_ctf),
            judge_ctfs([result_of(project, "ctf", shot) for shot in with_ctf]),
            strict=True,
        )
    )
    usual = _usual_shape(project)
    rows = []
    for shot in project.shots:
        stage, reason = _first_reason(project, shot)
        if not reason and shot.key in odd:
            stage, reason = "ctf", odd[shot.key]
        if not reason and listed_keys is not None and shot.key not in listed_keys:
            stage, reason = "pick", f"not in the list of those to keep ({project.settings.keep})"
        flags = [*rings.get(shot.key, ()), *judgements.get(shot.key, ())]
        if has_passed(project, "ctf", shot) and usual is not None and result_of(project, "ctf", shot)["shape"] != usual:
            y, x = result_of(project, "ctf", shot)["shape"]
            flags.append(f"{x} x {y} pixels, most have {usual[1]} x {usual[0]}")
        rows.append(Standing(shot, stage, reason, tuple(flags)))
    return rows


def _first_reason(project: Project, shot: Shot) -> tuple[str, str]:
    for stage in ("motion", "ctf", "pick") if project.settings.movies else ("ctf", "pick"):
        record = project.results(stage).get(shot.key)
        if record is None:
            return "", ""
        if record["reason"]:
            return stage, str(record["reason"])
        if (
            stage == "pick"
            and not record["result"]["clear"]
            and not project.settings.of_stage("extract").get("unclear")
            and edited_picks(project).file(project, shot) is None
        ):
            return stage, "particles and background do not separate"
    return "", ""


def _odd_headers(project: Project) -> dict[str, str]:
    """Micrographs whose header says another pixel size, unlike those of the rest."""
    differs, n_headers = {}, 0
    for shot in project.shots:
        if not has_passed(project, "ctf", shot):
            continue
        result = result_of(project, "ctf", shot)
        header, pixel_size_A = result["header_pixel_size_A"], float(result["pixel_size_A"])
        if header is None:
            continue
        n_headers += 1
        if abs(float(header) / pixel_size_A - 1) > _PIXEL_DIFFERS:
            differs[shot.key] = f"pixel size {float(header):g} A in its header, {pixel_size_A:g} A used"
    return differs if len(differs) < n_headers / 2 else {}


def _all_headers_differ(project: Project) -> str:
    """A sentence where the headers agree with each other and not with the pixel size given."""
    pixel_size_A = project.pixel_size_A
    headers = [
        result_of(project, "ctf", s)["header_pixel_size_A"] for s in project.shots if has_passed(project, "ctf", s)
    ]
    sizes_A = np.array([h for h in headers if h is not None], np.float64)
    if pixel_size_A is None or not len(sizes_A) or (np.abs(sizes_A / pixel_size_A - 1) > _PIXEL_DIFFERS).mean() < 0.5:
        return ""
    return f"the headers say {np.median(sizes_A):g} A per pixel, {pixel_size_A:g} A was asked for and used"


def _listed_keys(project: Project) -> set[str] | None:
    """Keys of the micrographs in the user's list."""
    if project.settings.keep is None:
        return None
    keep_list = read_micrographs(Path(project.settings.keep))
    at = match_names(keep_list[MICROGRAPH].tolist(), [str(shot.path) for shot in project.shots])
    if not (at >= 0).any():
        raise InputError(f"{project.settings.keep}: names none of the {len(project.shots)} micrographs of this project")
    return {project.shots[i].key for i in at if i >= 0}


def _usual_shape(project: Project) -> list[int] | None:
    shapes = Counter(
        tuple(result_of(project, "ctf", s)["shape"]) for s in project.shots if has_passed(project, "ctf", s)
    )
    return list(shapes.most_common(1)[0][0]) if shapes else None


def quality(project: Project, shot: Shot) -> MicrographQuality | None:
    """What picking says of a micrograph; None before it was picked. Of the CTF the rings themselves are judged."""
    if not (has_passed(project, "ctf", shot) and project.results("pick").get(shot.key)):
        return None
    pick_result, ctf = project.results("pick").get(shot.key), result_of(project, "ctf", shot)
    result = (pick_result or {}).get("result") or {}
    return MicrographQuality(
        shot.key,
        int(result.get("picks", 0)),
        float(result.get("bad_fraction", 0.0)),
        float(result.get("separation", 0.0)),
        bool(result.get("clear", False)),
        (float(ctf["defocus_u_A"]) + float(ctf["defocus_v_A"])) / 2,
        precision=float(result.get("precision", "nan")),
        ring_contrast=float(result.get("ring_contrast") or "nan"),
        screening=str(result.get("screening", "")),
    )


def usable_shots(project: Project) -> list[Shot]:
    """The micrographs that particles are taken from."""
    return [one.shot for one in standings(project) if one.is_used and has_passed(project, "pick", one.shot)]


# ---- CTF


def micrograph_table(project: Project, shots: Sequence[Shot], folder: Path) -> pd.DataFrame:
    """List of micrographs with their CTFs, named as in a file that lies in ``folder``."""
    rows: list[dict[str, Any]] = []
    for shot in shots:
        result = result_of(project, "ctf", shot)
        motion = project.micrograph_of(shot).with_suffix(".star")  # of a movie: its motion and its bad pixels
        rows.append(
            {
                MICROGRAPH: written_name(project.micrograph_of(shot), folder),
                PATH: str(project.micrograph_of(shot)),
                PIXEL: float(result["pixel_size_A"]),
                **ctf_row(result),
                "rlnCtfAstigmatism": result["astigmatism_A"],
                "rlnCtfFigureOfMerit": result["merit"],
                "rlnCtfMaxResolution": result["resolution_A"] or 999.0,
                **({METADATA: written_name(motion, folder)} if project.settings.movies and motion.is_file() else {}),
            }
        )
    return pd.DataFrame(rows)


def _write_table(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    with atomic_path(path) as temporary:
        pd.DataFrame(rows).to_csv(temporary, index=False, lineterminator="\n")


def write_ctf(project: Project) -> dict[str, str]:
    """micrographs_ctf.star and ctf.csv."""
    folder = project.folder("ctf")
    shots = [shot for shot in project.shots if has_passed(project, "ctf", shot)]
    rows = []
    for shot in project.shots:
        record = project.results("ctf").get(shot.key)
        if record is not None:
            values = {k: v for k, v in record["result"].items() if not isinstance(v, list) and k != "micrograph"}
            rows.append({"micrograph": shot.name, **values, "reason": record["reason"]})
    _write_table(folder / "ctf.csv", rows)
    _write_ctf_page(project, rows)
    path = folder / "micrographs_ctf.star"
    if shots:
        write_micrographs(path, micrograph_table(project, shots, folder))
    else:
        path.unlink(missing_ok=True)
    return {f"{folder.name}/{path.name}": file_digest(path)}


def _write_ctf_page(project: Project, rows: Sequence[Mapping[str, Any]]) -> None:
    """report.html of the stage: the set, the table, and the curves of those to look at first."""
    if not rows:
        return
    from verglas.report.ctf import ShownCtf
    from verglas.report.ctf_page import CtfPicture, ctf_page, doubts, rows_to_show
    from verglas.report.html import render

    folder = project.folder("ctf")
    flags = ["" if row["reason"] else "; ".join(one) for row, one in zip(rows, judge_ctfs(rows), strict=True)]
    table = pd.DataFrame([*rows]).assign(flags=flags)
    against = doubts(table)
    keys = {shot.name: shot.key for shot in project.shots}
    pictures = []
    for row in rows_to_show(table):
        name = str(table["micrograph"][row])
        curves = folder / "curves" / f"{keys[name]}.json"
        if curves.is_file():  # a project of an earlier version has pictures only
            shown = ShownCtf.from_record(read_json(curves))
            pictures.append(CtfPicture(Path(name).name, b"", against[row], f"png/{keys[name]}.png", shown))
    write_text(folder / "report.html", render(ctf_page(table, pictures, f"verglas {__version__}")))


def _set_aside_notes(bad: Sequence[tuple[str, str]], total: int, state: str) -> list[Finding]:
    """How many, and the first by name."""
    if not bad:
        return []
    name, reason = bad[0]
    sentence = set_aside_sentence("micrographs", Path(name), reason, len(bad), total)
    return [Finding("set_aside", state, sentence, {"set_aside": len(bad), "of": total})]


def ctf_verdict(project: Project) -> Verdict:
    """Whether there are enough micrographs with Thon rings."""
    shots = CtfStage().todo(project)
    bad = [
        (s.name, project.results("ctf").get(s.key)["reason"])  # type: ignore[index]
        for s in shots
        if not has_passed(project, "ctf", s)
    ]
    bad += [(s.name, _odd_headers(project)[s.key]) for s in shots if s.key in _odd_headers(project)]
    fits = [result_of(project, "ctf", s) for s in shots if has_passed(project, "ctf", s)]
    total = len(shots)
    finest = [f["resolution_A"] for f in fits if f["resolution_A"] is not None]
    numbers = {
        "micrographs": total,
        "set_aside": len(bad),
        "seconds_per_micrograph": _median_seconds(project, "ctf"),
        "median_defocus_A": _median([(f["defocus_u_A"] + f["defocus_v_A"]) / 2 for f in fits]),
        "median_resolution_A": _median(finest),
        "median_merit": _median([f["merit"] for f in fits]),
    }
    notes = [] if shots else [Finding("no_micrograph", "stop", "no micrograph has come this far")]
    notes += _set_aside_notes(bad, total, "stop" if len(bad) > _MANY * total or not fits else "warn")
    median = numbers["median_resolution_A"]
    if fits and (median is None or median > _POOR_A):
        sentence = f"Thon rings reach {median or float('inf'):.1f} A in the median only"
        notes.append(Finding("poor_rings", "warn", sentence, {"median_resolution_A": median}))
    if sentence := _all_headers_differ(project):
        notes.append(Finding("pixel_size", "warn", sentence))
    folder = project.folder_name("ctf")
    return Verdict.of_notes(notes, numbers, [f"{folder}/png"], f"report.html and {folder}/ctf.csv")


# ---- picks


def write_picks_of_set(project: Project) -> dict[str, str]:
    """picks.star and picks.csv."""
    folder = project.folder("pick")
    rows = []
    for one in standings(project):
        record = project.results("pick").get(one.shot.key)
        if record is None:
            continue
        values = {k: v for k, v in record["result"].items() if not isinstance(v, list) and k != "reason"}
        rows.append({"micrograph": one.shot.name, **values, "set_aside": one.reason, "flags": "; ".join(one.flags)})
    _write_table(folder / "picks.csv", rows)
    shots = usable_shots(project)
    path = folder / "picks.star"
    picks = {written_name(project.micrograph_of(shot), folder): picks_of(project, shot) for shot in shots}
    paths = write_picks(path, picks)
    if said := set_aside_edits(folder, picks):
        project.listener.note("edits", said)
    return {f"{folder.name}/{path.name}": digest([file_digest(file) for file in paths])}


def pick_verdict(project: Project) -> Verdict:
    """Whether particles and background separate, in most micrographs."""
    every = [one for one in standings(project) if has_passed(project, "ctf", one.shot)]
    bad = [(one.shot.name, one.reason) for one in every if one.stage == "pick"]
    counts = [result_of(project, "pick", one.shot)["picks"] for one in every if one.is_used]
    flags = {one.shot.key: one.flags for one in every if one.is_used}
    qualities = [quality(project, one.shot) for one in every if one.is_used]
    doubtful = untrusted_picks([one for one in qualities if one is not None])
    judgement = judge_set(flags, len(bad), untrusted=doubtful)
    numbers = {
        "micrographs": len(counts),
        "set_aside": len(bad),
        "picks": int(sum(counts)),
        "median_picks": _median(counts),
        "seconds_per_micrograph": _median_seconds(project, "pick"),
    }
    # The stage says itself which are set aside, and the first by name, at the weight that the set gives to it.
    weight = judgement["unusable"].state if "unusable" in judgement.codes else judgement.state
    notes = _set_aside_notes(bad, len(every), weight)
    notes += [note for note in judgement.findings if note.code != "unusable"]
    # records of earlier versions have none
    skewness = [result_of(project, "pick", one.shot).get("skewness") for one in every if one.is_used]
    notes += inverted_contrast([value for value in skewness if value is not None])
    folder = project.folder_name("pick")
    return Verdict.of_notes(notes, numbers, [f"{folder}/png"], f"report.html and {folder}/png")


def _median(values: Sequence[float]) -> float | None:
    return round(float(np.median(values)), 3) if len(values) else None


def _median_seconds(project: Project, stage: str) -> float | None:
    records = (project.results(stage).get(shot.key) for shot in project.shots)
    return _median([record["seconds"] for record in records if record is not None])
