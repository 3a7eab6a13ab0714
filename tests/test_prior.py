"""Priors of the maximisation step: what they must never do to noise, and what they gain where the signal is uneven."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from half_map_pairs import BOX, PIXEL_A, error, given, noise, regularised, uneven, z_scores

import verglas as vg
from verglas import ops
from verglas.errors import SettingError
from verglas.reconstruction.accumulate import direct_grid
from verglas.reconstruction.sums import finish
from verglas.refinement import schedule, start
from verglas.refinement.em import initial_state, iterate
from verglas.refinement.figures import Figures
from verglas.refinement.prior_choice import Choice, HeldOutPoses
from verglas.refinement.settings import RefineSettings
from verglas.refinement.update import MapUpdate, _limit_band, class_maps, join_halves, solve
from verglas.regularisation import LocalWiener, MapSource, Wiener
from verglas.run.checkpoint import Checkpoint, read_checkpoint, write_checkpoint
from verglas.search.problem import survey

# -- noise stays noise -------------------------------------------------------------------------------------------------


def test_half_maps_of_noise_still_do_not_correlate():
    found = np.array([z_scores(regularised(LocalWiener(), noise(seed))) for seed in range(4)])
    assert np.abs(found).max() < 3
    assert abs(found.mean()) < 0.5  # nor a little in every shell, as a common envelope would give


def test_a_gain_of_its_own_for_every_place_would_make_noise_correlate(monkeypatch):
    # What the pools are for: without them the test above must fail.
    monkeypatch.setattr("verglas.regularisation.local._pool", lambda correlation, *_: np.clip(correlation, 0, 0.999))
    found = np.array([z_scores(regularised(LocalWiener(), noise(seed))) for seed in range(2)])
    assert found.mean() > 3


def test_what_is_learned_is_the_same_whichever_half_comes_first():
    raw = uneven(3)[1]
    one, other = (LocalWiener().fit(given(halves)) for halves in (raw, raw[::-1].copy()))
    for a, b in zip(one.ssnr, other.ssnr, strict=True):
        np.testing.assert_array_equal(a, b)


# -- what is gained ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [11, 12, 13])
def test_local_gain_is_nearer_the_truth_where_signal_is_on_one_side(seed):
    truth, raw = uneven(seed)
    assert error(regularised(LocalWiener(), raw), truth) < 0.95 * error(regularised(Wiener(), raw), truth)


@pytest.mark.parametrize("seed", [21, 22])
def test_local_gain_is_no_worse_where_signal_is_everywhere(seed):
    rng = np.random.default_rng(seed)
    detail = vg.filters.apply(vg.Map(rng.normal(size=(BOX,) * 3), PIXEL_A), vg.filters.low_pass(10.0)).data
    raw = (3 * detail).astype(np.float32) + noise(seed)
    local, plain = (error(regularised(prior, raw), 3 * detail) for prior in (LocalWiener(), Wiener()))
    assert local < 1.01 * plain


def test_a_map_of_both_halves_has_the_gain_of_twice_the_ssnr():
    raw = uneven(5)[1]
    learned = LocalWiener().fit(given(raw))
    told = []

    def solved(ssnr):
        told.append(ssnr)
        return raw[0]

    for half_sets in (1, 2):
        learned(MapSource("any", half_sets, raw[0], solved))
    np.testing.assert_allclose(told[1], 2 * told[0])


# -- in a refinement ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def posed():
    """A problem, its state after the poses are known, the true map."""
    model = vg.simulate.phantom(BOX, PIXEL_A, 90.0, seed=2)
    particles = vg.simulate.particles(model, 120, BOX, PIXEL_A, snr=0.5, seed=2)
    settings = RefineSettings(diameter_A=90.0, initial_resolution_A=20.0, poses="local", regularisation="auto")
    found = survey(particles)
    problem = start.make_problem(particles, found.excluded, settings)
    truth = vg.simulate.density(model, BOX, PIXEL_A)
    state, _ = initial_state(problem, found.power, [truth])
    return problem, state, truth.data


def test_the_global_prior_is_the_wiener_filter_bit_for_bit(posed):
    problem, radius = posed[0], 12

    def sums() -> list[ops.GridSums]:
        both = [ops.GridSums.zeros(direct_grid(BOX, radius)) for _ in range(2)]
        for seed, one in enumerate(both):
            rng = np.random.default_rng(seed)
            one.values[:] = (rng.normal(size=(2, *one.grid.shape)) * np.array([1, 1j])[:, None, None, None]).sum(axis=0)
            one.weights[:] = rng.uniform(1, 2, one.grid.shape)
        return both

    made = class_maps(problem, sums(), MapUpdate(radius, T=2.0, joint=True))
    ssnr = 2.0 * vg.assessment.ssnr_from_fsc(np.minimum(made.masked[: radius + 1], 0.999))
    done = [finish(one, problem.operators) for one in sums()]
    expected = join_halves(problem, np.stack([solve(problem, one, ssnr, radius) for one in done]))
    np.testing.assert_array_equal(made.halves, expected)
    np.testing.assert_array_equal(
        made.joint, _limit_band(problem, solve(problem, done[0] + done[1], 2 * ssnr, radius), radius)
    )
    assert made.choice == Choice("global")


def test_held_out_particles_choose_the_better_maps_and_say_by_how_much(posed):
    problem, state, truth = posed
    held_out = HeldOutPoses(problem, state.halves, state.poses, problem.sphere, 12)
    rough = truth + 0.3 * truth.std() * noise(4)
    good = np.stack([truth, truth])
    better = held_out.choose({"global": rough, "local": good})
    assert better.name == "local"
    assert better.gain > 2 * better.error > 0
    worse = held_out.choose({"global": good, "local": rough})
    assert (worse.name, worse.gain) == ("global", pytest.approx(-better.gain))
    assert held_out.choose({"global": good, "local": good.copy()}).name == "global"  # no gain, no change


def test_auto_records_what_it_chose_in_the_figures(posed):
    problem, state, _ = posed
    step = schedule.first_step(problem)
    _, made = iterate(problem, state, step)
    new, _ = iterate(problem, state, step)
    figures = new.figures[-1]
    assert figures.regularisation == made.maps[0].choice.name
    assert np.isfinite([figures.regularisation_gain, figures.regularisation_gain_error]).all()
    assert figures.as_row()["regularisation_gain"] == made.maps[0].choice.gain  # and the same at every run
    record = figures.as_record()
    for name in ("regularisation", "regularisation_gain", "regularisation_gain_error"):
        record.pop(name)  # as a checkpoint from before had it
    assert Figures.from_record(record).regularisation == "global"


def test_the_local_prior_runs_in_an_iteration(posed):
    problem, state, _ = posed
    problem = replace(problem, settings=replace(problem.settings, regularisation="local"))
    new, made = iterate(problem, state, schedule.first_step(problem))
    assert new.figures[-1].regularisation == "local"
    assert np.isfinite(made.maps[0].halves).all()
    assert made.maps[0].halves.std() > 0


@pytest.mark.parametrize(
    "prior",
    ["auto", *(pytest.param(n, marks=pytest.mark.slow) for n in ("local", "sidesplitter", "wavelet", "denoise"))],
)
def test_a_run_that_goes_on_makes_the_same_bits_under_every_prior(posed, tmp_path, prior):
    problem, state, _ = posed
    settings = replace(problem.settings, regularisation=prior, score_mask="local")
    problem, step = replace(problem, settings=settings), schedule.first_step(problem)
    first, _ = iterate(problem, state, step)
    write_checkpoint(tmp_path, Checkpoint(first, step, problem.half, {}, {}))
    read = read_checkpoint(tmp_path)
    (one, made), (other, again) = iterate(problem, first, step), iterate(problem, read.state, read.step)
    np.testing.assert_array_equal(other.poses.angles_deg, one.poses.angles_deg)
    np.testing.assert_array_equal(again.maps[0].halves, made.maps[0].halves)
    assert again.maps[0].choice == made.maps[0].choice


def test_settings_say_what_regularisation_means_now():
    with pytest.raises(SettingError, match=r"regularisation: names a prior .*the factor T .* is prior_factor, got 4"):
        RefineSettings(regularisation=4.0)
    with pytest.raises(SettingError, match="max-cc has a constant of its own"):
        RefineSettings(mode="max-cc", regularisation="local")
    with pytest.raises(SettingError, match="expected global, local"):
        RefineSettings(regularisation="blush")
