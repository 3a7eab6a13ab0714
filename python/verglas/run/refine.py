"""``vg.refine``: from particles and a reference to half maps one can trust, with a run folder that can be resumed."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from verglas._devices import device_names
from verglas._screen import ListenerChoice, shown_to
from verglas.assessment import FSC, Postprocessed, PostprocessSettings, postprocess
from verglas.assessment.judge import resolution_withheld_by
from verglas.errors import InputError, VerglasError
from verglas.io import read_particles
from verglas.io.image_cache import ImageCache
from verglas.optics import Aberrations, depth_of_field_sentence, for_job
from verglas.refinement.em import Iteration, refine_state
from verglas.refinement.problem import RefineProblem
from verglas.refinement.settings import RefineSettings
from verglas.refinement.state import State
from verglas.regularisation import Prior, prior_of
from verglas.regularisation.given import Denoiser
from verglas.run import credible
from verglas.run.checkpoint import Checkpoint, write_checkpoint
from verglas.run.cluster import ClusterChoice, ClusterUse
from verglas.run.external_prior import ExternalReconstruct
from verglas.run.forecast import refine_forecast
from verglas.run.half_maps import solvent_or_sphere
from verglas.run.kept_inputs import keeps_inputs
from verglas.run.machine import allowed_memory_GB
from verglas.run.particle_number import FEWEST, ResolutionByNumber, resolution_by_number
from verglas.run.refine_folder import RefineFolder, refine_folder, settings_record
from verglas.run.refine_inputs import reference_name
from verglas.run.refine_setup import Around, Reference, Setup, resume_run, start_run
from verglas.run.refine_summary import iteration_sentence
from verglas.run.refine_verdict import judge_refinement
from verglas.search.half_pass import Runner
from verglas.search.step import Step
from verglas.types import Map, Particles, Poses
from verglas.types.convert import particles_of
from verglas.types.listener import Listener, Progress, phase_progress
from verglas.types.settings import settings_from
from verglas.types.verdict import Verdict


@dataclass(frozen=True, eq=False, repr=False)
class Refinement:
    """What a refinement found.

    Attributes
    ----------
    map : Map
        From both halves, Wiener-weighted, not sharpened; of the largest class.
    half_maps : tuple of Map
        Neither filtered nor masked.
    postprocessed : Postprocessed
        Sharpened map, mask, FSC curves, B-factor.
    particles : Particles
        Those in use, with poses; ``verglasCredibleRadius`` is the angle in degrees about each stated orientation within
        which the true one lies with a probability of 95 %, ``verglasProbabilityFar`` the probability that it lies more
        than 30 degrees off (:func:`verglas.run.credible.credible_sets`).
    iterations : DataFrame
        One row per iteration.
    excluded : dict
        Particle number in the input (from 0) -> reason.
    classes : list of (Map, (Map, Map), Postprocessed)
        The same for every class.
    populations : tuple of float
        Share of each class.
    folder : Path or None
        The run folder.
    verdict : Verdict
        On the largest class: ``"stop"`` with the finding ``"noise"`` if the particles explain nothing.
    """

    map: Map
    half_maps: tuple[Map, Map]
    postprocessed: Postprocessed
    particles: Particles
    iterations: pd.DataFrame
    excluded: dict[int, str]
    classes: list[tuple[Map, tuple[Map, Map], Postprocessed]]
    populations: tuple[float, ...]
    folder: Path | None = None
    verdict: Verdict = field(default_factory=lambda: Verdict("go on"))

    def __repr__(self) -> str:
        where = "" if self.folder is None else f", in {self.folder}"
        classes = "" if len(self.classes) == 1 else f", {len(self.classes)} classes"
        return (
            f"Refinement({self.resolution_A:.2f} A at 0.143, corrected{self._doubt}; {len(self.particles)} particles, "
            f"{len(self.iterations)} iterations{classes}{where})"
        )

    @property
    def _doubt(self) -> str:
        withheld_by = resolution_withheld_by(self.verdict)
        return "" if withheld_by is None else f", not to be stated ({withheld_by})"

    @property
    def claimed_resolution_A(self) -> float:
        """The resolution to state; infinite where the verdict withholds it, for many particles may lie wrong."""
        return np.inf if self._doubt else self.postprocessed.claimed_resolution_A

    def _repr_html_(self) -> str:
        """What a notebook shows: slices of the map and the FSC curves."""
        from verglas.report.cards import card, parts_of

        return card(self, [*parts_of(self.map), *parts_of(self.postprocessed)])

    @property
    def fsc(self) -> FSC:
        """Between the half maps, in the mask, corrected by phase randomisation."""
        return self.postprocessed.corrected

    @property
    def resolution_A(self) -> float:
        """Where that curve falls to 0.143."""
        return self.postprocessed.resolution_A


@keeps_inputs("refine")
def refine(
    particles: Particles | str | Path,
    reference: Reference | Sequence[Reference] | None = None,
    symmetry: str | None = None,
    diameter_A: float | None = None,
    *,
    settings: RefineSettings | None = None,
    out: str | Path | None = None,
    mask: Map | str | Path | None = None,
    prior: Prior | Denoiser | None = None,
    device: str = "auto",
    threads: int | None = None,
    memory_GB: float | None = None,
    resume: bool = False,
    allow_changes: bool = False,
    listener: ListenerChoice = "screen",
    cluster: ClusterChoice = None,
    cache: ImageCache | str | Path | None = None,
    **changes: Any,
) -> Refinement:
    r"""Refine poses and map of particles: expectation-maximisation with two independent half sets.

    Every iteration scores the particles of each half against that half's map, adds them up, and weights the sums by
    the signal-to-noise ratio that the halves agree on (maximum a posteriori, Scheres 2012). All poses are searched
    while that can change anything; then every pose climbs the exact likelihood. Resolution and sampling follow the FSC.

    Parameters
    ----------
    particles : Particles or path
        RELION STAR or cryoSPARC CS.
    reference : Map, path or several, optional
        Start map; it is put on the particles' pixel size, box and grey scale and low-passed. Several references are
        several classes. Not needed with ``poses="local"``, which can start from the map of the given poses.
    symmetry : str, optional
        Point group, RELION's orientation; C1 by default.
    diameter_A : float, optional
        Diameter of the particle; four fifths of the box by default.
    settings : RefineSettings, optional
        All choices at once; what is given beside them goes before.
    out : path, optional
        Run folder; nothing is written without.
    mask : Map or path, optional
        Soft solvent mask; by default made from the map once it is good enough.
    prior : callable or Prior, optional
        Of one's own, in place of ``regularisation``: ``prior(half_map, fsc)`` is called for each half map alone and
        returns a better one (:class:`verglas.regularisation.DenoisedBy`), or an object as
        :class:`verglas.regularisation.Prior` describes. A run that goes on compares its name alone: that it still
        does the same is the caller's to see to.
    device : str
        ``"cpu"``; ``"cuda:0"``; ``"cuda:0,cuda:1"``, which share the particles; ``"cuda"`` for every GPU there is.
        ``"auto"`` is the CPU.
    threads : int, optional
        Threads; all by default. The result does not depend on it.
    memory_GB : float, optional
        Not to be passed; four fifths of what the machine allows by default.
    resume : bool
        Go on from the last iteration of the run in ``out``.
    allow_changes : bool
        Resume although settings differ.
    listener : Listener, "screen" or None
        Who is told how it goes (:class:`verglas.types.listener.Listener`): a bar or lines on standard error, nobody,
        or an object of one's own.
    cluster : str, ClusterRequest or Workers, optional
        Workers that share the particles: ``"local:4"``, ``"slurm:16"``, ``"tcp://host:8786"``, a request with a
        profile, or workers that are there (:mod:`verglas.cluster`). The result does not depend on them.
    cache : path or ImageCache, optional
        Folder on a quick disk that keeps the images as they are read, for this and other runs
        (:class:`verglas.io.image_cache.ImageCache`).
    **changes
        Single choices, as the fields of :class:`verglas.refinement.RefineSettings`.

    Returns
    -------
    Refinement

    Raises
    ------
    InputError
        Particles, reference and mask do not go together, too few particles can be used, the memory does not suffice, or
        the run cannot be resumed.
    DeviceError
        A GPU cannot be used; the message says why and what to do.

    References
    ----------
    Scheres (2012) J. Struct. Biol. 180, 519-530; Grigorieff (2007) J. Struct. Biol. 157, 117-125 (mode "max-cc").

    Examples
    --------
    >>> import verglas as vg
    >>> model = vg.simulate.phantom(24, 5.0, 90.0)
    >>> particles = vg.simulate.particles(model, 60, 24, 5.0, snr=1.0, seed=1)
    >>> result = vg.refine(particles, vg.simulate.density(model, 24, 5.0), diameter_A=100, iterations=3)
    >>> len(result.particles), result.map.data.shape, result.resolution_A < 40
    (60, (24, 24, 24), True)
    """
    # "auto" stays the CPU until the kernels have run on a GPU (bench/README.md); a GPU is named.
    devices = tuple(device_names("cpu" if device == "auto" else device))
    references = _as_list(reference)
    changes |= {n: v for n, v in (("symmetry", symmetry), ("diameter_A", diameter_A)) if v is not None}
    if settings is None:
        # A setting of the caller's goes before the number of references; start_run tells where they disagree.
        changes = {"classes": max(1, len(references)), **changes}
    resolved_settings = settings_from("refine", RefineSettings, settings, **changes)
    everything = particles_of(particles, "refine: particles")
    mtf_names = sorted({mtf.name for mtf in Aberrations.of(everything).mtf if mtf is not None})
    everything = for_job(everything, "refine", posed=resolved_settings.poses == "local")
    use = ClusterUse.of(cluster, "refine", out, devices)
    own = _own_prior(prior, resolved_settings, out)
    record = settings_record(
        resolved_settings,
        {
            "prior": None if own is None else own.name,
            "particles": everything.where,
            "references": [reference_name(r) for r in references],
            "mask": None if mask is None else reference_name(mask),
            "mtf": mtf_names or None,
        },
    )
    if resume and out is None:
        raise InputError("refine: resume needs the run folder (out)")
    limit = allowed_memory_GB() if memory_GB is None else memory_GB
    with contextlib.ExitStack() as ends:
        heard = ends.enter_context(shown_to(listener, iteration_sentence))
        folder = None
        if out is not None:
            how = {"resume": resume, "allow_changes": allow_changes}
            folder = ends.enter_context(refine_folder(Path(out), record, heard, **how))
            # From here on the folder's hold listens: what it is told are the run's signs of life.
            heard = folder.held
        if resume and prior is not None and own is not None:
            heard.say(f"prior {own.name}: its name is that of the run so far; what it does cannot be compared")
        around = Around(folder, limit, heard, devices, threads, own, _cache(cache))
        if resume:
            setup = resume_run(everything, resolved_settings, around, is_forced=mask is not None)
        else:
            setup = start_run(everything, references, mask, resolved_settings, around)
        heard.say(str(setup.plan))
        _tell_forecast(setup, folder, heard)
        if resolved_settings.diameter_A is not None:
            voltage_kV = float(everything.optics.voltage_kV.min())
            diameter_A, finest_A = resolved_settings.diameter_A, 2 * everything.pixel_size_A
            corrected = resolved_settings.ewald
            heard.say(depth_of_field_sentence(diameter_A, voltage_kV, finest_A, corrected=corrected))
        runner = ends.enter_context(use.runner(heard, threads, limit, setup.read_from))
        return _run(setup, folder, heard, runner)


def _own_prior(prior: Prior | Denoiser | None, settings: RefineSettings, out: str | Path | None) -> Prior | None:
    """The caller's prior or program, where there is one."""
    if settings.external_reconstruct is not None and prior is None:
        return ExternalReconstruct(settings.external_reconstruct, None if out is None else Path(out) / "external")
    if prior is None:
        return None
    if settings.regularisation != "global" or settings.mode == "max-cc":
        raise InputError("refine: a prior of one's own takes the place of regularisation and of max-cc; leave them out")
    return prior_of(prior)


