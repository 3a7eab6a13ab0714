"""What each measure of local resolution reads where the resolution was planted: the calibration its page shows."""

from __future__ import annotations

from typing import NamedTuple


class CalibrationPoint(NamedTuple):
    """Median of the voxels of one planted resolution, farther than a window from any other, over a few phantoms.

    Attributes
    ----------
    noise : float
        Standard deviation of each half map's noise, in those of the signal over the box.
    planted_A, median_A : float
    """

    noise: float
    planted_A: float
    median_A: float


def _points(rows: tuple[tuple[float, float, float], ...]) -> tuple[CalibrationPoint, ...]:
    return tuple(
        CalibrationPoint(noise, planted, median)
        for noise, *medians in rows
        for planted, median in zip((4.0, 8.0), medians, strict=True)
    )


# bench/bench_local_resolution.py (results/local_resolution.json): noise,
# median where 4 A were planted, median where 8 A were. tests/test_local_calibration.py holds them against these files.
CALIBRATION: dict[str, tuple[CalibrationPoint, ...]] = {
    "fsc": _points(
        (
            (0.5, 3.8756, 8.09),
            (1.0, 4.0438, 8.1167),
            (2.0, 4.0307, 8.2419),
            (4.0, 4.068, 8.2496),
        )
    ),
    "significance": _points(
        (
            (0.5, 3.9983, 8.1107),
            (1.0, 4.046, 8.1122),
            (2.0, 4.0315, 8.27),
            (4.0, 4.0715, 8.2984),
        )
    ),
    "monogenic": _points(
        (
            (0.5, 3.8984, 7.9918),
            (1.0, 4.0072, 8.0352),
            (2.0, 4.0168, 8.0936),
            (4.0, 4.0184, 8.1489),
        )
    ),
    "steerable": _points(
        (
            (0.5, 3.96, 8.0265),
            (1.0, 4.022, 8.0908),
            (2.0, 4.0257, 8.1663),
            (4.0, 4.027, 8.2099),
        )
    ),
}
