"""Electrons of EER strips: against imagecodecs and the reference."""

import imagecodecs
import numpy as np
import pytest
from eer_files import encode, image, random_events
from hypothesis import given, settings
from hypothesis import strategies as st

from verglas import ops, reference

from devices import host, on

SHAPE = (48, 80)


def decoded(strip, shape, upsampling, device="cpu", **code):
    counts = on(device, np.zeros((shape[0] * upsampling, shape[1] * upsampling)), np.uint16)
    return ops.eer(strip, counts, upsampling=upsampling, device=device, **code), host(counts)


def by_imagecodecs(strip, shape, upsampling, run_bits):
    level = {1: 0, 2: 1, 4: 2}[upsampling]
    grid = (shape[0] * upsampling, shape[1] * upsampling)
    return imagecodecs.eer_decode(strip, grid, run_bits, 2, 2, superres=level)


def padded(strip):
    """As imagecodecs needs it: of even length, with bits beyond the last electron; it stops at the last pixel."""
    return strip + bytes(2 + len(strip) % 2)


@pytest.mark.parametrize("run_bits", [7, 8])
def test_a_thousand_frames_equal_imagecodecs(run_bits):
    rng = np.random.default_rng(run_bits)
    for _ in range(500):
        events = random_events(rng, SHAPE, rng.uniform(0, 0.05))
        strip = encode(*events, SHAPE[0] * SHAPE[1], run_bits)
        for upsampling in (1, 2, 4):
            electrons, counts = decoded(strip, SHAPE, upsampling, run_bits=run_bits)
            assert electrons == len(events[0])
            np.testing.assert_array_equal(counts, image(events, SHAPE, upsampling))
            expected = by_imagecodecs(padded(strip), SHAPE, upsampling, run_bits)
            np.testing.assert_array_equal(counts > 0, expected)


@given(
    st.binary(max_size=60),
    st.sampled_from([(7, (2, 2)), (8, (2, 2)), (5, (1, 2)), (9, (3, 0))]),
    st.sampled_from([1, 2, 4]),
)
@settings(deadline=None)
def test_any_bytes_equal_the_reference(device, strip, widths, upsampling):
    run_bits, sub_bits = widths
    electrons, counts = decoded(strip, (6, 9), upsampling, device, run_bits=run_bits, sub_bits=sub_bits)
    expected = reference.eer.eer(strip, (6, 9), run_bits, sub_bits, upsampling)
    if expected is None:
        assert electrons == -1
    else:
        assert electrons == expected.sum()
        np.testing.assert_array_equal(counts, expected)


@pytest.mark.parametrize(("run_bits", "sub_bits"), [(7, (2, 2)), (8, (2, 2)), (5, (1, 2)), (11, (8, 8)), (1, (0, 0))])
def test_strips_of_many_chunks_equal_the_host_s(device, run_bits, sub_bits):
    """Devices read a strip in parts of 4,096 bits, whose first number starts anywhere; cut off at any place."""
    strip = np.random.default_rng(run_bits).integers(0, 256, 2600, np.uint8)
    shape = (128, 100) if run_bits < 11 else (800, 1000)
    for cut in (2600, 1537, 1024, 1023, 512):
        electrons, counts = decoded(strip[:cut], shape, 1, device, run_bits=run_bits, sub_bits=sub_bits)
        expected, on_host = decoded(strip[:cut], shape, 1, run_bits=run_bits, sub_bits=sub_bits)
        assert electrons == expected
        np.testing.assert_array_equal(counts, on_host)


def test_every_cut_is_seen():
    events = random_events(np.random.default_rng(0), SHAPE, 0.02)
    strip = encode(*events, SHAPE[0] * SHAPE[1])
    # what runs to the last pixel may lose its padding bits, nothing more
    for cut in range(1, len(strip)):
        assert decoded(strip[:cut], SHAPE, 1)[0] == -1
    assert decoded(b"", SHAPE, 1)[0] == -1


def test_frames_add_up(device):
    rng = np.random.default_rng(5)
    frames = [random_events(rng, SHAPE, 0.03) for _ in range(4)]
    counts = on(device, np.zeros(SHAPE), np.uint16)
    for events in frames:
        ops.eer(encode(*events, SHAPE[0] * SHAPE[1]), counts, device=device)
    np.testing.assert_array_equal(host(counts), sum(image(e, SHAPE, 1).astype(int) for e in frames))


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda c, d: ops.eer(b"", c, upsampling=3, device=d), "expected 1, 2, 4, 8 or 16, got 3"),
        (lambda c, d: ops.eer(b"", c.astype(np.int32), device=d), "uint16"),
        (lambda c, d: ops.eer(b"", c, run_bits=0, device=d), "widths"),
        (lambda c, d: ops.eer(b"", c[:3], upsampling=2, device=d), "multiples of 2"),
    ],
)
def test_bad_input(device, call, words):
    with pytest.raises(ValueError, match=words):
        call(np.zeros((4, 4), np.uint16), device)
