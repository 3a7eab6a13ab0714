"""What follows a first map: the CTF refined against its half maps, and the map refined again with it, if that helps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from verglas.io import read_json, write_json
from verglas.pipeline.maps import RefineStage, StageListener, is_symmetry_unknown
from verglas.pipeline.project import Project
from verglas.pipeline.settings import ProcessSettings, settings_json, with_overrides
from verglas.pipeline.stage import Stage
from verglas.run.checkpoint import checkpoint_path
from verglas.run.ctf_refine import CtfRefineJob, CtfRefineSettings, ctf_refine_files
from verglas.run.refine import refine, summary
from verglas.types.verdict import Finding, Verdict

_WORSE = 1.01  # times the resolution before: within this the later map is taken, as its CTFs are the better ones


class CtfRefineStage(Stage):
    """Defocus of particles and aberrations of groups, against the half maps of the first refinement."""

    name = "ctf_refine"
    needs = ("refine",)
    product = "map"
    page = "report.html"

    @classmethod
    def is_wanted(cls, process_settings: ProcessSettings) -> bool:
        """Where the map is to be finished."""
        return super().is_wanted(process_settings) and process_settings.finish

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
        source = project.folder("refine")
        job = CtfRefineJob(
            source / "particles.star",
            self.path(project),
            (source / "half1.mrc", source / "half2.mrc"),
            settings=self.resolve_settings(project),
            threads=project.threads,
        )
        ctf_refine_files(job, listener=StageListener(self.name, project.listener))
        return self.outputs(project, "particles.star", "ctf_refine.json")

    def verdict(self, project: Project) -> Verdict:
        """What was kept; that nothing was is no fault."""
        record = read_json(self.path(project, "ctf_refine.json"))
        numbers = {"kept": kept_fits(self.path(project)), "rounds": len(record["rounds"])}
        note = Finding("ctf_refined" if numbers["kept"] else "ctf_stands", "go on", record["verdict"], numbers)
        return Verdict.of_notes([note], numbers, (), self.place(project, self.page))


def kept_fits(folder: Path) -> list[str]:
    """Names of the fits that a folder of ctf-refine has kept."""
    rounds = read_json(folder / "ctf_refine.json")["rounds"]
    return sorted({fit["what"] for made in rounds for fit in made["fits"] if fit["kept"]})


class RefineCtfStage(Stage):
    """The map once more with the refined CTFs, from the poses that stand; kept if it is no worse."""

    name = "refine_ctf"
    needs = ("refine", "ctf_refine")
    product = "map"
    page = "report.html"

    @classmethod
    def is_wanted(cls, process_settings: ProcessSettings) -> bool:
        """Where the map is to be finished."""
        return CtfRefineStage.is_wanted(process_settings)

    def settings(self, project: Project) -> dict[str, Any]:
        """Those of the first refinement, with poses that stand."""
        if is_symmetry_unknown(project):
            return {}
        first = RefineStage().resolve_settings(project)
        changes = {"poses": "local"} | self.given_settings(project)
        return settings_json(with_overrides(first, changes, self.name, ("classes", "mode")))

    def run(self, project: Project) -> dict[str, str]:
        """Refine, where the CTFs have changed; judge by the resolution of the half maps."""
        before = read_json(project.folder("refine") / "summary.json")["resolution_A"]
        if not kept_fits(project.folder("ctf_refine")):
            write_json(self.path(project, "finish.json"), {"kept": False, "before_A": before, "after_A": None})
            return self.outputs(project, "finish.json")
        folder, values = self.path(project), self.settings(project)
        group, diameter_A = values.pop("symmetry"), values.pop("diameter_A")
        again = checkpoint_path(folder).is_file()
        if not again:  # killed before its first checkpoint
            (folder / "run.json").unlink(missing_ok=True)
        result = refine(
            project.folder("ctf_refine") / "particles.star",
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
        write_json(folder / "finish.json", judged | {"after_A": record["resolution_A"]})
        return self.outputs(project, "finish.json", "half1.mrc", "half2.mrc", "particles.star")

    def verdict(self, project: Project) -> Verdict:
        """Which map goes on."""
        record = read_json(self.path(project, "finish.json"))
        before, after = record["before_A"], record["after_A"]
        numbers = {"resolution_A": after if record["kept"] else before, **record}
        if after is None:
            note = Finding("map_stands", "go on", "the CTFs stand, and so does the first map", record)
            return Verdict.of_notes([note], numbers)
        which = "the later map goes on" if record["kept"] else "the first map goes on"
        sentence = f"{before:.2f} A before, {after:.2f} A with the refined CTFs: {which}"
        code = "map_improved" if record["kept"] else "map_stands"
        return Verdict.of_notes([Finding(code, "go on", sentence, record)], numbers, (), self.place(project, self.page))


def is_kept(before_A: float | None, after_A: float | None) -> bool:
    """Whether the later of two resolutions is no worse.

    Examples
    --------
    >>> from verglas.pipeline.finish import is_kept
    >>> is_kept(3.0, 2.8), is_kept(3.0, 3.01), is_kept(3.0, 3.2), is_kept(3.0, None)
    (True, True, False, False)
    """
    return after_A is not None and (before_A is None or after_A <= _WORSE * before_A)
