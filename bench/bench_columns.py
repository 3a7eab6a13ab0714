"""Opening STAR files of millions of particles: as text, by columns made anew, by columns kept. Writes columns.json.

Each opening is a process of its own; memory is its peak (VmHWM), of which pages of files are a part that the system
takes back when it needs them, and what it holds of its own in the end (RssAnon). The file repeats a block of 100,000
rows with other micrographs, so that 10,000,000 rows are written in a minute.
"""

from __future__ import annotations

import argparse
import io
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import pandas as pd
from bench_io import particle_table

from verglas.io.star import star_text
from verglas.io.star_columns import columns_path

from common import write

_BLOCK = 100_000
_CHILD = """
import json, sys, time
import verglas.io, verglas.io.particles as particles
what, path = sys.argv[1:]
start, cpu = time.perf_counter(), time.process_time()
if what == "text":
    particles.LARGE_BYTES = 1 << 62
    found = particles.read_particles(path)
elif what == "particles by columns":
    found = particles.read_particles(path)
else:
    found = verglas.io.open_columns(path)
    found.numbers("rlnDefocusU").mean()
row = {"s": time.perf_counter() - start, "cpu_s": time.process_time() - cpu}
with open("/proc/self/status") as status:
    lines = [line.split() for line in status]
sizes = {words[0][:-1]: int(words[1]) * 1024e-9 for words in lines if words[0] in ("VmHWM:", "RssAnon:")}
print(json.dumps(row | {"peak_GB": sizes["VmHWM"], "own_GB": sizes["RssAnon"]}))
"""


def write_rows(path: Path, rows: int) -> None:
    """A particle file of 26 columns."""
    optics = {"rlnOpticsGroup": [1], "rlnOpticsGroupName": ["opticsGroup1"], "rlnImagePixelSize": [1.06]}
    text = io.StringIO()
    star_text(text, {"optics": pd.DataFrame(optics), "particles": particle_table(min(rows, _BLOCK))})
    head, label, body = text.getvalue().encode().partition(b"_rlnRandomSubset #26\n")
    with open(path, "wb") as out:
        out.write(head + label)
        for number in range(-(-rows // _BLOCK)):
            out.write((body.strip() + b"\n").replace(b"FoilHole_", b"FoilHole_%03d_" % number))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, nargs="+", default=[1_000_000], help="rows, of whole 100,000 above that")
    parser.add_argument("--no-text", action="store_true", help="leave out reading as text, which takes 1 kB a row")
    parser.add_argument("--folder", type=Path, help="where the files lie; they are left there and used again")
    arguments = parser.parse_args()
    found = []
    with tempfile.TemporaryDirectory() as name:
        for rows in arguments.rows:
            path = (arguments.folder or Path(name)) / f"{rows}.star"
            if not path.is_file():
                write_rows(path, rows)
            columns_path(path).unlink(missing_ok=True)
            for what in ("text", "columns, first", "columns, kept", "particles by columns"):
                if what == "text" and arguments.no_text:
                    continue
                child = [sys.executable, "-c", _CHILD, what, str(path)]
                figures = json.loads(subprocess.run(child, capture_output=True, text=True, check=True).stdout)
                sizes = {"file_GB": path.stat().st_size * 1e-9}
                if columns_path(path).is_file():
                    sizes["columns_GB"] = columns_path(path).stat().st_size * 1e-9
                found.append({"what": what, "rows": rows, **sizes, **figures})
                print(found[-1], flush=True)
    write("columns", found, peer="the same file read as text")


if __name__ == "__main__":
    main()
