"""Rounds of sieving: reconstruct, score by the other half, drop the lowest, and ask particles that were held out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd

from verglas.assessment import (
    ParticleScores,
    first_high_shell,
    held_out_evidence,
    postprocess,
    score_particles,
)
from verglas.assessment.particle_scores import ShellSums, shell_sums, spherical_mean
from verglas.errors import InputError
from verglas.heterogeneity.gain import mean_gain
from verglas.optics.refine import Calibration, Pixels, Setting, calibrate
from verglas.run.ctf_refine_inputs import Prepared
from verglas.run.half_maps import reconstruct_halves
from verglas.types import Map, Particles
from verglas.types.arrays import BoolArray, FloatArray
from verglas.types.listener import Listener

LEAST_SHELLS = 5  # with signal; fewer rank nothing
LEAST_IN_HALF = 20  # particles that a half map is made from
LEAST_HELD_OUT = 5  # of a half: fewer give no standard error to decide by
_CERTAIN = 3.0  # standard errors by which those dropped must be worse than others
_BETTER = 2.0  # standard errors by which the map must be better than that of all
_PATIENCE = 3  # rounds beyond the best one: of half a set that is noisy, the first to go make the map no better
_MOST_HELD_OUT = 20_000


@dataclass(frozen=True)
class Limits:
    """What the rounds are asked for (:class:`verglas.run.sieve.SieveSettings`)."""

    share: float
    rounds: int
    held_out: float
    band: str
    high_resolution_A: float | None
    symmetry: str
    seed: int


@dataclass(frozen=True, eq=False)
class Halves:
    """Half maps of some particles: as they are, and masked for scores."""

    plain: tuple[Map, Map]
    masked: tuple[Map, Map]

    @property
    def mean(self) -> Map:
        """Of the masked ones."""
        first, second = self.masked
        return first.with_data((first.data + second.data) / 2)


@dataclass(eq=False)
class Rounds:
    """The rounds as they go.

    Attributes
    ----------
    prepared : Prepared
        Particles in use, each once, with half sets.
    pixels : Pixels
    mask : Map
        The same for all maps: a mask that changed would change the curves.
    limits : Limits
    heard : Listener
    threads : int, optional
    removed_in : (n,) int64
        Round in which a particle was dropped, 0 for none.
    score : (n,) float64
        The score by which it was dropped, or the last one.
    table : list of dict
        A row for each round, 0 with all particles.
    maps : list of Halves
        Of the particles that each round left, without those held out.
    """

    prepared: Prepared
    pixels: Pixels
    mask: Map
    limits: Limits
    heard: Listener
    threads: int | None = None
    table: list[dict[str, Any]] = field(default_factory=list)
    maps: list[Halves] = field(default_factory=list)
    first: tuple[Map, Map] | None = None

    def __post_init__(self) -> None:
        rng = np.random.default_rng((self.limits.seed, 19))
        n = len(self.particles)
        self.test = np.zeros(n, bool)
        for h in (0, 1):
            rows = rng.permutation(np.flatnonzero(self.prepared.half == h))
            self.test[rows[: number_held_out(len(rows), self.limits.held_out)]] = True
        self._order = rng.permutation(n)  # in which the control drops
        self.removed_in, self.score = np.zeros(n, np.int64), np.full(n, np.nan)
        self.evidence: list[FloatArray] = []
        self.control: list[FloatArray] = []
        everyone = self.halves(~self.test)
        self.maps.append(everyone)
        self._scored_by = everyone if self.first is None else self._mask(self.first)
        self.setting = self._setting(self._scored_by)
        self.calibration = calibrate(self.setting)
        # the limit is asked of the first maps only: those of fewer particles may explain less, and end the rounds
        finest = self.limits.high_resolution_A if self.informative >= LEAST_SHELLS else None
        self._first_high = None if finest is None else first_high_shell(self.calibration, self.pixels, finest)
        self.scored = self._score(self.setting, self.calibration)
        self._held_out, self._their_half = self.particles[self.test], self.prepared.half[self.test]
        self._of_ball = self._products(spherical_mean(everyone.mean))

    @property
    def particles(self) -> Particles:
        """Those in use."""
        return self.prepared.particles

    @property
    def informative(self) -> int:
        """Shells in which the other half's map explains the images."""
        return self.calibration.informative

    def halves(self, rows: BoolArray) -> Halves:
        """Half maps of some of the particles."""
        return self._mask(reconstruct_halves(self.particles[rows], self.limits.symmetry, self.threads))

    def _mask(self, plain: tuple[Map, Map]) -> Halves:
        first, second = (m.with_data(m.data * self.mask.data) for m in plain)
        return Halves(plain, (first, second))

    def _setting(self, halves: Halves) -> Setting:
        return Setting.of(self.particles, self.prepared.half, halves.masked, self.pixels, self.threads)

    def _score(self, setting: Setting, calibration: Calibration) -> ParticleScores:
        high = first_high_shell(calibration, self.pixels) if self._first_high is None else self._first_high
        return score_particles(setting, calibration, high, self.heard)

    def scores(self, halves: Halves) -> tuple[ParticleScores, Setting, Calibration]:
        """Of every particle in use, each against the other half's map."""
        if halves is self._scored_by:  # a pass over all images that was made already
            return self.scored, self.setting, self.calibration
        setting = self._setting(halves)
        calibration = calibrate(setting)
        return self._score(setting, calibration), setting, calibration

    def _ask(self, halves: Halves) -> FloatArray:
        """What every held-out particle gains by the mean of half maps."""
        return held_out_evidence(self._products(halves.mean), self._of_ball, self._fold)

    def _products(self, volume: Map) -> ShellSums:
        """Of the held-out particles with the slices of a map."""
        setting = Setting.of(self._held_out, self._their_half, (volume, volume), self.pixels, self.threads)
        self._fold = setting.fold
        return shell_sums(setting, self.calibration, self.scored.noise_ratio[self.test])

    def run(self) -> int:
        """All rounds; the number of the one that is kept, 0 for none."""
        train = ~self.test
        self._note(0, self.maps[0], None)
        for number in range(1, self.limits.rounds + 1):
            if not self._drop(number):
                break
            kept = train & (self.removed_in == 0)
            halves, control = self.halves(kept), self.halves(self._random(kept))
            self.maps.append(halves)
            self._note(number, halves, control)
            if number - self._best() >= _PATIENCE:
                break
        return self._choice()

    def _drop(self, number: int) -> bool:
        """Drop the lowest of each half; False where too few would be left, or the maps no longer explain anything."""
        scores, calibration = self.scored, self.calibration
        if number > 1:
            scores, _, calibration = self.scores(self.maps[-1])
        ranks_high = self.limits.band == "high"
        if calibration.informative < LEAST_SHELLS or (ranks_high and not scores.power_high.any()):
            return False
        value = scores.quality_high if ranks_high else scores.quality
        here = self.removed_in == 0
        for h in (0, 1):
            mine = here & (self.prepared.half == h)
            if np.count_nonzero(mine & ~self.test) * (1 - self.limits.share) < LEAST_IN_HALF:
                return False
        self.score[here] = value[here]
        for h in (0, 1):
            mine = here & (self.prepared.half == h)
            cut = np.quantile(value[mine & ~self.test], self.limits.share)
            self.removed_in[mine & (value < cut)] = number
        return True

    def _random(self, kept: BoolArray) -> BoolArray:
        """As many of each half as are kept, the same ones as long as the control has them."""
        out = np.zeros(len(kept), bool)
        for h in (0, 1):
            mine = self._order[(~self.test & (self.prepared.half == h))[self._order]]
            out[mine[: np.count_nonzero(kept & (self.prepared.half == h))]] = True
        return out

    def _note(self, number: int, halves: Halves, control: Halves | None) -> None:
        """The row of a round, and what it says of it."""
        evidence = self._ask(halves)
        other = evidence if control is None else self._ask(control)
        self.evidence.append(evidence)
        self.control.append(other)
        gain, error = self._gain(evidence, self.evidence[0])
        over, over_error = self._gain(evidence, other)
        train = ~self.test
        kept = np.count_nonzero(train & (self.removed_in == 0))
        row: dict[str, Any] = {
            "round": number,
            "kept": kept,
            "share_kept": kept / np.count_nonzero(train),
            **self._figures(halves, ""),
            **self._figures(halves if control is None else control, "_control"),
            "evidence_nats": float(evidence.mean()),
            "gain_nats": gain,
            "gain_error_nats": error,
            "gain_over_control_nats": over,
            "gain_over_control_error_nats": over_error,
        }
        self.table.append(row)
        self.heard.iteration(row)

    def _figures(self, halves: Halves, suffix: str) -> dict[str, float]:
        """Resolution at 0.143 under the mask, corrected, and the B-factor; NaN where there is none."""
        try:
            assessed = postprocess(*halves.plain, mask=self.mask, threads=self.threads, listener=None)
        except InputError as error:
            self.heard.note("no-figures", f"a round's maps could not be judged: {error}")
            return {f"resolution_A{suffix}": np.nan, f"b_factor_A2{suffix}": np.nan}
        b = assessed.guinier.b_factor_A2
        resolution = assessed.resolution_A if np.isfinite(assessed.resolution_A) else np.nan
        return {f"resolution_A{suffix}": resolution, f"b_factor_A2{suffix}": np.nan if b is None else b}

    @staticmethod
    def _gain(one: FloatArray, other: FloatArray) -> tuple[float, float]:
        return mean_gain(one - other, np.arange(len(one)))

    def _best(self) -> int:
        return int(np.argmax([row["evidence_nats"] for row in self.table]))

    def _choice(self) -> int:
        """The round with most particles of those that are within a standard error of the best, if certainly better."""
        best = self._best()
        for number in range(best):
            gain, error = self._gain(self.evidence[best], self.evidence[number])
            if gain <= error:
                best = number
                break
        row = self.table[best]
        certain = (
            row["gain_nats"] > _BETTER * row["gain_error_nats"]
            and row["gain_over_control_nats"] > _CERTAIN * row["gain_over_control_error_nats"]
        )
        return best if best and certain else 0

    def frame(self) -> pd.DataFrame:
        """The rounds as a table."""
        return pd.DataFrame(self.table)


def number_held_out(count: int, share: float) -> int:
    """How many of a half set's particles decide."""
    return min(round(share * count), _MOST_HELD_OUT // 2)


def without_copies(prepared: Prepared, given: Particles) -> tuple[Prepared, Mapping[int, str]]:
    """Particles in use, each once, and row of the input -> of which it is a copy, and whether across half sets."""
    first = np.unique(prepared.image, return_index=True)[1]
    keep = np.zeros(len(prepared.rows), bool)
    keep[first] = True
    of_image = first[np.unique(prepared.image, return_inverse=True)[1].reshape(-1)]
    stated = given.half_sets
    copies = {}
    for row, original in zip(prepared.rows[~keep].tolist(), prepared.rows[of_image[~keep]].tolist(), strict=True):
        across = stated is not None and stated[row] != stated[original]
        copies[row] = f"copy of particle {original}" + (", which is in the other half set" if across else "")
    rows = np.flatnonzero(keep)
    once = replace(
        prepared,
        rows=prepared.rows[rows],
        particles=prepared.particles[rows],
        half=prepared.half[rows],
        image=prepared.image[rows],
    )
    return once, copies
