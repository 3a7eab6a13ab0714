"""Phase randomisation, masks from maps, Guinier fits and sharpening: formulas, planted values, honest resolution."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import verglas as vg
from verglas import assessment, filters, fourier, masks
from verglas.assessment import PostprocessSettings
from verglas.errors import InputError
from verglas.run.postprocess import read_mtf

BOX, APIX = 48, 2.0


@pytest.fixture(scope="module")
def truth():
    """A density with B = 120 A^2 beyond its atoms' own."""
    return vg.simulate.density(vg.simulate.phantom(BOX, APIX, 70.0, seed=3), BOX, APIX, b_factor_A2=120.0)


def halves(truth, noise, seed=0):
    rng = np.random.default_rng(seed)
    scale = noise * truth.data.std()
    return [truth.with_data(truth.data + scale * rng.normal(size=truth.data.shape)) for _ in range(2)]


@pytest.fixture(scope="module")
def done(truth):
    return vg.postprocess(*halves(truth, 2.0))


# --- phase randomisation -------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=15)
@given(n=st.integers(6, 20), seed=st.integers(0, 999), first=st.integers(1, 5))
def test_random_phases_keep_amplitudes_and_what_lies_before(n, seed, first):
    x = vg.Map(np.random.default_rng(seed).normal(size=(n, n, n)), 1.0)
    made = assessment.randomise_phases(x, first, seed)
    old, new = (fourier.forward(m.data.astype(np.float64), 3) for m in (x, made))
    np.testing.assert_allclose(np.abs(new), np.abs(old), atol=2e-5 * np.abs(old).max())
    before = fourier.shells((n, n, n)) < first
    np.testing.assert_allclose(new[before], old[before], atol=2e-5 * np.abs(old).max())
    beyond = vg.fsc(x, made)
    assert np.all(np.abs(beyond.curve[first + 2 :]) < 6 / np.sqrt(beyond.counts[first + 2 :]))
    assert np.array_equal(made.data, assessment.randomise_phases(x, first, seed, threads=1).data)
    assert not np.array_equal(made.data, assessment.randomise_phases(x, first, seed + 1).data)


def test_formula_and_switch_over(done):
    first = round(BOX * APIX / done.randomised_from_A)
    assert first == np.flatnonzero(done.unmasked.curve[1:] < 0.8)[0] + 1
    t, n, c = done.masked.curve, done.phase_randomised.curve, done.corrected.curve
    assert np.array_equal(c[: first + 2], t[: first + 2])
    np.testing.assert_allclose(c[first + 2 :], (t - n)[first + 2 :] / (1 - n)[first + 2 :], atol=1e-12)


def test_noise_has_no_resolution_under_any_mask():
    rng = np.random.default_rng(0)
    mask = vg.Map(masks.soft_sphere(32, 6, 1), 2.0)
    curves = []
    for _ in range(20):
        made = vg.postprocess(*(vg.Map(rng.normal(size=(32, 32, 32)), 2.0) for _ in range(2)), mask)
        assert made.resolution_A > 64 / 5  # the first shells hold fewer than ten independent voxels under this mask
        assert made.b_factor_A2 == 0
        curves.append(made.corrected.curve[6:])
    assert abs(np.mean(curves)) < 0.02
    assert "no B-factor was fitted" in made.guinier.reason


def test_what_is_claimed_where_chance_leaves_much_open(truth, done):
    def coarse_A(made):
        """Coarse end of the interval that misses the truth once in a thousand on that side."""
        return made.trusted.resolution_interval_A(0.143, 0.998)[1]

    assert done.claimed_resolution_A == max(done.resolution_A, coarse_A(done) / 1.05) < 1.02 * done.resolution_A
    open_ = vg.postprocess(*halves(truth, 16.0))
    assert open_.claimed_resolution_A == coarse_A(open_) / 1.05 > open_.resolution_interval_A[1] / 1.05
    assert open_.as_dict()["claimed_resolution_A"] == open_.claimed_resolution_A
    nothing = vg.postprocess(*(truth.with_data(h.data - truth.data) for h in halves(truth, 2.0)))
    assert nothing.claimed_resolution_A == np.inf
    assert nothing.as_dict()["claimed_resolution_A"] is None


