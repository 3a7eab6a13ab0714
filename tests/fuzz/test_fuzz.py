"""No exception of a library comes through on damaged files; bench/bench_fuzz.py runs more of the same cases."""

from __future__ import annotations

import pytest
from fuzz.damage import READERS, failure

CASES = 60


@pytest.mark.parametrize("kind", READERS)
def test_damaged_files_end_in_an_error_of_the_package(kind, tmp_path):
    found = [failure(kind, number, tmp_path) for number in range(CASES)]
    assert [f for f in found if f is not None] == []
