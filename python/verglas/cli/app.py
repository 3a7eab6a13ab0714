"""The typer application, and what turns an exception into one line and an exit status.

Each command is a module of this package with a function ``register(app)``; ``_COMMANDS`` lists them in the order in
which ``verglas --help`` shows them. Exit status: 0 done, 1 failed (one line says why), 2 usage.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import io
import re
import sys
import warnings
from collections.abc import Iterable, Sequence
from typing import Any, NoReturn

import typer

from verglas._version import __version__
from verglas.cli.files import taken_file_rules
from verglas.cli.inputs import with_inputs_kept
from verglas.cli.machine_limits import MachineLimits, behind_command, taken_limits
from verglas.cli.options import option_name
from verglas.cli.renamed import with_present_names
from verglas.cli.sampling import sample_stacks, taken_profile
from verglas.errors import SettingError, VerglasError, VerglasWarning

_COMMANDS = (
    "info",
    "doctor",
    "demo",
    "mask",
    "resample",
    "flip_hand",
    "fsc",
    "single_map_resolution",
    "simulate",
    "project",
    "class2d",
    "select",
    "merge",
    "outliers",
    "consensus",
    "check_bias",
    "align",
    "abinitio",
    "reconstruct",
    "refine",
    "heterogeneity",
    "class3d",
    "variability",
    "multibody",
    "deform",
    "subtract",
    "expand",
    "sieve",
    "postprocess",
    "directional",
    "local_resolution",
    "local_sharpen",
    "map_model",
    "model_statistics",
    "validate",
    "deposit",
    "orientations",
    "tilt_pairs",
    "tomogram",
    "report",
    "serve",
    "status",
    "bugreport",
    "benchmark",
    "plan",
    "check_conventions",
    "check_import",
    "convert",
    "gain",
    "motion",
    "ctf",
    "ctf_refine",
    "polish",
    "denoise",
    "screen",
    "pick",
    "extract",
    "process",
)

# The base of every usage error. Newer versions of typer bring their own copy of click, older ones use the package:
# asking typer for its class is right with both.
_ClickException: Any = next(base for base in typer.BadParameter.__mro__ if base.__name__ == "ClickException")

_TYPER_INTERRUPTED = 130  # what newer typers return instead of raising

app = typer.Typer(
    name="verglas",
    help="Cryo-EM single-particle images to 3D maps one can trust.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(value: bool) -> None:
    if value:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def _options(
    version: bool = typer.Option(False, "--version", callback=_print_version, is_eager=True, help="Print the version."),
    debug: bool = typer.Option(False, "--debug", help="Show the traceback of a failure."),
    paths: str = typer.Option(
        "relion",
        "--paths",
        help="Names in files written: relative to the project's folder (relion), to the file (star), or absolute.",
    ),
    stack_root: str = typer.Option(None, "--stack-root", help="Folder in which stacks are looked for first."),
    any_pixel_size: bool = typer.Option(
        False,
        "--any-pixel-size",
        help="Read stacks whose header gives a pixel size over 1 % off the metadata's.",
    ),
    map_dtype: str = typer.Option(
        "float32", "--map-dtype", help="Of all maps that are written: float32, or float16 in half the space."
    ),
    threads: int = typer.Option(None, "--threads", help="Of every command that computes: threads [all]."),
    memory: float = typer.Option(
        None,
        "--memory",
        help="Of every command: memory in GB that is not passed. Some plan with it; the others stop with a sentence.",
    ),
    device: str = typer.Option(None, "--device", help="Of every command that computes: cpu, or what it says itself."),
    profile: str = typer.Option(
        None, "--profile", help="Draw where the time goes: flame chart (.svg), speedscope (.json), text; needs py-spy."
    ),
) -> None:
    pass


def _fail(message: str, status: int) -> NoReturn:
    print(f"verglas: {message}", file=sys.stderr)
    sys.exit(status)


def _show_warning(message: Warning | str, category: type[Warning], *_: object) -> None:
    """One line, as errors; the place in the code that warned says nothing to a user."""
    kind = "warning" if issubclass(category, VerglasWarning) else category.__name__
    print(f"verglas: {kind}: {message}", file=sys.stderr)


def _keep_brackets(commands: Iterable[Any]) -> None:
    """Help texts hold defaults in brackets, ``Threads [all]``: what lays them out would take these for markup."""
    for command in commands:
        for parameter in inspect.signature(command.callback).parameters.values():
            text = getattr(parameter.default, "help", None)
            if text:
                parameter.default.help = re.sub(r"\[(?=[a-z])", r"\\[", text)


@functools.cache
def _register_command(name: str) -> None:
    importlib.import_module(f"verglas.cli.{name}").register(app)
    command = app.registered_commands[-1]
    if command.callback is not None:
        command.callback = with_inputs_kept(name, command.callback)
    _keep_brackets([command])


def _program(arguments: Sequence[str]) -> Any:
    """The command that is called, or all of them for a list: each loads what its options are made from."""
    called = next((a for a in arguments if not a.startswith("-")), "").replace("-", "_")
    if arguments[:1] == ["--version"]:
        called = _COMMANDS[0]  # one is enough to print it, and the others take a second to load
    for name in [called] if called in _COMMANDS else _COMMANDS:
        _register_command(name)
    order = {command: i for i, command in enumerate(_COMMANDS)}
    app.registered_commands.sort(key=lambda command: order.get(_module_of(command), len(order)))
    return typer.main.get_command(app)


def _own_options(program: Any, arguments: Sequence[str]) -> tuple[str, set[str]]:
    """The command that is called, and its options."""
    called = next((a for a in arguments if not a.startswith("-")), "")
    command = getattr(program, "commands", {}).get(called)
    parameters = [] if command is None else command.params
    return called or "verglas", {option for parameter in parameters for option in getattr(parameter, "opts", ())}


def _module_of(command: Any) -> str:
    return str(command.name or command.callback.__name__).replace("-", "_")


def _write_any_text() -> None:
    """Names and signs that a terminal's encoding lacks become question marks: no reason for a job to end."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def _refuse_empty(arguments: Sequence[str]) -> None:
    """``--out "$OUT"`` with a variable that is not set: an empty path would be the working directory."""
    for number, argument in enumerate(arguments):
        option, _, value = argument.partition("=")
        if not argument or (option.startswith("--") and "=" in argument and not value):
            beside = option if argument else (arguments[number - 1] if number else "the command")
            _fail(f"an empty argument after {beside}: is a variable of the shell not set?", 2)


