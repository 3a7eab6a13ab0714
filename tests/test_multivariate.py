"""Covariance, eigenimages plain and rotation-aware, correspondence analysis, clusters, cores."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.linalg import subspace_angles
from sklearn.metrics import adjusted_rand_score

import verglas as vg
from verglas import masks, ops
from verglas.classification import (
    Alignment2D,
    alignment_scores,
    cluster,
    core_members,
    correspondence_analysis,
    covariance,
    eigenimages,
    stable_core,
    steerable_eigenimages,
    view_neighbours,
)
from verglas.errors import InputError
from verglas.image import correntropy

rng = np.random.default_rng(0)


def blobs(box, places, width=2.0):
    y, x = np.indices((box, box)) - box // 2
    return sum(h * np.exp(-((x - px) ** 2 + (y - py) ** 2) / (2 * width**2)) for px, py, h in places)


def faces(n, box=24, noise=0.5, seed=1):
    """Eight planted classes: a face with or without three features, as in the textbooks."""
    r = np.random.default_rng(seed)
    base = blobs(box, [(0, 0, 1.0)], 5.0)
    features = [blobs(box, [(-3, -3, 1.0)]), blobs(box, [(3, -3, 1.0)]), blobs(box, [(0, 4, 1.0)])]
    label = np.arange(n) % 8
    images = np.stack([base + sum(f for bit, f in enumerate(features) if k >> bit & 1) for k in label])
    return images + noise * r.standard_normal(images.shape), label, images


def test_covariance_is_that_of_numpy():
    x = rng.normal(size=(12, 5, 4))
    mask = rng.random((5, 4)) > 0.4
    expected = np.cov(x[:, mask], rowvar=False, bias=True)
    assert np.allclose(covariance(x, mask), expected, atol=1e-13)


def test_eigenimages_span_the_planted_classes():
    """Eight classes made of three features span three dimensions; the angle is below 10 degrees."""
    images, _, clean = faces(400, noise=0.2)
    found = eigenimages(images, 3)
    truth = np.linalg.svd(clean.reshape(400, -1) - clean.reshape(400, -1).mean(0), full_matrices=False)[2][:3]
    assert np.rad2deg(subspace_angles(found.vectors.reshape(3, -1).T, truth.T)).max() < 10


def test_seven_eigenimages_span_eight_independent_classes():
    r = np.random.default_rng(2)
    classes = r.standard_normal((8, 16, 16))
    images = classes[np.arange(320) % 8] + 0.5 * r.standard_normal((320, 16, 16))
    found = eigenimages(images, 7)
    truth = np.linalg.svd(classes.reshape(8, -1) - classes.reshape(8, -1).mean(0), full_matrices=False)[2][:7]
    assert np.rad2deg(subspace_angles(found.vectors.reshape(7, -1).T, truth.T)).max() < 10


def test_eigenvalues_and_vectors_are_those_of_the_covariance():
    x = rng.normal(size=(30, 4, 5))
    found = eigenimages(x)
    values = np.linalg.eigvalsh(covariance(x))[::-1]
    assert np.allclose(found.eigenvalues, values, atol=1e-12)
    assert found.total_variance == pytest.approx(values.sum())
    assert np.allclose(found.project(x), found.coefficients, atol=1e-12)


def test_reconstituted_images_come_nearer_with_every_component_and_end_exact():
    images, _, _ = faces(40, box=8)
    mask = masks.soft_circle(8, 3.0) > 0.5
    found = eigenimages(images, mask=mask)
    errors = [np.abs((found.reconstitute(k=k) - images)[:, mask] ** 2).sum() for k in range(len(found.vectors) + 1)]
    assert (np.diff(errors) <= 1e-9).all()
    assert errors[-1] < 1e-18 * len(images) + 1e-12 * errors[0]
    with pytest.raises(InputError, match="expected k from 0"):
        found.reconstitute(k=len(found.vectors) + 1)


def test_steerable_coefficients_turn_by_a_phase():
    """c(turned by psi) = c e^(i m psi): an exact quarter turn of band-limited blobs, in an odd box."""
    places = [(4, 0, 1.0), (-3, 5, 0.7), (0, -6, 1.5), (2, 3, -0.6)]
    images = np.stack([blobs(33, r) for r in (places, places[1:], places[:2], places[::2])]).astype(np.float32)
    found = steerable_eigenimages(images, 12, radius=8)
    turned = np.ascontiguousarray(np.rot90(images, axes=(1, 2)))
    a, b = found.coefficients(images), found.coefficients(turned)
    assert np.allclose(np.abs(a), np.abs(b), atol=2e-3 * np.abs(a).max())
    # np.rot90 takes (x, y) of an image to (y, -x) in x right, y down: theta of its transform falls by 90 degrees.
    phase = np.exp(1j * found.m * np.pi / 2)
    assert np.allclose(b, a * phase, atol=2e-3 * np.abs(a).max())


def test_steerable_components_are_those_of_all_rotations():
    """Eigenvalues against a plain principal component analysis of densely turned polar samples."""
    r = np.random.default_rng(3)
    box, n = 17, 6
    images = (r.standard_normal((n, box, box)) * masks.soft_circle(box, 5, 2)).astype(np.float32)
    found = steerable_eigenimages(images, 60, radius=4)
    grid = found.grid
    half = ops.polar(images, grid).astype(np.complex128)
    full = np.concatenate([half, half.conj()], axis=2)
    turns = [np.roll(full, k, axis=2) for k in range(grid.n_theta)]
    weight = np.sqrt(grid.weights)[:, None]
    data = (np.concatenate(turns) * weight).reshape(n * grid.n_theta, -1)
    real = np.concatenate([data.real, data.imag], axis=1)
    values = np.linalg.svd(real - real.mean(axis=0), compute_uv=False) ** 2 / len(real)
    # A component with m > 0 stands for two real ones.
    expected = np.sort(
        np.concatenate([[v] if m == 0 else [v / 2] * 2 for v, m in zip(found.eigenvalues, found.m, strict=True)])
    )[::-1]
    assert np.allclose(values[:12], expected[:12], rtol=2e-3)


def test_steerable_images_hold_the_variance():
    places = [(4, 0, 1.0), (-3, 5, 0.7), (0, -6, 1.5)]
    images = np.stack([blobs(32, places), blobs(32, places[:2])]).astype(np.float32)
    found = steerable_eigenimages(images, 6, radius=7)
    shown = found.images()
    assert shown.shape == (6, 32, 32)
    again = found.coefficients(shown + 0)
    again = again + np.einsum("r,jr->j", found.mean, found.radial.conj()) * (found.m == 0)  # their mean is not theirs
    strongest = np.abs(again).argmax(axis=1)
    assert np.array_equal(strongest, np.arange(6))


def test_correspondence_analysis_is_the_svd_of_standardised_residuals():
    t = rng.integers(0, 20, (9, 6)).astype(float) + 0.5
    found = correspondence_analysis(t)
    p = t / t.sum()
    expected = np.outer(p.sum(1), p.sum(0))
    s = np.linalg.svd((p - expected) / np.sqrt(expected), compute_uv=False)
    assert np.allclose(found.inertia, s[:5] ** 2, atol=1e-6)
    assert found.inertia.sum() == pytest.approx(((p - expected) ** 2 / expected).sum())
    # Distances of rows are chi-squared distances of their profiles.
    profile = p / p.sum(1, keepdims=True)
    chi = (((profile[:, None] - profile) ** 2) / p.sum(0)).sum(-1)
    assert np.allclose(((found.rows[:, None] - found.rows) ** 2).sum(-1), chi, atol=1e-12)
    assert np.allclose(found.row_mass @ found.rows, 0, atol=1e-12)
    with pytest.raises(InputError, match="row 1 "):
        correspondence_analysis([[1.0, 2], [-1, 2]])
    with pytest.raises(InputError, match=r"row 0 .* all zero"):
        correspondence_analysis([[0.0, 0], [1, 2]])


@pytest.mark.parametrize("method", ["kmeans", "ward"])
def test_clusters_of_coefficients_are_the_planted_classes(method):
    """Adjusted Rand index of at least 0.9 on the faces."""
    images, label, _ = faces(400, noise=0.35)
    found = cluster(eigenimages(images, 4).coefficients, 8, method=method)
    assert adjusted_rand_score(label, found) >= 0.9
    sizes = np.bincount(found)
    assert (np.diff(sizes) <= 0).all()


def test_cluster_refuses():
    with pytest.raises(InputError, match="method"):
        cluster(np.zeros((3, 1)), 2, method="magic")
    with pytest.raises(InputError, match="1 to n clusters"):
        cluster(np.zeros((3, 1)), 4)


def test_purity_rises_in_the_core():
    """A tenth of each class are intruders of another."""
    images, label, _ = faces(400, noise=0.3)
    given = label.copy()
    wrong = np.arange(0, 400, 10)
    given[wrong] = (given[wrong] + 3) % 8
    core = core_members(images, given)
    pure = (given == label).mean()
    assert (given == label)[core].mean() > pure + 0.05
    assert core[given == label].mean() > 0.9


def test_stable_core_follows_the_hierarchy():
    levels = [[0, 0, 0, 0, 1, 1], [0, 0, 1, 1, 2, 2], [0, 0, 0, 1, 1, 1]]
    assert stable_core(levels, tolerance=0).tolist() == [True, True, False, False, True, True]
    assert stable_core(levels, tolerance=2).all()


def test_images_that_are_not_finite_are_named():
    x = np.zeros((3, 4, 4))
    x[1, 0, 0] = np.nan
    with pytest.raises(InputError, match="image 1 "):
        eigenimages(x)


def test_wild_pixels_do_not_outvote_the_others_in_correntropy():
    """An image of the first reference with a few wild pixels that lie on the second: correlation names the second."""
    first, second = blobs(24, [(-4, 0, 1.0), (4, 2, 1.0)]), blobs(24, [(6, -7, 1.0)], 1.0)
    image = first + 0.1 * np.random.default_rng(2).standard_normal(first.shape)
    image[second > 0.5] += 12.0
    here = Alignment2D(np.zeros(2, np.float32), np.zeros((2, 2), np.float32), np.arange(2, dtype=np.int32), np.zeros(2))
    pair = np.stack([image, image]).astype(np.float32), np.stack([first, second]).astype(np.float32)
    plain, robust = (alignment_scores(*pair, here, measure=m) for m in ("correlation", "correntropy"))
    assert plain[1] > plain[0]
    assert robust[0] > robust[1]
    dark = alignment_scores(pair[0], -pair[1], here, measure="correntropy")
    assert dark[0] < robust[0] - 0.1  # the other contrast is unlike: no negative grey scale
    assert correntropy(first, first, 0.1) == 1.0
    wide = correntropy(first, image, 1000.0)
    assert wide == pytest.approx(1 - np.mean((first - image) ** 2) / 2e6, abs=1e-9)
    with pytest.raises(InputError, match="sigma above 0"):
        correntropy(first, first, 0.0)


def angles_to_neighbours(found, angles_deg):
    axes = vg.euler_to_matrix(angles_deg)[:, 2]
    other = axes[found.index] * np.where(found.mirrored, -1, 1)[..., None]
    return np.degrees(np.arccos(np.clip((axes[:, None] * other).sum(axis=-1), -1, 1)))


def test_neighbours_show_like_views_whatever_turn_and_hand():
    """Clean views: neighbours are near; the turn given is the one between the images."""
    model = vg.simulate.phantom(24, 5.0, 75.0, seed=3)
    poses = vg.Poses(vg.geometry.random_orientations(200, seed=1))
    settings = {"ctf": False, "shift_sd_A": 0.0, "listener": None, "poses": poses}
    images = vg.simulate.particles(model, 200, 24, 5.0, snr=20.0, seed=1, **settings).images()
    turned = np.rot90(images[:1], axes=(1, 2))
    both = np.concatenate([images, np.roll(turned, 1, axis=1)])
    found = view_neighbours(both, 4, diameter_px=17, diffusion=False, threads=1)
    assert (angles_to_neighbours(found, np.concatenate([poses.angles_deg, poses.angles_deg[:1]])) < 25).mean() > 0.9
    assert found.index[200, 0] == 0
    assert not found.mirrored[200, 0]
    assert abs((found.psi_deg[200, 0] - 90 + 180) % 360 - 180) < 8
    assert (np.diff(found.likeness, axis=1) <= 0).all()
    # over paths, too, the copy is the nearest, and its turn the same
    by_paths = view_neighbours(both, 4, diameter_px=17, threads=1)
    assert by_paths.index[200, 0] == 0
    assert abs((by_paths.psi_deg[200, 0] - 90 + 180) % 360 - 180) < 8
    again = view_neighbours(both, 4, diameter_px=17, threads=2)
    np.testing.assert_array_equal(again.index, by_paths.index)
    with pytest.raises(InputError, match="more than k"):
        view_neighbours(images[:4], 4)
    with pytest.raises(InputError, match="no background"):
        view_neighbours(images, 4, diameter_px=40)
