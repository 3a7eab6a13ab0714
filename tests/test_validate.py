"""Questions to a finished run: each planted fault is named, clean halves pass."""

from __future__ import annotations

import json

import numpy as np
import pytest
from command_line import main

import verglas as vg
from verglas import filters, fourier
from verglas.assessment.solvent_noise import solvent_noise
from verglas.assessment.validation import (
    QUESTIONS,
    judge_independence,
    judge_mask,
    judge_mask_edge,
    judge_shared_noise,
    judge_shared_particles,
    judge_signal,
)
from verglas.image.near_copies import near_copies
from verglas.run.repeat_refinement import judge_repeat_refinement

BOX, PIXEL_A = 48, 2.5
SEEDS = [0, 1, *(pytest.param(seed, marks=pytest.mark.slow) for seed in (2, 3))]


@pytest.fixture(scope="module")
def truth() -> vg.Map:
    return vg.simulate.density(vg.simulate.phantom(BOX, PIXEL_A, 80.0, seed=1), BOX, PIXEL_A, b_factor_A2=400.0)


def halves(truth: vg.Map, seed: int, shared: float = 0.0, signal: float = 1.0) -> list[vg.Map]:
    """Half maps whose noise is common to this share of its power."""
    one, two, both = np.random.default_rng(seed).normal(size=(3, BOX, BOX, BOX)) * 2 * truth.data.std()
    own = np.sqrt(1 - shared)
    return [truth.with_data(signal * truth.data + own * n + np.sqrt(shared) * both) for n in (one, two)]


@pytest.mark.parametrize("seed", SEEDS)
def test_clean_halves_pass(truth, seed):
    first, second = halves(truth, seed)
    findings = [judge_independence(first, second), judge_shared_noise(first, second), judge_signal(first, second)]
    assert [f.state for f in findings] == ["go on"] * 3, findings


@pytest.mark.parametrize("seed", SEEDS)
def test_noise_both_halves_share_is_named(truth, seed):
    found = judge_shared_noise(*halves(truth, seed, shared=0.1))
    assert (found.code, found.state) == ("shared-noise", "stop")
    assert found.numbers["mean_fsc"] == pytest.approx(0.1, abs=0.03)


@pytest.mark.parametrize("shared", [0.55, 0.95])
def test_noise_that_is_mostly_shared_is_named_by_the_solvent(truth, shared):
    """Its FSC looks like that of a map resolved to its sampling."""
    found = judge_shared_noise(*halves(truth, 0, shared=shared))
    assert found.state == "stop"
    assert "Outside the molecule" in found.sentence
    assert found.numbers["solvent_share"] == pytest.approx(shared, abs=0.05)


@pytest.mark.parametrize("cut", ["soft", "sharp"])
def test_low_passed_halves_have_no_solvent_to_ask(truth, cut):
    """Within a band that a filter has narrowed signal rings far into the solvent; rounding is all that lies beyond."""
    for part in (0.45, 0.55, 0.75, 0.9):  # of Nyquist
        inside = fourier.radius((truth.box,) * 3) <= 0.5 * part * truth.box
        soft = filters.low_pass(2 * truth.pixel_size_A / part)
        pair = [
            filters.apply(half, soft)
            if cut == "soft"
            else half.with_data(fourier.inverse(fourier.forward(half.data, 3) * inside, half.data.shape))
            for half in halves(truth, 3, signal=4.0)
        ]
        found = solvent_noise(*pair)
        assert found is None or (part > 0.8 and found.share < found.limit), (part, found)


@pytest.mark.parametrize("part", [0.45, 0.6])
def test_low_passed_halves_have_no_tail_to_judge(truth, part):
    """Beyond a sharp end only what the sphere spreads of the signal is left, which agrees."""
    inside = fourier.radius((truth.box,) * 3) <= 0.5 * part * truth.box
    pair = halves(truth, 3, signal=4.0)
    cut = [h.with_data(fourier.inverse(fourier.forward(h.data, 3) * inside, h.data.shape)) for h in pair]
    found = judge_shared_noise(*cut)
    assert found.state == "go on"
    assert "no noise to compare" in found.sentence
    assert "mean_fsc" in judge_shared_noise(*pair).numbers


