"""``verglas deform``: fields between maps, places of several, and bending from particle to particle."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
from bending_points import BOX, PIXEL_A, WIDTH_A, gaussian_images
from scipy.spatial.transform import Rotation

import verglas as vg
from verglas.cli import main
from verglas.errors import InputError
from verglas.heterogeneity import DeformSettings
from verglas.heterogeneity.deform import (
    Deformation,
    FlexibleAlignment,
    align_modes,
    fit_deformation_to_images,
    zernike_ways,
)
from verglas.heterogeneity.deform.zernike3d import zernike_orders
from verglas.run.deform import DeformJob, _Atoms, _motions_of, deform_files
from verglas.simulate import hinge


@pytest.fixture(scope="module")
def points():
    xyz = vg.simulate.phantom(BOX, PIXEL_A, 80.0, seed=1).xyz_A[::6]
    return xyz - xyz.mean(axis=0)


def drawn(n):
    return vg.simulate.particles(vg.simulate.phantom(BOX, PIXEL_A, 80.0), n, BOX, PIXEL_A, seed=3, listener=None)


def test_ways_are_deformations_without_rigid_motions(points):
    ways = zernike_ways(points, 2)
    vectors = ways.modes.vectors
    assert vectors.shape == (24, len(points), 3)
    flat = vectors.reshape(24, -1)
    np.testing.assert_allclose(flat @ flat.T, np.eye(24), atol=1e-9)
    np.testing.assert_allclose(vectors.sum(axis=1), 0, atol=1e-9)
    np.testing.assert_allclose(np.cross(points, vectors).sum(axis=1), 0, atol=1e-7)
    a = np.random.default_rng(0).normal(size=24)
    np.testing.assert_allclose(ways.deformation(a).displacement_A(points), ways.modes.displace(a) - points, atol=1e-9)


def test_planted_deformation_is_recovered_from_images(points):
    """Of 2.5 A, from 24 noisy images at their poses: less than 5 % of it is missed, and 0 is found for none."""
    ways = zernike_ways(points, 2)
    planted = 0.8 * np.sqrt(len(points)) * np.random.default_rng(1).normal(size=24)
    way = ways.modes.displace(planted) - points
    truth = drawn(24)
    images = gaussian_images(np.tile(points + way, (24, 1, 1)), truth.poses, truth.optics, noise=1.0)
    given = truth.with_source(vg.ArraySource(images, PIXEL_A))
    fit = fit_deformation_to_images(given, ways, width_A=WIDTH_A, resolution_A=9.0)
    missed = fit.displacement_A(points) - way
    assert np.square(way).sum(axis=1).mean() > 4.0
    assert np.square(missed).sum() < 0.05 * np.square(way).sum()
    assert fit.residual < 0.95
    still = gaussian_images(np.tile(points, (24, 1, 1)), truth.poses, truth.optics, noise=0.0)
    none = fit_deformation_to_images(truth.with_source(vg.ArraySource(still, PIXEL_A)), ways, width_A=WIDTH_A)
    assert np.abs(none.displacement_A(points)).max() < 0.01


def test_density_goes_where_its_points_go(points):
    ways = zernike_ways(points, 2)
    bend = ways.deformation(0.8 * np.sqrt(len(points)) * np.random.default_rng(1).normal(size=24))
    ball, place = vg.masks.soft_sphere(BOX, 2.0, 2.0), np.array([3, -2, 4])
    moved = bend.apply(vg.Map(np.roll(ball, place[::-1], (0, 1, 2)), PIXEL_A)).data
    centre = [(moved * axis).sum() / moved.sum() for axis in (np.indices(moved.shape) - BOX // 2)[::-1]]
    want = place + bend.displacement_A(place * PIXEL_A) / PIXEL_A
    assert np.linalg.norm(want - place) > 0.3
    np.testing.assert_allclose(centre, want, atol=0.15)


def test_prior_keeps_many_ways_of_one_noisy_image_in_bounds(points):
    ways = zernike_ways(points, 2)
    truth = drawn(6)
    images = gaussian_images(np.tile(points, (6, 1, 1)), truth.poses, truth.optics, noise=3.0)
    given = truth.with_source(vg.ArraySource(images, PIXEL_A))
    how = {"width_A": WIDTH_A, "resolution_A": 12.0, "n_modes": 24, "refine_poses": False}
    free, kept = (align_modes(given, ways.modes, prior_A=p, **how) for p in (None, np.sqrt(len(points))))
    size = [np.sqrt(np.square(f.amplitudes_A).mean() / len(points)) for f in (free, kept)]
    assert size[1] < 1.0 < size[0]
    assert (kept.errors_A <= 1.01 * np.sqrt(len(points))).all()
    with pytest.raises(InputError, match="positive prior_A"):
        align_modes(given, ways.modes, prior_A=-1.0)


@pytest.mark.slow
def test_pair_of_maps(tmp_path, capsys):
    """A planted field: the command's maps hold it, and exit status 0; a wrong call has status 2 or 1."""
    first = vg.simulate.density(vg.simulate.phantom(BOX, PIXEL_A, 90.0, seed=2), BOX, PIXEL_A)
    rng = np.random.default_rng(4)
    planted = Deformation(rng.normal(0, 1.2, (len(zernike_orders(2)), 3)), 2, BOX * PIXEL_A / 2)
    paths = [tmp_path / "a.mrc", tmp_path / "b.mrc"]
    for path, volume in zip(paths, (first, planted.apply(first)), strict=True):
        vg.write_map(path, volume)
    out = tmp_path / "out"
    call = ["deform", *map(str, paths), "--out", str(out), "--degree", "2", "--resolution", "12", "--json"]
    with pytest.raises(SystemExit) as status:
        main(call)
    assert status.value.code == 0
    made = json.loads(capsys.readouterr().out)
    assert made["correlation"] > 0.98
    want = np.linalg.norm(planted.field_A(BOX, PIXEL_A), axis=-1)
    dense = first.data > 0.2 * first.data.max()
    got = vg.read_map(out / "displacement.mrc").data
    assert np.abs(got - want)[dense].mean() < 0.1 * want[dense].mean()
    assert {p.name for p in out.iterdir()} >= {"rotation.mrc", "strain.mrc", "volume_change.mrc", "deformed.mrc"}
    assert "root mean square" in (out / "report.html").read_text()
    with pytest.raises(SystemExit) as status:
        main(["deform", str(paths[0]), "--out", str(out)])
    assert status.value.code == 1
    assert "expected two maps or more" in capsys.readouterr().err


