"""Extraction of the particles of every micrograph, and of those whose boxes were moved."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from verglas.assessment.micrographs import FEWEST_PARTICLES, judge_extraction
from verglas.errors import InputError
from verglas.extraction import Cut, ExtractSettings
from verglas.io import read_particles, write_bytes, write_particles
from verglas.io.rules import written_name
from verglas.picking.particles import MERIT
from verglas.pipeline.edited import edited_mark, edited_picks, read_edited
from verglas.pipeline.micrographs import MicrographStage, Picture, has_passed, load, picks_of, result_of
from verglas.pipeline.project import Project, Shot
from verglas.pipeline.settings import settings_json, with_overrides
from verglas.pipeline.stage import digest, file_digest
from verglas.pipeline.tables import micrograph_table, usable_shots
from verglas.run.extract import ExtractOptions, Piece, UnusedPick, cut_one, particles_of, write_excluded, write_piece
from verglas.types import Particles, Picks
from verglas.types.settings import JobSettings, setting
from verglas.types.verdict import Verdict

_BOX_OVER_PARTICLE = 1.5


@dataclass(frozen=True)
class ExtractChoice(JobSettings, job="extract"):
    """What of extraction can be set.

    Attributes
    ----------
    box : int
        Pixels of the micrograph.
    new_pixel_size_A, new_box, diameter_A, invert, ramp, edge, dtype
        As in :class:`verglas.run.extract.ExtractOptions`.
    unclear : bool
        Also take particles from micrographs where picks and background do not separate.
    """

    box: int = setting(help="Side of the boxes in pixels of the micrograph.", at_least=8)
    diameter_A: float = setting(help="Of the particle: what is outside is background.", more_than=0)
    new_pixel_size_A: float | None = setting(None, "Scale the images down to this.", more_than=0)
    new_box: int | None = setting(None, "Side of the scaled images, pixels.", at_least=8)
    invert: bool = setting(True, "Micrographs have dark particles, which stacks have white.")
    ramp: bool = setting(True, "Subtract the background's gradient, not only its mean.")
    edge: Literal["exclude", "fill"] = setting("exclude", "Boxes that leave the micrograph.")
    dtype: Literal["float32", "float16"] = setting("float32", "Of the stacks.")
    unclear: bool = setting(False, "Also particles of micrographs where picks and background do not separate.")

    def options(self, pixel_size_A: float) -> ExtractOptions:
        """For one micrograph."""
        values = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in ("box", "unclear")}
        return ExtractOptions(pixel_size_A=pixel_size_A, **values)


def box_for(diameter_A: float, pixel_size_A: float) -> int:
    """The even side nearest to 1.5 diameters that has no factor beyond 5, so that it is quick to transform.

    Examples
    --------
    >>> from verglas.pipeline.particles import box_for
    >>> box_for(130, 1.5), box_for(180, 1.06)
    (128, 256)
    """
    least_box = max(16.0, _BOX_OVER_PARTICLE * diameter_A / pixel_size_A)
    # Even sides only (a starts at 1): Fourier cropping keeps the centre of an even box.
    sides = [2**a * 3**b * 5**c for a in range(1, 13) for b in range(4) for c in range(4)]
    return min(sides, key=lambda side: (abs(side - least_box), side))


def pixel_size_A(project: Project) -> float:
    """Of the micrographs that are used."""
    if project.pixel_size_A is not None:
        return project.pixel_size_A
    sizes_A = [result_of(project, "ctf", s)["pixel_size_A"] for s in project.shots if has_passed(project, "ctf", s)]
    return float(np.median(sizes_A)) if sizes_A else 1.0


class ExtractStage(MicrographStage):
    """Images of the picks of every micrograph in use."""

    name = "extract"
    needs = ("ctf", "pick")
    pictures = (("particles.png", "Some of the particles, as extracted."),)

    def resolve_settings(self, project: Project) -> ExtractChoice:
        """Resolved."""
        process_settings = project.settings
        box = process_settings.box or box_for(process_settings.diameter_A, pixel_size_A(project))
        return with_overrides(ExtractChoice(box, process_settings.diameter_A), self.given_settings(project), "extract")

    def settings(self, project: Project) -> dict[str, Any]:
        """Resolved settings."""
        return settings_json(self.resolve_settings(project)) | {"keep": _keep_digest(project)}

    def inputs(self, project: Project) -> dict[str, str]:
        """Micrographs, CTFs, picks, those that a person has changed, and the list of those to keep."""
        edits = edited_picks(project)
        changed = {name: file_digest(path) for name, path in sorted(edits.files.items())}
        return (
            super().inputs(project)
            | {"used": digest([shot.key for shot in usable_shots(project)])}
            | ({"edited": digest([changed, edits.edits.of])} if changed else {})
        )

    def todo(self, project: Project) -> list[Shot]:
        """Micrographs in use."""
        return usable_shots(project)

    def one_digest(self, project: Project, shot: Shot) -> str:
        """Images depend on picks and pixel size, not on the CTF, which is added to the table later."""
        pick_result = project.results("pick").get(shot.key) or {}
        pixel = result_of(project, "ctf", shot)["pixel_size_A"]
        edited = edited_mark(edited_picks(project).file(project, shot))
        settings = settings_json(self.resolve_settings(project))
        return digest([settings, project.mark_of(shot), pick_result.get("digest"), pixel, *edited])

    def compute(self, project: Project, shot: Shot) -> tuple[dict[str, Any], list[Picture]]:
        """Cut and write the stack, at the picks as a person has left them."""
        edited = edited_picks(project).file(project, shot)
        picks = picks_of(project, shot) if edited is None else read_edited(edited, shot.name)
        return cut_shot(project, shot, picks, self.resolve_settings(project), project.folder("extract")), []

    def finish(self, project: Project) -> dict[str, str]:
        """particles.star, excluded.csv, particles.png."""
        folder = project.folder("extract")
        edits = edited_picks(project)
        files = [edits.file(project, shot) for shot in usable_shots(project)]
        if count := sum(file is not None for file in files):
            project.listener.say(f"extract: picks that a person has changed, on {count} micrographs")
        particles, exclusions = gather_particles(project, self.name, folder, self.resolve_settings(project), "")
        write_particles(folder / "particles.star", particles)
        write_excluded(folder / "excluded.csv", exclusions)
        _picture(folder)
        marks = digest([(project.results("extract").get(s.key) or {}).get("digest") for s in usable_shots(project)])
        return {**self.outputs(project, "particles.star"), "images": marks}

    def verdict(self, project: Project) -> Verdict:
        """Whether there are enough particles, and few lost."""
        results = [result_of(project, "extract", s) for s in usable_shots(project) if has_passed(project, "extract", s)]
        count = sum(len(r["kept"]) for r in results)
        losses = Counter(why for r in results for why in r["excluded"].values())
        n_picks = count + sum(losses.values())
        numbers = {
            "particles": count,
            "picks": n_picks,
            "box": self.resolve_settings(project).box,
            "set_aside": dict(losses),
        }
        table = self.place(project, "excluded.csv")
        verdict = judge_extraction(count, n_picks, losses.most_common(1)[0][0] if losses else "")
        if count < FEWEST_PARTICLES and project.settings.to != "particles":
            notes = [replace(note, state="stop") for note in verdict.findings]
            return Verdict.of_notes(notes, numbers, (), f"report.html and {table}")
        return Verdict.of_notes(verdict.findings, numbers, [self.place(project, "particles.png")], table)


def _keep_digest(project: Project) -> str | None:
    return None if project.settings.keep is None else file_digest(Path(project.settings.keep))


def cut_shot(project: Project, shot: Shot, picks: Picks, choice: ExtractChoice, folder: Path) -> dict[str, Any]:
    """Cut the particles of one micrograph and write their stack.

    Raises
    ------
    InputError
        Nothing could be cut.
    """
    pixel = float(result_of(project, "ctf", shot)["pixel_size_A"])
    table = micrograph_table(project, [shot], project.root)
    if MERIT not in picks.columns:  # all of them added by hand, beside a picker that has no merits
        picks = replace(picks, columns={**picks.columns, MERIT: np.ones(len(picks))})
    piece = cut_one(table, {0: load(project, shot)[0]}, 0, picks, choice.box, choice.options(pixel))
    if piece.cut is None:
        raise InputError(piece.problem)
    if len(piece.cut.kept):
        (folder / "stacks").mkdir(parents=True, exist_ok=True)
        write_piece(folder, f"stacks/{shot.key}.mrcs", piece, choice.dtype)
    return {
        "xy_px": np.round(piece.picks.xy_px, 3).tolist(),
        "merit": np.asarray(piece.picks.columns[MERIT], np.float64).tolist(),
        "kept": piece.cut.kept.tolist(),
        "centres_px": piece.cut.centres_px.tolist(),
        "excluded": {str(i): why for i, why in piece.cut.excluded.items()},
        "excess": np.round(piece.excess, 4).tolist(),
        "pixel_size_A": pixel,
    }


def gather_particles(
    project: Project, stage: str, folder: Path, choice: ExtractChoice, prefix: str
) -> tuple[Particles, list[UnusedPick]]:
    """The particles of all micrographs as one set, images on disk, and those set aside.

    Parameters
    ----------
    project : Project
    stage : str
        Whose results: "extract" or "centre".
    folder : Path
        That the STAR file will lie in.
    choice : ExtractChoice
    prefix : str
        From that folder to the stage's.
    """
    shots = [shot for shot in usable_shots(project) if has_passed(project, stage, shot)]
    if not shots:
        raise InputError(f"{stage}: no micrograph is left to take particles from; see {project.root / 'report.html'}")
    table = micrograph_table(project, shots, folder)
    pieces, exclusions = [], []
    for row, shot in enumerate(shots):
        result = result_of(project, stage, shot)
        xy = np.array(result["xy_px"]).reshape(-1, 2)
        exclusions += [
            UnusedPick(shot.name, int(i), float(xy[int(i), 0]), float(xy[int(i), 1]), str(why))
            for i, why in result["excluded"].items()
        ]
        if result["kept"]:
            name = written_name(folder / prefix / f"stacks/{shot.key}.mrcs", folder)
            pieces.append(_piece(row, shot, result, choice, name))
    if not pieces:
        raise InputError(
            f"{stage}: no particle could be cut out; the first: {exclusions[0].micrograph}: {exclusions[0].reason}"
        )
    return particles_of(table, pieces, []), exclusions


def _piece(row: int, shot: Shot, result: dict[str, Any], choice: ExtractChoice, name: str) -> Piece:
    pixel = float(result["pixel_size_A"])
    settings = ExtractSettings(
        choice.box,
        pixel,
        choice.new_pixel_size_A,
        choice.new_box,
        choice.diameter_A,
        choice.invert,
        choice.ramp,
        choice.edge,
    )
    nothing: npt.NDArray[np.float32] = np.zeros((0, 1, 1), np.float32)
    rows = np.array(result["kept"], np.int64)
    boxes = Cut(nothing, rows, np.array(result["centres_px"], np.int64).reshape(-1, 2), {})
    picks = Picks(np.array(result["xy_px"]).reshape(-1, 2), shot.name, {MERIT: np.array(result["merit"])})
    return Piece(row, picks, boxes, settings, name=name)


def _picture(folder: Path) -> None:
    """A few particles and their mean."""
    from verglas.report.process import particles_picture

    particles = read_particles(folder / "particles.star")
    # From the whole set: the first ones are all of one micrograph.
    rows = np.linspace(0, len(particles) - 1, min(24, len(particles))).astype(np.int64)
    write_bytes(folder / "particles.png", particles_picture(particles.images(rows), particles.pixel_size_A))
