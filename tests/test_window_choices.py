"""What is chosen by eye of particles and of classes in three dimensions; drafts; columns kept of large files."""

from __future__ import annotations

import json
import os
import re
import time
from urllib.parse import urlencode

import numpy as np
import pandas as pd
import pytest
from command_line import main
from hypothesis import given, settings
from hypothesis import strategies as st
from window_client import Client, ball, class_folder, key_of, pick_folder, refine_run

import verglas as vg
from verglas.heterogeneity import Region, in_regions
from verglas.io.columns import N_BINS, bins_path, keep_columns, read_columns
from verglas.io.star_columns import columns_path
from verglas.run.tenure import tenure
from verglas.window import classes3d

pytest.importorskip("starlette")


# ---- regions


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.integers(3, 12))
def test_inside_a_convex_polygon_is_left_of_all_its_edges(seed, corners):
    rng = np.random.default_rng(seed)
    angles = np.sort(rng.uniform(0, 2 * np.pi, corners))
    polygon = np.stack([2 * np.cos(angles) + 1, 3 * np.sin(angles)], 1)
    points = rng.uniform(-4, 4, (60, 2))
    step = np.roll(polygon, -1, axis=0) - polygon
    away = points[:, None] - polygon
    left = (step[:, 0] * away[..., 1] - step[:, 1] * away[..., 0] > 0).all(axis=1)
    table = {"a": points[:, 0], "b": points[:, 1]}
    frame = vg.Particles.from_images(np.zeros((60, 2, 2), np.float32), 1.0).with_columns(**table).table
    assert in_regions(frame, [Region("keep", "a", "b", polygon.tolist())]).tolist() == left.tolist()
    turned = Region("drop", "a", "b", polygon[::-1].tolist())
    assert in_regions(frame, [turned]).tolist() == (~left).tolist()


@pytest.mark.parametrize(
    ("record", "said"),
    [
        (5, "step 1: expected an object"),
        ({"action": "take", "x": "a"}, "step 1: region: expected an action of keep, drop, add"),
        ({"action": "keep", "x": "a", "y": "b", "corners": [[0, 0], [1, 1]]}, "3 to 2000 corners, got 2"),
        ({"action": "keep", "x": "a", "y": "b", "corners": [[0, 0], [1, 1], [float("nan"), 0]]}, "finite corners"),
        ({"action": "keep", "x": "a", "low": "x"}, "step 1: expected numbers"),
        ({"action": "keep", "x": 5}, "names of columns"),
        ({"action": "keep", "x": "nowhere"}, "no column nowhere"),
    ],
)
def test_regions_that_are_none_are_refused(tmp_path, record, said):
    folder = class_folder(tmp_path / "c")
    client = Client(tmp_path, allow_changes=True)
    answer = client.send(f"/jobs/{key_of(client, 'c')}/particles", {"steps": [record]})
    assert (answer.status, said in answer.json["problem"]) == (400, True), answer.json
    assert not (folder / "particles_kept.json").exists()


# ---- particles


@pytest.fixture(scope="module")
def varied(tmp_path_factory):
    """120 particles with two coordinates of variability, in two groups apart."""
    folder = class_folder(tmp_path_factory.mktemp("varied") / "variability")
    (folder / "run.json").unlink()  # of class2d
    with tenure(folder, "variability") as hold:
        hold.write(state="running")
    rng = np.random.default_rng(3)
    particles = vg.read_particles(folder / "particles.star")
    z = rng.normal(size=(len(particles), 2)) * 0.3
    z[:30, 0] += 4
    z[5] = np.nan
    columns = {"verglasCoordinate1": z[:, 0], "verglasCoordinate2": z[:, 1]}
    vg.write_particles(folder / "particles.star", particles.with_columns(**columns))
    return folder, z


