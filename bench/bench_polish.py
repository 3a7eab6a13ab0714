"""Polishing of simulated movies: planted walks and damage, and what `verglas polish` makes of them.

    python bench/bench_polish.py --seeds 12 --minutes 4     goes on where an earlier call stopped

Development used seeds 1 to 5; the committed rows begin at seed 240. A seed is a session of two movies of 100 particles,
80 A wide (1.5 A/px, 12 frames of 3 e/A^2): particles walk at random, together where they are near (0.35 px a step,
400 px), beyond a drift of whole frames that is known; damage by the curve of Grant and Grigorieff. Objects without
symmetry, with D2 and with C5 take turns. References are the true map (both half sets), up to 4 A.

`polish`: prior fitted to each session by itself. `nothing`: the same movies beside the map of another object, and
movies without particles. `prior`: tracks drawn from RELION's fitted triple of its tutorial, 24 movies of 188 particles,
and re-estimated. `maps`: maps of images as extracted, dose-weighted, polished, and added up
along the true tracks with the true weights at the true poses: the same particles without motion (`--first maps` begins
with it; seeds from 250). The poses that are polished and reconstructed with refer to where a particle is on average, as
those of a refinement of sums of frames do: away from its place at the first frame, 0.8 A along an axis on average. (An
earlier form of this experiment left them at the first frame, and its maps of polished particles that much blurred.)
`errors_of_others` tells what of the gain is noise that tracks drew towards the true map.
`maps_large`: the same of particles 150 A wide, 60 to a movie (seeds from 260; development used seed 3).
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy.optimize import isotonic_regression

import verglas as vg
from verglas import image
from verglas.polishing import KnownTracks, MotionPrior, MovieParticles, add_frames, fit_prior_to_tracks
from verglas.run.polish import Polishing
from verglas.run.polish_inputs import RecordedMovie
from verglas.types.trajectory import Trajectory

from common import collect, experiment_summary

FIRST_SEED = 240
OBJECTS = ("C1", "D2", "C5")


@dataclass(frozen=True)
class Recorded:
    """What a session is recorded as.

    Attributes
    ----------
    box, frames, particles, movies : int
        Particles are those of one movie.
    pixel_A, dose, diameter_A : float
        Dose of a frame in e/A^2.
    side : int
        Of a square frame in pixels.
    walk_px : float
        Standard deviation of a step along an axis.
    defocus_A, ice_A : float
        Thickness of the ice, whose contrast is noise; without it a movie is made in a third of the time.
    """

    box: int = 64
    pixel_A: float = 1.5
    frames: int = 12
    dose: float = 3.0
    side: int = 1402
    particles: int = 100
    movies: int = 2
    diameter_A: float = 80.0
    walk_px: float = 0.35
    defocus_A: float = 15000.0
    ice_A: float = 300.0

    def with_particles(self, particles: int) -> Recorded:
        """As many to an area."""
        return replace(self, particles=particles, side=round(self.side * np.sqrt(particles / self.particles)))


SMALL = Recorded()
# of six times the mass, 2.2 of which lie where one of the small ones does
LARGE = Recorded(box=128, side=2048, particles=60, diameter_A=150.0)
BOX, PIXEL_A, FRAMES, DOSE, N, MOVIES = (
    SMALL.box,
    SMALL.pixel_A,
    SMALL.frames,
    SMALL.dose,
    SMALL.particles,
    SMALL.movies,
)
SHAPE = (SMALL.side, SMALL.side)
RELION_PRIOR = MotionPrior(0.4245, 1605.0, 2.61)


def object_of(seed: int, how: Recorded = SMALL) -> tuple[Any, vg.Map]:
    """A phantom of the seed's kind, and its density."""
    model = vg.simulate.phantom(how.box, how.pixel_A, how.diameter_A, OBJECTS[seed % len(OBJECTS)], seed)
    return model, vg.simulate.density(model, how.box, how.pixel_A)


