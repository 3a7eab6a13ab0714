"""verglas fsc, mask and resample: files in, files and numbers out."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import verglas as vg
from verglas import image, masks
from verglas.io import read_stack, write_stack


@pytest.fixture
def maps(tmp_path):
    """Two half maps with signal to about a third of the way to Nyquist, box 32, 1.5 A."""
    rng = np.random.default_rng(0)
    signal = vg.filters.apply(vg.Map(rng.normal(size=(32, 32, 32)), 1.5), vg.filters.low_pass(7.0, 0.05)).data
    paths = []
    for name in ("a.mrc", "b.mrc"):
        noisy = signal + 0.05 * rng.normal(size=signal.shape).astype(np.float32)
        vg.write_map(tmp_path / name, vg.Map(noisy, 1.5))
        paths.append(tmp_path / name)
    return paths


def test_fsc_json_equals_the_function(run, maps, tmp_path):
    mask = tmp_path / "mask.mrc"
    vg.write_map(mask, vg.Map(masks.soft_sphere(32, 10, 4), 1.5))
    figure = tmp_path / "fsc.png"
    status, out, _ = run("fsc", *maps, "--mask", mask, "--json", "--plot", figure)
    found = json.loads(out)
    want = vg.fsc(vg.read_map(maps[0]), vg.read_map(maps[1]), vg.read_map(mask))
    assert status == 0
    assert found["resolution_A"] == pytest.approx(want.resolution_A())
    assert found["resolutions_A"] == pytest.approx(want.resolutions_A())
    assert found["fsc"] == pytest.approx(want.curve.tolist())
    assert found["frequency_per_A"] == pytest.approx(want.frequency_per_A.tolist())
    assert not found["limited_by_sampling"]
    assert figure.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


def test_fsc_text_says_what_was_found(run, maps, tmp_path):
    resolution = vg.fsc(vg.read_map(maps[0]), vg.read_map(maps[1])).resolution_A(0.5)
    first, every = run("fsc", *maps, "--threshold", 0.5)[1].splitlines()
    assert first == f"{resolution:.2f} A at FSC 0.5 (unmasked)"
    assert every.startswith(f"by threshold: 0.5 {resolution:.2f} A, 1/3 ")
    assert [part.split()[0] for part in every[14:].split(", ")] == [
        "0.5",
        "1/3",
        "0.143",
        "half-bit",
        "5sigma",
        "3sigma",
        "2sigma",
    ]
    status, _, error = run("fsc", maps[0], maps[0])
    assert status == 1
    assert f"{maps[0]} and {maps[0]} are identical" in error
    blurred = tmp_path / "blurred.mrc"
    vg.write_map(blurred, vg.filters.apply(vg.read_map(maps[0]), vg.filters.b_factor(20.0)))
    assert "or better" in run("fsc", maps[0], blurred)[1]
    noise = tmp_path / "noise.mrc"
    vg.write_map(noise, vg.Map(-vg.read_map(maps[0]).data, 1.5))
    assert "no resolution" in run("fsc", maps[0], noise)[1]
    assert json.loads(run("fsc", maps[0], noise, "--json")[1])["resolution_A"] is None


def test_phase_residual_is_that_of_the_function(run, maps):
    want = vg.assessment.differential_phase_residual(*map(vg.read_map, maps))
    last = run("fsc", *maps, "--phase-residual")[1].splitlines()[-1]
    assert last.startswith(f"by phase residual: 45 degrees {want.resolution_A():.2f} A, 85 degrees ")
    found = json.loads(run("fsc", *maps, "--phase-residual", "--json")[1])
    assert found["fsc"] == pytest.approx(want.fsc.curve.tolist())
    assert found["phase_residual"]["residual_deg"] == pytest.approx(want.residual_deg.tolist())
    assert found["phase_residual"]["beyond_chance_A"] == pytest.approx(want.resolution_A(want.noise_bound_deg()))
    assert run("fsc", *maps, "--phase-residual", "--hands")[0] == 2


def test_fsc_says_which_thresholds_a_tiny_box_under_a_high_symmetry_cannot_test(run, tmp_path):
    rng, paths = np.random.default_rng(0), [tmp_path / "first.mrc", tmp_path / "second.mrc"]
    density = rng.normal(size=(16, 16, 16))
    for path in paths:
        vg.write_map(path, vg.Map(density + 0.1 * rng.normal(size=density.shape), 2.0))
    text = run("fsc", *paths, "--symmetry", "O", "--threshold", 0.5)[1]
    assert "5sigma not testable (too few voxels in every shell), 3sigma 4.00 A" in text
    found = json.loads(run("fsc", *paths, "--symmetry", "O", "--json")[1])
    assert (found["untestable_thresholds"], found["resolutions_A"]["5sigma"]) == (["5sigma"], None)


def test_fsc_failures_are_one_line_and_name_the_files(run, maps, tmp_path):
    other = tmp_path / "other.mrc"
    vg.write_map(other, vg.Map(np.ones((16, 16, 16)), 1.5))
    status, _, error = run("fsc", maps[0], other)
    assert status == 1
    assert error.count("\n") == 1
    assert str(other) in error
    assert "(16, 16, 16)" in error
    vg.write_map(other, vg.Map(np.ones((32, 32, 32)), 1.6))
    status, _, error = run("fsc", maps[0], other)
    assert (status, "1.5 and 1.6 A" in error) == (1, True)
    status, _, error = run("fsc", maps[0], tmp_path / "absent.mrc")
    assert (status, "absent.mrc" in error) == (1, True)


def test_what_contradicts_itself_is_said(run, maps, tmp_path):
    """Maps of different places, a mask of everything, projections of another sampling: each went without a word."""
    moved, volume = tmp_path / "moved.mrc", vg.read_map(maps[1])
    vg.write_map(moved, vg.Map(volume.data, 1.5, (15.0, 0.0, 0.0)))
    _, _, error = run("fsc", maps[0], moved)
    assert "their headers place them 15 A apart" in error
    status, _, error = run("fsc", maps[0], maps[1])
    assert (status, error) == (0, "")
    _, _, error = run("mask", maps[0], "--threshold", -1e9, "-o", tmp_path / "all.mrc")
    assert "holds 100.0 % of the box" in error
    particles = vg.Particles.from_images(np.zeros((2, 32, 32)), 3.0, poses=vg.Poses(np.zeros((2, 3))))
    vg.write_particles(tmp_path / "p.star", particles)
    views = tmp_path / "v.mrcs"
    status, _, error = run("project", maps[0], "--particles", tmp_path / "p.star", "--no-ctf", "-o", views)
    assert (status, "has 1.5 A/px, the images of" in error) == (0, True)
    status, _, error = run("check-bias", tmp_path / "p.star", "--reference", maps[0])
    assert (status, "has 1.5 A/px, the particles 3" in error) == (1, True)


def test_mask_sphere(run, maps, tmp_path):
    out = tmp_path / "m.mrc"
    status, text, _ = run("mask", maps[0], "--diameter", 24, "--soft-edge", 6, "--out", out, "--json")
    made = vg.read_map(out)
    assert status == 0
    assert np.array_equal(made.data, masks.soft_sphere(32, 8, 4))
    assert made.pixel_size_A == 1.5
    assert json.loads(text)["volume_A3"] == pytest.approx(made.data.sum() * 1.5**3, rel=1e-5)


def test_mask_from_threshold(run, tmp_path):
    data = np.zeros((24, 24, 24), np.float32)
    data[8:16, 8:16, 8:16] = 1
    data[2, 2, 2] = 5
    source, out = tmp_path / "map.mrc", tmp_path / "m.mrc"
    vg.write_map(source, vg.Map(data, 2.0, (1.0, 2.0, 3.0)))
    status, _, _ = run("mask", source, "--threshold", 0.5, "--extend", 2, "--soft-edge", 6, "--largest", "-o", out)
    made = vg.read_map(out)
    assert status == 0
    np.testing.assert_allclose(made.data, masks.from_threshold(data, 0.5, extend_px=1, edge_px=3, largest=True))
    assert made.origin_A == pytest.approx((1, 2, 3))
    status, _, error = run("mask", source, "--threshold", 9, "-o", out)
    assert status == 1
    assert "range from 0 to 5" in error


def test_resample_map_exactly_and_says_the_realised_size(run, maps, tmp_path):
    out = tmp_path / "small.mrc"
    status, text, _ = run("resample", maps[0], out, "--new-pixel-size", 2.0, "--new-box", 30, "--json")
    plan = json.loads(text)
    assert status == 0
    assert plan["exact"] is True
    got = vg.read_map(out)
    assert (got.box, got.pixel_size_A) == (30, pytest.approx(2.0))
    want = image.resample(vg.read_map(maps[0]), image.plan_resample(32, 1.5, 2.0, 30))
    np.testing.assert_allclose(got.data, want.data, atol=1e-6)
    status, text, _ = run("resample", maps[0], out, "--new-pixel-size", 2.01, "--new-box", 30)
    assert status == 0
    assert "is the nearest that fits" in text
    assert f"{vg.read_map(out).pixel_size_A:.6g} A" in text


def test_resample_refuses_what_the_sampling_cannot_hold(run, maps, tmp_path):
    out = tmp_path / "small.mrc"
    status, _, error = run("resample", maps[0], out, "--new-pixel-size", 3.0, "--resolution", 5)
    assert status == 1
    assert "coarser than 6 A" in error
    assert not out.exists()


def test_resample_stack(run, tmp_path):
    images = np.random.default_rng(0).normal(size=(5, 16, 16)).astype(np.float32)
    source, out = tmp_path / "a.mrcs", tmp_path / "b.mrcs"
    write_stack(source, images, 1.25)
    status, _, _ = run("resample", source, out, "--new-box", 8)
    assert status == 0
    np.testing.assert_allclose(read_stack(out), image.fourier_resample(images, (8, 8)), atol=1e-6)


@pytest.mark.parametrize("name", ["relion31.star", "sample_particles_relion30.star", "empiar_10076_7.cs"])
def test_resample_particles_keeps_everything_in_angstrom(run, data_dir, tmp_path, name):
    source = data_dir / "particles" / name
    before = vg.read_particles(source)
    box = before.box // 2
    out = tmp_path / f"small{source.suffix}"
    status, text, error = run("resample", source, out, "--new-box", box, "--json")
    assert status == 0, error
    after = vg.read_particles(out)
    assert len(after) == len(before)
    assert after.box == box
    assert after.pixel_size_A == pytest.approx(before.pixel_size_A * before.box / box)
    assert json.loads(text)["pixel_size_A"] == pytest.approx(after.pixel_size_A)
    want = image.fourier_resample(before.images(), (box, box))
    np.testing.assert_allclose(after.images(), want, atol=1e-5 * np.abs(want).max())
    if before.poses is not None:
        np.testing.assert_allclose(after.poses.angles_deg, before.poses.angles_deg, atol=1e-4)
        np.testing.assert_allclose(after.poses.shifts_A, before.poses.shifts_A, atol=1e-4)
    for column in ("rlnCoordinateX", "rlnDefocusU"):
        if column in before.table:
            np.testing.assert_allclose(after.table[column], before.table[column], rtol=1e-6)
    assert set(before.table.columns) <= set(after.table.columns)


def test_resample_particles_is_lazy_and_refuses_a_foreign_plan():
    p = vg.Particles.from_images(np.random.default_rng(0).normal(size=(4, 12, 12)), 2.0)
    small = image.resample_particles(p, image.plan_resample(12, 2.0, new_box=6))
    np.testing.assert_allclose(small[[2]].images()[0], image.fourier_resample(p.images([2]), (6, 6))[0], atol=1e-6)
    with pytest.raises(vg.InputError, match="plan is for 16"):
        image.resample_particles(p, image.plan_resample(16, 2.0, new_box=6))
    with pytest.raises(vg.InputError, match="plan is for 1 A"):
        image.resample_particles(p, image.plan_resample(12, 1.0, new_box=6))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("fsc", "a.mrc", "b.mrc", "--threshold", "2"), "--threshold"),
        (("fsc", "a.mrc", "b.mrc", "--plot", "x.gif"), "--plot"),
        (("fsc", "a.mrc"), "issing argument"),
        (("mask", "a.mrc", "-o", "m.mrc"), "--diameter or --threshold"),
        (("mask", "a.mrc", "-o", "m.mrc", "--diameter", "-3"), "--diameter"),
        (("mask", "a.mrc", "-o", "m.mrc", "--diameter", "3", "--largest"), "--threshold"),
        (("resample", "a.mrc", "b.mrc"), "--new-pixel-size, --new-box"),
        (("resample", "a.mrc", "b.mrc", "--new-pixel-size", "0"), "--new-pixel-size"),
        (("resample", "a.star", "b.star", "--new-box", "8", "--old-pixel-size", "2"), "--old-pixel-size"),
    ],
)
def test_usage_errors_exit_with_2(run, arguments, words):
    status, _, error = run(*arguments)
    assert status == 2
    assert words in error


def test_kinds_do_not_mix(run, tmp_path):
    status, _, error = run("resample", Path("a.star"), tmp_path / "b.mrc", "--new-box", 8)
    assert status == 1
    assert "same kind" in error


@pytest.mark.parametrize("command", ["fsc", "mask", "resample"])
def test_help_has_units_and_an_example(run, command):
    status, out, _ = run(command, "--help")
    assert status == 0
    assert "Example" in out
    assert "A." in out


def test_ssnr_is_that_of_the_function(run, maps):
    want = vg.assessment.spectral_f(np.stack([vg.read_map(path).data for path in maps]))
    status, printed, _ = run("fsc", *maps, "--ssnr")
    assert status == 0
    assert printed.splitlines()[-1].startswith("by the F statistic of the two: SSNR 1 ")
    found = json.loads(run("fsc", *maps, "--ssnr", "--json")[1])["ssnr"]
    assert found["f"] == pytest.approx(want.f.tolist())
    assert found["of_mean"] == pytest.approx(want.ssnr_of_mean.tolist())
    for more in (("--mask", maps[0]), ("--hands",), ("--symmetry", "C2")):
        assert run("fsc", *maps, "--ssnr", *more)[0] == 2


def test_a_mask_that_reaches_the_faces_of_the_box_is_told(run, tmp_path):
    """A threshold in the noise, or a map of inverted contrast."""
    density = vg.simulate.density(vg.simulate.phantom(32, 4.0, 80.0), 32, 4.0)
    for name, sign in (("map", 1), ("dark", -1)):
        vg.write_map(tmp_path / f"{name}.mrc", vg.Map(sign * density.data, 4.0))
    level = float(0.3 * density.data.max())
    status, _, error = run("mask", tmp_path / "dark.mrc", "-o", tmp_path / "m.mrc", "--threshold", -level / 30)
    assert (status, "of the faces of the box" in error) == (0, True)
    assert run("mask", tmp_path / "map.mrc", "-o", tmp_path / "m.mrc", "--threshold", level)[2] == ""