def test_a_tight_mask_inflates_and_the_correction_takes_it_back():
    """Signal and noise that fill the box evenly: the unmasked curve is what any mask should show."""
    n = 40
    mask = vg.Map(masks.soft_sphere(n, 10, 0), 1.0)
    found = []
    for seed in range(24):
        rng = np.random.default_rng(seed)
        signal = filters.apply(vg.Map(rng.normal(size=(n, n, n)), 1.0), filters.b_factor(300.0)).data
        pair = [vg.Map(signal + 0.02 * rng.normal(size=signal.shape), 1.0) for _ in range(2)]
        made = vg.postprocess(*pair, mask, settings=PostprocessSettings(seed=seed))
        found.append([c.curve for c in (made.unmasked, made.masked, made.corrected)])
    first = round(n / made.randomised_from_A)
    unmasked, masked, corrected = np.mean(found, axis=0)[:, first + 4 :]
    assert masked.mean() - unmasked.mean() > 0.3
    assert corrected.mean() == pytest.approx(unmasked.mean(), abs=0.02)
    # One shell's mean over 24 runs has a standard deviation of 0.02 (about 200 independent voxels).
    assert np.abs(corrected - unmasked).max() < 0.08
    assert any("tight" in line or "phase randomisation" in line for line in made.warnings)


# --- solvent mask --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("box", "apix", "diameter", "symmetry", "noise"),
    [(48, 2.5, 85, "C1", 0.0), (48, 2.5, 85, "C1", 1.0), (48, 2.5, 95, "D2", 0.5), (48, 4.0, 140, "O", 1.0)],
)
def test_solvent_mask_encloses_the_density(box, apix, diameter, symmetry, noise):
    density = vg.simulate.density(vg.simulate.phantom(box, apix, diameter, symmetry, seed=1), box, apix, b_factor_A2=60)
    spread = noise * density.data[density.data > 0.1 * density.data.max()].std()
    noisy = density.data + spread * np.random.default_rng(0).normal(size=density.data.shape)
    mask = assessment.solvent_mask(density.with_data(noisy)).data
    signal = density.data * (density.data > 0.02 * density.data.max())  # band limitation rings everywhere
    assert np.sum(mask * signal) >= 0.99 * np.sum(signal)
    assert 1.5 * np.mean(signal > 0) < mask.mean() < 0.45
    assert (mask.min(), mask.max()) == (0, 1)
    steps = [np.abs(np.diff(mask, axis=axis)).max() for axis in range(3)]
    assert max(steps) < 0.5  # soft: nowhere from 0 to 1 between neighbours
    for axis in range(3):
        assert np.all(np.take(mask, [0, -1], axis=axis) == 0)  # the map is periodic


def test_solvent_mask_leaves_specks_out_and_keeps_detached_parts():
    data = 0.05 * np.random.default_rng(0).normal(size=(48, 48, 48)).astype(np.float32)
    data += masks.soft_sphere(48, 7, 2, (24, 24, 15)) + masks.soft_sphere(48, 5, 2, (24, 24, 33))
    data += masks.soft_sphere(48, 1, 2, (8, 24, 24))
    mask = assessment.solvent_mask(vg.Map(data, 4.0), low_pass_A=12.0).data
    assert mask[24, 24, 15] == mask[24, 24, 33] == 1
    assert mask[8, 24, 24] == 0
    inside = assessment.solvent_mask(vg.Map(data, 4.0), low_pass_A=12.0, diameter_A=56.0).data
    assert inside[masks.distance_from((48, 48, 48)) > 7 + 2 + 4].max() == 0


def test_solvent_mask_does_not_depend_on_scale_or_offset(truth):
    noisy = halves(truth, 1.0)[0]
    mask = assessment.solvent_mask(noisy).data
    other = assessment.solvent_mask(noisy.with_data(50 * noisy.data + 3)).data
    assert np.mean(np.abs(mask - other)) < 1e-4


def test_solvent_mask_of_nothing_is_refused():
    with pytest.raises(InputError, match="all voxels of the map are equal"):
        assessment.solvent_mask(vg.Map(np.ones((16, 16, 16)), 2.0))
    aside = np.zeros((32, 32, 32))
    aside[16, 16, 28] = 1.0
    with pytest.raises(InputError, match=r"solvent_mask: nothing within 16 A of the centre stands out .* give a mask"):
        assessment.solvent_mask(vg.Map(aside, 4.0), low_pass_A=12.0, diameter_A=32.0)


