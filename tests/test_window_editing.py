"""Editing in a real browser: particles and picks are chosen, nothing is lost with the server, what goes on is shown."""

from __future__ import annotations

import json
import re
import signal
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from window_browser import Server, browser, until
from window_client import class_folder, pick_folder

import verglas as vg
from verglas.report import html
from verglas.report.html import Fragment, Page, Section
from verglas.run.pick import PickJob, pick_files
from verglas.run.tenure import tenure

pytest.importorskip("starlette")
pytestmark = [pytest.mark.slow, pytest.mark.drawn]
__all__ = ["browser"]  # a fixture


def opened(browser, server: Server, name: str, page: str, **context):
    """A page of a job that is named, without errors of its script."""
    made = browser.new_context(viewport={"width": 1200, "height": 1400}, **context)
    one = made.new_page()
    problems: list[str] = []
    one.on("pageerror", lambda error: problems.append(str(error)))
    one.goto(server.address)
    link = one.locator(f"#jobs a:text-is('{name}')").get_attribute("href")
    one.goto(server.address.partition("/?")[0] + link + page)
    return made, one, problems


def draw_line(page, points) -> None:
    page.mouse.move(*points[0])
    page.mouse.down()
    for point in points[1:]:
        page.mouse.move(*point)
    page.mouse.up()


def varied(folder: Path) -> np.ndarray:
    """90 particles, a third of them with a coordinate of 4 instead of 0."""
    class_folder(folder)
    z = np.random.default_rng(3).normal(size=(90, 2)) * 0.3
    z[:30, 0] += 4
    columns = {"verglasCoordinate1": z[:, 0], "verglasCoordinate2": z[:, 1]}
    particles = vg.read_particles(folder / "particles.star")
    vg.write_particles(folder / "particles.star", particles.with_columns(**columns))
    return z


def test_particles_are_chosen_by_a_line_and_by_a_histogram(browser, tmp_path):
    z = varied(tmp_path / "var")
    server = Server(tmp_path, "--allow-changes")
    context, page, problems = opened(browser, server, "var", "/particles")
    page.wait_for_selector("section[data-ready]")
    assert "90 of 90 particles kept" in page.inner_text(".count")
    box = page.locator("canvas.plot").bounding_box()
    right, low, high = box["x"] + box["width"] - 3, box["y"] + 3, box["y"] + box["height"] - 3
    middle = box["x"] + 0.55 * box["width"]  # between the two groups
    draw_line(page, [(middle, low), (right, low), (right, high), (middle, high), (middle, low)])
    until(page, "document.querySelector('.count').textContent.startsWith('30 of 90')")
    second = page.locator(".histograms canvas >> nth=1")
    second.scroll_into_view_if_needed()
    histogram = second.bounding_box()
    y = histogram["y"] + histogram["height"] / 2
    draw_line(page, [(histogram["x"] + 0.5 * histogram["width"], y), (histogram["x"] + histogram["width"] - 1, y)])
    until(page, "document.querySelectorAll('.steps li').length === 2")
    until(page, "!document.querySelector('.count').textContent.startsWith('30 of')")
    page.click(".save")
    page.wait_for_selector("section[data-saved='1']")
    steps = json.loads((tmp_path / "var" / "particles_kept.json").read_text())
    limit = steps["steps"][1]["low"]
    assert steps["kept"] == ((z[:, 0] > 2) & (z[:, 1] >= np.float32(limit))).sum()
    page.click(".undo")
    until(page, "document.querySelector('.count').textContent.startsWith('30 of 90')")
    assert page.locator(".rows tbody tr").count() == 30
    # The same by keys: from the first bin on, 30 of its 60 bins further.
    page.focus(".histograms canvas >> nth=1")
    for key in ("Home", "Space", *["ArrowRight"] * 30):
        page.keyboard.press(key)
    assert "is chosen" in page.inner_text(".histograms figcaption >> nth=1")
    page.keyboard.press("Enter")
    until(page, "document.querySelectorAll('.steps li').length === 2")
    told = page.inner_text(".steps li >> nth=1")
    assert re.fullmatch(r"keep only coordinate 2 from any to -?[\d.]+", told), told
    below = float(told.rpartition(" ")[2])
    kept = ((z[:, 0] > 2) & (z[:, 1] <= below)).sum()
    until(page, f"document.querySelector('.count').textContent.startsWith('{kept} of 90')")
    assert problems == []
    context.close()
    server.stop()


def micrograph_folder(folder: Path) -> PickJob:
    """A folder of `verglas pick`: nine dark discs in each of two micrographs."""
    y, x = np.mgrid[:300, :300]
    dark = sum((np.hypot(x - u, y - v) < 12) for u in (60, 150, 240) for v in (60, 150, 240))
    folder.mkdir()
    for k in (1, 2):
        noise = np.random.default_rng(k).normal(size=(300, 300))
        vg.io.write_micrograph(folder / f"m{k}.mrc", vg.Micrograph(noise - dark, 4.0))
    job = PickJob([str(folder / "*.mrc")], 96.0, folder / "pick", pictures=False, threads=1)
    pick_files(job, listener=None)
    return job