def test_much_fine_signal_leaves_the_solvent_unasked():
    """What structure may carry out hides noise that is shared: it must not be said that there is none."""
    sharp = vg.simulate.density(vg.simulate.phantom(BOX, PIXEL_A, 70.0, seed=2), BOX, PIXEL_A, b_factor_A2=40.0)
    shared = sharp.data + np.random.default_rng(5).normal(size=(BOX,) * 3) * 0.05 * sharp.data.std()
    found = judge_shared_noise(sharp.with_data(shared), sharp.with_data(shared))
    assert "solvent_share" not in found.numbers
    assert "share no noise" not in found.sentence


def test_a_map_resolved_to_its_sampling_is_not_called_shared(truth):
    sharp = vg.simulate.density(vg.simulate.phantom(BOX, PIXEL_A, 70.0, seed=2), BOX, PIXEL_A, b_factor_A2=40.0)
    noise = np.random.default_rng(5).normal(size=(2, BOX, BOX, BOX)) * 0.3 * sharp.data.std()
    found = judge_shared_noise(*(sharp.with_data(sharp.data + n) for n in noise))
    assert found.numbers["mean_fsc"] > 0.5
    assert found.state == "go on"
    assert "share no noise" in found.sentence
    # Where the solvent was flattened nothing tells them apart, which is said.
    ball = vg.masks.soft_sphere(BOX, 15.0, 3.0)
    flat = judge_shared_noise(*(sharp.with_data((sharp.data + n) * ball) for n in noise))
    assert "cannot be told from signal" in flat.sentence
    assert "solvent_share" not in flat.numbers


@pytest.mark.parametrize("seed", SEEDS)
def test_noise_alone_is_named(truth, seed):
    found = judge_signal(*halves(truth, seed, signal=0.0))
    assert (found.code, found.state) == ("signal-in-halves", "stop")


def test_one_map_twice_is_named(truth):
    first, _ = halves(truth, 0)
    assert judge_independence(first, first).numbers["relation"] == "identical"
    assert judge_independence(first, first.with_data(2 * first.data + 1)).state == "stop"


def test_a_constant_half_and_a_tiny_box_get_an_answer():
    tiny = [vg.Map(np.random.default_rng(seed).normal(size=(8, 8, 8)), PIXEL_A) for seed in (0, 1)]
    assert judge_independence(tiny[0], tiny[1].with_data(np.zeros((8, 8, 8)))).numbers == {"relation": "constant"}
    assert "no noise to compare" in judge_shared_noise(*tiny).sentence


def test_images_in_both_half_sets_are_named():
    found = judge_shared_particles(["1@a", "2@a", "1@a", "2@a", "3@a"], [1, 1, 2, 2, 2])
    assert (found.state, found.numbers["in_both"]) == ("stop", 2)
    assert judge_shared_particles(["1@a", "1@a"], [1, 1]).state == "warn"
    assert judge_shared_particles(["1@a", "2@a"], [1, 2]).state == "go on"


def test_a_tight_mask_is_named(truth):
    first, second = halves(truth, 0)
    levels = {}
    for name, level, edge in (("hard", 0.97, 0.0), ("soft", 0.85, 15.0)):
        binary = truth.data > np.quantile(truth.data, level)
        mask = truth.with_data(vg.masks.soft_edge(binary, edge / PIXEL_A))
        done = vg.postprocess(first, second, mask, listener=None)
        assert done.phase_randomised is not None
        levels[name] = judge_mask(
            done.corrected.frequency_per_A,
            done.phase_randomised.curve,
            done.masked.resolution_A(),
            done.randomised_from_A,
        )
    assert levels["hard"].numbers["fsc_of_random_phases"] > levels["soft"].numbers["fsc_of_random_phases"]
    assert (levels["hard"].state, levels["soft"].state) == ("warn", "go on"), levels


def test_every_question_says_its_threshold_and_false_alarms():
    assert all(q.text.endswith("?") and q.threshold and q.false_alarms for q in QUESTIONS)


