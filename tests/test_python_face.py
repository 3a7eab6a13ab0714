"""The first day in Python: loops, paths, one line per object, comparisons, cards, refusals, names."""

from __future__ import annotations

import importlib
import pickle
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from foreign_arrays import DeviceArray, Exchanged, Labelled, Tensor, data_array, torch_tensor

import verglas as vg
from verglas.errors import RowError
from verglas.types.convert import map_of

BOX, PIXEL_A = 16, 5.0
# Every package that lists names; run and window have modules only.
PACKAGES = [
    *vg._SUBMODULES,
    "errors",
    "cluster",
    "optics.fit",
    "reconstruction.operators",
    "reconstruction.priors",
    "reconstruction.solvers",
    "refinement.prior",
]


@pytest.fixture(scope="module")
def model():
    return vg.simulate.phantom(BOX, PIXEL_A, 60.0)


@pytest.fixture(scope="module")
def truth(model):
    return vg.simulate.density(model, BOX, PIXEL_A)


@pytest.fixture(scope="module")
def particles(model):
    return vg.simulate.particles(model, 40, BOX, PIXEL_A, snr=2.0, seed=1)


@pytest.fixture(scope="module")
def files(tmp_path_factory, particles, truth):
    folder = tmp_path_factory.mktemp("files")
    vg.write_particles(folder / "p.star", particles)
    vg.write_map(folder / "map.mrc", truth)
    vg.write_map(folder / "mask.mrc", truth.with_data(vg.masks.soft_sphere(truth.data.shape, 5.0, 2.0)))
    return folder


CHART = "&lt;figure class=&quot;chart&quot;"  # inside the frame of a card


def test_a_loop_over_particles_ends(particles):
    few = particles[:3]
    assert [len(one) for one in few] == [1, 1, 1]
    assert [one.poses.angles_deg[0, 0] for one in few] == few.poses.angles_deg[:, 0].tolist()
    for beyond in (3, -4):
        with pytest.raises(IndexError, match=f"index {beyond} beyond 3 particles"):
            few[beyond]
    assert issubclass(RowError, vg.InputError)


def test_paths_where_objects_are_meant(files, particles, truth):
    """The same numbers from the path as from the object."""
    star, mrc = files / "p.star", str(files / "map.mrc")
    read, volume = vg.read_particles(star), vg.read_map(mrc)
    assert np.array_equal(vg.fsc(mrc, volume).curve, vg.fsc(volume, volume).curve)
    inside = vg.read_map(files / "mask.mrc")
    assert np.array_equal(vg.fsc(mrc, mrc, files / "mask.mrc").effective, vg.fsc(volume, volume, inside).effective)
    assert vg.project(mrc, read.poses[:2]).tolist() == vg.project(volume, read.poses[:2]).tolist()
    assert vg.reconstruct(star) == vg.reconstruct(read)
    noise = np.random.default_rng(0).normal(size=volume.data.shape) * 0.2 * volume.data.std()
    other = volume.with_data(volume.data + noise)
    assert vg.postprocess(mrc, other, threads=1).map == vg.postprocess(volume, other, threads=1).map
    settings = {"step_deg": 30, "threads": 1}
    assert np.array_equal(
        vg.align(star, mrc, **settings).poses.angles_deg, vg.align(read, volume, **settings).poses.angles_deg
    )
    found = vg.classify2d(star, classes=2, diameter_A=70, iterations=1, threads=1)
    assert len(found.particles) == 40
    assert np.array_equal(vg.masks.from_threshold(mrc, 0.5), vg.masks.from_threshold(volume.data, 0.5))


