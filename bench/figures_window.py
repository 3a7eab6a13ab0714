"""Pictures of the window for docs/guide/window.md: a browser looks at a small project made for them.

``python bench/figures_window.py FOLDER`` serves FOLDER (a project of ``verglas process``, or a folder with several) and
writes docs/figures/window_{jobs,run,classes,picks,model}.png, those whose job lies there: jobs of refine, class2d, pick
and map-model (its model beside it). Needs the extra dev (playwright) and Chromium.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page, sync_playwright

FIGURES = Path(__file__).resolve().parent.parent / "docs" / "figures"
CHROMIUM = ("chromium", "chromium-browser", "google-chrome")
SOFTWARE = ["--no-sandbox", "--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]


def link_of(page: Page, words: str) -> str:
    """Address of the first job whose line in the table holds some words; empty where there is none."""
    lines = page.locator(f"#jobs tbody tr:has-text('{words}') a")
    return str(lines.first.get_attribute("href")) if lines.count() else ""


def main() -> None:
    """Take the pictures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", help="a project of process, or a folder with several")
    folder = parser.parse_args().folder
    browser_path = next(path for name in CHROMIUM if (path := shutil.which(name)))
    command = [sys.executable, "-m", "verglas", "serve", folder]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        address = server.stdout.readline().strip()
        root = address.partition("/?")[0]
        with sync_playwright() as made:
            browser = made.chromium.launch(executable_path=browser_path, args=SOFTWARE)
            page = browser.new_page(viewport={"width": 1000, "height": 900})
            page.goto(address)
            jobs = {name: link_of(page, f"verglas {name}") for name in ("refine", "class2d", "pick", "map-model")}
            # (picture, page, first line of pixels, how many): the paths of this machine are no part of them
            for name, target, top, height in (
                ("jobs", "/", 185, 620),
                ("run", jobs["refine"] + "#maps", 0, 560),
                ("classes", jobs["class2d"] + "/classes", 215, 265),
                ("picks", jobs["pick"] + "/picks/0", 150, 640),
                ("model", jobs["map-model"] + "#maps", 0, 560),
            ):
                if target.startswith(("#", "/classes", "/picks")):
                    print(f"no job for window_{name}.png")
                    continue
                page.goto(root + target)
                if page.locator(".volume").count():
                    page.wait_for_selector(".volume[data-drawn]", timeout=60_000)  # a busy machine takes its time
                page.wait_for_timeout(3000)
                if name == "model":
                    page.select_option(".overlay", index=1)
                    page.wait_for_timeout(2000)
                path = FIGURES / f"window_{name}.png"
                page.screenshot(path=path, timeout=120_000, clip={"x": 0, "y": top, "width": 1000, "height": height})
                Image.open(path).convert("RGB").quantize(48).save(path, optimize=True)  # a third of the bytes
            browser.close()
    finally:
        server.terminate()
        server.wait()


if __name__ == "__main__":
    main()
