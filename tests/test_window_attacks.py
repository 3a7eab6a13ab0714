"""The window against what a folder or a request may hold by mistake or by intent."""

from __future__ import annotations

import json
import os
import shutil

import numpy as np
import pytest
from window_client import HOST, Client, ball, class_folder, pick_folder, refine_run

import verglas as vg
from verglas.errors import InputError
from verglas.run.edited_picks import set_aside_edits

pytest.importorskip("starlette")


def keys(client):
    return {job.name: key for key, job in client.window.folders.jobs().items()}


# ---- one bad record


@pytest.mark.parametrize(
    "changes",
    [
        {"settings": "x"},
        {"settings": [1]},
        {"heartbeat": "x"},
        {"progress": "x"},
        {"verdict": {"state": "warn", "reasons": 5}},
    ],
)
def test_a_bad_record_is_shown_as_one_and_takes_no_other_job_with_it(tmp_path, changes):
    folder = refine_run(tmp_path / "bad")
    record = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps(record | changes))
    refine_run(tmp_path / "good")
    client = Client(tmp_path)
    jobs = {job.name: job for job in client.window.folders.jobs().values()}
    assert (jobs["good"].state, jobs["bad"].state) == ("finished", "failed")
    assert "cannot be read" in client.ask("/").text
    assert [client.ask(f"/jobs/{job.key}").status for job in jobs.values()] == [200, 200]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("run.json", '{"a":' * 100_000),
        ("stage.json", '{"stage": "ctf", "inputs": null}'),
        ("stage.json", '{"stage": "ctf", "inputs": [1]}'),
        ("stage.json", '{"stage": "ctf", "settings": 5}'),
        ("job.json", '{"uid": "J1", "status": "completed", "params_spec": [1]}'),
    ],
)
def test_records_of_a_wrong_shape_leave_the_pages_standing(tmp_path, name, text):
    refine_run(tmp_path / "good")
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / name).write_text(text)
    client = Client(tmp_path)
    assert len(client.window.folders.jobs()) == 2
    assert client.ask("/").status == 200
    assert {client.ask(f"/jobs/{key}").status for key in client.window.folders.jobs()} == {200}


def test_a_time_that_is_no_number_is_left_out(tmp_path):
    folder = refine_run(tmp_path / "one")
    record = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps(record | {"seconds": float("nan")}))
    client = Client(tmp_path)
    assert next(iter(client.window.folders.jobs().values())).seconds is None
    assert client.ask("/").status == 200


def test_times_of_which_only_one_has_a_zone_say_nothing_of_the_time_taken(tmp_path):
    folder = refine_run(tmp_path / "one")
    record = {k: v for k, v in json.loads((folder / "run.json").read_text()).items() if k != "seconds"}
    record |= {"state": "finished", "started": "2026-01-02T03:04:05+00:00", "finished": "2026-01-02T03:05:15"}
    (folder / "run.json").write_text(json.dumps(record))
    (job,) = Client(tmp_path).window.folders.jobs().values()
    assert (job.seconds, job.state) == (None, "finished")


def test_names_that_are_no_utf8_leave_the_pages_standing(tmp_path):
    folder = tmp_path / os.fsdecode(b"ba\xffd")
    try:
        refine_run(folder)
    except OSError:
        pytest.skip("this file system takes UTF-8 only")
    (folder / os.fsdecode(b"\xfe.log")).write_text("x")
    client = Client(tmp_path)
    assert "ba?d" in client.ask("/").text
    assert "\ufffd.log" in client.ask(f"/jobs/{next(iter(keys(client).values()))}").text


def test_names_in_the_drawing_stay_in_their_boxes(tmp_path):
    refine_run(tmp_path / "twenty_nine_characters_in_all_")
    page = Client(tmp_path).ask("/").text
    assert 'class="node finished warn"' in page
    assert ">twenty_nine_characters_in…</text>" in page


# ---- what lies elsewhere


