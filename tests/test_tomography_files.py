"""Files of tomography are refused as what they are; a name that does not say which image is no image 1."""

from __future__ import annotations

import numpy as np
import pytest

import verglas as vg
from verglas.io import find_micrographs, read_picks, write_stack

OPTICS = "data_optics\n\nloop_\n_rlnOpticsGroup\n_rlnImagePixelSize\n_rlnImageDimensionality\n1 2.0 {dimensions}\n\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            OPTICS.format(dimensions=3) + "data_particles\n\nloop_\n_rlnImageName\n_rlnOpticsGroup\na.mrc 1\n",
            r"table 'optics' holds subtomograms of tomography \(rlnImageDimensionality 3\)",
        ),
        (
            "data_particles\n\nloop_\n_rlnTomoName\n_rlnImageName\n_rlnTomoVisibleFrames\nT 1.mrcs [1,1]\n",
            r"'particles' holds stacks of tilts of tomography \(rlnTomoName, rlnTomoVisibleFrames\)",
        ),
        ("data_\n\nloop_\n_rlnImageName\n_rlnCtfImage\na.mrc c.mrc\n", r"holds subtomograms .*rlnCtfImage"),
        (
            "data_\n\n_rlnTomoParticlesFile p.star\n_rlnTomoTomogramsFile t.star\n",
            r"holds an optimisation set of tomography \(rlnTomoParticlesFile, rlnTomoTomogramsFile\)",
        ),
        ("data_global\n\nloop_\n_rlnTomoName\n_rlnTomoTiltSeriesStarFile\nT t.star\n", "holds tilt series"),
    ],
)
def test_tomography_is_named(tmp_path, text, message):
    (tmp_path / "p.star").write_text(text)
    with pytest.raises(vg.FormatError, match=message):
        vg.read_particles(tmp_path / "p.star")


def test_tilt_series_and_tomogram_coordinates_are_not_micrographs(data_dir, tmp_path):
    (series,) = (data_dir / "relion5_tomo").glob("*CtfFind*")
    with pytest.raises(vg.FormatError, match="images of a tilt series of tomography"):
        find_micrographs(series)
    text = "data_particles\n\nloop_\n_rlnTomoName\n_rlnCoordinateX\n_rlnCoordinateY\n_rlnCoordinateZ\nT 1 2 3\n"
    (tmp_path / "p.star").write_text(text)
    with pytest.raises(vg.FormatError, match="coordinates in tomograms"):
        read_picks(tmp_path / "p.star")


def test_a_bare_name_is_the_one_image_of_its_file(tmp_path):
    images = np.arange(2, dtype=np.float32)[:, None, None] * np.ones((1, 8, 8), np.float32)
    write_stack(tmp_path / "two.mrcs", images, 2.0)
    write_stack(tmp_path / "one.mrcs", images[1:], 2.0)
    head = OPTICS.format(dimensions=2) + "data_particles\n\nloop_\n_rlnImageName\n_rlnOpticsGroup\n"
    (tmp_path / "p.star").write_text(head + "one.mrcs 1\n2@two.mrcs 1\n")
    assert vg.read_particles(tmp_path / "p.star").images()[:, 0, 0].tolist() == [1, 1]
    (tmp_path / "p.star").write_text(head + "one.mrcs 1\ntwo.mrcs 1\n")
    with pytest.raises(vg.FormatError, match=r"'two\.mrcs' does not say which image .* holds 2 sections"):
        vg.read_particles(tmp_path / "p.star").images()
