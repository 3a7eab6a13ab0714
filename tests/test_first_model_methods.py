"""First models by named methods: optimisers, the joint common-line cost, methods on averages, verdict, the command."""

import json
from dataclasses import replace
from types import SimpleNamespace

import mrcfile
import numpy as np
import pytest
from command_line import main
from heard import Heard
from pages_again import check_page_again
from scipy.spatial.transform import Rotation
from scipy.stats import unitary_group

import verglas as vg
from verglas import filters
from verglas.geometry import euler_to_matrix, matrix_to_euler
from verglas.initial_model import AbInitioSettings, Views, find_common_lines, find_from_averages, swarm_consensus
from verglas.initial_model.averages import METHODS, matching
from verglas.initial_model.averages.annealed import anneal_directions, likeness_of, squared_angles
from verglas.initial_model.averages.find import control_map, evidence_of
from verglas.initial_model.averages.joint import run_simple
from verglas.initial_model.averages.matching import match_projections, mean_correlation, significant_weights
from verglas.initial_model.averages.pseudo_atoms import PseudoAtoms, densities_of, fit_atoms, fit_pseudo_atoms
from verglas.initial_model.averages.transport import frames, transport_orientations
from verglas.initial_model.common_lines import orientation_error_deg, trust_of_lines
from verglas.initial_model.consensus import judge
from verglas.initial_model.line_cost import LineCost, search_orientations
from verglas.initial_model.optimisers import OPTIMISERS, Task, minimise
from verglas.map_geometry.sphere import spherical_average
from verglas.run import abinitio_averages
from verglas.run.common_lines import read_averages
from verglas.run.tenure import lock_project

pytestmark = pytest.mark.usefixtures("blank_figures_of_module")
BOX, PIXEL_A, DIAMETER_A = 32, 5.0, 120.0


def averages_of(n, snr=4.0, seed=0):
    model = vg.simulate.phantom(BOX, PIXEL_A, DIAMETER_A, seed=seed)
    p = vg.simulate.particles(model, n, BOX, PIXEL_A, ctf=False, shift_sd_A=0.0, snr=snr, seed=seed + 10)
    return model, p.images(), p.poses.angles_deg


@pytest.fixture(scope="module")
def planted():
    return averages_of(24)


@pytest.fixture(scope="module")
def views(planted):
    return Views.of(planted[1], 9, DIAMETER_A / PIXEL_A + 2, threads=1)


@pytest.mark.parametrize("method", OPTIMISERS)
def test_optimisers_descend_and_repeat(method):
    """A shifted bowl in five dimensions: far below chance, the best that was seen, the same for a seed."""
    seen = []

    def bowl(x):
        seen.extend(((x - 0.4) ** 2).sum(axis=1))
        return ((x - 0.4) ** 2).sum(axis=1)

    task = Task(bowl, np.array([[-1.0, 1.0]] * 5))
    found = minimise(task, method, evaluations=1500, seed=3)
    assert found.value == pytest.approx(min(seen))
    assert found.value < 0.1
    assert 1000 <= found.evaluations <= 1700
    again = minimise(task, method, evaluations=1500, seed=3)
    assert np.array_equal(again.x, found.x)


def test_a_local_search_never_makes_it_worse():
    task = Task(lambda x: (x**2).sum(axis=1), np.array([[-1.0, 1.0]] * 2), polish=lambda x: x + 0.5)
    found = minimise(task, "genetic", evaluations=200)
    assert found.value == found.before_polish
    with pytest.raises(vg.InputError, match="expected method"):
        minimise(task, "magic")
    with pytest.raises(vg.InputError, match="bounds"):
        minimise(Task(task.values, np.array([[1.0, 1.0]])), "genetic")


