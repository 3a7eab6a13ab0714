"""Decisions in the window are files that the command line takes; jobs stop and go on; nothing happens unasked."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pandas as pd
import pytest
from command_line import main
from window_client import HOST, TOKEN, Client, class_folder, key_of, pick_folder, refine_run

import verglas as vg
from verglas.errors import InputError
from verglas.run.tenure import tenure

pytestmark = pytest.mark.drawn

pytest.importorskip("starlette")


def only_key(client: Client) -> str:
    (key,) = client.window.folders.jobs()
    return key


# ---- 2D classes


def test_ticked_classes_are_the_file_that_select_takes(tmp_path, capsys):
    folder = class_folder(tmp_path / "class2d")
    client = Client(tmp_path, allow_changes=True)
    key = only_key(client)
    page = client.ask(f"/jobs/{key}/classes").text
    cards = json.loads(page.split('class="cards">')[1].split("</script>")[0])
    assert [(c["number"], c["particles"], c["resolution_A"]) for c in cards] == [
        (1, 50, 8.0),
        (2, 30, 12.0),
        (3, 10, None),
    ]
    assert cards[2]["left_out"]
    assert not cards[2]["ticked"]
    assert client.ask(f"/jobs/{key}/classes.png").body[:4] == b"\x89PNG"
    done = client.send(f"/jobs/{key}/classes", {"classes": [3, 1]})
    assert done.status == 200
    command = done.json["command"].split()
    assert command[:2] == ["verglas", "select"]
    status, out, _ = main(command[1:], capsys)
    assert (status, "60 of 90 particles, from classes 1, 3" in out) == (0, True)
    assert len(vg.read_particles(folder / "selected_by_eye.star")) == 60
    again = Client(tmp_path).ask(f"/jobs/{key}/classes").text  # another server finds what was decided
    ticks = {c["number"]: c["ticked"] for c in json.loads(again.split('class="cards">')[1].split("</script>")[0])}
    assert ticks == {1: True, 2: False, 3: True}


def test_a_selection_of_no_class_is_refused(tmp_path):
    folder = class_folder(tmp_path / "class2d")
    client = Client(tmp_path, allow_changes=True)
    for classes in ([], [7], ["1"], [1.5], [True], None, {"1": 1}):
        assert client.send(f"/jobs/{only_key(client)}/classes", {"classes": classes}).status == 400, classes
    assert not (folder / "selection.star").exists()


# ---- micrographs


def test_kept_micrographs_are_the_list_that_the_next_stage_takes(tmp_path):
    folder = pick_folder(tmp_path / "pick")
    client = Client(tmp_path, allow_changes=True)
    key = only_key(client)
    table = client.ask(f"/jobs/{key}/micrographs.json").json
    assert table["measures"]["separation of picks"] == [4.0, 1.0]
    assert table["kept"] == [True, True]
    assert client.ask(f"/jobs/{key}/micrographs").status == 200
    assert client.send(f"/jobs/{key}/micrographs", {"dropped": [1]}).status == 200
    kept = vg.io.find_micrographs(folder / "micrographs_kept.star")
    assert [Path(p).name for p in kept["path"]] == ["m 1.mrc"]
    assert client.ask(f"/jobs/{key}/micrographs.json").json["kept"] == [True, False]
    for wrong in ([0, 1], [2], ["0"], "all", None):
        assert client.send(f"/jobs/{key}/micrographs", {"dropped": wrong}).status == 400
    assert client.ask(f"/jobs/{key}/micrographs.json").json["kept"] == [True, False]
    # By name, as pages send it: another micrograph has come before those that the page knew.
    table = pd.read_csv(folder / "picks.csv")
    pd.concat([table[:1].assign(micrograph="m 0.mrc"), table]).to_csv(folder / "picks.csv", index=False)
    assert client.send(f"/jobs/{key}/micrographs", {"dropped": [table["micrograph"][0]]}).status == 200
    assert client.ask(f"/jobs/{key}/micrographs.json").json["kept"] == [True, False, True]


def test_stages_of_a_project_are_one_table_of_micrographs(tmp_path):
    project = tmp_path / "proj"
    with tenure(project, "process") as hold:
        hold.write(state="running")
    vg.io.write_json(project / "project.json", {"request": {"diameter_A": 120.0}})
    ctf = {"defocus_u_A": [1e4, 2e4], "defocus_v_A": [1e4, 2.2e4], "resolution_A": [5.0, 9.0]}
    for stage, file, columns in (("ctf", "ctf.csv", ctf), ("pick", "picks.csv", {"picks": [50, 3]})):
        (project / stage).mkdir()
        pd.DataFrame({"micrograph": ["a.mrc", "b.mrc"], **columns}).to_csv(project / stage / file)
        record = {"stage": stage, "state": "finished", "settings": {}, "inputs": {}}
        vg.io.write_json(project / stage / "stage.json", record)
    client = Client(tmp_path, allow_changes=True)
    key = next(k for k, job in client.window.folders.jobs().items() if job.command == "process")
    table = client.ask(f"/jobs/{key}/micrographs.json").json["measures"]
    assert table["defocus (Å)"] == [10000.0, 21000.0]
    assert table["picks"] == [50, 3]
    command = client.send(f"/jobs/{key}/micrographs", {"dropped": [1]}).json["command"]
    assert command == f"verglas process --out {project} --keep {project / 'micrographs_kept.star'}"
    (project / "extract").mkdir()
    vg.io.write_json(project / "extract" / "stage.json", {"stage": "extract", "state": "finished"})
    again = client.send(f"/jobs/{key}/micrographs", {"dropped": [1]}).json["command"]
    assert again == f"{command} --redo extract"  # process refuses another list for an extraction that has finished


def test_a_project_of_movies_has_each_micrograph_once(tmp_path):
    """Motion correction gives the micrograph of a movie a name of its own; the stages after it say the movie's."""
    project = refine_run(tmp_path / "proj")
    vg.io.write_json(project / "run.json", {"command": "process", "state": "finished", "run_state": "finished"})
    vg.io.write_json(project / "project.json", {"request": {}})
    movies, moved = ["movies/a.tif", "movies/b.tif"], ["motion/micrographs/a-1.mrc", "motion/micrographs/b-2.mrc"]
    tables = {"motion/motion.csv": {"movie": movies, "micrograph": moved, "rlnAccumMotionTotal": [3.0, 4.0]}}
    tables |= {"ctf/ctf.csv": {"micrograph": movies, "defocus_u_A": [1e4, 2e4], "defocus_v_A": [1e4, 2e4]}}
    for name, columns in tables.items():
        (project / name).parent.mkdir()
        pd.DataFrame(columns).to_csv(project / name, index=False)
    client = Client(tmp_path, allow_changes=True)
    told = client.ask(f"/jobs/{only_key(client)}/micrographs.json").json
    assert told["names"] == movies
    assert told["measures"] == {"defocus (Å)": [1e4, 2e4], "motion (Å)": [3.0, 4.0]}


