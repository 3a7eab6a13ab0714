"""What a wheel holds: Python files, py.typed, templates of pages, compiled modules, licence; nothing else.

``python tools/check_wheel.py [--levels v2,v3,v4] [--cuda yes|no|any] [--repaired] wheel.whl`` exits with status 1 if
something is missing or does not belong there. A wheel that auditwheel repaired also carries the OpenMP library.
"""

from __future__ import annotations

import argparse
import re
import sys
import zipfile
from email.parser import Parser
from pathlib import Path, PurePosixPath

ROOT = Path(__file__).resolve().parent.parent
MODULE = re.compile(r"verglas/(_cpu|_cuda|_core_[a-z0-9]+)\.[A-Za-z0-9_.-]*so")
DATA = (
    *("py.typed", "report/page.css", "report/templates/*.html", "report/templates/*.js"),
    *("learned/packaged/*.safetensors", "learned/packaged/*.json", "picking/screening_weights.json"),
    "picking/square_weights.json",
    *("window/templates/*.html", "window/static/*.js", "window/static/*.css"),
)
DIST_INFO = {"METADATA", "WHEEL", "RECORD", "entry_points.txt", "licenses/LICENSE"}


def python_files(root: Path) -> set[str]:
    """What the wheel must carry from the source tree."""
    package = root / "python" / "verglas"
    found = [*package.rglob("*.py"), *(p for pattern in DATA for p in package.glob(pattern))]
    return {p.relative_to(package.parent).as_posix() for p in found}


REPAIRED = re.compile(r"verglas\.libs/libgomp[-\w.]*|[^/]+\.dist-info/sboms/auditwheel\.cdx\.json")


def problems(names: set[str], expected: set[str], levels: set[str], cuda: str) -> list[str]:
    """One sentence per thing missing or out of place among the wheel's file names."""
    found = [f"missing: {name}" for name in sorted(expected - names)]
    modules = {m[1] for n in names if (m := MODULE.fullmatch(n))}
    wanted = {"_cpu", *(f"_core_{level}" for level in levels)}
    if cuda == "yes" or (cuda == "any" and "_cuda" in modules):
        wanted.add("_cuda")
    found += [f"missing: compiled module {name}" for name in sorted(wanted - modules)]
    found += [f"unexpected: compiled module {name}" for name in sorted(modules - wanted)]
    inside = {n: PurePosixPath(n) for n in names}
    info = {n for n, p in inside.items() if p.parts[0].endswith(".dist-info")}
    short = {n.split("/", 1)[1] for n in info}
    found += [f"missing: dist-info/{name}" for name in sorted(DIST_INFO - short)]
    found += [f"unexpected: dist-info/{name}" for name in sorted(short - DIST_INFO)]
    rest = names - expected - info - {n for n in names if MODULE.fullmatch(n)}
    return found + [f"unexpected: {name}" for name in sorted(rest)]


def metadata_problems(text: str) -> list[str]:
    """The metadata's licence and version, against the sources."""
    message = Parser().parsestr(text)
    version = re.search(r'^version = "(.+)"', (ROOT / "pyproject.toml").read_text(encoding="utf-8"), re.M)
    found = []
    if message["License-Expression"] != "BSD-3-Clause":
        found.append(f"metadata: License-Expression is {message['License-Expression']!r}, expected 'BSD-3-Clause'")
    if version is None or message["Version"] != version[1]:
        found.append(f"metadata: Version is {message['Version']!r}, pyproject.toml says {version and version[1]!r}")
    if not message.get_payload().strip():
        found.append("metadata: no long description; is README.md there?")
    return found


def main(arguments: list[str]) -> int:
    """Check one wheel."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("wheel", type=Path)
    parser.add_argument("--levels", default="v2,v3,v4", help="instruction-set levels it must hold")
    parser.add_argument("--repaired", action="store_true", help="auditwheel has added libgomp")
    parser.add_argument("--cuda", choices=("yes", "no", "any"), default="any")
    options = parser.parse_args(arguments)
    with zipfile.ZipFile(options.wheel) as wheel:
        names = {n for n in wheel.namelist() if not n.endswith("/")}
        if options.repaired:
            names = {n for n in names if not REPAIRED.fullmatch(n)}
        found = problems(names, python_files(ROOT), set(options.levels.split(",")), options.cuda)
        licence = next((n for n in names if n.endswith(".dist-info/licenses/LICENSE")), None)
        if licence and wheel.read(licence) != (ROOT / "LICENSE").read_bytes():
            found.append("the licence differs from LICENSE")
        metadata = next((n for n in names if n.endswith(".dist-info/METADATA")), None)
        if metadata:
            found += metadata_problems(wheel.read(metadata).decode())
    print("\n".join(found) if found else f"wheel: {options.wheel.name}, {len(names)} files, all as they must be")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