def _cache(cache: ImageCache | str | Path | None) -> ImageCache | None:
    return cache if cache is None or isinstance(cache, ImageCache) else ImageCache(Path(cache))


def _tell_forecast(setup: Setup, folder: RefineFolder | None, listener: Listener) -> None:
    assert setup.step is not None
    forecast = refine_forecast(setup.problem, setup.step, done=setup.state.iteration)
    if forecast is None:
        return
    if folder is None:
        listener.say(str(forecast))
    else:
        folder.held.expect(forecast)


def refine_files(
    particles: Path,
    reference: Sequence[Path] | None = None,
    *,
    settings: Mapping[str, Any] | None = None,
    stack: Path | None = None,
    **how: Any,
) -> Refinement:
    """What ``verglas refine`` does: check settings, read, :func:`refine`, leave everything in the run folder.

    Parameters
    ----------
    particles : Path
        STAR or CS file.
    reference : sequence of Path, optional
        Start maps.
    settings : mapping, optional
        Fields of :class:`verglas.refinement.RefineSettings` and their values.
    stack : Path, optional
        Image stack in place of the one the file names.
    **how
        What :func:`refine` takes besides: ``out``, ``mask``, ``device``, ``listener``, ...
    """
    chosen = dict(settings or {})
    # Before the file is read: millions of rows take minutes, and a wrong setting would be told only after them.
    settings_from("refine", RefineSettings, **chosen)
    return refine(read_particles(particles, stack=stack), reference, **how, **chosen)


