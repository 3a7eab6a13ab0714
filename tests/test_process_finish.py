"""After the first map: CTF refinement and a second refinement as stages, and which map goes on."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest

import verglas as vg
from verglas.errors import SettingError
from verglas.pipeline import ProcessSettings, finish
from verglas.pipeline.finish import (
    FINISHING,
    CtfRefineStage,
    PolishStage,
    RefineCtfStage,
    RefinePolishStage,
    finishing_names,
)
from verglas.pipeline.maps import last_refined
from verglas.pipeline.stages import stages_of
from verglas.run.checkpoint import checkpoint_path
from verglas.run.refine_summary import summary
from verglas.types.listener import Silence


def project_in(root, **changes):
    """As much of a project as these stages ask for."""
    asked = ProcessSettings(("mics",), 65.0, to="map", finish=True, **changes)
    for name in ("refine", *finishing_names(asked)):
        (root / name).mkdir()
    return SimpleNamespace(
        settings=asked,
        root=root,
        folder=lambda name: root / name,
        folder_name=lambda name: name,
        threads=1,
        device="cpu",
        memory_GB=None,
        workers=None,
        listener=Silence(),
    )


def leave(folder, name, record):
    (folder / name).write_text(json.dumps(record))


def test_the_map_is_finished_unless_that_is_not_wanted():
    asked = {"to": "map"}
    once = [stage.name for stage in stages_of(ProcessSettings(("mics",), 120.0, finish_rounds=1, **asked))]
    assert once[-4:] == ["refine", "ctf_refine", "refine_ctf", "postprocess"]
    names = [stage.name for stage in stages_of(ProcessSettings(("mics",), 120.0, **asked))]
    later = ["ctf_refine_2", "refine_ctf_2", "ctf_refine_3", "refine_ctf_3"]
    assert names[-8:] == ["refine", "ctf_refine", "refine_ctf", *later, "postprocess"]
    movies = stages_of(ProcessSettings(("mics",), 120.0, movies=True, finish_rounds=1, **asked))
    assert [stage.name for stage in movies][-5:] == [
        "ctf_refine",
        "refine_ctf",
        "polish",
        "refine_polish",
        "postprocess",
    ]
    assert "ctf_refine" not in [
        stage.name for stage in stages_of(ProcessSettings(("mics",), 120.0, to="map", finish=False))
    ]
    assert "ctf_refine" not in [stage.name for stage in stages_of(ProcessSettings(("mics",), 120.0))]


def test_ctfs_that_stand_cost_no_refinement(tmp_path):
    project = project_in(tmp_path)
    leave(tmp_path / "refine", "summary.json", {"resolution_A": 4.2})
    fit = {"what": "defocus", "kept": False}
    leave(tmp_path / "ctf_refine", "ctf_refine.json", {"verdict": "nothing was changed", "rounds": [{"fits": [fit]}]})
    assert CtfRefineStage().verdict(project).codes == ("ctf_stands",)
    outputs = RefineCtfStage().run(project)
    verdict = RefineCtfStage().verdict(project)
    assert list(outputs) == ["refine_ctf/finish.json"]
    assert (verdict.state, verdict.codes, verdict.numbers["resolution_A"]) == ("go on", ("map_stands",), 4.2)
    assert last_refined(project) == "refine"


@pytest.mark.parametrize(("after", "kept"), [(3.9, True), (4.23, True), (4.4, False)])
def test_a_worse_map_does_not_go_on(tmp_path, after, kept):
    project = project_in(tmp_path)
    leave(tmp_path / "refine_ctf", "finish.json", {"kept": kept, "before_A": 4.2, "after_A": after})
    verdict = RefineCtfStage().verdict(project)
    assert verdict.numbers["resolution_A"] == (after if kept else 4.2)
    assert ("the later map goes on" if kept else "the first map goes on") in verdict.reasons[0]
    assert last_refined(project) == ("refine_ctf" if kept else "refine")


def test_the_later_refinement_goes_on_where_it_was_killed_and_has_the_cluster_too(tmp_path, monkeypatch):
    """The folder of checkpoints alone, of a kill while the first was written, is nothing to go on from."""
    project = project_in(tmp_path, symmetry="C1")
    leave(tmp_path / "refine", "summary.json", {"resolution_A": 4.2})
    leave(tmp_path / "ctf_refine", "ctf_refine.json", {"rounds": [{"fits": [{"what": "defocus", "kept": True}]}]})
    project.workers = object()
    calls = []
    monkeypatch.setattr(finish, "refine", lambda *args, **more: calls.append(more))
    monkeypatch.setattr(finish, "summary", lambda result: {"resolution_A": 4.0})
    monkeypatch.setattr(RefineCtfStage, "outputs", lambda self, project, *names: {})
    (tmp_path / "refine_ctf" / "checkpoint").mkdir()
    RefineCtfStage().run(project)
    checkpoint_path(tmp_path / "refine_ctf").touch()
    RefineCtfStage().run(project)
    assert [call["resume"] for call in calls] == [False, True]
    assert all(call["cluster"] is project.workers and call["poses"] == "local" for call in calls)
    assert last_refined(project) == "refine_ctf"
    project.settings.set["refine_ctf.classes"] = 2
    with pytest.raises(SettingError, match="classes"):
        RefineCtfStage().settings(project)


@pytest.fixture
def rounds(tmp_path, monkeypatch):
    """A project of movies whose jobs are stood in for: each refinement has the next of the resolutions."""
    project = project_in(tmp_path, symmetry="C1", movies=True)
    leave(tmp_path / "refine", "summary.json", {"resolution_A": 5.0})
    calls = []

    def ctfs(job, listener):
        calls.append(("ctf_refine", job.particles.parent.name))
        fit = {"what": "defocus", "kept": project.fits.pop(0)}
        leave(job.out, "ctf_refine.json", {"verdict": "fitted", "rounds": [{"fits": [fit]}]})

    def frames(particles, movies, out, settings, *, half_maps, **more):
        assert movies == tmp_path / "motion" / "micrographs.star"
        assert half_maps[0].parent == particles.parent
        calls.append(("polish", particles.parent.name))
        if isinstance(project.polished[0], Exception):
            raise project.polished.pop(0)
        record = {"verdict": "polished", "changed": project.polished.pop(0)}
        leave(out, "polish.json", record | {"particles": 9, "excluded": 0, "prior": None, "tracks": {}})

    def maps(particles, *args, **more):
        calls.append(("refine", f"{particles.parent.name}/{particles.name}"))

    monkeypatch.setattr(finish, "ctf_refine_files", ctfs)
    monkeypatch.setattr(finish, "polish_files", frames)
    monkeypatch.setattr(finish, "refine", maps)
    monkeypatch.setattr(finish, "summary", lambda result: {"resolution_A": project.resolutions.pop(0)})
    project.calls = calls
    return project


def run_all(project):
    verdicts = {}
    for stage in FINISHING:
        if stage.is_wanted(project.settings):
            stage().run(project)
            verdicts[stage.name] = stage().verdict(project)
    return verdicts


def test_rounds_go_on_from_the_best_map_while_it_improves(rounds):
    rounds.fits, rounds.polished = [True, True], [True, True]
    rounds.resolutions = [4.5, 4.2, 4.4, 4.19]  # worse by more than 1 %: not kept; then better by too little
    verdicts = run_all(rounds)
    assert rounds.calls == [
        ("ctf_refine", "refine"),
        ("refine", "ctf_refine/particles.star"),
        ("polish", "refine_ctf"),
        ("refine", "polish/shiny.star"),
        ("ctf_refine", "refine_polish"),
        ("refine", "ctf_refine_2/particles.star"),
        ("polish", "refine_polish"),
        ("refine", "polish_2/shiny.star"),
    ]
    codes = {name: verdict.codes[0] for name, verdict in verdicts.items()}
    assert codes["refine_polish"] == "map_improved"
    assert codes["refine_ctf_2"] == "map_stands"
    assert "the former map goes on" in verdicts["refine_ctf_2"].reasons[0]
    assert codes["ctf_refine_3"] == codes["polish_3"] == "at_rest"
    assert "4.20 A to 4.19 A: no further round" in verdicts["ctf_refine_3"].reasons[0]
    assert all(verdict.state == "go on" for verdict in verdicts.values())
    assert last_refined(rounds) == "refine_polish_2"
    assert last_refined(rounds, "refine_ctf_2") == "refine_polish"


def test_movies_that_cannot_be_used_leave_the_map_and_are_said(rounds):
    rounds.fits, rounds.polished, rounds.resolutions = [False], [vg.InputError("m1.tif: is gone")], []
    verdicts = run_all(rounds)
    assert (verdicts["polish"].state, verdicts["polish"].codes) == ("warn", ("not_polished",))
    assert "m1.tif: is gone" in verdicts["polish"].reasons[0]
    assert rounds.calls == [("ctf_refine", "refine"), ("polish", "refine")]
    assert "did not change the map" in verdicts["ctf_refine_2"].reasons[0]
    assert last_refined(rounds) == "refine"


def test_settings_of_the_first_round_hold_for_later_ones_unless_given(rounds):
    rounds.settings.set.update({"ctf_refine.rounds": 2, "polish.reach_A": 5.0, "polish_2.reach_A": 7.0})
    later = {stage.name: stage for stage in FINISHING}
    assert later["ctf_refine_3"]().resolve_settings(rounds).rounds == 2
    assert PolishStage().resolve_settings(rounds).reach_A == 5.0
    assert later["polish_2"]().resolve_settings(rounds).reach_A == 7.0
    assert RefinePolishStage().settings(rounds)["poses"] == "local"


@pytest.mark.slow
def test_wrong_defoci_are_mended_and_the_map_improves(tmp_path):
    box, pixel_A, n = 48, 2.0, 500
    model = vg.simulate.phantom(box, pixel_A, 60.0, seed=4)
    made = vg.simulate.particles(model, n, box, pixel_A, snr=0.3, seed=4, listener=None)
    error = np.random.default_rng(4).normal(0, 700, n)
    wrong = made.with_columns(
        rlnDefocusU=made.table.rlnDefocusU + error,
        rlnDefocusV=made.table.rlnDefocusV + error,
        rlnRandomSubset=1 + np.arange(n) % 2,
    )
    project = project_in(tmp_path)
    truth = vg.simulate.density(model, box, pixel_A)
    how = {"poses": "local", "iterations": 2, "threads": 1, "listener": None, "initial_resolution_A": 8.0}
    vg.write_particles(tmp_path / "given.star", wrong, stack=tmp_path / "given.mrcs")
    first = vg.refine(tmp_path / "given.star", truth, diameter_A=65.0, out=tmp_path / "refine", **how)
    leave(tmp_path / "refine", "summary.json", summary(first))
    CtfRefineStage().run(project)
    assert CtfRefineStage().verdict(project).codes == ("ctf_refined",)
    project.settings.set["refine_ctf.iterations"] = 2
    project.settings.set["refine_ctf.initial_resolution_A"] = 8.0
    outputs = RefineCtfStage().run(project)
    assert "refine_ctf/particles.star" in outputs
    record = json.loads((tmp_path / "refine_ctf" / "finish.json").read_text())
    assert record["kept"]
    assert record["after_A"] < record["before_A"]
    assert last_refined(project) == "refine_ctf"
    assert "the later map goes on" in RefineCtfStage().verdict(project).reasons[0]
