"""Stages that work on one micrograph at a time: what they share, and CTF estimation and picking.

Each micrograph leaves a result of its own, written last and as a whole: a run that is killed goes on with what is
there, a watched folder is worked on file by file, and a set of thousands grows without being done again.
"""

from __future__ import annotations

import functools
import time
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from verglas.errors import InputError, VerglasError
from verglas.io import read_micrograph, write_bytes
from verglas.io.micrographs import PIXEL, SHARED, SPECTRUM
from verglas.io.power_spectra import read_power_spectrum
from verglas.io.rules import written_name
from verglas.optics.fit import CtfSettings, estimate_ctf, ice_ring
from verglas.picking import PickSettings, pick_detailed
from verglas.picking.blob import contrast_skewness
from verglas.picking.particles import MERIT
from verglas.pipeline.project import Project, Shot
from verglas.pipeline.settings import settings_json, with_overrides
from verglas.pipeline.stage import Stage, digest, file_digest
from verglas.run.candidates import FOLDER as CANDIDATES
from verglas.run.candidates import LeftOut, candidates_star
from verglas.run.motion_files import PARTS
from verglas.run.parallel import in_order
from verglas.run.pick_inputs import read_templates
from verglas.run.screen import screening_reason
from verglas.types import Micrograph, Optics, Picks
from verglas.types.settings import former_names
from verglas.types.verdict import Verdict

Picture = tuple[Path, Callable[[], bytes]]
_OPTICS = ("voltage_kV", "cs_mm", "amplitude_contrast")
_CTF_LABELS = {
    "defocus_u_A": "rlnDefocusU",
    "defocus_v_A": "rlnDefocusV",
    "defocus_angle_deg": "rlnDefocusAngle",
    "phase_shift_deg": "rlnPhaseShift",
    **dict(zip(_OPTICS, SHARED, strict=True)),
}


@dataclass(frozen=True)
class Work:
    """One micrograph, done or not.

    Attributes
    ----------
    shot : Shot
    digest : str
        Of everything that the result depends on.
    result : mapping
        JSON-ready; empty where there is a reason.
    reason : str
        Why the micrograph cannot be used.
    seconds : float
    pictures : sequence of (path, function)
        Drawn when the result is kept, by one thread: matplotlib's settings are global.
    transient : bool
        The reason may go away by itself (a network file system, memory).
    """

    shot: Shot
    digest: str
    result: Mapping[str, Any]
    reason: str = ""
    seconds: float = 0.0
    pictures: Sequence[Picture] = ()
    transient: bool = False


class MicrographStage(Stage):
    """What the stages of single micrographs share.

    A subclass says its name and the stages whose results it needs, and computes one micrograph; ``finish`` writes what
    the set of them amounts to.
    """

    keeps_parts = True

    @abstractmethod
    def compute(self, project: Project, shot: Shot) -> tuple[dict[str, Any], list[Picture]]:
        """Result and pictures of one micrograph; may raise what reading and computing raise."""

    @abstractmethod
    def finish(self, project: Project) -> dict[str, str]:
        """Files of the whole set."""

    def inputs(self, project: Project) -> dict[str, str]:
        """The micrographs, and results of earlier stages that micrographs are passed on by."""
        digests = {"micrographs": digest([[shot.key, project.mark_of(shot)] for shot in project.shots])}
        for name in self.needs:
            results = project.results(name)
            digests[name] = digest([[s.key, (results.get(s.key) or {}).get("digest")] for s in project.shots])
        return digests

    def todo(self, project: Project) -> list[Shot]:
        """The micrographs that earlier stages have passed on."""
        return [shot for shot in project.shots if all(has_passed(project, name, shot) for name in self.needs)]

    def one_digest(self, project: Project, shot: Shot) -> str:
        """What the result of one micrograph depends on."""
        # What an earlier result was made from stands for it: the result itself need not be read and hashed.
        earlier = [(project.results(name).get(shot.key) or {}).get("digest") for name in self.needs]
        return digest([self.settings(project), project.mark_of(shot), project.metadata_of(shot), earlier])

    def work(self, project: Project, shot: Shot) -> Work:
        """Compute one micrograph; what is wrong with it becomes the reason."""
        start_time = time.perf_counter()
        mark = self.one_digest(project, shot)
        try:
            result, pictures = self.compute(project, shot)
        except (VerglasError, OSError, MemoryError) as error:
            reason = str(error) or type(error).__name__
            # Our own errors are about the data and will be the same tomorrow; those of the system may pass.
            transient = not isinstance(error, VerglasError)
            return Work(shot, mark, {}, reason, time.perf_counter() - start_time, transient=transient)
        return Work(shot, mark, result, str(result.get("reason", "")), time.perf_counter() - start_time, pictures)

    def keep(self, project: Project, work: Work) -> None:
        """Draw and write; the record comes last, so that a record means everything is there."""
        for path, draw in work.pictures:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_bytes(path, draw())
        project.results(self.name).put(work.shot.key, self.record(work))

    @staticmethod
    def record(work: Work) -> dict[str, Any]:
        """What is kept of the work on a micrograph."""
        return {
            "digest": work.digest,
            "name": work.shot.name,
            "path": str(work.shot.path),
            "reason": work.reason,
            "seconds": round(work.seconds, 3),
            "result": dict(work.result),
        }

    def run(self, project: Project) -> dict[str, str]:
        """All micrographs that have no result of these settings yet, then the set."""
        results = project.results(self.name)
        every = self.todo(project)
        waiting = [shot for shot in every if results.get(shot.key, self.one_digest(project, shot)) is None]
        n_ready = len(every) - len(waiting)
        if waiting:
            self.prepare(project)
        for number, work in enumerate(self._works(project, waiting), 1):
            self.keep(project, work)
            project.listener.progress(self.name, n_ready + number, len(every))
        return self.finish(project)

    def prepare(self, project: Project) -> None:
        """Find what all micrographs have in common, before the first of them is worked on."""

    def _works(self, project: Project, shots: Sequence[Shot]) -> Iterator[Work]:
        """In order: in threads of this process, or on the project's workers."""
        if project.workers is None:
            return in_order(lambda shot: self.work(project, shot), shots, project.threads)
        from verglas.pipeline.remote import work_elsewhere

        return work_elsewhere(self, project, shots)


