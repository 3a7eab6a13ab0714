"""Polishing on arrays: tracks through the frames of simulated movies, their prior, and what frames are worth."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

import verglas as vg
from verglas import fourier, image
from verglas.errors import InputError
from verglas.polishing import (
    Evidence,
    FrameCorrelation,
    KnownTracks,
    MotionPrior,
    MovieParticles,
    OtherHalf,
    Scene,
    Surfaces,
    TrackSmoother,
    Window,
    correlate_frames,
    fit_frame_weights,
    fit_offsets,
    fit_prior,
    fit_prior_to_tracks,
    fit_tracks,
    held_out_gain,
    measure,
    prior_evidence,
    smoother_of,
    track_errors_A,
    weights_gain,
)
from verglas.polishing.movie import cut_frame, cut_spectra
from verglas.polishing.smoothing import OFFSET_A, frame_weights, parabolic_evidence
from verglas.polishing.surfaces import noise_power
from verglas.run.polish_passes import weights_of
from verglas.types import Snapshot

BOX, PIXEL_A, LAST = 64, 1.5, 28
PRIOR = MotionPrior(0.4, 1500.0, 0.1)


@pytest.fixture(scope="module")
def recorded():
    """A movie whose whole-frame motion is known and whose dome is not; its measurement, and the tracks to be found."""
    model = vg.simulate.phantom(box=BOX, pixel_size_A=PIXEL_A, diameter_A=80)
    movie, truth = vg.simulate.movie(
        model,
        shape=(560, 560),
        pixel_size_A=PIXEL_A,
        n=20,
        frames=8,
        dose_per_frame_e_A2=4.5,
        drift_px=(4, -2),
        dome_px=6.0,
        seed=1,
    )
    volume = vg.simulate.density(model, BOX, PIXEL_A)
    centres = np.floor(truth.picks.xy_px + 0.5).astype(int)
    poses = vg.Poses(truth.poses.angles_deg, (centres - truth.picks.xy_px) * PIXEL_A)
    n = len(centres)
    table = vg.Particles.from_images(np.zeros((n, BOX, BOX), np.float32), PIXEL_A, optics=truth.optics, poses=poses)
    known = np.repeat(truth.field.global_px[None], n, axis=0)
    plan = image.plan_resample(BOX, PIXEL_A, PIXEL_A)
    particles = MovieParticles(movie, np.arange(8), centres, known, plan)
    window = Window(BOX, PIXEL_A, LAST, 9.0)
    other = OtherHalf((volume, volume), np.ones(LAST + 1), window)
    references = other.references(table, np.arange(n) % 2)
    left_A = (np.moveaxis(truth.shifts_px, 0, 1) - known) * PIXEL_A
    return particles, references, window, measure(particles, references, window), left_A


def scaled(measured):
    amplitude = measured.shell_sums[0, 1:].sum() / measured.shell_sums[1, 1:].sum()
    return tuple(fold.scale(amplitude) for fold in measured.folds)


def sum_of(folds):
    return folds[0] + folds[1]


def about_mean(tracks_A, surfaces):
    weights = frame_weights(surfaces.information)[None, :, None]
    return tracks_A - (tracks_A * weights).sum(axis=1, keepdims=True) / weights.sum()


def test_tracks_are_nearer_than_the_motion_of_whole_frames_and_held_out_data_say_so(recorded):
    particles, _, _, measured, left_A = recorded
    folds = scaled(measured)
    both = folds[0] + folds[1]
    smoother = smoother_of(PRIOR, both, particles.places_A, 4.5)
    tracks = fit_tracks(both, smoother)
    true = about_mean(left_A, both)
    error, before = (np.sqrt((x**2).mean()) for x in (tracks.positions_A - true, true))
    assert error < 0.6 * before
    assert 0.5 < error / np.sqrt((track_errors_A(smoother) ** 2).mean()) < 2
    gain, _ = held_out_gain(folds, PRIOR, particles.places_A, 4.5)
    assert gain.total > 3 * gain.error > 0


@pytest.mark.parametrize("box", [12, 16])
def test_boxes_are_cut_at_exact_places_and_beyond_the_edge(box):
    """Against a frame put into a wide border of its mean, moved by a phase; twelve places take two batches."""
    random = np.random.default_rng(2)
    frame = random.normal(3, 1, (40, 50)).astype(np.float32)
    places = np.vstack([random.uniform(-2, 45, (11, 2)), [[-90.0, 20.3]]])
    plan = image.plan_resample(box, 1.0, 1.0)
    wide = np.pad(frame, 120, constant_values=float(frame.mean(dtype=np.float64)))
    wanted = []
    for place in places:
        x, y = np.floor(place + 0.5).astype(int) + 120 - box // 2
        cut = -wide[y : y + box, x : x + box]
        phases = fourier.shift_phases((box, box), -(place - np.floor(place + 0.5)))
        wanted.append(fourier.forward(cut - cut.mean(), 2) * phases)
    whole = cut_frame(frame, places, plan)
    assert np.allclose(whole, wanted, atol=1e-4)
    low = np.concatenate([part for _, part in cut_spectra(frame, places, plan, 4)])
    assert np.allclose(low, whole[:, np.r_[0:5, box - 4 : box], :5], atol=1e-4)


def test_surfaces_are_the_correlation_with_a_moved_reference(recorded):
    """Value between the samples: the sum over the plane itself; the curvature is what the reference says."""
    particles, references, window, measured, _ = recorded
    place = np.full((len(particles), 8, 2), (1.3, -2.1))
    values, slopes = (measured.folds[0] + measured.folds[1]).at(place)
    f, images = next(iter(particles.spectra(LAST)))
    shell = window.shell.clip(max=LAST)
    factor = particles.amplitude_left(LAST + 1)[f][shell] / noise_power(images, window)[shell] * window.weight
    ky, kx = np.r_[0 : LAST + 1, -LAST:0][:, None], np.arange(LAST + 1)
    wave = np.exp(2j * np.pi * (kx * 1.3 - ky * 2.1) / (BOX * PIXEL_A))
    exact = (images * np.conj(references.models) * factor * wave).real.sum(axis=(1, 2))
    assert np.allclose(values[:, 0], exact, atol=0.01 * np.abs(values).max())
    further = (measured.folds[0] + measured.folds[1]).at(place + np.array([0.01, 0]))[0]
    assert np.allclose((further - values) / 0.01, slopes[..., 0], atol=0.02 * np.abs(slopes).max())


def test_tracks_of_noise_gain_nothing(recorded):
    particles, references, window, _, _ = recorded
    noise = np.random.default_rng(5).poisson(10, (8, 560, 560)).astype(np.float32)
    blank = MovieParticles(
        vg.Movie.from_array(noise, PIXEL_A, dose_per_frame_e_A2=4.5),
        particles.frames,
        particles.centres_px,
        particles.known_px,
        particles.plan,
    )
    measured = measure(blank, references, window)
    z = measured.shell_sums[0, 1:] / np.sqrt(measured.shell_sums[1, 1:])
    assert (np.abs(z) < 4).all()
    folds = tuple(fold.scale(0.005) for fold in measured.folds)
    gain, _ = held_out_gain(folds, PRIOR, blank.places_A, 4.5)
    assert gain.total < 2 * gain.error


def test_weights_of_frames_are_those_of_the_planted_damage(recorded):
    particles, references, window, _, left_A = recorded
    halves = (FrameCorrelation(window, 8), FrameCorrelation(window, 8))
    correlate_frames(particles, references, left_A, halves)
    left = particles.amplitude_left(LAST + 1)
    true = left / np.sqrt((left**2).sum(axis=0))
    k2 = (np.arange(LAST + 1) / (BOX * PIXEL_A)) ** 2
    both = halves[0] + halves[1]
    fitted = fit_frame_weights(both, left)
    # departures from the curve that was planted are errors, and as large as is said
    assert (np.abs(fitted.b_factor_A2 / fitted.b_factor_error_A2) < 3).all()
    assert (np.abs(fitted.scale / fitted.scale_error) < 3).all()
    assert np.sqrt(((fitted.at(k2) - true)[:, 3:] ** 2).mean()) < 0.35 * true[:, 3:].std()
    own = fit_frame_weights(both)
    # free scales and B-factors: later frames decay faster, by several standard errors
    early, late = (
        np.average(own.b_factor_A2[part], weights=own.b_factor_error_A2[part] ** -2.0)
        for part in (slice(0, 3), slice(3, 8))
    )
    assert late - early > 40
    even = np.full_like(true, 8**-0.5)
    gain, error = weights_gain(fit_frame_weights(halves[0], left).at(k2), even, halves[1])
    assert gain > error > 0


def test_weights_keep_white_noise_white(recorded):
    particles, references, window, _, _ = recorded
    halves = (FrameCorrelation(window, 8), FrameCorrelation(window, 8))
    correlate_frames(particles, references, None, halves)
    weights = fit_frame_weights(halves[0] + halves[1]).at(np.linspace(0, 0.1, 7).reshape(7, 1))
    assert weights.shape == (8, 7, 1)
    assert np.allclose((weights**2).sum(axis=0), 1)


def test_frames_without_signal_have_no_weights():
    correlation = FrameCorrelation(Window(BOX, PIXEL_A, LAST, 9.0), 5)
    correlation.models += 100.0
    correlation.cross += np.random.default_rng(0).normal(size=correlation.cross.shape) * 10
    with pytest.raises(InputError, match="at least 3 are needed for weights of frames"):
        fit_frame_weights(correlation)


def test_prior_of_relions_tutorial_comes_back_from_drawn_tracks():
    """(0.4245, 1605, 2.61), fitted by RELION in its tutorial: drawn on eight movies and re-estimated within 20 %."""
    truth, random = MotionPrior(0.4245, 1605.0, 2.61), np.random.default_rng(3)
    drawn = []
    for _ in range(8):
        places = random.uniform(0, 3300, (50, 2))
        drawn.append(KnownTracks(truth.draw(places, 24, 1.2, random), places, 1.2))
    fitted = fit_prior_to_tracks(drawn, MotionPrior(1.0, 4000.0, 1.0))
    for name in ("velocity_A", "correlation_length_A", "acceleration_A"):
        assert abs(getattr(fitted, name) / getattr(truth, name) - 1) < 0.2, name


def quadratic(tracks_A, information, random, window):
    """Surfaces of frames that see a particle's place with Gaussian errors."""
    at = tracks_A + random.normal(size=tracks_A.shape) / np.sqrt(information)
    axis = np.arange(-window.half_samples, window.half_samples + 1) * window.step_A
    along = [-0.5 * information * (axis - at[..., i, None]) ** 2 for i in range(2)]
    samples = (along[1][..., :, None] + along[0][..., None, :]).astype(np.float32)
    return Surfaces.through(samples, np.full(tracks_A.shape[:2], information), window.step_A)


