"""Movies to the micrographs that all other stages work on; a project of micrographs has no such stage."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from verglas.assessment.movies import judge_movies, mixture_of
from verglas.io import read_json, write_csv, write_json
from verglas.io.acquisition import acquisition_tree
from verglas.pipeline.micrographs import MicrographStage, Picture, has_passed, result_of, set_aside_sentence
from verglas.pipeline.project import Project, Shot
from verglas.pipeline.settings import ProcessSettings, settings_json, with_overrides
from verglas.pipeline.stage import digest, file_digest
from verglas.run.motion import (
    MovieSession,
    MovieSettings,
    correct_movie,
    star_table,
    with_placed_gain,
    write_motion_table,
)
from verglas.run.motion_files import MovieFiles
from verglas.run.movie_pattern import CODE, PatternFile
from verglas.types.listener import Silence
from verglas.types.verdict import Finding, Verdict

_MANY = 0.5  # share of movies set aside at which the stage stops
_PROJECTS = ("dose_per_frame_e_A2", "voltage_kV", "pixel_size_A")  # settings that the project has
_MICROSCOPE = ("cs_mm", "amplitude_contrast")
# A movie takes gigabytes and uses all cores by itself: one at a time, whatever number of micrographs is worked on.
_ONE_MOVIE = threading.Lock()


class MotionStage(MicrographStage):
    """Every movie corrected for motion, weighted by dose and added up."""

    name = "motion"

    @classmethod
    def is_wanted(cls, process_settings: ProcessSettings) -> bool:
        """Where there are movies."""
        return bool(process_settings.movies)

    def resolve_settings(self, project: Project) -> MovieSettings:
        """Resolved."""
        process_settings = project.settings
        default = MovieSettings(**{name: getattr(process_settings, name) for name in _PROJECTS})
        return with_overrides(default, self.given_settings(project), "motion", (*_PROJECTS, "even_odd", "keep_bytes"))

    def settings(self, project: Project) -> dict[str, Any]:
        """Resolved settings, gain and bad pixels by their content."""
        process_settings = project.settings
        files = {
            "gain": process_settings.gain,
            "defects": None if process_settings.defects in ("auto", "none") else process_settings.defects,
        }
        contents = {
            f"{name}_content": None if path is None else file_digest(Path(path)) for name, path in files.items()
        }
        values = settings_json(self.resolve_settings(project), ("keep_bytes",))
        # of projects of earlier versions nothing is done again: they have no such setting
        tree = {} if process_settings.metadata is None else {"metadata": process_settings.metadata}
        return {**values, "gain": process_settings.gain, "defects": process_settings.defects, **contents, **tree}

    def inputs(self, project: Project) -> dict[str, str]:
        """The movies."""
        return {"movies": digest([[shot.key, shot.fingerprint] for shot in project.shots])}

    def todo(self, project: Project) -> list[Shot]:
        """All movies."""
        return project.shots

    def one_digest(self, project: Project, shot: Shot) -> str:
        """A movie and the settings."""
        return digest([self.settings(project), shot.fingerprint])

    def prepare(self, project: Project) -> None:
        """Place the gain, once for all movies; a folder of metadata that is not there is refused before any work."""
        if project.settings.metadata is not None:
            acquisition_tree(project.settings.metadata)
        self._session(project)

    def compute(self, project: Project, shot: Shot) -> tuple[dict[str, Any], list[Picture]]:
        """Correct and write; the micrograph is named from the project folder."""
        folder = project.folder(self.name)
        (folder / "micrographs").mkdir(parents=True, exist_ok=True)
        with _ONE_MOVIE:
            row = correct_movie(shot.path, folder, shot.key, self._session(project), Silence())
        result = {name: _plain(value) for name, value in row.items() if name != "path"}
        return {**result, "micrograph": self.place(project, f"micrographs/{shot.key}.mrc")}, []

    def _session(self, project: Project) -> MovieSession:
        """Settings with the gain as it lies: found once for all movies, and kept with what it was found for."""
        process_settings, settings = project.settings, self.resolve_settings(project)
        defects = None if process_settings.defects == "none" else process_settings.defects
        session = MovieSession(settings, process_settings.gain, defects, project.threads, process_settings.metadata)
        path, mark = self.path(project, "gain.json"), digest(self.settings(project))
        record = read_json(path) if path.is_file() else {}
        if record.get("digest") != mark:
            placed_session = with_placed_gain([shot.path for shot in project.shots], session, project.listener)
            record = {"digest": mark, "placement": placed_session.settings.placement}
            write_json(path, record)
        return replace(session, settings=replace(settings, placement=record["placement"]))

    def finish(self, project: Project) -> dict[str, str]:
        """motion.csv: a row per movie; micrographs.star with the motion of each, which polishing takes."""
        rows = []
        for shot in project.shots:
            record = project.results(self.name).get(shot.key)
            if record is not None:
                rows.append({**record["result"], "movie": shot.name, "reason": record["reason"]})
        names = list(dict.fromkeys(name for row in rows for name in row))
        columns = {name: [row.get(name, "") for row in rows] for name in names}
        if "flags" in columns:
            columns["flags"] = list(judge_movies(pd.DataFrame(columns))[0]["flags"])
        write_csv(self.path(project, "motion.csv"), columns)
        self._write_table(project)
        if project.assumptions:  # only now is known what the metadata of the movies say
            project.listener.note("assumed", project.assumptions)
        marks = [(project.results(self.name).get(shot.key) or {}).get("digest") for shot in project.shots]
        return {**self.outputs(project, "motion.csv"), "movies": digest(marks)}

    def _write_table(self, project: Project) -> None:
        """As ``verglas motion`` writes it; how the gain lies goes beside it."""
        folder, settings = project.folder(self.name), self._session(project).settings
        write_json(folder / "motion.json", {"placement": settings.placement})
        good = [shot for shot in project.shots if has_passed(project, self.name, shot)]
        # records of the files hold lists, which results of the stage do not
        kept = {shot.key: MovieFiles(folder, shot.path, shot.key).kept_row() for shot in good}
        rows = {key: row for key, row in kept.items() if row is not None}
        path = folder / "micrographs.star"
        # of the microscope the project knows more than this stage, which uses none of it
        given = {name: getattr(project.settings, name) for name in _MICROSCOPE if getattr(settings, name) is None}
        settings = replace(settings, **given)
        if rows:
            write_motion_table(path, star_table([*rows.values()], [*rows], folder, settings))
        else:
            path.unlink(missing_ok=True)

    def verdict(self, project: Project) -> Verdict:
        """Whether most movies could be corrected."""
        good = [shot for shot in project.shots if has_passed(project, self.name, shot)]
        bad = [shot for shot in project.shots if not has_passed(project, self.name, shot)]
        results = [result_of(project, self.name, shot) for shot in good]
        if results:  # movies unlike the others, which their own records cannot say
            judged = judge_movies(pd.DataFrame(results).assign(reason=""))[0]
            results = [{**result, "flags": flags} for result, flags in zip(results, judged["flags"], strict=True)]
        with_flags = [result for result in results if result["flags"]]
        total = [result["rlnAccumMotionTotal"] for result in results]
        numbers = {
            "movies": len(project.shots),
            "set_aside": len(bad),
            "flagged": len(with_flags),
            "median_motion_A": round(float(np.median(total)), 2) if total else None,
        }
        notes = []
        if bad:
            record = project.results(self.name).get(bad[0].key) or {"reason": ""}
            sentence = set_aside_sentence("movies", bad[0].path, record["reason"], len(bad), len(project.shots))
            state = "stop" if len(bad) > _MANY * len(project.shots) else "warn"
            notes.append(Finding("set_aside", state, sentence, {"set_aside": len(bad), "of": len(project.shots)}))
        if with_flags:
            first = f"{with_flags[0]['movie']}: {with_flags[0]['flags']}"
            sentence = f"{len(with_flags)} of {len(good)} movies are flagged ({first})"
            notes.append(Finding("flagged", "warn", sentence, {"flagged": len(with_flags), "of": len(good)}))
        mixture = mixture_of(pd.DataFrame(results))
        if mixture is not None:
            notes.append(mixture)
        pattern = PatternFile.of(project.folder(self.name), self._session(project).record()).summary()
        if pattern is not None and pattern["is_there"]:
            told = {name: pattern[name] for name in ("share", "sigmas", "movies")}
            notes.append(Finding(CODE, "warn", pattern["sentence"], told))
        table = self.place(project, "motion.csv")
        return Verdict.of_notes(notes, numbers, (), f"report.html and {table}")


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value
