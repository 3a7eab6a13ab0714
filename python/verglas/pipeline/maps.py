"""From particles to a map: 2D classes and their selection, ab initio model, refinement, postprocessing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from verglas._native import resolve_threads
from verglas.assessment import PostprocessSettings
from verglas.classification import Class2DSettings, SelectionRules
from verglas.errors import InputError
from verglas.initial_model.consensus import VERDICT_STATES
from verglas.initial_model.settings import AbInitioSettings
from verglas.io import read_json, read_map, read_particles, write_bytes, write_json, write_particles
from verglas.pipeline.project import Project
from verglas.pipeline.settings import ProcessSettings, settings_json, with_overrides
from verglas.pipeline.stage import Stage, file_digest, outputs_of
from verglas.refinement.settings import RefineSettings
from verglas.report.refine import duration
from verglas.run.abinitio import abinitio
from verglas.run.checkpoint import checkpoint_path
from verglas.run.class2d import Class2DJob, class2d_files
from verglas.run.machine import allowed_memory_GB
from verglas.run.postprocess import PostprocessJob, postprocess_files
from verglas.run.refine import refine
from verglas.run.refine_summary import summary
from verglas.run.select import SelectJob, select_automatically, select_files
from verglas.types.listener import Listener, Silence
from verglas.types.settings import former_names
from verglas.types.verdict import STATES, Finding, Verdict, notes_of

AUTO = "auto"  # symmetry to be found
_PER_CLASS = 75  # particles per 2D class, unless that makes fewer than 10 classes or more than 100
# Rough processor seconds, for the plan: per particle and class; per particle and three starts; per particle of 128 px.
_CLASS_S, _START_S, _REFINE_S = 4e-4, 0.08, 0.1
_FREE = ("threads", "device", "memory_GB")  # the project's
_CLASS_MEMORY_GB = 4.0
_ANGLES = ("rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi")
_HAND = Finding("hand", "go on", "the hand is undetermined: the mirror image explains the particles as well")
_NO_SIGNAL = Finding("no_signal", "stop", "the half maps agree nowhere")


class Class2DStage(Stage):
    """2D classes, and the particles of those that look like particles."""

    name = "class2d"
    needs = ("centre",)
    product = "classes"
    page = "classes.html"
    former_names = former_names(Class2DSettings)

    def resolve_settings(self, project: Project) -> tuple[Class2DSettings, SelectionRules]:
        """Settings and the rules of the selection, whose fields are set as ``class2d.rule_<field>``."""
        process_settings, overrides = project.settings, self.given_settings(project)
        rules = {name[5:]: overrides.pop(name) for name in list(overrides) if name.startswith("rule_")}
        default = Class2DSettings(
            classes=process_settings.classes or _count_classes(project),
            diameter_A=process_settings.mask_A,
            seed=process_settings.seed,
        )
        settings = with_overrides(default, overrides, "class2d", _FREE)
        return settings, with_overrides(SelectionRules(), rules, "class2d.rule")

    def settings(self, project: Project) -> dict[str, Any]:
        """Resolved settings."""
        settings, rules = self.resolve_settings(project)
        rule_values = {f"rule_{name}": value for name, value in settings_json(rules).items()}
        return settings_json(settings) | rule_values

    def run(self, project: Project) -> dict[str, str]:
        """Classify, from the last iteration of a run that was killed, or not at all if it was through; select."""
        settings, rules = self.resolve_settings(project)
        if not self.path(project, "summary.json").is_file():
            project.listener.say(plan_sentence(project, settings.classes))
            job = Class2DJob(
                project.root / "particles.star",
                self.path(project),
                settings,
                device=project.device.split(",")[0],
                threads=project.threads,
                memory_GB=min(_CLASS_MEMORY_GB, (project.memory_GB or allowed_memory_GB()) / 2),
            )
            class2d_files(job, listener=_OfClasses("class2d", project.listener))
        subset, selection = select_automatically(self.path(project, "particles.star"), rules=rules)
        write_json(self.path(project, "selection.json"), selection.as_dict())
        if not len(subset):  # its verdict is to stop; who forces it goes on with all of them
            subset = read_particles(self.path(project, "particles.star"))
        # the in-plane angles of 2D classes are no poses of a map
        no_angles = dict.fromkeys(_ANGLES)
        write_particles(self.path(project, "selected.star"), subset.with_columns(**no_angles))
        return self.outputs(project, "selected.star")

    def verdict(self, project: Project) -> Verdict:
        """Whether there are particles in it, or noise."""
        record, whole = read_json(self.path(project, "selection.json")), read_json(self.path(project, "summary.json"))
        numbers = {
            "particles": record["particles"],
            "of_particles": record["of_particles"],
            "classes": len(record["classes"]),
            "of_classes": len(whole["classes"]),
            "left_out": {k: str(v) for k, v in record["left_out"].items()},
        }
        shares = {"particles": record["particles"], "of_particles": record["of_particles"]}
        # a classification of an earlier version has no code
        code = record.get("code", "selection")
        notes = [Finding(code, record["state"], str(line).rstrip("."), shares) for line in record["reasons"]]
        return Verdict.of_notes(notes, numbers, [self.place(project, "classes.png")], self.place(project, self.page))


def plan_sentence(project: Project, classes: int) -> str:
    """Rough times of what follows, for the user to choose whether to wait."""
    particles = read_particles(project.root / "particles.star")
    count, workers = len(particles), resolve_threads(project.threads)
    times = {"2D classes": _CLASS_S * count * classes}
    if project.settings.to == "map":
        if project.settings.reference is None:
            times["ab initio"] = _START_S * min(count, 20000)
        times["refinement"] = _REFINE_S * count * (particles.box / 128) ** 2
    words = ", ".join(f"{name} {duration(seconds / workers)}" for name, seconds in times.items())
    memory = f"memory for 2D classes at most {_CLASS_MEMORY_GB:g} GB"
    return f"{count} particles of {particles.box} px: roughly {words}; {memory}"


class StageListener(Silence):
    """What the project's listener is told of a stage: sentences and phases, marked as the stage's."""

    def __init__(self, stage: str, listener: Listener) -> None:
        self.stage, self.listener = stage, listener

    def say(self, line: str) -> None:
        """A sentence."""
        self.listener.say(f"{self.stage}: {line}")

    def progress(self, phase: str, done: int, total: int) -> None:
        """Progress of a phase."""
        self.listener.progress(f"{self.stage}, {phase}", done, total)


class _OfClasses(StageListener):
    """The same of the 2D classes; iterations, which their page shows, are not told."""

    def progress(self, phase: str, done: int, total: int) -> None:
        """Progress inside an iteration; the ends of iterations, of which there are many, would look like the end."""
        if done < total:
            self.listener.progress(self.stage, done, total)


def _count_classes(project: Project) -> int:
    path = project.folder("centre") / "centring.json"
    count = int(read_json(path)["particles"]) if path.is_file() else 0
    return int(np.clip(round(count / _PER_CLASS), 10, 100))


def particles_for_maps(project: Project) -> Path:
    """Particles of the classes that look like particles, or of those that a person has ticked."""
    folder, selection = project.folder("class2d"), project.settings.selection
    if selection is None:
        return folder / "selected.star"
    out = folder / "ticked.star"
    select_files(SelectJob(folder / "particles.star", out, table=Path(selection)))
    # the in-plane angles of 2D classes are no poses of a map
    write_particles(out, read_particles(out).with_columns(**dict.fromkeys(_ANGLES)))
    return out


def _ticks(project: Project) -> dict[str, str]:
    """A fingerprint of the list of classes that a person has ticked."""
    selection = project.settings.selection
    if selection is None:
        return {}
    if not Path(selection).is_file():
        raise InputError(f"--selection {selection}: no such file; the page of the 2D classes saves one")
    return {"selection": file_digest(Path(selection))}


class AbInitioStage(Stage):
    """A first map from the selected particles."""

    name = "abinitio"
    needs = ("class2d",)
    product = "map"
    page = "report.html"
    pictures = (("map.png", "The ab initio map."),)
    former_names: ClassVar[Mapping[str, str]] = {
        "mirror": "flip_hand",
        **former_names(AbInitioSettings),
    }

    @classmethod
    def is_wanted(cls, process_settings: ProcessSettings) -> bool:
        """Not where the user gives a start map."""
        return super().is_wanted(process_settings) and process_settings.reference is None

    def resolve_settings(self, project: Project) -> tuple[AbInitioSettings, bool]:
        """Settings, and whether the other hand is wanted (``abinitio.flip_hand``)."""
        process_settings, overrides = project.settings, self.given_settings(project)
        flip_hand = bool(overrides.pop("flip_hand", False))
        default = AbInitioSettings(
            symmetry=process_settings.symmetry, diameter_A=process_settings.mask_A, seed=process_settings.seed
        )
        return with_overrides(default, overrides, "abinitio", _FREE), flip_hand

    def settings(self, project: Project) -> dict[str, Any]:
        """Resolved settings."""
        settings, flip_hand = self.resolve_settings(project)
        return settings_json(settings) | {"flip_hand": flip_hand} | _ticks(project)

    def run(self, project: Project) -> dict[str, str]:
        """Make it, from the last checkpoint of a run that was killed."""
        settings, flip_hand = self.resolve_settings(project)
        result = abinitio(
            particles_for_maps(project),
            settings=settings,
            out=self.path(project),
            flip_hand=flip_hand,
            device=project.device.split(",")[0],
            threads=project.threads,
            listener=StageListener("abinitio", project.listener),
        )
        if len(result.maps) == 1:
            _surface(self.path(project, "map.mrc"), None, self.path(project, "map.png"))
            return self.outputs(project, "map.mrc") | {"symmetry": resolve_symmetry(project)}
        raise InputError("abinitio: several classes were asked for; a project refines one map")

    def verdict(self, project: Project) -> Verdict:
        """What its own verdict amounts to for the next stage."""
        record = read_json(self.path(project, "abinitio.json"))
        state = VERDICT_STATES[record["verdict"]]
        numbers = {
            "verdict": record["verdict"],
            "starts": record["starts"],
            "starts_that_agree": record["starts_that_agree"],
            "gain_nats_per_particle": record["gain_nats_per_particle"],
            "symmetry": record["symmetry"],
            "particles": record["particles"],
        }
        notes = [Finding(record["verdict"], state, str(record["sentence"]).rstrip("."), numbers)]
        if record.get("symmetry_sentence"):
            sentence = str(record["symmetry_sentence"]).rstrip(".")
            notes.append(Finding("symmetry", "go on", sentence, {"symmetry": record["symmetry"]}))
        return Verdict.of_notes(notes, numbers, [self.place(project, "map.png")], self.place(project, self.page))


def resolve_symmetry(project: Project) -> str:
    """The point group given, or the one that was found."""
    symmetry = project.settings.symmetry
    path = project.folder("abinitio") / "abinitio.json"
    if symmetry.lower() != AUTO:
        return symmetry
    if not path.is_file():
        raise InputError("process: symmetry auto is found by the stage abinitio; with --reference give the group")
    return str(read_json(path)["symmetry"])


def is_symmetry_unknown(project: Project) -> bool:
    """Whether the point group is still to be found."""
    return project.settings.symmetry.lower() == AUTO and not (project.folder("abinitio") / "abinitio.json").is_file()


def _start_resolution_A(project: Project) -> float:
    """Low-pass of the map that a refinement starts from: a cautious one, unless ab initio starts agree to more.

    What the starts repeat to r is worth keeping to 1.5 r: of a nearly round particle hardly anything lies below 30 A.
    """
    default = RefineSettings().initial_resolution_A
    path = project.folder("abinitio") / "abinitio.json"
    if project.settings.reference is not None or not path.is_file():
        return default
    agreeing = [a for a in read_json(path)["agreement_A"].values() if a is not None]
    return float(np.clip(1.5 * min(agreeing), _FINEST_START_A, default)) if agreeing else default


class _Course(Silence):
    """What a refinement tells, passed on."""

    def __init__(self, listener: Listener) -> None:
        self.listener = listener

    def say(self, line: str) -> None:
        """Pass a line on."""
        self.listener.say(f"refine: {line}")

    def progress(self, phase: str, done: int, total: int) -> None:
        """Pass on how many particles of an iteration are done."""
        self.listener.progress(f"refine, {phase}", done, total)

    def iteration(self, figures: Mapping[str, Any]) -> None:
        """Say nothing: the page of the refinement shows it."""

    def note(self, code: str, sentence: str) -> None:
        """Pass a warning on."""
        self.listener.note(code, sentence)


class RefineStage(Stage):
    """Gold-standard refinement of the selected particles from the ab initio map, or from the one given."""

    name = "refine"
    needs = ("class2d", "abinitio")
    product = "map"
    page = "report.html"
    former_names = former_names(RefineSettings)
    pictures = (("map.png", "The refined map, sharpened."),)

    def resolve_settings(self, project: Project) -> RefineSettings:
        """Resolved."""
        process_settings = project.settings
        group = process_settings.symmetry if process_settings.symmetry.lower() != AUTO else resolve_symmetry(project)
        default = RefineSettings(
            symmetry=group,
            diameter_A=process_settings.mask_A,
            seed=process_settings.seed,
            initial_resolution_A=_start_resolution_A(project),
        )
        return with_overrides(default, self.given_settings(project), "refine", ("classes", "mode"))

    def settings(self, project: Project) -> dict[str, Any]:
        """Resolved settings."""
        rule_values = {} if is_symmetry_unknown(project) else settings_json(self.resolve_settings(project))
        return rule_values | {"reference": project.settings.reference}

    def inputs(self, project: Project) -> dict[str, str]:
        """Particles and start map."""
        if project.settings.reference is None:
            return super().inputs(project) | _ticks(project)
        return (
            outputs_of(project, "class2d")
            | _ticks(project)
            | {"reference": file_digest(Path(project.settings.reference))}
        )

    def run(self, project: Project) -> dict[str, str]:
        """From the start, or from the checkpoint of a run that was killed."""
        settings, folder = self.resolve_settings(project), self.path(project)
        reference = project.settings.reference
        start = Path(reference) if reference is not None else project.folder("abinitio") / "map.mrc"
        again = checkpoint_path(folder).is_file()
        if not again:  # killed before its first checkpoint
            (folder / "run.json").unlink(missing_ok=True)
        values = {name: value for name, value in vars(settings).items() if name not in ("symmetry", "diameter_A")}
        result = refine(
            particles_for_maps(project),
            start,
            settings.symmetry,
            settings.diameter_A,
            out=folder,
            device=project.device,
            threads=project.threads,
            memory_GB=project.memory_GB,
            resume=again,
            listener=_Course(project.listener),
            cluster=project.workers,
            **values,
        )
        write_json(folder / "summary.json", summary(result))
        _pictures(folder)
        return self.outputs(project, "half1.mrc", "half2.mrc", "particles.star")

    def verdict(self, project: Project) -> Verdict:
        """Whether the half maps agree, and whether it has converged."""
        record, run = read_json(self.path(project, "summary.json")), read_json(self.path(project, "run.json"))
        numbers = {
            "resolution_A": record["resolution_A"],
            **({"resolution_withheld_by": code} if (code := record.get("resolution_withheld_by")) else {}),
            "resolutions_A": record["resolutions_A"],
            "b_factor_A2": record["b_factor_A2"],
            "particles": record["particles"],
            "excluded": record["excluded"],
            "iterations": record["iterations"],
            "peak_memory_GB": record["peak_memory_GB"],
        }
        pictures = (self.place(project, "map.png"), self.place(project, "fsc.png"))
        page = self.place(project, self.page)
        if record["resolution_A"] is None:
            return Verdict.of_notes([_NO_SIGNAL], numbers, pictures, page)
        notes = [note for note in notes_of(run) if note.state != "go on"]
        if not run.get("converged", run["state"] == "converged"):  # runs of earlier versions have the sentence only
            notes.insert(0, Finding("not_converged", "warn", f"not converged: {run['state']}"))
        if record["excluded"]:
            sentence = f"{record['excluded']} particles set aside"
            notes.append(Finding("excluded", "go on", sentence, {"excluded": record["excluded"]}))
        # runs of earlier versions have no verdict of their own; what it finds in order is kept, and not said
        refinement_verdict = Verdict.from_dict(run["verdict"]) if run.get("verdict") else Verdict("go on")
        verdict = Verdict.of_notes(notes, {**numbers, **refinement_verdict.numbers}, pictures, page)
        return replace(
            verdict,
            state=max(refinement_verdict.state, verdict.state, key=STATES.index),
            reasons=(*refinement_verdict.reasons, *verdict.reasons),
            findings=(*refinement_verdict.findings, *verdict.findings),
        )


_FINEST_START_A = 20.0  # beyond it the half maps share nothing that they were given


# Refinements that may follow the first, in order: those of the first round, then of later ones.
FINISHES = tuple(f"{name}{end}" for end in ("", "_2", "_3") for name in ("refine_ctf", "refine_polish"))


def last_refined(project: Project, before: str = "") -> str:
    """The stage whose half maps go on: the latest refinement that is kept, of those ``before`` one where that is given.

    Files of refinements that the settings no longer ask for do not count.
    """
    from verglas.pipeline.finish import finishing_names

    wanted, stage = finishing_names(project.settings), "refine"
    for name in FINISHES:
        if name == before:
            break
        record = project.folder(name) / "finish.json"
        if name in wanted and record.is_file() and read_json(record)["kept"]:
            stage = name
    return stage


class PostprocessStage(Stage):
    """Sharpened map and resolution of the half maps."""

    name = "postprocess"
    needs = ("refine",)
    product = "map"
    page = "report.html"
    pictures = (("map.png", "The sharpened map."),)

    def inputs(self, project: Project) -> dict[str, str]:
        """Half maps of the first refinement, and of later ones where there are any."""
        from verglas.pipeline.finish import finishing_names

        later = [name for name in finishing_names(project.settings) if name in FINISHES]
        return super().inputs(project) | outputs_of(project, *later)

    def resolve_settings(self, project: Project) -> PostprocessSettings:
        """Resolved."""
        group = RefineStage().resolve_settings(project).symmetry
        default = PostprocessSettings(symmetry=group, seed=project.settings.seed)
        return with_overrides(default, self.given_settings(project), "postprocess", ("threads",))

    def settings(self, project: Project) -> dict[str, Any]:
        """Resolved settings."""
        return {} if is_symmetry_unknown(project) else settings_json(self.resolve_settings(project), ("threads",))

    def run(self, project: Project) -> dict[str, str]:
        """Make map, mask, curves and a page."""
        source = project.folder(last_refined(project))
        job = PostprocessJob(
            source / "half1.mrc",
            source / "half2.mrc",
            self.path(project),
            settings=self.resolve_settings(project),
            threads=project.threads,
        )
        result = postprocess_files(job, listener=None)
        write_json(self.path(project, "summary.json"), result.as_dict())
        _pictures(self.path(project))
        return self.outputs(project, "map_sharpened.mrc", "mask.mrc")

    def verdict(self, project: Project) -> Verdict:
        """Warnings of the postprocessing."""
        record = read_json(self.path(project, "summary.json"))
        numbers = {name: record.get(name) for name in ("resolution_A", "resolutions_A", "b_factor_A2")}
        numbers |= {"resolution_withheld_by": code} if (code := record.get("resolution_withheld_by")) else {}
        notes = [replace(note, sentence=note.sentence.rstrip(".")) for note in notes_of(record)]
        page = self.place(project, self.page)
        if record.get("resolution_A") is None:
            return Verdict.of_notes([_NO_SIGNAL, *notes], numbers, (), page)
        if project.settings.reference is None:
            notes.append(_HAND)
        return Verdict.of_notes(notes, numbers, [self.place(project, "map.png"), self.place(project, "fsc.png")], page)


def _surface(volume: Path, mask: Path | None, target: Path) -> None:
    from verglas.report import figures

    write_bytes(target, figures.views(read_map(volume), None if mask is None else read_map(mask)))


def _pictures(folder: Path) -> None:
    """map.png and fsc.png of a folder that postprocessing wrote into."""
    from verglas.report import figures
    from verglas.report.assessed import read_assessed

    _surface(folder / "map_sharpened.mrc", folder / "mask.mrc", folder / "map.png")
    assessment = read_assessed(folder)
    assert assessment is not None
    write_bytes(folder / "fsc.png", figures.fsc(assessment.curves, legend_at=0.143))
