"""Sieving: planted wrong poses and noise are found and left out, what is clean stays, noise is refused."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from command_line import main
from heard import Heard
from scipy.stats import rankdata

import verglas as vg
from verglas.assessment import (
    Alignability,
    alignability,
    expected_quality,
    first_high_shell,
    held_out_evidence,
    judge_alignability,
    percentile_by_defocus,
    score_particles,
)
from verglas.assessment.particle_scores import ShellSums, shell_sums
from verglas.optics.refine import Calibration, Pixels, Setting, calibrate
from verglas.optics.refine.pixels import gather, image_spectra, transfer
from verglas.report.sieve import _against_defocus, _extremes
from verglas.run.ctf_refine_inputs import prepare
from verglas.run.sieve_rounds import LEAST_SHELLS, Halves, Limits, Rounds, without_copies
from verglas.types.listener import Silence

BOX, PIXEL_A = 24, 5.0


def planted(kind, n, seed=1, snr=0.15):
    """Particles, which half of them is bad, and the true map."""
    rng = np.random.default_rng((seed, 5))
    model = vg.simulate.phantom(BOX, PIXEL_A, 72.0, seed=seed)
    p = vg.simulate.particles(model, n, BOX, PIXEL_A, snr=snr, seed=seed)
    bad = np.isin(np.arange(n), rng.permutation(n)[: n // 2 if kind != "clean" else 0])
    if kind == "poses":
        angles = np.where(bad[:, None], vg.geometry.random_orientations(n, seed + 99), p.poses.angles_deg)
        p = p.with_poses(vg.Poses(angles, p.poses.shifts_A))
    if kind == "junk":
        images = p.images()
        images[bad] = rng.normal(0, images.std(), (bad.sum(), BOX, BOX))
        p = p.with_source(vg.types.ArraySource(images, PIXEL_A))
    return p, bad, vg.simulate.density(model, BOX, PIXEL_A)


def auc(good, bad):
    """Chance that a good one is above a bad one."""
    ranks = rankdata(np.concatenate([good, bad]))
    return (ranks[: len(good)].sum() - len(good) * (len(good) + 1) / 2) / (len(good) * len(bad))


@pytest.fixture(scope="module")
def wrong_poses():
    p, bad, truth = planted("poses", 400)
    heard = Heard()
    return p, bad, truth, vg.sieve(p, alignability=60, diameter_A=80, threads=1, listener=heard), heard


def test_particles_at_wrong_poses_are_found_and_left_out(wrong_poses):
    p, bad, truth, found, heard = wrong_poses
    for name in ("verglasGain", "verglasQuality", "verglasCorrelation"):
        assert auc(found.scores[name][~bad], found.scores[name][bad]) > 0.95
    assert found.round > 0
    assert bad[found.is_removed].mean() > 0.9
    assert (~bad)[~found.is_removed].mean() > 0.85
    row = found.rounds.iloc[found.round]
    assert row.gain_nats > 3 * row.gain_error_nats
    assert row.gain_over_control_nats > 3 * row.gain_over_control_error_nats
    kept, everything = (vg.reconstruct(q, listener=None) for q in (found.kept, p))
    assert vg.fsc(kept, truth).curve[4:10].mean() > vg.fsc(everything, truth).curve[4:10].mean()
    assert heard.rows[found.round]["kept"] == row.kept
    assert "particles scored" in heard.phases
    assert heard.lines[-1] == found.sentence


def test_nothing_is_lost(wrong_poses):
    p, _, _, found, _ = wrong_poses
    names = ["rlnMicrographName", "rlnCoordinateX", "rlnCoordinateY", "rlnAngleRot"]
    names = [name for name in names if name in p.table]
    both = np.concatenate([q.table[names].to_numpy(str) for q in (found.kept, found.removed)])
    assert sorted(map(tuple, both)) == sorted(map(tuple, p.table[names].to_numpy(str)))
    assert found.removed.table.verglasSieveReason.str.startswith("round ").all()
    assert (found.removed.table.verglasSieveRound <= found.round).all()


def test_wrong_poses_are_told_by_the_accuracy_of_the_alignment_and_not_by_its_precision(wrong_poses):
    _, bad, _, found, _ = wrong_poses
    scores = found.scores.dropna(subset="verglasAlignabilityAccuracy")
    good = ~bad[scores.index]
    accuracy, precision = scores.verglasAlignabilityAccuracy, scores.verglasAlignabilityPrecision
    assert auc(accuracy[good], accuracy[~good]) > 0.95
    assert 0.2 < auc(precision[good], precision[~good]) < 0.8
    assert len(scores) == 60
    # of those kept, nine in ten of whose poses are right; of all, half were elsewhere
    assert found.verdict["alignability"].state == "go on"
    everyone = Alignability(precision.to_numpy(), accuracy.to_numpy())
    assert everyone.elsewhere > found.verdict["alignability"].numbers["elsewhere"] + 0.15
    assert judge_alignability(everyone).state == "warn"


def test_a_clean_set_stays_whole():
    p, _, _ = planted("clean", 240, seed=2)
    heard = Heard()
    found = vg.sieve(p, alignability=0, threads=1, listener=heard)
    assert len(found.kept) == len(p)
    assert len(found.removed) == 0
    assert found.sentence.startswith("nothing was sieved: by the best of 3 rounds")
    assert (
        sum(done == total for done, total in heard.phases["particles scored"]) == 3
    )  # before each round, and not once more for the scores that are given
    # fewer particles of one kind make a worse map, and who was dropped was no worse than others
    assert found.rounds.gain_nats[1] < 0
    assert found.verdict.state == "go on"


def test_noise_is_refused_with_a_verdict(tmp_path, capsys):
    noise = np.random.default_rng(3).normal(size=(100, BOX, BOX)).astype(np.float32)
    p, _, _ = planted("clean", 100)
    vg.write_particles(tmp_path / "p.star", p.with_source(vg.types.ArraySource(noise, PIXEL_A)))
    status, said, _ = main(["sieve", str(tmp_path / "p.star"), "--out", str(tmp_path / "s"), "--json"], capsys)
    told = json.loads(said)
    assert status == 1
    assert told["verdict"]["state"] == "stop"
    assert "0 shells only, 5 are needed" in told["sentence"]
    assert told["kept"] == 100
    assert len(vg.read_particles(tmp_path / "s" / "kept.star")) == 100


def test_noise_stops_whatever_limit_is_asked_for_and_copies_go_all_the_same():
    noise = np.random.default_rng(3).normal(size=(100, BOX, BOX)).astype(np.float32)
    p = planted("clean", 100)[0].with_source(vg.types.ArraySource(noise, PIXEL_A))[np.r_[0:100, 3:6]]
    with pytest.warns(vg.VerglasWarning, match="3 rows are of an image"):
        found = vg.sieve(p, high_resolution_A=12.0, alignability=0, threads=1, listener=None)
    assert (found.verdict.state, len(found.kept)) == ("stop", 100)
    assert found.removed.table.verglasSieveReason.tolist() == [f"copy of particle {i}" for i in (3, 4, 5)]


def test_a_limit_that_later_maps_do_not_reach_ends_the_rounds_and_not_the_job():
    p, _, truth = planted("clean", 120, snr=0.3)
    prepared = prepare(p, fits_ctf=False, needs_halves=False, job="sieve")
    mask = truth.with_data(np.ones_like(truth.data))
    limits = Limits(share=0.2, rounds=8, held_out=0.2, band="high", high_resolution_A=20.0, symmetry="C1", seed=0)
    rounds = Rounds(prepared, Pixels(BOX, PIXEL_A, 3, 10), mask, limits, Silence(), 1)
    assert rounds.informative >= LEAST_SHELLS
    rng = np.random.default_rng(0)
    noise = tuple(truth.with_data(rng.normal(size=truth.data.shape).astype(np.float32)) for _ in range(2))
    scores, _, calibration = rounds.scores(Halves(noise, noise))
    assert calibration.informative < LEAST_SHELLS
    assert not scores.power_high.any()
    rounds.maps.append(Halves(noise, noise))
    assert rounds._drop(2) is False


def test_the_fsc_of_sieved_noise_is_that_of_a_signal_and_a_new_split_does_not_undo_it():
    """Why the FSC decides nothing: particles of either half that agree with the noise of the other agree with it."""
    rng = np.random.default_rng(6)
    n, pixels = 800, Pixels(BOX, PIXEL_A, 3, 10)
    p = planted("clean", n)[0].with_source(
        vg.types.ArraySource(rng.normal(size=(n, BOX, BOX)).astype(np.float32), PIXEL_A)
    )
    half = np.arange(n) % 2

    def curve(rows, subset):
        halves = vg.reconstruct(p[rows].with_columns(rlnRandomSubset=1 + subset), halves=True, threads=1, listener=None)
        return float(vg.fsc(*halves[1]).curve[3:10].mean()), halves[1]

    everyone, halves = curve(np.arange(n), half)
    setting = Setting.of(p, half, halves, pixels, 1)
    explained = Calibration(np.ones((2, pixels.shells)), calibrate(setting).noise)
    value = score_particles(setting, explained, 4).correlation
    kept = np.flatnonzero(value > np.array([np.median(value[half == h]) for h in (0, 1)])[half])
    sieved, anew = curve(kept, half[kept])[0], curve(kept, rng.permutation(len(kept)) % 2)[0]
    assert abs(everyone) < 0.1
    assert sieved > 0.2
    assert anew > 0.1


def test_copies_go_first_and_those_across_half_sets_are_named():
    p, _, _ = planted("clean", 200)
    half = 1 + np.arange(200) % 2
    twice = np.r_[0:200, 4:12]
    q = p.with_columns(rlnRandomSubset=half)[twice]
    q = q.with_columns(rlnRandomSubset=np.r_[half, np.r_[half[4:8], 3 - half[8:12]]])
    with pytest.warns(vg.VerglasWarning, match="rows of one image in both half sets"):
        prepared = prepare(q, fits_ctf=False, needs_halves=False, job="sieve")
    once, copies = without_copies(prepared, q)
    assert len(once.rows) == 200
    assert copies[200] == "copy of particle 4"
    assert copies[204] == "copy of particle 8, which is in the other half set"
    assert len(set(once.image.tolist())) == 200


# ---- the scores by themselves


@pytest.fixture(scope="module")
def setting():
    p, _, truth = planted("clean", 60, snr=1.0)
    return Setting.of(p, np.arange(60) % 2, (truth, truth), Pixels(BOX, PIXEL_A, 2, 10), 1)


def test_gain_is_the_likelihood_of_the_map_over_nothing_pixel_by_pixel(setting):
    calibration = calibrate(setting)
    scores = score_particles(setting, calibration, 4)
    pixels, rows = setting.pixels, np.flatnonzero(setting.half == 0)
    some = setting.particles[rows]
    image = gather(image_spectra(some), pixels)
    a = calibration.amplitude[0][pixels.shell]
    model = a * gather(setting.references[0].slices(some), pixels) * transfer(some.optics.as_params(), pixels)[0]
    sigma2 = calibration.noise[0][pixels.shell]
    s2 = (np.abs(image - model) ** 2 / sigma2).mean(axis=1)
    assert np.allclose(scores.noise_ratio[rows], s2, rtol=1e-4)
    likelihood = ((np.abs(image) ** 2 - np.abs(image - model) ** 2) / sigma2).sum(axis=1)
    power = (np.abs(model) ** 2 / sigma2).sum(axis=1)
    # |X|^2 - |X - M|^2 = 2 Re(X M*) - |M|^2
    assert np.allclose(scores.gain[rows], likelihood + power * (1 - s2), rtol=1e-3, atol=1e-3)
    of_nothing = np.abs(image - model) ** 2 / sigma2
    # the amplitude that fits best leaves less than any other
    best = scores.grey_scale[rows][:, None]
    assert np.all((np.abs(image - best * model) ** 2 / sigma2).sum(axis=1) <= of_nothing.sum(axis=1) * (1 + 1e-5))
    assert np.allclose(best[:, 0], (image * model.conj() / sigma2).real.sum(axis=1) / power, rtol=1e-3, atol=1e-3)
    high = pixels.shell >= 4
    power_high = (np.abs(model) ** 2 / sigma2)[:, high].sum(axis=1)
    assert np.allclose(scores.power_high[rows], power_high, rtol=1e-4, atol=1e-5)


def test_residuals_of_right_poses_are_white(setting):
    scores = score_particles(setting, calibrate(setting), 4)
    assert abs(scores.residual_z.mean()) < 0.5
    assert 0.7 < scores.residual_z.std() < 1.4


def test_quality_ranks_by_noise_where_amplitudes_differ_by_chance_only():
    rng = np.random.default_rng(0)
    n, p, noise = 4000, 3.0, np.repeat([1.0, 4.0], 2000)
    cross = p + rng.normal(size=n) * np.sqrt(noise * p / 2)
    raw, told = 2 * cross - noise * p, expected_quality(cross, np.full(n, p), noise)
    assert auc(told[:2000], told[2000:]) > 0.99 > auc(raw[:2000], raw[2000:])
    # amplitudes that do differ stay apart: half of the particles show nothing
    cross = np.repeat([20.0, 0.0], 2000) + rng.normal(size=n) * np.sqrt(10.0)
    told = expected_quality(cross, np.full(n, 20.0), np.ones(n))
    assert auc(told[:2000], told[2000:]) > 0.99
    assert abs(told[:2000].mean() - 1) < 0.2
    assert abs(told[2000:].mean() + 1) < 0.2


def test_percentiles_are_uniform_in_every_bin_of_defocus():
    rng = np.random.default_rng(1)
    defocus = rng.uniform(5000, 25000, 1000)
    told = percentile_by_defocus(defocus * 1e-4 + rng.normal(size=1000), defocus, 10)
    order = np.argsort(defocus)
    for part in told[order].reshape(10, 100):
        assert np.allclose(np.sort(part), np.arange(0.5, 100))


def test_junk_does_not_vote_for_maps_with_junk_in_them():
    """Held-out balls gain by a map that is half a ball; the evidence of the set must not."""
    rng = np.random.default_rng(2)
    n, power = 400, 30.0
    good = np.arange(n) % 4 < 2
    fold = np.arange(n) % 2
    noise = rng.normal(size=(2, n)) * np.sqrt(power / 2)
    of_ball = ShellSums(np.where(good, 0.0, power)[:, None] + noise[:1].T, np.full((n, 1), power))
    # a pure map, and one with as much ball in it: orthogonal slices, so that products add up
    pure = ShellSums(np.where(good, power, 0.0)[:, None] + noise[1:].T, np.full((n, 1), power))
    mixed = ShellSums(pure.cross + of_ball.cross, 2 * pure.power)
    plain = [2 * (m.cross.mean() ** 2 / m.power.mean()) for m in (pure, mixed)]  # one amplitude for all of them
    assert plain[1] > plain[0]  # asked without the ball, all of them are for the mixture
    assert held_out_evidence(pure, of_ball, fold).mean() > held_out_evidence(mixed, of_ball, fold).mean() + 5


def test_evidence_is_told_under_the_noise_of_each_particle(setting):
    calibration = calibrate(setting)
    one = shell_sums(setting, calibration, np.ones(60))
    four = shell_sums(setting, calibration, np.full(60, 4.0))
    assert np.allclose(four.cross * 4, one.cross, rtol=1e-5)


def test_alignability_falls_for_noise_and_for_a_symmetry_that_is_not_stated():
    rows = np.arange(12)

    def told(symmetry, noise=False, group="C1"):
        model = vg.simulate.phantom(BOX, PIXEL_A, 72.0, symmetry, seed=4)
        p = vg.simulate.particles(model, 40, BOX, PIXEL_A, snr=1.0, seed=1)
        truth = vg.simulate.density(model, BOX, PIXEL_A)
        setting = Setting.of(p, np.arange(40) % 2, (truth, truth), Pixels(BOX, PIXEL_A, 2, 10), 1)
        calibration = calibrate(setting)
        if noise:
            images = np.random.default_rng(5).normal(size=(40, BOX, BOX)).astype(np.float32) * p.images().std()
            q = p.with_source(vg.types.ArraySource(images, PIXEL_A))
            setting = Setting.of(q, np.arange(40) % 2, (truth, truth), Pixels(BOX, PIXEL_A, 2, 10), 1)
            calibration = Calibration(calibration.amplitude * 0.1, calibration.noise)  # a map of noise explains little
        found = alignability(setting, calibration, rows, diameter_A=72.0, symmetry=group, step_deg=30)
        return float(np.median(found.precision)), float(np.median(found.accuracy))

    plain, mirrored = told("C1"), told("D2")
    assert min(plain) > 0.8
    assert mirrored[0] < 0.6
    assert min(told("D2", group="D2")) > 0.7
    assert max(told("C1", noise=True)) < 0.4


def test_the_finer_shells_begin_where_they_are_told(setting):
    calibration = calibrate(setting)
    pixels = setting.pixels
    shell = first_high_shell(calibration, pixels, 20.0)
    assert BOX * PIXEL_A / (shell + pixels.first) <= 20.0 < BOX * PIXEL_A / (shell - 1 + pixels.first)
    with pytest.raises(vg.InputError, match="nothing finer than 5 A"):
        first_high_shell(calibration, pixels, 5.0)


# ---- files


def test_the_command_takes_a_folder_and_writes_all(tmp_path, capsys):
    p, bad, _ = planted("junk", 300, seed=3)
    run = tmp_path / "run"
    run.mkdir()
    p = p.with_columns(rlnRandomSubset=1 + np.arange(300) % 2)
    vg.write_particles(run / "particles.star", p)
    _, halves = vg.reconstruct(p, halves=True, listener=None)
    for number, volume in enumerate(halves, 1):
        vg.write_map(run / f"half{number}.mrc", volume)
    p = vg.read_particles(run / "particles.star")
    moved = p.with_poses(vg.Poses(p.poses.angles_deg, p.poses.shifts_A + np.where(bad, 9.0, 0.0)[:, None] * [1, -1]))
    vg.write_particles(tmp_path / "before.star", moved[::-1])
    out = tmp_path / "sieved"
    call = ["sieve", str(run), "--previous", str(tmp_path / "before.star"), "--out", str(out), "--threads", "1"]
    status, said, err = main([*call, "--alignability", "20"], capsys)
    assert status == 0, err
    kept, removed = vg.read_particles(out / "kept.star"), vg.read_particles(out / "removed.star")
    assert len(kept) + len(removed) == 300
    assert f"{len(kept)} of 300 particles in {out}/kept.star" in said
    told = json.loads((out / "sieve.json").read_text())
    assert told["removed"] == len(removed) == sum(told["reasons"].values())
    assert kept.half_sets is not None
    change = removed.table.verglasShiftChange.to_numpy(float)
    assert np.median(change) > 5 * np.median(kept.table.verglasShiftChange)
    # the same routine from the run's folder, of particles of which half are junk
    status, said, err = main(
        ["validate", str(run), "--alignability", "30", "--out", str(tmp_path / "v"), "--json"], capsys
    )
    assert status in (0, 1), err
    poses = {one["code"]: one for one in json.loads(said)["findings"]}["alignability"]["numbers"]
    assert poses["particles"] == 30
    assert poses["imprecise"] > 0.3
    page = (out / "report.html").read_text()
    assert "Best particles" in page
    best = kept.table.assign(q=kept.table["verglasQuality"].astype(float)).sort_values("q")["rlnImageName"].iloc[-1]
    assert f">{best.partition('@')[0]}@" in page  # the best of all was kept, and is named
    for words in ("Against the share kept", "What held-out particles gain", "as many at random", "Removed"):
        assert words in page
    rounds = (out / "rounds.csv").read_text().splitlines()
    assert len(rounds) == len(told["rounds"]) + 1
    assert vg.read_map(out / "half1.mrc").box == BOX


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda p: p.with_columns(rlnAngleRot=None), "sieve needs poses"),
        (lambda p: p[:30], "20 must be left beside those held out"),
        (lambda p: p.with_columns(verglasExpandedFrom=1 + np.arange(60)), "sieve before verglas expand"),
    ],
)
def test_what_cannot_be_sieved_is_refused(setting, change, words):
    with pytest.raises(vg.InputError, match=words):
        vg.sieve(change(setting.particles), listener=None)


def test_a_mask_that_is_none_is_refused_as_a_mask(setting):
    data = np.ones((BOX, BOX, BOX), np.float32)
    with pytest.raises(vg.InputError, match="sieve: the mask"):
        vg.sieve(setting.particles, mask=vg.Map(5 * data, PIXEL_A), listener=None)
    with pytest.raises(vg.InputError, match="sieve: the mask"):
        vg.sieve(setting.particles, mask=vg.Map(data[:20, :20, :20], PIXEL_A), listener=None)


def test_a_second_sieve_leaves_no_word_of_the_first(setting):
    columns = {"verglasSieveReason": "round 1: quality of 0.1 among the lowest", "verglasSieveRound": 1}
    before = setting.particles.with_columns(**columns, verglasAngleChange=90.0)
    found = vg.sieve(before, rounds=1, alignability=0, threads=1, listener=None)
    assert len(found.kept) > 0
    assert not {"verglasSieveReason", "verglasSieveRound", "verglasAngleChange"} & set(found.kept.table)


def test_too_few_to_decide_are_refused(setting):
    with pytest.raises(
        vg.InputError, match="half set 1 has 30 particles, of which 0 would be held out and decide; 5 must"
    ):
        vg.sieve(setting.particles, held_out=0.015, listener=None)


def test_the_page_names_the_extremes_and_shows_correlation_against_defocus():
    rng = np.random.default_rng(0)
    columns = {"verglasQuality": rng.permutation(60.0 * np.arange(60)), "verglasCorrelation": rng.random(60)}
    scores = pd.DataFrame({**columns, "verglasResidualZ": rng.normal(size=60)})
    scores["image"], scores["defocus_A"] = [f"{i + 1:06d}@s.mrcs" for i in range(60)], rng.uniform(8e3, 2e4, 60)
    scores.loc[7, list(columns)] = np.nan  # a copy: not scored
    sections = _extremes(scores)
    assert [section.title for section in sections] == ["Best particles", "Worst particles"]
    order = np.argsort(scores["verglasQuality"].to_numpy())  # NaN last
    for section, rows in zip(sections, (order[-2:-12:-1], order[:10]), strict=True):
        assert [row[0] for row in section.blocks[0].rows] == [str(i + 1) for i in rows]
        assert section.blocks[0].rows[0][1] == f"{rows[0] + 1:06d}@s.mrcs"
    points, median = _against_defocus(scores).series
    assert (len(points.x), len(median.x)) == (59, 10)
    assert _extremes(scores.iloc[:12]) == []


def test_wrong_calls_are_refused_by_name(tmp_path, capsys):
    status, _, said = main(["sieve", str(tmp_path), "--out", str(tmp_path)], capsys)
    assert (status, "name another folder" in said) == (1, True)
    status, _, said = main(["sieve", str(tmp_path), "--out", str(tmp_path / "s")], capsys)
    assert (status, "no particles.star" in said) == (1, True)
    status, _, said = main(["sieve", "p.star", "--out", str(tmp_path / "s"), "--half1", "a.mrc"], capsys)
    assert (status, "go together" in " ".join(said.split())) == (2, True)
    status, _, said = main(["sieve", "p.star", "--out", str(tmp_path / "s"), "--share", "0.9"], capsys)
    assert (status, "share" in said) == (2, True)


def test_previous_particles_that_are_others_are_refused(setting):
    few = setting.particles[:50]
    with pytest.raises(vg.InputError, match="50 previous particles for 60"):
        vg.sieve(setting.particles, previous=few, listener=None)
