r"""Most probable tracks where every frame sees every place with a Gaussian error, and the evidence of their prior.

Velocities with the prior of :mod:`verglas.polishing.prior` make the precision of positions s, frame after frame,

.. math::
    Q = D^T D \otimes (\sigma_V d)^{-2} E^{-1} + (D_2 D)^T (D_2 D) \otimes (\sigma_A d)^{-2},
    \quad E_{pq} = e^{-|x_p - x_q| / \sigma_D}

with differences D of neighbouring frames, D_2 of neighbouring velocities, and the exposure d of a frame: a band of two
particles' counts to either side. The mean position of a particle has a variance of its own, a term of low rank. Frames
add their information to the diagonal, the same for every position, so that one factorisation serves a whole search for
tracks, both axes, and the determinant.

Where the surfaces are no parabolas, a parabola with their slope at the most probable tracks and their expected
curvature stands for them: the evidence of the prior has then the same slope along the prior's numbers as Laplace's
approximation, and ends at the same place when both are found in turns.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from scipy.linalg import cho_factor, cho_solve
from scipy.spatial.distance import cdist

from verglas.errors import InputError
from verglas.polishing.blocks import BlockFactor
from verglas.polishing.prior import MotionPrior
from verglas.types.arrays import FloatArray

OFFSET_A = 0.5  # standard deviation along an axis of the error of a particle's place, as its pose says it
_LEAST_EIGENVALUE = 1e-6  # of the correlation of particles: such as lie on one another move as one
_LEAST_INFORMATION = 1e-6  # per square angstrom: that of a frame which shows nothing, so that a factorisation exists
LEAST_FRAMES = 3  # whose two velocities differ
# Of the largest element, added to the diagonal in turn until a factorisation exists: what its own rounding amounts to.
_ROUNDING = (0.0, 1e-14, 1e-13, 1e-12)
_MOST_ROUNDING = OFFSET_A**-2  # per square angstrom: more would say where particles are


@dataclass(frozen=True, eq=False)
class Scene:
    """What tracks of a micrograph depend on but for the prior.

    Attributes
    ----------
    places_A : (P, 2) float64
        Of the particles on the specimen.
    dose_e_A2 : float
        Of a frame.
    information : (P, F) float64
        Curvature of the log-likelihood along an axis, expected, per square angstrom.
    """

    places_A: FloatArray
    dose_e_A2: float
    information: FloatArray


class TrackSmoother:
    """The factorised precision of all positions of a micrograph under a prior.

    Parameters
    ----------
    prior : MotionPrior
    scene : Scene

    Attributes
    ----------
    information : (P, F) float64
        Of the scene, never quite nothing.

    Raises
    ------
    InputError
        Fewer than 3 frames, information that is not finite, or a prior that holds particles so still that rounding
        hides what frames show.

    Examples
    --------
    >>> import numpy as np
    >>> from verglas.polishing import MotionPrior, Scene, TrackSmoother
    >>> prior, places = MotionPrior(0.4, 1500.0, 0.2), np.array([[0.0, 0.0], [100.0, 0.0], [2000.0, 0.0]])
    >>> truth = prior.draw(places, 12, 1.0, np.random.default_rng(0))
    >>> truth -= truth.mean(axis=1, keepdims=True)
    >>> seen = truth + np.random.default_rng(1).normal(size=truth.shape)  # with errors of 1 A
    >>> smooth = TrackSmoother(prior, Scene(places, 1.0, np.ones((3, 12)))).solve(seen)  # information of 1 / A^2
    >>> bool(np.abs(smooth - truth).mean() < 0.5 * np.abs(seen - truth).mean())
    True
    """

    def __init__(self, prior: MotionPrior, scene: Scene) -> None:
        particles, frames = scene.information.shape
        if frames < LEAST_FRAMES:
            raise InputError(f"polishing: a movie of {frames} frames; expected at least {LEAST_FRAMES}")
        if not np.isfinite(scene.information).all():
            raise InputError(
                "polishing: the correlations of frames with the references are not finite; check the references"
            )
        self.scene = scene
        self.information = np.maximum(scene.information, _LEAST_INFORMATION)
        self._precision, self._log_prior = _velocity_precision(prior, scene.places_A, frames, scene.dose_e_A2)
        self._stiffness = (prior.acceleration_A * scene.dose_e_A2) ** -2.0
        # the mean about which a track is counted: its variance is that of the particle's place
        weights = frame_weights(scene.information)
        self._mean = weights / weights.sum()
        spread = np.zeros((frames, particles, particles))
        spread[:, np.arange(particles), np.arange(particles)] = self._mean[:, None] / OFFSET_A
        self._spread = spread.reshape(-1, particles)
        self._factorise()

    def _factorise(self) -> None:
        """Of the blocks with the information of frames, then of the means' term of low rank."""
        for share in _ROUNDING:
            own, below = _blocks(self._precision, self.information, self._stiffness)
            rounding = share * max(block.diagonal().max() for block in own)
            if rounding > _MOST_ROUNDING:
                break
            for block in own:
                block[np.diag_indices_from(block)] += rounding
            try:
                self._factorise_blocks(own, below)
            except np.linalg.LinAlgError:
                continue
            return
        raise InputError(
            "polishing: the prior of tracks holds particles so still that rounding hides what frames show; expected a "
            "larger velocity_A or acceleration_A"
        )

    def _factorise_blocks(self, own: list[FloatArray], below: list[FloatArray]) -> None:
        particles = len(self.information)
        self._factor = BlockFactor.of(own, below)
        self._solved = self._factor.solve(self._spread)
        inner = np.eye(particles) + self._spread.T @ self._solved
        self._inner = cho_factor(inner, lower=True, check_finite=False)

    @property
    def log_determinant(self) -> float:
        """Of the prior's precision of velocities over the posterior's of positions, halved; along one axis."""
        posterior = self._factor.log_diagonal + np.log(np.diag(self._inner[0])).sum()
        return float(self._log_prior - posterior)

    def solve(self, slope: FloatArray) -> FloatArray:
        """Tracks (P, F, 2) that the posterior's precision turns into a slope (P, F, 2)."""
        made = self._solve(slope.transpose(1, 0, 2).reshape(-1, 2))
        particles, frames = self.scene.information.shape
        return np.ascontiguousarray(made.reshape(frames, particles, 2).transpose(1, 0, 2))

    def log_prior(self, tracks_A: FloatArray) -> float:
        """Logarithm of the prior's density of tracks (P, F, 2), without its normalisation."""
        velocity = np.diff(tracks_A, axis=1)
        together = np.einsum("pq,qfa->pfa", self._precision, velocity, optimize=True)
        mean = np.einsum("f,pfa->pa", self._mean, tracks_A)
        squares = (velocity * together).sum() + self._stiffness * (np.diff(velocity, axis=1) ** 2).sum()
        return float(-0.5 * (squares + (mean**2).sum() / OFFSET_A**2))

    def draw(self, count: int, random: np.random.Generator) -> FloatArray:
        """(P, F, count): draws from the posterior's spread about the most probable positions, along one axis."""
        particles, frames = self.scene.information.shape
        size = particles * frames
        white = random.normal(size=(size, count))
        # factor times white has the covariance that the band has as a precision
        seen = self._spread @ random.normal(size=(particles, count)) + self._factor.times(white)
        return self._solve(seen).reshape(frames, particles, count).transpose(1, 0, 2)

    def about_mean(self, places_A: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Places (P, F, n) about their mean over the frames, weighted by information, and that mean (P, n)."""
        mean = np.einsum("f,pfa->pa", self._mean, places_A)
        return places_A - mean[:, None], mean

    def _solve(self, flat: FloatArray) -> FloatArray:
        made = self._factor.solve(flat)
        made -= self._solved @ cho_solve(self._inner, self._spread.T @ made, check_finite=False)
        return np.asarray(made)


def parabolic_evidence(smoother: TrackSmoother, seen_A: FloatArray) -> float:
    """Logarithm of the marginal likelihood of a prior whose places (P, F, 2) were seen with Gaussian errors; exact.

    Their variance is the inverse of the information; what does not depend on the prior is left out.
    """
    weighted = smoother.information[..., None] * seen_A
    squares = (weighted * (seen_A - smoother.solve(weighted))).sum()
    return float(-0.5 * squares + 2 * smoother.log_determinant)


def frame_weights(information: FloatArray) -> FloatArray:
    """(F,) information (P, F) of each frame, averaged over particles: about which mean a track is counted."""
    weights = information.mean(axis=0)
    return weights if weights.sum() > 0 else np.ones(len(weights))


def _velocity_precision(
    prior: MotionPrior, places_A: FloatArray, frames: int, dose_e_A2: float
) -> tuple[FloatArray, float]:
    """(P, P) precision of the velocities of one step, and half the log determinant of that of all steps."""
    correlation = np.exp(-cdist(places_A, places_A) / prior.correlation_length_A)
    values, vectors = np.linalg.eigh(correlation)
    values = np.clip(values, _LEAST_EIGENVALUE, None) * (prior.velocity_A * dose_e_A2) ** 2
    j = np.arange(frames - 1)
    stiffness = (2 - 2 * np.cos(np.pi * j / (frames - 1))) / (prior.acceleration_A * dose_e_A2) ** 2
    return (vectors / values) @ vectors.T, 0.5 * float(np.log(1 / values[:, None] + stiffness).sum())


def _blocks(
    precision: FloatArray, information: FloatArray, stiffness: float
) -> tuple[list[FloatArray], list[FloatArray]]:
    """Precision of positions, means left free, in blocks of two frames: on the diagonal, and under it.

    No frame knows of others than its two neighbours on either side.
    """
    particles, frames = information.shape
    first = np.diff(np.eye(frames), axis=0)
    second = np.diff(first, axis=0)
    along, bending = first.T @ first, stiffness * second.T @ second
    still = np.eye(particles)

    def between(rows: range, columns: range) -> FloatArray:
        return np.asarray(
            np.block([[along[f, g] * precision + bending[f, g] * still for g in columns] for f in rows]), np.float64
        )

    pairs = [range(f, min(f + 2, frames)) for f in range(0, frames, 2)]
    own = [between(pair, pair) for pair in pairs]
    for pair, block in zip(pairs, own, strict=True):
        block[np.diag_indices_from(block)] += information[:, pair.start : pair.stop].T.ravel()
    return own, [between(after, pair) for pair, after in pairwise(pairs)]
