"""verglas postprocess: half maps in, maps, tables and a page out; what is wrong is said in one line."""

from __future__ import annotations

import json
import re

import mrcfile
import numpy as np
import pandas as pd
import pytest

import verglas as vg
from verglas import io
from verglas.cli.refine import _resolution
from verglas.errors import FormatError
from verglas.report.assessed import Assessed, read_assessed
from verglas.run.postprocess import read_mtf

pytestmark = pytest.mark.drawn


@pytest.fixture(scope="module")
def maps(tmp_path_factory):
    folder = tmp_path_factory.mktemp("maps")
    truth = vg.simulate.density(vg.simulate.phantom(40, 2.0, 60.0, seed=3), 40, 2.0, b_factor_A2=100.0)
    rng = np.random.default_rng(0)
    for number in (1, 2):
        noisy = truth.with_data(truth.data + 2 * truth.data.std() * rng.normal(size=truth.data.shape))
        vg.write_map(folder / f"half{number}.mrc", noisy)
    return folder / "half1.mrc", folder / "half2.mrc"


@pytest.mark.usefixtures("blank_figures")
def test_files_hold_what_the_function_gives(run, maps, tmp_path):
    out = tmp_path / "post"
    status, text, _ = run("postprocess", *maps, "--out", out, "--symmetry", "C2", "--json")
    found = json.loads(text)
    settings = vg.assessment.PostprocessSettings(symmetry="C2")
    want = vg.postprocess(*(vg.read_map(m) for m in maps), settings=settings)
    assert status == 0
    assert found["resolution_A"] == pytest.approx(want.resolution_A)
    assert found["b_factor_A2"] == pytest.approx(want.b_factor_A2)
    assert sorted(p.name for p in out.iterdir()) == [
        "fsc.csv",
        "guinier.csv",
        "map.mrc",
        "map_sharpened.mrc",
        "mask.mrc",
        "postprocess.json",
        "report.html",
    ]
    assert np.array_equal(vg.read_map(out / "map_sharpened.mrc").data, want.sharpened.data)
    assert np.array_equal(vg.read_map(out / "mask.mrc").data, want.mask.data)
    table = pd.read_csv(out / "fsc.csv")
    names = ["frequency_per_A", "unmasked", "masked", "phase_randomised", "corrected"]
    assert list(table.columns[:5]) == names
    for name, curve in want.curves.items():
        np.testing.assert_allclose(table[name.replace("-", "_")], curve.curve, atol=1e-6)
    points = pd.read_csv(out / "guinier.csv")
    assert list(points.columns) == ["s2_per_A2", "ln_amplitude", "ln_weighted", "fit"]
    np.testing.assert_allclose(points["fit"], want.guinier.fit, rtol=1e-5)


@pytest.mark.usefixtures("blank_figures")
def test_what_is_read_back_is_what_was_written(run, maps, tmp_path):
    run("postprocess", *maps, "--out", tmp_path)
    found = read_assessed(tmp_path)
    want = vg.postprocess(*(vg.read_map(m) for m in maps))
    assert found.resolution_A == pytest.approx(want.resolution_A)
    for key, name in (("unmasked", "unmasked"), ("masked", "masked"), ("corrected", "corrected")):
        for kind in (0.143, "half-bit", "3sigma"):
            assert found.curves[key].resolution_A(kind) == pytest.approx(want.curves[name].resolution_A(kind), rel=1e-4)
    np.testing.assert_allclose(found.guinier.fit, want.guinier.fit, rtol=1e-5)
    assert read_assessed(tmp_path / "nowhere") is None


@pytest.mark.parametrize(("claimed", "shown"), [(5.0, {}), (6.0, {"to be stated": "6.00 Å"}), (None, {})])
def test_a_page_says_what_to_state_where_it_is_coarser(claimed, shown):
    assert Assessed({}, None, {"resolution_A": 5.0, "claimed_resolution_A": claimed}).claim == shown


def test_page_has_its_figures_and_the_number(run, maps, tmp_path):
    _, text, _ = run("postprocess", *maps, "--out", tmp_path)
    page = (tmp_path / "report.html").read_text()
    said = json.loads((tmp_path / "postprocess.json").read_text())
    resolution, claimed = said["resolution_A"], said["claimed_resolution_A"]
    assert (f"state {claimed:.2f} A: so few voxels" in text) == ("to be stated" in page) == (claimed > resolution)
    assert f"resolution: {resolution:.2f} A (corrected FSC = 0.143; chance in the shells alone: " in text
    assert f"{resolution:.2f} Å" in page
    assert re.findall("data:image/(png|jpeg);base64", page) == ["png", "jpeg"]  # a plot; slices
    assert "http-equiv" not in page
    (tmp_path / "report.html").unlink()
    assert run("report", tmp_path)[:2] == (0, f"{tmp_path / 'report.html'}\n")
    strip = re.compile("<footer>.*")
    assert strip.sub("", (tmp_path / "report.html").read_text()) == strip.sub("", page)


def test_maps_that_agree_to_the_end_are_written_without_a_random_curve(run, maps, tmp_path):
    blurred = tmp_path / "blurred.mrc"
    vg.write_map(blurred, vg.filters.apply(vg.read_map(maps[0]), vg.filters.b_factor(20.0)))
    status, _, error = run("postprocess", maps[0], blurred, "--out", tmp_path)
    assert status == 0
    assert "the masked curve is not corrected" in error
    assert pd.read_csv(tmp_path / "fsc.csv")["phase_randomised"].isna().all()
    assert set(read_assessed(tmp_path).curves) == {"unmasked", "masked", "corrected"}
    page = (tmp_path / "report.html").read_text()
    assert "no correction was made" in page


