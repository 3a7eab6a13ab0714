"""The picture of a motion and the page of a set of movies."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from motion_movies import planted_dome, settling

from verglas.report.html import render
from verglas.report.motion import motion_figure, motion_page

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
