"""Damaged files with fixed seeds: good ones of every format, and what mishaps and other programs make of them.

``damaged(kind, number, folder)`` writes case ``number`` of a kind; ``READERS`` says what reads it. A reader may return
or raise an error of the package; anything else is a failure. For tests/fuzz/test_fuzz.py and bench/bench_fuzz.py.
"""

from __future__ import annotations

import bz2
import gzip
import io
import struct
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import imagecodecs
import numpy as np
import tifffile

import verglas as vg
from verglas.io import (
    find_micrographs,
    read_csv,
    read_ctf_table,
    read_header,
    read_json,
    read_micrograph,
    read_picks,
    read_spider_document,
    read_stack,
    read_star,
    write_map,
    write_stack,
)

_WORDS = (
    b"nan",
    b"inf",
    b"-1",
    b"1e308",
    b"",
    b"\xff\xfe",
    b"\x00",
    b"'",
    b'"',
    b"#",
    b"data_",
    b"loop_",
    b"_",
    b"@",
    b"99999999999",
)


def _star(rng: np.random.Generator) -> bytes:
    head = "data_optics\n\nloop_\n_rlnOpticsGroup\n_rlnVoltage\n_rlnSphericalAberration\n_rlnAmplitudeContrast\n"
    head += "_rlnImagePixelSize\n_rlnImageSize\n1 300 2.7 0.1 2.0 8\n\ndata_particles\n\nloop_\n_rlnImageName\n"
    head += (
        "_rlnMicrographName\n_rlnOpticsGroup\n_rlnDefocusU\n_rlnDefocusV\n_rlnAngleRot\n_rlnAngleTilt\n_rlnAnglePsi\n"
    )
    rows = [f"{i}@s.mrcs m{i}.mrc 1 {15000 + i} 14900 {rng.uniform(0, 360):.3f} 20 30\n" for i in range(1, 5)]
    return (head + "".join(rows)).encode()


def _coordinates(rng: np.random.Generator) -> bytes:
    rows = "".join(f"{rng.uniform(0, 999):.2f} {rng.uniform(0, 999):.2f} 0.5\n" for _ in range(5))
    return b"data_\n\nloop_\n_rlnCoordinateX\n_rlnCoordinateY\n_rlnAutopickFigureOfMerit\n" + rows.encode()


def _csv(rng: np.random.Generator) -> bytes:
    rows = "".join(f"m{i}.mrc,{15000 + i},14900,{rng.uniform(0, 180):.2f}\n" for i in range(4))
    return b"micrograph,defocus_u_A,defocus_v_A,defocus_angle_deg\n" + rows.encode()


def _xy(rng: np.random.Generator) -> bytes:
    return b"x,y\n" + "".join(f"{rng.uniform(0, 999):.2f},{i}\n" for i in range(4)).encode()


def _document(rng: np.random.Generator) -> bytes:
    return b" ;spi/spi\n" + "".join(f"{i:5d} 2 {rng.uniform(0, 9):10.3f} {i}.0\n" for i in range(1, 5)).encode()


def _cs(rng: np.random.Generator) -> bytes:
    fields = [
        ("uid", "<u8"),
        ("blob/path", "S12"),
        ("blob/idx", "<u4"),
        ("blob/shape", "<u4", (2,)),
        ("blob/psize_A", "<f4"),
        ("ctf/df1_A", "<f4"),
        ("ctf/df2_A", "<f4"),
        ("ctf/accel_kv", "<f4"),
        ("ctf/cs_mm", "<f4"),
        ("ctf/amp_contrast", "<f4"),
        ("alignments3D/pose", "<f4", (3,)),
        ("alignments3D/shift", "<f4", (2,)),
        ("location/micrograph_path", "S8"),
        ("location/micrograph_shape", "<u4", (2,)),
        ("location/center_x_frac", "<f4"),
        ("location/center_y_frac", "<f4"),
    ]
    chosen = [_other_type(rng, f) if rng.random() < 0.1 else f for f in fields if rng.random() > 0.05]
    array = np.zeros(4, chosen or fields)
    for name in array.dtype.names:
        base = array.dtype[name].base
        if base.kind == "S":
            array[name] = b"s.mrcs" if rng.random() > 0.1 else b"\xff\xfes"
        elif base.kind in "uif":
            array[name] = rng.integers(0, 4, array[name].shape)
            if base.kind == "f" and rng.random() < 0.1:
                array[name] = rng.choice([np.nan, np.inf, -1e30])
    out = io.BytesIO()
    np.save(out, array)
    return out.getvalue()