def has_passed(project: Project, stage: str, shot: Shot) -> bool:
    """Whether a micrograph came through a stage."""
    record = project.results(stage).get(shot.key)
    return record is not None and not record["reason"]


def result_of(project: Project, stage: str, shot: Shot) -> dict[str, Any]:
    """The result of a micrograph that came through a stage."""
    record = project.results(stage).get(shot.key)
    assert record is not None
    return dict(record["result"])


def set_aside_sentence(what: str, path: Path, reason: str, count: int, total: int) -> str:
    """How many of the micrographs or movies, and the first by name, which a reader's reason holds already."""
    sentence = reason if path.name in reason else f"{path.name}: {reason}"
    return f"{count} of {total} {what} set aside ({sentence}{'; ...' if count > 1 else ''})"


def load(project: Project, shot: Shot) -> tuple[Micrograph, float | None]:
    """A micrograph at the pixel size asked for, and the pixel size that its header says.

    Raises
    ------
    InputError
        The pixel size is unknown, or pixels are not finite.
    FormatError
        The file is no micrograph.
    """
    path = project.micrograph_of(shot)
    micrograph = read_micrograph(path)
    header = float(micrograph.pixel_size_A) if np.isfinite(micrograph.pixel_size_A) else None
    pixel = project.pixel_size_A or project.metadata_of(shot).get(PIXEL) or header
    if pixel is None:
        raise InputError(f"{path}: the pixel size is unknown: neither header nor list says; give --pixel-size")
    bad = int(np.count_nonzero(~np.isfinite(micrograph.data)))
    if bad:
        raise InputError(f"{path}: {bad} of {micrograph.data.size} pixels are not finite numbers")
    return replace(micrograph, pixel_size_A=pixel), header


def optics_of_result(result: Mapping[str, Any]) -> Optics:
    """The CTF in the result of a micrograph."""
    values = {name: np.array([float(result[name])]) for name in _CTF_LABELS}
    return Optics(**values)


def ctf_row(result: Mapping[str, Any]) -> dict[str, float]:
    """The CTF in the result of a micrograph, by RELION's labels."""
    row = {label: float(result[name]) for name, label in _CTF_LABELS.items()}
    # Columns of our own only where they say something: other programs complain of labels they do not know.
    if any(result["gradient"]):
        row |= dict(zip(("vgDefocusGradientX", "vgDefocusGradientY"), result["gradient"], strict=True))
        row |= dict(zip(("vgCentreX", "vgCentreY"), result["centre_px"], strict=True))
    return row


