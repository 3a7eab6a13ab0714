"""After a first map: CTFs refined, particles polished, and the map refined again, in rounds, while it improves."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

from verglas.errors import InputError
from verglas.io import read_json, write_json
from verglas.pipeline.maps import FINISHES, RefineStage, StageListener, is_symmetry_unknown, last_refined
from verglas.pipeline.project import Project
from verglas.pipeline.settings import ProcessSettings, settings_json, with_overrides
from verglas.pipeline.stage import Stage, outputs_of
from verglas.run.checkpoint import checkpoint_path
from verglas.run.ctf_refine import CtfRefineJob, CtfRefineSettings, ctf_refine_files
from verglas.run.polish import PolishSettings, polish_files
from verglas.run.polish_inputs import MovieReading
from verglas.run.refine import refine
from verglas.run.refine_summary import summary
from verglas.types.verdict import Finding, Verdict

_WORSE = 1.01  # times the resolution before: within this the later map is taken, as its CTFs are the better ones
_BETTER = 0.99  # times the resolution before a round: one that brings less has no successor
_STANDS = "finish.json"


class FinishStage(Stage):
    """A step of a round.

    Attributes
    ----------
    round : int
        From 1; stages of later rounds have its number behind their names.
    refinement : str
        The first refinement that comes after this stage, or that this stage is, in the first round.
    """

    product = "map"
    page = "report.html"
    round: ClassVar[int] = 1
    refinement: ClassVar[str] = ""

    @classmethod
    def is_wanted(cls, process_settings: ProcessSettings) -> bool:
        """Where the map is to be finished, and so often."""
        wanted = super().is_wanted(process_settings) and process_settings.finish
        return wanted and cls.round <= process_settings.finish_rounds

    @property
    def first_name(self) -> str:
        """Of the same stage of the first round."""
        return self.name.removesuffix(f"_{self.round}")

    def of_round(self, name: str) -> str:
        """A stage of the same round, by its name in the first."""
        return name if self.round == 1 else f"{name}_{self.round}"

    def given_settings(self, project: Project) -> dict[str, Any]:
        """Those of the first round hold for all, unless one is given for this."""
        values = project.settings.of_stage(self.first_name) | project.settings.of_stage(self.name)
        return {self.former_names.get(k, k): v for k, v in values.items()}

    def source(self, project: Project) -> Path:
        """Folder of the refinement that goes on, of those before this stage."""
        return project.folder(last_refined(project, self.of_round(self.refinement)))

    def inputs(self, project: Project) -> dict[str, str]:
        """All that was made since the first refinement."""
        order = [stage.name for stage in FINISHING]
        earlier = order[: order.index(self.name)]
        return outputs_of(project, "refine", *(name for name in finishing_names(project.settings) if name in earlier))

    def stands(self, project: Project, why: str, code: str) -> dict[str, str]:
        """Nothing to do, with a sentence."""
        before = read_json(self.source(project) / "summary.json")["resolution_A"]
        record = {"kept": False, "before_A": before, "after_A": None, "why": why, "code": code}
        write_json(self.path(project, _STANDS), record)
        return self.outputs(project, _STANDS)

    def skip_verdict(self, project: Project, state: str = "go on") -> Verdict | None:
        """The verdict of a stage that had nothing to do; None where it had."""
        path = self.path(project, _STANDS)
        record = read_json(path) if path.is_file() else {}
        if not record.get("why"):
            return None
        return Verdict.of_notes([Finding(record["code"], state, record["why"], record)], record)

    def has_come_to_rest(self, project: Project) -> str:
        """Why this round is not begun; empty where it is."""
        if self.round == 1:
            return ""
        former = self.round - 1
        start = last_refined(project, FINISHES[2 * (former - 1)])
        end = last_refined(project, FINISHES[2 * former])
        names = [read_json(project.folder(name) / "summary.json")["resolution_A"] for name in (start, end)]
        before, after = names
        if start != end and after is not None and (before is None or after < _BETTER * before):
            return ""
        told = "did not change the map" if start == end else f"brought {before:.2f} A to {after:.2f} A"
        return f"round {former} {told}: no further round"


def finishing_names(process_settings: ProcessSettings) -> list[str]:
    """Stages after the first refinement that these settings ask for, in order."""
    return [stage.name for stage in FINISHING if stage.is_wanted(process_settings)]


class CtfRefineStage(FinishStage):
    """Defocus of particles and aberrations of groups, against the half maps of the refinement before."""

    name = "ctf_refine"
    refinement = "refine_ctf"

    def resolve_settings(self, project: Project) -> CtfRefineSettings:
        """Resolved: symmetry and mask are the refinement's."""
        first = RefineStage().resolve_settings(project)
        default = CtfRefineSettings(symmetry=first.symmetry, diameter_A=first.diameter_A)
        return with_overrides(default, self.given_settings(project), self.name)

    def settings(self, project: Project) -> dict[str, Any]:
        """Resolved settings."""
        return {} if is_symmetry_unknown(project) else settings_json(self.resolve_settings(project))

    def run(self, project: Project) -> dict[str, str]:
        """Fit, and write particles with the CTFs that held-out data gain by."""
        if why := self.has_come_to_rest(project):
            return self.stands(project, why, "at_rest")
        source = self.source(project)
        job = CtfRefineJob(
            source / "particles.star",
            self.path(project),
            (source / "half1.mrc", source / "half2.mrc"),
            settings=self.resolve_settings(project),
            threads=project.threads,
            device=project.device.split(",")[0],
        )
        ctf_refine_files(job, listener=StageListener(self.name, project.listener))
        return self.outputs(project, "particles.star", "ctf_refine.json")

    def verdict(self, project: Project) -> Verdict:
        """What was kept; that nothing was is no fault."""
        if stood := self.skip_verdict(project):
            return stood
        record = read_json(self.path(project, "ctf_refine.json"))
        numbers = {"kept": kept_fits(self.path(project)), "rounds": len(record["rounds"])}
        note = Finding("ctf_refined" if numbers["kept"] else "ctf_stands", "go on", record["verdict"], numbers)
        return Verdict.of_notes([note], numbers, (), self.place(project, self.page))


