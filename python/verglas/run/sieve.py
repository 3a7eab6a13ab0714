"""``verglas sieve``: which particles of a refined set help its map, and which are better left out."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from verglas._screen import ListenerChoice, shown_to
from verglas.assessment import (
    Alignability,
    judge_alignability,
    orientation_efficiency,
    percentile_by_defocus,
    pose_errors,
)
from verglas.errors import InputError
from verglas.heterogeneity.expand import PARENT
from verglas.masks import checked_mask
from verglas.run.alignability import alignability_of_some
from verglas.run.ctf_refine_inputs import Prepared, prepare
from verglas.run.half_maps import pixels_between, reconstruct_halves, solvent_or_sphere
from verglas.run.image_names import image_names
from verglas.run.sieve_rounds import (
    LEAST_HELD_OUT,
    LEAST_IN_HALF,
    LEAST_SHELLS,
    Halves,
    Limits,
    Rounds,
    number_held_out,
    without_copies,
)
from verglas.types import Map, Particles, Poses
from verglas.types.convert import MapLike, ParticlesLike, map_of, particles_of
from verglas.types.display import one_line
from verglas.types.settings import JobSettings, setting, settings_from
from verglas.types.verdict import Finding, Verdict

REASON, ROUND = "verglasSieveReason", "verglasSieveRound"
# columns that not every sieve writes: those of an earlier one would be read as this one's
_NOT_ALWAYS = (
    REASON,
    ROUND,
    "verglasAngleChange",
    "verglasShiftChange",
    "verglasAlignabilityPrecision",
    "verglasAlignabilityAccuracy",
)
_EFFICIENCY_LOSS = 0.1  # of the evenness of views, beyond which it is said


@dataclass(frozen=True)
class SieveSettings(JobSettings, job="sieve"):
    """What is dropped, and what decides.

    Attributes
    ----------
    share : float
        Of the particles that are left, dropped in each round.
    rounds : int
        At most.
    held_out : float
        Share of the particles that no map of the rounds is made from, and that decide; 20,000 at most.
    band : {"all", "high"}
        What the rank is made from: all shells with signal, or the finer ones.
    high_resolution_A : float, optional
        Where the finer shells begin; by default half of those with signal are.
    max_resolution_A : float, optional
        Finest data in use; Nyquist by default.
    symmetry : str
        Point group of the reconstructions.
    diameter_A : float, optional
        Of the particle, for the mask and the alignability.
    alignability : int
        Particles, at random, whose alignability is measured; 0 for none.
    seed : int
        Of the choice of held-out particles and of the control.
    """

    share: float = setting(0.2, "Share of those left that each round drops", more_than=0, at_most=0.5)
    rounds: int = setting(8, "Most rounds", at_least=1)
    held_out: float = setting(
        0.2, "Share of particles that decide and that no map is made from", more_than=0.01, at_most=0.5
    )
    band: Literal["all", "high"] = setting("all", "Rank by all shells with signal, or by the finer ones")
    high_resolution_A: float | None = setting(
        None, "Where the finer shells begin", more_than=0, default_words="half of those with signal"
    )
    max_resolution_A: float | None = setting(None, "Finest resolution in use", default_words="Nyquist", more_than=0)
    symmetry: str = setting("C1", "Point group of the reconstructions", flags=("--sym",))
    diameter_A: float | None = setting(
        None, "Diameter of the particle, for the mask", default_words="made from the map", more_than=0
    )
    alignability: int = setting(300, "Particles whose alignability is measured", at_least=0)
    seed: int = setting(0, "Of the choice of held-out particles and of the control", at_least=0)


@one_line
@dataclass(frozen=True, eq=False)
class Sieved:
    """What :func:`sieve` gives.

    Attributes
    ----------
    kept, removed : Particles
        With the columns of ``scores``; those removed with ``verglasSieveReason``. Together they are the input.
    scores : DataFrame
        A row for every particle of the input, in its order; NaN for those that were not scored.
    is_removed : (n,) bool
        Of every particle of the input.
    rounds : DataFrame
        Round 0 is of all particles: kept, share_kept, resolution_A, b_factor_A2, the same of as many at random
        (``_control``), and what held-out particles gain (nats each, with standard errors) over round 0 and over the
        control.
    round : int
        That which is kept; 0: nothing was sieved out.
    half_maps : (Map, Map)
        Of those kept, held-out ones among them; of all where nothing was sieved.
    verdict : Verdict
    settings : SieveSettings
    seconds : float
    """

    kept: Particles
    removed: Particles
    scores: pd.DataFrame
    is_removed: npt.NDArray[np.bool_]
    rounds: pd.DataFrame
    round: int
    half_maps: tuple[Map, Map]
    verdict: Verdict
    settings: SieveSettings
    seconds: float

    @property
    def sentence(self) -> str:
        """What came of it."""
        return self.verdict["sieve"].sentence


def sieve(
    particles: ParticlesLike,
    half_maps: tuple[MapLike, MapLike] | None = None,
    *,
    mask: MapLike | None = None,
    previous: ParticlesLike | None = None,
    settings: SieveSettings | None = None,
    threads: int | None = None,
    listener: ListenerChoice = "screen",
    **changes: Any,
) -> Sieved:
    """Score every particle against the other half's map, and leave out those that a map is better without.

    Copies of one particle go first. Then, round by round, the lowest of each half set are dropped and the maps made
    anew. Particles that were held out of all maps decide: a round is kept if they gain by its maps, over those of all
    particles beyond two standard errors, and over those of as many at random beyond three. Else nothing but copies
    and images that cannot be used is removed.

    Parameters
    ----------
    particles : Particles or path
        With poses, CTFs and an optics table.
    half_maps : two Map or path, optional
        Of rlnRandomSubset 1 and 2, for the first scores; reconstructed if not given.
    mask : Map or path, optional
        Solvent mask, 0 to 1; made from the maps if not given.
    previous : Particles or path, optional
        The same particles with other poses (of the iteration before, of another run): how far each moved is a column.
    settings : SieveSettings, optional
        Further keywords (``share=0.1``) change its fields.
    threads : int, optional
        Threads; all by default.
    listener : Listener, "screen" or None

    Returns
    -------
    Sieved

    Raises
    ------
    InputError
        No poses, no CTFs, no optics table; half maps without half sets; an expanded set; maps of another size.

    References
    ----------
    Zhu et al. (2023) Nat. Commun. 14, 7822 (CryoSieve).

    Notes
    -----
    The FSC of sieved half maps is biased upwards: the particles of each half were chosen by the map of the other. To
    refine those kept anew, or to split them anew, does not undo it: they agree with each other's noise whoever is in
    which half. Held-out particles were not chosen, are in no map of the rounds, and alone decide. The mask, where none
    is given, is that of all particles and the same in all rounds. The gain told is that of the best of several rounds.

    Examples
    --------
    >>> import verglas as vg
    >>> model = vg.simulate.phantom(24, 4.0, 60.0)
    >>> particles = vg.simulate.particles(model, 120, 24, 4.0, snr=1.0, seed=1)
    >>> found = vg.sieve(particles, alignability=0, rounds=2, listener=None)
    >>> len(found.kept) + len(found.removed), list(found.scores)[:2]
    (120, ['verglasGain', 'verglasGainHigh'])
    """
    begun = time.perf_counter()
    chosen = settings_from("sieve", SieveSettings, settings, **changes)
    given = particles_of(particles, "sieve: particles")
    if PARENT in given.table:
        raise InputError(f"{given.where}: sieve: these particles are expanded ({PARENT}); sieve before verglas expand")
    prepared = prepare(given, fits_ctf=False, needs_halves=half_maps is not None, job="sieve")
    once, copies = without_copies(prepared, given)
    before = None if previous is None else _matching(given, particles_of(previous, "sieve: previous"), prepared)
    _refuse_few(once, chosen.held_out)
    first = (
        None
        if half_maps is None
        else (map_of(half_maps[0], "sieve: half map"), map_of(half_maps[1], "sieve: half map"))
    )
    solvent = None if mask is None else map_of(mask, "sieve: mask")
    with shown_to(listener) as heard:
        for line in _sentences(prepared, copies):
            heard.say(line)
        all_maps = reconstruct_halves(once.particles, chosen.symmetry, threads)
        mean = all_maps[0].with_data((all_maps[0].data + all_maps[1].data) / 2)
        inside = (
            solvent_or_sphere(mean, chosen.diameter_A, threads)
            if solvent is None
            else mean.with_data(checked_mask(solvent.data, mean.data.shape, "sieve: the mask"))
        )
        pixels = pixels_between("sieve", once.particles, inside, chosen.max_resolution_A)
        if first is not None:
            for one in first:
                pixels_between("sieve", once.particles, one, None)
        values = asdict(chosen)
        limits = Limits(**{one.name: values[one.name] for one in fields(Limits)})
        rounds = Rounds(once, pixels, inside, limits, heard, threads, first=first)
        explained = rounds.informative >= LEAST_SHELLS
        best = rounds.run() if explained else 0
        work = _Work(given, prepared, once, copies, rounds, best, chosen)
        scores = work.scores(before) if explained else work.nothing()
        gone = work.reasons()
        maps = all_maps if best == 0 else rounds.halves(work.stays).plain
        verdict = work.verdict(explained)
        heard.say(verdict["sieve"].sentence)
    kept, removed = _split(given, scores, gone, work.round_of(), work.half_of())
    seconds = time.perf_counter() - begun
    is_removed = np.isin(np.arange(len(given)), list(gone))
    return Sieved(kept, removed, scores, is_removed, rounds.frame(), best, maps, verdict, chosen, seconds)


def _refuse_few(once: Prepared, held_out: float) -> None:
    for h in (0, 1):
        count = int(np.count_nonzero(once.half == h))
        what = f"{once.given.where}: sieve: half set {h + 1} has {count} particles"
        if count * (1 - held_out) < LEAST_IN_HALF:
            raise InputError(f"{what}; {LEAST_IN_HALF} must be left beside those held out")
        asked = number_held_out(count, held_out)
        if asked < LEAST_HELD_OUT:
            raise InputError(
                f"{what}, of which {asked} would be held out and decide; {LEAST_HELD_OUT} must: hold out a larger "
                f"share than {held_out:g} (held_out, --held-out)"
            )


def _sentences(prepared: Prepared, copies: Mapping[int, str]) -> list[str]:
    said = [prepared.sentence] if prepared.excluded else []
    if copies:
        row, why = next(iter(copies.items()))
        across = sum("other half" in reason for reason in copies.values())
        said.append(
            f"{len(copies)} copies of particles left out first (particle {row}: {why}), {across} of them in the other "
            "half set"
        )
    return said


def _matching(given: Particles, previous: Particles, prepared: Prepared) -> Poses:
    """Poses of the other set for the rows in use; by image, or row by row where images have no names."""
    if previous.poses is None:
        raise InputError(f"{previous.where}: sieve: the previous particles have no poses")
    rows, names = prepared.rows, (image_names(given), image_names(previous))
    if names[0] is not None and names[1] is not None:
        mine, theirs = names[0].take(prepared.rows), names[1]
        if not theirs.is_unique:
            raise InputError(f"{previous.where}: sieve: an image is there twice; merge the set by itself first")
        rows = theirs.get_indexer(mine)
        if (rows < 0).any():
            missing = np.flatnonzero(rows < 0)
            raise InputError(
                f"{previous.where}: sieve: {len(missing)} of {len(rows)} particles are not there, the first: particle "
                f"{prepared.rows[missing[0]]}, {' of '.join(map(str, mine[missing[0]]))}"
            )
    elif len(previous) != len(given):
        raise InputError(f"{previous.where}: sieve: {len(previous)} previous particles for {len(given)}")
    return previous.poses[rows]


@dataclass(eq=False)
class _Work:
    """What the rounds left, told of the particles of the input."""

    given: Particles
    prepared: Prepared
    once: Prepared
    copies: Mapping[int, str]
    rounds: Rounds
    best: int
    chosen: SieveSettings

    def __post_init__(self) -> None:
        self.aligned: Finding | None = None
        number = self.rounds.removed_in
        self.stays = (number == 0) | (number > self.best)

    def _spread(self, values: Any) -> Any:
        out = np.full(len(self.given), np.nan)
        out[self.once.rows] = values
        return out

    def nothing(self) -> pd.DataFrame:
        """No score: there is nothing to score by."""
        return pd.DataFrame(index=range(len(self.given)))

    def scores(self, before: Poses | None) -> pd.DataFrame:
        """Against the maps of the round that is kept."""
        halves: Halves = self.rounds.maps[self.best]
        scores, setting, calibration = self.rounds.scores(halves)
        optics = self.once.particles.optics
        defocus = (optics.defocus_u_A + optics.defocus_v_A) / 2
        columns = {
            "verglasGain": scores.gain,
            "verglasGainHigh": scores.gain_high,
            "verglasQuality": scores.quality,
            "verglasCorrelation": scores.correlation,
            "verglasCorrelationPercentile": percentile_by_defocus(scores.correlation, defocus),
            "verglasGreyScale": scores.grey_scale,
            "verglasResidualZ": scores.residual_z,
            "verglasNoiseRatio": scores.noise_ratio,
        }
        poses = self.once.particles.poses
        assert poses is not None
        columns["verglasShift"] = np.hypot(*poses.shifts_A.T)
        if before is not None:
            where = np.searchsorted(self.prepared.rows, self.once.rows)
            change = pose_errors(poses, before[where], self.chosen.symmetry)
            columns |= {"verglasAngleChange": change.angle_deg, "verglasShiftChange": change.shift_A}
        if self.chosen.alignability:
            rows, told = alignability_of_some(
                setting,
                calibration,
                self.chosen.alignability,
                diameter_A=self.chosen.diameter_A,
                mask=self.rounds.mask,
                symmetry=self.chosen.symmetry,
                seed=self.chosen.seed,
            )
            if self.stays[rows].any():
                stay = self.stays[rows]
                self.aligned = judge_alignability(Alignability(told.precision[stay], told.accuracy[stay]))
            for name, values in (("Precision", told.precision), ("Accuracy", told.accuracy)):
                columns[f"verglasAlignability{name}"] = np.full(len(defocus), np.nan)
                columns[f"verglasAlignability{name}"][rows] = values
        return pd.DataFrame({name: self._spread(values) for name, values in columns.items()})

    def reasons(self) -> dict[int, str]:
        """Row of the input -> why it is not kept."""
        gone = {**self.prepared.excluded, **self.copies}
        for i in np.flatnonzero(~self.stays).tolist():
            number, score = int(self.rounds.removed_in[i]), self.rounds.score[i]
            what = "quality at high resolution" if self.chosen.band == "high" else "quality"
            gone[int(self.once.rows[i])] = f"round {number}: {what} of {score:.4g} among the lowest"
        return gone

    def round_of(self) -> Any:
        """(n,): the round that dropped a particle, 0 for others."""
        out = np.zeros(len(self.given), np.int64)
        out[self.once.rows] = np.where(self.stays, 0, self.rounds.removed_in)
        return out

    def half_of(self) -> Any:
        """(n,): half set; of those set aside as the file has it, or 1."""
        stated = self.given.half_sets
        out = np.ones(len(self.given), np.int64) if stated is None else stated.copy()
        out[self.prepared.rows] = self.prepared.half + 1
        return out

    def verdict(self, explained: bool) -> Verdict:
        """What came of it, and what a reader must see."""
        findings = [self._tell(explained)]
        if self.best:
            poses = self.once.particles.poses
            assert poses is not None
            even = [
                orientation_efficiency(poses.angles_deg[rows], self.chosen.symmetry).efficiency
                for rows in (np.ones(len(self.stays), bool), self.stays)
            ]
            lost = even[0] - even[1]
            sentence = f"the efficiency of the views went from {even[0]:.2f} to {even[1]:.2f}"
            if lost > _EFFICIENCY_LOSS:
                sentence += ": views were sieved out, not only particles; look at them before you go on"
            state = "warn" if lost > _EFFICIENCY_LOSS else "go on"
            findings.append(Finding("views", state, sentence, {"before": even[0], "after": even[1]}))
        if self.aligned is not None:
            findings.append(self.aligned)
        if self.copies:
            across = sum("other half" in why for why in self.copies.values())
            sentence = f"{len(self.copies)} copies of particles were removed, {across} of them from the other half set"
            findings.append(Finding("copies", "warn", sentence, {"copies": len(self.copies), "across": across}))
        return Verdict.of(findings, "report.html")

    def _tell(self, explained: bool) -> Finding:
        n, kept = len(self.stays), int(np.count_nonzero(self.stays))
        if not explained:
            return Finding(
                "sieve",
                "stop",
                f"nothing was sieved: the other half's map explains the images in {self.rounds.informative} shells "
                f"only, {LEAST_SHELLS} are needed: wrong map, wrong poses, or nothing but noise",
                {"informative_shells": self.rounds.informative},
            )
        table = self.rounds.table
        if not self.best:
            top = max(table[1:], key=lambda row: float(row["gain_nats"]), default=None)
            tried = (
                "no round left enough particles"
                if top is None
                else f"by the best of {len(table) - 1} rounds ({100 * top['share_kept']:.0f} % kept) held-out "
                f"particles gain {top['gain_nats']:+.3g} +- {top['gain_error_nats']:.2g} nats each over the maps of all"
            )
            return Finding("sieve", "go on", f"nothing was sieved: {tried}", {"kept": n, "of": n})
        row = table[self.best]
        numbers = {"kept": kept, "of": n, **{k: row[k] for k in ("gain_nats", "gain_error_nats")}}
        sentence = (
            f"{kept} of {n} particles are kept: held-out particles gain {row['gain_nats']:.3g} +- "
            f"{row['gain_error_nats']:.2g} nats each over the maps of all, and {row['gain_over_control_nats']:.3g} +- "
            f"{row['gain_over_control_error_nats']:.2g} over those of as many at random"
        )
        return Finding("sieve", "go on", sentence, numbers)


def _split(
    given: Particles, scores: pd.DataFrame, gone: Mapping[int, str], number: Any, half: Any
) -> tuple[Particles, Particles]:
    columns: dict[str, Any] = dict.fromkeys(_NOT_ALWAYS)
    columns |= {str(name): scores[name].to_numpy() for name in scores}
    columns["rlnRandomSubset"] = half
    scored = given.with_columns(**columns)
    rows = np.array(sorted(gone), np.int64)
    stays = np.setdiff1d(np.arange(len(given)), rows)
    removed = scored[rows].with_columns(**{ROUND: number[rows], REASON: np.array([gone[int(i)] for i in rows], object)})
    return scored[stays], removed
