"""Extraction: the particle lies where it should, its background is normalised, bad input is set aside and counted."""

from __future__ import annotations

import csv
import json
import warnings

import numpy as np
import pytest
import tifffile
from pages_again import check_page_again

import verglas as vg
from verglas.cli import main
from verglas.errors import SettingError, VerglasWarning
from verglas.extraction import ExtractSettings, cut_particles
from verglas.io import write_micrograph, write_motion_star, write_picks
from verglas.optics import plain_images
from verglas.run.extract import ExtractOptions, extract_files
from verglas.types import Picks
from verglas.types.trajectory import Trajectory


def blobs(shape, centres, sigma=3.0, seed=0, noise=0.02):
    """Dark Gaussian particles at exact, fractional centres (x, y)."""
    y, x = np.mgrid[: shape[0], : shape[1]]
    image = np.random.default_rng(seed).normal(100, noise, shape)
    for cx, cy in centres:
        image -= np.exp(-((x - cx) ** 2 + (y - cy) ** 2) / (2 * sigma**2))
    return image.astype(np.float32)


def centroid(images):
    """Centre of mass (x, y) of bright blobs relative to pixel N // 2."""
    n = images.shape[-1]
    weight = np.clip(images - images.max(axis=(1, 2), keepdims=True) * 0.3, 0, None)
    grid = np.arange(n) - n // 2
    total = weight.sum(axis=(1, 2))
    return np.stack([(weight.sum(axis=1) @ grid) / total, (weight.sum(axis=2) @ grid) / total], axis=1)