def kept_fits(folder: Path) -> list[str]:
    """Names of the fits that a folder of ctf-refine has kept."""
    path = folder / "ctf_refine.json"
    rounds = read_json(path)["rounds"] if path.is_file() else []
    return sorted({fit["what"] for made in rounds for fit in made["fits"] if fit["kept"]})


class PolishStage(FinishStage):
    """Particles followed through their movies against the half maps of the refinement before."""

    name = "polish"
    refinement = "refine_polish"
    page = ""

    @classmethod
    def is_wanted(cls, process_settings: ProcessSettings) -> bool:
        """Where there are movies."""
        return super().is_wanted(process_settings) and bool(process_settings.movies)

    def resolve_settings(self, project: Project) -> PolishSettings:
        """Resolved: symmetry and mask are the refinement's."""
        first = RefineStage().resolve_settings(project)
        default = PolishSettings(symmetry=first.symmetry, diameter_A=first.diameter_A)
        return with_overrides(default, self.given_settings(project), self.name)

    def settings(self, project: Project) -> dict[str, Any]:
        """Resolved settings."""
        return {} if is_symmetry_unknown(project) else settings_json(self.resolve_settings(project))

    def inputs(self, project: Project) -> dict[str, str]:
        """The movies' motion, too."""
        return super().inputs(project) | outputs_of(project, "motion")

    def run(self, project: Project) -> dict[str, str]:
        """Polish, from where it was killed; movies that cannot be used leave the map as it is."""
        if why := self.has_come_to_rest(project):
            return self.stands(project, why, "at_rest")
        source, folder = self.source(project), self.path(project)
        # What an attempt that was killed said of its failure must not outlive one that succeeds.
        self.path(project, _STANDS).unlink(missing_ok=True)
        if not (folder / "polish.json").is_file():  # written last
            try:
                polish_files(
                    source / "particles.star",
                    project.folder("motion") / "micrographs.star",
                    folder,
                    self.resolve_settings(project),
                    half_maps=(source / "half1.mrc", source / "half2.mrc"),
                    reading=_reading_of(project),
                    threads=project.threads,
                    listener=StageListener(self.name, project.listener),
                )
            except InputError as error:
                return self.stands(project, f"the particles were not polished: {error}", "not_polished")
        record = read_json(folder / "polish.json")
        return self.outputs(project, "polish.json", *(["shiny.star"] if record["changed"] else []))

    def verdict(self, project: Project) -> Verdict:
        """What held-out data gain; that they gain nothing is no fault."""
        path = self.path(project, _STANDS)
        failed = path.is_file() and read_json(path).get("code") == "not_polished"
        if stood := self.skip_verdict(project, "warn" if failed else "go on"):
            return stood
        record = read_json(self.path(project, "polish.json"))
        numbers = {name: record[name] for name in ("particles", "excluded", "prior", "tracks")}
        code = "polished" if record["changed"] else "frames_stand"
        return Verdict.of_notes([Finding(code, "go on", record["verdict"], numbers)], numbers)


def _reading_of(project: Project) -> MovieReading:
    """Movies read as the stage of the motion read them."""
    from verglas.pipeline.motion import MotionStage

    return MovieReading(gain=project.settings.gain, flip_y=MotionStage().resolve_settings(project).flip_y)


