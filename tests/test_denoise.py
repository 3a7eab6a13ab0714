"""Noise taken out by a network that two halves train: against the truth and the Wiener filter; noise stays nothing."""

from __future__ import annotations

import numpy as np
import pytest

from verglas.errors import InputError
from verglas.learned import DenoiseSettings, denoise, wiener


def halves(side=160, noise=2.0, seed=0):
    """Discs, and two images of them with independent noise."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:side, :side]
    truth = sum(np.hypot(x - u, y - v) < 9 for u, v in rng.uniform(12, side - 12, (9, 2))).astype(float)
    return truth, [truth + noise * rng.standard_normal(truth.shape) for _ in range(2)]


def agreement(image, truth):
    return float(np.corrcoef(image.ravel(), truth.ravel())[0, 1])


def test_a_trained_network_agrees_with_the_truth_better_than_the_wiener_filter():
    truth, noisy = halves()
    filtered = agreement(sum(wiener(*noisy)), truth)
    assert filtered > agreement(sum(noisy), truth) + 0.15
    assert agreement(denoise(*noisy, DenoiseSettings(steps=40, windows=40, width=8)), truth) > filtered + 0.02


def test_of_noise_alone_next_to_nothing_is_left():
    rng = np.random.default_rng(1)
    noisy = rng.standard_normal((2, 160, 160))
    assert denoise(*noisy, DenoiseSettings(steps=8, windows=8, width=8)).std() < 0.15


def test_no_step_is_the_wiener_filter_and_grey_values_stay():
    _, noisy = halves(seed=2)
    left, right = wiener(noisy[0] + 7, noisy[1] + 7)
    made = denoise(noisy[0] + 7, noisy[1] + 7, DenoiseSettings(steps=0))
    assert np.allclose(made, (left + right) / 2)
    assert made.mean() == pytest.approx(np.mean(noisy) + 7, abs=1e-3)


def test_the_wiener_filter_treats_both_halves_alike():
    _, noisy = halves(seed=3)
    left, right = wiener(*noisy)
    other_right, other_left = wiener(noisy[1], noisy[0])
    assert np.allclose(left, other_left, atol=1e-5)
    assert np.allclose(right, other_right, atol=1e-5)


@pytest.mark.parametrize("bad", ["shape", "small", "constant", "nan"])
def test_images_that_do_not_go_together_are_refused(bad):
    _, (one, two) = halves(side=80)
    if bad == "nan":
        two = two.copy()
        two[3, 3] = np.nan
    pairs = {"shape": (one, two[:70]), "small": (one[:40, :40], two[:40, :40]), "constant": (one, 0 * two)}
    with pytest.raises(InputError, match="denoise"):
        denoise(*pairs.get(bad, (one, two)))