def test_prior_comes_back_from_noisy_frames():
    truth = MotionPrior(0.5, 1500.0, 0.15)
    sample = seen_by_frames(truth, np.random.default_rng(0), 4, 24, 16)
    fitted = fit_prior(sample, MotionPrior(1.0, 4000.0, 0.5))
    gain = prior_evidence(sample, fitted) - prior_evidence(sample, truth)
    assert 0 <= gain < 6  # half a chi-squared of three
    assert abs(np.log(fitted.velocity_A / 0.5)) < np.log(1.5)
    assert abs(np.log(fitted.correlation_length_A / 1500)) < np.log(2.2)
    assert abs(np.log(fitted.acceleration_A / 0.15)) < np.log(1.5)


def dense_precision(prior, places, information, dose):
    """Of positions (frame, particle), from the definition: velocities, their changes, the mean, the frames."""
    particles, frames = information.shape
    first = np.diff(np.eye(frames), axis=0)
    second = np.diff(first, axis=0)
    correlation = np.exp(-np.hypot(*(places[:, None] - places[None]).T) / prior.correlation_length_A)
    together = np.linalg.inv(correlation) / (prior.velocity_A * dose) ** 2
    precision = np.kron(first.T @ first, together)
    precision += np.kron(second.T @ second, np.eye(particles)) / (prior.acceleration_A * dose) ** 2
    mean = frame_weights(information) / frame_weights(information).sum()
    precision += np.kron(np.outer(mean, mean), np.eye(particles)) / OFFSET_A**2
    return precision + np.diag(information.T.ravel()), mean