def test_logs_and_notes_that_are_links_out_of_the_folder_are_not_read(tmp_path):
    folder = refine_run(tmp_path / "jobs" / "one")
    (tmp_path / "secret").write_text("the crown jewels")
    client = Client(tmp_path / "jobs", allow_changes=True)
    page = f"/jobs/{keys(client)['one']}"
    for name in ("run.log", "note.txt"):
        (folder / name).symlink_to(tmp_path / "secret")
        assert "crown jewels" not in client.ask(page).text
    assert client.send(f"{page}/note", {"note": "mine"}).status == 200
    assert (tmp_path / "secret").read_text() == "the crown jewels"
    assert (folder / "note.txt").read_text() == "mine"


@pytest.mark.parametrize("name", ["../outside/", "../../../../../../../../../etc/", "Link/job001/"])
def test_a_job_of_relion_outside_its_project_is_not_shown(tmp_path, name):
    outside = tmp_path / "outside"
    outside.mkdir()
    for file in ("secret.log", "run.out", "note.txt"):
        (outside / file).write_text("the crown jewels")
    project = tmp_path / "project"
    (project / "Link").mkdir(parents=True)
    (project / "Link" / "job001").symlink_to(outside)
    (project / "default_pipeline.star").write_text(
        "data_pipeline_processes\n\nloop_\n_rlnPipeLineProcessName #1\n_rlnPipeLineProcessAlias #2\n"
        f"_rlnPipeLineProcessStatusLabel #3\n{name} None Succeeded\n"
    )
    client = Client(project)
    key = next(iter(client.window.folders.jobs()))
    page = client.ask(f"/jobs/{key}")
    assert (page.status, "outside the project" in page.text, "crown" in page.text) == (200, True, False)
    assert client.ask(f"/jobs/{key}/files/secret.log").status == 404
    assert client.ask("/").status == 200


# ---- what a page may send

_WRONG = [5, None, "x", {}, [[]], [{}], [None], [True], {"a": 1}, [[1]], -1, ["\ud800"], [10**400]]


@pytest.mark.parametrize("wrong", _WRONG, ids=lambda value: repr(value)[:12])
def test_requests_of_a_wrong_shape_are_refused_in_words(tmp_path, wrong):
    class_folder(tmp_path / "c")
    pick_folder(tmp_path / "p")
    refine_run(tmp_path / "r")
    client = Client(tmp_path, allow_changes=True)
    by_name = keys(client)
    sent = [("c", "classes", {"classes": wrong}), ("p", "micrographs", {"dropped": wrong})]
    sent += [("r", "clean", {"names": wrong}), ("p", "picks/0", {"xy": [[1, 2], [3, 4]], "merit": wrong or [1]})]
    for name, what, value in sent:
        if what == "picks/0" and wrong is None:
            continue  # no merit at all is what a page without merits sends
        answer = client.send(f"/jobs/{by_name[name]}/{what}", value)
        assert (answer.status, bool(answer.json["problem"])) == (400, True), what


def test_merits_that_do_not_fit_are_refused_and_not_dropped(tmp_path):
    pick_folder(tmp_path / "p")
    client = Client(tmp_path, allow_changes=True)
    for merit in ([0.5], [0.5, np.nan], [0.5, 0.5, 0.5]):
        answer = client.send(f"/jobs/{keys(client)['p']}/picks/0", {"xy": [[1, 2], [3, 4]], "merit": merit})
        assert "a merit for each of 2 places" in answer.json["problem"]
    assert not (tmp_path / "p" / "picks_edited.star").exists()


