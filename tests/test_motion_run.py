"""``verglas motion``: movies in files to micrographs in files."""

import dataclasses
import json

import mrcfile
import numpy as np
import pandas as pd
import pytest
import tifffile
from eer_files import encode, random_events, write_eer
from motion_movies import movie_of, settling
from pages_again import check_page_again

import verglas as vg
from verglas.cli import app as application
from verglas.errors import InputError, VerglasWarning
from verglas.io import acquisition, read_micrographs, read_motion_star, read_star
from verglas.io.frames import TiffFrames
from verglas.run.micrograph_pages import motion_page_of
from verglas.run.motion import MovieSession, MovieSettings, _optics_groups, correct_movies
from verglas.run.polish_inputs import MovieReading, recorded_movies
from verglas.types.motion import Motion, spline_basis
from verglas.types.settings import result_settings
from verglas.types.trajectory import Trajectory


@pytest.fixture(scope="module")
def session(tmp_path_factory):
    folder = tmp_path_factory.mktemp("movies")
    model = vg.simulate.phantom(48, 3.0, 90.0, seed=1)
    movie, truth = vg.simulate.movie(
        model,
        shape=(256, 288),
        pixel_size_A=3.0,
        n=9,
        frames=8,
        seed=2,
        gain_sd=0.04,
        hot_pixels=4,
        dose_per_frame_e_A2=2.0,
        drift_px=(4.0, -3.0),
    )
    tifffile.imwrite(folder / "m1.tif", movie.source.data, photometric="minisblack", compression="lzw")
    (folder / "m2.tif").write_bytes((folder / "m1.tif").read_bytes()[:3000])
    tifffile.imwrite(folder / "gain.tiff_", truth.gain[:, ::-1])
    (folder / "gain.tiff_").rename(folder / "gain.bin")
    return folder, truth


def test_micrographs_in_half_precision_are_the_same_rounded(session, tmp_path):
    folder, _ = session
    settings = MovieSettings(pixel_size_A=3.0, dose_per_frame_e_A2=2.0, voltage_kV=300.0, model="global")
    for dtype in ("float32", "float16"):
        one = dataclasses.replace(settings, dtype=dtype)
        correct_movies(folder / "m1.tif", tmp_path / dtype, one, gain=folder / "gain.bin", listener=None)
    names = sorted(path.name for path in (tmp_path / "float32" / "micrographs").glob("m1*.mrc"))
    assert "m1.mrc" in names
    for name in names:
        full, half = (mrcfile.read(tmp_path / dtype / "micrographs" / name) for dtype in ("float32", "float16"))
        if half.dtype != np.float16:
            continue  # spectra stay as they are
        np.testing.assert_array_equal(half, full.astype(np.float16))
    assert mrcfile.read(tmp_path / "float16" / "micrographs" / "m1.mrc").dtype == np.float16
    np.testing.assert_allclose(
        vg.io.read_micrograph(tmp_path / "float16" / "micrographs" / "m1.mrc").data,
        vg.io.read_micrograph(tmp_path / "float32" / "micrographs" / "m1.mrc").data,
        rtol=2**-10,
    )