@pytest.mark.parametrize("frames", [7, 8])
def test_smoothing_is_that_of_the_whole_matrix(frames):
    """Solutions, the prior's density, the determinant and errors, against dense algebra."""
    random = np.random.default_rng(4)
    places, information = random.uniform(0, 2000, (6, 2)), random.uniform(0.2, 1.0, (6, frames))
    smoother = TrackSmoother(PRIOR, Scene(places, 1.3, information))
    precision, mean = dense_precision(PRIOR, places, information, 1.3)
    slope = random.normal(size=(6, frames, 2))
    flat = slope.transpose(1, 0, 2).reshape(-1, 2)
    solved = np.linalg.solve(precision, flat)
    assert np.allclose(smoother.solve(slope), solved.reshape(frames, 6, 2).transpose(1, 0, 2))
    prior_part = precision - np.diag(information.T.ravel())
    assert np.isclose(smoother.log_prior(slope), -0.5 * (flat * (prior_part @ flat)).sum())
    velocity_part = prior_part - np.kron(np.outer(mean, mean), np.eye(6)) / OFFSET_A**2
    step = np.kron(
        np.diff(np.eye(frames), axis=0), np.eye(6)
    )  # of velocities: the rest of the band has no say in a mean
    in_velocities = np.linalg.pinv(step).T @ velocity_part @ np.linalg.pinv(step)
    wanted = 0.5 * (np.linalg.slogdet(in_velocities)[1] - np.linalg.slogdet(precision)[1])
    assert np.isclose(smoother.log_determinant, wanted)
    covariance = np.linalg.inv(precision).reshape(frames, 6, frames, 6)
    centre = np.eye(frames) - mean
    errors = [np.sqrt(np.diag(centre @ covariance[:, p, :, p] @ centre.T)) for p in range(6)]
    assert 0.95 < (track_errors_A(smoother) / errors).mean() < 1.05


