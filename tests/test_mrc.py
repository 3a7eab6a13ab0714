"""MRC maps and stacks."""

from __future__ import annotations

import bz2
import gzip
import subprocess
import sys
import warnings

import mrcfile
import numpy as np
import pytest
from hypothesis import given, reject, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import verglas as vg
from verglas.io import StackWriter, read_header, read_stack, write_stack
from verglas.io.mrc import pack_4bit, unpack_4bit

from tolerance import FLOAT16_REL

QUICK = settings(deadline=None, max_examples=25)
RANGES = {"int8": (-128, 127), "int16": (-32768, 32767), "uint16": (0, 65535), "uint4": (0, 15)}


def small_map(shape=(3, 4, 5), pixel_size_A=1.25, origin=(1.0, -2.0, 3.5)):
    data = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    return vg.Map(data, pixel_size_A, origin)


# ---- quantisation and pixel types


@pytest.mark.parametrize("dtype", sorted(RANGES))
@QUICK
@given(data=st.data())
def test_integers_round_trip_exactly(tmp_path_factory, dtype, data):
    """int8, int16, uint16 and packed 4-bit, odd widths included: every value comes back."""
    shape = data.draw(st.tuples(*[st.integers(1, 7)] * 3))
    values = data.draw(hnp.arrays(np.int64, shape, elements=st.integers(*RANGES[dtype])))
    path = tmp_path_factory.mktemp("mrc") / "m.mrc"
    vg.write_map(path, vg.Map(values, 1.5), dtype=dtype)
    got = vg.read_map(path)
    assert np.array_equal(got.data, values)
    assert got.pixel_size_A == pytest.approx(1.5, rel=1e-6)


@pytest.mark.parametrize("dtype", [*RANGES, "float32", "float16"])
def test_stacks_of_every_type(tmp_path, dtype):
    low, high = RANGES.get(dtype, (-7, 7))
    images = np.random.default_rng(1).integers(low, high, (6, 5, 5), endpoint=True)
    write_stack(tmp_path / "s.mrcs", images, 1.1, dtype=dtype)
    order = [5, 0, 3, 3]
    assert np.array_equal(read_stack(tmp_path / "s.mrcs", order), images[order])
    header = read_header(tmp_path / "s.mrcs")
    assert header.shape == (6, 5, 5)
    assert header.pixel_size_A == pytest.approx(1.1)


@QUICK
@given(values=hnp.arrays(np.float32, (2, 3, 4), elements=st.floats(-60000, 60000, width=32)))
def test_float16_relative_error(tmp_path_factory, values):
    """At most 2^-11 relative for normal numbers."""
    path = tmp_path_factory.mktemp("mrc") / "m.mrc"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", vg.VerglasWarning)
        try:
            vg.write_map(path, vg.Map(values, 1.0), dtype="float16")
        except vg.InputError:  # which the test below is about
            reject()
    got = vg.read_map(path).data
    normal = np.abs(values) >= np.finfo(np.float16).tiny
    assert (np.abs(got - values)[normal] <= FLOAT16_REL * np.abs(values)[normal]).all()


@QUICK
@given(hnp.arrays(np.uint8, hnp.array_shapes(min_dims=2, max_dims=3, max_side=9), elements=st.integers(0, 15)))
def test_packing_is_its_own_inverse(values):
    packed = pack_4bit(values)
    assert packed.shape[-1] == (values.shape[-1] + 1) // 2
    assert np.array_equal(unpack_4bit(packed, values.shape[-1]), values)


def test_packed_rows_low_half_first(tmp_path):
    """Two values a byte, the first in the low bits, rows padded to a byte (IMOD's description of mode 101)."""
    vg.write_map(tmp_path / "m.mrc", vg.Map(np.array([[[1, 2, 3], [4, 5, 6]]], np.float32), 1.0), dtype="uint4")
    raw = (tmp_path / "m.mrc").read_bytes()
    assert np.frombuffer(raw[:16], "<i4").tolist() == [3, 2, 1, 101]
    assert raw[1024:] == bytes([0x21, 0x03, 0x54, 0x06])