def test_from_movies_to_micrographs(session, tmp_path, capsys):
    folder, truth = session
    with pytest.raises(SystemExit) as left:
        application.main(
            [
                "motion",
                str(folder / "m*.tif"),
                "--gain",
                str(folder / "gain.bin"),
                "--dose",
                "2.0",
                "--pixel-size",
                "3.0",
                "--voltage",
                "300",
                "--model",
                "global",
                "--out",
                str(tmp_path / "o"),
                "--json",
            ]
        )
    assert not left.value.code
    found = json.loads(capsys.readouterr().out)
    assert found["placement"] == "0-flip"
    assert [str(folder / "m2.tif")] == [*found["excluded"]]
    out = tmp_path / "o"
    table = read_micrographs(out / "micrographs.star")
    assert table["rlnMicrographName"].tolist() == ["micrographs/m1.mrc"]
    assert table["rlnVoltage"].tolist() == [300.0]
    motion = read_motion_star(out / table["rlnMicrographMetadata"][0])
    shifts = motion.global_px - truth.field.global_px
    assert np.abs(shifts - shifts.mean(axis=0)).max() < 0.3
    assert (motion.dose_per_frame_e_A2, motion.shape) == (2.0, (256, 288))
    assert {*map(tuple, truth.defects.tolist())} <= {*map(tuple, motion.hot_pixels.tolist())}
    weighted, plain = (vg.read_micrograph(out / "micrographs" / name) for name in ("m1.mrc", "m1_noDW.mrc"))
    assert weighted.shape == plain.shape == (256, 288)
    assert weighted.pixel_size_A == pytest.approx(3.0)
    assert not np.array_equal(weighted.data, plain.data)
    assert pd.read_csv(out / "excluded.csv")["movie"].tolist() == [str(folder / "m2.tif")]
    steps = np.hypot(*np.diff(motion.global_px, axis=0).T).sum() * 3.0
    assert table["rlnAccumMotionTotal"][0] == pytest.approx(steps, rel=1e-4)


def test_every_frame_is_decoded_once(session, tmp_path, monkeypatch):
    """Finding bad pixels, the motion and the sums go over the frames three times; the file is read once."""
    folder, _ = session
    read, decode = [], TiffFrames.read
    monkeypatch.setattr(TiffFrames, "read", lambda frames, index: read.append(index) or decode(frames, index))
    correct_movies(folder / "m1.tif", tmp_path / "a", defects="auto", pixel_size_A=3.0, model="global", listener=None)
    assert sorted(read) == [*range(8)]
    read.clear()
    correct_movies(
        folder / "m1.tif", tmp_path / "b", defects="auto", pixel_size_A=3.0, model="global", flip_y=True, listener=None
    )
    assert sorted(read) == [*range(8)]


def test_nothing_that_can_be_corrected(session, tmp_path):
    folder, _ = session
    with pytest.raises(InputError, match="none of 1 movies can be corrected"):
        correct_movies(folder / "m2.tif", tmp_path, pixel_size_A=3.0)
    other = tmp_path / "m1.mrc"
    other.write_bytes(b"x")
    with pytest.raises(InputError, match="micrographs of one name"):
        correct_movies([folder / "m1.tif", other], tmp_path)


