"""``vg.abinitio``: a first map from particles alone, with a verdict on whether to believe it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from verglas._devices import one_device
from verglas._version import __version__
from verglas.errors import InputError
from verglas.image import plan_resample, resample_particles
from verglas.initial_model.centre import centred
from verglas.initial_model.consensus import Comparison, Verdict
from verglas.initial_model.contest import FINEST_A
from verglas.initial_model.starts import AUTO, AbInitioSettings, Start, at_box, finished, placed, working_box
from verglas.initial_model.symmetry import SymmetryFound, with_symmetry
from verglas.io import read_particles, write_json, write_map, write_particles
from verglas.map_geometry.map_alignment import flip_hand
from verglas.optics import for_job
from verglas.report.abinitio import AbInitioShown, write_abinitio_page
from verglas.run.abinitio_starts import Starts, all_starts, among_groups, told
from verglas.run.abinitio_watch import Around, Progress, Say, Watch
from verglas.run.refine_inputs import cached
from verglas.run.tenure import FromFunctions, now_text, tenure
from verglas.search.problem import Problem, survey
from verglas.search.state import PoseTable
from verglas.types import Map, Particles, Poses
from verglas.types.arrays import FloatArray

_FEWEST = 50
_EDGE_A = 8.0


@dataclass(frozen=True)
class AbInitio:
    """What an ab initio reconstruction found.

    Attributes
    ----------
    maps : list of Map
        One per class, at the particles' pixel size and box, of the best start.
    verdict : Verdict
        Whether to believe them.
    starts : list of Start
        By falling held-out evidence; maps at the working pixel size.
    comparisons : list of Comparison
        The other starts, turned onto the best.
    particles : Particles
        Those in use, with poses and classes.
    excluded : dict
        Particle number in the input (from 0) -> reason.
    working_pixel_size_A : float
        Of the images that were used.
    settings : AbInitioSettings
    seconds : float
        Wall time.
    symmetry : SymmetryFound, optional
        With symmetry "auto": the candidates' scores, and what came of them.
    """

    maps: list[Map]
    verdict: Verdict
    starts: list[Start]
    comparisons: list[Comparison]
    particles: Particles
    excluded: dict[int, str]
    working_pixel_size_A: float
    settings: AbInitioSettings
    seconds: float
    symmetry: SymmetryFound | None = None

    @property
    def map(self) -> Map:
        """The map of the largest class."""
        return self.maps[int(np.argmax(self.starts[0].model.class_weight))]

    def summary(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "verdict": self.verdict.kind,
            "sentence": self.verdict.sentence,
            "hand": "undetermined",
            "gain_nats_per_particle": round(self.verdict.gain, 3),
            "gain_error": round(self.verdict.gain_error, 3),
            "starts": self.verdict.starts,
            "starts_that_agree": self.verdict.agreeing,
            "ranking": [{"start": s.number + 1, "evidence_nats_per_particle": round(s.score, 3)} for s in self.starts],
            "agreement_A": {str(c.number + 1): _finite(c.agreement_A) for c in self.comparisons},
            "symmetry": self.settings.imposed,
            **_symmetry_summary(self.symmetry),
            "class_shares": [round(float(w), 4) for w in self.starts[0].model.class_weight],
            "particles": len(self.particles),
            "excluded": len(self.excluded),
            "working_pixel_size_A": round(self.working_pixel_size_A, 4),
            "seconds": round(self.seconds, 1),
        }


def _symmetry_summary(found: SymmetryFound | None) -> dict[str, Any]:
    if found is None:
        return {}
    return {
        "symmetry_sentence": found.sentence,
        "symmetry_gain_nats": _finite(found.gain),
        "symmetry_candidates": [
            {
                "symmetry": s.symmetry,
                "score": round(s.score, 3),
                "worst_element": round(s.worst, 3),
                "standard_deviations": round(s.significance, 1),
                "fits": s.fits,
            }
            for s in found.scores
        ],
    }


def _finite(value: float) -> float | None:
    return round(value, 2) if np.isfinite(value) else None


def abinitio(
    particles: Particles | str | Path,
    symmetry: str = "C1",
    diameter_A: float | None = None,
    *,
    classes: int = 1,
    starts: int = 3,
    out: str | Path | None = None,
    mirror: bool = False,
    resume: bool = False,
    device: str = "cpu",
    progress: Progress | None = None,
    say: Say | None = None,
    **settings: Any,
) -> AbInitio:
    """A first map from particles alone: stochastic EM from several random starts, and a verdict.

    Images are Fourier-cropped to what the final resolution needs. Every start learns from mini-batches that grow, at a
    resolution that grows; particles that no start has seen rank them, and starts that end in the same map confirm each
    other. Images cannot tell a structure from its mirror image: the hand is undetermined.

    With a folder to write to, iterations leave a checkpoint there, and a page that shows the maps as they stand. The
    same call after it was stopped goes on from the checkpoint, to the same result bit for bit.

    Parameters
    ----------
    particles : Particles or path
        RELION STAR or cryoSPARC CS; or class averages.
    symmetry : str
        Point group, imposed from the start; or "auto": the group that the map made without symmetry turns out to have,
        its axes put where the group has them.
    diameter_A : float, optional
        Diameter of the particle; four fifths of the box by default.
    classes : int
        Maps to make at once.
    starts : int
        Random starts; one cannot be confirmed. If no two agree, more are made (``most_starts``).
    out : path, optional
        Folder for maps, particles, summary and page; nothing is written without.
    mirror : bool
        Give the other hand.
    resume : bool
        There must be a checkpoint in ``out`` to go on from; if there is one, it is used in any case.
    device : str
        ``"cpu"``, or ``"cuda:<number>"``: where images are scored and added up. A run may go on on another.
    progress : callable, optional
        Called as ``progress(stage, done, total)``.
    say : callable, optional
        Called with lines of text.
    **settings
        Any other field of :class:`verglas.initial_model.starts.AbInitioSettings`.

    Returns
    -------
    AbInitio

    Raises
    ------
    InputError
        Fewer than 50 particles can be used, they have no images or no CTF, a setting is wrong or unknown, or a run with
        other settings or particles was stopped in the folder.

    References
    ----------
    Punjani et al. (2017) Nature Methods 14, 290-296; Cappe and Moulines (2009) J. R. Stat. Soc. B 71, 593-613.

    Examples
    --------
    >>> import verglas as vg
    >>> model = vg.simulate.phantom(32, 5.0, 110.0)
    >>> particles = vg.simulate.particles(model, 100, 32, 5.0, snr=1.0, seed=1)
    >>> found = vg.abinitio(particles, diameter_A=125, starts=1, iterations=3, full_iterations=1)
    >>> found.map.box, found.verdict.starts, len(found.particles)
    (32, 1, 100)
    """
    begun = time.perf_counter()
    known = {f.name for f in fields(AbInitioSettings)}
    unknown = sorted(set(settings) - known)
    if unknown:
        raise InputError(f"abinitio: unknown setting {', '.join(unknown)}; known are {', '.join(sorted(known))}")
    chosen = AbInitioSettings(symmetry=symmetry, diameter_A=diameter_A, classes=classes, starts=starts, **settings)
    given = particles if isinstance(particles, Particles) else read_particles(particles)
    if given.source is None:
        raise InputError(f"{given.where}: these particles have no images")
    given = for_job(given, "abinitio")
    folder = None if out is None else Path(out)
    if folder is None and resume:
        raise InputError("abinitio: resume needs the run folder (out)")
    around = Around(folder, mirror, resume, one_device("abinitio", device), progress, say)
    if folder is None:
        return _found(given, chosen, Watch(around, chosen, given), begun)[0]
    with tenure(folder, "abinitio", FromFunctions(say, progress)) as held:
        watch = Watch(replace(around, progress=held.progress, say=held.say), chosen, given)
        held.write(state="running", n_particles=len(given), settings=asdict(chosen))
        try:
            found, problem = _found(given, chosen, watch, begun)
            _write(folder, found, problem)
        except BaseException as error:
            watch.stopped(str(error) or type(error).__name__)
            raise
        watch.done()
    return found


def _found(given: Particles, chosen: AbInitioSettings, watch: Watch, begun: float) -> tuple[AbInitio, Problem]:
    """The result, and the problem at the working pixel size."""
    device = watch.around.device
    problem, power, excluded, drawn = _prepared(given, chosen, device)
    sigma2 = _first_noise(problem, power)
    problem = watch.problem = centred(problem, chosen, sigma2)
    held = np.sort(np.random.default_rng((chosen.seed, 2**32)).permutation(len(problem))[: _n_held(problem, chosen)])
    starts, found_symmetry = all_starts(problem, chosen, sigma2, held, watch), None
    if chosen.symmetry.lower() == AUTO and starts.verdict.kind != "noise":
        starts, found_symmetry = _under_its_group(
            starts, lambda: _finer(given[drawn], problem, chosen, device), sigma2, held, watch
        )
    problem, chosen, made = starts.problem, starts.settings, starts.made
    best = finished(problem, chosen, made[0])
    whole, rows, poses = problem, drawn, best.poses
    if len(drawn) < len(given) - len(excluded):
        whole, rows, poses = _place_all(given, excluded, chosen, problem, (best, watch))
    mirror = watch.around.mirror
    return AbInitio(
        _final_maps(best, problem, given, mirror),
        starts.verdict,
        [best, *made[1:]],
        starts.others,
        _with_poses(given[rows], whole, poses, mirror),
        excluded,
        problem.pixel_size_A,
        chosen,
        time.perf_counter() - begun,
        found_symmetry,
    ), problem


def _under_its_group(
    starts: Starts,
    finer: Callable[[], tuple[Problem, FloatArray]],
    sigma2: FloatArray,
    held: npt.NDArray[np.int64],
    watch: Watch,
) -> tuple[Starts, SymmetryFound]:
    """The starts under the group that the best map shows, or else that wins the contest of groups."""
    problem, chosen, best, found = with_symmetry(starts.problem, starts.settings, starts.made[0], held)
    if found.symmetry != "C1":  # the best map was turned
        return starts.led_by(best, problem, chosen), found
    if not starts.nearly_round:
        return starts, found
    starts, result = among_groups(starts, finer, sigma2, held, watch)
    return starts, told(found, result)


def _finer(used: Particles, problem: Problem, settings: AbInitioSettings, device: str) -> tuple[Problem, FloatArray]:
    """The same particles, centred as they are, at the pixel size of the contest of groups; their first noise."""
    fine = replace(settings, final_resolution_A=min(FINEST_A, settings.final_resolution_A))
    small = cached(_cropped(used, fine))
    found = _problem(small, {}, fine, device)
    power = survey(small, threads=settings.threads, device=device).power
    origin = problem.first_origin_px
    if origin is not None:
        origin = origin * (problem.pixel_size_A / found.pixel_size_A)
    return replace(found, first_origin_px=origin), _first_noise(found, power)


def _n_held(problem: Problem, settings: AbInitioSettings) -> int:
    return max(10, round(settings.held_out * len(problem)))


def _problem(particles: Particles, excluded: dict[int, str], settings: AbInitioSettings, device: str) -> Problem:
    """As for refinement, but edges of masks have a width in angstrom: five large pixels would let neighbours in."""
    problem = Problem.of(
        particles,
        excluded,
        job="abinitio",
        seed=settings.seed,
        symmetry=settings.imposed,
        diameter_A=settings.diameter_A,
        threads=settings.threads,
        devices=(device,),
    )
    return replace(problem, edge_px=float(np.clip(_EDGE_A / problem.pixel_size_A, 1.5, problem.edge_px)))


def _cropped(particles: Particles, settings: AbInitioSettings) -> Particles:
    """Particles at the pixel size that the final resolution needs, read when asked for."""
    box = working_box(particles.box, particles.pixel_size_A, settings.final_resolution_A)
    if box == particles.box:
        return particles
    return resample_particles(particles, plan_resample(particles.box, particles.pixel_size_A, None, box))


def _prepared(
    given: Particles, settings: AbInitioSettings, device: str
) -> tuple[Problem, npt.NDArray[np.float32], dict[int, str], npt.NDArray[np.int64]]:
    """The drawn particles in memory, small; their power spectra; who was set aside; rows of the input."""
    rows = np.arange(len(given))
    if len(given) > settings.max_particles:
        rows = np.sort(
            np.random.default_rng((settings.seed, 2**33)).choice(rows, settings.max_particles, replace=False)
        )
    small = cached(_cropped(given[rows], settings))
    found = survey(small, threads=settings.threads, device=device)
    usable = len(rows) - len(found.excluded)
    if usable < _FEWEST:
        raise InputError(f"abinitio: {usable} of {len(given)} particles can be used; it takes {_FEWEST} or more")
    problem = _problem(small, found.excluded, settings, device)
    used = np.setdiff1d(np.arange(len(rows)), list(found.excluded))
    excluded = {int(rows[i]): reason for i, reason in found.excluded.items()}
    return problem, found.power[used], excluded, rows[used]


def _first_noise(problem: Problem, power: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """Mean power of each noise group's images, (groups, shells)."""
    groups = problem.n_groups
    sigma2 = np.stack([power[problem.group == g].mean(axis=0, dtype=np.float64) for g in range(groups)])
    if not np.all(sigma2[:, 1:] > 0):
        raise InputError("abinitio: the images have no power at some resolution (all zero?)")
    sigma2[:, 0] = sigma2[:, 1]
    return sigma2