def test_line_cost_is_its_formula(planted):
    """Against loops; its descent never rises, and from anywhere ends at the planted orientations."""
    _, images, _angles = planted
    lines = find_common_lines(images[:8], 9, diameter_px=26, threads=1)
    cost, weight = LineCost(lines), trust_of_lines(lines)
    rotations = Rotation.random(8, np.random.default_rng(0)).as_matrix()
    total = 0.0
    for i in range(8):
        for j in range(8):
            ends = [
                r[:, :2] @ [np.cos(a), np.sin(a)]
                for r, a in ((rotations[i], lines.angle[i, j]), (rotations[j], lines.angle[j, i]))
            ]
            total += weight[i, j] * np.sum((ends[0] - ends[1]) ** 2) / 2
    assert cost.of(rotations[None])[0] == pytest.approx(total / weight.sum())
    assert cost.of(cost.descend(rotations)[None])[0] < total / weight.sum()
    assert np.allclose(cost.rotations(cost.parameters(rotations)[None])[0], rotations)


def test_every_optimiser_orients_twenty_averages():
    _, images, angles = averages_of(20, snr=20.0, seed=1)
    lines = find_common_lines(images, 11, diameter_px=26, threads=1)
    for method in OPTIMISERS:
        found, optimum = search_orientations(lines, method, evaluations=400, seed=5, threads=1)
        assert np.median(orientation_error_deg(found.angles_deg, angles)) < 3, method
        assert optimum.value <= optimum.before_polish
        assert found.agreeing > 0.8


def test_sixty_clean_averages_are_oriented_together():
    """A mean error far below five degrees; the mirror image of all orientations costs the same, so no hand is known."""
    _, images, angles = averages_of(60, snr=1000.0, seed=2)
    lines = find_common_lines(images, 11, diameter_px=26, threads=1)
    found, _ = search_orientations(lines, "annealing", evaluations=200, seed=5, threads=1)
    assert orientation_error_deg(found.angles_deg, angles).mean() < 5
    cost, matrices = LineCost(lines), euler_to_matrix(found.angles_deg).transpose(0, 2, 1)
    mirror = np.diag([1.0, 1.0, -1.0])
    assert cost.of((mirror @ matrices @ mirror)[None]) == pytest.approx(cost.of(matrices[None]))


@pytest.mark.slow
@pytest.mark.parametrize("method", OPTIMISERS)
def test_optimisers_reach_the_planted_optimum(method):
    """Ten seeds, twenty averages: the value that the descent reaches from the true orientations, in eight or more."""
    right = 0
    for seed in range(10):
        _, images, angles = averages_of(20, snr=20.0, seed=seed)
        cost = LineCost(find_common_lines(images, 11, diameter_px=26, threads=1))
        truth = cost.descend(euler_to_matrix(angles).transpose(0, 2, 1))
        right += minimise(cost.task(), method, evaluations=2000, seed=seed).value < cost.of(truth[None])[0] + 1e-3
    assert right >= 8


def test_pose_of_slices(planted, views):
    """Averages placed against the true map stand where they were made, within the grid's step."""
    model, _, angles = planted
    placed = views.place(vg.simulate.density(model, BOX, PIXEL_A).data, 2)
    cosine = (np.einsum("nab,nab->n", placed.matrices, euler_to_matrix(angles)) - 1) / 2
    assert np.median(np.rad2deg(np.arccos(np.clip(cosine, -1, 1)))) < 10
    assert (placed.correlation > 0.6).all()


def test_prior_of_directions(views):
    """Exact values, and a likeness that is symmetric with a few neighbours each."""
    right = squared_angles(np.eye(3))
    assert np.allclose(right + np.eye(3), (np.pi / 2) ** 2 * (1 - np.eye(3)) + np.eye(3))
    likeness = likeness_of(views)
    assert np.array_equal(likeness, likeness.T)
    assert not likeness.diagonal().any()
    assert (likeness > 0).sum(axis=1).min() >= 3


@pytest.mark.slow
def test_annealing_explains_averages_better_than_greed():
    """The same blobs, prior and averages; without temperature every average takes the likeliest direction at once."""
    gain = []
    for seed in range(10, 14):
        _, images, _ = averages_of(40, snr=20.0, seed=seed)
        views = Views.of(images, 11, 26, threads=1)
        annealed, greedy = (
            mean_correlation(views, anneal_directions(views, np.random.default_rng(seed), temperatures=between))
            for between in ((12.0, 1.0), (1e-3, 1e-3))
        )
        gain.append(annealed - greedy)
    assert min(gain) > 0


