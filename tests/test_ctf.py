from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from verglas import ops, reference
from verglas.reference.ctf import wavelength_A

from devices import host
from tolerance import CTF_ABS

row = st.tuples(
    st.floats(-5000, 50000),
    st.floats(-5000, 50000),
    st.floats(-180, 180),
    st.sampled_from([100.0, 200.0, 300.0]),
    st.sampled_from([0.0, 0.01, 2.7]),
    st.floats(0, 1),
    st.floats(-180, 180),
    st.floats(0, 200),
    st.floats(0.1, 2),
)


@settings(deadline=None, max_examples=40)
@given(rows=st.lists(row, min_size=1, max_size=4), box=st.integers(1, 33), pixel_size_A=st.floats(0.5, 4))
def test_equals_reference(device, rows, box, pixel_size_A):
    got = host(ops.ctf(rows, box, pixel_size_A, device=device))
    want = reference.ctf.ctf(rows, box, pixel_size_A)
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, want, atol=2 * CTF_ABS)


def test_wavelengths():
    # The printed values are cut, not rounded, at six decimals.
    assert np.floor(wavelength_A(300) * 1e6) == 19687
    assert np.floor(wavelength_A(200) * 1e6) == 25079


def test_threads_do_not_change_the_result():
    rows = np.tile([[15000, 14000, 30, 300, 2.7, 0.1, 0, 10, 1]], (7, 1))
    assert np.array_equal(ops.ctf(rows, 32, 1.0, threads=1), ops.ctf(rows, 32, 1.0, threads=3))


@pytest.mark.parametrize(
    ("params", "box", "apix", "words"),
    [
        (np.zeros((2, 8)), 8, 1.0, "params"),
        (np.zeros((2, 9)), 0, 1.0, "box"),
        (np.zeros((2, 9)), 8, 0.0, "pixel_size_A"),
    ],
)
def test_bad_input_is_named(device, params, box, apix, words):
    with pytest.raises(ValueError, match=words):
        ops.ctf(params, box, apix, device=device)
