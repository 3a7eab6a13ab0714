"""Ab initio: the mean of the starts that agree, its centre, and the verdict on few that agree."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from abinitio_runs import drawn_problem

import verglas as vg
from verglas.assessment import FSC
from verglas.initial_model.all_starts import Starts, compare_with_best
from verglas.initial_model.consensus import Comparison, judge
from verglas.initial_model.merged import centre_offset_px, centre_start, largest_offset_px, merge_starts
from verglas.initial_model.settings import AbInitioSettings
from verglas.initial_model.starts import Start, evaluate_held_out
from verglas.map_geometry.map_alignment import turned_map
from verglas.map_geometry.symmetry_search import mass_centre, moved_map
from verglas.search.state import HalfModel, PoseTable

BOX, PIXEL_A = 32, 5.0
SETTINGS = AbInitioSettings(diameter_A=125.0, final_resolution_A=16.0)


@pytest.fixture(scope="module")
def truth():
    model = vg.simulate.phantom(BOX, PIXEL_A, 110.0)
    particles = vg.simulate.particles(model, 80, BOX, PIXEL_A, snr=1.0, seed=1)
    problem, sigma2 = drawn_problem(particles, SETTINGS)
    density = vg.simulate.density(model, BOX, PIXEL_A).data * problem.sphere
    return problem, sigma2, density


def start_of(truth, number, volume):
    problem, sigma2, _ = truth
    model = HalfModel(volume[None].astype(np.float32), sigma2, np.ones(problem.n_micrographs), np.ones(1))
    held = np.arange(20)
    evidence = evaluate_held_out(problem, SETTINGS, model, held, sigma2)
    return Start(number, model, PoseTable.unknown(len(problem)), evidence, np.zeros((1, BOX // 2 + 1)))


def starts_of(truth, volumes):
    made = [start_of(truth, i, v) for i, v in enumerate(volumes)]
    others = [compare_with_best(truth[0], SETTINGS, made[0], s) for s in made[1:]]
    verdict = judge(made[0], np.zeros(20), others, SETTINGS.final_resolution_A)
    return Starts(truth[0], SETTINGS, made, others, verdict)


def noisy(density, seed, amount=0.5):
    noise = np.random.default_rng(seed).normal(size=density.shape).astype(np.float32)
    smooth = vg.filters.apply(vg.Map(noise, PIXEL_A), vg.filters.low_pass(14.0)).data
    return density + amount * density.std() * smooth / smooth.std()


@pytest.mark.slow
def test_the_map_is_the_mean_of_the_starts_that_agree_in_the_best_ones_frame(truth):
    density = truth[2]
    turned = turned_map(noisy(density, 1), vg.euler_to_matrix([[40.0, 60.0, -20.0]])[0])
    wrong = vg.simulate.density(vg.simulate.phantom(BOX, PIXEL_A, 110.0, seed=5), BOX, PIXEL_A).data
    starts = starts_of(truth, [noisy(density, 0), turned, wrong])
    merged, count = merge_starts(starts, np.arange(20))
    assert (starts.verdict.agreeing, count) == (2, 2)
    kept = [np.corrcoef(v.ravel(), density.ravel())[0, 1] for v in (starts.made[0].model.volumes, merged.model.volumes)]
    assert kept[1] > kept[0] + 0.02


def test_a_start_that_agrees_with_none_is_the_map_alone(truth):
    starts = starts_of(
        truth, [truth[2], vg.simulate.density(vg.simulate.phantom(BOX, PIXEL_A, 110.0, seed=5), BOX, PIXEL_A).data]
    )
    assert merge_starts(starts, np.arange(20)) == (starts.made[0], 1)


def test_a_mean_that_explains_held_out_particles_worse_is_not_taken(truth):
    starts = starts_of(truth, [truth[2], noisy(truth[2], 1, 0.3)])
    spoiled = replace(starts.others[0], maps=[vg.Map(-3 * truth[2], PIXEL_A)])
    assert merge_starts(replace(starts, others=[spoiled]), np.arange(20))[1] == 1


@pytest.mark.parametrize(("symmetry", "left"), [("C1", 0.0), ("C3", 2.5)])
def test_maps_are_centred_where_the_group_leaves_them_free(truth, symmetry, left):
    problem = truth[0].under(symmetry)
    blob = vg.masks.soft_sphere(BOX, 6.0, 3.0)
    moved = moved_map(blob, np.array([1.5, 2.0, -4.0]))
    centred = centre_start(problem, start_of(truth, 0, moved)).model.volumes[0]
    offset = mass_centre(centred)
    assert abs(offset[2]) < 0.1
    assert np.hypot(*offset[:2]) == pytest.approx(left, abs=0.1)
    assert largest_offset_px([centred], symmetry) < 0.1
    assert np.linalg.norm(centre_offset_px(moved, "C1")) == pytest.approx(4.7, abs=0.1)


def test_few_starts_that_agree_are_a_warning(truth):
    curve = np.ones(17)
    agreeing = FSC(np.arange(17) / (BOX * PIXEL_A), curve, np.ones(17, int), np.ones(17, int), PIXEL_A)
    other = replace(agreeing, curve=np.where(np.arange(17) > 3, 0.0, 1.0))
    best = start_of(truth, 0, truth[2])
    for count, kind in ((1, "minority"), (2, "minority"), (3, "found")):
        curves = [agreeing] * count + [other] * (6 - count)
        comparisons = [Comparison(i, [], [], [], [c]) for i, c in enumerate(curves, 1)]
        verdict = judge(best, np.zeros(20), comparisons, 16.0)
        assert (verdict.kind, verdict.agreeing, verdict.starts) == (kind, count + 1, 7)
    assert judge(best, np.zeros(20), comparisons[:2], 16.0).kind == "found"