@pytest.mark.slow
def test_simple_orients_twenty_averages():
    """Ten seeds: annealed lines, then differential evolution of five parameters each; right in eight or more."""
    right = 0
    for seed in range(20, 30):
        _, images, angles = averages_of(20, snr=20.0, seed=seed)
        views = Views.of(images, 11, 26, threads=1)
        placed = views.place(run_simple(views, np.random.default_rng(seed)), 3)
        right += np.median(orientation_error_deg(matrix_to_euler(placed.matrices), angles)) < 15
    assert right >= 8


def test_blobs_are_ranked_by_what_they_explain(views, monkeypatch):
    """Of the trials the one kept correlates best with the averages."""
    made = []

    def keep(*arguments):
        made.append(match_projections(*arguments))
        return made[-1]

    monkeypatch.setattr(matching, "match_projections", keep)
    monkeypatch.setattr(matching, "_TRIALS", 3)
    kept = matching.start_from_blobs(views, np.random.default_rng(0))
    scores = [mean_correlation(views, one, radius=matching.low_radius(views)) for one in made]
    assert len(scores) == 3
    assert kept is made[int(np.argmax(scores))]


def test_significant_directions_narrow():
    correlation = np.random.default_rng(0).random((10, 40))
    counts = [(significant_weights(correlation, a) > 0).sum() for a in (0.5, 0.2, 0.05)]
    assert counts[0] > counts[1] > counts[2] >= 10
    assert (significant_weights(correlation, 0.01).argmax(axis=1) == correlation.argmax(axis=1)).all()


def test_pseudo_atoms_climb(views, planted):
    """Likelihood never falls; atoms of the right poses agree with the map."""
    densities, matrices = densities_of(views), euler_to_matrix(planted[2])
    rng = np.random.default_rng(0)
    atoms = PseudoAtoms(rng.normal(0, 3, (60, 3)), np.full(60, 1 / 60), 2.0)

    def log_likelihood(a):
        at = np.arange(BOX) - BOX // 2
        centres = np.einsum("nab,kb->nka", matrices[:, :2], a.places_px)
        gx, gy = (np.exp(-0.5 * ((at - centres[..., [i]]) / a.sigma_px) ** 2) for i in (0, 1))
        model = np.einsum("k,nky,nkx->nyx", a.weights, gy, gx)
        return float((densities * np.log(np.maximum(model, 1e-300))).sum())

    values = [log_likelihood(atoms)]
    for _ in range(12):
        atoms = fit_atoms(atoms, densities, matrices)
        values.append(log_likelihood(atoms))
    assert (np.diff(values) > -1e-9 * abs(values[0])).all()
    truth = vg.simulate.density(planted[0], BOX, PIXEL_A).data
    # At 15 A, half of the atoms' spacing: what 60 Gaussians can say.
    smooth = filters.apply(truth, filters.low_pass(15.0), PIXEL_A)
    assert np.corrcoef(atoms.density(BOX).ravel(), smooth.ravel())[0, 1] > 0.82


@pytest.mark.slow
def test_many_gaussians_at_known_poses_are_the_map():
    """400 of them, 60 clean averages: a correlation with the truth above 0.9 at 15 A."""
    model, images, angles = averages_of(60, snr=20.0, seed=31)
    views = Views.of(images, 11, 26, threads=1)
    how = {"count": 400, "last_sigma_px": 0.85}
    made = fit_pseudo_atoms(views, np.random.default_rng(31), euler_to_matrix(angles), **how)
    truth = vg.simulate.density(model, BOX, PIXEL_A).data
    smooth = filters.apply(truth, filters.low_pass(15.0), PIXEL_A)
    assert np.corrcoef(made.ravel(), smooth.ravel())[0, 1] > 0.9


