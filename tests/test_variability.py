"""Linear variability at known poses: planted motion is found, none is found where there is none."""

from __future__ import annotations

from importlib import import_module
from itertools import permutations

import numpy as np
import pytest
from scipy.stats import spearmanr
from threadpoolctl import threadpool_info, threadpool_limits

import verglas as vg
from verglas.errors import InputError, SettingError
from verglas.heterogeneity import coordinate_errors
from verglas.heterogeneity.components import component_radius, mean_model
from verglas.heterogeneity.coordinate_errors import readings_with_component_errors
from verglas.heterogeneity.covariance import _Equations, mask_functions
from verglas.heterogeneity.kernel_maps import kernel_weights
from verglas.heterogeneity.latent import Contrasts, latent_posterior
from verglas.heterogeneity.linear import LinearSums, fold, products, solve
from verglas.heterogeneity.posed import posed_images
from verglas.initial_model.course import resample_to_box
from verglas.run.variability import summary, variability_files
from verglas.simulate import hinge, phantom
from verglas.types.listener import Silence

BOX, PIXEL_A, N = 32, 5.0, 240


def simulated(angles, n=N, snr=0.3, seed=3):
    model = phantom(BOX, PIXEL_A, 110.0, seed=2)
    return vg.simulate.particles([hinge(model, a) for a in angles], n, BOX, PIXEL_A, snr=snr, seed=seed, listener=None)


@pytest.fixture(scope="module")
def moving():
    return simulated(np.linspace(0, 60, 7))


@pytest.fixture(scope="module")
def found(moving):
    return vg.variability(moving, most_components=2, resolution_A=18, diameter_A=130, iterations=8, listener=None)


def test_latent_posterior_is_that_of_brute_force():
    rng = np.random.default_rng(1)
    g, x = rng.normal(size=(3, 40)), rng.normal(size=40)
    gram, cross = (g @ g.T)[None], (g @ x)[None]
    contrasts = Contrasts.grid(0.3)
    made = latent_posterior(gram, cross, contrasts)
    z = np.stack(np.meshgrid(*[np.linspace(-5, 5, 161)] * 2, indexing="ij"), -1).reshape(-1, 2)
    log = []
    for a, prior in zip(contrasts.values, contrasts.log_prior, strict=True):
        model = a * (g[0] + z @ g[1:])
        log.append(model @ x - 0.5 * np.square(model).sum(axis=1) - 0.5 * np.square(z).sum(axis=1) + prior)
    log = np.array(log) - np.log(2 * np.pi)
    mass = np.exp(log - log.max())
    share = mass / mass.sum()
    cell = (10 / 160) ** 2
    assert made.log_evidence[0] == pytest.approx(log.max() + np.log(mass.sum() * cell), abs=1e-6)
    mean = np.einsum("az,zq->q", share, z)
    np.testing.assert_allclose(made.mean[0], mean, atol=1e-6)
    np.testing.assert_allclose(
        made.covariance[0], np.einsum("az,zp,zq->pq", share, z, z) - np.outer(mean, mean), atol=1e-6
    )
    a = contrasts.values
    full = np.concatenate([np.ones((len(z), 1)), z], axis=1)
    np.testing.assert_allclose(made.first[0], np.einsum("az,a,zq->q", share, a, full), atol=1e-6)
    np.testing.assert_allclose(made.second[0], np.einsum("az,a,zp,zq->pq", share, a**2, full, full), atol=1e-6)


