"""Multibody refinement: what is taken away, poses and half maps of bodies, their motions, files, refusals, resuming."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from command_line import main
from scipy.spatial.transform import Rotation
from scipy.stats import spearmanr

import verglas as vg
from verglas import filters, fourier, gridding, ops
from verglas.geometry import euler_to_matrix
from verglas.heterogeneity.bodies import make_bodies, move_map
from verglas.heterogeneity.motions import Ways, lay_in_place, motions_of
from verglas.heterogeneity.multibody import Part, WithoutOthers, keep_multibody, refine_bodies, start_multibody
from verglas.heterogeneity.settings import MultibodySettings
from verglas.masks import soft_edge
from verglas.report.html import typeset
from verglas.run.multibody import multibody_files
from verglas.run.multibody_result import foreign_halves, judge_halves, sentence_of
from verglas.search.problem import survey
from verglas.simulate import Model, hinge

BOX, PIXEL_A = 32, 6.0
QUIET = {"listener": None}
HOW = {"initial_resolution_A": 24.0, "max_resolution_A": 15.0}


def part(model: Model, right: bool) -> Model:
    """The half that a hinge turns, or the other one."""
    keep = (model.xyz_A[:, 0] > 0) == right
    weights, b_factors = (None if v is None else v[keep] for v in (model.weights, model.b_factors_A2))
    elements = model.elements if isinstance(model.elements, str) else np.asarray(model.elements)[keep]
    return Model(model.xyz_A[keep], elements, weights, b_factors)


def masks_of(model: Model) -> list[vg.Map]:
    masks = []
    for right in (False, True):
        coarse = filters.apply(vg.simulate.density(part(model, right), BOX, PIXEL_A), filters.low_pass(24.0)).data
        masks.append(vg.Map(soft_edge(coarse > 0.25 * coarse.max(), 2.0), PIXEL_A))
    return masks


@pytest.fixture(scope="module")
def hinged():
    """Particles whose right half turns by -10 to 10 degrees; the poses are those of the left one."""
    model = vg.simulate.phantom(BOX, PIXEL_A, 150.0, seed=11)
    angles = np.linspace(-10, 10, 11)
    particles = vg.simulate.particles(
        [hinge(model, a) for a in angles], 200, BOX, PIXEL_A, snr=1.0, seed=11, shift_sd_A=3.0, **QUIET
    )
    angle = angles[particles.table["rlnClassNumber"].to_numpy(int) - 1]
    return model, particles, vg.simulate.density(model, BOX, PIXEL_A), masks_of(model), angle


@pytest.fixture(scope="module")
def refined(hinged):
    _, particles, volume, masks, _ = hinged
    return vg.multibody(particles, volume, masks, iterations=2, **HOW, **QUIET)


def turn_errors_deg(angles_deg, truth):
    return np.rad2deg(Rotation.from_matrix(np.swapaxes(euler_to_matrix(angles_deg), 1, 2) @ truth).magnitude())


def test_bodies_get_poses_of_their_own(hinged, refined):
    _, particles, _, _, angle = hinged
    made = refined
    left = euler_to_matrix(particles.poses.angles_deg)
    right = left @ Rotation.from_rotvec(np.deg2rad(angle)[:, None] * [0, 0, 1]).as_matrix()
    given = np.median(turn_errors_deg(particles.poses.angles_deg, right))  # 5 degrees of a hinge that nobody told of
    assert np.median(turn_errors_deg(made.poses[1].angles_deg, right)) < 0.6 * given
    assert np.median(turn_errors_deg(made.poses[0].angles_deg, left)) < 0.6 * given
    assert made.bodies[1].resolution_A <= made.bodies[1].whole_resolution_A
    assert made.components.n_motions == 1
    assert abs(spearmanr(made.components.coordinates[:, 0], angle).statistic) > 0.8
    # The one motion turns the halves against each other about z.
    turns = made.components.vectors[0, :, :3]
    assert np.abs(turns[:, 2]).min() > 3 * np.abs(turns[:, :2]).max()
    assert turns[0, 2] * turns[1, 2] < 0


def test_poses_of_a_body_make_it_in_place(hinged, refined):
    """Reconstructed with a body's poses, the particle shows that body where the map of the whole has it."""
    model, made = hinged[0], refined
    truth = vg.simulate.density(part(model, True), BOX, PIXEL_A)
    volume = vg.reconstruct(made.particles_of(1), max_resolution_A=15.0, listener=None)
    mask = made.bodies[1].mask
    for one in (volume, made.bodies[1].map):
        assert vg.fsc(one, truth, mask.data).curve[3:9].min() > 0.8


