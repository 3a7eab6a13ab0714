"""Two hundred readers of the window at once, over sockets, with the server alone and beside a job that picks.

``python bench/bench_readers.py [FOLDER]`` makes the project of ``bench_serve.py`` (10,000 micrographs, 60 jobs), starts
``verglas serve`` as a user does, lets every reader ask for four pages one after the other, and writes
bench/results/readers.json: seconds to whole pages, median and 95th percentile, and how many requests failed.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
from bench_serve import make_project

import verglas as vg

from common import machine

N_READERS, N_MICROGRAPHS, SIDE = 200, 60, 1536


def make_micrographs(folder: Path) -> list[str]:
    """Noise with faint discs of 40 pixels: seconds of picking each."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    y, x = np.mgrid[-20:20, -20:20]
    disc, names = 0.8 * (x**2 + y**2 < 20**2), []
    for k in range(N_MICROGRAPHS):
        image = rng.normal(size=(SIDE, SIDE)).astype(np.float32)
        for row, column in rng.integers(40, SIDE - 80, (80, 2)):
            image[row : row + 40, column : column + 40] -= disc
        names.append(str(folder / f"m{k:02d}.mrc"))
        vg.io.write_micrograph(names[-1], vg.Micrograph(image, 3.0))
    return names


class Reader(threading.Thread):
    """One reader with a connection of its own: seconds of each page, and what failed."""

    def __init__(self, address: str, pages: list[str], together: threading.Barrier) -> None:
        super().__init__()
        self.parts, self.pages, self.together = urlsplit(address), pages, together
        self.seconds: list[float] = []
        self.failures: list[str] = []

    def run(self) -> None:
        """Ask for one page after the other."""
        token = self.parts.query.partition("=")[2]
        self.together.wait()
        for page in self.pages:
            start = time.perf_counter()
            mark = "&" if "?" in page else "?"
            try:
                connection = HTTPConnection(self.parts.netloc, timeout=120)
                connection.request("GET", f"{page}{mark}token={token}", headers={"Accept": "text/html"})
                answer = connection.getresponse()
                answer.read()
                if answer.status != 200:
                    self.failures.append(f"{page}: {answer.status}")
                connection.close()
            except (OSError, HTTPException) as error:
                self.failures.append(f"{page}: {error!r}")
            self.seconds.append(time.perf_counter() - start)


def ask(address: str, pages: list[str]) -> dict[str, object]:
    """All readers at once."""
    together = threading.Barrier(N_READERS)
    readers = [Reader(address, pages[k % len(pages) :] + pages[: k % len(pages)], together) for k in range(N_READERS)]
    start = time.perf_counter()
    for one in readers:
        one.start()
    for one in readers:
        one.join()
    seconds = np.concatenate([one.seconds for one in readers])
    failures = [said for one in readers for said in one.failures]
    return {
        "requests": len(seconds),
        "failures": len(failures),
        "first_failures": failures[:3],
        "median_s": round(float(np.median(seconds)), 3),
        "percentile_95_s": round(float(np.percentile(seconds, 95)), 3),
        "longest_s": round(float(seconds.max()), 3),
        "requests_per_s": round(len(seconds) / (time.perf_counter() - start), 1),
    }


def main() -> None:
    """Make, serve, ask twice, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", nargs="?", help="where the project is made and removed; temporary by default")
    chosen = parser.parse_args()
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with tempfile.TemporaryDirectory(dir=chosen.folder) as folder:
        root = Path(folder)
        make_project(root)
        names = make_micrographs(root / "micrographs")
        command = [sys.executable, "-m", "verglas", "serve", str(root)]
        server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
        assert server.stdout is not None
        address = server.stdout.readline().strip()
        first = HTTPConnection(urlsplit(address).netloc, timeout=120)
        first.request("GET", f"/?{urlsplit(address).query}")
        text = first.getresponse().read().decode()
        jobs = {name: key for key, name in re.findall(r'<th scope="row"><a href="/jobs/([^"]+)">([^<]+)</a>', text)}
        pages = ["/", f"/jobs/{jobs['run0']}", f"/jobs/{jobs['proj']}/micrographs"]
        pages.append(f"/compare?a={jobs['run0']}&b={jobs['run1']}")
        alone = ask(address, pages)
        picking = [sys.executable, "-m", "verglas", "pick", *names, "--out", str(root / "pick"), "--diameter", "120"]
        job = subprocess.Popen(picking, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while not (root / "pick" / "run.json").is_file() and job.poll() is None:
            time.sleep(0.2)
        time.sleep(3.0)
        beside = ask(address, pages)
        beside["picking_went_on"] = job.poll() is None
        job.terminate()
        job.wait()
        server.terminate()
        server.wait()
    result = {"machine": machine(), "readers": N_READERS, "pages_each": len(pages), "alone": alone, "picking": beside}
    path = Path(__file__).resolve().parent / "results" / "readers.json"
    path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
