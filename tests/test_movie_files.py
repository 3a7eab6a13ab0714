"""Movies in files: every format gives the frames that went in, and what is wrong with a file is named."""

import bz2
import gzip
import pickle
import warnings

import mrcfile
import numpy as np
import pytest
import tifffile
from eer_files import encode, image, random_events, write_eer

from verglas.errors import FormatError, InputError, VerglasWarning
from verglas.io import open_movie, read_defects, read_gain, read_movie
from verglas.io.mrc import pack_4bit
from verglas.types.gain import PLACEMENTS, Gain


@pytest.fixture(scope="module")
def counts():
    return np.random.default_rng(0).poisson(1.0, (5, 40, 61)).astype(np.uint8)


def write_mrc(path, frames, pixel_A=1.25, **header):
    with mrcfile.new(path, overwrite=True) as f:
        f.set_data(frames)
        if frames.ndim == 3:
            f.set_image_stack()
        f.voxel_size = pixel_A
        for name, value in header.items():
            setattr(f.header, name, value)
    return path


def write_tiff(path, frames, **how):
    tifffile.imwrite(path, frames, photometric="minisblack", **how)
    return path


def frames_of(movie):
    return np.array(list(movie))


# ---- the same counts in every format


@pytest.mark.parametrize("dtype", ["int8", "int16", "uint16", "float32", "float16"])
def test_mrc_modes(tmp_path, counts, dtype):
    movie = open_movie(write_mrc(tmp_path / "a.mrc", counts.astype(dtype)))
    assert len(movie) == 5
    assert movie.shape == (40, 61)
    assert movie.pixel_size_A == pytest.approx(1.25)
    assert movie.name == "a.mrc"
    np.testing.assert_array_equal(frames_of(movie), counts)


def test_mrc_of_four_bits(tmp_path, counts):
    path = write_mrc(tmp_path / "a.mrc", pack_4bit(counts).view(np.int8), nx=61, mx=61, mode=101)
    np.testing.assert_array_equal(frames_of(open_movie(path)), counts)


def test_unsigned_bytes_of_mode_0(tmp_path):
    frames = np.arange(250, 256, dtype=np.uint8).reshape(2, 1, 3).repeat(4, axis=1)
    path = write_mrc(tmp_path / "a.mrc", frames.view(np.int8))
    with pytest.raises(FormatError, match=r"counts down to -6.*unsigned_bytes=True"):
        open_movie(path).frame(0)
    np.testing.assert_array_equal(frames_of(open_movie(path, unsigned_bytes=True)), frames)
    np.testing.assert_array_equal(frames_of(open_movie(path, unsigned_bytes=False)), frames.view(np.int8))
    raw = bytearray(path.read_bytes())
    raw[152:160] = (1146047817).to_bytes(4, "little") + (0).to_bytes(4, "little")  # IMOD's stamp, bytes unsigned
    path.write_bytes(raw)
    np.testing.assert_array_equal(frames_of(open_movie(path)), frames)


@pytest.mark.parametrize(
    "how",
    [
        {},
        {"compression": "lzw"},
        {"compression": "zlib"},
        {"compression": "zlib", "predictor": True},
        {"bigtiff": True},
        {"byteorder": ">"},
        {"compression": "lzw", "rowsperstrip": 7},
        {"compression": "zstd"},
    ],
)
@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_tiff_equals_the_plain_stack(tmp_path, counts, how, dtype):
    plain = frames_of(open_movie(write_mrc(tmp_path / "a.mrc", counts.astype(np.int16))))
    movie = open_movie(write_tiff(tmp_path / "a.tif", counts.astype(dtype), **how))
    np.testing.assert_array_equal(frames_of(movie), plain)
    assert np.isnan(movie.pixel_size_A)
    np.testing.assert_array_equal(frames_of(open_movie(tmp_path / "a.tif", flip_y=True)), plain[:, ::-1])


@pytest.mark.parametrize(("opener", "ending"), [(bz2.open, ".bz2"), (gzip.open, ".gz")])
def test_packed_files_equal_the_plain_stack(tmp_path, counts, opener, ending):
    for plain in (write_mrc(tmp_path / "a.mrc", counts.astype(np.int8)), write_tiff(tmp_path / "a.tif", counts)):
        packed = plain.with_name(plain.name + ending)
        with opener(packed, "wb") as out:
            out.write(plain.read_bytes())
        movie = open_movie(packed)
        np.testing.assert_array_equal(frames_of(movie), counts)
        copy = movie.source.file.plain
        assert copy.exists()
        np.testing.assert_array_equal(pickle.loads(pickle.dumps(movie)).frame(3), counts[3])
        del movie
        assert not copy.exists()
        packed.write_bytes(packed.read_bytes()[:-30])
        with pytest.raises(FormatError, match=r"cut short"):
            open_movie(packed)