def _as_list(reference: Reference | Sequence[Reference] | None) -> list[Reference]:
    if reference is None:
        return []
    return [reference] if isinstance(reference, (Map, str, Path)) else list(reference)


def _run(setup: Setup, folder: RefineFolder | None, listener: Listener, runner: Runner) -> Refinement:
    problem = setup.problem
    # A list, which the functions below change: progress is told before its iteration is counted.
    number = [setup.state.iteration]

    def record_iteration(state: State, iteration: Iteration, following: Step | None) -> None:
        number[0] = state.iteration
        for note in iteration.notes:
            listener.say(note.sentence)
        listener.iteration(state.figures[-1].as_row())
        if folder is not None:
            # The checkpoint of the final pass would leave nothing to resume: what precedes it stays.
            if following is not None:
                write_checkpoint(
                    folder.folder, Checkpoint(state, following, problem.half, setup.excluded, setup.inputs)
                )
            folder.iteration(problem, state, iteration)

    def progress(phase: str, done: int, total: int) -> None:
        listener.progress(f"iteration {number[0] + 1}, {phase}", done, total)

    assert setup.step is not None
    try:
        state, last_iteration = refine_state(
            problem, setup.state, setup.step, progress=progress, after=record_iteration, runner=runner
        )
        assessments = _assess(problem, state, last_iteration, phase_progress(listener, "postprocessing, maps"))
        particles = _with_radii(
            _with_results(setup.used, problem, state), problem, state, last_iteration, listener.progress
        )
        verdict = judge_refinement(problem, state, last_iteration.maps, assessments, particles, listener.progress)
        for finding in verdict.findings:
            listener.say(finding.sentence)
        if folder is not None:
            # Images from where the iterations took them: memory or the cache, not their files once more.
            read = particles.with_source(problem.particles.source)
            by_number = _by_number(problem, read, assessments, phase_progress(listener, "parts of the particles"))
            folder.finish(
                problem, last_iteration, assessments, particles, verdict, converged=state.finished, by_number=by_number
            )
    # Interrupted or terminated as well: run.json and the page must not go on saying that it runs.
    except BaseException as error:
        if folder is not None:
            folder.record_end(error)
        raise
    classes = [
        _class(problem, maps, assessment) for maps, assessment in zip(last_iteration.maps, assessments, strict=True)
    ]
    largest = int(np.argmax(np.bincount(state.poses.class_number, minlength=len(classes))))
    joint, halves, assessment = classes[largest]
    table = pd.DataFrame([figures.as_row() for figures in state.figures])
    where, shares = None if folder is None else folder.folder, state.figures[-1].populations
    return Refinement(joint, halves, assessment, particles, table, setup.excluded, classes, shares, where, verdict)


