"""Resolution at every voxel: planted resolutions, noise, the window's count of voxels, and what is refused."""

from __future__ import annotations

import base64
import json
import re

import numpy as np
import pytest
from command_line import main

import verglas as vg
from verglas import fourier
from verglas.assessment import local_directions, local_resolution_of_tomogram
from verglas.assessment.local_bands import Band, Windowed, band_map, interpolation, linear_bands
from verglas.assessment.local_filter import filter_locally
from verglas.assessment.local_scan import steerable_power
from verglas.assessment.local_tomogram import _axis_weight, _tiles
from verglas.io import read_csv
from verglas.simulate import planted_halves

BOX, PIXEL_A = 64, 1.5


def noise_map(box: int, seed: int) -> np.ndarray:
    """White noise of variance 1."""
    return np.random.default_rng(seed).standard_normal((box, box, box), dtype=np.float32)


@pytest.fixture(scope="module")
def halves() -> vg.simulate.PlantedHalves:
    """4 and 8 A side by side, noise as strong as the signal over the box."""
    return planted_halves(vg.Map(noise_map(BOX, 5), PIXEL_A), (4.0, 8.0), noise=2.0, seed=6)


@pytest.mark.parametrize(
    ("method", "error"),
    [
        ("fsc", 0.15),
        ("significance", 0.10),
        ("monogenic", 0.15),
        pytest.param("steerable", 0.15, marks=pytest.mark.slow),
    ],
)
def test_planted_resolutions(halves, method, error):
    found = vg.local_resolution(
        halves.half1, halves.half2, halves.inside, method=method, window_radius_A=7.0, listener=None
    )
    for planted in (4.0, 8.0):
        median = np.median(found.map.data[halves.at(planted, beyond_A=14.0)])
        assert abs(median / planted - 1) < error, (planted, median)


@pytest.mark.parametrize("method", ["fsc", "significance", "monogenic", "steerable"])
def test_little_noise_does_not_make_a_poor_neighbour_fine(method):
    """Of 4 A beside 8 A the fine half's signal, far above the noise, is not taken for the coarse half's."""
    density = vg.simulate.density(vg.simulate.phantom(BOX, PIXEL_A, 0.8 * BOX * PIXEL_A, seed=1), BOX, PIXEL_A)
    planted = planted_halves(density, (4.0, 8.0), noise=1.0, seed=1)
    found = vg.local_resolution(planted.half1, planted.half2, planted.inside, method=method, listener=None)
    window_A = 2 * found.window_radius_A
    error = 0.1 if method == "significance" else 0.15
    for limit in (4.0, 8.0):
        assert np.median(found.map.data[planted.at(limit, window_A)]) == pytest.approx(limit, rel=error)
    middle, reach = BOX // 2, 16
    log = np.log(found.map.data[middle - 8 : middle + 8, middle - 8 : middle + 8, middle - reach : middle + reach])
    profile = log.mean(axis=(0, 1))
    coarse = np.flatnonzero(profile > 0.5 * (profile[:3].mean() + profile[-3:].mean()))
    assert abs(int(coarse[0]) - reach) * PIXEL_A < window_A


