r"""What each frame is worth at each frequency, from its correlation with the reference.

.. math:: FCC_f(k) \approx d(k)\, e^{c_f - B_f k^2 / 4}

d is what the reference has of the signal, c_f and B_f scale and decay of the frame (motion within the first frames,
damage in the later ones). Frames of equal noise add up best with weights in proportion to their signal.

c_f and B_f are those of each frame by itself, or smooth along the frames: their second differences are then normal, as
narrow as the data tell, so that many frames of little signal each share what they know.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from verglas.errors import InputError
from verglas.polishing.surfaces import References, Window, noise_power, sum_products
from verglas.types.arrays import Complex64Array, FloatArray, any_arrays

_LEAST_SIGMA = 3.0  # a shell counts if all frames together correlate by so many standard errors
_ROUNDS = 50
_LEAST_FRAMES = 4  # that a smooth curve goes through


class FrameCorrelation:
    """Sums over particles of what correlates frames with the reference, shell by shell.

    Parameters
    ----------
    window : Window
    n_frames : int
    """

    def __init__(self, window: Window, n_frames: int) -> None:
        self.window = window
        self.cross, self.images = (np.zeros((n_frames, window.last + 1)) for _ in range(2))
        self.models = np.zeros((n_frames, window.last + 1))

    def add(self, frame: int, images: Complex64Array, references: References) -> None:
        """Take low frequencies of one frame, its particles moved to where the reference has them.

        Noise weighs each micrograph.
        """
        window, models = self.window, references.models
        shell = window.shell.clip(max=window.last)
        inverse = (window.weight / noise_power(images, window)[shell]).ravel()
        for sums, values in (
            (self.cross, sum_products(images, models)),
            (self.images, sum_products(images, images)),
            (self.models, sum_products(models, models)),
        ):
            sums[frame] += np.bincount(shell.ravel(), values.ravel() * inverse, window.last + 1)

    def __add__(self, other: FrameCorrelation) -> FrameCorrelation:
        both = FrameCorrelation(self.window, len(self.cross))
        for name in ("cross", "images", "models"):
            setattr(both, name, getattr(self, name) + getattr(other, name))
        return both

    def slope(self) -> tuple[FloatArray, FloatArray]:
        """(F, shells) amplitude of the reference in each frame by least squares, and its standard error.

        The same as an FCC but for the noise of the frames, which is theirs and not the signal's.
        """
        power = np.maximum(self.models, 1e-30)
        return self.cross / power, 1 / np.sqrt(power)


@dataclass(frozen=True, eq=False)
class FrameWeights:
    """Scale and decay of each frame, and what they make of it.

    Attributes
    ----------
    scale, b_factor_A2 : (F,) float64
        c_f and B_f, beyond ``left``; of the frames' mean, weighted by what is known of each, 0.
    scale_error, b_factor_error_A2 : (F,) float64
        Standard errors.
    left : (F, shells) float64
        Share of the amplitude that each frame has before scale and decay; 1 without an exposure curve.
    k2 : (shells,) float64
        Squared frequencies, 1/A^2.
    """

    scale: FloatArray
    b_factor_A2: FloatArray
    scale_error: FloatArray
    b_factor_error_A2: FloatArray
    left: FloatArray
    k2: FloatArray

    def at(self, k2: FloatArray) -> FloatArray:
        """(F, ...): weights at squared frequencies in 1/A^2, their squares adding up to 1: white noise stays white."""
        spread = (slice(None), *(None,) * np.ndim(k2))
        curves = np.stack([np.interp(np.sqrt(k2), np.sqrt(self.k2), np.log(row)) for row in self.left])
        exponent = curves + self.scale[spread] - self.b_factor_A2[spread] * k2 / 4
        weights = np.exp(exponent - exponent.max(axis=0))
        return np.asarray(weights / np.sqrt((weights**2).sum(axis=0)))


@any_arrays
def fit_frame_weights(
    correlation: FrameCorrelation, left: FloatArray | None = None, *, smooth: bool = False
) -> FrameWeights:
    """Scales and B-factors of the frames, by weighted least squares on the amplitudes themselves.

    Parameters
    ----------
    correlation : FrameCorrelation
    left : (F, shells) float64, optional
        Amplitude that an exposure curve leaves of each frame. Scale and B-factor are then departures from it, normal
        about none with deviations that the data tell: where these say little, the curve stays as it is. Without, each
        frame has its own, whatever its error.
    smooth : bool
        Scales and B-factors, or their departures, are smooth along the frames; of fewer than four frames they are not.

    Raises
    ------
    InputError
        Less than three shells correlate with the reference.
    """
    slope, error = correlation.slope()
    k2 = (np.arange(slope.shape[1]) / (correlation.window.box * correlation.window.pixel_size_A)) ** 2
    curve = np.ones_like(slope) if left is None else np.maximum(left, 1e-6)
    inverse = 1 / error**2
    mean = (slope * curve * inverse).sum(axis=0) / (curve**2 * inverse).sum(axis=0)
    use = mean * np.sqrt((curve**2 * inverse).sum(axis=0)) > _LEAST_SIGMA
    use[0] = False
    if use.sum() < 3:
        raise InputError(
            f"polishing: frames correlate with the reference in {int(use.sum())} shells; at least 3 are needed for "
            "weights of frames"
        )
    problem = _Amplitudes(slope[:, use], inverse[:, use], curve[:, use], k2[use])
    terms, errors = problem.fit(mean[use], _Spread.of(len(slope), smooth=smooth, learns=left is not None))
    return FrameWeights(terms[:, 0], terms[:, 1], errors[:, 0], errors[:, 1], curve, k2)


@dataclass(frozen=True, eq=False)
class _Spread:
    """Prior of scales and of B-factors along the frames: normal, with this form times a precision of each.

    Attributes
    ----------
    form : (F, F) float64
    rank : int
        Of the form.
    precision : (2,) float64
        To begin with.
    learns : bool
        Whether the data tell the precisions.
    """

    form: FloatArray
    rank: int
    precision: FloatArray
    learns: bool

    @classmethod
    def of(cls, frames: int, *, smooth: bool, learns: bool) -> _Spread:
        if smooth and frames >= _LEAST_FRAMES:
            second = np.diff(np.eye(frames), 2, axis=0)
            return cls(second.T @ second, frames - 2, np.array([1e2, 1e-2]), True)
        return cls(np.eye(frames), frames, np.array([1.0, 1e-4]) if learns else np.zeros(2), learns)

    def learn(self, terms: FloatArray, covariance: FloatArray) -> FloatArray:
        """Precisions that terms (F, 2), and what is not known of them (F, 2, F, 2), make most probable."""
        spread = np.einsum("fi,fg,gi->i", terms, self.form, terms) + np.einsum("fg,figi->i", self.form, covariance)
        return np.asarray(self.rank / np.maximum(spread, self.rank * np.array([1e-6, 1e-2])))


@dataclass(frozen=True, eq=False)
class _Amplitudes:
    """Amplitudes (F, s) with inverse variances, curves of exposure, and squared frequencies (s,)."""

    slope: FloatArray
    inverse: FloatArray
    curve: FloatArray
    k2: FloatArray

    def fit(self, reference: FloatArray, prior: _Spread) -> tuple[FloatArray, FloatArray]:
        """Terms (F, 2), scale and B-factor, and their errors: Gauss and Newton's steps, the reference in turns."""
        frames = len(self.slope)
        design = np.stack([np.ones_like(self.k2), -self.k2 / 4], axis=-1)
        terms, precision = np.zeros((frames, 2)), prior.precision
        covariance = np.zeros((frames, 2, frames, 2))
        of_frame = np.arange(frames)
        for _ in range(_ROUNDS):
            shape = self.curve * np.exp(terms @ design.T)
            model = reference * shape
            normal = np.einsum("fs,si,sj->fij", self.inverse * model**2, design, design)
            right = np.einsum("fs,si->fi", self.inverse * model * (self.slope - model), design)
            right -= precision * (prior.form @ terms)
            whole = np.einsum("fg,ij->figj", prior.form, np.diag(precision))
            whole[of_frame, :, of_frame, :] += normal + _ridge(normal)
            covariance = np.linalg.inv(whole.reshape(2 * frames, -1)).reshape(whole.shape)
            step = np.einsum("figj,gj->fi", covariance, right)
            # a frame with hardly any signal would leap: half of e is the furthest in one round
            limit = np.abs(step @ design.T).max(axis=1, keepdims=True)
            terms = terms + step / np.maximum(1.0, limit / 0.5)
            # what all frames have in common is the reference's
            terms -= [np.average(terms[:, i], weights=normal[:, i, i] + 1e-30) for i in range(2)]
            shape = self.curve * np.exp(terms @ design.T)
            reference = (self.inverse * shape * self.slope).sum(axis=0) / (self.inverse * shape**2).sum(axis=0)
            if prior.learns:
                precision = prior.learn(terms, covariance)
        return terms, np.sqrt(np.diagonal(covariance.reshape(2 * frames, -1)).reshape(frames, 2))


def _ridge(normal: FloatArray) -> FloatArray:
    """Little on the diagonal: frames without signal have no decay."""
    return np.asarray(np.eye(2) * normal * 1e-6 + np.eye(2) * 1e-12)


@any_arrays
def weights_gain(weights: FloatArray, former: FloatArray, judge: FrameCorrelation) -> tuple[float, float]:
    """Nats that a weighted sum of frames tells more of the reference than another, on particles not fitted to; error.

    Parameters
    ----------
    weights, former : (F, shells) float64
        Their squares add up to 1 over the frames.
    judge : FrameCorrelation
        Of other particles.

    Returns
    -------
    float, float
        Gain and its standard error.
    """
    slope, error = judge.slope()
    power = 1 / error[0] ** 2
    new, old = (weights * slope).sum(axis=0), (former * slope).sum(axis=0)
    # squares of noisy sums are too large by their variance, which is the same for both
    gain = 0.5 * power * (new**2 - old**2)
    spread = power * np.maximum(new, old).clip(min=0) ** 2 * power * ((weights - former) ** 2 * error**2).sum(axis=0)
    return float(gain[1:].sum()), float(np.sqrt(spread[1:].sum()))