class RefineCtfStage(FinishStage):
    """The map once more with the refined CTFs, from the poses that stand; kept if it is no worse."""

    name = "refine_ctf"
    refinement = "refine_ctf"
    with_what = "with the refined CTFs"

    def particles(self, project: Project) -> Path | None:
        """What has changed; None where nothing has."""
        folder = project.folder(self.of_round("ctf_refine"))
        return folder / "particles.star" if kept_fits(folder) else None

    def nothing_new(self) -> str:
        """Why there is nothing to refine."""
        return "the CTFs stand, and so does the map" if self.round > 1 else "the CTFs stand, and so does the first map"

    def settings(self, project: Project) -> dict[str, Any]:
        """Those of the first refinement, with poses that stand."""
        if is_symmetry_unknown(project):
            return {}
        first = RefineStage().resolve_settings(project)
        changes = {"poses": "local"} | self.given_settings(project)
        return settings_json(with_overrides(first, changes, self.name, ("classes", "mode")))

    def run(self, project: Project) -> dict[str, str]:
        """Refine, where the particles have changed; judge by the resolution of the half maps."""
        before = read_json(self.source(project) / "summary.json")["resolution_A"]
        particles = self.particles(project)
        if particles is None:
            return self.stands(project, self.nothing_new(), "map_stands")
        folder, values = self.path(project), self.settings(project)
        group, diameter_A = values.pop("symmetry"), values.pop("diameter_A")
        again = checkpoint_path(folder).is_file()
        if not again:  # killed before its first checkpoint
            (folder / "run.json").unlink(missing_ok=True)
        result = refine(
            particles,
            None,
            group,
            diameter_A,
            out=folder,
            device=project.device,
            threads=project.threads,
            memory_GB=project.memory_GB,
            resume=again,
            listener=StageListener(self.name, project.listener),
            cluster=project.workers,
            **values,
        )
        record = summary(result)
        write_json(folder / "summary.json", record)
        judged = {"kept": is_kept(before, record["resolution_A"]), "before_A": before}
        write_json(folder / _STANDS, judged | {"after_A": record["resolution_A"]})
        return self.outputs(project, _STANDS, "half1.mrc", "half2.mrc", "particles.star")

    def verdict(self, project: Project) -> Verdict:
        """Which map goes on."""
        record = read_json(self.path(project, _STANDS))
        before, after = record["before_A"], record["after_A"]
        numbers = {"resolution_A": after if record["kept"] else before, **record}
        if after is None:
            note = Finding("map_stands", "go on", record.get("why") or self.nothing_new(), record)
            return Verdict.of_notes([note], numbers)
        former = "first" if self.source(project) == project.folder("refine") else "former"
        which = "the later map goes on" if record["kept"] else f"the {former} map goes on"
        sentence = f"{before:.2f} A before, {after:.2f} A {self.with_what}: {which}"
        code = "map_improved" if record["kept"] else "map_stands"
        return Verdict.of_notes([Finding(code, "go on", sentence, record)], numbers, (), self.place(project, self.page))


class RefinePolishStage(RefineCtfStage):
    """The map once more from polished particles, from the poses that stand; kept if it is no worse."""

    name = "refine_polish"
    refinement = "refine_polish"
    with_what = "from polished particles"

    @classmethod
    def is_wanted(cls, process_settings: ProcessSettings) -> bool:
        """Where there are movies."""
        return PolishStage.is_wanted(process_settings) and super().is_wanted(process_settings)

    def particles(self, project: Project) -> Path | None:
        """Those of the polishing, if it changed them."""
        path = project.folder(self.of_round("polish")) / "polish.json"
        return path.parent / "shiny.star" if path.is_file() and read_json(path)["changed"] else None

    def nothing_new(self) -> str:
        """Why there is nothing to refine."""
        return "the particles stand, and so does the map"


def is_kept(before_A: float | None, after_A: float | None) -> bool:
    """Whether the later of two resolutions is no worse.

    Examples
    --------
    >>> from verglas.pipeline.finish import is_kept
    >>> is_kept(3.0, 2.8), is_kept(3.0, 3.01), is_kept(3.0, 3.2), is_kept(3.0, None)
    (True, True, False, False)
    """
    return after_A is not None and (before_A is None or after_A <= _WORSE * before_A)


def _later(stage: type[FinishStage], number: int) -> type[FinishStage]:
    """The same stage of a later round."""
    return type(f"{stage.__name__}{number}", (stage,), {"name": f"{stage.name}_{number}", "round": number})


_FIRST: tuple[type[FinishStage], ...] = (CtfRefineStage, RefineCtfStage, PolishStage, RefinePolishStage)
FINISHING: tuple[type[FinishStage], ...] = (*_FIRST, *(_later(stage, n) for n in (2, 3) for stage in _FIRST))
