"""Every button of every page of the window, clicked once in a real browser: none is dead, none ends in an error."""

from __future__ import annotations

import tarfile

import numpy as np
import pytest
from window_browser import Server, browser
from window_client import class_folder, pick_folder, refine_run

import verglas as vg

pytest.importorskip("starlette")
__all__ = ["browser"]  # a fixture
pytestmark = [pytest.mark.slow, pytest.mark.drawn]

# What a reader sees of a page: its elements, what its fields hold, and what its canvases show.
_SEEN = """() => document.documentElement.outerHTML
  + [...document.querySelectorAll('input, select, textarea')].map(one => one.value + one.checked).join()
  + [...document.querySelectorAll('canvas')].map(one => one.toDataURL()).join()"""
_BUTTONS = "button:visible:enabled, summary:visible"
# With nothing to take back, and everything kept, these change nothing.
_AT_REST = {"Undo", "Keep all", "All", "Reset"}


def clicked_pages(page, targets, root):
    """Click each button of each page once, one after the other; what was dead or went wrong, and how many clicks."""
    wrong, clicks = [], 0
    here = ["", ""]
    page.on("pageerror", lambda error: wrong.append((*here, str(error))))
    page.on("response", lambda got: wrong.append((*here, got.status, got.url)) if got.status >= 500 else None)
    happened: list[str] = []
    page.on("download", lambda _: happened.append("download"))
    page.on("request", lambda asked: happened.append(asked.url) if asked.method == "POST" else None)

    def answer(dialog):
        happened.append("question")
        dialog.dismiss()

    page.on("dialog", answer)
    for target in targets:
        here[:] = [target, ""]
        page.goto(root + target)
        page.wait_for_timeout(250)
        k = 0
        while k < page.locator(_BUTTONS).count():
            button = page.locator(_BUTTONS).nth(k)
            k += 1
            here[1] = button.inner_text()
            if here[1] == "Copy":  # the clipboard is tested where it can be read
                continue
            before, happened[:] = page.evaluate(_SEEN), []
            button.click()
            clicks += 1
            page.wait_for_timeout(150)
            moved = page.url != root + target
            if not (moved or happened or page.evaluate(_SEEN) != before) and here[1] not in _AT_REST:
                wrong.append((*here, "nothing happens"))
            if moved:
                page.goto(root + target)
                page.wait_for_timeout(150)
    return wrong, clicks


def links_of(page):
    """Addresses of the jobs that the first page lists, by their names."""
    return {one.inner_text(): one.get_attribute("href") for one in page.locator("#jobs tbody a").all()}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    root = tmp_path_factory.mktemp("buttons")
    class_folder(root / "class2d")
    pick_folder(root / "pick")
    for k, name in enumerate(("one", "two")):
        folder = refine_run(root / name, k)
        particles = vg.Particles.from_images(np.ones((90, 8, 8), np.float32), 2.0)
        angles = vg.geometry.random_orientations(90, seed=k)
        vg.write_particles(folder / "particles.star", particles.with_poses(vg.Poses(angles)))
    return root


@pytest.mark.parametrize("options", [(), ("--allow-changes",)], ids=["reader", "with leave"])
def test_no_button_of_a_page_is_dead(browser, made, options):
    server = Server(made, *options)
    context = browser.new_context(viewport={"width": 1200, "height": 900}, accept_downloads=True)
    page = context.new_page()
    page.goto(server.address)
    root = server.address.partition("/?")[0]
    link = links_of(page)
    own = [f"{link['class2d']}/classes", f"{link['pick']}/micrographs", f"{link['pick']}/picks/0"]
    pair = f"/compare?a={link['one'].rpartition('/')[2]}&b={link['two'].rpartition('/')[2]}"
    targets = ["/", link["one"], pair, f"{link['one']}/particles", *own] if options else own
    wrong, clicks = clicked_pages(page, targets, root)
    context.close()
    server.stop()
    assert wrong == []
    assert clicks > 10


def test_no_button_of_an_imported_project_is_dead(browser, data_dir, tmp_path):
    with tarfile.open(data_dir / "relion_project" / "relion_tutorial_files.tar.xz") as archive:
        archive.extractall(tmp_path, filter="data")
    server = Server(tmp_path)
    context = browser.new_context(viewport={"width": 1200, "height": 900}, accept_downloads=True)
    page = context.new_page()
    page.goto(server.address)
    root = server.address.partition("/?")[0]
    link = links_of(page)
    assert len(link) > 20
    kinds = {}
    for name in sorted(link):
        kinds.setdefault(name.rpartition("/")[0] or name[:8], link[name])
    wrong, clicks = clicked_pages(page, ["/", *kinds.values()], root)
    context.close()
    server.stop()
    assert wrong == []
    assert clicks > 10
