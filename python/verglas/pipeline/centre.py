"""Centring: the boxes of particles are moved where that helps, and the project's particles.star is written."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

import numpy as np

from verglas import ops
from verglas.extraction import CentringTrial, try_centring
from verglas.image import plan_resample, resample_particles
from verglas.io import read_particles, write_bytes, write_json, write_particles
from verglas.picking import remove_duplicates
from verglas.pipeline.micrographs import Work, picks_of, result_of
from verglas.pipeline.particles import ExtractStage, cut_shot, gather_particles
from verglas.pipeline.project import Project, Shot
from verglas.pipeline.settings import settings_json, with_overrides
from verglas.pipeline.stage import Stage, digest, file_digest
from verglas.pipeline.tables import usable_shots
from verglas.run.parallel import in_order
from verglas.types import Particles, Picks
from verglas.types.arrays import FloatArray
from verglas.types.settings import JobSettings, setting
from verglas.types.verdict import Finding, Verdict

_SIDE = 24.0  # pixels per particle of the images that centres are sought in
_SAME = 0.4  # diameters: two particles nearer than this are one


@dataclass(frozen=True)
class CentreChoice(JobSettings, job="centre"):
    """How particles are centred.

    Attributes
    ----------
    way : {"auto", "picks", "surrogate", "average"}
        Leave them as picked; surrogate centre of each image; correlation with the rotational average; or what is best
        by data that neither has seen.
    least_px : float
        Boxes are cut anew if their centres move by more pixels than this, root mean square.
    batch : int
        Particles tried together.
    """

    way: Literal["auto", "picks", "surrogate", "average"] = setting("auto", "How particles are centred.")
    least_px: float = setting(1.0, "Cut boxes anew if their centres move by more, root mean square.", at_least=0)
    batch: int = setting(20000, "Particles tried together.", at_least=1)


class CentreStage(Stage):
    """Judge ways of centring; cut particles anew where their boxes should move."""

    name = "centre"
    needs = ("extract",)
    pictures = (("centring.png", "Mean of all particles by how they are centred."),)

    def resolve_settings(self, project: Project) -> CentreChoice:
        """Resolved."""
        return with_overrides(CentreChoice(), self.given_settings(project), "centre")

    def settings(self, project: Project) -> dict[str, Any]:
        """Resolved settings."""
        return settings_json(self.resolve_settings(project))

    def run(self, project: Project) -> dict[str, str]:
        """centring.json, centring.png, stacks/ if boxes move, and particles.star of the project."""
        choice, folder = self.resolve_settings(project), project.folder(self.name)
        particles = read_particles(project.folder("extract") / "particles.star")
        way, shifts_px, trial = _centres(project, particles, choice)
        rms = float(np.sqrt((shifts_px**2).sum(axis=1).mean()))
        extraction = ExtractStage().resolve_settings(project)
        moves = way != "picks" and rms > choice.least_px
        n_lost = _recut(project, shifts_px) if moves else 0
        stage = self.name if moves else "extract"
        recut, _ = gather_particles(project, stage, project.root, extraction, f"{project.folder_name(stage)}/")
        write_particles(project.root / "particles.star", recut)
        write_json(
            folder / "centring.json",
            {
                "way": way,
                "moved": moves,
                "rms_shift_px": rms,
                "rms_shift_A": rms * cut_pixel_A(particles, extraction.box),
                "duplicates": n_lost,
                "particles": len(recut),
                "power": {} if trial is None else trial.power,
                "error": None if trial is None else trial.error,
            },
        )
        if trial is not None:
            _picture(project, particles, trial)
        return {"particles.star": file_digest(project.root / "particles.star"), **_images(project, stage)}

    def verdict(self, project: Project) -> Verdict:
        """Never a reason to stop; a set whose centres are far off is worth a look."""
        from verglas.io import read_json

        centring = read_json(project.folder(self.name) / "centring.json")
        numbers = {name: centring[name] for name in ("particles", "way", "moved", "rms_shift_A", "duplicates", "power")}
        far = centring["moved"] and centring["rms_shift_A"] > 0.15 * project.settings.diameter_A
        sentence = f"picks are {centring['rms_shift_A']:.0f} A off the particles' centres"
        notes = [Finding("off_centre", "warn", sentence, {"rms_shift_A": centring["rms_shift_A"]})] if far else []
        picture = self.place(project, "centring.png")
        return Verdict.of_notes(notes, numbers, [picture], picture)


def cut_pixel_A(particles: Particles, box: int) -> float:
    """Pixel size of the micrographs that images of a box were cut from."""
    return particles.pixel_size_A * particles.box / box


def _small(particles: Particles, diameter_A: float) -> Particles:
    """The particles, about 24 pixels across, read when asked for."""
    ratio = diameter_A / _SIDE / particles.pixel_size_A
    if ratio <= 1:
        return particles
    box = max(16, 2 * round(particles.box / ratio / 2))
    return resample_particles(particles, plan_resample(particles.box, particles.pixel_size_A, None, box))


def _centres(
    project: Project, particles: Particles, choice: CentreChoice
) -> tuple[str, FloatArray, CentringTrial | None]:
    """The way taken, shifts in pixels of the micrograph, and the trial of the first batch."""
    if choice.way == "picks" or len(particles) < 4:
        return "picks", np.zeros((len(particles), 2)), None
    small = _small(particles, project.settings.diameter_A)
    diameter_px = project.settings.diameter_A / small.pixel_size_A
    first: CentringTrial | None = None
    way: str = choice.way
    centres = []
    for start in range(0, len(small), choice.batch):
        part = small[start : start + choice.batch]
        signs = np.sign(ops.ctf(part.optics.as_params(), part.box, part.pixel_size_A, threads=project.threads))
        ways = ("picks", "surrogate", "average") if first is None else ("picks", way)
        trial = try_centring(part.images(), signs, diameter_px, ways=ways) if len(part) >= 4 else None
        if first is None:
            first = trial
            way = choice.way if choice.way != "auto" or trial is None else trial.best
        centres.append(np.zeros((len(part), 2)) if trial is None else trial.shifts_px[way])
        project.listener.progress("centre", min(start + choice.batch, len(small)), len(small))
    extraction = ExtractStage().resolve_settings(project)
    ratio = small.pixel_size_A / cut_pixel_A(particles, extraction.box)
    return way, np.concatenate(centres) * ratio, first


class _Cut(NamedTuple):
    """A micrograph, and where its particles are to be cut."""

    shot: Shot
    picks: Picks


def _recut(project: Project, shifts_px: FloatArray) -> int:
    """Cut the particles of every micrograph at their new centres; those that meet another are dropped and counted."""
    shots = usable_shots(project)
    results = [result_of(project, "extract", shot) for shot in shots]
    ends = np.cumsum([len(result["kept"]) for result in results])
    choice = ExtractStage().resolve_settings(project)
    todo: list[_Cut] = []
    for shot, result, end in zip(shots, results, ends, strict=True):
        shifts = shifts_px[end - len(result["kept"]) : end]
        todo.append(_Cut(shot, _move_picks(project, shot, result, shifts, choice.box)))
    stage = _Again()
    centre_results = project.results("centre")

    def cut(one: _Cut) -> Work | None:
        mark = digest([settings_json(choice), project.mark_of(one.shot), np.round(one.picks.xy_px, 3).tolist()])
        if centre_results.get(one.shot.key, mark) is not None:
            return None
        return stage.work_at(project, one.shot, one.picks, mark)

    for work in in_order(cut, todo, project.threads):
        if work is not None:
            stage.keep(project, work)
    return int(ends[-1]) - sum(len(result_of(project, "centre", shot)["kept"]) for shot in shots)


def _move_picks(project: Project, shot: Shot, result: dict[str, Any], shifts_px: FloatArray, box: int) -> Picks:
    """Picks at the new centres: all picks of the micrograph, those that have no image far outside."""
    picks = picks_of(project, shot)
    rows = np.array(result["kept"], np.int64)
    height, width = result_of(project, "ctf", shot)["shape"]
    # content has to move by +shift to the middle, so it sits at minus the shift
    xy = np.array(result["centres_px"], np.float64).reshape(-1, 2) - shifts_px
    low, high = box // 2, np.array([width, height]) - (box - box // 2)
    xy = np.clip(xy, low, np.maximum(high, low))
    shifted_picks = replace(picks, xy_px=xy, columns={name: v[rows] for name, v in picks.columns.items()})
    pixel = float(result["pixel_size_A"])
    return remove_duplicates(shifted_picks, _SAME * project.settings.diameter_A / pixel)


class _Again(ExtractStage):
    """Extraction at given centres, with results of its own beside the centring."""

    name = "centre"

    def work_at(self, project: Project, shot: Shot, picks: Picks, mark: str) -> Work:
        """One micrograph."""
        choice = ExtractStage().resolve_settings(project)
        return Work(shot, mark, cut_shot(project, shot, picks, choice, project.folder(self.name)))


def _images(project: Project, stage: str) -> dict[str, str]:
    marks = [(project.results(stage).get(shot.key) or {}).get("digest") for shot in usable_shots(project)]
    return {"images": digest(marks)}


def _picture(project: Project, particles: Particles, trial: CentringTrial) -> None:
    from verglas.report.process import centring_picture

    titles = {"picks": "as picked", "surrogate": "surrogate centre", "average": "rotational average"}
    means = {f"{titles[way]}\npower {trial.power[way]:.2f}": image for way, image in trial.means.items()}
    pixel = _small(particles, project.settings.diameter_A).pixel_size_A
    write_bytes(project.folder("centre") / "centring.png", centring_picture(means, pixel))
