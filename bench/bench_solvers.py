"""Solvers and priors: the normal operator's time, SIRT of a large slice, few views, and methods on tilt series.

    python bench/bench_solvers.py [--only views seeds tilts dense operator slice]

- views: Shepp and Logan's phantom, 128 pixels, 30 views of 180 degrees, no noise: NRMSE of each way; and total
  variation in 60 iterations on ten phantoms of ten ellipses in a large one, seeds from 7100 on.
- seeds: slices of discs, boxes and blobs, 32 pixels, 21 tilts, noise of 0.2 or 0.5 of the projections' deviation;
  seeds from 7100 on: FRC of left-out tilts without noise, ICON (weight one standard deviation, set beforehand)
  beside back-projection; correlation in the missing wedge, FIRT (knee 1) beside ART, both of relaxation 0.2 and 18
  sweeps.
- tilts: six ellipsoids in 24 x 16 x 24, 21 tilts to 60 degrees, noise; seeds from 40 on: correlation with the
  truth, in the missing wedge alone (shells to half of Nyquist), and of left-out tilts.
- dense: a dense system of 16^3 unknowns: distance from NumPy's solution and iterations of every solver, at a residual
  of 2e-5.
- operator: particles with CTF, 128^3 with 1,000 and 100,000 of them (``--box``, ``--views`` for others; minutes): one
  application of the normal operator beside two transforms of twice the side, in turn, processor time; peak memory.
- slice: 2048 x 2048, 60 tilts: processor time of an iteration of SIRT, beside astra-toolbox and scikit-image where they
  are installed (with OMP_NUM_THREADS=1 all take one thread).

Writes bench/results/solvers.json, parts apart.
"""

from __future__ import annotations

import argparse
import json
import resource
import time
from collections.abc import Callable, Sequence

import numpy as np
import scipy.fft

import verglas as vg
from verglas import ops
from verglas.reconstruction import operators, solve, solve_firt, solve_icon
from verglas.reconstruction.priors import Shaped, TotalVariation
from verglas.reconstruction.tomogram import TomogramSettings, reconstruct_tilts

from common import RESULTS, write

# Value added, half axes, centre, turn in degrees (Shepp and Logan 1974, contrast as Toft 1996).
ELLIPSES = (
    (1, 0.69, 0.92, 0, 0, 0),
    (-0.8, 0.6624, 0.874, 0, -0.0184, 0),
    (-0.2, 0.11, 0.31, 0.22, 0, -18),
    (-0.2, 0.16, 0.41, -0.22, 0, 18),
    (0.1, 0.21, 0.25, 0, 0.35, 0),
    (0.1, 0.046, 0.046, 0, 0.1, 0),
    (0.1, 0.046, 0.046, 0, -0.1, 0),
    (0.1, 0.046, 0.023, -0.08, -0.605, 0),
    (0.1, 0.023, 0.023, 0, -0.606, 0),
    (0.1, 0.023, 0.046, 0.06, -0.605, 0),
)


def shepp_logan(n: int) -> np.ndarray:
    return ellipses(n, ELLIPSES)


def any_ellipses(n: int, seed: int) -> np.ndarray:
    """Ten ellipses of either sign, in a large one."""
    rng = np.random.default_rng([seed, 3])
    inside = [
        (rng.choice([-1, 1]) * rng.uniform(0.1, 0.5), *rng.uniform(0.03, 0.3, 2), *rng.uniform(-0.5, 0.5, 2), turn)
        for turn in rng.uniform(0, 180, 10)
    ]
    return ellipses(n, [(1.0, 0.75, 0.9, 0.0, 0.0, 0.0), *inside])


def ellipses(n: int, parts: Sequence[tuple[float, ...]]) -> np.ndarray:
    y, x = (np.indices((n, n)) - n / 2) / (n / 2)
    out = np.zeros((n, n), np.float32)
    for value, a, b, cx, cy, degrees in parts:
        t = np.deg2rad(degrees)
        u, w = (x - cx) * np.cos(t) + (y - cy) * np.sin(t), -(x - cx) * np.sin(t) + (y - cy) * np.cos(t)
        out += value * ((u / a) ** 2 + (w / b) ** 2 < 1)
    return out