def test_joint_equations_give_back_two_maps():
    rng = np.random.default_rng(0)
    a, b = (vg.simulate.density(phantom(BOX, PIXEL_A, 110.0, seed=s), BOX, PIXEL_A) for s in (2, 3))
    truth = vg.simulate.particles(phantom(BOX, PIXEL_A, 110.0), 400, BOX, PIXEL_A, seed=1, listener=None)
    z = rng.normal(size=len(truth))
    images = vg.project(a, truth.poses, truth.optics) + z[:, None, None] * vg.project(b, truth.poses, truth.optics)
    p = vg.Particles.from_images(images.astype(np.float32), PIXEL_A, poses=truth.poses, optics=truth.optics)
    posed = posed_images(p, job="test", resolution_A=15.0)
    volumes = np.zeros((2, *(posed.box,) * 3), np.float32)
    sums = LinearSums.zeros(posed, 2, mixed=True)
    for made in products(posed, volumes, np.ones((1, posed.radius + 1)), np.arange(len(p))):
        own = np.column_stack([np.ones(len(made.batch)), z[made.batch.rows]])
        sums.add(posed, made.batch, own, own[:, :, None] * own[:, None, :], [posed.radius] * 2)
    fold(posed, sums)
    solved = solve(posed, sums, None)
    for volume, m in zip(solved, (a, b), strict=True):
        curve = vg.fsc(volume * posed.sphere, resample_to_box(m.data, posed.box) * posed.sphere, pixel_size_A=1.0).curve
        assert curve[2 : posed.radius - 1].min() > 0.97


def test_motion_is_found_and_ordered(found, moving):
    angle = moving.table["rlnClassNumber"].to_numpy()
    assert found.n_components >= 1
    assert abs(spearmanr(found.coordinates[:, 0], angle)[0]) > 0.85
    assert found.gains["gain_nats"][0] > 3 * found.gains["error_nats"][0]
    assert found.contrast.mean() == pytest.approx(1, abs=0.05)


def test_stated_variance_is_that_of_the_coordinates(found):
    spread = found.coordinates.var(axis=0) + found.covariances.mean(axis=0).diagonal()
    np.testing.assert_allclose(found.eigenvalues, spread, rtol=0.1)
    data = np.stack([m.data.ravel() for m in found.components]).astype(np.float64)
    np.testing.assert_allclose(data @ data.T, np.eye(found.n_components), atol=1e-3)


def test_what_the_halves_disagree_on_is_stated_whatever_the_blocks(monkeypatch):
    """Half the difference of the halves has covariance C_0 + C_1 |z|^2 / q; what is linear in z is other units."""
    rng = np.random.default_rng(5)
    z, error = rng.normal(size=(2, 20_000, 2))
    size = np.square(z).mean(axis=1)[:, None]
    away = error * np.sqrt([0.04, 0.01] + size * [0.02, 0.05]) + z @ [[0.1, 0.2], [0.0, -0.1]] + 0.3
    image = np.tile(np.diag([1e-4, 1e-4]), (len(z), 1, 1))
    reading, precision = readings_with_component_errors(z, image, z + away, z - away)
    stated = np.linalg.inv(precision)
    expected = np.array([0.04, 0.01]) + size * [0.02, 0.05]
    np.testing.assert_allclose(np.einsum("iqq->iq", stated).mean(axis=0), expected.mean(axis=0), rtol=0.05)
    far = size[:, 0] > 3
    np.testing.assert_allclose(np.einsum("iqq->iq", stated)[far].mean(axis=0), expected[far].mean(axis=0), rtol=0.15)
    monkeypatch.setattr(coordinate_errors, "_BLOCK", 777)
    again = readings_with_component_errors(z, image, z + away, z - away)
    np.testing.assert_array_equal(again[0], reading)
    np.testing.assert_array_equal(again[1], precision)


def test_a_component_that_has_vanished_says_nothing_of_who_is_near():
    z = np.column_stack([np.linspace(-1, 1, 9), np.zeros(9)])
    covariance = np.tile(np.diag([0.1, 0.0]), (9, 1, 1))
    one = kernel_weights(z[:, :1], covariance[:, :1, :1], np.zeros(1), 0.5)
    np.testing.assert_allclose(kernel_weights(z, covariance, np.zeros(2), 0.5), one)


def test_map_along_the_coordinate_is_that_of_the_state(found, moving):
    angle = moving.table["rlnClassNumber"].to_numpy()
    model = phantom(BOX, PIXEL_A, 110.0, seed=2)
    ends = [vg.simulate.density(hinge(model, a), BOX, PIXEL_A).data for a in (0, 60)]
    made = [found.map_at(np.median(found.coordinates[angle == k], axis=0)).data for k in (1, 7)]

    def alike(a, b):
        return np.corrcoef(vg.filters.apply(vg.Map(a, PIXEL_A), vg.filters.low_pass(20.0)).data.ravel(), b.ravel())[
            0, 1
        ]

    assert alike(ends[0], made[0]) > alike(ends[0], made[1]) + 0.05
    assert alike(ends[1], made[1]) > alike(ends[1], made[0]) + 0.05


