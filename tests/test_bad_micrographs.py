"""Bad input to ctf, pick and extract: each file named, set aside and counted, the rest goes on."""

from __future__ import annotations

import csv
import json

import numpy as np
import pandas as pd
import pytest
import tifffile

import verglas as vg
from verglas import simulate

pytestmark = pytest.mark.usefixtures("blank_figures_of_module")

PIXEL = 3.0
# What the reason has to say of each bad file.
WORDS = {
    "cut.tif": "cut short",
    "rgb.tif": "pixels of 3 samples",
    "movie.tif": "4 frames: a movie",
    "nan.tif": "finite|nan",
    "zeros.tif": "constant|all pixels are 0",
    "empty.tif": "the file is empty",
    "movie.mrc": "3 images: a movie",
    "text.mrc": "MRC|mrc|header",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """One good micrograph, one whose header has another pixel size, and one of every kind of bad file."""
    path = tmp_path_factory.mktemp("bad")
    model = simulate.phantom(box=32, pixel_size_A=6.0, diameter_A=130, seed=1)
    m, truth = simulate.micrograph(model, shape=(600, 600), pixel_size_A=PIXEL, n=12, snr=0.3, defocus_u_A=15000.0)
    tifffile.imwrite(path / "good.tif", m.data)
    vg.io.write_stack(path / "other.mrc", m.data[None], 2.0)
    noise = np.random.default_rng(0).integers(0, 255, (600, 600)).astype(np.uint8)
    tifffile.imwrite(path / "cut.tif", noise, compression="zlib")
    whole = (path / "cut.tif").read_bytes()
    (path / "cut.tif").write_bytes(whole[: len(whole) // 2])
    tifffile.imwrite(path / "rgb.tif", np.zeros((600, 600, 3), np.uint8), photometric="rgb")
    tifffile.imwrite(path / "movie.tif", np.stack([m.data] * 4), photometric="minisblack")
    tifffile.imwrite(path / "nan.tif", np.full((600, 600), np.nan, np.float32))
    tifffile.imwrite(path / "zeros.tif", np.zeros((600, 600), np.float32))
    (path / "empty.tif").write_bytes(b"")
    vg.io.write_stack(path / "movie.mrc", np.stack([m.data] * 3), PIXEL)
    (path / "text.mrc").write_text("no micrograph\n" * 100)
    names = ["good.tif", "other.mrc", *WORDS]
    vg.io.write_picks(path / "truth.star", {n: vg.Picks(truth.picks.xy_px, n) for n in names}, one_file=True)
    return path


def assert_each_is_named(reasons):
    import re

    assert set(reasons) == set(WORDS)
    for name, words in WORDS.items():
        assert re.search(words, reasons[name]), (name, reasons[name])
        assert reasons[name].count(name) <= 1, reasons[name]


@pytest.mark.filterwarnings("ignore:.*other.mrc. pixel size 2 A in the file, 3 A used as asked")
def test_ctf_sets_aside_and_goes_on(folder, tmp_path, run):
    status, out, _ = run("ctf", folder, "--pixel-size", PIXEL, "--resolution", 30, 7, "-o", tmp_path / "o")
    assert status == 1  # the verdict of the set, eight tenths of which cannot be used, is to stop
    assert "2 of 10 micrographs fitted" in out
    assert out.count("set aside: ") == len(WORDS)
    assert "verdict: stop; 8 of 10 micrographs could not be used" in out
    table = pd.read_csv(tmp_path / "o" / "ctf.csv", keep_default_na=False)
    bad = table[table["reason"] != ""]
    assert_each_is_named({n.rpartition("/")[2]: r for n, r in zip(bad["micrograph"], bad["reason"], strict=True)})
    assert len(vg.io.read_micrographs(tmp_path / "o" / "micrographs_ctf.star")) == 2
    assert json.loads((tmp_path / "o" / "verdict.json").read_text())["verdict"]["state"] == "stop"


@pytest.mark.filterwarnings("ignore:.*other.mrc. pixel size 2 A in the file, 3 A used as asked")
def test_pick_sets_aside_and_goes_on(folder, tmp_path, run):
    status, out, _ = run("pick", folder, "--pixel-size", PIXEL, "-d", 130, "--method", "log", "-o", tmp_path)
    assert status == 1  # as of ctf
    assert "in 2 micrographs" in out
    assert out.count("set aside: ") == len(WORDS)
    found = json.loads((tmp_path / "verdict.json").read_text())
    assert_each_is_named({name.rpartition("/")[2]: reason for name, reason in found["set_aside"].items()})
    assert found["verdict"]["reasons"] == ["8 of 10 micrographs could not be used"]
    assert sorted(n.rpartition("/")[2] for n in vg.io.read_picks(tmp_path / "picks.star")) == ["good.tif", "other.mrc"]


@pytest.mark.filterwarnings("ignore:.*other.mrc. pixel size 2 A in the file, 3 A used as asked")
def test_extract_sets_aside_and_goes_on(folder, tmp_path, run):
    status, out, _ = run(
        "extract",
        folder,
        "--picks",
        folder / "truth.star",
        "--pixel-size",
        PIXEL,
        "--box",
        32,
        "--json",
        "-o",
        tmp_path,
    )
    assert status == 1  # as of ctf
    said = json.loads(out)
    assert said["particles"] + sum(said["excluded"].values()) == said["coordinates"] == 10 * 12
    with open(tmp_path / "excluded.csv") as handle:
        rows = [row for row in csv.DictReader(handle) if "beyond the edge" not in row["reason"]]
    assert len(rows) == 12 * len(WORDS)
    assert_each_is_named({row["micrograph"].rpartition("/")[2]: row["reason"] for row in rows})
    assert len(vg.read_particles(tmp_path / "particles.star")) == said["particles"] >= 20


def test_a_pixel_size_unlike_the_headers_is_said(folder):
    with pytest.warns(vg.VerglasWarning, match=r"other.mrc: pixel size 2 A in the file, 3 A used as asked"):
        vg.read_micrograph(folder / "other.mrc", PIXEL)


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (["ctf", "good.tif", "--pixel-size", "30"], "good.tif: pixels of 30 A hold rings down to 63.0 A only"),
        (["pick", "good.tif", "-d", "130", "--pixel-size", "30"], "good.tif: a particle of 130 A has 4.3 pixels"),
        (["pick", "good.tif", "-d", "130", "--pixel-size", "0.3"], "good.tif: a particle of 130 A is wider than half"),
        (["ctf", "good.tif"], "the pixel size is unknown; give pixel_size_A (--pixel-size)"),
        (["pick", "good.tif", "-d", "130"], "the pixel size is unknown; give pixel_size_A (--pixel-size)"),
        (["extract", "good.tif", "--picks", "truth.star", "--box", "32"], "give pixel_size_A (--pixel-size)"),
        (["ctf", "nothing", "--pixel-size", "3"], "nothing: no micrographs found; expected TIFF or MRC files"),
        (["pick", "nothing", "-d", "130"], "nothing: no micrographs found; expected TIFF or MRC files"),
        (["extract", "nothing", "--picks", "truth.star", "--box", "32"], "nothing: no micrographs found"),
        (["ctf", "movie.tif", "rgb.tif", "movie.mrc", "movie.tif.bz2", "--pixel-size", "3"], "a movie"),
        (["pick", "absent.tif", "-d", "130"], "none of 1 micrographs could be used: absent.tif: no such file"),
        (["ctf", "truth.star"], "truth.star: has rlnCoordinateX: these are particles or coordinates"),
    ],
)
def test_nothing_to_work_on_is_one_sentence(folder, tmp_path, run, monkeypatch, command, words):
    monkeypatch.chdir(folder)
    (folder / "nothing").mkdir(exist_ok=True)
    status, out, err = run(*command, "-o", tmp_path / "o")
    sentence = [line for line in err.splitlines() if line.startswith("verglas: ")]
    assert status == 1
    assert out == ""
    assert len(sentence) == 1
    assert words in sentence[0]