def listed(folder: Path, name: str, **columns: object) -> Path:
    """A STAR file of two micrographs with optics."""
    folder.mkdir()
    optics = {"rlnOpticsGroup": [1], "rlnVoltage": [200.0], "rlnMicrographPixelSize": [1.5]}
    rows = pd.DataFrame({"rlnMicrographName": ["a.mrc", "b.mrc"], "rlnOpticsGroup": 1, **columns})
    vg.io.write_star(folder / name, {"optics": pd.DataFrame(optics), "micrographs": rows})
    return folder / name


def test_a_kept_list_keeps_optics_and_ctfs_and_its_command_asks_for_what_no_file_says(tmp_path):
    fitted = listed(tmp_path / "ctf", "micrographs_ctf.star", rlnDefocusU=[1e4, 2e4], rlnDefocusV=[1e4, 2e4])
    pd.DataFrame({"micrograph": ["a.mrc", "b.mrc"], "merit": [0.5, 0.1]}).to_csv(fitted.with_name("ctf.csv"))
    vg.io.write_json(fitted.with_name("verdict.json"), {"state": "go on", "reasons": []})
    client = Client(tmp_path, allow_changes=True)
    address = f"/jobs/{only_key(client)}/micrographs"
    command = client.send(address, {"dropped": ["b.mrc"]}).json["command"]
    kept = vg.io.read_star(tmp_path / "ctf" / "micrographs_kept.star")
    assert kept["micrographs"]["rlnDefocusU"].tolist() == [1e4]
    assert kept["optics"]["rlnVoltage"].tolist() == [200.0]
    assert command.startswith(f"verglas pick {tmp_path / 'ctf' / 'micrographs_kept.star'} --diameter DIAMETER")
    page = client.ask(address).text
    assert 'data-word="--diameter DIAMETER"' in page
    assert "<code>The command stands here once this is known.</code>" in page


