"""verglas check-import: coordinates, rows and sign of a set, by its images."""

from __future__ import annotations

import json

import numpy as np
import pytest
from command_line import main

import verglas as vg
from verglas.errors import InputError
from verglas.extraction import ExtractSettings, cut_particles
from verglas.run.check_import import check_import
from verglas.types import Micrograph, Picks


@pytest.fixture(scope="module")
def micrograph():
    return Micrograph(np.random.default_rng(0).normal(100, 10, (320, 320)), 2.0, "m1.mrc")


def particles_of(folder, micrograph, xy, written_xy, sign=1.0):
    """A set cut at ``xy`` at half the scale whose file says ``written_xy``."""
    settings = ExtractSettings(40, 2.0, new_pixel_size_A=4.0, new_box=20)
    images = sign * cut_particles(micrograph, Picks(xy), settings).images
    optics = vg.Optics(*([1e4] * len(images),) * 2, voltage_kV=300, cs_mm=2.7, amplitude_contrast=0.1)
    given = vg.Particles.from_images(images, 4.0, optics=optics).with_columns(
        rlnMicrographName=["job/m1.mrc"] * len(images),
        rlnCoordinateX=written_xy[:, 0],
        rlnCoordinateY=written_xy[:, 1],
    )
    vg.io.write_stack(folder / "m1.mrc", micrograph.data[None], 2.0)
    vg.write_particles(folder / "p.star", given)
    return folder / "p.star", folder / "m1.mrc"


def places():
    return np.stack(np.meshgrid([60.0, 120.0, 200.0, 260.0], [50.0, 110.0, 170.0, 240.0]), -1).reshape(-1, 2)


def test_a_right_set_agrees_and_tells_its_sign(tmp_path, micrograph):
    for sign in (1.0, -1.0):
        stored, turned = check_import(*particles_of(tmp_path, micrograph, places(), places(), sign))
        assert stored.agrees
        assert stored.correlation == pytest.approx(sign, abs=0.01)
        assert stored.offset_px == (0, 0)
        assert not turned.agrees
        assert stored.particles == 16


def test_reversed_rows_are_told(tmp_path, micrograph):
    xy = places()
    mirrored = np.column_stack([xy[:, 0], 319 - xy[:, 1]])
    upside_down = Micrograph(np.ascontiguousarray(micrograph.data[::-1]), 2.0, "m1.mrc")
    star, _ = particles_of(tmp_path, upside_down, mirrored, mirrored)
    vg.io.write_stack(tmp_path / "m1.mrc", micrograph.data[None], 2.0)
    stored, turned = check_import(star, tmp_path / "m1.mrc")
    assert (stored.agrees, turned.agrees) == (False, True)


def test_a_constant_offset_is_measured(tmp_path, micrograph):
    paths = particles_of(tmp_path, micrograph, places(), places() - np.array([12.0, 8.0]))
    stored, _ = check_import(*paths)
    assert not stored.agrees
    assert stored.offset_px == (12, 8)
    assert "adding x +12, y +8 px" in stored.sentence


def test_the_command(tmp_path, micrograph, capsys):
    star, image = particles_of(tmp_path, micrograph, places(), places())
    status, said, _ = main(["check-import", str(star), str(image), "--json"], capsys)
    assert status == 0
    assert [one["agrees"] for one in json.loads(said)] == [True, False]
    with pytest.raises(InputError, match="no particle of the micrograph m2"):
        check_import(star, image.rename(tmp_path / "m2.mrc"))
