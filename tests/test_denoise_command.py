"""``verglas denoise``: pairs of sums in, micrographs on their grid out, and what is refused."""

from __future__ import annotations

import json

import numpy as np
import pytest
from command_line import main

import verglas as vg
from verglas.io.micrograph_file import write_micrograph
from verglas.run.denoise import find_pairs


@pytest.fixture
def sums(tmp_path):
    """Two micrographs of discs at 3 A, each as an even and an odd sum."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:160, :200]
    truths = {}
    for name in ("b", "a"):
        centres = rng.uniform(15, 145, (8, 2))
        truth = -sum((np.hypot(x - u, y - v) < 10).astype(np.float32) for u, v in centres)
        truths[name] = truth
        for half in ("EVN", "ODD"):
            noisy = truth + 2 * rng.standard_normal(truth.shape, dtype=np.float32)
            write_micrograph(tmp_path / f"{name}_{half}.mrc", vg.Micrograph(noisy, 3.0))
    return tmp_path, truths


def test_the_command_writes_on_the_grid_of_the_sums_and_nearer_to_the_truth(sums, capsys):
    folder, truths = sums
    status, text, _ = main(
        ["denoise", str(folder), "--out", str(folder / "out"), "--steps", "0", "--working-pixel", "6", "--json"], capsys
    )
    assert status == 0
    record = json.loads(text)
    assert list(record["micrographs"]) == ["a", "b"]
    assert record["micrographs"]["a"]["pixels"] == [80, 100]
    assert record["micrographs"]["a"]["agreement_filtered"] > record["micrographs"]["a"]["agreement"] + 0.2
    for name, truth in truths.items():
        made = vg.read_micrograph(folder / "out" / f"{name}_denoised.mrc")
        assert (made.data.shape, made.pixel_size_A) == (truth.shape, pytest.approx(3.0))
        raw = sum(vg.read_micrograph(folder / f"{name}_{half}.mrc").data for half in ("EVN", "ODD"))
        agree = [np.corrcoef(one.ravel(), truth.ravel())[0, 1] for one in (made.data, raw)]
        assert agree[0] > agree[1] + 0.15


def test_training_changes_what_the_filter_made_and_a_seed_repeats(sums, capsys):
    folder, _ = sums
    made = []
    for number, steps in enumerate((3, 3, 0)):
        arguments = ["denoise", str(folder / "a_EVN.mrc"), "-o", str(folder / f"o{number}"), "--steps", str(steps)]
        assert main([*arguments, "--working-pixel", "6"], capsys)[0] == 0
        made.append(vg.read_micrograph(folder / f"o{number}" / "a_denoised.mrc").data)
    assert np.array_equal(made[0], made[1])
    assert not np.allclose(made[0], made[2], atol=1e-4)


def test_what_does_not_go_together_is_named(sums, capsys):
    folder, _ = sums
    (folder / "b_ODD.mrc").unlink()
    pairs, alone = find_pairs([folder])
    assert [even.name for even, _ in pairs] == ["a_EVN.mrc"]
    assert "b_ODD.mrc; both sums are needed" in alone["b"]
    (folder / "b_ODD.mrc").write_bytes(b"")
    (folder / "b_EVN.mrc").rename(folder / "kept")
    assert "there is no file" in find_pairs([folder])[1]["b"]
    (folder / "kept").rename(folder / "b_EVN.mrc")
    with pytest.raises(vg.InputError, match="neither"):
        find_pairs([folder / "a.mrc"])
    write_micrograph(folder / "b_ODD.mrc", vg.Micrograph(np.zeros((160, 200), np.float32), 3.0))
    status, text, _ = main(["denoise", str(folder), "--out", str(folder / "o"), "--steps", "0"], capsys)
    assert status == 0
    assert "1 micrographs denoised" in text
    assert "constant" in json.loads((folder / "o" / "denoise.json").read_text())["set_aside"]["b"]
    assert main(["denoise", str(folder), "--out", str(folder / "o"), "--working-pixel", "0"], capsys)[0] == 2


def test_a_sum_without_the_other_and_one_sum_twice_are_set_aside_and_counted(sums, capsys):
    """A session of thousands does not end because a file is missing; halves of one sum would agree on their noise."""
    folder, _ = sums
    (folder / "b_ODD.mrc").unlink()
    status, text, _ = main(["denoise", str(folder), "--out", str(folder / "o"), "--steps", "0"], capsys)
    assert status == 0
    assert "1 micrographs denoised" in text
    assert "set aside: b: there is no file" in text
    (folder / "a_ODD.mrc").write_bytes((folder / "a_EVN.mrc").read_bytes())
    status, _, said = main(["denoise", str(folder), "--out", str(folder / "o"), "--steps", "0"], capsys)
    assert status == 1
    assert "none of 2 micrographs could be denoised" in said
    status, _, said = main(["denoise", str(folder / "a_EVN.mrc"), "--out", str(folder / "o"), "--steps", "0"], capsys)
    assert "the even and the odd sum are one image" in said
