"""Tilt series to a map: the command, its files, what it refuses, and what left-out tilts choose."""

from __future__ import annotations

import json

import mrcfile
import numpy as np
import pytest

import verglas as vg
from verglas import ops
from verglas.reconstruction import missing_wedge
from verglas.reconstruction.tomogram import TomogramSettings, reconstruct_tilts
from verglas.run.tilt_order import misplaced_angles
from verglas.run.tomogram import align_tilts, read_tilt_angles, read_transforms

TILTS = np.arange(-60, 61, 6.0)


@pytest.fixture(scope="module")
def ball():
    z, y, x = np.indices((24, 20, 24)) - np.array([12, 10, 12])[:, None, None, None]
    return ((x / 6.0) ** 2 + (y / 5.0) ** 2 + (z / 4.0) ** 2 < 1).astype(np.float32)


@pytest.fixture(scope="module")
def series(ball):
    clean = ops.radon(ball, TILTS)
    return clean + 0.5 * np.random.default_rng(1).normal(size=clean.shape).astype(np.float32)


@pytest.mark.parametrize("method", ["wbp", "sirt", "cg", pytest.param("tv", marks=pytest.mark.slow)])
def test_every_method_finds_the_ball(series, ball, method):
    # Total variation is chosen among weights, each with every left-out tilt: few iterations show what many do.
    settings = TomogramSettings(method, iterations=15) if method == "tv" else TomogramSettings(method)
    found = reconstruct_tilts(series, TILTS, settings, check_tilts=3)
    assert np.corrcoef(found.volume.ravel(), ball.ravel())[0, 1] > (0.6 if method == "wbp" else 0.75)
    assert len(found.left_out) == 3
    assert (found.prior_weight is not None) == (method == "tv")


@pytest.mark.slow
def test_left_out_tilts_choose_the_weight(series):
    found = reconstruct_tilts(series, TILTS, TomogramSettings("tv", iterations=20), check_tilts=2)
    best = max(found.tried, key=lambda one: one[1])
    assert found.prior_weight == best[0]
    assert len(found.tried) == 3


def test_left_out_tilts_are_turned_as_the_images_are(ball):
    """With the axis along x, or in between, they are predicted as well as along y."""
    from verglas.reconstruction.operators import tilt_series

    for axis in (30.0, 90.0):
        A = tilt_series(np.zeros((11, 24, 24)), TILTS[::2], axis, threads=1)
        volume = np.pad(ball, ((0, 0), (2, 2), (0, 0)))
        images = (A @ volume.ravel()).reshape(A.data_shape)
        how = TomogramSettings("cg", iterations=6, tilt_axis_deg=axis)
        made = reconstruct_tilts(images, TILTS[::2], how, check_tilts=2, threads=1)
        assert min(c for _, c in made.left_out) > 0.95


def test_noise_is_not_predicted():
    noise = np.random.default_rng(2).normal(size=(21, 16, 16))
    found = reconstruct_tilts(noise, TILTS, TomogramSettings("sirt"), check_tilts=5)
    assert abs(np.mean([c for _, c in found.left_out])) < 0.1
    assert abs(found.left_out_frc[3:].mean()) < 0.1


def test_the_command(run, series, tmp_path):
    mrcfile.write(tmp_path / "t.st", series, voxel_size=8.0)
    (tmp_path / "t.rawtlt").write_text("\n".join(f"{t:.2f}" for t in TILTS))
    files = [tmp_path / "t.st", "--tilt-angles", tmp_path / "t.rawtlt", "--pixel-size", 8, "--out", tmp_path / "o"]
    status, out, _ = run("tomogram", *files, "--method", "sirt", "--iterations", 10, "--json")
    assert status == 0
    told = json.loads(out)
    assert told["tilts"] == 21
    assert vg.read_map(tmp_path / "o" / "map.mrc").data.shape == (24, 20, 24)
    page = (tmp_path / "o" / "report.html").read_text(encoding="utf-8")
    assert "FRC of tilts left out" in page
    assert "a wedge of 60.0 degrees, 33.3 % of Fourier space" in page
    curve = told["left_out_frc"]["frc"]
    assert len(curve) == 13
    assert curve[1] > 0.9 > curve[8]  # noise, which no tilt predicts
    assert told["wedge"]["elongation"] == 1.5524


def test_one_angle_for_all_is_refused_before_the_work(run, series, tmp_path, monkeypatch):
    monkeypatch.setattr("verglas.run.tomogram.reconstruct_tilts", None)
    mrcfile.write(tmp_path / "t.st", series, voxel_size=8.0)
    (tmp_path / "t.rawtlt").write_text("3.0\n" * len(TILTS))
    files = [tmp_path / "t.st", "--tilt-angles", tmp_path / "t.rawtlt", "--pixel-size", 8, "--out", tmp_path / "o"]
    status, _, err = run("tomogram", *files)
    assert status != 0
    assert "two different tilts" in err
    assert not (tmp_path / "o").exists()


