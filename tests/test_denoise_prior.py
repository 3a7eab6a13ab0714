"""The learned denoiser as a prior: noise in, nothing out; no places of its own; nearer the truth."""

from __future__ import annotations

import numpy as np
from half_map_pairs import error, given, noise, regularised, source_of, uneven, z_scores

from verglas import fourier
from verglas.regularisation import PRIORS, LearnedDenoiser, LocalWiener, Wiener


def test_half_maps_of_noise_stay_uncorrelated_and_next_to_nothing_comes_out():
    made = [regularised(LearnedDenoiser(), noise(seed)) for seed in range(4)]
    found = np.array([z_scores(halves) for halves in made])
    assert np.abs(found).max() < 3.5
    assert abs(found.mean()) < 0.5
    # White noise of deviation 1 up to the last shell: what every prior keeps of a band without signal is 0.001.
    assert max(float(halves.std()) for halves in made) < 0.1


def test_it_opens_no_place_that_the_local_filter_leaves_closed():
    raw = uneven(21)[1]
    learned, local = (prior.fit(given(raw)) for prior in (LearnedDenoiser(), LocalWiener()))
    closed = 0
    for mine, theirs in zip(learned.ssnr, local.ssnr, strict=True):
        own = theirs > theirs.min() + 1e-9
        # A place has its own value, or what the places that have none share.
        assert (np.isclose(mine, theirs) | (mine <= theirs[own].max() if own.any() else True)).all()
        raised = mine[mine > theirs + 1e-9]  # what is shared rises by the places that were closed, to one value
        assert len(raised) == 0 or np.ptp(raised) < 1e-9
        closed += int((mine < theirs - 1e-9).sum())
    assert closed > 0


def test_what_is_learned_is_the_same_whichever_half_comes_first():
    raw = uneven(22)[1]
    one, other = (LearnedDenoiser().fit(given(halves)) for halves in (raw, raw[::-1].copy()))
    for mine, theirs in zip(one.ssnr, other.ssnr, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-3, atol=1e-4)


def test_it_adds_nothing_that_a_half_map_does_not_hold():
    """A half map without its finer shells gets next to none, whatever the halves that taught the prior have."""
    detail, raw = uneven(23)
    raw = (raw + 3 * detail).astype(np.float32)
    spectrum = fourier.forward(raw[0], 3)
    spectrum[fourier.shells(raw[0].shape) > 8] = 0
    poor = fourier.inverse(spectrum, raw[0].shape).astype(np.float32)
    regularise = LearnedDenoiser().fit(given(raw))
    shells = fourier.shells(poor.shape)
    of_poor, of_full = (np.abs(fourier.forward(regularise(source_of(one)), 3)) ** 2 for one in (poor, raw[0]))
    # Gains that differ from place to place spread a band a little.
    assert of_poor[shells > 11].sum() < 0.1 * of_full[shells > 11].sum()


def test_it_is_nearer_the_truth_where_signal_is_on_one_side():
    assert PRIORS["denoise"]().name == "denoise"
    truth, raw = uneven(24)
    assert error(regularised(LearnedDenoiser(), raw), truth) < 0.95 * error(regularised(Wiener(), raw), truth)
