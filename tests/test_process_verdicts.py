"""What stages make of what their jobs left: notes are told apart by their codes and states, never by their words."""

from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd
import pytest

import verglas as vg
from verglas.io import write_json, write_star
from verglas.pipeline.maps import (
    AbInitioStage,
    Class2DStage,
    PostprocessStage,
    RefineStage,
    particles_for_maps,
)
from verglas.pipeline.project import Project
from verglas.pipeline.settings import ProcessSettings
from verglas.types.verdict import Finding, Verdict

SUMMARY = {
    "resolution_withheld_by": None,
    "resolution_A": 7.5,
    "resolutions_A": {},
    "b_factor_A2": 0.0,
    "particles": 90,
    "excluded": 0,
    "iterations": 9,
    "peak_memory_GB": 1.0,
}


@pytest.fixture
def project(tmp_path):
    made = Project(tmp_path, ProcessSettings(("mics",), 120.0), [])
    for name in ("class2d", "abinitio", "refine", "postprocess"):
        (tmp_path / name).mkdir()
    return made


def refined(project, **run):
    """The verdict on a refinement that left this run.json and summary."""
    summary = SUMMARY | {name: run.pop(name) for name in list(run) if name in SUMMARY}
    write_json(project.root / "refine/summary.json", summary)
    write_json(project.root / "refine/run.json", {"state": "converged", "notes": [], **run})
    return RefineStage().verdict(project)


def test_what_is_routine_is_told_by_its_state_and_not_by_its_words(project):
    routine = Finding("grey_scale", "go on", "the reference was multiplied by 0.02").as_dict()
    assert refined(project, notes=[routine]).state == "go on"
    # these words were once taken for routine wherever they stood
    lost = Finding("set_aside", "warn", "3 particles set aside (particle 7: its image was cropped)").as_dict()
    made = refined(project, notes=[routine, lost], excluded=3)
    assert (made.state, made.codes) == ("warn", ("set_aside", "excluded"))
    assert made["excluded"].numbers == {"excluded": 3}


def test_the_refinements_own_verdict_comes_first_and_counts(project):
    own = Verdict.of([Finding("signal", "go on", "Held-out particles gain."), Finding("views", "warn", "One cone.")])
    made = refined(project, verdict=own.as_dict(), state="stopped after 5 iterations")
    assert made.state == "warn"
    assert made.reasons == ("One cone.", "not converged: stopped after 5 iterations")
    assert made.codes == ("signal", "views", "not_converged")
    assert refined(project, verdict=Verdict.of([Finding("noise", "stop", "Noise.")]).as_dict()).state == "stop"
    nothing = refined(project, resolution_A=None)
    assert (nothing.state, nothing.codes) == ("stop", ("no_signal",))


def test_a_run_of_an_earlier_version_has_plain_warnings(project):
    write_json(project.root / "refine/summary.json", SUMMARY)
    write_json(project.root / "refine/run.json", {"state": "converged", "warnings": ["half sets were made anew"]})
    made = RefineStage().verdict(project)
    assert (made.state, made.reasons, made.codes) == ("warn", ("half sets were made anew",), ("warning",))


def test_the_hand_is_said_and_is_no_warning(project):
    path = project.root / "postprocess/summary.json"
    write_json(path, {"resolution_A": 7.5, "notes": []})
    made = PostprocessStage().verdict(project)
    assert (made.state, made.codes) == ("go on", ("hand",))
    write_json(path, {"resolution_A": 7.5, "notes": [Finding("mask", "warn", "a tight mask.").as_dict()]})
    made = PostprocessStage().verdict(project)
    assert (made.state, made.codes, made.reasons[0]) == ("warn", ("mask", "hand"), "a tight mask")
    write_json(path, {"resolution_A": None})
    assert PostprocessStage().verdict(project).codes == ("no_signal",)


def test_a_resolution_that_is_withheld_is_so_in_the_numbers_of_both_stages(project):
    path = project.root / "postprocess/summary.json"
    withheld = {"resolution_A": 7.5, "claimed_resolution_A": None, "resolution_withheld_by": "uncertain-orientations"}
    write_json(path, withheld)
    numbers = PostprocessStage().verdict(project).numbers
    assert (numbers["resolution_A"], numbers["resolution_withheld_by"]) == (7.5, "uncertain-orientations")
    assert refined(project, **withheld).numbers["resolution_withheld_by"] == "uncertain-orientations"
    assert "resolution_withheld_by" not in refined(project).numbers


@pytest.mark.parametrize(("kind", "state"), [("found", "go on"), ("unconfirmed", "warn"), ("noise", "stop")])
def test_a_first_map_is_judged_by_the_word_of_its_verdict(project, kind, state):
    found = {"verdict": kind, "sentence": "As it is.", "starts": 3, "starts_that_agree": 2, "symmetry": "C1"}
    write_json(project.root / "abinitio/abinitio.json", found | {"gain_nats_per_particle": 1.0, "particles": 90})
    made = AbInitioStage().verdict(project)
    assert (made.state, made.codes, made.reasons) == (state, (kind,), ("As it is",))


def test_classes_are_judged_by_the_code_of_their_selection(project):
    write_json(project.root / "class2d/summary.json", {"classes": [1, 2]})
    selection = {"state": "warn", "reasons": ["Only 9 of 90."], "particles": 9, "of_particles": 90, "classes": [1]}
    for code in ({"code": "few_kept"}, {}):  # an earlier version wrote none
        write_json(project.root / "class2d/selection.json", selection | {"left_out": {}} | code)
        made = Class2DStage().verdict(project)
        assert (made.state, made.reasons) == ("warn", ("Only 9 of 90",))
        assert made.codes == (code.get("code", "selection"),)
        assert made.look_at == "class2d/classes.html"


def test_classes_that_a_person_has_ticked_are_those_of_the_maps(project, tmp_path):
    """``process --selection selection.star``, as the page of the 2D classes saves it; another list, another result."""
    model = vg.simulate.phantom(24, 5.0, 90.0)
    particles = vg.simulate.particles(model, 6, 24, 5.0, seed=1).with_columns(rlnClassNumber=np.array([1, 2, 3] * 2))
    vg.write_particles(project.root / "class2d/particles.star", particles)
    chosen = tmp_path / "selection.star"

    def ticked(*classes):
        write_star(chosen, {"selection": pd.DataFrame({"rlnClassNumber": classes})})
        asked = Project(project.root, dataclasses.replace(project.settings, selection=str(chosen)), [])
        return vg.read_particles(particles_for_maps(asked)), AbInitioStage().settings(asked)

    assert particles_for_maps(project).name == "selected.star"
    two, before = ticked(1, 3)
    assert two.table["rlnClassNumber"].tolist() == [1, 3, 1, 3]
    assert two.poses is None  # in-plane angles are no poses of a map
    one, after = ticked(2)
    assert one.table["rlnClassNumber"].tolist() == [2, 2]
    assert before != after
    chosen.unlink()
    with pytest.raises(vg.InputError, match=r"--selection .*selection\.star: no such file; the page .* saves one"):
        AbInitioStage().settings(
            Project(project.root, dataclasses.replace(project.settings, selection=str(chosen)), [])
        )