def test_micrographs_of_movies_corrected_are_taken_by_ctf(tmp_path):
    path = listed(tmp_path / "motion", "micrographs.star", rlnAccumMotionTotal=[3.0, 9.0])
    run = {"command": "motion", "state": "finished", "run_state": "finished"}
    vg.io.write_json(path.with_name("run.json"), run)
    pd.DataFrame({"movie": ["a.tif", "b.tif"], "total_px": [2.0, 6.0]}).to_csv(path.with_name("motion.csv"))
    client = Client(tmp_path, allow_changes=True)
    address = f"/jobs/{only_key(client)}/micrographs"
    assert client.ask(f"{address}.json").json["measures"] == {"motion (Å)": [3.0, 9.0]}
    command = client.send(address, {"dropped": [1]}).json["command"]
    assert command == f"verglas ctf {path.with_name('micrographs_kept.star')} --out {tmp_path / 'ctf'}"


# ---- picks


def test_the_command_for_picks_takes_the_ctfs_and_picks_again_as_the_job_did(tmp_path):
    fitted = listed(tmp_path / "ctf", "micrographs_ctf.star", rlnDefocusU=[1e4, 2e4], rlnDefocusV=[1e4, 2e4])
    folder = pick_folder(tmp_path / "pick")
    words = ["pick", "ctf/micrographs_ctf.star", "--method", "log", "-d", "24", "--out", "pick"]
    run = {"command": "pick", "state": "finished", "settings": {"diameter_A": 24.0, "pixel_size_A": 1.5}}
    vg.io.write_json(folder / "run.json", run | {"call": {"arguments": words, "folder": str(tmp_path)}})
    client = Client(tmp_path, allow_changes=True)
    key = key_of(client, "pick")
    done = client.send(f"/jobs/{key}/picks/1", {"xy": [[60.0, 40.0]], "left_out": [[200, 100, 30]]}).json
    assert f"--ctf {fitted}" in done["command"]
    left_out = folder / "left_out.star"
    again = f"verglas pick ctf/micrographs_ctf.star --method log -d 24 --leave-out {left_out} --out {folder}_again"
    assert done["again"] == f"cd {tmp_path} && {again}"
    assert again in client.ask(f"/jobs/{key}/picks/0").text


def test_the_command_for_picks_takes_the_ctfs_given_and_none_of_particles(tmp_path):
    folder = pick_folder(tmp_path / "pick")
    particles = {"rlnMicrographName": ["a.mrc"], "rlnCoordinateX": [1.0], "rlnCoordinateY": [2.0], "rlnDefocusU": [1e4]}
    vg.io.write_star(tmp_path / "particles.star", {"particles": pd.DataFrame(particles)})
    (tmp_path / "ctf.tsv").write_text("micrograph\tdefocus_A\na.mrc\t10000\n")
    words = ["pick", "m/*.mrc", "-d", "24", "--compare", "particles.star", "--out", "pick"]
    for more, shown in (([], ""), (["--ctf", "ctf.tsv"], f"--ctf {tmp_path / 'ctf.tsv'} ")):
        run = {"command": "pick", "state": "finished", "settings": {"diameter_A": 24.0, "pixel_size_A": 1.5}}
        call = {"arguments": [*words, *more], "folder": str(tmp_path)}
        vg.io.write_json(folder / "run.json", run | {"call": call})
        client = Client(tmp_path, allow_changes=True)
        command = client.send(f"/jobs/{key_of(client, 'pick')}/picks/1", {"xy": [[60.0, 40.0]]}).json["command"]
        assert command.partition(" --box ")[2].partition(" ")[2] == f"{shown}--out {folder}_particles"


