"""CTF estimation: known truth on simulated micrographs, the apoferritin set, and images that have no rings."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import tifffile
from pages_again import check_page_again

import verglas as vg
from verglas.assessment.micrographs import judge_ctfs
from verglas.cli import main
from verglas.io import read_ctf_table, read_json, read_micrographs
from verglas.optics import wavelength_A
from verglas.optics.fit import CtfSettings
from verglas.optics.fit.curves import chi_turns, equiphase_radius, ring_contrast
from verglas.optics.fit.spectrum import _tiling, make_band, tile_spectra
from verglas.report.ctf import ShownCtf


def scenes(n, seed, **more):
    """Micrographs of 0.5 to 3 um underfocus and up to 800 A of astigmatism, rings as strong as in real ones."""
    rng = np.random.default_rng(seed)
    for i in range(n):
        mean, difference, angle = rng.uniform(5000, 30000), rng.uniform(200, 800), rng.uniform(0, 180)
        drawn = {name: rng.uniform(*value) if isinstance(value, tuple) else value for name, value in more.items()}
        side, pixel = int(drawn.pop("side", 1024)), float(drawn.pop("pixel", 1.5))
        scene = vg.simulate.Scene(
            shape=(side, side),
            pixel_size_A=pixel,
            defocus_u_A=mean + difference / 2,
            ice=0.4,
            b_factor_A2=100,
            defocus_v_A=mean - difference / 2,
            defocus_angle_deg=angle,
        )
        yield vg.simulate.micrograph(scene=scene, seed=100 * seed + i, **drawn)


def errors(fit, truth):
    s = truth.scene
    angle = (fit.optics.defocus_angle_deg[0] - s.defocus_angle_deg + 90) % 180 - 90
    normal, true = np.array([*fit.gradient, 1]), np.array([*s.gradient, 1])
    cosine = normal @ true / np.linalg.norm(normal) / np.linalg.norm(true)
    return [
        abs(fit.defocus_A - (s.defocus_u_A + s.defocus_v) / 2),
        abs(fit.astigmatism_A - (s.defocus_u_A - s.defocus_v)),
        abs(angle),
        abs(fit.optics.phase_shift_deg[0] - s.phase_shift_deg),
        np.rad2deg(np.arccos(min(cosine, 1))),
    ]


@pytest.fixture(scope="module")
def fits():
    """Eight micrographs' fits, and their truth."""
    return [(vg.estimate_ctf(m), truth) for m, truth in scenes(8, 1)]


def test_defocus_and_astigmatism(fits):
    """The issue: median errors below 50 A, 50 A and 5 degrees."""
    found = np.array([errors(fit, truth) for fit, truth in fits])
    defocus, astigmatism, angle, _, _ = np.median(found, axis=0)
    assert defocus < 50
    assert astigmatism < 50
    assert angle < 5
    assert found[:, 0].max() < 300  # none is a ring off


def test_standard_errors_are_those_of_the_scatter(fits):
    """Errors over their standard errors have the spread of a standard normal within a factor of two."""
    ratio = []
    for fit, truth in fits:
        scene = truth.scene
        ratio.append((fit.defocus_A - (scene.defocus_u_A + scene.defocus_v) / 2) / fit.errors[0])
        got, true = (
            (u - v) / 2 * np.exp(2j * np.deg2rad(angle))
            for u, v, angle in (
                (fit.optics.defocus_u_A[0], fit.optics.defocus_v_A[0], fit.optics.defocus_angle_deg[0]),
                (scene.defocus_u_A, scene.defocus_v, scene.defocus_angle_deg),
            )
        )
        ratio += [(got - true).real / fit.errors[1], (got - true).imag / fit.errors[2]]
        assert fit.as_dict()["astigmatism_error_A"] == pytest.approx(2 * fit.errors[1], rel=0.05)
    assert 0.6 < np.sqrt(np.mean(np.square(ratio))) < 1.6


def test_an_error_of_the_astigmatism_is_judged_by_the_voltage_of_the_fit():
    """What turns 0.2 rad at 300 kV turns nearly twice as much at 100 kV."""
    fit = vg.estimate_ctf(next(scenes(1, 2, side=1024))[0])
    half = 0.2 * fit.resolution_A**2 / (np.pi * wavelength_A(300.0))
    fit = replace(fit, errors=np.r_[fit.errors[0], half, half, fit.errors[3:]])
    slow = replace(fit, optics=replace(fit.optics, voltage_kV=np.array([100.0])))
    assert judge_ctfs([fit.as_dict()]) == [()]
    assert "0.4 rad of phase at the last ring" in judge_ctfs([slow.as_dict()])[0][0]


