"""Common lines: the op against its reference, sinograms, three images, synchronisation of many, a map from averages."""

import json
import warnings

import numpy as np
import pandas as pd
import pytest
from command_line import main
from hypothesis import given, settings
from hypothesis import strategies as st

import verglas as vg
from verglas import ops, reference
from verglas.geometry import euler_to_matrix, random_orientations
from verglas.initial_model.common_lines import (
    find_common_lines,
    orientation_error_deg,
    sinogram,
    synchronise,
)
from verglas.initial_model.three_images import three_orientations

from devices import host
from tolerance import COMMON_LINES_REL

DIAMETER_A = 130.0


@pytest.fixture(scope="module")
def model():
    return vg.simulate.phantom(64, 3.0, DIAMETER_A, seed=3)


def images_of(model, n, box=64, pixel_A=3.0, **settings):
    return vg.simulate.particles(model, n, box, pixel_A, ctf=False, shift_sd_A=0.0, **settings)


def test_sinogram_is_the_radon_transform(model):
    """Along the axes line integrals are plain sums; a quarter turn of the image turns the sinogram."""
    image = images_of(model, 1, seed=5).images()
    rows = sinogram(image, 240)[0]
    for row, axis in ((rows[0], 0), (rows[60], 1)):
        plain = image[0].sum(axis=axis)
        assert np.abs(row - plain).max() < 0.01 * plain.max()  # without the Nyquist component
    with pytest.raises(vg.InputError, match="n_theta"):
        sinogram(image, 20)


def test_three_exact_projections_fix_their_orientation(model):
    """Better than 2 degrees, but for triples whose lines nearly coincide (two of these twelve), which are named."""
    errors = []
    for seed in range(12):
        p = images_of(model, 3, seed=seed)
        lines = find_common_lines(p.images(), 14, diameter_px=48, n_theta=360)
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            errors.append(orientation_error_deg(three_orientations(lines.angle), p.poses.angles_deg).max())
        assert errors[-1] < 2.5 or any("degrees apart" in str(one.message) for one in told)
    assert np.median(errors) < 1
    assert np.sum(np.array(errors) < 2) >= 10
    wrong = lines.angle.copy()
    wrong[0, 1], wrong[0, 2], wrong[1, 0], wrong[1, 2], wrong[2, 0], wrong[2, 1] = 0, 0.1, 0, 0.1, 0, 1.5
    with pytest.raises(vg.InputError, match="one of the lines is wrong"):
        three_orientations(wrong)


def test_clean_images_are_oriented_exactly_and_with_confidence(model):
    p = images_of(model, 40, seed=1)
    found = synchronise(find_common_lines(p.images(), 12, diameter_px=48, n_theta=120))
    assert orientation_error_deg(found.angles_deg, p.poses.angles_deg).mean() < 1
    assert np.allclose(found.eigenvalues[:3], 1, atol=0.02)
    assert found.gap > 0.3


@pytest.mark.parametrize("seed", [0, pytest.param(3, marks=pytest.mark.slow)])
def test_noisy_images_are_oriented_because_all_pairs_vote(seed):
    """At SNR 1/4 with 60 images; fewer than half of the lines are right. bench_abinitio.py has 60 to 500."""
    model = vg.simulate.phantom(128, 1.5, DIAMETER_A, seed=seed)
    p = images_of(model, 60, 128, 1.5, snr=0.25, seed=seed + 1)
    lines = find_common_lines(p.images(), 18, diameter_px=92, n_theta=120)
    voted, found = (
        orientation_error_deg(synchronise(lines, refine=refine).angles_deg, p.poses.angles_deg).mean()
        for refine in (False, True)
    )
    assert found < 4
    assert found < 0.8 * voted  # the likelihood of all pairs together is worth more than votes
    assert synchronise(lines).gap > 0.1


def test_pure_noise_has_no_gap():
    rng = np.random.default_rng(0)
    noise = rng.standard_normal((60, 64, 64)).astype(np.float32)
    found = synchronise(find_common_lines(noise, 12, diameter_px=48, n_theta=120))
    assert found.gap < 0.15
    assert found.consistency_deg > 30