class CtfStage(MicrographStage):
    """CTF of every micrograph; those without rings and files that cannot be read are set aside."""

    name = "ctf"
    page = "report.html"

    def todo(self, project: Project) -> list[Shot]:
        """All micrographs; of movies those that could be corrected."""
        return [s for s in project.shots if not project.settings.movies or has_passed(project, "motion", s)]

    def resolve_settings(self, project: Project, shot: Shot | None = None) -> CtfSettings:
        """Settings; of one micrograph, with what its STAR file says of the microscope."""
        process_settings = project.settings
        default = CtfSettings()
        values: dict[str, float] = {}
        for name, label in zip(_OPTICS, SHARED, strict=True):
            shot_value = None if shot is None else project.metadata_of(shot).get(label)
            overrides = getattr(process_settings, name)
            values[name] = float(next(v for v in (overrides, shot_value, getattr(default, name)) if v is not None))
        return with_overrides(replace(default, **values), self.given_settings(project), "ctf")  # type: ignore[arg-type]

    def settings(self, project: Project) -> dict[str, Any]:
        """Resolved settings."""
        return settings_json(self.resolve_settings(project)) | {"pixel_size_A": project.settings.pixel_size_A}

    def compute(self, project: Project, shot: Shot) -> tuple[dict[str, Any], list[Picture]]:
        """Fit; the result holds what STAR files and pages need, without spectra."""
        micrograph, header = load(project, shot)
        # motion correction has written it; micrographs that came as such have none
        path = project.micrograph_of(shot).with_name(f"{shot.key}{PARTS[SPECTRUM]}")
        spectrum = read_power_spectrum(path) if project.settings.movies and path.is_file() else None
        fit = estimate_ctf(micrograph, self.resolve_settings(project, shot), spectrum=spectrum)
        fit = replace(fit, name=shot.path.name)
        o = fit.optics
        result = {
            **fit.as_dict(),
            "voltage_kV": float(o.voltage_kV[0]),
            "cs_mm": float(o.cs_mm[0]),
            "amplitude_contrast": float(o.amplitude_contrast[0]),
            "astigmatism_A": round(fit.astigmatism_A, 1),
            "gradient": [float(v) for v in fit.gradient],
            "centre_px": [float(v) for v in fit.centre_px],
            "shape": list(micrograph.shape),
            "pixel_size_A": micrograph.pixel_size_A,
            "header_pixel_size_A": header,
            "ice_ring": _number(ice_ring(fit.spectra.mean, micrograph.pixel_size_A), 4),
        }
        from verglas.report.ctf import ShownCtf, ctf_figure

        folder = project.folder("ctf")
        return result, [
            (folder / "png" / f"{shot.key}.png", lambda: ctf_figure(fit)),
            (folder / "curves" / f"{shot.key}.json", lambda: ShownCtf.of_fit(fit).as_bytes()),
        ]

    def finish(self, project: Project) -> dict[str, str]:
        """micrographs_ctf.star, ctf.csv, report.html."""
        from verglas.pipeline import tables

        return tables.write_ctf(project)

    def verdict(self, project: Project) -> Verdict:
        """Whether there are enough micrographs with rings."""
        from verglas.pipeline import tables

        return tables.ctf_verdict(project)


