"""Results of ``verglas benchmark --repeats 60 --json`` on one machine, to compare with."""

from __future__ import annotations

MACHINE: dict[str, object] = {
    "processor": "Intel(R) Xeon(R) Processor",
    "threads": 1,
    "isa": "native",
    "note": "least of 60 runs, other work on the machine",
}
SECONDS: dict[str, float] = {
    "contrast transfer, 32 images of 128 px": 0.000251,
    "projection, 32 slices of a 128 px map": 0.0981,
    "insertion, 32 images into a 128 px map": 0.171,
    "Fourier transform of a 64 px map, forth and back": 0.00238,
    "scoring, 16 images at 768 directions, 64 angles, 29 shifts": 0.0262,
    "STAR file of 5000 rows, written": 0.0917,
    "STAR file of 5000 rows, read": 0.0146,
    "stack of 200 images of 128 px, written": 0.0407,
    "stack of 200 images of 128 px, read": 0.0066,
    "map of 96 px, written": 0.0239,
    "map of 96 px, read": 0.00107,
}
