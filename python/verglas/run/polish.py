"""``verglas polish``: particles followed through the frames of their movies, which are then added up anew."""

from __future__ import annotations

import atexit
import hashlib
import shutil
import tempfile
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from threadpoolctl import threadpool_limits

from verglas._screen import ListenerChoice, shown_to
from verglas.assessment import fsc
from verglas.errors import InputError
from verglas.io import check_folder, read_particles
from verglas.io.mrc import PathLike
from verglas.polishing import MotionPrior, OtherHalf, Window
from verglas.run.checkpoint import Checkpoints
from verglas.run.ctf_refine_inputs import Prepared, prepare
from verglas.run.half_maps import maps_digest, masked_halves, reconstruct_halves
from verglas.run.kept_inputs import keeps_inputs
from verglas.run.polish_files import PolishedFolder
from verglas.run.polish_inputs import MovieReading, RecordedMovie, assign, recorded_movies
from verglas.run.polish_passes import MicrographTracks, Passes, WeightsFit
from verglas.run.refine_inputs import close_identity
from verglas.run.tenure import tenure
from verglas.types import Map, Particles, Snapshot
from verglas.types.arrays import FloatArray
from verglas.types.convert import MapLike, ParticlesLike, map_of, particles_of
from verglas.types.display import one_line
from verglas.types.listener import Listener
from verglas.types.settings import JobSettings, result_settings, setting, settings_from

_LEAST_SHELLS = 5  # in which frames correlate with the reference; fewer decide nothing
_FSC = 0.143
_SIGMAS = 3.0  # of held-out gain that is believed


@dataclass(frozen=True)
class PolishSettings(JobSettings, job="polish"):
    """What is known of the motion, how far it goes, and how images are written."""

    velocity_A: float | None = setting(
        None, "Prior of tracks: velocity, A per e/A^2", default_words="from the data", more_than=0
    )
    correlation_length_A: float | None = setting(
        None, "Prior of tracks: distance over which particles move together", default_words="from the data", more_than=0
    )
    acceleration_A: float | None = setting(
        None, "Prior of tracks: acceleration, A per e/A^2", default_words="from the data", more_than=0
    )
    reach_A: float = setting(9.0, "Largest movement beyond the known motion, along an axis", more_than=0)
    weights: Literal["data", "dose"] = setting(
        "data", "Weights of frames: by their correlation with the reference, or by the exposure curve alone"
    )
    max_resolution_A: float | None = setting(
        None, "Finest resolution in use", default_words="where the half maps' FSC falls below 0.143", more_than=0
    )
    symmetry: str = setting("C1", "Point group of the reconstructions")
    diameter_A: float | None = setting(
        None, "Diameter of the particle, for mask and background", default_words="made from the map", more_than=0
    )
    dtype: Literal["float32", "float16"] = setting("float32", "Of the stacks")

    def prior(self) -> MotionPrior | None:
        """As given; None where the data are to say it."""
        values = (self.velocity_A, self.correlation_length_A, self.acceleration_A)
        if all(value is None for value in values):
            return None
        if any(value is None for value in values):
            raise InputError(
                "polish: velocity_A, correlation_length_A and acceleration_A go together; give all three, or none and "
                "they are fitted"
            )
        return MotionPrior(*(float(value) for value in values if value is not None))


