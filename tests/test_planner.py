"""Laws that experiments are planned by: printed values, counted electrons, and what a user sees."""

from __future__ import annotations

import json

import numpy as np
import pytest
from command_line import main
from hypothesis import given
from hypothesis import strategies as st

import verglas as vg
from verglas.assessment.planner import (
    Imaging,
    ParticlesLaw,
    detection_dose_e_A2,
    elastic_cross_section_A2,
    electron_speed,
    particles_for_resolution,
    refinement_operations,
    resolution_of_particles_A,
    scattering_contrast,
    useful_dose_e_A2,
    views_about_one_axis,
)
from verglas.errors import InputError
from verglas.optics import compose_snr


def test_printed_values():
    assert 1e4 * elastic_cross_section_A2(6, 200.0) == pytest.approx(41.9, abs=0.05)  # square picometres
    assert electron_speed(200.0) == pytest.approx(0.6953, abs=1e-4)
    assert refinement_operations(100_000, 128, 7) == pytest.approx(6.53e17, rel=1e-3)
    assert views_about_one_axis(100.0, 10.0) == 32


def test_the_empirical_law_is_fitted_through_a_reslog():
    n = np.geomspace(300, 30_000, 6)
    made = ParticlesLaw.fit(n, ParticlesLaw(15.0, -2.2).one_A - 2.2 * np.log10(n))
    assert (made.one_A, made.decade_A) == pytest.approx((15.0, -2.2))
    assert made.particles(15.0 - 2.2 * 6) == pytest.approx(1e6)
    with pytest.raises(InputError, match="coarser with more particles"):
        ParticlesLaw.fit([100, 1000], [5.0, 6.0])
    with pytest.raises(InputError, match="two numbers of particles or more"):
        ParticlesLaw.fit([100], [5.0])


def test_contrast_of_a_slab_of_protein_in_ice():
    """Linear while it is small; less at a higher voltage as cross-sections are; a few tenths of a percent per 100 A."""
    thin, thick = scattering_contrast(10.0, 200.0), scattering_contrast(100.0, 200.0)
    assert thick == pytest.approx(10 * thin, rel=0.01)
    assert 0.004 < thick < 0.02
    ratio = scattering_contrast(100.0, 300.0) / thick
    assert ratio == pytest.approx(elastic_cross_section_A2(6, 300.0) / elastic_cross_section_A2(6, 200.0), rel=0.01)
    assert detection_dose_e_A2(100.0, thick) > 10  # amplitude contrast alone: why images are taken out of focus
    with pytest.raises(InputError, match="thickness_A: expected a positive number, got -1"):
        scattering_contrast(-1.0, 300.0)


@pytest.mark.parametrize("contrast", [0.03, 0.1, 0.4])
def test_the_detection_dose_reaches_its_power(contrast):
    """Poisson counts at the stated dose: false alarms and power within 2 %."""
    size_A, efficiency, alarms, power = 25.0, 0.8, 0.05, 0.9
    dose = detection_dose_e_A2(size_A, contrast, false_alarms=alarms, power=power, efficiency=efficiency)
    background = efficiency * dose * size_A**2
    rng = np.random.default_rng(1)
    limit = background + 1.6449 * np.sqrt(background)
    assert np.mean(rng.poisson(background, 200_000) > limit) == pytest.approx(alarms, abs=0.02)
    assert np.mean(rng.poisson(background * (1 + contrast), 200_000) > limit) == pytest.approx(power, abs=0.02)


def test_stages_of_noise_combine():
    rng = np.random.default_rng(0)
    ratios, signal = (2.0, 0.5, 1.0), rng.standard_normal(400_000)
    image = signal
    for ratio in ratios:
        image = image + rng.standard_normal(len(image)) * np.sqrt(image.var() / ratio)
    measured = 1 / (image.var() / signal.var() - 1)
    assert measured == pytest.approx(compose_snr(ratios), rel=0.03)