def _class(problem: RefineProblem, maps: Any, result: Postprocessed) -> tuple[Map, tuple[Map, Map], Postprocessed]:
    first, second = (Map(v, problem.pixel_size_A) for v in maps.raw)
    assert maps.joint is not None
    return Map(maps.joint, problem.pixel_size_A), (first, second), result


def _assess(
    problem: RefineProblem, state: State, iteration: Iteration, progress: Callable[[int, int], None]
) -> list[Postprocessed]:
    """Postprocessing of every class: with the user's mask, or one made from the final map."""
    progress(0, len(iteration.maps))
    settings = problem.settings
    how = PostprocessSettings(symmetry=settings.symmetry, seed=settings.seed)
    around: dict[str, Any] = {"threads": problem.threads, "listener": None}
    mask = Map(state.mask, problem.pixel_size_A) if problem.mask_given and state.mask is not None else None
    results = []
    for maps in iteration.maps:
        first, second = (Map(v, problem.pixel_size_A) for v in maps.raw)
        # Aligned noise has no molecule to draw a mask around, and is judged all the same.
        inside = mask or solvent_or_sphere(first.with_data(0.5 * (first.data + second.data)), None, problem.threads)
        result = postprocess(first, second, inside, settings=how, **around)
        limit = problem.last_radius
        if limit < (problem.box - 1) // 2 and result.resolution_A < problem.resolution_of_A(limit):
            # No data beyond the limit: what a mask spreads there is correlated, but it is no resolution.
            finest = problem.resolution_of_A(limit)
            result = postprocess(first, second, inside, settings=how, low_pass_A=finest, fit_to_A=finest, **around)
            result = replace(
                result, masked=_truncate_curve(result.masked, limit), corrected=_truncate_curve(result.corrected, limit)
            )
        results.append(result)
        progress(len(results), len(iteration.maps))
    return results


