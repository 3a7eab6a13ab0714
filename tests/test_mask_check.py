"""One check of masks for every job: IMOD's bytes, NaN, inverted, of another shape, empty."""

from __future__ import annotations

import mrcfile
import numpy as np
import pytest

import verglas as vg
from verglas.cli import main
from verglas.errors import InputError
from verglas.masks import checked_mask, soft_sphere
from verglas.run.refine_inputs import fitted_mask

BOX = 24


def good():
    return soft_sphere(BOX, 7.0, 3.0)


BAD = {
    "imod": (lambda m: np.rint(m) - 128, "from -128 to -127; expected 0 to 1; IMOD"),
    "bytes": (lambda m: 255 * np.rint(m), "divide it by 255"),
    "nan": (lambda m: np.where(m > 0.5, np.nan, m), "not finite numbers"),
    "inverted": (lambda m: 1 - m, "is inverted"),
    "empty": (lambda m: 0 * m, "zero everywhere"),
    "shape": (lambda m: m[:-2, :-2, :-2], "has shape"),
}


@pytest.mark.parametrize("kind", BAD)
def test_every_job_that_takes_a_mask_refuses_one_that_is_none(kind, tmp_path, capsys):
    change, words = BAD[kind]
    bad = np.asarray(change(good()), np.float32)
    with pytest.raises(InputError, match=words):
        checked_mask(bad, (BOX,) * 3)
    maps = [vg.Map(n.astype(np.float32), 2.0) for n in np.random.default_rng(0).normal(size=(2, *(BOX,) * 3))]
    with pytest.raises(InputError, match=words):
        vg.fsc(*maps, bad)
    with pytest.raises(InputError, match=words):
        vg.postprocess(*maps, vg.Map(bad, 2.0))
    for number, one in enumerate(maps):
        vg.write_map(tmp_path / f"h{number}.mrc", one)
    with mrcfile.new(tmp_path / "mask.mrc", bad) as file:  # write_map refuses NaN
        file.voxel_size = 2.0
    files = [str(tmp_path / name) for name in ("h0.mrc", "h1.mrc")]
    for command in (["fsc", *files], ["postprocess", *files, "--out", str(tmp_path / "o")]):
        with pytest.raises(SystemExit) as ended:
            main([*command, "--mask", str(tmp_path / "mask.mrc")])
        assert ended.value.code == 1
        said = capsys.readouterr().err
        assert words in said
        assert "mask.mrc" in said
    if kind != "shape":
        particles = vg.Particles.from_images(np.ones((2, BOX, BOX), np.float32), 2.0)
        with pytest.raises(InputError, match=words):
            fitted_mask(vg.Map(bad, 2.0), particles)


def test_a_good_mask_stays_as_it_is():
    mask = good()
    assert np.array_equal(checked_mask(mask, mask.shape), mask)
    assert checked_mask(mask + 5e-4).max() == 1
    assert checked_mask(np.ones((8, 8, 8))).min() == 1  # no mask at all is a mask


@pytest.mark.parametrize("order", [1, 4, 24])
def test_thresholds_that_count_voxels_pass_over_shells_with_too_few(order):
    """Half-bit of one independent voxel is 1, of two 0.98: both gave 'no resolution' for a good map of order 24."""
    truth = vg.simulate.density(vg.simulate.phantom(48, 3.0, 100.0), 48, 3.0, b_factor_A2=80.0)
    noise = np.random.default_rng(0).normal(size=(2, 48, 48, 48)) * 3 * truth.data.std()
    halves = [truth.with_data((truth.data + n).astype(np.float32)) for n in noise]
    found = vg.fsc(*halves, soft_sphere(48, 17.0, 4.0), symmetry_order=order).resolutions_A()
    assert 9 < found["0.143"] < found["half-bit"] < 20
