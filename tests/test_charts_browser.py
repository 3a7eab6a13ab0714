"""Charts in a real browser: colours by value, fields, logarithmic axes, one scale for both; words of one size."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd
import pytest
from window_browser import browser, until

import verglas as vg
from verglas.report.chart import Band, Chart, Field, Series, charts_block
from verglas.report.course import fsc_by_iteration, iteration_charts
from verglas.report.html import Page, Section, render
from verglas.report.run_folder import Snapshot
from verglas.report.view_chart import view_chart

__all__ = ["browser"]  # a fixture
pytestmark = [pytest.mark.slow, pytest.mark.drawn]


FONT_SIZES = "all => all.map(one => parseFloat(getComputedStyle(one).fontSize))"
NOTES = [f"pair {k}" for k in (1, 2, 3)]
BANDS = [Band(-0.5, 1.5, "global"), Band(1.5, 3.5, "local")]


@pytest.fixture
def shown(browser, tmp_path):
    """Charts on a page of their own, by title."""
    contexts = []

    def show(*charts, width=1200):
        path = tmp_path / "page.html"
        path.write_text(render(Page("t", "s", sections=[Section("one", blocks=[charts_block(charts)])])))
        contexts.append(browser.new_context(viewport={"width": width, "height": 900}))
        page = contexts[-1].new_page()
        page.goto(path.as_uri())
        return page, dict(zip([one.title for one in charts], page.locator("figure.chart").all(), strict=True))

    yield show
    for context in contexts:
        context.close()


def test_a_field_says_what_lies_under_the_pointer_and_at_the_arrow_keys(shown):
    values = np.arange(12.0).reshape(3, 4)
    values[0, 0] = np.nan
    field = Field(values, (0.0, 4.0), (0.0, 3.0))
    page, by_title = shown(Chart("Energy", "a", "b", [], field=field, scale_label="kT"))
    chart = by_title["Energy"]
    cells = chart.locator("rect.cell").all()
    assert len(cells) == 11 + 40  # but for the unknown one, and the steps of the scale
    box = cells[-41].bounding_box()  # the last row's last column
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    assert chart.locator(".values").inner_text() == "a 3.5, b 2.5: 11 kT"
    chart.locator("svg").focus()
    page.keyboard.press("ArrowLeft")
    assert chart.locator(".values").inner_text() == "a 2.5, b 2.5: 10 kT"
    for key in ("ArrowDown", "ArrowDown", "ArrowLeft", "ArrowLeft"):
        page.keyboard.press(key)
    assert chart.locator(".values").inner_text() == "a 0.5, b 0.5: unknown"
    assert cells[0].get_attribute("fill") == "rgb(68,1,84)"  # the least


def test_viewing_directions_are_where_they_are(shown):
    """Many views from one side: the brightest cell is there, and says rot and tilt in degrees."""
    angles = np.concatenate([np.tile([[62.0, 40.0, 0.0]], (500, 1)), vg.geometry.random_orientations(500, seed=1)])
    chart = view_chart(angles)
    row, column = np.unravel_index(chart.field.values.argmax(), chart.field.values.shape)
    assert -180 + 5 * (column + 0.5) == pytest.approx(62, abs=3.5)
    assert np.degrees(np.arccos((row + 0.5) / 18 - 1)) == pytest.approx(40, abs=3)
    page, by_title = shown(chart)
    bright = by_title[chart.title].locator("rect.cell[fill='rgb(253,231,37)']").first.bounding_box()
    page.mouse.move(bright["x"] + bright["width"] / 2, bright["y"] + bright["height"] / 2)
    said = by_title[chart.title].locator(".values").inner_text()
    rot, tilt, times = re.fullmatch(
        r"rot \(degrees\) ([\d.-]+), tilt \(degrees\) (\d+)°: ([\d.]+) views, relative to uniform", said
    ).groups()
    assert (float(rot), float(tilt)) == (pytest.approx(62, abs=3.5), pytest.approx(40, abs=3))
    assert float(times) == pytest.approx(chart.field.values.max(), rel=0.02)


def test_points_take_the_colours_of_values_and_one_scale_serves_both_axes(shown):
    x, y = np.array([0.0, 100.0, 100.0]), np.array([0.0, 0.0, 50.0])
    series = [Series("particles", x, y, "points", shades=np.array([1.0, 2.0, 3.0]), notes=NOTES)]
    series.append(Series("axis", np.array([0.0, 100.0]), np.array([0.0, 50.0])))
    page, by_title = shown(Chart("Places", "x", "y", series, equal=True, down=True, scale_label="number"))
    chart = by_title["Places"]
    dots = [one.bounding_box() for one in chart.locator("g.points path").all()]
    across, along = dots[1]["x"] - dots[0]["x"], dots[2]["y"] - dots[1]["y"]
    assert across == pytest.approx(2 * along, rel=0.01)  # y runs down, as in an image
    colours = [one.get_attribute("stroke") for one in chart.locator("g.points path").all()]
    assert (colours[0], colours[2]) == ("rgb(68,1,84)", "rgb(253,231,37)")
    page.mouse.move(dots[2]["x"] + dots[2]["width"] / 2, dots[2]["y"] + dots[2]["height"] / 2)
    assert chart.locator(".values").inner_text() == "pair 3: particles"
    chart.get_by_role("button", name="particles").click()
    assert chart.locator("g.points").count() == 0
    assert chart.locator("path.curve").count() == 1


def test_decades_are_even_and_what_is_not_above_zero_is_left_out(shown):
    series = [Series("change", np.arange(4.0), np.array([10.0, 1.0, 0.1, 0.0]))]
    chart = Chart(
        "Angles", "iteration", "degrees", series, log=True, bands=[Band(-0.5, 1.5, "global"), Band(1.5, 3.5, "local")]
    )
    _, by_title = shown(chart)
    dots = [float(one.get_attribute("cy")) for one in by_title["Angles"].locator("circle.dot").all()]
    assert len(dots) == 3
    assert dots[1] - dots[0] == pytest.approx(dots[2] - dots[1], rel=1e-6)
    assert by_title["Angles"].locator("rect.band").count() == 1
    assert "global" in by_title["Angles"].locator("svg").text_content()


def test_an_axis_of_logarithms_without_curves_is_drawn(shown):
    chart = Chart(
        "Poses", "iteration", "poses", [Series("poses", np.arange(3.0), np.array([90.0, 9.0, 2.0]))], log=True
    )
    page, by_title = shown(chart, Chart("None", "x", "y", [Series("p", np.full(2, np.nan), np.ones(2))], log=True))
    by_title["Poses"].get_by_role("button", name="poses").click(timeout=5000)
    assert by_title["Poses"].locator("path.curve").count() == 0
    by_title["Poses"].get_by_role("button", name="poses").click(timeout=5000)
    assert by_title["Poses"].locator("circle.dot").count() == 3
    assert by_title["None"].locator("svg").count() == 1
    assert page.locator("text").evaluate_all("all => all.filter(t => /NaN|Infinity/.test(t.outerHTML)).length") == 0


@pytest.mark.parametrize(("values", "colours"), [([20000.0] * 3, 1), ([20000.0, 20000.3, 20000.6], 3)])
def test_defoci_that_are_close_or_the_same_are_coloured(shown, values, colours):
    x = np.arange(3.0)
    series = [Series("particles", x, x, "points", shades=np.array(values))]
    page, by_title = shown(Chart("Defoci", "x", "y", series, equal=True, scale_label="Å"), Chart("Next", "x", "y", []))
    dots = by_title["Defoci"].locator("g.points path").all()
    assert len({one.get_attribute("stroke") for one in dots}) == colours
    box = dots[1].bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    assert (
        by_title["Defoci"].locator(".values").inner_text().endswith(f"Å {values[1]:g}" if colours == 1 else "20000.3")
    )
    assert by_title["Next"].locator("svg").count() == 1  # a chart that fails would take those after it along


def test_curves_of_iterations_darken_and_hide_one_by_one(shown):
    frequency = np.linspace(0, 0.2, 9)
    snapshots = [
        Snapshot(k, np.zeros((1, 3, 4, 4), np.float32), ["map"], np.exp(-frequency * 30 / k)[None], frequency)
        for k in (1, 2, 3)
    ]
    (chart,) = fsc_by_iteration(snapshots)
    _, by_title = shown(chart)
    figure = by_title[chart.title]
    strokes = [one.get_attribute("stroke") for one in figure.locator("path.shaded").all()]
    light = [sum(map(int, re.findall(r"\d+", one))) for one in strokes]
    assert (len(strokes), strokes[2]) == (3, "rgb(68,1,84)")
    assert light[0] > light[1] > light[2]
    assert "Nyquist 5.00 Å" in figure.locator("svg").text_content()
    figure.get_by_role("button", name="iteration 2").click()
    assert figure.locator("path.shaded").count() == 2


@pytest.mark.parametrize("width", [360, 1200, 3840])
def test_words_in_charts_have_one_size_at_every_width(shown, width):
    table = pd.DataFrame({"iteration": [1, 2, 3], "resolution_A": [20.0, 9.0, 5.0], "max_probability": [0.1, 0.5, 0.9]})
    page, by_title = shown(*iteration_charts(table), width=width)
    for figure in by_title.values():
        svg = figure.locator("svg").bounding_box()
        enlarged = 1.5 if width == 3840 else 1.0  # all of a page on a 4k screen
        assert svg["width"] == pytest.approx(enlarged * float(figure.locator("svg").get_attribute("width")), abs=2)
        sizes = figure.locator("svg text").evaluate_all(
            "all => all.map(one => parseFloat(getComputedStyle(one).fontSize))"
        )
        assert min(sizes) >= 12
    assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0
    page.set_viewport_size({"width": 420, "height": 900})  # another width: drawn anew
    svg = next(iter(by_title.values())).locator("svg")
    until(page, "parseFloat(document.querySelector('.chart svg').getAttribute('width')) < 420")
    assert svg.count() == 1


def test_a_card_of_a_notebook_answers(browser, tmp_path):
    x = vg.Map(np.random.default_rng(0).normal(size=(16, 16, 16)).astype(np.float32), 2.0)
    (tmp_path / "card.html").write_text(f"<!doctype html><meta charset=utf-8>{vg.fsc(x, x)._repr_html_()}")
    page = browser.new_page()
    page.goto((tmp_path / "card.html").as_uri())
    chart = page.frame_locator("iframe").locator("figure.chart")
    chart.locator("svg").wait_for()
    assert "Nyquist 4.00 Å" in chart.locator("svg").text_content()
    chart.locator("svg").focus()
    page.keyboard.press("ArrowRight")
    assert chart.locator(".values").inner_text() == "∞: FSC, 4.00 Å 1"
    page.close()
