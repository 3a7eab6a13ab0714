"""No exception of a library comes through on damaged files; bench/bench_fuzz.py runs more of the same cases."""

from __future__ import annotations

import pytest
from fuzz.damage import READERS, failure

CASES = 60


@pytest.mark.parametrize("kind", READERS)
def test_damaged_files_end_in_an_error_of_the_package(kind, tmp_path):
    found = [failure(kind, number, tmp_path) for number in range(CASES)]
    assert [f for f in found if f is not None] == []


@pytest.mark.parametrize(("kind", "number"), [("spider", 1109), ("particles", 2830), ("cs", 3315)])
def test_files_that_once_came_through(kind, number, tmp_path):
    # negative rows in a SPIDER header; an optics table without rows; a NaN whose bits are damaged, too
    assert failure(kind, number, tmp_path) is None