def test_bodies_are_where_the_whole_has_them_on_average(refined):
    made = refined.components
    assert np.abs(made.mean_turn_deg).max() < 0.1
    assert np.abs(made.mean_move_A).max() < 0.1


def test_map_that_turned_with_its_poses_is_laid_back(hinged):
    """Turned by 5 degrees and moved: poses and map are those of before, the images of body and poses unchanged."""
    _, particles, volume, masks, _ = hinged
    few = particles[:30]
    bodies, power = make_bodies(volume, masks)[0], survey(few).power
    made = start_multibody(few, power, volume, bodies, MultibodySettings(**HOW))
    one = made.bodies[1]
    before, poses = one.state.halves[0].volumes[0].copy(), one.state.poses.copy()
    turn, shift_px = Rotation.from_rotvec(np.deg2rad([3.0, -2.0, 4.0])).as_matrix(), np.array([0.6, -0.4, 0.8])
    one.state.halves = [
        replace(half, volumes=move_map(half.volumes[0], turn, shift_px)[None]) for half in one.state.halves
    ]
    orientation = one.matrices @ turn.T
    one.state.poses.angles_deg = vg.matrix_to_euler(orientation)
    one.state.poses.origin_px = poses.origin_px + (orientation @ shift_px)[:, :2]
    lay_in_place(made)
    assert turn_errors_deg(one.state.poses.angles_deg, euler_to_matrix(poses.angles_deg)).max() < 1e-3
    np.testing.assert_allclose(one.state.poses.origin_px, poses.origin_px, atol=1e-4)
    after = one.state.halves[0].volumes[0]
    assert vg.fsc(vg.Map(after, PIXEL_A), vg.Map(before, PIXEL_A)).curve[1:8].min() > 0.99
    still = made.bodies[0].state.poses
    np.testing.assert_allclose(
        still.origin_px, bodies[0].origins_px(few.poses.shifts_A / PIXEL_A, made.bodies[0].matrices), atol=1e-6
    )


@pytest.mark.slow
def test_folder_holds_what_was_found(hinged, tmp_path):
    _, particles, volume, masks, _ = hinged
    (tmp_path / "map_body3.mrc").touch()  # of an earlier run with more bodies
    (tmp_path / "run.json").write_text("{}")  # which that run left
    made = vg.multibody(particles, volume, masks, iterations=1, components=2, out=tmp_path, **HOW, **QUIET)
    for name in ("map_body1", "half1_body1", "half2_body2", "mask_body2", "motion1_state1", "motion2_state5"):
        assert (tmp_path / f"{name}.mrc").is_file()
    assert not (tmp_path / "map_body3.mrc").exists()
    told = json.loads((tmp_path / "multibody.json").read_text())
    assert told["motions"] == made.components.n_motions
    assert [b["body"] for b in told["bodies"]] == [1, 2]
    back = vg.read_particles(tmp_path / "particles.star")
    np.testing.assert_allclose(back.table["verglasMotion1"], made.components.coordinates[:, 0], atol=1e-4)
    of_body = vg.read_particles(tmp_path / "particles_body2.star")
    np.testing.assert_allclose(of_body.poses.shifts_A, made.poses[1].shifts_A, atol=1e-4)
    assert list(pd.read_csv(tmp_path / "fsc.csv")) == ["frequency_per_A", "body1", "body2"]
    page = (tmp_path / "report.html").read_text()
    assert made.components.n_motions == 1
    assert "Motion 1" in page
    assert "Motion 2" not in page  # shown, but not as a motion
    assert "Component 2, no motion" in page
    assert "It does not stand out from errors of the poses" in page
    assert told["warnings"] == list(made.warnings)
    assert all(f"Take care: {typeset(said)}" in page for said in made.warnings)
    assert not (tmp_path / "checkpoint").exists()


def test_a_mask_that_makes_its_own_fsc_is_no_resolution(hinged):
    """Half maps that share nothing beyond 38 A, in a sharp mask inside the body: its correlation is not claimed."""
    volume, wide = hinged[2], hinged[3][1]
    rng = np.random.default_rng(2)
    spectrum = fourier.forward(volume.data, 3)
    spectrum[fourier.shells(volume.data.shape) > 5] = 0
    coarse = fourier.inverse(spectrum, volume.data.shape)
    noise = rng.normal(0, 0.2 * coarse.std(), (2, *coarse.shape))
    halves = tuple(vg.Map((coarse + one).astype(np.float32), PIXEL_A) for one in noise)
    sharp = vg.Map(np.float32(wide.data * coarse > 0.4 * coarse.max()), PIXEL_A)
    assert vg.fsc(*halves, sharp.data).curve.min() > 0.9  # the mask alone
    assert vg.postprocess(*halves, mask=sharp, listener=None).corrected.resolution_A(0.143) < 26.0
    judged = judge_halves(halves, sharp, 15)
    assert not judged.vouched
    assert not judged.ends_with_data
    assert judged.resolution_A > 32.0
    assert not judged.fsc.curve[16:].any()


