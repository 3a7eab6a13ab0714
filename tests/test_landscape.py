"""Densities of coordinates without their errors, clusters, ways across; variance by bootstrap; random subsets."""

from __future__ import annotations

import json

import numpy as np
import pytest
from heard import Heard

import verglas as vg
from verglas.errors import InputError
from verglas.heterogeneity import VariabilitySettings, bootstrap_variance, landscape, posed_images, subset_landscape
from verglas.heterogeneity.kernel_maps import WIDTHS, choose_width, kernel_weights, worth
from verglas.heterogeneity.landscape import likelihoods
from verglas.initial_model.course import resample_to_box
from verglas.report.landscape import landscape_section
from verglas.run.variability import variability_files
from verglas.simulate import Model, phantom

BOX, PIXEL_A, N = 32, 5.0, 240


def posteriors(true, error, prior, seed=0):
    """What :func:`verglas.variability` would know of coordinates seen with errors of these variances (n, q)."""
    rng = np.random.default_rng(seed)
    seen = true + np.sqrt(error) * rng.normal(size=true.shape)
    covariance = 1 / (1 / error + 1 / prior)
    n, q = true.shape
    full = np.zeros((n, q, q))
    full[:, np.arange(q), np.arange(q)] = covariance
    return covariance * seen / error, full


def halves(n):
    return np.arange(n) % 2 + 1


def test_likelihood_is_the_posterior_without_its_prior():
    rng = np.random.default_rng(2)
    root = rng.normal(size=(5, 2, 2))
    information, prior = root @ root.transpose(0, 2, 1), np.array([2.0, 0.5])
    h = rng.normal(size=(5, 2))
    covariance = np.linalg.inv(information + np.diag(1 / prior))
    found = likelihoods(np.einsum("nab,nb->na", covariance, h), covariance, prior)
    np.testing.assert_allclose(found[0], h, rtol=1e-6)
    np.testing.assert_allclose(found[1], information, rtol=1e-6)


def test_spread_of_the_density_is_that_of_the_truth_and_not_of_the_coordinates():
    """Errors as large as the spread itself: neither blurred by them nor shrunk by the prior; one cluster."""
    rng = np.random.default_rng(1)
    true, prior = rng.normal(size=(1000, 2)) * [2.0, 1.0], np.array([4.0, 1.0])
    z, covariance = posteriors(true, rng.uniform(0.5, 4.0, true.shape), prior)
    made = landscape(z, covariance, prior, halves(1000))
    assert made.clusters == 1
    np.testing.assert_allclose(made.mixture.covariances[0].diagonal(), [4.0, 1.0], rtol=0.2)
    assert z.var(axis=0)[0] < 3.0
    np.testing.assert_allclose(made.membership, 1.0)


def test_ring_is_walked_along_and_not_across():
    rng = np.random.default_rng(3)
    angle, prior = rng.uniform(0, 2 * np.pi, 600), np.array([2.0, 2.0])
    true = 2 * np.column_stack([np.cos(angle), np.sin(angle)])
    z, covariance = posteriors(true, np.full(true.shape, 0.2), prior)
    made = landscape(z, covariance, prior, halves(600))
    assert made.clusters >= 4
    way = made.path([2.0, 0.0], [-2.0, 0.0], 9)
    assert np.linalg.norm(way, axis=1).min() > 1.5
    np.testing.assert_allclose(way[[0, -1]], [[2, 0], [-2, 0]])
    energy, error = made.free_energy_kT(np.array([[0.0, 0.0], [2.0, 0.0]]))
    assert energy[0] > energy[1] + 2
    assert (error >= 0).all()


def test_two_states_apart_by_a_little_more_than_their_errors():
    rng = np.random.default_rng(5)
    state = (rng.random(800) < 0.3).astype(int)
    true, prior = (np.array([-2.0, 2.0])[state] + 0.1 * rng.normal(size=800))[:, None], np.array([4.0])
    z, covariance = posteriors(true, np.full(true.shape, 1.5), prior)
    made = landscape(z, covariance, prior, halves(800))
    assert made.clusters == 2
    np.testing.assert_allclose(made.mixture.shares, [0.7, 0.3], atol=0.05)
    np.testing.assert_allclose(made.mixture.means[:, 0], [-2, 2], atol=0.3)
    assert np.mean((made.cluster == 2) == state) > 0.93
    grid = made.grid(1)[0]
    energy = made.free_energy_kT(grid[:, None])[0]
    middle = energy[np.abs(grid).argmin()]
    assert middle > 2  # a histogram of z has no such gap: its errors fill it
    first, last = made.ends()
    assert first[0] * last[0] < 0
    one = landscape(z, covariance, prior, halves(800), clusters=1)
    assert one.clusters == 1
    three = landscape(z, covariance, prior, halves(800), clusters=3)
    assert three.trials["clusters"].tolist() == [1, 3]  # a gain over one Gaussian takes one
    assert three.clusters == 3
    assert three.trials["gain_nats"].iloc[1] > 5 * three.trials["error_nats"].iloc[1] > 0
    with pytest.raises(InputError, match="coordinate 1 has a prior variance of 0"):
        landscape(z, covariance, np.zeros(1), halves(800))
    with pytest.raises(InputError, match="where particles are"):
        made.path([0.0], [99.0])
    with pytest.raises(InputError, match="nothing varies"):
        landscape(np.zeros((9, 0)), np.zeros((9, 0, 0)), np.zeros(0), halves(9))
    with pytest.raises(InputError, match="too few for 50 clusters"):
        landscape(z, covariance, prior, halves(800), clusters=50)