def test_paths_of_maps_for_what_is_found_of_them(files):
    from verglas import assessment, filters, map_geometry

    mrc, volume = files / "map.mrc", vg.read_map(files / "map.mrc")
    gain = filters.low_pass(20.0)
    assert filters.apply(str(mrc), gain) == filters.apply(volume, gain)
    assert assessment.solvent_mask(mrc) == assessment.solvent_mask(volume)
    assert assessment.randomise_phases(mrc, 3, 1) == assessment.randomise_phases(volume, 3, 1)
    for function in (assessment.amplitude_spectrum, lambda v: assessment.guinier(v).ln_amplitude):
        assert np.array_equal(function(mrc), function(volume), equal_nan=True)
    assert assessment.match_spectrum(mrc, volume) == assessment.match_spectrum(volume, mrc)
    noise = np.random.default_rng(0).normal(size=volume.data.shape).astype(np.float32)
    other = volume.with_data(volume.data + 0.2 * volume.data.std() * noise)
    assert np.array_equal(
        vg.directional_fsc(mrc, other, files / "mask.mrc").curves,
        vg.directional_fsc(volume, other, vg.read_map(files / "mask.mrc")).curves,
    )
    assert map_geometry.align_maps(mrc, volume).correlation > 0.99
    assert len(vg.expand_symmetry(files / "p.star", "C2")) == 2 * len(vg.read_particles(files / "p.star"))
    inside = files / "mask.mrc"
    some = vg.subtract(files / "p.star", mrc, inside)
    other = vg.subtract(vg.read_particles(files / "p.star"), volume, vg.read_map(inside))
    assert np.array_equal(some.images(), other.images())


@pytest.mark.parametrize("name", ["refine", "abinitio", "classify3d", "subtract", "expand_symmetry", "reconstruct"])
@pytest.mark.parametrize("wrong", [3, None, np.zeros((2, 8, 8))])
def test_what_are_no_particles_is_refused_by_every_job(name, wrong, truth):
    further = {"refine": (truth,), "classify3d": (truth,), "subtract": (truth, truth), "expand_symmetry": ("C2",)}
    with pytest.raises(vg.InputError, match=rf"{name}: particles: expected Particles or the path"):
        getattr(vg, name)(wrong, *further.get(name, ()))


def test_what_is_no_map_no_movie_and_no_optics_is_refused(truth):
    with pytest.raises(vg.InputError, match="fsc: the first map: expected a Map, the path of one or an array"):
        vg.fsc(object(), truth)
    with pytest.raises(vg.InputError, match="directional_fsc: the second half map: expected a Map"):
        vg.directional_fsc(truth, 3)
    with pytest.raises(vg.InputError, match=r"movie\.tif: no such file"):
        vg.correct_motion("movie.tif")
    with pytest.raises(vg.InputError, match="ctf: expected an Optics"):
        vg.ctf(3, 8, 1.0)


def test_what_is_neither_is_refused_in_words(particles, truth):
    with pytest.raises(vg.InputError, match=r"project: map: an array has no pixel size; give vg\.Map"):
        vg.project(truth.data, particles.poses)
    with pytest.raises(vg.InputError, match=r"reconstruct: particles: expected Particles .* got an array of shape"):
        vg.reconstruct(particles.images())
    with pytest.raises(vg.InputError, match="postprocess: half1: expected a Map or the path of one, got int"):
        vg.postprocess(3, truth)
    with pytest.raises(vg.InputError, match=r"pick: micrograph: .* give vg\.Micrograph"):
        vg.pick(np.zeros((64, 64)), 80.0)


def test_micrographs_by_path(tmp_path):
    made, _ = vg.simulate.micrograph(shape=(256, 256), pixel_size_A=4.0, defocus_u_A=15000, seed=1)
    vg.io.write_stack(tmp_path / "m.mrc", made.data[None], 4.0)
    by_path, by_object = (vg.estimate_ctf(m) for m in (tmp_path / "m.mrc", vg.read_micrograph(tmp_path / "m.mrc")))
    assert by_path.defocus_A == by_object.defocus_A


def test_one_line_each(particles, truth):
    lines = {
        repr(truth): "Map(16 x 16 x 16, 5 A per voxel, ",
        repr(particles.poses): "Poses(40 orientations, shifts up to ",
        repr(particles.optics): "Optics(40 images, defocus ",
        repr(particles): "Particles(40 from ",
        repr(vg.fsc(truth, truth)): "FSC(9 shells: 0.5 at 10, 0.143 at 10 A)",
    }
    for line, begins in lines.items():
        assert line.startswith(begins)
        assert "\n" not in line
        assert len(line) < 160


