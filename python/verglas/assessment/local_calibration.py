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
            (0.5, 3.8624, 8.0246),
            (1.0, 4.0307, 7.9797),
            (2.0, 4.0192, 7.9838),
            (4.0, 4.0664, 8.0598),
        )
    ),
    "significance": _points(
        (
            (0.5, 3.9236, 8.0569),
            (1.0, 4.0342, 8.0248),
            (2.0, 4.0219, 8.1501),
            (4.0, 4.0719, 8.3488),
        )
    ),
    "monogenic": _points(
        (
            (0.5, 3.9062, 7.9672),
            (1.0, 3.9949, 7.9904),
            (2.0, 4.0122, 8.0058),
            (4.0, 4.0462, 8.2175),
        )
    ),
    "steerable": _points(
        (
            (0.5, 3.9789, 8.0117),
            (1.0, 4.0115, 8.043),
            (2.0, 4.02, 8.0766),
            (4.0, 4.0573, 8.2412),
        )
    ),
}
