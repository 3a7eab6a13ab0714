"""``verglas process``: micrographs to particles, bad input, verdicts, redoing and resuming."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import types
from pathlib import Path

import numpy as np
import pytest
from process_set import DIAMETER_A, GIVEN, OPTIONS, PIXEL_A, command, environment, run, scene, write_bad, write_set

import verglas as vg
from verglas.errors import InputError, SettingError
from verglas.extraction import try_centring
from verglas.picking import compare_picks, inside
from verglas.pipeline import job
from verglas.pipeline.project import Project, find_shots
from verglas.pipeline.settings import ProcessSettings, load_settings, parse_setting, with_overrides
from verglas.pipeline.stage import Stage, StageStopped, run_stages
from verglas.pipeline.stages import STAGES, stages_of
from verglas.pipeline.tables import pick_verdict, standings
from verglas.run.tenure import lock_project
from verglas.types.verdict import Verdict


@pytest.fixture(scope="module")
def micrographs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mics")
    return folder, write_set(folder, 3)


@pytest.fixture(scope="module")
def project(micrographs, tmp_path_factory):
    """A project of three micrographs, done once for all tests that only read it."""
    root = tmp_path_factory.mktemp("projects") / "proj"
    return vg.process(root, micrographs=[f"{micrographs[0]}/*.mrc"], **GIVEN)


@pytest.fixture
def copy(project, tmp_path, blank_figures):
    """A copy that a test may change; what is drawn anew is left blank."""
    return Path(shutil.copytree(project.root, tmp_path / "proj"))


def stamps(folder: Path) -> dict[str, int]:
    return {p.name: p.stat().st_mtime_ns for p in sorted(folder.glob("*"))}


def test_particles_have_their_ctf_and_lie_where_the_truth_is(micrographs, project):
    folder, truth = micrographs
    particles = vg.read_particles(project.particles)
    assert len(particles) > 50
    assert particles.box == 60  # 1.5 diameters of 40 px
    images = particles.images()
    assert np.isfinite(images).all()
    middle = images[:, 20:40, 20:40].mean()
    assert middle > 3 * abs(images[:, :5].mean())  # white particles, in the middle
    for path, true in truth.items():
        mine = particles.table["rlnMicrographName"].str.endswith(Path(path).name).to_numpy()
        xy = particles.table.loc[mine, ["rlnCoordinateX", "rlnCoordinateY"]].to_numpy()
        expected = true.picks.xy_px[inside(true.picks.xy_px, true.scene.shape, 31)]
        assert compare_picks(xy, expected, DIAMETER_A / PIXEL_A / 3).f_score > 0.85
        defocus = particles.table.loc[mine, "rlnDefocusU"].to_numpy()
        assert np.abs(defocus - true.scene.defocus_u_A).max() < 150
        assert (folder / Path(path).name).is_file()


def test_every_stage_leaves_its_record_verdict_and_pictures(project):
    for stage in ("ctf", "pick", "extract", "centre"):
        record = json.loads((project.root / stage / "stage.json").read_text())
        assert record["stage"] == stage
        assert record["state"] == "finished"
        assert {"settings", "inputs", "outputs", "seed", "verglas", "seconds"} <= set(record)
        verdict = json.loads((project.root / stage / "verdict.json").read_text())
        assert verdict["state"] == "go on"
        for picture in verdict["pictures"]:
            assert (project.root / picture).exists()
    for stage in ("ctf", "pick"):
        assert len(list((project.root / stage / "png").glob("*.png"))) == 3
    page = (project.root / "report.html").read_text()
    linked = re.findall(r'href="(pick/[^"]+png)"', page)
    assert len(linked) == 3
    assert all((project.root / name).is_file() for name in linked)
    assert page.count('type="checkbox"') == 3
    assert "src=" not in page.replace('src="data:', "")  # nothing from elsewhere
    assert {one["stage"] for one in project.summary()["stages"]} == {"ctf", "pick", "extract", "centre"}


def test_a_finished_project_is_not_done_again(copy, project, monkeypatch):
    before = {stage: stamps(copy / stage / "records") for stage in ("ctf", "pick", "extract")}
    pages = []
    monkeypatch.setattr("verglas.pipeline.page.write_page", lambda project: pages.append(list(project.records)))
    again = vg.process(copy, threads=1)  # what it was asked for is known
    assert pages == [["ctf", "pick", "extract", "centre"]]  # one page, not one for every stage that stands
    assert [r.done_before for r in again.records] == [True] * 4
    assert {stage: stamps(copy / stage / "records") for stage in before} == before
    assert (copy / "particles.star").read_text() == project.particles.read_text()


def positions(path):
    return {name: found.xy_px.tolist() for name, found in vg.io.read_picks(path).items()}


@pytest.mark.slow
def test_a_stage_is_redone_with_other_settings_and_earlier_ones_are_not(copy):
    ctf, picks = stamps(copy / "ctf/records"), positions(copy / "pick/picks.star")
    with pytest.raises(InputError, match=r"pick was finished with other settings \(method.*--redo pick"):
        vg.process(copy, set={"pick.method": "log"}, threads=1)
    assert load_settings(copy).set == {}  # a refused wish is not kept
    done = vg.process(copy, set={"pick.method": "log"}, redo=["pick"], threads=1)
    assert [r.done_before for r in done.records] == [True, False, False, False]
    assert stamps(copy / "ctf/records") == ctf
    assert positions(copy / "pick/picks.star") != picks
    assert load_settings(copy).set == {"pick.method": "log"}
    boxed = vg.process(copy, box=72, redo=["extract"], threads=1)
    assert [r.done_before for r in boxed.records] == [True, True, False, False]
    assert vg.read_particles(boxed.particles).box == 72


def test_a_wrong_setting_of_a_later_stage_is_said_first(copy):
    before = (copy / "project.json").read_text()
    with pytest.raises(InputError, match=r"--set refine: unknown setting iteratons \(iterations\?\)"):
        vg.process(copy, to="map", set={"refine.iteratons": 3}, threads=1)
    assert (copy / "project.json").read_text() == before
    assert not (copy / "class2d").exists()


def _with_numbered_folders(root):
    """Lay a project out as earlier versions did: 01_ctf and so on, in the names of files and in the records."""
    numbers = {"ctf": "01_ctf", "pick": "02_pick", "extract": "03_extract", "centre": "04_centre"}
    for name, folder in numbers.items():
        record = json.loads((root / name / "stage.json").read_text())
        record["outputs"] = {key.replace(f"{name}/", f"{folder}/"): v for key, v in record["outputs"].items()}
        # an input is called by its stage, and by the file: extract/03_extract/particles.star
        record["inputs"] = {
            re.sub(r"^(\w+)/\1/", lambda m: f"{m[1]}/{numbers[m[1]]}/", key): v for key, v in record["inputs"].items()
        }
        (root / name / "stage.json").write_text(json.dumps(record))
        (root / name).rename(root / folder)
    for path in (root / "particles.star", root / "03_extract/particles.star"):
        path.write_text(path.read_text().replace("@extract/stacks/", "@03_extract/stacks/"))


@pytest.mark.slow
def test_a_project_with_numbered_folders_goes_on(copy, project):
    _with_numbered_folders(copy)
    before = {path: path.stat().st_mtime_ns for path in copy.glob("0*/records/*")}
    assert len(before) == 9
    again = vg.process(copy, threads=1)
    assert [(r.folder, r.done_before) for r in again.records] == [
        ("01_ctf", True),
        ("02_pick", True),
        ("03_extract", True),
        ("04_centre", True),
    ]
    done = vg.process(copy, set={"pick.method": "log"}, redo=["pick"], threads=1)
    assert [r.done_before for r in done.records] == [True, False, False, False]
    assert {path: path.stat().st_mtime_ns for path in copy.glob("01_ctf/records/*")}.items() <= before.items()
    assert not any((copy / name).exists() for name in STAGES)  # one kind of folder in a project
    assert vg.read_particles(done.particles).table["rlnImageName"].str.contains("@03_extract/stacks/").all()
    assert "02_pick/png/" in (copy / "report.html").read_text()


def test_what_later_versions_call_otherwise_is_no_change(copy, monkeypatch):
    """A record with a setting by its former name, and without one that has been added since."""
    path = copy / "centre/stage.json"
    record = json.loads(path.read_text())
    record["settings"] = {"method": record["settings"]["way"], "least_px": record["settings"]["least_px"]}
    path.write_text(json.dumps(record))
    monkeypatch.setattr(STAGES["centre"], "former_names", {"method": "way"})
    assert vg.process(copy, threads=1).records[-1].done_before
    assert vg.process(copy, set={"centre.method": "auto"}, threads=1).records[-1].done_before
    with pytest.raises(InputError, match="batch: was None, now 10"):
        vg.process(copy, set={"centre.batch": 10}, threads=1)


def test_the_table_of_stages_is_whole():
    """Every stage is called as the table calls it, and reads what stands before it."""
    names = list(STAGES)
    for name, kind in STAGES.items():
        assert kind.name == name
        assert all(names.index(one) < names.index(name) for one in kind.needs)
    assert names[0] == "motion"  # before ctf, where there are movies


def test_only_what_is_new_is_done(copy, micrographs, tmp_path):
    """A fourth micrograph: the others' results stand."""
    for path in micrographs[0].glob("*.mrc"):
        assert path.is_file()
    vg.io.write_stack(tmp_path / "new.mrc", scene(9)[0].data[None], PIXEL_A)
    before = stamps(copy / "pick/records")
    done = vg.process(copy, micrographs=[f"{micrographs[0]}/*.mrc", str(tmp_path / "new.mrc")], threads=1)
    after = stamps(copy / "pick/records")
    assert len(after) == 4
    assert {name: after[name] for name in before} == before
    assert done.summary()["micrographs_used"] == 4


