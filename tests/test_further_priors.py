"""Priors beside Wiener's: of each half map alone, a caller's function, a program by RELION's protocol."""

from __future__ import annotations

import re
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from half_map_pairs import BALL, BOX, PIXEL_A, RADIUS, error, given, noise, regularised, source_of, uneven, z_scores

import verglas as vg
from verglas import fourier, ops
from verglas.errors import InputError, SettingError
from verglas.reconstruction.accumulate import direct_grid
from verglas.reconstruction.direct import fft_weights
from verglas.refinement.settings import RefineSettings
from verglas.regularisation import (
    DenoisedBy,
    HalfMaps,
    MapSource,
    SideSplitter,
    TotalVariationPrior,
    WaveletShrinkage,
    Wiener,
    prior_of,
)
from verglas.regularisation.shrinkage import sure_threshold
from verglas.run.external_prior import ExternalReconstruct

# -- each half alone ---------------------------------------------------------------------------------------------------


def test_halves_of_sidesplitter_share_one_number_for_each_band():
    raw = noise(3)
    one, other = (SideSplitter().fit(given(halves)) for halves in (raw, np.stack([raw[0], noise(4)[0]])))
    assert np.shape(one.noise) == (len(one.bands),)
    # With these numbers the other half's phases do not matter.
    made = [learned(source_of(raw[0])) for learned in (one, replace(other, noise=one.noise))]
    np.testing.assert_array_equal(*made)


def test_sidesplitter_leaves_noise_uncorrelated_and_finds_the_ordered_side():
    found = np.array([z_scores(regularised(SideSplitter(), noise(seed))) for seed in range(3)])
    assert np.abs(found).max() < 3.5
    assert abs(found.mean()) < 0.5
    truth, raw = uneven(11)
    assert error(regularised(SideSplitter(), raw), truth) < 0.95 * error(regularised(Wiener(), raw), truth)


@pytest.mark.parametrize(
    "prior", [WaveletShrinkage(), pytest.param(TotalVariationPrior(), marks=pytest.mark.slow)], ids=lambda p: p.name
)
def test_sparse_priors_remove_noise_and_keep_blocks(prior):
    block = np.zeros((BOX,) * 3, np.float32)
    block[8:20, 10:22, 12:20] = 4.0
    raw = block + noise(5)
    made = regularised(prior, raw)
    limited = regularised(prior, np.stack([block, block]) + 1e-3 * noise(6))  # the block to the last shell
    assert error(made, limited[0]) < 0.6 * error(raw, limited[0])
    assert regularised(prior, noise(7)).std() < 0.4  # of noise with a standard deviation of 1


def test_sparse_priors_leave_noise_to_the_global_one():
    # Beyond their resolution, which noise does not have: the FSC of few coefficients spreads wider than that of many.
    found = [z_scores(regularised(WaveletShrinkage(), noise(seed))) for seed in range(50, 54)]
    assert np.abs(found).max() < 3
    facts = replace(given(noise(9)), fsc=np.zeros(RADIUS + 1))
    for prior in (WaveletShrinkage(), TotalVariationPrior()):
        made, plain = (one.fit(facts)(source_of(facts.raw[0])) for one in (prior, Wiener()))
        beyond = fourier.shells(made.shape) > 1
        difference = [(fourier.forward(one, 3))[beyond] for one in (made, plain)]
        np.testing.assert_allclose(*difference, atol=1e-3)


@pytest.mark.slow
def test_total_variation_takes_one_weight_for_both_halves():
    raw = uneven(4)[1]
    one, other = (regularised(TotalVariationPrior(), halves) for halves in (raw, raw[::-1].copy()))
    np.testing.assert_array_equal(one[0], other[1])


def test_sure_threshold_is_where_the_estimated_risk_is_least():
    c = np.random.default_rng(1).normal(size=300) + np.repeat([0.0, 5.0], 150)
    risk = [len(c) - 2 * np.sum(np.abs(c) <= t) + np.sum(np.minimum(np.abs(c), t) ** 2) for t in np.abs(c)]
    assert sure_threshold(c) == np.abs(c)[int(np.argmin(risk))]
    assert sure_threshold(c + 9 * np.sign(c)) == 0  # all of them stand out


