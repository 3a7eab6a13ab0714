"""Candidates of picking as the window shows and changes them, areas left out, edits of earlier picks."""

from __future__ import annotations

import os
import re

import numpy as np
import pytest
from window_client import Client, key_of

import verglas as vg
from verglas.errors import InputError
from verglas.run.candidates import LeftOut, candidates_star, read_candidates

pytest.importorskip("starlette")


@pytest.fixture(scope="module")
def discs():
    """A micrograph of nine dark discs, and what picking finds in it."""
    y, x = np.mgrid[:300, :300]
    dark = sum((np.hypot(x - u, y - v) < 12) for u in (60, 150, 240) for v in (60, 150, 240))
    micrograph = vg.Micrograph(np.random.default_rng(0).normal(size=(300, 300)) - dark, 4.0, "m.mrc")
    return micrograph, vg.picking.pick_detailed(micrograph, 96.0)


def test_candidates_come_back_from_their_file(discs, tmp_path):
    _, found = discs
    (tmp_path / "m.star").write_bytes(candidates_star(found, "a folder/m.mrc"))
    read = read_candidates(tmp_path / "m.star")
    assert read.peaks.micrograph == "a folder/m.mrc"
    assert read.peaks.xy_px == pytest.approx(found.candidates.xy_px, abs=0.006)
    assert read.threshold == pytest.approx(found.cut.threshold, rel=1e-5)
    assert read.diameter_px == pytest.approx(96 / 4, rel=0.05)
    merit = read.peaks.columns["rlnAutopickFigureOfMerit"]
    assert (merit >= read.threshold - 1e-5).sum() == len(found.picks) == 9


def test_nothing_is_picked_in_areas_left_out(discs, tmp_path):
    micrograph, _ = discs
    for changes in ({}, {"exclude": False}):
        found = vg.picking.pick_detailed(micrograph, 96.0, left_out=[[60, 150, 40], [150, 150, 40]], **changes)
        assert len(found.picks) == 7
        for x in (60, 150):
            assert np.hypot(*(found.candidates.xy_px - [x, 150]).T).min() > 35
    table = "\ndata_\n\nloop_\n_rlnMicrographName #1\n_rlnCoordinateX #2\n_rlnCoordinateY #3\n"
    (tmp_path / "discs.star").write_text(table + "_verglasRadius #4\nm.mrc 60 150 40\nm.mrc 150 150 40\nn.mrc 1 2 3\n")
    areas = LeftOut(tmp_path / "discs.star").of(["b/m.mrc", "o.mrc"])
    assert areas[0].tolist() == [[60, 150, 40], [150, 150, 40]]
    assert areas[1] is None
    with pytest.raises(InputError, match=r"lie on none of 1 micrographs, such as o\.mrc; they are of m\.mrc, n"):
        LeftOut(tmp_path / "discs.star").of(["o.mrc"])
    # One micrograph of a set may have none, as a worker sees it that knows no other.
    assert LeftOut(tmp_path / "discs.star").on("o.mrc") is None
    np.testing.assert_array_equal(LeftOut(tmp_path / "discs.star").on("b/m.mrc"), areas[0])
    for text, said in (
        ("m.mrc 1 2\n", "no column verglasRadius"),
        ("_verglasRadius #4\nm.mrc 1 2 0\n", "positive radii"),
    ):
        (tmp_path / "bad.star").write_text(table + text)
        with pytest.raises(InputError, match=said):
            LeftOut(tmp_path / "bad.star")


@pytest.fixture
def picked(discs, tmp_path):
    """A folder of `verglas pick`, of two micrographs."""
    from verglas.run.pick import PickJob, pick_files

    micrograph, _ = discs
    for name in ("m 1.mrc", "m 2.mrc"):
        vg.io.write_micrograph(tmp_path / name, micrograph)
    job = PickJob([str(tmp_path / "*.mrc")], 96.0, tmp_path / "pick", pictures=False, threads=1)
    pick_files(job, listener=None)
    return job


def test_a_job_of_picking_is_seen_with_its_candidates(picked):
    client = Client(picked.out.parent, allow_changes=True)
    key = key_of(client, "pick")
    job = client.window.folders.jobs()[key]
    assert (job.command, job.state, job.verdict, job.numbers["picks"]) == ("pick", "finished", "go on", 18)
    shown = client.ask(f"/jobs/{key}/picks/0.json").json
    assert len(shown["xy"]) == 9
    assert len(shown["candidates"]) > 12  # peaks that were not picked, too
    assert shown["radius"] == pytest.approx(12, rel=0.05)
    assert sum(merit >= shown["threshold"] - 1e-4 for *_, merit in shown["candidates"]) == 9
    (picked.out / "picks.star").unlink()  # as it is while the job goes on
    assert len(client.ask(f"/jobs/{key}/picks/1.json").json["xy"]) == 9
    answer = client.send(f"/jobs/{key}/picks/0", {"xy": [[1, 2]], "merit": [0.5]})
    assert (answer.status, "still picks" in answer.json["problem"]) == (400, True)