def test_further_coordinates_of_a_path_are_those_of_the_particles_there():
    rng = np.random.default_rng(6)
    x = rng.normal(size=(600, 3))
    true = np.column_stack([x, 0.8 * x[:, 0] + 0.2 * rng.normal(size=600)])
    prior = np.ones(4)
    z, covariance = posteriors(true, np.full(true.shape, 0.1), prior)
    made = landscape(z, covariance, prior, halves(600), clusters=1)
    way = made.path(np.array([-1.0, 0, 0, -0.8]), np.array([1.0, 0, 0, 0.8]), 5)
    np.testing.assert_allclose(way[:, 3], 0.8 * way[:, 0], atol=0.2)


@pytest.fixture(scope="module")
def flexible():
    """A body beside which a small part is there in half of the particles."""
    body, small = phantom(BOX, PIXEL_A, 90.0, seed=3), phantom(BOX, PIXEL_A, 30.0, seed=4)
    away = Model(small.xyz_A + np.array([0, 0, 55.0]), small.elements, small.weights, small.b_factors_A2)
    p = vg.simulate.particles([body, body + away], N, BOX, PIXEL_A, snr=1.0, seed=3, listener=None)
    low = vg.filters.low_pass(20.0)
    return p, vg.filters.apply(vg.simulate.density(away, BOX, PIXEL_A), low)


@pytest.mark.slow
def test_variance_by_bootstrap_has_its_peak_where_the_flexible_part_is(flexible):
    p, part = flexible
    posed = posed_images(p, job="test", resolution_A=20.0, diameter_A=150.0)
    heard = Heard()
    made = bootstrap_variance(posed, draws=60, listener=heard)
    truth = np.square(resample_to_box(part.data, posed.box)) / 4
    peak = np.unravel_index(truth.argmax(), truth.shape)
    found = np.unravel_index(made.variance.data.argmax(), truth.shape)
    assert np.linalg.norm(np.subtract(peak, found)) <= 1.5
    assert made.variance.data[peak] > 3 * made.error.data[peak]
    assert made.variance.data[peak] == pytest.approx(truth[peak], rel=0.5)
    still = (truth < 0.01 * truth.max()) & (posed.sphere > 0.99)
    assert abs(made.variance.data[still].mean()) < 0.05 * truth.max()
    assert heard.ends_of("maps of drawn particles") == (60, 60)


def test_contrast_is_no_variance():
    """Images of one structure, 0.6 to 1.4 times as strong: it varies, unless a contrast is estimated."""
    model = phantom(24, 6.0, 100.0, seed=1)
    clean, noisy = (vg.simulate.particles(model, 80, 24, 6.0, snr=s, seed=5, listener=None) for s in (1e6, 2.0))
    more = np.random.default_rng(0).uniform(-0.4, 0.4, 80).astype(np.float32)[:, None, None]
    images = noisy.images(slice(0, 80)) + more * clean.images(slice(0, 80))
    posed = posed_images(noisy.with_source(vg.ArraySource(images, 6.0)), job="test", resolution_A=24.0)
    without, with_contrast = (bootstrap_variance(posed, draws=10, contrast=c) for c in (False, True))
    with pytest.raises(InputError, match="5 draws"):
        bootstrap_variance(posed, draws=5)
    middle = np.s_[6:18, 6:18, 6:18]
    assert abs(with_contrast.variance.data[middle].mean()) < 0.1 * without.variance.data[middle].mean()


def test_more_clusters_than_particles_allow_are_refused_before_the_work(tmp_path):
    p = vg.simulate.particles(phantom(16, 8.0, 80.0), 30, 16, 8.0, seed=1, listener=None)
    vg.write_particles(tmp_path / "p.star", p)
    with pytest.raises(InputError, match="30 particles are too few for 2 clusters; a cluster takes 20"):
        variability_files(tmp_path / "p.star", tmp_path / "out", clusters=2, listener=None)
    assert not (tmp_path / "out").exists()


