"""Screening: descriptors, the shipped classifier on unseen simulated and real micrographs, the command."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

import verglas as vg
from verglas import simulate
from verglas.assessment.micrographs import MicrographQuality, judge_micrographs, judge_set
from verglas.errors import InputError
from verglas.picking import screen
from verglas.picking.screening import KINDS, Screening, descriptors, shipped_model
from verglas.run.screen import screening_reason


@pytest.fixture(scope="module")
def model():
    """A particle that was in neither training nor the measurement of errors."""
    return simulate.phantom(box=64, pixel_size_A=3.0, diameter_A=120.0, seed=201)


@pytest.fixture(scope="module")
def crystalline(model):
    return simulate.spoilt_micrograph("crystalline", model, seed=2001, shape=(512, 512))


def test_descriptors_do_not_depend_on_grey_scale_or_the_way_up(crystalline):
    first = descriptors(crystalline)
    other = descriptors(replace(crystalline, data=300 + 7 * crystalline.data))
    assert first.keys() == other.keys()
    np.testing.assert_allclose(list(first.values()), list(other.values()), atol=0.02)
    turned = descriptors(replace(crystalline, data=np.ascontiguousarray(crystalline.data[::-1])))
    np.testing.assert_allclose(list(first.values()), list(turned.values()), atol=0.2)


def test_water_is_seen_at_its_spacing_alone():
    """Waves of 3.7 A raise the ring and its spots, those of 5 A do not; beyond Nyquist nothing is said."""
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(512, 512))
    found = {}
    y, x = np.indices(noise.shape) * 1.2
    for spacing_A in (3.7, 5.0):
        waves = [x * np.cos(a) + y * np.sin(a) for a in np.linspace(0, np.pi, 12, endpoint=False)]
        wave = noise + 0.5 * sum(np.cos(2 * np.pi * along / spacing_A) for along in waves)
        found[spacing_A] = descriptors(vg.Micrograph(wave.astype(np.float32), 1.2))["water's spots"]
    assert found[3.7] > 2
    assert abs(found[5.0]) < 0.7
    assert descriptors(vg.Micrograph(noise.astype(np.float32), 2.1))["water's ring"] == 0.0


def test_rings_of_far_too_much_and_of_hardly_any_defocus_are_told_from_those_of_particles():
    def rings(defocus_A):
        ice = simulate.micrograph(None, shape=(512, 512), pixel_size_A=1.4, defocus_u_A=defocus_A, ice=2.0, seed=3)[0]
        found = descriptors(ice)
        return found["rings of far defocus"], found["rings of no defocus"]

    far, usual, none = rings(85000.0), rings(16000.0), rings(500.0)
    assert far[0] > 0 > usual[0] + 1
    assert none[1] > max(far[1], usual[1])


def test_probabilities_are_those_of_the_weights():
    shipped = shipped_model()
    assert sorted(shipped.kinds) == sorted(KINDS)
    found = dict(zip(shipped.names, shipped.mean, strict=True))
    chances = shipped.probabilities(found)
    expected = np.exp(shipped.bias) / np.exp(shipped.bias).sum()
    np.testing.assert_allclose([chances[kind] for kind in shipped.kinds], expected, rtol=1e-9)
    assert sum(chances.values()) == pytest.approx(1)


def test_spoilt_micrographs_are_named(model, crystalline):
    """Crystalline ice on a particle that was never seen, by its reason; nothing against a good micrograph."""
    assert screen(crystalline).kind == "crystalline"
    assert "crystalline ice" in screen(crystalline).reason
    good = simulate.spoilt_micrograph("good", model, seed=2002, shape=(512, 512))
    assert screening_reason(good) == ""


@pytest.mark.slow
def test_few_of_the_spoilt_are_taken_for_good(model):
    said = {}
    for kind in KINDS:
        made = (simulate.spoilt_micrograph(kind, model, seed=s, shape=(512, 512)) for s in (2010, 2011))
        said[kind] = [screen(m).kind for m in made]
    bad = [one for kind, those in said.items() if kind != "good" for one in those]
    assert bad.count("good") <= 2
    assert screen(simulate.spoilt_micrograph("good", model, seed=2012, shape=(512, 512))).good > 0.1


@pytest.mark.slow
def test_no_micrograph_of_apoferritin_is_rejected(data_dir):
    files = sorted((data_dir / "apoferritin").glob("*.tif"))
    assert len(files) == 14
    found = [screen(vg.read_micrograph(file, 1.5)) for file in files]
    assert [one.reason for one in found] == [""] * 14
    assert all(one.familiar for one in found)


def test_contaminants_that_leave_no_room_are_drawn_without_particles():
    small = simulate.spoilt_micrograph(
        "contaminated", simulate.phantom(box=64, pixel_size_A=5.0, diameter_A=240.0, seed=1), seed=1, shape=(256, 256)
    )
    assert small.shape == (256, 256)


def test_what_cannot_be_judged_is_refused_and_flagged_by_nobody():
    noise = np.random.default_rng(0).normal(size=(300, 300)).astype(np.float32)
    for micrograph, words in (
        (vg.Micrograph(noise, 4.0), "of at most 2.2 A, got 300 x 300 of 4 A"),
        (vg.Micrograph(noise[:200], 1.0), "got 300 x 200"),
        (vg.Micrograph(np.zeros((300, 300)), 1.0), "more than half of its pixels are equal"),
    ):
        with pytest.raises(InputError, match=words):
            screen(micrograph)
        assert screening_reason(micrograph) == ""


def test_a_reason_becomes_a_flag():
    doubtful = Screening("drift", {"good": 0.4, "drift": 0.6})
    sure = Screening("drift", {"good": 0.02, "drift": 0.98}, familiar=False)
    assert doubtful.reason == ""
    assert sure.reason == "looks like drift (98 %), but unlike any micrograph that screening was trained on"
    quality = MicrographQuality("a", 100, 0.0, 5.0, True, screening=sure.reason)
    assert judge_micrographs([quality])["a"] == (sure.reason,)


def test_command_line(tmp_path, run, crystalline, model):
    """The good are listed, the others named with reasons; unreadable ones are set aside."""
    good = simulate.spoilt_micrograph("good", model, seed=2002, shape=(512, 512))
    pixel = good.pixel_size_A
    vg.io.write_stack(tmp_path / "good.mrc", good.data[None], pixel)
    vg.io.write_stack(tmp_path / "ice.mrc", crystalline.data[None], crystalline.pixel_size_A)
    (tmp_path / "broken.tif").write_bytes(b"II*\0\x08\0\0\0")
    status, output, errors = run("screen", tmp_path / "*", "--out", tmp_path / "out", "--json")
    assert status == 0, errors
    record = json.loads(output)
    assert record["good"] == 1
    assert record["kinds"] == {"crystalline": 1}
    assert list(record["set_aside"]) == [str(tmp_path / "broken.tif")]
    listed = vg.io.read_micrographs(tmp_path / "out" / "micrographs.star")
    assert [name.rsplit("/", 1)[-1] for name in listed["rlnMicrographName"]] == ["good.mrc"]
    assert "crystalline ice" in (tmp_path / "out" / "report.html").read_text()
    assert run("screen", tmp_path / "broken.tif", "--out", tmp_path / "again")[0] == 1


def test_screening_warns_of_a_set_and_never_stops_it(tmp_path, run, monkeypatch):
    """Its errors are hardly known: were it wrong of all micrographs, `verglas process` would end there."""
    reason = "looks like drift (98 %)"
    judged = {name: (reason,) for name in "abcd"}
    assert judge_set(judged).state == "warn"
    assert judge_set(judged | {"b": (reason, "CTF fits to 12.0 A only")}).state == "warn"
    assert judge_set({name: (reason, "0 picks, median 0") for name in "abcd"}, untrusted="abcd").state == "stop"
    monkeypatch.setattr("verglas.run.pick.screening_reason", lambda _: reason)
    y, x = np.mgrid[:256, :256]
    data = np.random.default_rng(0).normal(size=(256, 256))
    for u in range(40, 256, 44):
        data -= sum(2.0 * (np.hypot(x - u, y - v) < 10) for v in range(40, 256, 44))
    vg.io.write_stack(tmp_path / "a.mrc", data[None].astype(np.float32), 4.0)
    status, output, errors = run(
        "pick", tmp_path / "a.mrc", "-d", "80", "-o", tmp_path / "o", "--method", "log", "--no-pictures", "--json"
    )
    assert status == 0, errors
    record = json.loads(output)
    assert record["verdict"]["state"] == "warn"
    assert record["flagged"] == {str(tmp_path / "a.mrc"): [reason]}


def test_a_micrograph_without_a_finite_pixel_is_refused():
    with pytest.raises(InputError, match="none of its pixels is finite"):
        screen(vg.Micrograph(np.full((300, 300), np.nan, np.float32), 1.0))
