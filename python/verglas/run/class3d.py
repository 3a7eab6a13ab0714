"""``vg.classify3d``: several structures in one set of particles, their populations, and which particle is of which."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from verglas._devices import device_names
from verglas._screen import ListenerChoice, shown_to
from verglas._version import __version__
from verglas.classification.cores import CORE, STABLE_CORE
from verglas.errors import InputError
from verglas.heterogeneity.classes import (
    ClassObserver,
    ClassSearch,
    ClassTrial,
    make_problem,
)
from verglas.heterogeneity.fixed_classes import population_errors
from verglas.heterogeneity.fixed_search import FixedClassSearch
from verglas.heterogeneity.posed import posed_images_for
from verglas.heterogeneity.settings import AUTO, ClassSettings
from verglas.heterogeneity.variability import SIGNIFICANT, small_mask
from verglas.image import in_memory, plan_resample, resample_particles
from verglas.initial_model import find_initial_model
from verglas.initial_model.course import resample_to_box, working_box
from verglas.io import read_particles, write_json, write_map, write_particles, write_text
from verglas.optics import for_job
from verglas.reconstruction import reconstruct
from verglas.reconstruction.half_sets import images_of
from verglas.report.heterogeneity import class3d_page
from verglas.report.html import render
from verglas.run.checkpoint import Checkpoints
from verglas.run.class3d_trials import (
    FEWEST_PER_CLASS,
    compare_pairs,
    further_sentence,
    migration_of,
    resolution_of_curve,
    result_sentence,
    trial_row,
    trial_sentence,
)
from verglas.run.cluster import ClusterChoice, ClusterUse
from verglas.run.kept_inputs import keeps_inputs
from verglas.run.live_page import footer_text
from verglas.run.machine import allowed_memory_GB
from verglas.run.numbered_files import remove_numbered
from verglas.run.refine_inputs import as_map, close_identity, fit_to_particles, on_one_grid, reference_name
from verglas.run.set_aside import set_aside_sentence, write_set_aside
from verglas.run.tenure import now_text, tenure
from verglas.search.half_pass import Runner
from verglas.types import Keeper, Map, Particles, Poses
from verglas.types.arrays import BoolArray, FloatArray, IntArray
from verglas.types.convert import particles_of
from verglas.types.listener import Listener
from verglas.types.settings import result_settings, settings_from

Reference = Map | str | Path

_POSTERIOR = "verglasClassPosterior"
JUNK = "verglasJunkPosterior"


@dataclass(frozen=True, eq=False, repr=False)
class Classes3D:
    """What a classification found.

    Attributes
    ----------
    maps : list of Map
        One per class, the most populated first; at the particles' pixel size and box.
    half_maps : list of (Map, Map)
    shares, share_errors : (K,) float64
        Populations, and their standard errors.
    posterior : (n, K) float64
        Of every particle.
    particles : Particles
        Those in use, with poses, half sets (rlnRandomSubset) and rlnClassNumber: K + 1 for junk, which has no map.
    excluded : dict
        Number in the input -> reason.
    trials : list of dict
        Held-out gain of each number of classes tried over the one before.
    resolutions_A : list of float
        FSC 0.143 between the half maps of each class.
    pairs : list of dict
        Two classes, and down to what resolution their maps agree (FSC 0.5).
    twins : list of (int, int)
        Classes, from 1, whose maps are one.
    junk : (n,) float64, optional
        Posterior of being explained by noise alone (``junk=True``).
    stable : (n,) bool, optional
        In the same class in all repeats; junk is in none.
    migration : dict
        Shares of each class in each class: "last_iteration" of the one before, "repeats" on average over them.
    splits : list of dict
        How the classes were made from one (``start="split"``).
    sentence : str
        What a reader must know.
    seconds : float
    settings : ClassSettings
    """

    maps: list[Map]
    half_maps: list[tuple[Map, Map]]
    shares: FloatArray
    share_errors: FloatArray
    posterior: FloatArray
    particles: Particles
    excluded: dict[int, str]
    trials: list[dict[str, Any]]
    resolutions_A: list[float]
    pairs: list[dict[str, Any]]
    twins: list[tuple[int, int]]
    junk: FloatArray | None
    stable: BoolArray | None
    migration: dict[str, list[list[float]]]
    splits: list[dict[str, Any]]
    sentence: str
    seconds: float
    settings: ClassSettings

    def __repr__(self) -> str:
        return f"Classes3D({self.sentence})"

    @property
    def classes(self) -> int:
        """K."""
        return len(self.maps)

    @property
    def number(self) -> IntArray:
        """(n,) class of every particle, from 0; K of those that are junk."""
        return np.asarray(self.particles.table["rlnClassNumber"].to_numpy(np.int64) - 1)

    def summary(self) -> dict[str, Any]:
        """What ``verglas class3d --json`` prints."""
        last = self.trials[-1]
        number = self.number
        members = np.maximum(np.bincount(number, minlength=self.classes)[: self.classes], 1)

        def mean_of_class(values: FloatArray | BoolArray) -> list[float]:
            sums = np.bincount(number, values, minlength=self.classes)[: self.classes]
            return list((sums / members).tolist())

        return {
            "classes": self.classes,
            "sentence": self.sentence,
            "shares": [float(s) for s in self.shares],
            "share_errors": [float(s) for s in self.share_errors],
            "certainty": mean_of_class(self.posterior.max(axis=1)),
            "resolutions_A": self.resolutions_A,
            "gain_nats": last["gain_over_one_nats"],
            "gain_error_nats": last["gain_over_one_error_nats"],
            "trials": self.trials,
            "pairs": self.pairs,
            "twins": [list(t) for t in self.twins],
            "junk_share": None if self.junk is None else float(self.junk.mean()),
            "stable_share": None if self.stable is None else float(self.stable.mean()),
            "stable_share_of_class": None if self.stable is None else mean_of_class(self.stable),
            "migration": self.migration,
            "splits": self.splits,
            "particles": len(self.particles),
            "excluded": len(self.excluded),
            "seconds": round(self.seconds, 1),
        }


class _Watch(ClassObserver):
    """Tells a listener, and keeps checkpoints in a folder."""

    def __init__(self, listener: Listener, checkpoints: Checkpoints | None, runner: Runner) -> None:
        super().__init__(listener, runner)
        self.checkpoints = checkpoints

    def keeper(self, name: str) -> Keeper | None:
        """The checkpoint of a part."""
        return None if self.checkpoints is None else self.checkpoints.part(name)


@keeps_inputs("class3d")
def classify3d(
    particles: Particles | str | Path,
    references: Reference | Sequence[Reference] | None = None,
    settings: ClassSettings | None = None,
    *,
    mask: Reference | None = None,
    out: str | Path | None = None,
    resume: bool = False,
    device: str = "cpu",
    threads: int | None = None,
    listener: ListenerChoice = "screen",
    cluster: ClusterChoice = None,
    **changes: Any,
) -> Classes3D:
    """Sort particles into K structures, or into as many as the particles themselves support.

    A single map is fitted first. Other structures are guessed from it and chosen by all particles at low resolution; at
    fixed poses the particles are split where they differ most. The maps are then told apart by expectation-maximisation
    over classes and poses, with one noise model and two half sets that share nothing after that start. Each particle is
    judged by the maps of the half that it is not in: with ``classes="auto"`` the number of classes grows until that
    gains less than three standard errors.

    Parameters
    ----------
    particles : Particles or path
        RELION STAR or cryoSPARC CS.
    references : Map, path or sequence of them, optional
        One start map for all classes, or one for each; made from the particles (their poses, or ab initio) without.
    settings : ClassSettings, optional
        All choices at once; what is given beside them goes before.
    mask : Map or path, optional
        With ``poses="fixed"``: classes differ inside it only (focused classification).
    out : path, optional
        Folder for maps, particles, summary and page; nothing is written without.
    resume : bool
        There must be a checkpoint in ``out`` to go on from; if there is one, it is used in any case.
    device : str
        ``"cpu"``, ``"cuda:0"``, several, or ``"cuda"``: of the global search.
    threads : int, optional
        Threads; all by default. The result does not depend on it.
    listener : Listener, "screen" or None
        Who is told how it goes.
    cluster : str or ClusterRequest, optional
        Workers that share the particles of the global search, as of :func:`verglas.refine`. The result does not depend
        on them.
    **changes
        Single choices, as the fields of :class:`verglas.heterogeneity.ClassSettings`: ``classes``, ``poses``, ...

    Returns
    -------
    Classes3D

    Raises
    ------
    SettingError
        Settings are unknown or out of bounds.
    InputError
        More classes than particles allow, maps that are not as many as classes, a mask without fixed poses, poses that
        are missing, a run with other settings or particles in the folder.

    References
    ----------
    Scheres et al. (2007) Nature Methods 4, 27-29.

    Examples
    --------
    >>> import verglas as vg
    >>> model = vg.simulate.phantom(32, 5.0, 110.0)
    >>> p = vg.simulate.particles(model, 60, 32, 5.0, snr=1.0, seed=1, listener=None)
    >>> made = vg.classify3d(p, classes=1, poses="fixed", resolution_A=25, diameter_A=125, listener=None)
    >>> made.classes, len(made.particles), made.maps[0].box
    (1, 60, 32)
    """
    given_maps = [references] if isinstance(references, Map | str | Path) else references
    starts = [] if given_maps is None else list(given_maps)
    if "classes" in changes:
        changes["classes"] = str(changes["classes"])
    elif len(starts) > 1 and settings is None:
        changes["classes"] = str(len(starts))
    chosen = settings_from("class3d", ClassSettings, settings, **changes)
    given = particles_of(particles, "classify3d: particles")
    _refuse(given, starts, chosen, has_mask=mask is not None)
    folder = None if out is None else Path(out)
    if folder is None and resume:
        raise InputError("class3d: resume needs the run folder (out)")
    devices = tuple(device_names("cpu" if device == "auto" else device))
    use = ClusterUse.of(cluster, "class3d", folder, devices)
    if use.asked is not None and chosen.poses == "fixed":
        raise InputError('class3d: --cluster shares the search of poses; leave it out with poses = "fixed"')
    job = _Job(given, starts, mask, chosen, threads, devices)
    with shown_to(listener) as heard:
        if folder is None:
            with use.runner(heard, threads, allowed_memory_GB()) as runner:
                return job.run(_Watch(heard, None, runner))
        with tenure(folder, "class3d", heard) as held, use.runner(held, threads, allowed_memory_GB()) as runner:
            checkpoints = Checkpoints(folder, _record(job), close_identity(given), held.say)
            checkpoints.open(resume=resume)
            held.write(state="running", n_particles=len(given), settings=asdict(chosen))
            made = job.run(_Watch(held, checkpoints, runner))
            _write(folder, made)
            write_set_aside(folder, given, made.excluded)
            checkpoints.remove()
            return made


def _refuse(particles: Particles, references: list[Reference], settings: ClassSettings, *, has_mask: bool) -> None:
    """What cannot be done, before anything is read."""
    if particles.source is None:
        raise InputError(f"{particles.where}: these particles have no images")
    _counts(settings, len(particles))
    if len(references) > 1 and settings.counts != [len(references)]:
        raise InputError(f"class3d: {len(references)} maps but classes = {settings.classes}; leave classes out")
    if len(references) > 1 and settings.repeats > 1:
        raise InputError(
            f"class3d: {settings.repeats} repeats from the same {len(references)} maps would all be one; give one map "
            "or none, or leave repeats out"
        )
    if settings.start == "split" and settings.repeats > 1:
        raise InputError('class3d: repeats differ by where they start, and start = "split" is one start; leave one out')
    if has_mask and settings.poses != "fixed":
        raise InputError('class3d: a mask tells where classes differ at the particles\' own poses; say poses = "fixed"')
    if settings.poses == "fixed" and particles.poses is None:
        raise InputError(f'{particles.where}: poses = "fixed", but these particles have none')


class _Prepared(NamedTuple):
    """Classifications to come, and the particles that they are of."""

    search: ClassSearch | FixedClassSearch
    counts: list[int]
    kept: IntArray
    half: IntArray
    image: IntArray
    excluded: dict[int, str]


def _counts(settings: ClassSettings, n: int) -> list[int]:
    """Numbers of classes to try on so many particles; what was asked for as a number must be possible."""
    possible = [c for c in settings.counts if c == 1 or c * FEWEST_PER_CLASS <= n]
    if not possible:
        raise InputError(
            f"class3d: {settings.classes} classes of {n} particles; a class takes {FEWEST_PER_CLASS} or more"
        )
    return possible


@dataclass(frozen=True)
class _Job:
    """All that a classification is given."""

    particles: Particles
    references: list[Reference]
    mask: Reference | None
    settings: ClassSettings
    threads: int | None
    devices: tuple[str, ...]

    def run(self, watch: _Watch) -> Classes3D:
        """Try the numbers of classes, and keep the one that the particles support."""
        begun = time.perf_counter()
        kind = self._prepare_fixed if self.settings.poses == "fixed" else self._prepare_search
        prepared = kind(watch)
        if prepared.excluded:
            watch.listener.note("set_aside", set_aside_sentence(prepared.excluded))
        rows: list[dict[str, Any]] = []
        best, before, last, one = None, None, None, None
        for trial in prepared.search.trials(prepared.counts):
            one = one or trial
            row = trial_row(trial, last or trial, one, prepared.image)
            rows.append(row)
            watch.listener.say(trial_sentence(row))
            better = last is None or row["gain_nats"] > SIGNIFICANT * row["error_nats"]
            if self.settings.classes != AUTO or better:
                best, before, chosen_row = trial, last or trial, row
            if self.settings.classes == AUTO and not better:
                break
            last = trial
        assert best is not None
        assert before is not None
        assert one is not None
        runs = [best, *self._repeats(best, prepared, watch.listener)]
        # Maps that explain the particles of the other half set best are the result, wherever they began.
        best = max(runs, key=lambda trial: float(trial.evidence.mean()))
        rows.remove(chosen_row)
        rows.append(chosen_row if best is runs[0] else trial_row(best, before, one, prepared.image))
        others = [trial for trial in runs if trial is not best]
        return self._result(best, others, rows, prepared, time.perf_counter() - begun)

    def _repeats(self, best: ClassTrial, prepared: _Prepared, listener: Listener) -> list[ClassTrial]:
        """The same number of classes from other starts."""
        if best.classes == 1:
            return []
        made = []
        for number in range(1, self.settings.repeats):
            made.append(prepared.search.again(best.classes, number))
            listener.say(f"repeat {number + 1}: shares {' '.join(f'{s:.3f}' for s in made[-1].posterior.mean(axis=0))}")
        return made

    def _prepare_fixed(self, watch: _Watch) -> _Prepared:
        s = self.settings
        posed = posed_images_for(self.particles, s, "class3d", threads=self.threads)
        inside = None if self.mask is None else small_mask(posed, as_map(self.mask), self.particles)
        search = FixedClassSearch(posed, s, inside, watch)
        return _Prepared(search, _counts(s, len(posed)), posed.kept, posed.half, posed.image, posed.excluded)

    def _prepare_search(self, watch: _Watch) -> _Prepared:
        s, work = self.settings, for_job(self.particles, "class3d")
        fits = []
        for number, reference in enumerate(self.references, 1):
            fitted, notes = fit_to_particles(as_map(reference), work, f"map {number}", s.diameter_A)
            fits.append(fitted)
            for note in notes:
                watch.listener.say(note.sentence)
        if not fits:
            fits = [self._first_map(work, watch)]
        box = working_box(work.box, work.pixel_size_A, s.resolution_A)
        if box < work.box:
            work = resample_particles(work, plan_resample(work.box, work.pixel_size_A, None, box))
        work = in_memory(work)
        small = [Map(resample_to_box(m.data, box), work.pixel_size_A) for m in fits]
        problem, power, excluded = make_problem(work, s, threads=self.threads, devices=self.devices)
        kept = np.setdiff1d(np.arange(len(work)), list(excluded))
        search = ClassSearch(problem, power, small, s, watch)
        return _Prepared(search, _counts(s, len(kept)), kept, problem.half, images_of(problem.particles), excluded)

    def _first_map(self, particles: Particles, watch: _Watch) -> Map:
        """Of the particles' own poses, or ab initio."""
        s = self.settings
        if particles.poses is not None:
            watch.listener.say("no map was given: one is made from the particles' own poses")
            return reconstruct(particles, s.symmetry, 0.8 * s.initial_resolution_A, listener=None)
        watch.listener.say("no map was given: one is made from the particles alone")
        return find_initial_model(
            particles, symmetry=s.symmetry, diameter_A=s.diameter_A, starts=1, seed=s.seed, threads=self.threads
        ).map

    def _result(
        self,
        trial: ClassTrial,
        others: list[ClassTrial],
        rows: list[dict[str, Any]],
        prepared: _Prepared,
        seconds: float,
    ) -> Classes3D:
        given, kept = self.particles, prepared.kept
        grid = on_one_grid(given)
        scale = grid.box * grid.pixel_size_A / len(trial.volumes[0])  # working pixel size

        def full(volume: Any) -> Map:
            return Map(resample_to_box(np.ascontiguousarray(volume), grid.box), grid.pixel_size_A)

        maps = [full(v) for v in trial.volumes]
        explained = trial.posterior if trial.junk is None else np.column_stack([trial.posterior, trial.junk])
        shares, errors = (v[: trial.classes] for v in population_errors(explained))
        pairs, twins = compare_pairs([Map(v, scale) for v in trial.volumes], trial.fsc)
        used = given[kept] if len(kept) < len(given) else given
        placed = used.with_poses(Poses(trial.poses.angles_deg, trial.poses.origin_px * scale))
        stable, migration = migration_of(trial, others)
        placed = placed.with_columns(
            rlnRandomSubset=prepared.half,  # or who goes on from half1 and half2 would mix them
            rlnClassNumber=trial.number + 1,
            rlnMaxValueProbDistribution=explained.max(axis=1),
            rlnLogLikeliContribution=trial.evidence,
            # Cores of an earlier classification are of classes that have other numbers now.
            **{JUNK: trial.junk, CORE: None, STABLE_CORE: None if stable is None else stable.astype(np.int64)},
        )
        return Classes3D(
            maps,
            [(full(a), full(b)) for a, b in zip(*trial.halves, strict=True)],
            shares,
            errors,
            trial.posterior,
            placed,
            prepared.excluded,
            rows,
            [resolution_of_curve(c, grid.box * grid.pixel_size_A) for c in trial.fsc],
            pairs,
            twins,
            trial.junk,
            stable,
            migration,
            [asdict(s) | {"parent": s.parent + 1, "child": s.child + 1} for s in trial.splits],
            result_sentence(shares, errors, rows, twins, auto=self.settings.classes == AUTO)
            + further_sentence(
                trial.number, trial.classes, str(self.settings.classes), trial.junk, stable, len(others)
            ),
            seconds,
            self.settings,
        )


