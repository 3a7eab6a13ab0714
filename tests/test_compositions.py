"""ICON, FIRT and MBIR as compositions of solvers and priors; hard thresholds; few views."""

from __future__ import annotations

import json

import numpy as np
import pytest

import verglas as vg
from verglas import ops
from verglas.reconstruction import diffuse, solve, solve_firt, solve_icon, solve_mbir
from verglas.reconstruction.compositions import InTurn
from verglas.reconstruction.operators import leave_one_out, tilt_series, weighted_back_projection
from verglas.reconstruction.priors import NonNegative, Shaped, TotalVariation, WaveletL0
from verglas.reconstruction.tomogram import TomogramSettings, reconstruct_tilts

TILTS = np.arange(-60, 61, 6.0)


@pytest.fixture(scope="module")
def discs():
    """A slice of discs (z, 1, x)."""
    z, x = np.indices((32, 32)) - 16
    out = np.zeros((32, 32), np.float32)
    for cz, cx, r in ((0, 0, 11), (3, -4, 3), (-4, 4, 4)):
        out += np.hypot(z - cz, x - cx) < r
    return out[:, None]


def test_hard_thresholds_keep_what_is_large():
    """The prox is the lower of keeping and dropping, coefficient by coefficient."""
    prior = WaveletL0(0.5, "haar", levels=1)
    v = np.random.default_rng(0).normal(size=(8, 8))
    x = prior.prox(v, 2.0)
    objective = [0.5 * np.sum((v - a) ** 2) + 2.0 * prior.value(a) for a in (x, v, prior.prox(v, 1.9), 0 * v)]
    assert min(objective) == objective[0]
    assert np.allclose(prior.prox(x, 2.0), x)
    slab = WaveletL0(1e3).prox(np.random.default_rng(1).normal(size=(32, 1, 32)), 1.0)  # one slice
    assert slab.std() < 0.5
    with pytest.raises(vg.InputError, match="too small for wavelet db2"):
        WaveletL0(1.0).prox(np.ones((2, 2)), 1.0)
    both = InTurn([prior, NonNegative()])
    assert both.prox(v, 1.0).min() >= 0
    assert both.value(np.abs(v)) == prior.value(np.abs(v))


def test_total_variation_of_thirty_views(discs):
    """Piecewise constant, 30 views: at most half the error of back-projection; ICON as well."""
    angles = np.arange(-90, 90, 6.0)
    A = tilt_series(np.zeros((30, 1, 32)), angles, threads=1)
    data = (A @ discs.ravel()).reshape(A.data_shape)
    wbp = weighted_back_projection(A, data)
    tv = solve(A, data, "fista", prior=Shaped(TotalVariation(0.05, iterations=20), A.map_shape), iterations=150).x
    icon = solve_icon(A, data, A.map_shape, 0.02, iterations=150).x
    error = [float(np.linalg.norm(x.ravel() - discs.ravel())) for x in (wbp, tv, icon)]
    assert error[1] < 0.5 * error[0]
    assert error[2] < 0.5 * error[0]
    assert icon.min() >= 0


def test_total_variation_of_a_larger_slice_in_its_sixty_iterations():
    """128 pixels, where fista takes four hundred (bench_solvers.py)."""
    z, x = np.indices((128, 128)) - 64
    truth = 1.0 * (np.hypot(z / 1.2, x) < 45)
    for cz, cx, radius, value in ((20, 10, 12, 0.5), (-15, -12, 8, -0.6), (-30, 15, 5, 0.4), (5, -30, 4, 0.7)):
        truth += value * (np.hypot(z - cz, x - cx) < radius)
    A = tilt_series(np.zeros((30, 1, 128)), np.arange(-90, 90, 6.0), threads=1)
    data = A @ truth.astype(np.float32).ravel()
    prior = Shaped(TotalVariation(0.05), A.map_shape)
    tv = solve(A, data, "preconditioned-primal-dual", prior=prior, iterations=60).x
    wbp = weighted_back_projection(A, data.reshape(A.data_shape)).ravel()
    assert np.linalg.norm(tv - truth.ravel()) < 0.5 * np.linalg.norm(wbp - truth.ravel())


