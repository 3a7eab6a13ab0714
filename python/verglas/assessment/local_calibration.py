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
            (0.5, 4.0102, 8.0574),
            (1.0, 4.0269, 8.0901),
            (2.0, 4.0254, 8.0485),
            (4.0, 4.0882, 8.1401),
        )
    ),
    "significance": _points(
        (
            (0.5, 4.0208, 8.0786),
            (1.0, 4.027, 8.1301),
            (2.0, 4.0264, 8.1504),
            (4.0, 4.0882, 8.2082),
        )
    ),
    "monogenic": _points(
        (
            (0.5, 3.8455, 8.0482),
            (1.0, 4.0085, 8.1435),
            (2.0, 4.0082, 7.9687),
            (4.0, 4.0188, 8.0678),
        )
    ),
    "steerable": _points(
        (
            (0.5, 3.9866, 8.0923),
            (1.0, 4.024, 8.1636),
            (2.0, 4.0284, 8.0166),
            (4.0, 4.0494, 8.1474),
        )
    ),
}
