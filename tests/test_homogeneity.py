"""Class maps of one structure are told from those of several."""

from __future__ import annotations

import numpy as np
import pytest
from command_line import main

import verglas as vg
from verglas.assessment.homogeneity import judge_homogeneity
from verglas.simulate import hinge

BOX, PIXEL_A = 32, 4.0


@pytest.fixture(scope="module")
def maps() -> tuple[vg.Map, vg.Map]:
    """A structure, and the same with one half turned by 15 degrees."""
    model = vg.simulate.phantom(BOX, PIXEL_A, 80.0, seed=7)
    return vg.simulate.density(model, BOX, PIXEL_A), vg.simulate.density(hinge(model, 15), BOX, PIXEL_A)


def halves(density: vg.Map, seed: int, noise: float) -> tuple[vg.Map, vg.Map]:
    sigma = noise * density.data.std()
    one, two = np.random.default_rng(seed).normal(size=(2, BOX, BOX, BOX))
    return density.with_data(density.data + sigma * one), density.with_data(density.data + sigma * two)


def weaker(density: vg.Map) -> vg.Map:
    """As of fewer particles with poorer poses."""
    blurred = vg.filters.apply(density, vg.filters.b_factor(300.0))
    return blurred.with_data(0.7 * blurred.data)


def test_classes_of_one_structure_differ_by_chance(maps):
    """Of a thousand pairs may be called apart."""
    same = maps[0]
    for seed in range(12):
        found = judge_homogeneity({"1": halves(same, seed, 1.5), "2": halves(weaker(same), 100 + seed, 2.0)})
        assert (found.code, found.state, found.numbers["pairs_alike"]) == ("homogeneity", "go on", 1), found


@pytest.mark.parametrize("seed", range(4))
def test_classes_of_two_structures_are_told_apart(maps, seed):
    same, other = maps
    classes = {"1": halves(same, seed, 1.5), "2": halves(other, 50 + seed, 1.5), "3": halves(same, 90 + seed, 1.5)}
    found = judge_homogeneity(classes)
    assert found.numbers["pairs"] == 3
    assert found.numbers["pairs_alike"] == 1
    assert "one structure: 1 and 3" in found.sentence
    true = np.sum((same.data - other.data) ** 2) / np.sum(same.data**2)
    assert 0.3 * true < found.numbers["largest_share_that_differs"] < true  # scaled to each other in shells


def test_of_noise_nothing_is_told(maps):
    found = judge_homogeneity({name: halves(maps[0], seed, 200.0) for seed, name in enumerate("12")})
    assert (found.numbers["pairs_alike"], found.numbers["largest_share_that_differs"]) == (0, None)
    assert "cannot be told" in found.sentence


def test_validate_asks_it_of_classes(maps, tmp_path, capsys):
    for number, density in enumerate(maps, 1):
        for half, volume in enumerate(halves(density, number, 1.5), 1):
            vg.write_map(tmp_path / f"half{half}_class{number:03d}.mrc", volume)
    status, said, _ = main(["validate", str(tmp_path)], capsys)
    assert status == 0
    assert "pairs of classes differ by more than chance" in said
    for half in (1, 2):
        vg.write_map(tmp_path / f"half{half}_class002.mrc", halves(maps[0], 9, 1.5)[half - 1])
    assert "All 2 classes are one structure" in main(["validate", str(tmp_path)], capsys)[1]


def test_odd_classes_are_answered(maps):
    """Inverted maps are not one structure, copies are; what cannot be told is said, too; sampling is asked."""
    one = halves(maps[0], 1, 1.0)
    inverted = tuple(half.with_data(-half.data) for half in halves(maps[0], 2, 1.0))
    found = judge_homogeneity({"1": one, "2": inverted})
    assert found.numbers["pairs_alike"] == 0, found
    assert found.numbers["largest_share_that_differs"] > 0.9, found
    assert judge_homogeneity({"1": one, "2": one}).numbers["pairs_alike"] == 1
    noise = halves(maps[0].with_data(0 * maps[0].data), 3, 1.0)
    noise = tuple(half.with_data(np.random.default_rng(k).normal(size=half.data.shape)) for k, half in enumerate(noise))
    said = judge_homogeneity({"1": one, "2": inverted, "3": noise}).sentence
    assert said.endswith("; too little signal in common to tell: 1 and 3, 2 and 3."), said
    finer = tuple(vg.Map(half.data, 3.0) for half in one)
    with pytest.raises(vg.errors.InputError, match="of 4 A, those of class 2 32 of 3 A"):
        judge_homogeneity({"1": one, "2": finer})
