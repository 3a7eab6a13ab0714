"""Tables of the documentation from bench/results: every number in them is one that a benchmark wrote.

    python bench/tables.py            rewrite the tables in docs and README
    python bench/tables.py --check    fail if a table differs from its results

A table stands between ``<!-- table: <name> <column>=<heading> ... -->`` and ``<!-- end -->``; ``<name>`` is a file of
bench/results without ending; ``where:column=value`` keeps the rows with that value. Numbers keep three digits.
"""

from __future__ import annotations

import argparse
import json
import re
import shlex
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BLOCK = re.compile(r"(<!-- table: (?P<spec>[^>]*?) -->\n).*?(<!-- end -->)", re.S)


def shown(value: object) -> str:
    if value is None or value != value:  # what was not measured, NaN included
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        if value != 0 and (abs(value) < 1e-3 or abs(value) >= 1e6):
            return f"{value:.1e}"
        return f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"
    return str(value)


def table(spec: str) -> str:
    name, *parts = shlex.split(spec)
    rows = json.loads((ROOT / "bench" / "results" / f"{name}.json").read_text(encoding="utf-8"))["rows"]
    columns = []
    for part in parts:
        key, _, heading = part.partition("=")
        if key.startswith("where:"):
            rows = [row for row in rows if str(row.get(key[6:])) == heading]
        else:
            columns.append((key, heading or key))
    if not rows:
        raise SystemExit(f"table {spec!r}: no rows in bench/results/{name}.json")
    lines = [" | ".join(heading for _, heading in columns), " | ".join("---" for _ in columns)]
    lines += [" | ".join(shown(row.get(key)) for key, _ in columns) for row in rows]
    return "".join(f"| {line} |\n" for line in lines)


def rewritten(text: str) -> str:
    return BLOCK.sub(lambda m: m.group(1) + table(m.group("spec")) + m.group(3), text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="change nothing; exit 1 if a table is out of date")
    args = parser.parse_args()
    stale = []
    for path in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]:
        before = path.read_text(encoding="utf-8")
        after = rewritten(before)
        if after != before:
            stale.append(path)
            if not args.check:
                path.write_text(after, encoding="utf-8")
    for path in stale:
        print(f"{path.relative_to(ROOT)}: {'out of date' if args.check else 'rewritten'}")
    sys.exit(1 if args.check and stale else 0)


if __name__ == "__main__":
    main()
