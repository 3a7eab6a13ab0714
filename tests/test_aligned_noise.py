"""Particles agree farther than as many images of noise that were aligned to their map; noise does not."""

from __future__ import annotations

import json

import numpy as np
import pytest
from command_line import main

import verglas as vg
from verglas.assessment import FSC
from verglas.run.aligned_noise import _finding, judge_aligned_noise

BOX, PIXEL_A, COUNT = 24, 6.0, 160
SEARCH = {"diameter_A": 110.0, "shift_range_A": 6.0}

pytestmark = pytest.mark.usefixtures("blank_figures_of_module")


def run_of(snr: float, seed: int = 3) -> tuple[vg.Particles, list[vg.Map]]:
    """Particles with half sets, aligned to their structure, and the half maps."""
    model = vg.simulate.phantom(BOX, PIXEL_A, 90.0, seed=seed)
    particles = vg.simulate.particles(model, COUNT, BOX, PIXEL_A, snr, seed=seed, shift_sd_A=2.0, listener=None)
    half = 1 + np.arange(COUNT) % 2
    truth = vg.simulate.density(model, BOX, PIXEL_A)
    aligned = vg.align(particles, truth, listener=None, **SEARCH).with_columns(rlnRandomSubset=half)
    return aligned, [vg.reconstruct(aligned[half == number], listener=None) for number in (1, 2)]


@pytest.mark.slow
def test_particles_are_better_than_noise():
    particles, halves = run_of(0.2)
    found = judge_aligned_noise(particles, halves, count=COUNT, **SEARCH)
    assert (found.code, found.state, found.numbers["images"]) == ("better-than-noise", "go on", [40, 80, 160])
    assert min(found.numbers["standard_deviations"]) > 3.1
    again = judge_aligned_noise(particles, halves, count=COUNT, threads=1, **SEARCH)
    assert again == found


@pytest.mark.parametrize("seed", [3, pytest.param(4, marks=pytest.mark.slow)])
def test_noise_that_was_aligned_to_a_structure_is_no_better_than_noise(seed):
    """Its half maps agree: both were aligned to one map."""
    particles, halves = run_of(1e-8, seed)
    found = judge_aligned_noise(particles, halves, count=COUNT, **SEARCH)
    assert found.state == "stop", found


def test_a_quarter_that_is_no_better_is_said_and_is_no_alarm():
    """So few images have no power: what is asked is whether all of them are better."""
    box, n = 32, np.full(17, 100.0)
    frequency = np.arange(17) / (box * 4.0)

    def curve(level: float) -> FSC:
        return FSC(frequency, np.r_[1.0, np.full(7, level), np.zeros(9)], n, n, 4.0)

    states = {}
    for name, levels in {"few": (0.1, 0.5, 0.6), "all": (0.5, 0.6, 0.7), "none": (0.5, 0.6, 0.1)}.items():
        found = _finding([20, 40, 80], [curve(level) for level in levels], [curve(0.1)] * 3, curve(0.9))
        states[name] = (found.state, "but 40 of them do not" in found.sentence, " no farther" in found.sentence)
    assert states == {"few": ("go on", True, False), "all": ("go on", False, False), "none": ("stop", False, True)}


@pytest.mark.slow
def test_command_asks_it_and_names_what_is_missing(tmp_path, capsys):
    particles, halves = run_of(0.2)
    for number, half in enumerate(halves, 1):
        vg.write_map(tmp_path / f"half{number}.mrc", half)
    vg.write_particles(tmp_path / "particles.star", particles, stack=tmp_path / "particles.mrcs")
    _, said, _ = main(["validate", str(tmp_path), "--aligned-noise", str(COUNT), "--json"], capsys)
    found = {finding["code"]: finding for finding in json.loads(said)["findings"]}
    # The command knows neither diameter nor shifts: a quarter of so few particles may be found no better.
    assert found["better-than-noise"]["state"] == "go on"
    assert found["better-than-noise"]["numbers"]["standard_deviations"][-1] > 3.1
    few, bare = (
        particles[np.arange(60)],
        vg.Particles(
            particles.table.drop(columns="rlnRandomSubset"), particles.source, optics_table=particles.optics_table
        ),
    )
    for of, words in ((few, "takes 160 particles and more"), (bare, "rlnRandomSubset")):
        with pytest.raises(vg.InputError, match=words):
            judge_aligned_noise(of, halves, count=COUNT)
