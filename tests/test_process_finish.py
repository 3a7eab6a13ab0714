"""After the first map: CTF refinement and a second refinement as stages, and which map goes on."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest

import verglas as vg
from verglas.errors import SettingError
from verglas.pipeline import ProcessSettings, finish
from verglas.pipeline.finish import CtfRefineStage, RefineCtfStage
from verglas.pipeline.maps import last_refined
from verglas.pipeline.stages import stages_of
from verglas.run.checkpoint import checkpoint_path
from verglas.run.refine import summary
from verglas.types.listener import Silence


def project_in(root, **changes):
    """As much of a project as these stages ask for."""
    asked = ProcessSettings(("mics",), 65.0, to="map", finish=True, **changes)
    for name in ("refine", "ctf_refine", "refine_ctf"):
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


def test_the_map_is_finished_where_that_is_asked_for():
    asked = {"to": "map", "finish": True}
    names = [stage.name for stage in stages_of(ProcessSettings(("mics",), 120.0, **asked))]
    assert names[-4:] == ["refine", "ctf_refine", "refine_ctf", "postprocess"]
    assert "ctf_refine" not in [stage.name for stage in stages_of(ProcessSettings(("mics",), 120.0, to="map"))]
    assert "ctf_refine" not in [stage.name for stage in stages_of(ProcessSettings(("mics",), 120.0, finish=True))]


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