def test_candidates_distances_and_areas_left_out_change_the_picks(browser, tmp_path):
    folder = micrograph_folder(tmp_path / "set").out
    server = Server(tmp_path, "--allow-changes")
    context, page, problems = opened(browser, server, "pick", "/picks/0")
    page.wait_for_selector("section[data-ready]")
    assert page.inner_text(".count").startswith("9 of")
    page.locator(".threshold").fill("0")
    until(page, "parseInt(document.querySelector('.count').textContent) > 12")  # what was not picked appears
    page.locator(".apart").fill("400")  # four diameters apart: two at most of each row of three, and fewer
    until(page, "parseInt(document.querySelector('.count').textContent) < 9")
    page.locator(".apart").fill("0")
    page.locator(".threshold").fill("1000")
    until(page, "parseInt(document.querySelector('.count').textContent) === 1")  # the best
    page.reload()  # nothing was saved, and nothing is lost
    page.wait_for_selector("section[data-ready]")
    assert "not saved are back" in page.inner_text(".said")
    assert page.inner_text(".count").startswith("1 of")
    page.click(".said button")
    page.wait_for_timeout(500)
    page.wait_for_selector("section[data-ready]")
    assert page.inner_text(".count").startswith("9 of")
    page.select_option(".hand", "carbon")
    box = page.locator("canvas.micrograph").bounding_box()
    scale = box["width"] / 300
    page.locator(".brush").fill("60")
    draw_line(page, [(box["x"] + u * scale, box["y"] + 60 * scale) for u in (40, 60, 90, 120, 150, 170)])
    until(page, "document.querySelector('.count').textContent.startsWith('7 of')")
    page.click(".save")
    page.wait_for_selector("section[data-saved='1']")
    server.stop()
    picks = next(iter(vg.io.read_picks(folder / "picks_edited.star").values()))
    assert len(picks) == 7
    again = PickJob([str(tmp_path / "set" / "*.mrc")], 96.0, tmp_path / "again", pictures=False, threads=1)
    summary = pick_files(type(again)(**{**vars(again), "leave_out": folder / "left_out.star"}), listener=None)
    assert sorted(len(one) for one in summary.picks.values()) == [7, 9]
    assert problems == []
    context.close()


def test_a_server_killed_in_the_middle_of_an_edit_loses_nothing(browser, tmp_path):
    """Ticks that were never saved come back, in another browser, from another server at another address."""
    folder = class_folder(tmp_path / "class2d")
    server = Server(tmp_path, "--allow-changes", "--port", "0")
    context, page, _ = opened(browser, server, "class2d", "/classes")
    page.wait_for_selector("section[data-ready]")
    page.click(".all")
    page.locator(".grid label").nth(0).click()
    page.wait_for_selector("section[data-draft='kept']")
    server.stop(signal.SIGKILL)
    page.click(".save")
    until(page, "document.querySelector('.said').textContent.startsWith('The server does not answer')")
    assert not (folder / "selection.star").exists()
    other = Server(tmp_path, "--allow-changes")
    assert other.address.partition("/?")[0] != server.address.partition("/?")[0]
    again, page, problems = opened(browser, other, "class2d", "/classes")  # nothing of the first browser is known here
    page.wait_for_selector("section[data-ready]")
    assert "2 of 3 classes, 40 particles" in page.inner_text(".count")
    page.click(".save")
    page.wait_for_selector("section[data-saved='1']")
    table = next(iter(vg.io.read_star(folder / "selection.star").values()))
    assert table["rlnClassNumber"].tolist() == [2, 3]
    page.wait_for_selector("section[data-draft='kept']")
    page.reload()
    page.wait_for_selector("section[data-ready]")
    assert page.inner_text(".said") == ""  # what was saved is no draft
    other.stop()
    assert problems == []
    context.close()
    again.close()