def _stop(error: Exception) -> NoReturn:
    """One line that says what failed, and the exit status: 2 for a wrong call, else 1."""
    if isinstance(error, typer.Abort):
        _fail("interrupted", 1)
    if isinstance(error, _ClickException):
        error.show()
        sys.exit(error.exit_code)
    if isinstance(error, SettingError):
        said = "; ".join(f"{option_name(name)}: {what}" if name else what for name, what in error.problems)
        _fail(f"{error.job}: {said} [{error.code}]", 2)
    if isinstance(error, VerglasError):
        _fail(f"{error} [{error.code}]", 1)
    if isinstance(error, (OSError, MemoryError)):
        _fail(str(error) or type(error).__name__, 1)
    _fail(f"{type(error).__name__}: {error} (run again with --debug for the traceback)", 1)


def main(argv: list[str] | None = None) -> None:
    """Run the command line; never returns normally.

    ``--debug``, which re-raises what failed, ``--profile`` and the options about files may stand anywhere.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in arguments
    arguments = [a for a in arguments if a != "--debug"]
    warnings.showwarning = _show_warning  # type: ignore[assignment]
    _write_any_text()
    limits = MachineLimits()
    try:
        _refuse_empty(arguments)
        arguments, rules = taken_file_rules(arguments)
        arguments, profile = taken_profile(with_present_names(arguments))
        with rules, sample_stacks(profile):
            arguments = behind_command(arguments)
            program = _program(arguments)
            called, own = _own_options(program, arguments)
            arguments, limits = taken_limits(arguments, own, called)
            with limits.in_force():
                status = program.main(args=arguments, prog_name="verglas", standalone_mode=False)
    except Exception as error:
        if limits.sentence:
            _fail(limits.sentence, 1)
        if debug and not isinstance(error, (typer.Abort, _ClickException)):
            raise
        _stop(error)
    except KeyboardInterrupt:
        _fail(limits.sentence or "interrupted", 1)
    if status == _TYPER_INTERRUPTED:
        _fail(limits.sentence or "interrupted", 1)
    sys.exit(status if isinstance(status, int) else 0)
