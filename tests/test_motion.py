"""Motion of movies: the type, shifts from pairs, the estimate on planted fields, low signal, dose weights, sums."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from motion_movies import SHAPE, error_px, movie_of, planted_dome, planted_polynomial, settling

import verglas as vg
from verglas.motion import MotionSettings, accumulated_dose, dose_weights
from verglas.motion.binned import bin_movie
from verglas.motion.dose import separable_weights
from verglas.motion.fit import frame_strengths
from verglas.motion.pair_shifts import all_pairs, design, least_squares, robust
from verglas.motion.patch_shifts import lattice_through
from verglas.motion.sums import corrected_sums, filtered_sum, steepness, without_steep_places
from verglas.types.listener import Silence
from verglas.types.motion import Motion, polynomial_space, spline_basis


def test_polynomial_is_relions():
    """d_x = sum c[3 s + p - 1] phi_s t^p, phi = 1, x, x^2, y, y^2, x y."""
    c = np.arange(36.0).reshape(2, 18) * 1e-3
    motion = Motion((200, 400), np.zeros((4, 2)), "polynomial", polynomial=c)
    x, y, t = 300 / 400 - 0.5, 20 / 200 - 0.5, 3
    want = sum(
        c[0, 3 * s + p - 1] * phi * t**p for s, phi in enumerate((1, x, x * x, y, y * y, x * y)) for p in (1, 2, 3)
    )
    assert motion.at(300, 20)[3, 0] == pytest.approx(want, rel=1e-12)
    assert np.all(motion.at(300, 20)[0] == 0)
    assert polynomial_space([0, 400], 100, (200, 400)).shape == (2, 6)


@given(nodes=st.integers(4, 12), side=st.integers(10, 5000), at=st.floats(0, 1))
def test_spline_basis_is_a_partition_of_unity(nodes, side, at):
    basis = spline_basis(at * (side - 1), side, nodes)
    assert basis.sum() == pytest.approx(1, abs=1e-9)
    assert basis.min() >= 0
    # splines of third degree hold a straight line
    line = (np.arange(nodes) - 1.0) / (nodes - 3) * (side - 1)
    assert basis @ line == pytest.approx(at * (side - 1), abs=1e-6 * side)


def test_motion_refuses_what_does_not_go_together():
    with pytest.raises(vg.InputError, match="do not go together"):
        Motion((9, 9), np.zeros((3, 2)), "polynomial")
    with pytest.raises(vg.InputError, match="shape"):
        Motion((9, 9), np.zeros((3, 2)), "spline", lattice_px=np.zeros((3, 3, 4, 2)))
    with pytest.raises(vg.InputError, match="not finite"):
        Motion((9, 9), [[0, np.nan]])


@settings(max_examples=20)
@given(n=st.integers(2, 12), seed=st.integers(0, 999))
def test_least_squares_is_numpys(n, seed):
    rng = np.random.default_rng(seed)
    pairs = all_pairs(n)
    shifts = rng.normal(0, 5, (len(pairs), 2))
    want = np.linalg.lstsq(design(pairs, n), shifts, rcond=None)[0]
    assert np.allclose(np.diff(least_squares(pairs, shifts, n), axis=0), want, atol=1e-9)


@pytest.mark.parametrize("seed", range(5))
def test_corrupted_pairs_are_rejected(seed):
    """A tenth of the pairs wrong by 20 px and more: error within 1.2 of the clean one; least squares is thrown off."""
    rng = np.random.default_rng(seed)
    truth = np.cumsum(rng.normal(0, 1, (24, 2)), 0)
    truth -= truth[0]
    pairs = all_pairs(24)
    clean = truth[pairs[:, 1]] - truth[pairs[:, 0]] + rng.normal(0, 0.3, (len(pairs), 2))
    wrong = clean.copy()
    bad = rng.choice(len(pairs), len(pairs) // 10, replace=False)
    angle = rng.uniform(0, 2 * np.pi, len(bad))
    wrong[bad] += rng.uniform(20, 60, len(bad))[:, None] * np.stack([np.cos(angle), np.sin(angle)], 1)

    def rms(found):
        off = found - truth
        return np.sqrt(np.mean((off - off.mean(0)) ** 2))

    best = rms(least_squares(pairs, clean, 24))
    assert rms(robust(pairs, wrong, 24)) <= 1.2 * best
    assert rms(least_squares(pairs, wrong, 24)) > 5 * best


def test_pairs_that_do_not_connect_the_frames_are_refused():
    with pytest.raises(vg.InputError, match="do not connect"):
        least_squares([[0, 1], [2, 3]], [[1, 0], [1, 0]], 4)
    with pytest.raises(vg.InputError, match="pairs i < j"):
        robust([[1, 0]], [[1, 0]], 2)


@pytest.mark.parametrize(
    ("truth", "allowed"),
    [
        (Motion(SHAPE, settling(12, (6, -4))), {"global"}),
        (planted_polynomial(12, 3, 1.5), {"polynomial", "spline"}),
        (planted_dome(12, 1.2), {"spline"}),
    ],
    ids=["frames", "polynomial", "dome"],
)
def test_planted_fields_are_found(truth, allowed):
    """... to 0.08 px on average, corners included, by the model that held-out evidence chooses."""
    found = vg.correct_motion(movie_of(truth, 5))
    assert found.model in allowed
    assert error_px(found.motion, truth) < 0.08
    still = Motion(SHAPE, np.zeros((12, 2)))
    assert error_px(still, truth) > 1


def test_standard_errors_are_those_of_the_shifts():
    """Over seeds, the shifts' errors about their mean are as large as they say."""
    ratios = []
    for seed in range(4):
        truth = Motion((256, 256), np.cumsum(np.random.default_rng(seed).normal(0, 0.7, (10, 2)), 0))
        found = vg.correct_motion(movie_of(truth, 10 + seed, signal=0.25), model="global")
        off = found.motion.global_px - truth.global_px
        ratios.append(np.mean((off - off.mean(0)) ** 2) / np.mean(found.shift_errors_px**2))
    assert 0.5 < np.mean(ratios) < 2