def test_averages_and_picks_are_shown_as_they_come(browser, tmp_path):
    picked = micrograph_folder(tmp_path / "set")
    (picked.out / "picks.star").unlink()
    checkpoint = tmp_path / "class2d" / "checkpoint"
    with tenure(tmp_path / "class2d", "class2d") as hold:
        hold.write(state="running")
        checkpoint.mkdir()
        averages = np.random.default_rng(0).normal(size=(3, 24, 24)).astype(np.float32)
        np.savez(checkpoint / "one.npz", **{"model.averages": averages, "model.log_share": np.log([0.2, 0.7, 0.1])})
        server = Server(tmp_path)
        context, page, problems = opened(browser, server, "class2d", "")
        page.wait_for_selector("img.montage")
        first = page.locator("img.montage").get_attribute("src")
        until(page, "document.querySelector('img.montage').naturalWidth === 960")
        until(page, "document.getElementById('live').textContent === 'live'")
        page.wait_for_timeout(1500)
        np.savez(checkpoint / "next.npz", **{"model.averages": averages[:2], "model.log_share": np.zeros(2)})
        (checkpoint / "next.npz").replace(checkpoint / "one.npz")
        hold.progress("iteration", 2, 10)
        until(page, f"document.querySelector('img.montage').getAttribute('src') !== '{first}'")
        context.close()
    context, page, more = opened(browser, server, "pick", "")
    assert re.search(r"m[12]\.mrc: 9 picks", page.inner_text(".thumbs"))
    until(page, "[...document.querySelectorAll('.thumbs img')].every(i => i.naturalWidth === 300)")
    assert problems + more == []
    context.close()
    server.stop()


def test_a_static_page_that_goes_on_is_not_read_again_once_it_is_used(browser, tmp_path):
    path = tmp_path / "page.html"
    tick = Fragment('<label><input type="checkbox" id="tick"> a tick</label>')
    path.write_text(
        html.render(Page("t", "s", sections=[Section("one", blocks=[tick])], refresh_s=1)), encoding="utf-8"
    )
    page = browser.new_page()
    loads: list[float] = []
    page.on("load", lambda _: loads.append(time.monotonic()))
    page.goto(path.as_uri())
    page.wait_for_timeout(3500)
    assert len(loads) >= 3  # once, and then every second
    page.check("#tick")
    before = len(loads)
    page.wait_for_timeout(2500)
    assert len(loads) == before
    assert page.is_checked("#tick")
    assert "not read again by itself" in page.inner_text(".follow")
    page.close()


def test_by_the_keyboard_alone_picks_are_changed_points_dropped_and_a_command_completed(browser, tmp_path):
    pick_folder(tmp_path / "pick")
    (tmp_path / "ctf").mkdir()
    table = {"micrograph": [f"{k}.mrc" for k in range(5)], "resolution_A": [4.0, 5.0, 6.0, 7.0, 20.0]}
    pd.DataFrame(table | {"merit": [0.5, 0.4, 0.6, 0.5, 0.5]}).to_csv(tmp_path / "ctf" / "ctf.csv", index=False)
    vg.io.write_json(tmp_path / "ctf" / "verdict.json", {"state": "go on", "reasons": []})
    server = Server(tmp_path, "--allow-changes")
    context, page, problems = opened(browser, server, "pick", "/picks/0")
    page.wait_for_selector("section[data-ready]")
    page.focus("canvas.micrograph")
    page.keyboard.press("ArrowRight")  # from the middle of 300 x 200: no pick lies there
    page.keyboard.press("Space")
    until(page, "document.querySelector('.count').textContent.startsWith('4 of')")
    page.keyboard.press("Shift+ArrowLeft")
    page.keyboard.press("Space")  # the pick is near the cross: it goes
    until(page, "document.querySelector('.count').textContent.startsWith('3 of')")
    context.close()
    (tmp_path / "pick" / "m 2.mrc").unlink()
    context, page, _ = opened(browser, server, "pick", "/picks/1")
    until(page, "document.querySelector('.said').textContent !== ''")
    assert "m 2.mrc" in page.inner_text(".said")
    assert page.is_disabled(".save")
    context.close()
    context, page, more = opened(browser, server, "ctf", "/micrographs")
    page.wait_for_selector("section[data-ready]")
    page.focus("canvas.plot")
    page.keyboard.press("ArrowRight")
    corners = [("ArrowRight", 15), ("ArrowUp", 18), ("ArrowRight", 10), ("ArrowDown", 28)]
    page.keyboard.press("Space")
    for key, times in corners:  # round the right half of the plot, where the worst micrograph lies
        for _ in range(times):
            page.keyboard.press(key)
        page.keyboard.press("Space")
    page.keyboard.press("Enter")
    until(page, "document.querySelector('.count').textContent.startsWith('4 of 5')")
    assert page.is_disabled(".command .copy")
    page.fill(".command input", "125.5")
    until(page, "document.querySelector('.command code').textContent.includes('--diameter 125.5 --out')")
    page.click(".save")  # the command that comes back is completed, too
    page.wait_for_selector("section[data-saved='1']")
    assert "--diameter 125.5 --out" in page.inner_text(".command code")
    assert page.is_enabled(".command .copy")
    context.close()
    server.stop()
    kept = vg.io.read_star(tmp_path / "ctf" / "micrographs_kept.star")
    names = next(iter(kept.values()))["rlnMicrographName"].tolist()
    assert names == ["0.mrc", "1.mrc", "2.mrc", "3.mrc"]
    assert problems + more == []
