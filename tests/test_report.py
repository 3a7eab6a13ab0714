"""Figures show what they say, pages are whole, safe and readable by machines and people."""

from __future__ import annotations

import base64
import io
import json
import re
import zlib
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy.ndimage import binary_dilation, gaussian_filter, map_coordinates, spline_filter

import verglas as vg
from verglas import geometry, report
from verglas.assessment import guinier
from verglas.report import curves, figures, html, style, surface
from verglas.report.chart import Band, Chart, Field, Line, Series, histogram_chart
from verglas.report.course import iteration_charts
from verglas.report.model import pack_model
from verglas.report.volume import display_level, pack_volume
from verglas.types.atoms import Atoms

pytestmark = pytest.mark.drawn


def pixels(png: bytes) -> np.ndarray:
    from matplotlib.image import imread

    picture = imread(io.BytesIO(png), format="jpg" if png.startswith(b"\xff\xd8") else "png")
    return picture if picture.dtype.kind == "f" else picture / 255.0


def ball(box: int, radius: float, centre: tuple[float, float, float] = (0, 0, 0)) -> vg.Map:
    """A soft ball; the centre is x, y, z in voxels from the origin."""
    axis = np.arange(box) - box // 2
    z, y, x = np.meshgrid(axis, axis, axis, indexing="ij")
    distance = np.sqrt((x - centre[0]) ** 2 + (y - centre[1]) ** 2 + (z - centre[2]) ** 2)
    return vg.Map(np.clip(radius + 0.5 - distance, 0, 1).astype(np.float32), 2.0)


def test_slices_are_the_central_ones():
    data = np.arange(4 * 5 * 6, dtype=np.float32).reshape(4, 5, 6)
    z, y, x = figures.central_slices(data)
    assert np.array_equal(z, data[2])
    assert np.array_equal(y, data[:, 2])
    assert np.array_equal(x, data[:, :, 3])


def test_slices_refuse_maps_of_different_boxes():
    with pytest.raises(vg.InputError, match=r"one shape, got \[\(8, 8, 8\), \(10, 10, 10\)\]"):
        figures.slices({"a": ball(8, 2), "b": ball(10, 2)})


def test_a_figure_is_drawn_once(monkeypatch):
    from matplotlib.figure import Figure

    times, draw = [], Figure.draw
    monkeypatch.setattr(Figure, "draw", lambda self, renderer: (times.append(1), draw(self, renderer))[1])
    with style.style_context():
        figure = style.new_figure(2.0, 1.5)
        figure.subplots().set_xlabel("shell")
        assert pixels(style.png(figure, 100)).shape == (150, 200, 4)
    assert len(times) == 1


def test_every_figure_is_a_picture():
    maps = {"a": ball(16, 5), "b": ball(16, 4)}
    curve = vg.fsc(*maps.values())
    rng = np.random.default_rng(0)
    made = [
        figures.slices(maps),
        figures.fsc({"a with b": curve}),
        figures.angular_distribution(rng.uniform(0, 180, (50, 3))),
        figures.particles(rng.normal(size=(7, 16, 16)).astype("f4"), 2.0),
        figures.slices(maps, contour=ball(16, 6), shared_scale=False),
        figures.views(maps["a"], ball(16, 6)),
        curves.fsc({"a with b": curve}, ("half-bit", "3sigma", 0.143), legend_at=0.143),
        figures.overview(rng.normal(size=(4, 16, 16)).astype("f4"), maps, {"a with b": curve}),
    ]
    for png in made:
        picture = pixels(png)
        assert min(picture.shape[:2]) > 150
        assert picture[..., :3].std() > 0.02


def test_figures_are_repeatable_and_leave_matplotlib_alone():
    import matplotlib

    before = dict(matplotlib.rcParams)
    curve = vg.fsc(ball(16, 5), ball(16, 4))
    assert figures.fsc({"a": curve}) == figures.fsc({"a": curve})
    assert dict(matplotlib.rcParams) == before


def test_fsc_figure_needs_a_curve():
    with pytest.raises(vg.InputError, match="at least one curve"):
        figures.fsc({})


