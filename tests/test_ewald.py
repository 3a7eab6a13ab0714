"""Depth of field: said before a refinement, with the figures of the literature."""

from __future__ import annotations

import pytest

import verglas as vg
from verglas.errors import InputError
from verglas.optics import depth_of_field_resolution_A, depth_of_field_sentence
from verglas.types.listener import Silence

FIGURES = [(500, 300, 2.65), (1000, 300, 3.75), (700, 200, 3.54)]


@pytest.mark.parametrize(
    ("diameter_A", "voltage_kV", "limit_A"), [(500, 300, 2.65), (1000, 300, 3.75), (700, 200, 3.54)]
)
def test_limits_of_derosier(diameter_A, voltage_kV, limit_A):
    assert depth_of_field_resolution_A(diameter_A, voltage_kV) == pytest.approx(limit_A, abs=0.01)


def test_sentence_says_whether_it_matters():
    assert "does not matter" in depth_of_field_sentence(150, 300, 2.0)
    assert "limited to 2.90 A" in depth_of_field_sentence(600, 300, 2.2)
    with pytest.raises(InputError, match="expected a positive thickness_A, got 0"):
        depth_of_field_resolution_A(0, 300)


class Sentences(Silence):
    def __init__(self):
        self.said = []

    def say(self, sentence):
        self.said.append(sentence)

    def iteration(self, figures):
        self.said.append("an iteration")


@pytest.mark.slow
def test_refine_says_it_before_it_starts():
    model = vg.simulate.phantom(24, 5.0, 90.0)
    particles = vg.simulate.particles(model, 24, 24, 5.0, snr=1.0, seed=1, listener=None)
    heard = Sentences()
    volume = vg.simulate.density(model, 24, 5.0)
    vg.refine(particles, volume, diameter_A=100, iterations=1, listener=heard, threads=1)
    at = [i for i, line in enumerate(heard.said) if line.startswith("depth of field: does not matter (100 A at 300 kV")]
    assert len(at) == 1
    assert at[0] < heard.said.index("an iteration")