def few_views() -> list[dict[str, object]]:
    n, angles = 128, np.arange(-90, 90, 6.0)
    truth = shepp_logan(n)
    A = operators.tilt_series(np.zeros((len(angles), 1, n)), angles, threads=1)
    data = A @ truth.ravel()
    tv = Shaped(TotalVariation(0.05, iterations=20), A.map_shape)
    ways: dict[str, Callable[[], np.ndarray]] = {
        "wbp": lambda: operators.weighted_back_projection(A, data.reshape(A.data_shape)),
        "sirt, 100 iterations": lambda: solve(A, data, "sirt", iterations=100).x,
        "tv, preconditioned, 60 iterations": lambda: (
            solve(A, data, "preconditioned-primal-dual", prior=tv, iterations=60).x
        ),
        "tv, fista, 150 iterations": lambda: solve(A, data, "fista", prior=tv, iterations=150).x,
        "tv, fista, 400 iterations": lambda: solve(A, data, "fista", prior=tv, iterations=400).x,
        "icon, 400 iterations": lambda: solve_icon(A, data, A.map_shape, 0.02, iterations=400).x,
    }
    rows = []
    for name, way in ways.items():
        begin = time.process_time()
        x = way().ravel()
        error = float(np.linalg.norm(x - truth.ravel()) / np.linalg.norm(truth))
        rows.append({"part": "views", "what": name, "nrmse": error, "processor_s": time.process_time() - begin})
        rows[-1]["of_wbp"] = error / rows[0]["nrmse"]
    of_wbp = []
    for seed in range(7100, 7110):
        truth = any_ellipses(n, seed).ravel()
        data = A @ truth
        x = solve(A, data, "preconditioned-primal-dual", prior=tv, iterations=60).x
        back = operators.weighted_back_projection(A, data.reshape(A.data_shape)).ravel()
        of_wbp.append(float(np.linalg.norm(x - truth) / np.linalg.norm(back - truth)))
    rows.append({"part": "views", "what": "tv, preconditioned, 60 iterations, ten unseen phantoms"})
    rows[-1] |= {"of_wbp": float(np.median(of_wbp)), "of_wbp_worst": max(of_wbp)}
    return rows


def slice_of(kind: str, seed: int, n: int = 32) -> np.ndarray:
    rng, out = np.random.default_rng(seed), np.zeros((n, n))
    z, x = np.indices((n, n)) - n // 2
    if kind == "discs":
        out += np.hypot(z, x) < 11
    for _ in range({"discs": 4, "boxes": 5, "blobs": 25}[kind]):
        cz, cx = rng.normal(0, 4, 2) if kind == "blobs" else rng.uniform(-7, 7, 2)
        if kind == "discs":
            out += np.hypot(z - cz, x - cx) < rng.uniform(1.5, 4)
        elif kind == "boxes":
            out += (np.abs(z - cz) < rng.uniform(1, 4)) & (np.abs(x - cx) < rng.uniform(1, 4))
        else:
            out += rng.uniform(0.5, 1.5) * np.exp(-((z - cz) ** 2 + (x - cx) ** 2) / 2.88)
    return out[:, None].astype(np.float32)


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float((a * b.conj()).real.sum() / np.linalg.norm(a) / np.linalg.norm(b))


