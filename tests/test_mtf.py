"""The MTF of a detector: read from the file that particles name, in the one forward model, divided out once."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pandas as pd
import pytest

import verglas as vg
from verglas import fourier
from verglas.io import read_micrographs, read_star, write_micrographs, write_picks, write_stack, write_star
from verglas.io.mtf import read_mtf_table
from verglas.optics import Aberrations, ignored_aberrations, plain_images, with_aberrations
from verglas.optics.stored import to_stored
from verglas.run.merge import merge_particles
from verglas.run.postprocess import PostprocessJob, postprocess_files
from verglas.run.reconstruct import ProjectJob, project_files
from verglas.types import Picks
from verglas.types.mtf import Mtf

BOX, PIXEL_A, DETECTOR_A = 32, 4.0, 3.0
TABLE = np.column_stack([np.linspace(0, 0.5, 51), np.linspace(1, 0.2, 51)])
COLUMNS = {"rlnMtfFileName": ["mtf_a.star", "None"], "rlnMicrographOriginalPixelSize": [DETECTOR_A, DETECTOR_A]}


def write_table(path, table=TABLE):
    write_star(path, {"mtf": pd.DataFrame({"rlnResolutionInversePixel": table[:, 0], "rlnMtfValue": table[:, 1]})})


def radius():
    return np.hypot(np.fft.rfftfreq(BOX, PIXEL_A), np.fft.fftfreq(BOX, PIXEL_A)[:, None])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two optics groups, the first of a detector with an MTF; the truth, and the images without it."""
    folder = tmp_path_factory.mktemp("mtf")
    model = vg.simulate.phantom(BOX, PIXEL_A, 90.0)
    made = vg.simulate.particles(model, 120, BOX, PIXEL_A, snr=5.0, seed=4, optics_groups=2, listener=None)
    images = made.images()
    factor = np.interp(radius() * DETECTOR_A, *TABLE.T)
    group = made.optics.group
    moved = images.copy()
    moved[group == 0] = fourier.inverse(fourier.forward(images[group == 0], 2) * factor, (BOX, BOX))
    p = vg.Particles(made.table, None, optics_table=made.optics_table.assign(**COLUMNS))
    write_table(folder / "mtf_a.star")
    vg.write_particles(folder / "p.star", p.with_source(vg.types.ArraySource(moved, PIXEL_A)))
    vg.write_particles(folder / "without.star", made)
    return folder, vg.simulate.density(model, BOX, PIXEL_A), images


def test_images_lose_the_mtf_once(folder, tmp_path):
    where, _, images = folder
    particles = vg.read_particles(where / "p.star")
    assert not np.allclose(particles.images(), images, atol=1e-2)
    plain = plain_images(particles)
    assert np.allclose(plain.images(), images, atol=1e-4 * np.abs(images).max())
    assert plain_images(plain) is plain
    assert np.allclose(plain.images([3]), images[[3]], atol=1e-4 * np.abs(images).max())
    # written beside the stored images the file is named; with new images there is none any more
    vg.write_particles(where / "again.star", plain[::2])
    again = read_star(where / "again.star")
    assert again["optics"].rlnMtfFileName.tolist() == ["mtf_a.star", "None"]
    assert not [name for name in again if "MTF" in name]
    assert np.allclose(plain_images(vg.read_particles(where / "again.star")).images(), plain[::2].images(), atol=1e-5)
    vg.write_particles(tmp_path / "new.star", plain[::2], stack=tmp_path / "new.mrcs")
    assert "rlnMtfFileName" not in read_star(tmp_path / "new.star")["optics"]
    assert np.allclose(plain_images(vg.read_particles(tmp_path / "new.star")).images(), plain[::2].images(), atol=1e-5)
    assert np.allclose(to_stored(plain)(images.copy(), np.arange(120)), particles.images(), atol=1e-3)


def test_a_map_from_images_with_the_mtf_is_the_map_without(folder):
    where, _, _ = folder
    maps = [vg.reconstruct(vg.read_particles(where / name), listener=None) for name in ("p.star", "without.star")]
    assert np.abs(maps[0].data - maps[1].data).max() < 1e-3 * np.abs(maps[1].data).max()