class PickStage(MicrographStage):
    """Particles of every micrograph whose CTF is known."""

    name = "pick"
    needs = ("ctf",)
    former_names = former_names(PickSettings)

    def resolve_settings(self, project: Project) -> tuple[PickSettings, str | None]:
        """Settings, and the file of templates if there is one."""
        overrides = self.given_settings(project)
        templates = overrides.pop("templates", None)
        overrides.pop("leave_out", None)
        default = PickSettings("automatic" if templates is None else "template", symmetry=project.settings.symmetry)
        return with_overrides(default, overrides, "pick"), templates

    def run(self, project: Project) -> dict[str, str]:
        """As of every stage, once areas to be left out are known to lie on some of the micrographs."""
        areas = self._areas(project)
        if areas is not None:
            areas.of([str(project.micrograph_of(shot)) for shot in project.shots])
        return super().run(project)

    def left_out(self, project: Project, shot: Shot) -> Any:
        """(n, 3) x, y, radius of areas that a person has drawn on a micrograph; None where there are none."""
        areas = self._areas(project)
        # The page names micrographs from the folder of picks, where their files may be links.
        return None if areas is None else areas.on(str(project.micrograph_of(shot)))

    def _areas(self, project: Project) -> LeftOut | None:
        given = self.given_settings(project).get("leave_out")
        if given is None:
            return None
        path = Path(given)
        if not path.is_file():
            raise InputError(f"pick.leave_out: {path}: no such file; expected areas as the window writes them")
        return _read_areas(path, path.stat().st_mtime_ns)

    def settings(self, project: Project) -> dict[str, Any]:
        """Resolved settings, and the areas left out."""
        areas = self.given_settings(project).get("leave_out")
        more = {} if areas is None else {"leave_out": areas, "leave_out_content": file_digest(Path(areas))}
        return self._settings(project) | more

    def _settings(self, project: Project) -> dict[str, Any]:
        """Resolved settings that every micrograph depends on; the symmetry is the templates'."""
        settings, templates = self.resolve_settings(project)
        omitted_names = () if templates else ("symmetry", "step_deg", "resolution_A")
        content = None if templates is None else file_digest(Path(templates))
        return {
            **settings_json(settings, omitted_names),
            "templates": templates,
            "templates_content": content,
            "diameter_A": project.settings.diameter_A,
            "pixel_size_A": project.settings.pixel_size_A,
        }

    def one_digest(self, project: Project, shot: Shot) -> str:
        """Without templates a pick does not depend on the CTF."""
        settings = self._settings(project)
        ctf_digest = (project.results("ctf").get(shot.key) or {}).get("digest") if settings["templates"] else None
        # Of areas only those of this micrograph, and nothing where there are none: others are not picked again.
        areas = self.left_out(project, shot)
        drawn = [] if areas is None else [areas.tolist()]
        return digest([settings, project.mark_of(shot), project.metadata_of(shot).get(PIXEL), ctf_digest, *drawn])

    def compute(self, project: Project, shot: Shot) -> tuple[dict[str, Any], list[Picture]]:
        """Pick; one picture with picks, CTF and numbers."""
        settings, templates = self.resolve_settings(project)
        micrograph, _ = load(project, shot)
        ctf = result_of(project, "ctf", shot)
        picking = pick_detailed(
            micrograph,
            project.settings.diameter_A,
            settings=settings,
            threads=1,  # micrographs side by side use the cores
            templates=None if templates is None else read_templates(Path(templates)),
            optics=None if templates is None else optics_of_result(ctf),
            left_out=self.left_out(project, shot),
        )
        result = {
            "xy_px": np.round(picking.picks.xy_px, 3).tolist(),
            "merit": np.round(np.asarray(picking.picks.columns[MERIT], np.float64), 5).tolist(),
            "picks": len(picking.picks),
            "candidates": len(picking.candidates),
            "threshold": float(picking.cut.threshold),
            "separation": float(picking.cut.separation),
            "clear": bool(picking.cut.clear),
            "precision": float(picking.cut.precision),
            "bad_fraction": float(picking.bad.fraction),
            "ring_contrast": _number(picking.ring_contrast, 4),
            "skewness": _number(contrast_skewness(picking.small), 4),
            "screening": screening_reason(micrograph),
            "reason": "no particle was found" if not len(picking.picks) else "",
        }
        panel = project.folder("ctf") / "png" / f"{shot.key}.png"
        from verglas.report.process import micrograph_picture

        def draw() -> bytes:
            return micrograph_picture(picking, shot.path.name, ctf, panel.read_bytes() if panel.is_file() else None)

        folder = project.folder("pick")
        listed = written_name(project.micrograph_of(shot), folder)
        peaks = (folder / CANDIDATES / f"{shot.key}.star", lambda: candidates_star(picking, listed))
        return result, [peaks, (folder / "png" / f"{shot.key}.png", draw)]

    def finish(self, project: Project) -> dict[str, str]:
        """picks.star, picks.csv, overview.png."""
        from verglas.pipeline import tables

        return tables.write_picks_of_set(project)

    def verdict(self, project: Project) -> Verdict:
        """Whether particles and background separate, in most micrographs."""
        from verglas.pipeline import tables

        return tables.pick_verdict(project)


@functools.lru_cache(maxsize=4)
def _read_areas(path: Path, changed_ns: int) -> LeftOut:
    """Read once for all micrographs."""
    return LeftOut(path)


def picks_of(project: Project, shot: Shot) -> Picks:
    """The picks of a micrograph."""
    result = result_of(project, "pick", shot)
    return Picks(np.array(result["xy_px"]).reshape(-1, 2), shot.name, {MERIT: np.array(result["merit"])})


def _number(value: float, digits: int) -> float | None:
    return round(float(value), digits) if np.isfinite(value) else None