def weak_movie(seed, signal):
    """Seven frames of white noise with a coarse picture in them that settles; its path."""
    rng, side = np.random.default_rng(seed), 384
    ky, kx = np.fft.fftfreq(side)[:, None], np.fft.rfftfreq(side)
    spectrum = np.fft.rfft2(rng.standard_normal((side, side))) * np.exp(-(kx**2 + ky**2) / 0.0032)
    spectrum *= signal / np.fft.irfft2(spectrum).std()
    path = np.outer(1 - np.exp(-np.arange(7) / 6), (7, -5))
    frames = [
        np.fft.irfft2(spectrum * np.exp(-2j * np.pi * (kx * x + ky * y))) + rng.standard_normal((side, side))
        for x, y in path
    ]
    return vg.Movie.from_array(np.float32(frames), 1.6), path


def test_rings_without_signal_are_not_followed():
    """Noise that agrees where it was fitted bends the likelihood: shifts were off by 0.38 px, 1.6 times as stated."""
    off, stated = [], []
    for seed in range(40, 43):
        movie, path = weak_movie(seed, 0.06)
        found = vg.correct_motion(movie, model="global", threads=1, listener=None)
        error = found.motion.global_px - path
        off.append(np.mean((error - error.mean(0)) ** 2))
        stated.append(np.mean(found.shift_errors_px**2))
    assert np.mean(off) < 0.25**2
    assert 0.5 < np.mean(off) / np.mean(stated) < 1.5


def test_a_frame_that_the_fit_moved_away_is_named():
    """The search left it among the others; sixteen standard errors beyond chance, and no word was said."""
    found = vg.correct_motion(weak_movie([78, 2], 0.055)[0], model="global", threads=1, listener=None)
    assert any("frame 4 lies 5" in flag for flag in found.flags)


