"""Maps from tilt pairs: random conical tilt, its revised form, orthogonal tilt, and what is missing."""

from __future__ import annotations

import mrcfile
import numpy as np
import pandas as pd
import pytest

import verglas as vg
from verglas import fourier
from verglas.io.spider import read_spider, spider_header
from verglas.map_geometry.symmetry_search import moved_map
from verglas.masks import soft_sphere
from verglas.tilting import TiltGeometry, conical_poses, conical_tilt, fsc_outside_cone, missing_cone
from verglas.tilting.conical import ConicalSettings, align_class, foreshorten
from verglas.tilting.merging import _offset

BOX, PIXEL = 32, 5.0
STAGE = TiltGeometry(60.0, 25.0, -40.0)


@pytest.fixture(scope="module")
def truth():
    model = vg.simulate.phantom(BOX, PIXEL, 110.0, "C1", 3)
    return vg.simulate.density(model, BOX, PIXEL, b_factor_A2=300.0)


def pairs(truth, n, *, stage=STAGE, faces=0.0, pick_px=0.0, noise=0.0, seed=0, known=True):
    """Images of both tilts of particles of one view; noise in standard deviations of the images."""
    rng = np.random.default_rng(seed)
    angles = np.column_stack([np.zeros(n), 180.0 * (rng.random(n) < faces), rng.uniform(0, 360, n)])
    sets = []
    for view in (angles, stage.tilted_angles_deg(angles)):
        poses = vg.Poses(view, rng.normal(0, pick_px * PIXEL, (n, 2)))
        images = vg.project(truth, poses, threads=1)
        noisy = images + rng.normal(0, noise * images.std() + 1e-9, images.shape)
        sets.append(vg.Particles.from_images(noisy.astype(np.float32), PIXEL, poses=poses))
    untilted, tilted = sets
    return angles, untilted if known else vg.Particles.from_images(untilted.images(), PIXEL), tilted


def agreement(map_, truth, half_angle=30.0):
    inside = soft_sphere(BOX, 0.42 * BOX, 2.0)
    return fsc_outside_cone(map_.with_data(map_.data * inside), truth, half_angle)


def test_poses_are_the_stage_turn_of_the_class_view():
    psi = np.array([0.0, 40.0, 200.0])
    class_view = np.column_stack([0 * psi, 0 * psi, psi])
    np.testing.assert_allclose(
        vg.euler_to_matrix(conical_poses(class_view, STAGE)),
        vg.euler_to_matrix(np.column_stack([psi + 25.0, 60.0 + 0 * psi, 40.0 + 0 * psi])),  # rot, tilt, psi of RCT
        atol=1e-12,
    )
    each = conical_poses(class_view, [STAGE, TiltGeometry(50.0, 0, 0), STAGE])
    np.testing.assert_allclose(each[1], [40.0, 50.0, 0.0], atol=1e-9)
    with pytest.raises(vg.InputError, match="3 particles but 2 geometries"):
        conical_poses(class_view, [STAGE, STAGE])


