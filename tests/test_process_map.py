"""``verglas process --to map`` on simulated micrographs: from pixels to a map of the planted structure."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import time
from dataclasses import replace

import pytest
from process_set import DIAMETER_A, GIVEN, OPTIONS, PIXEL_A, command, environment, scene

import verglas as vg
from verglas import simulate
from verglas.map_geometry.hand import flip_hand
from verglas.map_geometry.map_alignment import align_maps

pytestmark = pytest.mark.drawn

QUICK = {"class2d.iterations": 8, "abinitio.starts": 2, "abinitio.iterations": 15, "refine.iterations": 5}
STAGES = ["ctf", "pick", "extract", "centre", "class2d", "abinitio", "refine"]
FINISHING = [f"{name}{number}" for number in ("", "_2", "_3") for name in ("ctf_refine", "refine_ctf")]


@pytest.fixture(scope="module")
def micrographs(tmp_path_factory):
    """Eight micrographs with 60 particles each of a D2 phantom, and its map."""
    folder = tmp_path_factory.mktemp("mics")
    model = simulate.phantom(32, 6.0, DIAMETER_A, "D2", 3)
    for seed in range(8):
        m, _ = scene(seed, model, snr=1.0, n=60, shape=(760, 760), b_factor_A2=40.0)
        vg.io.write_stack(folder / f"m{seed}.mrc", m.data[None], PIXEL_A)
    return folder, simulate.density(model, 60, PIXEL_A, b_factor_A2=40.0)


@pytest.mark.slow
def test_micrographs_to_a_map(micrographs, tmp_path):
    folder, truth = micrographs
    root = tmp_path / "proj"
    done = vg.process(root, micrographs=[str(folder)], to="map", symmetry="D2", classes=4, set=QUICK, **GIVEN)
    assert not done.stopped
    assert [r.name for r in done.records] == [*STAGES, *FINISHING, "postprocess"]
    assert all(r.verdict.state in ("go on", "warn") for r in done.records)
    found = done.summary()
    assert found["resolution_A"] < 8.5
    volume = vg.read_map(root / "refine/map.mrc")
    fits = [
        align_maps(truth, replace(volume, data=data), max_radius=16) for data in (volume.data, flip_hand(volume.data))
    ]
    best = max(fits, key=lambda fit: fit.correlation)
    mask = vg.read_map(root / "refine/mask.mrc").data
    assert vg.fsc(best.map, truth, mask).resolution_A(0.5) < 12
    for picture in ("class2d/classes.png", "abinitio/map.png", "refine/fsc.png", "postprocess/map.png"):
        assert (root / picture).stat().st_size > 5000
    page = (root / "report.html").read_text()
    assert "refine/report.html" in page
    # one stage with other settings: what precedes it stands, what follows is done again
    less = vg.process(root, redo=["refine"], set={"refine.max_resolution_A": 12.0}, threads=1)
    assert [r.done_before for r in less.records] == [True] * 6 + [False] * (2 + len(FINISHING))
    assert less.summary()["resolution_A"] >= 12 * 0.999
    assert (root / "refine.before/map.mrc").is_file()


@pytest.mark.slow
def test_killed_in_the_refinement_it_goes_on_from_its_last_iteration(micrographs, tmp_path):
    """The half maps are bit for bit those of a refinement that was left alone."""
    folder, truth = micrographs
    first, second = tmp_path / "whole", tmp_path / "killed"
    start = tmp_path / "start.mrc"
    vg.write_map(start, vg.filters.apply(truth, vg.filters.low_pass(30.0)))
    vg.process(first, micrographs=[str(folder)], to="classes", symmetry="D2", classes=4, set=QUICK, **GIVEN)
    shutil.copytree(first, second)
    whole = vg.process(first, to="map", reference=str(start), finish=False, threads=1)
    assert [r.name for r in whole.records] == [*STAGES[:5], "refine", "postprocess"]  # no model ab initio
    child = subprocess.Popen(
        command("--to", "map", "--no-finish", "--reference", start, "--out", second, *OPTIONS),
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    table, deadline = second / "refine/iterations.csv", time.monotonic() + 300
    while not table.is_file() and child.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    child.send_signal(signal.SIGKILL)
    child.wait()
    assert json.loads((second / "refine/stage.json").read_text())["state"] == "running"
    done = vg.process(second, threads=1)
    assert not done.stopped
    assert [r.done_before for r in done.records] == [True] * 5 + [False] * 2
    for name in ("half1.mrc", "half2.mrc"):
        mine, theirs = (vg.read_map(root / "refine" / name).data for root in (first, second))
        assert (mine == theirs).all()