@pytest.mark.parametrize("prior", [PRIOR, MotionPrior(np.exp(-7), np.exp(12), np.exp(-3)), MotionPrior(1e-3, 1e5, 1.0)])
@pytest.mark.parametrize("information", [1.0, 1e-3])
def test_particles_on_one_another_move_as_one(prior, information):
    """Picked twice, at priors that the search may try; and one of them shows nothing."""
    random = np.random.default_rng(3)
    places = random.uniform(0, 3000, (12, 2))
    places[3] = places[7] = places[8]
    seen = np.full((12, 30), information)
    seen[3] = 0
    smoother = TrackSmoother(prior, Scene(places, 0.5, seen))
    assert np.isfinite(smoother.log_determinant)
    tracks, _ = smoother.about_mean(smoother.solve(seen[..., None] * random.normal(size=(12, 30, 2))))
    assert np.abs(tracks).max() < 5
    assert np.abs(tracks[[3, 7]] - tracks[8]).max() < 0.02


def test_a_single_particle_is_smoothed():
    smoother = TrackSmoother(PRIOR, Scene(np.zeros((1, 2)), 1.0, np.ones((1, 3))))
    precision, _ = dense_precision(PRIOR, np.zeros((1, 2)), np.ones((1, 3)), 1.0)
    slope = np.arange(6.0).reshape(1, 3, 2)
    assert np.allclose(smoother.solve(slope)[0], np.linalg.solve(precision, slope[0]))


@pytest.mark.parametrize("frames", [1, 2])
def test_tracks_need_three_frames(frames):
    with pytest.raises(InputError, match=f"a movie of {frames} frames; expected at least 3"):
        TrackSmoother(PRIOR, Scene(np.zeros((2, 2)), 1.0, np.ones((2, frames))))


def test_information_that_is_not_finite_is_refused():
    with pytest.raises(InputError, match="not finite"):
        TrackSmoother(PRIOR, Scene(np.eye(2), 1.0, np.array([[1.0, 1.0, np.nan], [1.0, 1.0, 1.0]])))


