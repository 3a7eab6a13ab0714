"""The picture of a motion and the page of a set of movies."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from motion_movies import planted_dome, settling

from verglas.io import read_json
from verglas.report.html import render
from verglas.report.motion import ShownMotion, motion_figure, motion_page

NUMBERS = ("early_px", "late_px", "shift_error_px")
pytestmark = pytest.mark.drawn


def test_page_shows_movies_to_look_at_first(tmp_path):
    picture = motion_figure(planted_dome(9, 1.0), "m.tif")
    assert picture.startswith(b"\x89PNG")
    (tmp_path / "a.png").write_bytes(picture)
    row = {
        "model": "spline",
        "early_px": 1.5,
        "late_px": 2.0,
        "total_px": 3.5,
        "local_px": 1.0,
        "shift_error_px": 0.1,
        "gain_nats": 20.0,
        "picture": "a.png",
        "reason": "",
        "flags": "",
    }
    rows = [{"movie": f"movies/m{i}.tif", **row} for i in range(3)]
    rows[1]["flags"] = "frame 3 is constant: left out"
    rows.append({"movie": "movies/<b>.tif", "reason": "ends in the middle of frame 7", "flags": ""})
    page = motion_page(pd.DataFrame(rows), tmp_path)
    html = render(page)
    assert page.figures["corrected"] == "3"
    assert html.index("frame 3 is constant") < html.index("m0.tif")
    assert "ends in the middle of frame 7" in html
    assert "&lt;b&gt;.tif" in html
    assert np.all(np.diff(planted_dome(9, 1.0).drift_px()) > 0)
    assert settling(3, (1, 1)).shape == (3, 2)


def test_tracks_are_charts_where_their_numbers_were_kept(tmp_path):
    motion = planted_dome(9, 1.0)
    shown = ShownMotion.of_motion(motion)
    (tmp_path / "m.json").write_bytes(shown.as_bytes())
    again = ShownMotion.from_record(read_json(tmp_path / "m.json"))
    assert again.as_bytes() == shown.as_bytes()
    frames, field = again.charts("m.tif")
    assert np.allclose(np.stack([frames.series[0].x, frames.series[0].y], -1), motion.global_px, atol=1e-3)
    assert "up to" in field.title
    x, y = field.series[0].x, field.series[0].y
    assert np.isnan(x).sum() == 49  # the pen is lifted after each place
    # drawn larger, each begins where its place is, and the largest moves as far as it is said to
    assert np.allclose(x[:: len(x) // 49], shown.places_px[:, 0], atol=0.6)
    largest = float(field.title.split("up to ")[1].split(" px")[0])
    times = float(field.title.split("drawn ")[1].split(" ")[0])
    tracks = np.stack([x, y], -1).reshape(49, -1, 2)[:, :-1]
    assert np.hypot(*np.moveaxis(tracks - tracks[:, :1], -1, 0)).max() == pytest.approx(largest * times, rel=0.05)
    row = {"movie": "movies/<m>.tif", "reason": "", "flags": "", "picture": "m.png", "curves": "m.json"}
    page = render(motion_page(pd.DataFrame([{**row, "total_px": 3.5, **dict.fromkeys(NUMBERS, 1.0)}]), tmp_path))
    assert page.count('<figure class="chart"') == 6  # four distributions, two of the movie
    assert "data:image" not in page
    assert "&lt;m&gt;.tif" in page
    assert "<m>" not in page
