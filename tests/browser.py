"""Headless Chromium by its command line: what a page looks like once a browser has laid it out."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

_NAMES = ("chromium", "chromium-browser", "google-chrome-stable", "google-chrome", "chrome")


def chromium() -> str:
    """Path of the browser; none skips the test, unless VERGLAS_REQUIRE_BROWSER=1."""
    found = next((path for name in _NAMES if (path := shutil.which(name))), None)
    if found is None:
        if os.environ.get("VERGLAS_REQUIRE_BROWSER") == "1":
            pytest.fail(f"a browser is required (VERGLAS_REQUIRE_BROWSER=1); looked for {', '.join(_NAMES)}")
        pytest.skip("no Chromium")
    return found


def _call(page: Path, profile: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [
        chromium(),
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--enable-unsafe-swiftshader",  # maps are drawn in software: without it the browser warns on the console
        "--disable-dev-shm-usage",
        "--hide-scrollbars",
        "--no-first-run",
        "--disable-extensions",
        "--disable-background-networking",
        "--enable-logging=stderr",
        f"--user-data-dir={profile}",
        *arguments,
        page.resolve().as_uri(),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=180, check=False)
    assert done.returncode == 0, done.stderr
    return done


def console(stderr: str) -> list[str]:
    """Lines that the page, not the browser's surroundings, wrote to the console."""
    # What the driver says of speed when a page is photographed is said in the page's name.
    return [line for line in stderr.splitlines() if ":CONSOLE" in line and "GL Driver Message" not in line]


# Run inside the page by the test alone: the report itself has no script.
_PROBE = """<script>addEventListener("load", () => {
  const all = [...document.images].map(i => `${i.naturalWidth}x${i.naturalHeight}x${i.clientWidth}`);
  document.body.setAttribute("data-images", all.join(" "));
  document.body.setAttribute("data-overflow", document.documentElement.scrollWidth - innerWidth);
});
addEventListener("error",
  e => document.documentElement.setAttribute("data-error", e.message || "a picture"), true);</script>"""


def lay_out(page: Path, folder: Path) -> tuple[list[tuple[int, int, int]], int, list[str]]:
    """Natural width and height and shown width of every picture, pixels that stick out sideways, console and errors."""
    probed = folder / "probed.html"
    probed.write_text(page.read_text(encoding="utf-8").replace("<head>", f"<head>{_PROBE}", 1), encoding="utf-8")
    done = _call(probed, folder / "profile", "--window-size=1100,900", "--virtual-time-budget=4000", "--dump-dom")
    errors = re.findall(r'<html[^>]* data-error="([^"]*)"', done.stdout)
    sizes = re.search(r'<body[^>]* data-images="([^"]*)"', done.stdout)
    overflow = re.search(r'<body[^>]* data-overflow="(-?\d+)"', done.stdout)
    assert sizes, done.stdout[:400]
    assert overflow
    pictures = [tuple(int(v) for v in one.split("x")) for one in sizes[1].split()]
    return pictures, int(overflow[1]), console(done.stderr) + errors


def screenshot(page: Path, folder: Path, height: int = 2400) -> Path:
    """A picture of the page as its scripts have left it; without a budget of time, maps may not be drawn yet."""
    target = folder / "page.png"
    waited = "--virtual-time-budget=4000"
    _call(page, folder / "profile", waited, f"--window-size=1100,{height}", f"--screenshot={target}")
    return target


def dom(page: Path, folder: Path) -> str:
    """The page as its scripts have left it."""
    done = _call(page, folder / "profile", "--virtual-time-budget=4000", "--dump-dom")
    assert console(done.stderr) == []
    return done.stdout
