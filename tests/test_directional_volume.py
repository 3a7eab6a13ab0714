"""The conical FSC as a body in Fourier space, and the folder of the command."""

from __future__ import annotations

import json

import numpy as np
import pytest
from command_line import main

import verglas as vg
from verglas import fourier
from verglas.io import read_csv

pytestmark = pytest.mark.usefixtures("blank_figures_of_module")

BOX, PIXEL_A = 32, 3.0


def halves_without_a_cone(seed: int = 0) -> list[vg.Map]:
    """White signal but for a cone of 40 degrees about z, and noise."""
    rng = np.random.default_rng(seed)
    white, *noises = rng.standard_normal((3, BOX, BOX, BOX), dtype=np.float32)
    z = fourier.half_grid(white.shape)[0]
    outside = np.abs(z) < np.cos(np.deg2rad(40)) * np.maximum(fourier.radius(white.shape), 1)
    signal = fourier.inverse((fourier.forward(white, 3) * outside).astype(np.complex64), white.shape)
    return [vg.Map(signal + 0.5 * n, PIXEL_A) for n in noises]


def test_the_body_has_a_hole_where_the_cone_is_missing():
    found = vg.directional_fsc(*halves_without_a_cone())
    body = found.volume(BOX)
    centre, k = BOX // 2, 8
    assert body[centre, centre, centre] == 1
    assert abs(found.coarse_axis[2]) > np.cos(np.deg2rad(6))
    along, across = body[centre + k, centre, centre], body[centre, centre, centre + k]
    assert along < 0.15
    assert across > 0.7
    np.testing.assert_allclose(body[1:, 1:, 1:], body[:0:-1, :0:-1, :0:-1], atol=1e-5)  # opposite directions are one
    # At a direction of the curves the body is that curve.
    direction, curve = found.directions[100], found.curves[100]
    z, y, x = np.rint(centre + 9 * direction[::-1]).astype(int)
    assert body[z, y, x] == pytest.approx(curve[9], abs=0.12)


def test_the_command_writes_volume_curves_and_page(tmp_path, capsys):
    for name, half in zip("ab", halves_without_a_cone(), strict=True):
        vg.write_map(tmp_path / f"{name}.mrc", half)
    out = tmp_path / "out"
    words = ["directional", str(tmp_path / "a.mrc"), str(tmp_path / "b.mrc"), "-o", str(out)]
    status, _, said = main(words, capsys)
    assert status == 0, said
    record = json.loads((out / "directional.json").read_text())
    assert record["area_ratio"] < 0.5 < record["chance_ratio"]
    assert vg.read_map(out / "fsc3d.mrc").box == BOX
    assert record["missing_cone"]["found"]
    assert record["missing_cone"]["half_angle_deg"] == pytest.approx(40, abs=5)
    assert "without signal" in (out / "report.html").read_text()
    table = read_csv(out / "directions.csv")
    assert table["signal"][table["z"] > 0.95].max() < 0.2 < 0.8 < table["signal"][table["z"] < 0.3].min()
    assert len(table["z"]) == 500
    resolution_A = table["resolution_A"].fillna(np.inf)
    assert np.median(resolution_A[table["z"] > 0.95]) > 14
    assert np.median(resolution_A[table["z"] < 0.3]) < 8
    curves = read_csv(out / "curves.csv")
    assert (curves["least"] <= curves["median"]).all()
    assert (out / "report.html").exists()


@pytest.mark.parametrize("box", [16, 17])
def test_the_body_is_the_same_about_the_middle(box):
    """Half of it is made and turned about: every voxel whose opposite lies in the box equals that, odd boxes too."""
    rng = np.random.default_rng(1)
    signal, *noises = rng.standard_normal((3, box, box, box), dtype=np.float32)
    found = vg.directional_fsc(*(vg.Map(2 * signal + n, PIXEL_A) for n in noises))
    body, first = found.volume(box), 1 - box % 2
    inner = body[first:, first:, first:]
    np.testing.assert_allclose(inner, inner[::-1, ::-1, ::-1], atol=1e-6)
    assert np.count_nonzero(body) > 0.4 * box**3
    # A voxel of the half that is turned about holds the curves of its own direction.
    k = np.array([2, -3, 4])
    at = np.argmax(np.abs(found.directions @ k))
    z, y, x = box // 2 + k[::-1]
    assert body[z, y, x] == pytest.approx(found.curves[at, 5], abs=0.1)
