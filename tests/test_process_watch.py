"""``verglas process --watch``: files that grow, a process that is killed, and nothing done twice or lost."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
from process_set import (
    GIVEN,
    OPTIONS,
    PIXEL_A,
    command,
    environment,
    run,
    scene,
    states,
    wait_for,
    whole_records,
    write_set,
)

import verglas as vg
from verglas.errors import FormatError, InputError
from verglas.io import micrograph_header
from verglas.pipeline.project import Project
from verglas.pipeline.settings import ProcessSettings
from verglas.pipeline.watch import Watcher, WatchOptions
from verglas.pipeline.watch_table import SeenFile, WatchTable

pytestmark = pytest.mark.usefixtures("blank_figures_of_module")


def start(folder: Path, root: Path, *more: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command("--watch", folder, *OPTIONS, "--out", root, "--settle", 0.5, *more),
        env=environment(),
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


@pytest.mark.slow
def test_a_folder_is_watched_while_files_grow_and_the_process_is_killed(tmp_path):
    """Killed with SIGKILL while it waits, during the first and during the second file; then it finishes.

    Every file is done once: results that were whole are never written again, and the particles are those of a run on
    the finished folder.
    """
    source, folder, root = tmp_path / "camera", tmp_path / "mics", tmp_path / "proj"
    source.mkdir()
    folder.mkdir()
    write_set(source, 3)
    child = start(folder, root)
    data = (source / "m0.mrc").read_bytes()
    with open(folder / "m0.mrc", "wb") as handle:  # arrives in pieces
        for part in range(4):
            handle.write(data[part * len(data) // 4 : (part + 1) * len(data) // 4])
            handle.flush()
            os.fsync(handle.fileno())
            if part == 1:
                wait_for(lambda: states(root).get("m0.mrc", ("",))[0] == "growing")
            if part == 2:
                time.sleep(1.2)  # longer than --settle: the header says that it is not whole
                assert states(root)["m0.mrc"] == ("growing", 0)
    child.send_signal(signal.SIGKILL)  # nothing done yet
    child.wait()
    had: dict[str, int] = {}
    for number, least in enumerate((0, 1)):  # during the first file; with a new result and another file begun

        def well_begun(more: int = least, before: int = len(had)) -> bool:
            running = "running" in {state for state, _ in states(root).values()}
            return running and len(whole_records(root)) >= before + more

        (folder / f"m{number + 1}.mrc").write_bytes((source / f"m{number + 1}.mrc").read_bytes())
        child = start(folder, root)
        wait_for(well_begun)
        child.send_signal(signal.SIGKILL)
        child.wait()
        now = whole_records(root)
        assert {name: now[name] for name in had} == had
        had = now
    assert "running" in {state for state, _ in states(root).values()}  # a row that the dead process left
    done = run("--watch", folder, "--out", root, "--settle", 0.5, "--once", "--json", "--threads", 1)
    assert "taken up again" in done.stderr
    assert "per hour" in done.stderr
    found = json.loads(done.stdout)
    assert found["micrographs_used"] == 3
    now = whole_records(root)
    assert {name: now[name] for name in had} == had
    assert {state for state, _ in states(root).values()} == {"done"}
    batch = vg.process(tmp_path / "batch", micrographs=[str(folder)], **GIVEN)
    assert (root / "particles.star").read_text() == batch.particles.read_text()
    # once more: nothing is left to do
    again = json.loads(run("--watch", folder, "--out", root, "--settle", 0.2, "--once", "--json").stdout)
    assert whole_records(root) == now
    assert all(one["done_before"] for one in again["stages"])


def test_idle_ends_the_watch_and_a_bad_file_does_not(tmp_path):
    folder, root = tmp_path / "mics", tmp_path / "proj"
    folder.mkdir()
    write_set(folder, 2)
    (folder / "broken.tif").write_bytes(b"II*\0\x08\0\0\0")
    vg.io.write_stack(folder / "zero.mrc", np.zeros((1, 96, 96), np.float32), PIXEL_A)
    done = run("--watch", folder, *OPTIONS, "--out", root, "--settle", 0.2, "--until-idle", 1, "--json")
    found = json.loads(done.stdout)
    assert states(root)["broken.tif"][0] == states(root)["zero.mrc"][0] == "failed"
    assert {Path(name).name for name in found["set_aside"]} == {"broken.tif", "zero.mrc"}
    assert (found["micrographs"], found["micrographs_used"]) == (4, 2)
    assert "zero.mrc: set aside" in done.stderr
    assert "refresh" not in (root / "report.html").read_text()[:500]  # the page of a finished watch stands still


@pytest.fixture
def table(tmp_path):
    made = WatchTable(tmp_path / "watch.sqlite")
    yield made
    made.close()


def test_the_table_takes_up_what_a_dead_process_left(table):
    assert table.look([SeenFile("/a", 10, 1), SeenFile("/b", 10, 1)], now=100.0) == 2
    assert table.look([SeenFile("/a", 10, 1), SeenFile("/b", 10, 1)], now=101.0) == 0
    table.mark(["/a", "/b"], "running")
    table.mark(["/b"], "done")
    for attempt in (1, 2):
        assert table.take_up(most_attempts=3) == ["/a"]
        assert [(r.state, r.attempts) for r in table.rows()] == [("ready", attempt), ("done", 1)]
        table.mark(["/a"], "running")
    table.take_up(most_attempts=3)  # it has killed the process three times
    row = table.rows("failed")[0]
    assert row.path == "/a"
    assert row.reason == "the process died 3 times while it was worked on"
    assert table.counts()["done"] == 1


def test_a_file_that_changes_is_new_again(table):
    table.look([SeenFile("/a", 10, 1)], now=1.0)
    table.mark(["/a"], "failed", "cut off")
    assert table.look([SeenFile("/a", 20, 2)], now=2.0) == 1
    row = table.rows()[0]
    assert (row.state, row.reason, row.attempts, row.bytes, row.changed) == ("growing", "", 0, 20, 2.0)
    table.mark(["/a"], "running")
    assert (
        table.look([SeenFile("/a", 30, 3)], now=3.0) == 0
    )  # not while it is worked on; the next look after it will see
    table.mark(["/a"], "done")
    assert table.look([SeenFile("/a", 30, 3)], now=4.0) == 1


def test_a_table_that_is_none(tmp_path):
    (tmp_path / "x.sqlite").write_bytes(b"no database" * 1000)
    with pytest.raises(FormatError, match="not a table of watched files"):
        WatchTable(tmp_path / "x.sqlite")


def test_reasons_that_may_pass_are_tried_again(table, tmp_path, monkeypatch):
    """An input/output error twice, then the file can be read; nothing is kept of the attempts that failed."""
    (tmp_path / "mics").mkdir()
    write_set(tmp_path / "mics", 1)
    project = Project(tmp_path, ProcessSettings(("x",), 120.0, pixel_size_A=PIXEL_A), [], threads=1)
    watcher = Watcher(project, tmp_path / "mics", WatchOptions(0.01, once=True), table)
    calls = []
    from verglas.pipeline import micrographs

    real = micrographs.read_micrograph

    def fails_twice(path):
        calls.append(path)
        if len(calls) < 3:
            raise OSError(5, "Input/output error", str(path))
        return real(path)

    monkeypatch.setattr(micrographs, "read_micrograph", fails_twice)
    watcher.watch()
    row = table.rows()[0]
    assert (row.state, row.attempts) == ("done", 3)
    assert watcher.done == 1


def test_what_cannot_be_watched(tmp_path):
    with pytest.raises(InputError, match="no such folder"):
        vg.pipeline.watch_folder(tmp_path / "none", tmp_path / "p", **GIVEN)
    with pytest.raises(InputError, match="positive times"):
        WatchOptions(settle_s=0)
    assert run("--once", "--out", tmp_path, check=False).returncode == 2
    (tmp_path / "empty").mkdir()
    done = run("--watch", tmp_path / "empty", *OPTIONS, "--out", tmp_path / "p", "--once", check=False)
    assert done.returncode == 1
    assert "no micrograph has arrived" in done.stderr


def test_a_header_tells_whether_a_file_is_whole(tmp_path):
    import tifffile

    image = scene(3)[0].data
    for name in ("a.tif", "b.mrc"):
        path = tmp_path / name
        if name == "a.tif":
            tifffile.imwrite(path, image)
        else:
            vg.io.write_stack(path, image[None], PIXEL_A)
        assert micrograph_header(path) == image.shape
        data = path.read_bytes()
        for length in (0, 6, 900, len(data) // 2, len(data) - 1):
            path.write_bytes(data[:length])
            with pytest.raises(FormatError):
                micrograph_header(path)