def test_what_makes_a_resolution_doubtful_is_said(hinged, refined):
    """An FSC that never falls is no resolution; half sets dealt out by the job are not those of the poses."""
    made = refined
    for number, one in enumerate(made.bodies, 1):
        assert one.vouched
        assert one.ends_with_data
        assert any(said.startswith(f"body {number}: its FSC stays above 0.143") for said in made.warnings)
        assert not one.fsc.curve[14:].any()  # data to 15 A, shell 13
    assert "14.77 A (where the data end)" in made.sentence
    assert foreign_halves(hinged[1]) == []
    told = foreign_halves(hinged[1].with_columns(rlnRandomSubset=None))
    assert told[0].sentence.startswith("the particles have no half sets (rlnRandomSubset)")
    assert "every FSC may be too good" in sentence_of(made.bodies, made.components, told)


def test_bodies_that_lie_off_their_place_do_not_move():
    """Turned and moved alike in all particles: seen from all sides that is no motion, and it is undone in the maps."""
    blocks = np.zeros((2, BOX, BOX, BOX), np.float32)
    blocks[0, 10:21, 8:17, 5:14] = blocks[1, 12:17, 14:23, 15:28] = 1
    bodies = make_bodies(vg.Map(blocks.sum(axis=0), PIXEL_A), [vg.Map(b, PIXEL_A) for b in blocks])[0]
    rng = np.random.default_rng(8)
    views = rng.normal(size=(200, 3))
    views /= np.linalg.norm(views, axis=1, keepdims=True)
    turn, move = np.array([[0.01, 0.02, 0.0], [0.0, -0.03, 0.01]]), np.array([[2.0, 0.0, -1.0], [-1.0, 3.0, 0.5]])
    across = np.eye(3) - views[:, :, None] * views[:, None, :]
    way = Ways(np.broadcast_to(turn, (200, 2, 3)), np.einsum("nij,bj->nbi", across, move))
    found = motions_of(way, (way, way), views, bodies, PIXEL_A)
    pair = tuple(way)
    assert np.array_equal(motions_of(pair, (pair, pair), views, bodies, PIXEL_A).moves_A, found.moves_A)
    assert found.variance.max() < 1e-12
    assert found.n_motions == 0
    # What is left of turns and moves is one rigid motion of both.
    off_turn, off_move = turn - np.deg2rad(found.mean_turn_deg), move - found.mean_move_A
    np.testing.assert_allclose(off_turn[1], off_turn[0], atol=1e-9)
    lever = (bodies[1].centre_px - bodies[0].centre_px) * PIXEL_A
    np.testing.assert_allclose(off_move[1] - off_move[0], np.cross(off_turn[0], lever), atol=1e-7)


def test_what_is_taken_away_is_the_other_body(hinged):
    """Two bodies at poses of their own, less one of them as it stands, are the other."""
    model, particles, *_ = hinged
    volumes = [vg.simulate.density(part(model, right), BOX, PIXEL_A) for right in (False, True)]
    few = particles[:6]
    rng = np.random.default_rng(0)
    grid, params = ops.Grid(BOX), few.optics.as_params()
    ctf = ops.ctf(params, BOX, PIXEL_A)
    parts, images = [], []
    for volume in volumes:
        turned = Rotation.from_rotvec(rng.normal(0, 0.2, (6, 3))).as_matrix() @ euler_to_matrix(few.poses.angles_deg)
        one = Part(gridding.to_grid(volume.data, grid), turned, rng.normal(0, 1, (6, 2)))
        slices = ops.project(one.spectrum, grid, one.matrices, shifts_px=one.displacement_px, ctf=ctf)
        parts.append(one)
        images.append(fourier.inverse(slices, (BOX, BOX)))
    both = few.with_source(vg.ArraySource(images[0] + images[1], PIXEL_A))
    half = np.array([1, 2, 1, 1, 2, 2])
    empty = replace(parts[1], spectrum=np.zeros_like(parts[1].spectrum))
    source = WithoutOthers(both, params, half, grid, [[parts[1]], [empty]])
    rows = np.array([4, 0, 2])
    scale = images[0].std()
    left = source.read(rows)
    np.testing.assert_allclose(left[1:], images[0][[0, 2]], atol=1e-4 * scale)
    np.testing.assert_allclose(left[0], images[0][4] + images[1][4], atol=1e-4 * scale)  # the other half knows no body
    np.testing.assert_array_equal(source.take(np.array([2, 4])).read(np.array([1, 0])), source.read(np.array([4, 2])))


