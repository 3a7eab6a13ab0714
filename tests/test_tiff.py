"""Micrographs in TIFF and MRC (issue: Files; row Formats)."""

from __future__ import annotations

import bz2
import gzip

import mrcfile
import numpy as np
import pytest
import tifffile

import verglas as vg
from verglas.io import write_stack


def test_every_micrograph_of_the_data(data_dir):
    paths = sorted((data_dir / "apoferritin").glob("*.tif"))
    assert len(paths) == 14
    for path in paths:
        m = vg.read_micrograph(path, pixel_size_A=1.5)
        assert m.shape == (1200, 1240)
        assert m.data.dtype == np.float32
        assert m.name == path.name
    assert np.array_equal(m.data, tifffile.imread(path))


@pytest.mark.parametrize("compression", [None, "lzw", "zlib"])
@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16, np.float32])
def test_compressions_and_types(tmp_path, compression, dtype):
    data = np.random.default_rng(0).integers(0, 200, (7, 9)).astype(dtype)
    tifffile.imwrite(tmp_path / "m.tif", data, compression=compression)
    m = vg.read_micrograph(tmp_path / "m.tif")
    assert np.array_equal(m.data, data)
    assert np.isnan(m.pixel_size_A)


def test_rows_as_read_or_flipped(tmp_path):
    data = np.arange(6, dtype=np.float32).reshape(2, 3)
    tifffile.imwrite(tmp_path / "m.tif", data)
    assert np.array_equal(vg.read_micrograph(tmp_path / "m.tif").data, data)
    assert np.array_equal(vg.read_micrograph(tmp_path / "m.tif", flip_y=True).data, data[::-1])


def test_pixel_size_of_the_resolution_tags(tmp_path):
    data = np.zeros((4, 4), np.uint8)
    tifffile.imwrite(tmp_path / "m.tif", data, resolution=(1e8 / 1.25, 1e8 / 1.25), resolutionunit="CENTIMETER")
    assert vg.read_micrograph(tmp_path / "m.tif").pixel_size_A == pytest.approx(1.25)
    with pytest.warns(vg.VerglasWarning, match=r"1\.25 A in the file, 1\.3 A used as asked"):
        assert vg.read_micrograph(tmp_path / "m.tif", 1.3).pixel_size_A == 1.3
    tifffile.imwrite(tmp_path / "m.tif", data, resolution=(72, 72), resolutionunit="INCH")  # a printer's
    assert np.isnan(vg.read_micrograph(tmp_path / "m.tif").pixel_size_A)


def test_mrc_micrograph(tmp_path):
    data = np.arange(16, dtype=np.float32).reshape(1, 4, 4)
    write_stack(tmp_path / "m.mrc", data, 1.25)
    m = vg.read_micrograph(tmp_path / "m.mrc")
    assert np.array_equal(m.data, data[0])
    assert m.pixel_size_A == 1.25


def test_movies_colours_and_rubbish_are_refused(tmp_path):
    tifffile.imwrite(tmp_path / "movie.tif", np.zeros((5, 4, 4), np.uint8), photometric="minisblack")
    tifffile.imwrite(tmp_path / "rgb.tif", np.zeros((4, 4, 3), np.uint8), photometric="rgb")
    (tmp_path / "bad.tif").write_bytes(b"not a tiff")
    write_stack(tmp_path / "movie.mrc", np.zeros((5, 4, 4)), 1.0)
    for name, message in (
        ("movie.tif", "5 frames: a movie"),
        ("rgb.tif", "pixels of 3 samples; expected grey"),
        ("bad.tif", "not a TIFF file that can be read"),
        ("movie.mrc", "5 images: a movie"),
        ("nowhere.tif", "no such file"),
    ):
        with pytest.raises(vg.FormatError, match=f"{name}: {message}"):
            vg.read_micrograph(tmp_path / name)