def test_particles_inside_a_line_are_those_that_select_takes(varied, capsys):
    folder, z = varied
    client = Client(folder.parent, allow_changes=True)
    page = f"/jobs/{key_of(client, folder.name)}/particles"
    assert client.ask(page).status == 200
    told = client.ask(f"{page}.json").json
    assert told["total"] == len(z)
    assert [c["name"] for c in told["columns"]][:2] == ["verglasCoordinate1", "verglasCoordinate2"]
    assert sum(told["columns"][0]["counts"]) == len(z) - 1  # one has no value
    points = client.ask(f"{page}/points.json?x=verglasCoordinate1&y=verglasCoordinate2").json
    assert points["x"][:5] == pytest.approx(z[:5, 0], rel=1e-4)
    assert points["x"][5] is None
    corners = [[3, -2], [6, -2], [6, 2], [3, 2]]
    steps = [{"action": "keep", "x": "verglasCoordinate1", "y": "verglasCoordinate2", "corners": corners}]
    steps += [{"action": "drop", "x": "verglasCoordinate2", "low": 0.25}]
    true = np.flatnonzero((z[:, 0] > 3) & ~(z[:, 1] >= 0.25))
    query = urlencode({"steps": json.dumps(steps), "sort": "verglasCoordinate2", "way": "down"})
    chosen = client.ask(f"{page}/chosen.json?{query}").json
    assert chosen["kept"] == len(true) < 30
    assert [row[0] - 1 for row in chosen["rows"]] == true[np.argsort(-z[true, 1])].tolist()
    assert np.flatnonzero(chosen["sample"]).tolist() == true.tolist()
    assert sum(chosen["counts"]["verglasCoordinate1"]) == len(true)
    done = client.send(page, {"steps": steps})
    words = done.json["command"].split()
    status, out, _ = main(words[1:], capsys)
    assert (status, f"{len(true)} of {len(z)} particles, from the regions of" in out) == (0, True)
    kept = vg.read_particles(folder / "selected_by_eye.star")
    assert kept.table["verglasCoordinate1"].to_numpy() == pytest.approx(z[true, 0], rel=1e-5)
    assert client.ask(f"{page}.json").json["steps"] == steps  # another server finds what was decided
    status, out, _ = main([*words[1:-1], str(folder / "both.star"), "--classes", "2,3"], capsys)
    assert status == 1
    assert main([*words[1:-1], str(folder / "both.star"), "--classes", "1"], capsys)[0] == 0
    assert len(vg.read_particles(folder / "both.star")) == len(true)  # the first 50 are class 1


def test_limits_that_are_values_choose_what_select_chooses(tmp_path):
    """A value such as 0.1 is another number in four bytes than in eight."""
    folder = class_folder(tmp_path / "c")
    particles, values = vg.read_particles(folder / "particles.star"), np.round(np.linspace(0, 0.89, 90), 2)
    vg.write_particles(folder / "particles.star", particles.with_columns(rlnMaxValueProb=values))
    table = vg.read_particles(folder / "particles.star").table
    client = Client(tmp_path)
    page = f"/jobs/{key_of(client, 'c')}/particles/chosen.json"
    for row in range(0, 90, 7):
        step = {"action": "keep", "x": "rlnMaxValueProb", "low": values[row]}
        kept = client.ask(f"{page}?{urlencode({'steps': json.dumps([step])})}").json["kept"]
        assert kept == in_regions(table, [Region.of(step)]).sum() == 90 - row


def test_a_choice_that_leaves_nothing_and_files_that_hold_none_are_refused(varied, tmp_path, capsys):
    folder, _ = varied
    client = Client(folder.parent, allow_changes=True)
    page = f"/jobs/{key_of(client, folder.name)}/particles"
    answer = client.send(page, {"steps": [{"action": "keep", "x": "verglasCoordinate1", "low": 99}]})
    assert (answer.status, answer.json["problem"]) == (400, "particles: none would be left")
    for query in ("steps=5", "steps={", "page=x", "steps=[1]"):
        assert client.ask(f"{page}/chosen.json?{query}").status == 400
    assert client.ask(f"{page}/points.json?x=nowhere&y=nowhere").status == 400
    (tmp_path / "other.json").write_text("[]")
    particles = str(folder / "particles.star")
    for name, said in (("other.json", "expected a JSON object"), ("none.json", "no such file")):
        out = main(["select", particles, "--regions", str(tmp_path / name), "--out", str(tmp_path / "o.star")], capsys)
        assert out[0] == 1
        assert said in out[2]