def test_lines_that_nearly_coincide_are_named():
    """Two images seen almost alike, a third from aside: its lines with both are the same but for the difference."""
    angles = np.array([[0.0, 0.0, 0.0], [0.0, 4.0, 90.0], [30.0, 80.0, 0.0]])
    axes = np.swapaxes(vg.euler_to_matrix(angles), 1, 2)
    lines = np.zeros((3, 3))
    for i in range(3):
        for j in range(3):
            if i != j:  # the line common to both planes, seen in image i
                first, second = min(i, j), max(i, j)
                common = np.cross(axes[first][:, 2], axes[second][:, 2])
                lines[i, j] = np.arctan2(*(axes[i].T @ common)[1::-1])
    with pytest.warns(vg.VerglasWarning, match=r"in image 2 the lines with images 0 and 1 are \d\.\d degrees apart"):
        found = three_orientations(lines)
    assert orientation_error_deg(found, angles).max() < 0.01
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        three_orientations(lines, least_deg=1.0)


def test_wrong_input():
    with pytest.raises(vg.InputError, match="two or more"):
        find_common_lines(np.zeros((1, 16, 16), np.float32), 4)
    rng = np.random.default_rng(0)
    lines = find_common_lines(rng.standard_normal((3, 32, 32)).astype(np.float32), 6)
    with pytest.raises(vg.InputError, match="4 or more"):
        synchronise(lines)


def random_lines(n, half, depth, seed):
    rng = np.random.default_rng(seed)
    x = (rng.standard_normal((n, half, depth)) + 1j * rng.standard_normal((n, half, depth))).astype(np.complex64)
    return x, rng.random((n, half)).astype(np.float32)


@settings(max_examples=25, deadline=None)
@given(n=st.integers(2, 5), half=st.integers(2, 37), depth=st.integers(1, 9), seed=st.integers(0, 99))
def test_search_equals_the_reference(device, n, half, depth, seed):
    """The direction of the largest score, to a step, and no less than that score."""
    lines, loss = random_lines(n, half, depth, seed)
    angle, score = (host(made) for made in ops.common_lines(lines, loss, device=device))
    assert np.array_equal(score, score.T)
    for i in range(n):
        assert angle[i, i] == score[i, i] == 0
        for j in range(i + 1, n):
            table = reference.common_lines.pair_scores(lines, loss, i, j)
            a, b = (int(k) for k in np.unravel_index(table.argmax(), table.shape))
            near = (angle[[i, j], [j, i]] * half / np.pi - (a, b) + half) % (2 * half) - half
            assert np.abs(near).max() <= 1 + 1e-9
            slack = COMMON_LINES_REL * np.abs(table).max()
            assert table[a, b] - slack <= score[i, j]
            assert score[i, j] <= table[a, b] + np.ptp(table) + slack  # gradients and steps below 1