def _other_type(rng: np.random.Generator, field: tuple) -> tuple:
    kinds = ["<f4", "<u4", "S3", "<i8", "?", "<c8", "<U4", "<M8[s]"]
    shape = [(), (2,), (3,), (0,), (2, 2)][rng.integers(5)]
    return (field[0], kinds[rng.integers(len(kinds))], shape)


def _mrc(rng: np.random.Generator) -> bytes:
    folder = Path(_SCRATCH) / "m.mrc"
    data = rng.normal(size=(int(rng.integers(1, 4)), 8, 8)).astype(np.float32)
    if rng.random() < 0.5:
        write_stack(folder, data, 2.0, dtype=("float32", "float16")[rng.integers(2)])
    else:
        write_map(folder, vg.Map(data, 2.0))
    return folder.read_bytes()


def _tiff(rng: np.random.Generator) -> bytes:
    out = io.BytesIO()
    data = rng.integers(0, 255, (16, 16)).astype(("u1", "u2", "f4")[rng.integers(3)])
    compression = (None, "zlib", "lzw")[rng.integers(3)]
    tifffile.imwrite(out, data, compression=compression, tile=(16, 16) if rng.random() < 0.3 else None)
    return out.getvalue()


def _png(rng: np.random.Generator) -> bytes:
    return imagecodecs.png_encode(rng.integers(0, 255, (8, 8)).astype(np.uint8))


def _jpeg(rng: np.random.Generator) -> bytes:
    return imagecodecs.jpeg_encode(rng.integers(0, 255, (8, 8)).astype(np.uint8))


def _spider(rng: np.random.Generator) -> bytes:
    header = np.zeros(8 * 32, "<f4")
    header[[0, 1, 4, 11, 12, 21, 22]] = 8, 8, 3, 8, 32, 1024, 32
    return header.tobytes() + rng.normal(size=512).astype("<f4").tobytes()


def _json(rng: np.random.Generator) -> bytes:
    return b'{"boxes": [[1, 2, "manual"], [3.5, 4, "manual"]], "n": %d}' % rng.integers(9)


def _particles(path: Path) -> None:
    particles = vg.read_particles(path)
    for use in (lambda: particles.optics, lambda: particles.poses, lambda: particles.half_sets, lambda: particles.box):
        use_one(use)
    use_one(particles.images)


def use_one(use: Callable[[], object]) -> None:
    """An error of the package in one use does not keep the others from being tried."""
    try:
        use()
    except vg.VerglasError:
        return


# kind -> suffix, what makes a good file, what reads it
READERS: dict[str, tuple[str, Callable[[np.random.Generator], bytes], Sequence[Callable[[Path], object]]]] = {
    "cs": (".cs", _cs, (_particles, read_picks)),
    "particles": (".star", _star, (_particles, read_star, find_micrographs, read_picks)),
    "coordinates": (".star", _coordinates, (read_picks, read_star)),
    "ctf table": (".csv", _csv, (read_ctf_table, read_csv)),
    "x y": (".txt", _xy, (read_picks,)),
    "box": (".box", lambda rng: b"1 2 32 32\n5 6 32 32\n", (read_picks,)),
    "json": (".json", _json, (read_picks, read_json)),
    "document": (".spi", _document, (read_spider_document, read_picks)),
    "mrc": (".mrc", _mrc, (read_header, vg.read_map, read_stack, read_micrograph)),
    "mrc.gz": (".mrc.gz", lambda rng: gzip.compress(_mrc(rng), mtime=0), (vg.read_map, read_micrograph)),
    "mrc.bz2": (".mrc.bz2", lambda rng: bz2.compress(_mrc(rng)), (vg.read_map, read_micrograph)),
    "spider": (".spi", _spider, (lambda path: vg.read_map(path, 1.0), read_micrograph, read_stack)),
    "tiff": (".tif", _tiff, (read_micrograph, vg.io.micrograph_header)),
    "tiff.gz": (".tif.gz", lambda rng: gzip.compress(_tiff(rng), mtime=0), (read_micrograph,)),
    "png": (".png", _png, (read_micrograph, vg.io.micrograph_header)),
    "jpeg": (".jpg", _jpeg, (read_micrograph,)),
}
_SCRATCH = ""


