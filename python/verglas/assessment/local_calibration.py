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
            (0.5, 3.9974, 8.0839),
            (1.0, 4.0291, 8.0802),
            (2.0, 4.0306, 8.1781),
            (4.0, 4.0835, 8.2441),
        )
    ),
    "significance": _points(
        (
            (0.5, 4.0106, 8.0948),
            (1.0, 4.0307, 8.0645),
            (2.0, 4.0313, 8.2072),
            (4.0, 4.0871, 8.3483),
        )
    ),
    "monogenic": _points(
        (
            (0.5, 4.0269, 7.9546),
            (1.0, 4.0366, 7.9669),
            (2.0, 4.0278, 7.9682),
            (4.0, 4.0354, 8.2411),
        )
    ),
    "steerable": _points(
        (
            (0.5, 4.0402, 8.0413),
            (1.0, 4.041, 8.108),
            (2.0, 4.0269, 8.1523),
            (4.0, 4.0475, 8.394),
        )
    ),
}