def test_frames_from_any_basis():
    """Axes of images in space, mixed by a unitary matrix, come back up to one rotation and the common phase."""
    matrices = Rotation.random(60, np.random.default_rng(1)).as_matrix()
    mixed = (matrices[:, 0] + 1j * matrices[:, 1]) @ unitary_group.rvs(3, random_state=2)
    z = frames(mixed)
    assert np.abs((z * z).sum(axis=1)).max() < 1e-9
    assert np.allclose((np.abs(z) ** 2).sum(axis=1), 2)


@pytest.mark.slow
def test_likenesses_alone_orient_clean_views():
    _, images, angles = averages_of(300, snr=1000.0)
    matrices, values = transport_orientations(Views.of(images, 11, 26, threads=1))
    assert np.median(orientation_error_deg(matrix_to_euler(matrices), angles)) < 20
    assert values[2] - values[3] > values[0] - values[2]  # three eigenvalues stand apart


@pytest.mark.slow
def test_swarm_is_no_worse_than_its_best(views, planted):
    truth = vg.simulate.density(planted[0], BOX, PIXEL_A).data * views.sphere
    noise = np.random.default_rng(1).normal(0, truth.std(), (3, *truth.shape)).astype(np.float32)
    given = [truth + 2 * noise[0], np.ascontiguousarray(truth[::-1]) + noise[1], noise[2]]
    result = swarm_consensus(views, given, rounds=2)
    assert result.score >= result.given.max()
    assert len(result.given) == 3
    # In the frame of the best that was given, and nearer to the truth than that.
    best = int(result.given.argmax())
    frame = truth if best == 0 else np.ascontiguousarray(truth[::-1])
    near = [np.corrcoef(v[views.sphere > 0.5], frame[views.sphere > 0.5])[0, 1] for v in (result.volume, given[best])]
    assert best < 2
    assert near[0] > near[1]
    with pytest.raises(vg.InputError, match="two maps or more"):
        swarm_consensus(views, given[:1])
    with pytest.raises(vg.InputError, match="averages' box"):
        swarm_consensus(views, [truth, truth[:-1, :-1, :-1]])


def test_control_maps_keep_power_and_sphere(views, planted):
    truth = vg.simulate.density(planted[0], BOX, PIXEL_A).data * views.sphere
    control = control_map(views, truth, np.random.default_rng(0))
    power = [vg.fourier.power_spectrum(m - spherical_average(m), 3)[1:9] for m in (truth, control)]
    assert np.allclose(power[0], power[1], rtol=0.1)
    assert np.allclose(spherical_average(truth), spherical_average(control), atol=0.02 * truth.max())
    rows = np.arange(8)
    assert evidence_of(views, truth, rows).mean() > evidence_of(views, control, rows).mean() + 5


def test_the_command(tmp_path, capsys):
    """Map, poses, summary, page; the orientations are right."""
    _, images, angles = averages_of(60)
    vg.io.write_stack(tmp_path / "averages.mrcs", images, PIXEL_A)
    arguments = [str(tmp_path / "averages.mrcs"), "--diameter", "130", "--starts", "1", "--out", str(tmp_path / "o")]
    arguments += ["--final-resolution", "16", "--threads", "1"]
    status, out, error = main(["abinitio", *arguments, "--method", "genetic", "--json"], capsys)
    assert status == 0, error
    said = json.loads(out)
    assert said["verdict"] == "unconfirmed"
    assert said["averages"] == 60
    assert said["gain_nats_per_average"] > 5
    made = vg.read_particles(tmp_path / "o" / "particles.star")
    assert np.median(orientation_error_deg(made.poses.angles_deg, angles)) < 8
    page = (tmp_path / "o" / "report.html").read_text()
    assert "averages that no start learned from" in page
    assert "a map of random phases" in page
    check_page_again(tmp_path / "o", capsys)
    record = json.loads((tmp_path / "o" / "abinitio.json").read_text())
    assert record["settings"]["method"] == "genetic"
    assert record["hand"] == "undetermined"
    assert json.loads((tmp_path / "o" / "run.json").read_text())["state"] == "finished"
    with lock_project(tmp_path / "o"):
        status, _, error = main(["abinitio", *arguments, "--method", "ransac"], capsys)
    assert status != 0
    assert "works in this folder" in error
    for wrong, text in (
        (["--classes", "2"], "does not use classes"),
        (["--map", "a.mrc"], "swarm-consensus"),
        (["--symmetry", "auto"], "point group"),
        (["--method", "swarm-consensus", "--map", "a.mrc"], "two maps"),
        (["--method", "common-lines"], "does not use --starts"),
        (["--method", "common-lines", "--resume"], "--resume"),
    ):
        status, _, error = main(["abinitio", *arguments, "--method", "ransac", *wrong], capsys)
        assert status != 0
        assert text in error


