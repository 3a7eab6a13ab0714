"""Picking by the trained network: particles it has never seen, noise, thresholds, doubts, further training."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from command_line import main
from scipy import ndimage
from scipy.special import expit

import verglas as vg
from verglas import simulate
from verglas.errors import InputError
from verglas.learned import Network, Weights, packaged_weights, to_safetensors
from verglas.picking import PickSettings, compare_picks, inside, pick_detailed, prepare
from verglas.picking.fine_tune import _place_clicks, _windows, fine_tune
from verglas.picking.joint import Evidence, probabilities
from verglas.picking.network import background_peaks, out_of_depth, probable_cut
from verglas.run.fine_tune import _agreed_picks, _clicks_by_row, read_weights

DIAMETER_A, PIXEL_A = 150.0, 5.0


def scene(kind="dumbbell", seed=0, shape=(384, 384), **settings):
    """A micrograph of a kind that the network has not been trained on, at the scale of its small image."""
    model = simulate.phantom(64, PIXEL_A, DIAMETER_A, seed=90 + seed, shape=kind)
    given = {"n": 24, "snr": 0.4, "defocus_u_A": 16000.0, "pixel_size_A": PIXEL_A} | settings
    return simulate.micrograph(model, shape=shape, seed=500 + seed, threads=1, **given)


def merit(picks, truth, shape, pixel_A=PIXEL_A):
    margin, radius = DIAMETER_A / 2 / pixel_A, DIAMETER_A / 3 / pixel_A
    both = [xy[inside(xy, shape, margin)] for xy in (picks.xy_px, truth.picks.xy_px)]
    return compare_picks(*both, radius)


@pytest.mark.parametrize("kind", ["dumbbell", *(pytest.param(k, marks=pytest.mark.slow) for k in ("arch", "cone"))])
def test_kinds_never_seen_in_training_are_found(kind):
    micrograph, truth = scene(kind, 1)
    found = pick_detailed(micrograph, DIAMETER_A, method="learned", threads=1)
    assert found.source == "learned"
    assert found.cut.clear
    assert merit(found.picks, truth, micrograph.shape).f_score > 0.85
    chances = found.candidates.columns["rlnAutopickFigureOfMerit"]
    assert ((chances >= 0) & (chances <= 1)).all()
    assert found.doubts == ()


def test_particles_beside_carbon_and_contaminants_are_found():
    dirt = {"carbon": 0.25, "contaminants": 3, "contaminant_radius_A": (60.0, 160.0)}
    micrograph, truth = scene("dumbbell", 8, snr=0.05, n=20, **dirt)
    found = pick_detailed(micrograph, DIAMETER_A, method="learned", threads=1)
    assert found.cut.clear
    assert merit(found.picks, truth, micrograph.shape).f_score > 0.8


def test_what_is_left_out_has_no_part_in_the_spectrum_of_background():
    """Peaks of background are as high beside a disc that outshines all as without it; taken along, it raises them."""
    network = packaged_weights("picker").network
    noise = np.random.default_rng(3).standard_normal((256, 256), np.float32)
    y, x = np.indices(noise.shape)
    allowed = np.hypot(y - 100, x - 80) > 40
    spoilt = np.where(allowed, noise, noise + np.float32(12))
    nobody = np.zeros((0, 2))
    alone, beside, along = (
        np.percentile(background_peaks(network, image, 11.0, nobody, where).heights, 90)
        for image, where in ((noise, None), (spoilt, allowed), (spoilt, None))
    )
    assert abs(beside - alone) < 0.2
    assert along > alone + 0.5


@pytest.mark.parametrize("seed", [5, pytest.param(6, marks=pytest.mark.slow)])
def test_a_network_that_says_nonsense_takes_nothing_away_from_what_the_filter_sees(seed):
    """Weights drawn at random, once calibrated for particles everywhere and once for none: the filter's picks stay."""
    micrograph, truth = scene("dumbbell", 9, snr=2.0, n=60)
    card = packaged_weights("picker").card
    by_filter = merit(vg.pick(micrograph, DIAMETER_A, threads=1), truth, micrograph.shape).f_score
    assert by_filter > 0.9
    for offset in (-8.0, 8.0):
        wrong = card | {"calibration": card["calibration"] | {"offset": offset}}
        weights = Weights(Network.random(seed), wrong)
        found = pick_detailed(micrograph, DIAMETER_A, method="learned", weights=weights, threads=1)
        assert found.cut.clear
        assert merit(found.picks, truth, micrograph.shape).f_score > by_filter - 0.03