@settings(deadline=None, max_examples=20)
@given(rot=st.floats(-360, 360), tilt=st.floats(0, 180))
@example(rot=0.0, tilt=134.75)
def test_the_density_of_one_view_peaks_there_and_has_mean_one(rot, tilt):
    longitude, latitude = np.deg2rad(np.arange(-180.0, 180, 4)), np.deg2rad(np.arange(-88.0, 90, 4))
    density = figures.view_density([[rot, tilt, 0]], longitude, latitude)
    assert np.average(density.mean(axis=1), weights=np.cos(latitude)) == pytest.approx(1, abs=0.15)
    y, x = np.unravel_index(density.argmax(), density.shape)
    direction = figures._unit_vectors(latitude[y], longitude[x])
    view = figures._unit_vectors(np.deg2rad(90 - tilt), np.deg2rad(rot))
    # A cell has one density: the first of its samples that is plotted may be as far from the view as its farthest
    # corner, that of the cells at z = 2/3 (Gorski et al. 2005, eqs. 4 and 8: z of a ring, longitude of its corner).
    n = 1 << figures._ORDER
    z, ring = 2 / 3, 1 - (1 - 1 / n) ** 2 / 3
    corner = np.rad2deg(np.arccos(z * ring + np.sqrt((1 - z**2) * (1 - ring**2)) * np.cos(np.pi / (4 * n))))
    assert np.rad2deg(np.arccos(np.clip(direction @ view, -1, 1))) < corner + 4 / np.sqrt(2)


def test_uniform_views_have_density_one():
    rng = np.random.default_rng(1)
    angles = np.column_stack([rng.uniform(-180, 180, 200000), np.rad2deg(np.arccos(rng.uniform(-1, 1, 200000)))])
    density = figures.view_density(angles, np.linspace(-np.pi, np.pi, 37), np.linspace(-np.pi / 2, np.pi / 2, 19))
    assert abs(density - 1).max() < 0.1


def test_views_of_an_asymmetric_unit_are_uniform_with_their_copies():
    rng = np.random.default_rng(2)
    angles = np.column_stack([rng.uniform(-180, 180, 200000), np.rad2deg(np.arccos(rng.uniform(-1, 1, 200000)))])
    unit = geometry.to_asymmetric_unit(np.column_stack([angles, np.zeros(len(angles))]), "O")
    longitude, latitude = np.linspace(-np.pi, np.pi, 37), np.linspace(-np.pi / 2, np.pi / 2, 19)
    assert figures.view_density(unit, longitude, latitude).max() > 5  # alone they crowd a 24th of the sphere
    assert abs(figures.view_density(unit, longitude, latitude, symmetry="O") - 1).max() < 0.1


def test_sides_of_a_map_are_seen_from_z_y_and_x():
    """Right in the picture, down in the picture, towards the eye: (x, y, z), (x, -z, y), (y, z, x)."""
    marks = {"x": (9, 0, 0), "y": (0, 9, 0), "z": (0, 0, 9)}
    wanted = [
        {"x": (0, 9), "y": (1, 9), "z": (2, 9)},
        {"x": (0, 9), "y": (2, 9), "z": (1, -9)},
        {"x": (2, 9), "y": (0, 9), "z": (1, 9)},
    ]
    for axis, centre in marks.items():
        for side, want in zip(figures._sides(ball(32, 3, centre)), wanted, strict=True):
            z, y, x = (float(np.mean(i)) - 16 for i in np.nonzero(side.data > 0.5))
            place, value = want[axis]
            found = [x, y, z]
            assert found[place] == pytest.approx(value, abs=1)  # a flip of an even side moves the origin by one voxel
            assert all(abs(v) <= 1 for k, v in enumerate(found) if k != place)


@pytest.mark.parametrize(("suffix", "start"), [("png", b"\x89PNG"), ("svg", b"<?xml"), ("pdf", b"%PDF")])
def test_fsc_figure_files_are_the_same_each_time(tmp_path, suffix, start):
    curve = vg.fsc(ball(16, 5), ball(16, 4))
    written = []
    for name in ("a", "b"):
        curves.write_fsc({"a with b": curve}, tmp_path / f"{name}.{suffix}", ("half-bit", 0.143))
        written.append((tmp_path / f"{name}.{suffix}").read_bytes())
    assert written[0].startswith(start)
    assert written[0] == written[1]
    with pytest.raises(vg.InputError, match="expected the suffix"):
        curves.write_fsc({"a": curve}, tmp_path / "a.gif")
    with pytest.raises(vg.InputError, match="at least one plot"):
        curves.guinier_chart({})


def test_page_that_is_still_written_reloads():
    assert "refresh" not in html.render(html.Page("t", "s"))
    assert '<meta http-equiv="refresh" content="15">' in html.render(html.Page("t", "s", refresh_s=15))


def test_surface_of_a_ball_is_its_disc():
    picture = surface.shade_surface(ball(32, 9), 0.5, size=128)
    area = picture[..., 3].sum() * (32 / 128) ** 2
    assert area == pytest.approx(np.pi * 9**2, rel=0.03)
    assert picture[..., :3].max() <= 1
    assert picture[64, 64, 3] == 1
    assert picture[4, 4].tolist() == [0, 0, 0, 0]