def test_areas_that_a_job_was_told_to_leave_out_stay_left_out_when_more_are_drawn(tmp_path):
    """The command takes one file: without those of the first the second time would pick there again."""
    folder = pick_folder(tmp_path / "pick")
    (first,) = (name for name in list(vg.io.read_picks(folder / "picks.star"))[:1])
    first_areas = {"rlnMicrographName": [first], "rlnCoordinateX": [50.0], "rlnCoordinateY": [60.0]}
    vg.io.write_star(tmp_path / "old.star", {"": pd.DataFrame(first_areas | {"verglasRadius": [20.0]})})
    words = ["pick", "m/*.mrc", "-d", "24", "--leave-out", "old.star", "--out=pick"]
    run = {"command": "pick", "state": "finished", "call": {"arguments": words, "folder": str(tmp_path)}}
    vg.io.write_json(folder / "run.json", run)
    client = Client(tmp_path, allow_changes=True)
    address = f"/jobs/{key_of(client, 'pick')}/picks/1"
    done = client.send(address, {"xy": [[60.0, 40.0]], "left_out": [[200, 100, 30]]}).json
    left_out = folder / "left_out.star"
    again = f"verglas pick 'm/*.mrc' -d 24 --leave-out {left_out} --out {folder}_again"
    assert done["again"] == f"cd {tmp_path} && {again}"
    assert sorted(vg.io.read_star(left_out)[""]["verglasRadius"]) == [20, 30]
    assert client.ask(f"{address}.json").json["left_out"] == [[200, 100, 30]]  # drawn on this one
    (tmp_path / "old.star").unlink()
    more = {"xy": [[60.0, 40.0]], "left_out": [[200, 100, 40]]}
    answer = client.send(address, more)
    assert (answer.status, "old.star" in answer.json["problem"]) == (400, True)
    assert client.ask(f"{address}.json").json["left_out"] == [[200, 100, 30]]
    vg.io.write_json(
        folder / "run.json", run | {"call": {"arguments": [*words, "--", "-a.mrc"], "folder": str(tmp_path)}}
    )
    assert "cd " not in client.ask(address).text  # what is added would be taken for a file


def test_only_what_an_option_lacks_is_asked_for():
    from verglas.window.commands import asked_words

    assert asked_words("verglas extract '/data/glove BOX 2/m.star' --box 96 --out p") == {}
    assert list(asked_words("verglas extract '/data/glove BOX 2/m.star' --box BOX --out p")) == ["--box BOX"]


def test_commands_shown_for_picks_and_micrographs_run_as_they_stand(tmp_path, capsys):
    """With the box that the job's diameter asks for, and names that hold a space."""
    folder = pick_folder(tmp_path / "pick")
    run = {"command": "pick", "state": "finished", "settings": {"diameter_A": 24.0, "pixel_size_A": 1.5}}
    vg.io.write_json(folder / "run.json", run)
    client = Client(tmp_path, allow_changes=True)
    key = only_key(client)
    command = client.send(f"/jobs/{key}/picks/1", {"xy": [[60.0, 40.0]], "merit": [0.9]}).json["command"]
    status, _, error = main(shlex.split(command)[1:], capsys)
    assert (status, error) == (0, error)
    out = tmp_path / "pick_particles"
    particles = vg.read_particles(out / "particles.star")
    assert sorted(particles.table["rlnMicrographName"].value_counts()) == [1, 3]
    assert particles.box == 24
    shutil.rmtree(out)
    command = client.send(f"/jobs/{key}/micrographs", {"dropped": [0]}).json["command"]
    assert "picks_edited.star" in command
    status, _, error = main(shlex.split(command)[1:], capsys)
    assert (status, error) == (0, error)
    assert len(vg.read_particles(out / "particles.star")) == 1  # the one that was edited is left