# ---- classes in three dimensions


def test_classes_of_maps_are_ticked_as_those_of_averages(tmp_path, capsys):
    folder = refine_run(tmp_path / "class3d")
    made = class_folder(tmp_path / "class2d")
    for k, radius in ((1, 9.0), (2, 6.0)):
        vg.io.write_map(folder / f"map_class{k}.mrc", ball(radius=radius))
    vg.io.write_json(folder / "class3d.json", {"resolutions_A": [8.5, None]})
    particles = vg.read_particles(made / "particles.star")
    numbers = np.where(np.arange(len(particles)) < 70, 1, 2)
    vg.write_particles(folder / "particles.star", particles.with_columns(rlnClassNumber=numbers))
    client = Client(tmp_path, allow_changes=True)
    page = f"/jobs/{key_of(client, 'class3d')}/classes"
    text = client.ask(page).text
    cards = json.loads(text.split('class="cards">')[1].split("</script>")[0])
    assert [(c["number"], c["particles"], c["resolution_A"], c["ticked"]) for c in cards] == [
        (1, 70, 8.5, True),
        (2, 20, None, True),
    ]
    assert "3D classes of class3d" in text
    assert 'class="volume"' in text
    assert client.ask(f"{page}.png").body[:4] == b"\x89PNG"
    done = client.send(page, {"classes": [2]})
    status, out, _ = main(done.json["command"].split()[1:], capsys)
    assert (status, "20 of 90 particles, from classes 2" in out) == (0, True)


def test_particles_of_classes_are_counted_from_kept_columns(tmp_path, monkeypatch):
    folder = refine_run(tmp_path / "class3d")
    star = folder / "particles.star"
    particles = vg.read_particles(class_folder(tmp_path / "class2d") / "particles.star")
    vg.write_particles(star, particles.with_columns(rlnClassNumber=np.where(np.arange(len(particles)) < 70, 1, 2)))
    job = next(job for job in Client(tmp_path).window.folders.jobs().values() if job.name == "class3d")
    vg.io.open_columns(star)
    with monkeypatch.context() as patch:
        patch.setattr(classes3d, "read_particles", lambda path: pytest.fail("the whole file is read"))
        assert classes3d.particles_by_class(job) == {1: 70, 2: 20}
    vg.write_particles(star, particles.with_columns(rlnClassNumber=np.where(np.arange(len(particles)) < 8, 1, 30)))
    assert classes3d.particles_by_class(job) == {1: 8, 30: 82}  # of another state than the columns


# ---- drafts


def test_a_draft_stays_until_it_is_forgotten(tmp_path):
    folder = class_folder(tmp_path / "c")
    client = Client(tmp_path, allow_changes=True)
    address = f"/jobs/{key_of(client, 'c')}/draft/classes"
    assert client.ask(address).json == {}
    draft = {"base": "50 30 10", "time": 5, "value": [1, 2]}
    assert client.send(address, draft).status == 200
    other = Client(tmp_path, allow_changes=True)
    assert other.ask(address).json == draft
    assert not (folder / "selection.star").exists()
    for wrong in ({"value": 1}, {"base": 5, "time": 5, "value": 1}, {**draft, "more": 1}):
        assert client.send(address, wrong).status == 400
    for name in ("x", "..", "picks-", "picks-1/..", "classes.json"):
        assert client.send(f"/jobs/{key_of(client, 'c')}/draft/{name}", draft).status in (400, 404)
    assert client.send(address, {}).json == {"said": "forgotten"}
    assert other.ask(address).json == {}
    assert Client(tmp_path).send(address, draft).status == 403  # read-only


def test_drafts_are_not_written_through_a_link(tmp_path):
    pick_folder(tmp_path / "jobs" / "p")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "jobs" / "p" / ".window_drafts").symlink_to(tmp_path / "elsewhere")
    client = Client(tmp_path / "jobs", allow_changes=True)
    address = f"/jobs/{key_of(client, 'p')}/draft/picks-0"
    assert client.send(address, {"base": "b", "time": 1, "value": []}).status == 400
    assert list((tmp_path / "elsewhere").iterdir()) == []