def test_projections_for_particles_have_their_mtf(folder, tmp_path):
    where, truth, _ = folder
    shutil.copy(where / "mtf_a.star", tmp_path)
    vg.write_map(tmp_path / "m.mrc", truth)
    project_files(ProjectJob(map=tmp_path / "m.mrc", particles=where / "p.star", out=tmp_path / "q.mrcs", ctf=True))
    made, given = vg.read_particles(tmp_path / "q.star"), vg.read_particles(where / "p.star")
    wanted = vg.project(truth, given.poses, given.optics)
    assert not np.allclose(made.images(), wanted, atol=1e-2 * wanted.std())
    assert np.allclose(plain_images(made).images(), wanted, atol=1e-3 * np.abs(wanted).max())


@pytest.mark.parametrize("seed", range(3))
def test_what_is_put_on_is_taken_away_beside_phases_and_magnification(seed):
    rng = np.random.default_rng(seed)
    mtf = Mtf("m.star", DETECTOR_A, TABLE)
    matrix = np.eye(2)[None] + (rng.normal(0, 0.01, (1, 2, 2)) if seed else 0)
    kinds = Aberrations(np.zeros(2, int), rng.normal(0, 1, (1, 2)), np.zeros((1, 0)), matrix, np.array([1e4]), (mtf,))
    x, y = np.meshgrid(np.arange(BOX) - BOX // 2, np.arange(BOX) - BOX // 2)
    images = np.stack([np.exp(-((x - a) ** 2 + y**2) / 8) for a in (0, 3)]).astype(np.float32)
    moved = kinds.apply(images.copy(), np.arange(2), PIXEL_A)
    assert np.abs(moved - images).max() > 0.05
    assert np.allclose(kinds.remove(moved, np.arange(2), PIXEL_A), images, atol=2e-3)


def test_groups_keep_their_detector_when_sets_are_joined(folder, tmp_path):
    where, _, images = folder
    union = merge_particles([where / "p.star", where / "without.star"]).particles
    assert sorted(union.optics_table.rlnMtfFileName) == ["None", "None", "mtf_a.star"]
    assert np.allclose(plain_images(union[:120]).images(), images, atol=1e-3)
    made = vg.Particles.from_images(images[:2], PIXEL_A, optics=vg.Optics([9000] * 2, [9000] * 2))
    kinds = Aberrations(
        np.zeros(2, int), np.zeros((1, 2)), np.zeros((1, 0)), np.eye(2)[None], np.zeros(1), (Mtf("m.star", 3.0, TABLE),)
    )
    assert Aberrations.of(with_aberrations(made, kinds)).mtf[0].pixel_size_A == 3.0


def changed(folder, **columns):
    particles = vg.read_particles(folder / "p.star")
    optics = pd.DataFrame(particles.optics_table).assign(**columns)
    return vg.Particles(particles.table, particles.source, optics_table=optics, tables=particles.tables, where="p.star")


def test_an_mtf_that_cannot_be_applied_is_named(folder, tmp_path):
    where, _, _ = folder
    for name in ("p.star", "p.mrcs"):
        shutil.copy(where / name, tmp_path)
    with pytest.warns(vg.errors.VerglasWarning, match=r"does not apply the detector's MTF, whose file is not found"):
        vg.reconstruct(vg.read_particles(tmp_path / "p.star"), listener=None)
    bare = changed(where, rlnMicrographOriginalPixelSize=0.0)
    optics = pd.DataFrame(bare.optics_table).drop(columns="rlnMicrographOriginalPixelSize")
    bare = vg.Particles(bare.table, bare.source, optics_table=optics, tables=bare.tables)
    assert "size of its pixels" in next(iter(ignored_aberrations(bare)))
    with pytest.raises(vg.InputError, match="another sampling of the detector"):
        vg.reconstruct(changed(where, rlnMicrographOriginalPixelSize=9.0), listener=None)
    write_table(tmp_path / "mtf_a.star", TABLE * [0.1, 1])
    with pytest.raises(vg.InputError, match=r"mtf_a.star: MTF: its frequencies end at 0.05"):
        vg.read_particles(tmp_path / "p.star")
    (tmp_path / "mtf_a.star").write_text("nothing")
    with pytest.raises(vg.errors.FormatError, match=r"mtf_a\.star"):
        read_mtf_table(tmp_path / "mtf_a.star")


def test_postprocessing_divides_no_mtf_out_twice(folder, tmp_path):
    where, truth, _ = folder
    rng = np.random.default_rng(0)
    for i in (1, 2):
        noisy = truth.data + 0.1 * truth.data.std() * rng.normal(size=truth.data.shape)
        vg.write_map(tmp_path / f"half{i}.mrc", vg.Map(noisy.astype(np.float32), PIXEL_A))
    (tmp_path / "run.json").write_text(json.dumps({"command": "refine", "settings": {"mtf": ["mtf_a.star"]}}))
    job = PostprocessJob(tmp_path / "half1.mrc", tmp_path / "half2.mrc", tmp_path / "out", mtf=where / "mtf_a.star")
    with pytest.raises(vg.InputError, match=r"mtf_a.star\) was divided out of the images when they were refined"):
        postprocess_files(job, listener=None)
    (tmp_path / "run.json").write_text(json.dumps({"command": "refine", "settings": {"mtf": None}}))
    assert postprocess_files(job, listener=None).files


@pytest.mark.slow
def test_a_refinement_takes_the_mtf_away_and_says_so(folder, tmp_path):
    where, truth, _ = folder
    maps = []
    for name in ("p.star", "without.star"):
        out = tmp_path / name
        done = vg.refine(where / name, truth, diameter_A=110, iterations=1, seed=1, out=out, listener=None)
        maps.append(done.map)
        record = json.loads((out / "run.json").read_text())["settings"]
        assert record["mtf"] == (["mtf_a.star"] if name == "p.star" else None)
    assert vg.fsc(*maps).curve[1:12].min() > 0.99


def test_particles_have_the_detector_and_aberrations_of_their_micrographs(tmp_path):
    """From the optics table of a list of micrographs, through a list with CTFs, to the particles cut from them."""
    names = [f"m{i}.mrc" for i in range(2)]
    for i, name in enumerate(names):
        write_stack(tmp_path / name, np.random.default_rng(i).normal(size=(1, 64, 64)).astype(np.float32), 2.0)
    write_table(tmp_path / "mtf_a.star")
    optics = {"rlnOpticsGroup": [1, 2], "rlnOpticsGroupName": ["a", "b"], "rlnMicrographPixelSize": [2.0, 2.0]}
    optics |= {"rlnVoltage": [300.0, 300.0], "rlnSphericalAberration": [2.7, 2.7], "rlnAmplitudeContrast": [0.1, 0.1]}
    optics |= {"rlnMtfFileName": ["mtf_a.star", "None"], "rlnBeamTiltX": [0.2, 0.0], "rlnEvenZernike": ["[0,1]", "[0]"]}
    table = pd.DataFrame({"rlnMicrographName": names, "rlnOpticsGroup": [1, 2]})
    write_star(tmp_path / "m.star", {"optics": pd.DataFrame(optics), "micrographs": table})
    listed = read_micrographs(tmp_path / "m.star")
    assert listed.rlnMtfFileName.tolist() == ["mtf_a.star", "None"]
    with_ctf = listed.assign(rlnDefocusU=9000.0, rlnDefocusV=9000.0, rlnDefocusAngle=0.0)
    write_micrographs(tmp_path / "ctf.star", with_ctf)
    written = read_star(tmp_path / "ctf.star")
    assert "rlnMtfFileName" not in written["micrographs"]
    picks = {name: Picks(np.array([[32.0, 32.0]]), name) for name in names}
    write_picks(tmp_path / "picks.star", picks)
    made = vg.extract(tmp_path / "ctf.star", tmp_path / "picks.star", box=32, out=tmp_path / "out", listener=None)
    cut = read_star(tmp_path / "out" / "particles.star")["optics"]
    for label in ("rlnMtfFileName", "rlnBeamTiltX", "rlnEvenZernike"):
        assert cut[label].tolist() == optics[label]
    assert made is not None
    kinds = Aberrations.of(vg.read_particles(tmp_path / "out" / "particles.star"))
    assert [kinds.mtf_of(k) is not None for k in kinds.kind] == [True, False]