def test_micrograph_checks():
    with pytest.raises(vg.InputError, match=r"expected a \(y, x\) array"):
        vg.Micrograph(np.zeros((2, 2, 2)))
    with pytest.raises(vg.InputError, match="positive pixel size"):
        vg.Micrograph(np.zeros((2, 2)), 0.0)


@pytest.mark.parametrize("packing", ["zlib", "lzw", "tif.bz2", "tif.gz", "mrc", "mrc.bz2", "mrc.gz"])
def test_every_packing_reads_the_same(tmp_path, packing):
    """TIFF with ZIP or LZW, bzip2 and gzip give the same values as plain MRC, bit by bit."""
    counts = np.random.default_rng(0).poisson(3, (50, 70)).astype(np.int16)
    if packing in ("zlib", "lzw"):
        path = tmp_path / "a.tif"
        tifffile.imwrite(path, counts, compression=packing)
    else:
        kind, _, packer = packing.partition(".")
        plain = tmp_path / f"a.{kind}"
        if kind == "tif":
            tifffile.imwrite(plain, counts)
        else:
            with mrcfile.new(plain) as handle:
                handle.set_data(counts)
        path = tmp_path / f"a.{packing}"
        if packer:
            path.write_bytes({"bz2": bz2, "gz": gzip}[packer].compress(plain.read_bytes()))
    np.testing.assert_array_equal(vg.read_micrograph(path, 1.5).data, counts)


@pytest.mark.parametrize("packing", ["zlib", "lzw", "bz2"])
def test_low_dose_counts_are_a_quarter_or_less(tmp_path, packing):
    """Half an electron per pixel, as a frame of a movie has."""
    counts = np.random.default_rng(0).poisson(0.5, (512, 512)).astype(np.int16)
    with mrcfile.new(tmp_path / "a.mrc") as handle:
        handle.set_data(counts)
    plain = (tmp_path / "a.mrc").read_bytes()
    path = tmp_path / ("a.mrc.bz2" if packing == "bz2" else "a.tif")
    if packing == "bz2":
        path.write_bytes(bz2.compress(plain))
    else:
        tifffile.imwrite(path, counts, compression=packing)
    assert path.stat().st_size <= 0.25 * len(plain)
    np.testing.assert_array_equal(vg.read_micrograph(path, 1.5).data, counts)


def test_truncated_packing_is_said(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((50, 70), np.int16))
    whole = bz2.compress((tmp_path / "a.tif").read_bytes())
    (tmp_path / "a.tif.bz2").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(vg.FormatError, match="can be read"):
        vg.read_micrograph(tmp_path / "a.tif.bz2")


def test_images_that_lead_back_to_one_another_are_refused_at_once(tmp_path):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, np.zeros((16, 16), np.uint8), byteorder="<")
    data = bytearray(path.read_bytes())
    first = int.from_bytes(data[4:8], "little")
    entries = int.from_bytes(data[first : first + 2], "little")
    after = first + 2 + 12 * entries
    data[after : after + 4] = first.to_bytes(4, "little")  # the image after the first is the first
    path.write_bytes(data)
    for read in (vg.io.micrograph_header, vg.io.read_movie):
        with pytest.raises(vg.FormatError):
            read(path)


def test_a_header_that_does_not_say_is_no_contradiction(tmp_path):
    """0 and 1 A in a header stand for unknown: a list is right. No image has pixels of 0 A."""
    path = tmp_path / "a.mrc"
    for header_A in (0.0, 1.0):
        with mrcfile.new(path, np.ones((8, 8), np.float32), overwrite=True) as f:
            f.voxel_size = header_A
        if header_A:
            with pytest.warns(vg.VerglasWarning, match=r"1 A in the file, 1\.1 A used as listed"):
                assert vg.read_micrograph(path, 1.1, listed=True).pixel_size_A == 1.1
        else:
            assert vg.read_micrograph(path, 1.1, listed=True).pixel_size_A == 1.1
        with pytest.raises(vg.InputError, match=r"pixel size: expected 0\.01 to 1000 A, got 0"):
            vg.read_micrograph(path, 0.0)