def test_no_component_in_a_few_homogeneous_particles():
    how = {"most_components": 1, "resolution_A": 22, "diameter_A": 130, "iterations": 5, "listener": None}
    assert vg.variability(simulated([0], n=160), **how).n_components == 0


@pytest.mark.slow
def test_no_component_in_homogeneous_particles():
    made = vg.variability(
        simulated([0]), most_components=2, resolution_A=18, diameter_A=130, iterations=6, listener=None
    )
    assert made.n_components == 0
    assert made.sentence.startswith("no heterogeneity beyond noise")


def test_kernel_regression_makes_maps_of_particles(found):
    low, high = np.quantile(found.coordinates[:, 0], [0.1, 0.9])
    at = np.median(found.coordinates, axis=0)
    maps = []
    for value in (low, high):
        at[0] = value
        volume, worth = found.neighbours_map(at, width=0.5)
        assert 20 <= worth < len(found.particles)
        maps.append(volume.data)
    assert np.isfinite(maps).all()
    moved = np.corrcoef((maps[1] - maps[0]).ravel(), found.components[0].data.ravel())[0, 1]
    assert moved > 0.5


def test_resolution_of_components_grows():
    class _Sized:
        radius, box, pixel_size_A = 15, 36, 5.0

    radii = [component_radius(_Sized(), i, 12) for i in range(12)]
    assert radii == sorted(radii)
    assert radii[0] < 6
    assert radii[-1] == 15


def test_same_result_whatever_the_threads(moving):
    few = moving[:60]
    how = {"components": 1, "resolution_A": 25, "iterations": 2, "listener": None}
    one, two = (vg.variability(few, threads=t, **how) for t in (1, 2))
    np.testing.assert_array_equal(one.coordinates, two.coordinates)