# -- a caller's function -----------------------------------------------------------------------------------------------


def test_a_function_is_called_for_each_half_alone_and_not_believed_beyond_the_resolution():
    raw = uneven(6, 5.0)[1]
    told = []

    def double(half, curve):
        told.append((half.pixel_size_A, half.data.copy(), curve.copy()))
        return 2 * half.data

    facts = replace(given(raw), pixel_size_A=PIXEL_A)
    made = DenoisedBy(double, "double").fit(facts)(source_of(raw[0]))
    assert [t[0] for t in told] == [PIXEL_A]
    np.testing.assert_array_equal(told[0][1], raw[0])
    np.testing.assert_array_equal(told[0][2], facts.fsc)
    plain = Wiener().fit(facts)(source_of(raw[0]))
    spectra = [fourier.forward(v, 3) for v in (made, raw[0], plain)]
    shells = fourier.shells(raw[0].shape)
    last = int(np.flatnonzero(facts.fsc[1:] < 0.143)[0])
    inside, beyond = shells < last - 3, shells > last + 1
    np.testing.assert_allclose(spectra[0][inside], 2 * spectra[1][inside], rtol=1e-3, atol=1e-2)
    np.testing.assert_allclose(spectra[0][beyond], spectra[2][beyond], rtol=1e-3, atol=1e-2)


@pytest.mark.parametrize(
    ("gives", "says"),
    [
        (lambda half, fsc: half.data[1:], r"gave back a map of shape \(31, 32, 32\); expected \(32, 32, 32\)"),
        (lambda half, fsc: half.data * np.nan, "gave back a map with 32768 voxels that are not finite numbers"),
        (lambda half, fsc: "map.mrc", "gave back str; expected an array"),
        (lambda half, fsc: half.data * 1j, r"gave back ndarray; expected an array \(complex numbers\)"),
        (lambda half, fsc: _Tensor(), r"gave back _Tensor; expected an array \(call detach\(\) first\)"),
    ],
)
def test_what_is_no_map_is_refused_by_name(gives, says):
    raw = uneven(6)[1]
    with pytest.raises(InputError, match=f"the prior mine {says}"):
        DenoisedBy(gives, "mine").fit(given(raw))(source_of(raw[0]))


class _Tensor:
    """As PyTorch's, with its gradient."""

    def __array__(self, *_, **__):
        raise RuntimeError("call detach() first")


def test_a_function_that_works_in_place_leaves_the_half_map_as_it_was():
    raw = uneven(6)[1]
    before = raw.copy()

    def halve(half, fsc):
        half.data[:] *= 0.5
        return half.data

    DenoisedBy(halve, "halve").fit(given(raw))(source_of(raw[0]))
    np.testing.assert_array_equal(raw, before)


class _Network:
    def __call__(self, half, fsc):
        return half.data


def test_only_functions_and_priors_are_priors():
    assert prior_of(_Network()).name == f"{__name__}._Network"
    assert prior_of(Wiener()) == Wiener()
    assert prior_of(lambda half, fsc: half).name.endswith("<lambda>")
    with pytest.raises(InputError, match=r"expected a function of a half map and its FSC, .* got int"):
        prior_of(3)


# -- a program ---------------------------------------------------------------------------------------------------------

PROGRAM = """
import sys, numpy as np, mrcfile
words = [line.split() for line in open(sys.argv[1])]
general = {w[0][1:]: w[1] for w in words if len(w) == 2 and w[0].startswith("_rln")}
read = lambda name: mrcfile.open(general[name]).data.astype(np.float64)
weight = read("rlnExtReconsWeight")
data = read("rlnExtReconsDataReal") + 1j * read("rlnExtReconsDataImag")
box, padded = int(general["rlnOriginalImageSize"]), len(weight)
assert padded == round(box * float(general["rlnPaddingFactor"]))
volume = np.fft.irfftn(np.divide(data, weight, out=np.zeros_like(data), where=weight > 0), s=(padded,) * 3) * box**2
begin = padded // 2 - box // 2
volume = np.fft.fftshift(volume)[(slice(begin, begin + box),) * 3]
r = np.linalg.norm(np.indices(volume.shape) - box // 2, axis=0)
volume = 0.5 * volume / np.sinc(r / padded) ** 2
with mrcfile.new(general["rlnExtReconsResult"]) as out:
    out.set_data(volume.astype(np.float32))
"""
RESULT = """
import sys, numpy as np, mrcfile
words = [line.split() for line in open(sys.argv[1])]
path = next(w[1] for w in words if w and w[0] == "_rlnExtReconsResult")
"""


