"""The class ranker: descriptors, shipped weights on averages, scores of particles, ``select --ranker learned``."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from command_line import main
from scipy.ndimage import gaussian_filter

import verglas as vg
from verglas import simulate
from verglas.classification import class_descriptors, rank_classes, select_ranked
from verglas.classification.ranking import particle_scores, ranker_weights
from verglas.io import write_stack, write_star
from verglas.run.select import select_automatically

BOX = 48


def averages() -> np.ndarray:
    """Two projections of a phantom, one that lies at the rim, and a ring of noise."""
    model = simulate.phantom(BOX, 4.0, 110.0, seed=3)
    imaging = simulate.Imaging(ctf=False, shift_sd_A=0.0)
    clean = simulate.Simulation(model, 3, BOX, 4.0, imaging=imaging, seed=4, threads=1).clean([0, 1, 2])
    circle = np.hypot(*(np.indices((BOX, BOX)) - BOX // 2)) < 18
    clean = gaussian_filter(clean, (0, 1.5, 1.5))  # averages are filtered to their resolution
    noise = np.random.default_rng(5).standard_normal((BOX, BOX))
    return np.stack([clean[0], clean[1], np.roll(clean[2], 14, axis=1) * circle, 0.3 * clean.std() * noise * circle])


def table(**columns):
    good = {
        "class": [1, 2, 3, 4],
        "particles": [120, 90, 20, 12],
        "resolution_A": [12.0, 12.5, 18.0, np.inf],
        "signal": [18.0, 16.0, 2.0, 1.1],
        "offset": [0.01, 0.02, 0.28, 0.1],
    }
    return pd.DataFrame(good | columns)


def particles(rng=None) -> pd.DataFrame:
    rng = rng or np.random.default_rng(1)
    own = np.repeat([1, 2, 3, 4], [120, 90, 20, 12])
    mean = np.array([0, 30.0, 30.0, 22.0, 6.0])[own]
    chance = np.array([0, 0.8, 0.8, 0.9, 0.95])[own]
    likelihood = mean + 4 * rng.standard_normal(len(own))
    return pd.DataFrame(
        {
            "rlnClassNumber": own,
            "rlnMaxValueProbDistribution": chance,
            "rlnLogLikeliContribution": likelihood,
        }
    )


def test_descriptors_do_not_depend_on_grey_scale():
    images = averages()
    one, other = (class_descriptors(each, table(), particles()) for each in (images, 50 * images))
    np.testing.assert_allclose(one, other, atol=1e-6)
    assert list(one.columns) == ranker_weights().names
    assert one.loc[3, "centre of mass"] > one.loc[1, "centre of mass"] + 0.3
    assert one.loc[4, "largest piece"] < one.loc[1, "largest piece"]


def test_the_empty_class_and_those_without_particles_have_no_chance():
    chance = rank_classes(averages(), table(), particles(), empty_class=4)
    assert chance[4] == 0
    assert ((chance >= 0) & (chance <= 1)).all()
    rows = particles()
    assert rank_classes(averages(), table(), rows[rows.rlnClassNumber != 2])[2] == 0


def test_projections_rank_above_what_lies_at_the_rim_and_noise():
    chance = rank_classes(averages(), table(), particles())
    assert chance[[1, 2]].min() > chance[[3, 4]].max()


def test_what_is_missing_is_named():
    with pytest.raises(vg.InputError, match="the table has no column signal"):
        class_descriptors(averages(), table().drop(columns="signal"), particles())
    with pytest.raises(vg.InputError, match="no column rlnLogLikeliContribution"):
        class_descriptors(averages(), table(), particles().drop(columns="rlnLogLikeliContribution"))
    with pytest.raises(vg.InputError, match="2 averages, but a class 4"):
        class_descriptors(averages()[:2], table(), particles())
    with pytest.raises(vg.InputError, match="holds no class"):
        class_descriptors(averages(), table().iloc[:0], particles())
    for column, value in (("rlnLogLikeliContribution", np.nan), ("rlnClassNumber", -1)):
        rows = particles()
        rows.loc[6, column] = value
        with pytest.raises(vg.InputError, match=f"1 particles have no usable {column}, the first is 7"):
            class_descriptors(averages(), table(), rows)


def test_an_average_without_signal_has_no_chance_and_one_that_is_not_finite_is_named():
    images = np.random.default_rng(0).standard_normal((4, 16, 16))
    images[2] = 1.0
    assert rank_classes(images, table(), particles())[3] == 0
    images[1, 3, 3] = np.nan
    with pytest.raises(vg.InputError, match="the average of class 2"):
        rank_classes(images, table(), particles())


def test_scores_follow_the_chance_of_the_class_and_stay_within_0_and_1():
    rows = particles()
    score = particle_scores(rows, pd.Series({1: 0.9, 2: 0.9, 3: 0.2, 4: 0.0}))
    assert ((score >= 0) & (score <= 1)).all()
    own = rows["rlnClassNumber"].to_numpy()
    assert np.median(score[own == 1]) > np.median(score[own == 3]) > np.median(score[own == 4])


def test_a_selection_says_why():
    chosen = select_ranked(table(), pd.Series({1: 0.9, 2: 0.8, 3: 0.1, 4: 0.0}), 0.5, empty_class=4)
    assert chosen.classes == [1, 2]
    assert chosen.left_out[3] == "shows the particle with a probability of 0.10 (at least 0.5)"
    assert "noise explains" in chosen.left_out[4]
    assert select_ranked(table(), pd.Series({1: 0.1}), 0.5).state == "stop"


@pytest.fixture
def classified(tmp_path):
    """Files as class2d writes them."""
    rows = particles()
    write_stack(tmp_path / "averages.mrcs", averages().astype(np.float32), 4.0)
    stars = {
        "rlnReferenceImage": [f"{i:06d}@averages.mrcs" for i in range(1, 5)],
        "rlnClassNumber": [1, 2, 3, 4],
        "rlnEstimatedResolution": [12.0, 12.5, 18.0, 999.0],
        "verglasSignal": table()["signal"],
        "verglasOffset": table()["offset"],
    }
    general = {"verglasSignalFound": 1, "verglasEmptyClass": 0}
    write_star(tmp_path / "classes.star", {"classification": general, "classes": pd.DataFrame(stars)})
    images = np.random.default_rng(2).standard_normal((len(rows), 16, 16), np.float32)
    optics = simulate.particles(simulate.phantom(16, 8.0, 80.0), len(rows), 16, 8.0, seed=1).optics
    made = vg.Particles.from_images(images, 8.0, optics=optics)
    vg.write_particles(tmp_path / "particles.star", made.with_columns(**{k: rows[k].to_numpy() for k in rows}))
    return tmp_path


def test_the_command_ranks_and_scores(classified, capsys):
    out = classified / "good.star"
    arguments = ["select", str(classified / "particles.star"), "--auto", "--ranker", "learned", "--out", str(out)]
    status, text, error = main([*arguments, "--json"], capsys)
    assert status == 0, error
    assert json.loads(text)["classes"] == [1, 2]
    kept = vg.read_particles(out).table
    assert (kept["verglasClassScore"] >= ranker_weights().threshold).all()
    assert kept["verglasParticleScore"].between(0, 1).all()
    # By number the particles are scored as well, without being chosen by it.
    by_number = ["select", str(classified / "particles.star"), "--classes", "1,3", "-o", str(out), "--ranker"]
    arguments = [*by_number, "learned"]
    assert main(arguments, capsys)[0] == 0
    assert set(vg.read_particles(out).table["rlnClassNumber"]) == {1, 3}
    assert main([*by_number, "best"], capsys)[0] == 2
    unknown = vg.read_particles(classified / "particles.star").with_columns(rlnClassNumber=9)
    vg.write_particles(classified / "other.star", unknown)
    with pytest.raises(vg.InputError, match="particles are in class 9"):
        select_automatically(classified / "other.star", classified / "classes.star", ranker="learned")
    (classified / "averages.mrcs").unlink()
    status, _, error = main(arguments, capsys)
    assert status == 1
    assert "there is no such file" in error
