"""ops.ctf beside a copy of its output in memory, NumPy in float32, and the float64 reference.

Writes bench/results/ctf.json. ``copy`` is the floor: the time to write the same bytes (and read as many).
"""

from __future__ import annotations

import numpy as np

from verglas import ops, reference

from common import compare, write

SIZES = ((128, 400), (256, 100), (384, 50))
PIXEL_SIZE_A = 1.0


def optics_table(n: int, b_factor_A2: float) -> np.ndarray:
    defocus = np.random.default_rng(0).uniform(8000, 20000, (n, 2))
    return np.column_stack([defocus, np.tile([30.0, 300, 2.7, 0.1, 0, b_factor_A2, 1], (n, 1))])


def numpy_float32(params: np.ndarray, box: int) -> np.ndarray:
    """The formula as one would write it in NumPy for speed: no arctangent, float32 from the first line on."""
    kx = np.fft.rfftfreq(box, PIXEL_SIZE_A).astype(np.float32)[None, None]
    ky = np.fft.fftfreq(box, PIXEL_SIZE_A).astype(np.float32)[None, :, None]
    x2, y2 = kx * kx, ky * ky
    k2 = x2 + y2
    u, v, angle, voltage, cs_mm, w, phase, b_factor, scale = params.T[:, :, None, None]
    volt = voltage * 1e3
    lam = 12.2643247 / np.sqrt(volt * (1 + 0.978466e-6 * volt))
    mean, half_difference = (np.pi * lam * (u + v) / 2).astype("f4"), np.pi * lam * (u - v) / 2
    cosine = (half_difference * np.cos(2 * np.deg2rad(angle))).astype("f4")
    sine = (half_difference * np.sin(2 * np.deg2rad(angle))).astype("f4")
    spherical = (-np.pi / 2 * cs_mm * 1e7 * lam**3).astype("f4")
    offset = (np.deg2rad(phase) + np.arcsin(w)).astype("f4")
    chi = mean * k2 + cosine * (x2 - y2) + sine * (2 * kx * ky) + spherical * (k2 * k2) + offset
    out = np.sin(chi) * scale.astype("f4")
    return out * np.exp(-b_factor.astype("f4") / 4 * k2) if b_factor.any() else out


def main() -> None:
    rows = []
    for box, n in SIZES:
        for b_factor_A2 in (0.0, 50.0):
            params = optics_table(n, b_factor_A2)
            few = params[: max(1, n // 20)]
            made = ops.ctf(params, box, PIXEL_SIZE_A)
            exact = reference.ctf.ctf(few, box, PIXEL_SIZE_A)
            times = compare(
                {
                    "ctf, 1 thread": lambda p=params, b=box: ops.ctf(p, b, PIXEL_SIZE_A, threads=1),
                    "ctf, 2 threads": lambda p=params, b=box: ops.ctf(p, b, PIXEL_SIZE_A, threads=2),
                    "copy, 1 thread": lambda m=made: m.copy(),
                    "NumPy float32, 1 thread": lambda p=few, b=box: numpy_float32(p, b),
                    "reference float64, 1 thread": lambda p=few, b=box: reference.ctf.ctf(p, b, PIXEL_SIZE_A),
                },
                repeats=15,
            )
            errors = {
                "ctf": float(np.abs(made[: len(few)] - exact).max()),
                "NumPy float32": float(np.abs(numpy_float32(few, box) - exact).max()),
            }
            for name, time in times.items():
                count = len(few) if "NumPy" in name or "reference" in name else n
                values = count * box * (box // 2 + 1)
                row = {"box": box, "n": count, "b_factor_A2": b_factor_A2, "what": name, **time}
                row |= {"ns_per_value": 1e6 * time["ms"] / values, "ns_per_value_min": 1e6 * time["ms_min"] / values}
                row |= {"written_GB_per_s": 4e-6 * values / time["ms"], "images_per_s": 1e3 * count / time["ms"]}
                rows.append(row | {"max_error": errors.get(name.split(",")[0])})
    write("ctf", rows, peer="a copy of the output in memory; NumPy float32; reference.ctf (NumPy float64)")


if __name__ == "__main__":
    main()
