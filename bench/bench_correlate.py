"""ops.correlate against the same pipeline in scipy.fft and NumPy. Writes bench/results/correlate.json.

The pipeline of both: NCC of every image with one reference whose transform is made once (forward transform, conjugate
product, inverse transform, mean and standard deviation removed, peak within max_shift, parabola through it). scipy runs
in float32 on the same threads, in chunks that stay in cache. GFLOP/s count the two real transforms of an image as
2 x 2.5 N^2 log2 N^2, for both.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import numpy as np
import scipy.fft

from verglas import ops
from verglas._native import default_threads

from common import compare, timed, write


def scipy_pipeline(
    images: np.ndarray, reference: np.ndarray, reach: int | None, threads: int, chunk: int
) -> np.ndarray:
    box = images.shape[1]
    g = scipy.fft.rfft2((reference - reference.mean()) / reference.std())
    offsets = np.arange(-(box // 2), (box + 1) // 2) if reach is None else np.arange(-reach - 1, reach + 2)
    found = []
    for start in range(0, len(images), chunk):
        f = images[start : start + chunk]
        product = scipy.fft.rfft2(f, workers=threads)
        np.conjugate(product, out=product)
        product *= g
        c = scipy.fft.irfft2(product, s=(box, box), workers=threads)
        if reach is not None:
            c = c[:, offsets[:, None] % box, offsets[None, :] % box]
        else:
            c = scipy.fft.fftshift(c, axes=(1, 2))
        found.append(peaks(c, offsets, f.std(axis=(1, 2)) * box**2, edge=0 if reach is None else 1))
    return np.concatenate(found)


def peaks(c: np.ndarray, offsets: np.ndarray, norm: np.ndarray, edge: int) -> np.ndarray:
    inner = c[:, edge : c.shape[1] - edge, edge : c.shape[2] - edge]
    y, x = np.unravel_index(inner.reshape(len(c), -1).argmax(axis=1), inner.shape[1:])
    y, x, i, side = y + edge, x + edge, np.arange(len(c)), c.shape[1]
    value, out = c[i, y, x], []
    for at, (below, above) in (
        (x, (c[i, y, (x - 1) % side], c[i, y, (x + 1) % side])),
        (y, (c[i, (y - 1) % side, x], c[i, (y + 1) % side, x])),
    ):
        out.append(offsets[at] + 0.5 * (below - above) / (below - 2 * value + above))
    return np.stack([*out, value / norm], axis=1)


def row(images: np.ndarray, reach: int | None, threads: int, repeats: int) -> dict[str, float | int | str]:
    """Times of all images; a few of them warm the candidates up, because a round of all takes up to a minute."""
    n, box = images.shape[:2]
    reference = images[0]
    chunk = max(8, (1 << 21) // (box * box * 4))  # 2 MiB of images at a time

    def ours(stack: np.ndarray, fit: str, **options: np.ndarray) -> ops.Correlation:
        return ops.correlate(stack, reference, max_shift_px=reach, fit=fit, threads=threads, **options)

    def peer(stack: np.ndarray) -> np.ndarray:
        return scipy_pipeline(stack, reference, reach, threads, chunk)

    def candidates(stack: np.ndarray) -> dict[str, Callable[[], object]]:
        return {
            "parabola": lambda: ours(stack, "parabola"),
            "newton": lambda: ours(stack, "newton"),
            "half band": lambda: ours(stack, "newton", weights=np.ones(box // 4 + 1)),
            "scipy": lambda: peer(stack),
        }

    few = images[: max(64, n // 20)]
    agree = np.abs(ours(few, "none").scores - peer(few)[:, 2]).max()  # the peer reports the integer peak
    compare(candidates(few), 1, warmup=0)
    times = compare(candidates(images), repeats, warmup=0)
    gflop = n * 2 * 2.5 * box**2 * np.log2(box**2) / 1e9
    ms = {name: t["ms"] for name, t in times.items()}
    return {
        "what": "shifts",
        "box": box,
        "images": n,
        "threads": threads,
        "rounds": repeats,
        "max_shift_px": "all" if reach is None else reach,
        "ms": ms["parabola"],
        "us_per_image": 1e3 * ms["parabola"] / n,
        "GFLOP_per_s": 1e3 * gflop / ms["parabola"],
        "scipy_ms": ms["scipy"],
        "scipy_GFLOP_per_s": 1e3 * gflop / ms["scipy"],
        "speedup": ms["scipy"] / ms["parabola"],
        "newton_ms": ms["newton"],
        "newton_speedup": ms["scipy"] / ms["newton"],
        "newton_half_band_ms": ms["half band"],
        "largest_score_difference": float(agree),
    }


def rotation_row(images: np.ndarray, threads: int, repeats: int) -> dict[str, float | int | str]:
    """The joint search over 25 shifts and all angles, one reference; no peer does it."""
    n, box = images.shape[:2]
    options = {"max_shift_px": 2, "radius_px": (1.0, 0.35 * box), "threads": threads}
    searches = ops.correlate_rotations(images[:1], images[0], **options).searches
    ms = timed(lambda: ops.correlate_rotations(images, images[0], **options), repeats)["ms"]
    return {
        "what": "rotations",
        "box": box,
        "images": n,
        "threads": threads,
        "searches": searches,
        "ms": ms,
        "us_per_image": 1e3 * ms / n,
        "us_per_search": 1e3 * ms / n / searches,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--boxes", type=int, nargs="+", default=[64, 128, 256])
    parser.add_argument("--threads", type=int, nargs="+", default=[1, default_threads()])
    parser.add_argument("--repeats", type=int, help="rounds; by default 5, 3 and 1 for boxes to 64, 128 and beyond")
    args = parser.parse_args()
    rows = []
    for box in args.boxes:
        images = np.random.default_rng(0).standard_normal((args.images, box, box), dtype=np.float32)
        repeats = args.repeats or (5 if box <= 64 else 3 if box <= 128 else 1)
        for threads in dict.fromkeys(args.threads):
            # the whole box on all threads only: it differs little
            for reach in (box // 8, None) if threads == max(args.threads) else (box // 8,):
                rows.append(row(images, reach, threads, repeats))
            rows.append(rotation_row(images[: args.images // 10], threads, repeats))
    write("correlate", rows, peer=f"scipy.fft {scipy.__version__} + numpy {np.__version__}, float32, same threads")


if __name__ == "__main__":
    main()
