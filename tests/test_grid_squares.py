"""Grid squares: descriptors, the shipped classifier on unseen simulated squares, the command."""

from __future__ import annotations

import json

import numpy as np
import pytest
from command_line import main

import verglas as vg
from verglas import simulate
from verglas.io.micrograph_file import write_micrograph
from verglas.picking import screen_square
from verglas.picking.grid_squares import square_descriptors
from verglas.picking.screening import SQUARE_KINDS, shipped_model


def test_descriptors_do_not_depend_on_grey_scale_or_the_way_up():
    square = simulate.grid_square("good", seed=3001, size=256)
    first = square_descriptors(square)
    scaled, turned = square_descriptors(7 * square), square_descriptors(np.ascontiguousarray(square[::-1]))
    np.testing.assert_allclose(list(first.values()), list(scaled.values()), atol=1e-3)
    np.testing.assert_allclose(list(first.values()), list(turned.values()), atol=0.15)
    assert sorted(shipped_model("square").names) == sorted(first)


def test_a_lattice_is_found_and_a_torn_foil_has_less_of_it():
    found = {kind: square_descriptors(simulate.grid_square(kind, seed=3002)) for kind in ("good", "broken")}
    assert found["good"]["repeats"] > 0.3
    noise = 10 + np.random.default_rng(0).standard_normal((256, 256))
    assert square_descriptors(noise)["repeats"] < 0.15
    assert found["broken"]["largest bright piece"] > found["good"]["largest bright piece"] + 1


@pytest.mark.slow
def test_unseen_squares_are_told_apart():
    """Seeds that no training saw: good ones have nothing against them, opaque and torn ones have."""
    assert sorted(shipped_model("square").kinds) == sorted(SQUARE_KINDS) == sorted(simulate.SQUARE_KINDS)
    good = [screen_square(simulate.grid_square("good", seed=seed)) for seed in range(3010, 3018)]
    assert sum(not one.reason for one in good) >= 7
    for kind in ("thick", "broken", "contaminated"):
        bad = [screen_square(simulate.grid_square(kind, seed=seed)) for seed in range(3010, 3014)]
        assert sum(one.kind != "good" for one in bad) == 4
        assert min(one.good for one in good) > max(one.good for one in bad) or sum(bool(one.reason) for one in bad) >= 3


@pytest.mark.parametrize("bad", ["small", "constant", "nan"])
def test_images_that_cannot_be_judged_are_refused(bad):
    square = simulate.grid_square("good", seed=1, size=128)
    if bad == "nan":
        square[3, 3] = np.nan
    with pytest.raises(vg.InputError, match="image of a square"):
        screen_square({"small": square[:100], "constant": 0 * square}.get(bad, square))


def test_the_command_lists_the_good_ones_and_needs_no_pixel_size(tmp_path, capsys):
    for kind in ("good", "thick"):
        write_micrograph(tmp_path / f"{kind}.mrc", vg.Micrograph(simulate.grid_square(kind, seed=3020), 500.0))
    arguments = ["screen", str(tmp_path / "*.mrc"), "--squares", "--out", str(tmp_path / "out"), "--json"]
    status, text, _ = main(arguments, capsys)
    assert status == 0
    record = json.loads(text)
    assert (record["of"], record["micrographs"], record["good"]) == ("grid squares", 2, 1)
    (thick,) = (one for name, one in record["judgements"].items() if name.endswith("thick.mrc"))
    assert thick["kind"] == "thick"
    assert "good.mrc" in (tmp_path / "out" / "micrographs.star").read_text()
    assert "thick.mrc" not in (tmp_path / "out" / "micrographs.star").read_text()