def test_page_says_why_a_path_has_no_maps():
    z, covariance = posteriors(np.random.default_rng(7).normal(size=(60, 1)), np.full((60, 1), 0.5), np.ones(1))
    land = landscape(z, covariance, np.ones(1), halves(60), clusters=1)
    path = land.path(*land.ends())
    said = landscape_section(land, z, path, "3 particles lie near [9.]").text
    assert "no maps along the path: 3 particles lie near" in said
    assert "no maps" not in landscape_section(land, z, path).text


@pytest.mark.slow
def test_files_of_a_landscape(flexible, tmp_path):
    """The deviation by maximum likelihood is that of the truth; clusters are the states; their maps differ there."""
    p, part = flexible
    vg.write_particles(tmp_path / "p.star", p)
    out = tmp_path / "out"
    out.mkdir()
    (out / "particles_cluster3.star").touch()
    (out / "run.json").write_text("{}")  # which an earlier analysis left
    how = VariabilitySettings(components="1", resolution_A=20, diameter_A=150, iterations=8, contrast=False)
    made = variability_files(tmp_path / "p.star", out, settings=how, listener=None)
    assert np.corrcoef(made.deviation.data.ravel(), part.data.ravel() / 2)[0, 1] > 0.8
    truth = part.data.astype(np.float64) / 2
    assert 0.6 < (made.deviation.data * truth).sum() / np.square(truth).sum() < 1.2
    record = json.loads((out / "variability.json").read_text())
    assert record["clusters"] == 2
    assert record["cluster_particles"] == [len(vg.read_particles(out / f"particles_cluster{k}.star")) for k in (1, 2)]
    assert not (out / "particles_cluster3.star").exists()
    cluster = vg.read_particles(out / "particles.star").table["verglasCluster"].to_numpy(int)
    right = np.mean(cluster == p.table["rlnClassNumber"].to_numpy(int))
    assert max(right, 1 - right) > 0.97
    ends = [vg.read_map(out / f"path_state{k}.mrc").data for k in (1, 5)]
    difference = np.abs(ends[1] - ends[0])
    assert difference[part.data > 0.5 * part.data.max()].mean() > 5 * difference.mean()
    assert "Landscape" in (out / "report.html").read_text()


@pytest.mark.slow
def test_width_that_is_chosen_makes_a_map_near_the_truth(flexible):
    """Within a tenth of the least squared error that any of the widths has."""
    p, _ = flexible
    how = {"resolution_A": 20, "diameter_A": 150, "iterations": 6, "contrast": False, "listener": None}
    made = vg.variability(p[:160], components=1, **how)
    given = made.posed, made.model.sigma2, made.coordinates, made.covariances, made.contrast
    there = p.table["rlnClassNumber"].to_numpy()[:160] == 2
    low = vg.filters.low_pass(20.0)
    body = vg.simulate.density(phantom(BOX, PIXEL_A, 90.0, seed=3), BOX, PIXEL_A)
    truth = vg.filters.apply(body, low).data
    z = np.median(made.coordinates[~there], axis=0)
    lost = {h: np.square(made.neighbours_map(z, width=h)[0].data - truth).sum() for h in WIDTHS}
    width = choose_width(*given, z)
    assert lost[width] < 1.1 * min(lost.values())
    volume, number = made.neighbours_map(z)
    assert number == pytest.approx(worth(kernel_weights(made.coordinates, made.covariances, z, width)))
    np.testing.assert_array_equal(volume.data, made.neighbours_map(z, width=width)[0].data)
    with pytest.raises(InputError, match="particles lie near"):
        made.neighbours_map(np.array([1e4]), width=0.01)


@pytest.mark.slow
def test_classes_of_random_subsets_lie_along_what_varies(flexible):
    p, part = flexible
    posed = posed_images(p, job="test", resolution_A=20.0, diameter_A=150.0)
    made = subset_landscape(posed, subsets=4, size=100, classes=2)
    assert abs(np.corrcoef(made.components[0].data.ravel(), resample_to_box(part.data, posed.box).ravel())[0, 1]) > 0.7
    there = p.table["rlnClassNumber"].to_numpy() == 2
    share = [
        (m[:, k] * there[rows]).sum() / m[:, k].sum()
        for m, rows in zip(made.members, made.rows, strict=True)
        for k in (0, 1)
    ]
    assert abs(np.corrcoef(share, made.coordinates[:, 0])[0, 1]) > 0.9
    assert made.share[0] > 0.4
    with pytest.raises(InputError, match="expected 20 a class"):
        subset_landscape(posed, size=30, classes=2)