def test_rings_of_left_out_tilts_are_those_of_signal_and_noise(ball):
    """Without noise 1 in coarse rings; noise lowers the rings of little signal."""
    clean = np.asarray(ops.radon(ball, TILTS, threads=1))
    how = TomogramSettings("sirt", iterations=25)
    exact = reconstruct_tilts(clean, TILTS, how, check_tilts=2, threads=1).left_out_frc
    assert exact[1:4].min() > 0.95
    noise = 1.0 * np.random.default_rng(4).normal(size=clean.shape).astype(np.float32)
    noisy = reconstruct_tilts(clean + noise, TILTS, how, check_tilts=2, threads=1).left_out_frc
    assert noisy[1] > 0.9
    assert noisy[8:].mean() < exact[8:].mean() - 0.3
    assert reconstruct_tilts(clean, TILTS, check_tilts=0).left_out_frc is None


def beads(angles_deg, noise, seed=0):
    """Images of beads in a slab that is turned about y."""
    rng = np.random.default_rng(seed)
    x, y, z = (rng.uniform(-1, 1, (3, 150)).T * [44, 44, 14]).T
    turn = np.radians(angles_deg)[:, None]
    at = np.arange(-48, 48)
    across = np.exp(-(((at - (x * np.cos(turn) + z * np.sin(turn))[..., None]) / 2) ** 2))
    images = np.einsum("tbx,by->tyx", across, np.exp(-(((at - y[:, None]) / 2) ** 2)))
    return (images + noise * images.std() * rng.normal(size=images.shape)).astype(np.float32)


def test_angles_in_another_order_than_the_images_are_told():
    angles = np.arange(-60.0, 61, 3)
    for noise in (0.3, 2.0):
        images = beads(angles, noise)
        assert misplaced_angles(images, angles) == misplaced_angles(images[::-1], angles) == ""
        told = misplaced_angles(images, np.random.default_rng(1).permutation(angles))
        assert "are angles and images in one order? The images follow each other" in told
        recorded = np.argsort(np.abs(angles), kind="stable")  # from 0 to both sides
        assert misplaced_angles(images[recorded], angles[recorded]) == ""
        assert "in one order" in misplaced_angles(images[recorded], angles)
    assert misplaced_angles(beads(angles, 40.0), angles[::2].repeat(2)[: len(angles)]) == ""  # noise tells nothing
    assert misplaced_angles(beads(angles[:9], 0.3), angles[8::-1]) == ""


def test_transforms_align_the_images(run, tmp_path):
    """Images moved and turned by what a .xf file undoes, in IMOD's frame, give the map of the aligned ones."""
    box = 25
    at = np.indices((box, box, box)) - box // 2
    blobs = [np.exp(-((at - np.reshape(c, (3, 1, 1, 1))) ** 2).sum(axis=0) / 6) for c in ((3, 0, 5), (-2, 4, -4))]
    images = np.asarray(ops.radon(np.sum(blobs, axis=0).astype(np.float32), TILTS, threads=1))
    rng, lines, raw = np.random.default_rng(3), [], []
    for image in images:
        turn, offset = np.deg2rad(rng.uniform(-8, 8)), rng.uniform(-2, 2, 2)
        matrix = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
        lines.append(" ".join(f"{v:.6f}" for v in (*matrix.ravel(), *offset)))
        # Odd sides: IMOD's middle is pixel N // 2.
        raw.append(vg.image.warp(image, vg.image.Affine(matrix, offset).inverse()))
    aligned = align_tilts(np.array(raw), transforms_of("\n".join(lines), tmp_path))
    assert np.corrcoef(aligned.ravel(), images.ravel())[0, 1] > 0.995
    assert np.corrcoef(np.ravel(raw), images.ravel())[0, 1] < 0.9
    mrcfile.write(tmp_path / "raw.st", np.array(raw), voxel_size=8.0)
    (tmp_path / "t.tlt").write_text("\n".join(f"{t:.2f}" for t in TILTS))
    files = [tmp_path / "raw.st", "--tilt-angles", tmp_path / "t.tlt", "--pixel-size", 8, "--transforms"]
    status, _, error = run("tomogram", *files, tmp_path / "t.xf", "--check-tilts", 0, "--out", tmp_path / "o")
    assert status == 0, error
    expected = reconstruct_tilts(images, TILTS, check_tilts=0).volume
    assert np.corrcoef(vg.read_map(tmp_path / "o" / "map.mrc").data.ravel(), expected.ravel())[0, 1] > 0.98
    assert "binning" not in error
    twice = [line.split() for line in lines]
    shifts = [[*line[:4], *(f"{2 * float(v):.6f}" for v in line[4:])] for line in twice]
    (tmp_path / "t.xf").write_text("\n".join(map(" ".join, shifts)))
    _, _, error = run("tomogram", *files, tmp_path / "t.xf", "--check-tilts", 0, "--out", tmp_path / "q")
    assert "more alike with 0.5 times its shifts" in error
    assert "in the header" not in error
    files[4] = 4
    _, _, error = run("tomogram", *files[:5], "--check-tilts", 0, "--out", tmp_path / "r")
    assert "pixel size 8 A in the header, 4 A used as asked" in error
    (tmp_path / "radians.tlt").write_text("\n".join(f"{t:.4f}" for t in np.deg2rad(TILTS)))
    with pytest.raises(vg.FormatError, match="expected degrees: are these radians"):
        read_tilt_angles(tmp_path / "radians.tlt")
    files[4] = 8
    (tmp_path / "t.xf").write_text("1 0 0 1 0 0\n")
    status, _, error = run("tomogram", *files, tmp_path / "t.xf", "--out", tmp_path / "p")
    assert status == 1
    assert "t.xf 1 transforms" in error


