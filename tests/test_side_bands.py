"""Ewald's sphere: projections and reconstruction by single side bands, and the sign found by held-out particles.

The wavelength is 0.6 pixels: flat slices of a particle of 18 pixels end at 2.8 pixels, as those of 1,100 A at 300 kV
do at 3.9 A.
"""

from __future__ import annotations

import json

import numpy as np
import pytest
from command_line import main
from scipy.spatial.transform import Rotation
from volumes import blob, relative

import verglas as vg
from verglas import fourier, ops, reference
from verglas.errors import InputError, SettingError
from verglas.reconstruction import reconstruct_report
from verglas.reconstruction.ewald import SideBands, curvatures, insert_bands, quadrature
from verglas.reconstruction.sums import Batch
from verglas.refinement.em import initial_state, iterate
from verglas.refinement.schedule import first_step
from verglas.refinement.settings import RefineSettings
from verglas.refinement.start import make_problem
from verglas.search.problem import survey

from tolerance import PROJECT_RELATIVE

BOX, PIXEL_A, VOLTAGE_KV = 24, 0.2, 10.0
pytestmark = pytest.mark.filterwarnings("ignore:.*very near focus")  # 6 to 16 A: as many waves as 1 to 3 um elsewhere


def optics_of(n: int, seed: int) -> vg.Optics:
    defocus = np.random.default_rng(seed).uniform(6, 16, n)
    return vg.Optics(defocus, defocus, voltage_kV=np.full(n, VOLTAGE_KV), cs_mm=np.zeros(n))


def poses_of(n: int, seed: int) -> vg.Poses:
    angles = vg.matrix_to_euler(Rotation.random(n, random_state=seed).as_matrix())
    return vg.Poses(angles, np.random.default_rng(seed).normal(size=(n, 2)) * PIXEL_A)


def particle_map() -> vg.Map:
    """Blobs of a pixel's width, out to the edge of a ball: every frequency to Nyquist carries signal."""
    rng = np.random.default_rng(3)
    points = rng.normal(size=(120, 3))
    points *= (rng.uniform(size=120) ** (1 / 3) * 9 / np.linalg.norm(points, axis=1))[:, None]
    k = 2 * np.pi * np.fft.fftfreq(BOX)
    waves = [np.exp(-1j * np.outer(points[:, axis], k) - 0.15 * k**2) for axis in range(3)]
    spectrum = np.einsum("mz,my,mx->zyx", *waves)
    return vg.Map(np.fft.fftshift(np.fft.ifftn(spectrum).real).astype(np.float32), PIXEL_A)


@pytest.fixture(scope="module")
def truth():
    return particle_map()


@pytest.fixture(scope="module")
def particles(truth):
    """300 noisy images made on the sphere of the negative sign."""
    n = 300
    poses, optics = poses_of(n, 1), optics_of(n, 2)
    images = vg.project(truth, poses, optics, ewald=True, ewald_sign="negative")
    images += images.std() * np.random.default_rng(4).normal(size=images.shape).astype(np.float32)
    return vg.Particles.from_images(images, PIXEL_A, poses=poses, optics=optics)


@pytest.mark.parametrize(("word", "sign"), [("positive", 1), ("negative", -1)])
def test_projections_are_the_sum_of_both_side_bands(word, sign):
    """The formula of methods.md 2.3, on exact slices of the map."""
    volume, poses, optics = vg.Map(blob(BOX, 1), PIXEL_A), poses_of(5, 1), optics_of(5, 2)
    got = vg.project(volume, poses, optics, ewald=True, ewald_sign=word)
    lift = sign * float(vg.optics.wavelength_A(VOLTAGE_KV)) / (2 * BOX * PIXEL_A)
    at = vg.euler_to_matrix(poses.angles_deg), (BOX - 1) // 2, -poses.shifts_A / PIXEL_A
    first, second = (reference.project.project(volume.data, *at, curvature=c) for c in (-lift, lift))
    params = optics.as_params()
    sine = reference.ctf.ctf(params, BOX, PIXEL_A)
    params[:, 6] += 90
    wave = reference.ctf.ctf(params, BOX, PIXEL_A) + 1j * sine
    want = (wave * first - wave.conj() * second) / 2j
    assert relative(fourier.forward(got, 2), want) < PROJECT_RELATIVE
    assert relative(vg.project(volume, poses, optics), got) > 0.2