def unseen_seeds(seeds: int = 10) -> list[dict[str, object]]:
    n, tilts, rows = 32, np.arange(-60, 61, 6.0), []
    A = operators.tilt_series(np.zeros((len(tilts), 1, n)), tilts, threads=1)
    matrix = np.stack([A @ unit for unit in np.eye(n * n, dtype=np.float32)], axis=1)
    kz, kx = np.fft.fftfreq(n)[:, None], np.fft.fftfreq(n)
    wedge = (np.abs(kz) > np.abs(kx) * np.tan(np.deg2rad(60))) & (np.hypot(kz, kx) < 0.25)
    for kind in ("discs", "boxes", "blobs"):
        figures = []
        for seed in range(7100, 7100 + seeds):
            truth = slice_of(kind, seed)
            clean = ops.radon(truth, tilts, threads=1)
            sigma = float(clean.std()) * (0.2 if seed % 2 else 0.5)
            series = clean + sigma * np.random.default_rng(seed).standard_normal(clean.shape).astype(np.float32)

            def by_icon(images: np.ndarray, angles: np.ndarray, w: float = sigma**2 / 2) -> np.ndarray:
                B = operators.tilt_series(images, angles, threads=1)
                return solve_icon(B, images, B.map_shape, w).x.reshape(B.map_shape)

            def by_wbp(images: np.ndarray, angles: np.ndarray) -> np.ndarray:
                B = operators.tilt_series(images, angles, threads=1)
                return operators.weighted_back_projection(B, images)

            def frc(way: Callable[..., np.ndarray], images: np.ndarray, noiseless: np.ndarray) -> float:
                made = [(noiseless[i], operators.leave_one_out(images, tilts, way, i)[1]) for i in (4, 9, 15)]
                return float(np.mean([cosine(*(np.fft.rfft(v.ravel())[1:9] for v in pair)) for pair in made]))

            more = {"relaxation": 0.2, "method": "art"}
            maps = (
                solve(matrix, series.ravel(), iterations=18, **more),
                solve_firt(matrix, series.ravel(), A.map_shape, 1.0, rounds=5, iterations=3, **more),
            )
            inside = [cosine(*(np.fft.fft2(v.reshape(n, n))[wedge] for v in (one.x, truth))) for one in maps]
            figures.append((frc(by_wbp, series, clean), frc(by_icon, series, clean), *inside))
        names = ("wbp_frc", "icon_frc", "art_wedge", "firt_wedge")
        values = np.transpose(figures)
        rows.append({"part": "seeds", "what": kind} | dict(zip(names, np.round(values, 4).tolist(), strict=True)))
        rows[-1] |= {
            "icon_better": int((values[1] > values[0]).sum()),
            "firt_better": int((values[3] > values[2]).sum()),
        }
    return rows


