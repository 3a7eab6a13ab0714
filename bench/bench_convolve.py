"""ops.convolve and its gradient beside products of matrices of windows in NumPy, at layers of the picker's network.

Two images of 256 x 256 pixels, one thread; rates and ratios are of the least times. Last, processor time of
the whole network: a step of training on four fields of 256 x 256, its map of 688 x 688. Writes results/convolve.json.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np

from verglas import ops
from verglas.learned import Network, TrainingSettings, picker_layers, train

from common import compare, write

# Scale of each layer's input, as a share of the image's, and its step.
INPUTS = {"half_0": (1, 2), "half_1": (2, 1), "quarter_0": (2, 2), "quarter_1": (4, 1), "eighth_1": (8, 1)}


def windows(images: np.ndarray, side: int, stride: int) -> np.ndarray:
    """The window about each pixel of the result, a row each (what networks call im2col)."""
    reach = side // 2
    padded = np.pad(images, ((0, 0), (reach, reach), (reach, reach), (0, 0)))
    view = np.lib.stride_tricks.sliding_window_view(padded, (side, side), (1, 2))[:, ::stride, ::stride]
    return view.transpose(0, 1, 2, 4, 5, 3).reshape(-1, side * side * images.shape[3])


def processor_s(call: Callable[[], object], repeats: int = 5) -> float:
    """The least of some."""
    times = []
    for _ in range(repeats):
        began = time.process_time()
        call()
        times.append(time.process_time() - began)
    return min(times)


def network_rows() -> list[dict[str, object]]:
    rng = np.random.default_rng(1)
    fields, maps = rng.standard_normal((4, 256, 256), np.float32), rng.random((4, 128, 128), np.float32)
    large, network = rng.standard_normal((1, 688, 688), np.float32), Network.random(1)
    calls = {
        "step of training, 4 fields": lambda: train(network, fields, maps, np.ones_like(maps), TrainingSettings(1)),
        "map of 688 x 688": lambda: network.apply(large),
    }
    return [{"what": name, "processor_s": processor_s(call)} for name, call in calls.items()]


def main() -> None:
    rows, rng = [], np.random.default_rng(0)
    for layer, (scale, stride) in INPUTS.items():
        side, _, channels, kernels = picker_layers()[layer]
        images = rng.standard_normal((2, 256 // scale, 256 // scale, channels), np.float32)
        weight = rng.standard_normal((side, side, channels, kernels), np.float32)
        bias = np.zeros(kernels, np.float32)
        result = ops.convolve(images, weight, bias, stride)
        matrix, flat = weight.reshape(-1, kernels), result.reshape(-1, kernels)
        calls = {
            "convolve": lambda x=images, w=weight, b=bias, s=stride: ops.convolve(x, w, b, s, threads=1),
            "convolve, NumPy": lambda x=images, w=matrix, k=side, s=stride: windows(x, k, s) @ w,
            "gradient": lambda x=images, g=result, k=side, s=stride: ops.convolve_gradient(x, g, k, s, threads=1),
            "gradient, NumPy": lambda x=images, g=flat, k=side, s=stride: windows(x, k, s).T @ g,
        }
        times = compare(calls, repeats=25)
        operations = 2 * weight.size * flat.shape[0]
        for name, measured in times.items():
            peer = times[f"{name.split(',')[0]}, NumPy"]["ms_min"]
            rows.append(
                {"layer": layer, "what": name, **measured, "Gflop_per_s": 1e-6 * operations / measured["ms_min"]}
                | {"times_faster_than_numpy": peer / time["ms_min"]}
            )
    write("convolve", rows + network_rows(), peer="NumPy: windows copied, then a product of matrices (OpenBLAS)")


if __name__ == "__main__":
    main()