def test_corrected_picture_is_as_sharp_as_the_still_one():
    truth = planted_dome(12, 1.2)
    movie = movie_of(truth, 6)
    still = movie_of(Motion(SHAPE, np.zeros((12, 2))), 6)
    inner = np.s_[20:-20, 20:-20]
    want = sum(still.frames())[inner]
    got = vg.correct_motion(movie).micrograph.data[inner]
    blurred = sum(movie.frames())[inner]
    from motion_movies import picture

    image = picture(SHAPE, 6)[inner]

    def likeness(sum_):
        return np.corrcoef(sum_.ravel(), image.ravel())[0, 1]

    assert likeness(got) > 0.97 * likeness(want)
    assert likeness(blurred) < 0.6 * likeness(want)


class TestLowSignal:
    def test_noise_alone_stays_where_it_lies(self):
        noise = np.random.default_rng(0).poisson(1.0, (8, 256, 320)).astype(np.uint8)
        found = vg.correct_motion(vg.Movie.from_array(noise, 1.8))
        assert np.all(found.motion.global_px == 0)
        assert len(found.flags) == 1
        assert "no common picture" in found.flags[0]
        assert np.allclose(found.micrograph.data, noise.sum(0), atol=5e-3)

    @pytest.mark.slow
    @pytest.mark.parametrize(("seed", "n", "told"), [(62, 12, "no common picture"), (66, 30, "little to follow (5")])
    def test_next_to_nothing_to_follow_is_said(self, seed, n, told):
        """62: frames 600 px apart agree by 177 nats where 134 are asked for. 66: wrong by 0.7 px an axis."""
        scene = {"shape": (768, 768), "pixel_size_A": 1.6, "n": n, "frames": 7, "dose_per_frame_e_A2": 0.5}
        model = vg.simulate.phantom(96, 1.6, 120.0, seed=seed)
        movie, _ = vg.simulate.movie(model, drift_px=(4, -3), dome_px=1.0, seed=seed, **scene)
        found = vg.correct_motion(movie, listener=None)
        assert told in found.flags[0]
        assert np.all(found.motion.global_px == 0) == (seed == 62)
        assert found.shift_errors_px is None  # nobody knows them

    def test_frames_of_which_nothing_agrees_are_summed_where_they_lie(self, monkeypatch):
        """No frequency has a weight then, and chance no width."""
        nothing = "verglas.motion.estimate.likelihood_weights"
        monkeypatch.setattr(nothing, lambda patches, *_: np.zeros(patches.rings.shape))
        noise = np.random.default_rng(0).poisson(1.0, (3, 192, 192)).astype(np.uint8)
        found = vg.correct_motion(vg.Movie.from_array(noise, 1.8), listener=None)
        assert np.all(found.motion.global_px == 0)
        assert "no common picture" in found.flags[0]

    def test_black_frame_is_left_out_and_named(self):
        truth = Motion(SHAPE, settling(8, (6, -4)))
        movie = movie_of(truth, 7)
        frames = movie.source.data.copy()
        frames[3] = 0
        found = vg.correct_motion(dataclasses.replace(movie, source=vg.Movie.from_array(frames).source))
        assert found.motion.used.tolist() == [True] * 3 + [False] + [True] * 4
        assert "frame 4" in found.flags[0]
        assert error_px(found.motion, truth) < 0.2  # frame 4 is interpolated

    def test_frame_written_twice_is_left_out_and_named(self):
        """Also where bad pixels were drawn anew; frames of hardly any counts, which are mostly alike, are none."""
        truth = Motion(SHAPE, settling(8, (6, -4)))
        movie = movie_of(truth, 7)
        frames = movie.source.data.copy()
        frames[5] = frames[4]
        movie = dataclasses.replace(movie, source=vg.Movie.from_array(frames).source, defects=[[4, 5], [9, 9]])
        found = vg.correct_motion(movie, listener=None)
        assert found.flags[0] == "frame 6 repeats frame 5: left out"
        assert found.motion.used.tolist() == [True] * 5 + [False, True, True]
        sparse = np.random.default_rng(0).poisson(0.01, (6, 128, 128)).astype(np.uint8)
        assert "repeats" not in "".join(vg.correct_motion(vg.Movie.from_array(sparse, 1.8), listener=None).flags)
        sparse[:, 40, 40] = 90  # a hot pixel that nobody named is most of what such frames hold
        assert "repeats" not in "".join(bin_movie(sparse.astype(np.float32), 6, (128, 128), 1).flaws())

    def test_frame_that_jumped_is_brought_back_and_named(self):
        shifts = settling(12, (3, -2))
        shifts[7] += (60, -53)
        truth = Motion(SHAPE, shifts)
        found = vg.correct_motion(movie_of(truth, 8))
        assert any("frame 8 lies 8" in flag or "frame 8 lies 7" in flag for flag in found.flags)
        assert error_px(found.motion, truth) < 0.15

    def test_seven_frames_and_a_pixel_of_drift_per_frame(self):
        truth = Motion(SHAPE, np.arange(7.0)[:, None] * (0.8, 0.6))
        assert error_px(vg.correct_motion(movie_of(truth, 9)).motion, truth) < 0.08

    def test_one_frame(self):
        movie = movie_of(Motion(SHAPE, np.zeros((1, 2))), 9)
        assert np.allclose(vg.correct_motion(movie).micrograph.data, movie.frame(0), atol=1e-3)


