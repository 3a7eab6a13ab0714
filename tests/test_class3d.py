"""Classification in three dimensions: planted structures are told apart, one structure stays one."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pandas as pd
import pytest

import verglas as vg
from verglas.errors import InputError, SettingError
from verglas.heterogeneity.classes import keep_state, restore_state
from verglas.heterogeneity.components import mean_model
from verglas.heterogeneity.fixed_classes import classes_of, first_posterior, population_errors
from verglas.heterogeneity.junk import junk_posterior
from verglas.heterogeneity.migration import stable_members
from verglas.heterogeneity.posed import posed_images
from verglas.heterogeneity.settings import ClassSettings
from verglas.masks import soft_sphere
from verglas.refinement.state import State
from verglas.run.class3d import _counts, class3d_files
from verglas.run.class3d_trials import further_sentence, result_sentence
from verglas.run.select import SelectJob, select_files
from verglas.search.state import HalfModel, PoseTable
from verglas.search.step import Step
from verglas.simulate import Model, hinge, phantom
from verglas.types.listener import Silence

BOX, PIXEL_A = 32, 5.0
FIXED = {"poses": "fixed", "resolution_A": 16, "diameter_A": 130, "listener": None}


def simulated(models, n, *, snr, seed, **more):
    return vg.simulate.particles(models, n, BOX, PIXEL_A, snr=snr, seed=seed, listener=None, **more)


def accuracy(found, truth):
    """Share of particles in the right class, classes matched in the best way."""
    count = max(found.max(), truth.max()) + 1
    return max(float(np.mean(np.array(p)[found] == truth)) for p in permutations(range(count)))


@pytest.fixture(scope="module")
def three():
    model = phantom(BOX, PIXEL_A, 110.0, seed=2)
    states = [model, hinge(model, 45), hinge(model, -50, axis=(0, 1, 0), side=(0, 0, 1))]
    return simulated(states, 400, snr=0.1, seed=5, populations=(0.5, 0.3, 0.2))


def with_junk(particles, count, seed=3):
    """The particles with images of noise in place of some; and the class of each, the last one for those."""
    images, rng = particles.images().copy(), np.random.default_rng(seed)
    bad = np.sort(rng.choice(len(particles), count, replace=False))
    images[bad] = rng.normal(size=(count, BOX, BOX)) * images.std()
    truth = number_of(particles)
    truth[bad] = truth.max() + 1
    return particles.with_source(vg.ArraySource(images, PIXEL_A)), truth


def number_of(particles):
    return particles.table["rlnClassNumber"].to_numpy(np.int64) - 1


def test_two_structures_at_known_poses():
    model = phantom(BOX, PIXEL_A, 110.0, seed=2)
    p = simulated([model, hinge(model, 60)], 40, snr=0.5, seed=5, populations=(0.6, 0.4))
    made = vg.classify3d(p, classes=2, iterations=3, **(FIXED | {"resolution_A": 40}))
    assert accuracy(number_of(made.particles), number_of(p)) >= 0.95
    assert not made.twins


@pytest.mark.slow
def test_three_structures_at_known_poses(three):
    made = vg.classify3d(three, classes=3, **FIXED)
    truth = number_of(three)
    assert accuracy(number_of(made.particles), truth) >= 0.95
    shares = np.sort(np.bincount(truth) / len(truth))[::-1]
    np.testing.assert_allclose(made.shares, shares, atol=0.02)
    assert (made.share_errors > 0.01).all()
    assert made.trials[-1]["gain_over_one_nats"] > 3 * made.trials[-1]["gain_over_one_error_nats"]
    assert not made.twins


def test_junk_is_set_apart():
    model = phantom(BOX, PIXEL_A, 110.0, seed=2)
    p, truth = with_junk(simulated([model, hinge(model, 60)], 60, snr=0.5, seed=5, populations=(0.6, 0.4)), 15)
    made = vg.classify3d(p, classes=2, junk=True, iterations=3, **(FIXED | {"resolution_A": 40}))
    np.testing.assert_array_equal(number_of(made.particles) == 2, truth == 2)
    assert accuracy(number_of(made.particles), truth) >= 0.95
    assert made.junk.mean() == pytest.approx(0.25, abs=1e-3)
    np.testing.assert_allclose(made.posterior.sum(axis=1) + made.junk, 1)
    assert made.shares.sum() == pytest.approx(0.75, abs=1e-3)
    assert "25.0 % of the particles are explained better by noise alone" in made.sentence
    assert len(made.maps) == 2


def test_junk_share_is_that_of_maximum_likelihood():
    evidence = np.array([3.0, -2.0, -1.0, 0.5, -4.0, 6.0])
    junk, together = junk_posterior(evidence)
    share = junk.mean()
    grid = np.linspace(0.01, 0.99, 99)
    likelihood = [np.log(w + (1 - w) * np.exp(evidence)).sum() for w in grid]
    assert share == pytest.approx(grid[int(np.argmax(likelihood))], abs=0.01)
    np.testing.assert_allclose(together, np.log(share + (1 - share) * np.exp(evidence)), atol=1e-3)


@pytest.mark.slow
def test_repeats_and_splitting_find_the_same_classes(tmp_path, three):
    made = vg.classify3d(three, classes=3, repeats=3, out=tmp_path, **FIXED)
    assert accuracy(number_of(made.particles), number_of(three)) >= 0.95
    repeats = np.array(made.migration["repeats"])
    np.testing.assert_allclose(repeats.sum(axis=1), 1, atol=1e-3)
    back = vg.read_particles(tmp_path / "particles.star")
    np.testing.assert_array_equal(back.table["verglasStableCore"].to_numpy(int), made.stable)
    assert made.summary()["stable_share"] == pytest.approx(made.stable.mean())
    core = select_files(SelectJob(tmp_path / "particles.star", tmp_path / "core.star", core=True))[0]
    assert len(core) == made.stable.sum()
    assert "in the same class in all 3 starts" in made.sentence
    assert "Stability" in (tmp_path / "report.html").read_text()
    split = vg.classify3d(three, classes=3, start="split", out=tmp_path, **FIXED)
    assert accuracy(number_of(split.particles), number_of(three)) >= 0.9
    variance = [s["variance"] for s in split.splits]
    assert len(variance) == 2
    assert variance[0] > variance[1] > 0
    assert "verglasStableCore" not in vg.read_particles(tmp_path / "particles.star").table


@pytest.mark.slow
def test_global_search_grows_and_leaves_junk_out():
    model = phantom(BOX, PIXEL_A, 110.0, seed=2)
    p, truth = with_junk(simulated([model, hinge(model, 60)], 160, snr=0.2, seed=5, populations=(0.6, 0.4)), 50)
    how = {"resolution_A": 25, "diameter_A": 130, "direction_order": 2, "consensus_iterations": 2, "listener": None}
    start = vg.simulate.density(model, BOX, PIXEL_A)
    made = vg.classify3d(p, start, classes=2, junk=True, first_particles=50, **how)
    assert np.mean((number_of(made.particles) == 2) == (truth == 2)) >= 0.98
    assert accuracy(number_of(made.particles), truth) >= 0.9


@pytest.mark.slow
def test_number_of_classes_is_found(three):
    assert vg.classify3d(three, classes="auto", most_classes=4, **FIXED).classes == 3


@pytest.mark.slow
def test_one_structure_stays_one():
    p = simulated(phantom(BOX, PIXEL_A, 110.0, seed=3), 200, snr=0.1, seed=7)
    made = vg.classify3d(p, classes="auto", most_classes=3, **FIXED)
    assert made.classes == 1
    assert "one structure" in made.sentence
    forced = vg.classify3d(p, classes=2, **FIXED)
    assert "one map explains the particles better than these classes" in forced.sentence


@pytest.mark.slow
def test_focused_classes_are_found_where_global_ones_are_not():
    """A small part that is there or not, beside a large one that moves: without a mask the motion is found."""
    body, small = phantom(BOX, PIXEL_A, 90.0, seed=2), phantom(BOX, PIXEL_A, 45.0, seed=4)
    away = Model(small.xyz_A + np.array([0, 0, 52.0]), small.elements, small.weights, small.b_factors_A2)
    moved = hinge(body, 30)
    p = simulated([body, moved, body + away, moved + away], 400, snr=0.1, seed=3)
    truth = number_of(p) // 2
    sphere = np.roll(soft_sphere(BOX, 5.5, 2), 10, axis=0).astype(np.float32)
    focused = vg.classify3d(p, classes=2, mask=vg.Map(sphere, PIXEL_A), **(FIXED | {"diameter_A": 155}))
    everywhere = vg.classify3d(p, classes=2, **(FIXED | {"diameter_A": 155}))
    assert accuracy(number_of(focused.particles), truth) > accuracy(number_of(everywhere.particles), truth) + 0.2


@pytest.mark.slow
def test_global_search_writes_resumes_and_repeats(tmp_path, three):
    few = three[:60]
    vg.write_particles(tmp_path / "p.star", few)
    model = vg.simulate.density(phantom(BOX, PIXEL_A, 110.0, seed=2), BOX, PIXEL_A)
    vg.write_map(tmp_path / "map.mrc", model)
    settings = vg.heterogeneity.ClassSettings(
        classes="2", resolution_A=25, diameter_A=130, direction_order=2, consensus_iterations=1, iterations=2, still=0.0
    )
    how = {"settings": settings, "listener": None}

    class _Stop(Exception):
        pass

    class _Stopper:
        done = 0

        def iteration(self, figures):
            self.done += 1
            if self.done == 2:
                raise _Stop

        def say(self, line):
            """Keep silent."""

        def progress(self, phase, done, total):
            """Keep silent."""

        def note(self, code, sentence):
            """Keep silent."""

    whole = class3d_files(tmp_path / "p.star", [tmp_path / "map.mrc"], out=tmp_path / "whole", **how)
    with pytest.raises(_Stop):
        class3d_files(
            tmp_path / "p.star",
            [tmp_path / "map.mrc"],
            out=tmp_path / "two",
            settings=settings,
            listener=_Stopper(),
        )
    with pytest.raises(InputError, match="maps: was"):
        class3d_files(tmp_path / "p.star", [tmp_path / "other.mrc"], out=tmp_path / "two", **how)
    again = class3d_files(tmp_path / "p.star", [tmp_path / "map.mrc"], out=tmp_path / "two", resume=True, **how)
    np.testing.assert_array_equal(whole.posterior, again.posterior)
    np.testing.assert_array_equal(whole.maps[0].data, again.maps[0].data)
    names = {f.name for f in (tmp_path / "two").iterdir()}
    assert {"map_class1.mrc", "half2_class2.mrc", "particles.star", "class3d.json", "report.html"} <= names
    assert not (tmp_path / "two" / "checkpoint").exists()
    back = vg.read_particles(tmp_path / "two" / "particles.star")
    np.testing.assert_array_equal(number_of(back), whole.posterior.argmax(axis=1))
    with pytest.raises(InputError, match="nothing to resume"):
        class3d_files(tmp_path / "p.star", None, out=tmp_path / "three", resume=True, **how)


def test_states_come_back_from_snapshots():
    half = HalfModel(np.ones((2, 4, 4, 4), np.float32), np.ones((1, 2)), np.ones(1), np.array([0.4, 0.6]))
    state = State(3, PoseTable.unknown(5), [half, half], np.ones((2, 3)), 4.5)
    step = Step("grid", 4, 6, 2, 32, 1.0, 3.0)
    back, next_step = restore_state(keep_state(state, step))
    assert next_step == step
    assert back.iteration == 3
    np.testing.assert_array_equal(back.halves[1].class_weight, [0.4, 0.6])


def test_population_errors_grow_where_classes_overlap():
    rng = np.random.default_rng(0)
    n, shares = 20000, np.array([0.7, 0.3])
    label = (rng.random(n) < shares[1]).astype(int)
    errors, spread = [], []
    for distance in (6.0, 1.0):
        estimates = []
        for part in range(40):
            some = slice(part * 500, (part + 1) * 500)
            x = label[some] * distance + rng.normal(size=500)
            pi = shares.copy()
            for _ in range(200):
                like = pi * np.exp(-0.5 * np.square(x[:, None] - [0, distance]))
                gamma = like / like.sum(axis=1, keepdims=True)
                pi = gamma.mean(axis=0)
            estimates.append(pi[1])
            error = population_errors(gamma)[1][1]
        errors.append(error)
        spread.append(np.std(estimates))
    assert errors[1] > 1.5 * errors[0]
    np.testing.assert_allclose(errors, spread, rtol=0.4)


@pytest.mark.slow
def test_start_splits_particles_where_they_differ(three):
    posed = posed_images(three, job="test", resolution_A=18, diameter_A=130)
    posterior, differs = first_posterior(posed, mean_model(posed, contrast=False), 3)
    assert differs
    assert accuracy(posterior.argmax(axis=1), number_of(three)) > 0.8


def test_class_without_particles_in_one_half_leaves_the_others_alone(three):
    posed = posed_images(three[:100], job="test", resolution_A=25, diameter_A=130)
    mean = mean_model(posed, contrast=False)
    posterior = np.tile([0.0, 1.0], (len(posed), 1))
    posterior[posed.rows_of_half(2)[:5]] = [1.0, 0.0]  # the first class has nobody in the first half
    first = classes_of(posed, mean, posterior).halves[0].volumes
    alone = classes_of(posed, mean, posterior[:, ::-1]).halves[0].volumes
    assert not first[0].any()
    np.testing.assert_allclose(first[1], alone[0], atol=1e-4 * alone[0].std())


def test_files_name_half_sets_and_who_was_set_aside(tmp_path, three):
    """Columns and maps of an earlier run with more classes do not stay beside the new ones."""
    images = three[:60].images().copy()
    images[7] = np.nan
    few = vg.Particles.from_images(images, PIXEL_A, poses=three.poses[:60], optics=three.optics[:60])
    few = few.with_columns(verglasClassPosterior1=0.1, verglasClassPosterior3=0.9)
    (tmp_path / "half2_class3.mrc").touch()
    (tmp_path / "run.json").write_text("{}")  # an earlier run
    told = []

    class _Told(Silence):
        def note(self, code, sentence):
            told.append((code, sentence))

    how = FIXED | {"resolution_A": 25, "listener": _Told()}
    made = vg.classify3d(few, classes=1, out=tmp_path, **how)
    assert list(made.excluded) == [7]
    assert [code for code, _ in told] == ["set_aside"]
    assert "particle 7" in told[0][1]
    assert pd.read_csv(tmp_path / "excluded.csv")["particle"].tolist() == [7]
    assert not (tmp_path / "half2_class3.mrc").exists()
    back = vg.read_particles(tmp_path / "particles.star")
    assert "verglasClassPosterior3" not in back.table
    np.testing.assert_array_equal(back.table["verglasClassPosterior1"], 1.0)
    half = posed_images(few, job="test", resolution_A=25, diameter_A=130).half
    np.testing.assert_array_equal(back.table["rlnRandomSubset"], half)


def test_sentence_says_what_was_not_tried():
    def rows(*counts):
        return [{"classes": c, "gain_over_one_nats": 1.0, "gain_over_one_error_nats": 0.1} for c in counts]

    two = (np.array([0.6, 0.4]), np.array([0.02, 0.02]))
    assert "more than 2 were not tried" in result_sentence(*two, rows(1, 2), [], auto=True)
    assert "not tried" not in result_sentence(*two, rows(1, 3, 2), [], auto=True)  # three gained nothing
    assert "not tried" not in result_sentence(*two, rows(1, 2), [], auto=False)
    for gain, words in ((-1.0, "a loss beyond its error"), (-0.1, "within its error"), (1.0, "nats per particle;")):
        row = {"classes": 2, "gain_over_one_nats": gain, "gain_over_one_error_nats": 0.1}
        assert words in result_sentence(*two, [row], [], auto=True)
    one = (np.ones(1), np.zeros(1))
    assert "one structure" in result_sentence(*one, rows(2, 1), [], auto=True)
    assert "two take 40 particles" in result_sentence(*one, rows(1), [], auto=True)


def test_junk_is_no_class_and_nobodys_core():
    """A repeat that found another class where this one saw junk: that is no agreement, whatever their numbers."""
    here = np.repeat([0, 1, 2], [50, 20, 30])
    there = np.repeat([0, 2, 1], [50, 20, 30])
    stable, migration = stable_members(here, [there], 2, junk=True)
    np.testing.assert_array_equal(stable, here == 0)
    np.testing.assert_array_equal(migration, [[1, 0, 0], [0, 0, 1], [0, 1, 0]])
    swapped = np.repeat([1, 0, 2], [50, 20, 30])
    stable, migration = stable_members(here, [swapped], 2, junk=True)
    np.testing.assert_array_equal(stable, here < 2)
    np.testing.assert_array_equal(migration, np.eye(3))
    said = further_sentence(here, 2, "2", np.where(here == 2, 1.0, 0.0), stable, 1)
    assert "30.0 % of the particles" in said
    assert said.endswith("100 % of the others are in the same class in all 2 starts")


def test_fewer_classes_than_asked_are_said():
    assert "3 were asked for" in further_sentence(np.zeros(9, int), 2, "3", None, None, 0)
    assert further_sentence(np.zeros(9, int), 3, "3", None, None, 0) == ""
    assert further_sentence(np.zeros(9, int), 2, "auto", None, None, 0) == ""


def test_numbers_of_classes_are_those_that_particles_allow():
    assert _counts(ClassSettings(classes="auto", most_classes=6), 65) == [1, 2, 3]
    assert _counts(ClassSettings(classes="1"), 10) == [1]
    with pytest.raises(InputError, match="4 classes of 79 particles"):
        _counts(ClassSettings(classes="4"), 79)
    with pytest.raises(SettingError, match="most"):
        ClassSettings(classes="auto", most_classes=1)


def test_bad_input_is_said_in_one_sentence(three):
    with pytest.raises(InputError, match="30 classes of 400 particles"):
        vg.classify3d(three, classes=30, **FIXED)
    with pytest.raises(InputError, match="2 maps but classes = 3"):
        vg.classify3d(three, [three.images(0)] * 2, classes=3, **FIXED)
    with pytest.raises(InputError, match='say poses = "fixed"'):
        vg.classify3d(three, classes=2, mask=vg.Map(np.ones((32, 32, 32)), PIXEL_A), listener=None)
    bare = three.with_columns(rlnAngleRot=None, rlnAngleTilt=None, rlnAnglePsi=None)
    with pytest.raises(InputError, match="have none"):
        vg.classify3d(bare, classes=2, **FIXED)
    with pytest.raises(InputError, match="would all be one"):
        vg.classify3d(three, [vg.Map(np.ones((32, 32, 32)), PIXEL_A)] * 2, repeats=2, listener=None)
    with pytest.raises(InputError, match="one start"):
        vg.classify3d(three, classes=2, start="split", repeats=2, **FIXED)
    with pytest.raises(SettingError, match="start"):
        vg.classify3d(three, classes=2, start="split", listener=None)
    with pytest.raises(SettingError, match="first_particles"):
        vg.classify3d(three, classes=2, first_particles=50, **FIXED)
    with pytest.raises(SettingError, match="classes"):
        vg.classify3d(three, classes="many", **FIXED)
    outside = np.roll(soft_sphere(BOX, 1, 0), 15, axis=0).astype(np.float32)
    with pytest.raises(InputError, match="outside the sphere"):
        vg.classify3d(three, classes=2, mask=vg.Map(outside, PIXEL_A), **(FIXED | {"diameter_A": 90}))