@pytest.mark.slow
def test_edits_of_picks_that_were_made_again_are_named_and_not_taken_for_the_new(picked):
    from dataclasses import replace

    from verglas.run.pick import pick_files

    client = Client(picked.out.parent, allow_changes=True)
    address = f"/jobs/{key_of(client, 'pick')}/picks/0"
    done = client.send(address, {"xy": [[10, 20]], "merit": [0.5], "left_out": [[60, 150, 40]]})
    assert "--leave-out" in done.json["again"]
    assert client.ask(f"{address}.json").json["left_out"] == [[60, 150, 40]]
    pick_files(picked, listener=None)  # the same again: the edits are of these picks
    assert client.ask(f"{address}.json").json["xy"] == [[10, 20]]
    again = replace(picked, leave_out=picked.out / "left_out.star")
    pick_files(again, listener=None)
    shown = client.ask(f"{address}.json").json
    assert (len(shown["xy"]), shown["saved"]) == (8, False)
    (kept,) = picked.out.glob("picks_edited_before_*.star")
    assert not (picked.out / "picks_edited.star").exists()
    assert kept.name in client.ask(address).text
    assert client.send(address, {"xy": [[30, 40]]}).status == 200
    assert client.ask(f"{address}.json").json["xy"] == [[30, 40]]


def test_of_many_candidates_only_the_new_ones_are_opened(picked, monkeypatch):
    from verglas.window import picked as module
    from verglas.window.latest import last_picked

    folder = picked.out / "candidates"
    text = next(folder.glob("*.star")).read_text()
    for path in folder.glob("*.star"):
        path.unlink()
    (picked.out / "picks.star").unlink()  # it goes on
    opened = []
    name_of, read = module.candidates_name, module.read_candidates
    monkeypatch.setattr(module, "candidates_name", lambda path: opened.append(path.name) or name_of(path))
    monkeypatch.setattr(module, "read_candidates", lambda path: opened.append(path.name) or read(path))
    client = Client(picked.out.parent)
    job = client.window.folders.jobs()[key_of(client, "pick")]
    for count in (100, 101):
        opened.clear()
        for k in range(0 if count == 100 else 100, count):
            path = folder / f"c{k:03}.star"
            path.write_text(re.sub(r"_rlnMicrographName.*", f'_rlnMicrographName "m {k}.mrc"', text))
            os.utime(path, ns=(k, k))
        last = last_picked(job, client.window.picked)
        assert [one.name for one in last] == [f"m {k}.mrc" for k in range(count - 1, count - 7, -1)]
        assert last[0].picks == 9
        assert len(opened) == (106 if count == 100 else 2), opened  # names, and those that are shown


def test_listed_picks_are_those_of_the_list_and_are_read_one_by_one(tmp_path, monkeypatch):
    """With the merits and columns of each, without micrographs that have none, whatever package wrote the files."""
    from verglas.window import listed_picks

    merit = {"rlnAutopickFigureOfMerit": np.array([0.9, 0.5])}
    picks = {name: vg.Picks([[1.5, 2.0], [30.0, 4.0]], name, merit) for name in ("a/m 1.mrc", "b/m 1.mrc")}
    none = vg.Picks(np.zeros((0, 2)), "c.mrc", {"rlnAutopickFigureOfMerit": np.zeros(0)})
    vg.io.write_picks(tmp_path / "picks.star", {**picks, "c.mrc": none})
    whole = vg.io.read_picks(tmp_path / "picks.star")
    opened = []
    read = listed_picks.read_picks
    monkeypatch.setattr(listed_picks, "read_picks", lambda path: opened.append(path.name) or read(path))
    lazy = listed_picks.picks_by_micrograph(tmp_path / "picks.star")
    assert (list(lazy), opened) == (list(whole), [])
    for name, one in whole.items():
        found = lazy[name]
        assert np.array_equal(found.xy_px, one.xy_px)
        assert found.micrograph == one.micrograph
        assert found.columns.keys() == one.columns.keys()
        assert np.array_equal(found.columns["rlnAutopickFigureOfMerit"], merit["rlnAutopickFigureOfMerit"])
    assert len(opened) == 2


@pytest.mark.parametrize(
    ("rows", "held"),
    [
        ("1 2\n\n# by hand\n", True),
        ("1 2\n\ndata_more\n\nloop_\n_rlnFoo #1\n", True),
        ("\ndata_more\n\nloop_\n_rlnFoo #1\n3\n", False),
        ("# none\n", False),
    ],
)
def test_no_micrograph_is_lost_by_how_its_file_ends(tmp_path, rows, held):
    from verglas.window.listed_picks import picks_by_micrograph

    vg.io.write_picks(tmp_path / "picks.star", {"a.mrc": vg.Picks([[1, 2]]), "b.mrc": vg.Picks([[3, 4]])})
    head = "\ndata_\n\nloop_\n_rlnCoordinateX #1\n_rlnCoordinateY #2\n"
    (tmp_path / "picks" / "a_picks.star").write_text(head + rows)
    names = ["a.mrc", "b.mrc"] if held else ["b.mrc"]
    assert (
        list(picks_by_micrograph(tmp_path / "picks.star")) == list(vg.io.read_picks(tmp_path / "picks.star")) == names
    )


def test_a_file_of_picks_that_was_emptied_is_named(tmp_path):
    from verglas.errors import FormatError
    from verglas.window.listed_picks import picks_by_micrograph

    vg.io.write_picks(tmp_path / "picks.star", {"a.mrc": vg.Picks([[1, 2]])})
    lazy = picks_by_micrograph(tmp_path / "picks.star")
    file = tmp_path / "picks" / "a_picks.star"
    for rows, count in (("", 0), ("a.mrc 1 2\nb.mrc 3 4\n", 2)):
        head = "\ndata_\n\nloop_\n_rlnMicrographName #1\n_rlnCoordinateX #2\n_rlnCoordinateY #3\n"
        file.write_text(head + rows)
        with pytest.raises(
            FormatError, match=rf"a_picks\.star: expected the picks of one micrograph, got those of {count}"
        ):
            lazy["a.mrc"]