def damaged(kind: str, number: int, folder: Path) -> Path:
    """Write case ``number`` of a kind: the same bytes everywhere."""
    global _SCRATCH
    _SCRATCH = str(folder)
    if not (folder / "s.mrcs").exists():
        write_stack(folder / "s.mrcs", np.zeros((4, 8, 8), np.float32), 2.0)
    suffix, make, _ = READERS[kind]
    rng = np.random.default_rng([number, *kind.encode()])
    content = make(rng)
    for _ in range(int(rng.integers(1, 4))):
        content = _DAMAGES[rng.integers(len(_DAMAGES))](content, rng)
    path = folder / f"case{suffix}"
    path.write_bytes(content)
    return path


def _cut(content: bytes, rng: np.random.Generator) -> bytes:
    return content[: int(rng.integers(0, len(content) + 1))]


def _flip(content: bytes, rng: np.random.Generator) -> bytes:
    changed = bytearray(content)
    for _ in range(int(rng.integers(1, 6)) if changed else 0):
        changed[int(rng.integers(len(changed)))] ^= 1 << int(rng.integers(8))
    return bytes(changed)


def _head(content: bytes, rng: np.random.Generator) -> bytes:
    """Bytes of the first 256 replaced: headers, magic numbers, offsets."""
    changed = bytearray(content)
    for _ in range(int(rng.integers(1, 5)) if changed else 0):
        changed[int(rng.integers(min(256, len(changed))))] = int(rng.integers(256))
    return bytes(changed)


def _number(content: bytes, rng: np.random.Generator) -> bytes:
    """A word of four bytes replaced by a number that is large, negative or not finite."""
    at = int(rng.integers(0, max(1, min(len(content), 512) // 4))) * 4
    value = [2**31 - 1, -1, 0, 2**20, 1 << 28][rng.integers(5)]
    word = (
        struct.pack("<i", value) if rng.random() < 0.7 else struct.pack("<f", [np.nan, np.inf, 1e29][rng.integers(3)])
    )
    return content[:at] + word + content[at + 4 :]


def _word(content: bytes, rng: np.random.Generator) -> bytes:
    """A word between blanks or commas replaced, or one put in."""
    at = int(rng.integers(0, len(content) + 1))
    end = at + int(rng.integers(0, 6))
    return content[:at] + _WORDS[rng.integers(len(_WORDS))] + content[end:]


def _line(content: bytes, rng: np.random.Generator) -> bytes:
    """A line left out, doubled or moved to the end."""
    lines = content.split(b"\n")
    number = int(rng.integers(len(lines)))
    line = lines.pop(number)
    how = rng.integers(3)
    return b"\n".join(
        [*lines[:number], line, line, *lines[number:]] if how == 0 else [*lines, line] if how == 1 else lines
    )


_DAMAGES = (_cut, _flip, _head, _number, _word, _line)


def failure(kind: str, number: int, folder: Path) -> str | None:
    """The exception that comes through, in words; None if there is none."""
    path = damaged(kind, number, folder)
    for reader in READERS[kind][2]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", vg.VerglasWarning)
            # a warning of a library is as little help as its exception
            warnings.simplefilter("error", RuntimeWarning)
            try:
                reader(path)
            except vg.VerglasError:
                continue
            except Exception as error:
                return f"{kind} {number}, {getattr(reader, '__name__', 'reader')}: {type(error).__name__}: {error}"
    return None
