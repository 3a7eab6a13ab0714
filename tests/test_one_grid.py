"""Optics groups of several pixel sizes and boxes in one job: brought to one grid exactly where images are read."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import verglas as vg
from verglas import fourier, image
from verglas.classification import Class2DSettings
from verglas.errors import InputError, VerglasWarning
from verglas.heterogeneity.posed import posed_images
from verglas.heterogeneity.subtract import SCALE
from verglas.io import read_particles, write_particles, write_stack, write_star
from verglas.optics import common_size, plain_images
from verglas.optics.one_grid import Grids, grid_matrix
from verglas.optics.stored import stored_images, to_stored
from verglas.run.class2d import Class2DJob, class2d_files
from verglas.run.ctf_refine_inputs import prepare
from verglas.run.reconstruct import ReconstructJob, plan_sentence, reconstruct_files
from verglas.run.refine_inputs import close_identity, differences
from verglas.run.subtract import revert_files, subtract_files
from verglas.search import AlignSettings, align_plan

FINE, COARSE = (48, 2.0), (36, 2.62)  # a box of 96 A and one of 94.32 A


def write_two(folder, fine, coarse, *, normalised=True):
    """Two optics groups in a STAR file, each with its own stack."""
    tables = []
    for number, particles in enumerate((fine, coarse)):
        images = particles.images()
        if normalised:
            images = image.normalise(images, 0.4 * images.shape[-1])
        name = folder / f"s{number}.mrcs"
        write_stack(name, images, particles.pixel_size_A)
        names = [f"{i + 1:06d}@{name}" for i in range(len(images))]
        tables.append(particles.table.assign(rlnImageName=names, rlnOpticsGroup=number + 1))
    optics = pd.concat([fine.optics_table, coarse.optics_table], ignore_index=True)
    optics = optics.assign(rlnOpticsGroup=[1, 2], rlnOpticsGroupName=["fine", "coarse"])
    write_star(folder / "p.star", {"optics": optics, "particles": pd.concat(tables, ignore_index=True)})
    return read_particles(folder / "p.star")


@pytest.fixture(scope="module")
def model():
    return vg.simulate.phantom(48, 2.0, 55.0, seed=1)


def simulated(model, n, grid, seed, snr=1e6, **more):
    return vg.simulate.particles(model, n, *grid, snr=snr, seed=seed, listener=None, **more)


@pytest.mark.filterwarnings("ignore:.*images of several sizes")
def test_images_of_both_groups_are_the_same_function(model, tmp_path):
    """The same particles at two samplings, without noise: one grid shows the same images."""
    # little defocus: what spreads beyond a box comes in on its other side, which differs
    near = {"defocus_A": (2000, 3000), "shift_sd_A": 1.0}
    fine, coarse = (simulated(model, 6, grid, 3, **near) for grid in (FINE, COARSE))
    plain = plain_images(write_two(tmp_path, fine, coarse, normalised=False))
    assert (plain.box, plain.pixel_size_A) == COARSE
    images = plain.images()
    first, second = (fourier.forward(images[part], 2) for part in (slice(0, 6), slice(6, 12)))
    for shell in range(1, 17):
        x, y = (spectra[:, fourier.shells((36, 36)) == shell].ravel() for spectra in (first, second))
        # grey values are densities per voxel, and noise keeps its power: (q / p)^2
        assert abs(np.vdot(y, x) / np.vdot(y, y) / 1.31**2 - 1) < 0.01
        assert np.vdot(y, x).real > 0.99 * np.linalg.norm(x) * np.linalg.norm(y)
    for rows in ([7, 0, 3], [11], [2, 2]):
        assert np.array_equal(plain.images(rows), images[rows])
        assert np.array_equal(plain[rows].images(), images[rows])


def test_white_noise_stays_white_and_keeps_its_power():
    noise = np.random.default_rng(0).normal(size=(400, 48, 48)).astype(np.float32)
    matrix = grid_matrix(*FINE, *COARSE).astype(np.float32)
    power = np.mean([fourier.power_spectrum(x, 2) for x in matrix @ noise @ matrix.T], axis=0)
    power = power / power[2:17].mean()
    assert np.abs(power[2:17] - 1).max() < 0.05
    assert abs((matrix @ noise @ matrix.T).var() - 1) < 0.06


def test_boxes_alone_are_cropped_not_interpolated():
    assert np.array_equal(grid_matrix(8, 2.0, 6, 2.0), np.eye(8)[1:7])


def test_what_is_written_is_as_it_was_read(model, tmp_path):
    given = write_two(tmp_path, simulated(model, 4, FINE, 3, 1.0), simulated(model, 4, COARSE, 4, 1.0))
    plain = plain_images(given)
    back = stored_images(plain)
    assert list(back.table) == list(given.table)
    write_particles(tmp_path / "out.star", plain, paths="absolute")
    read = read_particles(tmp_path / "out.star")
    assert read.optics.pixel_size_A.tolist() == [2.0] * 4 + [2.62] * 4
    assert np.array_equal(read[:4].images(), given[:4].images())
    assert not [label for label in read.table if label.startswith("vgGrid")]
    write_particles(tmp_path / "new.star", plain, tmp_path / "new.mrcs")
    new = read_particles(tmp_path / "new.star")
    assert (new.box, new.pixel_size_A) == COARSE
    assert np.allclose(new.images(), plain.images(), atol=1e-5)
    with pytest.raises(InputError, match="cannot be written back as they were stored"):
        to_stored(plain)


def test_particles_of_one_size_stay_as_they_are(model):
    assert Grids.of(simulated(model, 4, FINE, 3)) is None


def test_two_groups_make_the_map_of_one(model, tmp_path):
    """150 + 150 particles at 2.00 and 2.62 A a pixel beside 300 at 2.62: FSC with the truth equal to 1 %."""
    both = write_two(tmp_path, simulated(model, 150, FINE, 5, 0.3), simulated(model, 150, COARSE, 6, 0.3))
    one = simulated(model, 300, COARSE, 7, 0.3)
    one = one.with_source(vg.types.ArraySource(image.normalise(one.images(), 0.4 * 36), 2.62))
    truth = vg.simulate.density(model, *COARSE)
    with pytest.warns(VerglasWarning, match=r"brought to 36 px of 2.62 A; nothing finer than 5.24 A"):
        made = vg.reconstruct(both, listener=None)
    curves = [vg.fsc(m, truth).curve[1:17] for m in (made, vg.reconstruct(one, listener=None))]
    assert abs(curves[0].mean() - curves[1].mean()) < 0.01


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*images of several sizes")
def test_jobs_take_several_sizes(model, tmp_path):
    both = write_two(tmp_path, simulated(model, 100, FINE, 5, 0.5), simulated(model, 100, COARSE, 6, 0.5))
    truth = vg.simulate.density(model, *COARSE)
    told = {"listener": None, "threads": 1}
    refined = vg.refine(both, truth, diameter_A=70, iterations=3, out=tmp_path / "run", **told)
    assert vg.fsc(refined.map, truth).resolution_A(0.5) < 7
    written = read_particles(tmp_path / "run" / "particles.star")
    assert written.optics.pixel_size_A.tolist() == [2.0] * 100 + [2.62] * 100
    aligned = vg.align(both, truth, **told)
    error = vg.geometry.angular_distance(aligned.poses.angles_deg, both.poses.angles_deg)
    assert np.median(error) < 5
    assert len(vg.classify2d(both, classes=2, iterations=2, **told).particles) == 200


@pytest.mark.filterwarnings("ignore:.*images of several sizes")
def test_the_folder_of_2d_classes_takes_several_sizes(model, tmp_path, blank_figures):
    both = write_two(tmp_path, *(simulated(model, 40, grid, seed, 0.2) for seed, grid in enumerate((FINE, COARSE))))
    settings = Class2DSettings(classes=2, diameter_A=60.0, iterations=1)
    class2d_files(Class2DJob(tmp_path / "p.star", tmp_path / "run", settings, threads=1))
    written = read_particles(tmp_path / "run" / "particles.star")
    assert written.optics.pixel_size_A.tolist() == [2.0] * 40 + [2.62] * 40
    moved = both.with_columns(rlnDefocusU=both.table["rlnDefocusU"] + 1)
    assert "other values or order in column rlnDefocusU" in differences(close_identity(both), close_identity(moved))
    assert close_identity(both)["box"] == COARSE[0]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*images of several sizes")
def test_folders_of_first_maps_and_3d_classes_take_several_sizes(model, tmp_path, blank_figures):
    both = write_two(tmp_path, *(simulated(model, 40, grid, seed, 0.5) for seed, grid in enumerate((FINE, COARSE))))
    how = {"diameter_A": 60.0, "threads": 1, "listener": None}
    vg.abinitio(both, out=tmp_path / "first", starts=1, most_starts=1, iterations=2, **how)
    made = vg.classify3d(both, out=tmp_path / "classes", classes=1, poses="fixed", resolution_A=15, **how)
    assert (made.maps[0].box, made.maps[0].pixel_size_A) == COARSE
    for folder in ("first", "classes"):
        written = read_particles(tmp_path / folder / "particles.star")
        assert written.optics.pixel_size_A.tolist() == [2.0] * 40 + [2.62] * 40


def test_plans_and_identities_of_files_count_the_common_size(model, tmp_path):
    """Commands that foresee their course stopped at sets that their functions take."""
    both = write_two(tmp_path, simulated(model, 12, FINE, 5, 0.5), simulated(model, 12, COARSE, 6, 0.5))
    assert common_size(both) == COARSE
    names = close_identity(both)
    assert (names["box"], names["pixel_size_A"]) == COARSE
    job = ReconstructJob(tmp_path / "p.star", tmp_path / "map.mrc")
    assert plan_sentence(job, both).startswith("24 particles of 36 px, 2.62 A/px, to ")
    assert align_plan(both, AlignSettings()).startswith("24 particles of 36 px, 2.62 A/px: ")
    with pytest.warns(VerglasWarning, match="reconstruct: images of several sizes"):
        made = reconstruct_files(job, listener=None)
    assert (made.result.map.box, made.result.map.pixel_size_A) == COARSE
    with pytest.warns(VerglasWarning, match="variability: images of several sizes"):
        posed = posed_images(both, job="variability", resolution_A=None, diameter_A=70)
    assert (posed.box, posed.pixel_size_A) == COARSE


@pytest.mark.parametrize("fine", [FINE, (36, 2.0)])
def test_jobs_on_stored_images_say_so_at_once(model, tmp_path, fine):
    """Another box as well as another pixel size alone: before any map is made."""
    both = write_two(tmp_path, simulated(model, 4, fine, 5, 0.5), simulated(model, 4, COARSE, 6, 0.5))
    for particles in (both, stored_images(both)):
        for job in ("ctf-refine", "polish"):
            with pytest.raises(InputError, match=f"{job} takes images of one size at a time, .*36 px of 2.62 A"):
                prepare(particles, fits_ctf=False, needs_halves=False, job=job)


@pytest.mark.filterwarnings("ignore:.*images of several sizes")
def test_subtracted_images_of_both_groups_lie_on_one_grid(model, tmp_path):
    near = {"defocus_A": (2000, 3000), "shift_sd_A": 1.0}
    fine, coarse = (simulated(model, 8, grid, 3, **near) for grid in (FINE, COARSE))
    both = write_two(tmp_path, fine, coarse, normalised=False)
    truth = vg.simulate.density(model, *COARSE)
    wrong = vg.simulate.density(model, *FINE)
    with pytest.raises(InputError, match=r"the map has 48 px of 2 A, the particles 36 px of 2.62 A"):
        vg.subtract(both, wrong, wrong)
    vg.write_map(tmp_path / "map.mrc", truth)
    vg.write_map(tmp_path / "mask.mrc", vg.Map(np.zeros_like(truth.data), truth.pixel_size_A))
    out = tmp_path / "left.star"
    told = subtract_files(tmp_path / "p.star", out, tmp_path / "map.mrc", tmp_path / "mask.mrc", listener=None)
    assert told["particles"] == 16
    left = read_particles(out)
    assert (left.box, left.pixel_size_A) == COARSE
    alone = vg.subtract(coarse, truth, vg.Map(np.zeros_like(truth.data), truth.pixel_size_A)).images()
    assert np.allclose(left.images()[8:], alone, atol=1e-3 * np.abs(coarse.images()).max())
    # of the same particles at the other sampling as much is left; their scale is that of their grey
    rest = np.linalg.norm(left.images(), axis=(1, 2)) / np.linalg.norm(plain_images(both).images(), axis=(1, 2))
    assert np.allclose(rest[:8], rest[8:], atol=0.05)
    assert rest.max() < 0.5
    assert np.allclose(left.table[SCALE][8:], 1, atol=0.01)
    assert left.optics_table.rlnImageSize.tolist() == [36, 36]
    with pytest.raises(InputError, match="from images of several sizes"):
        revert_files(out, tmp_path / "back.star")
