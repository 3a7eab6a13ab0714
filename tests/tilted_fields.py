"""Fields of particles seen at two tilts, with picks missing and picks too many."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from verglas.tilting import TiltGeometry, TiltPairs


@dataclass
class Field:
    """Picks of both images; ``ids`` name the particle of each pick, negative for wrong picks."""

    geometry: TiltGeometry
    untilted_px: npt.NDArray
    tilted_px: npt.NDArray
    untilted_ids: npt.NDArray
    tilted_ids: npt.NDArray

    def right(self, found: TiltPairs) -> int:
        """Pairs of one particle."""
        pairs = found.pairs
        return int((self.untilted_ids[pairs.untilted] == self.tilted_ids[pairs.tilted]).sum())

    @property
    def in_both(self) -> int:
        """Particles picked in both images."""
        return len(np.intersect1d(self.untilted_ids, self.tilted_ids))


def tilted_field(
    seed: int,
    n: int = 100,
    *,
    missing: float = 0.2,
    extra: float = 0.2,
    error_px: float = 3.0,
    tilt_deg: float | None = None,
    side_px: float = 4000.0,
    apart_px: float = 120.0,
) -> Field:
    """About n particles no closer than ``apart_px``, at a random tilt of 40 to 65 degrees and random axes."""
    rng = np.random.default_rng(seed)
    places: list[npt.NDArray] = []
    for place in rng.uniform(0, side_px, (4 * n, 2)):
        if len(places) < n and all(np.hypot(*(place - other)) > apart_px for other in places):
            places.append(place)
    x = np.array(places)
    tilt = rng.uniform(40, 65) if tilt_deg is None else tilt_deg
    geometry = TiltGeometry(tilt, rng.uniform(-80, 80), rng.uniform(-80, 80), rng.uniform(-100, 100, 2))
    y = geometry.map_px(x) + rng.normal(0, error_px, x.shape)
    count = len(x)
    first = np.flatnonzero(rng.random(count) >= missing)
    second = rng.permutation(np.flatnonzero(rng.random(count) >= missing))
    wrong = round(extra * count)
    bad_first, bad_second = (rng.uniform(0, side_px, (wrong, 2)) for _ in range(2))
    return Field(
        geometry,
        np.concatenate([x[first], bad_first]),
        np.concatenate([y[second], geometry.map_px(bad_second)]),
        np.concatenate([first, np.full(wrong, -1)]),
        np.concatenate([second, np.full(wrong, -2)]),
    )
