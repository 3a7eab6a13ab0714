"""Noise taken out of an image that was recorded twice, by a network that is trained on these two images alone.

What one half (even frames) lets expect of the other (odd frames) is signal, for their noise is independent: a network
that is trained to tell the second from the first learns to leave the noise out (Lehtinen et al. 2018, arXiv:1803.04189;
Buchholz et al. 2019, ISBI, 502-506). It starts as the Wiener filter of the two and learns what is added to that.

For display and for picking. What a network adds is an expectation, not a measurement: nothing may be measured in it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import scipy.fft

from verglas.errors import InputError
from verglas.learned.network import Network
from verglas.learned.training import TrainingSettings, train
from verglas.types.arrays import Float32Array, FloatArray

_SIDE = 64  # of a window of training
_RINGS = 64  # of the spectrum at most
# A ring's signal counts from so many standard errors of its correlation on.
_SURE = 2.0


@dataclass(frozen=True)
class DenoiseSettings:
    """How long to train.

    Attributes
    ----------
    steps : int
        0 leaves the Wiener filter.
    windows : int
        Of 64 x 64 pixels, at random places, of either half.
    rate : float
        Of learning.
    width : int
        Channels at the finest scale.
    seed : int
    """

    steps: int = 200
    windows: int = 160
    rate: float = 2e-3
    width: int = 12
    seed: int = 0


def wiener(first: npt.ArrayLike, second: npt.ArrayLike) -> tuple[Float32Array, Float32Array]:
    r"""Both images through the filter that their correlation gives: S / (S + N) in each ring of frequencies.

    .. math:: W(k) = \max\left(0, \frac{\mathrm{Re} \sum F_1 F_2^*}{\tfrac12 \sum |F_1|^2 + |F_2|^2}\right)

    The filter has no phases and is the same for both; rings whose correlation is less than two standard errors are left
    out.

    Parameters
    ----------
    first, second : (y, x) float
        Of the same thing, with independent noise.

    Returns
    -------
    first, second : (y, x) float32
        Their means are kept.

    Examples
    --------
    >>> import numpy as np
    >>> from verglas.learned import wiener
    >>> rng = np.random.default_rng(0)
    >>> left, right = wiener(rng.standard_normal((128, 128)), rng.standard_normal((128, 128)))
    >>> bool(left.std() < 0.2)
    True
    """
    one, two = _check_pair(first, second)
    spectra = [scipy.fft.rfft2(each - each.mean()) for each in (one, two)]
    ring = _rings(one.shape)
    weights = np.full(spectra[0].shape, 2.0)  # of a real image's half spectrum
    weights[:, 0] = 1.0
    if one.shape[1] % 2 == 0:
        weights[:, -1] = 1.0

    def sums(values: FloatArray) -> FloatArray:
        return np.asarray(np.bincount(ring.ravel(), (weights * values).ravel()), np.float64)

    cross = sums((spectra[0] * spectra[1].conj()).real)
    power = sums(abs(spectra[0]) ** 2 + abs(spectra[1]) ** 2) / 2
    correlation = cross / np.maximum(power, 1e-30)
    number = np.bincount(ring.ravel(), weights.ravel()) / 2  # independent complex coefficients
    gain = np.where(correlation > _SURE / np.sqrt(2 * np.maximum(number, 1)), correlation, 0.0)[ring]
    left, right = (
        (scipy.fft.irfft2(spectrum * gain, one.shape) + each.mean()).astype(np.float32)
        for spectrum, each in zip(spectra, (one, two), strict=True)
    )
    return left, right


def denoise(
    first: npt.ArrayLike, second: npt.ArrayLike, settings: DenoiseSettings | None = None, *, seconds: float = np.inf
) -> Float32Array:
    """The image that both show, without most of the noise.

    Parameters
    ----------
    first, second : (y, x) float
        Sums of even and of odd frames, or of two half sets; at least 64 pixels a side.
    settings : DenoiseSettings, optional
    seconds : float
        No step of training begins after so long.

    Returns
    -------
    (y, x) float32
        For display and picking; in the grey values of the images' mean.

    Raises
    ------
    InputError
        Images of different or too small shape, not finite, or constant.

    Examples
    --------
    >>> import numpy as np
    >>> from verglas.learned import DenoiseSettings, denoise
    >>> rng = np.random.default_rng(0)
    >>> truth = np.kron(rng.random((8, 8)) > 0.8, np.ones((12, 12)))
    >>> noisy = [truth + rng.standard_normal(truth.shape) for _ in range(2)]
    >>> made = denoise(*noisy, DenoiseSettings(steps=5, windows=8))
    >>> agree = [float(np.corrcoef(each.ravel(), truth.ravel())[0, 1]) for each in (made, noisy[0] + noisy[1])]
    >>> agree[0] > agree[1]
    True
    """
    chosen = settings or DenoiseSettings()
    one, two = _check_pair(first, second)
    smooth = wiener(one, two)
    if not all(float(each.std()) > 0 for each in smooth) or chosen.steps == 0:
        return ((smooth[0] + smooth[1]) / 2).astype(
            np.float32
        )  # there is nothing that both show, or nothing more is asked for
    middle, scale = float(np.mean(smooth[0] + smooth[1])) / 2, float(np.mean([each.std() for each in smooth]))
    inputs = [((each - middle) / scale).astype(np.float32) for each in smooth]
    targets = [((each - middle) / scale).astype(np.float32) for each in (two, one)]
    network = _train(inputs, targets, chosen, seconds)
    made = [each + network.apply(each[None])[0] for each in inputs]
    return ((made[0] + made[1]) * np.float32(scale / 2) + np.float32(middle)).astype(np.float32)


def _train(inputs: list[Float32Array], targets: list[Float32Array], chosen: DenoiseSettings, seconds: float) -> Network:
    """A network that says what the other half has beside the filtered one; it begins by saying nothing."""
    rng = np.random.default_rng(chosen.seed)
    top = np.array(inputs[0].shape) - _SIDE + 1
    places = rng.integers(0, top, (chosen.windows, 2))
    pairs = [
        [each[y : y + _SIDE, x : x + _SIDE] for each in (inputs[number % 2], targets[number % 2])]
        for number, (y, x) in enumerate(places)
    ]
    images, other = (np.stack(group) for group in zip(*pairs, strict=True))
    start = Network.random(chosen.seed, chosen.width, stride=1)
    silent = {name: 0 * value if name.startswith("out.") else value for name, value in start.parameters.items()}
    wanted = other - images
    # Losses are means over pixels of noise far stronger than the signal: in its deviations, steps are of usual size.
    unit = np.float32(max(float(wanted.std()), 1e-6))
    how = TrainingSettings(chosen.steps, 4, chosen.rate, seconds, chosen.seed, "square")
    trained = train(replace(start, parameters=silent), images, wanted / unit, np.ones_like(images), how)
    loud = {name: value * unit if name.startswith("out.") else value for name, value in trained.parameters.items()}
    return replace(trained, parameters=loud)


def _rings(shape: tuple[int, ...]) -> npt.NDArray[np.int64]:
    """Number of each coefficient's ring; at most 64 up to Nyquist."""
    y, x = scipy.fft.fftfreq(shape[0])[:, None], scipy.fft.rfftfreq(shape[1])[None]
    count = min(_RINGS, min(shape) // 2)
    return np.minimum(np.hypot(y, x) * 2 * count, count).astype(np.int64)


def _check_pair(first: npt.ArrayLike, second: npt.ArrayLike) -> tuple[Float32Array, Float32Array]:
    one, two = np.asarray(first, np.float32), np.asarray(second, np.float32)
    if one.shape != two.shape or one.ndim != 2 or min(one.shape) < _SIDE:
        raise InputError(
            f"denoise: expected two images of one shape, at least {_SIDE} pixels a side, got {one.shape}, {two.shape}"
        )
    for name, each in (("first", one), ("second", two)):
        if not np.isfinite(each).all() or not each.std() > 0:
            raise InputError(f"denoise: the {name} image is constant or has values that are not finite")
    return one, two