def test_picks_changed_by_hand_are_what_extract_reads(tmp_path):
    folder = pick_folder(tmp_path / "pick")
    before = (folder / "picks.star").read_text()
    client = Client(tmp_path, allow_changes=True)
    key = only_key(client)
    shown = client.ask(f"/jobs/{key}/picks/1.json").json
    assert shown["xy"][1] == [100.0, 150.0]
    assert shown["merit"] == [0.9, 0.5, 0.2]
    assert shown["shape"] == [200, 300]
    assert client.ask(f"/jobs/{key}/picks/1.png").body[:4] == b"\x89PNG"
    assert len(client.ask(f"/jobs/{key}/picks/1.png").body) < 80_000
    changed = {"xy": [[30.0, 40.0], [99.5, 60.25]], "merit": [0.9, 0.7]}
    done = client.send(f"/jobs/{key}/picks/1", changed)
    assert done.status == 200
    assert "picks_edited.star" in done.json["command"]
    picks = vg.io.read_picks(folder / "picks_edited.star")
    assert [len(one) for one in picks.values()] == [3, 2]
    second = picks[str(folder / "m 2.mrc")]
    assert second.xy_px.tolist() == changed["xy"]
    assert second.columns["rlnAutopickFigureOfMerit"].tolist() == [0.9, 0.7]
    assert (folder / "picks.star").read_text() == before
    assert Client(tmp_path).ask(f"/jobs/{key}/picks/1.json").json["xy"] == changed["xy"]  # after another start
    assert client.send(f"/jobs/{key}/picks/1", {"xy": [], "merit": []}).status == 200
    assert client.ask(f"/jobs/{key}/picks/1.json").json["xy"] == []


def test_picks_that_are_none_are_refused(tmp_path):
    folder = pick_folder(tmp_path / "pick")
    client = Client(tmp_path, allow_changes=True)
    for xy in ([[1.0]], [[1, 2, 3]], [["a", "b"]], [[1e9, 5]], [[-1, 5]], [[None, 2]], "x", None, {}):
        assert client.send(f"/jobs/{only_key(client)}/picks/0", {"xy": xy}).status == 400, xy
    assert not (folder / "picks_edited.star").exists()
    assert client.ask(f"/jobs/{only_key(client)}/picks/2.json").status == 404


# ---- read-only, and jobs of others


def test_a_server_without_leave_changes_nothing(tmp_path):
    class_folder(tmp_path / "class2d")
    client = Client(tmp_path)
    key = only_key(client)
    before = sorted(p.name for p in (tmp_path / "class2d").iterdir())
    for what in ("classes", "micrographs", "picks/0", "stop", "resume", "note", "clean"):
        answer = client.send(f"/jobs/{key}/{what}", {"classes": [1], "note": "x"})
        assert (answer.status, "read-only" in answer.json["problem"]) == (403, True)
    assert sorted(p.name for p in (tmp_path / "class2d").iterdir()) == before


def test_a_project_of_another_package_is_never_changed(tmp_path):
    (tmp_path / "J1").mkdir()
    vg.io.write_json(tmp_path / "J1" / "job.json", {"uid": "J1", "type": "class_2D", "status": "completed"})
    client = Client(tmp_path, allow_changes=True)
    answer = client.send(f"/jobs/{only_key(client)}/note", {"note": "x"})
    assert (answer.status, "never changed" in answer.json["problem"]) == (403, True)
    assert [p.name for p in (tmp_path / "J1").iterdir()] == ["job.json"]


def test_a_note_is_kept_and_escaped(tmp_path):
    refine_run(tmp_path / "one")
    client = Client(tmp_path, allow_changes=True)
    key = only_key(client)
    assert client.send(f"/jobs/{key}/note", {"note": "<b>good</b> map\n"}).status == 200
    assert (tmp_path / "one" / "note.txt").read_text() == "<b>good</b> map\n"
    assert "&lt;b&gt;good&lt;/b&gt; map" in client.ask(f"/jobs/{key}").text
    assert client.send(f"/jobs/{key}/note", {"note": "x" * 20_001}).status == 400
    bad = [("host", HOST), ("cookie", f"verglas_8000={TOKEN}"), ("origin", f"http://{HOST}"), ("content-length", "3")]
    assert client.ask(f"/jobs/{key}/note", "POST", b"{no", bad).status == 400