@one_line
@dataclass(frozen=True, eq=False)
class Polishing:
    """What :func:`polish` gives.

    Attributes
    ----------
    particles : Particles
        Polished ones, poses and optics as they were; the given ones where nothing was gained.
    changed : bool
        Whether they are polished.
    verdict : str
        In a sentence, what was gained, or why nothing was.
    prior : MotionPrior or None
        Of the tracks; None where no track could be fitted.
    gain_nats, gain_error_nats : float
        What tracks gain on coefficients that they were not fitted to.
    tracks_kept : bool
    tracks : list of MicrographTracks
    weights : WeightsFit or None
    informative_shells : int
        Shells in which frames correlate with the reference.
    settings : PolishSettings
    excluded : dict of int -> str
        Particle (row from 0) that was not polished -> why.
    seconds : float
    """

    particles: Particles
    changed: bool
    verdict: str
    prior: MotionPrior | None
    gain_nats: float
    gain_error_nats: float
    tracks_kept: bool
    tracks: list[MicrographTracks]
    weights: WeightsFit | None
    informative_shells: int
    settings: PolishSettings
    excluded: dict[int, str] = field(default_factory=dict)
    seconds: float = 0.0

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        prior, weights = self.prior, self.weights
        return {
            "verdict": self.verdict,
            "changed": self.changed,
            "particles": len(self.particles) if self.changed else 0,
            "excluded": len(self.excluded),
            "informative_shells": self.informative_shells,
            "prior": None
            if prior is None
            else {
                "velocity_A": round(prior.velocity_A, 4),
                "correlation_length_A": round(prior.correlation_length_A, 1),
                "acceleration_A": round(prior.acceleration_A, 4),
            },
            "tracks": {
                "kept": self.tracks_kept,
                "gain_nats": round(self.gain_nats, 2),
                "gain_error_nats": round(self.gain_error_nats, 2),
                "micrographs": sum(t.kept for t in self.tracks),
                "of_micrographs": len(self.tracks),
            },
            "weights": None if weights is None else weights.as_dict(),
            "seconds": round(self.seconds, 1),
        }


@keeps_inputs("polish")
def polish(
    particles: ParticlesLike,
    movies: PathLike | list[RecordedMovie],
    out: PathLike | None = None,
    settings: PolishSettings | None = None,
    *,
    half_maps: tuple[MapLike, MapLike] | None = None,
    mask: MapLike | None = None,
    reading: MovieReading | None = None,
    resume: bool = False,
    threads: int | None = None,
    listener: ListenerChoice = "screen",
    **changes: Any,
) -> Polishing:
    """Follow particles through the frames of their movies, and add these up anew.

    Tracks are most probable ones under a Gaussian-process prior, against the map of the half set that a particle is not
    in. They are used only if coefficients that they were not fitted to gain more than three standard errors, and of a
    micrograph only if it gains. Frames are weighted by their correlation with the reference, if that tells more of
    other particles than the exposure curve. Where neither gains, nothing is written but the account.

    Parameters
    ----------
    particles : Particles or path
        With poses, CTFs, coordinates (rlnCoordinateX, Y) and micrographs (rlnMicrographName), as refined.
    movies : path, or list of RecordedMovie
        STAR file of the corrected micrographs, with rlnMicrographMetadata.
    out : path, optional
        Folder, by default a temporary one, which is removed when Python ends: ``shiny.star`` and ``stacks/``,
        ``tracks.star``, ``bfactors.star``, ``polish.json``, ``excluded.csv``.
    settings : PolishSettings, optional
        Further keywords (``symmetry="O"``) change its fields.
    half_maps : two Map or path, optional
        Of rlnRandomSubset 1 and 2; reconstructed if not given.
    mask : Map or path, optional
        Solvent mask, 0 to 1; made from the maps if not given.
    reading : MovieReading, optional
        Gain, defects and order of rows, where the files do not say them.
    resume : bool
        There must be a run in ``out`` that was stopped. The same call goes on from one by itself: the prior, and tracks
        and stacks of the movies that are done, are kept; what comes out is the same to the bit.
    threads : int, optional
        Threads; all by default. The result does not depend on it.
    listener : Listener or None
        Who hears how it goes; None: silence.

    Returns
    -------
    Polishing

    Raises
    ------
    InputError
        Particles without poses, CTFs, optics table, coordinates; movies that do not fit them; a run in ``out`` that was
        stopped with other settings or particles, or none to resume.

    References
    ----------
    Zivanov, Nakane and Scheres (2019) IUCrJ 6, 5-17, whose prior this is; its numbers by Laplace's approximation of
    the marginal likelihood.
    """
    begun = time.perf_counter()
    chosen = settings_from("polish", PolishSettings, settings, **changes)
    given_prior = chosen.prior()
    given = particles_of(particles, "polish: particles")
    prepared = prepare(given, fits_ctf=False, needs_halves=half_maps is not None, job="polish")
    recorded = movies if isinstance(movies, list) else recorded_movies(movies, reading or MovieReading())
    assigned, without = assign(prepared.particles, recorded)
    maps = None if half_maps is None else (map_of(half_maps[0], "half map"), map_of(half_maps[1], "half map"))
    if out is None and resume:
        raise InputError("polish: resume needs the run folder (out)")
    folder = _passing_folder() if out is None else Path(out)
    with shown_to(listener) as screen, tenure(folder, "polish", screen) as hold:
        checkpoints = Checkpoints(folder, result_settings(chosen), _identity(given, recorded, maps), hold.say)
        checkpoints.open(resume=resume)
        hold.write(state="running")
        if maps is None:
            hold.say("reconstructing the maps of both half sets")
            maps = reconstruct_halves(prepared.particles, chosen.symmetry, threads)
        solvent = None if mask is None else map_of(mask, "polish: mask")
        masked = masked_halves("polish", maps, solvent, chosen.diameter_A, threads)
        other = reference_maps(prepared.particles, masked, chosen, threads)
        del maps, masked, solvent  # as large as all that follows
        work = Passes(prepared.particles, prepared.half, assigned, other, hold, checkpoints.part)
        # small matrices, whose sums come out otherwise with other numbers of threads
        with threadpool_limits(1, user_api="blas"):
            result = _polish(work, prepared, chosen, given_prior, PolishedFolder(folder, chosen.dtype), hold)
        lost = {int(prepared.rows[i]): why for i, why in {**without, **work.excluded}.items()}
        excluded = dict(sorted({**prepared.excluded, **lost}.items()))
        made = replace(result, excluded=excluded, seconds=time.perf_counter() - begun)
        PolishedFolder(folder, chosen.dtype).write_account(given, made.as_dict(), excluded)
        checkpoints.remove()
        hold.say(made.verdict)
    return made


