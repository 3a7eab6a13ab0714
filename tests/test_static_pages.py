"""Pages that jobs write, in a real browser: no serious finding of accessibility, nothing sticks out, no tiny words."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from motion_movies import planted_dome
from run_folder import make_run_folder
from window_browser import SMALLEST, browser

from verglas.assessment.micrographs import MicrographQuality, judge_micrographs, judge_set
from verglas.report.chart import Chart, Field, charts_block
from verglas.report.ctf import ShownCtf
from verglas.report.ctf_page import CtfPicture, ctf_page
from verglas.report.extract import ExtractShown, extract_page
from verglas.report.grey import grey_png
from verglas.report.html import Section, command_block, render
from verglas.report.motion import ShownMotion, motion_page
from verglas.report.picks import PageRow, picks_page
from verglas.report.process import ProcessShown, SetRow, StageRow, process_page
from verglas.report.refine import write_refine_page

__all__ = ["browser"]  # a fixture
pytestmark = [pytest.mark.slow, pytest.mark.drawn]

PNG = grey_png(np.arange(64 * 64, dtype=np.uint8).reshape(64, 64))
NUMBERS = ("early_px", "late_px", "total_px", "local_px", "shift_error_px", "gain_nats")


def shown_ctf(name: str) -> ShownCtf:
    k = np.linspace(0.05, 0.16, 60)
    curves = {what: np.sin(300 * k + phase) ** 2 for what, phase in (("equiphase average", 0.1), ("CTF²", 0.0))}
    return ShownCtf(name, "defocus 15000, 14900 Å at 30°   merit 0.97", curves, k, 7.0, 6.0, PNG)


def written(folder: Path) -> list[Path]:
    """One page of every kind, its names as bad as names can be."""
    bad = '<img src=x onerror="document.title=1">.mrc'
    pages = {}
    good = {"defocus_u_A": 15200.0, "defocus_v_A": 15000.0, "merit": 0.9, "resolution_A": 4.0}
    rows = [{"micrograph": f"m/{bad}", **good, "reason": "", "flags": "faint rings"}]
    rows += [{"micrograph": f"m/{k}.mrc", **good, "reason": "", "flags": ""} for k in range(3)]
    shown = [CtfPicture(bad, b"", "faint rings", "png/<0>.png", shown_ctf(bad))]
    pages["ctf"] = render(ctf_page(pd.DataFrame(rows), shown, "verglas"))
    (folder / "m.json").write_bytes(ShownMotion.of_motion(planted_dome(9, 1.0)).as_bytes())
    movie = {"movie": bad, "model": "spline", "reason": "", "flags": "", "picture": "p.png", "curves": "m.json"}
    pages["motion"] = render(motion_page(pd.DataFrame([movie | dict.fromkeys(NUMBERS, 1.25)]), folder))
    found = [MicrographQuality(bad, 100, 0.01, 5, True), MicrographQuality("poor.mrc", 0, 0.8, 1, False)]
    flags = judge_micrographs(found)
    picked = [PageRow(one, flags[one.name], PNG, "pictures/a.png") for one in found]
    pages["picks"] = picks_page(picked, judge_set(flags, 1), {bad: "a movie"}, {"picks": "100"})
    set_rows = [
        SetRow(bad, "set aside", "not finite numbers"),
        SetRow("m1.mrc", "used", "", 15000.0, 100.0, 6.0, 0.9, 0.01, float("nan"), 30, 28, "png/m1.png"),
    ]
    stages = [StageRow("ctf", "warn", ["2 set aside"], 3.0, {"voltage_kV": 300.0}, "ctf/report.html", "CTF")]
    sections = [Section("Phases", blocks=[charts_block([signed_chart()]), command_block("verglas fsc a.mrc b.mrc")])]
    command = "verglas process --out p --keep micrographs_kept.star"
    told = ProcessShown(
        "verglas process: p", "warn", {"picks": "30"}, set_rows, stages, sections, "verglas", False, command
    )
    pages["process"] = process_page(told)
    for name, text in pages.items():
        (folder / f"{name}.html").write_text(text, encoding="utf-8")
    return [folder / f"{name}.html" for name in pages]


def signed_chart() -> Chart:
    values = np.array([[-2.0, 0.0], [1.0, np.nan]])
    return Chart(
        "Phase", "kx", "ky", [], field=Field(values, (0, 2), (0, 2)), signed=True, scale_label="rad", equal=True
    )


def of_particles(folder: Path) -> list[Path]:
    """Pages of an extraction and of a refinement of two classes."""
    found = judge_set({}, 1)
    images = np.random.default_rng(0).normal(size=(6, 24, 24)).astype(np.float32)
    account = {"box": 24, "pixel_size_A": 2.0, "micrographs": 2, "coordinates": 8, "particles": 6}
    account |= {"median_background_excess": 0.02, "excluded": {"too near the edge": 2}}
    shown = ExtractShown(found, account, images, 2.0, pd.Series({"a.mrc": 4, "b.mrc": 2}), np.linspace(1e4, 2e4, 6))
    (folder / "extract.html").write_text(render(extract_page(shown, "verglas")), encoding="utf-8")
    run = make_run_folder(folder / "refine", n_classes=2, iterations=4)
    return [folder / "extract.html", write_refine_page(run)]


PAGES = [(written, 360, "light"), (written, 1200, "dark"), (written, 3840, "light"), (of_particles, 360, "dark")]


@pytest.mark.parametrize(("make", "width", "scheme"), PAGES)
def test_pages_of_jobs_are_read_by_everybody(browser, tmp_path, make, width, scheme):
    axe = pytest.importorskip("axe_playwright_python")
    script = Path(axe.__file__).with_name("axe.min.js").read_text(encoding="utf-8")
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
    page = context.new_page()
    problems: list[str] = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    bad = []
    for path in make(tmp_path):
        page.goto(path.as_uri())
        page.wait_for_timeout(300)
        over = page.evaluate("document.documentElement.scrollWidth - innerWidth")
        least, words = page.evaluate(SMALLEST)
        page.evaluate(script + "; null")
        violations = [
            (one["id"], one["nodes"][0]["html"][:100])
            for one in page.evaluate("axe.run()")["violations"]
            if one["impact"] in ("serious", "critical")
        ]
        if over > 0 or least < (16 if width == 3840 else 11) or violations or page.title() == "1":
            bad.append((path.name, over, round(least, 1), words, violations))
    context.close()
    assert bad == []
    assert problems == []


def test_values_under_the_pointer_signs_and_the_copy_button(browser, tmp_path):
    pages = {path.stem: path for path in written(tmp_path)}
    context = browser.new_context(viewport={"width": 1200, "height": 900})
    context.grant_permissions(["clipboard-read", "clipboard-write"])
    page = context.new_page()
    page.goto(pages["ctf"].as_uri())
    chart = page.locator(".fit figure.chart")
    chart.locator("svg").focus()
    page.keyboard.press("ArrowRight")
    assert chart.locator(".values").inner_text().startswith("20.00 Å: equiphase average ")
    assert "Nyquist" not in chart.locator("svg").text_content()  # 6 A lies beyond the band, which ends at 6.25 A
    assert "rings to 7.0 Å" in chart.locator("svg").text_content()
    page.goto(pages["motion"].as_uri())
    track = page.locator("figure.chart").nth(4)
    track.locator("svg").scroll_into_view_if_needed()
    track.locator("svg").focus()
    page.keyboard.press("ArrowRight")
    assert track.locator(".values").inner_text().startswith("frame 1: x ")
    page.goto(pages["process"].as_uri())
    signed = page.locator("figure.chart", has_text="Phase").first
    fills = [one.get_attribute("fill") for one in signed.locator("rect.cell").all()[:3]]
    assert fills == ["rgb(5,48,97)", "rgb(247,247,247)", "rgb(213,95,77)"]  # -2, 0 and half way to 2
    page.get_by_role("button", name="Copy").last.click()
    page.wait_for_selector("button.copy:text('Copied')")
    assert page.evaluate("navigator.clipboard.readText()") == "verglas process --out p --keep micrographs_kept.star"
    context.close()
