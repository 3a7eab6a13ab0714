"""``vg.read_movie`` with gain and bad pixels as found and acquisition metadata, and ``verglas gain``."""

import json

import mrcfile
import numpy as np
import pytest
import tifffile
from eer_files import encode, random_events, write_eer

import verglas as vg
from verglas.cli import app as application
from verglas.errors import FormatError, InputError, VerglasWarning
from verglas.io import read_defects, read_gain
from verglas.types.gain import Gain


@pytest.fixture(scope="module")
def session(tmp_path_factory):
    """Four movies of one camera: TIFF files, with a gain and bad pixels."""
    folder = tmp_path_factory.mktemp("session")
    for i in range(4):
        # one detector, other ice: the gain and the defects belong to the seed of the detector
        movie, truth = vg.simulate.movie(
            None,
            shape=(128, 160),
            pixel_size_A=2.0,
            frames=8,
            dose_per_frame_e_A2=4.0,
            gain_sd=0.06,
            hot_pixels=3,
            dead_pixels=4,
            seed=1,
        )
        counts = np.random.default_rng(i).poisson(16 / truth.gain, (8, 128, 160)).astype(np.uint16)
        at = tuple(truth.defects.T)
        counts[:, at[0], at[1]] = movie.source.data[:, at[0], at[1]]
        tifffile.imwrite(folder / f"m{i}.tif", counts, photometric="minisblack", compression="zlib")
    return folder, truth


def test_gain_and_defects_are_found(session):
    folder, truth = session
    turned = truth.gain[::-1]
    movie = vg.read_movie(folder / "m0.tif", gain=turned, placement="auto", defects="auto", pixel_size_A=2.0)
    np.testing.assert_allclose(movie.gain, truth.gain)
    assert movie.defects.tolist() == truth.defects.tolist()
    assert movie.pixel_size_A == 2.0
    given = vg.read_movie(folder / "m0.tif", gain=turned, placement="180-flip", defects=truth.defects)
    np.testing.assert_array_equal(given.frame(3), movie.frame(3))
    only_gain = vg.read_movie(folder / "m0.tif", gain=Gain(turned), placement="auto")
    np.testing.assert_array_equal(only_gain.gain, movie.gain)
    assert len(only_gain.defects) == 0
    only_defects = vg.read_movie(folder / "m0.tif", defects="auto")
    assert only_defects.gain is None
    assert {*map(tuple, truth.defects.tolist())} <= {*map(tuple, only_defects.defects.tolist())}
    with pytest.raises(InputError, match="no placement of the gain stands out"):
        vg.read_movie(folder / "m0.tif", gain=np.random.default_rng(0).uniform(0.9, 1.1, (128, 160)), placement="auto")


def test_metadata_beside_the_movie(session, tmp_path):
    folder, _ = session
    movie = tmp_path / "m0.tif"
    movie.write_bytes((folder / "m0.tif").read_bytes())
    (tmp_path / "m0.tif.mdoc").write_text(
        "Voltage = 200\n[FrameSet = 0]\nPixelSpacing = 0.8\nExposureDose = 16\nNumSubFrames = 8\nPriorRecordDose = 3\n"
    )
    found = vg.read_movie(movie)
    assert (found.voltage_kV, found.pixel_size_A, found.dose_per_frame_e_A2) == (200.0, 0.8, 2.0)
    assert found.pre_exposure_e_A2 == 3.0
    with pytest.warns(VerglasWarning, match="voltage_kV: 200 in .*m0.tif.mdoc, 300 given, which is used"):
        assert vg.read_movie(movie, voltage_kV=300.0).voltage_kV == 300.0
    assert vg.read_movie(movie, metadata=False).voltage_kV is None
    assert vg.read_movie(movie, frames_per_fraction=4).dose_per_frame_e_A2 == pytest.approx(8.0)