# ---- columns kept beside large files


def test_kept_columns_are_those_of_the_file_and_of_no_other_state_of_it(varied, tmp_path):
    folder, z = varied
    star = tmp_path / "particles.star"
    star.write_bytes((folder / "particles.star").read_bytes())
    assert read_columns(star) is None
    table = vg.read_particles(star).table
    for place in (None, tmp_path / "cache"):
        keep_columns(star, place)
        kept = read_columns(star, place)
        assert "rlnVoltage" not in kept  # the same in every row
        for name in kept.names:
            assert np.array_equal(kept.of(name), table[name].to_numpy(np.float64), equal_nan=True), name
        low, high = kept.limits[kept.names.index("verglasCoordinate1")]
        true = np.histogram(np.clip(z[:, 0][np.isfinite(z[:, 0])], low, high), N_BINS, (low, high))[0]
        assert kept.counts("verglasCoordinate1").tolist() == true.tolist()
        assert kept.counts("verglasCoordinate1", z[:, 0] > 3).sum() == (z[:, 0] > 3).sum()
    # One value is another, the size is not: the time tells; put back as well, the bytes at the ends do.
    was = star.stat()
    star.write_bytes(star.read_bytes().replace(b"nan", b"7.0"))
    assert star.stat().st_size == was.st_size
    assert read_columns(star) is None
    os.utime(star, ns=(was.st_atime_ns, was.st_mtime_ns))
    assert read_columns(star) is None
    for kept_file in (bins_path(star), columns_path(star)):
        keep_columns(star)
        assert read_columns(star) is not None
        kept_file.write_bytes(kept_file.read_bytes()[:-50])
        assert read_columns(star) is None
        kept_file.write_bytes(b"something else")
        assert read_columns(star) is None


def test_a_star_file_has_one_file_of_columns_whoever_made_it(varied, tmp_path, monkeypatch):
    star = tmp_path / "particles.star"
    star.write_bytes((varied[0] / "particles.star").read_bytes())
    vg.io.open_columns(star)  # as read_particles leaves it
    monkeypatch.setattr("verglas.io.star_columns._write", None)  # so that none can be made
    keep_columns(star, tmp_path / "cache")
    assert read_columns(star, tmp_path / "cache").n_rows == len(varied[1])
    assert [path.suffix for path in (tmp_path / "cache").iterdir()] == [".bins"]
    assert read_columns(star) is None  # bins lie elsewhere, and none are made by looking


def test_columns_of_others_are_not_made_beside_their_file_even_where_particles_are_read_by_columns(
    varied, tmp_path, monkeypatch
):
    monkeypatch.setattr("verglas.io.particles.LARGE_BYTES", 1)
    folder = tmp_path / "theirs"
    folder.mkdir()
    (folder / "run_data.star").write_bytes((varied[0] / "particles.star").read_bytes())
    keep_columns(folder / "run_data.star", tmp_path / "cache")
    assert [path.name for path in folder.iterdir()] == ["run_data.star"]


def test_columns_of_cryosparc_and_of_tables_that_are_no_columns_are_kept_with_their_values(varied, tmp_path):
    particles = vg.read_particles(varied[0] / "particles.star")
    vg.write_particles(tmp_path / "p.cs", particles)
    vg.write_particles(tmp_path / "p.star", particles)
    text = (tmp_path / "p.star").read_text().splitlines()
    first = next(k for k, line in enumerate(text) if "@" in line)
    label = next(k for k in range(first, 0, -1) if text[k].startswith("_"))
    rows = [f"{line} {2**64 - 1 - k}" if "@" in line else line for k, line in enumerate(text)]
    rows.insert(label + 1, f"_rlnUid #{int(text[label].split('#')[1]) + 1}")
    (tmp_path / "p.star").write_text("\n".join(rows) + "\n")
    for path in (tmp_path / "p.cs", tmp_path / "p.star"):
        keep_columns(path)
        kept, table = read_columns(path), vg.read_particles(path).table
        assert {"verglasCoordinate1", "verglasCoordinate2"} <= set(kept.names)
        for name in kept.names:
            assert np.array_equal(kept.of(name), table[name].to_numpy(np.float64), equal_nan=True), name
    assert not columns_path(tmp_path / "p.star").exists()