def test_the_kept_list_chooses_micrographs(copy, micrographs):
    kept = copy / "kept.star"
    kept.write_text(f"\ndata_\n\nloop_\n_rlnMicrographName #1\n{micrographs[0]}/m1.mrc\n")
    done = vg.process(copy, keep=str(kept), redo=["extract"], threads=1)
    names = set(vg.read_particles(done.particles).table["rlnMicrographName"])
    assert {Path(name).name for name in names} == {"m1.mrc"}
    assert "not in the list" in done.summary()["set_aside"][f"{micrographs[0]}/m0.mrc"]


def test_doubtful_picks_are_flagged_as_pick_flags_them(copy, micrographs):
    """The expected share of particles among the picks stood in the record, and nobody judged it."""
    settings = ProcessSettings((f"{micrographs[0]}/*.mrc",), DIAMETER_A, pixel_size_A=PIXEL_A)
    shots = find_shots(settings)
    (path,) = (copy / "pick/records").glob(f"{shots[1].key}.json")
    record = json.loads(path.read_text())
    record["result"] |= {"clear": True, "precision": 0.55}
    path.write_text(json.dumps(record))
    sentence = "only about 55 % of its picks are particles"
    assert [sentence in one.flags for one in standings(Project(copy, settings, shots))] == [False, True, False]


