"""Normalised cross-correlation of templates with a micrograph."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from verglas.picking.template import correlate, template_bank

from tolerance import NCC_ABS, NCC_COPY


def direct_ncc(image, template, mask, y, x):
    half = mask.shape[0] // 2
    window = image[y - half : y + half + 1, x - half : x + half + 1][mask > 0].astype(float)
    pattern = template[mask > 0].astype(float)
    window, pattern = window - window.mean(), pattern - pattern.mean()
    return window @ pattern / np.sqrt((window @ window) * (pattern @ pattern))


def test_ncc_is_its_definition():
    rng = np.random.default_rng(0)
    image = rng.normal(size=(50, 61)).astype(np.float32) + 40
    templates = rng.normal(size=(7, 11, 11))
    bank = template_bank(templates, 4.0, 5, left_out=0)
    score, which = correlate(image, bank)
    for y, x in ((5, 5), (20, 33), (44, 55), (30, 8)):
        every = [direct_ncc(image, t, bank.mask, y, x) for t in templates]
        assert score[y, x] == pytest.approx(max(every), abs=NCC_ABS)
        assert which[y, x] == int(np.argmax(every))


@settings(deadline=None, max_examples=15)
@given(seed=st.integers(0, 999), gain=st.floats(0.01, 100), offset=st.floats(-100, 100))
def test_ncc_is_one_at_a_noiseless_copy_of_any_grey_scale(seed, gain, offset):
    rng = np.random.default_rng(seed)
    templates = rng.normal(size=(20, 13, 13)).astype(np.float32)
    image = rng.normal(size=(60, 70)).astype(np.float32) * gain + offset
    image[20:33, 30:43] = gain * templates[11] + offset
    score, which = correlate(image, template_bank(templates, 4.0, 6))
    assert score[26, 36] == pytest.approx(1, abs=NCC_COPY)
    assert which[26, 36] == 11
    assert np.unravel_index(score.argmax(), score.shape) == (26, 36)


def test_compression_changes_scores_by_no_more_than_it_leaves_out():
    rng = np.random.default_rng(3)
    basis = rng.normal(size=(12, 15, 15))
    templates = np.einsum("mk,kyx->myx", rng.normal(size=(300, 12)), basis) + 0.01 * rng.normal(size=(300, 15, 15))
    image = rng.normal(size=(64, 64)).astype(np.float32)
    few, every = (template_bank(templates, 4.0, 7, left_out=part) for part in (1e-3, 0))
    assert len(few.basis) <= 12 < len(every.basis)
    difference = correlate(image, few)[0] - correlate(image, every)[0]
    assert np.abs(difference).max() < np.sqrt(1e-3)


def test_flat_images_score_nothing():
    bank = template_bank(np.random.default_rng(0).normal(size=(2, 9, 9)), 4.0, 4)
    image = np.zeros((40, 40), np.float32)
    assert np.all(correlate(image, bank)[0] == 0)