@pytest.mark.slow
def test_several_maps_are_laid_out(tmp_path):
    model = vg.simulate.phantom(16, 8.0, 90.0, seed=1)
    paths = []
    for k in (2, 0, 1):
        paths.append(tmp_path / f"state{k}.mrc")
        vg.write_map(paths[-1], vg.simulate.density(hinge(model, 15.0 * k), 16, 8.0))
    made = deform_files(
        DeformJob(paths, tmp_path / "out", settings=DeformSettings(degree=2, resolution_A=25.0, dimensions=1)),
        listener=None,
    )
    with (tmp_path / "out" / "coordinates.csv").open() as file:
        places = {row["map"]: float(row["coordinate1_A"]) for row in csv.DictReader(file)}
    assert sorted(places, key=places.get) in (["state0", "state1", "state2"], ["state2", "state1", "state0"])
    assert made["stress"] < 0.3
    assert (tmp_path / "out" / "distances.csv").is_file()


def test_images_that_cannot_be_used_are_set_aside_and_maps_are_given_once(tmp_path):
    model = vg.simulate.phantom(16, 8.0, 90.0, seed=1)
    p = vg.simulate.particles(model, 4, 16, 8.0, seed=1, listener=None)
    images = np.array(p.images(slice(0, 4)))
    images[2] = np.nan
    vg.write_particles(tmp_path / "p.star", p.with_source(vg.ArraySource(images, 8.0)))
    path, out = tmp_path / "map.mrc", tmp_path / "out"
    vg.write_map(path, vg.simulate.density(model, 16, 8.0))
    how = DeformSettings(atoms=30, modes=1, resolution_A=25.0)
    made = deform_files(DeformJob([path], out, tmp_path / "p.star", settings=how), listener=None)
    assert (made["particles"], made["excluded"]) == (3, 1)
    assert len(vg.read_particles(out / "particles.star")) == 3
    assert "2,000003@" in (out / "excluded.csv").read_text()
    assert "set aside (excluded.csv)" in (out / "report.html").read_text()
    vg.write_particles(tmp_path / "none.star", p[2:3].with_source(vg.ArraySource(images[2:3], 8.0)))
    with pytest.raises(InputError, match="no particle can be used"):
        deform_files(DeformJob([path], out, tmp_path / "none.star", settings=how), listener=None)
    with pytest.raises(InputError, match="given more than once"):
        deform_files(DeformJob([path, path], out), listener=None)