def test_pixel_size_of_tiff_and_what_is_given(tmp_path, counts):
    path = write_tiff(tmp_path / "a.tif", counts, resolution=(1e8 / 0.83, 1e8 / 0.83), resolutionunit="CENTIMETER")
    assert open_movie(path).pixel_size_A == pytest.approx(0.83, rel=1e-4)
    with pytest.warns(VerglasWarning, match="0.83 A in the file, 1.66 A used"):
        assert open_movie(path, pixel_size_A=1.66).pixel_size_A == 1.66


def test_frames_can_be_summed(tmp_path, counts):
    path = write_tiff(tmp_path / "a.tif", counts)
    with pytest.warns(VerglasWarning, match="the last 1 of 5 frames make no whole fraction of 2; dropped"):
        movie = open_movie(path, frames_per_fraction=2, total_dose_e_A2=10.0)
    assert movie.dose_per_frame_e_A2 == pytest.approx(4.0)
    np.testing.assert_array_equal(frames_of(movie), counts[:4].reshape(2, 2, 40, 61).sum(axis=1))


# ---- EER

SENSOR = (32, 48)


@pytest.fixture(scope="module")
def electrons():
    rng = np.random.default_rng(1)
    return [random_events(rng, SENSOR, 0.05) for _ in range(23)]


def eer_file(path, electrons, run_bits=7, **items):
    strips = [encode(*e, SENSOR[0] * SENSOR[1], run_bits) for e in electrons]
    about = {"sensorPixelSize.width": 1.2e-10, "sensorPixelSize.height": 1.2e-10, "totalDose": 23 * 0.25 * 1.44}
    write_eer(path, strips, SENSOR, 65001 if run_bits == 7 else 65000, **{**about, **items})
    return path


@pytest.mark.parametrize(("run_bits", "upsampling"), [(7, 1), (7, 2), (7, 4), (8, 1)])
def test_eer_fractions(tmp_path, electrons, run_bits, upsampling):
    path = eer_file(tmp_path / "a.eer", electrons, run_bits)
    with pytest.warns(VerglasWarning, match="the last 3 of 23 frames make no whole fraction of 4; dropped"):
        movie = open_movie(path, upsampling=upsampling)  # 0.25 e/A^2 a frame: four make 1
    assert len(movie) == 5
    assert movie.dose_per_frame_e_A2 == pytest.approx(1.0)
    assert movie.pixel_size_A == pytest.approx(1.2 / upsampling)
    assert movie.shape == (32 * upsampling, 48 * upsampling)
    expected = [sum(image(e, SENSOR, upsampling).astype(int) for e in electrons[4 * f : 4 * f + 4]) for f in range(5)]
    np.testing.assert_array_equal(frames_of(movie), expected)


def test_eer_by_count_by_dose_and_by_nothing(tmp_path, electrons):
    path = eer_file(tmp_path / "a.eer", electrons)
    with pytest.warns(VerglasWarning, match="dropped"):
        assert len(open_movie(path, frames_per_fraction=10)) == 2
    with pytest.warns(VerglasWarning, match=r"dropped|0.6 e/A\^2 per frame were asked for; 2 frames .* make 0.5"):
        movie = open_movie(path, dose_per_frame_e_A2=0.6)
    assert (len(movie), movie.dose_per_frame_e_A2) == (11, pytest.approx(0.5))
    with pytest.warns(VerglasWarning, match=r"dropped|total exposure 5.75 e/A\^2 in the file, 11.5 used as asked"):
        assert len(open_movie(path, total_dose_e_A2=11.5)) == 11
    silent = eer_file(tmp_path / "b.eer", electrons, totalDose=0)
    with pytest.raises(InputError, match=r"23 frames of the camera.*frames_per_fraction"):
        open_movie(silent)
    with pytest.raises(InputError, match="fractions of 30 frames, but the file has 23"):
        open_movie(silent, frames_per_fraction=30)


