"""After a refinement: orientations that are not known, and a symmetry that was not asked for, are told."""

from __future__ import annotations

import numpy as np
import pytest
from small_refinement import refined_phantom

from verglas.assessment.judge import judge_hidden_symmetry, judge_orientations
from verglas.run.refine_hidden_symmetry import groups_of_folds
from verglas.types.listener import Silence


class Progress(Silence):
    """Keeps how far each phase came."""

    def __init__(self) -> None:
        self.last: dict[str, tuple[int, int]] = {}

    def progress(self, phase: str, done: int, total: int) -> None:
        self.last[phase] = (done, total)


def test_many_wide_radii_are_a_warning_with_their_share():
    wide = np.array([3.0, 4, 170, 170])  # that fit in a second place, less well
    known = judge_orientations(wide, np.array([0.0, 0, 0.1, 0.3]))
    assert (known.code, known.state) == ("orientations", "go on")
    unknown = judge_orientations(wide, np.array([0.0, 0.1, 0.6, 0.8]))
    assert (unknown.code, unknown.state) == ("uncertain-orientations", "warn")
    assert unknown.numbers == {"expected_share_far": 0.375, "median_radius_deg": 87.0}


def test_a_hidden_symmetry_is_told_unless_held_out_particles_speak_against_it():
    rng = np.random.default_rng(0)
    (found,) = judge_hidden_symmetry("C2", 0.97, rng.normal(0.5, 1.0, 200))
    assert (found.code, found.state, found.numbers["symmetry"]) == ("looks-symmetric", "warn", "C2")
    assert found.numbers["gain_nats"] == pytest.approx(0.5, abs=0.2)
    assert judge_hidden_symmetry("C2", 0.97, rng.normal(0.0, 1.0, 200))
    assert judge_hidden_symmetry("C2", 0.97, rng.normal(-0.5, 1.0, 200)) == []


def test_groups_need_all_their_axes():
    assert groups_of_folds({2, 3}) == ["C2", "C3", "C4", "C6", "C8", "D2", "D3", "D4", "D6", "D8", "T", "O"]
    assert groups_of_folds({7}) == ["C7"]
    assert "I" in groups_of_folds({2, 3, 5})


@pytest.mark.slow
@pytest.mark.parametrize("symmetry", ["C1", "C2"])
def test_a_refinement_without_symmetry_says_what_its_map_has(symmetry):
    heard = Progress()
    _, result = refined_phantom(160, 0.3, seed=11, symmetry=symmetry, listener=heard)
    assert heard.last["credible radii, particles"] == (160, 160)
    assert heard.last["verdict, hidden symmetry"] == (2, 2)
    codes = result.verdict.codes
    if symmetry == "C1":
        assert "orientations" in codes
        assert "looks-symmetric" not in codes
    else:
        assert result.verdict["looks-symmetric"].numbers["symmetry"] == "C2"
        done, total = heard.last["verdict, hidden symmetry, held-out particles"]
        assert done == total > 0
        assert "uncertain-orientations" not in codes  # the copies are why two places fit
