"""What of the references is scored: weights follow the agreement of the half maps, and held-out shells decide."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from half_map_pairs import BALL, given, noise, uneven

import verglas as vg
from verglas.errors import SettingError
from verglas.masks import soft_sphere
from verglas.refinement import schedule, start
from verglas.refinement.em import initial_state, iterate
from verglas.refinement.score_mask import HeldOutShells
from verglas.refinement.settings import RefineSettings
from verglas.regularisation.score_weight import local_weight
from verglas.run.checkpoint import Checkpoint, read_checkpoint, write_checkpoint
from verglas.run.refine_summary import _score_mask_summary
from verglas.search.half_pass import run_here
from verglas.search.problem import survey

BOX, PIXEL_A, DIAMETER_A = 32, 4.0, 60.0


# -- the weight --------------------------------------------------------------------------------------------------------


def test_the_weight_is_one_where_half_maps_agree_and_falls_where_they_do_not():
    raw = uneven(3)[1]
    weight = local_weight(given(raw))
    inside = BALL > 0.9
    detailed = inside & (np.arange(32) > 20)[:, None, None]
    empty = inside & (np.arange(32) < 9)[:, None, None]
    assert weight[detailed].mean() > 0.95
    assert weight[empty].mean() < 0.5
    assert weight.min() >= 0
    assert weight.max() == 1
    np.testing.assert_array_equal(weight, local_weight(given(raw[::-1].copy())))  # whichever half comes first


def test_noise_has_no_weight():
    assert all(local_weight(given(noise(seed))) is None for seed in range(4))


# -- who decides -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def posed():
    """A problem, its state, the true map, and half maps with a lump beside the particle that no image has."""
    model = vg.simulate.phantom(BOX, PIXEL_A, DIAMETER_A, seed=2)
    particles = vg.simulate.particles(model, 120, BOX, PIXEL_A, snr=0.2, seed=2)
    settings = RefineSettings(
        diameter_A=100.0, initial_resolution_A=16.0, join_resolution_A=60.0, poses="local", score_mask="auto"
    )
    found = survey(particles)
    problem = start.make_problem(particles, found.excluded, settings)
    truth = vg.simulate.density(model, BOX, PIXEL_A)
    state, _ = initial_state(problem, found.power, [truth])
    rng = np.random.default_rng(5)
    beside = soft_sphere(BOX, 12, 2) - soft_sphere(BOX, 9, 2)
    lumps = vg.filters.apply(vg.Map(rng.normal(size=(BOX,) * 3), PIXEL_A), vg.filters.low_pass(16.0)).data * beside
    spoiled = truth.data + np.float32(1.5 * truth.data.std() / lumps.std()) * lumps.astype(np.float32)
    return problem, state, truth.data, spoiled


def judged(posed, volume: np.ndarray, weight: np.ndarray):
    problem, state, _, _ = posed
    models = [replace(half, volumes=volume[None].astype(np.float32)) for half in state.halves]
    return HeldOutShells(problem, models, state.poses, 12).compare(problem.sphere, problem.sphere * weight)


def test_leaving_out_what_no_image_has_makes_poses_better(posed):
    tight = soft_sphere(BOX, 9, 2)
    chosen = judged(posed, posed[3], tight)
    assert chosen.name == "local"
    assert chosen.gain > 2 * chosen.error > 0
    np.testing.assert_array_equal(chosen.weight, posed[0].sphere * tight)


def test_cutting_the_particle_itself_is_refused_and_no_change_is_no_gain(posed):
    half_of_it = np.clip((np.arange(BOX) - 15) / 2, 0, 1)[:, None, None].astype(np.float32)
    refused = judged(posed, posed[2], half_of_it)
    assert (refused.name, refused.weight) == ("off", None)
    assert refused.gain < 0
    same = judged(posed, posed[2], np.ones((BOX,) * 3, np.float32))
    assert (same.name, same.gain) == ("off", 0.0)


def test_too_few_shells_or_particles_decide_nothing(posed):
    problem, state, _, _ = posed
    weight = soft_sphere(BOX, 9, 2)
    few = HeldOutShells(problem, state.halves, state.poses, 4).compare(problem.sphere, weight)
    assert few.name == "off"
    assert np.isnan(few.gain)


# -- in a refinement ---------------------------------------------------------------------------------------------------


def test_the_weight_is_scored_in_the_next_iteration_and_no_map_or_fsc_changes(posed, tmp_path):
    problem, state, _, _ = posed
    step, masks = schedule.first_step(problem), []

    def watched(tasks, poses, tick):
        masks.append(tasks[0].mask)
        return run_here(tasks, poses, tick)

    made = {}
    for name in ("off", "local", "auto"):
        chosen = replace(problem, settings=replace(problem.settings, score_mask=name))
        made[name] = iterate(chosen, state, step, runner=watched)
        assert made[name][0].figures[-1].score_mask in {"off", name if name == "local" else "local"}
        np.testing.assert_array_equal(masks[-1], problem.sphere)
    new, iteration = made["local"]
    np.testing.assert_array_equal(iteration.maps[0].raw, made["off"][1].maps[0].raw)
    np.testing.assert_array_equal(new.fsc, made["off"][0].fsc)
    assert made["off"][0].score_mask is None
    assert new.score_mask.max() <= 1
    assert np.isfinite(made["auto"][0].figures[-1].score_mask_gain)
    chosen = replace(problem, settings=replace(problem.settings, score_mask="local"))
    iterate(chosen, new, step, runner=watched)
    np.testing.assert_array_equal(masks[-1], new.score_mask)
    # and it is part of the checkpoint
    write_checkpoint(tmp_path, Checkpoint(new, step, problem.half, {}, {}))
    np.testing.assert_array_equal(read_checkpoint(tmp_path).state.score_mask, new.score_mask)


def test_the_summary_tells_what_the_last_poses_were_found_by():
    """A row of the table tells what the next iteration scores, and after the last there is none."""
    rows = pd.DataFrame({"score_mask": ["local", "off"], "score_mask_gain": 0.01, "score_mask_gain_error": 0.02})
    assert _score_mask_summary(rows) == {"mask": "local", "gain_nats": 0.01, "gain_error_nats": 0.02}
    assert _score_mask_summary(rows[:1])["mask"] == "off"


def test_settings_that_have_no_weight_are_refused():
    with pytest.raises(SettingError, match='score_mask: expected one class and mode = "likelihood"'):
        RefineSettings(score_mask="auto", classes=2)
    with pytest.raises(SettingError, match="score_mask"):
        RefineSettings(score_mask="local", mode="max-cc")


@pytest.mark.slow
def test_images_of_noise_stay_noise():
    images = np.random.default_rng(8).normal(size=(200, 24, 24)).astype(np.float32)
    model = vg.simulate.phantom(24, 5.0, 80.0)
    particles = vg.simulate.particles(model, 200, 24, 5.0, snr=1.0, seed=1).with_source(vg.ArraySource(images, 5.0))
    how = {"diameter_A": 90.0, "initial_resolution_A": 30.0, "iterations": 5, "listener": None, "threads": 1}
    how |= {"score_mask": "local", "regularisation": "local"}
    result = vg.refine(particles, vg.simulate.density(model, 24, 5.0), **how)
    assert result.verdict.state == "stop"
    assert "noise" in [finding.code for finding in result.verdict.findings]
