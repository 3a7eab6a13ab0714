"""Polishing on arrays: tracks through the frames of simulated movies, their prior, and what frames are worth."""

from __future__ import annotations

import numpy as np
import pytest

import verglas as vg
from verglas import image
from verglas.errors import InputError
from verglas.polishing import (
    Evidence,
    FrameCorrelation,
    KnownTracks,
    MotionPrior,
    MovieParticles,
    OtherHalf,
    Surfaces,
    TrackBasis,
    Window,
    basis_of,
    correlate_frames,
    fit_frame_weights,
    fit_prior,
    fit_prior_to_tracks,
    fit_tracks,
    held_out_gain,
    measure,
    track_errors_A,
    weights_gain,
)
from verglas.polishing.surfaces import noise_power
from verglas.polishing.tracks import frame_weights

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
    return tuple(fold.scaled(amplitude) for fold in measured.folds)


def about_mean(tracks_A, surfaces):
    weights = frame_weights(surfaces)[None, :, None]
    return tracks_A - (tracks_A * weights).sum(axis=1, keepdims=True) / weights.sum()


def test_tracks_are_nearer_than_the_motion_of_whole_frames_and_held_out_data_say_so(recorded):
    particles, _, _, measured, left_A = recorded
    folds = scaled(measured)
    both = folds[0] + folds[1]
    basis = basis_of(PRIOR, both, particles.places_A, 4.5)
    tracks = fit_tracks(both, basis)
    true = about_mean(left_A, both)
    error, before = (np.sqrt((x**2).mean()) for x in (tracks.positions_A - true, true))
    assert error < 0.6 * before
    assert 0.5 < error / np.sqrt((track_errors_A(both, basis) ** 2).mean()) < 2
    gain, _ = held_out_gain(folds, basis)
    assert gain.total > 3 * gain.error > 0


def test_surfaces_are_the_correlation_with_a_moved_reference(recorded):
    """Value between the samples: the sum over the plane itself; the curvature is what the reference says."""
    particles, references, window, measured, _ = recorded
    place = np.full((len(particles), 8, 2), (1.3, -2.1))
    values, slopes = (measured.folds[0] + measured.folds[1]).at(place)
    f, spectra = next(iter(particles.spectra()))
    images, shell = window.take(spectra), window.shell.clip(max=LAST)
    factor = particles.left(LAST + 1)[f][shell] / noise_power(images, window)[shell] * window.weight
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
    folds = tuple(fold.scaled(0.005) for fold in measured.folds)
    gain, _ = held_out_gain(folds, basis_of(PRIOR, folds[0] + folds[1], blank.places_A, 4.5))
    assert gain.total < 2 * gain.error


def test_weights_of_frames_are_those_of_the_planted_damage(recorded):
    particles, references, window, _, left_A = recorded
    halves = (FrameCorrelation(window, 8), FrameCorrelation(window, 8))
    correlate_frames(particles, references, left_A, halves)
    left = particles.left(LAST + 1)
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


@pytest.mark.slow
def test_prior_comes_back_from_noisy_frames():
    truth, random = MotionPrior(0.5, 1500.0, 0.15), np.random.default_rng(0)
    window, sample = Window(BOX, PIXEL_A, 20, 9.0), []
    for _ in range(4):
        places = random.uniform(0, 3300, (30, 2))
        tracks = truth.draw(places, 16, 1.5, random)
        tracks -= tracks.mean(axis=1, keepdims=True)
        sample.append(Evidence(quadratic(tracks, 1.0, random, window), places, 1.5))
    fitted = fit_prior(sample, MotionPrior(1.0, 4000.0, 0.5))
    assert abs(np.log(fitted.velocity_A / 0.5)) < np.log(1.5)
    assert abs(np.log(fitted.correlation_length_A / 1500)) < np.log(2)
    assert abs(np.log(fitted.acceleration_A / 0.15)) < np.log(1.5)


def test_modes_and_their_gradient_belong_together():
    random = np.random.default_rng(2)
    places = random.uniform(0, 2000, (12, 2))
    basis = TrackBasis.of(PRIOR, places, 1.0, np.ones(9))
    parts, slope = random.normal(size=(*basis.sd.shape, 2)), random.normal(size=(12, 9, 2))
    assert np.isclose((basis.positions(parts) * slope).sum(), (parts * basis.gradient(slope)).sum())
    kept = np.where(basis.used[..., None], parts, 0)
    assert np.allclose(basis.parts_of(basis.positions(kept)), kept, atol=1e-6)
    assert np.allclose(basis.positions(parts).mean(axis=1), 0, atol=1e-12)


@pytest.mark.parametrize("values", [(0.0, 1.0, 1.0), (1.0, np.nan, 1.0), (1.0, 1.0, -2.0)])
def test_a_prior_must_be_positive(values):
    with pytest.raises(InputError, match="expected a positive"):
        MotionPrior(*values)
