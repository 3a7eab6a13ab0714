"""A resolution that the verdict on the refinement withholds is stated nowhere: page, records, commands, deposition."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from small_refinement import refined_phantom

import verglas as vg
from verglas.assessment.judge import judge_orientations, resolution_withheld_by
from verglas.cli import main
from verglas.cli.refine import _resolution
from verglas.report.assessed import Assessed, read_assessed
from verglas.report.refine import write_refine_page
from verglas.run import refine as refine_job
from verglas.run.refine_summary import summary
from verglas.types.verdict import Verdict

pytestmark = pytest.mark.usefixtures("blank_figures_of_module")

_WRONG = judge_orientations(np.full(4, 170.0), np.full(4, 0.6))


@pytest.fixture(scope="module")
def refined(tmp_path_factory):
    """A refinement of few images, the verdict of which is that most lie wrong."""
    folder = tmp_path_factory.mktemp("withheld") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(refine_job, "judge_refinement", lambda *args: Verdict.of([_WRONG], "report.html"))
        _, found = refined_phantom(60, 0.3, seed=5, out=folder)
    return folder, found


def test_the_finding_says_it():
    assert "not to be stated" in _WRONG.sentence
    right = judge_orientations(np.full(4, 3.0), np.zeros(4))
    assert resolution_withheld_by(Verdict.of([right])) is None
    assert resolution_withheld_by(Verdict.of([right, _WRONG])) == "uncertain-orientations"


def test_what_is_returned_and_what_is_written_agree(refined):
    folder, found = refined
    assert np.isfinite(found.resolution_A)
    assert found.claimed_resolution_A == np.inf
    assert "not to be stated (uncertain-orientations)" in repr(found)
    certain = replace(found, verdict=Verdict("go on"))
    assert certain.claimed_resolution_A == found.postprocessed.claimed_resolution_A < np.inf
    assert "resolution_withheld_by" not in summary(certain)
    for told in (summary(found), json.loads((folder / "postprocess.json").read_text())):
        assert told["resolution_A"] == pytest.approx(found.resolution_A)
        assert (told["claimed_resolution_A"], told["resolution_withheld_by"]) == (None, "uncertain-orientations")
    assert _resolution(summary(found)).startswith("not to be stated: uncertain-orientations (half maps cross at")


def test_the_page_says_it(refined):
    folder, _ = refined
    assert read_assessed(folder).claim == {"to be stated": "nothing (uncertain-orientations)"}
    page = write_refine_page(folder).read_text()
    assert "not to be stated: the verdict says uncertain-orientations" in page
    assert "nothing (uncertain-orientations)" in page
    assert "whether all particles show this map" in page  # a part that half of them lack raises no finding
    assert Assessed({}, None, {"resolution_A": 5.0, "claimed_resolution_A": 5.0}).withheld_by is None


def test_postprocessing_of_its_half_maps_and_a_deposition_say_it_too(refined, tmp_path, capsys):
    folder, _ = refined
    out = tmp_path / "post"
    with pytest.raises(SystemExit) as ended:
        main(["postprocess", str(folder / "half1.mrc"), str(folder / "half2.mrc"), "--out", str(out)])
    assert not ended.value.code
    assert "state no resolution: the verdict" in capsys.readouterr().out
    record = json.loads((out / "postprocess.json").read_text())
    assert (record["claimed_resolution_A"], record["resolution_withheld_by"]) == (None, "uncertain-orientations")
    verdict = vg.deposit(folder, tmp_path / "dep", hand="known")
    assert verdict.state == "stop"
    assert verdict["withheld-resolution"].numbers["resolution_A"] == pytest.approx(record["resolution_A"], rel=0.05)
