"""What the tests of a JUnit file cost: processor seconds of all beside a budget, and the slowest.

``slowest_tests.py FILE [BUDGET_S]``; the seconds are those of tests/processor_time.py, or wall time without them.
"""

from __future__ import annotations

import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

SHOWN = 20


def costs(path: Path) -> list[tuple[float, str]]:
    """(seconds, name) of every test, the dearest first."""
    rows = []
    for case in ElementTree.parse(path).iter("testcase"):
        told = [p.get("value") for p in case.iter("property") if p.get("name") == "processor_s"]
        name = f"{case.get('classname')}::{case.get('name')}"
        rows.append((float((told or [case.get("time", "0")])[0] or 0), name))
    return sorted(rows, reverse=True)


def lines(rows: list[tuple[float, str]], budget_s: float | None) -> list[str]:
    """A line on the whole, then the slowest."""
    total = sum(seconds for seconds, _ in rows)
    of = "" if budget_s is None else f" of {budget_s:g} s" + (": OVER THE BUDGET" if total > budget_s else "")
    shown = [f"{seconds:7.1f} s  {name}" for seconds, name in rows[:SHOWN]]
    return [f"{len(rows)} tests took {total:.0f} s of processor{of}; the slowest:", *shown]


if __name__ == "__main__":
    print("\n".join(lines(costs(Path(sys.argv[1])), float(sys.argv[2]) if len(sys.argv) > 2 else None)))