def _place_all(
    given: Particles,
    excluded: dict[int, str],
    settings: AbInitioSettings,
    problem: Problem,
    what: tuple[Start, Watch],
) -> tuple[Problem, npt.NDArray[np.int64], PoseTable]:
    """Poses of all particles against the maps learned from some of them: ``what`` are these, and who watches."""
    best, watch = what
    small = _cropped(given, settings)
    found = survey(small, threads=settings.threads, device=watch.around.device)
    excluded.update(found.excluded)
    whole = _problem(small, found.excluded, settings, watch.around.device)
    used = np.setdiff1d(np.arange(len(given)), list(found.excluded))
    model = replace(best.model, scale=np.ones(whole.n_micrographs))
    if whole.n_groups != len(model.sigma2):
        raise InputError("abinitio: an optics group has no particle among those drawn; raise max_particles")
    whole = centred(whole, settings, _first_noise(whole, found.power[used]))
    poses = placed(whole, settings, model, watch.tell("poses of all particles"), keeper=watch.placing())
    return whole, used, poses


def _final_maps(best: Start, problem: Problem, given: Particles, mirror: bool) -> list[Map]:
    """Maps back on the particles' grid; grey values are per voxel, so that they project to the images' scale."""
    made = []
    for volume in best.model.volumes:
        data = volume * problem.sphere
        if mirror:
            data = flip_hand(data)
        made.append(Map(at_box(data, given.box), given.pixel_size_A))
    return made