def program(tmp_path: Path, text: str) -> str:
    path = tmp_path / "program.py"
    path.write_text(text)
    return f'"{sys.executable}" "{path}"'


@pytest.fixture(scope="module")
def sums():
    """A half map that ends well before the last shell, and a source that has it with uneven weights."""
    coarse = vg.filters.apply(vg.Map(uneven(8)[1][0], PIXEL_A), vg.filters.low_pass(20.0)).data * BALL
    raw = np.stack([coarse, coarse])
    grid = direct_grid(BOX, RADIUS)
    weights = np.random.default_rng(2).uniform(1, 3, grid.shape)
    facts = HalfMaps(raw, np.full(RADIUS + 1, 0.9), RADIUS, 1.0, BALL, None, PIXEL_A, 3, 0)
    source = MapSource("half2", 1, raw[0], source_of(raw[0]).solve, lambda: fft_weights(weights, grid))
    return facts, source


def test_a_program_is_given_relions_files_and_its_map_is_taken(sums, tmp_path):
    facts, source = sums
    made = ExternalReconstruct(program(tmp_path, PROGRAM), tmp_path / "external").fit(facts)(source)
    spectra = [fourier.forward(v, 3) for v in (made, source.raw)]
    inside = fourier.shells(source.raw.shape) < RADIUS - 3
    # Data over weight is the map to the last shell, whatever the weights; the program halves it.
    difference = np.linalg.norm((spectra[0] - 0.5 * spectra[1])[inside])
    assert difference < 0.01 * np.linalg.norm(0.5 * spectra[1][inside])
    assert not list((tmp_path / "external").iterdir())  # what was read is removed


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("import sys; sys.exit('no such network')", r"ended with status 1: no such network"),
        ("", r"wrote no map to .*run_it003_half2_class001\.mrc, where rlnExtReconsResult asks for it"),
        (
            RESULT + "mrcfile.new(path).set_data(np.zeros((9, 32, 32), np.float32))",
            r"gave back a map of shape \(9, 32, 32\); expected \(32, 32, 32\)",
        ),
        (RESULT + "open(path, 'w').write('text')", "left a map that cannot be read"),
    ],
)
def test_a_program_that_fails_is_named_with_what_it_said(sums, tmp_path, text, says):
    facts, source = sums
    prior = ExternalReconstruct(program(tmp_path, text), tmp_path / "external")
    with pytest.raises(InputError, match=f"(?s)refine: the program {re.escape(sys.executable)} .*{says}"):
        prior.fit(facts)(source)
    (star,) = (tmp_path / "external").glob("*.star")  # for whoever looks into it
    tables = vg.io.read_star(star)
    assert tables["external_reconstruct_general"]["rlnTau2FudgeFactor"] == 1
    assert list(tables["external_reconstruct_tau2"]) == ["rlnSpectralIndex", "rlnReferenceTau2", "rlnGoldStandardFsc"]
    assert tables["external_reconstruct_tau2"]["rlnGoldStandardFsc"].tolist() == [0.9] * 15 + [0] * 2


def test_tau2_is_such_that_relion_adds_the_mean_weight_over_the_ssnr(sums, tmp_path):
    facts, source = sums
    with pytest.raises(InputError, match="wrote no map"):
        ExternalReconstruct(program(tmp_path, ""), tmp_path / "external").fit(replace(facts, T=2.0))(source)
    (star,) = (tmp_path / "external").glob("*.star")
    tables = vg.io.read_star(star)
    general, tau2 = (tables[f"external_reconstruct_{name}"] for name in ("general", "tau2"))
    padding = float(general["rlnPaddingFactor"])
    assert padding > 1
    # BackProjector::reconstruct adds 1 / (padding^3 T tau^2).
    added = 1 / (padding**3 * float(general["rlnTau2FudgeFactor"]) * tau2["rlnReferenceTau2"].to_numpy()[2:RADIUS])
    weight = source.weights()
    side = len(weight)
    shells = np.rint(fourier.radius((side,) * 3) * BOX / side).astype(int)
    mean = np.array([weight[shells == s].mean() for s in range(2, RADIUS)])
    np.testing.assert_allclose(added, mean / facts.ssnr[2:RADIUS] / 2.0, rtol=1e-4)