def test_edits_of_other_micrographs_are_not_mixed_with_new_picks(tmp_path):
    folder = pick_folder(tmp_path / "p")
    client = Client(tmp_path, allow_changes=True)
    address = f"/jobs/{keys(client)['p']}/picks/0"
    for _ in range(2):
        assert client.send(address, {"xy": [[1, 2]]}).status == 200
    picks = vg.io.read_picks(folder / "picks.star")
    name = next(iter(picks))
    vg.io.write_picks(folder / "picks.star", {name: picks[name]})
    answer = client.send(address, {"xy": [[3, 4]]})
    assert (answer.status, "other micrographs" in answer.json["problem"]) == (400, True)
    assert vg.io.read_picks(folder / "picks_edited.star")[name].xy_px.tolist() == [[1.0, 2.0]]


def test_what_cannot_be_written_is_said(tmp_path):
    folder = class_folder(tmp_path / "c")
    (folder / "selection.star").mkdir()
    client = Client(tmp_path, allow_changes=True)
    answer = client.send(f"/jobs/{keys(client)['c']}/classes", {"classes": [1]})
    assert (answer.status, "selection.star" in answer.json["problem"]) == (400, True)


def test_half_a_character_becomes_a_mark(tmp_path):
    folder = refine_run(tmp_path / "r")
    client = Client(tmp_path, allow_changes=True)
    assert client.send(f"/jobs/{keys(client)['r']}/note", {"note": "a\ud800b"}).status == 200
    assert (folder / "note.txt").read_text() == "a?b"


@pytest.mark.parametrize("origin", ["http://[", "null", "", f"http://x@{HOST}", f"http://{HOST}.example"])
def test_no_origin_but_this_server_changes_anything(tmp_path, origin):
    folder = refine_run(tmp_path / "r")
    client = Client(tmp_path, allow_changes=True)
    headers = [*client.own, ("origin", origin), ("content-length", "13")]
    assert client.ask(f"/jobs/{keys(client)['r']}/note", "POST", b'{"note": "x"}', headers).status == 403
    assert not (folder / "note.txt").exists()


# ---- processes