# --- Guinier and sharpening ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("box", "apix", "b"), [(64, 1.0, 60.0), (64, 1.5, 150.0), (96, 1.2, 100.0)])
def test_planted_b_factor_is_recovered(box, apix, b):
    rng = np.random.default_rng(0)
    flat = vg.Map(rng.normal(size=(box, box, box)), apix)  # white: no B-factor of its own
    found = assessment.guinier(filters.apply(flat, filters.b_factor(b)))
    assert found.b_factor_A2 == pytest.approx(b, rel=0.02)
    inside = np.isfinite(found.fit)
    s2 = found.s2_per_A2[inside]
    assert s2.min() >= 0.01 - 1e-12
    np.testing.assert_allclose(np.diff(found.fit[inside]) / np.diff(s2), -found.b_factor_A2 / 4)
    assert 0 < found.b_error_A2 < 0.02 * b


def test_standard_error_is_the_scatter_of_repeated_fits():
    rng = np.random.default_rng(0)
    found = [
        assessment.guinier(filters.apply(vg.Map(rng.normal(size=(32, 32, 32)), 2.0), filters.b_factor(100.0)))
        for _ in range(60)
    ]
    # The scatter of shells is not even: few voxels at the coarse end. A factor of 1.5 covers that and 60 repeats.
    spread = np.std([f.b_factor_A2 for f in found])
    assert 1 / 1.5 < np.mean([f.b_error_A2 for f in found]) / spread < 1.5


def test_b_factor_of_a_model_in_noise():
    """Two phantoms that differ in B alone: the difference of the fits is the planted B, noise notwithstanding."""
    model, found = vg.simulate.phantom(72, 1.5, 75.0, seed=2), []
    for b in (40.0, 90.0):
        density = vg.simulate.density(model, 72, 1.5, b_factor_A2=b)
        made = vg.postprocess(*halves(density, 0.5), settings=PostprocessSettings(fit_to_A=4.5))
        assert made.resolution_A < 4.5
        assert made.guinier.band_A == (10.0, 4.5)
        found.append(made.guinier.b_factor_A2)
    assert found[1] - found[0] == pytest.approx(50.0, abs=5.0)


def test_sharpened_map_fits_to_zero(truth):
    pair = halves(truth, 0.05)
    made = vg.postprocess(*pair, settings=PostprocessSettings(weight=False))
    assert made.b_factor_A2 > 50
    again = assessment.guinier(
        made.sharpened.with_data(made.sharpened.data * made.mask.data), band_A=made.guinier.band_A
    )
    assert abs(again.b_factor_A2) < 0.05 * made.b_factor_A2
    b = assessment.guinier(made.map, band_A=(10, 4.2)).b_factor_A2
    undone = filters.apply(made.map, filters.b_factor(-b))
    assert assessment.guinier(undone, band_A=(10, 4.2)).b_factor_A2 == pytest.approx(0, abs=0.01 * b)


def test_spectrum_of_a_reference(truth):
    rng = np.random.default_rng(0)
    blurred = filters.apply(truth, filters.b_factor(80.0))
    sharp = assessment.match_spectrum(blurred, truth)
    np.testing.assert_allclose(assessment.amplitude_spectrum(sharp), assessment.amplitude_spectrum(truth), rtol=0.03)
    other = truth.with_data(rng.normal(size=truth.data.shape))
    # Phases stay; the first shells bend the gain within themselves.
    np.testing.assert_allclose(vg.fsc(assessment.match_spectrum(other, truth), other).curve[4:], 1, atol=0.02)


def test_weighting_is_c_ref(truth):
    pair = halves(truth, 2.0)
    given = {"b_factor_A2": 0.0, "mask": vg.Map(np.ones_like(truth.data), APIX)}
    with_weight, without = (
        vg.postprocess(*pair, settings=PostprocessSettings(weight=w, low_pass_A=4.0), **given) for w in (True, False)
    )
    ratio = assessment.amplitude_spectrum(with_weight.sharpened) / assessment.amplitude_spectrum(without.sharpened)
    curve = np.clip(with_weight.corrected.curve, 0, 1)
    # The gain is linear between shells, so a shell's own value is blurred by its neighbours where the curve bends.
    np.testing.assert_allclose(ratio, np.sqrt(2 * curve / (1 + curve)), atol=0.03)


@pytest.mark.parametrize("sigma_A", [0.5, 1.2])
def test_jittered_atoms_fall_as_their_b_factor(sigma_A):
    rng = np.random.default_rng(0)
    s = np.linspace(0.05, 0.35, 7)
    jitter = sigma_A * rng.normal(size=400_000)  # along the direction of s; isotropic, so one axis will do
    mean = np.mean(np.exp(-2j * np.pi * s[:, None] * jitter), axis=1).real
    b = assessment.b_factor_of_displacement(sigma_A)
    np.testing.assert_allclose(mean, np.exp(-2 * (np.pi * sigma_A * s) ** 2), atol=0.005)
    np.testing.assert_allclose(mean, filters.b_factor(b)(s), atol=0.005)
    assert assessment.displacement_of_b_factor(b) == pytest.approx(sigma_A)