def test_even_sides_have_their_middle_half_a_pixel_before_the_centre(tmp_path):
    """IMOD's middle, where its tilt axis runs, comes to pixel N // 2."""
    y, x = np.indices((16, 16))
    image = np.exp(-((y - 7.5) ** 2 + (x - 7.5) ** 2) / 4).astype(np.float32)
    aligned = align_tilts(image[None], transforms_of("1 0 0 1 0 0", tmp_path))[0]
    above = np.maximum(aligned - aligned.max() / 2, 0)
    assert [float((v * above).sum() / above.sum()) for v in (y, x)] == pytest.approx([8, 8], abs=0.02)


def transforms_of(text, folder):
    (folder / "t.xf").write_text(text + "\n")
    return read_transforms(folder / "t.xf")


@pytest.mark.parametrize("line", ["1 0 0 1 0", "1 0 0 1 0 x", "1 2 2 4 0 0", "1 0 0 1 0 nan", ""])
def test_lines_that_are_no_transform_are_named(line, tmp_path):
    with pytest.raises(vg.FormatError, match="line 2: expected a transform 'a11 a12" if line else "no transforms"):
        transforms_of(f"1 0 0 1 0 0\n{line}" if line else line, tmp_path)


@pytest.mark.parametrize("last", [45, 60, 70])
def test_a_point_is_drawn_out_as_the_wedge_says(last):
    """Back-projection of a blob: root of the mean squared frequencies across and along, where its spectrum is seen."""
    side, tilts = 96, np.arange(-last, last + 1.0)
    z, x = np.indices((side, side)) - side // 2
    blob = np.exp(-(z**2 + x**2) / 8).astype(np.float32)
    made = reconstruct_tilts(ops.radon(blob[:, None], tilts, threads=1), tilts, check_tilts=0, threads=1).volume[:, 0]
    k = np.fft.fftfreq(side)
    spectrum, radius = np.abs(np.fft.fft2(made)), np.hypot(k[:, None], k)
    ring = (radius > 0.03) & (radius < 0.15)
    expected = np.abs(np.fft.fft2(blob))
    seen = ring & (spectrum > 0.5 * expected)
    across, along = ((np.broadcast_to(v, seen.shape)[seen] ** 2).sum() for v in (k[None], k[:, None]))
    assert np.sqrt(across / along) == pytest.approx(missing_wedge(tilts).elongation, rel=0.05)


def test_a_wedge_is_what_lies_between_the_last_tilts():
    wedge = missing_wedge([40, -60, 0, 20, -40, -20])
    assert (wedge.angle_deg, wedge.largest_step_deg) == (80.0, 20.0)
    assert wedge.resolution_A(900.0) == pytest.approx(900 * np.pi / 9)
    whole = missing_wedge(np.arange(-90, 90, 3.0))
    assert (whole.angle_deg, whole.elongation) == (0.0, 1.0)
    assert str(whole) == "missing: no wedge"
    with pytest.raises(vg.InputError, match="two different tilts"):
        missing_wedge([0, 0])


def test_refusals(series, tmp_path):
    with pytest.raises(vg.InputError, match="3 images or more"):
        reconstruct_tilts(series[:2], TILTS[:2])
    with pytest.raises(vg.InputError, match="leave out 1 or more"):
        reconstruct_tilts(series, TILTS, TomogramSettings("icon"), check_tilts=0)
    with pytest.raises(vg.InputError, match="is not used by method sirt"):
        TomogramSettings("sirt", prior_weight=1.0)
    with pytest.warns(vg.VerglasWarning, match="now called prior_weight"):
        assert TomogramSettings("tv", tv_weight=2.0).prior_weight == 2.0
    empty = series.copy()
    empty[6] = 3.0
    with pytest.raises(vg.InputError, match="image 7 is the same everywhere"):
        reconstruct_tilts(empty, TILTS)
    bad = series.copy()
    bad[4, 0, 0] = np.nan
    with pytest.raises(vg.InputError, match="image 5 has values that are not finite"):
        reconstruct_tilts(bad, TILTS)
    with pytest.raises(vg.InputError, match="tilt axis is along y"):
        TomogramSettings("wbp", tilt_axis_deg=30.0)
    (tmp_path / "a.tlt").write_text("-60\nabc\n")
    with pytest.raises(vg.FormatError, match="line 2: expected an angle in degrees, got 'abc'"):
        read_tilt_angles(tmp_path / "a.tlt")
