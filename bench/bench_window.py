"""Which window for project and insert: error against the exact transform, memory and speed (docs/kernels.md, table 1).

    python bench/bench_window.py

Maps: noise in a ball of three quarters of the box (a particle), noise in the whole cube (the worst case), and, where
they lie beside the project, the exact data of ../shared/data/exact. The oracle is finufft at 1e-10.
"""

from __future__ import annotations

import finufft
import mrcfile
import numpy as np
from scipy.spatial.transform import Rotation

from verglas import fourier, gridding, ops

from common import ROOT, compare, write

BOX, VIEWS = 64, 40
CHOICES = [
    ("linear", 2, 2.0),
    ("kaiser-bessel", 4, 1.25),
    ("kaiser-bessel", 4, 1.5),
    ("semicircle", 4, 1.5),
    ("kaiser-bessel", 4, 2.0),
    ("kaiser-bessel", 6, 1.25),
    ("semicircle", 6, 1.25),
    ("kaiser-bessel", 6, 1.5),
    ("kaiser-bessel", 8, 1.25),
]


def maps() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    x = np.arange(BOX) - BOX // 2
    radius = np.sqrt(x[:, None, None] ** 2 + x[:, None] ** 2 + x**2)
    noise = rng.normal(size=(BOX,) * 3).astype(np.float32)
    found = {"ball": noise * (radius <= 0.375 * BOX), "cube": noise}
    exact = ROOT.parent / "shared" / "data" / "exact" / "truth.mrc"
    if exact.is_file():
        found["exact_data"] = mrcfile.read(exact).astype(np.float32)
    return found


def exact_slices(volume: np.ndarray, matrices: np.ndarray, inside: np.ndarray) -> np.ndarray:
    ky, kx = (np.broadcast_to(k, inside.shape)[inside] for k in fourier.half_grid((BOX, BOX)))
    out = []
    for a in matrices:
        w = 2 * np.pi / BOX * (kx[:, None] * a[0] + ky[:, None] * a[1])
        z, y, x = (np.ascontiguousarray(w[:, i]) for i in (2, 1, 0))
        out.append(finufft.nufft3d2(z, y, x, volume.astype(np.complex128), eps=1e-10, isign=-1))
    return np.array(out)


def main() -> None:
    matrices = Rotation.random(VIEWS, random_state=1).as_matrix()
    inside = fourier.radius((BOX, BOX)) < BOX / 2 - 1
    inside[BOX // 2] = inside[:, BOX // 2] = False
    volumes = maps()
    truth = {name: exact_slices(v, matrices, inside) for name, v in volumes.items()}
    many = Rotation.random(2000, random_state=2).as_matrix()
    images = fourier.forward(np.random.default_rng(3).normal(size=(2000, BOX, BOX)).astype(np.float32), 2)
    rows = []
    for window, width, oversampling in CHOICES:
        grid = ops.Grid(BOX, window=window, width=width, oversampling=oversampling)
        spectra = {name: gridding.to_grid(v, grid) for name, v in volumes.items()}
        row = {"window": window, "taps": width, "oversampling": oversampling, "padded": grid.padded}
        for name in volumes:
            got = ops.project(spectra[name], grid, matrices)[:, inside]
            row[f"error_{name}"] = float(np.linalg.norm(got - truth[name]) / np.linalg.norm(truth[name]))
        out = np.empty_like(images)
        sums = ops.GridSums.zeros(grid)
        times = compare(
            {
                "project": lambda s=spectra["ball"], g=grid, o=out: ops.project(s, g, many, out=o, threads=1),
                "insert": lambda s=sums: ops.insert(s, images, many, threads=1),
            },
            repeats=3,
        )
        row["spectrum_MB_at_256"] = (
            np.prod(ops.Grid(256, window=window, width=width, oversampling=oversampling).shape) * 8e-6
        )
        row["sums_MB_at_256"] = row["spectrum_MB_at_256"] * 3
        row["project_images_per_s"] = 2e6 / times["project"]["ms"]
        row["insert_images_per_s"] = 2e6 / times["insert"]["ms"]
        rows.append(row)
    write("window", rows, box=BOX, threads=1)


if __name__ == "__main__":
    main()
