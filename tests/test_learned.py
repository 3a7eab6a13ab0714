"""Networks of our own: convolutions and gradients against definitions, training, files of weights, imports."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from heard import Heard
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from verglas.errors import FormatError, InputError
from verglas.learned import (
    Network,
    TrainingSettings,
    Weights,
    convolve,
    convolve_adjoint,
    from_safetensors,
    packaged_weights,
    to_safetensors,
    train,
)
from verglas.learned.training import Adam, heat_map, logistic_loss

from tolerance import CONVOLUTION_RELATIVE, NETWORK_SLOPE

SIDES = st.sampled_from([1, 3, 5])


def arrays(seed, side, channels, kernels, shape=(9, 12)):
    rng = np.random.default_rng(seed)
    images = rng.standard_normal((2, *shape, channels)).astype(np.float32)
    weight = rng.standard_normal((side, side, channels, kernels)).astype(np.float32)
    return rng, images, weight, rng.standard_normal(kernels).astype(np.float32)


@given(side=SIDES, stride=st.sampled_from([1, 2]), channels=st.integers(1, 3), kernels=st.integers(1, 3))
@settings(max_examples=12, deadline=None)
def test_a_convolution_is_a_sum_of_correlations_over_channels(side, stride, channels, kernels):
    _, images, weight, bias = arrays(0, side, channels, kernels)
    got = convolve(images, weight, bias, stride)
    for n in range(2):
        for o in range(kernels):
            wanted = bias[o] + sum(
                ndimage.correlate(images[n, :, :, c].astype(np.float64), weight[:, :, c, o], mode="constant")
                for c in range(channels)
            )
            assert np.allclose(got[n, :, :, o], wanted[::stride, ::stride], atol=100 * CONVOLUTION_RELATIVE)


@given(side=SIDES, stride=st.sampled_from([1, 2]), height=st.integers(8, 11))
@settings(max_examples=12, deadline=None)
def test_gradients_of_a_convolution_are_its_adjoints(side, stride, height):
    rng, images, weight, bias = arrays(1, side, 2, 3, (height, 10))
    result = convolve(images, weight, 0 * bias, stride)
    other = rng.standard_normal(result.shape).astype(np.float32)
    of_images, of_weight, of_bias = convolve_adjoint(images, weight, other, stride)
    product = float((result * other).sum(dtype=np.float64))
    scale = float(np.abs(result * other).sum())
    for left, right in ((images, of_images), (weight, of_weight)):
        assert abs(float((left * right).sum(dtype=np.float64)) - product) < CONVOLUTION_RELATIVE * scale
    assert np.allclose(of_bias, other.sum((0, 1, 2)), atol=1e-4)


def test_the_networks_gradient_is_the_slope_of_its_loss():
    network, rng = Network.random(0, width=4), np.random.default_rng(0)
    images = rng.standard_normal((2, 24, 16)).astype(np.float32)
    wanted, counts = rng.random((2, 12, 8)).astype(np.float32), np.ones((2, 12, 8), np.float32)

    def loss(parameters):
        return logistic_loss(Network(parameters).forward(images)[0].astype(np.float64), wanted, counts)[0]

    logits, seen = network.forward(images)
    gradient = network.gradient(images, logistic_loss(logits, wanted, counts)[1], seen)
    step = np.float32(2e-3)
    numeric, exact = [], []
    for _ in range(12):
        way = {name: rng.standard_normal(value.shape).astype(np.float32) for name, value in network.parameters.items()}
        up, down = ({k: v + sign * step * way[k] for k, v in network.parameters.items()} for sign in (1, -1))
        numeric.append((loss(up) - loss(down)) / (2 * step))
        exact.append(sum(float((gradient[k] * way[k]).sum()) for k in way))
    assert np.linalg.norm(np.subtract(numeric, exact)) < NETWORK_SLOPE * np.linalg.norm(exact)


def test_training_learns_to_see_discs_in_noise():
    rng = np.random.default_rng(3)
    centres = rng.uniform(8, 56, (24, 2, 2))
    y, x = np.mgrid[:64, :64]
    discs = [sum(np.hypot(x - u, y - v) < 6 for u, v in two) for two in centres]
    images = (rng.standard_normal((24, 64, 64)) + discs).astype(np.float32)
    wanted = np.stack([heat_map((64, 64), two, 6.0) for two in centres])
    how, heard = TrainingSettings(60, 4, 1e-2, seed=1), Heard()
    trained = train(
        Network.random(1, 4),
        images[:20],
        wanted[:20],
        np.ones_like(wanted[:20]),
        how,
        heard,
    )
    losses = [row["loss"] for row in heard.rows]
    assert np.mean(losses[-10:]) < 0.6 * np.mean(losses[:3])
    unseen = trained.apply(images[20:])
    on = wanted[20:] > 0.5
    assert unseen[on].mean() > unseen[~on].mean() + 1


def test_training_twice_gives_the_same_weights():
    images = np.random.default_rng(8).standard_normal((6, 32, 32)).astype(np.float32)
    wanted, how = np.zeros((6, 16, 16), np.float32), TrainingSettings(4, 4, seed=1)
    one, two = (train(Network.random(1, 4), images, wanted, np.ones_like(wanted), how) for _ in range(2))
    assert all((one.parameters[k] == two.parameters[k]).all() for k in one.parameters)


def test_a_training_that_was_stopped_and_kept_goes_on_as_if_it_had_not_been():
    images = np.random.default_rng(8).standard_normal((6, 32, 32)).astype(np.float32)
    wanted, how = np.zeros((6, 16, 16), np.float32), TrainingSettings(5, 4, seed=1)
    whole = train(Network.random(1, 4), images, wanted, np.ones_like(wanted), how)
    adam = Adam(Network.random(1, 4))
    train(Network.random(1, 4), images, wanted, np.ones_like(wanted), replace(how, until=3), adam=adam)
    assert adam.steps == 3
    kept = Adam.from_arrays(adam.to_arrays())
    rest = train(Network.random(1, 4), images, wanted, np.ones_like(wanted), how, adam=kept)
    assert all((whole.parameters[k] == rest.parameters[k]).all() for k in whole.parameters)


def test_turning_a_field_turns_its_map():
    from verglas.learned.training import _turn

    image = np.zeros((1, 32, 48), np.float32)
    image[0, 10, 20] = 1
    small = heat_map((32, 48), [[20, 10]], 6.0)[None]
    for turn in range(8):
        y, x = np.argwhere(_turn(image, turn, 1)[0] == 1)[0]
        assert np.unravel_index(_turn(small, turn)[0].argmax(), _turn(small, turn)[0].shape) == (y / 2, x / 2)


@pytest.mark.parametrize("shape", [(160, 160), (157, 165)])
def test_a_network_follows_a_shift_by_eight_pixels(shape):
    network = Network.random(4)
    image = np.random.default_rng(4).standard_normal((1, 200, 200)).astype(np.float32)
    one = network.apply(image[:, : shape[0], : shape[1]])[0]
    two = network.apply(image[:, 8 : 8 + shape[0], 16 : 16 + shape[1]])[0]
    assert np.allclose(one[36:44, 40:46], two[32:40, 32:38], atol=1e-4)


def test_weights_survive_a_file_and_others_can_read_it():
    weights = Weights(Network.random(5), {"seed": 5, "words": "ångström"})
    content = to_safetensors(weights)
    again = from_safetensors(content, "some.safetensors")
    assert again.card == weights.card
    assert all((again.network.parameters[k] == v).all() for k, v in weights.network.parameters.items())
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    assert length % 8 == 0
    ends = [entry["data_offsets"] for name, entry in header.items() if name != "__metadata__"]
    assert [low for low, _ in ends] == [0, *(high for _, high in ends[:-1])]
    assert ends[-1][1] == len(content) - 8 - length


@pytest.mark.parametrize("damage", ["short", "no header", "text", "other"])
def test_a_damaged_file_of_weights_is_named(damage):
    content = to_safetensors(Weights(Network.random(6)))
    bad = {
        "short": content[:-40],
        "no header": b"",
        "text": b"data_\nloop_\n_rlnImageName #1\n",
        "other": content.replace(b"eighth_1.weight", b"eighth_9.weight"),
    }[damage]
    with pytest.raises((FormatError, InputError), match=r"bad\.safetensors|expected eighth_1\.weight"):
        from_safetensors(bad, "bad.safetensors")


def test_the_card_of_the_packaged_weights_says_where_they_come_from():
    weights = packaged_weights("picker")
    card = weights.card
    assert card["weights"] == sum(value.size for value in weights.network.parameters.values()) < 100_000
    assert card["command"].startswith("python tools/train_picker.py --fields")
    assert {"dumbbell", "arch", "cone"} == set(card["data"]["kinds_never_seen"])
    assert not set(card["data"]["kinds"]) & set(card["data"]["kinds_never_seen"])
    assert len(to_safetensors(weights)) < 400_000


def test_nothing_learned_is_imported_until_it_is_asked_for():
    code = (
        "import sys, verglas as vg, verglas.picking, verglas.run.pick; vg.pick;"
        "print([m for m in sys.modules if m.startswith(('verglas.learned', 'verglas.picking.network', 'onnx', 'jax'))])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.slow
def test_the_training_script_makes_weights_that_pick(tmp_path):
    import importlib.util
    from pathlib import Path

    path = Path(__file__).parent.parent / "tools" / "train_picker.py"
    spec = importlib.util.spec_from_file_location("train_picker", path)
    script = importlib.util.module_from_spec(spec)
    sys.modules["train_picker"] = script  # dataclasses look their module up
    spec.loader.exec_module(script)
    out = tmp_path / "tiny.safetensors"
    script.main(f"--fields 12 --calibration 6 --each 1 --steps 40 --seed 3 --out {out}".split())
    weights = from_safetensors(out.read_bytes(), "tiny")
    assert weights.card == json.loads(out.with_suffix(".json").read_text())
    assert np.isfinite(weights.card["calibration"]["slopes"]).all()  # of 6 fields their signs say nothing
    assert weights.card["loss"] < 0.5