@pytest.mark.usefixtures("blank_figures")
def test_mask_b_factor_and_mtf_are_used(run, maps, tmp_path):
    mask = tmp_path / "mask.mrc"
    vg.write_map(mask, vg.Map(vg.masks.soft_sphere(40, 14, 4), 2.0))
    frequency = np.linspace(0, 0.5, 11)
    mtf = pd.DataFrame({"rlnResolutionInversePixel": frequency, "rlnMtfValue": 1 - frequency})
    io.write_star(tmp_path / "mtf.star", {"": mtf})
    arguments = ("--mask", mask, "--b-factor", 55, "--mtf", tmp_path / "mtf.star", "--mtf-pixel-size", 1.0, "--json")
    status, text, _ = run("postprocess", *maps, "--out", tmp_path / "a", *arguments)
    found = json.loads(text)
    assert status == 0
    assert found["b_factor_A2"] == 55
    assert found["mask"]["source"] == "given"
    np.savetxt(tmp_path / "mtf.txt", mtf.to_numpy())
    for path in (tmp_path / "mtf.star", tmp_path / "mtf.txt"):
        np.testing.assert_allclose(read_mtf(path, 1.0)(np.array([0.0, 0.25])), [1, 0.75])
    plain = json.loads(run("postprocess", *maps, "--out", tmp_path / "b", "--mask", mask, "--json")[1])
    assert found["fitted_b_factor_A2"] < plain["fitted_b_factor_A2"]


def test_failures_are_one_line_and_name_the_files(run, maps, tmp_path):
    other = tmp_path / "other.mrc"
    vg.write_map(other, vg.Map(np.ones((16, 16, 16)), 2.0))
    for arguments, words in (
        ((maps[0], other), ["other.mrc", "(16, 16, 16)"]),
        ((*maps, "--mask", other), ["other.mrc", "(40, 40, 40)"]),
        ((maps[0], tmp_path / "absent.mrc"), ["absent.mrc"]),
        ((*maps, "--mtf", other), ["other.mrc", "two columns"]),
    ):
        status, _, error = run("postprocess", *arguments, "--out", tmp_path / "x")
        assert status == 1
        assert error.strip().count("\n") == 0
        assert all(word in error for word in words)
    vg.write_map(other, vg.read_map(maps[0]))
    with mrcfile.mmap(other, mode="r+") as handle:
        handle.data[3, 4, 5] = np.nan
    assert "1 voxels are not finite" in run("postprocess", maps[0], other, "--out", tmp_path / "x")[2]
    for arguments in (("--b-factor", -80), ("--lowpass", 0), ("--fit-from", -1)):
        status, _, error = run("postprocess", *maps, "--out", tmp_path / "x", *arguments)
        assert status == 2
    assert "to sharpen by -80 give 80" in " ".join(run("postprocess", *maps, "-o", "x", "--b-factor", -80)[2].split())


def test_tables_of_a_run_folder(tmp_path):
    io.write_csv(tmp_path / "t.csv", {"a": [1]})
    with pytest.raises(FormatError, match="no column 'b'; found a"):
        io.read_csv(tmp_path / "t.csv", ("a", "b"))
    (tmp_path / "empty.csv").write_text("")
    with pytest.raises(FormatError, match="not a CSV table"):
        io.read_csv(tmp_path / "empty.csv")
    (tmp_path / "r.json").write_text("[1]")
    with pytest.raises(FormatError, match="expected a JSON object, got list"):
        io.read_json(tmp_path / "r.json")
    with pytest.raises(ValueError):
        io.write_json(tmp_path / "n.json", {"x": float("nan")})
    assert not (tmp_path / "n.json").exists()


def test_sample_of_a_large_star_file(tmp_path):
    n = 30_000
    table = pd.DataFrame({"rlnAngleRot": np.arange(n) * 0.01, "rlnClassNumber": np.arange(n) % 3 + 1})
    io.write_star(tmp_path / "p.star", {"optics": pd.DataFrame({"rlnVoltage": [300.0]}), "particles": table})
    tables, rows = io.sample_star(tmp_path / "p.star", most=2000)
    assert rows == n
    found = tables["particles"]
    assert 1800 < len(found) < 2200
    index = np.rint(found["rlnAngleRot"].to_numpy() / 0.01).astype(int)
    assert np.all(np.diff(index) > 0)
    assert np.array_equal(found["rlnClassNumber"], index % 3 + 1)
    assert np.histogram(index, 10, (0, n))[0].min() > 100  # from everywhere in the file
    assert len(io.sample_star(tmp_path / "p.star")[0]["particles"]) == n


@pytest.mark.parametrize(
    ("crossing", "claimed", "words"),
    [
        (8.0, 8.0, "8.00 A (FSC 0.143"),
        (8.0, 8.6, "to be stated 8.60 A, crossing at 8.00 A"),
        (8.0, None, "cannot be stated"),
        (None, None, "no resolution"),
    ],
)
def test_the_last_line_of_a_refinement_says_what_to_state(crossing, claimed, words):
    assert _resolution({"resolution_A": crossing, "claimed_resolution_A": claimed}).startswith(words)