def test_covariance_leaves_the_threads_of_others_out(moving, monkeypatch):
    """Its long products come out otherwise with other numbers of BLAS threads, which no setting names."""
    seen = []

    class Seen(Exception):
        pass

    def looked(*given, **more):
        seen.extend(pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas")
        raise Seen

    monkeypatch.setattr(import_module("verglas.heterogeneity.variability"), "estimate_covariance", looked)
    how = {"method": "covariance", "components": 1, "resolution_A": 25, "listener": None}
    with threadpool_limits(2, user_api="blas"), pytest.raises(Seen):
        vg.variability(moving[:40], **how)
    assert set(seen) == {1}


def test_noise_holds_what_is_not_known_of_the_weights(moving):
    """The expected squared residual is |X|^2 - 2 E[w] h + tr(E[w w^T] M), the weights' covariance included."""
    posed = posed_images(moving[:30], job="test", resolution_A=18.0)
    a, b = (vg.simulate.density(phantom(BOX, PIXEL_A, 110.0, seed=s), BOX, PIXEL_A).data for s in (2, 3))
    volumes = np.stack([resample_to_box(v, posed.box) for v in (a, b)])
    rng = np.random.default_rng(0)
    first = rng.normal(size=(len(posed), 2))
    root = rng.normal(size=(len(posed), 2, 2))
    covariance = root @ root.transpose(0, 2, 1)
    second = first[:, :, None] * first[:, None, :] + covariance
    sums, expected, of_fit = LinearSums.zeros(posed, 2, mixed=True), 0.0, 0.0
    for made in products(posed, volumes, np.ones((posed.n_groups, posed.radius + 1)), np.arange(len(posed))):
        rows = made.batch.rows
        sums.add_residuals(posed, made, first[rows], second[rows])
        power = np.square(np.abs(made.images)).sum()
        expected += power - 2 * (first[rows] * made.cross).sum() + (second[rows] * made.gram).sum()
        of_fit += (covariance[rows] * made.gram).sum()
    assert sums.squared.sum() == pytest.approx(expected, rel=1e-4)
    assert of_fit > 0.05 * expected


def test_noise_of_the_mean_model_is_that_of_the_images():
    p = simulated([0], snr=0.3)
    posed = posed_images(p, job="test", resolution_A=12.0)
    sigma2 = mean_model(posed, contrast=False).sigma2[0, 3:]
    noise = p.images()[:, :3].var() * BOX**2 * (posed.box / BOX) ** 4
    assert np.median(sigma2) == pytest.approx(noise, rel=0.1)


@pytest.mark.parametrize(
    ("change", "words"),
    [({"mask": vg.Map(np.ones((8, 8, 8)), PIXEL_A)}, "resample it"), ({"diameter_A": 500.0}, "does not fit a box")],
)
def test_bad_input_is_said_in_one_sentence(moving, change, words):
    with pytest.raises(InputError, match=words):
        vg.variability(moving, listener=None, **change)


def test_poses_missing_and_wrong_settings(moving):
    bare = moving.with_columns(rlnAngleRot=None, rlnAngleTilt=None, rlnAnglePsi=None)
    with pytest.raises(InputError, match="needs poses"):
        vg.variability(bare, listener=None)
    with pytest.raises(SettingError, match="components"):
        vg.variability(moving, components="many", listener=None)
    with pytest.raises(SettingError, match="without symmetry"):
        vg.variability(moving, method="covariance", symmetry="C2", listener=None)


def test_files(tmp_path, moving):
    star = tmp_path / "p.star"
    vg.write_particles(star, moving[:120].with_columns(verglasCoordinate2=1.0))  # of an earlier analysis
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "component2_state1.mrc").touch()
    (tmp_path / "out" / "run.json").write_text("{}")  # which that analysis left
    settings = vg.heterogeneity.VariabilitySettings(components="1", resolution_A=25, iterations=2)
    made = variability_files(star, tmp_path / "out", settings=settings, listener=None)
    names = {p.name for p in (tmp_path / "out").iterdir()}
    assert {
        "mean.mrc",
        "component1.mrc",
        "coordinates.csv",
        "variability.npz",
        "particles.star",
        "report.html",
    } <= names
    back = vg.read_particles(tmp_path / "out" / "particles.star")
    np.testing.assert_allclose(
        back.table["verglasCoordinate1"].to_numpy(float), made.coordinates[:, 0], rtol=1e-4, atol=1e-4
    )
    assert summary(made)["components"] == 1
    assert not (tmp_path / "out" / "component2_state1.mrc").exists()
    assert "verglasCoordinate2" not in back.table
    np.testing.assert_array_equal(back.table["rlnRandomSubset"], made.posed.half)
    assert (tmp_path / "out" / "excluded.csv").is_file()


def test_stopped_analysis_goes_on_to_the_same_bits(tmp_path, moving):
    star = tmp_path / "p.star"
    vg.write_particles(star, moving[:80])
    settings = vg.heterogeneity.VariabilitySettings(components="1", resolution_A=25, iterations=3)

    class _Stop(Exception):
        pass

    class _Stopper(Silence):
        def progress(self, phase, done, total):
            if "components" in phase and done == 2:
                raise _Stop

    whole = variability_files(star, tmp_path / "whole", settings=settings, listener=None)
    with pytest.raises(_Stop):
        variability_files(star, tmp_path / "two", settings=settings, listener=_Stopper())
    other = vg.heterogeneity.VariabilitySettings(components="1", resolution_A=25, iterations=4)
    with pytest.raises(InputError, match="other settings"):
        variability_files(star, tmp_path / "two", settings=other, listener=None)
    again = variability_files(star, tmp_path / "two", settings=settings, resume=True, listener=None)
    np.testing.assert_array_equal(whole.coordinates, again.coordinates)
    np.testing.assert_array_equal(whole.components[0].data, again.components[0].data)
    assert not (tmp_path / "two" / "checkpoint").exists()
    with pytest.raises(InputError, match="nothing to resume"):
        variability_files(star, tmp_path / "two", settings=settings, resume=True, listener=None)


