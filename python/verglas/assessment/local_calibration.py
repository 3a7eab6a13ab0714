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


# bench/bench_local_resolution.py (results/local_resolution.json; of steerable local_resolution_small.json): noise,
# median where 4 A were planted, median where 8 A were. tests/test_local_calibration.py holds them against these files.
CALIBRATION: dict[str, tuple[CalibrationPoint, ...]] = {
    "fsc": _points(((0.5, 3.7079, 6.344), (1.0, 3.6755, 6.9852), (2.0, 3.9767, 7.7355), (4.0, 4.0464, 7.946))),
    "significance": _points(((0.5, 3.7236, 6.7306), (1.0, 3.678, 7.258), (2.0, 3.9773, 8.0577), (4.0, 4.0516, 8.3945))),
    "monogenic": _points(((0.5, 3.6768, 6.4037), (1.0, 3.6298, 6.9206), (2.0, 3.9462, 7.6506), (4.0, 3.9951, 7.9784))),
    "steerable": _points(((1.0, 3.6806, 6.936), (2.0, 3.7545, 7.1904), (4.0, 4.0384, 8.0308))),
}
