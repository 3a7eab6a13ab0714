"""The window against what a folder or a request may hold by mistake or by intent."""

from __future__ import annotations

import json
import os

import numpy as np
import pytest
from window_client import HOST, Client, class_folder, pick_folder, refine_run

import verglas as vg
from verglas.errors import InputError

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
    refine_run(tmp_path / "twenty_two_characters_")
    page = Client(tmp_path).ask("/").text
    assert 'class="node finished warn"' in page
    assert ">twenty_two_charact…</text>" in page


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
