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
            (0.5, 4.0072, 8.0836),
            (1.0, 4.027, 8.1152),
            (2.0, 4.0249, 8.0772),
            (4.0, 4.0848, 8.1555),
        )
    ),
    "significance": _points(
        (
            (0.5, 4.0197, 8.0908),
            (1.0, 4.0274, 8.143),
            (2.0, 4.0255, 8.1596),
            (4.0, 4.0867, 8.2369),
        )
    ),
    "monogenic": _points(
        (
            (0.5, 3.8422, 8.0684),
            (1.0, 4.0098, 8.1437),
            (2.0, 4.0092, 7.9835),
            (4.0, 4.0174, 7.982),
        )
    ),
    "steerable": _points(
        (
            (0.5, 3.988, 8.1085),
            (1.0, 4.0244, 8.1672),
            (2.0, 4.0268, 8.0225),
            (4.0, 4.0385, 8.0927),
        )
    ),
}