def test_without_curvature_the_bands_are_a_flat_slice():
    n = 6
    optics, matrices = optics_of(n, 2), Rotation.random(n, random_state=1).as_matrix()
    images = fourier.forward(np.random.default_rng(0).normal(size=(n, BOX, BOX)).astype(np.float32), 2)
    ctf = vg.ctf(optics, BOX, PIXEL_A)
    cosine = quadrature(optics.as_params(), BOX, PIXEL_A)
    assert np.allclose(ctf**2 + cosine**2, 1, atol=1e-5)
    batch = Batch(images, matrices, np.zeros((n, 2)), ctf, bands=SideBands(np.zeros(n), cosine, 18.0))
    flat, bands = (ops.GridSums.zeros(ops.Grid(BOX)) for _ in range(2))
    ops.insert(flat, images, matrices, shifts_px=batch.shifts_px, ctf=ctf)
    insert_bands(bands, batch, matrices)
    assert relative(bands.values, flat.values) < 1e-6
    assert relative(bands.weights, flat.weights) < 1e-6


def test_a_negligible_curvature_gives_the_flat_map(truth):
    """At 200 A a pixel and 300 kV the surfaces part by 5e-4 of a Fourier pixel at Nyquist."""
    poses, n = poses_of(60, 3), 60
    volume = vg.Map(truth.data, 200.0)
    optics = vg.Optics(*np.random.default_rng(1).uniform(1e4, 3e4, (1, n)).repeat(2, axis=0))
    flat, curved = vg.project(volume, poses, optics), vg.project(volume, poses, optics, ewald=True)
    assert relative(curved, flat) < 1e-3
    made = vg.Particles.from_images(flat, 200.0, poses=poses, optics=optics)
    maps = [vg.reconstruct(made, listener=None, **more) for more in ({}, {"ewald": True, "ewald_sign": "positive"})]
    assert relative(maps[1].data, maps[0].data) < 2e-3


@pytest.fixture(scope="module")
def maps(particles):
    settings = {
        "flat": {},
        "right": {"ewald": True, "ewald_sign": "negative"},
        "wrong": {"ewald": True, "ewald_sign": "positive"},
    }
    return {name: vg.reconstruct(particles, listener=None, **more) for name, more in settings.items()}


def test_reconstruction_passes_the_depth_of_field(truth, maps):
    """Particle of 18 pixels: flat slices end at sqrt(lambda t / 1.4), shell 8.6; wrong ones before."""
    curve = {name: vg.fsc(made, truth).curve for name, made in maps.items()}
    assert (curve["right"][2:11] > 0.95).all()
    assert (curve["right"][2:11] >= curve["flat"][2:11] - 0.003).all()
    assert curve["right"][10] > curve["flat"][10] + 0.25
    assert curve["flat"][8] > curve["wrong"][8] + 0.5


def test_held_out_particles_find_the_sign(particles, maps):
    result = reconstruct_report(particles, ewald=True, listener=None)
    evidence = result.ewald
    assert evidence.sign == "negative"
    assert evidence.particles == len(particles)
    assert evidence.gain_nats > 10 * evidence.gain_error_nats
    assert evidence.other_nats > evidence.gain_nats
    assert np.array_equal(result.map.data, maps["right"].data)


@pytest.mark.parametrize("method", ["gridding", "least-squares"])
def test_every_method_follows_the_sphere(truth, particles, maps, method):
    made = vg.reconstruct(particles, method=method, ewald=True, ewald_sign="negative", listener=None)
    curve = vg.fsc(made, truth).curve
    assert (curve[2:11] > 0.95).all()
    assert curve[10] > vg.fsc(maps["flat"], truth).curve[10] + 0.25


@pytest.mark.parametrize(
    ("state", "alike"), [("rlnCtfDataAreCtfPremultiplied", 0.999), ("rlnCtfDataArePhaseFlipped", 0.999999)]
)
def test_stored_images_are_brought_back_before_they_are_parted(particles, maps, state, alike):
    """Of a premultiplied image nothing is left where its CTF is 0, though both bands have signal there."""
    factor = vg.ctf(particles.optics, BOX, PIXEL_A)
    if state == "rlnCtfDataArePhaseFlipped":
        factor = np.sign(factor)
    spectra = (fourier.forward(particles.images(), 2) * factor).astype(np.complex64)
    stored = particles.with_source(vg.types.ArraySource(fourier.inverse(spectra, (BOX, BOX)), PIXEL_A))
    result = reconstruct_report(stored.with_columns(**{state: 1}), ewald=True, listener=None)
    assert result.ewald.sign == "negative"
    assert vg.fsc(result.map, maps["right"]).curve[:11].min() > alike


def test_too_few_particles_have_no_sign(particles):
    """One in a half once failed with a TypeError: no map, or no error of the gain."""
    known = vg.Optics(np.full(4, 15000.0), np.full(4, 15000.0))
    lonely = particles[:4].with_optics(known).with_columns(rlnRandomSubset=[1, 2, 2, 2])
    result = reconstruct_report(lonely, ewald=True, listener=None)
    assert result.ewald.sign is None
    assert result.ewald.sentence() == "Ewald sphere: not corrected; too few particles to hold any out"
    assert np.array_equal(result.map.data, vg.reconstruct(lonely, listener=None).data)