def test_columns_that_cannot_be_written_are_an_error_and_what_a_killed_child_left_is_removed(
    varied, tmp_path, monkeypatch
):
    star = tmp_path / "particles.star"
    star.write_bytes((varied[0] / "particles.star").read_bytes())
    left = star.with_name(f".{bins_path(star).stem}.0123abcd.part.bins")
    left.write_bytes(b"half of")
    os.utime(left, (0, 0))
    keep_columns(star)
    assert not left.exists()
    bins_path(star).unlink()
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(vg.InputError, match="not writable"):
        keep_columns(star)
    assert not bins_path(star).exists()


def test_nothing_waits_for_a_large_file_and_what_is_wrong_with_it_is_said(varied, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("verglas.window.columns.LARGE_BYTES", 1)
    client = Client(varied[0].parent)
    page = f"/jobs/{key_of(client, varied[0].name)}/particles"
    assert client.ask(page).status == 200
    told = client.ask(f"{page}.json").json
    assert "particles.star" in told["reading"]
    # Before all is read the page has the number of rows, and histograms and values of a sample: of few rows all.
    first = told["columns"][0]
    assert (told["total"], told["sampled"], first["name"]) == (len(varied[1]),) * 2 + ("verglasCoordinate1",)
    assert sum(first["counts"]) == len(varied[1]) - 1  # one has none
    assert len(told["values"]["verglasCoordinate2"]) == len(varied[1])
    assert client.ask(f"{page}/points.json?x=verglasCoordinate1&y=verglasCoordinate2").status == 400
    told = until_read(client, page)
    assert told["total"] == len(varied[1])
    assert len(list((tmp_path / "cache" / "verglas" / "columns").glob("*.columns"))) == 1
    assert len(list((tmp_path / "cache" / "verglas" / "columns").glob("*.bins"))) == 1
    assert {path.name for path in varied[0].glob(".*")} <= {".lock"}  # a server that changes nothing
    # Once more, of a file that is none: the words of the reader, and no endless reading.
    bad = class_folder(tmp_path / "bad")
    (bad / "particles.star").write_text("data_particles\n\nloop_\n_rlnImageName\n_rlnDefocusU\n1@a.mrcs\n")
    client = Client(tmp_path)
    page = f"/jobs/{key_of(client, 'bad')}/particles"
    told = until_read(client, page)
    assert "1 values for 2 labels" in told["problem"]


def until_read(client, page):
    for _ in range(600):
        told = client.ask(f"{page}.json").json
        if "reading" not in told:
            return told
        time.sleep(0.05)
    raise AssertionError("still reading")


def test_a_job_that_ends_leaves_columns_of_a_large_file(varied, tmp_path, monkeypatch):
    monkeypatch.setattr("verglas.run.columns.LARGE_BYTES", 1)
    folder = tmp_path / "run"
    for state in ("failed", "finished"):
        with tenure(folder, "refine") as hold:
            hold.write(state="running")
            (folder / "particles.star").write_bytes((varied[0] / "particles.star").read_bytes())
            hold.write(state=state)
        assert (read_columns(folder / "particles.star") is not None) == (state == "finished")


# ---- particles of other packages


def test_particles_of_a_relion_job_are_looked_at_and_chosen_by_a_file_of_ones_own(varied, tmp_path, capsys):
    project = tmp_path / "project"
    job = project / "Refine3D" / "job001"
    job.mkdir(parents=True)
    star = (varied[0] / "particles.star").read_bytes()
    for name in ("run_it001_data.star", "run_it002_data.star"):
        (job / name).write_bytes(star)
    process = {"rlnPipeLineProcessName": ["Refine3D/job001/"], "rlnPipeLineProcessAlias": ["None"]}
    process |= {"rlnPipeLineProcessStatusLabel": ["Succeeded"]}
    vg.io.write_star(project / "default_pipeline.star", {"pipeline_processes": pd.DataFrame(process)})
    client = Client(project, allow_changes=True)
    page = f"/jobs/{key_of(client, 'Refine3D/job001')}/particles"
    shown = client.ask(page)
    assert shown.status == 200
    assert 'data-changes="0"' in shown.text  # downloaded: nothing is written into another package's project
    assert client.ask(f"{page}.json").json["total"] == len(varied[1])
    assert client.send(page, {"steps": []}).status == 403
    command = re.search(r"<code>(verglas select [^<]+)</code>", shown.text)[1].split()
    assert command[2] == str(job / "run_it002_data.star")
    steps = [{"action": "keep", "x": "verglasCoordinate1", "low": 3}]
    (tmp_path / "particles_kept.json").write_text(json.dumps({"particles": "x", "steps": steps}))
    monkeyed = [word if word != "particles_kept.json" else str(tmp_path / word) for word in command[1:-1]]
    assert main([*monkeyed, str(tmp_path / "out.star")], capsys)[0] == 0
    assert len(vg.read_particles(tmp_path / "out.star")) == (varied[1][:, 0] >= 3).sum()
    os.symlink(varied[0] / "particles.star", job / "run_data.star")  # a link out of the project is not followed
    assert client.ask(f"{page}.json").json["total"] == len(varied[1])
    assert "run_it002_data.star" in client.ask(page).text


def test_particles_of_a_cryosparc_job_are_looked_at(data_dir, tmp_path):
    job = tmp_path / "P1" / "J24"
    job.mkdir(parents=True)
    record = {"uid": "J24", "project_uid": "P1", "status": "completed", "type": "homo_refine_new"}
    vg.io.write_json(job / "job.json", record)
    source = data_dir / "particles" / "cryosparc_P12_J24_001_particles.cs"
    (job / "J24_001_particles.cs").write_bytes(source.read_bytes())
    (job / "J24_passthrough_particles.cs").write_bytes(b"none")
    client = Client(tmp_path)
    page = f"/jobs/{key_of(client, 'J24 homo refine')}/particles"
    told = client.ask(f"{page}.json").json
    table = vg.read_particles(source).table
    assert told["total"] == len(table)
    assert {"rlnDefocusU", "rlnAngleRot"} <= {one["name"] for one in told["columns"]}
    assert client.ask(page).status == 200


# ---- two pages of one decision


def test_a_choice_that_another_page_has_saved_is_not_overwritten(varied, tmp_path):
    folder, _ = varied
    client = Client(folder.parent, allow_changes=True)
    page = f"/jobs/{key_of(client, folder.name)}"
    classes = re.search(r'data-seen="(\w+)"', client.ask(f"{page}/classes").text)[1]
    particles = client.ask(f"{page}/particles.json").json["seen"]
    note = re.search(r'data-seen="(\w+)"', client.ask(page).text)[1]
    drop = [{"action": "drop", "x": "verglasCoordinate1", "low": 3.0}]
    sent = {
        "classes": ({"classes": [1]}, {"classes": [2]}, classes),
        "particles": ({"steps": drop}, {"steps": [{**drop[0], "low": 2.0}]}, particles),
        "note": ({"note": "one"}, {"note": "two"}, note),
    }
    refused_and_taken(client, page, sent)


def test_a_list_of_micrographs_that_another_page_has_saved_is_not_overwritten(tmp_path):
    pick_folder(tmp_path / "picks")
    client = Client(tmp_path, allow_changes=True)
    page = f"/jobs/{key_of(client, 'picks')}"
    seen = client.ask(f"{page}/micrographs.json").json["seen"]
    refused_and_taken(client, page, {"micrographs": ({"dropped": [0]}, {"dropped": [1]}, seen)})


def refused_and_taken(client, page, sent):
    for name, (first, other, seen) in sent.items():
        done = client.send(f"{page}/{name}", {**first, "seen": seen})
        assert done.status == 200, name
        assert client.send(f"{page}/{name}", {**first, "seen": seen}).status == 200, name  # a button pressed twice
        late = client.send(f"{page}/{name}", {**other, "seen": seen})
        assert (late.status, "another page has saved" in late.json["problem"]) == (400, True), name
        again = client.send(f"{page}/{name}", {**other, "seen": done.json["seen"]})
        assert again.status == 200, (name, again.json)
