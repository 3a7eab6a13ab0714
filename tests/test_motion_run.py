"""``verglas motion``: movies in files to micrographs in files."""

import json

import numpy as np
import pandas as pd
import pytest
import tifffile

import verglas as vg
from verglas.cli import app as application
from verglas.errors import InputError
from verglas.io import read_micrographs, read_motion_star
from verglas.run.motion import correct_movies
from verglas.types.motion import Motion, spline_basis
from verglas.types.trajectory import Trajectory


@pytest.fixture(scope="module")
def session(tmp_path_factory):
    folder = tmp_path_factory.mktemp("movies")
    model = vg.simulate.phantom(48, 3.0, 90.0, seed=1)
    movie, truth = vg.simulate.movie(model, shape=(256, 288), pixel_size_A=3.0, n=9, frames=8, seed=2, gain_sd=0.04,
                                     hot_pixels=4, dose_per_frame_e_A2=2.0, drift_px=(4.0, -3.0))  # fmt: skip
    tifffile.imwrite(folder / "m1.tif", movie.source.data, photometric="minisblack", compression="lzw")
    (folder / "m2.tif").write_bytes((folder / "m1.tif").read_bytes()[:3000])
    tifffile.imwrite(folder / "gain.tiff_", truth.gain[:, ::-1])
    (folder / "gain.tiff_").rename(folder / "gain.bin")
    return folder, truth


def test_from_movies_to_micrographs(session, tmp_path, capsys):
    folder, truth = session
    with pytest.raises(SystemExit) as left:
        application.main(["motion", str(folder / "m*.tif"), "--gain", str(folder / "gain.bin"), "--dose", "2.0",
                          "--pixel-size", "3.0", "--voltage", "300", "--model", "global", "--out", str(tmp_path / "o"),
                          "--json"])  # fmt: skip
    assert not left.value.code
    found = json.loads(capsys.readouterr().out)
    assert found["placement"] == "0-flip"
    assert [str(folder / "m2.tif")] == [*found["excluded"]]
    out = tmp_path / "o"
    table = read_micrographs(out / "micrographs.star")
    assert table["rlnMicrographName"].tolist() == ["micrographs/m1.mrc"]
    assert table["rlnVoltage"].tolist() == [300.0]
    motion = read_motion_star(out / table["rlnMicrographMetadata"][0])
    shifts = motion.global_px - truth.field.global_px
    assert np.abs(shifts - shifts.mean(axis=0)).max() < 0.3
    assert (motion.dose_per_frame_e_A2, motion.shape) == (2.0, (256, 288))
    assert {*map(tuple, truth.defects.tolist())} <= {*map(tuple, motion.hot_pixels.tolist())}
    weighted, plain = (vg.read_micrograph(out / "micrographs" / name) for name in ("m1.mrc", "m1_noDW.mrc"))
    assert weighted.shape == plain.shape == (256, 288)
    assert weighted.pixel_size_A == pytest.approx(3.0)
    assert not np.array_equal(weighted.data, plain.data)
    assert pd.read_csv(out / "excluded.csv")["movie"].tolist() == [str(folder / "m2.tif")]
    steps = np.hypot(*np.diff(motion.global_px, axis=0).T).sum() * 3.0
    assert table["rlnAccumMotionTotal"][0] == pytest.approx(steps, rel=1e-4)


def test_nothing_that_can_be_corrected(session, tmp_path):
    folder, _ = session
    with pytest.raises(InputError, match="none of 1 movies can be corrected"):
        correct_movies(folder / "m2.tif", tmp_path, pixel_size_A=3.0)
    other = tmp_path / "m1.mrc"
    other.write_bytes(b"x")
    with pytest.raises(InputError, match="micrographs of one name"):
        correct_movies([folder / "m1.tif", other], tmp_path)


def test_a_spline_field_goes_into_the_polynomial():
    """A field that is a polynomial comes out as it is, whatever describes it."""
    terms = np.random.default_rng(0).normal(size=(2, 6, 3)) * [1, 0.1, 0.01]
    polynomial = Motion((100, 120), np.zeros((6, 2)), "polynomial", terms.reshape(2, 18))
    assert np.array_equal(Trajectory.from_motion(polynomial).polynomial, polynomial.polynomial)
    # a lattice of B-splines of degree 3 holds polynomials of degree 2 and less: fit it at many places
    y, x = np.mgrid[0:100:3.0, 0:120:3.0]
    basis = np.einsum("pj,pi->pji", spline_basis(y.ravel(), 100, 5), spline_basis(x.ravel(), 120, 6)).reshape(
        y.size, -1
    )
    wanted = np.moveaxis(polynomial.local(x.ravel(), y.ravel()), 1, 0)
    lattice = np.stack([np.linalg.lstsq(basis, frame, rcond=None)[0].reshape(5, 6, 2) for frame in wanted])
    spline = Motion((100, 120), np.zeros((6, 2)), "spline", lattice_px=lattice)
    found = Trajectory.from_motion(spline)
    np.testing.assert_allclose(found.polynomial, polynomial.polynomial, atol=1e-6)
