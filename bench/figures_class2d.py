"""The figures of docs/guide/class2d.md: averages of ten planted views with noise among them, and two bias checks.

    python bench/figures_class2d.py

Writes docs/figures/class2d.png and docs/figures/class2d_bias_{data,noise}.png.
"""

from __future__ import annotations

import numpy as np
from bench_class2d import planted

import verglas as vg
from verglas.classification import check_bias
from verglas.report.bias import figure
from verglas.report.class2d import montage

from common import ROOT

FIGURES = ROOT / "docs" / "figures"


def main() -> None:
    particles, _ = planted(800, 0.2, 7)
    found = vg.classify2d(particles, classes=12, diameter_A=150)
    print(found.verdict)
    (FIGURES / "class2d.png").write_bytes(montage(found))

    model = vg.simulate.phantom(64, 3.0, 130.0, seed=1)
    poses = vg.Poses(np.column_stack([np.full(400, 30), np.full(400, 70), np.arange(400) * 1.7]), np.zeros((400, 2)))
    data = vg.simulate.particles(model, 400, 64, 3.0, snr=0.05, seed=1, poses=poses)
    view = vg.project(vg.simulate.density(model, 64, 3.0), vg.Poses([[30, 70, 0]]))
    white = np.random.default_rng(0).standard_normal((400, 64, 64), np.float32)
    noise = vg.Particles.from_images(white, 3.0, optics=data.optics)
    for name, these in (("data", data), ("noise", noise)):
        report = check_bias(these, view, diameter_A=150)
        print(report.verdict)
        (FIGURES / f"class2d_bias_{name}.png").write_bytes(figure(report))


if __name__ == "__main__":
    main()
