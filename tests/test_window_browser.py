"""The window in a real browser: maps are drawn, curves answer, pages follow the files and fit a telephone."""

from __future__ import annotations

import base64
import json
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from window_browser import Server, browser, until
from window_client import ball, class_folder, pick_folder, refine_run

import verglas as vg
from verglas.report.chart import Chart, Series, charts_block, histogram_chart
from verglas.report.html import Page, Section, render

pytest.importorskip("starlette")
__all__ = ["browser"]  # a fixture
pytestmark = [pytest.mark.slow, pytest.mark.drawn]


@pytest.fixture(scope="module")
def served(tmp_path_factory) -> Iterator[tuple[Server, Path]]:
    root = tmp_path_factory.mktemp("served")
    folder = refine_run(root / "one")
    vg.io.write_map(folder / "half1.mrc", ball(radius=6.0))
    vg.io.write_map(folder / "mask.mrc", ball(radius=12.0))
    # Alpha carbons 3.8 A apart along x through the centre of the box, which is voxel 16 of 2 A.
    form = "ATOM  {0:5d}  CA  ALA A{0:4d}    {1:8.3f}{2:8.3f}{2:8.3f}  1.00 30.00           C\n"
    atoms = [form.format(k + 1, 32 + 3.8 * (k - 4), 32.0) for k in range(9)]
    (root / "chain.pdb").write_text("".join(atoms))
    server = Server(root)
    yield server, folder
    server.stop()


@pytest.fixture
def page(browser, served) -> Iterator[Any]:
    context = browser.new_context(viewport={"width": 1200, "height": 900})
    one = context.new_page()
    problems: list[str] = []
    one.on("pageerror", lambda error: problems.append(str(error)))
    one.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
    one.goto(served[0].address)
    yield one
    context.close()
    assert problems == []


# As text: a list of a million numbers takes a minute to be handed over.
_READ = """() => { const c = document.querySelector('.volume canvas'), gl = c.getContext('webgl2');
  const p = new Uint8Array(4 * c.width * c.height);
  gl.readPixels(0, 0, c.width, c.height, gl.RGBA, gl.UNSIGNED_BYTE, p);
  let text = ''; for (const v of p) { text += String.fromCharCode(v); }
  return [c.width, c.height, btoa(text)]; }"""
_SET = "level => { const v = document.querySelector('.volume').viewer; v.level = level; v.build(); }"
_SLICE = """() => { const c = document.querySelector('.slice');
  const p = c.getContext('2d').getImageData(0, 0, c.width, c.height).data;
  return Array.from(p).filter((v, i) => i % 4 === 0); }"""


def drawn(page: Any) -> np.ndarray:
    """Opacity of the pixels of the first viewer's canvas, (rows, columns)."""
    page.wait_for_selector(".volume[data-drawn]")
    width, height, text = page.evaluate(_READ)
    pixels = np.frombuffer(base64.b64decode(text), np.uint8)
    return pixels.reshape(height, width, 4)[::-1]


def disc_radius_voxels(pixels: np.ndarray, box: int) -> float:
    """Radius of what is opaque, in voxels of a map of that side: the viewer shows side / 1.7 * 2 of it."""
    return float(np.sqrt((pixels[..., 3] > 127).sum() / np.pi) / pixels.shape[0] * 2 * box / 1.7)


def open_job(page: Any) -> None:
    page.click("text=one >> nth=0")
    page.wait_for_selector("h1:has-text('one')")


def test_a_ball_is_drawn_as_the_disc_that_it_is(page):
    open_job(page)
    page.wait_for_selector(".volume[data-drawn]")
    for level, radius in ((0.5, 9.0), (0.2, 9.0 + np.log(4.0) / 2.0), (0.8, 9.0 - np.log(4.0) / 2.0)):
        page.evaluate(
            "level => { const v = document.querySelector('.volume').viewer; v.level = level; v.build(); }", level
        )
        pixels = drawn(page)
        assert disc_radius_voxels(pixels, 32) == pytest.approx(radius, abs=0.12)
    solid = pixels[..., 3] == 255
    rows, columns = np.nonzero(solid)
    middle = pixels[int(rows.mean()), int(columns.mean()), :3].astype(float)
    # Lit from the upper left: a ball is brighter there than on the other side.
    y, x = np.mgrid[: pixels.shape[0], : pixels.shape[1]]
    upper = pixels[solid & (y < rows.mean() - 20) & (x < columns.mean() - 20)]
    lower = pixels[solid & (y > rows.mean() + 20) & (x > columns.mean() + 20)]
    assert upper[:, :3].mean() > lower[:, :3].mean() + 20
    assert middle[2] > middle[0]  # blue


