"""``verglas pick``: files in, files out, bad ones set aside."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
from pages_again import check_page_again

import verglas as vg
from verglas import simulate
from verglas.assessment.micrographs import inverted_contrast
from verglas.errors import InputError
from verglas.picking import PickSettings, prepare
from verglas.picking.blob import contrast_skewness
from verglas.run.extract import Microscope
from verglas.run.pick import PickJob, pick_files
from verglas.run.report import rewrite_page


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two small micrographs of one model, a constant one, a truncated TIFF, and the true picks."""
    path = tmp_path_factory.mktemp("pick")
    model = simulate.phantom(box=32, pixel_size_A=6.0, diameter_A=130, seed=1)
    truth = {}
    for seed in range(2):
        m, t = simulate.micrograph(
            model, shape=(380, 380), pixel_size_A=6.0, n=30, snr=0.3, defocus_u_A=18000.0, seed=seed
        )
        vg.io.write_stack(path / f"m{seed}.mrc", m.data[None], 6.0)
        truth[f"m{seed}.mrc"] = vg.Picks(t.picks.xy_px, f"m{seed}.mrc")
    vg.io.write_stack(path / "zero.mrc", np.zeros((1, 380, 380), np.float32), 6.0)
    (path / "broken.tif").write_bytes(b"II*\0\x08\0\0\0")
    vg.io.write_picks(path / "truth.star", truth)
    return path


def test_files_picks_page_and_verdict(folder, tmp_path, capsys):
    job = PickJob(
        [str(folder / "*.mrc"), str(folder / "*.tif")],
        130.0,
        tmp_path,
        PickSettings("log"),
        Microscope(6.0),
        compare=folder / "truth.star",
    )
    summary = pick_files(job)
    assert set(summary.set_aside) == {str(folder / "zero.mrc"), str(folder / "broken.tif")}
    assert "all pixels are 0" in summary.set_aside[str(folder / "zero.mrc")]
    assert summary.verdict.state in ("warn", "stop")
    assert summary.merit is not None
    assert summary.merit.f_score > 0.9
    read = vg.io.read_picks(tmp_path / "picks.star")
    assert sorted(read) == [str(folder / f"m{i}.mrc") for i in range(2)]
    for name, picks in read.items():
        np.testing.assert_allclose(picks.xy_px, summary.picks[name].xy_px, atol=1e-6)
        assert np.all(np.diff(picks.columns["rlnAutopickFigureOfMerit"]) <= 0)
    assert len(list((tmp_path / "pictures").glob("*.jpg"))) == 2
    assert max(path.stat().st_size for path in (tmp_path / "pictures").iterdir()) < 150_000
    verdict = json.loads((tmp_path / "verdict.json").read_text())
    assert verdict["verdict"]["state"] == summary.verdict.state
    page = (tmp_path / "report.html").read_text()
    assert page.count("<tr>") >= 3
    assert "src=" not in page.replace('src="data:', "")  # nothing from elsewhere
    assert (tmp_path / "quality.csv").read_text().count("\n") == 3
    check_page_again(tmp_path, capsys)
    check_pictures_are_of_this_job(tmp_path)


def check_pictures_are_of_this_job(folder):
    """Pages show no pictures of an earlier job in the same folder, nor lose those of an earlier version in silence."""
    verdict = json.loads((folder / "verdict.json").read_text())
    record = json.loads((folder / "run.json").read_text())
    assert verdict.pop("pictures") is True
    (folder / "verdict.json").write_text(json.dumps({**verdict, "pictures": False}))
    assert "data:image/jpeg" in (folder / "report.html").read_text()
    assert "data:image/jpeg" not in rewrite_page(folder).read_text()
    (folder / "verdict.json").write_text(json.dumps(verdict))
    with pytest.raises(InputError, match="of a version that did not keep what the page shows"):
        rewrite_page(folder)
    (folder / "run.json").write_text(json.dumps({**record, "state": "running", "run_state": "running"}))
    with pytest.raises(InputError, match="this run of pick has not finished"):
        rewrite_page(folder)


@pytest.mark.slow
def test_one_worker_or_many_give_the_same(folder, tmp_path):
    found = []
    for threads in (1, 3):
        job = PickJob(
            [str(folder / "m*.mrc")],
            130.0,
            tmp_path / str(threads),
            PickSettings("log"),
            pictures=False,
            threads=threads,
        )
        pick_files(job)
        assert json.loads((job.out / "verdict.json").read_text())["pictures"] is False
        found.append((tmp_path / str(threads) / "picks.star").read_text())
    assert found[0] == found[1]


def test_nothing_usable_is_an_error(folder, tmp_path):
    with pytest.raises(InputError, match=r"none of 1 micrographs could be used: .*zero\.mrc: all pixels are 0"):
        pick_files(PickJob([str(folder / "zero.mrc")], 130.0, tmp_path))


def test_command_line(folder, tmp_path, run):
    out = ["-o", tmp_path / "o", "--method", "log", "--json", "--no-pictures"]
    command = ["pick", folder / "m0.mrc", "-d", "130", *out]
    status, output, errors = run(*command)
    assert status == 0, errors
    assert json.loads(output)["micrographs"] == 1
    assert run(*command, "--distance", "-3")[0] == 2


@pytest.mark.parametrize("value", ["2", "-1.01", "nan"])
def test_a_threshold_that_no_pick_can_have_is_refused(folder, tmp_path, capsys, value):
    from verglas.cli.app import main

    with pytest.raises(SystemExit) as status:
        main(
            ["pick", str(folder / "m0.mrc"), "--diameter", "130", f"--threshold={value}", "--out", str(tmp_path / "o")]
        )
    assert status.value.code == 2
    assert "from -1 to 1" in capsys.readouterr().err
    assert not (tmp_path / "o").exists()
    with pytest.raises(InputError, match="leave it out to have it found in each micrograph"):
        PickSettings(threshold=float(value))
    assert value == "nan" or PickSettings("log", learn=False, threshold=float(value)).threshold == float(value)


def test_a_threshold_that_no_pick_reaches_is_named(folder, tmp_path):
    job = PickJob([str(folder / "m0.mrc")], 130.0, tmp_path, PickSettings("log", threshold=0.99), Microscope(6.0))
    verdict = pick_files(job).verdict
    assert verdict.state == "stop"
    best = re.search(r"no candidate has a figure of merit of 0.99 \(the highest is (0\.\d\d)\)", verdict.reasons[0])
    assert best is not None
    assert 0.2 < float(best[1]) < 0.99


def test_micrographs_of_the_other_contrast_are_told(folder, tmp_path):
    """Three of them: fewer say nothing of a set."""
    data = [vg.io.read_micrograph(folder / f"m{number}.mrc", 6.0).data[:260, :260] for number in (0, 1)]
    data.append(data[0][::-1])
    for number, one in enumerate(data):
        vg.io.write_stack(tmp_path / f"inverted{number}.mrc", -one[None], 6.0)
    settings = PickSettings("log")
    job = PickJob([f"{tmp_path}/*.mrc"], 130.0, tmp_path / "out", settings, Microscope(6.0), pictures=False)
    verdict = pick_files(job, listener=None).verdict
    assert "bright in 3 of 3 micrographs" in verdict["inverted"].sentence
    for sign, white in ((1, False), (-1, True)):
        small = [prepare(vg.Micrograph(sign * one, 6.0), 130.0, white=white) for one in data]
        assert inverted_contrast([contrast_skewness(one) for one in small]) == []
