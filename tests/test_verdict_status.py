"""A verdict "stop" is exit status 1, whether text or JSON was asked for; what was made is written all the same."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import tifffile
from command_line import main

import verglas as vg
from verglas.cli.progress import exit_if_stop
from verglas.initial_model.consensus import VERDICT_STATES, Verdict
from verglas.run.extract import ExtractSummary
from verglas.types.verdict import Verdict as VerdictOfSet

pytestmark = pytest.mark.usefixtures("blank_figures_of_module")


def test_motion_of_a_set_of_which_most_is_broken(tmp_path, capsys):
    counts = np.random.default_rng(4).poisson(20, (4, 96, 128)).astype(np.uint8)
    for name in ("a", "b"):
        tifffile.imwrite(tmp_path / f"{name}.tif", counts, photometric="minisblack")
        counts = counts[::-1]
    whole = (tmp_path / "b.tif").read_bytes()
    for name in ("b", "c"):
        (tmp_path / f"{name}.tif").write_bytes(whole[:3000])
    out = tmp_path / "out"
    arguments = ["motion", str(tmp_path / "*.tif"), "--pixel-size", "1.5", "--model", "global", "--out", str(out)]
    status, text, _ = main([*arguments, "--json"], capsys)
    assert (status, json.loads(text)["verdict"]["state"]) == (1, "stop")
    assert (out / "micrographs.star").is_file()
    (tmp_path / "b.tif").write_bytes(whole)  # one of three: named, and no reason to stop
    status, text, _ = main(arguments, capsys)
    assert (status, text.splitlines()[-1][:13]) == (0, "verdict: warn")


def test_picks_of_noise(tmp_path, capsys):
    noise = np.random.default_rng(0).normal(size=(256, 256)).astype(np.float32)
    vg.io.write_stack(tmp_path / "m.mrc", noise[None], 4.0)
    arguments = ["pick", str(tmp_path / "m.mrc"), "--diameter", "120", "--no-pictures", "--out", str(tmp_path / "out")]
    status, text, _ = main([*arguments, "--json"], capsys)
    verdict = json.loads(text)["verdict"]
    assert (status, verdict["state"]) == (1, "stop")
    assert "particles and background do not separate" in verdict["reasons"][0]
    assert (tmp_path / "out" / "verdict.json").is_file()
    status, text, _ = main([*arguments, "--threshold", "0.01"], capsys)  # the user has judged what lies above it
    assert (status, text.splitlines()[-1][:13]) == (0, "verdict: warn")


def test_classes_of_noise(tmp_path, capsys):
    model = vg.simulate.phantom(32, 4.0, 90.0)
    particles = vg.simulate.particles(model, 60, 32, 4.0, seed=1, listener=None)
    noise = np.random.default_rng(0).standard_normal((60, 32, 32)).astype(np.float32)
    vg.write_particles(tmp_path / "noise.star", particles.with_source(vg.ArraySource(noise, 4.0)))
    arguments = ["class2d", str(tmp_path / "noise.star"), "-K", "2", "--diameter", "90", "--iterations", "3"]
    status, text, _ = main([*arguments, "--out", str(tmp_path / "out")], capsys)
    assert status == 1
    assert text.startswith("Nothing but noise")
    assert (tmp_path / "out" / "classes.star").is_file()


def test_first_maps_go_on_unless_they_are_noise():
    states = {kind: Verdict(kind, "", 1.0, 0.1, 1, 2).state for kind in VERDICT_STATES}
    assert states == {"found": "go on", "minority": "warn", "unconfirmed": "warn", "undecided": "warn", "noise": "stop"}
    exit_if_stop(states["undecided"])
    with pytest.raises(Exception, match=r"^1$") as stopped:
        exit_if_stop(states["noise"])
    assert stopped.value.exit_code == 1


@pytest.mark.parametrize("form", [[], ["--json"]])
@pytest.mark.parametrize(("state", "expected"), [("stop", 1), ("warn", 0), ("go on", 0)])
class TestStatusOfTheCommand:
    """The jobs themselves are measured elsewhere: here only what their verdict amounts to for a chain of commands."""

    def test_screen(self, state, expected, form, monkeypatch, capsys):
        verdict = {"state": state, "reasons": []}
        record = {"good": 0, "micrographs": 2, "kinds": {}, "set_aside": {}, "verdict": verdict}
        monkeypatch.setattr("verglas.cli.screen.screen_files", lambda job: record)
        assert main(["screen", "a.mrc", "--out", "out", *form], capsys)[0] == expected

    def test_ctf(self, state, expected, form, monkeypatch, capsys):
        numbers = {"good": 0, "micrographs": 2, "seconds": 1.0, "median_resolution_A": 9.0, "flagged": {}, "fits": []}
        numbers |= {"set_aside": {}, "verdict": {"state": state}}
        made = SimpleNamespace(as_dict=lambda: numbers, verdict=VerdictOfSet(state, ()))
        monkeypatch.setattr("verglas.cli.ctf.ctf_files", lambda job: made)
        monkeypatch.setattr("verglas.cli.ctf._tell", lambda *_: None)
        assert main(["ctf", "a.mrc", "--out", "out", *form], capsys)[0] == expected

    def test_extract(self, state, expected, form, monkeypatch, capsys):
        particles = vg.Particles.from_images(np.zeros((2, 8, 8), np.float32), 2.0)
        made = ExtractSummary(particles, 9, [], [], np.zeros(2), VerdictOfSet(state, ("said",)), 1.0)
        monkeypatch.setattr("verglas.cli.extract.extract_files", lambda *_, **__: made)
        arguments = ["extract", "a.mrc", "--picks", "p.star", "--box", "8", "--out", "out"]
        assert main([*arguments, *form], capsys)[0] == expected

    def test_abinitio(self, state, expected, form, monkeypatch, capsys):
        kind = {"stop": "noise", "warn": "undecided", "go on": "found"}[state]
        verdict = Verdict(kind, "said.", 1.0, 0.1, 1, 2)
        made = SimpleNamespace(verdict=verdict, symmetry=None, seconds=1.0, summary=dict)
        monkeypatch.setattr("verglas.cli.abinitio.abinitio_files", lambda *_, **__: made)
        assert main(["abinitio", "a.star", "--diameter", "90", "--out", "out", *form], capsys)[0] == expected

    def test_polish_and_ctf_refine(self, state, expected, form, monkeypatch, capsys):
        """Status 1 where the file to go on with was not made: that is so only of polishing."""
        made = SimpleNamespace(changed=state != "stop", as_dict=dict, verdict="said")
        monkeypatch.setattr("verglas.cli.polish.polish_files", lambda *_, **__: made)
        assert main(["polish", "a.star", "b.star", "--out", "out", *form], capsys)[0] == expected
        fit = {"what": "defocus", "kept": state != "stop", "gain_nats": 1.0, "gain_error_nats": 1.0}
        told = {"rounds": [{"fits": [fit]}], "verdict": "said", "particles": 2, "seconds": 1.0}
        monkeypatch.setattr("verglas.cli.ctf_refine.ctf_refine_files", lambda job: told)
        assert main(["ctf-refine", "a.star", "--out", "out", *form], capsys)[0] == 0