def test_a_thin_object_is_its_foreshortened_average(truth):
    """A flat object's tilted image is the untilted one, foreshortened, its density higher by 1 / cos(tilt)."""
    flat = truth.with_data(np.zeros_like(truth.data))
    flat.data[BOX // 2] = truth.data.sum(axis=0)
    pose = np.array([[0.0, 0.0, 70.0]])
    average = vg.project(flat, vg.Poses([[0, 0, 0]]), threads=1)[0]
    seen = vg.project(flat, vg.Poses(STAGE.tilted_angles_deg(pose)), threads=1)[0]
    made = foreshorten(average, pose[0], STAGE.rotation)
    assert np.corrcoef(made.ravel(), seen.ravel())[0, 1] > 0.97


@pytest.mark.parametrize(
    ("method", "tilt_deg", "noise"), [("standard", 60.0, 0.0), ("standard", 45.0, 0.7), ("revised", 60.0, 0.7)]
)
def test_known_angles_give_the_map_outside_the_cone(truth, method, tilt_deg, noise):
    """Resolution outside the cone as with the true poses, to 10 %; the right hand."""
    stage, cone = TiltGeometry(tilt_deg, 25.0, -40.0), 90.0 - tilt_deg
    angles, untilted, tilted = pairs(truth, 30, stage=stage, noise=noise)
    found = conical_tilt(untilted, tilted, stage, method=method, iterations=1, threads=1)
    ideal = vg.reconstruct(
        tilted.with_poses(vg.Poses(stage.tilted_angles_deg(angles))), ctf=False, threads=1, listener=None
    )
    assert agreement(found.map, truth, cone).resolution_A() < 1.1 * agreement(ideal, truth, cone).resolution_A()
    mirrored = found.map.with_data(np.roll(found.map.data[::-1], 1, axis=0))
    curves = [agreement(one, truth, cone).curve[3:9].mean() for one in (mirrored, found.map)]
    assert curves[0] < curves[1] - 0.3
    assert found.missing.half_angle_deg == pytest.approx(cone, abs=1e-6)


def test_both_forms_find_where_picks_went_wrong(truth):
    """Shifts of 13 noisy images with picks 1.5 px off: both forms mend them, in pixels."""
    _, untilted, tilted = pairs(truth, 13, pick_px=1.5, noise=1.4, seed=4)
    error = {}
    for method in ("standard", "revised"):
        found = conical_tilt(untilted, tilted, STAGE, method=method, iterations=2, threads=1)
        error[method] = np.sqrt(np.mean((found.tilted.poses.shifts_A - tilted.poses.shifts_A) ** 2)) / PIXEL
    # The standard form compared details that a thick particle does not share with its average, and erred by more.
    assert error["standard"] < 0.6
    assert error["revised"] < 0.6


def in_frame_of(truth, found, angles):
    """The map made again in the frame of the true orientations that most particles share."""
    mine, theirs = (vg.euler_to_matrix(a) for a in (found.untilted.poses.angles_deg, angles))
    relative = mine.transpose(0, 2, 1) @ theirs
    alike = np.einsum("aij,bij->ab", relative, relative) > 1 + 2 * np.cos(np.radians(10))
    frame = relative[alike.sum(axis=1).argmax()]
    turned = vg.matrix_to_euler(vg.euler_to_matrix(found.tilted.poses.angles_deg) @ frame)
    placed = found.tilted.with_poses(vg.Poses(turned, found.tilted.poses.shifts_A))
    made = vg.reconstruct(placed, ctf=False, threads=1, listener=None)
    return made.with_data(moved_map(made.data, _offset(truth.data, made.data)))


@pytest.mark.slow
def test_the_revised_form_is_better_where_particles_lie_on_their_faces(truth):
    """13 noisy pairs, 5 of them on their faces, picks 1.5 px off: FSC 0.5 outside the cone is finer by a tenth."""
    angles, untilted, tilted = pairs(truth, 13, faces=0.33, pick_px=1.5, noise=1.4, seed=11, known=False)
    resolution_A = {}
    for method in ("standard", "revised"):
        # The standard form knows nothing of faces.
        found = conical_tilt(untilted, tilted, STAGE, method=method, mirrors=method == "revised", threads=1)
        resolution_A[method] = agreement(in_frame_of(truth, found, angles), truth).resolution_A()
    assert resolution_A["revised"] < 0.9 * resolution_A["standard"]


@pytest.mark.slow
def test_particles_on_their_faces_are_told(truth):
    angles, untilted, _ = pairs(truth, 24, faces=0.4, noise=0.5, seed=2, known=False)
    settings = ConicalSettings(mirrors=True)
    aligned, average = align_class(untilted, settings, threads=1)
    assert average.shape == (BOX, BOX)
    down, planted = aligned.poses.angles_deg[:, 1] > 90, angles[:, 1] > 90
    assert (down == planted).all() or (down != planted).all()  # which face is up cannot be told
    # and the relative orientations are right: from one particle to the next in both frames
    mine, theirs = (vg.euler_to_matrix(a) for a in (aligned.poses.angles_deg, angles))
    relative = mine.transpose(0, 2, 1) @ theirs
    turned = np.degrees(np.arccos(np.clip((np.einsum("aij,ij->a", relative, relative[0]) - 1) / 2, -1, 1)))
    assert np.median(turned) < 5


def test_orthogonal_tilt_misses_nothing(truth):
    stage = TiltGeometry(90.0, 10.0, 5.0)
    _, untilted, tilted = pairs(truth, 60, stage=stage)
    found = conical_tilt(untilted, tilted, stage, iterations=0, threads=1)
    assert found.missing.half_angle_deg == pytest.approx(0.0, abs=1e-6)
    everywhere = agreement(found.map, truth, 0.0)
    assert everywhere.curve[1:9].min() > 0.9
    conical = conical_tilt(*pairs(truth, 60)[1:], STAGE, iterations=0, threads=1)
    assert agreement(conical.map, truth, 0.0).curve[1:9].mean() < everywhere.curve[1:9].mean()


def views_of(azimuths_deg, tilt_deg):
    n = len(azimuths_deg)
    return np.column_stack([azimuths_deg, np.full(n, tilt_deg), np.zeros(n)])


def share_seen(views, half_angle_deg):
    """Of directions outside the cone, those within 1.5 degrees of a slice."""
    k = np.random.default_rng(0).normal(size=(5000, 3))
    k /= np.linalg.norm(k, axis=1, keepdims=True)
    k = k[np.abs(k[:, 2]) < np.cos(np.radians(half_angle_deg))]
    return (np.abs(k @ vg.geometry.direction_vectors(views[:, :2]).T) < np.sin(np.radians(1.5))).any(axis=1).mean()


def test_missing_cone_of_a_quarter_circle_has_a_gap():
    cone = missing_cone(views_of(np.arange(0.0, 91.0, 10.0), 50.0))
    assert cone.half_angle_deg == pytest.approx(40.0)
    assert cone.share == pytest.approx(1 - np.cos(np.radians(40)))
    assert cone.largest_gap_deg == pytest.approx(270.0)
    below = views_of(np.arange(0.0, 91.0, 10.0) + 180.0, 130.0)  # the opposite directions
    assert missing_cone(below).largest_gap_deg == pytest.approx(270.0)
    assert "40.0 degrees about z, 23.4 % of Fourier space" in str(cone)


def test_half_a_circle_of_azimuths_is_whole_at_90_degrees_only():
    """Slices of half a circle at 60 degrees leave a tenth unseen beside the cone: the gap says so, and is 2 without."""
    half, whole = np.arange(0.0, 180.0, 2.0), np.arange(0.0, 360.0, 2.0)
    for azimuths, tilt, least, most, gap in (
        (half, 60.0, 0.85, 0.93, 182.0),
        (whole, 60.0, 0.999, 1.0, 2.0),
        (half, 90.0, 0.999, 1.0, 2.0),
    ):
        views = views_of(azimuths, tilt)
        assert least <= share_seen(views, 90.0 - tilt) <= most
        assert missing_cone(views).largest_gap_deg == pytest.approx(gap)


def test_the_ctf_is_in_the_model(truth):
    """Images with CTFs of three defoci: the map agrees with the truth beyond the CTFs' first zeros, with its hand."""
    n = 30
    psi = np.column_stack([np.zeros(n), np.zeros(n), np.arange(0.0, 360.0, 12.0)])
    defocus = np.resize([12000.0, 15000.0, 18000.0], n)
    optics = vg.Optics(defocus, defocus, pixel_size_A=PIXEL)
    sets = []
    for seed, view in enumerate((psi, STAGE.tilted_angles_deg(psi))):
        poses = vg.Poses(view, np.random.default_rng(seed).normal(0, 0.5 * PIXEL, (n, 2)))
        images = vg.project(truth, poses, optics, threads=1)
        sets.append(vg.Particles.from_images(images, PIXEL, optics=optics, poses=poses))
    untilted, tilted = sets
    found = conical_tilt(untilted, tilted, STAGE, iterations=1, ctf=True, threads=1)
    without = vg.reconstruct(tilted, ctf=False, threads=1, listener=None)  # the true poses do not help
    curve = agreement(found.map, truth).curve[1:12].mean()
    assert curve > 0.9
    assert curve > agreement(without, truth).curve[1:12].mean() + 0.3
    mirrored = found.map.with_data(np.roll(found.map.data[::-1], 1, axis=0))
    assert agreement(mirrored, truth).curve[1:12].mean() < curve - 0.3


def test_results_do_not_depend_on_threads(truth):
    _, untilted, tilted = pairs(truth, 5, pick_px=1.0, noise=1.0)
    one, two = (conical_tilt(untilted, tilted, STAGE, iterations=1, threads=t) for t in (1, 2))
    np.testing.assert_array_equal(one.tilted.poses.shifts_A, two.tilted.poses.shifts_A)


def test_refusals(truth):
    _, untilted, tilted = pairs(truth, 5)
    with pytest.raises(vg.InputError, match="5 untilted but 4 tilted"):
        conical_tilt(untilted, tilted[:4], STAGE)
    with pytest.raises(vg.InputError, match="2 pairs; a map needs 3"):
        conical_tilt(untilted[:2], tilted[:2], STAGE)
    with pytest.raises(vg.InputError, match="extract both alike"):
        conical_tilt(untilted, vg.Particles.from_images(np.ones((5, 16, 16), np.float32), PIXEL), STAGE)
    with pytest.raises(vg.InputError, match="method"):
        conical_tilt(untilted, tilted, STAGE, method="other")
    with pytest.raises(vg.InputError, match="expected \\(n, 3\\)"):
        missing_cone(np.zeros((0, 3)))
    with pytest.raises(vg.InputError, match="cubes of one box"):
        fsc_outside_cone(truth, vg.Map(np.ones((8, 8, 8)), PIXEL), 30)


@pytest.fixture(scope="module")
def spider_pairs(data_dir):
    """Windows of 80 px, binned to 40, of the first 36 pairs, which are top views; the map they were made from."""
    folder = data_dir / "rct_spider"
    table = pd.read_csv(folder / "pairs.tsv", sep="\t")[:36]
    half, sets, kept = 40, [], np.ones(36, bool)
    for side in ("untilted", "tilted"):
        field = mrcfile.read(folder / f"{side}.mrc").astype(np.float32)
        corners = np.floor(table[[f"x_{side}", f"y_{side}"]].to_numpy() + 0.5).astype(int) - half
        inside = (corners >= 0).all(axis=1) & (corners[:, 0] + 80 <= field.shape[1])
        kept &= inside & (corners[:, 1] + 80 <= field.shape[0])
        sets.append([field[y : y + 80, x : x + 80] if ok else None for (x, y), ok in zip(corners, kept, strict=True)])
    found = []
    for windows in sets:
        stack = np.stack([w for w, ok in zip(windows, kept, strict=True) if ok])
        small = fourier.inverse(fourier.resize(fourier.forward(stack, 2), (80, 80), (40, 40)), (40, 40))
        small = (small - small.mean(axis=(1, 2), keepdims=True)) / small.std(axis=(1, 2), keepdims=True)
        found.append(vg.Particles.from_images(small.astype(np.float32), 2.0))
    big = read_spider(spider_header(folder / "TP1_makedata" / "vcem011.hbl"))[:80, :80, :80].copy()
    cut = fourier.inverse(fourier.resize(fourier.forward(big, 3), (80,) * 3, (40,) * 3), (40,) * 3)
    return *found, table[kept], vg.Map(cut.astype(np.float32), 2.0)


@pytest.mark.slow
def test_the_class_of_top_views_made_by_spider(spider_pairs):
    """Nothing given but the pairs' geometry: agrees with the map beyond a quarter of Nyquist, with its hand."""
    untilted, tilted, table, truth = spider_pairs
    found = conical_tilt(untilted, tilted, TiltGeometry(48.0, 0.0, 0.0), iterations=3, threads=1)
    # The class is seen along z; it is turned about z by any angle, which the first view of six tells.
    turn = (found.untilted.poses.angles_deg[:, 2] - table.phi_deg.to_numpy()) % 60
    angle = np.degrees(np.angle(np.exp(1j * np.radians(6 * turn)).mean())) / 6
    angles = found.tilted.poses.angles_deg - [angle, 0, 0]
    placed = found.tilted.with_poses(vg.Poses(angles, found.tilted.poses.shifts_A))
    made = vg.reconstruct(placed, ctf=False, threads=1, listener=None)
    inside = soft_sphere(40, 18.0, 2.0)
    curve = fsc_outside_cone(made.with_data(made.data * inside), truth, 42.0)
    assert curve.resolution_A(0.5) < 8.0  # a quarter of the Nyquist frequency of 1 A pixels
    mirrored = made.with_data(np.roll(made.data[::-1], 1, axis=0) * inside)
    assert fsc_outside_cone(mirrored, truth, 42.0).resolution_A(0.5) > 8.0


def test_the_standard_form_centres_images_with_ctfs(truth):
    """Noisy images of many defoci, picks a pixel off: what is left, but for an offset all share, is below 0.7 px."""
    n, rng = 30, np.random.default_rng(30)
    angles = np.column_stack([np.zeros(n), np.zeros(n), rng.uniform(0, 360, n)])
    defocus, sets = rng.uniform(12000, 20000, n), []
    for view in (angles, STAGE.tilted_angles_deg(angles)):
        optics, poses = vg.Optics(defocus, defocus, pixel_size_A=PIXEL), vg.Poses(view, rng.normal(0, PIXEL, (n, 2)))
        clean = vg.project(truth, poses, optics, threads=1)
        noisy = (clean + rng.normal(0, clean.std(), clean.shape)).astype(np.float32)
        sets.append(vg.Particles.from_images(noisy, PIXEL, optics=optics, poses=poses))
    untilted, tilted = sets
    blind = vg.Particles.from_images(untilted.images(), PIXEL, optics=untilted.optics)
    found = conical_tilt(blind, tilted, STAGE, method="standard", ctf=True, threads=1)
    error = (found.tilted.poses.shifts_A - tilted.poses.shifts_A) / PIXEL
    rows = vg.euler_to_matrix(found.tilted.poses.angles_deg)[:, :2]
    offset = np.linalg.lstsq(rows.reshape(-1, 3), error.ravel(), rcond=None)[0]
    assert np.sqrt(np.mean((error - rows @ offset) ** 2)) < 0.7
