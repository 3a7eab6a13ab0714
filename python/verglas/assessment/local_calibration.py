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
            (0.5, 3.6717, 6.3938),
            (1.0, 3.7321, 6.6372),
            (2.0, 3.7117, 7.1067),
            (4.0, 4.0014, 7.7966),
        )
    ),
    "significance": _points(
        (
            (0.5, 3.6867, 6.7119),
            (1.0, 3.7522, 7.2413),
            (2.0, 3.7101, 7.3915),
            (4.0, 4.0119, 8.1436),
        )
    ),
    "monogenic": _points(
        (
            (0.5, 3.6727, 6.3469),
            (1.0, 3.6856, 6.8692),
            (2.0, 3.6604, 7.0406),
            (4.0, 3.9752, 7.7915),
        )
    ),
    "steerable": _points(
        (
            (0.5, 3.6734, 6.2922),
            (1.0, 3.6813, 6.892),
            (2.0, 3.7022, 6.9997),
            (4.0, 3.9944, 7.7391),
        )
    ),
}
