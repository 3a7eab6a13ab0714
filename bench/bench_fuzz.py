"""Damaged files: how many end in an exception of a library. Writes bench/results/fuzz.json.

The cases are those of tests/fuzz/damage.py, by number; a failure is written with its kind and number, so that
``failure(kind, number, folder)`` shows it again.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from common import write

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
from fuzz.damage import READERS, failure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=6250, help="files of each kind")
    parser.add_argument("--first", type=int, default=0, help="number of the first case")
    parser.add_argument("--kind", choices=READERS, help="only this kind")
    arguments = parser.parse_args()
    rows = []
    for kind in [arguments.kind] if arguments.kind else READERS:
        begun, found = time.perf_counter(), []
        with tempfile.TemporaryDirectory() as folder:
            for number in range(arguments.first, arguments.first + arguments.cases):
                said = failure(kind, number, Path(folder))
                if said is not None:
                    found.append(said)
        kinds = Counter(said.split(": ")[1] for said in found)
        rows.append(
            {"what": kind, "files": arguments.cases, "failures": len(found), "s": time.perf_counter() - begun, **kinds}
        )
        for said in found[:3]:
            print(said)
    write("fuzz", rows)


if __name__ == "__main__":
    main()