def test_a_program_that_asks_is_told_nothing_and_one_that_hangs_is_stopped(sums, tmp_path, monkeypatch):
    facts, source = sums
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    asks = ExternalReconstruct(program(tmp_path, "input('overwrite? ')"))
    with pytest.raises(InputError, match=r"ended with status 1: .*EOF"):
        asks.fit(facts)(source)
    assert list(tmp_path.glob("external_reconstruct_*/*.star"))  # without a folder of the run, too
    hangs = ExternalReconstruct(program(tmp_path, "import time; time.sleep(60)"), tmp_path / "external", longest_s=0.2)
    with pytest.raises(InputError, match=r"had not ended after 0\.2 s and was stopped"):
        hangs.fit(facts)(source)
    text = tmp_path / "no_program"
    text.write_text("neither a script's first line nor a binary")
    text.chmod(0o755)
    with pytest.raises(InputError, match=r"no_program .* cannot be run \(Exec format error\)"):
        ExternalReconstruct(f"'{text}'", tmp_path / "external").fit(facts)(source)


def test_a_program_that_is_not_there_is_told_before_anything_begins(tmp_path):
    with pytest.raises(InputError, match="no program 'sidesplit_it' is found"):
        ExternalReconstruct("sidesplit_it --fast", tmp_path)
    with pytest.raises(InputError, match="cannot be read as a command"):
        ExternalReconstruct("python 'unclosed", tmp_path)
    with pytest.raises(SettingError, match='a command goes with regularisation = "external", and that needs one'):
        RefineSettings(regularisation="external")
    with pytest.raises(SettingError, match="external_reconstruct"):
        RefineSettings(external_reconstruct="python")


def test_weights_lie_as_a_real_fft_does():
    grid = ops.Grid(8, max_radius=3, oversampling=2.0)
    weights = np.random.default_rng(0).uniform(size=grid.shape)
    made = fft_weights(weights, grid)
    z, y, x = -2, 3, 4
    assert made[z, y, x] == weights[grid.extent + z, grid.extent + y, grid.halo + x]


# -- through vg.refine -------------------------------------------------------------------------------------------------


def test_refine_takes_a_function_records_it_and_refuses_it_beside_another_prior(tmp_path, monkeypatch):
    model = vg.simulate.phantom(24, 5.0, 90.0)
    particles = vg.simulate.particles(model, 40, 24, 5.0, snr=1.0, seed=1, listener=None)
    truth = vg.simulate.density(model, 24, 5.0)

    def smooth(half, fsc):
        return half.data

    with pytest.raises(InputError, match="takes the place of regularisation"):
        vg.refine(particles, truth, prior=smooth, regularisation="local", listener=None)
    # What a refinement begins with, and no refinement.
    monkeypatch.setattr("verglas.run.refine._run", lambda setup, *_: setup)
    how = {"diameter_A": 100, "poses": "local", "listener": None}
    setup = vg.refine(particles, truth, prior=smooth, out=tmp_path / "run", **how)
    assert setup.problem.map_prior == DenoisedBy(smooth, setup.problem.map_prior.name)
    settings = vg.io.read_json(tmp_path / "run" / "run.json")["settings"]
    assert settings["prior"].endswith("smooth")
    with pytest.raises(InputError, match=r"prior: was .*smooth, now None"):
        vg.refine(particles, truth, out=tmp_path / "run", resume=True, **how)
    command = f'"{sys.executable}" -c pass'
    setup = vg.refine(
        particles, truth, regularisation="external", external_reconstruct=command, out=tmp_path / "other", **how
    )
    assert setup.problem.map_prior == ExternalReconstruct(command, tmp_path / "other" / "external")