def test_metadata_of_an_eer_file(tmp_path):
    rng = np.random.default_rng(0)
    strips = [encode(*random_events(rng, (8, 8), 0.1), 64) for _ in range(20)]
    write_eer(tmp_path / "a.eer", strips, (8, 8))
    (tmp_path / "a.mdoc").write_text("Voltage = 300\n[FrameSet = 0]\nPixelSpacing = 1.2\nExposureDose = 10\n")
    movie = vg.read_movie(tmp_path / "a.eer", upsampling=2)
    assert (len(movie), movie.dose_per_frame_e_A2, movie.pixel_size_A) == (10, 1.0, 0.6)


def command(arguments, capsys):
    """Exit status, standard output and standard error."""
    status = 0
    try:
        application.main([str(a) for a in arguments])
    except SystemExit as exit_:
        status = exit_.code or 0
    said = capsys.readouterr()
    return status, said.out, said.err


def test_gain_command(session, tmp_path, capsys):
    folder, truth = session
    (folder / "broken.tif").write_bytes((folder / "m0.tif").read_bytes()[:2000])
    out = tmp_path / "gain.mrc"
    status, said, _ = command(["gain", folder / "*.tif", "--out", out, "--json"], capsys)
    (folder / "broken.tif").unlink()
    assert status == 0
    found = json.loads(said)
    assert (found["movies"], found["frames"]) == (4, 32)
    assert len(found["excluded"]) == 1
    assert "broken.tif" in found["excluded"][0]
    gain = read_gain(out)
    good = ~gain.dead
    assert np.argwhere(gain.dead).tolist() == truth.defects.tolist()
    ratio = gain.data[good] / truth.gain[good]
    assert ratio.std() / ratio.mean() == pytest.approx(found["relative_error"], rel=0.15)
    rows = read_defects(tmp_path / "gain_defects.txt")
    assert sorted(rows.tolist()) == truth.defects.tolist()
    movie = vg.read_movie(folder / "m1.tif", gain=out, defects=tmp_path / "gain_defects.txt")
    assert movie.frame(0).std() < 1.2 * 4


def test_gain_command_takes_bytes_of_mrc_files_for_counts(tmp_path, capsys):
    counts = np.random.default_rng(0).poisson(150, (20, 64, 64)).clip(0, 255).astype(np.uint8)
    with mrcfile.new(tmp_path / "m.mrc") as f:
        f.set_data(counts.view(np.int8))
    arguments = ["gain", tmp_path / "m.mrc", "--out", tmp_path / "g.mrc"]
    status, _, said = command(arguments, capsys)
    assert status == 1
    assert "--mrc-bytes unsigned" in said
    assert command([*arguments, "--mrc-bytes", "some"], capsys)[0] == 2
    assert command([*arguments, "--mrc-bytes", "unsigned"], capsys)[0] == 0
    total = counts.sum(0)
    assert np.allclose(read_gain(tmp_path / "g.mrc").data * total / total.mean(), 1, atol=0.02)


def test_gain_command_on_nothing_that_can_be_read(tmp_path, capsys):
    (tmp_path / "a.tif").write_bytes(b"II*\0broken")
    with mrcfile.new(tmp_path / "b.mrc") as f:
        f.set_data(np.ones((4, 4), np.float32))
    for name, words in (("a.tif", "none of 1 movies"), ("b.mrc", "a micrograph where a movie is meant")):
        status, _, said = command(["gain", tmp_path / name, "--out", tmp_path / "g.mrc"], capsys)
        assert status == 1
        assert words in said
        assert not (tmp_path / "g.mrc").exists()
    with pytest.raises(InputError, match="named twice"):
        vg.io.find_movies([tmp_path / "a.tif", tmp_path / "a.tif"])


def test_movies_of_a_star_file(session, tmp_path):
    folder, _ = session
    star = folder / "movies.star"
    star.write_text("data_movies\nloop_\n_rlnMicrographMovieName #1\nm0.tif\nm2.tif\n")
    assert [p.name for p in vg.io.find_movies(star)] == ["m0.tif", "m2.tif"]
    assert vg.io.find_movies(folder)[0] == folder / "m0.tif"
    star.write_text("data_movies\nloop_\n_rlnMicrographName #1\nm0.tif\n")
    with pytest.raises(FormatError, match="no table has the column rlnMicrographMovieName"):
        vg.io.find_movies(star)
    star.unlink()
