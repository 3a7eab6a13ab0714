"""Pages of sets of micrographs: CTFs and picks, tables that sort, what is flagged and why, in a real browser."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd
import pytest
from browser import dom, lay_out

from verglas.assessment.micrographs import MicrographQuality, judge_ctfs, judge_micrographs, judge_set
from verglas.report import figures
from verglas.report.ctf_page import MOST_PICTURES, CtfPicture, ctf_page, ctf_table, rows_to_show
from verglas.report.html import Cell, Page, Section, Table, render
from verglas.report.picks import PageRow, picks_page

pytestmark = pytest.mark.drawn

PNG = figures.particles(np.eye(8, dtype="f4")[None], 1.0)
GOOD = {"defocus_u_A": 15200.0, "defocus_v_A": 15000.0, "defocus_angle_deg": 30.0, "merit": 0.9, "resolution_A": 4.0}


def ctf_rows(n):
    """n good fits, one astigmatic, one that ends early, one without rings, one that could not be read."""
    rows = [{"micrograph": f"m/{i:02d}.tif", **GOOD, "reason": ""} for i in range(n)]
    rows.append({**rows[0], "micrograph": "m/astigmatic.tif", "defocus_u_A": 16900.0})
    rows.append({**rows[0], "micrograph": "m/blunt.tif", "resolution_A": 14.0, "merit": 0.4})
    rows.append({**rows[0], "micrograph": "m/noise.tif", "resolution_A": None, "merit": 0.1, "reason": "no Thon rings"})
    rows.append({"micrograph": "m/rgb.tif", "reason": "pixels of 3 samples"})
    return rows


def ctf_frame(n):
    rows = ctf_rows(n)
    flags = ["; ".join(f) if not r["reason"] else "" for r, f in zip(rows, judge_ctfs(rows), strict=True)]
    return pd.DataFrame(rows, columns=["micrograph", *GOOD, "reason"]).assign(flags=flags)


def test_doubtful_ctfs_are_flagged_with_the_reason():
    flags = judge_ctfs(ctf_rows(8))
    assert flags[:8] == [()] * 8
    assert flags[8:] == [
        ("astigmatism 1900 A, median 200 A",),
        ("rings to 14.0 A only", "faint rings, merit 0.40"),
        ("no Thon rings",),
        ("pixels of 3 samples",),
    ]
    assert judge_ctfs([]) == []
    # what an error of the astigmatism costs depends on how far the rings go
    one = {"defocus_u_A": 15200, "defocus_v_A": 15000, "merit": 0.9, "reason": "", "astigmatism_error_A": 110.0}
    assert judge_ctfs([one | {"resolution_A": 6.3}]) == [()]
    told = judge_ctfs([one | {"resolution_A": 3.0}])[0]
    assert told == ("astigmatism known to 110 A only (standard error), 0.4 rad of phase at the last ring",)
    assert judge_ctfs([{"reason": "a movie"}]) == [("a movie",)]


def test_pages_show_the_doubtful_first():
    table = ctf_frame(MOST_PICTURES)
    rows = rows_to_show(table)
    assert len(rows) == MOST_PICTURES
    assert table["micrograph"][rows[:3]].tolist() == ["m/astigmatic.tif", "m/blunt.tif", "m/noise.tif"]
    assert "m/rgb.tif" not in table["micrograph"][rows].tolist()  # nothing to draw
    short = ctf_table(table, most=5)
    assert [row[0].text for row in short.rows] == ["astigmatic.tif", "blunt.tif", "noise.tif", "rgb.tif", "00.tif"]
    assert list(short.marked) == [0, 1, 2, 3]


def test_ctf_page_says_what_is_wrong():
    table = ctf_frame(5)
    pictures = [CtfPicture("noise.tif", PNG, "no Thon rings", "png/00008_noise.png")]
    text = render(ctf_page(table, pictures, "verglas"))
    assert "7 of 9 micrographs have Thon rings that a CTF explains; 2 of them should be looked at." in text
    assert "rings to 14.0 Å only; faint rings, merit 0.40" in text
    assert 'href="png/00008_noise.png"' in text
    assert text.count('<tr class="marked">') == 4
    assert "src=" not in text.replace('src="data:', "")
    nothing = render(ctf_page(table.tail(1)[["micrograph", "reason", "flags"]], [], "verglas"))
    assert "0 of 1 micrographs" in nothing
    assert "pixels of 3 samples" in nothing


def order_after(clicks, tmp_path):
    """First cells of the rows after clicks on headings, in Chromium."""
    table = Table(
        ("name", "length"),
        [("b10", "10 Å"), ("b9", "9.5 Å"), ("a", ""), ("c", Cell("many", 1000)), ("d", "1,200 Å"), ("e", "−3 Å")],
        sortable=True,
    )
    script = "".join(f"document.querySelectorAll('th button')[{column}].click();" for column in clicks)
    script = f"addEventListener('load', function () {{ {script} }});"
    path = tmp_path / "page.html"
    path.write_text(render(Page("t", "s", sections=[Section("one", blocks=[table])], script=script)), encoding="utf-8")
    text = dom(path, tmp_path)
    return re.findall(r'<th scope="row">([^<]*)</th>', text), re.findall(r'aria-sort="(\w+)"', text)


def test_a_click_on_a_heading_sorts(tmp_path):
    assert order_after([], tmp_path) == (["b10", "b9", "a", "c", "d", "e"], [])
    assert order_after([1], tmp_path) == (["e", "b9", "b10", "c", "d", "a"], ["ascending"])
    assert order_after([1, 1], tmp_path) == (["d", "c", "b10", "b9", "e", "a"], ["descending"])  # nothing stays last
    assert order_after([1, 0], tmp_path) == (["a", "b9", "b10", "c", "d", "e"], ["ascending"])


def test_tables_that_do_not_sort_need_no_script():
    assert "<script" not in render(Page("t", "s", sections=[Section("one", blocks=[Table(("a",), [("x",)])])]))


@pytest.mark.parametrize("kind", ["ctf", pytest.param("picks", marks=pytest.mark.slow)])
def test_pages_in_a_browser(tmp_path, kind):
    path = tmp_path / "report.html"
    if kind == "ctf":
        pictures = [CtfPicture(f"{i}.tif", PNG, "", f"png/{i}.png") for i in range(4)]
        path.write_text(render(ctf_page(ctf_frame(4), pictures, "verglas")), encoding="utf-8")
    else:
        found = [MicrographQuality(f"m{i}.tif", 100, 0.01, 5, True, 15000, 4) for i in range(3)]
        found.append(MicrographQuality("poor.tif", 0, 0.8, 1, False))
        flags = judge_micrographs(found)
        rows = [PageRow(one, flags[one.name], PNG, f"pictures/{one.name}.png") for one in found]
        path.write_text(picks_page(rows, judge_set(flags, 1), {"b.tif": "a movie"}, {"picks": "300"}), encoding="utf-8")
    pictures, overflow, complaints = lay_out(path, tmp_path)
    assert complaints == []
    assert len(pictures) == 4
    assert all(min(size) > 0 for size in pictures)
    assert overflow <= 0
    if kind == "picks":
        text = dom(path, tmp_path)
        assert "3 of 4 micrographs kept" in text
        assert text.count('<th scope="col"><button') == 8