def test_half_map_mask_slice_and_turning(page):
    open_job(page)
    whole = disc_radius_voxels(drawn(page), 32)
    page.select_option(".volume-bar select >> nth=0", "half1")
    until(page, "document.querySelector('.volume .values').textContent.startsWith('half1')")
    page.evaluate(_SET, 0.5)
    half = disc_radius_voxels(drawn(page), 32)
    assert half == pytest.approx(6.0, abs=0.12)
    assert whole > half
    page.check(".volume-bar input[type=checkbox]")
    until(page, "document.querySelector('.volume').viewer.meshes.length === 2")
    pixels = drawn(page)
    touched = float(np.sqrt((pixels[..., 3] > 20).sum() / np.pi) / pixels.shape[0] * 2 * 32 / 1.7)
    assert touched == pytest.approx(12.0, abs=0.2)
    before = page.evaluate("document.querySelector('.volume').viewer.turn.slice()")
    page.focus(".volume canvas")
    page.keyboard.press("ArrowRight")
    after = np.reshape(page.evaluate("document.querySelector('.volume').viewer.turn.slice()"), (3, 3))
    assert np.allclose(after @ after.T, np.eye(3), atol=1e-9)
    assert np.abs(after - np.reshape(before, (3, 3))).max() > 0.05
    page.select_option(".volume-bar select >> nth=2", "z")
    grey = page.evaluate(_SLICE)
    picture = np.reshape(grey, (32, 32))
    assert picture[16, 16] > 250
    assert picture[0, 0] < 5


def test_a_model_lies_in_the_map_where_its_atoms_are(page):
    """The tube through nine atoms in a row: as long as they are, 1.4 A thick; and the map in front lets it through."""
    open_job(page)
    page.wait_for_selector(".volume[data-drawn]")
    page.select_option(".volume .overlay", "chain.pdb")
    until(page, "document.querySelector('.volume').viewer.meshes.length === 2")
    page.evaluate(
        "(() => { const v = document.querySelector('.volume').viewer; v.turn = [1, 0, 0, 0, 1, 0, 0, 0, 1]; })()"
    )
    page.evaluate(_SET, 5.0)  # above the map: the model alone
    pixels = drawn(page)
    rows, columns = np.nonzero(pixels[..., 3] > 127)
    scale = 2 * 32 / 1.7 / pixels.shape[0]  # voxels of a pixel
    assert (np.ptp(columns) + 1) * scale == pytest.approx(8 * 3.8 / 2, abs=0.12)
    assert (np.ptp(rows) + 1) * scale == pytest.approx(1.4 / 2, abs=0.15)
    # The origin, voxel 16, lies half a voxel off the middle of what is shown (15.5); y goes up.
    half = pixels.shape[0] / 2
    assert (columns.mean() - half) * scale == pytest.approx(0.5, abs=0.1)
    assert (half - rows.mean()) * scale == pytest.approx(0.5, abs=0.1)
    page.evaluate(_SET, 0.5)
    through = drawn(page)
    inside, beside = through[int(rows.mean()), int(columns.mean())], through[int(rows.mean() + 2 / scale), int(half)]
    assert inside[3] == 255
    assert inside[0] > inside[2]  # orange, through blue
    assert beside[3] == pytest.approx(0.45 * 255, abs=3)
    assert "chain.pdb: 9 atoms, chains A" in page.inner_text(".volume .values")


