"""The averaged power spectrum that motion correction writes and the CTF fit reads."""

import numpy as np
import pandas as pd
import pytest

import verglas as vg
from verglas.errors import FormatError, InputError
from verglas.io import read_micrographs, write_micrograph, write_micrographs
from verglas.io.power_spectra import read_power_spectrum, write_power_spectrum
from verglas.motion.sums import corrected_sums
from verglas.optics.fit.spectrum import averaged_spectrum
from verglas.run.ctf import CtfJob, ctf_files
from verglas.types import Micrograph, Movie
from verglas.types.motion import Motion
from verglas.types.power_spectrum import PowerSpectrum


@pytest.fixture(scope="module")
def micrograph():
    return vg.simulate.micrograph(shape=(512, 640), pixel_size_A=2.0, defocus_u_A=13000, seed=3, threads=1)[0]


def test_the_plane_is_that_of_a_whole_transform():
    rng = np.random.default_rng(0)
    image = rng.standard_normal((64, 64)).astype(np.float32)
    whole = np.abs(np.fft.fftshift(np.fft.fft2(image)))
    half = np.abs(np.fft.rfft2(image)) ** 2
    np.testing.assert_allclose(PowerSpectrum(half, 1.5, 1).centred_amplitude(), whole, rtol=1e-4)


def test_a_file_gives_back_what_was_written(micrograph, tmp_path):
    written = averaged_spectrum([micrograph])
    write_power_spectrum(tmp_path / "m_PS.mrc", written)
    read = read_power_spectrum(tmp_path / "m_PS.mrc")
    np.testing.assert_allclose(read.power, written.power, rtol=1e-5)
    assert (read.pixel_size_A, read.tiles) == (pytest.approx(2.0), written.tiles)
    write_micrograph(tmp_path / "other.mrc", Micrograph(np.ones((64, 64)), 2.0))
    with pytest.raises(FormatError, match="of another program"):
        read_power_spectrum(tmp_path / "other.mrc")
    write_micrograph(tmp_path / "wide.mrc", Micrograph(np.ones((64, 80)), 2.0))
    with pytest.raises(FormatError, match="expected one power spectrum, square"):
        read_power_spectrum(tmp_path / "wide.mrc")


def test_a_fit_of_the_spectrum_is_that_of_the_micrograph(micrograph):
    of_image = vg.estimate_ctf(micrograph)
    of_spectrum = vg.estimate_ctf(micrograph, spectrum=averaged_spectrum([micrograph]))
    assert of_spectrum.defocus_A == pytest.approx(of_image.defocus_A, abs=0.5)
    assert of_spectrum.resolution_A == pytest.approx(of_image.resolution_A)
    assert of_spectrum.significance == pytest.approx(of_image.significance, rel=1e-3)
    assert of_spectrum.centre_px.tolist() == of_image.centre_px.tolist()
    with pytest.raises(InputError, match="its power spectrum has 2 A"):
        vg.estimate_ctf(Micrograph(micrograph.data, 1.9), spectrum=averaged_spectrum([micrograph]))


def test_ctf_reads_the_spectrum_that_the_list_names(micrograph, tmp_path):
    """The image is replaced by noise: only its spectrum can tell the defocus."""
    noise = np.random.default_rng(1).standard_normal(micrograph.shape)
    (tmp_path / "micrographs").mkdir()
    write_micrograph(tmp_path / "micrographs" / "m.mrc", Micrograph(noise, 2.0))
    write_power_spectrum(tmp_path / "micrographs" / "m_PS.mrc", averaged_spectrum([micrograph]))
    names = ["micrographs/m.mrc"]
    table = pd.DataFrame(
        {
            "rlnMicrographName": names,
            "path": [str(tmp_path / "micrographs" / "m.mrc")],
            "rlnCtfPowerSpectrum": ["micrographs/m_PS.mrc"],
            "rlnMicrographPixelSize": [2.0],
        }
    )
    write_micrographs(tmp_path / "micrographs.star", table)
    made = ctf_files(CtfJob(str(tmp_path / "micrographs.star"), tmp_path / "ctf", pictures=False), listener=None)
    assert made.table["defocus_u_A"][0] == pytest.approx(13000, abs=100)


def test_groups_of_frames_add_up_to_the_sum():
    rng = np.random.default_rng(2)
    movie = Movie.from_array(rng.poisson(5.0, (7, 160, 192)).astype(np.uint8), 2.0, dose_per_frame_e_A2=2.0)
    motion = Motion((160, 192), np.zeros((7, 2)), used=[True, True, False, True, True, True, True])
    sums = corrected_sums(movie, motion, group_frames=2, even_odd=True)
    assert len(sums.groups) == 3  # frames 1 and 2, 4, 5 to 7
    np.testing.assert_allclose(sum(sums.groups), sums.plain, rtol=1e-4)
    np.testing.assert_allclose(sums.even + sums.odd, sums.plain, rtol=1e-4)
    done = vg.correct_motion(movie, model="global", spectrum_dose_e_A2=4.0, listener=None)
    assert done.spectrum.tiles == 3 * averaged_spectrum([done.micrograph]).tiles
    with pytest.raises(InputError, match="the exposure of a frame is unknown"):
        vg.correct_motion(Movie.from_array(movie.source.data, 2.0), spectrum_dose_e_A2=4.0, listener=None)


def test_the_pixel_size_of_the_movie_is_kept(tmp_path):
    table = pd.DataFrame(
        {
            "rlnMicrographName": ["a.mrc", "b.mrc"],
            "path": ["a.mrc", "b.mrc"],
            "rlnMicrographPixelSize": [2.0, 2.0],
            "rlnMicrographOriginalPixelSize": [1.0, 0.5],
        }
    )
    write_micrographs(tmp_path / "m.star", table)
    again = read_micrographs(tmp_path / "m.star")
    assert again["rlnMicrographOriginalPixelSize"].tolist() == [1.0, 0.5]
    assert again["rlnMicrographPixelSize"].tolist() == [2.0, 2.0]
    only = "data_\n\nloop_\n_rlnMicrographName #1\n_rlnMicrographOriginalPixelSize #2\na.mrc 1.5\n"
    (tmp_path / "o.star").write_text(only)
    assert read_micrographs(tmp_path / "o.star")["rlnMicrographPixelSize"].tolist() == [1.5]