@pytest.mark.parametrize("box", [32, 33])
def test_particle_lies_at_the_origin_and_is_white(box):
    m = vg.Micrograph(blobs((90, 110), [(40, 50)]), 1.5, "a")
    cut = cut_particles(m, Picks([[40.4, 49.6]], "a"), ExtractSettings(box, 1.5))
    assert cut.centres_px.tolist() == [[40, 50]]
    assert np.unravel_index(cut.images[0].argmax(), (box, box)) == (box // 2, box // 2)


def test_background_is_normalised_and_the_ramp_gone():
    y, x = np.mgrid[:80, :80]
    data = np.random.default_rng(0).normal(500, 7, (80, 80)) + 3 * x - 2 * y
    cut = cut_particles(vg.Micrograph(data, 2.0), Picks([[40, 40]]), ExtractSettings(48, 2.0, diameter_A=60))
    outside = np.hypot(*np.mgrid[-24:24, -24:24]) > 1.1 * 60 / 2 / 2
    assert abs(cut.images[0][outside].mean()) < 1e-4
    assert cut.images[0][outside].std() == pytest.approx(1, abs=1e-3)
    slope = np.polyfit(np.arange(48), cut.images[0].mean(axis=0), 1)[0]
    assert abs(slope) < 0.01  # the noise of 48 columns; the ramp was 3 / 7 per pixel


def test_edge_policy():
    m = vg.Micrograph(blobs((64, 64), [(2, 32)]), 1.0)
    picks = Picks([[16, 16], [48, 48], [49, 48], [15, 16], [2, 32], [-200, 5]])
    cut = cut_particles(m, picks, ExtractSettings(32, 1.0))
    assert cut.kept.tolist() == [0, 1]  # 16 - 16 = 0 and 48 + 16 = 64: the box just fits
    assert set(cut.excluded) == {2, 3, 4, 5}
    filled = cut_particles(m, picks, ExtractSettings(32, 1.0, edge="fill"))
    assert filled.kept.tolist() == [0, 1, 2, 3, 4]
    assert np.unravel_index(filled.images[4].argmax(), (32, 32)) == (16, 16)
    assert filled.excluded == {5: "box of 32 px outside the micrograph"}


def test_downscaling_keeps_place_and_noise_level():
    m = vg.Micrograph(blobs((128, 128), [(60, 70)], sigma=6), 1.0)
    settings = ExtractSettings(96, 1.0, 2.0, diameter_A=60)
    cut = cut_particles(m, Picks([[60, 70]]), settings)
    assert cut.images.shape == (1, 48, 48)
    np.testing.assert_allclose(centroid(cut.images), 0, atol=0.05)
    outside = np.hypot(*np.mgrid[-24:24, -24:24]) > 33 / 2
    assert cut.images[0][outside].std() == pytest.approx(1, abs=1e-3)
    with pytest.raises(vg.InputError, match="only scales down"):
        ExtractSettings(96, 2.0, 1.0)
    with pytest.raises(SettingError, match=r"box: expected at least 8.*pixel_size_A: .*edge: expected exclude or fill"):
        ExtractSettings(4, float("nan"), edge="cut")


def test_recentring_from_refined_shifts_and_another_scale(tmp_path):
    """Extract off centre, 'refine' the shifts, extract again at half the scale: particles are centred."""
    true = np.array([[40.3, 52.6], [90.7, 61.1], [64.2, 100.9]])
    off = true + np.array([[5, -3], [-4, 2], [0.4, 6]])
    tifffile.imwrite(tmp_path / "a.tif", blobs((160, 150), true))
    first = vg.extract(tmp_path / "a.tif", Picks(off, "a.tif"), 48, out=tmp_path / "one", pixel_size_A=1.5)
    shifts = -centroid(first.images()) * 1.5  # what must be added to the image to bring the particle to the origin
    refined = first.with_poses(vg.Poses(np.arange(9.0).reshape(3, 3), shifts))
    vg.write_particles(tmp_path / "one" / "refined.star", refined)
    second = vg.extract(
        tmp_path / "a.tif",
        tmp_path / "one" / "refined.star",
        48,
        out=tmp_path / "two",
        pixel_size_A=1.5,
        new_pixel_size_A=3.0,
    )
    np.testing.assert_array_equal(second.table[["rlnCoordinateX", "rlnCoordinateY"]], np.floor(true + 0.5))
    assert np.abs(second.poses.shifts_A).max() <= 0.75 + 0.1  # half a pixel of 1.5 A
    position = second.table[["rlnCoordinateX", "rlnCoordinateY"]].to_numpy() - second.poses.shifts_A / 1.5
    np.testing.assert_allclose(position, true, atol=0.1)
    # what the images show is what the shifts still say
    np.testing.assert_allclose(centroid(second.images()) * 3.0 + second.poses.shifts_A, 0, atol=0.15)
    np.testing.assert_array_equal(second.poses.angles_deg, np.arange(9.0).reshape(3, 3))
    assert (second.box, second.pixel_size_A) == (24, 3.0)
    kept = vg.extract(tmp_path / "a.tif", tmp_path / "one" / "refined.star", 48, pixel_size_A=1.5, recentre=False)
    np.testing.assert_array_equal(kept.table["rlnCoordinateX"], first.table["rlnCoordinateX"])


def test_recentred_particles_have_no_shift_left(tmp_path):
    """Picks off by whole pixels, shifts refined at twice the pixel size: re-extraction is extraction at the truth."""
    true = np.array([[40, 52], [90, 61], [64, 100]])
    off = true + np.array([[6, -4], [-4, 2], [0, 8]])
    data = vg.Micrograph(blobs((160, 150), true), 1.5, "a")
    coarse = vg.extract(data, Picks(off, "a"), 48, new_pixel_size_A=3.0)
    # a particle sits at its coordinate less the shift
    refined = coarse.with_poses(vg.Poses(np.zeros((3, 3)), (off - true) * 1.5))
    for new in ({}, {"new_pixel_size_A": 3.0}, {"new_pixel_size_A": 2.0, "new_box": 36}):
        again = vg.extract(data, refined, 48, **new)
        np.testing.assert_allclose(again.poses.shifts_A, 0, atol=1e-9)
        np.testing.assert_array_equal(again.images(), vg.extract(data, Picks(true, "a"), 48, **new).images())
        np.testing.assert_allclose(centroid(again.images()) * again.pixel_size_A, 0, atol=0.1)  # noise


def test_refined_aberrations_go_with_the_particles_and_replaced_defoci_are_named(tmp_path):
    """Re-extraction after ctf-refine: groups of the particles, split where one had two kinds."""
    true = np.array([[40, 52], [90, 61], [64, 100]])
    data = vg.Micrograph(blobs((160, 150), true), 1.5, "a")
    optics = vg.Optics([9000, 9100, 9200], [9000, 9100, 9200], group=[0, 1, 0])
    first = vg.extract(data, Picks(true, "a"), 48, new_pixel_size_A=3.0).with_optics(optics)
    even = ["[0,0,3,0,0,700]", "[0]"]
    groups = first.optics_table.assign(rlnBeamTiltX=[0.5, -0.25], rlnBeamTiltY=0.0, rlnEvenZernike=even)
    groups = groups.assign(rlnCtfDataArePhaseFlipped=[1, 0])
    refined = vg.Particles(first.table, first.source, optics_table=groups)
    for given in (refined, plain_images(refined)):
        again = vg.extract(data, given, 48)
        assert again.optics_table.rlnBeamTiltX.tolist() == [0.5, -0.25]
        assert again.optics_table.rlnEvenZernike.tolist() == even
        assert again.table.rlnOpticsGroup.tolist() == [1, 2, 1]
        assert "rlnCtfDataArePhaseFlipped" not in {*again.table, *again.optics_table}
        np.testing.assert_allclose(again.optics.as_params(), refined.optics.as_params())
    vg.write_particles(tmp_path / "p.star", refined, stack=tmp_path / "p.mrcs")
    assert vg.extract(data, tmp_path / "p.star", 48).optics_table.rlnBeamTiltX.tolist() == [0.5, -0.25]
    (tmp_path / "ctf.tsv").write_text("micrograph\tdefocus_A\na\t9000\n")
    with pytest.warns(vg.errors.VerglasWarning, match="defoci of 2 of 3 particles are refined, which are kept"):
        kept = vg.extract(data, refined, 48, ctf=tmp_path / "ctf.tsv")
    assert kept.table.rlnDefocusU.tolist() == [9000, 9100, 9200]
    with pytest.warns(vg.errors.VerglasWarning, match="defoci of 2 of 3 particles are not those of their micrographs"):
        replaced = vg.extract(data, refined, 48, ctf=tmp_path / "ctf.tsv", keep_defoci=False)
    assert replaced.table.rlnDefocusU.tolist() == [9000] * 3
    # one value for a whole micrograph was not refined: a new fit of its CTF replaces it
    shared = refined.with_columns(rlnDefocusU=8000.0, rlnDefocusV=8000.0)
    with pytest.warns(vg.errors.VerglasWarning, match="not those of their micrographs"):
        assert vg.extract(data, shared, 48, ctf=tmp_path / "ctf.tsv").table.rlnDefocusU.tolist() == [9000] * 3


def test_flip_y():
    data = blobs((60, 70), [(30, 20)])
    p = vg.extract(vg.Micrograph(data[::-1], 1.0, "a"), Picks([[30, 20]], "a"), 16, flip_y=True)
    assert np.unravel_index(p.images()[0].argmax(), (16, 16)) == (8, 8)
    assert p.table["rlnCoordinateY"].tolist() == [39]  # of the array as read


def test_local_defocus_from_a_tilt_plane(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", blobs((100, 100), [(50, 50)]))
    (tmp_path / "m.star").write_text(
        "data_optics\n\nloop_\n_rlnOpticsGroupName #1\n_rlnOpticsGroup #2\n_rlnMicrographPixelSize #3\n_rlnVoltage #4\n"
        "_rlnSphericalAberration #5\n_rlnAmplitudeContrast #6\nhole1 1 2.0 300 2.7 0.1\n\ndata_micrographs\n\nloop_\n"
        "_rlnMicrographName #1\n_rlnOpticsGroup #2\n_rlnDefocusU #3\n_rlnDefocusV #4\n_rlnDefocusAngle #5\n"
        "_vgDefocusGradientX #6\n_vgDefocusGradientY #7\n_vgCentreX #8\n_vgCentreY #9\n"
        "a.tif 1 15000 14000 20 0.5 -0.25 50 50\n"
    )
    p = vg.extract(tmp_path / "m.star", Picks([[50, 50], [60, 30]], "a"), 16)
    # 10 px of 2 A along x at 0.5, -20 px along y at -0.25: 10 + 10 A
    np.testing.assert_allclose(p.optics.defocus_u_A, [15000, 15020])
    np.testing.assert_allclose(p.optics.defocus_v_A, [14000, 14020])
    assert p.optics_table["rlnOpticsGroupName"].tolist() == ["hole1"]


def test_micrographs_without_ctf_are_set_aside(tmp_path):
    """Where CTFs are given, a particle without one would stop the refinement later."""
    names = ["a.tif", "b.tif"]
    for name in names:
        tifffile.imwrite(tmp_path / name, blobs((64, 64), [(32, 32)]))
    (tmp_path / "c.csv").write_text("micrograph,defocus_A\na.tif,15000\n")
    picks = {name: Picks([[32, 32]], name) for name in names}
    options = ExtractOptions(pixel_size_A=1.0, voltage_kV=300, cs_mm=2.7, amplitude_contrast=0.1)
    done = extract_files(str(tmp_path / "*.tif"), picks, 16, options, ctf=tmp_path / "c.csv")
    assert done.particles.optics.defocus_u_A.tolist() == [15000]
    assert "no CTF" in done.excluded[0][-1]


def test_optics_groups_of_several_pixel_sizes(tmp_path):
    names = ["a", "b"]
    m = [vg.Micrograph(blobs((64, 64), [(32, 32)]), pixel, name) for pixel, name in zip((1.0, 1.1), names, strict=True)]
    picks = {name: Picks([[32, 32]], name) for name in names}
    p = vg.extract(m, picks, 32)
    assert p.table["rlnOpticsGroup"].tolist() == [1, 2]
    np.testing.assert_allclose(p.optics_table["rlnImagePixelSize"], [1.0, 1.1])


def test_a_set_of_several_pixel_sizes_has_its_verdict_and_page(tmp_path, capsys, blank_figures):
    """The account asked for the one pixel size after all was cut, and ended without verdict.json and page."""
    for name, pixel in (("a", 3.0), ("b", 3.02)):
        write_micrograph(tmp_path / f"{name}.mrc", vg.Micrograph(blobs((64, 64), [(32, 32)]), pixel, name))
    write_picks(tmp_path / "picks.star", {f"{name}.mrc": Picks([[32, 32]], f"{name}.mrc") for name in "ab"})
    words = ["extract", str(tmp_path / "*.mrc"), "--picks", str(tmp_path / "picks.star"), "--box", "32"]
    with pytest.raises(SystemExit) as ended:
        main([*words, "--out", str(tmp_path / "o")])
    assert ended.value.code == 0
    assert "32 px of 3 and 3.02 A" in capsys.readouterr().out
    account = json.loads((tmp_path / "o" / "verdict.json").read_text())
    assert (account["box"], account["pixel_size_A"]) == (32, [3.0, 3.02])
    assert "32 px of 3 and 3.02 Å" in (tmp_path / "o" / "report.html").read_text()


def test_float16_and_threads_do_not_matter(tmp_path):
    rng = np.random.default_rng(1)
    for i in range(5):
        tifffile.imwrite(tmp_path / f"m{i}.tif", rng.normal(size=(70, 70)).astype(np.float32))
    picks = {f"m{i}.tif": Picks(rng.uniform(20, 50, (4, 2)), f"m{i}.tif") for i in range(5)}
    one = vg.extract(str(tmp_path / "*.tif"), picks, 24, pixel_size_A=1.0, threads=1)
    four = vg.extract(str(tmp_path / "*.tif"), picks, 24, pixel_size_A=1.0, threads=4)
    half = vg.extract(str(tmp_path / "*.tif"), picks, 24, pixel_size_A=1.0, out=tmp_path / "o", dtype="float16")
    np.testing.assert_array_equal(one.images(), four.images())
    np.testing.assert_allclose(one.images(), half.images(), rtol=2**-11, atol=1e-6)  # rounding of float16


def bad_folder(tmp_path):
    good = blobs((64, 64), [(32, 32)])
    tifffile.imwrite(tmp_path / "good.tif", good)
    tifffile.imwrite(tmp_path / "cut.tif", good.astype(np.uint8), compression="zlib")
    whole = (tmp_path / "cut.tif").read_bytes()
    (tmp_path / "cut.tif").write_bytes(whole[: len(whole) // 2])
    tifffile.imwrite(tmp_path / "rgb.tif", np.zeros((64, 64, 3), np.uint8), photometric="rgb")
    tifffile.imwrite(tmp_path / "movie.tif", np.stack([good] * 4), photometric="minisblack")
    tifffile.imwrite(tmp_path / "nan.tif", np.full((64, 64), np.nan, np.float32))
    tifffile.imwrite(tmp_path / "zeros.tif", np.zeros((64, 64), np.float32))
    (tmp_path / "empty.tif").write_bytes(b"")
    spot = good.copy()
    spot[30, 30] = np.nan
    tifffile.imwrite(tmp_path / "spot.tif", spot)
    names = ["good", "cut", "rgb", "movie", "nan", "zeros", "empty", "spot", "absent"]
    return {f"{n}.tif": Picks([[32, 32]], f"{n}.tif") for n in names}


def test_bad_micrographs_are_named_and_the_rest_goes_on(tmp_path, capsys, blank_figures):
    picks = bad_folder(tmp_path)
    done = extract_files(str(tmp_path / "*.tif"), picks, 16, ExtractOptions(pixel_size_A=1.0), tmp_path / "out")
    assert len(done.particles) == 1
    with open(tmp_path / "out" / "excluded.csv") as handle:
        why = {row["micrograph"].rpartition("/")[2]: row["reason"] for row in csv.DictReader(handle)}
    assert set(why) == set(picks) - {"good.tif"}
    words = {
        "cut": "can be read",
        "rgb": "3 samples",
        "movie": "a movie",
        "nan": "all pixels are nan",
        "empty": "the file is empty",
        "zeros": "all pixels are 0",
        "spot": "not finite",
        "absent": "no such micrograph",
    }
    for name, expected in words.items():
        assert expected in why[f"{name}.tif"]
    page = (tmp_path / "out/report.html").read_text()
    assert "1 of 9 coordinates became particles." in page
    assert "no such micrograph" in page
    check_page_again(tmp_path / "out", capsys)
    with pytest.warns(vg.VerglasWarning, match="8 of 9 particles were set aside; the first: "):
        vg.extract(str(tmp_path / "*.tif"), picks, 16, pixel_size_A=1.0)


def test_the_verdict_says_what_was_lost(tmp_path):
    rng = np.random.default_rng(0)
    picks = Picks(np.column_stack([np.linspace(20, 280, 100), np.full(100, 150)]), "m.mrc")
    vg.io.write_stack(tmp_path / "m.mrc", rng.normal(size=(1, 300, 300)).astype(np.float32), 2.0)
    optics = "_rlnDefocusU #2\n_rlnDefocusV #3\n_rlnDefocusAngle #4\n_rlnVoltage #5\n"
    optics += "_rlnSphericalAberration #6\n_rlnAmplitudeContrast #7\n_rlnMicrographPixelSize #8\n"
    row = f"{tmp_path / 'm.mrc'} 15000 15000 0 300 2.7 0.1 2.0\n"
    (tmp_path / "m.star").write_text(f"data_micrographs\nloop_\n_rlnMicrographName #1\n{optics}{row}")
    for source, box, state, reason in (
        ("m.star", 32, "go on", ""),
        ("m.star", 150, "warn", "picks were set aside, most: box of 150 px beyond the edge"),
        ("m.star", 200, "stop", "picks were set aside, most: box of 200 px beyond the edge"),
        ("m.mrc", 32, "warn", "no CTF of any micrograph is known"),
    ):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", vg.VerglasWarning)
            vg.extract(tmp_path / source, picks, box, out=tmp_path / "out")
        said = json.loads((tmp_path / "out" / "verdict.json").read_text())
        assert said["verdict"]["state"] == state
        assert said["particles"] + sum(said["excluded"].values()) == said["coordinates"] == 100
        assert reason in "".join(said["verdict"]["reasons"])


def test_nothing_to_extract_is_one_sentence(tmp_path):
    m = vg.Micrograph(np.zeros((64, 64)), 1.0, "a")
    with pytest.raises(vg.InputError, match="no particle could be cut out of 1 micrographs; the first: a: all"):
        vg.extract(m, Picks([[32, 32]], "a"), 16)
    with pytest.raises(vg.InputError, match=r"none of the 1 micrographs that have coordinates \(b, ...\) is among"):
        vg.extract(m, Picks([[32, 32]], "b"), 16)
    with pytest.raises(vg.InputError, match="no coordinates given"):
        vg.extract(m, {}, 16)
    with pytest.raises(vg.InputError, match="pixel size is unknown"):
        vg.extract(vg.Micrograph(np.eye(64), name="a"), Picks([[32, 32]], "a"), 16)
    with pytest.raises(vg.InputError, match="leaves no background"):
        vg.extract(m, Picks([[32, 32]], "a"), 16, diameter_A=20)


def test_apoferritin_set(data_dir, tmp_path, capsys):
    """The issue's count: 1,891 of 2,284 picks have a box of 128 px inside their micrograph."""
    folder = data_dir / "apoferritin"
    where = [str(folder / "*.tif"), "--picks", str(folder / "picks.star"), "--ctf", str(folder / "ctf_quickfit.tsv")]
    values = "--box 128 --pixel-size 1.5 --voltage 300 --cs 0.01 --amplitude-contrast 0.07 --diameter 140 --json"
    arguments = ["extract", *where, *values.split(), "--out", str(tmp_path / "o")]
    with pytest.raises(SystemExit) as status:
        main(arguments)
    assert status.value.code == 0
    said = json.loads(capsys.readouterr().out)
    assert said["particles"] == 1891
    assert said["excluded"] == {"box of 128 px beyond the edge": 393}
    assert said["verdict"]["state"] == "go on"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        p = vg.read_particles(tmp_path / "o" / "particles.star")
    assert len(p) == 1891
    quick = vg.io.read_ctf_table(folder / "ctf_quickfit.tsv").set_index("rlnMicrographName")["rlnDefocusU"]
    names = p.table["rlnMicrographName"].str.rpartition("/")[2]
    np.testing.assert_array_equal(p.optics.defocus_u_A, quick[names].to_numpy())
    assert (p.optics.cs_mm == 0.01).all()
    # particles are white: the mean image is brighter in the middle than outside
    mean = p.images(slice(0, 300)).mean(axis=0)
    r = np.hypot(*np.mgrid[-64:64, -64:64])
    assert mean[r < 40].mean() > mean[r > 55].mean() + 0.05


def test_command_line_usage(tmp_path, capsys):
    with pytest.raises(SystemExit) as status:
        main(["extract", "x.tif", "--picks", "p.star", "--box", "32", "--pixel-size", "-1", "--out", str(tmp_path)])
    assert status.value.code == 2
    with pytest.raises(SystemExit) as status:
        main(["extract", "nowhere/*.tif", "--picks", "p.star", "--box", "32", "--out", str(tmp_path / "o")])
    assert status.value.code == 1
    assert "no micrographs found" in capsys.readouterr().err


def test_particles_on_bad_pixels_are_set_aside(tmp_path):
    """The list that the correction of the movie wrote is asked, by its binning; single hot pixels cost nothing."""
    rng = np.random.default_rng(0)
    block = np.argwhere(np.ones((40, 30), bool)) + np.array([100, 60])  # rows and columns of the frames, binned by 2
    hot = rng.integers(0, 200, (50, 2))
    motion = Trajectory(np.zeros((3, 2)), shape=(256, 256), hot_pixels=np.vstack([block, hot]), binning=2.0)
    write_motion_star(tmp_path / "m.star", motion)
    vg.io.write_stack(tmp_path / "m.mrc", rng.normal(size=(1, 128, 128)).astype(np.float32), 2.0)
    table = "data_micrographs\nloop_\n_rlnMicrographName #1\n_rlnMicrographMetadata #2\nm.mrc m.star\n"
    (tmp_path / "micrographs.star").write_text(table)
    picks = vg.types.Picks([[37.0, 60.0], [90.0, 90.0]], "m.mrc")
    with pytest.warns(VerglasWarning, match=r"bad pixels of the detector under \d+ % of the particle"):
        particles = vg.extract(tmp_path / "micrographs.star", picks, 32, diameter_A=40.0)
    assert particles.table["rlnCoordinateX"].tolist() == [90]
    (tmp_path / "m.star").write_text("data_general\n\n_rlnImageSizeX 256\n")  # of a program that writes other things
    with pytest.warns(VerglasWarning, match=r"m.star, which lists the bad pixels of its movie, cannot be read \("):
        assert len(vg.extract(tmp_path / "micrographs.star", picks, 32, diameter_A=40.0)) == 2
    (tmp_path / "m.star").unlink()
    with pytest.warns(VerglasWarning, match=r"m.star, which lists the bad pixels of its movie, is not there"):
        assert len(vg.extract(tmp_path / "micrographs.star", picks, 32, diameter_A=40.0)) == 2


def test_a_box_is_cut_once_unless_coordinates_come_with_poses(tmp_path):
    m = vg.Micrograph(blobs((90, 110), [(40, 50), (70, 40)]), 1.5, "a")
    twice = [[40.4, 49.6], [70, 40], [40.1, 50.2], [70, 41]]  # the third is the first, by another picker
    with pytest.warns(VerglasWarning, match=r"1 of 4 particles were set aside.*same box as particle 0"):
        assert len(vg.extract(m, Picks(twice, "a"), 32, listener=None)) == 3
    angles = dict.fromkeys(("rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi"), np.arange(4.0))
    expanded = cut_particles(m, Picks(twice, "a", columns=angles), ExtractSettings(32, 1.5))
    assert (len(expanded.images), expanded.excluded) == (4, {})


@pytest.mark.parametrize(
    ("turned_over", "scale", "code"),
    [(False, 1.0, ""), (True, 1.0, "dark_particles"), (False, 0.5, "nothing_in_the_middle")],
)
def test_particles_of_the_other_contrast_and_coordinates_of_other_images_are_told(tmp_path, turned_over, scale, code):
    """Binned coordinates lie in the first quarter, where their boxes hold whatever is there."""
    places = np.random.default_rng(2).uniform(20, 780, (320, 2))
    data = blobs((800, 800), places, sigma=4.0, noise=2.0)
    micrograph = vg.Micrograph(200 - data if turned_over else data, 2.0, "a")
    options = ExtractOptions(diameter_A=36.0)
    verdict = extract_files(micrograph, Picks(scale * places, "a"), 32, options, listener=None).verdict
    assert verdict.codes == ((code, "no_ctf") if code else ("no_ctf",))
    kept = extract_files(
        micrograph, Picks(places, "a"), 32, ExtractOptions(diameter_A=36.0, invert=not turned_over), listener=None
    )
    assert kept.verdict.codes == ("no_ctf",)