def test_a_prior_stiller_than_rounding_is_refused():
    with pytest.raises(InputError, match="larger velocity_A or acceleration_A"):
        TrackSmoother(MotionPrior(1e-9, 1e3, 1e-9), Scene(np.eye(2), 1.0, np.ones((2, 5))))


def seen_by_frames(prior, random, movies=3, particles=12, frames=10, information=1.0):
    """Places as frames with Gaussian errors saw them, and surfaces of it."""
    window, sample = Window(BOX, PIXEL_A, 20, 9.0), []
    for _ in range(movies):
        places = random.uniform(0, 3300, (particles, 2))
        tracks = prior.draw(places, frames, 1.5, random)
        tracks -= tracks.mean(axis=1, keepdims=True)
        sample.append(Evidence(quadratic(tracks, information, random, window), places, 1.5))
    return sample


def test_evidence_of_parabolas_is_that_of_their_surfaces():
    """Between two priors: Laplace's approximation on the surfaces, and the closed form on what frames saw."""
    random, truth = np.random.default_rng(6), MotionPrior(0.4, 1500.0, 0.3)
    places = random.uniform(0, 3300, (10, 2))
    seen = truth.draw(places, 9, 1.5, random)
    seen += random.normal(size=seen.shape) - seen.mean(axis=1, keepdims=True)
    window, information = Window(BOX, PIXEL_A, 20, 12.0), np.ones((10, 9))
    axis = np.arange(-window.half_samples, window.half_samples + 1) * window.step_A
    along = [-0.5 * (axis - seen[..., i, None]) ** 2 for i in range(2)]
    samples = (along[1][..., :, None] + along[0][..., None, :]).astype(np.float32)
    sample = [Evidence(Surfaces.through(samples, information, window.step_A), places, 1.5)]
    priors = (truth, MotionPrior(0.05, 400.0, 1.0))
    closed = [parabolic_evidence(TrackSmoother(p, sample[0].scene), seen) for p in priors]
    assert np.isclose(
        np.subtract(*closed), prior_evidence(sample, priors[0]) - prior_evidence(sample, priors[1]), atol=0.1
    )
    assert closed[0] > closed[1] + 5


def test_search_for_the_prior_ends_where_the_evidence_is_greatest():
    """From two starts to the same evidence; a quarter more or less of what the data know loses."""
    sample = seen_by_frames(MotionPrior(0.5, 1500.0, 0.15), np.random.default_rng(0))
    best = [fit_prior(sample, start) for start in (MotionPrior(1.0, 4000.0, 0.5), MotionPrior(0.2, 500.0, 0.1))]
    reached = [prior_evidence(sample, prior) for prior in best]
    assert abs(reached[0] - reached[1]) < 0.1
    for factor in (0.75, 1.25):
        assert prior_evidence(sample, replace(best[0], velocity_A=factor * best[0].velocity_A)) < reached[0]
        assert prior_evidence(sample, replace(best[0], acceleration_A=factor * best[0].acceleration_A)) < reached[0]


class Memory:
    """Keeps one snapshot; fails when it has been asked to keep too many."""

    def __init__(self, most):
        self.kept, self.most = None, most

    def load(self):
        return self.kept

    def save(self, snapshot, *, needed=False):
        assert needed
        if self.most == 0:
            raise KeyboardInterrupt
        self.kept = Snapshot({k: v.copy() for k, v in snapshot.arrays.items()}, json.loads(json.dumps(snapshot.record)))
        self.most -= 1


def test_a_search_for_the_prior_that_does_not_settle_is_told_of(monkeypatch):
    monkeypatch.setattr("verglas.polishing.evidence._ROUNDS", 1)
    sample = seen_by_frames(MotionPrior(0.5, 1500.0, 0.15), np.random.default_rng(1), 2, 8)
    with pytest.warns(vg.VerglasWarning, match="still changed in round 1, the last"):
        fit_prior(sample, MotionPrior(1.0, 4000.0, 1.0))