def _by_number(
    problem: RefineProblem, particles: Particles, assessments: list[Postprocessed], progress: Callable[[int, int], None]
) -> ResolutionByNumber | None:
    """The ResLog plot of one map, on the flat sphere, of enough particles to be divided."""
    if len(assessments) > 1 or problem.settings.ewald or len(particles) < FEWEST:
        return None
    try:
        return resolution_by_number(
            particles,
            assessments[0].mask,
            assessments[0].resolution_A,
            symmetry=problem.settings.symmetry,
            finest_A=problem.resolution_of_A(problem.last_radius),
            seed=problem.settings.seed,
            threads=problem.threads,
            device=problem.device,
            progress=progress,
        )
    # The final maps are not written yet, and a chart must not cost them: what went wrong stands in its place.
    except (VerglasError, OSError, MemoryError) as error:
        return ResolutionByNumber((), (), None, f"parts of the particles could not be assessed ({error})")


def _truncate_curve(curve: FSC, last: int) -> FSC:
    # A copy: the curve given belongs to a result that stays as it is.
    values = curve.curve.copy()
    values[last + 1 :] = 0
    return replace(curve, curve=values)


def _with_results(particles: Particles, problem: RefineProblem, state: State) -> Particles:
    """The particles with what others read: poses, class, half set, group, norm, probabilities."""
    poses = state.poses
    result = particles.with_poses(Poses(poses.angles_deg, poses.origin_px * problem.pixel_size_A))
    # Each half has learned the scales of micrographs on its own, as it has its map.
    scale = np.where(problem.half == 1, *(h.scale[problem.micrograph] for h in state.halves))
    return result.with_columns(
        rlnMaxValueProbDistribution=poses.max_probability,
        rlnLogLikeliContribution=poses.log_evidence,
        rlnNormCorrection=poses.norm,
        rlnGroupNumber=problem.micrograph + 1,
        rlnGroupScaleCorrection=scale,
        rlnRandomSubset=problem.half,
        rlnClassNumber=poses.class_number + 1,
        rlnNrOfSignificantSamples=np.rint(poses.effective_poses).astype(np.int64),
    )


def _with_radii(
    particles: Particles, problem: RefineProblem, state: State, iteration: Iteration, progress: Progress
) -> Particles:
    """With the credible radius of each orientation, where scores are likelihoods."""
    if problem.correlation:
        return particles
    sets = credible.credible_sets(problem, state, iteration.maps, progress)
    return particles.with_columns(
        **{credible.COLUMN: np.round(sets.radius_deg, 2), credible.FAR_COLUMN: np.round(sets.far, 4)}
    )


__all__ = ["Refinement", "refine"]