def ring_correlation(a, b):
    """Mean over frequencies to half of Nyquist, of lines."""
    x, y = (np.fft.rfft(v.ravel())[1:9] for v in (a, b))
    return float((x * y.conj()).real.sum() / np.linalg.norm(x) / np.linalg.norm(y))


def test_icon_predicts_left_out_tilts_better_than_back_projection(discs):
    rng, better = np.random.default_rng(3), []
    clean = ops.radon(discs, TILTS, threads=1)
    for _ in range(3):
        series = clean + rng.normal(size=clean.shape).astype(np.float32)

        def by_icon(images, tilts):
            A = tilt_series(images, tilts, threads=1)
            return solve_icon(A, images, A.map_shape, 1.0, iterations=60).x.reshape(A.map_shape)

        def by_wbp(images, tilts):
            return weighted_back_projection(tilt_series(images, tilts, threads=1), images)

        scores = [
            np.mean([ring_correlation(clean[i], leave_one_out(series, TILTS, way, i)[1]) for i in (4, 9, 15)])
            for way in (by_icon, by_wbp)
        ]
        better.append(scores[0] - scores[1])
    assert np.mean(better) > 0


def test_firt_errs_less_than_art(discs):
    """ART on the matrix itself, as many sweeps, noise; diffusion between them. The missing wedge gains little."""
    size = discs.size
    A = tilt_series(np.zeros((len(TILTS), 1, 32)), TILTS, threads=1)
    matrix = np.stack([A @ unit for unit in np.eye(size, dtype=np.float32)], axis=1)
    data = matrix @ discs.ravel() + 0.5 * np.random.default_rng(0).normal(size=matrix.shape[0])
    more = {"method": "art", "relaxation": 0.2}
    art = solve(matrix, data, iterations=18, **more).x
    firt = solve_firt(matrix, data, A.map_shape, 0.8, rounds=5, iterations=3, **more).x
    assert np.linalg.norm(firt - discs.ravel()) < 0.95 * np.linalg.norm(art - discs.ravel())
    kz, kx = np.fft.fftfreq(32)[:, None], np.fft.fftfreq(32)
    wedge = (np.abs(kz) > np.abs(kx) * np.tan(np.deg2rad(60))) & (np.hypot(kz, kx) < 0.25)

    def inside(x):
        a, b = (np.fft.fft2(np.asarray(v).reshape(32, 32))[wedge] for v in (x, discs))
        return (a * b.conj()).real.sum() / np.linalg.norm(a) / np.linalg.norm(b)

    assert inside(firt) > inside(art)
    with pytest.raises(vg.InputError, match="positive knee"):
        solve_firt(matrix, data, A.map_shape, 0.0)


def test_diffusion_keeps_the_sum_and_smooths():
    x = np.random.default_rng(0).normal(size=(6, 7, 8))
    y = diffuse(x, 10.0, 5)
    assert y.sum() == pytest.approx(x.sum())
    assert y.std() < 0.6 * x.std()


def test_mbir_finds_gains_offsets_and_noise(discs):
    """Planted in a third of the images each; the map is better than without."""
    rng = np.random.default_rng(1)
    A = tilt_series(np.zeros((len(TILTS), 1, 32)), TILTS, threads=1)
    clean = (A @ discs.ravel()).reshape(len(TILTS), -1)
    gain = 1 + 0.2 * rng.uniform(-1, 1, len(TILTS))
    offset, sigma = rng.normal(0, 2, len(TILTS)), np.where(np.arange(len(TILTS)) % 3 == 0, 1.5, 0.3)
    data = gain[:, None] * clean + offset[:, None] + sigma[:, None] * rng.normal(size=clean.shape)
    made = solve_mbir(A, data, A.map_shape, 0.5, rounds=6, iterations=20)
    # The map takes the mean gain and what all offsets share.
    assert np.corrcoef(made.gain, gain)[0, 1] > 0.9
    assert np.corrcoef(made.offset, offset)[0, 1] > 0.95
    assert made.sigma[::3].mean() > 2 * np.delete(made.sigma, np.s_[::3]).mean()
    assert made.residuals[-1] < 0.06  # the noise is 0.04 of the data
    prior = Shaped(TotalVariation(0.5, iterations=15), A.map_shape)
    plain = solve(A, data.ravel(), "fista", prior=prior, iterations=60).x
    truth = discs.ravel()
    assert np.corrcoef(made.x, truth)[0, 1] > np.corrcoef(plain, truth)[0, 1]