def test_mtf_files_of_detectors_are_taken(data_dir):
    for path in sorted((data_dir / "mtf").glob("*.star")):
        gain = read_mtf(path, 1.1)(np.array([0.0, 0.4]))
        assert 0.9 < gain[0] < 1.1
        assert 0.03 < gain[1] < 0.6, path.name


def test_dividing_the_mtf_restores_a_flat_spectrum():
    rng = np.random.default_rng(0)
    frequency = np.linspace(0, 0.5, 26)
    mtf = np.column_stack([frequency, 1 - 1.2 * frequency])
    once = rng.normal(size=(48, 48, 48))
    flat = [vg.Map(once + 0.01 * noise, 1.3) for noise in rng.normal(size=(2, 48, 48, 48))]
    damped = [filters.apply(m, assessment.mtf_gain(mtf, 1.3)) for m in flat]
    mask = vg.Map(np.ones((48, 48, 48)), 1.3)
    made = vg.postprocess(*damped, mask, mtf=mtf, b_factor_A2=0.0, settings=PostprocessSettings(low_pass_A=1.5))
    mean = flat[0].with_data((flat[0].data + flat[1].data) / 2)
    got, want = (assessment.amplitude_spectrum(m) for m in (made.sharpened, mean))
    np.testing.assert_allclose(got, want, rtol=1e-4)
    assert assessment.amplitude_spectrum(damped[0])[-1] < 0.45 * want[-1]
    assert abs(made.guinier.b_factor_A2) < 2


# --- the whole -----------------------------------------------------------------------------------------------------


def test_resolution_is_that_of_the_truth(truth, done):
    """FSC between halves of 0.143 promises 0.5 with the truth under the same mask, within the shells' scatter."""
    with_truth = vg.fsc(done.map, truth, done.mask)
    assert done.resolution_A == pytest.approx(with_truth.resolution_A(0.5), rel=0.12)
    assert done.corrected.resolution_A() < done.unmasked.resolution_A()
    table = done.table()
    assert set(table) == {"0.5", "1/3", "0.143", "half-bit", "5sigma", "3sigma", "2sigma"}
    assert table["0.143"] == {
        "unmasked": done.unmasked.resolution_A(),
        "masked": done.masked.resolution_A(),
        "corrected": done.resolution_A,
    }
    low_pass = done.low_pass_A
    assert low_pass == done.resolution_A
    beyond = done.corrected.frequency_per_A > 1 / low_pass + 3 / (BOX * APIX)
    spectrum = assessment.amplitude_spectrum(done.sharpened)
    assert spectrum[beyond].max() < 1e-4 * spectrum.max()


def test_sharpened_map_is_nearer_to_the_sharp_truth(truth, done):
    sharp = filters.apply(
        truth, filters.product(filters.b_factor(-done.b_factor_A2), filters.low_pass(done.low_pass_A))
    )
    inside = done.mask.data > 0.5
    before, after = (np.corrcoef(m.data[inside], sharp.data[inside])[0, 1] for m in (done.map, done.sharpened))
    assert done.b_factor_A2 > 0
    assert after > before
    assert np.array_equal(done.map.data, np.float32(0.5) * (halves(truth, 2.0)[0].data + halves(truth, 2.0)[1].data))


def test_worse_than_10_A_is_not_sharpened_and_says_why(truth):
    made = vg.postprocess(*halves(filters.apply(truth, filters.b_factor(600.0)), 4.0))
    assert made.resolution_A > 10
    assert made.guinier.b_factor_A2 is None
    assert made.b_factor_A2 == 0
    assert "no B-factor was fitted" in made.guinier.reason
    assert made.guinier.reason in made.warnings
    assert np.isnan(made.guinier.fit).all()


def test_half_maps_cut_at_a_shell_have_no_resolution_beyond_it(truth):
    """The mask spreads the last shells' signal past the cut, where the corrected curve would stay above 0.143."""
    cut = 7
    made = []
    for half in halves(truth, 0.5):
        spectrum = fourier.forward(half.data, 3)
        spectrum[fourier.shells(half.data.shape) > cut] = 0
        made.append(half.with_data(fourier.inverse(spectrum, half.data.shape)))
    done = vg.postprocess(*made)
    limit_A = truth.box * truth.pixel_size_A / cut
    assert done.masked.resolution_A() < 0.95 * limit_A
    assert done.resolution_A == pytest.approx(limit_A)
    assert not done.corrected.curve[cut + 1 :].any()