def test_the_other_hand_has_the_other_sign(particles):
    """Poses of the mirrored particle: the same images, z against the beam."""
    mirror = np.diag([1.0, 1.0, -1.0])
    turned = mirror @ vg.euler_to_matrix(particles.poses.angles_deg) @ mirror
    seen = particles.with_poses(vg.Poses(vg.matrix_to_euler(turned), particles.poses.shifts_A))
    assert reconstruct_report(seen, ewald=True, listener=None).ewald.sign == "positive"


def test_images_of_a_flat_world_have_no_sign(truth):
    poses, optics = poses_of(120, 5), optics_of(120, 6)
    images = vg.project(truth, poses, optics)
    images += 2 * images.std() * np.random.default_rng(4).normal(size=images.shape).astype(np.float32)
    made = vg.Particles.from_images(images, PIXEL_A, poses=poses, optics=optics)
    result = reconstruct_report(made, ewald=True, listener=None)
    assert result.ewald.sign is None
    assert "not corrected" in result.ewald.sentence()
    assert np.array_equal(result.map.data, vg.reconstruct(made, listener=None).data)


def test_refine_follows_the_sphere_once_poses_are_continuous(truth, particles):
    """One local iteration from the true poses; lengths are so small that no mask or join of a real molecule fits."""
    made, told = {}, []
    for ewald in (False, True):
        settings = RefineSettings(
            diameter_A=4.0, poses="local", initial_resolution_A=0.45, shift_range_A=0.4, solvent_mask=False, ewald=ewald
        )
        found = survey(particles, threads=1)
        problem = make_problem(particles, found.excluded, settings, threads=1)
        state, _ = initial_state(problem, found.power, [truth])
        _, iteration = iterate(problem, state, first_step(problem))
        made[ewald] = vg.Map(iteration.maps[0].raw.mean(axis=0), PIXEL_A)
        told += [note for note in iteration.notes if note.code == "ewald_sign"]
    assert vg.fsc(made[True], truth).curve[9] > vg.fsc(made[False], truth).curve[9] + 0.1
    assert [note.numbers["ewald_sign"] for note in told] == ["negative"]
    assert "sign negative; 300 held-out particles" in told[0].sentence
    with pytest.raises(SettingError, match="ewald: expected one class"):
        RefineSettings(ewald=True, classes=2)


def test_what_cannot_be_is_refused(truth, particles):
    with pytest.raises(InputError, match="project: ewald needs optics"):
        vg.project(truth, poses_of(1, 1), ewald=True)
    with pytest.raises(InputError, match="project: ewald_sign=negative has no effect without ewald=True"):
        vg.project(truth, poses_of(1, 1), optics_of(1, 1), ewald_sign="negative")
    with pytest.raises(InputError, match="ewald needs the CTF"):
        vg.reconstruct(particles, ewald=True, ctf=False)
    with pytest.raises(InputError, match="has no effect without ewald=True"):
        vg.reconstruct(particles, ewald_sign="positive")
    with pytest.raises(SettingError, match="ewald_sign"):
        vg.reconstruct(particles, ewald=True, ewald_sign="up")
    with pytest.raises(InputError, match="expected positive or negative, got 'up'"):
        curvatures(particles.optics.as_params(), BOX, PIXEL_A, "up")


def test_on_the_command_line(tmp_path, truth, particles, capsys):
    star, stack, map_file = (str(tmp_path / name) for name in ("particles.star", "views.mrcs", "truth.mrc"))
    rows = particles[:100]
    vg.write_particles(star, rows, stack=tmp_path / "particles.mrcs")
    vg.write_map(map_file, truth)
    status, out, _ = main(["reconstruct", star, "--out", str(tmp_path / "map.mrc"), "--ewald", "--json"], capsys)
    said = json.loads(out)
    assert (status, said["ewald_sign"]) == (0, "negative")
    assert said["ewald_gain_nats"] > 3 * said["ewald_gain_error_nats"]
    project = ["project", map_file, "--particles", star, "--out", stack, "--ewald", "--ewald-sign"]
    assert main([*project, "negative"], capsys)[0] == 0
    views = vg.read_particles(tmp_path / "views.star").images()
    assert np.allclose(views, vg.project(truth, rows.poses, rows.optics, ewald=True, ewald_sign="negative"), atol=1e-4)
    assert main([*project, "up"], capsys)[0] == 2
    status, _, err = main([word for word in [*project, "negative"] if word != "--ewald"], capsys)
    assert status == 2
    assert "has no effect without --ewald" in err
    status, _, err = main(["project", map_file, "--out", stack, "--ewald"], capsys)
    assert status == 1
    assert "needs particles with CTFs" in err