def test_eer_cut_off(tmp_path, electrons):
    path = eer_file(tmp_path / "a.eer", electrons)
    whole = path.read_bytes()
    for keep in (len(whole) // 2, len(whole) - 40):
        path.write_bytes(whole[:keep])
        with pytest.raises(FormatError, match=r"truncated|cut short"):
            open_movie(path)
    strips = [encode(*e, SENSOR[0] * SENSOR[1]) for e in electrons]
    strips[2] = strips[2][:-4]
    write_eer(path, strips, SENSOR)
    with pytest.raises(FormatError, match=r"frame 2 of the camera \(from 0\) ends before its last pixel"):
        open_movie(path, frames_per_fraction=1).frame(2)


def test_eer_with_widths_in_tags(tmp_path, electrons):
    strips = [encode(*e, SENSOR[0] * SENSOR[1], 8) for e in electrons]
    write_eer(tmp_path / "a.eer", strips, SENSOR, 65002, widths=(8, 2, 2))
    movie = open_movie(tmp_path / "a.eer", frames_per_fraction=1)
    np.testing.assert_array_equal(movie.frame(5), image(electrons[5], SENSOR, 1))


# ---- files that are wrong


def test_what_is_wrong_with_a_file_is_named(tmp_path, counts):
    tif = write_tiff(tmp_path / "a.tif", counts)
    whole = tif.read_bytes()
    for keep in (len(whole) - 100, len(whole) // 2, 20, 6):
        tif.write_bytes(whole[:keep])
        with pytest.raises(FormatError, match=r"a.tif: .*(truncated|cut short|not an MRC file|cut)"):
            open_movie(tif)
    write_tiff(tif, counts[0])
    with pytest.raises(FormatError, match="one image: a micrograph where a movie is meant"):
        open_movie(tif)
    with tifffile.TiffWriter(tif) as out:
        for frame in (counts[0], counts[1], counts[2, :30]):
            out.write(frame, photometric="minisblack", metadata=None)
    with pytest.raises(FormatError, match=r"frame 2 \(from 0\) has 61 x 30 pixels .*, the first 61 x 40"):
        open_movie(tif)
    tifffile.imwrite(tif, np.zeros((3, 8, 8, 3), np.uint8), photometric="rgb")
    with pytest.raises(FormatError, match="pixels of 3 samples; expected grey values"):
        open_movie(tif)
    mrc = write_mrc(tmp_path / "a.mrc", counts.astype(np.int16))
    mrc.write_bytes(mrc.read_bytes()[:-10])
    with pytest.raises(FormatError, match="4 whole sections: truncated"):
        open_movie(mrc)
    with pytest.raises(FormatError, match="no such file"):
        open_movie(tmp_path / "none.tif")
    with pytest.raises(InputError, match="dose_per_frame_e_A2: expected a positive"):
        open_movie(write_tiff(tif, counts), dose_per_frame_e_A2=0.0)
    with pytest.raises(InputError, match="only EER files can be up-sampled"):
        open_movie(tif, upsampling=2)


def test_damage_inside_a_compressed_frame_is_named(tmp_path, counts):
    path = write_tiff(tmp_path / "a.tif", counts.repeat(8, 1).repeat(8, 2), compression="zlib")
    with tifffile.TiffFile(path) as tiff:
        at = tiff.pages[3].dataoffsets[0]
    raw = bytearray(path.read_bytes())
    raw[at : at + 60] = bytes(60)
    path.write_bytes(raw)
    movie = open_movie(path)
    assert movie.frame(2).shape == (320, 488)
    with pytest.raises(FormatError, match=r"frame 3 \(from 0\) cannot be decoded"):
        movie.frame(3)


# ---- gain and defects


def test_placements_are_the_eight_and_each_has_an_inverse():
    data = np.arange(6.0).reshape(2, 3) + 1
    seen = {Gain(data).place(p).data.tobytes() + str(Gain(data).place(p).data.shape).encode() for p in PLACEMENTS}
    assert len(seen) == 8
    inverse = {"90": "270", "270": "90"}
    for p in PLACEMENTS:
        np.testing.assert_array_equal(Gain(data).place(p).place(inverse.get(p, p)).data, data)
    with pytest.raises(InputError, match="expected one of 0, 90"):
        Gain(data).place("45")


def test_gain_multiplies_and_epus_divides(tmp_path, counts):
    gain = np.random.default_rng(2).uniform(0.8, 1.3, (40, 61)).astype(np.float32)
    gain[3, 4] = 0
    movie_path = write_tiff(tmp_path / "m.tif", counts)
    write_mrc(tmp_path / "g.mrc", gain)
    tifffile.imwrite(tmp_path / "g.tif", gain)
    tifffile.imwrite(tmp_path / "e.gain", gain)
    for name in ("g.mrc", "g.tif"):
        movie = read_movie(movie_path, tmp_path / name)
        assert movie.defects.tolist() == [[3, 4]]
        good = ~movie.defect_mask
        np.testing.assert_array_equal(movie.frame(1)[good], (counts[1] * gain)[good])
    movie = read_movie(movie_path, tmp_path / "e.gain")
    np.testing.assert_allclose(movie.frame(1)[good], counts[1][good] / gain[good], rtol=1e-6)
    assert read_gain(tmp_path / "e.gain").divides
    assert not read_gain(tmp_path / "e.gain", divides=False).divides
    flipped = read_movie(movie_path, gain[::-1, ::-1], placement="180")
    np.testing.assert_array_equal(flipped.gain[good], gain[good])


def test_gain_of_super_resolution_is_binned_and_of_a_coarser_grid_repeated():
    sensitivity = np.random.default_rng(3).uniform(0.7, 1.4, (8, 12))
    binned = sensitivity.reshape(4, 2, 6, 2).mean(axis=(1, 3))
    np.testing.assert_allclose(Gain(1 / sensitivity).fit_to_frames((4, 6)).factors, 1 / binned, rtol=1e-6)
    np.testing.assert_allclose(Gain(sensitivity, divides=True).fit_to_frames((4, 6)).factors, 1 / binned, rtol=1e-6)
    dead = Gain(1 / sensitivity * (np.arange(96).reshape(8, 12) != 0)).fit_to_frames((4, 6)).dead
    assert np.argwhere(dead).tolist() == [[0, 0]]
    np.testing.assert_array_equal(
        Gain(binned).fit_to_frames((12, 18)).data, binned.astype(np.float32).repeat(3, 0).repeat(3, 1)
    )


@pytest.mark.parametrize(
    ("gain", "words"),
    [
        (np.ones((30, 61)), "the gain has 61 x 30 pixels, the frames 61 x 40"),
        (np.ones((61, 40)), "turned by 90 degrees it would fit"),
        (np.zeros((40, 61)), "zero everywhere"),
        (np.full((40, 61), np.nan), "2440 of 2440 values of the gain are NaN"),
        (-np.ones((40, 61)), "negative"),
    ],
)
def test_gains_that_are_refused(tmp_path, counts, gain, words):
    with pytest.raises(InputError, match=words):
        read_movie(write_tiff(tmp_path / "m.tif", counts), gain)


def test_defects_in_files(tmp_path):
    def rows(text):
        path = tmp_path / "d.txt"
        path.write_text(text)
        found = read_defects(path)
        return sorted(map(tuple, found.tolist()))

    assert rows("3 1\n# a comment\n0 2\n") == [(1, 3), (2, 0)]
    assert rows("3 1 2 1\n") == [(1, 3), (1, 4)]
    camera = "CameraSizeX 4\nCameraSizeY 3\nRotationAndFlip 0\n"
    assert rows(camera + "BadColumns 2\n") == [(0, 2), (1, 2), (2, 2)]
    assert rows(camera + "BadRows 1\n") == [(1, 0), (1, 1), (1, 2), (1, 3)]
    assert rows(camera + "PartialBadColumn 3 0 1\nBadPixels 0 0 1 2\n") == [(0, 0), (0, 3), (1, 3), (2, 1)]
    with pytest.raises(FormatError, match=r"line 2: 3 numbers; expected x y, or x y width height"):
        rows("1 2\n1 2 3\n")
    with pytest.raises(FormatError, match=r"line 1: 'a b'; expected whole numbers"):
        rows("a b\n")
    mask = np.zeros((3, 4), np.uint8)
    mask[2, 1] = 1
    tifffile.imwrite(tmp_path / "d.tif", mask)
    np.testing.assert_array_equal(read_defects(tmp_path / "d.tif"), mask.astype(bool))


def test_nothing_is_said_of_a_file_that_is_right(tmp_path, counts):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        frames_of(open_movie(write_tiff(tmp_path / "a.tif", counts, compression="lzw")))