def test_only_what_holds_no_result_is_removed(tmp_path):
    folder = refine_run(tmp_path / "one")
    for name in ("checkpoint", "history", "results"):
        (folder / name).mkdir()
        (folder / name / "state.npz").write_bytes(b"x" * 5000)
    client = Client(tmp_path, allow_changes=True)
    key = only_key(client)
    assert "checkpoint: to resume from; the job has finished, 5 kB" in client.ask(f"/jobs/{key}").text
    for wrong in ([], ["results"], ["map.mrc"], ["../one"], [".."], ["checkpoint", "results"], "checkpoint", [1]):
        assert client.send(f"/jobs/{key}/clean", {"names": wrong}).status == 400, wrong
    assert (folder / "checkpoint" / "state.npz").is_file()
    assert client.send(f"/jobs/{key}/clean", {"names": ["checkpoint"]}).json["said"] == "removed 1 folders, 0.005 MB"
    assert not (folder / "checkpoint").exists()
    assert (folder / "results" / "state.npz").is_file()
    stopped = refine_run(tmp_path / "two", state="stopped")
    (stopped / "checkpoint").mkdir()
    by_name = {job.name: key for key, job in client.window.folders.jobs().items()}
    assert client.send(f"/jobs/{by_name['two']}/clean", {"names": ["checkpoint"]}).status == 400
    assert (stopped / "checkpoint").is_dir()


# ---- stop and go on

_JOB = """
import sys, time
from pathlib import Path
from verglas.run.tenure import tenure
with tenure(Path(sys.argv[sys.argv.index("--out") + 1]), "class2d") as hold:
    hold.write(state="running")
    for k in range(3000):
        hold.progress("counting", k, 3000)
        time.sleep(0.02)
"""


@pytest.fixture
def running(tmp_path):
    """A job in a process of its own, begun by a program that is called as the command line is."""
    program = tmp_path / "bin" / "verglas"
    program.parent.mkdir()
    program.write_text(textwrap.dedent(_JOB))
    folder = tmp_path / "jobs" / "run 1"
    folder.parent.mkdir()
    made = subprocess.Popen(
        [sys.executable, str(program), "class2d", "p.star", "--out", "run 1"],
        cwd=folder.parent,
        env=dict(os.environ),
    )
    end = time.monotonic() + 60
    while not (folder / "run.json").is_file() or json.loads((folder / "run.json").read_text())["state"] != "running":
        assert made.poll() is None
        assert time.monotonic() < end
        time.sleep(0.05)
    yield folder, made
    made.kill()
    made.wait()


def test_a_running_job_is_stopped_and_can_go_on(running):
    folder, made = running
    client = Client(folder.parent, allow_changes=True)
    key = only_key(client)
    assert "Stop at the next safe point" in client.ask(f"/jobs/{key}").text
    assert client.send(f"/jobs/{key}/resume", {}).status == 400
    done = client.send(f"/jobs/{key}/stop", {})
    assert done.status == 200
    assert made.wait(20) == 143  # as SIGTERM has it: the job came to its own end
    assert json.loads((folder / "run.json").read_text())["run_state"] == "stopped"
    page = client.ask(f"/jobs/{key}").text
    assert "Begin again" in page
    assert f"cd {folder.parent} &amp;&amp; verglas class2d p.star --out &#39;run 1&#39;" in page
    assert client.send(f"/jobs/{key}/stop", {}).status == 400  # nobody is there to be told


def test_what_a_record_says_begins_nothing_else(running, monkeypatch):
    from verglas.window import control

    folder, made = running
    made.terminate()
    made.wait()
    begun = []
    monkeypatch.setattr(control.subprocess, "Popen", lambda command, **how: begun.append((command, how)) or made)
    job = next(iter(Client(folder.parent).window.folders.jobs().values()))
    control.resume(job)
    assert begun[0][0] == [sys.executable, "-m", "verglas", "class2d", "p.star", "--out", "run 1"]
    assert begun[0][1]["cwd"] == folder.parent
    record = json.loads((folder / "run.json").read_text())
    for arguments in (
        ["class2d", "p.star", "--out", "elsewhere"],
        ["convert", "--out", "run 1"],
        ["class2d"],
        "class2d",
        [1],
    ):
        vg.io.write_json(folder / "run.json", record | {"call": {"arguments": arguments, "folder": str(folder.parent)}})
        with pytest.raises(InputError, match="how it was begun is not known"):
            control.resume(job)
    assert len(begun) == 1
