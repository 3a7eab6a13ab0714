"""Every page of the window on a telephone, a desk and a 4k screen: nothing sticks out, no tiny words, nothing jumps."""

from __future__ import annotations

import numpy as np
import pytest
from window_browser import SMALLEST, Server, browser
from window_client import class_folder, pick_folder, refine_run

import verglas as vg

pytest.importorskip("starlette")
__all__ = ["browser"]  # a fixture
pytestmark = [pytest.mark.slow, pytest.mark.drawn]

_SHIFT = """() => new Promise(done => { let sum = 0;
  const add = one => { if (!one.hadRecentInput) { sum += one.value; } };
  new PerformanceObserver(list => list.getEntries().forEach(add))
    .observe({type: 'layout-shift', buffered: true});
  setTimeout(() => done(sum), 300); })"""


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    root = tmp_path_factory.mktemp("layout")
    class_folder(root / "class2d")
    pick_folder(root / "pick")
    for k, name in enumerate(("one", "two")):
        folder = refine_run(root / name, k)
        particles = vg.Particles.from_images(np.ones((90, 8, 8), np.float32), 2.0)
        angles = vg.geometry.random_orientations(90, seed=k)
        vg.write_particles(folder / "particles.star", particles.with_poses(vg.Poses(angles)))
    one = Server(root, "--allow-changes")
    yield one
    one.stop()


@pytest.mark.parametrize("width", [360, 1200, 3840])
def test_nothing_sticks_out_no_word_is_tiny_and_nothing_jumps(browser, server, width):
    context = browser.new_context(viewport={"width": width, "height": 800 if width == 360 else width * 9 // 16})
    page = context.new_page()
    page.goto(server.address)
    root = server.address.partition("/?")[0]
    names = ("class2d", "pick", "one", "two")
    link = {name: page.locator(f"#jobs a:text-is('{name}')").get_attribute("href") for name in names}
    pair = f"/compare?a={link['one'].rpartition('/')[2]}&b={link['two'].rpartition('/')[2]}"
    targets = ["/", link["one"], pair, link["class2d"], f"{link['class2d']}/classes", f"{link['class2d']}/particles"]
    bad = []
    for target in [*targets, f"{link['pick']}/micrographs", f"{link['pick']}/picks/0"]:
        page.goto(root + target)
        page.wait_for_timeout(700)
        over = page.evaluate("document.documentElement.scrollWidth - innerWidth")
        least, words = page.evaluate(SMALLEST)
        shift = page.evaluate(_SHIFT)
        if over > 0 or least < (16 if width == 3840 else 11) or shift > 0.05:
            bad.append((target, over, round(least, 1), words, round(shift, 3)))
    context.close()
    assert bad == []
