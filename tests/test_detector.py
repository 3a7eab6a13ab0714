"""Gain and bad pixels from frames: planted ones are found, and what cannot be told is refused."""

import numpy as np
import pytest
from scipy.ndimage import median_filter

import verglas as vg
from verglas.detector import estimate_gain, find_defects, frame_totals, place_gain
from verglas.errors import InputError
from verglas.types import Movie
from verglas.types.gain import PLACEMENTS, Gain


@pytest.fixture(scope="module")
def recorded():
    model = vg.simulate.phantom(32, 4.0, 80.0, seed=1)
    movie, truth = vg.simulate.movie(
        model,
        shape=(256, 256),
        pixel_size_A=2.0,
        n=8,
        frames=10,
        gain_sd=0.04,
        hot_pixels=4,
        dead_pixels=5,
        dead_columns=1,
        drift_px=(5, 3),
        seed=2,
    )
    return movie, truth, frame_totals([movie])[0]


@pytest.mark.parametrize("placement", PLACEMENTS)
@pytest.mark.parametrize("divides", [False, True])
def test_the_placement_is_found(recorded, placement, divides):
    """The gain's file lies on the frames once it is turned as ``placement`` says."""
    _, truth, total = recorded
    data = 1 / truth.gain if divides else truth.gain
    inverse = {"90": "270", "270": "90"}.get(placement, placement)
    file = Gain(Gain(data).place(inverse).data, divides)
    found = place_gain(total, file)
    assert found.placement == placement
    assert found.share == pytest.approx(1, abs=0.1)
    assert found.margin > 20
    np.testing.assert_allclose(found.gain.factors, truth.gain, rtol=1e-6)
    assert f"placement {placement}" in found.sentence


def test_a_gain_that_does_not_belong_is_refused(recorded):
    _, truth, total = recorded
    other = 1 + 0.05 * np.random.default_rng(0).standard_normal((256, 256))
    with pytest.raises(InputError, match=r"no placement of the gain stands out"):
        place_gain(total, Gain(other))
    with pytest.raises(InputError, match=r"no placement of the gain stands out"):
        place_gain(total * truth.gain, Gain(truth.gain))  # levelled already
    with pytest.raises(InputError, match="would have to divide; say divides=True"):
        place_gain(total, Gain(1 / truth.gain))
    with pytest.raises(InputError, match="the same everywhere"):
        place_gain(total, Gain(np.full((256, 256), 2.0)))
    with pytest.raises(InputError, match="the gain has 250 x 256 pixels, the frames 256 x 256"):
        place_gain(total, Gain(np.ones((256, 250))))


def test_a_gain_of_super_resolution_is_placed(recorded):
    _, truth, total = recorded
    rng = np.random.default_rng(1)
    # sub-pixels of sensitivity that average to the pixel's
    fine = (1 / truth.gain).repeat(2, 0).repeat(2, 1)
    fine += 0.02 * (rng.standard_normal((512, 512)) * np.tile([[1, -1], [-1, 1]], (256, 256)))
    found = place_gain(total, Gain((1 / fine)[::-1]))
    assert found.placement == "180-flip"
    assert found.gain.factors.shape == (256, 256)


def test_planted_defects_are_found_and_nothing_else(recorded):
    _, truth, total = recorded
    found = find_defects(total, truth.gain)
    assert found.tolist() == truth.defects.tolist()
    assert find_defects(np.random.default_rng(0).poisson(7.0, (1024, 1024))).size == 0
    with pytest.raises(InputError, match="expected sums and factors"):
        find_defects(total, np.ones((3, 3)))
    with pytest.raises(InputError, match="negative"):
        find_defects(total - 1e9)


@pytest.mark.parametrize("shape", [(5, 7), (64, 61), (300, 421)])
def test_defects_are_those_of_the_median_of_25_pixels(shape):
    """The blocks that spare most pixels their own median change nothing, edges included."""
    rng = np.random.default_rng(4)
    level = np.maximum(1 + 0.05 * rng.standard_normal(shape), 0.5)
    counts = rng.poisson(20 * (1 + 0.3 * np.sin(np.arange(shape[1]) / 50)) / level).astype(float)
    bad = rng.random(shape) < 2e-3
    counts[bad] = rng.choice([0, 200, 60], bad.sum())
    expected = median_filter(counts * level, 5, mode="reflect") / level
    z = 2 * (np.sqrt(counts + 0.375) - np.sqrt(expected + 0.375))
    spread = max(1.0, 1.4826 * np.median(np.abs(z - np.median(z))))
    assert find_defects(counts, level).tolist() == np.argwhere(np.abs(z) > 7 * spread).tolist()


def test_an_estimated_gain_levels_the_frames():
    """Standard deviation of corrected frames over that of frames without a pattern, 1 +- 1 %."""
    settings = dict(shape=(256, 256), pixel_size_A=2.0, frames=200, dose_per_frame_e_A2=5.0, ice_thickness_A=0.0)
    movie, truth = vg.simulate.movie(None, **settings, gain_sd=0.08, dead_pixels=6, hot_pixels=3, seed=1)
    counts = movie.source.data
    found = estimate_gain(counts[3:].sum(axis=0, dtype=np.int64))
    assert found.defects.tolist() == truth.defects.tolist()
    assert found.pattern == pytest.approx(0.09, abs=0.02)
    corrected = Movie.from_array(counts[:3], gain=found.gain.factors, defects=found.defects)  # frames not used for it
    for f in range(3):
        # Poisson counts over the sensitivity have the variance mean times the mean factor
        expected = np.sqrt(20 * truth.gain.mean())
        assert corrected.frame(f).std() / expected == pytest.approx(1, abs=0.01)
        assert counts[f].std() / expected > 1.05
    good = truth.gain > 0
    good[tuple(truth.defects.T)] = False
    error = found.gain.data[good] / truth.gain[good]
    assert (error / error.mean()).std() == pytest.approx(found.relative_error, rel=0.1)


def test_illumination_stays_if_asked():
    y, x = np.mgrid[0:256, 0:256]
    beam = 1 + 0.3 * np.exp(-((y - 128) ** 2 + (x - 128) ** 2) / 2 / 90**2)
    pattern = np.random.default_rng(0).uniform(0.9, 1.1, (256, 256))
    total = np.random.default_rng(1).poisson(4e4 * beam * pattern)
    kept = estimate_gain(total, illumination_px=30.0).gain.data * pattern
    assert kept[40:-40, 40:-40].std() / kept.mean() < 0.02
    assert (estimate_gain(total).gain.data * pattern).std() > 0.05


def test_too_few_counts_are_refused():
    with pytest.raises(InputError, match="a gain from 4 counts per pixel would be noise"):
        estimate_gain(np.full((8, 8), 4.0))
    with pytest.raises(InputError, match="no movies"):
        frame_totals([])
    with pytest.raises(InputError, match="those before have 4 x 4"):
        frame_totals([Movie.from_array(np.ones((1, 4, 4))), Movie.from_array(np.ones((1, 4, 5)))])


def test_frames_are_spread_over_the_movie():
    movie = Movie.from_array(np.arange(10)[:, None, None] * np.ones((10, 2, 2)))
    total, frames = frame_totals([movie], most_frames=3)
    assert frames == 3
    assert total[0, 0] == 0 + 4 + 9
