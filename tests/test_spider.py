"""Documents and images of SPIDER; pictures as micrographs."""

from __future__ import annotations

import bz2

import imagecodecs
import numpy as np
import pandas as pd
import pytest

import verglas as vg
from verglas.io import read_micrograph, read_spider_document, read_stack, write_map, write_spider_document


def spider_bytes(data, order="<", stack=False, pixel=0.0):
    """A SPIDER file by its documentation: header of whole records, values, of stacks a header before each image."""
    n, ny, nx = data.shape
    records = -(-1024 // (4 * nx))
    header = np.zeros(records * nx, order + "f4")
    header[[0, 1, 4, 11, 12, 21, 22, 37]] = (
        1 if stack else n,
        ny,
        3 if n > 1 and not stack else 1,
        nx,
        *_sizes(nx),
        pixel,
    )
    if not stack:
        return header.tobytes() + data.astype(order + "f4").tobytes()
    each = header.tobytes()
    header[[23, 25]] = 2, n
    return header.tobytes() + b"".join(each + image.astype(order + "f4").tobytes() for image in data)


def _sizes(nx):
    records = -(-1024 // (4 * nx))
    return records, records * 4 * nx, 4 * nx


@pytest.mark.parametrize("order", ["<", ">"])
def test_volumes_and_stacks(tmp_path, order):
    data = np.random.default_rng(0).normal(size=(5, 5, 5)).astype(np.float32)
    (tmp_path / "vol.spi").write_bytes(spider_bytes(data, order))
    found = vg.read_map(tmp_path / "vol.spi", 2.5)
    assert np.array_equal(found.data, data)
    assert found.pixel_size_A == 2.5
    with pytest.raises(vg.InputError, match="has no pixel size; give pixel_size_A"):
        vg.read_map(tmp_path / "vol.spi")
    images = np.random.default_rng(1).normal(size=(3, 7, 9)).astype(np.float32)
    (tmp_path / "stk.spi").write_bytes(spider_bytes(images, order, stack=True))
    assert np.array_equal(read_stack(tmp_path / "stk.spi", [2, 0]), images[[2, 0]])
    (tmp_path / "mic.spi").write_bytes(spider_bytes(images[:1], order, pixel=1.5))
    micrograph = read_micrograph(tmp_path / "mic.spi")
    assert np.array_equal(micrograph.data, images[0])
    assert micrograph.pixel_size_A == 1.5
    (tmp_path / "cut.spi").write_bytes(spider_bytes(data, order)[:-4])
    with pytest.raises(vg.FormatError, match="truncated"):
        vg.read_map(tmp_path / "cut.spi", 1.0)


def test_real_files(data_dir):
    folder = data_dir / "rct_spider" / "TP1_makedata"
    assert vg.read_map(folder / "vcem011.hbl", 1.0).data.shape == (81, 81, 81)
    angles = read_spider_document(folder / "dang045.hbl")
    pairs = pd.read_csv(data_dir / "rct_spider" / "pairs.tsv", sep="\t")
    assert np.array_equal(angles[3].to_numpy(), pairs["phi_deg"].to_numpy())
    tilted = read_spider_document(folder / "doctlt002.hbl")
    # SPIDER counts from 1, and its windows were cut at whole pixels
    assert np.abs(tilted[1].to_numpy() - 1 - pairs["x_tilted"].to_numpy()).max() <= 0.5
    assert np.abs(tilted[2].to_numpy() - 1 - pairs["y_tilted"].to_numpy()).max() <= 0.5
    assert read_spider_document(folder / "dcb001.hbl").loc[121].tolist()[4] == 7


def test_documents_round_trip(tmp_path):
    table = pd.DataFrame({"psi": [1.5, -20.25], "theta": [0.0, 1e5]})
    write_spider_document(tmp_path / "a.spi", table)
    found = read_spider_document(tmp_path / "a.spi")
    assert found.to_numpy().tolist() == table.to_numpy().tolist()
    assert found.index.tolist() == [1, 2]
    write_spider_document(tmp_path / "b.spi", found.loc[[2]])
    assert read_spider_document(tmp_path / "b.spi").index.tolist() == [2]
    (tmp_path / "t.spi").write_text(" ;x/x\n    1 2-1.000000-2.000000\n    1 2 0.3D+01 4\n")
    assert read_spider_document(tmp_path / "t.spi").loc[1].tolist() == [3, 4]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (" ;x/x\n 1 3 1. 2.\n", r"line 2: 2 values where 3 are announced"),
        (" ;x/x\n 1 2 1. 2.\n 2 1 1.\n", r"key 2 has 1 values, others 2"),
        (" ;x/x\n one\n", r"line 2: expected a key, a count and values, got 'one'"),
        (" ;x/x\n", "no lines with a key"),
    ],
)
def test_broken_documents(tmp_path, text, message):
    (tmp_path / "a.spi").write_text(text)
    with pytest.raises(vg.FormatError, match=message):
        read_spider_document(tmp_path / "a.spi")


def test_pictures_are_micrographs(tmp_path):
    grey = np.random.default_rng(0).integers(0, 255, (20, 30)).astype(np.uint8)
    (tmp_path / "a.png").write_bytes(imagecodecs.png_encode(grey))
    assert np.array_equal(read_micrograph(tmp_path / "a.png", 2.0).data, grey)
    colours = np.repeat(grey[..., None], 3, axis=2)
    (tmp_path / "b.png").write_bytes(imagecodecs.png_encode(colours))
    assert np.array_equal(read_micrograph(tmp_path / "b.png", 2.0).data, grey)
    colours[0, 0, 0] ^= 1
    (tmp_path / "c.png").write_bytes(imagecodecs.png_encode(colours))
    with pytest.raises(vg.FormatError, match="a picture in colours"):
        read_micrograph(tmp_path / "c.png")
    smooth = np.tile(np.arange(30, dtype=np.uint8) * 4, (20, 1))
    (tmp_path / "d.jpg").write_bytes(imagecodecs.jpeg_encode(smooth, level=95))
    assert np.abs(read_micrograph(tmp_path / "d.jpg").data - smooth).max() < 6
    (tmp_path / "e.png").write_bytes((tmp_path / "a.png").read_bytes()[:60])
    with pytest.raises(vg.FormatError, match="not a PNG file that can be read"):
        read_micrograph(tmp_path / "e.png")
    assert vg.io.find_micrographs(str(tmp_path))["path"].tolist() == [str(tmp_path / n) for n in _NAMES]


_NAMES = ("a.png", "b.png", "c.png", "d.jpg", "e.png")


def test_a_micrograph_packed_by_bzip2(tmp_path):
    data = np.random.default_rng(0).normal(size=(1, 12, 16)).astype(np.float32)
    write_map(tmp_path / "m.mrc", vg.Map(data, 1.5))
    (tmp_path / "p.mrc.bz2").write_bytes(bz2.compress((tmp_path / "m.mrc").read_bytes()))
    found = read_micrograph(tmp_path / "p.mrc.bz2")
    assert np.array_equal(found.data, data[0])
    assert found.pixel_size_A == 1.5