def test_a_refinement_in_one_line_and_on_a_card(particles, truth):
    found = vg.refine(particles, truth, diameter_A=70, iterations=1, threads=1, listener=None)
    assert repr(found).startswith("Refinement(")
    assert "40 particles, 2 iterations" in repr(found)
    assert len(repr(found)) < 160
    assert repr(found.postprocessed).count("\n") == 0
    card = found._repr_html_()
    assert (card.count("data:image/png;base64,"), card.count(CHART)) == (1, 1)


def test_cards(particles, truth):
    shown = ((truth, 1, 0), (particles, 1, 0), (particles.poses, 0, 1), (vg.fsc(truth, truth), 0, 1))
    for thing, pictures, charts in shown:
        card = thing._repr_html_()
        assert (card.count("data:image/png;base64,"), card.count(CHART)) == (pictures, charts)
        assert repr(thing).split("(")[0] in card
    assert particles.optics._repr_html_().count("<img") == 0


def test_cards_of_images():
    grey = np.random.default_rng(0).normal(size=(6, 40, 60)).astype(np.float32)
    things = {"Micrograph(m.mrc: 40 x 60 (y, x), 1.5 A": vg.Micrograph(grey[0], 1.5, "m.mrc")}
    things["Movie(in memory: 6 frames of 40 x 60 (y, x), 1.5 A"] = vg.Movie.from_array(grey, 1.5)
    for begins, thing in things.items():
        card = thing._repr_html_()
        assert repr(thing).startswith(begins)
        assert card.count("data:image/png;base64,") == 1
        assert begins in card


@pytest.mark.parametrize("kind", [Tensor, DeviceArray, Labelled, Exchanged, data_array, torch_tensor])
def test_arrays_of_other_libraries_are_arrays(kind, truth):
    given, images = kind(truth.data), kind(np.ones((2, 4, 4), np.float32))
    assert vg.Map(given, PIXEL_A) == truth
    assert vg.show(given, pixel_size_A=PIXEL_A).maps["map"] == truth
    assert map_of(given, "it", pixel_size_A=PIXEL_A) == truth
    assert np.array_equal(vg.masks.from_threshold(given, 0.1), vg.masks.from_threshold(truth, 0.1))
    assert vg.Particles.from_images(images, 2.0).images().shape == (2, 4, 4)
    assert vg.Micrograph(kind(np.ones((3, 4))), 1.0).shape == (3, 4)
    assert len(vg.Movie.from_array(images)) == 2
    assert vg.Poses(kind(np.array([[10.0, 20.0, 30.0]]))).angles_deg.tolist() == [[10, 20, 30]]
    assert vg.Optics(kind(np.array([1e4, 2e4])), [1e4, 1e4]).defocus_u_A.tolist() == [1e4, 2e4]
    with pytest.raises(vg.InputError, match=r"an array has no pixel size; give vg\.Map"):
        map_of(given, "it")
    assert np.array_equal(vg.fsc(given, given).curve, vg.fsc(truth, truth).curve, equal_nan=True)


def test_equal_by_value(particles, truth):
    assert truth == truth.with_data(truth.data.copy())
    assert truth != truth.with_data(truth.data + 1)
    assert truth != vg.Map(truth.data, 2 * PIXEL_A)
    assert truth != 3
    assert particles.poses == particles.poses[:]
    assert particles.optics == particles.optics[:]
    assert particles.optics != particles.optics[:3]
    with pytest.raises(TypeError, match="unhashable"):
        hash(truth)


def test_a_map_is_an_array_for_numpy(truth):
    assert np.shares_memory(np.asarray(truth), truth.data)
    assert np.asarray(truth, np.float64).dtype == np.float64
    copied = np.array(truth)
    assert copied.shape == truth.data.shape
    assert not np.shares_memory(copied, truth.data)
    assert np.mean(truth) == truth.data.mean()