def test_float16_of_a_large_mean(tmp_path):
    """Said where rounding adds more than 0.1 % to the power, refused from 9 % on: no job after would notice."""
    noise = np.random.default_rng(5).normal(size=(3, 16, 16)).astype(np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        write_stack(tmp_path / "a.mrcs", noise + 30, 1.0, "float16")
    with pytest.warns(vg.VerglasWarning, match=r"b.mrcs: float16 rounds .* \(mean 499.*\) by 7 % .*; use float32"):
        write_stack(tmp_path / "b.mrcs", noise + 500, 1.0, "float16")
    for values in (noise + 5000, 1e-8 * noise):
        with pytest.raises(vg.InputError, match="float16 rounds these values"):
            write_stack(tmp_path / "c.mrcs", values, 1.0, "float16")
    means = np.array([3000, 5000, 9000], np.float32)[:, None, None]  # that differ: images are looked at one by one
    with pytest.raises(vg.InputError, match="float16 rounds these values"):
        write_stack(tmp_path / "c.mrcs", noise + means, 1.0, "float16")
    assert not (tmp_path / "c.mrcs").exists()


@pytest.mark.parametrize(
    ("dtype", "value", "message"),
    [
        ("int8", 200.0, "int8 holds integers from -128 to 127"),
        ("int16", 0.5, "and are not integers"),
        ("uint4", 16.0, "from 0 to 15"),
        ("float16", 1e6, "do not fit float16"),
        ("int64", 0.0, "cannot store 'int64'"),
        ("float32", np.nan, "1 voxels are NaN"),
    ],
)
def test_values_that_do_not_fit_are_refused(tmp_path, dtype, value, message):
    data = np.zeros((2, 2, 2), np.float32)
    data[0, 0, 0] = value
    with pytest.raises(vg.InputError, match=message):
        vg.write_map(tmp_path / "m.mrc", vg.Map(data, 1.0), dtype=dtype)
    assert list(tmp_path.iterdir()) == []


# ---- maps


@pytest.mark.parametrize("name", ["m.mrc", "m.map", "m.mrc.gz", "m.map.bz2"])
def test_map_round_trip_with_pixel_size_and_origin(tmp_path, name):
    m = small_map()
    vg.write_map(tmp_path / name, m)
    got = vg.read_map(tmp_path / name)
    assert np.array_equal(got.data, m.data)
    assert got.pixel_size_A == pytest.approx(m.pixel_size_A, rel=1e-6)
    assert got.origin_A == m.origin_A
    assert [p.name for p in tmp_path.iterdir()] == [name]
    magic = (tmp_path / name).read_bytes()[:2]
    assert magic == {".gz": b"\x1f\x8b", ".bz2": b"BZ"}.get(name[name.rindex(".") :], magic)


def test_mrcfile_validates_what_is_written(tmp_path):
    vg.write_map(tmp_path / "m.mrc", small_map())
    write_stack(tmp_path / "s.mrcs", np.ones((3, 4, 4)), 1.5)
    for name in ("m.mrc", "s.mrcs"):
        assert mrcfile.validate(tmp_path / name)
    with mrcfile.open(tmp_path / "s.mrcs") as f:
        assert f.is_image_stack()
        assert f.voxel_size.x == pytest.approx(1.5)
        assert f.data.shape == (3, 4, 4)


def test_maps_of_the_data(data_dir):
    groel = vg.read_map(data_dir / "models" / "emd_1997.map.gz")
    assert groel.data.shape == (100, 100, 100)
    assert groel.pixel_size_A == pytest.approx(2.02)
    assert groel.origin_A == pytest.approx((-101.0,) * 3)  # NXSTART -50, no ORIGIN
    with mrcfile.open(data_dir / "models" / "emd_1997.map.gz") as f:
        assert np.array_equal(groel.data, f.data)
    for path in (*(data_dir / "exact").glob("*.mrc"), data_dir / "particles" / "trpv1_volume.mrc"):
        with mrcfile.open(path) as f:
            assert np.array_equal(vg.read_map(path).data, f.data)


def test_a_header_without_pixel_size_needs_one(data_dir):
    path = data_dir / "models" / "clean70SRibosome_vol_65p.mrc"
    with pytest.raises(vg.InputError, match=r"vol_65p\.mrc: the header has no pixel size; give pixel_size_A"):
        vg.read_map(path)
    assert vg.read_map(path, pixel_size_A=5.0).pixel_size_A == 5.0


def test_a_pixel_size_that_contradicts_the_header_is_said(tmp_path):
    vg.write_map(tmp_path / "m.mrc", small_map())
    with pytest.warns(vg.VerglasWarning, match=r"1\.25 A in the header, 1\.3 A used as asked"):
        assert vg.read_map(tmp_path / "m.mrc", pixel_size_A=1.3).pixel_size_A == 1.3


@pytest.mark.parametrize("axes", [(1, 2, 3), (3, 2, 1), (2, 1, 3), (3, 1, 2)])
def test_axes_come_as_zyx_whatever_the_file(tmp_path, axes):
    data = np.random.default_rng(0).normal(size=(4, 4, 4)).astype(np.float32)
    mapc, mapr, maps = axes
    stored = data.transpose([3 - maps, 3 - mapr, 3 - mapc])  # data axes 0, 1, 2 are z, y, x = 3, 2, 1
    with mrcfile.new(tmp_path / "m.mrc") as f:
        f.set_data(np.ascontiguousarray(stored))
        f.voxel_size = 2.0
        f.header.mapc, f.header.mapr, f.header.maps = axes
    assert np.array_equal(vg.read_map(tmp_path / "m.mrc").data, data)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("dtype", ["f4", "i2", "f2"])
def test_both_byte_orders(tmp_path, order, dtype):
    data = np.arange(24, dtype=f"{order}{dtype}").reshape(2, 3, 4)
    with mrcfile.new(tmp_path / "m.mrc") as f:
        f.set_data(data)
        f.voxel_size = 2.0
    assert np.array_equal(vg.read_map(tmp_path / "m.mrc").data, data.astype(np.float32))


def test_unsigned_bytes_of_imod(tmp_path):
    """Mode 0 is signed, unless IMOD's stamp says otherwise."""
    vg.write_map(tmp_path / "m.mrc", vg.Map(np.full((1, 1, 2), -1, np.float32), 1.0), dtype="int8")
    assert vg.read_map(tmp_path / "m.mrc").data.tolist() == [[[-1, -1]]]
    raw = bytearray((tmp_path / "m.mrc").read_bytes())
    raw[152:160] = np.array([1146047817, 0], "<i4").tobytes()
    (tmp_path / "m.mrc").write_bytes(raw)
    assert vg.read_map(tmp_path / "m.mrc").data.tolist() == [[[255, 255]]]


def test_an_extended_header_is_skipped(tmp_path):
    with mrcfile.new(tmp_path / "m.mrc") as f:
        f.set_data(np.arange(8, dtype=np.float32).reshape(2, 2, 2))
        f.set_extended_header(np.zeros(5, "V80"))
        f.voxel_size = 1.0
    assert vg.read_map(tmp_path / "m.mrc").data.ravel().tolist() == list(range(8))


def change(path, offset, values, dtype="<i4"):
    raw = bytearray(path.read_bytes())
    new = np.asarray(values, dtype).tobytes()
    raw[offset : offset + len(new)] = new
    path.write_bytes(raw)


@pytest.mark.parametrize(
    ("offset", "value", "message"),
    [
        (12, 4, r"MRC mode 4 \(a Fourier transform\) is not supported; expected one of 0, 1, 2, 6, 12, 101"),
        (12, 77, "MRC mode 77 is not supported"),
        (8, 0, "5 x 4 x 0 values; each must be over 0"),
        (8, 9, r"the header promises 9 sections of 5 x 4 \(mode 2\), 1744 bytes, but the file has 1264, 3 whole"),
        (92, -4, "an extended header of -4 bytes"),
    ],
)
def test_headers_that_are_wrong(tmp_path, offset, value, message):
    vg.write_map(tmp_path / "m.mrc", small_map())
    change(tmp_path / "m.mrc", offset, value)
    with pytest.raises(vg.FormatError, match=f"m\\.mrc: .*{message}"):
        vg.read_map(tmp_path / "m.mrc")


def test_bytes_beyond_the_header_are_a_warning(tmp_path):
    vg.write_map(tmp_path / "m.mrc", small_map())
    with open(tmp_path / "m.mrc", "ab") as f:
        f.write(b"xyz")
    with pytest.warns(vg.VerglasWarning, match="3 bytes beyond the 3 sections of 5 x 4"):
        assert np.array_equal(vg.read_map(tmp_path / "m.mrc").data, small_map().data)


@pytest.mark.parametrize("compress", [gzip.compress, bz2.compress])
def test_a_compressed_file_cut_short(tmp_path, compress):
    vg.write_map(tmp_path / "m.mrc", small_map())
    (tmp_path / "c.mrc").write_bytes(compress((tmp_path / "m.mrc").read_bytes()[:-8]))
    with pytest.raises(vg.FormatError, match=r"the header promises 3 sections .* but the file has 1256, 2 whole"):
        vg.read_map(tmp_path / "c.mrc")


def test_no_mrc_file(tmp_path):
    (tmp_path / "short").write_bytes(b"abc")
    (tmp_path / "noise").write_bytes(bytes(range(1, 201)) * 20)
    with pytest.raises(vg.FormatError, match="3 bytes, but an MRC header has 1024"):
        vg.read_map(tmp_path / "short")
    with pytest.raises(vg.FormatError, match="not an MRC file: no 'MAP ' mark"):
        vg.read_map(tmp_path / "noise")
    with pytest.raises(vg.FormatError, match="no such file"):
        vg.read_map(tmp_path / "nowhere")
    with pytest.raises(vg.FormatError, match="is a folder"):
        vg.read_map(tmp_path)


def test_voxels_that_are_not_cubic(tmp_path):
    vg.write_map(tmp_path / "m.mrc", small_map())
    change(tmp_path / "m.mrc", 40, [10.0, 4.0, 3.0], "<f4")  # cell of 5 x 4 x 3 voxels
    with pytest.raises(vg.FormatError, match="voxels of 2 x 1 x 1 A are not cubic"):
        vg.read_map(tmp_path / "m.mrc")


def test_an_old_header_is_read_with_a_warning(data_dir):
    with pytest.warns(vg.VerglasWarning, match=r"relion31\.mrcs: an old MRC header .* little-endian"):
        assert read_header(data_dir / "particles" / "relion31.mrcs").shape == (5, 256, 256)


# ---- stacks


@QUICK
@given(
    st.lists(st.integers(0, 39), min_size=1, max_size=60),
    st.sampled_from([1, 1000, 10**6]),
    st.sampled_from(["int16", "float32"]),
)
def test_frames_come_in_the_order_asked(tmp_path_factory, frames, chunk, dtype):
    """Whatever the order, repeats and the size of the pieces read."""
    from verglas.io.mrc import read_sections

    path = tmp_path_factory.mktemp("mrc") / "s.mrcs"
    images = np.arange(40)[:, None, None] * np.ones((1, 6, 6))
    write_stack(path, images, 1.0, dtype=dtype)
    out = np.empty((len(frames), 6, 6), np.float32)
    read_sections(read_header(path), np.array(frames), out, np.arange(len(frames)), chunk_bytes=chunk)
    assert np.array_equal(out, images[frames])


def test_distant_frames_are_read_apart(tmp_path, monkeypatch):
    """Neighbours in one read, distant ones not through the gap between them."""
    from verglas.io import mrc

    write_stack(tmp_path / "s.mrcs", np.zeros((64, 128, 128)), 1.0)  # 64 KiB an image
    sizes = []
    fill = mrc._fill
    monkeypatch.setattr(mrc, "_fill", lambda handle, raw, path: (sizes.append(raw.size >> 16), fill(handle, raw, path)))
    read_stack(tmp_path / "s.mrcs", [3, 60, 1, 2, 0, 62])
    assert sizes == [4, 3]


def test_an_image_beyond_the_stack(tmp_path):
    write_stack(tmp_path / "s.mrcs", np.ones((3, 4, 4)), 1.5)
    with pytest.raises(vg.FormatError, match=r"s\.mrcs: image 3 \(from 0\) asked for, but the stack has 3"):
        read_stack(tmp_path / "s.mrcs", [0, 3])


def test_stack_writer_counts(tmp_path):
    def write(n):
        with StackWriter(tmp_path / "s.mrcs", 2, 4, 1.0) as stack:
            for _ in range(n):
                stack.append(np.zeros((1, 4, 4)))

    for n, message in ((1, "1 images written, 2 announced"), (3, "3 images for a stack of 2")):
        with pytest.raises(vg.InputError, match=message):
            write(n)
        assert list(tmp_path.iterdir()) == []
    write(2)
    assert read_stack(tmp_path / "s.mrcs").shape == (2, 4, 4)


@pytest.mark.parametrize("shape", [(4, 4), (2, 4, 5)])
def test_no_stack(tmp_path, shape):
    with pytest.raises(vg.InputError, match=r"expected \(n, box, box\) images"):
        write_stack(tmp_path / "s.mrcs", np.zeros(shape), 1.0)


def test_write_map_wants_a_map(tmp_path):
    with pytest.raises(vg.InputError, match=r"expected a Map, got ndarray; wrap it: Map\(array, pixel_size_A\)"):
        vg.write_map(tmp_path / "m.mrc", np.zeros((2, 2, 2)))


def test_a_full_disk_names_the_file(tmp_path):
    """A limit on the size of files stands for a disk without room: the system's message names no file."""
    code = f"""
import resource, signal, numpy as np, verglas as vg
resource.setrlimit(resource.RLIMIT_FSIZE, (4000, 4000))
for path, write in (("map.mrc", lambda p: vg.write_map(p, vg.Map(np.ones((32,) * 3, np.float32), 1.0))),
                    ("state.npz", lambda p: snapshot(p))):
    from verglas.run.checkpoint import write_snapshot
    from verglas.types import Snapshot
    snapshot = lambda p: write_snapshot(p, Snapshot(dict(x=np.arange(9999.0)), dict()))
    try:
        import pathlib
        write(pathlib.Path({str(tmp_path)!r}) / path)
    except vg.InputError as error:
        print(error)
"""
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    lines = said.stdout.splitlines()
    assert [line.split(":")[0] for line in lines] == [
        f"cannot write {tmp_path}/map.mrc",
        f"cannot write {tmp_path}/state.npz",
    ], said.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("compress", "ending"), [(bz2.compress, ".bz2"), (gzip.compress, ".gz")])
def test_compressed_stacks_are_read_image_by_image(tmp_path, compress, ending):
    given = vg.simulate.particles(vg.simulate.phantom(16, 4.0, 40.0), 5, 16, 4.0, snr=1.0)
    images = given.images()
    star, plain, packed = tmp_path / "p.star", tmp_path / "p.mrcs", tmp_path / f"p.mrcs{ending}"
    vg.write_particles(star, given)
    packed.write_bytes(compress(plain.read_bytes()))
    plain.unlink()
    np.testing.assert_array_equal(vg.io.read_stack(packed, [3, 0]), images[[3, 0]])
    star.write_text(star.read_text().replace("p.mrcs", packed.name))
    particles = vg.read_particles(star)
    np.testing.assert_array_equal(particles[[4, 1, 1]].images(), images[[4, 1, 1]])
    packed.write_bytes(packed.read_bytes()[:-200])
    with pytest.raises(vg.FormatError, match=r"cut (off|short)"):
        vg.io.read_stack(packed)