def test_a_surface_takes_the_colours_of_another_map_and_of_a_difference(page):
    """The ball of 9 voxels against one of 6: by the value of the other, or by how far it lies above it."""
    open_job(page)
    page.wait_for_selector(".volume[data-drawn]")
    tint = page.locator(".volume-bar select >> nth=1")
    tint.select_option(label="difference to half1")
    until(page, "document.querySelector('.volume .values').textContent.includes('above half1')")
    page.evaluate(_SET, 0.5)
    page.wait_for_selector(".volume[data-drawn]")  # the words are of the surface that is made in slices of time
    said = page.inner_text(".volume .values")
    low, high = (float(v) for v in re.search(r"blue (-?[\d.]+) to orange ([\d.]+)", said).groups())
    # At 9 voxels the map is 0.5 and the other 1 / (1 + exp(2 * 3)).
    assert high == pytest.approx(0.5 - 1 / (1 + np.exp(6.0)), abs=0.02)
    assert low == -high
    pixels = drawn(page).astype(float)
    middle = pixels[pixels.shape[0] // 2, pixels.shape[1] // 2]
    assert middle[0] > middle[2] + 50  # orange: above
    assert page.locator(".volume-scale").is_visible()
    tint.select_option(label="half1")
    until(page, "document.querySelector('.volume .values').textContent.includes('half1: dark')")
    tint.select_option(label="one colour")
    until(page, "document.querySelector('.volume-scale').hidden")


def test_curves_say_their_values_and_hide(page):
    open_job(page)
    chart = page.locator("figure.chart").first
    chart.locator("svg").focus()
    page.keyboard.press("ArrowRight")
    assert re.search(r"∞: unmasked 0\.999\d?, corrected", chart.locator(".values").inner_text())
    assert chart.locator("path.curve").count() == 2
    chart.get_by_role("button", name="unmasked").click()
    assert chart.locator("path.curve").count() == 1
    assert "Nyquist 4.00 Å" in chart.locator("svg").text_content()


def test_bars_and_points_say_their_values_and_hide(browser, tmp_path):
    """Of a static page: the same chart code as in the window."""
    bars = histogram_chart("score", {"kept": [1.0] * 5 + [9.0] * 3, "removed": [9.0] * 2}, "particles")
    points = Chart("Places", "x", "y", [Series("particles", np.array([0.0, 1.0]), np.array([0.0, 2.0]), "points")])
    path = tmp_path / "page.html"
    path.write_text(render(Page("t", "s", sections=[Section("one", blocks=[charts_block([bars, points])])])))
    page = browser.new_page()
    page.goto(f"file://{path}")
    first, second = page.locator("figure.chart").all()
    heights = [float(one.get_attribute("height")) for one in first.locator("rect.bar-of").all()]
    assert sorted(h / max(heights) for h in heights) == pytest.approx([0.4, 0.6, 1.0], abs=0.01)
    first.locator("svg").focus()
    page.keyboard.press("End")
    for _ in bars.series[0].x:
        page.keyboard.press("ArrowRight")
    assert first.locator(".values").inner_text().endswith("kept 3, removed 2")
    first.get_by_role("button", name="removed").click()
    assert first.locator("rect.bar-of").count() == 2
    box = second.locator("svg").bounding_box()
    page.mouse.move(box["x"] + 0.9 * box["width"], box["y"] + 0.2 * box["height"])
    assert second.locator(".values").inner_text() == "x 1, y 2"
    page.close()


def test_a_page_follows_the_files_without_being_loaded_again(page, served):
    open_job(page)
    until(page, "document.getElementById('live').textContent === 'live'")
    page.wait_for_timeout(1500)  # the first look has been told
    page.evaluate("window.kept = true")
    page.locator("figure.chart").first.get_by_role("button", name="unmasked").click()
    folder = served[1]
    with open(folder / "iterations.csv", "a", encoding="utf-8") as file:
        file.write("4,grid,7.77,4.0\n")
    run = json.loads((folder / "run.json").read_text())
    vg.io.write_json(folder / "run.json", {**run, "verdict": {"state": "stop", "reasons": ["noise"], "findings": []}})
    page.wait_for_selector("h2:has-text('Verdict: stop')", timeout=15000)
    block = page.locator("figure.chart script").nth(1).text_content()
    assert json.loads(block)["series"][0]["y"][-1] == 7.77
    assert page.evaluate("window.kept") is True
    assert page.locator("figure.chart").first.locator("path.curve").count() == 1  # what was hidden stays hidden
    vg.io.write_json(folder / "run.json", run)


@pytest.mark.parametrize(("width", "scheme"), [(360, "dark"), (1200, "light"), (3840, "dark")])
def test_pages_fit_and_follow_the_colour_scheme(browser, served, width, scheme):
    context = browser.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme)
    one = context.new_page()
    one.goto(served[0].address)
    for _ in range(2):
        one.wait_for_timeout(300)
        assert one.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0
        ground = [int(v) for v in re.findall(r"\d+", one.evaluate("getComputedStyle(document.body).backgroundColor"))]
        ink = [int(v) for v in re.findall(r"\d+", one.evaluate("getComputedStyle(document.body).color"))]
        assert (np.mean(ground) < np.mean(ink)) == (scheme == "dark")
        open_job(one)
    assert "token" not in one.url
    context.close()


