"""Refinements without their verdict, which takes half of the time of a small one.

What it says is tested where it is asked for (test_refine_verdict.py, test_refine_symmetry.py, test_hidden_symmetry.py);
files of tests that run a refinement for its map or its folder leave it out.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from verglas.types.verdict import Verdict


def without_verdict() -> Iterator[None]:
    """Body of a fixture."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("verglas.run.refine.judge_refinement", lambda *_: Verdict.of((), "report.html"))
        yield
