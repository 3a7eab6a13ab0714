"""Adds up pytest's JUnit files and ends with one line: ``N passed, N failed`` (and skipped, where there are any)."""

from __future__ import annotations

import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path


def count(paths: list[Path]) -> tuple[int, int, int]:
    """(passed, failed, skipped) over all files that exist."""
    passed = failed = skipped = 0
    for path in filter(Path.is_file, paths):
        for suite in ElementTree.parse(path).iter("testsuite"):
            bad = int(suite.get("failures", 0)) + int(suite.get("errors", 0))
            away = int(suite.get("skipped", 0))
            passed += int(suite.get("tests", 0)) - bad - away
            failed += bad
            skipped += away
    return passed, failed, skipped


if __name__ == "__main__":
    passed, failed, skipped = count([Path(a) for a in sys.argv[1:]])
    print(f"{passed} passed, {failed} failed" + (f", {skipped} skipped" if skipped else ""))
