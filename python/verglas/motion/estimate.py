"""The motion of a movie, from its binned frames."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from threadpoolctl import threadpool_limits

from verglas.errors import InputError
from verglas.motion import choose, fields, fixed_pattern, whole_frames
from verglas.motion.binned import BinnedFrames
from verglas.motion.exposure import Exposure
from verglas.motion.fields import Field, Timing
from verglas.motion.fit import Fit, fit
from verglas.motion.patches import Patches, b_factor_weights, cut, likelihood_weights, signal_to_noise
from verglas.motion.uncertainty import shift_errors
from verglas.types.arrays import FloatArray
from verglas.types.motion import MODELS, Motion

B_FACTORS_A2 = (500.0, 150.0)  # of the first steps, before the signal's own spectrum is known
LATTICE_LENGTH = 0.35  # of the prior in space, sides of the frame
LATTICE_FRAMES = 6.0  # ... and in time
WEAK_SIGMA = 5.0  # frames that agree by less than this beyond what fitting gives hold no picture to follow
DOUBT_SIGMA = 10.0  # up to here wrong places agree as well as right ones, and nobody knows how far shifts are off
JUMP_PX = 8.0  # a frame that lies further from where its neighbours do moves by itself
FAR_PX = 1.0  # binned pixels between a patch and where it was cut that ask for cutting again


@dataclass(frozen=True, eq=False)
class Estimate:
    """A movie's motion and how sure it is.

    Attributes
    ----------
    motion : Motion
    gains : list of ModelGain
        What each model predicts of held-out frequencies beyond shifts of whole frames.
    flags : list of str
        What is wrong with the movie, a sentence each.
    agreement_nats : float
        Log-likelihood of the frames showing one picture, over that of their showing none.
    agreement_sigma : float
        By how many standard errors they agree beyond what the best of all places would by chance; NaN where they were
        not searched for.
    steering : Steering
        Of :class:`~verglas.motion.fixed_pattern.RecordedSum`.
    """

    motion: Motion
    gains: list[choose.ModelGain]
    flags: list[str]
    agreement_nats: float
    agreement_sigma: float = float("nan")
    steering: fixed_pattern.Steering = field(default_factory=fixed_pattern.Steering)


def usable_frames(binned: BinnedFrames) -> tuple[Timing, list[str]]:
    """Frames to fit, and what is wrong with the others.

    Raises
    ------
    InputError
        There are none.
    """
    flaws = binned.flaws()
    flags = [f"frame {i + 1} {flaw}: left out" for i, flaw in enumerate(flaws) if flaw]
    timing = Timing(len(flaws), np.flatnonzero([not flaw for flaw in flaws]))
    if not len(timing.used):
        raise InputError("motion: no frame can be used: " + "; ".join(flags[:3]))
    return timing, flags


def estimate_motion(
    binned: BinnedFrames, exposure: Exposure, model: str = "auto", *, threads: int | None = None
) -> Estimate:
    """Shifts of whole frames and a smooth field from one objective, the field's kind by held-out evidence.

    1. Coarse pictures of groups of frames, pairs of them, then each frame against the sum of the others.
    2. Patches; the log-likelihood of all frames showing one unknown picture is maximised by Newton steps, first with
       weights exp(-B k^2/4), then with those of the signal-to-noise ratio that the frames' own agreement gives.
       Frames' shifts have a prior: a path that settles and a jitter, whose sizes the evidence sets.
    3. The same with a polynomial, and with a spline lattice under a smoothness prior whose strength the evidence sets.
    4. Each model predicts frequencies that it was not fitted to; the best is kept.

    Raises
    ------
    InputError
        An unknown model, or no frame that can be used.
    """
    if model not in ("auto", *MODELS):
        raise InputError(f"motion: expected a model of auto, {', '.join(MODELS)}, got {model!r}")
    timing, flags = usable_frames(binned)
    if len(timing.used) < 2:
        motion = Motion(
            binned.shape, np.zeros((timing.n_frames, 2)), used=np.isin(np.arange(timing.n_frames), timing.used)
        )
        return Estimate(motion, [], [*flags, "one frame: nothing to align"], 0.0)
    # systems of a few hundred unknowns: several threads of the BLAS mostly wait for each other
    with threadpool_limits(1, user_api="blas"):
        return _Search(binned, exposure, timing, threads).run(model, flags)


@dataclass(frozen=True)
class _Search:
    binned: BinnedFrames
    exposure: Exposure
    timing: Timing
    threads: int | None

    def run(self, model: str, flags: list[str]) -> Estimate:
        start = self.whole_frames()
        jumps = self.jumps(start)
        patches = self.cut(start)
        base, weights, patches = self.of_frames(patches, start, [j for j, _ in jumps])
        # shifts were searched over the whole frame: the best of so many places agrees by chance
        luck = len(self.timing.used) * np.log(max(2, base.scores.value.size * patches.side**2))
        agreement, chance = self.agreement(patches, base.at_patches)  # chance is 0 where nothing agrees
        sigma = float((agreement - luck) / chance) if chance > 0 else -np.inf
        if self.ran_away(base, start, patches) or sigma < WEAK_SIGMA:
            n = self.timing.n_frames
            used = np.isin(np.arange(n), self.timing.used)
            flags = [*flags, "the frames hold no common picture to follow: summed where they lie"]
            return Estimate(Motion(self.binned.shape, np.zeros((n, 2)), used=used), [], flags, base.value, sigma)
        # where the fit has put them: of a weak frame it may be other than where the search did
        flags = [
            *flags,
            *(
                f"frame {self.timing.used[j] + 1} lies {size:.0f} px from where its neighbours do"
                for j, size in self.jumps(base.at_patches.mean(axis=0))
            ),
        ]
        if sigma < DOUBT_SIGMA:
            flags.append(
                f"little to follow ({sigma:.1f} standard errors beyond chance): how far the shifts are off is not known"
            )
        fits, lattice = {"global": base}, self.lattice(patches)
        wanted = MODELS if model == "auto" else (model,)
        if "spline" in wanted:
            fits["spline"] = self.local(patches, weights, base, (lattice[0], self.local_times(), 1.0))
        if "polynomial" in wanted:
            term = fields.polynomial_term(patches.centres_px, self.binned.shape, self.timing.frames)
            fits["polynomial"] = self.local(patches, weights, base, term)
        best, gains = model, list[choose.ModelGain]()
        if model == "auto":
            at = fits["spline"].at_patches
            best, gains = choose.choose(fits, choose.fold_scores(patches, weights, at), at)
        found = self.finish(patches, fits[best], gains, flags, lattice[1] if best == "spline" else None)
        # The curvature at one of several places that agree alike says nothing of the others.
        motion = found.motion if sigma >= DOUBT_SIGMA else replace(found.motion, global_error_px=None)
        return replace(found, motion=motion, agreement_sigma=sigma)

    def whole_frames(self) -> FloatArray:
        """(used, 2) px, the first at 0."""
        pixel = self.binned.factor * self.exposure.pixel_size_A
        coarse = whole_frames.WholeFrames.of([self.binned.data[f] for f in self.timing.used], pixel, self.threads)
        size = whole_frames.group_size(len(self.timing.used), self.exposure.dose_per_frame_e_A2)
        shifts, _ = whole_frames.align(coarse, whole_frames.initial_shifts(coarse, size))
        return (shifts - shifts[0]) * coarse.factor * self.binned.factor

    def jumps(self, shifts: FloatArray) -> list[tuple[int, float]]:
        """Frames (of those used) that lie away from the median of their neighbours, and by how much."""
        n = len(shifts)
        if n < 5:
            return []
        frames = []
        for f in range(n):
            near = [g for g in range(max(0, f - 3), min(n, f + 4)) if g != f]
            line = np.array([np.interp(f, near, shifts[near, axis]) for axis in (0, 1)])
            middle = np.median(shifts[near], axis=0)
            spread = (
                np.abs(shifts[near] - middle).max(initial=0.0)
                if len(near) < 3
                else float(np.median(np.hypot(*(shifts[near] - middle).T)))
            )
            off = min(np.hypot(*(shifts[f] - line)), np.hypot(*(shifts[f] - middle)))
            if off > JUMP_PX + 3 * spread:
                frames.append((f, float(off)))
        return frames

    def cut(self, shifts: FloatArray) -> Patches:
        return cut(self.binned, self.timing.used, shifts, self.exposure, self.threads)

    def of_frames(self, patches: Patches, start: FloatArray, jumps: Sequence[int]) -> tuple[Fit, FloatArray, Patches]:
        """Shifts of whole frames, the weights that the signal deserves, and patches cut where they belong."""
        pixel = self.exposure.pixel_size_A
        at = np.broadcast_to(start, (len(patches.data), *start.shape)).copy()
        for step, b_factor in enumerate((*B_FACTORS_A2, *B_FACTORS_A2[-1:])):
            fitting = fit(patches, self.of_frames_only(patches, jumps), b_factor_weights(patches, b_factor, pixel), at)
            away = np.abs(patches.shifts(fitting.at_patches)).max()
            at = fitting.at_patches
            if away < FAR_PX or step == len(B_FACTORS_A2):
                continue
            patches = self.cut(at[0])
            at = np.broadcast_to(at[0], (len(patches.data), *start.shape)).copy()
        for _ in range(2):
            weights = likelihood_weights(patches, signal_to_noise(patches, fitting.at_patches), pixel)
            fitting = fit(patches, self.of_frames_only(patches, jumps), weights, fitting.at_patches, tune=True)
        return fitting, weights, patches

    def of_frames_only(self, patches: Patches, jumps: Sequence[int]) -> Field:
        return fields.field_of(fields.global_terms(len(patches.data), self.timing.frames, jumps), [])

    def ran_away(self, fitting: Fit, start: FloatArray, patches: Patches) -> bool:
        """Whether a frame went beyond half a patch from where it was found: correlations are periodic.

        Where there is something to follow, the fit moves frames by a few pixels (4.5 at most in 14 weak movies); three
        that ran away went 400 and more.
        """
        moved = fitting.at_patches.mean(axis=0) - start
        return bool(np.abs(moved - moved[0]).max() > patches.side * self.binned.factor / 2)

    def agreement(self, patches: Patches, at_patches: FloatArray) -> tuple[float, float]:
        """Nats by which the frames agree, and the standard deviation of that in frames of noise.

        Whether there is a picture is asked of all that agrees; what is shrunk, because it is followed, would hide it.
        """
        snr = signal_to_noise(patches, at_patches, shrunk=False)
        weights = likelihood_weights(patches, snr, self.exposure.pixel_size_A)
        q2 = patches.damping.astype(float) ** 2
        pairs = q2.sum(0) ** 2 - (q2**2).sum(0)
        value = float(patches.score(at_patches, weights, derivatives=False).value.sum())
        return value, float(np.sqrt(len(patches.data) * (weights**2 * pairs).sum()))

    def lattice(self, patches: Patches) -> tuple[FloatArray, FloatArray]:
        return fields.lattice_places(patches.centres_px, self.binned.shape, LATTICE_LENGTH)

    def local_times(self) -> FloatArray:
        return fields.settling_times(self.timing.frames, LATTICE_FRAMES)

    def local(self, patches: Patches, weights: FloatArray, base: Fit, term: fields.Term) -> Fit:
        """Shifts of whole frames and one local term, from the shifts alone on."""
        of_frames = list(zip(base.field.space, base.field.time, base.field.deviations_px, strict=True))
        return fit(patches, fields.field_of(of_frames, [term]), weights, base.at_patches, tune=True)

    def finish(
        self,
        patches: Patches,
        fitting: Fit,
        gains: list[choose.ModelGain],
        flags: list[str],
        lattice: FloatArray | None,
    ) -> Estimate:
        """The chosen field fitted once more with weights of the agreement that it has brought."""
        weights = likelihood_weights(patches, signal_to_noise(patches, fitting.at_patches), self.exposure.pixel_size_A)
        fitting = fit(patches, fitting.field, weights, fitting.at_patches, tune=True)
        errors = shift_errors(patches, weights, fitting)
        motion = fields.to_motion(fitting.field, fitting.coefficients, self.binned.shape, self.timing, lattice)
        both = np.repeat(self.timing.everywhere(errors)[:, None], 2, axis=1)
        agreed = fixed_pattern.Agreement.of(patches, fitting.at_patches)
        pattern = fixed_pattern.within_movie(agreed, patches, weights, float(errors.mean()))
        if pattern is not None and pattern.is_there:
            flags = [*flags, f"{pattern.sentence}; {fixed_pattern.WHAT_TO_DO}"]
        steering = fixed_pattern.steering_of(agreed, patches, weights)
        return Estimate(replace(motion, global_error_px=both), gains, flags, fitting.value, steering=steering)
