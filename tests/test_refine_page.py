"""The page of a refinement: whole for a finished run, a running one, one of several classes, and in a real browser."""

from __future__ import annotations

import json
import re
import shutil

import numpy as np
import pandas as pd
import pytest
from browser import lay_out, screenshot
from run_folder import make_run_folder

import verglas as vg
from verglas.cli import main
from verglas.errors import FormatError
from verglas.report import course, posteriors, style
from verglas.report.refine import write_refine_page
from verglas.report.run_folder import read_run_folder

from blank_figures import blank

pytestmark = pytest.mark.drawn

KINDS = {
    "finished": {},
    "live": {"state": "running", "iterations": 3},
    "classes": {"n_classes": 2, "iterations": 4},
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Made on demand, once per kind, with their page; its figures white unless they are looked at."""
    made = {}

    def get(kind, *, drawn=False):
        if (kind, drawn) not in made:
            with pytest.MonkeyPatch.context() as patch:
                if not drawn:
                    patch.setattr(style, "_draw", blank)
                folder = tmp_path_factory.mktemp("runs") / kind
                made[kind, drawn] = make_run_folder(folder, **KINDS[kind])
                write_refine_page(folder)
        return made[kind, drawn]

    return get


def titles(text):
    return re.findall(r"<h2[^>]*>([^<]*)</h2>", text)


def test_page_of_a_finished_run(folders):
    folder = folders("finished", drawn=True)
    text = (folder / "report.html").read_text()
    record = json.loads((folder / "postprocess.json").read_text())
    assert titles(text) == [
        "Please note",
        "Resolution",
        "Final maps",
        "Amplitudes and sharpening",
        "Course of the refinement",
        "Maps by iteration",
        "FSC by iteration",
        "Viewing directions",
        "Particles",
        "Excluded particles",
        "Settings",
        "Time and memory",
    ]
    assert text.count("<img") == 3  # surfaces, slices, slices by iteration: all that are curves or points are charts
    drawn = [json.loads(one) for one in re.findall(r'<script type="application/json">(.*?)</script>', text)]
    by_title = {one["title"]: one for one in drawn}
    assert {"Resolution by iteration", "Angles by iteration", "Time by iteration", "Viewing directions"} <= set(
        by_title
    )
    assert len(by_title["FSC of the half maps, unmasked"]["series"]) == 6
    assert by_title["Angles by iteration"]["log"] is True
    assert 'http-equiv="refresh"' not in text
    assert "Refinement converged after 6 iterations" in text
    assert f"{record['resolution_A']:.2f} Å" in text
    assert f"B = {record['fitted_b_factor_A2']:.0f} ± {record['fitted_b_factor_error_A2']:.0f} Å²" in text
    said = ("NaN in the image", "scaled by 0.02", "initial lowpass (Å)", "measured peak", "1 min 20 s", "half-bit")
    for words in said:
        assert words in text
    # Scripts draw what the page holds: nothing is fetched, and the maps take at most a megabyte.
    assert not re.search(r"<script[^>]* src=|fetch\(['\"]", text)
    maps = re.findall(r'<script type="application/octet-stream" data-name="(\w+)">([\w+/=]+)</script>', text)
    assert [name for name, _ in maps] == ["map_sharpened", "map", "half1", "half2", "mask"]
    assert sum(len(packed) for _, packed in maps) < 1e6
    assert "http:" not in text.replace("http-equiv", "")


def test_page_of_a_running_one_refreshes_and_shows_what_there_is(folders):
    text = (folders("live") / "report.html").read_text()
    assert 'http-equiv="refresh" content="15"' in text
    assert "Running: 3 iterations done (global search)" in text
    assert "Final maps" not in titles(text)
    assert "Resolution" not in titles(text)
    assert {"Course of the refinement", "Maps by iteration", "FSC by iteration", "Particles"} <= set(titles(text))


@pytest.mark.slow
def test_page_of_several_classes(folders):
    text = (folders("classes") / "report.html").read_text()
    assert "Classes" in titles(text)
    for k in (1, 2):
        assert f"Class {k}: " in text
        assert f'<th scope="row">class {k}</th>' in text
    shares = read_run_folder(folders("classes")).populations()
    assert shares.shape == (4, 2)
    np.testing.assert_allclose(shares.sum(axis=1), 1, atol=1e-3)


def test_page_before_the_first_iteration_and_of_a_failed_run(tmp_path):
    folder = make_run_folder(tmp_path / "start", state="running", iterations=0)
    text = write_refine_page(folder).read_text()
    assert "Running: 0 iterations done" in text
    assert "no map yet" in text
    assert text.count("<img") == 0
    run = json.loads((folder / "run.json").read_text())
    run |= {"state": "failed: the disk is full <sda>", "eta_seconds": None}
    (folder / "run.json").write_text(json.dumps(run))
    (folder / "excluded.csv").unlink()
    text = write_refine_page(folder).read_text()
    assert "The run failed: the disk is full &lt;sda&gt;, after 0 iterations" in text
    assert "refresh" not in text


def test_remaining_time_is_said(tmp_path):
    folder = make_run_folder(tmp_path / "eta", state="running", iterations=0)
    run = json.loads((folder / "run.json").read_text()) | {"eta_seconds": 95.0}
    (folder / "run.json").write_text(json.dumps(run))
    assert "about 1 min 35 s left" in write_refine_page(folder).read_text()


@pytest.mark.slow
def test_command_rewrites_the_page(folders, capsys, tmp_path):
    folder = folders("live", drawn=True)
    before = (folder / "report.html").read_text()
    (folder / "report.html").unlink()
    with pytest.raises(SystemExit) as stop:
        main(["report", str(folder)])
    assert stop.value.code == 0
    assert capsys.readouterr().out.strip() == str(folder / "report.html")
    after = (folder / "report.html").read_text()
    strip = re.compile(r"page written [^<]*")
    assert strip.sub("", after) == strip.sub("", before)  # the same pictures, too
    with pytest.raises(SystemExit) as stop:
        main(["report", str(tmp_path)])
    assert stop.value.code == 1
    assert "no run whose page can be written again" in capsys.readouterr().err


def test_broken_files_are_named(folders, tmp_path, blank_figures):
    folder = shutil.copytree(folders("live"), tmp_path / "broken")
    (folder / "history" / "iteration_002.npz").write_bytes(b"PK nothing")
    with pytest.raises(FormatError, match=r"iteration_002.npz: not a snapshot"):
        write_refine_page(folder)
    (folder / "iterations.csv").write_text("number,phase\n1,global\n")
    with pytest.raises(FormatError, match="no column 'iteration'"):
        read_run_folder(folder)


def test_slices_of_the_right_iterations_are_drawn(folders):
    assert course.chosen_iterations(range(1, 41)) == [1, 7, 12, 18, 23, 29, 34, 40]
    run = read_run_folder(folders("finished"))
    assert list(run.history) == [1, 2, 3, 4, 5, 6]
    one = run.snapshot(6)
    assert one.names == ["half 1", "half 2", "map"]
    assert one.slices.shape == (3, 3, 40, 40)
    assert not run.running


def test_optics_and_defocus_come_from_both_tables(folders):
    table = read_run_folder(folders("finished")).particles
    assert table["rlnVoltage"].eq(300).all()
    np.testing.assert_allclose(posteriors.mean_defocus_A(table), table["rlnDefocusU"] - 100)


def test_trend_with_defocus_is_found_and_its_absence_too():
    rng = np.random.default_rng(0)
    defocus = rng.uniform(8e3, 2.5e4, 3000)
    flat = -500 + 10 * rng.normal(size=3000)
    for slope, low, high in ((0.0, -0.06, 0.06), (-0.004, -0.95, -0.8)):
        table = pd.DataFrame(
            {
                "rlnDefocusU": defocus + 50,
                "rlnDefocusV": defocus - 50,
                "rlnLogLikeliContribution": flat + slope * defocus,
            }
        )
        _, sentence = posteriors.chart_against_defocus(table)
        r = float(re.search(r"defocus: ([+-][\d.]+)", sentence)[1])
        assert low < r < high
    assert posteriors.chart_against_defocus(table.drop(columns="rlnDefocusU")) is None
    assert posteriors.shifts(table) == []
    assert posteriors.sharpness(table.drop(columns="rlnLogLikeliContribution")) == []


def test_missing_numbers_do_not_stop_the_page(folders, tmp_path, blank_figures):
    """Empty cells, an empty class, particles without shifts or defocus."""
    folder = shutil.copytree(folders("classes"), tmp_path / "gaps", ignore=shutil.ignore_patterns("*.mrc"))
    table = pd.read_csv(folder / "iterations.csv", dtype=str)
    table["resolution_A"] = ""
    table.loc[3, "populations"] = "1.0;0.0"
    table["effective_poses"] = "0"
    table.drop(columns=["accuracy_deg", "peak_memory_GB"]).to_csv(folder / "iterations.csv", index=False)
    tables = vg.io.read_star(folder / "particles.star")
    kept = [c for c in tables["particles"].columns if "Defocus" not in c and "Origin" not in c]
    vg.io.write_star(folder / "particles.star", {**tables, "particles": tables["particles"][kept]})
    text = write_refine_page(folder).read_text()
    assert "Viewing directions" in titles(text)
    assert "0.0 %" in text


@pytest.mark.parametrize("kind", ["finished", *(pytest.param(k, marks=pytest.mark.slow) for k in ("live", "classes"))])
def test_page_in_a_browser(folders, tmp_path, kind):
    """Chromium opens it: every figure is decoded and fits, nothing sticks out, the console stays empty."""
    page = folders(kind, drawn=True) / "report.html"
    pictures, overflow, console = lay_out(page, tmp_path)
    text = page.read_text()
    assert len(pictures) == text.count("<img") >= (1 if kind == "live" else 3)
    assert text.count('<figure class="chart"') >= 5  # test_charts_browser.py looks at what they draw
    assert all(width > 300 and height > 150 for width, height, _ in pictures)
    assert all(0 < shown <= 1000 for _, _, shown in pictures)
    assert overflow <= 0
    assert console == []


@pytest.mark.slow
def test_screenshot_shows_a_page(folders, tmp_path):
    from matplotlib.image import imread

    picture = imread(screenshot(folders("finished", drawn=True) / "report.html", tmp_path))
    assert picture.shape[:2] == (2400, 1100)
    rows = np.flatnonzero(picture[..., :3].std(axis=(1, 2)) > 0.02)
    assert np.diff(rows, prepend=0, append=len(picture)).max() < 100  # no large empty part


def test_the_probe_finds_a_broken_page(tmp_path):
    """The browser test can fail: a picture that is none and an error in a script are seen."""
    page = tmp_path / "bad.html"
    page.write_text(
        '<!doctype html><html><head></head><body><img src="data:image/png;base64,AAAA"><p>x</p>'
        "<script>console.error('seen')</script></body></html>"
    )
    pictures, _, console = lay_out(page, tmp_path)
    assert pictures[0][0] == 0
    assert any("seen" in line for line in console)
    assert "a picture" in console


def test_the_page_says_what_maps_were_regularised_by_and_what_it_gained(folders, tmp_path, blank_figures):
    folder = shutil.copytree(folders("finished"), tmp_path / "run", ignore=shutil.ignore_patterns("*.mrc"))
    assert "Regularisation" not in (folder / "report.html").read_text()  # nothing to say of the FSC of the whole map
    table = pd.read_csv(folder / "iterations.csv")
    table["regularisation"] = ["global"] * (len(table) - 1) + ["local"]
    table["regularisation_gain"] = [np.nan] * (len(table) - 1) + [0.1234]
    table["regularisation_gain_error"] = [np.nan] * (len(table) - 1) + [0.02]
    table.to_csv(folder / "iterations.csv", index=False)
    write_refine_page(folder)
    text = (folder / "report.html").read_text()
    assert "regularised by the local prior. Half maps, FSC curves and resolutions on this page are those before" in text
    assert "explain held-out particles better: +0.123 ± 0.020 nats a particle" in text


def test_the_page_says_what_was_scored_and_what_poses_gained(folders, tmp_path, blank_figures):
    folder = shutil.copytree(folders("finished", drawn=True), tmp_path / "run", ignore=shutil.ignore_patterns("*.mrc"))
    assert "What is scored" not in (folder / "report.html").read_text()
    table = pd.read_csv(folder / "iterations.csv")
    table["score_mask"] = ["off"] * (len(table) - 1) + ["local"]
    table["score_mask_gain"] = [np.nan] * (len(table) - 1) + [0.1234]
    table["score_mask_gain_error"] = [np.nan] * (len(table) - 1) + [0.011]
    table.to_csv(folder / "iterations.csv", index=False)
    write_refine_page(folder)
    text = (folder / "report.html").read_text()
    assert "poses are better so: the finer shells of held-out particles gain +0.123 ± 0.011 nats a particle" in text