def test_command_goes_on_and_stops(truth, tmp_path, capsys):
    first, second = halves(truth, 0)
    vg.write_map(tmp_path / "half1.mrc", first)
    vg.write_map(tmp_path / "half2.mrc", second)
    status, printed, _ = main(["validate", str(tmp_path), "--json"], capsys)
    codes = {f["code"]: f["state"] for f in json.loads(printed)["findings"]}
    assert codes["signal-in-halves"] == "go on"
    assert "directions" in codes or "restricted-views" in codes
    assert set(json.loads(printed)["not_asked"]) == {
        "better-than-noise",
        "half-sets",
        "homogeneity",
        "mask",
        "mask-edge",
        "repeat",
        "shared-particles",
    }
    assert status == 0
    assert "Do the half maps share noise?" in (tmp_path / "validate.html").read_text()
    vg.write_map(tmp_path / "half2.mrc", first)
    status, printed, _ = main(["validate", str(tmp_path)], capsys)
    assert status == 1
    assert "one map twice" in printed
    assert "signal-in-halves was not asked: the half maps are not two" in printed
    assert "not asked" in (tmp_path / "validate.html").read_text()
    assert json.loads((tmp_path / "validate.json").read_text())["state"] == "stop"


def test_a_folder_without_half_maps_is_refused(tmp_path, capsys):
    status, _, said = main(["validate", str(tmp_path)], capsys)
    assert status == 1
    assert "no half1.mrc and half2.mrc" in said