class TestDose:
    @pytest.mark.parametrize(
        ("voltage_kV", "pre"),
        [(300.0, 0.0), *(pytest.param(*each, marks=pytest.mark.slow) for each in ((200.0, 4.0), (100.0, 500.0)))],
    )
    def test_white_noise_stays_white(self, voltage_kV, pre):
        """Rings of the dose-weighted sum of white frames have one power, to 1 %."""
        frames = np.random.default_rng(1).standard_normal((20, 512, 512)).astype(np.float32)
        movie = vg.Movie.from_array(frames, 1.0, dose_per_frame_e_A2=1.5, voltage_kV=voltage_kV, pre_exposure_e_A2=pre)
        done = vg.correct_motion(movie)  # noise: nothing moves, so nothing is resampled either
        power = np.abs(np.fft.fft2(done.dose_weighted.data)) ** 2 / 512**2
        k = np.hypot(np.fft.fftfreq(512)[:, None], np.fft.fftfreq(512))
        for low, high in ((0.05, 0.15), (0.15, 0.25), (0.25, 0.35), (0.35, 0.5), (0.5, 0.7)):
            ring = (k >= low) & (k < high)
            assert power[ring].mean() == pytest.approx(1, abs=max(0.01, 4 / np.sqrt(ring.sum() / 2)))

    def test_weights_are_those_of_the_published_curve(self):
        dose = accumulated_dose(3, 2.0, 1.0)
        assert dose.tolist() == [3, 5, 7]
        critical = 0.245 * 0.25**-1.665 + 2.81
        q = np.exp(-dose / (2 * critical))
        assert dose_weights(0.25, dose) == pytest.approx(q / np.sqrt(np.sum(q**2)))

    @pytest.mark.parametrize(("n", "dose", "pre"), [(7, 6.0, 0.0), (40, 1.0, 0.0), (60, 0.7, 30.0), (200, 0.2, 0.0)])
    def test_few_products_stand_for_all_frames(self, n, dose, pre):
        accumulated = accumulated_dose(n, dose, pre)
        factors, k, curves = separable_weights(accumulated, 0.8)
        assert factors.shape[1] <= 10
        assert np.abs(factors @ curves - dose_weights(k, accumulated)).max() < 1e-4

    def test_the_sum_is_that_of_filtered_frames(self):
        rng = np.random.default_rng(4)
        movie = vg.Movie.from_array(
            rng.standard_normal((9, 128, 150)).astype(np.float32), 1.1, dose_per_frame_e_A2=2.0, voltage_kV=300
        )
        done = corrected_sums(movie, Motion((128, 150), np.zeros((9, 2))))
        k = np.hypot(np.fft.fftfreq(128, 1.1)[:, None], np.fft.rfftfreq(150, 1.1))
        weights = dose_weights(k, accumulated_dose(9, 2.0))
        want = np.fft.irfft2(sum(w * np.fft.rfft2(f) for w, f in zip(weights, movie, strict=True)), (128, 150))
        assert np.abs(done.dose_weighted - want).max() < 5e-3

    def test_sides_of_large_prime_factors_are_filtered_alike(self):
        """Inside, a picture of 131 x 149 pixels is filtered as the middle of a larger one; edges are mirrored."""
        large = np.random.default_rng(2).standard_normal((1, 256, 256)).astype(np.float32)
        k = np.linspace(0, 0.8, 513)
        curves = np.exp(-((k / 0.2) ** 2))[None]
        want = filtered_sum(large, curves, k, 1.0)
        got = filtered_sum(np.ascontiguousarray(large[:, 60:191, 50:199]), curves, k, 1.0)
        assert got.shape == (131, 149)
        assert np.abs(got - want[60:191, 50:199])[12:-12, 12:-12].max() < 1e-3
        level = filtered_sum(np.full((1, 131, 149), 7, np.float32), curves, k, 1.0)
        assert np.abs(level - 7).max() < 1e-3

    @pytest.mark.parametrize("dose", [0.0, -1.0, float("nan")])
    def test_bad_doses_are_refused(self, dose):
        with pytest.raises(vg.InputError, match="dose"):
            accumulated_dose(3, dose)
        movie = vg.Movie.from_array(np.ones((2, 64, 64), np.float32), 1.0)
        with pytest.raises(vg.InputError, match="dose"):
            vg.correct_motion(movie, dose_per_frame_e_A2=dose)