def test_signal_that_is_the_same_all_around_stays():
    band, box = Band(12.0, 3.0, 5.0), 48
    windowed = Windowed(band, box, 1)
    even = np.ones((windowed.coarse,) * 3, np.float32)
    np.testing.assert_allclose(windowed.without_leak(even, 5.0), even, atol=1e-5)
    one_sided = even.copy()
    one_sided[:, :, : windowed.coarse // 2] = 0
    left = windowed.without_leak(one_sided, 5.0)
    assert (left <= one_sided + 1e-6).all()
    assert (left[:, :, windowed.coarse // 4] == 0).all()


def test_noise_is_not_resolved():
    halves = [vg.Map(noise_map(48, seed), 2.0) for seed in (1, 2)]
    found = vg.local_resolution(
        *halves, np.ones((48, 48, 48)), method="significance", window_radius_A=10.0, listener=None
    )
    assert found.unresolved > 0.98
    assert (found.threshold > 0.2).all()


def test_windowed_fsc_of_noise_has_variance_one_over_n():
    band, box = Band(14.0, 2.5, 5.0), 64
    windowed, spread = Windowed(band, box, 1), []
    for seed in range(3):
        spectra = [fourier.forward(noise_map(box, 10 * seed + i), 3) for i in (1, 2)]
        a, b = (band_map(s, band, box, 1) for s in spectra)
        cross, power_a, power_b = (windowed.average(p) for p in (a * b, a * a, b * b))
        spread.append(np.mean(cross**2 / (power_a * power_b)))
    assert np.mean(spread) * band.independent(box) == pytest.approx(1.0, abs=0.12)


def test_averages_equal_the_windows_definition():
    """Products on small grids, cut transforms and interpolation against a direct sum at a few voxels."""
    band, box = Band(9.0, 2.0, 4.0), 48
    spectra = [fourier.forward(noise_map(box, seed), 3) for seed in (1, 2)]
    gain = band.gain(fourier.radius((box,) * 3))
    a, b = (fourier.inverse((s * gain).astype(np.complex64), (box,) * 3) for s in spectra)
    windowed = Windowed(band, box, 1)
    small = [band_map(s, band, box, 1) for s in spectra]
    slab = windowed.slab([windowed.average(small[0] * small[1])], slice(20, 22))[0]
    window = band.window(box) / band.window(box).sum(dtype=np.float64)
    scale = float(np.sqrt(np.mean(a**2) * np.mean(b**2)))
    for z, y, x in ((20, 24, 24), (21, 3, 40)):
        centred = np.roll(window, (z - box // 2, y - box // 2, x - box // 2), (0, 1, 2))
        assert slab[z - 20, y, x] == pytest.approx(float(np.sum(centred * a * b)), abs=0.01 * scale)


@pytest.mark.parametrize(("coarse", "box"), [(8, 24), (9, 25), (8, 25)])
def test_interpolation_is_that_of_fourier(coarse, box):
    rng = np.random.default_rng(0)
    values = rng.normal(size=coarse)
    if coarse % 2 == 0:  # the Nyquist wave of an even side has no interpolation that all agree on
        values -= (-1.0) ** np.arange(coarse) * np.mean(values * (-1.0) ** np.arange(coarse))
    spectrum = np.fft.fftshift(np.fft.fft(np.fft.ifftshift(values)))
    wide = np.zeros(box, complex)
    start = box // 2 - coarse // 2
    wide[start : start + coarse] = spectrum
    expected = np.fft.fftshift(np.fft.ifft(np.fft.ifftshift(wide))).real * box / coarse
    np.testing.assert_allclose(interpolation(coarse, box) @ values, expected, atol=1e-5)


def test_threads_and_grey_scale_change_nothing(halves):
    few = {"mask": halves.inside, "window_radius_A": 9.0, "finest_A": 6.0, "listener": None}
    once = vg.local_resolution(halves.half1, halves.half2, threads=1, **few)
    scaled = halves.half2.with_data(3 * halves.half2.data)
    again = vg.local_resolution(halves.half1, scaled, threads=2, **few)
    different = np.abs(again.map.data / once.map.data - 1) > 2e-3
    # In empty space a voxel of noise may pass or fail a band by rounding.
    assert not different[halves.inside].any()
    assert different.mean() < 5e-5
    same = vg.local_resolution(halves.half1, halves.half2, threads=2, **few)
    assert (once.map.data == same.map.data).all()


def test_an_odd_box():
    halves = planted_halves(vg.Map(noise_map(45, 5), 2.0), (6.0,), noise=1.0, seed=6)
    found = vg.local_resolution(halves.half1, halves.half2, halves.inside, window_radius_A=10.0, listener=None)
    assert found.quantiles_A((0.5,))[0] == pytest.approx(6.0, rel=0.15)


def test_local_filter_removes_noise_and_keeps_grey_scale(halves):
    found = vg.local_resolution(halves.half1, halves.half2, halves.inside, window_radius_A=7.0, listener=None)
    mean = halves.half1.with_data(0.5 * (halves.half1.data + halves.half2.data))
    filtered = filter_locally(mean, found.map)
    coarse = halves.at(8.0, beyond_A=14.0)
    before, after = (np.std((m.data - halves.truth.data)[coarse]) for m in (mean, filtered))
    assert after < 0.5 * before
    fine = halves.at(4.0, beyond_A=14.0)
    slope = np.polyfit(halves.truth.data[fine], filtered.data[fine], 1)[0]
    assert slope == pytest.approx(1.0, abs=0.1)
    smooth = vg.filters.low_pass(20.0)
    # Outside, where nothing is resolved, waves of this length are cut.
    kept = [vg.filters.apply(m, smooth).data[halves.inside] for m in (mean, filtered)]
    assert np.std(kept[0] - kept[1]) < 0.08 * np.std(kept[0])


def test_bands_of_long_waves_have_wider_windows():
    narrow, wide = (linear_bands(96, 5.2, 4.3, 47.0, waves) for waves in (0.0, 0.75))
    assert len(wide) > len(narrow)  # a coarser band holds enough independent voxels
    by_centre = {round(band.centre, 6): band for band in narrow}
    for band in wide:
        assert band.window_px == pytest.approx(max(4.3, min(0.75 * 96 / band.centre, 16.0)))
        if round(band.centre, 6) in by_centre:
            assert band.independent(96) >= by_centre[round(band.centre, 6)].independent(96)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "symmetry"),
    [("fsc", "C1"), ("significance", "C1"), ("monogenic", "C1"), ("monogenic", "D2"), ("steerable", "D2")],
)
def test_slabs_at_much_noise(method, symmetry):
    """12 A beside 6 and 3.2 A under a window made for 3.2 A, where few voxels are independent at 12 A.

    The dimer has little density in the outer slabs, whose neighbours shine in.
    """
    seed = {"C1": 1, "D2": 2}[symmetry]
    density = vg.simulate.density(vg.simulate.phantom(96, PIXEL_A, 115.0, symmetry, seed=seed), 96, PIXEL_A)
    planted = planted_halves(density, (12.0, 6.0, 3.2), noise=4.0, seed=1)
    found = vg.local_resolution(planted.half1, planted.half2, planted.inside, method=method, listener=None)
    error = 0.1 if method == "significance" else 0.15
    for limit in (12.0, 6.0, 3.2):
        assert np.median(found.map.data[planted.at(limit, 12.0)]) == pytest.approx(limit, rel=error)


def test_what_is_refused(halves):
    first, second = halves.half1, halves.half2
    with pytest.raises(vg.InputError, match="identical"):
        vg.local_resolution(first, first, listener=None)
    with pytest.raises(vg.InputError, match="at most a quarter"):
        vg.local_resolution(first, second, window_radius_A=60.0, listener=None)
    with pytest.raises(vg.InputError, match="less than two voxels"):
        vg.local_resolution(first, second, window_radius_A=2.0, listener=None)
    flat = [vg.Map(m.data[:32], PIXEL_A) for m in (first, second)]
    with pytest.raises(vg.InputError, match="cube"):
        vg.local_resolution(*flat, listener=None)
    with pytest.raises(
        vg.InputError, match="expected fsc, significance, monogenic, steerable, network, directional or tomogram"
    ):
        vg.local_resolution(first, second, method="resmap", listener=None)
    with pytest.raises(vg.InputError, match=r"the halves have voxels of 1\.5 and 2 A"):
        local_resolution_of_tomogram(first, vg.Map(second.data, 2.0), listener=None)
    tiny = [vg.Map(noise_map(12, seed), PIXEL_A) for seed in (1, 2)]
    with pytest.raises(vg.InputError, match="half map 2 is constant"):
        vg.local_resolution(first, vg.Map(np.zeros_like(second.data), PIXEL_A), listener=None)
    with pytest.raises(vg.InputError, match="no mask can be made from the half maps"):
        vg.local_resolution(*tiny, listener=None)
    with pytest.raises(vg.InputError, match="pixel sizes"):
        vg.local_resolution(first, vg.Map(second.data, 1.7), listener=None)


def test_command_writes_map_tables_script_and_page(halves, tmp_path, capsys):
    for number, half in enumerate((halves.half1, halves.half2), 1):
        vg.write_map(tmp_path / f"half{number}.mrc", half)
    vg.write_map(tmp_path / "mask.mrc", halves.half1.with_data(halves.inside.astype(np.float32)))
    out = tmp_path / "out"
    files = [str(tmp_path / name) for name in ("half1.mrc", "half2.mrc", "mask.mrc")]
    words = ["local-resolution", *files[:2], "--mask", files[2], "--out", str(out), "--json", "--filtered-map"]
    status, printed, _ = main([*words, "--finest", "3.5", "--window-radius", "7"], capsys)
    record = json.loads(printed)
    assert status == 0
    assert 3.4 < record["resolution_A"]["q05"] < record["resolution_A"]["q95"] < 12
    resolution = vg.read_map(out / "local_resolution.mrc")
    assert np.quantile(resolution.data[halves.inside], 0.5) == pytest.approx(record["resolution_A"]["median"], abs=0.01)
    assert vg.read_map(out / "map_filtered.mrc").box == BOX
    assert "color sample #1 map #2 palette" in (out / "colour.cxc").read_text()
    page = (out / "report.html").read_text()
    assert 'data-colour="local resolution"' in page
    charts = [json.loads(text) for text in re.findall(r'<figure class="chart".*?json">(.*?)</script>', page, re.S)]
    slices = {chart["title"]: chart for chart in charts if "field" in chart}
    assert list(slices) == ["Seen along z", "Seen along y", "Seen along x"]
    shown = slices["Seen along z"]["field"]
    cells = np.frombuffer(base64.b64decode(shown["values"]), np.uint8).reshape(shown["rows"], shown["columns"])
    assert ((cells < 255) == halves.inside[BOX // 2]).all()  # the molecule's voxels have a value, the others none
    low, high, _ = slices["Seen along z"]["scale"]
    read = low + cells[halves.inside[BOX // 2]] / 250 * (high - low)
    true = resolution.data[BOX // 2][halves.inside[BOX // 2]]
    assert np.median(np.abs(read - np.clip(true, low, high))) < 0.01 * (high - low)
    assert "Measured over planted resolution" in page
    assert read_csv(out / "histogram.csv")["voxels"].sum() == halves.inside.sum()
    assert len(read_csv(out / "bands.csv")) == len(record["bands"])


def test_command_names_files_that_do_not_go_together(halves, tmp_path, capsys):
    paths = [str(tmp_path / name) for name in ("a.mrc", "b.mrc")]
    vg.write_map(paths[0], halves.half1)
    vg.write_map(paths[1], vg.Map(noise_map(48, 0), PIXEL_A))
    status, _, said = main(["local-resolution", *paths, "--out", str(tmp_path / "out")], capsys)
    assert status == 1
    assert "a.mrc has shape (64, 64, 64) and" in said


def test_a_mask_without_molecule_and_a_map_of_nan_are_refused(halves, tmp_path, capsys):
    with pytest.raises(vg.InputError, match=r"reaches 0\.3 only"):
        vg.local_resolution(halves.half1, halves.half2, 0.3 * halves.inside, listener=None)
    paths = [str(tmp_path / name) for name in ("a.mrc", "b.mrc", "c.mrc")]
    for path, volume in zip(paths, (halves.half1, halves.half2, halves.half1), strict=True):
        vg.write_map(path, volume)
    whole = (tmp_path / "c.mrc").read_bytes()
    (tmp_path / "c.mrc").write_bytes(whole[:-4] + np.float32(np.nan).tobytes())
    status, _, said = main(["local-resolution", *paths[:2], "--map", paths[2], "--out", str(tmp_path / "o")], capsys)
    assert status == 1
    assert "c.mrc: 1 voxels are not finite" in said


def test_steerable_filters_are_whitened():
    """16 responses to white noise, each of the variance of the band: their squares sum to 16 times it."""
    spectrum = fourier.forward(noise_map(32, 3), 3) * Band(9.0, 3.0, 4.0).gain(fourier.radius((32,) * 3))
    band = fourier.inverse(spectrum.astype(np.complex64), (32,) * 3)
    power = steerable_power(spectrum.astype(np.complex64), 32, 1)
    assert power.mean() == pytest.approx(16 * float((band**2).mean()), rel=0.03)
    turned = np.rot90(band, axes=(1, 2))[:, ::-1]  # a symmetry of the grid: powers turn with the map
    again = steerable_power(fourier.forward(np.ascontiguousarray(turned), 3), 32, 1)
    np.testing.assert_allclose(again[4:-4, 4:-4, 4:-4].mean(), power[4:-4, 4:-4, 4:-4].mean(), rtol=0.02)


def smeared(axis: np.ndarray, box: int, seed: int) -> tuple[vg.Map, vg.Map, np.ndarray]:
    """Half maps of noise whose frequencies along an axis fall off more, in a ball."""
    spectrum = fourier.forward(noise_map(box, seed), 3)
    z, y, x = (k / (box * PIXEL_A) for k in fourier.half_grid((box,) * 3))
    along2 = (x * axis[0] + y * axis[1] + z * axis[2]) ** 2
    spectrum *= np.exp(-(60 * (x**2 + y**2 + z**2) + 400 * along2) / 4)
    signal = fourier.inverse(spectrum.astype(np.complex64), (box,) * 3)
    first, second = (vg.Map(signal + signal.std() * noise_map(box, seed + i), PIXEL_A) for i in (1, 2))
    return first, second, vg.masks.soft_sphere(box, 0.35 * box)


@pytest.mark.slow
def test_the_axis_of_the_coarsest_resolution():
    axis = np.array([2.0, -1.0, 2.0]) / 3
    first, second, ball = smeared(axis, 32, 5)
    found = local_directions(first, second, ball, window_radius_A=8.0, finest_A=4.0, listener=None)
    assert np.rad2deg(np.arccos(abs(axis @ found.axis))) < 10
    inside = ball >= 0.5
    local = np.abs(axis @ found.coarsest_axis[:, inside])
    assert np.rad2deg(np.arccos(np.median(local))) < 10
    assert np.median(found.coarsest.data[inside]) > 1.5 * np.median(found.finest.data[inside])
    assert (found.coarsest.data >= found.finest.data - 1e-4).all()


@pytest.mark.slow
def test_a_tomogram_that_is_no_cube():
    """20 and 40 A side by side in a slab, in cubes that overlap: strong signal reads no finer, nor at the faces."""
    planted = planted_halves(vg.Map(noise_map(96, 1), 5.0), (20.0, 40.0), noise=1.0, seed=3)
    slab = (slice(30, 66), slice(None), slice(None))
    halves = [vg.Map(m.data[slab], 5.0) for m in (planted.half1, planted.half2)]
    found = local_resolution_of_tomogram(*halves, window_radius_A=35.0, listener=None)
    assert found.map.data.shape == (36, 96, 96)
    for limit in (20.0, 40.0):
        values = found.map.data[planted.at(limit, 70.0)[slab]]
        assert np.median(values) == pytest.approx(limit, rel=0.15)
    face = found.map.data[:3][planted.at(20.0, 70.0)[slab][:3]]
    assert np.median(face) == pytest.approx(20.0, rel=0.2)


def test_weights_rise_at_faces_and_at_the_sides_of_cubes():
    """Beyond a face nothing counts; a volume of one plane keeps its plane."""
    weight = _axis_weight(-5, 32, 20, 4, 8.0)
    assert not weight[:5].any()
    assert not weight[25:].any()
    np.testing.assert_allclose(weight[5:25], weight[5:25][::-1])
    np.testing.assert_allclose(weight[10:20], 1)  # a quarter of 20 voxels at most
    assert (np.diff(weight[4:11]) > 0).all()
    np.testing.assert_allclose(_axis_weight(-4, 9, 1, 2, 8.0), np.eye(9)[4])
    assert _axis_weight(100, 32, 1000, 4, 8.0)[4:28].min() == 1


def test_a_tomogram_is_no_map_of_half_maps():
    planted = planted_halves(vg.Map(noise_map(24, 1), 5.0), (20.0, 40.0))
    with pytest.raises(vg.InputError, match=r"is assessment\.local_resolution_of_tomogram"):
        vg.local_resolution(planted.half1, planted.half2, method="tomogram", listener=None)


def test_cubes_cover_a_volume_once():
    counts = np.zeros((30, 70, 101), int)
    for tile in _tiles(counts.shape, 32, 5, 8.0):
        counts[tile.where] += 1
        index = np.broadcast_arrays(*tile.index)
        inner = [axis[tile.inner] for axis in index]
        own = np.meshgrid(*(np.arange(s.start, s.stop) for s in tile.where), indexing="ij")
        assert all((a == b).all() for a, b in zip(inner, own, strict=True))
    assert (counts == 1).all()


@pytest.mark.parametrize("method", [pytest.param("directional", marks=pytest.mark.slow), "tomogram"])
def test_the_command_by_methods_of_their_own(method, tmp_path, capsys):
    first, second, ball = smeared(np.array([0.0, 0.0, 1.0]), 32, 5)
    if method == "tomogram":
        first, second = (vg.Map(m.data[6:26], PIXEL_A) for m in (first, second))
    for name, volume in (("a", first), ("b", second), ("m", vg.Map(ball, PIXEL_A))):
        vg.write_map(tmp_path / f"{name}.mrc", volume)
    paths = [str(tmp_path / f"{name}.mrc") for name in "ab"]
    words = [
        "local-resolution",
        *paths,
        "--method",
        method,
        "--window-radius",
        "8",
        "-o",
        str(tmp_path / "o"),
        "--json",
    ]
    mask = ["--mask", str(tmp_path / "m.mrc")] if method == "directional" else []
    status, printed, said = main([*words, *mask], capsys)
    assert status == 0, said
    record = json.loads(printed)
    assert record["method"] == method
    assert vg.read_map(tmp_path / "o" / "local_resolution.mrc").data.shape == first.data.shape
    if method == "directional":
        assert abs(record["directional"]["coarsest_axis"][2]) > 0.95
        assert (tmp_path / "o" / "local_resolution_radial.mrc").exists()
    else:
        status, _, said = main([*words, "--filtered-map"], capsys)
        assert (status, "filters cubes" in said) == (1, True)