def test_a_motion_of_all_is_none():
    """Whatever rigid motion all bodies share is taken off, and what is left has the length of the voxels' way."""
    blocks = np.zeros((2, BOX, BOX, BOX), np.float32)
    blocks[0, 10:21, 8:17, 5:14] = blocks[1, 12:17, 14:23, 15:28] = 1  # with a voxel in the middle
    bodies = make_bodies(vg.Map(blocks.sum(axis=0), PIXEL_A), [vg.Map(b, PIXEL_A) for b in blocks])[0]
    rng = np.random.default_rng(3)
    n = 50
    views = rng.normal(size=(n, 3))
    views /= np.linalg.norm(views, axis=1, keepdims=True)
    centres = np.array([b.centre_px for b in bodies]) * PIXEL_A
    turn, move = rng.normal(0, 0.01, (n, 3)), rng.normal(0, 1, (n, 3))
    turns = np.repeat(turn[:, None], 2, axis=1)
    moves = np.cross(turn[:, None], centres[None]) + move[:, None]
    ways = Ways(turns, moves)
    shared = motions_of(ways, (ways, ways), views, bodies, PIXEL_A)
    assert np.abs(shared.turns_deg).max() < 1e-9
    assert np.abs(shared.moves_A).max() < 1e-9
    # One body turned about its own centre, the other still; seen along the axis, so that every way is seen.
    angle = rng.normal(0, 0.05, n)
    along = np.repeat([[0.0, 0.0, 1.0]], n, axis=0)
    turns = np.stack([np.zeros((n, 3)), angle[:, None] * along], axis=1)
    ways = Ways(turns, np.zeros((n, 2, 3)))
    found = motions_of(ways, (ways, Ways(-turns, ways.moves)), along, bodies, PIXEL_A)
    assert found.reliability[0] == pytest.approx(-1)
    assert found.n_motions == 0
    found = motions_of(ways, (ways, ways), along, bodies, PIXEL_A)
    assert found.n_motions == 1
    assert found.share[0] == pytest.approx(1)
    assert abs(np.corrcoef(found.coordinates[:, 0], angle)[0, 1]) == pytest.approx(1)
    # Brute force: ways of all voxels about the best rigid motion, the best of which is a matter of least squares.
    grid = np.argwhere(np.ones((BOX,) * 3))[:, ::-1] - BOX // 2
    weights = np.concatenate([b.mask.ravel() for b in bodies])
    places = np.concatenate([grid, grid]) * PIXEL_A
    own = places - np.repeat(centres, len(grid), axis=0)
    way = np.cross([0, 0, 1.0], own) * np.repeat([0.0, 1.0], len(grid))[:, None]
    columns = np.stack(
        [np.cross(axis, places) for axis in np.eye(3)] + [np.broadcast_to(axis, places.shape) for axis in np.eye(3)],
        axis=2,
    )
    root = np.sqrt(weights)[:, None]
    system, right = (columns * root[:, :, None]).reshape(-1, 6), (way * root).ravel()
    rest = right - system @ np.linalg.lstsq(system, right, rcond=None)[0]
    # What stands along z is free, but nothing moves there.
    assert found.variance[0] == pytest.approx(angle.var() * rest @ rest / weights.sum(), rel=1e-3)


def test_moved_map_is_the_moved_model(hinged):
    model = hinged[0]
    matrix, shift_A = Rotation.from_rotvec([0.2, -0.3, 0.4]).as_matrix(), np.array([3.0, -5.0, 8.0])
    turned = Model(model.xyz_A @ matrix.T + shift_A, model.elements, model.weights, model.b_factors_A2)
    want = vg.simulate.density(turned, BOX, PIXEL_A)
    made = vg.Map(move_map(hinged[2].data, matrix, shift_A / PIXEL_A), PIXEL_A)
    assert vg.fsc(made, want).curve[1:12].min() > 0.99