def test_threads_memory_and_halves():
    movie = movie_of(planted_polynomial(8, 1, 1.0), 2, dose_per_frame_e_A2=1.0, voltage_kV=300.0)
    one = vg.correct_motion(movie, threads=1, even_odd=True)
    two = vg.correct_motion(movie, threads=2, keep_bytes=0)
    assert np.array_equal(one.motion.at(30, 40), two.motion.at(30, 40))
    assert np.array_equal(one.dose_weighted.data, two.dose_weighted.data)
    assert np.allclose(one.even.data + one.odd.data, one.micrograph.data, atol=1e-3)


def test_binned_sums_keep_the_grey_values():
    movie = movie_of(Motion(SHAPE, np.zeros((3, 2))), 2)
    whole, half = (vg.correct_motion(movie, bin_factor=b).micrograph for b in (1, 2))
    assert half.shape == (256, 320)
    assert half.pixel_size_A == 3.6
    assert half.data.mean() == pytest.approx(whole.data.mean(), rel=1e-5)
    assert np.corrcoef(half.data.ravel(), whole.data[::2, ::2].ravel())[0, 1] > 0.5


def test_settings_that_do_not_go_together_are_named():
    with pytest.raises(vg.InputError, match="model: expected auto, global, polynomial or spline, got 'cubic'"):
        vg.correct_motion(movie_of(Motion(SHAPE, np.zeros((2, 2))), 1), model="cubic")
    with pytest.raises(vg.InputError, match="bin_factor: expected at least 1"):
        MotionSettings(bin_factor=0)
    with pytest.raises(vg.InputError, match="flow has a model of its own"):
        MotionSettings(method="flow", model="spline")
    with pytest.raises(vg.InputError, match="unknown setting modle"):
        vg.correct_motion(movie_of(Motion(SHAPE, np.zeros((2, 2))), 1), modle="global")


