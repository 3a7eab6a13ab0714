"""2D classification of particles by maximum-a-posteriori expectation maximisation."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from verglas._screen import ListenerChoice, shown_to
from verglas.classification import moves
from verglas.classification.classes import (
    NOISE_SIGMA,
    SKIP_RINGS,
    Classes2D,
    Iteration,
    Place,
    State,
    collect,
    held_out_evidence,
)
from verglas.classification.em2d import Assignments, Engine2D, Model2D, Stage, Sums, plan_stage
from verglas.classification.held_out import held_out_gain
from verglas.classification.kept import restore_state, take_snapshot
from verglas.classification.memory import MEMORY_GB, Class2DMemory
from verglas.classification.settings import Class2DSettings
from verglas.classification.stages import first_radii, particles_of_seeding, seed_count, shift_range_px
from verglas.classification.working_set import WorkingSet
from verglas.errors import InputError
from verglas.optics import plain_images
from verglas.optics.one_grid import Grids
from verglas.search.grid_search import Where
from verglas.types import Keeper
from verglas.types.arrays import FloatArray, IntArray
from verglas.types.convert import ParticlesLike, particles_of
from verglas.types.listener import Listener, Silence
from verglas.types.settings import settings_from

_GROWTH = 1.3  # of the radius from stage to stage, at most
_SUPPORTED_SIGMA = 3.0  # evidence in rings beyond the search that lets it take them in
_SETTLED = 0.03  # share of particles that may still change class when a stage ends
_STAGE_ITERATIONS = 5
_CONVERGED = 0.01  # ... and when the whole is done
_GIANT = 3.0  # times the mean size
_SPLIT_SEEDS, _SPLIT_ITERATIONS = 6, 4
_FIRST_LEVEL, _LEVEL_ITERATIONS = 2, 4  # of the start by splitting
_REFILLS = 6  # iterations in which classes may start anew
_CLEARLY = 1.5  # times the loss that the gain of a split must be
_BALANCE_STEP, _BALANCE_LEAST = 0.7, 0.3  # of the prior against the log of sizes; no size counts as less, of the mean
_STEP = 0.6  # of stepwise EM: weight of a mini-batch


class Classifier:
    """The steps of :func:`classify2d`, one method each."""

    def __init__(
        self,
        work: WorkingSet,
        settings: Class2DSettings,
        keeper: Keeper | None = None,
        listener: Listener | None = None,
    ) -> None:
        self.work, self.settings, self.keeper, self.listener = work, settings, keeper, listener or Silence()
        self.rng = np.random.default_rng([settings.seed, 2])
        # Halves of equal size whatever the seed: permuted labels, not coin flips.
        self.engine = Engine2D(work, settings, self.rng.permutation(np.arange(len(work)) % 2), self.listener)
        self.geometry = work.geometry
        self.range_px = shift_range_px(self.geometry, settings)
        self.radii = first_radii(self.geometry, settings)
        self.first, self.second = self.radii[0], self.radii[-1]
        self.n_iterations = 0
        self.split: set[int] = set()

    def stage(self, radius: int) -> Stage:
        """Sampling at a radius."""
        return plan_stage(self.geometry, radius, self.range_px, self.settings.step_deg)

    def run(self) -> State:
        """From the start, or from where an earlier run was kept, to the end."""
        snapshot = None if self.keeper is None else self.keeper.load()
        state = None if snapshot is None else restore_state(self, snapshot)
        if state is None or state.place.phase == "start":
            state = self.start(state)
        if state.place.phase in ("start", "improve"):
            self.improve(state)
        if state.place.phase != "done":
            self.finish(state)
        return state

    def keep(self, state: State, phase: str, number: int = 0, in_stage: int = 0) -> None:
        """Have everything kept that the iteration named here, which comes next, needs."""
        state.place = Place(phase, number, in_stage)
        if self.keeper is not None:
            self.keeper.save(take_snapshot(self, state), needed=phase == "done")

    # -- start ----------------------------------------------------------------------------------------------------

    def start(self, state: State | None = None) -> State:
        """References from random images, spread over the data, grouped to K; or the rest of it, of a kept state."""
        state, k = state or self._first_references(), self.settings.classes
        if len(state.model) > k:
            state = self._start_from_seeds(state, k)
        elif self.settings.start == "split":
            self._split_levels(state, k)
        state.stage = self.stage(self.second)
        return state

    def _first_references(self) -> State:
        rows, k = self.work.usable, self.settings.classes
        # Sorted: images of a stack are read in order, and the sums are the same.
        some = np.sort(self.rng.permutation(rows)[:2000])
        sigma2, tau2 = self.engine.spectra(some)
        over = seed_count(len(rows), k)
        stage = self.stage(self.first)
        if self.settings.start == "split":
            over = min(_FIRST_LEVEL, k)
        if self.settings.start != "seeds" or len(rows) < 2 * k:
            subsets = [np.sort(self.rng.permutation(rows)[: max(1, len(rows) // 3)]) for _ in range(min(over, k))]
            averages, over = moves.subset_references(self.engine, subsets, sigma2, tau2), min(over, k)
        else:
            averages = moves.image_references(self.engine, np.sort(self.rng.permutation(rows)[:over]), sigma2, tau2)
        # + 1: the empty class begins with the share of any other
        share = -np.log(over + 1.0)
        null = share if self.settings.null_class else -np.inf
        model = Model2D(averages, np.full(over, share), null, sigma2, self.range_px / 2, np.tile(tau2, (over, 1)))
        return State(model, stage, None, Assignments.empty(len(self.work)), [])

    def _start_from_seeds(self, state: State, k: int) -> State:
        rows = self.work.usable
        enough = particles_of_seeding(len(state.model))
        for number in range(state.place.number, len(self.radii)):
            self.keep(state, "start", number)
            state.stage = self.stage(self.radii[number])
            some = rows if len(rows) <= enough else np.sort(self.rng.permutation(rows)[:enough])
            self.iterate(state, some)
        assert state.sums is not None
        losses = moves.merging_losses(self.engine, state.model, state.sums, state.stage)
        mass, vanish = state.sums.mass, moves.vanishing_losses(self.engine, state.model, state.sums, state.stage)
        # The empty class takes part: seeds on noise are not worth a class.
        n = len(mass)
        table = np.full((n + 1, n + 1), np.inf)
        table[:n, :n], table[n, :n], table[:n, n] = losses, vanish, vanish
        groups = moves.group_classes(table, np.append(mass, max(state.sums.null_mass, 1.0)), k + 1)
        groups = [g for g in groups if n not in g]
        heaviest = np.array([g[np.argmax(state.sums.mass[g])] for g in groups])
        # A group is represented by its heaviest seed, not by the mean: seeds of one view differ by rotations.
        share = np.array([np.exp(state.model.log_share[g]).sum() for g in groups])
        self.listener.say(f"{len(state.model)} seeds grouped to {len(groups)} classes")
        m = state.model
        state.model = replace(m, averages=m.averages[heaviest], log_share=np.log(share), tau2=m.tau2[heaviest])
        state.sums = None
        return state

    def _split_levels(self, state: State, k: int) -> None:
        """Levels of few to K classes, each by splitting the largest of the level before: none can swallow the rest."""
        rows = self.work.usable
        while True:
            for number in range(state.place.number, _LEVEL_ITERATIONS):
                self.keep(state, "start", number)
                self.iterate(state, rows)
            state.place = Place("start")
            state.levels.append(state.assignments.label.copy())
            now = len(state.model)
            if now == k:
                return
            assert state.sums is not None
            largest = np.argsort(-state.sums.mass, kind="stable")[: min(now, k - now)]
            model = self._add_empty_classes(state.model, len(largest))
            for new, source in enumerate(largest, start=now):
                members = np.flatnonzero(state.assignments.label == source)
                if len(members) >= 4:
                    model = self._split_class(model, state.stage, new, int(source), members)
            state.model, state.sums = model, None
            self.listener.say(f"level {len(state.levels)}: {now} classes, the largest {len(largest)} of them split")

    @staticmethod
    def _add_empty_classes(model: Model2D, more: int) -> Model2D:
        """Room for further classes, empty as yet."""
        blank = np.zeros((more, *model.averages.shape[1:]), np.float32)
        tau2 = np.tile(model.tau2.mean(axis=0), (more, 1))
        low = np.full(more, model.log_share.min() - 10.0)
        averages, log_share = np.concatenate([model.averages, blank]), np.concatenate([model.log_share, low])
        return replace(model, averages=averages, log_share=log_share, tau2=np.concatenate([model.tau2, tau2]))

    # -- iterations -----------------------------------------------------------------------------------------------

    def iterate(self, state: State, rows: IntArray, *, step: float = 1.0) -> None:
        """One expectation and maximisation over ``rows``; below ``step`` 1 the sums are blended with earlier ones."""
        began = time.perf_counter()
        assignments, sums = self.engine.run(state.model, state.stage, rows)
        assert sums is not None
        likelihood = sums.log_likelihood
        if step < 1 and state.sums is not None and len(state.sums.mass) == len(sums.mass):
            sums = state.sums.blend(sums, step, len(self.work.usable) / len(rows))
        state.model, state.sums = self.balance_shares(state.model, self.engine.maximise(state.model, sums), sums), sums
        both = rows[state.assignments.label[rows] >= 0]
        share_changed = float((assignments.label[both] != state.assignments.label[both]).mean()) if len(both) else 1.0
        _, z = held_out_evidence(sums, state.stage.radius + SKIP_RINGS)
        for name in assignments.__dataclass_fields__:
            getattr(state.assignments, name)[rows] = getattr(assignments, name)[rows]
        self.n_iterations += 1
        radius = state.stage.radius
        line = Iteration(
            self.n_iterations,
            radius,
            self.geometry.resolution_A(radius),
            len(rows),
            likelihood,
            share_changed,
            z,
            time.perf_counter() - began,
        )
        state.record.append(line)
        self.listener.iteration(vars(line))

    def balance_shares(self, before: Model2D, after: Model2D, sums: Sums) -> Model2D:
        """Shares of classes that even out their sizes, within bounds, in place of the shares that they have.

        What a class has gathered tells more of its average than of the particles: the average of many is the surest,
        so uncertain particles prefer it, and its share would make them prefer it even more. CL2D (Sorzano et al. 2010)
        compares within classes for that reason. Here the prior of a class falls as its size rises above the mean, a
        step of Sinkhorn's scaling per iteration, by at most ``balance`` nats: particles that are sure stay.
        """
        limit = self.settings.balance
        if not limit or len(after) < 2:
            return after
        mean = sums.mass.sum() / len(after)
        bias = before.log_share - before.log_share.mean()
        bias = bias - _BALANCE_STEP * np.log(np.maximum(sums.mass, _BALANCE_LEAST * mean + 1e-9) / (mean + 1e-9))
        bias = np.clip(bias, -limit, limit)
        log_all = float(np.log(np.exp(after.log_share).sum()))
        return replace(after, log_share=log_all + bias - np.log(np.exp(bias).sum()))

    def supported_radius(self, state: State) -> int:
        """How far the radius may grow: to where half sets agree on rings that no alignment has seen."""
        assert state.sums is not None
        radius, last = state.stage.radius, self.geometry.last_ring
        larger = int(np.ceil(_GROWTH * radius))
        while larger > radius:
            first = radius + SKIP_RINGS
            end = max(first + 2, min(larger, last))
            _, z = held_out_evidence(state.sums, first, end)
            if z > _SUPPORTED_SIGMA:
                return larger
            larger = (radius + larger) // 2
        return radius

    def refill(self, state: State) -> bool:
        """Give a class that is empty, or little needed, to one that holds several views; True if any was given.

        Merging the two most alike classes loses so many nats (Ward); a class that mixes views could gain half its
        residuals beyond the noise. Where the gain is clearly larger, the smaller of the two starts anew. Each class is
        split once, so that nothing goes round in circles.
        """
        model, sums = state.model, state.sums
        assert sums is not None
        mean = sums.mass.sum() / len(model)
        gain = 0.5 * np.maximum(sums.excess, 0) * np.where(sums.mass > _GIANT * mean, 2, 1) + 1e-6 * sums.mass
        empty = np.flatnonzero(sums.mass < max(1.5, 0.01 * mean))
        # 1e-6 of the mass above decides among classes without any excess: the largest is split.
        gain[np.append(empty, sorted(self.split)).astype(int)] = 0
        free = [(int(k), "empty") for k in empty] or self._find_redundant_classes(state, gain)
        any_split = False
        for k, reason in free:
            source = int(np.argmax(gain))
            members = np.flatnonzero(state.assignments.label == source)
            if gain[source] <= 0 or len(members) < 4:
                break
            gain[source] = 0
            self.split.add(source)
            model = self._split_class(model, state.stage, k, source, members)
            self.listener.say(
                f"class {k + 1} ({reason}) starts anew: the {len(members)} particles of class "
                f"{source + 1} are split in two"
            )
            any_split = True
        state.model = model
        return any_split

    def _find_redundant_classes(self, state: State, gain: FloatArray) -> list[tuple[int, str]]:
        """Classes that cost clearly less than the best splits gain; what is merged is not split."""
        assert state.sums is not None
        if len(state.model) < 3:
            return []
        losses = moves.merging_losses(self.engine, state.model, state.sums, state.stage)
        gains = list(np.sort(gain)[::-1])
        free: list[tuple[int, str]] = []
        while len(free) < max(1, len(gain) // 10):
            pair = [int(i) for i in np.unravel_index(np.argmin(losses), losses.shape)]
            if not gains[len(free)] > _CLEARLY * losses[pair[0], pair[1]]:
                break
            free.append((min(pair, key=lambda k: state.sums.mass[k]), "like another"))  # type: ignore[union-attr]
            losses[pair, :] = losses[:, pair] = np.inf
            gain[pair] = 0
        return free

    def _split_class(self, model: Model2D, stage: Stage, k: int, source: int, members: IntArray) -> Model2D:
        """Classes k and ``source`` from the members of the latter, by a classification of these alone.

        Single images as references, as at the start: against the average of many, one image would stay alone.
        """
        count = int(np.clip(len(members) // 4, 2, _SPLIT_SEEDS))
        seeds = np.sort(self.rng.permutation(members)[:count])
        averages = moves.image_references(self.engine, seeds, model.sigma2, model.tau2[source : source + 1])
        share = np.full(count, model.log_share[source] - np.log(count))
        sub = replace(model, averages=averages, log_share=share, tau2=np.tile(model.tau2[source], (count, 1)))
        sums: Sums | None = None
        for _ in range(_SPLIT_ITERATIONS):
            _, sums = self.engine.run(sub, stage, members)
            assert sums is not None
            sub = replace(self.engine.maximise(sub, sums), sigma2=model.sigma2, shift_sigma_px=model.shift_sigma_px)
        assert sums is not None
        losses = moves.merging_losses(self.engine, sub, sums, stage)
        halves = [g[np.argmax(sums.mass[g])] for g in moves.group_classes(losses, sums.mass, 2)]
        averages, log_share, tau2 = model.averages.copy(), model.log_share.copy(), model.tau2.copy()
        into = [source, k]
        averages[into], tau2[into] = sub.averages[halves], sub.tau2[halves]
        log_share[into] = model.log_share[source] - np.log(2)
        return replace(model, averages=averages, log_share=log_share, tau2=tau2)

    def _batch(self) -> int:
        """Particles of an iteration."""
        count, batch = len(self.work.usable), self.settings.mini_batch
        if batch is None:
            batch = 0 if count <= 20000 else max(10000, 200 * self.settings.classes)
        return min(batch, count) if batch else count

    def gain(self) -> float:
        """:func:`held_out_gain` to where the seeding ends: asked where finer data show nothing."""
        rng = np.random.default_rng([self.settings.seed, 3])
        gain = held_out_gain(self.engine, self.second, self.range_px, rng)
        self.listener.say(f"averages of one half gain {gain:.1f} nats over noise on the images of the other")
        return gain

    def _rows(self, number: int) -> tuple[IntArray, float]:
        """Particles of an iteration and the weight of its sums."""
        rows, batch = self.work.usable, self._batch()
        if batch == len(rows):
            return rows, 1.0
        return np.sort(self.rng.permutation(rows)[:batch]), 1.0 if number == 0 else _STEP

    def improve(self, state: State) -> None:
        """Iterate until nothing changes: the radius grows with what the half sets show beyond it."""
        first, last = state.place.first_of("improve"), self.settings.iterations - 1
        in_stage = state.place.in_stage
        for number in range(first, self.settings.iterations):
            self.keep(state, "improve", number, in_stage)
            rows, step = self._rows(number)
            self.iterate(state, rows, step=step)
            in_stage += 1
            has_refill = number < min(last - 3, _REFILLS) and self.refill(state)
            share_changed = state.record[-1].changed
            if has_refill or (share_changed > _SETTLED and in_stage < _STAGE_ITERATIONS and number > 0):
                continue
            radius = state.stage.radius
            wanted = min(self.geometry.search_limit, self.supported_radius(state))
            if wanted > radius:
                state.stage, in_stage = self.stage(wanted), 0
            elif in_stage >= 2 and (share_changed <= _CONVERGED or in_stage >= 2 * _STAGE_ITERATIONS):
                break

    def finish(self, state: State) -> None:
        """After mini-batches two iterations with all images; then one with images that wear no mask."""
        rows = self.work.usable
        if state.gain is None and max(line.evidence for line in state.record) < NOISE_SIGMA:
            state.gain = self.gain()  # of masked images
        unmasked = [False, False] if self._batch() < len(rows) else []
        unmasked += [True] if self.settings.mask_m_step else []
        for number in range(state.place.first_of("last"), len(unmasked)):
            self.keep(state, "last", number)
            if unmasked[number]:
                self.engine.unmask()
            self.iterate(state, rows)
        self.keep(state, "done")


def classify2d(
    particles: ParticlesLike,
    settings: Class2DSettings | int | None = None,
    *,
    device: str = "cpu",
    threads: int | None = None,
    memory_GB: float | None = None,
    keeper: Keeper | None = None,
    listener: ListenerChoice = "screen",
    **changes: Any,
) -> Classes2D:
    r"""Classes of particles that show the same view, with the average of each.

    Expectation maximisation over class, in-plane angle and shift, all marginalised, with the CTF in the model, the
    noise spectrum of every optics group and a Gaussian prior of shifts estimated on the way. It starts from many
    single images, groups what they gather, and takes in finer data as far as averages of half sets agree on data that
    no alignment has seen yet. A class without an image, the empty class, competes for particles that noise explains
    as well.

    Parameters
    ----------
    particles : Particles or path
        With images and optics.
    settings : Class2DSettings, optional
        All choices at once; what is given beside them goes before.
    device : str
        ``"cpu"``, or ``"cuda:<number>"``: where images are compared with averages and added up.
    threads : int, optional
        Threads; all by default. The result does not depend on it.
    memory_GB : float, optional
        Most that the process may take, 4 by default; images and samples that find no room in it are read again in each
        iteration. What cannot be done without is taken all the same (``verglas class2d`` refuses it).
    keeper : Keeper, optional
        Keeps where it stands before every iteration; what it has kept of the same particles and settings goes on, to
        the same result bit for bit.
    listener : Listener, "screen" or None
        Who is told how it goes (:class:`verglas.types.listener.Listener`).
    **changes
        Single choices, as the fields of :class:`Class2DSettings`.

    Returns
    -------
    Classes2D

    Raises
    ------
    SettingError
        Settings are unknown or out of bounds; all of them are named.
    InputError
        Settings contradict the images, or no particle can be used.

    Warns
    -----
    VerglasWarning
        Particles were set aside; the text names them. The number of classes was given by place, as formerly.

    References
    ----------
    Sigworth (1998) J. Struct. Biol. 122, 328-339; Scheres et al. (2005) J. Mol. Biol. 348, 139-149; Scheres (2012) J.
    Struct. Biol. 180, 519-530.

    Examples
    --------
    >>> import numpy as np, verglas as vg
    >>> model = vg.simulate.phantom(32, 4.0, 90.0)
    >>> poses = vg.Poses(np.column_stack([np.zeros(60), np.repeat([0, 90], 30), np.arange(60) * 6.0]))
    >>> particles = vg.simulate.particles(model, 60, 32, 4.0, snr=1.0, poses=poses)
    >>> result = vg.classify2d(particles, classes=2, diameter_A=110)
    >>> result.averages.shape[1:], len(result.particles)
    ((32, 32), 60)
    """
    if isinstance(settings, int | np.integer):  # as formerly: the number of classes
        changes = {"n_classes": int(settings), **changes}
        settings = None
    settings = settings_from("classify2d", Class2DSettings, settings, **changes)
    particles = particles_of(particles, "classify2d: particles")
    if particles.source is None:
        raise InputError(f"classify2d: {particles.where} has no images, only metadata")
    limit_GB = MEMORY_GB if memory_GB is None else memory_GB
    if not limit_GB > 0:
        raise InputError(f"classify2d: memory_GB: expected more than 0, got {memory_GB}")
    grid = particles if Grids.of(particles) is None else plain_images(particles)
    memory = Class2DMemory(len(grid), grid.box, grid.pixel_size_A, settings, threads)
    work = WorkingSet(particles, settings, Where(device, threads), memory.room_GB(limit_GB))
    if settings.classes > max(1, len(work.usable) // 2):
        raise InputError(
            f"classify2d: {settings.classes} classes asked of {len(work.usable)} particles; ask for at most half of "
            "their number"
        )
    with shown_to(listener, iteration_sentence) as heard:
        classifier = Classifier(work, settings, keeper, heard)
        state = classifier.run()
        return collect(classifier.engine, state)


def iteration_sentence(figures: Mapping[str, Any]) -> str:
    """What a log says of an iteration; the fields of :class:`verglas.classification.classes.Iteration`."""
    return (
        f"iteration {figures['number']}: {figures['resolution_A']:.1f} A, {figures['particles']} particles, "
        f"log-likelihood {figures['log_likelihood']:.6g}, {100 * figures['changed']:.1f} % changed class, evidence on "
        f"unseen data {figures['evidence']:.1f} sigma, {figures['seconds']:.1f} s"
    )
