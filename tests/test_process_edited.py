"""Picks changed in the window, and areas left out there, through a whole project of ``process``."""

from __future__ import annotations

import numpy as np
import pytest
from command_line import main
from process_set import GIVEN, write_set
from window_client import Client

import verglas as vg

pytest.importorskip("starlette")


@pytest.mark.slow
def test_a_project_takes_edited_picks_and_areas_left_out(tmp_path, capsys, blank_figures):
    (tmp_path / "mics").mkdir()
    write_set(tmp_path / "mics", 2)
    done = vg.process(tmp_path / "proj", micrographs=[f"{tmp_path}/mics/*.mrc"], **GIVEN)
    before = {p.name: p.stat().st_mtime_ns for p in (tmp_path / "proj/extract/stacks").glob("*")}
    names = vg.read_particles(done.particles).table["rlnMicrographName"]
    counts = names.value_counts()
    client = Client(tmp_path, allow_changes=True)
    key = next(k for k, job in client.window.folders.jobs().items() if job.folder.name == "pick")
    page = f"/jobs/{key}/picks/0"
    told = client.ask(f"{page}.json").json
    inside = [[x, y] for x, y in told["xy"] if min(x, y) > 40 and max(x, y) < 440]
    kept = [*inside[:5], [240.5, 111.25]]  # five stay, one is added by hand
    sent = {"xy": kept, "merit": [1.0] * 6, "left_out": [[100, 100, 90]], "seen": told["seen"]}
    answer = client.send(page, sent).json
    words = answer["command"].split()
    assert words == ["verglas", "process", "--out", str(tmp_path / "proj")]
    assert main([*words[1:], "--threads", "1"], capsys)[0] == 0
    table = vg.read_particles(done.particles).table
    first = table["rlnMicrographName"].str.contains("m0")
    assert first.sum() == 6
    assert (~first).sum() == counts[[name for name in counts.index if "m0" not in name]].sum()
    xy = table.loc[first, ["rlnCoordinateX", "rlnCoordinateY"]].to_numpy()
    assert np.abs(np.sort(xy, axis=0) - np.sort(kept, axis=0)).max() < 1.5  # centring may move them by a pixel
    after = {p.name: p.stat().st_mtime_ns for p in (tmp_path / "proj/extract/stacks").glob("*")}
    assert [name for name in before if before[name] != after[name]] == [n for n in before if "m0" in n]
    # Areas: picked again where they lie, and nowhere else; the edits were of the picks before and are set aside.
    records = {p.name: p.stat().st_mtime_ns for p in (tmp_path / "proj/pick/records").glob("*")}
    again = answer["again"].split()
    assert again[:2] == ["verglas", "process"]
    ended = main([*again[1:], "--threads", "1"], capsys)
    assert ended[0] == 0, ended
    new = {p.name: p.stat().st_mtime_ns for p in (tmp_path / "proj/pick/records").glob("*")}
    assert [name for name in new if records[name] != new[name]] == [n for n in new if "m0" in n]
    picks = vg.io.read_picks(tmp_path / "proj/pick/picks.star")
    (mine,) = (one for name, one in picks.items() if "m0" in name)
    assert len(mine) > 6
    assert (np.hypot(*(mine.xy_px - 100).T) > 90).all()
    assert list((tmp_path / "proj/pick").glob("picks_edited_before_*.star"))
    # On a worker, which knows one micrograph only: that the other has no areas is no fault.
    for record in (tmp_path / "proj/pick/records").glob("*"):
        record.unlink()
    assert main([*again[1:], "--force", "--cluster", "local:1", "--threads", "1"], capsys)[0] == 0
    elsewhere = vg.io.read_picks(tmp_path / "proj/pick/picks.star")
    assert {name: len(one) for name, one in elsewhere.items()} == {name: len(one) for name, one in picks.items()}
    assert len(vg.read_particles(done.particles)) > 12