def test_averages_set_aside_are_named(tmp_path):
    images = np.random.default_rng(0).standard_normal((22, 16, 16)).astype(np.float32)
    images[4], images[9, 2, 3] = 0, np.nan
    heard = Heard()
    with mrcfile.new(tmp_path / "a.mrcs") as file:
        file.set_data(images)
        file.voxel_size = 4.0
    kept, _, used = read_averages(tmp_path / "a.mrcs", heard)
    assert (len(kept), len(heard.lines)) == (20, 1)
    assert not {5, 10} & set(used)
    assert heard.lines[0].startswith("2 of 22 averages are left out")
    assert heard.lines[0].endswith("numbers 5, 10")
    with pytest.raises(vg.InputError, match=r"20 of 22 images .* expected 21 or more"):
        read_averages(tmp_path / "a.mrcs", heard, fewest=21)


@pytest.mark.slow
def test_many_images_are_classified_first(tmp_path, monkeypatch):
    """What cannot be used is refused before the classification; classes of about sixty, read from its folder."""
    model = vg.simulate.phantom(16, 8.0, 100.0)
    p = vg.simulate.particles(model, 1001, 16, 8.0, snr=1.0, listener=None)
    vg.io.write_particles(tmp_path / "p.star", p)
    asked = []

    def classify(job, *, listener):
        asked.append((job.settings.classes, job.settings.diameter_A))
        job.out.mkdir(parents=True)
        vg.io.write_stack(job.out / "averages.mrcs", p.images()[:16], 8.0)

    monkeypatch.setattr(abinitio_averages, "class2d_files", classify)
    wanted = {"diameter_A": 110.0, "starts": 1, "final_resolution_A": 24.0}
    job = abinitio_averages.AveragesJob(tmp_path / "p.star", tmp_path / "o", "significant", wanted, threads=1)
    with pytest.raises(vg.InputError, match="point group"):
        abinitio_averages.averages_files(replace(job, settings=wanted | {"symmetry": "auto"}), listener=None)
    assert not asked
    made = abinitio_averages.averages_files(job, listener=None)
    assert asked == [(24, 110.0)]
    assert len(made.particles) == 16
    assert (tmp_path / "o" / "map.mrc").is_file()


def test_verdict_of_few_and_of_many():
    """Of many held-out images three standard errors, as ever; of ten 4.09, of five 6.62 (Student's quantiles)."""
    for n, sigmas in ((5, 6.620), (10, 4.094), (2000, 3.004)):
        noise = np.random.default_rng(n).standard_normal(n)
        noise = (noise - noise.mean()) / noise.std(ddof=1) * np.sqrt(n)
        for factor, kind in ((0.99, "noise"), (1.01, "unconfirmed")):
            evidence = noise + sigmas * factor + 10
            assert judge(SimpleNamespace(evidence=evidence), np.full(n, 10.0), [], 12.0).kind == kind


def test_noise_is_no_structure():
    noise = np.random.default_rng(5).standard_normal((40, BOX, BOX)).astype(np.float32)
    settings = AbInitioSettings(starts=1, final_resolution_A=20, diameter_A=130)
    result = find_from_averages(noise, PIXEL_A, "significant", settings, threads=1)
    assert result.verdict.kind == "noise"
    with pytest.raises(vg.InputError, match="16 to 1000"):
        find_from_averages(noise[:8], PIXEL_A, "significant", settings)
    with pytest.raises(vg.InputError, match="expected method"):
        find_from_averages(noise, PIXEL_A, "magic", settings)
    assert "ransac" in METHODS