def test_where_the_filter_sees_nothing_the_network_alone_is_asked():
    """Without gain the filter's odds have no part; with much of it they overrule the network's."""
    fit = {"slopes": [1.0, 0.0, 0.0], "offset": 0.0, "joint_slope": 1.0, "joint_offset": 0.0}
    said = np.array([[2.0, 0, 0], [-2.0, 0, 0]])
    against = Evidence(np.zeros((2, 2)), said, np.array([-5.0, 5.0]), 0.0)
    np.testing.assert_allclose(probabilities({"calibration": fit}, against), expit([2.0, -2.0]))
    first, second = probabilities({"calibration": fit}, replace(against, weight=0.9))
    assert first < 0.2
    assert second > 0.8


def test_noise_alone_gives_no_clear_particles():
    data = np.random.default_rng(7).normal(size=(400, 400))
    found = pick_detailed(vg.Micrograph(data, PIXEL_A), DIAMETER_A, method="learned", threads=1)
    assert not found.cut.clear
    assert len(found.picks) <= 5


def test_coarse_noise_which_the_network_does_not_know_gives_no_clear_particles():
    """It makes peaks of it; neither does the filter see a class of particles there."""
    data = ndimage.gaussian_filter(np.random.default_rng(5).normal(size=(400, 400)), 3.0)
    found = pick_detailed(vg.Micrograph(data / data.std(), PIXEL_A), DIAMETER_A, method="learned", threads=1)
    assert any("fine share" in one for one in found.doubts)
    assert not found.cut.clear


def test_a_higher_precision_picks_fewer_and_surer():
    micrograph, _ = scene("arch", 2, snr=0.05)
    many, few = (
        pick_detailed(micrograph, DIAMETER_A, method="learned", precision=share, threads=1) for share in (0.5, 0.95)
    )
    assert len(few.picks) < len(many.picks)
    assert few.cut.precision >= 0.95
    assert many.cut.precision >= 0.5


def test_the_cut_of_a_stated_precision_keeps_what_it_says():
    chance = np.array([0.99, 0.9, 0.8, 0.4, 0.2, 0.05])
    for precision, kept in ((0.95, 1), (0.94, 2), (0.6, 5), (1.0, 0)):
        cut = probable_cut(chance, np.log(chance), precision)
        assert (chance >= cut.threshold).sum() == kept
    assert probable_cut(chance[-2:], np.log(chance[-2:])).clear is False


def test_particles_of_fewer_pixels_are_enlarged_for_the_network():
    micrograph, truth = scene("cone", 3, shape=(288, 288), pixel_size_A=150 / 16)
    found = pick_detailed(micrograph, DIAMETER_A, method="learned", threads=1)
    assert found.small.radius_px == pytest.approx(8, abs=0.1)
    assert merit(found.picks, truth, micrograph.shape, 150 / 16).recall > 0.85


def test_what_the_network_has_not_seen_is_said():
    micrograph, _ = scene("dumbbell", 4)
    small, card = prepare(micrograph, DIAMETER_A), packaged_weights("picker").card
    assert out_of_depth(card, small, DIAMETER_A) == ()
    spikes = replace(small, data=np.exp(2 * small.data))
    assert any("skewness" in one for one in out_of_depth(card, spikes, DIAMETER_A))
    assert any("80 to 320 A, not 900" in one for one in out_of_depth(card, small, 900.0))
    assert any("10 pixels across" in one for one in out_of_depth(card, replace(small, radius_px=5.0), DIAMETER_A))


