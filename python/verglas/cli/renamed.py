"""Options by their former names: they still work, and say the new name."""

from __future__ import annotations

import sys
from collections.abc import Sequence

# command -> former name -> name, with the value that a switch stands for
_FORMER: dict[str, dict[str, str]] = {
    "align": {"--on-grid": "--no-refine"},
    "abinitio": {"--max-particles": "--most-particles"},
    "class2d": {
        "--no-null": "--no-null-class",
        "--regularisation": "--prior-factor",
        "--start-resolution": "--initial-resolution",
    },
    "class3d": {"--reference": "--map", "--regularisation": "--prior-factor"},
    "extract": {"--fill-edges": "--edge=fill", "--float16": "--dtype=float16", "--keep-centres": "--no-recentre"},
    "gain": {"--frames": "--most-frames"},
    "mask": {"--lowpass": "--low-pass", "--edge": "--soft-edge"},
    "motion": {"--dose": "--dose-per-frame", "--float16": "--dtype=float16"},
    "pick": {"--everywhere": "--no-exclude", "--edge": "--border"},
    "postprocess": {"--lowpass": "--low-pass"},
    "process": {"--dose": "--dose-per-frame"},
    "refine": {"--tau2-fudge": "--prior-factor"},
    "resample": {"--box": "--new-box", "--pixel-size": "--new-pixel-size"},
    "simulate": {"--b-factor": "--envelope-b-factor", "--preferred": "--concentration", "--shift": "--shift-sd"},
    "tomogram": {"--axis": "--tilt-axis"},
}

_PRIOR = "--regularisation"  # of refine


def with_present_names(arguments: Sequence[str]) -> list[str]:
    """The arguments with former names of options replaced; each is said once on standard error.

    Examples
    --------
    >>> from verglas.cli.renamed import with_present_names
    >>> with_present_names(["refine", "a.star", "--tau2-fudge=2"])
    ['refine', 'a.star', '--prior-factor=2']
    """
    command = next((a for a in arguments if not a.startswith("-")), "")
    arguments = _with_prior_factor(arguments) if command == "refine" else arguments
    former = _FORMER.get(command, {})
    out = []
    for argument in arguments:
        name, equals, value = argument.partition("=")
        if name in former:
            print(f"verglas: {name} is now called {former[name]}", file=sys.stderr)
            argument = former[name] + equals + value
        out.append(argument)
    return out


def _with_prior_factor(arguments: Sequence[str]) -> list[str]:
    """``refine --regularisation 4``, which was the factor T before that option named a prior."""
    out = list(arguments)
    for place, argument in enumerate(arguments):
        name, equals, value = argument.partition("=")
        if name != _PRIOR or not _is_number(value if equals else "".join(arguments[place + 1 : place + 2])):
            continue
        print(f"verglas: {_PRIOR} names a prior; its factor T is now called --prior-factor", file=sys.stderr)
        out[place] = "--prior-factor" + equals + value
    return out


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
