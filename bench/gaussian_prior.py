"""What the Gaussian prior of maps assumes of Fourier coefficients, and whether a set of maps bears it out.

Bayesian reconstruction takes the coefficients of a map for independent, Gaussian and of mean zero. Over a set of maps
of one box each coefficient (real and imaginary parts, shells 1 to half of Nyquist) is asked whether its mean is zero
(t-test), whether it is Gaussian (D'Agostino and Pearson), and pairs of coefficients whether they are independent
(Spearman's rank correlation, of values and of magnitudes), at 5 %: so many would fail by chance. After Sorzano et al.
2015 (AIMS Biophysics 2, 8-20), who find 83 % dependent, 86 % non-Gaussian and 100 % of non-zero mean in their maps.

    python bench/gaussian_prior.py [maps.mrc ...] [--figure gaussian_prior.png]

Without maps: ``--count`` phantoms of three shapes in one box, as they are built and turned at random; conformations of
one of them, a half turned by 0 to 50 degrees about either of two axes, as maps of one specimen are; and noise beside
them. How many coefficients are told from the prior grows with the number of maps. Writes
bench/results/gaussian_prior.json and the figure.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from scipy import stats

import verglas as vg
from verglas import fourier
from verglas.map_geometry.map_alignment import turned_map

from common import write

BOX, PIXEL_A, DIAMETER_A, LEVEL = 24, 5.0, 90.0, 0.05


def phantoms(count: int, *, turned: bool) -> list[np.ndarray]:
    matrices = vg.euler_to_matrix(vg.geometry.random_orientations(count, seed=1))
    maps = []
    for seed in range(count):
        model = vg.simulate.phantom(
            BOX, PIXEL_A, DIAMETER_A, seed=seed, shape=("globule", "arch", "dumbbell")[seed % 3]
        )
        data = vg.simulate.density(model, BOX, PIXEL_A, b_factor_A2=300.0, threads=1).data
        maps.append(turned_map(data, matrices[seed], threads=1) if turned else data)
    return maps


def conformations(count: int) -> list[np.ndarray]:
    """Of one particle: two motions, independent of each other."""
    rng, made = np.random.default_rng(3), []
    model = vg.simulate.phantom(BOX, PIXEL_A, DIAMETER_A, seed=0)
    for first, second in rng.uniform(0, 50, (count, 2)):
        moved = vg.simulate.hinge(vg.simulate.hinge(model, first), second, axis=(0, 1, 0), side=(0, 0, 1))
        made.append(vg.simulate.density(moved, BOX, PIXEL_A, b_factor_A2=300.0, threads=1).data)
    return made


def coefficients(maps: list[np.ndarray]) -> np.ndarray:
    """(maps, coefficients): real and imaginary parts, each map of unit power."""
    shape = maps[0].shape
    shells = fourier.shells(shape)
    inside = (shells >= 1) & (shells <= shape[0] // 4) & (fourier.half_weights(shape) > 1)
    rows = []
    for data in maps:
        values = fourier.forward(data.astype(np.float32), 3)[inside]
        both = np.concatenate([values.real, values.imag])
        rows.append(both / np.linalg.norm(both))
    return np.array(rows)


def ask(name: str, maps: list[np.ndarray], pairs: int = 1000) -> tuple[dict[str, object], dict[str, np.ndarray]]:
    x, rng = coefficients(maps), np.random.default_rng(0)
    mean = stats.ttest_1samp(x, 0.0).pvalue
    shape = stats.normaltest(x).pvalue
    dependence = np.empty(pairs)
    for i in range(pairs):
        a, b = x[:, rng.choice(x.shape[1], 2, replace=False)].T
        # Two tests: the smaller value is doubled.
        both = stats.spearmanr(a, b).pvalue, stats.spearmanr(np.abs(a - a.mean()), np.abs(b - b.mean())).pvalue
        dependence[i] = min(1.0, 2 * min(both))
    p = {"mean zero": mean, "Gaussian": shape, "independent": dependence}
    row: dict[str, object] = {"maps": name, "count": len(maps), "coefficients": x.shape[1], "pairs": pairs}
    row["by_chance"] = LEVEL
    row |= {f"not_{key.replace(' ', '_')}": float((values < LEVEL).mean()) for key, values in p.items()}
    return row, p


def figure(path: Path, found: dict[str, dict[str, np.ndarray]]) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    fig, axes = plt.subplots(len(found), 3, figsize=(9, 2.6 * len(found)), squeeze=False, layout="constrained")
    for row, (name, p) in zip(axes, found.items(), strict=True):
        for ax, (question, values) in zip(row, p.items(), strict=True):
            ax.hist(values, 20, (0, 1), weights=np.full(len(values), 1 / len(values)))
            ax.axhline(0.05, color="0.4", linewidth=0.8)  # what chance alone gives
            ax.set(title=f"{name}: {question}?", xlabel="p-value", ylabel="share")
    fig.savefig(path, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("maps", nargs="*", type=Path)
    parser.add_argument("--figure", type=Path, default=Path("gaussian_prior.png"))
    parser.add_argument("--count", type=int, default=60)
    given = parser.parse_args()
    if given.maps:
        sets = {"given": [vg.read_map(path).data for path in given.maps]}
        if len({m.shape for m in sets["given"]}) > 1 or len(given.maps) < 20:
            parser.error("expected 20 maps or more of one box")
    else:
        sets = {"as built": phantoms(given.count, turned=False), "turned": phantoms(given.count, turned=True)}
        sets["conformations of one"] = conformations(given.count)
        noise = np.random.default_rng(2).standard_normal((given.count, BOX, BOX, BOX)).astype(np.float32)
        sets["noise"] = list(noise)
    rows, found = [], {}
    for name, maps in sets.items():
        row, found[name] = ask(name, maps)
        rows.append(row)
    figure(given.figure, found)
    write("gaussian_prior", rows)


if __name__ == "__main__":
    main()