def test_given_b_factor_and_determinism(truth):
    pair = halves(truth, 2.0)
    one = vg.postprocess(*pair, b_factor_A2=70.0, threads=1)
    two = vg.postprocess(*pair, b_factor_A2=70.0, threads=2)
    assert one.b_factor_A2 == 70
    assert np.array_equal(one.sharpened.data, two.sharpened.data)
    assert one.as_dict() == two.as_dict()


def test_equal_halves_are_said_to_be_limited_by_sampling(truth):
    made = vg.postprocess(truth, filters.apply(truth, filters.b_factor(20.0)))
    assert made.randomised_from_A is None
    assert made.phase_randomised is None
    assert list(made.curves) == ["unmasked", "masked", "corrected"]
    assert np.array_equal(made.corrected.curve, made.masked.curve)
    assert any("not corrected" in line for line in made.warnings)
    assert any("pixel size limits" in line for line in made.warnings)
    assert made.as_dict()["limited_by_sampling"]


ones = vg.Map(np.ones((8, 8, 8)), 1.0)


def other(m):
    return halves(m, 1.0)[0]


@pytest.mark.parametrize("change", [lambda x: x, lambda x: 3 * x + 1, lambda x: x.astype(np.float16)])
def test_half_maps_that_are_one_map_are_refused(truth, change):
    """../shared/cases/halves-not-independent: "4.00 A or better" of a map with itself."""
    one = other(truth)
    with pytest.raises(InputError, match=r"the half maps are (identical|proportional)"):
        vg.postprocess(one, one.with_data(np.asarray(change(one.data), np.float32)))


def test_no_resolution_beyond_what_phase_randomisation_can_vouch_for(truth):
    """A hard mask far inside the molecule: random phases still correlate in it where the corrected curve ends."""
    pair = halves(truth, 3.0)
    wide = vg.postprocess(*pair)
    tight = vg.postprocess(*pair, truth.with_data(masks.soft_sphere(truth.box, 8.0, 0.0)))
    assert wide.vouched
    assert not tight.vouched
    assert tight.corrected.resolution_A() < tight.unmasked.resolution_A()
    assert tight.resolution_A >= tight.unmasked.resolution_A()
    assert tight.table()["0.143"]["corrected"] >= tight.unmasked.resolution_A()
    assert tight.low_pass_A == tight.trusted.resolution_A()
    assert any("cannot vouch" in line for line in tight.warnings)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda m: vg.postprocess(m, ones), "shapes"),
        (lambda m: vg.postprocess(m, other(m), ones), r"mask has shape \(8, 8, 8\)"),
        (
            lambda m: vg.postprocess(m, other(m), m.with_data(m.data * 0 + 2)),
            "mask has values from 2 to 2",
        ),
        (lambda m: vg.postprocess(m, m, b_factor_A2=-80), "to sharpen by -80 A\\^2 give 80"),
        (lambda m: vg.postprocess(m, other(m), mtf=[[0.0, 1.0], [0.5, 0.0]]), "MTF"),
        (lambda m: vg.postprocess(m, other(m), mtf=[1.0, 2.0]), "rows of frequency"),
        (lambda m: vg.postprocess(m, other(m), mtf=[[0.0, 1.0], [0.2, 0.7]]), "frequencies end at 0.2; expected 0.5"),
        (lambda m: vg.postprocess(m, other(m), mtf=[[0.0, 1.0], [5.0, 0.2]]), "pixels of another sampling"),
        (lambda m: vg.postprocess(m, other(m), mtf=[[0.3, 0.7], [0.5, 0.2]]), "increase from 0, where the value is 1"),
        (lambda m: vg.postprocess(m, other(m), mtf=[[0.5, 0.2], [0.0, 1.0]]), "increase from 0, where the value is 1"),
        (lambda m: PostprocessSettings(fit_from_A=-1), "fit_from_A"),
        (lambda m: PostprocessSettings(randomise_below=1.0), "randomise_below"),
        (lambda m: assessment.match_spectrum(m, ones), "resample one"),
        (lambda m: assessment.guinier(m, [1.0, 2.0]), "one per shell"),
    ],
)
def test_bad_input_is_named(truth, call, words):
    with pytest.raises(InputError, match=words):
        call(truth)