def _passing_folder() -> Path:
    """A folder for as long as Python runs: polished images are read from it whenever they are asked for."""
    folder = Path(tempfile.mkdtemp(prefix="verglas-polish-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def _identity(particles: Particles, recorded: list[RecordedMovie], maps: tuple[Map, Map] | None) -> dict[str, Any]:
    """What a run that goes on must find again: particles, movies and their motion, half maps."""
    motion, files = (hashlib.sha1(usedforsecurity=False) for _ in range(2))
    for one in recorded:
        t = one.trajectory
        about = (t.movie, t.shape, t.binning, t.pixel_size_A, t.dose_per_frame_e_A2, t.first_frame, dict(t.more))
        motion.update(f"{one.micrograph} {about}".encode())
        for part in (t.global_px, t.polynomial, t.lattice_px, t.hot_pixels):
            motion.update(b"none" if part is None else np.ascontiguousarray(part, np.float64).tobytes())
        files.update(f"{one.fingerprint}\n".encode())
    return close_identity(particles) | {
        "movies": len(recorded),
        "motion": motion.hexdigest()[:12],
        "files of movies": files.hexdigest()[:12],
        "half maps": maps_digest(maps) or "of the particles",
    }


def reference_maps(
    particles: Particles, masked: tuple[Map, Map], chosen: PolishSettings, threads: int | None
) -> OtherHalf:
    """References of both half sets up to the resolution that the maps agree to.

    Raises
    ------
    InputError
        Maps of another box or pixel size than the particles'.
    """
    box, pixel_A = particles.box, particles.pixel_size_A
    if masked[0].box != box or abs(masked[0].pixel_size_A / pixel_A - 1) > 0.01:
        raise InputError(
            f"polish: the maps have {masked[0].box} px of {masked[0].pixel_size_A:g} A, the particles {box} px of "
            f"{pixel_A:g} A; resample the maps"
        )
    curve = np.asarray(fsc(*masked).curve, np.float64)
    below = np.flatnonzero(curve[1:] < _FSC)
    last = min(int(below[0]) if len(below) else len(curve) - 1, (box - 1) // 2 - 1)
    if chosen.max_resolution_A is not None:
        last = min(last, int(box * pixel_A / chosen.max_resolution_A))
    last = max(last, 2)
    certain: FloatArray = np.clip(curve[: last + 1], 0.0, 1.0)
    return OtherHalf(masked, certain, Window(box, pixel_A, last, chosen.reach_A), threads)


def _polish(
    work: Passes,
    prepared: Prepared,
    chosen: PolishSettings,
    prior: MotionPrior | None,
    folder: PolishedFolder,
    heard: Listener,
) -> Polishing:
    """The passes one after the other: what the frames say, the prior, tracks, weights, sums."""
    informative, fitted, amplitude = _prior_of(work, prior)
    none = Polishing(prepared.given, False, "", None, 0.0, 0.0, False, [], None, informative, chosen)
    if fitted is None:
        return replace(none, verdict=_nothing_to_follow(informative))
    prior = fitted
    heard.say(
        f"prior of tracks: {prior.velocity_A:.3g} A per e/A^2, {prior.correlation_length_A:.0f} A, "
        f"{prior.acceleration_A:.3g} A per e/A^2"
    )
    tracks = work.follow(prior, amplitude)
    gain, error = work.gain_of(tracks)
    kept = gain > _SIGMAS * error
    moves = {t.number: t.moves_A for t in tracks if kept and t.kept}
    weights = work.fit_weights(moves, by_data=chosen.weights == "data")
    none = replace(none, prior=prior, gain_nats=gain, gain_error_nats=error, tracks=tracks, weights=weights)
    sentence = f"held-out data gain {gain:+.0f} +- {error:.0f} nats by tracks"
    if weights.by_data:
        sentence += f" and {weights.gain_nats:+.0f} +- {weights.gain_error_nats:.0f} nats by weights of frames"
    if not kept and not weights.by_data:
        return replace(none, verdict=f"nothing was changed: {sentence}, which is not beyond three standard errors")
    rows, names = folder.write_stacks(work, moves, weights.weights, chosen.diameter_A, heard)
    polished = folder.write_particles(prepared, rows, names)
    folder.write_tracks(work, tracks, moves)
    folder.write_weights(weights)
    used = f"tracks of {len(moves)} of {len(tracks)} micrographs" if kept else "no tracks"
    verdict = f"{len(polished)} particles polished: {sentence}; {used}"
    return replace(none, particles=polished, changed=True, verdict=verdict, tracks_kept=kept)


def _prior_of(work: Passes, given: MotionPrior | None) -> tuple[int, MotionPrior | None, float]:
    """Informative shells, the prior (None of too few shells) and the references' amplitude; found once."""
    kept = work.part("prior")
    had = kept.load()
    if had is not None:
        record = had.record
        return record["informative"], MotionPrior(*record["prior"]), record["amplitude"]
    sample = work.sample()
    if sample.informative < _LEAST_SHELLS:
        return sample.informative, None, 0.0
    prior, amplitude = work.fit_prior(sample, given)
    values = [prior.velocity_A, prior.correlation_length_A, prior.acceleration_A]
    record = {"informative": sample.informative, "prior": [float(v) for v in values], "amplitude": float(amplitude)}
    kept.save(Snapshot({}, record), needed=True)
    return sample.informative, MotionPrior(*record["prior"]), record["amplitude"]


def _nothing_to_follow(informative: int) -> str:
    return (
        f"nothing was changed: frames correlate with the other half's map in {informative} shells only, "
        f"{_LEAST_SHELLS} are needed: wrong map, wrong poses, or nothing but noise"
    )


@keeps_inputs("polish")
def polish_files(
    particles: Path,
    micrographs: Path,
    out: Path,
    settings: PolishSettings,
    *,
    half_maps: tuple[Path, Path] | None = None,
    mask: Path | None = None,
    stack: Path | None = None,
    reading: MovieReading | None = None,
    resume: bool = False,
    threads: int | None = None,
    listener: ListenerChoice = "screen",
) -> Polishing:
    """:func:`polish` of files."""
    check_folder(out)
    return polish(
        read_particles(particles, stack=stack),
        micrographs,
        out,
        settings,
        half_maps=half_maps,
        mask=mask,
        reading=reading,
        resume=resume,
        threads=threads,
        listener=listener,
    )