def test_covariance_equations_are_those_of_dense_algebra():
    """Conjugate gradients against the Kronecker system, and the mean of many planted residuals against the truth."""
    rng = np.random.default_rng(2)
    d, n, p = 4, 30, 6
    slices = rng.normal(size=(d, n, p)).astype(np.float32)
    truth = np.diag([3.0, 1.0, 0.0, 0.0])
    gram = np.einsum("dip,eip->ide", slices, slices).astype(float)
    right = np.einsum("iab,bc,icd->ad", gram, truth, gram)
    equations = _Equations(slices, right, gram.sum(axis=0))
    np.testing.assert_allclose(equations.apply(truth), right, rtol=1e-4, atol=1e-3)
    dense = sum(np.kron(a, a) for a in gram) + 0.5 * n * np.eye(d * d)
    solved = equations.solve(0.5, None)
    np.testing.assert_allclose(solved.ravel(), np.linalg.solve(dense, right.ravel()), atol=5e-3)
    assert equations.missed(truth) < equations.missed(solved) < equations.missed(np.zeros((d, d)))


@pytest.mark.slow
def test_covariance_of_three_structures_has_rank_two():
    """Row A11.9: eigenvolumes of a planted covariance, and three clusters."""
    model = phantom(BOX, PIXEL_A, 110.0, seed=2)
    states = [model, hinge(model, 50), hinge(model, -50, axis=(0, 1, 0), side=(0, 0, 1))]
    p = vg.simulate.particles(states, 400, BOX, PIXEL_A, snr=0.5, seed=4, listener=None)
    made = vg.variability(
        p, components=2, method="covariance", contrast=False, resolution_A=20, diameter_A=130, listener=None
    )
    true = [vg.simulate.density(s, BOX, PIXEL_A).data for s in states]
    away = np.stack([v - np.mean(true, axis=0) for v in true])
    # What of the true structures the functions of the covariance can hold.
    posed = made.posed
    radius = round(BOX * PIXEL_A / 40)
    functions = mask_functions(posed.sphere, min(radius, 4)).reshape(-1, posed.box**3)
    basis = np.linalg.qr(functions.T)[0]
    small = np.stack([resample_to_box(v.astype(np.float32), posed.box).ravel() for v in away]) @ basis
    found = np.stack([resample_to_box(c.data, posed.box).ravel() for c in made.components]) @ basis
    planted, vectors = np.linalg.svd(small, full_matrices=False)[1:]
    assert planted[2] < 1e-3 * planted[0]
    own = np.linalg.qr(found.T)[0]
    for vector in vectors[:2]:
        assert np.linalg.norm(own.T @ vector) > 0.9
    cluster, truth = made.landscape(3).cluster - 1, p.table["rlnClassNumber"].to_numpy(int) - 1
    assert max(np.mean(np.array(order)[cluster] == truth) for order in permutations(range(3))) > 0.9


@pytest.mark.slow
def test_deviation_is_that_of_the_planted_structures():
    """Row A11.8: the map of standard deviations against that of the true structures, at the resolution asked for."""
    model = phantom(BOX, PIXEL_A, 110.0, seed=21)
    states = [model, hinge(model, 50), hinge(model, -50, axis=(0, 1, 0), side=(0, 0, 1))]
    p = vg.simulate.particles(states, 400, BOX, PIXEL_A, snr=0.5, seed=23, listener=None)
    made = vg.variability(p, components=2, contrast=False, resolution_A=20, diameter_A=130, listener=None)
    smooth = vg.filters.low_pass(20.0)
    true = np.std([vg.filters.apply(vg.simulate.density(s, BOX, PIXEL_A), smooth).data for s in states], axis=0)

    def correlation(volume):
        return np.corrcoef(volume.ravel(), true.ravel())[0, 1]

    assert correlation(made.deviation.data) > 0.9
    assert correlation(made.deviation.data) > correlation(made.mean.data) + 0.1  # where it moves, not where matter is
    assert 0.8 < made.deviation.data.sum() / true.sum() < 1.2


def test_no_component_asked_for_is_no_finding(moving):
    made = vg.variability(moving[:60], components=0, resolution_A=25, iterations=1, listener=None)
    assert "no component was tried" in made.sentence
    assert made.coordinates.shape == (60, 0)