def test_surface_hides_what_lies_behind():
    """Two balls on the line of sight: turning the molecule by 180 degrees about y swaps which one is seen."""
    near, far = ball(32, 4, (0, 0, 9)), ball(32, 8, (0, 0, -4))
    both = near.with_data(np.maximum(near.data, far.data))
    front = surface.shade_surface(both, 0.5, size=96)
    back = surface.shade_surface(both, 0.5, size=96, matrix=np.diag([-1.0, 1, -1]))
    assert front[..., 3].sum() == pytest.approx(back[..., 3].sum(), rel=0.02)
    edge = np.s_[48, 48 + 9 : 48 + 14]  # where the small ball's rim covers the large one
    assert abs(front[edge][..., :3] - back[edge][..., :3]).max() > 0.05


def test_surface_turns_with_the_matrix():
    """A ball off to +x goes to +y (down in the picture) under a rotation by 90 degrees about z."""
    turned = surface.shade_surface(ball(32, 4, (8, 0, 0)), 0.5, size=64, matrix=[[0, -1, 0], [1, 0, 0], [0, 0, 1]])
    y, x = np.nonzero(turned[..., 3])
    assert (y.mean() - 31.5) / 2 == pytest.approx(8, abs=0.6)
    assert abs(x.mean() - 31.5) / 2 < 0.6


def test_surface_is_where_the_cubic_spline_first_passes_the_level():
    rough = np.random.default_rng(2).standard_normal((10, 10, 10))
    coefficients = spline_filter(gaussian_filter(rough, 1.0), order=3, output=np.float32)
    plane, level = (np.arange(23) + 0.5) / 23 * 10 - 0.5, 0.15
    depth, hit = surface._first_crossing(coefficients, plane, level)
    y, x = (a.ravel() for a in np.meshgrid(plane, plane, indexing="ij"))

    def density(z):
        return map_coordinates(coefficients, [np.broadcast_to(z, x.shape), y, x], order=3, prefilter=False)

    steps = np.stack([density(z) for z in np.arange(9, -0.5, -0.5)])  # from the eye
    first = np.where((steps > level).any(axis=0), 9 - 0.5 * np.argmax(steps > level, axis=0), -1)
    assert 0.1 < hit.mean() < 0.9
    np.testing.assert_array_equal(hit, first >= 0)
    within = hit & (first < 9)
    assert np.all((depth >= first)[within] & (depth <= first + 0.5)[within])
    assert np.all(density(depth)[within] > level - 1e-5)
    assert np.all(density(depth + 0.01)[within] < level + 1e-5)


def test_surface_of_an_empty_map_is_empty():
    assert surface.shade_surface(vg.Map(np.zeros((8, 8, 8), "f4"), 1.0), 1.0, size=16).max() == 0


def unpacked(packed: bytes) -> tuple[dict, np.ndarray]:
    length = int.from_bytes(packed[:4], "little")
    header = json.loads(packed[4 : 4 + length])
    return header, np.frombuffer(zlib.decompress(packed[4 + length :]), "<f4" if "runs" in header else "u1")


def test_traces_of_a_model_break_where_something_is_missing():
    """Two residues, a gap, one more; another chain of nucleotides; zinc alone; water left out; calcium is no carbon."""
    rows = [("C", "CA", "GLY", "A", 1, 0.0), ("O", "O", "GLY", "A", 1, 1.0), ("C", "CA", "GLY", "A", 2, 3.8)]
    rows += [("C", "CA", "GLY", "A", 7, 20.0), ("P", "P", "DA", "B", 1, 21.0), ("P", "P", "DA", "B", 2, 27.0)]
    rows += [("ZN", "ZN", "ZN", "A", 90, 40.0), ("CA", "CA", "CA", "A", 91, 50.0), ("O", "O", "HOH", "A", 92, 60.0)]
    elements, names, residues, chains, numbers, x = zip(*rows, strict=True)
    xyz = np.stack([x, np.zeros(len(x)), np.zeros(len(x))], 1)
    ones = np.ones(len(x))
    header, places = unpacked(pack_model(Atoms(xyz, elements, names, residues, chains, numbers, ones, ones), "m"))
    assert (header["name"], header["chains"], header["atoms"]) == ("m", ["A", "B"], 9)
    assert header["runs"] == [[0, 2, 0], [2, 1, 0], [3, 2, 1], [5, 1, 0], [6, 1, 0]]
    assert places.reshape(-1, 3)[:, 0] == pytest.approx([0, 3.8, 20, 21, 27, 40, 50])


