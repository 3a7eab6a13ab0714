"""Pages of a project of 10,000 micrographs and 1e6 particles in Chromium: seconds until they stand, and what moves.

``python bench/bench_serve_browser.py [FOLDER]`` makes the project, serves it as a user does, opens every page on a
telephone, a desk and a 4k screen, and writes bench/results/serve_browser.json. ``paint_s`` and ``ready_s`` are from the
navigation to the first words and to when the page's script has drawn all; ``shift`` is the cumulative layout shift,
``processor_s`` what browser and server took together, whatever else the machine did. Maps are drawn in software. Needs
the extra dev (playwright), psutil and Chromium.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import psutil
from bench_serve import N_MICROGRAPHS, N_PARTICLES, make_project
from playwright.sync_api import Browser, Page, sync_playwright

import verglas as vg
from verglas.io.columns import keep_columns

from common import machine

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
from window_client import ball, class_folder

CHROMIUM = ("chromium", "chromium-browser", "google-chrome")
PLAIN = ["--no-sandbox", "--disable-gpu"]
# Pages with maps need WebGL, which a machine without a screen draws in software, and all else of those pages with it.
SOFTWARE = ["--no-sandbox", "--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]
SCREENS = {"telephone": (360, 740), "desk": (1440, 900), "4k": (3840, 2160)}
N_PICKS, N_LOOKS = 100, 2
WATCH = """() => { window.shift = 0;
  const add = one => { if (!one.hadRecentInput) window.shift += one.value; };
  new PerformanceObserver(list => list.getEntries().forEach(add))
    .observe({type: 'layout-shift', buffered: true}); }"""


def add_picks(project: Path) -> None:
    """Picks of every micrograph in files of their own, and one micrograph of 4096 x 4096 pixels to look at."""
    rng = np.random.default_rng(1)
    image = rng.normal(size=(4096, 4096)).astype(np.float32)
    vg.io.write_micrograph(project / "micrograph.mrc", vg.Micrograph(image, 1.0))
    folder = project / "pick" / "picks"
    folder.mkdir()
    labels = "".join(
        f"_rln{name} #{k}\n" for k, name in enumerate(("CoordinateX", "CoordinateY", "AutopickFigureOfMerit"), 1)
    )
    rows = rng.uniform(0, 4096, (N_PICKS, 3)).round(2)
    text = f"\ndata_\n\nloop_\n{labels}" + "".join("\t".join(map(str, row)) + "\n" for row in rows.tolist())
    names = [str(project / "micrograph.mrc")] + [
        f"/data/session/micrograph_{k:05d}.mrc" for k in range(1, N_MICROGRAPHS)
    ]
    files = [f"picks/micrograph_{k:05d}_picks.star" for k in range(N_MICROGRAPHS)]
    for file in files:
        (project / "pick" / file).write_text(text)
    table = pd.DataFrame({"rlnMicrographName": names, "rlnMicrographCoordinates": files}, dtype=object)
    vg.io.write_star(project / "pick" / "picks.star", {"coordinate_files": table})


def add_particles(run: Path) -> None:
    """A million particles with coordinates of heterogeneity, as a job of ours leaves them."""
    rng = np.random.default_rng(2)
    angles = rng.uniform(0, 180, (N_PARTICLES, 3)).round(2)
    table = pd.DataFrame(angles, columns=["rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi"])
    for k in (1, 2):
        table[f"verglasCoordinate{k}"] = rng.normal(size=N_PARTICLES).round(4)
    table["rlnDefocusU"] = rng.uniform(8e3, 25e3, N_PARTICLES).round(0)
    table["rlnImageName"], table["rlnOpticsGroup"] = [f"{k}@stack.mrcs" for k in range(1, N_PARTICLES + 1)], 1
    optics = pd.DataFrame({"rlnOpticsGroup": [1], "rlnImagePixelSize": [2.0], "rlnImageSize": [64]})
    vg.io.write_star(run / "particles.star", {"optics": optics, "particles": table})
    keep_columns(run / "particles.star")
    for name, radius in (("half1", 8.8), ("half2", 9.2)):
        vg.io.write_map(run / f"{name}.mrc", ball(128, 40 + radius))
    vg.io.write_map(run / "map.mrc", ball(128, 49))


def look(page: Page, target: str, ready: str) -> dict[str, Any]:
    """One page: what its reader waits for."""
    start, before = time.perf_counter(), processor_s()
    page.goto(target, wait_until="domcontentloaded")
    page.wait_for_selector(ready, state="attached", timeout=120_000)
    whole, taken = time.perf_counter() - start, processor_s() - before
    page.wait_for_timeout(600)  # what moves late
    painted = page.evaluate("(performance.getEntriesByName('first-contentful-paint')[0] || {startTime: NaN}).startTime")
    over = page.evaluate("document.documentElement.scrollWidth - innerWidth")
    shift = page.evaluate("window.shift")
    return {"paint_s": painted / 1e3, "ready_s": whole, "processor_s": taken, "shift": shift, "over_px": over}


def _median(values: list[float]) -> float | None:
    """Of those that the browser told; it paints nothing of a page that stands before its first frame."""
    told = [value for value in values if np.isfinite(value)]
    return round(float(np.median(told)), 3) if told else None


def processor_s() -> float:
    """Of server and browser so far: what wall times on a busy machine do not say."""
    total = 0.0
    for child in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):  # it has just ended
            times = child.cpu_times()
            total += times.user + times.system
    return total


def targets_of(page: Page, with_maps: bool) -> dict[str, tuple[str, str]]:
    """Pages by name: their addresses, and what is there when they stand."""
    every = page.eval_on_selector_all(
        "#jobs tbody th a", "all => all.map(a => [a.textContent, a.getAttribute('href')])"
    )
    link = dict(every)
    if with_maps:
        pair = f"/compare?a={link['run0'][6:]}&b={link['run1'][6:]}"
        return {name: (at, ".volume[data-drawn]") for name, at in (("refinement", link["run0"]), ("two runs", pair))}
    ready = "section[data-ready]"
    return {
        "all jobs": ("/", "#jobs tbody tr"),
        "project": (link["proj"], "#files"),
        "micrographs": (f"{link['proj']}/micrographs", ready),
        "particles": (f"{link['run0']}/particles", ready),
        "picks": (f"{link['pick']}/picks/0", ready),
        "2D classes": (f"{link['classes']}/classes", ready),
    }


def look_at_all(browser: Browser, address: str, screen: str, with_maps: bool) -> dict[str, dict[str, Any]]:
    """Pages with maps, or those without, on a screen."""
    width, height = SCREENS[screen]
    context = browser.new_context(viewport={"width": width, "height": height})
    context.add_init_script(f"({WATCH})()")
    page = context.new_page()
    page.goto(address)
    rows = {}
    for name, (target, ready) in targets_of(page, with_maps).items():
        looks = [look(page, address.partition("/?")[0] + target, ready) for _ in range(N_LOOKS)]
        row: dict[str, Any] = {"first_ready_s": round(looks[0]["ready_s"], 3)}
        row |= {key: _median([one[key] for one in looks]) for key in ("paint_s", "ready_s", "processor_s")}
        rows[name] = row | {key: round(max(one[key] for one in looks), 4) for key in ("shift", "over_px")}
    context.close()
    return rows


def main() -> None:
    """Make, serve, look, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", nargs="?", help="where the project is made and removed; temporary by default")
    chosen = parser.parse_args()
    path = next(found for name in CHROMIUM if (found := shutil.which(name)))
    pages: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory(dir=chosen.folder) as folder:
        root = Path(folder)
        make_project(root)
        add_picks(root / "proj")
        add_particles(root / "run0")
        class_folder(root / "classes")
        server = subprocess.Popen([sys.executable, "-m", "verglas", "serve", folder], stdout=subprocess.PIPE, text=True)
        try:
            assert server.stdout is not None
            address = server.stdout.readline().strip()
            with sync_playwright() as made:
                for with_maps, arguments in ((False, PLAIN), (True, SOFTWARE)):
                    browser = made.chromium.launch(executable_path=path, args=arguments)
                    for screen in SCREENS:
                        for name, row in look_at_all(browser, address, screen, with_maps).items():
                            pages.setdefault(name, {})[screen] = row
                            print(screen, name, row, flush=True)
                    browser.close()
        finally:
            server.terminate()
            server.wait()
    result = {
        "machine": machine(),
        "micrographs": N_MICROGRAPHS,
        "particles": N_PARTICLES,
        "looks": N_LOOKS,
        "pages": pages,
    }
    out = Path(__file__).resolve().parent / "results" / "serve_browser.json"
    out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
