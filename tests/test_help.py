"""What helps when something went wrong: bug reports, error codes, conventions through every reader, pages, reasons."""

from __future__ import annotations

import json
import re
import zipfile
from pathlib import Path

import numpy as np
import pytest
from command_line import main
from process_set import GIVEN, write_set
from run_folder import make_run_folder

import verglas as vg
from verglas import errors
from verglas.run import check_conventions as conventions
from verglas.run.assumed import assumed_sentence
from verglas.run.extract import ExtractOptions, extract_files
from verglas.run.tenure import tenure
from verglas.types.listener import Silence

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def star(tmp_path_factory):
    folder = tmp_path_factory.mktemp("particles")
    model = vg.simulate.phantom(24, 5.0, 90.0)
    vg.write_particles(folder / "p.star", vg.simulate.particles(model, 20, 24, 5.0, snr=1.0, seed=1))
    return folder / "p.star"


def fails(folder):
    with tenure(folder, "refine") as held:
        held.write(state="running")
        raise vg.FormatError("p.star, line 3: nonsense")


def test_a_bug_report_holds_settings_logs_and_the_last_error_and_no_images(tmp_path, capsys):
    run = tmp_path / "run"
    with pytest.raises(vg.FormatError):
        fails(run)
    (run / "map.mrc").write_bytes(b"a map")
    (run / "particles.star").write_text("a table")
    status, said, _ = main(["bugreport", str(run), "--out", str(tmp_path / "bug.zip")], capsys)
    assert status == 0
    assert "no images" in said
    with zipfile.ZipFile(tmp_path / "bug.zip") as archive:
        texts = {name: archive.read(name).decode() for name in archive.namelist()}
    assert set(texts) == {"info.json", "doctor.json", "run/run.json", "run/error.log", "run/profile.json"}
    assert json.loads(texts["info.json"])["version"] == vg.__version__
    assert "VG-FORMAT: p.star, line 3: nonsense" in texts["run/error.log"]
    assert "in fails" in texts["run/error.log"]
    assert json.loads(texts["run/run.json"])["state"] == "failed: p.star, line 3: nonsense"


def test_every_error_has_a_code_that_the_docs_explain():
    explained = set(re.findall(r"^\| (VG-[A-Z-]+) \|", (ROOT / "docs/guide/errors.md").read_text(), re.M))
    classes = [c for c in vars(errors).values() if isinstance(c, type) and issubclass(c, errors.VerglasError)]
    codes = {c.code for c in classes if c is not errors.VerglasError}
    assert len(codes) == len(classes) - 1  # a code of its own for each
    assert codes | {"VG-UNEXPECTED"} == explained


def test_conventions_survive_every_reader(star, capsys):
    found = conventions.check_conventions(star)
    assert [one.agrees for one in found] == [True] * 3
    assert all(one.mirror < 0.95 for one in found)
    status, said, _ = main(["check-conventions", str(star)], capsys)
    assert status == 0
    assert said.count("agrees") == 3


def test_a_wrong_sign_is_seen(star, monkeypatch):
    """A reader that takes the shifts of .cs files with the other sign."""
    was = conventions.read_particles

    def read(path):
        found = was(path)
        if not str(path).endswith(".cs"):
            return found
        return found.with_poses(vg.Poses(found.poses.angles_deg, -found.poses.shifts_A))

    monkeypatch.setattr(conventions, "read_particles", read)
    assert [one.agrees for one in conventions.check_conventions(star)] == [True, True, False]


@pytest.mark.slow
def test_what_is_assumed_of_the_microscope_is_said(tmp_path, capsys, blank_figures):
    assert assumed_sentence(["voltage_kV", "cs_mm", "amplitude_contrast"], [{}]) == ""
    write_set(tmp_path, 1)
    told = []

    class Told(Silence):
        def note(self, code, sentence):
            told.append((code, sentence))

    given = {**GIVEN, "micrographs": [f"{tmp_path}/*.mrc"], "voltage_kV": 300.0}
    vg.process(tmp_path / "p", listener=Told(), **given)
    [(code, sentence)] = told
    assert code == "assumed"
    assert "Cs 2.7 mm (--cs), amplitude contrast 0.1 (--amplitude-contrast)" in sentence
    assert "kV" not in sentence
    page = tmp_path / "p/report.html"
    assert "Cs 2.7 mm (--cs)" in page.read_text()
    page.unlink()
    assert main(["report", str(tmp_path / "p")], capsys)[0] == 0  # the page again, from the files of the project
    assert "Cs 2.7 mm (--cs)" in page.read_text()


def test_report_says_which_folders_it_can_do(tmp_path, capsys, blank_figures):
    folder = make_run_folder(tmp_path / "run")
    (folder / "report.html").unlink(missing_ok=True)
    assert main(["report", str(folder)], capsys)[0] == 0
    assert (folder / "report.html").is_file()
    (tmp_path / "empty").mkdir()
    status, _, said = main(["report", str(tmp_path / "empty")], capsys)
    assert status == 1
    assert "no run whose page can be written again" in said
    (tmp_path / "empty/excluded.csv").write_text("micrograph,pick,x_px,y_px,reason\n")
    (tmp_path / "empty/verdict.json").write_text("{}\n")
    status, _, said = main(["report", str(tmp_path / "empty")], capsys)
    assert status == 1
    assert "verdict.json: no 'coordinates'" in said


@pytest.mark.parametrize(("at_edge", "missing", "word"), [(60, 10, "beyond|edge"), (10, 100, "no such micrograph")])
def test_the_verdict_of_extraction_names_the_kind_that_cost_most(at_edge, missing, word):
    """Picks beyond the edge, and picks of a micrograph that is not there, which is one line for all of them."""
    data = np.random.default_rng(0).normal(size=(256, 256)).astype(np.float32)
    m = vg.Micrograph(data, 3.0, "a")
    inside = np.random.default_rng(1).uniform(40, 216, (60, 2))
    edge = np.column_stack([np.linspace(1, 9, at_edge), np.linspace(40, 200, at_edge)])
    picks = {"a": vg.Picks(np.vstack([inside, edge]), "a"), "b": vg.Picks(np.full((missing, 2), 50.0), "b")}
    made = extract_files([m], picks, 32, ExtractOptions(voltage_kV=300, cs_mm=2.7, amplitude_contrast=0.1))
    assert len(made.particles) == 60
    reason, _without_ctf = made.verdict.reasons
    assert re.search(word, reason), reason


def test_ctf_says_what_it_assumes(tmp_path, capsys):
    write_set(tmp_path, 1)
    call = ["ctf", f"{tmp_path}/*.mrc", "--out", str(tmp_path / "ctf"), "--no-pictures", "--voltage", "300"]
    _, _, err = main(call, capsys)
    assert "Cs 2.7 mm (--cs), amplitude contrast 0.1 (--amplitude-contrast)" in err
    assert "kV" not in err
    _, _, err = main([*call, "--cs", "2.7", "--amplitude-contrast", "0.1"], capsys)
    assert "assumed" not in err
