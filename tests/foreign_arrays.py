"""Arrays of other libraries, as far as a reader of arrays can see: stand-ins where those are not installed."""

from __future__ import annotations

import numpy as np
import pytest


class Tensor:
    """As torch.Tensor: NumPy gets it only out of what it differentiates and from its device."""

    def __init__(self, values, where="cuda", graph=True):
        self.values, self.where, self.graph = values, where, graph
        self.shape, self.ndim = values.shape, values.ndim

    def detach(self):
        return Tensor(self.values, self.where, graph=False)

    def cpu(self):
        return Tensor(self.values, "cpu", self.graph)

    def __array__(self, dtype=None, copy=None):
        if self.graph or self.where != "cpu":
            raise RuntimeError("can't convert it to numpy")
        return np.asarray(self.values, dtype)


class DeviceArray:
    """As cupy.ndarray: nothing is copied from the device unasked."""

    def __init__(self, values):
        self.values, self.shape, self.ndim = values, values.shape, values.ndim
        self.__cuda_array_interface__ = {"version": 3}

    def get(self):
        return self.values

    def __array__(self, dtype=None, copy=None):
        raise TypeError("Implicit conversion to a NumPy array is not allowed")


class Labelled:
    """As xarray.DataArray."""

    def __init__(self, values):
        self.values, self.shape, self.ndim = values, values.shape, values.ndim

    def __array__(self, dtype=None, copy=None):
        return np.asarray(self.values, dtype)


class Exchanged:
    """Of a library that speaks DLPack and nothing of NumPy's."""

    def __init__(self, values):
        self.values, self.shape, self.ndim = values, values.shape, values.ndim

    def __dlpack__(self, **more):
        return self.values.__dlpack__(**more)

    def __dlpack_device__(self):
        return self.values.__dlpack_device__()


def data_array(values):
    """Of xarray itself, where it is installed."""
    xarray = pytest.importorskip("xarray")
    return xarray.DataArray(values, dims=("z", "y", "x")[-values.ndim :])


def torch_tensor(values):
    """Of PyTorch itself, where it is installed: it differentiates, and gives nothing to NumPy unasked."""
    torch = pytest.importorskip("torch")
    return torch.tensor(values, requires_grad=True)