def write_nothing(images):
    """A stack of complex numbers, which is refused before a file is there."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            vg.io.write_stack(f"{folder}/c.mrcs", images, 1.0)
        finally:
            assert list(Path(folder).iterdir()) == []


def test_poses_are_those_of_particles_or_their_file(files, particles, truth):
    plain = vg.project(truth, particles.poses)
    assert np.array_equal(vg.project(truth, particles), plain)
    assert np.allclose(vg.project(files / "map.mrc", files / "p.star"), plain, atol=1e-3)
    with pytest.raises(vg.InputError, match=r"project: poses: expected Poses, .*got an array"):
        vg.project(truth, particles.poses.angles_deg)
    bare = vg.Particles.from_images(np.ones((2, BOX, BOX)), PIXEL_A)
    with pytest.raises(vg.InputError, match="has no poses"):
        vg.project(truth, bare)


def test_complex_values_and_nan_poses_are_refused(truth):
    for make in (lambda: vg.Map(truth.data * 1j, 1.0), lambda: truth.with_data(truth.data * 1j)):
        with pytest.raises(vg.InputError, match="complex"):
            make()
    with pytest.raises(vg.InputError, match="complex"):
        vg.fsc(truth.data * 1j, truth.data)
    images = np.ones((2, 8, 8)) * 1j
    for refused in (vg.types.ArraySource, lambda data: vg.Micrograph(data[0]), write_nothing):
        with pytest.raises(vg.InputError, match="complex"):
            refused(images)
    with pytest.raises(vg.InputError, match=r"angles_deg: particle 1 has \[0.0, nan, 0.0\]"):
        vg.Poses([[0, 0, 0], [0, np.nan, 0]])
    with pytest.raises(vg.InputError, match="shifts_A: particle 0"):
        vg.Poses([[0, 0, 0]], [[np.inf, 0]])


def test_the_table_of_a_frozen_set_stays(particles):
    before = particles.table["rlnDefocusU"].to_numpy().copy()
    with pytest.raises(vg.InputError, match=r"cannot set rlnDefocusU; use particles\.with_columns"):
        particles.table["rlnDefocusU"] = 1.0
    with pytest.raises(vg.InputError, match="cannot set rlnVoltage"):
        particles.optics_table["rlnVoltage"] = 1.0
    with pytest.raises(vg.InputError, match="cannot insert"):
        particles.table.insert(0, "x", 1)
    mine = particles.table
    mine.loc[0, "rlnDefocusU"] = 1.0  # pandas copies what is shared when it is written to
    assert mine["rlnDefocusU"][0] == 1.0
    assert np.array_equal(particles.table["rlnDefocusU"], before)
    changed = particles.table.copy()
    changed["mine"] = 1  # a copy is a plain frame
    assert type(particles.table.assign(x=1)) is pd.DataFrame
    assert type(particles.table[["rlnDefocusU"]]) is pd.DataFrame
    again = pickle.loads(pickle.dumps(particles))
    assert again.table.equals(particles.table)


def test_fsc_of_arrays_says_that_it_counts_in_pixels(truth):
    unknown, known = vg.fsc(truth.data, truth.data), vg.fsc(truth.data, truth.data, pixel_size_A=PIXEL_A)
    assert (unknown.unit, known.unit) == ("px", "A")
    assert "px (no pixel size was given)" in repr(unknown)
    assert unknown.resolution_A() == pytest.approx(known.resolution_A() / PIXEL_A)


@pytest.mark.parametrize("name", PACKAGES)
def test_names_of_packages_are_the_public_ones(name):
    package = importlib.import_module(f"verglas.{name}")
    assert dir(package) == sorted(package.__all__)
    assert all(hasattr(package, one) for one in package.__all__)
    assert not {"np", "npt", "Any", "partial", "annotations"} & set(dir(package))
