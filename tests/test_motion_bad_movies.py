"""Bad movies among good ones: each is named with its reason, set aside and counted, and the rest is corrected."""

from __future__ import annotations

import re
import warnings

import mrcfile
import numpy as np
import pandas as pd
import pytest
import tifffile
from eer_files import encode, random_events, write_eer
from motion_movies import movie_of, settling

import verglas as vg
from verglas.errors import InputError, VerglasWarning
from verglas.motion.exposure import doubts_of_exposure
from verglas.run.motion import MovieSettings, correct_movies
from verglas.types.motion import Motion

SHAPE = (96, 128)
SETTINGS = MovieSettings(model="global", pixel_size_A=1.5, dose_per_frame_e_A2=1.0, frames_per_fraction=1)
REASONS = {
    "cut.tif": "truncated|cut short|announced",
    "sizes.tif": r"frame 2 \(from 0\) has 100 x 96 pixels .* the first 128 x 96",
    "single.tif": "one image: a micrograph where a movie is meant",
    "nan.mrcs": "frame 1 .* has nan at row 5, column 7",
    "half.eer": "truncated|cut short|cut off",
    "text.tif": "not a",
    "constant.mrcs": "no frame can be used",
    "complex.tif": r"frame 0 \(from 0\) has values of type complex64",
    "it's.tif": "would be misread in a STAR file; rename",
}


def write_mrc(path, data):
    with mrcfile.new(path) as mrc, warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of mrcfile: NaN, which is what some of these are for
        mrc.set_data(data)