def test_motions_of_zernike_amplitudes_are_about_their_mean(points):
    """Mean and motions together are the particles' own deformations."""
    ways = zernike_ways(points, 2)
    atoms = _Atoms(ways.modes, np.ones(len(points)), WIDTH_A, None)
    amplitudes = np.random.default_rng(3).normal(size=(4, 24)) + 5.0
    poses = vg.Poses(np.zeros((4, 3)), np.zeros((4, 2)))
    found = FlexibleAlignment(amplitudes, np.ones((4, 24)), poses, np.ones(4), 1)
    made = _motions_of(found, atoms, DeformSettings(basis="zernike", modes=4))
    middle, motions, along = made.middle_A, made.ways_A, made.coordinates_A
    made = points + middle + np.tensordot(along, motions, 1)
    np.testing.assert_allclose(made, ways.modes.displace(amplitudes), atol=1e-9)
    np.testing.assert_allclose(np.square(motions).sum(axis=2).mean(axis=1), 1, rtol=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("basis", ["modes", "zernike"])
def test_bending_from_particle_to_particle(tmp_path, basis):
    """A dumbbell that bends along its softest mode by 4 A either way: the particles' places say which way."""
    model = vg.simulate.phantom(BOX, PIXEL_A, 100.0, seed=5, shape="dumbbell")
    xyz = model.xyz_A[::4] - model.xyz_A.mean(axis=0)
    modes = vg.heterogeneity.deform.normal_modes(xyz, 18.0, count=1)
    rng = np.random.default_rng(2)
    planted = rng.choice([-4.0, 4.0], 40)
    truth = drawn(40)
    images = gaussian_images(modes.displace(np.sqrt(len(xyz)) * planted[:, None]), truth.poses, truth.optics, noise=0.3)
    still = gaussian_images(np.tile(xyz, (40, 1, 1)), truth.poses, truth.optics, noise=0.0)
    made = vg.reconstruct(truth.with_source(vg.ArraySource(still, PIXEL_A)))
    vg.write_map(tmp_path / "map.mrc", getattr(made, "map", made))
    turned = Rotation.from_rotvec(np.deg2rad(rng.normal(0, 0.5, (40, 3)))).as_matrix()
    off = vg.Poses(vg.matrix_to_euler(turned @ vg.euler_to_matrix(truth.poses.angles_deg)), truth.poses.shifts_A)
    vg.write_particles(tmp_path / "p.star", truth.with_source(vg.ArraySource(images, PIXEL_A)).with_poses(off))
    how = DeformSettings(basis=basis, degree=2, resolution_A=12.0, atoms=150, modes=2)
    job = DeformJob([tmp_path / "map.mrc"], tmp_path / "out", tmp_path / "p.star", settings=how)
    made = deform_files(job, listener=None)
    back = vg.read_particles(tmp_path / "out" / "particles.star")
    place = back.table["verglasMotion1"].to_numpy(float)
    other = back.table["verglasMotion2"].to_numpy(float)
    assert max(abs(np.corrcoef(v, planted)[0, 1]) for v in (place, other)) > 0.9
    assert max(made["spread_A"]) > 2 * min(made["error_A"])
    ends = [vg.read_map(tmp_path / "out" / f"motion1_state{k}.mrc").data for k in (1, 5)]
    assert not np.allclose(*ends)
    assert "motions spread" in (tmp_path / "out" / "report.html").read_text()