@pytest.fixture
def three(tmp_path):
    """Three small movies of two beam shifts, the last cut off."""
    folder = tmp_path / "in"
    folder.mkdir()
    for i in range(3):
        movie = movie_of(Motion((96, 128), settling(6, (3, -2))), 10 + i)
        tifffile.imwrite(folder / f"m{i}.tif", movie.source.data, photometric="minisblack")
        (folder / f"m{i}.tif.mdoc").write_text(f"Voltage = 300\n\n[FrameSet = 0]\nImageShift = {i % 2}.0 0.5\n")
    whole = (folder / "m2.tif").read_bytes()
    (folder / "m2.tif").write_bytes(whole[: len(whole) // 2])
    return folder, whole


SETTINGS = MovieSettings(
    model="global",
    even_odd=True,
    bin_factor=2,
    pixel_size_A=1.5,
    dose_per_frame_e_A2=1.0,
    cs_mm=2.7,
    amplitude_contrast=0.1,
)


def test_the_same_call_goes_on_and_the_set_is_relions(three, tmp_path, capsys):
    folder, whole = three
    out = tmp_path / "out"
    first = correct_movies(str(folder / "*.tif"), out, SETTINGS, listener=None)
    assert (len(first.table), first.kept, [*first.excluded]) == (2, 0, [str(folder / "m2.tif")])
    stamps = {p.name: p.stat().st_mtime_ns for p in (out / "micrographs").iterdir()}
    page = (out / "report.html").read_text()
    assert "2 of 3 movies corrected" in page
    assert first.excluded[str(folder / "m2.tif")].split(": ", 1)[1][:20] in page
    check_page_again(out, capsys)
    assert pd.read_csv(out / "motion.csv")["reason"].notna().tolist() == [False, False, True]
    (folder / "m2.tif").write_bytes(whole)  # it had still been copied
    (out / "micrographs" / "m1_ODD.mrc").unlink()
    again = correct_movies(str(folder / "*.tif"), out, SETTINGS, listener=None)
    assert (len(again.table), again.kept, again.excluded) == (3, 1, {})
    kept = {p.name for p in (out / "micrographs").iterdir() if p.stat().st_mtime_ns == stamps.get(p.name)}
    assert kept == {f"m0{e}" for e in (".mrc", "_noDW.mrc", "_EVN.mrc", "_ODD.mrc", ".star", ".json")}
    assert vg.status(out).state == "finished"

    tables = read_star(out / "micrographs.star")
    optics, rows = tables["optics"], tables["micrographs"]
    assert {
        "rlnMicrographName",
        "rlnMicrographNameNoDW",
        "rlnMicrographNameEven",
        "rlnMicrographNameOdd",
        "rlnMicrographMetadata",
        "rlnAccumMotionTotal",
        "rlnAccumMotionEarly",
        "rlnAccumMotionLate",
        "rlnOpticsGroup",
    } == {*rows}
    assert optics["rlnOpticsGroupName"].tolist() == ["opticsGroup1"]  # two places say nothing of a pattern
    assert optics["rlnMicrographPixelSize"].tolist() == [3.0]
    assert optics["rlnMicrographOriginalPixelSize"].tolist() == [1.5]
    assert optics[["rlnVoltage", "rlnSphericalAberration", "rlnAmplitudeContrast"]].to_numpy()[0].tolist() == [
        300.0,
        2.7,
        0.1,
    ]
    even, odd, plain = (
        vg.read_micrograph(out / rows[f"rlnMicrographName{part}"][2]).data for part in ("Even", "Odd", "NoDW")
    )
    assert np.allclose(even + odd, plain, atol=1e-3)


def test_optics_groups_are_beam_shifts():
    rng = np.random.default_rng(0)
    shifts = np.repeat([[0, 0], [1, 0], [0, 1]], 5, 0) + rng.normal(0, 0.02, (15, 2))
    rows = [{"beam_shift": list(shift), "hole": None} for shift in shifts]
    assert _optics_groups(rows) == [f"opticsGroup{1 + i // 5}" for i in range(15)]
    assert _optics_groups([*rows, {"beam_shift": None, "hole": None}]) == ["opticsGroup1"] * 16
    assert _optics_groups([{"beam_shift": None, "hole": h} for h in ("shot 2", "shot 1", "shot 2")]) == [
        "opticsGroup2",
        "opticsGroup1",
        "opticsGroup2",
    ]


def test_bytes_of_mrc_files_are_counts_where_that_is_asked(tmp_path):
    """The command can say what the message asks for, and polishing reads the same counts."""
    counts = np.random.default_rng(4).integers(100, 200, (4, 96, 128)).astype(np.uint8)
    with mrcfile.new(tmp_path / "m.mrc") as mrc:
        mrc.set_data(counts.view(np.int8))
    given = {"model": "global", "pixel_size_A": 1.5, "listener": None}
    with pytest.raises(InputError, match="--mrc-bytes unsigned"):
        correct_movies(tmp_path / "m.mrc", tmp_path / "out", **given)
    done = correct_movies(tmp_path / "m.mrc", tmp_path / "out", mrc_bytes="unsigned", **given)
    total = vg.read_micrograph(tmp_path / "out" / "micrographs" / "m.mrc").data
    assert np.allclose(total, counts.sum(0, dtype=int), atol=0.1)
    again = recorded_movies(done.folder / "micrographs.star", MovieReading())[0].open()
    assert np.array_equal(again.source.read(1), counts[1])


def test_epus_files_in_a_tree_of_their_own(tmp_path, data_dir, monkeypatch):
    """`verglas motion --metadata`: pixel size, voltage, exposure and beam shift; a movie that has none is named.

    Each file is read once: what the frames are told is what the optics groups are.
    """
    read = []
    monkeypatch.setattr(acquisition, "read_epu_xml", lambda path: (read.append(path), vg.io.read_epu_xml(path))[1])
    tree = data_dir / "epu" / "emharvest"
    name = next(tree.rglob("FoilHole_*_Data_*.xml")).stem
    counts = np.random.default_rng(4).poisson(20, (4, 96, 128)).astype(np.uint8)
    for stem in (name, "FoilHole_1_Data_2_3_20230919_160000"):
        tifffile.imwrite(tmp_path / f"{stem}_fractions.tif", counts, photometric="minisblack")
    given = {"model": "global", "metadata": tree, "listener": None, "threads": 1}
    with pytest.warns(
        VerglasWarning, match=r"FoilHole_1_Data.*no XML or mdoc file of it lies beside it or below"
    ) as told:
        made = correct_movies(tmp_path / "*.tif", tmp_path / "out", **given)
    assert (
        "its pixel size is unknown"
        in made.excluded[str(tmp_path / "FoilHole_1_Data_2_3_20230919_160000_fractions.tif")]
    )
    assert any("4 frames, where" in str(warning.message) for warning in told)
    assert len(read) == 1
    row = vg.io.read_json(tmp_path / "out" / "micrographs" / f"{name}_fractions.json")["row"]
    assert row["original_pixel_size_A"] == pytest.approx(1.0559, abs=1e-4)
    assert row["voltage_kV"] == 300.0
    assert row["beam_shift"] == pytest.approx((-0.0944923, -0.0117230), abs=1e-6)
    with pytest.raises(InputError, match="none: no such folder"):
        correct_movies(tmp_path / "*.tif", tmp_path / "other", **given | {"metadata": tmp_path / "none"})
    with pytest.raises(InputError, match="metadata: was"):
        correct_movies(tmp_path / "*.tif", tmp_path / "out", **given | {"metadata": None})


def test_other_settings_are_no_way_to_go_on(three, tmp_path):
    folder, _ = three
    out = tmp_path / "out"
    correct_movies(folder / "m0.tif", out, SETTINGS, listener=None)
    other = dataclasses.replace(SETTINGS, bin_factor=1, dtype="float16")
    with pytest.raises(InputError, match="bin_factor: was 2, now 1; dtype: was float32, now float16"):
        correct_movies(str(folder), out, other, listener=None)
    assert correct_movies(folder / "m0.tif", out, SETTINGS, listener=None).kept == 1


@pytest.mark.parametrize("method", ["pairs", "robust-pairs"])
def test_method_on_the_command_line(three, tmp_path, method, capsys):
    folder, _ = three
    given = ["--defects", "none", "--pixel-size", "1.5", "--dose-per-frame", "1", "--method", method, "--json"]
    with pytest.raises(SystemExit) as left:
        application.main(["motion", str(folder / "m0.tif"), *given, "--out", str(tmp_path / "o")])
    assert not left.value.code
    found = json.loads(capsys.readouterr().out)
    assert found["movies"][0]["model"] == "global"
    assert f"motion {method}" in (tmp_path / "o" / "report.html").read_text()
    motion = read_motion_star(tmp_path / "o" / "micrographs" / "m0.star")
    off = motion.global_px - settling(6, (3, -2))
    assert np.abs(off - off.mean(0)).max() < 0.5


def test_a_spline_field_goes_into_the_polynomial():
    """A field that is a polynomial comes out as it is, whatever describes it."""
    terms = np.random.default_rng(0).normal(size=(2, 6, 3)) * [1, 0.1, 0.01]
    polynomial = Motion((100, 120), np.zeros((6, 2)), "polynomial", terms.reshape(2, 18))
    assert np.array_equal(Trajectory.from_motion(polynomial).polynomial, polynomial.polynomial)
    # a lattice of B-splines of degree 3 holds polynomials of degree 2 and less: fit it at many places
    y, x = np.mgrid[0:100:3.0, 0:120:3.0]
    basis = np.einsum("pj,pi->pji", spline_basis(y.ravel(), 100, 5), spline_basis(x.ravel(), 120, 6)).reshape(
        y.size, -1
    )
    wanted = np.moveaxis(polynomial.local(x.ravel(), y.ravel()), 1, 0)
    lattice = np.stack([np.linalg.lstsq(basis, frame, rcond=None)[0].reshape(5, 6, 2) for frame in wanted])
    spline = Motion((100, 120), np.zeros((6, 2)), "spline", lattice_px=lattice)
    found = Trajectory.from_motion(spline)
    np.testing.assert_allclose(found.polynomial, polynomial.polynomial, atol=1e-6)
    for motion in (polynomial, spline):  # what files hold moves every place as the motion does, to the last bit
        assert np.array_equal(Trajectory.from_motion(motion).at(x, y), motion.at(x, y))


def test_polishing_makes_the_frames_of_a_movie_as_its_correction_did(tmp_path):
    """Summed and up-sampled frames are told by the file of the motion: of EER movies under RELION's labels."""
    rng = np.random.default_rng(3)
    events = [random_events(rng, (72, 96), 0.3) for _ in range(12)]
    # neither pixel size nor exposure: nothing but the file of the motion says how many frames make one
    write_eer(tmp_path / "e.eer", [encode(*e, 72 * 96) for e in events], (72, 96))
    counts = rng.poisson(3.0, (12, 96, 128)).astype(np.uint8)
    tifffile.imwrite(tmp_path / "t.tif", counts, photometric="minisblack")
    given = {"model": "global", "frames_per_fraction": 3, "pixel_size_A": 1.5, "dose_per_frame_e_A2": 1.0}
    for name, more in (("e.eer", {"upsampling": 2}), ("t.tif", {})):
        out = tmp_path / name.replace(".", "_")
        correct_movies(tmp_path / name, out, listener=None, **given, **more)
        one = recorded_movies(out / "micrographs.star", MovieReading())[0]
        movie, had = one.open(), vg.read_movie(tmp_path / name, frames_per_fraction=3, pixel_size_A=1.5, **more)
        assert (len(movie), len(one.trajectory), movie.shape) == (4, 4, had.shape)
        assert np.array_equal(movie.source.read(1), had.source.read(1))
        assert movie.dose_per_frame_e_A2 == 1.0
        labels = read_star(out / "micrographs" / f"{name[0]}.star")["general"]
        assert ("rlnEERGrouping" in labels) == ("vgFramesPerFraction" not in labels) == (name == "e.eer")


def test_the_page_is_asked_for_beside_the_job_and_the_last_one_is_its_own(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr("verglas.run.live_page.EVERY_S", 0.0)
    monkeypatch.setattr("verglas.run.page_process.PageProcess.ask", lambda self, *given: asked.append(given))
    movie = movie_of(Motion((64, 64), settling(4, (1.0, 0.0))), 1)
    frames = np.array([movie.frame(k) for k in range(len(movie))], np.float32)
    for k in (1, 2):
        tifffile.imwrite(tmp_path / f"m{k}.tif", frames, photometric="minisblack")
    settings = MovieSettings(model="global", pixel_size_A=1.8)
    correct_movies([str(tmp_path / "m?.tif")], tmp_path / "o", settings=settings, threads=1, listener=None)
    assert [given[1:] for given in asked] == [(tmp_path / "o" / "report.html", motion_page_of, tmp_path / "o")] * 2
    assert "2 of 2 movies corrected" in (tmp_path / "o" / "report.html").read_text()
    assert {path.name for path in (tmp_path / "o" / "curves").iterdir()} == {"m1.json", "m2.json"}


def test_folders_of_before_metadata_had_an_option_are_gone_on_with():
    """The record names the sums of the fixed pattern: another entry in it would drop what earlier versions kept."""
    settings = MovieSettings()
    before = {**result_settings(settings), "gain": None, "defects": None}
    assert MovieSession(settings).record() == before
    assert MovieSession(settings, metadata="tree").record() == before | {"metadata": "tree"}