def test_small_micrographs_count_to_their_edges():
    """Tiles hang over them, weighted so that every pixel beyond the fading counts alike; of large ones they do not."""
    counts = np.zeros((1024, 1024))
    tiling = _tiling(counts.shape, 640, dense=False)
    window = np.hanning(641)[:-1] ** 2
    for y, x in tiling.corners:
        rows, columns = slice(max(y, 0), min(y + 640, 1024)), slice(max(x, 0), min(x + 640, 1024))
        counts[rows, columns] += np.outer(
            window[rows.start - y : rows.stop - y], window[columns.start - x : columns.stop - x]
        )
    assert counts.mean() ** 2 / (counts**2).mean() > 0.95
    assert _tiling((2048, 2048), 640, dense=False).edges is None
    assert _tiling((1024, 1024), 640, dense=True).edges is None


def test_phase_shift_of_one_micrograph():
    ((m, truth),) = scenes(1, 5, phase_shift_deg=(60.0, 120.0))
    found = errors(vg.estimate_ctf(m, phase_shift_deg=(0, 180)), truth)
    assert found[3] < 10
    assert found[0] < 100


@pytest.mark.slow
def test_phase_shift():
    settings = CtfSettings(phase_shift_deg=(0, 180))
    made = scenes(4, 3, side=1536, phase_shift_deg=(20.0, 150.0))
    found = np.array([errors(vg.estimate_ctf(m, settings), truth) for m, truth in made])
    assert np.median(found[:, 3]) < 5
    assert np.median(found[:, 0]) < 50


@pytest.mark.slow
@pytest.mark.parametrize("tilt", [30.0, (10.0, 25.0)])
def test_tilt_plane_and_local_defocus(tilt):
    """A plane of 30 degrees, and one of less: normal within 1 degree, local defocus within 100 A."""
    places = np.random.default_rng(0).uniform(0, 2047, (200, 2))
    m, truth = next(scenes(1, 4, side=2048, pixel=2.0, tilt_deg=tilt, tilt_axis_deg=(0.0, 360.0)))
    fit = vg.estimate_ctf(m, tilt=True)
    defocus, *_, normal = errors(fit, truth)
    assert normal < 1
    assert defocus < 50
    local = fit.optics_at(places).defocus_u_A - truth.scene.optics(places).defocus_u_A
    assert np.abs(local).max() < 100


@pytest.mark.parametrize(
    ("defocus", "b"),
    [
        (8000, 60.0),
        pytest.param(15000, 100.0, marks=pytest.mark.slow),
        pytest.param(22000, 100.0, marks=pytest.mark.slow),
    ],
)
def test_envelope_and_background(defocus, b):
    """Planted envelope B recovered within 10 %, and the background within 10 % everywhere."""
    m, truth = vg.simulate.micrograph(
        shape=(2048, 2048), pixel_size_A=1.2, ice=0.6, b_factor_A2=b, defocus_u_A=defocus, seed=int(b) + defocus
    )
    fit = vg.estimate_ctf(m)
    assert fit.b_factor_A2 == pytest.approx(b, rel=0.1)
    k = fit.rings.k
    # detector noise of the scene, scaled as the spectra are: by the mean power in the band
    detector = truth.scene.detector ** (k * 2 * 1.2)
    total = detector + 0.6 * np.exp(-b * k**2 / 2) * np.sin(2 * np.pi * chi_turns(fit.optics, k)) ** 2
    scale = np.average(total / fit.rings.power, weights=fit.rings.count)
    assert np.abs(fit.envelopes.background(k) * scale / detector - 1).max() < 0.1


def test_rings_of_the_equiphase_average_match_the_zeros():
    m, _ = vg.simulate.micrograph(
        shape=(1024, 1024),
        pixel_size_A=1.5,
        defocus_u_A=14000,
        defocus_v_A=13000,
        defocus_angle_deg=20,
        ice=3.0,
        b_factor_A2=30,
        seed=8,
    )
    fit = vg.estimate_ctf(m)
    true = replace(fit.optics, defocus_u_A=np.array([14000.0]), defocus_v_A=np.array([13000.0]))
    phase = np.linspace(0.05, 0.25, 20001)
    turns = chi_turns(true, phase)
    zeros = phase[1:][np.diff(np.floor(2 * turns)) > 0]
    checked = 0
    for zero in zeros[:8]:
        near = np.abs(fit.rings.k - zero) < 0.35 * (zeros[1] - zeros[0])
        lowest = fit.rings.k[near][fit.rings.power[near].argmin()]
        assert abs(lowest / zero - 1) < 0.01 + 0.5 * fit.spectra.band.step / zero  # a bin is wider than one per cent
        checked += 1
    assert checked >= 6