def one_movie(
    model: Any, seed: int, number: int, how: Recorded = SMALL
) -> tuple[RecordedMovie, vg.Particles, np.ndarray, MovieParticles]:
    """A movie with the motion of its whole frames, its particles as extracted, and their true displacements."""
    n, box, pixel_A, shape = how.particles, how.box, how.pixel_A, (how.side, how.side)
    movie, truth = vg.simulate.movie(
        model,
        shape=shape,
        pixel_size_A=pixel_A,
        n=n,
        frames=how.frames,
        dose_per_frame_e_A2=how.dose,
        drift_px=(5, -3),
        walk_px=how.walk_px,
        walk_correlation_px=400.0,
        defocus_u_A=how.defocus_A,
        ice_thickness_A=how.ice_A,
        seed=1000 * seed + number,
        threads=1,
    )
    name = f"m{number}.mrc"
    centres = np.floor(truth.picks.xy_px + 0.5).astype(int)
    known = np.repeat(truth.field.global_px[None], n, axis=0)
    cut = MovieParticles(movie, np.arange(how.frames), centres, known, image.plan_resample(box, pixel_A, pixel_A))
    images = add_frames(cut, None, np.ones((how.frames, box, box // 2 + 1)))
    poses = vg.Poses(truth.poses.angles_deg, (centres - truth.picks.xy_px) * pixel_A)
    made = vg.Particles.from_images(image.normalise(images), pixel_A, optics=truth.optics, poses=poses)
    made = made.with_columns(
        rlnMicrographName=name,
        rlnCoordinateX=centres[:, 0].astype(float),
        rlnCoordinateY=centres[:, 1].astype(float),
        rlnRandomSubset=np.arange(n) % 2 + 1,
    )
    trajectory = Trajectory(
        truth.field.global_px,
        shape=shape,
        movie=name,
        pixel_size_A=pixel_A,
        dose_per_frame_e_A2=how.dose,
        pre_exposure_e_A2=0.0,
        voltage_kV=300.0,
    )
    true = np.moveaxis(truth.shifts_px, 0, 1)
    return RecordedMovie(name, lambda: movie, trajectory), made, true, cut


def session(
    model: Any, seed: int, how: Recorded = SMALL
) -> tuple[list[RecordedMovie], vg.Particles, list[np.ndarray], list[MovieParticles]]:
    """Movies and all their particles."""
    parts = [one_movie(model, seed, number, how) for number in range(how.movies)]
    table = pd.concat([p[1].table for p in parts], ignore_index=True)
    images = np.concatenate([p[1].images() for p in parts])
    every = vg.Particles(table, vg.types.ArraySource(images, how.pixel_A), optics_table=parts[0][1].optics_table)
    return [p[0] for p in parts], every, [p[2] for p in parts], [p[3] for p in parts]


def correlation(images: np.ndarray, clean: np.ndarray, finest_A: float) -> float:
    """With noise-free images, from 15 A to a resolution."""
    shell = vg.fourier.shells((BOX, BOX))
    band = (shell >= BOX * PIXEL_A / 15) & (shell <= BOX * PIXEL_A / finest_A)
    x, y = (vg.fourier.forward(np.asarray(i, np.float32), 2)[:, band] for i in (images, clean))
    return float((x * np.conj(y)).real.sum() / np.sqrt((np.abs(x) ** 2).sum() * (np.abs(y) ** 2).sum()))


def about_mean(tracks: np.ndarray) -> np.ndarray:
    """Tracks about their mean over the frames."""
    return tracks - tracks.mean(axis=1, keepdims=True)


class Polished(NamedTuple):
    """A session, what came of it, and images of frames added up along the true tracks or along none."""

    movies: list[RecordedMovie]
    particles: vg.Particles
    true: list[np.ndarray]
    truth: vg.Map
    made: Polishing
    shiny: np.ndarray
    still: np.ndarray
    dosed: np.ndarray
    cuts: list[MovieParticles]
    seconds: float


def mean_places_A(true: list[np.ndarray], movies: list[RecordedMovie], cuts: list[MovieParticles]) -> np.ndarray:
    """(n, 2): where particles are on average about their places at the first frame, frames weighted by exposure."""
    means = []
    for tracks, movie, cut in zip(true, movies, cuts, strict=True):
        pixel_A = movie.trajectory.pixel_size_A
        shell = round(SMALL.box * SMALL.pixel_A / 5.0)  # at 5 A
        left = cut.amplitude_left(SMALL.box)[:, shell] ** 2
        means.append(np.average((tracks - movie.trajectory.global_px) * pixel_A, axis=1, weights=left))
    return np.concatenate(means)


def polish_session(seed: int, how: Recorded = SMALL, *, averaged: bool = False) -> Polished:
    """Polish one, with the true map as both half maps and the prior from the data.

    ``averaged`` poses are those of the mean of a track.
    """
    model, truth = object_of(seed, how)
    movies, particles, true, cuts = session(model, seed, how)
    if averaged:
        poses = particles.poses
        particles = particles.with_poses(vg.Poses(poses.angles_deg, poses.shifts_A - mean_places_A(true, movies, cuts)))
    box, pixel_A = how.box, how.pixel_A
    mask = vg.Map(np.ones((box,) * 3, np.float32), pixel_A)
    with tempfile.TemporaryDirectory() as folder:
        begun = time.process_time()
        made = vg.polish(
            particles,
            movies,
            folder,
            half_maps=(truth, truth),
            mask=mask,
            max_resolution_A=4.0,
            threads=1,
            listener=None,
        )
        seconds = time.process_time() - begun
        shiny = made.particles.images() if made.changed else particles.images()
    left_amplitude = cuts[0].amplitude_left(box)
    k = np.hypot(np.fft.fftfreq(box)[:, None], np.fft.rfftfreq(box)) * box
    ideal = np.stack([np.interp(k, np.arange(box), row) for row in left_amplitude])
    ideal /= np.sqrt((ideal**2).sum(axis=0))
    known = [np.repeat(m.trajectory.global_px[None], how.particles, axis=0) for m in movies]
    moves = [(t - n) * pixel_A for t, n in zip(true, known, strict=True)]
    still = np.concatenate([add_frames(cut, move, ideal) for cut, move in zip(cuts, moves, strict=True)])
    dosed = np.concatenate([add_frames(cut, None, ideal) for cut in cuts])
    return Polished(movies, particles, true, truth, made, shiny, still, dosed, cuts, seconds)


def polish(seed: int) -> dict[str, Any]:
    """Track errors, weights, and what the images gain, beside sums along the true tracks with the true weights."""
    p = polish_session(seed)
    made, known = p.made, [np.repeat(m.trajectory.global_px[None], N, axis=0) for m in p.movies]
    error, was, told = [], [], []
    for tracks in made.tracks:
        left = about_mean((p.true[tracks.number] - known[tracks.number]) * PIXEL_A)
        used = tracks.moves_A if made.tracks_kept and tracks.kept else 0 * tracks.moves_A
        error.append(about_mean(used) - left)
        was.append(left)
        told.append(tracks.error_A)
    clean = vg.project(p.truth, p.particles.poses, p.particles.optics, threads=1)
    return {
        "object": OBJECTS[seed % len(OBJECTS)],
        "changed": made.changed,
        "tracks_kept": made.tracks_kept,
        "gain_over_error": made.gain_nats / made.gain_error_nats if made.gain_error_nats else 0.0,
        "track_rms_A": float(np.sqrt((np.array(error) ** 2).mean())) if error else None,
        "known_motion_rms_A": float(np.sqrt((np.array(was) ** 2).mean())) if was else None,
        "track_rms_told_A": float(np.sqrt((np.array(told) ** 2).mean())) if told else None,
        "correlation_plain": correlation(p.particles.images(), clean, 5.0),
        "correlation_dose_weighted": correlation(p.dosed, clean, 5.0),
        "correlation_polished": correlation(p.shiny, clean, 5.0),
        "correlation_without_motion": correlation(p.still, clean, 5.0),
        "processor_s_per_particle": p.seconds / (N * MOVIES),
        "peak_memory_MB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000,
    }


def at_half_A(volume: vg.Map, truth: vg.Map) -> tuple[float, float]:
    """Where the FSC first falls below 0.5, and where the closest curve that never rises does.

    Structure makes curves of small boxes rise and fall: the first dip below is often not where the signal ends.
    """
    curve = vg.fsc(volume, truth)
    falling = isotonic_regression(curve.curve[1:], increasing=False).x
    shells = np.arange(1, len(curve.curve))
    below = np.flatnonzero(falling < 0.5)
    last = float(shells[-1])
    if len(below):
        i = int(below[0])
        last = float(np.interp(0.5, falling[i - 1 : i + 1][::-1], shells[i - 1 : i + 1][::-1])) if i else 1.0
    return curve.resolution_A(0.5), truth.box * truth.pixel_size_A / last


def errors_of_others(p: Polished, how: Recorded) -> np.ndarray:
    """Frames added up along true tracks with the errors of the tracks of other particles.

    Tracks follow a particle's own noise towards the reference, which here is the true map: that makes its image more
    like the truth than its tracks are good. The errors of another particle do not know this one's noise.
    """
    k = np.hypot(np.fft.fftfreq(how.box)[:, None], np.fft.rfftfreq(how.box)) * how.box
    weights = np.stack([np.interp(k, np.arange(how.box), row) for row in p.cuts[0].amplitude_left(how.box)])
    weights /= np.sqrt((weights**2).sum(axis=0))
    away = np.split(mean_places_A(p.true, p.movies, p.cuts), len(p.movies))
    found = {tracks.number: tracks.moves_A for tracks in p.made.tracks if p.made.tracks_kept and tracks.kept}
    made = []
    for number, (movie, cut) in enumerate(zip(p.movies, p.cuts, strict=True)):
        left = (p.true[number] - movie.trajectory.global_px) * how.pixel_A - away[number][:, None]
        error = found.get(number, np.zeros_like(left)) - left
        made.append(add_frames(cut, left + np.roll(error, 1, axis=0), weights))
    return np.concatenate(made)


def maps(seed: int, how: Recorded = SMALL) -> dict[str, Any]:
    """Maps of particles: where their FSC with the truth falls below 0.5."""
    p = polish_session(seed, how, averaged=True)
    symmetry = OBJECTS[seed % len(OBJECTS)]
    row: dict[str, Any] = {"object": symmetry, "changed": p.made.changed}
    away = mean_places_A(p.true, p.movies, p.cuts)
    exact = p.particles.with_poses(vg.Poses(p.particles.poses.angles_deg, p.particles.poses.shifts_A + away))
    images = {"plain": p.particles.images(), "dose_weighted": p.dosed, "polished": p.shiny, "without_motion": p.still}
    images["errors_of_others"] = errors_of_others(p, how)
    for name, some in images.items():
        placed = exact if name == "without_motion" else p.particles
        given = placed.with_source(vg.types.ArraySource(image.normalise(some), how.pixel_A))
        volume = vg.reconstruct(given, symmetry=symmetry, threads=1, listener=None)
        row[f"first_below_{name}_A"], row[f"resolution_{name}_A"] = at_half_A(volume, p.truth)
    for name in ("plain", "dose_weighted", "polished", "errors_of_others"):
        for kind in ("resolution", "first_below"):
            row[f"{kind}_{name}_over_without_motion"] = row[f"{kind}_{name}_A"] / row[f"{kind}_without_motion_A"]
    return row


def nothing(seed: int) -> dict[str, Any]:
    """The map of another object; movies without particles."""
    model = object_of(seed)[0]
    movies, particles, _, _ = session(model, seed)
    other = object_of(seed + 50_000)[1]
    mask = vg.Map(np.ones((BOX,) * 3, np.float32), PIXEL_A)
    random = np.random.default_rng(seed)
    asked = {"mask": mask, "max_resolution_A": 4.0, "threads": 1, "listener": None}
    blank = [
        vg.Movie.from_array(
            random.poisson(DOSE * PIXEL_A**2, (FRAMES, *SHAPE)).astype(np.uint8), PIXEL_A, dose_per_frame_e_A2=DOSE
        )
        for _ in movies
    ]
    empty = [RecordedMovie(m.micrograph, lambda b=b: b, m.trajectory) for m, b in zip(movies, blank, strict=True)]
    noise = random.normal(size=(len(particles), BOX, BOX)).astype(np.float32)
    for number, frames in enumerate(blank):  # images as extracted: what the movies hold at these places
        rows = np.flatnonzero(particles.table["rlnMicrographName"] == movies[number].micrograph)
        xy = particles.table.iloc[rows][["rlnCoordinateX", "rlnCoordinateY"]].to_numpy(float)
        known = np.repeat(movies[number].trajectory.global_px[None], len(rows), axis=0)
        cut = MovieParticles(
            frames, np.arange(FRAMES), xy.astype(int), known, image.plan_resample(BOX, PIXEL_A, PIXEL_A)
        )
        noise[rows] = image.normalise(add_frames(cut, None, np.ones((FRAMES, BOX, BOX // 2 + 1))))
    of_noise = particles.with_source(vg.types.ArraySource(noise, PIXEL_A))
    with tempfile.TemporaryDirectory() as folder:
        wrong = vg.polish(particles, movies, f"{folder}/a", half_maps=(other, other), **asked)
        without = vg.polish(of_noise, empty, f"{folder}/b", half_maps=(other, other), **asked)
    return {
        "other_map_changed": wrong.changed,
        "other_map_verdict": wrong.verdict,
        "noise_changed": without.changed,
        "noise_verdict": without.verdict,
    }


def prior(seed: int) -> dict[str, Any]:
    """RELION's triple, drawn and re-estimated from tracks without error."""
    random = np.random.default_rng(seed)
    drawn = []
    for _ in range(24):
        places = random.uniform(0, 3300, (188, 2))
        drawn.append(KnownTracks(RELION_PRIOR.draw(places, 24, 1.277, random), places, 1.277))
    fitted = fit_prior_to_tracks(drawn, MotionPrior(1.0, 4000.0, 1.0))
    names = ("velocity_A", "correlation_length_A", "acceleration_A")
    return {f"{name}_relative_error": abs(getattr(fitted, name) / getattr(RELION_PRIOR, name) - 1) for name in names}


EXPERIMENTS = {
    "polish": polish,
    "nothing": nothing,
    "prior": prior,
    "maps": maps,
    "maps_large": partial(maps, how=LARGE),
}
FIRST_OF = {"maps": 250, "maps_large": 260}  # tracks of 240 to 249 were seen before


def trials(seeds: int, first: list[str]) -> dict[str, Callable[[], Any]]:
    """Every experiment, seed by seed."""
    chosen = {}
    for name in sorted(EXPERIMENTS, key=lambda name: name not in first):
        for seed in range(FIRST_OF.get(name, FIRST_SEED), FIRST_OF.get(name, FIRST_SEED) + seeds):
            chosen[f"{name} {seed}"] = lambda name=name, seed=seed: EXPERIMENTS[name](seed)
    return chosen


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=12)
    parser.add_argument("--minutes", type=float, default=4.0)
    parser.add_argument("--first", nargs="*", default=[], choices=EXPERIMENTS, help="experiments to run first")
    parser.add_argument("--try", type=int, dest="tried", help="run one seed of development, write nothing")
    given = parser.parse_args()
    if given.tried is not None:
        print(polish(given.tried), nothing(given.tried), sep="\n")
    else:
        collect("polish", trials(given.seeds, given.first), partial(experiment_summary, EXPERIMENTS), given.minutes)