def test_field_too_steep_to_resample_becomes_less_local():
    """A lattice of noise becomes the polynomial nearest to it, a steep polynomial its mean: named, and summed."""
    n, still = 6, np.zeros((6, 2))
    noise = np.random.default_rng(0).normal(0, 6, (n, 9, 9, 2)) * (np.arange(n) / n)[:, None, None, None]
    rough = Motion(SHAPE, still, "spline", lattice_px=noise)
    assert steepness(rough) > 0.02
    usable, said = without_steep_places(rough)
    assert usable.model == "polynomial"
    assert "the nearest polynomial is used" in said
    assert np.array_equal(usable.polynomial, rough.as_polynomial())
    terms = np.zeros((2, 6, 3))
    terms[0, 1, 0], terms[1, 0, 0] = 20.0, 3.0  # 100 px at the edge of the last frame; the mean moves along y
    steep = Motion(SHAPE, still, "polynomial", polynomial=terms.reshape(2, 18))
    usable, said = without_steep_places(steep)
    assert "shifts of whole frames are used" in said
    assert np.allclose(usable.global_px, np.arange(n)[:, None] * (0, 3.0), atol=0.1)  # x + 1/2 px over 640
    gentle = planted_polynomial(6, 1, 1.0)
    assert without_steep_places(gentle) == (gentle, "")
    for motion in (usable, without_steep_places(rough)[0]):
        assert np.isfinite(corrected_sums(movie_of(Motion(SHAPE, still), 3), motion).plain).all()


def test_a_listener_hears_of_every_frame():
    heard = []

    class Ears(Silence):
        def progress(self, phase, done, total):
            heard.append((phase, done, total))

    vg.correct_motion(movie_of(Motion((96, 96), np.zeros((3, 2))), 1), listener=Ears())
    assert heard == [(phase, i, 3) for phase in ("frames", "sum of frames") for i in (1, 2, 3)]


def test_nobody_knows_the_pixel_size():
    with pytest.raises(vg.InputError, match="give pixel_size_A"):
        vg.correct_motion(vg.Movie.from_array(np.ones((2, 64, 64), np.float32)))


def test_lattice_as_a_polynomial():
    """A lattice that holds a polynomial gives it back; one that holds a dome, the nearest."""
    truth = planted_polynomial(9, 2, 1.0)
    x, y = np.meshgrid(np.linspace(0, SHAPE[1] - 1, 24), np.linspace(0, SHAPE[0] - 1, 24))
    places = np.stack([x.ravel(), y.ravel()], 1)
    nodes = lattice_through(places, truth.local(*places.T), SHAPE, ridge=1e-9)
    spline = Motion(SHAPE, truth.global_px, "spline", lattice_px=nodes)
    assert np.abs(spline.as_polynomial() - truth.polynomial).max() < 1e-3
    wide = np.add.outer(np.linspace(-1, 1, 7) ** 3, np.linspace(-1, 1, 7) ** 2)[None, :, :, None] * [0.5, -1]
    time = (1 - np.exp(-np.arange(9) / 4))[:, None, None, None]
    dome = Motion(SHAPE, np.zeros((9, 2)), "spline", lattice_px=time * wide)
    near = Motion(SHAPE, dome.global_px, "polynomial", polynomial=dome.as_polynomial())
    assert error_px(near, dome) < 0.5 * error_px(Motion(SHAPE, dome.global_px), dome)


@pytest.mark.parametrize("n", [2, 3, 8])
def test_one_frame_alone_says_nothing(n):
    """Curvatures of noise are negative, and of one frame large by chance: strengths stay finite."""
    curvature = np.full(n, -100.0)
    curvature[1] = 44.0
    strengths = frame_strengths(curvature)
    assert np.isfinite(strengths).all()
    assert strengths.max() < 44.0
    r = np.random.default_rng(n).uniform(1.0, 2.0, max(n, 3))
    np.testing.assert_allclose(frame_strengths(r * (r.sum() - r)), r, rtol=1e-3)
