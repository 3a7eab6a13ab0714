"""Settings, the options made from them, and the listener: one way for every job."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import io
import pickle
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

import verglas as vg
from verglas._screen import Screen, shown_to
from verglas.assessment.postprocess import PostprocessSettings
from verglas.classification import BiasSettings, Class2DSettings
from verglas.cli.options import option_name, with_settings
from verglas.errors import SettingError, VerglasWarning
from verglas.heterogeneity import ClassSettings
from verglas.initial_model import AbInitioSettings
from verglas.io import write_json
from verglas.picking import PickSettings
from verglas.refinement.settings import RefineSettings
from verglas.run.checkpoint import Checkpoints
from verglas.run.common_lines import CommonLinesJob, common_lines_files
from verglas.run.demo import DemoSettings
from verglas.run.directional import directional_files
from verglas.run.maps import MaskShape, fsc_of_files
from verglas.run.merge import flip_files, merge_files
from verglas.run.reconstruct import ProjectJob, project_files
from verglas.run.refine_folder import refuse_changes
from verglas.search import AlignSettings
from verglas.types import Snapshot
from verglas.types.listener import Listener, Silence
from verglas.types.settings import check_settings, result_settings, setting, setting_of, settings_from


@dataclass(frozen=True)
class BlurSettings:
    width_A: float = setting(10.0, "Width of the Gaussian.", more_than=0)
    shape: Literal["gauss", "box"] = setting("gauss", "Form of the kernel.")
    limit_A: float | None = setting(None, "Finest detail.", more_than=0, default_words="Nyquist")
    symmetric: bool = setting(True, "Both directions.")
    passes: int = setting(1, "Times.", at_least=1, at_most=9, flags=("-p",))
    verbose: bool = setting(False, "Talk.", changes_result=False, on_command_line=False)

    def __post_init__(self) -> None:
        check_settings("blur", self)


def test_everything_wrong_is_named_at_once():
    with pytest.raises(SettingError) as caught:
        settings_from("blur", BlurSettings, width_A=-1.0, shape="disc", passes=12)
    assert [name for name, _ in caught.value.problems] == ["width_A", "shape", "passes"]
    assert "width_A: expected more than 0, got -1" in str(caught.value)
    assert "shape: expected gauss or box, got 'disc'" in str(caught.value)
    assert "passes: expected at least 1 and at most 9, got 12" in str(caught.value)


def test_unknown_settings_are_named_with_the_nearest_known():
    with pytest.raises(SettingError, match=r"unknown settings shap \(shape\?\), zzz; known are limit_A"):
        settings_from("blur", BlurSettings, shap="box", zzz=1)


def test_missing_settings_are_named():
    @dataclass(frozen=True)
    class Needed:
        diameter_A: float = setting(help="Of the particle.")
        step_deg: float = setting(help="Of the grid.")

    with pytest.raises(SettingError, match="diameter_A: is needed; step_deg: is needed"):
        settings_from("job", Needed)


def test_changes_apply_to_given_settings():
    base = BlurSettings(passes=3)
    assert settings_from("blur", BlurSettings, base, width_A=2.0) == BlurSettings(width_A=2.0, passes=3)
    with pytest.raises(SettingError, match="expected BlurSettings, got dict"):
        settings_from("blur", BlurSettings, {"passes": 3})  # type: ignore[type-var]


def test_nan_is_out_of_bounds_and_none_is_the_default():
    with pytest.raises(SettingError, match="width_A: expected more than 0, got nan"):
        BlurSettings(width_A=float("nan"))
    assert BlurSettings(limit_A=None).limit_A is None


def test_what_changes_no_result_is_left_out_of_the_record():
    assert "verbose" not in result_settings(BlurSettings())
    assert result_settings(BlurSettings(passes=2))["passes"] == 2


def test_the_error_survives_another_process():
    error = SettingError("blur", [("a", "is needed")])
    again = pickle.loads(pickle.dumps(error))
    assert str(again) == str(error) == "blur: a: is needed"
    assert again.problems == error.problems


def _application(seen: list[dict[str, Any]]) -> typer.Typer:
    app = typer.Typer()

    @app.command()
    @with_settings(BlurSettings)
    def blur(
        source: str = typer.Argument(...),
        threads: int = typer.Option(None, "--threads"),
        *,
        settings: dict[str, Any],
    ) -> None:
        seen.append({**settings, "source": source, "threads": threads})

    return app


def test_options_are_made_from_the_fields():
    seen: list[dict[str, Any]] = []
    app = _application(seen)
    done = CliRunner().invoke(app, ["a.mrc", "--width", "3", "--shape", "box", "--no-symmetric", "-p", "4"])
    assert done.exit_code == 0, done.output
    given = {"width_A": 3.0, "shape": "box", "symmetric": False, "passes": 4}
    assert seen == [{**given, "source": "a.mrc", "threads": None}]
    assert CliRunner().invoke(app, ["a.mrc"]).exit_code == 0
    assert seen[1] == {"source": "a.mrc", "threads": None}  # defaults are stated in the class alone
    assert CliRunner().invoke(app, ["a.mrc", "--passes", "1"]).exit_code == 0
    assert seen[2]["passes"] == 1  # given, though it equals the default


@dataclass(frozen=True)
class MovieSettings:
    dose_e_A2: float | None = setting(None, "Exposure of a frame.", more_than=0)
    band_A: tuple[float, float] = setting((20.0, 4.0), "Coarse and fine end.")
    phase_deg: float | tuple[float, float] = setting(0.0, "Fixed, or a range.")
    upsampling: Literal[1, 2, 4] = setting(1, "Of events.")


def test_ranges_choices_of_numbers_and_two_classes_of_settings():
    seen: list[Any] = []
    app = typer.Typer()

    @app.command()
    @with_settings(BlurSettings, parameter="blur")
    @with_settings(MovieSettings, leave_out=["phase_deg"])
    def both(source: str = typer.Argument(...), *, settings: dict[str, Any], blur: dict[str, Any]) -> None:
        seen.append((source, settings, blur))

    given = ["--band", "10", "3", "--upsampling", "4", "--dose", "1.5", "--passes", "2"]
    done = CliRunner().invoke(app, ["m.tif", *given])
    assert done.exit_code == 0, done.output
    assert seen == [("m.tif", {"band_A": (10.0, 3.0), "upsampling": 4, "dose_e_A2": 1.5}, {"passes": 2})]
    assert "--phase" not in CliRunner().invoke(app, ["--help"]).output
    alone = typer.Typer()
    alone.command()(with_settings(MovieSettings)(lambda *, settings: seen.append(settings)))
    assert CliRunner().invoke(alone, ["--phase", "0", "180"]).exit_code == 0
    assert seen[1] == {"phase_deg": (0.0, 180.0)}


def test_choices_are_refused_by_the_command_line():
    done = CliRunner().invoke(_application([]), ["a.mrc", "--shape", "disc"])
    assert done.exit_code == 2
    assert "gauss" in done.output
    assert "box" in done.output


def test_help_states_unit_default_and_choices():
    text = CliRunner().invoke(_application([]), ["--help"], env={"COLUMNS": "200"}).output
    assert "Width of the Gaussian, A." in text
    assert "Nyquist" in text
    assert "gauss|box" in text
    assert "--verbose" not in text


def test_silence_is_a_listener_and_takes_everything():
    assert isinstance(Silence(), Listener)
    assert isinstance(Screen(lines_only=True), Listener)
    with shown_to(None) as listener:
        listener.say("x")
        listener.progress("p", 1, 2)
        listener.iteration({"a": 1.0})
        listener.note("w", "x")


def test_lines_of_a_log(monkeypatch):
    out = io.StringIO()
    monkeypatch.setattr("sys.stderr", out)
    now = [0.0]
    monkeypatch.setattr("verglas._screen.time.monotonic", lambda: now[0])
    with Screen(lines_only=True) as screen:
        screen.say("the plan")
        for done in range(0, 101):
            now[0] += 1.0
            screen.progress("particles", done, 100)
        screen.iteration({"iteration": 1, "resolution_A": 8.25})
        screen.note("views", "all from one side")
    lines = out.getvalue().splitlines()
    assert lines[0] == "the plan"
    assert lines[1].startswith("particles: 29 of 100, ")
    assert len(lines) == 7  # three in 100 s, the end, an iteration, a note
    assert lines[-3:] == ["particles: 100 of 100", "iteration 1  resolution_A 8.25", "views: all from one side"]


def test_the_screen_is_chosen_by_word_and_can_be_silenced(monkeypatch, capsys):
    with shown_to("screen") as listener:
        listener.say("heard")
    monkeypatch.setenv("VERGLAS_PROGRESS", "0")
    with shown_to("screen") as listener:
        listener.say("not heard")
    assert capsys.readouterr().err == "heard\n"


@pytest.mark.parametrize(
    ("command", "kind", "own"),
    [
        ("align", AlignSettings, ()),
        ("class2d", Class2DSettings, ()),
        ("check_bias", BiasSettings, ()),
        ("abinitio", AbInitioSettings, ("method",)),  # common-lines is a method of the command alone
        ("refine", RefineSettings, ()),
    ],
)
def test_options_of_a_command_are_the_fields_of_its_settings_with_their_defaults(command, kind, own):
    parameters = inspect.signature(getattr(importlib.import_module(f"verglas.cli.{command}"), command)).parameters
    for field in dataclasses.fields(kind):
        if not setting_of(field).on_command_line or field.name in own:
            continue
        option = parameters[field.name].default
        assert option.param_decls[0].split("/")[0] == option_name(field.name)
        assert getattr(option.default, "value", option.default) == field.default


FURTHER = {MaskShape: {"threshold": 0.1}}  # what the class asks for beside


@pytest.mark.parametrize(
    ("kind", "former", "present"),
    [
        (Class2DSettings, "start_resolution_A", "initial_resolution_A"),
        (AbInitioSettings, "max_particles", "most_particles"),
        (RefineSettings, "tau2_fudge", "prior_factor"),
        (Class2DSettings, "regularisation", "prior_factor"),
        (ClassSettings, "regularisation", "prior_factor"),
        (DemoSettings, "b_factor_A2", "envelope_b_factor_A2"),
        (MaskShape, "edge_A", "soft_edge_A"),
        (PickSettings, "edge_A", "border_A"),
        (PostprocessSettings, "lowpass_A", "low_pass_A"),
    ],
)
def test_former_names_of_settings_work_and_say_the_present_one(kind, former, present):
    with pytest.warns(VerglasWarning, match=f"{former} is now called {present}"):
        settings = settings_from("job", kind, **FURTHER.get(kind, {}), **{former: 25})
    assert getattr(settings, present) == 25


def test_listeners_by_their_former_names_are_sent_to_the_present_one():
    with pytest.raises(SettingError, match=r"unknown settings progress \(now listener=\), say \(now listener=\)"):
        settings_from("blur", BlurSettings, say=print, progress=print)


class Bars(Silence):
    def __init__(self) -> None:
        self.told: list[tuple[str, int, int]] = []

    def progress(self, phase: str, done: int, total: int) -> None:
        self.told.append((phase, done, total))

    @property
    def ends(self) -> dict[str, tuple[int, int]]:
        return {phase: (done, total) for phase, done, total in self.told}


def test_jobs_on_two_maps_tell_a_listener(tmp_path):
    rng = np.random.default_rng(0)
    for name in ("a", "b"):
        vg.write_map(tmp_path / f"{name}.mrc", vg.Map(rng.normal(size=(24, 24, 24)).astype(np.float32), 4.0))
    bars, paths = Bars(), (tmp_path / "a.mrc", tmp_path / "b.mrc")
    fsc_of_files(*paths, listener=bars)
    directional_files(*paths, listener=bars)
    project_files(ProjectJob(paths[0], tmp_path / "p.mrcs", step_deg=60), threads=1, listener=bars)
    assert {"fsc", "directions", "project"} == set(bars.ends)
    assert all(done == total for done, total in bars.ends.values())


def test_jobs_on_several_files_and_common_lines_tell_a_listener(tmp_path):
    density = vg.simulate.density(vg.simulate.phantom(24, 5.0, 90.0), 24, 5.0)
    poses = vg.Poses(np.random.default_rng(1).uniform(0, 180, (6, 3)), np.zeros((6, 2)))
    vg.write_map(tmp_path / "map.mrc", density)
    star = tmp_path / "p.star"
    vg.write_particles(star, vg.Particles.from_images(vg.project(density, poses), 5.0, poses=poses))
    bars = Bars()
    merge_files([star, star], tmp_path / "both.star", listener=bars)
    flip_files([tmp_path / "map.mrc", star], tmp_path / "flipped", listener=bars)
    common_lines_files(CommonLinesJob(star, tmp_path / "first", n_theta=60, threads=1), listener=bars)
    # Each of eight sweeps moves each of the six images.
    assert bars.ends == {"files read": (2, 2), "files flipped": (2, 2), "averages oriented": (48, 48)}
    oriented = [done for phase, done, _ in bars.told if phase == "averages oriented"]
    assert oriented == list(range(1, 49))


def test_simulated_filaments_name_a_setting_that_is_none():
    with pytest.raises(SettingError, match=r"simulate.filaments: unknown setting pixel_size \(pixel_size_A\?\)"):
        vg.simulate.filaments(pixel_size=4.0)


def test_a_run_goes_on_with_its_files_named_in_another_way(tmp_path, monkeypatch):
    """Relative names were in the folder that the run was started in; a file of the same name elsewhere is another."""
    home, other = tmp_path / "home", tmp_path / "other"
    home.mkdir()
    other.mkdir()
    record = {"settings": {"particles": "a.star", "references": ["b.mrc"], "mask": None}}
    write_json(home / "run.json", record | {"verglas": vg.__version__, "directory": str(home)})
    monkeypatch.chdir(other)
    now = {"particles": str(home / "a.star"), "references": ["../home/b.mrc"], "mask": None}
    assert refuse_changes(home, now, allowed=False) == []
    with pytest.raises(vg.InputError, match=r"references: was \['b.mrc'\], now \['.*other/b.mrc'\]"):
        refuse_changes(home, now | {"references": [str(other / "b.mrc")]}, allowed=False)


def test_checkpoints_go_on_with_files_named_in_another_way(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    first = Checkpoints(tmp_path, {"map": "a.mrc", "masks": ["b.mrc", "c.mrc"]}, {})
    first.open()
    first.part("start").save(Snapshot({}, {}))
    Checkpoints(tmp_path, {"map": str(tmp_path / "a.mrc"), "masks": ["./b.mrc", "c.mrc"]}, {}).open(resume=True)
    with pytest.raises(vg.InputError, match=r"other settings .*masks: was \['b.mrc', 'c.mrc'\]"):
        Checkpoints(tmp_path, {"map": "a.mrc", "masks": ["c.mrc", "b.mrc"]}, {}).open()
