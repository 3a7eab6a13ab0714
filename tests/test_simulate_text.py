from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import verglas as vg
from verglas import fourier, gridding, ops
from verglas.geometry import euler_to_matrix
from verglas.simulate import text

# Eighteen features of every kind, none outside the volume; lengths are voxels of a 128-cube.
EIGHTEEN = """# a body of eighteen parts
128 128 128 0 1
ell + 1.0    0   0   0    30 22 40     10 20 30
ell + 0.5   10  -5  20    10  8  6      0  0  0
ell = 2.0  -12   4 -15     7  9 11     45 60 15
ell + 0.3   40  10  30     8 12  9      0 90  0
ell + 0.8  -40 -20   0     9  7 14     30 30 30
ell + 1.0    0  42   5    12  8 10      5 15 25
ell + 0.4    5 -45  10    11  9  8
sph + 1.0   35 -30 -30     9
sph = 0.0    8   8  -5     6
sph + 0.7  -35  35  30     7.5
sph + 1.2    0   0  54     7
cub + 0.6   38  34  -8    12 10 14     20 30 40
cub = 1.5    0   0   0     8  8  8
cyl + 0.9  -30 -38  28     7  7 24      0 45  0
cyl + 0.5   20  46 -35     6  9 16      15 70 0
dcy + 1.1  -42  12 -34     6 10 6       0 90 90
gau + 0.9   30 -34  34     3.5
blo + 1.0  -10 -20 -50     8 10.4 2
"""


@given(radii=st.tuples(*[st.floats(4, 30)] * 3), angles=st.tuples(*[st.floats(-180, 180)] * 3))
@settings(deadline=None, max_examples=5)
def test_ellipsoid_volume_is_four_thirds_pi_abc(radii, angles):
    line = "ell + 1 0 0 0 " + " ".join(f"{v:.4f}" for v in (*radii, *angles))
    phantom = text.parse_phantom(f"128 128 128 0\n{line}")
    voxels = phantom.volume(128, 1.0).data.sum(dtype=np.float64)
    assert voxels == pytest.approx(4 / 3 * np.pi * np.prod(radii), rel=0.02)
    assert voxels == pytest.approx(phantom.features[0].volume, rel=0.02)


def test_a_file_of_eighteen_features_parses(tmp_path):
    path = tmp_path / "eighteen.descr"
    path.write_text(EIGHTEEN)
    phantom = text.read_phantom(path)
    assert phantom.shape == (128, 128, 128)
    assert len(phantom.features) == 19  # dcy is two cylinders
    for feature in phantom.features:
        alone = text.TextPhantom(phantom.shape, 0.0, (feature,)).volume(128, 1.0).data.sum(dtype=np.float64)
        assert alone == pytest.approx(feature.density * feature.volume, rel=0.02, abs=1e-9), feature


@pytest.mark.parametrize("angles", [(0, 0, 0), (35, 70, -20), (3, 87, 5)])
def test_projection_of_a_phantom_is_analytic(angles):
    phantom = text.parse_phantom(EIGHTEEN)
    image = phantom.project([angles], 64)[0]
    # The same body turned before it is sampled: the sum of voxels along z is then the projection.
    matrix = euler_to_matrix([angles])[0]
    scaled, fine = phantom.scale_lengths(0.5), (np.arange(192) - 95.5) / 3
    y, x = np.meshgrid(np.arange(64) - 32.0, np.arange(64) - 32.0, indexing="ij")
    total = np.zeros((64, 64))
    for z in fine:
        points = np.moveaxis(np.stack([x, y, np.full_like(x, z)], -1) @ matrix, -1, 0)
        value = np.zeros((64, 64))
        for f in scaled.features:
            inside = f.values(*points)
            value = value + f.density * inside if f.op == "+" else np.where(inside > 0, f.density, value)
        total += value / 3
    assert np.linalg.norm(image - total) / np.linalg.norm(total) < 0.01


def test_an_ellipsoid_projects_to_its_chords():
    a, b, c = 20.0, 12.0, 16.0
    phantom = text.parse_phantom(f"64 64 64 0\nell + 2 3 -4 5 {a} {b} {c}")
    along_z, along_x = phantom.project([[0, 0, 0], [0, 90, 0]], 64)
    y, x = np.meshgrid(np.arange(64) - 32.0, np.arange(64) - 32.0, indexing="ij")
    chord = 2 * 2 * c * np.sqrt(np.maximum(1 - ((x - 3) / a) ** 2 - ((y + 4) / b) ** 2, 0))
    np.testing.assert_allclose(along_z, chord, atol=1e-9)
    assert along_x.max() == pytest.approx(2 * 2 * a, rel=0.01)  # looking along x: the chord is the x axis
    # A voxel is a mean over its cube, a ray is a line: compare with the mean of nine rays through each pixel.
    voxels = phantom.volume(64, 1.0).data.sum(0)
    rays = np.roll(phantom.project([[0, 0, 0]], 192)[0] / 3, (1, 1), (0, 1)).reshape(64, 3, 64, 3).mean((1, 3))
    assert np.linalg.norm(voxels - rays) / np.linalg.norm(rays) < 0.005
    assert voxels[28, 35] == pytest.approx(4 * c, rel=0.01)  # through the centre: density times the z axis


def test_projector_gives_the_analytic_image_of_smooth_bodies():
    # Gaussians and blobs have no edge to ring: the band-limited projector has to give the line integrals themselves.
    phantom = text.parse_phantom("64 64 64\ngau + 1 5 -3 8 3\ngau + 2 -9 6 -4 2.5\nblo + 1.5 2 12 3 11 10.4 2")
    angles = [[20.0, 50, 110], [-70, 120, 15]]
    grid = ops.Grid(64)
    spectrum = gridding.to_grid(phantom.volume(64, 1.0, samples=1).data, grid)
    images = fourier.inverse(ops.project(spectrum, grid, euler_to_matrix(angles)), (64, 64))
    want = phantom.project(angles, 64)
    assert np.linalg.norm(images - want) / np.linalg.norm(want) < 0.01


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "empty"),
        ("64 64", "dimX dimY dimZ"),
        ("64 64 0", "positive whole"),
        ("64 64 64 0 -1", "scale"),
        ("64 64 64\nbox + 1 0 0 0 1", "line 2: unknown feature 'box'"),
        ("64 64 64\n\nsph * 1 0 0 0 1", "line 3: expected '\\+' or '='"),
        ("64 64 64\nell + 1 0 0 0 1 2", "line 2: ell takes 7 or 10 numbers, got 6"),
        ("64 64 64\nsph + 1 0 0 zero 2", "line 2: could not convert"),
        ("64 64 64\nsph + 1 0 0 nan 2", "line 2: expected finite"),
        ("64 64 64\nsph + 1 0 0 0 -2", "line 2: expected positive sizes"),
        ("64 64 64\ngau = 1 0 0 0 2", "line 2: gau has no sharp border"),
    ],
)
def test_errors_name_the_line(content, words):
    with pytest.raises(vg.FormatError, match=words):
        text.parse_phantom(content)


def test_missing_file_is_named(tmp_path):
    with pytest.raises(vg.FormatError, match=r"gone\.descr"):
        text.read_phantom(tmp_path / "gone.descr")
