"""The CUDA kernels on the host: what stands in for CuPy is as strict as CuPy, and several devices are several."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from verglas import _cuda_arrays, ops

import emulated_cupy
from devices import emulate, host, on

ROW = np.array([[15000, 14000, 30, 300, 2.7, 0.1, 0, 0, 1]])


@pytest.fixture
def cupy(monkeypatch):
    emulate(monkeypatch)
    return sys.modules["cupy"]


def test_host_and_device_do_not_mix(cupy):
    a, b = cupy.asarray(np.ones(3)), np.ones(3)
    for mixed in (
        lambda: a + b,
        lambda: b + a,
        lambda: cupy.add(a, b),
        lambda: np.add(b, a),
        lambda: a.dot(b),
        lambda: np.asarray(a),
        lambda: np.ascontiguousarray(a, np.float32),
        lambda: cupy.sum(b),
    ):
        with pytest.raises(TypeError, match=r"Unsupported type|Implicit conversion"):
            mixed()
    with pytest.raises(TypeError):
        a[:] = b


def test_arrays_stay_on_the_device(cupy):
    a = cupy.asarray(np.arange(6.0).reshape(2, 3))
    for found in (
        a + 1,
        2 * a,
        np.float32(2) * a,
        np.sqrt(a),
        np.sum(a, axis=0),
        a.sum(),
        a[0],
        a.T,
        a[:, 1:],
        abs(a),
        cupy.concatenate([a, a]),
        a.astype(np.float32),
        a.max(),
        a[0, 0],
    ):
        assert isinstance(found, cupy.ndarray)
    assert float(a.sum()) == 15
    np.testing.assert_array_equal(host(a[:, 1:] * 2), np.arange(6.0).reshape(2, 3)[:, 1:] * 2)
    a[0] = 7
    a[1] += a[0]
    np.testing.assert_array_equal(a.get(), [[7, 7, 7], [10, 11, 12]])


def test_fresh_memory_is_not_a_number_and_is_counted(cupy):
    pool = cupy.get_default_memory_pool()
    before = pool.used_bytes()
    a = cupy.empty(1000, np.float64)
    assert np.isnan(a.get()).all()
    assert pool.used_bytes() == before + 8000
    view = a[1:]
    del a
    assert pool.used_bytes() == before + 8000
    del view
    assert pool.used_bytes() == before
    with emulated_cupy.memory_limit(before + 4000), pytest.raises(cupy.cuda.memory.OutOfMemoryError):
        cupy.empty(1000, np.float64)


def test_two_devices(cupy):
    first, second = (on(f"cuda:{i}", np.ones(3)) for i in range(2))
    assert (first.device.id, second.device.id) == (0, 1)
    with pytest.raises(ValueError, match="Array device must be same"):
        first + second
    with cupy.cuda.Device(1):
        assert (second + 1).device.id == 1
    c = ops.ctf(ROW, 8, 2.0, device="cuda:1")
    assert c.device.id == 1
    np.testing.assert_array_equal(host(c), host(ops.ctf(ROW, 8, 2.0, device="cuda:0")))


def test_a_device_beyond_the_last(cupy):
    with pytest.raises(Exception, match="cuda:2: this machine has cuda:0 to cuda:1"):
        _cuda_arrays.session("cuda:2")