def test_precision_goes_with_the_learned_method_only():
    with pytest.raises(InputError, match="precision"):
        pick_detailed(scene()[0], DIAMETER_A, method="log", precision=0.9)


def test_too_few_clicks_train_nothing():
    micrograph, truth = scene()
    with pytest.raises(InputError, match="at least 15 clicks"):
        fine_tune(packaged_weights("picker"), [(prepare(micrograph, DIAMETER_A), truth.picks.xy_px[:9])])


@pytest.fixture
def _few_steps(monkeypatch):
    monkeypatch.setattr("verglas.picking.fine_tune._STEPS", 12)


@pytest.mark.parametrize(("found", "kept"), [((1, 6), True), ((5, 6), False), ((5, 5), False), ((5, 4), False)])
def test_new_weights_are_taken_only_if_they_surely_find_more_of_the_held_out_clicks(monkeypatch, found, kept):
    monkeypatch.setattr("verglas.picking.fine_tune._STEPS", 2)
    hits = tuple(np.arange(6) < number for number in found)
    monkeypatch.setattr("verglas.picking.fine_tune._found_clicks", lambda *_: hits)
    micrograph, truth = scene("dumbbell", 5, shape=(256, 256))
    weights = packaged_weights("picker")
    tuned = fine_tune(weights, [(prepare(micrograph, DIAMETER_A), truth.picks.xy_px)])
    assert (tuned.kept, tuned.before, tuned.after) == (kept, *found)
    assert (tuned.weights is weights) == (not kept)
    changed = any((tuned.weights.network.parameters[k] != v).any() for k, v in weights.network.parameters.items())
    assert changed == kept
    assert (tuned.weights.card.get("fine_tuned", {}).get("after") == 6) == kept


def test_clicks_in_squares_held_out_are_not_trained_on():
    """Windows count nothing there, so what judges the new weights was never seen by them."""
    micrograph, truth = scene("dumbbell", 5, shape=(256, 256))
    rng = np.random.default_rng(0)
    one = _place_clicks(prepare(micrograph, DIAMETER_A), truth.picks.xy_px, rng)
    assert 0 < one.held_out.mean() < 1
    everywhere = replace(one, held_out=np.ones_like(one.held_out))
    network = packaged_weights("picker").network
    assert _windows(network, [one], True, np.random.default_rng(1))[2].any()
    assert not _windows(network, [everywhere], True, np.random.default_rng(1))[2].any()


@pytest.mark.usefixtures("_few_steps")
def test_the_command_picks_and_says_what_came_of_the_clicks(tmp_path, capsys):
    micrograph, truth = scene("arch", 6, n=40)
    vg.io.write_stack(tmp_path / "one.mrc", micrograph.data[None], PIXEL_A)
    vg.io.write_picks(tmp_path / "clicks.star", {"one.mrc": truth.picks[np.arange(30)]}, one_file=True)
    command = (
        f"pick {tmp_path}/one.mrc --diameter {DIAMETER_A} --out {tmp_path}/out --method learned --no-pictures --json"
    )
    more = ["--fine-tune", f"{tmp_path}/clicks.star", "--clicks-complete"]
    status, out, err = main([*command.split(), *more], capsys)
    assert status == 0, err
    assert json.loads(out)["picks"] > 20
    assert "held-out clicks are found" in out + err
    assert (tmp_path / "out" / "weights.safetensors").is_file()


def test_weights_without_the_learned_method_are_refused(tmp_path, capsys):
    vg.io.write_stack(tmp_path / "one.mrc", scene()[0].data[None], PIXEL_A)
    command = f"pick {tmp_path}/one.mrc --diameter 150 --out {tmp_path}/out --fine-tune consensus"
    status, _, err = main(command.split(), capsys)
    assert status != 0
    assert "--method learned" in err


