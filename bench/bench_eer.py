"""Reading EER movies of hundreds of camera frames: speed and memory.

    python bench/bench_eer.py [--frames 240] [--rate 0.04] [--side 4096]

A file of ``--frames`` frames of the camera (twelve random ones, written again and again) with ``--rate`` electrons per
pixel each, read as fractions of a tenth of them at the camera's own pixels and at twice as many: seconds of the
processor per frame of the camera, electrons per second, and the peak of memory of a process that goes through the
movie. Beside them ``imagecodecs.eer_decode`` of the same strips, and a plain read of the file's bytes.
"""

from __future__ import annotations

import argparse
import struct
import tempfile
import time
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
from child import VERGLAS
from child import run as run_child

from common import write

RUN_BITS, SKIP = 7, 127
DISTINCT = 12
READ = (
    "import verglas as vg, sys\n"
    "movie = vg.io.open_movie(sys.argv[1], pixel_size_A=1.0, frames_per_fraction=int(sys.argv[2]),"
    " upsampling=int(sys.argv[3]))\n"
    "print(sum(float(frame.sum(dtype='f8')) for frame in movie.frames(ahead=2, threads=2, recycle=True)))\n"
)


def strip_of(pixels: np.ndarray, n_pixels: int, rng: np.random.Generator) -> bytes:
    """One frame's electrons at sorted pixels, at random places within them."""
    ends = np.append(pixels, n_pixels)
    runs = np.diff(ends, prepend=-1) - 1
    skips = runs // SKIP
    # a run of exactly one skip's length and the electron behind it: the skip, then a run of 0
    first = np.cumsum(skips) - skips + np.arange(len(runs))
    values = np.full(int(skips.sum()) + len(runs), SKIP, np.int64)
    at = first + skips
    values[at] = runs - skips * SKIP
    lengths = np.full(len(values), RUN_BITS, np.int64)
    lengths[at] += 4
    values[at] |= rng.integers(0, 16, len(at)) << RUN_BITS
    # the last run leads to the end of the frame: no electron, and none where it is empty
    lengths[-1] = RUN_BITS if runs[-1] % SKIP else 0
    values[-1] &= SKIP
    starts = np.cumsum(lengths) - lengths
    bits = np.zeros(int(starts[-1] + lengths[-1]) + 16, np.uint8)
    for b in range(RUN_BITS + 4):
        there = lengths > b
        bits[starts[there] + b] = (values[there] >> b) & 1
    return np.packbits(bits, bitorder="little").tobytes()


def write_eer(path: Path, strips: list[bytes], shape: tuple[int, int]) -> None:
    """A BigTIFF of one strip per frame, compression 65001."""
    with open(path, "wb") as out:
        out.write(struct.pack("<2sHHHQ", b"II", 43, 8, 0, 0))
        link = 8
        for strip in strips:
            start = out.tell()
            out.write(strip)
            tags = [(256, 4, shape[1]), (257, 4, shape[0]), (258, 3, 1), (259, 3, 65001), (262, 3, 1)]
            tags += [(273, 16, start), (277, 3, 1), (278, 4, shape[0]), (279, 16, len(strip))]
            here = out.tell()
            rows = b"".join(struct.pack("<HHQQ", tag, kind, 1, value) for tag, kind, value in tags)
            out.write(struct.pack("<Q", len(tags)) + rows + bytes(8))
            out.seek(link)
            out.write(struct.pack("<Q", here))
            link = here + 8 + 20 * len(tags)
            out.seek(0, 2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=240)
    parser.add_argument("--rate", type=float, default=0.04, help="electrons per pixel of a frame of the camera")
    parser.add_argument("--side", type=int, default=4096)
    args = parser.parse_args()
    import verglas as vg

    rng, shape = np.random.default_rng(0), (args.side, args.side)
    strips, electrons = [], []
    for _ in range(DISTINCT):
        pixels = np.flatnonzero(rng.random(args.side**2, np.float32) < args.rate)
        strips.append(strip_of(pixels, args.side**2, rng))
        electrons.append(len(pixels))
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "movie.eer"
        write_eer(path, [strips[i % DISTINCT] for i in range(args.frames)], shape)
        total = sum(electrons[i % DISTINCT] for i in range(args.frames))
        per = args.frames // 10
        for upsampling in (1, 2):
            movie = vg.io.open_movie(path, pixel_size_A=1.0, frames_per_fraction=per, upsampling=upsampling)
            before = time.process_time()
            counted = sum(int(movie.source.read(i).sum(dtype=np.int64)) for i in range(len(movie)))
            seconds = time.process_time() - before
            if counted != total:
                raise SystemExit(f"{counted} electrons counted, {total} written")
            _, peak, _ = run_child([VERGLAS[0], "-c", READ, str(path), str(per), str(upsampling)])
            rows.append(row("verglas", upsampling, seconds, args.frames, total) | {"peak_GB": peak})
            before = time.process_time()
            for strip in strips:
                grid = (args.side * upsampling, args.side * upsampling)
                imagecodecs.eer_decode(strip + bytes(2 + len(strip) % 2), grid, RUN_BITS, 2, 2, superres=upsampling - 1)
            rows.append(row("imagecodecs", upsampling, time.process_time() - before, DISTINCT, sum(electrons)))
        before = time.process_time()
        size = len(path.read_bytes())
        rows.append({"what": "bytes", "ms_per_frame": 1e3 * (time.process_time() - before) / args.frames})
    write("eer", rows, frames=args.frames, side_px=args.side, rate=args.rate, file_MB=size / 1e6)


def row(what: str, upsampling: int, seconds: float, frames: int, electrons: int) -> dict[str, Any]:
    """Per frame of the camera."""
    return {
        "what": what,
        "upsampling": upsampling,
        "ms_per_frame": 1e3 * seconds / frames,
        "million_electrons_per_s": electrons / seconds / 1e6,
    }


if __name__ == "__main__":
    main()
