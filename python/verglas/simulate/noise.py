"""Noise of a stated signal-to-noise ratio, from streams of random numbers keyed by particle."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from verglas import fourier
from verglas._native import resolve_threads
from verglas.errors import InputError
from verglas.types.arrays import Float32Array, FloatArray, any_arrays

WHOLE_BOX = "whole box"


@dataclass(frozen=True)
class SNR:
    """A signal-to-noise ratio with the region it was measured in.

    Attributes
    ----------
    value : float
        Variance of the noise-free images divided by the variance of the noise: a ratio of powers.
    region : str
        Where the variances were taken.

    Examples
    --------
    >>> from verglas.simulate import SNR
    >>> print(SNR(0.05))
    SNR 0.05 (variance of the noise-free image / variance of the noise, whole box)
    """

    value: float
    region: str = WHOLE_BOX

    def __str__(self) -> str:
        return f"SNR {self.value:.4g} (variance of the noise-free image / variance of the noise, {self.region})"


def stream(seed: int, particle: int, purpose: int = 0) -> np.random.Generator:
    """Random numbers that depend on seed, particle and purpose alone: Philox, a counter-based generator.

    Salmon et al. (2011) Proc. SC'11, 16. Key = (seed, particle); the purpose is the highest word of the counter, so
    streams never overlap.

    Examples
    --------
    >>> from verglas.simulate.noise import stream
    >>> bool(stream(1, 7).random() == stream(1, 7).random()), bool(stream(1, 7).random() == stream(1, 8).random())
    (True, False)
    """
    if not 0 <= seed < 2**63:
        raise InputError(f"seed: expected 0 to 2^63 - 1, got {seed}")
    # The purpose sits in the counter's highest word: streams of one key are 2^192 numbers apart.
    return np.random.Generator(np.random.Philox(key=[seed, particle], counter=[0, 0, 0, purpose]))


def coloured_power(
    box: int, pixel_size_A: float, *, excess: float = 4.0, width_per_A: float = 0.02, detector: float = 0.5
) -> FloatArray:
    r"""Power spectrum of noise as micrographs show it: a rise at low and a fall at high frequency.

    .. math::
        P(k) \propto \left[1 + \frac{e}{1 + (k/k_0)^2}\right] d^{\,k/k_{Nyquist}}

    Parameters
    ----------
    box, pixel_size_A : int, float
        Grid.
    excess : float
        e: power at k = 0 above the level of white noise (ice, carbon, neighbouring particles).
    width_per_A : float
        k0: where the excess has halved, 1/A.
    detector : float
        d: power at Nyquist that the detector passes.

    Returns
    -------
    (shells,) float64
        One value per shell round(|k|) up to the corner of the half transform; scaled to mean 1 over the box by
        :func:`noise`.

    Examples
    --------
    >>> from verglas.simulate.noise import coloured_power
    >>> coloured_power(64, 2.0)[[0, 32]].round(3).tolist()
    [5.0, 0.513]
    """
    k = np.arange(int(fourier.shells((box, box)).max()) + 1) / (box * pixel_size_A)
    return (1 + excess / (1 + (k / width_per_A) ** 2)) * detector ** (k * 2 * pixel_size_A)


def noise(
    particles: Iterable[int],
    box: int,
    *,
    seed: int,
    power: npt.ArrayLike | None = None,
    purpose: int = 0,
    threads: int | None = None,
) -> Float32Array:
    """Gaussian noise of unit variance, one image per particle number.

    Parameters
    ----------
    particles : iterable of int
        Particle numbers: the noise of a particle does not depend on which others are asked for, nor in what order.
    box : int
        Image side.
    seed : int
        Seed of the run.
    power : (shells,) array_like, optional
        Relative power per shell round(|k|), as :func:`coloured_power` gives; white by default. It is scaled so that
        the expected variance over the whole box is 1.
    purpose : int
        Number of an independent stream of the same particle.
    threads : int, optional
        Threads; the result does not depend on it.

    Returns
    -------
    (n, box, box) float32

    Raises
    ------
    InputError
        ``power`` has fewer shells than the box, or a value that is negative or not finite.

    Examples
    --------
    >>> from verglas.simulate import noise
    >>> white = noise.noise([0, 1], 64, seed=3)
    >>> white.shape, bool(abs(white.std() - 1) < 0.02)
    ((2, 64, 64), True)
    """
    gain = None if power is None else _gain(box, power)

    def one(particle: int) -> Float32Array:
        white = stream(seed, particle, purpose).standard_normal((box, box), dtype=np.float32)
        if gain is None:
            return white
        return fourier.inverse(fourier.forward(white, 2, threads=1) * gain, (box, box), threads=1)

    return map_images(one, particles, box, threads)


def map_images(
    one: Callable[[int], Float32Array], numbers: Iterable[int], box: int, threads: int | None
) -> Float32Array:
    """``one(number)`` of every number in threads, stacked: each image is made alone, so threads change nothing."""
    order = list(numbers)
    out = np.empty((len(order), box, box), np.float32)

    def store(i: int) -> None:
        out[i] = one(order[i])

    with ThreadPoolExecutor(resolve_threads(threads)) as pool:
        for _ in pool.map(store, range(len(order))):
            pass
    return out


def _gain(box: int, power: npt.ArrayLike) -> npt.NDArray[np.float32]:
    """Amplitude per Fourier coefficient whose mean square over the full transform is 1."""
    shells = fourier.shells((box, box))
    per_shell = np.asarray(power, np.float64)
    if per_shell.ndim != 1 or len(per_shell) <= shells.max():
        raise InputError(f"noise power: expected {shells.max() + 1} shells for a box of {box}, got {per_shell.shape}")
    if not (np.isfinite(per_shell).all() and (per_shell >= 0).all() and per_shell.any()):
        raise InputError("noise power: expected finite values, none negative and some positive")
    values = per_shell[shells]
    mean = (values * fourier.half_weights((box, box))).sum() / box**2
    return np.sqrt(values / mean).astype(np.float32)


def add_noise(
    images: npt.ArrayLike,
    snr: float,
    *,
    seed: int,
    power: npt.ArrayLike | None = None,
    purpose: int = 0,
    threads: int | None = None,
) -> Float32Array:
    """Float32Array plus noise of one level: mean image variance over the whole box / ``snr``.

    What is given counts as signal. Stages therefore compose as (1 + 1/SNR) = prod (1 + 1/SNR_i) (Frank and Al-Ali
    (1975) Nature 256, 376-379; Baxter et al. (2009) J. Struct. Biol. 166, 126-132).

    Parameters
    ----------
    images : (n, y, x)
        Signal of this stage.
    snr : float
        Power ratio; infinity adds nothing.
    seed, power, purpose, threads
        As in :func:`noise`; the particle number is the position in the stack. Give each stage its own ``purpose``.

    Examples
    --------
    >>> import numpy as np
    >>> from verglas.simulate import noise
    >>> clean = np.random.default_rng(0).normal(size=(4, 64, 64))
    >>> noisy = noise.add_noise(clean, 0.5, seed=1)
    >>> bool(abs(noise.measured_snr(clean, noisy).value / 0.5 - 1) < 0.03)
    True
    """
    signal = np.asarray(images, np.float32)
    sigma = noise_sigma(float(signal.var(axis=(1, 2), dtype=np.float64).mean()), snr)
    box = signal.shape[-1]
    return signal + np.float32(sigma) * noise(
        range(len(signal)), box, seed=seed, power=power, purpose=purpose, threads=threads
    )


def noise_sigma(signal_variance: float, snr: float) -> float:
    """Standard deviation of the noise: sqrt(variance / SNR).

    Examples
    --------
    >>> from verglas.simulate.noise import noise_sigma
    >>> noise_sigma(2.0, 0.5), noise_sigma(2.0, float("inf"))
    (2.0, 0.0)
    """
    if not snr > 0:
        raise InputError(f"snr: expected a positive number (inf for no noise), got {snr}")
    return float(np.sqrt(signal_variance / snr))


@any_arrays
def measured_snr(clean: npt.ArrayLike, noisy: npt.ArrayLike, mask: npt.ArrayLike | None = None) -> SNR:
    """SNR of images whose noise-free version is known: mean of var(clean) / mean of var(noisy - clean).

    Parameters
    ----------
    clean, noisy : (n, y, x)
        The same images without and with noise.
    mask : (y, x) bool, optional
        Where to measure; the whole box by default. The result names its region.

    Examples
    --------
    >>> import numpy as np
    >>> from verglas.simulate import measured_snr
    >>> x = np.array([[[0.0, 2.0], [0.0, 2.0]]])
    >>> measured_snr(x, x + np.array([[2.0, 2.0], [-2.0, -2.0]])).value
    0.25
    """
    a, b = np.asarray(clean, np.float64), np.asarray(noisy, np.float64)
    where = np.ones(a.shape[-2:], bool) if mask is None else np.asarray(mask, bool)
    region = WHOLE_BOX if mask is None else f"mask of {where.sum()} of {where.size} pixels"
    return SNR(float(a[:, where].var(axis=1).mean() / (b - a)[:, where].var(axis=1).mean()), region)