def symmetric_noise(seed: int) -> list[vg.Map]:
    """Noise under the 24 turns of a cube, which an odd box holds exactly."""
    side = 49
    at = np.stack(np.meshgrid(*[np.arange(side) - side // 2] * 3, indexing="ij"), axis=-1)
    made = []
    for noise in np.random.default_rng(seed).normal(size=(2, side, side, side)):
        turned = [at @ np.rint(m).astype(int).T + side // 2 for m in vg.symmetry_matrices("O")]
        made.append(vg.Map(sum(noise[t[..., 0], t[..., 1], t[..., 2]] for t in turned), PIXEL_A))
    return made


def test_symmetric_noise_is_named_as_any_noise():
    """Of symmetric maps a voxel in 24 is independent: chance reaches further than without symmetry."""
    for seed in (0, 8):  # of which chance makes signal, and of 0 shared noise, where all voxels are counted
        pair = symmetric_noise(seed)
        assert judge_signal(*pair, symmetry="O").state == "stop"
        assert judge_shared_noise(*pair, symmetry="O").state == "go on"
        assert judge_signal(*pair).state == "go on"


def test_every_class_is_asked_under_the_runs_symmetry(truth, tmp_path, capsys, monkeypatch):
    asked = []
    monkeypatch.setattr(
        "verglas.run.validate.judge_signal",
        lambda *maps, symmetry, threads: asked.append(symmetry) or judge_signal(*maps, symmetry=symmetry),
    )
    first, second = halves(truth, 0)
    (tmp_path / "run.json").write_text('{"symmetry": "C2"}')
    for number, pair in ((1, (first, second)), (2, (first, first)), (10, halves(truth, 1, signal=0.0))):
        for half, volume in enumerate(pair, 1):
            vg.write_map(tmp_path / f"half{half}_class{number}.mrc", volume)
    status, printed, _ = main(["validate", str(tmp_path), "--json"], capsys)
    stops = [f["sentence"] for f in json.loads(printed)["findings"] if f["state"] == "stop"]
    assert status == 1
    assert [s.split(":")[0] for s in stops] == ["Class 2", "Class 10"]
    assert asked == ["C2", "C2"]


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda folder, half: vg.write_map(folder / "mask.mrc", half.with_data(200 * (half.data > 0))), "0 to 200"),
        (lambda folder, half: vg.write_map(folder / "half2.mrc", vg.Map(half.data[:32], PIXEL_A)), "expected a cube"),
        (lambda folder, half: (folder / "half2.mrc").unlink(), "half2.mrc: no such file"),
    ],
)
def test_files_that_cannot_be_judged_are_named(truth, tmp_path, capsys, spoil, said):
    for number, half in enumerate(halves(truth, 0), 1):
        vg.write_map(tmp_path / f"half{number}.mrc", half)
    spoil(tmp_path, truth)
    status, _, message = main(["validate", str(tmp_path)], capsys)
    assert status == 1
    assert said in message


def run_folder(truth: vg.Map, folder, **columns) -> vg.Particles:
    """Half maps, and eight particles of which the last has the pixels of the first."""
    for number, half in enumerate(halves(truth, 0), 1):
        vg.write_map(folder / f"half{number}.mrc", half)
    images = np.random.default_rng(0).normal(size=(8, 16, 16)).astype(np.float32)
    images[7] = images[0]
    particles = vg.Particles.from_images(images, PIXEL_A).with_columns(**columns)
    vg.write_particles(folder / "particles.star", particles, stack=folder / "particles.mrcs")
    return particles


def test_a_mask_that_reaches_less_than_one_has_an_edge():
    """It was said to hold the whole box."""
    ball = vg.masks.soft_sphere(32, 9.0, 5.0)
    whole, low = (judge_mask_edge(vg.Map((share * ball).astype(np.float32), 2.0)) for share in (1.0, 0.4))
    assert low.numbers == whole.numbers
    assert judge_mask_edge(vg.Map(np.float32(0.4) * np.rint(ball), 2.0)).state == "warn"


def test_copies_under_other_names_are_named(truth, tmp_path):
    run_folder(truth, tmp_path, rlnRandomSubset=[1, 2] * 4)
    found = {f.code: f for f in vg.validate(tmp_path).findings}
    assert found["half-sets"].state == "go on"
    assert (found["shared-particles"].state, found["shared-particles"].numbers["in_both"]) == ("stop", 1)
    assert found["shared-particles"].numbers["pixels_compared"]
    (tmp_path / "particles.mrcs").unlink()
    found = {f.code: f for f in vg.validate(tmp_path).findings}
    assert (found["shared-particles"].state, found["shared-particles"].numbers["pixels_compared"]) == ("go on", False)


def test_copies_whose_pixels_differ_a_little_are_named(truth, tmp_path):
    """Other grey values and noise of a tenth: extracted again, or scaled by another program."""
    particles = run_folder(truth, tmp_path, rlnRandomSubset=[1] * 4 + [2] * 4)
    images = particles.images().copy()
    images[7] = np.random.default_rng(1).normal(size=(16, 16))
    other = 40 - 3 * images[2] + 0.1 * images[7]
    images[5] = -other
    again = particles.with_source(vg.ArraySource(images, PIXEL_A))
    vg.write_particles(tmp_path / "particles.star", again, stack=tmp_path / "particles.mrcs")
    found = {f.code: f for f in vg.validate(tmp_path).findings}["shared-particles"]
    assert (found.state, found.numbers["in_both"]) == ("stop", 1)
    images[5] = other  # dark ones are no copies of bright ones
    inverted = particles.with_source(vg.ArraySource(images, PIXEL_A))
    assert (near_copies(inverted, particles.half_sets) == np.arange(8)).all()


def test_particles_without_noise_are_no_copies_of_each_other():
    """Views of one direction resemble each other; a copy among them is found all the same."""
    model = vg.simulate.phantom(24, 6.0, 100.0, "D2", seed=3)
    particles = vg.simulate.particles(model, 300, 24, 6.0, 1e3, seed=3, shift_sd_A=0.0, listener=None)
    half = 1 + np.arange(300) % 2
    images = particles.images().copy()
    correlation = np.corrcoef(images.reshape(300, -1))[half == 1][:, half == 2]
    assert correlation.max() > 0.95  # which alone would not do
    assert (near_copies(particles, half) == np.arange(300)).all()
    images[101] = images[0] + 1e-3 * images[0].std() * np.random.default_rng(0).normal(size=(24, 24))
    found = near_copies(particles.with_source(vg.ArraySource(images, 6.0)), half)
    assert np.flatnonzero(found != np.arange(300)).tolist() == [101]


@pytest.mark.parametrize("second", [1, 2, 3, 4])
@pytest.mark.parametrize("first", [1, 2, 20])
def test_copies_in_a_half_set_of_a_few_images_are_found(first, second):
    """The fifth nearest image of so few would be the copy itself."""
    count = first + second
    images = np.random.default_rng(first).normal(size=(count, 16, 16)).astype(np.float32)
    half = np.repeat([1, 2], [first, second])
    none = np.arange(count)
    assert (near_copies(vg.Particles.from_images(images, 2.0), half) == none).all()
    images[-1] = 2 * images[0] + 1 + 0.02 * np.random.default_rng(0).normal(size=(16, 16))
    none[-1] = 0
    assert (near_copies(vg.Particles.from_images(images, 2.0), half) == none).all()
    assert (
        near_copies(vg.Particles.from_images(images[::-1], 2.0), 3 - half[::-1]) == [*range(count - 1), 0]
    ).sum() > 0


def test_missing_half_sets_and_a_sharp_mask_are_named(truth, tmp_path, capsys):
    run_folder(truth, tmp_path)
    vg.write_map(tmp_path / "mask.mrc", truth.with_data((truth.data > np.quantile(truth.data, 0.9)).astype(np.float32)))
    found = {f.code: f.state for f in vg.validate(tmp_path).findings}
    assert (found["half-sets"], found["mask-edge"]) == ("warn", "warn")
    assert "shared-particles" not in found
    status, _, said = main(["validate", str(tmp_path), "--refine-again"], capsys)
    assert (status, "no half sets (rlnRandomSubset)" in said) == (1, True)


def test_a_mask_that_nothing_vouches_for_is_named():
    nothing = np.full(8, np.nan)
    assert judge_mask(np.arange(8) / 64, nothing, 12.0, 20.0, vouched=False).state == "warn"
    assert judge_mask(np.arange(8) / 64, nothing, 12.0, 20.0).state == "go on"
    coarse = np.where(np.arange(8) < 3, 0.1, np.nan)  # no number where the resolution lies
    assert "nan" not in judge_mask(np.arange(8) / 64, coarse, 12.0, 20.0).sentence


@pytest.mark.parametrize("b_factor_A2", [100.0, 150.0])
def test_a_map_resolved_to_its_sampling_shares_no_noise(b_factor_A2):
    """Its FSC stays above zero up to Nyquist, where signal still falls."""
    density = vg.simulate.density(
        vg.simulate.phantom(BOX, PIXEL_A, 80.0, seed=1), BOX, PIXEL_A, b_factor_A2=b_factor_A2
    )
    found = judge_shared_noise(*halves(density, 0))
    assert found.state == "go on", found


def test_signal_that_hardly_falls_up_to_nyquist_is_no_shared_noise():
    """The tail alone cannot tell them; the solvent holds nothing that both maps share."""
    density = vg.simulate.density(vg.simulate.phantom(64, PIXEL_A, 90.0, seed=2), 64, PIXEL_A)
    noise = 2.5 * density.data.std() * np.random.default_rng(0).normal(size=(2, 64, 64, 64))
    found = judge_shared_noise(*(density.with_data(density.data + one) for one in noise))
    assert found.numbers["mean_fsc"] > found.numbers["limit"]
    assert found.numbers["mean_fsc"] < 0.5
    assert found.state == "go on", found


@pytest.mark.slow
def test_one_common_refinement_is_named():
    """Aligned again and again to one map of all, weak images agree with it beyond what half sets apart find."""
    box, pixel_A, how = 32, 5.0, {"diameter_A": 120.0, "shift_range_A": 10.0, "listener": None}
    model = vg.simulate.phantom(box, pixel_A, 100.0, "D2", seed=3)
    particles = vg.simulate.particles(model, 120, box, pixel_A, 0.03, seed=3, listener=None)
    half = np.arange(120) % 2 + 1
    reference = vg.filters.apply(vg.simulate.density(model, box, pixel_A), vg.filters.low_pass(30.0))
    for _ in range(6):
        particles = vg.align(particles, reference, symmetry="D2", **how).with_columns(rlnRandomSubset=half)
        maps = [vg.reconstruct(particles[half == one], "D2", listener=None) for one in (1, 2)]
        reference = vg.postprocess(*maps, symmetry="D2", listener=None).sharpened
    found = judge_repeat_refinement(particles, tuple(maps), symmetry="D2", iterations=3, **how)
    assert found.state == "stop", found


def test_views_without_noise_are_compared_by_sketches_first(monkeypatch):
    """Images that resemble each other are not all read pair by pair: those of 100 would be 2,500 pairs."""
    y, x = np.mgrid[:24, :24]
    shifts = np.linspace(-3, 3, 100)
    images = np.array([np.exp(-((x - 12 - s) ** 2 + (y - 12) ** 2) / 40) for s in shifts], np.float32)
    images[99] = 2 * images[0] + 1
    particles, read, take = vg.Particles.from_images(images, 2.0), [], vg.Particles.images
    monkeypatch.setattr(vg.Particles, "images", lambda self, rows=None: (read.append(rows), take(self, rows))[1])
    found = near_copies(particles, np.repeat([1, 2], 50))
    assert found[99] == 0
    assert (found[:99] == np.arange(99)).all()
    assert 0 < len(read) < 60, len(read)