def test_noise_has_low_merit_and_a_reason():
    """White noise, noise with a smooth spectrum, and a search over the phase shift as well."""
    for seed, phases in ((0, 0.0), (1, 0.0), (2, (0.0, 180.0))):
        m, _ = vg.simulate.micrograph(shape=(768, 768), pixel_size_A=1.5, ice=0.0, detector=0.4, seed=seed)
        fit = vg.estimate_ctf(m, phase_shift_deg=phases)
        assert fit.merit < 0.3
        assert "no Thon rings" in fit.reason
        assert np.isinf(fit.resolution_A)


def test_bad_images_are_one_sentence():
    with pytest.raises(vg.InputError, match="a: the image is constant in every part"):
        vg.estimate_ctf(vg.Micrograph(np.zeros((256, 256)), 1.5, "a"))
    with pytest.raises(vg.InputError, match="not finite in every part"):
        vg.estimate_ctf(vg.Micrograph(np.full((256, 256), np.nan), 1.5, "a"))
    with pytest.raises(vg.InputError, match="too small"):
        vg.estimate_ctf(vg.Micrograph(np.eye(40), 1.5, "a"))
    with pytest.raises(vg.InputError, match="pixel size is unknown"):
        vg.estimate_ctf(vg.Micrograph(np.eye(256)))
    with pytest.raises(vg.InputError, match=r"pixels of 8 A hold rings down to 16\.8 A only"):
        vg.estimate_ctf(vg.Micrograph(np.eye(256), 8.0))
    with pytest.raises(vg.InputError, match="astigmatism_A"):
        CtfSettings(defocus_A=(500, 3000))


def test_part_of_the_image_may_be_bad():
    """A dead corner and a contaminant cost tiles, not the fit."""
    m, truth = next(scenes(1, 5, side=1536))
    data = m.data.copy()
    data[:200, :200] = np.nan
    data[900:1200, 900:1200] -= 200
    fit = vg.estimate_ctf(vg.Micrograph(data, 1.5, "a"))
    assert fit.spectra.skipped > 0
    assert errors(fit, truth)[0] < 100


def test_defocus_at_the_edge_of_the_range_is_said():
    m, _ = vg.simulate.micrograph(shape=(768, 768), pixel_size_A=1.5, defocus_u_A=15000, seed=1)
    assert "edge of the range" in vg.estimate_ctf(m, defocus_A=(3000, 14900)).reason


def test_equiphase_radius_is_where_the_mean_defocus_has_the_same_phase():
    optics = vg.Optics([16000.0], [14000.0], [30.0])
    band = make_band(64, 1.5, 20.0, 4.0)
    q = equiphase_radius(optics, band)
    half = 1000 * (np.cos(np.deg2rad(60)) * (band.kx**2 - band.ky**2) + np.sin(np.deg2rad(60)) * 2 * band.kx * band.ky)
    lam = float(vg.optics.wavelength_A(300))
    k2 = band.kx.astype(float) ** 2 + band.ky.astype(float) ** 2
    turns = lam * (15000 * k2 + half) / 2 - 2.7e7 * lam**3 * k2**2 / 4 + np.arcsin(0.1) / (2 * np.pi)
    np.testing.assert_allclose(chi_turns(optics, q), turns, atol=1e-6)  # float32 frequencies


def test_ring_contrast_of_a_hann_window():
    """The closed form against the autocorrelation of a sampled window."""
    n = 512
    window = np.hanning(n + 1)[:-1]
    optics = vg.Optics([15000.0], [15000.0], [0.0], cs_mm=np.array([0.0]))
    lam = float(vg.optics.wavelength_A(300))
    k = np.array([0.1, 0.2])
    for delay, got in zip(2 * lam * 15000 * k, ring_contrast(optics, k, float(n)), strict=True):
        angles = (np.arange(16) + 0.5) * np.pi / 32
        lags = np.round(delay * np.array([np.cos(angles), np.sin(angles)])).astype(int)
        whole = [[(window[: n - lag] * window[lag:]).sum() for lag in row] for row in lags]
        expected = (np.array(whole).prod(axis=0) / (window**2).sum() ** 2).mean()
        assert got == pytest.approx(expected, abs=2e-3)