@settings(max_examples=25, deadline=None)
@given(n=st.integers(2, 6), half=st.integers(2, 30), depth=st.integers(1, 9), seed=st.integers(0, 99))
def test_scores_of_orientations_equal_the_reference(device, n, half, depth, seed):
    lines, loss = random_lines(n, half, depth, seed)
    rotations = euler_to_matrix(random_orientations(n, seed)).transpose(0, 2, 1)
    candidates = np.concatenate([euler_to_matrix(random_orientations(4, seed + 1)), rotations[:1]])
    image = np.array([0, n - 1, n // 2, 0, 0])
    want = reference.common_lines.common_line_scores(lines, loss, rotations, candidates, image)
    got = host(ops.common_line_scores(lines, loss, rotations, candidates, image, device=device))
    assert np.abs(got - want).max() <= COMMON_LINES_REL * n * depth * 10


def test_op_does_not_depend_on_threads_and_refuses_bad_input():
    lines, loss = random_lines(6, 20, 5, 0)
    rotations = euler_to_matrix(random_orientations(6, 0))
    image = np.arange(6)
    found = [ops.common_lines(lines, loss, threads=t) for t in (1, 3)]
    assert np.array_equal(found[0], found[1])
    scores = [ops.common_line_scores(lines, loss, rotations, rotations, image, threads=t) for t in (1, 3)]
    assert np.array_equal(*scores)
    with pytest.raises(ValueError, match="complex64"):
        ops.common_lines(lines.astype(np.complex128), loss)
    with pytest.raises(ValueError, match="directions >= 2"):
        ops.common_lines(lines[:, :1].copy(), loss[:, :1].copy())
    with pytest.raises(ValueError, match="image: expected indices from 0 to 5"):
        ops.common_line_scores(lines, loss, rotations, rotations, image + 1)
    with pytest.raises(ValueError, match="rotation matrices"):
        ops.common_line_scores(lines, loss, np.nan * rotations, rotations, image)


def test_more_directions_than_a_block_holds(device):
    """As the host: the directions to rounding, of lines that agree best in one place."""
    lines, loss = random_lines(3, 70, 20, 7)
    lines[1, 66], lines[2, 3] = 3 * lines[0, 68], 3 * lines[0, 68].conj()
    angle, score = (host(made) for made in ops.common_lines(lines, loss, device=device))
    expected = ops.common_lines(lines, loss)
    np.testing.assert_allclose(angle, expected[0], atol=1e-5)
    np.testing.assert_allclose(score, expected[1], rtol=COMMON_LINES_REL * 10)


def test_lines_found_on_a_device_are_the_hosts(device):
    images = np.random.default_rng(5).standard_normal((4, 32, 32)).astype(np.float32)
    expected, found = (find_common_lines(images, 6, n_theta=60, device=where) for where in ("cpu", device))
    np.testing.assert_allclose(found.angle, expected.angle, atol=1e-4)
    np.testing.assert_allclose(found.score, expected.score, rtol=1e-5)


def test_bad_input_on_a_device(device):
    lines, loss = random_lines(6, 20, 5, 0)
    rotations = euler_to_matrix(random_orientations(6, 0))
    with pytest.raises(ValueError, match="complex64"):
        ops.common_lines(lines.astype(np.complex128), loss, device=device)
    with pytest.raises(ValueError, match="directions >= 2"):
        ops.common_lines(lines[:, :1].copy(), loss[:, :1].copy(), device=device)
    with pytest.raises(ValueError, match="image: expected indices from 0 to 5"):
        ops.common_line_scores(lines, loss, rotations, rotations, np.arange(6) + 1, device=device)
    with pytest.raises(ValueError, match="rotation matrices"):
        ops.common_line_scores(lines, loss, np.nan * rotations, rotations, np.arange(6), device=device)


@pytest.mark.parametrize("flip", [False, True])
def test_command_makes_a_map_that_projects_to_the_averages(flip, model, tmp_path, capsys):
    """From a stack, of either hand; a blank average (an empty class) and a table of classes are heeded."""
    p = images_of(model, 40, snr=5.0, seed=2)
    stack = np.concatenate([p.images(), np.zeros((1, 64, 64), np.float32)])
    vg.io.write_stack(tmp_path / "averages.mrcs", stack, 3.0)
    classes = pd.DataFrame(
        {"rlnClassNumber": np.arange(1, 42), "rlnEstimatedResolution": 9.0, "verglasParticles": [3] + 40 * [50]}
    )
    vg.io.write_star(tmp_path / "classes.star", {"classes": classes})
    arguments = [
        "abinitio",
        str(tmp_path / "averages.mrcs"),
        "--method",
        "common-lines",
        "--diameter",
        "145",
        "--out",
        str(tmp_path / "o"),
        "--final-resolution",
        "15",
        "--json",
        *(["--flip-hand"] if flip else []),
    ]
    status, text, _ = main(arguments, capsys)
    assert status == 0
    said = json.loads(text)
    assert (said["state"], said["averages_used"]) == ("go on", list(range(2, 41)))
    assert json.loads((tmp_path / "o" / "common_lines.json").read_text())["agreeing"] == said["agreeing"]
    placed = vg.read_particles(tmp_path / "o" / "particles.star")
    made = vg.project(vg.read_map(tmp_path / "o" / "map.mrc"), placed.poses)
    clean = images_of(model, 40, snr=float("inf"), seed=2).images()[1:]
    right = [np.corrcoef(a.ravel(), b.ravel())[0, 1] for a, b in zip(made, clean, strict=True)]
    assert np.mean(right) > 0.9
    assert orientation_error_deg(placed.poses.angles_deg, p.poses.angles_deg[1:]).mean() < 3


def test_command_says_when_averages_are_noise(tmp_path, capsys):
    noise = np.random.default_rng(0).standard_normal((20, 32, 32)).astype(np.float32)
    vg.io.write_stack(tmp_path / "noise.mrcs", noise, 4.0)
    arguments = ["abinitio", str(tmp_path / "noise.mrcs"), "--method", "common-lines", "--out", str(tmp_path / "o")]
    status, text, _ = main([*arguments, "--json"], capsys)
    assert (status, json.loads(text)["state"]) == (1, "stop")
    assert main([*arguments, "--symmetry", "D2"], capsys)[0] == 1
    assert main([*arguments, "--method", "luck"], capsys)[0] == 2