def test_resumed_is_uninterrupted(hinged):
    _, particles, volume, masks, _ = hinged
    few = particles[:40]
    bodies, power = make_bodies(volume, masks)[0], survey(few).power
    settings = MultibodySettings(initial_resolution_A=30.0, max_resolution_A=24.0)

    class Kept:
        saved = None

        def load(self):
            return self.saved

        def save(self, snapshot, *, needed=False):
            self.saved = snapshot

    def begin(iterations):
        return start_multibody(few, power, volume, bodies, replace(settings, iterations=iterations))

    whole, first, second, kept = begin(2), begin(1), begin(2), Kept()
    refine_bodies(whole)
    first.advance(_Silent())
    kept.save(keep_multibody(first))
    refine_bodies(second, keeper=kept)
    for a, b in zip(whole.bodies, second.bodies, strict=True):
        np.testing.assert_array_equal(a.state.poses.angles_deg, b.state.poses.angles_deg)
        np.testing.assert_array_equal(a.state.halves[0].volumes, b.state.halves[0].volumes)


class _Silent:
    def say(self, line):
        """Nothing."""

    def iteration(self, figures):
        """Nothing."""

    def progress(self, phase, done, total):
        """Nothing."""


def test_bodies_that_cannot_be_are_refused(hinged):
    _, particles, volume, masks, _ = hinged
    with pytest.raises(vg.InputError, match="1 mask; two or more bodies"):
        vg.multibody(particles, volume, masks[:1], **QUIET)
    with pytest.raises(vg.InputError, match="expected a sequence of two or more, got one"):
        vg.multibody(particles, volume, masks[0], **QUIET)
    blank = volume.with_data(volume.data * np.clip(masks[0].data + masks[1].data, 0, 1))
    away = vg.Map((blank.data == 0) * vg.masks.soft_sphere(BOX, 15.0), PIXEL_A)
    with pytest.raises(vg.InputError, match="mask 2 lies where the map is empty"):
        vg.multibody(particles, blank, [masks[0], away], **QUIET)
    with pytest.raises(vg.InputError, match="share 100 % of the smaller one: they are no two bodies"):
        vg.multibody(particles, volume, [masks[0], masks[0]], **QUIET)
    with pytest.raises(vg.InputError, match="mask 2 has 16 px"):
        vg.multibody(particles, volume, [masks[0], vg.Map(np.ones((16,) * 3, np.float32), PIXEL_A)], **QUIET)
    bare = particles.with_columns(rlnAngleRot=None, rlnAngleTilt=None, rlnAnglePsi=None)
    with pytest.raises(vg.InputError, match="multibody needs poses"):
        vg.multibody(bare, volume, masks, **QUIET)
    with pytest.raises(vg.InputError, match="do not resemble the map"):
        vg.multibody(particles, vg.Map(-volume.data, PIXEL_A), masks, **QUIET)
    with pytest.raises(vg.InputError, match=r"multibody: a box of 32 px .* allow more"):
        vg.multibody(particles, volume, masks, memory_GB=0.2, **QUIET)


def test_overlap_and_what_is_left_out_are_said(hinged):
    _, _, volume, masks, _ = hinged
    wide = vg.Map(np.maximum(masks[0].data, 0.3 * masks[1].data), PIXEL_A)
    bodies, notes = make_bodies(volume, [wide, masks[1]])
    assert [note.code for note in notes] == ["overlap"]
    assert np.sum([b.mask for b in bodies], axis=0).max() <= 1 + 1e-6
    small = vg.Map(masks[1].data * (np.arange(BOX) > BOX // 2 + 5), PIXEL_A)
    assert "left_out" in [note.code for note in make_bodies(volume, [masks[0], small])[1]]


@pytest.mark.slow
def test_command(hinged, tmp_path, capsys, monkeypatch):
    _, particles, volume, masks, _ = hinged
    monkeypatch.setenv("VERGLAS_PROGRESS", "0")
    vg.write_particles(tmp_path / "p.star", particles[:40], stack=tmp_path / "p.mrcs")
    for name, one in (("map", volume), ("a", masks[0]), ("b", masks[1])):
        vg.write_map(tmp_path / f"{name}.mrc", one)
    call = ["multibody", str(tmp_path / "p.star"), "--map", str(tmp_path / "map.mrc"), "--out", str(tmp_path / "out")]
    call += ["--mask", str(tmp_path / "a.mrc"), "--iterations", "1", "--initial-resolution", "24", "--json"]
    status, _, err = main(call, capsys)
    assert status == 1
    assert "two or more bodies are moved against each other" in err
    call += ["--mask", str(tmp_path / "b.mrc"), "--prior-deg", "8", "--max-resolution", "15"]
    status, out, _ = main(call, capsys)
    assert status == 0
    assert len(json.loads(out)["bodies"]) == 2
    assert json.loads((tmp_path / "out/multibody.json").read_text())["settings"]["prior_deg"] == 8.0
    assert multibody_files.__doc__
