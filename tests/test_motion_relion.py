"""What ``verglas motion`` writes, read by RELION's own polishing."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import replace

import mrcfile
import numpy as np
import pandas as pd
import pytest
from motion_movies import movie_of, planted_dome

import verglas as vg
from verglas.io import read_motion_star, read_star, write_star
from verglas.run.motion import correct_movies

BOX, PIXEL_A = 64, 1.5
PLACES = np.array([(100.0, 90.0), (400.0, 300.0), (330.0, 80.0), (600.0, 470.0)])


def write_relion_inputs(folder):
    """Particles at PLACES and a postprocess.star of a Gaussian ball; images are not looked at."""
    n = len(PLACES)
    optics = {
        "rlnOpticsGroup": 1,
        "rlnOpticsGroupName": "opticsGroup1",
        "rlnVoltage": 300.0,
        "rlnSphericalAberration": 2.7,
        "rlnAmplitudeContrast": 0.1,
        "rlnImagePixelSize": PIXEL_A,
        "rlnImageSize": BOX,
        "rlnImageDimensionality": 2,
        "rlnMicrographOriginalPixelSize": PIXEL_A,
    }
    particles = {
        "rlnImageName": [f"{i + 1:06d}@particles.mrcs" for i in range(n)],
        "rlnMicrographName": "micrographs/m.mrc",
        "rlnCoordinateX": PLACES[:, 0],
        "rlnCoordinateY": PLACES[:, 1],
        **dict.fromkeys(("rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi", "rlnOriginXAngst", "rlnOriginYAngst"), 0.0),
        **{"rlnDefocusU": 12000.0, "rlnDefocusV": 12000.0, "rlnDefocusAngle": 0.0, "rlnOpticsGroup": 1},
        "rlnRandomSubset": [1 + i % 2 for i in range(n)],
    }
    write_star(
        folder / "particles.star", {"optics": pd.DataFrame(optics, index=[0]), "particles": pd.DataFrame(particles)}
    )
    z, y, x = np.mgrid[:BOX, :BOX, :BOX] - BOX / 2
    ball = np.exp(-(x**2 + y**2 + z**2) / 200).astype(np.float32)
    for name in ("map", "mask"):
        vg.io.write_map(folder / f"{name}.mrc", vg.Map(ball, PIXEL_A))
    shells = np.arange(BOX // 2 + 1)
    curve = (shells < 24).astype(float)
    names = ("Corrected", "UnmaskedMaps", "MaskedMaps")
    fsc = {f"rlnFourierShellCorrelation{name}": curve for name in names}
    fsc["rlnCorrectedFourierShellCorrelationPhaseRandomizedMaskedMaps"] = 0 * curve
    fsc["rlnSpectralIndex"], fsc["rlnResolution"] = shells, shells / (BOX * PIXEL_A)
    fsc["rlnAngstromResolution"] = BOX * PIXEL_A / np.maximum(shells, 0.1)
    general = {"rlnFinalResolution": 4.0, "rlnMaskName": "mask.mrc"}
    general |= {f"rlnUnfilteredMapHalf{number}": "map.mrc" for number in (1, 2)}
    write_star(folder / "postprocess.star", {"general": general, "fsc": pd.DataFrame(fsc)})


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("relion_motion_refine") is None, reason="RELION (Debian: relion) is not on PATH")
def test_its_polishing_starts_from_our_motion(tmp_path, monkeypatch):
    """Where no step is made, RELION's tracks are the motion that it has read: ours, to the digits of the files.

    The movie moves in a field that no polynomial holds: RELION reads the polynomial and passes over the lattice.
    """
    monkeypatch.chdir(tmp_path)
    counts = np.clip(movie_of(planted_dome(8, 1.5), 3).source.data, 0, None)
    with mrcfile.new("m.mrcs") as file:
        file.set_data(np.rint(counts * 10).astype(np.int16))
        file.set_image_stack()
        file.voxel_size = PIXEL_A
    known = {"pixel_size_A": PIXEL_A, "dose_per_frame_e_A2": 1.0, "voltage_kV": 300.0, "cs_mm": 2.7}
    correct_movies("m.mrcs", ".", model="spline", amplitude_contrast=0.1, listener=None, **known)
    written = read_motion_star("micrographs/m.star")
    assert written.lattice_px is not None
    write_relion_inputs(tmp_path)
    words = (
        "relion_motion_refine --i particles.star --f postprocess.star --m1 map.mrc --m2 map.mrc --mask mask.mrc "
        "--corr_mic micrographs.star --fdose 1 --j 1 --o relion/ --s_vel 0.2 --s_div 5000 --s_acc 2 --max_iters 0"
    )
    done = subprocess.run(words.split(), capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    tables = read_star(next(tmp_path.glob("relion/**/*_tracks.star")))
    tracks = np.stack(
        [
            table[["rlnOriginXAngst", "rlnOriginYAngst"]].to_numpy(float) / PIXEL_A
            for name, table in tables.items()
            if name != "general"
        ]
    )
    there = replace(written, lattice_px=None).at(*PLACES.T)
    assert tracks.shape == there.shape == (len(PLACES), 8, 2)

    def about_first(motion):
        return motion - motion[:, :1]

    assert np.abs(about_first(tracks) - about_first(there)).max() < 1e-4
    assert np.abs(about_first(there) - about_first(np.broadcast_to(written.global_px, there.shape))).max() > 0.1