@pytest.mark.parametrize("method", ["icon", "firt", "mbir"])
def test_tomograms_by_compositions(discs, method):
    """The weight is that which predicts left-out tilts best."""
    series = ops.radon(discs, TILTS, threads=1)
    series = series + 0.5 * np.random.default_rng(1).normal(size=series.shape).astype(np.float32)
    made = reconstruct_tilts(series, TILTS, TomogramSettings(method, iterations=15), check_tilts=2, threads=1)
    assert np.corrcoef(made.volume.ravel(), discs.ravel())[0, 1] > 0.8
    assert made.prior_weight == max(made.tried, key=lambda one: one[1])[0]
    assert min(c for _, c in made.left_out) > 0.9


@pytest.fixture(scope="module")
def few_particles():
    model = vg.simulate.phantom(24, 6.0, 110.0, seed=5)
    particles = vg.simulate.particles(model, 60, 24, 6.0, snr=0.3, seed=3, listener=None)
    return particles, vg.simulate.density(model, 24, 6.0).data.ravel()


def test_total_variation_of_particles(few_particles):
    """Better than division on noisy particles; its weight is what the halves say; maps keep the images' scale."""
    particles, truth = few_particles
    made = vg.reconstruction.reconstruct_report(particles, method="tv", iterations=30, threads=1, listener=None)
    direct = vg.reconstruct(particles, threads=1, listener=None)
    correlation = [np.corrcoef(m.data.ravel(), truth)[0, 1] for m in (made.map, direct)]
    assert correlation[0] > correlation[1] + 0.03
    assert made.tv.weight == min(made.tv.tried, key=lambda one: one[1])[0]
    assert made.half_maps is None
    assert 0.6 < float(made.map.data.ravel() @ truth / (truth @ truth)) < 1.1


def test_ending_early_is_a_prior(few_particles):
    """SIRT's residual falls; few steps of conjugate gradients are better on noise than many."""
    particles, truth = few_particles
    few, many = (
        vg.reconstruct(particles, method="cg", iterations=n, threads=1, listener=None).data.ravel() for n in (3, 60)
    )
    assert np.corrcoef(few, truth)[0, 1] > np.corrcoef(many, truth)[0, 1]
    report = vg.reconstruction.reconstruct_report
    residuals = [report(particles, method="sirt", iterations=n, threads=1, listener=None).residual for n in (1, 10, 30)]
    assert residuals[0] > residuals[1] > residuals[2]
    assert isinstance(vg.reconstruct(particles, method="tv", tv_weight=1.0, iterations=2, listener=None), vg.Map)
    with pytest.raises(vg.InputError, match="is not used by method sirt"):
        vg.reconstruct(particles, method="sirt", tv_weight=1.0, listener=None)
    with pytest.raises(vg.InputError, match="no part of method sirt"):
        vg.reconstruct(particles, method="sirt", ssnr=np.ones(12), listener=None)


def test_reconstruct_command_reaches_them(run, few_particles, tmp_path):
    vg.write_particles(tmp_path / "p.star", few_particles[0])
    arguments = [tmp_path / "p.star", "--out", tmp_path / "m.mrc", "--method", "sirt", "--iterations", 5, "--json"]
    status, out, _ = run("reconstruct", *arguments)
    assert status == 0
    assert json.loads(out)["residual"] > 0
    assert vg.read_map(tmp_path / "m.mrc").box == 24