def test_a_stopped_search_for_the_prior_goes_on_to_the_same_bits():
    sample, start = (
        seen_by_frames(MotionPrior(0.5, 1500.0, 0.15), np.random.default_rng(1), 2, 8),
        MotionPrior(1, 4000, 1),
    )
    memory = Memory(2)
    with pytest.raises(KeyboardInterrupt):
        fit_prior(sample, start, memory)
    assert memory.kept.record["rounds"] == 2
    assert not memory.kept.record["ended"]
    memory.most = 99
    assert fit_prior(sample, start, memory) == fit_prior(sample, start)
    assert memory.kept.record["ended"]


def test_offsets_are_those_of_a_prior_that_holds_particles_still(recorded):
    particles, _, _, measured, _ = recorded
    both = sum_of(scaled(measured))
    smoother = smoother_of(MotionPrior(1e-4, 1e3, 1e-4), both, particles.places_A, 4.5)
    still = fit_tracks(both, smoother)
    assert np.abs(still.positions_A).max() < 0.01
    offset = fit_offsets(both)
    # all steps together are as long as the worst particle bears, single ones are not: one of 20 may end on another hill
    assert (np.abs(offset - still.offset_A).max(axis=1) < 0.02).sum() >= 18
    places = np.repeat(offset[:, None], 8, axis=1)
    assert both.at(places)[0].sum() + smoother.log_prior(places) > still.log_posterior - 0.1


@pytest.mark.parametrize("values", [(0.0, 1.0, 1.0), (1.0, np.nan, 1.0), (1.0, 1.0, -2.0)])
def test_a_prior_must_be_positive(values):
    with pytest.raises(InputError, match="expected a positive"):
        MotionPrior(*values)


def frames_of(scale, b_factor_A2, size, seed):
    """Two halves of particles whose amplitudes in each frame are the planted ones, and noise."""
    random, window = np.random.default_rng(seed), Window(BOX, PIXEL_A, LAST, 9.0)
    k2 = (np.arange(LAST + 1) / (BOX * PIXEL_A)) ** 2
    halves = []
    for _ in range(2):
        half = FrameCorrelation(window, len(scale))
        half.models += size * np.arange(1, LAST + 2)
        amplitude = 0.8 * np.exp(scale[:, None] - b_factor_A2[:, None] * k2 / 4)
        half.cross += half.models * amplitude + np.sqrt(half.models) * random.normal(size=half.models.shape)
        halves.append(half)
    return halves, k2


@pytest.mark.parametrize("seed", range(3))
def test_smooth_weights_share_what_frames_of_little_signal_know(seed):
    frame = np.arange(30.0)
    scale, b_factor_A2 = -0.3 * np.exp(-frame / 4), 20 + 8 * frame
    halves, k2 = frames_of(scale, b_factor_A2, 4.0, seed)
    true = np.exp(scale[:, None] - b_factor_A2[:, None] * k2 / 4)
    true /= np.sqrt((true**2).sum(axis=0))
    own, smooth = (fit_frame_weights(halves[0] + halves[1], smooth=s) for s in (False, True))
    errors = [np.sqrt(((w.at(k2) - true) ** 2).mean()) for w in (own, smooth)]
    assert errors[1] < 0.6 * errors[0]
    apart = smooth.b_factor_A2 - b_factor_A2
    apart -= np.average(apart, weights=smooth.b_factor_error_A2**-2.0)  # what all have in common is the reference's
    assert np.mean((apart / smooth.b_factor_error_A2) ** 2) < 4
    fit = weights_of(tuple(halves), np.ones((30, LAST + 1)), by_data=True)
    assert fit.by_data
    assert fit.by_smooth
    told = fit.as_dict()
    assert told["by_smooth"] is True


def test_frames_that_differ_from_their_neighbours_are_weighed_by_themselves():
    frame = np.arange(12)
    b_factor_A2 = np.where(frame % 2, 150.0, 0.0)
    halves, _ = frames_of(np.zeros(12), b_factor_A2, 400.0, 1)
    fit = weights_of(tuple(halves), np.ones((12, LAST + 1)), by_data=True)
    assert (fit.by_data, fit.by_smooth) == (True, False)
    few = [fit_frame_weights(frames_of(np.zeros(3), np.zeros(3), 400.0, 1)[0][0], smooth=s) for s in (False, True)]
    assert np.allclose(few[0].scale, few[1].scale)
