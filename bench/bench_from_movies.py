"""The commands of docs/guide/from-movies.md on the movies that it makes: wall and processor time of each.

    python bench/bench_from_movies.py [--folder FOLDER] [--add]

Three movies of 768 x 768 pixels of 1.5 A, twelve frames of 2 e/A2, that drift and dome, with a gain and hot pixels, are
simulated and written as the page does it; then motion correction, CTFs and picks. ``--add`` goes on with the step after
the last one that the file of results holds, in the same ``--folder``.
"""

from __future__ import annotations

import argparse
import os
import re
import time
from pathlib import Path
from typing import Any

from child import VERGLAS, run

from verglas.io import read_json

from common import RESULTS, ROOT, write

PAGE = ROOT / "docs" / "guide" / "from-movies.md"


def steps(text: str) -> list[tuple[str, list[str]]]:
    """What each block of the page does, and the command: Python blocks by this interpreter."""
    made = []
    for kind, block in re.findall(r"^```(python)?\n(.+?)^```$", text, re.M | re.S):
        if kind:
            made.append(("simulate", [VERGLAS[0], "-c", block]))
        elif block.startswith("verglas "):
            words = [word.strip('"') for word in block.replace("\\\n", " ").split()]
            made.append((words[1], [*VERGLAS, *words[1:]]))
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("session"), help="where the session is made")
    parser.add_argument("--add", action="store_true", help="go on after the last step of the file of results")
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, Any]] = []
    if args.add and (RESULTS / "from_movies.json").is_file():
        rows = read_json(RESULTS / "from_movies.json")["rows"]
    for name, command in steps(PAGE.read_text(encoding="utf-8"))[len(rows) :]:
        before, started = os.times(), time.perf_counter()
        _, peak, _ = run(command, args.folder)
        after = os.times()
        spent = after.children_user + after.children_system - before.children_user - before.children_system
        rows.append({"step": name, "seconds": time.perf_counter() - started, "processor_s": spent, "peak_GB": peak})
        print(rows[-1], flush=True)
        write("from_movies", rows, quiet=True)


if __name__ == "__main__":
    main()