def test_without_webgl_pictures_stay(browser, served):
    context = browser.new_context()
    context.add_init_script("HTMLCanvasElement.prototype.getContext = () => null")
    one = context.new_page()
    one.goto(served[0].address)
    open_job(one)
    one.wait_for_selector(".volume[data-problem]", state="attached")
    assert one.locator(".volume .still").first.is_visible()
    context.close()


def test_a_map_that_comes_late_does_not_take_the_place_of_the_one_chosen_since(page):
    page.click("text=one")
    until(page, "document.querySelector('.volume').dataset.drawn > 0")
    late: list[Any] = []
    page.route("**/volumes/half1", lambda route: late.append(route))
    choice = page.locator(".volume select").first
    choice.select_option("half1")
    until(page, "document.querySelector('.volume .values').textContent === 'reading half1'")
    choice.select_option("map")
    until(page, "document.querySelector('.volume .values').textContent.startsWith('map: level')")
    assert page.evaluate("document.querySelector('.slice').hidden")
    late[0].continue_()
    page.wait_for_timeout(700)
    assert page.evaluate("document.querySelector('.volume').viewer.shown.name") == "map"
    choice.select_option("half1")
    until(page, "document.querySelector('.volume').viewer.shown.name === 'half1'")


def test_the_page_is_painted_before_its_map_is_begun(browser, served):
    """WebGL takes half a second or more to begin in software: by then there is something to read."""
    context = browser.new_context(viewport={"width": 1000, "height": 900})
    context.add_init_script("""const made = HTMLCanvasElement.prototype.getContext;
      HTMLCanvasElement.prototype.getContext = function (kind, ...more) {
        if (kind === 'webgl2' && !window.begun) { window.begun = performance.now(); }
        return made.call(this, kind, ...more);
      };""")
    page = context.new_page()
    address = served[0].address
    page.goto(address)
    page.goto(address.partition("/?")[0] + page.locator("#jobs a").first.get_attribute("href"))
    page.wait_for_selector(".volume[data-drawn]", timeout=60_000)
    times = page.evaluate("[window.begun, performance.getEntriesByName('first-contentful-paint')[0].startTime]")
    context.close()
    assert times[0] >= min(times[1], 2900.0)  # a page that is not painted for three seconds begins all the same


def test_a_static_page_and_a_notebook_hold_the_same_viewer(browser, tmp_path):
    shown = vg.show(ball(), mask=ball(radius=12.0))
    (tmp_path / "page.html").write_text(f"<!doctype html><meta charset=utf-8>{shown._repr_html_()}", encoding="utf-8")
    context = browser.new_context(offline=True)
    one = context.new_page()
    one.goto((tmp_path / "page.html").as_uri())
    frame = one.frame_locator("iframe")
    frame.locator(".volume[data-drawn]").wait_for()
    assert int(frame.locator(".volume").get_attribute("data-drawn")) > 500
    context.close()


def test_a_server_that_was_killed_starts_again_and_the_page_says_so(browser, tmp_path):
    refine_run(tmp_path / "one")
    server = Server(tmp_path)
    context = browser.new_context()
    one = context.new_page()
    one.goto(server.address)
    until(one, "document.getElementById('live').textContent === 'live'")
    server.stop(signal.SIGKILL)
    until(one, "document.getElementById('live').textContent.includes('does not answer')")
    server.start()
    one.goto(server.address)
    until(one, "document.getElementById('live').textContent === 'live'")
    assert one.locator("#jobs tbody tr").count() == 1
    server.stop()
    context.close()