def test_micrographs_of_the_other_contrast_are_told_as_pick_tells_them(copy, micrographs):
    settings = ProcessSettings((f"{micrographs[0]}/*.mrc",), DIAMETER_A, pixel_size_A=PIXEL_A)
    project = Project(copy, settings, find_shots(settings))
    assert "inverted" not in pick_verdict(project).codes
    for path in (copy / "pick/records").glob("*.json"):
        record = json.loads(path.read_text())
        assert record["result"]["skewness"] > 0
        record["result"]["skewness"] *= -1
        path.write_text(json.dumps(record))
    told = pick_verdict(Project(copy, settings, find_shots(settings)))
    assert "were the micrographs inverted" in told["inverted"].sentence
    assert told.state == "warn"


def test_bad_files_are_named_set_aside_and_counted(tmp_path, blank_figures):
    mics = tmp_path / "mics"
    mics.mkdir()
    write_set(mics, 2)
    words = write_bad(mics)
    done = run(mics, *OPTIONS, "--out", tmp_path / "proj", "--json", check=False)
    # seven of nine are bad: too many to go on unasked
    assert done.returncode == 1
    assert "ctf stopped: 7 of 9 micrographs set aside" in done.stderr
    assert "--force" in done.stderr
    found = json.loads(run("--out", tmp_path / "proj", "--force", "--json", "--threads", 1).stdout)
    reasons = {Path(name).name: reason for name, reason in found["set_aside"].items()}
    assert set(reasons) == set(words)
    for name, word in words.items():
        assert re.search(word, reasons[name]), f"{name}: {reasons[name]}"
    assert found["micrographs_used"] == 2
    assert found["particles"] > 30
    page = (tmp_path / "proj/report.html").read_text()
    assert all(name in page for name in words)