def test_a_coarse_map_stays_where_it_is():
    """The centre of mass in the frame of the file, before and after, of a cube and of a box that is none."""
    for shape in ((40, 40, 40), (30, 40, 44)):
        z, y, x = np.indices(shape)
        blob = np.exp(-((z - 17.0) ** 2 + (y - 21.0) ** 2 + (x - 19.0) ** 2) / 18).astype(np.float32)
        header, grey = unpacked(pack_volume(vg.Map(blob, 1.5, (5.0, -7.0, 11.0)), most_box=20))
        values = grey.reshape(header["shape"][::-1]).astype(float)
        values = values - values[0, 0, 0]
        at = [(values * one).sum() / values.sum() for one in np.indices(values.shape)[::-1]]
        place = [o + header["pixel_size_A"] * a for o, a in zip(header["origin_A"], at, strict=True)]
        assert place == pytest.approx([5 + 1.5 * 19, -7 + 1.5 * 21, 11 + 1.5 * 17], abs=0.15)


def test_level_encloses_the_volume_asked_for():
    data = np.random.default_rng(0).normal(size=(20, 20, 20)).astype("f4")
    assert (data > surface.level_for_volume(data, 0.1)).mean() == pytest.approx(0.1, abs=1e-3)


class Outline(HTMLParser):
    """Tags in order, attributes, and whether every tag is closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.seen.append((tag, dict(attrs)))
        if tag not in {"meta", "img"}:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def a_page() -> html.Page:
    picture = html.Picture(figures.particles(np.eye(8, dtype="f4")[None], 1.0), 'an "eye"', "a < b")
    table = html.Table(("name", "value"), [("<script>alert(1)</script>", 3.5), ("&", "x")])
    return html.Page("T & t", "s", {"n": "1"}, [html.Section("one", "text", [picture, table])], "foot")


def test_page_is_self_contained_and_well_formed():
    text = html.render(a_page())
    outline = Outline(text)
    assert outline.open == []
    tags = [tag for tag, _ in outline.seen]
    assert "script" not in tags
    assert "link" not in tags
    assert not re.search(r"(src|href)=\"(?!data:|#)", text)
    assert "http" not in text
    data = re.search(r'src="data:image/png;base64,([^"]+)"', text)
    assert pixels(base64.b64decode(data[1])).ndim == 3


def test_page_is_accessible():
    outline = Outline(html.render(a_page()))
    attributes = [(tag, given) for tag, given in outline.seen]
    assert ("html", {"lang": "en"}) in attributes
    assert all(given.get("alt") for tag, given in attributes if tag == "img")
    assert all(given.get("scope") in {"row", "col"} for tag, given in attributes if tag == "th")
    assert {"header", "main", "footer", "h1", "h2", "title"} <= {tag for tag, _ in attributes}
    labels = {given.get("aria-labelledby") for tag, given in attributes if tag == "section"}
    assert labels == {given.get("id") for tag, given in attributes if tag == "h2"}


def test_page_escapes_what_it_shows():
    text = html.render(a_page())
    assert "<script>" not in text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text
    assert 'alt="an &#34;eye&#34;"' in text


def test_gallery_shows_each_image_on_the_scale_asked_for():
    ramp, twice = np.arange(64.0).reshape(8, 8), 2 * np.arange(64.0).reshape(8, 8)
    own = report.gallery([ramp, twice], ["a", "b"])
    shared = report.gallery([ramp, twice], scale="shared")
    about_zero = report.gallery([ramp - 10, np.zeros((8, 8))], scale="symmetric")
    assert [axes.get_title() for axes in own.axes] == ["a", "b"]
    limits = [[axes.images[0].get_clim() for axes in figure.axes] for figure in (own, shared, about_zero)]
    assert limits[0][1] == pytest.approx(2 * np.array(limits[0][0]))
    assert limits[1][0] == limits[1][1]
    assert all(low == -high < 0 for low, high in limits[2])


def test_gallery_takes_colours_and_leaves_no_empty_panel():
    figure = report.gallery([np.zeros((6, 6, 4)), np.eye(6), np.eye(6)], columns=2)
    assert len(figure.axes) == 3


@pytest.mark.parametrize("images", [[], [np.zeros(5)], [np.zeros((2, 2, 2, 2))]])
def test_gallery_refuses_what_is_no_picture(images):
    with pytest.raises(vg.InputError, match="expected images"):
        report.gallery(images)


def test_a_histogram_counts_every_value_once_and_ends_hold_what_lies_beyond():
    rng = np.random.default_rng(3)
    kept, removed = rng.normal(size=400), np.r_[rng.normal(2, 1, 100), np.nan, 50.0]
    chart = histogram_chart("score", {"kept": kept, "removed": removed}, "particles", limits=(-3.0, 5.0))
    assert [one.y.sum() for one in chart.series] == [400, 101]  # a NaN is no value
    assert chart.series[1].y[-1] >= 1  # 50 stands in the last bin
    assert np.allclose(np.diff(chart.series[0].x), chart.bar_width)
    edge = chart.series[0].x[0] - chart.bar_width / 2
    assert (edge, chart.bar_width * len(chart.series[0].x)) == pytest.approx((-3.0, 8.0))
    record = json.loads(chart.as_json())
    assert (record["width"], record["series"][1]["draw"], record["zero"]) == (
        pytest.approx(chart.bar_width),
        "bars",
        True,
    )
    assert histogram_chart("score", {"kept": [np.nan]}, "particles") is None
    same = histogram_chart("score", {"kept": [2.0, 2.0]}, "particles")
    assert same.series[0].y.sum() == 2  # no range at all


def test_a_guinier_chart_has_the_line_that_was_fitted():
    plot = guinier(ball(32, 9), band_A=(20.0, 4.0))
    chart = curves.guinier_chart({"map": plot})
    names = [one.name for one in chart.series]
    assert names == ["masked map", "weighted by the FSC", f"B = {plot.b_factor_A2:.0f} Å²"]
    np.testing.assert_array_equal(chart.series[2].y, plot.fit)
    assert chart.series[1].draw == "points"


def test_a_chart_keeps_small_differences_of_large_values_and_no_number_that_json_lacks():
    defocus = np.array([20000.0, 20000.3, 20000.6])
    same = np.full(3, 20000.0) + np.array([0, 1e-9, 0])
    for shades, ends in ((defocus, (20000.0, 20000.6)), (same, (20000.0, 20200.0))):
        made = Chart("t", "x", "y", [Series("p", defocus, defocus, "points", shades=shades)], scale_label="Å")
        record = json.loads(made.as_json())
        assert record["scale"][:2] == list(ends)  # not one number: colours are shares of their difference
        assert record["series"][0]["y"] == defocus.tolist()
    bands, lines = [Band(np.nan, 1.5, "a"), Band(1.5, 3.5, "b")], [Line(np.inf, "none"), Line(1.0, "one")]
    text = Chart("t", "x", "y", [], lines=lines, marks=lines, bands=bands).as_json()
    record = json.loads(text, parse_constant=pytest.fail)
    assert (record["bands"], record["lines"]) == ([[1.5, 3.5, "b"]], [[1.0, "one"]])


def test_phases_of_a_run_without_iterations_or_names():
    table = pd.DataFrame({"iteration": [1, 2, 3], "phase": [None, "global", "global"], "resolution_A": [9.0, 8.0, 7.0]})
    (chart,) = iteration_charts(table)
    assert [(one.start, one.end, one.text) for one in chart.bands] == [(0.5, 1.5, ""), (1.5, 3.5, "global")]
    assert iteration_charts(table[:0]) == []


@pytest.mark.parametrize(("noise", "least_seen"), [(0.02, 0.9), (0.2, 0.5), (0.4, 0.35)])
def test_a_noisy_map_is_shown_at_a_level_at_which_its_molecule_is_seen(noise, least_seen):
    """Clean, as refined, and sharpened beyond what it holds: enough of the molecule, and little else, lies above."""
    model = vg.simulate.phantom(48, 4.0, 110.0, seed=5)
    density = vg.simulate.density(model, 48, 4.0)
    wanted = density.data > np.quantile(density.data, 0.96)
    near = binary_dilation(wanted, iterations=3)
    grain = np.random.default_rng(6).normal(size=density.data.shape) * noise * density.data[wanted].mean()
    noisy = density.with_data((density.data + grain).astype(np.float32))
    above = noisy.data > display_level(noisy)
    assert above.sum() > least_seen * wanted.sum()
    assert (above & near).sum() > 0.9 * above.sum()


def test_signed_colours_have_zero_in_the_middle_and_one_reach_beside_each_other():
    def scale(values, **more):
        plane = Field(np.array([values]), (0.0, 1.0), (0.0, 1.0))
        return json.loads(Chart("t", "x", "y", [], field=plane, signed=True, **more).as_json())["scale"][:2]

    assert scale([0.0, 0.0]) == [-1, 1]
    assert scale([0.0, -0.1]) == [-0.1, 0.1]
    assert scale([0.0, 0.1], colours_to=3.0) == [-3, 3]