def _with_poses(used: Particles, problem: Problem, poses: PoseTable, mirror: bool) -> Particles:
    angles = poses.angles_deg.copy()
    if mirror:  # V(-x, y, z) = V(-r) turned by 180 degrees about x; the projection of V(-r) along d is that along -d
        angles = mirrored_angles(angles)
    placed = used.with_poses(Poses(angles, poses.origin_px * problem.pixel_size_A))
    return placed.with_columns(
        rlnClassNumber=poses.class_number + 1,
        rlnMaxValueProbDistribution=poses.max_probability,
        rlnLogLikeliContribution=poses.log_evidence,
    )


def mirrored_angles(angles_deg: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Poses of the same images for the map mirrored in the plane x = 0: M A' M = A with M = diag(-1, 1, 1) on the map.

    An image is unchanged if the depth axis is turned round: A' = diag(1, 1, -1) A diag(-1, 1, 1).

    Examples
    --------
    >>> import numpy as np
    >>> from verglas.run.abinitio import mirrored_angles
    >>> np.round(np.abs(mirrored_angles(mirrored_angles(np.array([[20.0, 40.0, 60.0]])))), 6).tolist()
    [[20.0, 40.0, 60.0]]
    """
    from verglas.geometry import euler_to_matrix, matrix_to_euler

    return matrix_to_euler(np.diag([1.0, 1, -1]) @ euler_to_matrix(angles_deg) @ np.diag([-1.0, 1, 1]))


def _write(folder: Path, found: AbInitio, problem: Problem) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    several = len(found.maps) > 1
    for k, volume in enumerate(found.maps, 1):
        write_map(folder / (f"map_class{k}.mrc" if several else "map.mrc"), volume)
    write_particles(folder / "particles.star", found.particles)
    summary = found.summary()
    record = {
        "verglas": __version__,
        "command": "abinitio",
        "finished": now_text(),
        "settings": asdict(found.settings),
        **summary,
    }
    write_json(folder / "abinitio.json", record)
    shown = AbInitioShown(
        summary,
        found.verdict,
        found.starts,
        found.comparisons,
        problem.pixel_size_A,
        problem.sphere,
        found.particles.poses.angles_deg,  # type: ignore[union-attr]
        asdict(found.settings),
        found.symmetry,
    )
    write_abinitio_page(folder, shown, f"verglas {__version__}, {now_text()}")


def abinitio_files(
    particles: Path, symmetry: str, diameter_A: float | None, *, stack: Path | None = None, **choices: Any
) -> AbInitio:
    """What ``verglas abinitio`` does: read, :func:`abinitio`, leave everything in the folder."""
    return abinitio(read_particles(particles, stack=stack), symmetry, diameter_A, **choices)