def test_spectra_of_white_noise_are_flat():
    noise = np.random.default_rng(0).normal(5, 2, (700, 600)).astype(np.float32)
    spectra = tile_spectra(vg.Micrograph(noise, 2.0), 20.0, 4.5, keep=True)
    inside = spectra.mean.ravel()[spectra.band.flat]
    assert inside.mean() == pytest.approx(1, abs=1e-3)
    np.testing.assert_allclose(spectra.tiles.mean(axis=1), 1, atol=1e-4)
    assert abs(np.corrcoef(inside, np.hypot(spectra.band.kx, spectra.band.ky))[0, 1]) < 0.03


def test_apoferritin_against_the_crude_fit(data_dir):
    """No micrograph further than 600 A from a crude fit that is good to 300 A, and astigmatism of one direction."""
    folder = data_dir / "apoferritin"
    quick = read_ctf_table(folder / "ctf_quickfit.tsv").set_index("rlnMicrographName")["rlnDefocusU"]
    names = sorted(p.name for p in folder.glob("*.tif"))[::3]
    for name in names:
        fit = vg.estimate_ctf(vg.read_micrograph(folder / name, 1.5), cs_mm=0.01, amplitude_contrast=0.07)
        assert abs(fit.defocus_A - quick[name]) < 600
        assert fit.merit > 0.85
        assert fit.resolution_A < 7
        assert fit.reason == ""
        assert 95 < fit.optics.defocus_angle_deg[0] < 160


@pytest.mark.parametrize(
    "name",
    ["May08_03.13.02", *(pytest.param(f"May08_{at}", marks=pytest.mark.slow) for at in ("05.35.20", "07.10.35"))],
)
def test_apoferritin_defocus_does_not_depend_on_the_band(data_dir, name):
    """A wrong model (contrast, Cs, phase shift) would show as a defocus that moves with the rings that are fitted."""
    m = vg.read_micrograph(data_dir / "apoferritin" / f"{name}.tif", 1.5)
    found = [
        vg.estimate_ctf(m, cs_mm=0.01, amplitude_contrast=0.07, resolution_A=band, defocus_A=(14000, 27000))
        for band in ((20.0, 4.0), (12.0, 4.0), (8.0, 4.0))
    ]
    assert np.ptp([fit.defocus_A for fit in found]) < 50


def test_command_line_to_local_defocus_of_particles(tmp_path, capsys):
    """CTFs of a tilted and a bad micrograph, then extraction: every particle has the defocus of its place."""
    m, truth = next(scenes(1, 6, side=1200, tilt_deg=25.0, tilt_axis_deg=70.0))
    tifffile.imwrite(tmp_path / "a.tif", m.data)
    tifffile.imwrite(tmp_path / "b.tif", np.zeros((300, 300), np.float32))
    out = tmp_path / "ctf"
    with pytest.raises(SystemExit) as status:
        main(["ctf", str(tmp_path / "*.tif"), "--pixel-size", "1.5", "--tilt", "--out", str(out), "--json"])
    assert status.value.code == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["micrographs"], said["good"]) == (2, 1)
    assert "constant" in next(iter(said["set_aside"]))
    assert (out / "png" / "00001_a.png").read_bytes()[:4] == b"\x89PNG"
    page = (out / "report.html").read_text()
    assert page.count("data:image/") == 1  # the spectrum of the one that could be fitted; curves are charts
    shown = ShownCtf.from_record(read_json(out / "curves" / "00001_a.json"))
    assert [line.text.split(" ")[0] for line in shown.chart().marks] == ["Nyquist", "rings"]
    assert shown.as_bytes() == (out / "curves" / "00001_a.json").read_bytes()
    assert "constant in every part" in page
    check_page_again(out, capsys)
    table = read_micrographs(out / "micrographs_ctf.star")
    assert table["rlnMicrographPixelSize"].tolist() == [1.5]
    xy = np.array([[1000.0, 300.0], [200.0, 600.0]])  # across the axis
    p = vg.extract(out / "micrographs_ctf.star", vg.Picks(xy, "a.tif"), 64)
    true = truth.scene.optics(xy)
    np.testing.assert_allclose(p.optics.defocus_u_A, true.defocus_u_A, atol=200)
    assert abs(np.diff(p.optics.defocus_u_A) / np.diff(true.defocus_u_A) - 1) < 0.2
    assert (p.optics.voltage_kV == 300).all()


def test_nothing_to_fit_is_one_sentence(tmp_path, capsys):
    tifffile.imwrite(tmp_path / "b.tif", np.zeros((300, 300), np.float32))
    with pytest.raises(SystemExit) as status:
        main(["ctf", str(tmp_path / "b.tif"), "--pixel-size", "1.5", "--out", str(tmp_path / "o")])
    assert status.value.code == 1
    assert "none of 1 micrographs could be fitted" in capsys.readouterr().err