def _record(job: _Job) -> dict[str, Any]:
    """Of a run that goes on: the choices and maps that it must have been given, too."""
    maps = [reference_name(r) for r in job.references]
    return result_settings(job.settings) | {
        "maps": maps,
        "mask": None if job.mask is None else reference_name(job.mask),
    }


def _write(folder: Path, made: Classes3D) -> None:
    remove_numbered(folder, r"(map|half[12])_class(?P<number>\d+)\.mrc", made.classes)
    for k, (volume, halves) in enumerate(zip(made.maps, made.half_maps, strict=True), 1):
        write_map(folder / f"map_class{k}.mrc", volume)
        for number, half in enumerate(halves, 1):
            write_map(folder / f"half{number}_class{k}.mrc", half)
    names = map(str, made.particles.table)
    columns: dict[str, Any] = {n: None for n in names if n.startswith(_POSTERIOR)}  # of an earlier classification
    columns |= {f"{_POSTERIOR}{k + 1}": made.posterior[:, k] for k in range(made.classes)}
    write_particles(folder / "particles.star", made.particles.with_columns(**columns))
    summary = made.summary()
    record = {"verglas": __version__, "command": "class3d", "finished": now_text(), "settings": asdict(made.settings)}
    write_json(folder / "class3d.json", record | summary)
    page = class3d_page(summary, made.maps, asdict(made.settings), footer_text())
    write_text(folder / "report.html", render(page))


def class3d_files(particles: Path, maps: Sequence[Path] | None, *, stack: Path | None = None, **more: Any) -> Classes3D:
    """What ``verglas class3d`` does: read, :func:`classify3d`, leave everything in the folder."""
    return classify3d(read_particles(particles, stack=stack), list(maps) if maps else None, **more)


__all__ = ["Classes3D", "class3d_files", "classify3d"]
