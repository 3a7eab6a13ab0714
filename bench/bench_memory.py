"""Peak memory of refine, class2d and abinitio, beside what they said before they began and what ``--memory`` allows.

Each case simulates a set and runs the command in a process of its own, whose resident size is watched. Results are
written after every case, and a case that is there is not run again (``--again`` runs it).

    python bench/bench_memory.py refine --boxes 32 48 64 96 128 --threads 1 2
    python bench/bench_memory.py refine --boxes 64 --memory 0.6 0.7
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from child import VERGLAS, watch

from common import RESULTS, write

_NAME = "memory"
# The command, whose exit status 1 may be a verdict on the particles, which is none on its memory.
_ANY_VERDICT = """
import sys
from verglas.cli import main
try:
    main(sys.argv[1:])
except SystemExit as end:
    sys.exit(0 if end.code in (None, 0, 1) else end.code)
"""
_FIELD_A = 192.0  # side of the box: 3 A per pixel at 64 px
_DIAMETER_A = 110.0
_COMMANDS = {
    "refine": ["--initial-resolution", "30"],
    "class2d": ["--classes", "6", "--diameter", f"{_DIAMETER_A:g}"],
    "abinitio": ["--starts", "2"],
}


@dataclass(frozen=True)
class Case:
    """One command: job, box in pixels, particles, threads, signal to noise, ``--memory`` in GB (0: not given)."""

    job: str
    box: int
    particles: int
    threads: int
    snr: float
    memory_GB: float

    def name(self) -> str:
        """Of its row."""
        return " ".join(f"{value:g}" if isinstance(value, float) else str(value) for value in asdict(self).values())


def simulate(case: Case, folder: Path) -> None:
    """Particles with poses hidden, and the truth, in a folder."""
    words = (
        f"--diameter {_DIAMETER_A:g} --box {case.box} --pixel-size {_FIELD_A / case.box:g} --n {case.particles} "
        f"--snr {case.snr:g} --hide-poses --seed 1"
    )
    subprocess.run(
        [*VERGLAS, "simulate", "--out", str(folder), *words.split()],
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def measure(case: Case, extra: list[str]) -> dict[str, Any]:
    """Run a case; its row."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        simulate(case, folder / "set")
        command = [
            sys.executable,
            "-c",
            _ANY_VERDICT,
            case.job,
            str(folder / "set" / "particles.star"),
            "--out",
            str(folder / "run"),
        ]
        command += ["--threads", str(case.threads), *_COMMANDS[case.job], *extra]
        if case.job == "refine":
            command += ["--reference", str(folder / "set" / "truth.mrc"), "--diameter", f"{_DIAMETER_A:g}"]
        if case.memory_GB:
            command += ["--memory", f"{case.memory_GB:g}"]
        seen = watch(command, log=folder / "log")
        record = json.loads((folder / "run" / "run.json").read_text())
        if str(record.get("state", "")).startswith("failed"):
            raise SystemExit(f"{case.name()}: {record.get('reason')}")
    planned = record.get("memory_plan") or {}
    peak = max(seen.peak_GB, float(record.get("peak_memory_GB") or 0))
    stated = max(planned.values(), default=0.0)
    return {
        "case": case.name(),
        **asdict(case),
        "planned_GB": stated,
        "peak_GB": round(peak, 3),
        "planned_over_peak": round(stated / peak, 3),
        "over_limit": round(peak / case.memory_GB, 3) if case.memory_GB else None,
        "phases_GB": planned,
        "seconds": round(seen.seconds, 1),
        "arguments": " ".join(extra),
    }


def main() -> None:
    """Measure the cases asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("job", choices=sorted(_COMMANDS))
    parser.add_argument("--boxes", type=int, nargs="+", default=[32, 64, 128])
    parser.add_argument("--threads", type=int, nargs="+", default=[1])
    parser.add_argument("--memory", type=float, nargs="+", default=[0.0], help="GB; 0 leaves the option out")
    parser.add_argument("--particles", type=int, default=300)
    parser.add_argument("--snr", type=float, default=0.05)
    parser.add_argument("--again", action="store_true", help="run cases that are there already")
    parser.add_argument("--extra", default="", help="further arguments of the command, in one string")
    given = parser.parse_args()
    path = RESULTS / f"{_NAME}.json"
    rows = json.loads(path.read_text())["rows"] if path.exists() else []
    for box in given.boxes:
        for threads in given.threads:
            for memory in given.memory:
                case = Case(given.job, box, given.particles, threads, given.snr, memory)
                if not given.again and any(row["case"] == case.name() for row in rows):
                    continue
                row = measure(case, given.extra.split())
                rows = [other for other in rows if other["case"] != row["case"]] + [row]
                write(_NAME, rows)
                print(json.dumps(row), file=sys.stderr)


if __name__ == "__main__":
    main()
