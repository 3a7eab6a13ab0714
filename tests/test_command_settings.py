"""All commands at once: help on every setting, defaults stated once, one listener, one word for one thing."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import re
import typing

import numpy as np
import pytest

import verglas as vg
from verglas.cli.app import _program
from verglas.cli.options import option_name
from verglas.cli.renamed import _FORMER, with_present_names
from verglas.errors import SettingError
from verglas.reconstruction import ReconstructSettings
from verglas.refinement import RefineSettings
from verglas.types.settings import choices_of, setting_of, unit_of

COMMANDS = _program([]).commands
WITH_SETTINGS = sorted(name for name, one in COMMANDS.items() if hasattr(one.callback, "settings_fields"))
CLASSES = sorted({kind for name in WITH_SETTINGS for kind in COMMANDS[name].callback.settings_fields}, key=str)
# Commands whose work may take minutes, and the function of each.
JOBS = {
    "abinitio": "verglas.run.abinitio.abinitio",
    "align": "verglas.run.align.align_files",
    "check-bias": "verglas.run.check_bias.check_bias_files",
    "class2d": "verglas.run.class2d.class2d_files",
    "ctf": "verglas.run.ctf.ctf_files",
    "demo": "verglas.run.demo.demo",
    "extract": "verglas.run.extract.extract_files",
    "gain": "verglas.run.gain.estimate_gain_files",
    "motion": "verglas.run.motion.correct_movies",
    "pick": "verglas.run.pick.pick_files",
    "postprocess": "verglas.run.postprocess.postprocess_files",
    "process": "verglas.pipeline.process",
    "reconstruct": "verglas.run.reconstruct.reconstruct_files",
    "refine": "verglas.run.refine.refine",
    "resample": "verglas.run.maps.resample_file",
    "simulate": "verglas.run.simulate.particles",
}


def own_parameters(command):
    """Of a command's function: those that were not made from a field of its settings."""
    made = {name for names in command.callback.settings_fields.values() for name in names}
    return [p for p in command.params if p.name not in made]


def test_most_commands_have_settings():
    assert {"ctf", "extract", "motion", "pick", "postprocess", "reconstruct", "refine", "simulate"} <= set(
        WITH_SETTINGS
    )


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_every_setting_has_help(kind):
    made = [f for f in dataclasses.fields(kind) if f.init and f.default_factory is dataclasses.MISSING]
    without = [f.name for f in made if not setting_of(f).help.strip()]
    assert not without


@pytest.mark.parametrize("name", WITH_SETTINGS)
def test_options_show_the_defaults_of_the_fields(name):
    """Default, unit and choices of every option are those of its field."""
    command = COMMANDS[name]
    options = {p.name: p for p in command.params}
    annotations = inspect.signature(command.callback).parameters
    for kind, names in command.callback.settings_fields.items():
        hints = typing.get_type_hints(kind)
        for field in (f for f in dataclasses.fields(kind) if f.name in names):
            option = options[field.name]
            assert option_name(field.name) in option.opts
            if choices_of(hints[field.name]):
                choices = [str(c) for c in choices_of(hints[field.name])]
                assert [c.value for c in annotations[field.name].annotation] == choices
            elif field.default is not dataclasses.MISSING and not isinstance(field.default, tuple):
                assert option.default in (field.default, (field.default,) * 2)
            assert unit_of(field.name) in option.help


@pytest.mark.parametrize("name", WITH_SETTINGS)
def test_no_option_repeats_a_default_by_hand(name):
    command = COMMANDS[name]
    fields = {option_name(name) for names in command.callback.settings_fields.values() for name in names}
    for parameter in own_parameters(command):
        assert not fields & set(parameter.opts), f"{name}: {parameter.opts} is stated by hand and a setting"
        said = re.search(r"\[(-?\d+(\.\d+)?)\]", parameter.help or "")
        assert not said or name == "class2d", parameter.help  # whose default memory is read from where it is used