def test_decisions_by_hand_arrive_in_the_files(browser, tmp_path):
    """Classes ticked, micrographs within a line drawn round them, picks clicked: what is saved is what was done."""
    classes, picked = class_folder(tmp_path / "class2d"), pick_folder(tmp_path / "pick")
    server = Server(tmp_path, "--allow-changes")
    context = browser.new_context(viewport={"width": 1200, "height": 1400})
    one = context.new_page()
    one.goto(server.address)
    root = server.address.partition("/?")[0]
    links = {name: one.locator(f"#jobs a:text-is('{name}')").get_attribute("href") for name in ("class2d", "pick")}

    one.goto(f"{root}{links['class2d']}/classes")
    one.select_option(".sort", "particles")
    numbers = one.locator(".grid input").evaluate_all("boxes => boxes.map(b => b.value)")
    assert numbers == ["1", "2", "3"]
    one.click(".none")
    one.locator(".grid label").nth(1).click()
    assert "1 of 3 classes, 30 particles" in one.inner_text(".count")
    one.click(".save")
    one.wait_for_selector("section[data-saved='1']")
    table = next(iter(vg.io.read_star(classes / "selection.star").values()))
    assert table["rlnClassNumber"].tolist() == [2]

    one.goto(f"{root}{links['pick']}/micrographs")
    one.wait_for_selector("section[data-ready]")
    one.select_option(".x", "separation of picks")
    box = one.locator("canvas.plot").bounding_box()
    middle = box["x"] + 0.55 * box["width"]  # the micrograph with the lower separation lies on the left
    corners = [(box["x"] + 5, box["y"] + 5), (middle, box["y"] + 5), (middle, box["y"] + box["height"] - 5)]
    one.mouse.move(*corners[0])
    one.mouse.down()
    for corner in (*corners[1:], (box["x"] + 5, box["y"] + box["height"] - 5)):
        one.mouse.move(*corner)
    one.mouse.up()
    assert "1 of 2 micrographs kept" in one.inner_text(".count")
    one.click(".save")
    one.wait_for_selector("section[data-saved='1']")
    kept = vg.io.find_micrographs(picked / "micrographs_kept.star")
    assert [Path(path).name for path in kept["path"]] == ["m 1.mrc"]

    one.goto(f"{root}{links['pick']}/picks/0")
    one.wait_for_selector("section[data-ready]")
    box = one.locator("canvas.micrograph").bounding_box()
    scale = box["width"] / 300
    one.mouse.click(box["x"] + 200.5 * scale, box["y"] + 100.5 * scale)  # a new one
    one.mouse.click(box["x"] + 30.5 * scale, box["y"] + 40.5 * scale)  # one that goes
    assert "3 of 3 picks" in one.inner_text(".count")
    one.locator(".threshold").fill("300")  # of merits from 0.2 to 0.9: takes the weakest away
    one.click(".save")
    one.wait_for_selector("section[data-saved='1']")
    server.stop(signal.SIGKILL)
    picks = next(iter(vg.io.read_picks(picked / "picks_edited.star").values()))
    assert picks.xy_px == pytest.approx(np.array([[100.0, 150.0], [200.0, 100.0]]), abs=0.6)
    context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_page_has_serious_findings_of_accessibility(browser, tmp_path, scheme):
    axe = (
        Path(pytest.importorskip("axe_playwright_python").__file__).with_name("axe.min.js").read_text(encoding="utf-8")
    )
    class_folder(tmp_path / "class2d")
    pick_folder(tmp_path / "pick")
    refine_run(tmp_path / "one")
    refine_run(tmp_path / "two", 1, "stopped")
    server = Server(tmp_path, "--allow-changes")
    context = browser.new_context(viewport={"width": 1000, "height": 900}, color_scheme=scheme)
    one = context.new_page()
    one.goto(server.address)
    root = server.address.partition("/?")[0]
    links = {
        name: one.locator(f"#jobs a:text-is('{name}')").get_attribute("href")
        for name in ("class2d", "pick", "one", "two")
    }
    pair = f"/compare?a={links['one'].rpartition('/')[2]}&b={links['two'].rpartition('/')[2]}"
    pages = ["/", links["one"], links["two"], f"{links['class2d']}/classes", f"{links['pick']}/micrographs"]
    found = []
    for target in [*pages, f"{links['class2d']}/particles", f"{links['pick']}/picks/0", pair]:
        one.goto(root + target)
        one.wait_for_timeout(300)
        one.evaluate(axe + "; null")
        for violation in one.evaluate("axe.run()")["violations"]:
            if violation["impact"] in ("serious", "critical"):
                found.append((target, violation["id"], [node["html"] for node in violation["nodes"]][:3]))
    server.stop()
    context.close()
    assert found == []