def test_nothing_to_do_and_nothing_usable(tmp_path, blank_figures):
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no micrographs found"):
        vg.process(tmp_path / "p", micrographs=[str(tmp_path / "empty")], **GIVEN)
    with pytest.raises(InputError, match="diameter_A: is needed"):
        vg.process(tmp_path / "p", micrographs=["a.mrc"])
    (tmp_path / "a.tif").write_bytes(b"no micrograph")
    done = vg.process(tmp_path / "q", micrographs=[str(tmp_path / "a.tif")], **GIVEN)
    assert "ctf stopped: 1 of 1 micrographs set aside" in done.stopped
    assert done.summary()["particles"] == 0


@pytest.mark.slow
def test_all_headers_against_the_pixel_size_is_a_warning(micrographs, tmp_path, blank_figures):
    """One user's pixel size against all headers: used, and said."""
    done = vg.process(
        tmp_path / "p",
        micrographs=[f"{micrographs[0]}/m0.mrc", f"{micrographs[0]}/m1.mrc"],
        **{**GIVEN, "pixel_size_A": 2.8},
    )
    assert "the headers say 3 A per pixel, 2.8 A was asked for" in "; ".join(done.records[0].verdict.reasons)
    assert done.records[0].verdict.state == "warn"
    assert done.records[0].verdict["pixel_size"].state == "warn"


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["ctf", "extract"])
def test_killed_half_way_it_goes_on_with_what_is_there(micrographs, project, tmp_path, moment, blank_figures):
    root = tmp_path / "proj"
    child = subprocess.Popen(
        command(micrographs[0], *OPTIONS, "--out", root),
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    records = root / moment / "records"
    deadline = time.monotonic() + 120
    while not list(records.glob("[!.]*.json")) and child.poll() is None and time.monotonic() < deadline:
        time.sleep(0.005)
    child.send_signal(signal.SIGKILL)
    child.wait()
    before = {p: stamps(p) for p in root.glob("*/records")}
    assert before
    done = vg.process(root, threads=1)
    assert done.particles.read_text().replace(str(tmp_path), "") == project.particles.read_text()
    for folder, had in before.items():
        now = stamps(folder)
        # what was whole was not touched (a temporary file that the kill left is no result)
        assert {name: now[name] for name in had if name.endswith(".json") and name[0] != "."} == {
            name: t for name, t in had.items() if name.endswith(".json") and name[0] != "."
        }


def test_one_process_at_a_time(tmp_path):
    with (
        lock_project(tmp_path),
        pytest.raises(InputError, match=f"another process \\({os.getpid()}\\) works"),
        lock_project(tmp_path),
    ):
        pass
    with lock_project(tmp_path):
        pass


class _Counter(Stage):
    """A stage of a test: another is easily added."""

    def __init__(self, name, state="go on"):
        self.name, self.state, self.runs = name, state, 0

    def settings(self, project):
        return {"n": 1}

    def inputs(self, project):
        return {}

    def run(self, project):
        self.runs += 1
        return {"made": str(self.runs)}

    def verdict(self, project):
        return Verdict(self.state, ("as told",))


def test_a_stop_verdict_stops_and_force_goes_on(copy):
    project = job.Project(copy, load_settings(copy), job.find_shots(load_settings(copy)))
    first, second = _Counter("one", "stop"), _Counter("two")
    with pytest.raises(StageStopped, match=r"one stopped: as told\. Look at .*--redo one.*--force"):
        run_stages(project, [first, second])
    assert (first.runs, second.runs) == (1, 0)
    with pytest.raises(StageStopped):  # the verdict of a finished stage still holds
        run_stages(project, [first, second])
    run_stages(project, [first, second], force=True)
    assert (first.runs, second.runs) == (1, 1)
    run_stages(project, [first, second], force=True, redo=["two"])
    assert (first.runs, second.runs) == (1, 2)
    assert (copy / "two.before").is_dir()  # the last result is kept
    with pytest.raises(InputError, match="no such stage"):
        run_stages(project, [first], redo=["three"])


def test_too_little_to_see_stops_before_a_model_is_made(copy, monkeypatch):
    """Where neither half of some 75 particles explains the other, the classification's verdict ends it."""
    monkeypatch.setattr("verglas.classification.class2d.held_out_gain", lambda *_: 0.0)
    done = vg.process(copy, to="map", classes=2, set={"class2d.iterations": 2}, threads=1)
    assert "class2d stopped" in done.stopped
    assert "noise" in done.stopped
    assert "--force" in done.stopped
    assert [(r.name, r.done_before) for r in done.records] == [
        *((name, True) for name in ("ctf", "pick", "extract", "centre")),
        ("class2d", False),
    ]
    assert done.records[-1].verdict.state == "stop"
    verdict = json.loads((copy / "class2d/verdict.json").read_text())
    assert verdict["numbers"]["particles"] == 0
    assert "class2d/classes.html" in (copy / "report.html").read_text()
    again = vg.process(copy, threads=1)  # it still holds, and is not done again
    assert again.stopped == done.stopped
    assert again.records[-1].done_before
    with pytest.raises(InputError, match="symmetry auto is found by the stage abinitio"):
        vg.process(copy, symmetry="auto", reference=str(copy / "m0.mrc"), force=True, threads=1)


def test_the_stage_of_contributing_runs(copy, monkeypatch):
    """CONTRIBUTING.md shows how to add a stage: its code, as it stands there, in the table."""
    text = (Path(__file__).parents[1] / "CONTRIBUTING.md").read_text()
    code = re.search(r"## Add a stage.*?```python\n(.*?)```", text, re.DOTALL)[1]
    module = types.ModuleType("count")
    monkeypatch.setitem(sys.modules, "count", module)
    exec(compile(code, "count.py", "exec"), module.__dict__)
    monkeypatch.setitem(STAGES, "count", module.CountStage)
    monkeypatch.setattr(module.CountStage, "product", "particles")
    done = vg.process(copy, threads=1)
    assert [(r.name, r.done_before) for r in done.records][-2:] == [("centre", True), ("count", False)]
    assert done.records[-1].verdict.state == "go on"
    assert "count" in (copy / "report.html").read_text()
    assert vg.process(copy, threads=1).records[-1].done_before
    judged = vg.process(copy, redo=["count"], set={"count.fewest": 25}, threads=1).records[-1].verdict
    assert judged["few_particles"].numbers["micrographs"]
    assert sum(json.loads((copy / "count/counts.json").read_text()).values()) == len(vg.read_particles(done.particles))
    with pytest.raises(SettingError, match=r"--set count\.fewest: expected at least 0, got -1"):
        vg.process(copy, set={"count.fewest": -1}, threads=1)


def test_settings_are_checked_by_name(tmp_path):
    assert parse_setting("pick.method=log") == ("pick.method", "log")
    for wrong in ("pick=1", "pick.=1", "threshold"):
        with pytest.raises(InputError, match=r"stage\.field=value"):
            parse_setting(wrong)
    from verglas.picking import PickSettings

    assert with_overrides(PickSettings(), {"threshold": 0.5}, "pick").threshold == 0.5
    with pytest.raises(SettingError, match=r"unknown setting treshold \(threshold\?\); known are .*distance_A"):
        with_overrides(PickSettings(), {"treshold": 0.5}, "pick")
    with pytest.raises(InputError, match="expected float"):
        with_overrides(PickSettings(), {"threshold": "high"}, "pick")
    asked = ProcessSettings(("x",), 3.0, set={"piks.a": 1, "pick.threshold": 0.5})
    with pytest.raises(SettingError, match=r"--set piks\.a: no such stage; there are motion, ctf, pick"):
        stages_of(asked)
    with pytest.raises(SettingError, match=r"--set piks\.a: no such stage"):
        vg.process(tmp_path / "p", asked)
    assert not (tmp_path / "p").exists()
    with pytest.raises(SettingError, match=r"unknown setting diametre_A \(diameter_A\?\)"):
        load_settings(tmp_path, changes={"diametre_A": 3})
    with pytest.raises(
        SettingError, match="to: expected particles, classes or map, got 'maps'; box: expected at least"
    ):
        ProcessSettings(("x",), 3.0, to="maps", box=2)


def test_centring_helps_where_boxes_are_off_and_not_where_they_are_right():
    """Rings at SNR 1/16, boxes off by up to 4 px of 40: the average finds them; placed rightly, none is moved."""
    rng = np.random.default_rng(0)
    y, x = np.indices((40, 40)) - 20
    signs = np.ones((300, 40, 21), np.float32)
    for spread, best in ((4.0, "average"), (0.0, "picks")):
        at = rng.uniform(-spread, spread, (300, 2)) if spread else np.zeros((300, 2))
        rings = np.stack([np.exp(-((np.hypot(x - a, y - b) - 9) ** 2) / 4) for a, b in at])
        images = rings + rng.normal(0, 4 * rings.std(), rings.shape)
        found = try_centring(images, signs, 24)
        assert found.best == best
        if spread:
            assert np.sqrt((((found.shifts_px["average"] + at) ** 2).sum(axis=1)).mean()) < 1.0
            assert found.power["average"] > 1.5


def test_off_centre_picks_are_cut_again(copy):
    """Extraction at picks that were moved by hand: the boxes go back to the particles."""
    rng = np.random.default_rng(1)
    for path in (copy / "pick/records").glob("*.json"):
        record = json.loads(path.read_text())
        xy = np.array(record["result"]["xy_px"])
        record["result"]["xy_px"] = (xy + rng.uniform(-6, 6, xy.shape)).tolist()
        record["digest"] = record["digest"]
        path.write_text(json.dumps(record))
    for path in (copy / "extract/records").glob("*.json"):
        path.unlink()
    done = vg.process(copy, redo=["extract", "centre"], set={"centre.way": "average"}, threads=1)
    found = json.loads((copy / "centre/centring.json").read_text())
    assert found["moved"]
    assert found["rms_shift_px"] > 3
    particles = vg.read_particles(done.particles)
    assert particles.table["rlnImageName"].str.contains("centre/stacks").all()
    assert np.isfinite(particles.images()).all()


@pytest.mark.slow
def test_the_apoferritin_micrographs(data_dir, tmp_path):
    """14 real micrographs: nothing set aside, F against the given picks, seconds per micrograph."""
    begun = time.process_time()
    done = vg.process(
        tmp_path / "p",
        micrographs=[f"{data_dir}/apoferritin/*.tif"],
        diameter_A=130,
        pixel_size_A=1.5,
        voltage_kV=300,
        cs_mm=0.01,
        amplitude_contrast=0.07,
        threads=1,
    )
    seconds = time.process_time() - begun
    found = done.summary()
    assert found["micrographs_used"] == 14
    assert all(one["verdict"] == "go on" for one in found["stages"])
    assert found["particles"] > 1700
    given, mine = (vg.io.read_picks(p) for p in (data_dir / "apoferritin/picks.star", tmp_path / "p/pick/picks.star"))
    total = vg.picking.PickMerit(0, 0, 0)
    for name, picks in mine.items():
        true = given[Path(name).name].xy_px
        true, xy = (one[inside(one, (1200, 1240), 64)] for one in (true, picks.xy_px))
        total = total + compare_picks(xy, true, 30)
    assert total.f_score >= 0.9
    assert seconds / 14 < 10  # a few seconds each, pictures included
