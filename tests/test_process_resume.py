"""A project stopped inside 2D classification, and inside the ab initio reconstruction, goes on inside the stage."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from process_set import GIVEN, write_set

import verglas as vg
from verglas.errors import InputError
from verglas.types.listener import Silence

QUICK = {
    "class2d.iterations": 2,
    "extract.edge": "fill",
    "abinitio.starts": 1,
    "abinitio.iterations": 5,
    "abinitio.full_iterations": 1,
    "refine.iterations": 1,
}


class Stop(Exception):
    """What ends a run in this test."""


class Told(Silence):
    """Keeps what is said; stops at a line, or at a moment of a stage."""

    def __init__(self, line="never", moment=None):
        self.line, self.moment, self.said, self.seen = line, moment, [], []

    def say(self, line):
        self.said.append(line)
        if self.line in line:
            raise Stop

    def progress(self, stage, done, total):
        self.seen.append((stage, done))
        if (stage, done) == self.moment:
            raise Stop


@pytest.mark.slow
def test_stages_go_on_where_they_were_stopped(tmp_path, monkeypatch):
    monkeypatch.setattr("verglas.run.checkpoint._COST", 0)
    write_set(tmp_path, 3)
    first = tmp_path / "whole"
    vg.process(first, micrographs=[f"{tmp_path}/*.mrc"], set={"extract.edge": "fill"}, **GIVEN)
    shutil.copytree(first, tmp_path / "stopped")
    asked = {"classes": 2, "to": "classes", "set": QUICK, "force": True, "threads": 1}
    vg.process(first, **asked)
    second = tmp_path / "stopped"
    with pytest.raises(Stop):
        vg.process(second, listener=Told("seeds grouped"), **asked)
    folder = second / "class2d"
    assert json.loads((folder / "stage.json").read_text())["state"] == "running"
    assert (folder / "checkpoint/state.npz").is_file()
    told = Told()
    vg.process(second, listener=told, **asked)
    assert any(line.startswith("class2d: ") and "goes on from the checkpoint" in line for line in told.said)
    record = json.loads((folder / "summary.json").read_text())["record"]
    assert [line["number"] for line in record] == list(range(1, len(record) + 1))
    for name in ("classes.star", "particles.star"):
        one, two = ((root / "class2d" / name).read_text() for root in (first, second))
        assert one.replace(str(first), "") == two.replace(str(second), "")
    assert not (folder / "checkpoint").exists()

    # The verdict of a refinement of some 75 particles does not matter here: both end after the ab initio map.
    monkeypatch.setattr("verglas.pipeline.maps.refine", stop)
    with pytest.raises(Stop):
        vg.process(first, to="map", force=True, threads=1)
    with pytest.raises(Stop):
        vg.process(second, listener=Told(moment=("abinitio, start 1 of 1", 3)), to="map", force=True, threads=1)
    assert (second / "abinitio/checkpoint/start1.npz").is_file()
    told = Told()
    with pytest.raises(Stop):
        vg.process(second, listener=told, force=True, threads=1)
    assert [done for stage, done in told.seen if stage.startswith("abinitio, start")] == [4, 5, 6]
    one, two = (vg.read_map(root / "abinitio/map.mrc").data for root in (first, second))
    assert np.array_equal(one, two)
    with pytest.raises(InputError, match="--redo abinitio"):
        vg.process(second, set={"abinitio.starts": 2}, force=True, threads=1)


def stop(*_, **__):
    raise Stop