@pytest.mark.parametrize("name", sorted(JOBS))
def test_long_jobs_take_one_listener(name):
    module, function = JOBS[name].rsplit(".", 1)
    parameters = inspect.signature(getattr(importlib.import_module(module), function)).parameters
    assert parameters["listener"].default == "screen"


def test_public_jobs_take_their_settings_whole_or_one_by_one():
    """f(data, settings=None, **changes); ``read_movie`` takes what is known of a movie, which is no choice."""
    for name in set(vg.__all__) - {"read_movie"}:
        value = getattr(vg, name)
        parameters = inspect.signature(value).parameters if inspect.isfunction(value) else {}
        if any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
            assert "changes" in parameters, name
            assert parameters["settings"].default is None, name


class _StopError(Exception):
    pass


def test_refine_takes_settings_as_one_object(monkeypatch):
    resolved = []

    def stop(particles, references, mask, settings, around):
        resolved.append(settings)
        raise _StopError

    monkeypatch.setattr("verglas.run.refine.start_run", stop)
    model = vg.simulate.phantom(16, 5.0, 50.0)
    particles = vg.simulate.particles(model, 4, 16, 5.0, snr=1.0, listener=None)
    given = RefineSettings(classes=2, symmetry="C2", diameter_A=50.0, iterations=3)
    for changes in ({}, {"symmetry": "D2", "iterations": 5}):
        with pytest.raises(_StopError):
            vg.refine(particles, settings=given, listener=None, **changes)
        assert resolved.pop() == dataclasses.replace(given, **changes)
    with pytest.raises(SettingError, match="expected RefineSettings, got dict"):
        vg.refine(particles, settings={"classes": 2})


def test_reconstruct_takes_settings_as_one_object():
    model = vg.simulate.phantom(16, 5.0, 50.0)
    particles = vg.simulate.particles(model, 8, 16, 5.0, snr=1.0, listener=None)
    settings = ReconstructSettings(symmetry="C2", max_resolution_A=20.0)
    whole = vg.reconstruct(particles, settings=settings, listener=None).data
    np.testing.assert_array_equal(whole, vg.reconstruct(particles, "C2", 20.0, listener=None).data)
    changed = vg.reconstruct(particles, "C1", settings=settings, listener=None).data
    np.testing.assert_array_equal(changed, vg.reconstruct(particles, "C1", 20.0, listener=None).data)


def test_no_public_function_has_a_listener_of_another_kind():
    for name in vg.__all__:
        value = getattr(vg, name)
        if inspect.isfunction(value):
            assert not {"progress", "say", "log"} & set(inspect.signature(value).parameters), name


@pytest.mark.parametrize("name", sorted(_FORMER))
def test_former_names_lead_to_options_that_are_there(name, capsys):
    there = {opt for p in COMMANDS[name].params for opt in [*p.opts, *p.secondary_opts]}
    for former, present in _FORMER[name].items():
        assert former not in there
        option = present.partition("=")[0]
        assert option in there
        assert with_present_names([name, former]) == [name, present]
        assert f"{former} is now called {present}" in capsys.readouterr().err


def test_a_number_given_as_regularisation_of_refine_is_the_factor_that_it_was(capsys):
    number = [["refine", "a.star", "--regularisation", "4"], ["refine", "--regularisation=2.5"]]
    expected = [["refine", "a.star", "--prior-factor", "4"], ["refine", "--prior-factor=2.5"]]
    assert [with_present_names(one) for one in number] == expected
    assert capsys.readouterr().err.count("its factor T is now called --prior-factor") == 2
    for named in (["refine", "--regularisation", "local", "4"], ["refine", "--regularisation"]):
        assert with_present_names(named) == named


def test_options_of_settings_are_read_from_the_command_line():
    """Text of the command line reaches the field as its type."""
    made = COMMANDS["ctf"].make_context("ctf", ["a.mrc", "--out", "o", "--defocus", "5000", "20000", "--tilt"])
    assert made.params["defocus_A"] == (5000.0, 20000.0)
    assert made.params["tilt"] is True
