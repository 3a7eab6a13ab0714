"""What the pages look like, against pictures of them that are stored: light, dark, and on a telephone.

A page is photographed with its words transparent and of one height, whatever fonts a machine has, and made eight times
smaller; each small pixel may lie up to three places higher or lower and two to the side than in the stored picture, and
differ by 24 of 255. At most twelve of a thousand may differ by more. ``VERGLAS_WRITE_LOOKS=1`` stores them anew.
"""

from __future__ import annotations

import io
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from window_browser import Server, browser
from window_client import ball, class_folder, pick_folder, refine_run

import verglas as vg

pytest.importorskip("starlette")
__all__ = ["browser"]  # a fixture

STORED = Path(__file__).parent / "looks"
SMALLER, UP, ASIDE, NEAR, MOST_FAR = 8, 3, 2, 24, 0.012
LOOKS = {"light": (1200, 1000, "light"), "dark": (1200, 1000, "dark"), "phone": (360, 1000, "light")}
# Words are as wide as fonts have them and go; the parts that hold them are given an edge that a small picture shows.
STYLE = """* { color: transparent !important; line-height: 20px !important; animation: none !important;
  font-family: "DejaVu Sans", sans-serif !important; caret-color: transparent !important; }
svg text { fill: transparent !important; } code { white-space: nowrap; overflow: hidden; }
section, .numbers div, canvas, figure, table, pre, nav.top { box-shadow: 0 0 0 5px #888 !important; }
h1, h2, h3 { background: #888 !important; } html { scrollbar-width: none; }"""
# Paths and times are those of this run.
PLAIN = """() => { document.querySelectorAll('code').forEach(one => { one.textContent = 'x'; });
  document.querySelectorAll('[data-size]').forEach(one => { one.textContent = '1 MB'; });
  document.querySelectorAll('#live').forEach(one => { one.textContent = 'live'; }); }"""
PAGES = ("jobs", "run", "classes", "micrographs", "picks", "particles")


def differing(one: np.ndarray, other: np.ndarray) -> float:
    """Share of the pixels of either picture that have no pixel like theirs near the same place in the other."""
    rows = max(len(one), len(other))
    if abs(len(one) - len(other)) > 0.12 * rows or one.shape[1] != other.shape[1]:
        return 1.0
    a, b = (np.pad(x.astype(int), ((0, rows - len(x)), (0, 0), (0, 0)), mode="edge") for x in (one, other))

    def share(this: np.ndarray, that: np.ndarray) -> float:
        near = np.full(this.shape[:2], 255)
        wide = np.pad(that, ((UP, UP), (ASIDE, ASIDE), (0, 0)), mode="edge")
        for dy in range(2 * UP + 1):
            for dx in range(2 * ASIDE + 1):
                moved = wide[dy : dy + this.shape[0], dx : dx + this.shape[1]]
                near = np.minimum(near, np.abs(moved - this).max(axis=2))
        return float((near > NEAR).mean())

    return max(share(a, b), share(b, a))


def stored(page: str, look: str) -> np.ndarray:
    return np.asarray(Image.open(STORED / f"{page}_{look}.png").convert("RGB"))


def test_pictures_that_differ_are_told_apart():
    """The stored pictures themselves: another colour scheme, another width, another page, a part that is missing."""
    light = stored("run", "light")
    assert differing(light, light) == 0.0
    moved = np.roll(light, 2, axis=0)
    assert differing(light, moved) < MOST_FAR
    assert differing(light, stored("run", "dark")) > 0.5
    assert differing(light, stored("run", "phone")) == 1.0
    for page in PAGES:
        if page != "run":
            assert differing(light, stored(page, "light")) > MOST_FAR, page
    missing = light.copy()
    rows = slice(len(light) // 3, len(light) // 3 + len(light) // 5)
    missing[rows] = light[0, 0]
    assert differing(light, missing) > MOST_FAR


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    root = tmp_path_factory.mktemp("looks")
    class_folder(root / "class2d")
    pick_folder(root / "pick")
    folder = refine_run(root / "one")
    vg.io.write_map(folder / "half1.mrc", ball(radius=6.0))
    refine_run(root / "two", 1, "stopped")
    one = Server(root, "--allow-changes")
    yield one
    one.stop()


def photograph(page) -> np.ndarray:
    page.add_style_tag(content=STYLE)
    page.evaluate(PLAIN)
    page.wait_for_timeout(200)
    picture = Image.open(io.BytesIO(page.screenshot(full_page=True, clip=None))).convert("RGB")
    picture = picture.crop((0, 0, picture.width, min(picture.height, 2000)))
    return np.asarray(picture.resize((picture.width // SMALLER, picture.height // SMALLER), Image.Resampling.BOX))


@pytest.mark.slow
@pytest.mark.drawn
@pytest.mark.parametrize("look", LOOKS)
def test_pages_look_as_they_did(browser, server, look):
    width, height, scheme = LOOKS[look]
    context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme, bypass_csp=True)
    page = context.new_page()
    page.goto(server.address)
    root = server.address.partition("/?")[0]
    link = {n: page.locator(f"#jobs a:text-is('{n}')").get_attribute("href") for n in ("class2d", "pick", "one")}
    targets = {"jobs": "/", "run": link["one"], "classes": f"{link['class2d']}/classes"}
    targets |= {"micrographs": f"{link['pick']}/micrographs", "picks": f"{link['pick']}/picks/0"}
    targets |= {"particles": f"{link['class2d']}/particles"}
    bad = {}
    for name, target in targets.items():
        page.goto(root + target)
        page.wait_for_selector("section[data-ready], .volume[data-drawn], #jobs")
        page.wait_for_timeout(400)
        now = photograph(page)
        if os.environ.get("VERGLAS_WRITE_LOOKS") == "1":
            STORED.mkdir(exist_ok=True)
            Image.fromarray(now).quantize(64).save(STORED / f"{name}_{look}.png", optimize=True)
        share = differing(stored(name, look), now)
        if share > MOST_FAR:
            bad[name] = round(share, 3)
    context.close()
    assert bad == {}
