"""ops.ctf_score on the pixels of a spectrum, with and without derivatives, beside the float64 reference.

Writes bench/results/ctf_score.json.
"""

from __future__ import annotations

import numpy as np

from verglas import ops, reference

from common import compare, write


def main() -> None:
    rng = np.random.default_rng(0)
    rows = []
    for pixels in (20_000, 170_000):
        k, theta = rng.uniform(0.05, 0.25, pixels), rng.uniform(-np.pi / 2, np.pi / 2, pixels)
        spectrum = [v.astype(np.float32) for v in (k * np.cos(theta), k * np.sin(theta), rng.normal(size=pixels), k)]
        params = np.tile([[15000.0, 14000.0, 30, 300, 2.7, 0.1, 0, 0, 1]], (20, 1))
        times = compare(
            {
                f"ctf_score{', derivatives' * d}, {t} thread{'s' * (t > 1)}": lambda d=d, t=t, s=spectrum, p=params: (
                    ops.ctf_score(p, *s, derivatives=bool(d), threads=t)
                )
                for d in (0, 1)
                for t in (1, 2)
            }
            | {"reference float64, derivatives": lambda s=spectrum, p=params[:1]: reference.ctf_score.ctf_score(p, *s)},
            repeats=9,
        )
        for name, time in times.items():
            count = 1 if "reference" in name else len(params)
            rows.append(
                {
                    "pixels": pixels,
                    "rows": count,
                    "what": name,
                    **time,
                    "ns_per_pixel": 1e6 * time["ms_min"] / count / pixels,
                }
            )
    write("ctf_score", rows, peer="reference.ctf_score (NumPy float64)")


if __name__ == "__main__":
    main()
