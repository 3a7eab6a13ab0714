"""float16 on request: whatever writes images or maps, and reads them again."""

from __future__ import annotations

import numpy as np
import pytest
from command_line import main

import verglas as vg
from verglas.io import read_header

BOX, PIXEL_A, N = 16, 3.0, 6


@pytest.fixture
def files(tmp_path):
    model = vg.simulate.phantom(BOX, PIXEL_A, 36.0)
    vg.write_map(tmp_path / "map.mrc", vg.simulate.density(model, BOX, PIXEL_A))
    y, x, z = np.mgrid[:BOX, :BOX, :BOX] - BOX // 2
    vg.write_map(tmp_path / "mask.mrc", vg.Map((np.hypot(np.hypot(x, y), z) < 3).astype(np.float32), PIXEL_A))
    vg.write_particles(tmp_path / "p.star", vg.simulate.particles(model, N, BOX, PIXEL_A, snr=1.0, seed=1))
    return tmp_path


COMMANDS = {
    "project": ["project", "map.mrc", "--particles", "p.star", "--out", "{}.mrcs"],
    "subtract": ["subtract", "p.star", "--map", "map.mrc", "--mask", "mask.mrc", "--out", "{}.star"],
    "reconstruct": ["reconstruct", "p.star", "--out", "{}.mrc"],
    "resample particles": ["resample", "p.star", "{}.star", "--new-box", "12"],
    "resample a stack": ["resample", "p.mrcs", "{}.mrcs", "--new-box", "12"],
    "resample a map": ["resample", "map.mrc", "{}.mrc", "--new-box", "12"],
}


@pytest.mark.parametrize("words", COMMANDS.values(), ids=COMMANDS)
def test_a_command_writes_half_precision_when_asked(files, monkeypatch, capsys, words):
    monkeypatch.chdir(files)
    for name, more in (("whole", []), ("half", ["--dtype", "float16"])):
        status, _, err = main([word.format(name) for word in words] + more, capsys)
        assert status == 0, err
    suffix = ".mrc" if (files / "half.mrc").is_file() else ".mrcs"
    sizes = [read_header(files / f"{name}{suffix}").section_bytes for name in ("whole", "half")]
    assert sizes[0] == 2 * sizes[1]
    read = vg.read_map if suffix == ".mrc" else vg.io.read_stack
    whole, half = (
        np.asarray(getattr(one, "data", one)) for one in (read(files / f"{n}{suffix}") for n in ("whole", "half"))
    )
    np.testing.assert_allclose(half, whole, rtol=2**-11, atol=1e-6)


def test_images_beyond_its_range_are_refused(tmp_path):
    images = np.full((1, 4, 4), 1e6, np.float32)
    with pytest.raises(vg.InputError, match="float16"):
        vg.write_particles(tmp_path / "p.star", vg.Particles.from_images(images, 1.0), dtype="float16")