def test_a_consensus_is_taken_of_what_can_be_read(tmp_path, monkeypatch):
    monkeypatch.setattr(
        "verglas.run.fine_tune.pick", lambda micrograph, *_, **__: vg.Picks([[micrograph.data[0, 0], 1]])
    )
    for number in range(9):
        vg.io.write_stack(tmp_path / f"{number}.mrc", np.full((1, 8, 8), number, np.float32), PIXEL_A)
    (tmp_path / "0.mrc").write_bytes(b"no map")
    table = vg.io.find_micrographs([str(tmp_path / "*.mrc")])
    found = _agreed_picks(table, DIAMETER_A, PickSettings())
    assert {row: picks.xy_px[0, 0] for row, picks in found.items()} == {row: row for row in (1, 2, 3, 4, 5, 6, 8)}
    with pytest.raises(InputError, match="none of 1 micrographs can be used for a consensus"):
        _agreed_picks(table[:1], DIAMETER_A, PickSettings())


@pytest.mark.slow
@pytest.mark.usefixtures("_few_steps")
def test_the_consensus_of_the_classical_pickers_trains_and_a_broken_file_is_set_aside(tmp_path, capsys):
    """From the files on: eight at most are agreed on, one of them cannot be read."""
    micrograph, truth = scene("dumbbell", 7, shape=(256, 256), n=24)
    vg.io.write_stack(tmp_path / "a.mrc", micrograph.data[None], PIXEL_A)
    (tmp_path / "b.mrc").write_bytes(b"no map")
    command = (
        f"pick {tmp_path}/*.mrc --diameter {DIAMETER_A} --out {tmp_path}/out --method learned --no-pictures --json"
    )
    status, out, err = main([*command.split(), "--fine-tune", "consensus"], capsys)
    assert status == 0, err
    assert list(json.loads(out)["set_aside"]) == [f"{tmp_path}/b.mrc"]
    assert "held-out clicks are found" in out + err
    (found,) = vg.io.read_picks(tmp_path / "out" / "picks.star").values()
    assert merit(found, truth, micrograph.shape).f_score > 0.8


def test_clicks_are_those_of_the_micrograph_they_name(tmp_path):
    """Of two of one name in different folders; a name that means both is refused."""
    table = pd.DataFrame({"rlnMicrographName": ["a/m.mrc", "b/m.mrc"]})
    clicks = vg.Picks(np.ones((3, 2)))
    vg.io.write_picks(tmp_path / "clicks.star", {"b/m.mrc": clicks}, one_file=True)
    assert list(_clicks_by_row(table, tmp_path / "clicks.star")) == [1]
    vg.io.write_picks(tmp_path / "clicks.star", {"m.mrc": clicks}, one_file=True)
    with pytest.raises(InputError, match="several micrographs"):
        _clicks_by_row(table, tmp_path / "clicks.star")


def test_weights_without_calibration_and_clicks_that_cannot_be_complete_are_refused(tmp_path, capsys):
    (tmp_path / "w.safetensors").write_bytes(to_safetensors(Weights(packaged_weights("picker").network)))
    with pytest.raises(InputError, match=r"w\.safetensors: its card has no calibration and no data"):
        read_weights(tmp_path / "w.safetensors")
    packaged = packaged_weights("picker")
    alone = {name: packaged.card["calibration"][name] for name in ("slopes", "offset", "ranges")}
    earlier = replace(packaged, card=packaged.card | {"calibration": alone})
    (tmp_path / "earlier.safetensors").write_bytes(to_safetensors(earlier))
    with pytest.raises(InputError, match=r"earlier\.safetensors: its calibration is one of the network alone"):
        read_weights(tmp_path / "earlier.safetensors")
    vg.io.write_stack(tmp_path / "one.mrc", np.ones((1, 64, 64), np.float32), PIXEL_A)
    command = f"pick {tmp_path}/one.mrc --diameter 150 --out {tmp_path}/out --method learned --clicks-complete"
    status, _, err = main(command.split(), capsys)
    assert status == 1
    assert "--clicks-complete goes with --fine-tune" in err
