from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from verglas import ops, reference

from tolerance import CTF_SCORE_REL

row = st.tuples(
    st.floats(3000, 40000),
    st.floats(3000, 40000),
    st.floats(-180, 180),
    st.sampled_from([100.0, 200.0, 300.0]),
    st.sampled_from([0.0, 0.01, 2.7]),
    st.floats(0, 0.5),
    st.floats(0, 180),
    st.just(0.0),
    st.just(1.0),
)


def spectrum(count, seed):
    rng = np.random.default_rng(seed)
    k, theta = rng.uniform(0.03, 0.3, count), rng.uniform(0, np.pi, count)
    return [
        v.astype(np.float32)
        for v in (k * np.cos(theta), k * np.sin(theta), rng.normal(size=count), rng.uniform(0, 1, count))
    ]


def columns(scores):
    upper = np.triu_indices(4)
    normal = scores.normal[:, upper[0], upper[1]]
    return np.column_stack([scores.model_power, scores.overlap, scores.descent, normal])


def scale(params, pixels):
    """Norms of the vectors whose products are summed, |sin 2 chi| in the Jacobian replaced by its bound of 1."""
    x, y, data, a = (np.asarray(v, np.float64) for v in pixels)
    upper = np.triu_indices(4)
    out = []
    for one in params:
        lam = reference.ctf.wavelength_A(one[3])
        per_A = np.linalg.norm(a * np.pi * lam * (x**2 + y**2))
        size = np.array([per_A, per_A, per_A, np.linalg.norm(a) * np.pi / 180])
        residual = np.linalg.norm(data) + np.linalg.norm(a)
        pairs = size[upper[0]] * size[upper[1]]
        out.append([np.linalg.norm(a) ** 2, np.linalg.norm(data) * np.linalg.norm(a), *(size * residual), *pairs])
    return np.array(out)


@settings(deadline=None, max_examples=40)
@given(rows=st.lists(row, min_size=1, max_size=3), count=st.sampled_from([1, 7, 500, 5000]), seed=st.integers(0, 99))
def test_equals_reference(rows, count, seed):
    pixels = spectrum(count, seed)
    want = reference.ctf_score.ctf_score(rows, *pixels)
    got = columns(ops.ctf_score(rows, *pixels, derivatives=True))
    assert (np.abs(got - want) <= CTF_SCORE_REL * (scale(rows, pixels) + 1e-12)).all()
    plain = ops.ctf_score(rows, *pixels)
    np.testing.assert_allclose(plain.overlap, got[:, 1], rtol=1e-5, atol=1e-5)
    assert not plain.descent.any()


def test_descent_is_minus_half_the_gradient_of_the_residual():
    """Closed form against central differences of the reference's sum of squares."""
    pixels = spectrum(400, 3)
    base = np.array([15000.0, 14500.0, 25.0, 300.0, 2.7, 0.1, 20.0, 0.0, 1.0])

    def cost(p):
        mean, c, s, phase = p
        half = np.hypot(c, s)
        angle = np.rad2deg(np.arctan2(s, c)) / 2
        row = [mean + half, mean - half, angle, 300.0, 2.7, 0.1, phase, 0.0, 1.0]
        found = reference.ctf_score.ctf_score([row], *pixels)[0]
        return (pixels[2].astype(np.float64) ** 2).sum() - 2 * found[1] + found[0]

    half = 250.0
    p = np.array([14750.0, half * np.cos(np.deg2rad(50)), half * np.sin(np.deg2rad(50)), 20.0])
    got = ops.ctf_score([base], *pixels, derivatives=True).descent[0]
    for j, step in enumerate((1.0, 1.0, 1.0, 0.01)):
        moved = np.eye(4)[j] * step
        numeric = -(cost(p + moved) - cost(p - moved)) / (4 * step)
        assert got[j] == pytest.approx(numeric, rel=2e-3, abs=1e-5)


def test_threads_do_not_change_the_result():
    pixels = spectrum(20000, 1)
    rows = np.tile([[15000, 14000, 30, 300, 2.7, 0.1, 0, 0, 1]], (3, 1))
    one, three = (ops.ctf_score(rows, *pixels, derivatives=True, threads=t) for t in (1, 3))
    np.testing.assert_array_equal(columns(one), columns(three))


def test_nan_propagates():
    pixels = spectrum(100, 1)
    pixels[2][5] = np.nan
    assert np.isnan(ops.ctf_score([[15000, 15000, 0, 300, 2.7, 0.1, 0, 0, 1]], *pixels).overlap).all()


def test_bad_input_is_named():
    pixels = spectrum(10, 1)
    with pytest.raises(ValueError, match="params"):
        ops.ctf_score(np.zeros((2, 8)), *pixels)
    with pytest.raises(ValueError, match="amplitude"):
        ops.ctf_score(np.zeros((2, 9)), *pixels[:3], pixels[3][:5])