def ellipsoids(seed: int) -> np.ndarray:
    shape = np.array([24, 16, 24])
    rng, grid = np.random.default_rng(seed), np.indices(tuple(shape)) - (shape // 2)[:, None, None, None]
    out = np.zeros(tuple(shape), np.float32)
    for _ in range(6):
        centre, half = rng.uniform(-6, 6, 3) * [1, 0.6, 1], rng.uniform(1.5, 4, 3)
        out += (((grid - centre[:, None, None, None]) / half[:, None, None, None]) ** 2).sum(axis=0) < 1
    return out


def tilt_series(seeds: int = 3) -> list[dict[str, object]]:
    tilts = np.arange(-60, 61, 6.0)
    kz, ky, kx = np.fft.fftfreq(24)[:, None, None], np.fft.fftfreq(16)[:, None], np.fft.fftfreq(24)
    wedge = (np.abs(kz) > np.abs(kx) * np.tan(np.deg2rad(60))) & (np.sqrt(kz**2 + ky**2 + kx**2) < 0.25)
    rows = []
    for method in ("wbp", "sirt", "tv", "icon", "firt", "mbir"):
        figures = []
        for seed in range(40, 40 + seeds):
            truth = ellipsoids(seed)
            series = ops.radon(truth, tilts, threads=1)
            series = series + 0.5 * np.random.default_rng(seed).standard_normal(series.shape).astype(np.float32)
            settings = TomogramSettings(method, iterations=None if method == "wbp" else 30)
            made = reconstruct_tilts(series, tilts, settings, check_tilts=3, threads=1)
            a, b = (np.fft.fftn(v)[wedge] for v in (made.volume, truth))
            inside = (a * b.conj()).real.sum() / np.linalg.norm(a) / np.linalg.norm(b)
            whole = np.corrcoef(made.volume.ravel(), truth.ravel())[0, 1]
            figures.append((whole, inside, np.mean([c for _, c in made.left_out])))
        of_truth, in_wedge, left_out = np.round(np.transpose(figures), 3).tolist()
        rows.append({"part": "tilts", "what": method, "correlation": of_truth, "missing_wedge": in_wedge})
        rows[-1]["left_out_tilts"] = left_out
    return rows


def processor_s(call: Callable[[], object]) -> float:
    begin = time.process_time()
    call()
    return time.process_time() - begin


def dense_system(side: int = 16) -> list[dict[str, object]]:
    """Every solver on a full matrix of side^3 unknowns; those that go by rows on one whose rows see all alike."""
    n, rng = side**3, np.random.default_rng(16)
    part = rng.standard_normal((n, n), np.float32)
    near = np.eye(n) + 0.05 * (part + part.T) / np.sqrt(2 * n)
    # Cosine transform of vectors with random signs: dense and orthogonal.
    turned = scipy.fft.dct(rng.choice([-1.0, 1.0], n)[:, None] * near, axis=0, norm="ortho")
    data = rng.standard_normal(n)
    expected = {id(A): np.linalg.solve(A, data) for A in (near, turned)}  # square and regular: what lstsq gives
    # Steps that are means over the rows of a block are as many times too short for orthogonal ones.
    settings: dict[str, dict[str, object]] = {
        "sirt": {"relaxation": 0.6 * n},
        "cimmino": {"relaxation": 0.9 * n},
        "cav": {"relaxation": 0.9 * n},
        "sart": {"blocks": 8, "relaxation": 0.5 * n / 8},
        "bicav": {"blocks": 8, "relaxation": 0.9 * n / 8},
    }
    rows = []
    for method in DENSE:
        matrix = near if method in SQUARE else turned
        begin = time.process_time()
        solution = solve(matrix, data, method, iterations=100, tolerance=2e-5, **settings.get(method, {}))
        answer = expected[id(matrix)]
        error = float(np.linalg.norm(solution.x - answer) / np.linalg.norm(answer))
        rows.append({"part": "dense", "what": method, "unknowns": n, "error": error})
        rows[-1] |= {"iterations": solution.iterations, "processor_s": time.process_time() - begin}
        print(rows[-1], flush=True)
    return rows


SQUARE = ("richardson", "cg", "conjugate-residuals", "bicg", "bicgstab", "gmres", "cgs", "qmr")
DENSE = ("landweber", "jacobi", "gauss-seidel", "sirt", "cimmino", "cav", "art", "sart", "bicav", "sgd", *SQUARE)


_BLOCK = 10000  # particles whose weights are summed at a time


def posed(box: int, count: int, seed: int) -> vg.Particles:
    """Particles with poses and CTFs; the operator reads no images, so one row stands for all."""
    defocus = np.random.default_rng(seed).uniform(10000, 25000, count)
    return vg.Particles.from_images(
        np.broadcast_to(np.zeros((1, box, box), np.float32), (count, box, box)),
        256.0 / box,
        poses=vg.Poses(vg.geometry.random_orientations(count, seed=seed)),
        optics=vg.Optics(defocus, defocus, pixel_size_A=256.0 / box),
    )


def normal_operator(box: int = 128, views: tuple[int, ...] = (1000, 100000)) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = []
    for count in views:
        begin, weights = time.process_time(), None
        for block in range(0, count, _BLOCK):
            operator = operators.particles(posed(box, min(_BLOCK, count - block), seed=block), threads=1)
            weights = operator.normal_weights(weights)
        normal = operator.normal(weights)
        made = time.process_time() - begin
        peak_MB = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        rng = np.random.default_rng(1)
        x = rng.standard_normal(box**3).astype(np.float32)
        cube = np.zeros((2 * box,) * 3, np.float32)

        def two_transforms(cube: np.ndarray = cube) -> None:
            scipy.fft.irfftn(scipy.fft.rfftn(cube, workers=1), s=cube.shape, workers=1)

        # In turn, so that both meet the same neighbours on the machine; the first of each warms the plans.
        times = np.array([[processor_s(lambda n=normal, v=x: n @ v), processor_s(two_transforms)] for _ in range(8)])
        ours, transforms = np.median(times[1:], axis=0)
        rows.append({"part": "operator", "what": "normal operator", "box": box, "particles": count})
        rows[-1] |= {"processor_s": ours, "two_transforms_processor_s": transforms}
        rows[-1] |= {"ratio": float(np.median(times[1:, 0] / times[1:, 1]))}
        rows[-1] |= {"made_in_processor_s": made, "peak_memory_MB": peak_MB}
        print(rows[-1], flush=True)
    return rows


def large_slice(side: int = 2048, tilts: int = 60, rounds: int = 2) -> list[dict[str, object]]:
    """An iteration of SIRT and of peers on the same slice, in turn, one thread each; 200 take 200 times as long."""
    angles = np.linspace(-60, 60, tilts)
    A = operators.tilt_series(np.zeros((tilts, 1, side)), angles, threads=1)
    disc = (np.hypot(*(np.indices((side, side)) - side // 2)) < side / 3).astype(np.float32)
    data = A @ disc.ravel()

    def ours() -> float:
        ends: list[float] = []
        solve(A, data, "sirt", iterations=4, callback=lambda *_: ends.append(time.process_time()))
        return (ends[-1] - ends[0]) / 3

    ways = {"verglas sirt": ours} | peers_of_slice(data.reshape(tilts, side), angles)
    taken = np.array([[way() for way in ways.values()] for _ in range(rounds)])
    rows: list[dict[str, object]] = []
    for name, times in zip(ways, taken.T, strict=True):
        rows.append({"part": "slice", "what": name, "side": side, "tilts": tilts})
        rows[-1] |= {"processor_s_of_an_iteration": float(np.median(times)), "rounds": rounds}
        rows[-1] |= {"times_ours": float(np.median(times / taken[:, 0]))}
    return rows


def peers_of_slice(sinogram: np.ndarray, angles_deg: np.ndarray) -> dict[str, Callable[[], float]]:
    """Of what is installed: ASTRA's SIRT on the processor (linear interpolation, as ours) and scikit-image's SART."""
    ways: dict[str, Callable[[], float]] = {}
    side = sinogram.shape[1]
    try:
        import astra
    except ImportError:
        print("astra-toolbox is not installed")
    else:
        volume = astra.create_vol_geom(side, side)
        beams = astra.create_proj_geom("parallel", 1.0, side, np.deg2rad(angles_deg))
        settings = astra.astra_dict("SIRT")
        settings["ProjectorId"] = astra.create_projector("linear", beams, volume)
        settings["ProjectionDataId"] = astra.data2d.create("-sino", beams, sinogram)
        settings["ReconstructionDataId"] = astra.data2d.create("-vol", volume)
        algorithm = astra.algorithm.create(settings)

        def by_astra() -> float:
            # Each call makes its weights anew, which the difference leaves out.
            one, three = (processor_s(lambda n=n: astra.algorithm.run(algorithm, n)) for n in (1, 3))
            return (three - one) / 2

        ways[f"astra-toolbox {astra.__version__} SIRT"] = by_astra
    try:
        import skimage
        from skimage.transform import iradon_sart
    except ImportError:
        print("scikit-image is not installed")
    else:
        columns = np.ascontiguousarray(sinogram.T, np.float32)
        name = f"scikit-image {skimage.__version__} iradon_sart"
        ways[name] = lambda: processor_s(lambda: iradon_sart(columns, theta=angles_deg))
    return ways


PARTS = {
    "views": few_views,
    "seeds": unseen_seeds,
    "tilts": tilt_series,
    "dense": dense_system,
    "operator": normal_operator,
    "slice": large_slice,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="+", choices=list(PARTS), default=list(PARTS))
    parser.add_argument("--box", type=int, default=128, help="of the operator")
    parser.add_argument("--views", type=int, nargs="+", default=[1000, 100000], help="of the operator")
    given = parser.parse_args()
    parts = PARTS | {"operator": lambda: normal_operator(given.box, tuple(given.views))}
    for name in given.only:
        rows, path = parts[name](), RESULTS / "solvers.json"
        old = json.loads(path.read_text(encoding="utf-8"))["rows"] if path.is_file() else []
        write("solvers", [row for row in old if row["part"] != name] + rows)


if __name__ == "__main__":
    main()