@pytest.fixture
def folder(tmp_path):
    frames = movie_of(Motion(SHAPE, settling(5, (3, -2))), 10).source.data
    tifffile.imwrite(tmp_path / "good.tif", frames, photometric="minisblack")
    whole = (tmp_path / "good.tif").read_bytes()
    (tmp_path / "cut.tif").write_bytes(whole[: len(whole) // 2])
    with tifffile.TiffWriter(tmp_path / "sizes.tif") as tiff:
        for frame in (frames[0], frames[1], frames[2][:, :100]):
            tiff.write(np.ascontiguousarray(frame), photometric="minisblack", contiguous=False)
    tifffile.imwrite(tmp_path / "single.tif", frames[0], photometric="minisblack")
    missing = frames.astype(np.float32)
    missing[1, 5, 7] = np.nan
    write_mrc(tmp_path / "nan.mrcs", missing)
    tifffile.imwrite(tmp_path / "complex.tif", frames.astype(np.complex64), photometric="minisblack")
    (tmp_path / "it's.tif").write_bytes(whole)
    write_mrc(tmp_path / "constant.mrcs", np.ones((4, *SHAPE), np.float32))
    rng = np.random.default_rng(3)
    strips = [encode(*random_events(rng, SHAPE, 0.1), SHAPE[0] * SHAPE[1]) for _ in range(6)]
    write_eer(tmp_path / "half.eer", strips, SHAPE)
    (tmp_path / "half.eer").write_bytes((tmp_path / "half.eer").read_bytes()[:3000])
    (tmp_path / "text.tif").write_text("no movie at all\n" * 9)
    return tmp_path


def test_each_is_named_and_set_aside_and_the_rest_goes_on(folder, tmp_path):
    out = tmp_path / "out"
    done = correct_movies(folder, out, SETTINGS, listener=None)
    assert (done.verdict.state, done.verdict.codes) == ("stop", ("set-aside",))
    assert done.table["movie"].tolist() == [str(folder / "good.tif")]
    assert {name.rsplit("/", 1)[1] for name in done.excluded} == REASONS.keys()
    listed = pd.read_csv(out / "excluded.csv").set_index("movie")["reason"]
    for name, words in REASONS.items():
        reason = done.excluded[str(folder / name)]
        assert name in reason
        assert listed[str(folder / name)] == reason
        assert re.search(words, reason), reason
    assert done.as_dict()["set_aside"] == len(REASONS)


def test_a_set_of_several_kinds_of_movies_is_said(tmp_path):
    frames = movie_of(Motion(SHAPE, settling(5, (3, -2))), 10).source.data
    for i, part in enumerate((frames, frames + 1, frames[:4, :, :100])):
        tifffile.imwrite(tmp_path / f"m{i}.tif", part.astype(np.float32), photometric="minisblack")
    done = correct_movies(tmp_path, tmp_path / "out", SETTINGS, listener=None)
    assert done.verdict.codes == ("mixture",)
    told = done.verdict.reasons[0]
    assert "1 of 3" in told
    assert "m2.tif" in told
    assert "128 columns, 96 rows, 5 frames" in told
    assert "not all movies were recorded alike" in (tmp_path / "out" / "report.html").read_text()


@pytest.mark.usefixtures("blank_figures")
def test_a_movie_unlike_the_others_is_flagged(tmp_path):
    """In the summary, in motion.csv and in the page, with the reason."""
    for i in range(9):
        movie = movie_of(Motion(SHAPE, settling(5, (3, -2) if i != 4 else (40, 30))), 10 + i, signal=0.8)
        tifffile.imwrite(tmp_path / f"m{i}.tif", movie.source.data, photometric="minisblack")
    done = correct_movies(tmp_path, tmp_path / "out", SETTINGS, listener=None)
    flags = dict(zip([p.rsplit("/", 1)[1] for p in done.table["movie"]], done.table["flags"], strict=True))
    assert re.search(r"moved \d+.\d px early, the others [12].\d", flags.pop("m4.tif"))
    assert set(flags.values()) == {""}
    assert "px early, the others" in (tmp_path / "out" / "report.html").read_text()
    assert pd.read_csv(tmp_path / "out" / "motion.csv")["flags"].notna().sum() == 1


def test_what_has_no_counts_has_no_bad_pixels_to_be_found(tmp_path):
    """... by counts: levelled frames are named with the way out, and corrected when it is taken."""
    levelled = movie_of(Motion(SHAPE, settling(5, (3, -2))), 10).source.data - 10
    tifffile.imwrite(tmp_path / "m.tif", levelled, photometric="minisblack")
    with pytest.raises(InputError, match=r"m.tif: the sum of its frames is negative .* \(--defects none\)"):
        correct_movies(tmp_path / "m.tif", tmp_path / "out", SETTINGS, defects="auto", listener=None)
    assert len(correct_movies(tmp_path / "m.tif", tmp_path / "out", SETTINGS, listener=None).table) == 1
    levelled[:, 3, 4] = np.inf
    tifffile.imwrite(tmp_path / "n.tif", levelled, photometric="minisblack")
    with pytest.raises(InputError, match=r"movie n.tif: 1 pixels .* the first at row 3, column 4"):
        vg.read_movie(tmp_path / "n.tif", defects="auto")


def test_a_dead_block_is_a_defect_and_the_dark_edge_of_the_beam_is_said(tmp_path):
    counts = np.random.default_rng(0).poisson(8.0, (5, 200, 256)).astype(np.uint8)
    counts[:, 40:70, 60:100] = 0
    tifffile.imwrite(tmp_path / "m.tif", counts, photometric="minisblack")
    movie = vg.read_movie(tmp_path / "m.tif", defects="auto")
    block = np.zeros((200, 256), bool)
    block[40:70, 60:100] = True
    assert np.array_equal(movie.defect_mask, block)
    counts[:, :, :150] = 0
    tifffile.imwrite(tmp_path / "n.tif", counts, photometric="minisblack")
    with pytest.warns(VerglasWarning, match="59 % of the pixels counted no electron"):
        assert len(vg.read_movie(tmp_path / "n.tif", defects="auto").defects) < 100


@pytest.mark.parametrize(
    ("gain", "words"), [(np.ones((50, 60)), "50|60"), (np.zeros(SHAPE), "zero everywhere"), (None, "dose_per_frame")]
)
def test_what_is_wrong_for_all_ends_the_run(folder, tmp_path, gain, words):
    given, changes = None, {"dose_per_frame_e_A2": 0.0}
    if gain is not None:
        given, changes = tmp_path / "gain.mrc", {}
        write_mrc(given, gain.astype(np.float32))
    with pytest.raises(InputError, match=words):
        correct_movies(folder / "good.tif", tmp_path / "out", SETTINGS, gain=given, listener=None, **changes)


@pytest.mark.parametrize(
    ("known", "words"),
    [
        ({"voltage_kV": 300_000.0}, r"--voltage\): expected 10 to 3000 kV, got 300000: in volts"),
        ({"pixel_size_A": 0.015}, r"--pixel-size\): expected 0.1 to 10 A a pixel of the frames, got 0.015: in nm"),
        ({"pixel_size_A": 15.0}, r"got 15: in nm or pm"),
        ({"pixel_size_A": 1.5, "bin_factor": 4}, r"--bin-factor\) 4 leaves a micrograph of 32 x 24 pixels"),
    ],
)
def test_what_no_microscope_records_is_refused(known, words):
    movie = vg.Movie.from_array(np.ones((2, *SHAPE), np.uint8), 1.5, name="m.tif")
    with pytest.raises(InputError, match=r"m.tif: .*" + words):
        vg.correct_motion(movie, listener=None, **known)


def test_an_unlikely_exposure_is_said():
    counted = np.full((40, *SHAPE), 2, np.uint8)  # 2 / 1.5^2 = 0.89 an A^2

    def said(dose, frames=counted, before=0.0):
        movie = vg.Movie.from_array(frames, 1.5, dose_per_frame_e_A2=dose, pre_exposure_e_A2=before)
        return "; ".join(doubts_of_exposure(movie))

    assert said(None) == said(0.9) == said(3.0) == ""
    assert "40 frames and 0 before are 1600 e/A^2 in all: is the exposure of the whole movie meant?" in said(40.0)
    assert "holds 0.89 counts per A^2, where 40 e/A^2 are stated" in said(40.0)
    assert "and 190 before are 226" in said(0.9, before=190.0)
    assert "0.04 e/A^2 in all" in said(0.001)
    # of numbers that are not whole nobody knows the scale
    assert said(4.0)
    assert said(4.0, counted.astype(np.float32)) == ""