def test_a_number_in_a_lock_that_is_not_its_holder_is_told_nothing(tmp_path, monkeypatch):
    import fcntl
    import socket

    from verglas.window import control

    folder = refine_run(tmp_path / "r", state="running")
    told = []
    monkeypatch.setattr(control.os, "kill", lambda pid, number: told.append(pid))
    job = next(iter(Client(tmp_path).window.folders.jobs().values()))
    with open(folder / ".lock", "w+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for pid, is_told in ((os.getppid(), not os.path.isdir("/proc/self/fd")), (os.getpid(), True)):
            told.clear()
            lock.seek(0)
            lock.truncate()
            lock.write(f"{pid} {socket.gethostname()}\n")
            lock.flush()
            if is_told:
                control.stop(job)
            else:
                with pytest.raises(InputError, match="no process of this machine"):
                    control.stop(job)
            assert told == ([pid] if is_told else [])


def test_a_second_out_begins_nothing(tmp_path):
    from verglas.window import control

    folder = refine_run(tmp_path / "r", state="stopped")
    record = json.loads((folder / "run.json").read_text())

    def command(*arguments):
        call = {"arguments": ["refine", *arguments], "folder": str(tmp_path)}
        (folder / "run.json").write_text(json.dumps(record | {"call": call}))
        return control.resume_command(next(iter(Client(tmp_path).window.folders.jobs().values())))

    assert command("--out", "r") == ["refine", "--out", "r", "--resume"]
    assert command("--out", "r", "--out", "elsewhere") == []
    assert command("--out", "r", "--out=elsewhere") == []


def test_the_log_of_a_job_begun_again_is_not_written_through_a_link(tmp_path, monkeypatch):
    from verglas.window import control

    folder = refine_run(tmp_path / "jobs" / "r", state="stopped")
    record = json.loads((folder / "run.json").read_text())
    call = {"arguments": ["refine", "--out", "r"], "folder": str(folder.parent)}
    (folder / "run.json").write_text(json.dumps(record | {"call": call}))
    (folder / "run.log").symlink_to(tmp_path / "elsewhere")
    begun = []
    monkeypatch.setattr(control.subprocess, "Popen", lambda *args, **named: begun.append(args))
    client = Client(folder.parent, allow_changes=True)
    answer = client.send(f"/jobs/{keys(client)['r']}/resume", {})
    assert (answer.status, begun, (tmp_path / "elsewhere").exists()) == (400, [], False)


# ---- what pages read of classes, candidates, edits, drafts and models


def test_a_model_whose_name_is_no_utf8_leaves_the_page_standing(tmp_path):
    folder = refine_run(tmp_path / "r")
    try:
        (folder / os.fsdecode(b"\xff.pdb")).write_text("x")
    except OSError:
        pytest.skip("this file system takes UTF-8 only")
    (folder / "é.pdb").write_text("x")
    client = Client(tmp_path)
    page = client.ask(f"/jobs/{keys(client)['r']}")
    assert (page.status, "%C3%A9.pdb" in page.text) == (200, True)


@pytest.mark.parametrize(
    "body",
    [
        b'{"base": "a", "time": 1, "value": NaN}',
        b'{"base": "a", "time": 1e999, "value": 1}',
        b'{"base": "a", "time": 1, "value": "\\ud800"}',
        b'{"base": "a", "time": "x", "value": 1}',
    ],
)
def test_a_draft_that_no_answer_can_hold_is_refused_and_not_given_back(tmp_path, body):
    folder = class_folder(tmp_path / "c")
    client = Client(tmp_path, allow_changes=True)
    address = f"/jobs/{keys(client)['c']}/draft/classes"
    own = [*client.own, ("origin", f"http://{HOST}"), ("content-length", str(len(body)))]
    answer = client.ask(address, "POST", body, own)
    assert (answer.status, answer.json["problem"].startswith("draft: expected")) == (400, True)
    assert not (folder / ".window_drafts").exists()
    (folder / ".window_drafts").mkdir()
    (folder / ".window_drafts" / "classes.json").write_bytes(body)
    assert client.ask(address).status == 200


@pytest.mark.parametrize("values", ["null", "5", '{"a": 1}', "[NaN, Infinity]", '["x", null]'])
def test_resolutions_of_classes_that_are_none_are_left_out(tmp_path, values):
    folder = class_folder(tmp_path / "k")
    (folder / "averages.mrcs").unlink()
    for k in (1, 2):
        vg.io.write_map(folder / f"map_class{k}.mrc", ball(16, 4.0))
    (folder / "map_class999999999.mrc").write_bytes(b"")  # a picture of so many places would take all memory
    (folder / "class3d.json").write_text(f'{{"resolutions_A": {values}}}')
    client = Client(tmp_path)
    page = client.ask(f"/jobs/{keys(client)['k']}/classes")
    cards = json.loads(page.text.partition('class="cards">')[2].partition("</script>")[0])
    shown = [(card["number"], card["particles"], card["resolution_A"]) for card in cards]
    assert shown == [(1, 50, None), (2, 30, None)]
    assert client.ask(f"/jobs/{keys(client)['k']}/classes.png").status == 200
    text = (folder / "particles.star").read_text()
    (folder / "particles.star").write_text(text.replace("k/images.mrcs\t1\t", "k/images.mrcs\tx\t"))
    page = client.ask(f"/jobs/{keys(client)['k']}/classes")
    assert (page.status, '"number": 1, "particles": 0' in page.text) == (200, True)


def test_candidates_and_checkpoints_of_a_wrong_shape_leave_the_page_standing(tmp_path):
    folder = pick_folder(tmp_path / "p")
    names = list(vg.io.read_picks(folder / "picks.star"))
    (folder / "picks.star").unlink()
    (folder / "candidates").mkdir()
    star = "data_picking\n\n_rlnMicrographName {}\n_verglasThreshold {}\n_verglasDiameter {}\n\n"
    star += "data_candidates\n\nloop_\n_rlnCoordinateX\n_rlnCoordinateY\n_rlnAutopickFigureOfMerit\n30 40 2\n"
    (folder / "candidates" / "a.star").write_text(star.format(f'"{names[0]}"', 1, 1e15))
    client = Client(tmp_path)
    address = f"/jobs/{keys(client)['p']}"
    assert client.ask(f"{address}/picks/0/small.png").status == 200  # a ring of so many points would take all memory
    (folder / "candidates" / "b.star").write_text(star.format(f'"{names[1]}"', "x", 24))
    assert client.ask(address).status == 200
    assert client.ask(f"{address}/picks/1.json").json["xy"] == []
    (folder / "candidates" / "c.star").write_text("no candidates")
    answer = client.ask(f"{address}/picks/1.json")
    assert (answer.status, "c.star: expected the candidates" in answer.json["problem"]) == (400, True)
    classes = class_folder(tmp_path / "c")
    (classes / "checkpoint").mkdir()
    for averages in (np.zeros(3), np.zeros((0, 4, 4)), np.array(["a"])):
        np.savez(classes / "checkpoint" / "a.npz", **{"model.averages": averages})
        assert client.ask(f"/jobs/{keys(client)['c']}/montage.png").status == 404


def test_a_record_of_edits_of_a_wrong_shape_is_named(tmp_path):
    folder = pick_folder(tmp_path / "p")
    client = Client(tmp_path, allow_changes=True)
    address = f"/jobs/{keys(client)['p']}/picks/0"
    assert client.send(address, {"xy": [[1, 2]]}).status == 200
    for areas in ('"x"', "7", "[1]", "[[1, 2]]", '[[1, 2, "x"]]'):
        (folder / "picks_edited" / "edits.json").write_text(f'{{"of": {{}}, "left_out": {{"a": {areas}}}}}')
        for answer in (client.ask(f"{address}.json"), client.send(address, {"xy": [[1, 2]]})):
            assert (answer.status, "move picks_edited away" in answer.json["problem"]) == (400, True)


# ---- two who change the same


def test_picks_that_another_page_has_saved_are_not_overwritten(tmp_path):
    folder = pick_folder(tmp_path / "p")
    client = Client(tmp_path, allow_changes=True)
    address = f"/jobs/{keys(client)['p']}/picks/0"
    first, second = (client.ask(f"{address}.json").json for _ in range(2))
    mine = {"xy": [[10, 20]], "base": first["base"], "seen": first["seen"], "left_out": [[60, 50, 40]]}
    done = client.send(address, mine).json
    assert client.send(address, mine).status == 200  # the button pressed twice
    answer = client.send(address, {"xy": [[5, 5]], "base": second["base"], "seen": second["seen"]})
    assert (answer.status, "another page has saved" in answer.json["problem"]) == (400, True)
    assert client.ask(f"{address}.json").json["xy"] == [[10, 20]]
    assert client.send(address, {"xy": [[5, 5]], "base": second["base"], "seen": done["seen"]}).status == 200
    picks = vg.io.read_picks(folder / "picks.star")
    name = next(iter(picks))
    vg.io.write_picks(folder / "picks.star", picks | {name: picks[name][:2]})  # the job has picked again
    answer = client.send(address, {"xy": [[7, 7]], "base": second["base"]})
    assert (answer.status, "has picked again since" in answer.json["problem"]) == (400, True)
    fresh = client.ask(f"{address}.json").json
    assert (len(fresh["xy"]), fresh["saved"]) == (2, False)
    answer = client.send(address, {"xy": [[7, 7]], "base": fresh["base"], "seen": fresh["seen"]})
    assert "edits of the picks before are kept as picks_edited_before_" in answer.json["said"]


def test_when_some_picks_are_made_again_other_edits_and_all_areas_stay(tmp_path):
    folder = pick_folder(tmp_path / "p")
    client = Client(tmp_path, allow_changes=True)
    picks = vg.io.read_picks(folder / "picks.star")
    first, second = picks
    third = first.replace("m 1", "m 3")
    shutil.copy(first, third)
    picks[third] = picks[first]
    vg.io.write_picks(folder / "picks.star", picks)
    base = f"/jobs/{keys(client)['p']}/picks/"
    assert client.send(f"{base}0", {"xy": [[10, 20]], "left_out": [[60, 50, 40]]}).status == 200
    assert client.send(f"{base}1", {"xy": [[11, 21]]}).status == 200
    # The first is picked again, and one that came since stands before the others.
    now = {"came_later.mrc": picks[third], first: picks[first][:2], second: picks[second], third: picks[third]}
    vg.io.write_picks(folder / "picks.star", now)
    assert "picks_edited_before_" in set_aside_edits(folder, now)
    assert client.ask(f"{base}1.json").json["left_out"] == [[60, 50, 40]]
    assert not client.ask(f"{base}1.json").json["saved"]
    told = client.ask(f"{base}2.json").json
    assert (told["xy"], told["saved"]) == ([[11, 21]], True)
    assert set(vg.io.read_picks(folder / "picks_edited.star")) == set(now)
    # Areas of another micrograph do not take the first one's from the list that picking takes.
    assert client.send(f"{base}3", {"xy": [[1, 2]], "left_out": [[5, 5, 3]]}).status == 200
    assert set(vg.io.read_star(folder / "left_out.star")[""]["rlnMicrographName"]) == {first, third}
    # A list that only grew sets nothing aside.
    more = now | {"latest.mrc": picks[third]}
    vg.io.write_picks(folder / "picks.star", more)
    assert set_aside_edits(folder, more) == ""
    assert client.ask(f"{base}2.json").json["xy"] == [[11, 21]]
    assert len(list(folder.glob("picks_edited_before_*.star"))) == 1


def test_what_is_saved_names_its_micrograph_where_numbers_have_moved(tmp_path):
    pick_folder(tmp_path / "p")
    client = Client(tmp_path, allow_changes=True)
    address = f"/jobs/{keys(client)['p']}/picks/0"
    name = client.ask(f"{address}.json").json["name"]
    answer = client.send(address, {"xy": [[1, 2]], "name": "other.mrc"})
    assert (answer.status, "number 1 is now" in answer.json["problem"]) == (400, True)
    assert client.send(address, {"xy": [[1, 2]], "name": name}).status == 200


def test_a_draft_of_what_was_replaced_is_not_written_over(tmp_path):
    folder = pick_folder(tmp_path / "p")
    client = Client(tmp_path, allow_changes=True)
    address = f"/jobs/{keys(client)['p']}/draft/picks-0"
    assert client.send(address, {"base": "old", "time": 1, "value": [1]}).status == 200
    assert client.send(address, {"base": "new"}).status == 200  # forgets its own only
    assert client.ask(address).json["value"] == [1]
    for value in ([2], [3]):
        assert client.send(address, {"base": "new", "time": 2, "value": value}).status == 200
    assert client.ask(address).json["value"] == [3]
    (kept,) = (folder / ".window_drafts").glob("picks-0_before_*.json")
    assert vg.io.read_json(kept)["value"] == [1]
    assert client.send(address, {"base": "new"}).status == 200
    assert client.ask(address).json == {}


def test_edits_set_aside_twice_in_a_second_are_both_kept(tmp_path):
    folder = pick_folder(tmp_path / "p")
    client = Client(tmp_path, allow_changes=True)
    address = f"/jobs/{keys(client)['p']}/picks/0"
    picks = vg.io.read_picks(folder / "picks.star")
    name = next(iter(picks))
    for number in (2, 1, 3):
        assert client.send(address, {"xy": [[number, number]]}).status == 200
        vg.io.write_picks(folder / "picks.star", picks | {name: picks[name][:number]})
    kept = sorted(folder.glob("picks_edited_before_*.star"))
    assert sorted(vg.io.read_picks(one)[name].xy_px[0, 0] for one in kept) == [1.0, 2.0]