@given(n=st.floats(1e3, 1e7), b=st.floats(40, 400), dose=st.floats(1, 100))
def test_particles_and_resolution_are_inverse(n, b, dose):
    imaging = Imaging(b_factor_A2=b, dose_e_A2=dose)
    d = resolution_of_particles_A(n, imaging)
    assert particles_for_resolution(d, imaging) == pytest.approx(n, rel=1e-6)


def test_particles_are_counted_to_the_threshold_of_the_half_maps():
    """Where the FSC of half maps is 1/7, C_ref is 0.5: signal over noise of the whole map as power is 1/3."""
    c_ref = float(vg.assessment.c_ref(1 / 7))
    snr = c_ref**2 / (1 - c_ref**2)
    imaging = Imaging(b_factor_A2=1e-9, dose_e_A2=1e-3, voltage_kV=200.0)  # no blur, no damage
    without_threshold = 30 * np.pi / (1e-3 * elastic_cross_section_A2(6, 200.0) * 3.0)
    assert particles_for_resolution(3.0, imaging) == pytest.approx(snr * without_threshold, rel=1e-3)


def test_the_slope_is_the_b_factor():
    """Far from the prefactor's slow terms 1 / d^2 rises by 2 / B for every factor e of particles."""
    n = np.geomspace(1e7, 1e9, 5)
    d = [resolution_of_particles_A(v, Imaging(b_factor_A2=150.0)) for v in n]
    assert vg.assessment.reslog(n, d).b_factor_A2 == pytest.approx(150.0, rel=0.1)


def test_damage_bounds_the_useful_dose():
    doses = [useful_dose_e_A2(dose, 3.0) for dose in (1.0, 10.0, 100.0, 1000.0)]
    assert doses == sorted(doses)
    assert doses[0] == pytest.approx(0.89, abs=0.01)
    assert doses[-1] == pytest.approx(vg.optics.critical_exposure_e_A2(1 / 3.0), rel=1e-6)


def test_symmetry_divides_the_particles():
    one, many = (vg.plan(mass_kDa=480, symmetry=s).particles.value for s in ("C1", "O"))
    assert one == pytest.approx(24 * many)


def test_the_command(capsys):
    status, printed, _ = main(["plan", "--mass", "150", "--resolution", "3", "--particles", "50000", "--json"], capsys)
    made = json.loads(printed)
    assert status == 0
    assert made["particles"]["best"] < made["particles"]["value"] < made["particles"]["worst"]
    assert made["resolution_of_particles_A"]["50000"]["best"] < made["resolution_of_particles_A"]["50000"]["worst"]
    here = made["refinement_hours_here"]
    assert 0 < here["best"] < here["value"] < here["worst"]
    used = 0.5 * made["particles_per_micrograph"] * made["micrographs"]["value"]
    assert used == pytest.approx(made["particles"]["value"], rel=0.05)
    status, printed, _ = main(["plan", "--mass", "150"], capsys)
    assert (status, printed.startswith("3.5 A at a B-factor of 100 +- 40 A^2 takes")) == (0, True)
    status, _, said = main(["plan", "--mass", "-3"], capsys)
    assert status == 2
    assert "mass" in said


def test_a_plan_says_what_shows_one_particle():
    small, large = vg.plan(mass_kDa=50), vg.plan(mass_kDa=4000)
    assert small.contrast < large.contrast
    assert small.detection_dose_e_A2 > 3 * large.detection_dose_e_A2
    assert large.as_dict()["detection_dose_e_A2"] == pytest.approx(large.detection_dose_e_A2, rel=0.01)


def test_bad_numbers_are_refused():
    with pytest.raises(InputError, match="contrast: expected a positive number"):
        detection_dose_e_A2(10.0, 0.0)
    with pytest.raises(InputError, match=r"pixels of 1\.5 A end at 3 A"):
        vg.plan(mass_kDa=150, resolution_A=2.0, pixel_size_A=1.5)
    with pytest.raises(InputError, match="dose_e_A2"):
        Imaging(dose_e_A2=float("nan"))
