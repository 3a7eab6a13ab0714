"""Options by their former names: they still work, and say the new name."""

from __future__ import annotations

import sys
from collections.abc import Sequence

# command -> former name -> name, with the value that a switch stands for
_FORMER: dict[str, dict[str, str]] = {
    "align": {"--on-grid": "--no-refine"},
    "abinitio": {"--max-particles": "--most-particles"},
    "class2d": {"--no-null": "--no-null-class", "--start-resolution": "--initial-resolution"},
    "extract": {"--fill-edges": "--edge=fill", "--float16": "--dtype=float16", "--keep-centres": "--no-recentre"},
    "gain": {"--frames": "--most-frames"},
    "mask": {"--lowpass": "--low-pass", "--edge": "--soft-edge"},
    "motion": {"--dose": "--dose-per-frame", "--float16": "--dtype=float16"},
    "pick": {"--everywhere": "--no-exclude", "--edge": "--border"},
    "postprocess": {"--lowpass": "--low-pass"},
    "refine": {"--tau2-fudge": "--prior-factor"},
    "resample": {"--box": "--new-box", "--pixel-size": "--new-pixel-size"},
    "simulate": {"--b-factor": "--envelope-b-factor", "--preferred": "--concentration", "--shift": "--shift-sd"},
    "tomogram": {"--axis": "--tilt-axis"},
}


def with_present_names(arguments: Sequence[str]) -> list[str]:
    """The arguments with former names of options replaced; each is said once on standard error.

    Examples
    --------
    >>> from verglas.cli.renamed import with_present_names
    >>> with_present_names(["refine", "a.star", "--tau2-fudge=2"])
    ['refine', 'a.star', '--prior-factor=2']
    """
    command = next((a for a in arguments if not a.startswith("-")), "")
    former = _FORMER.get(command, {})
    out = []
    for argument in arguments:
        name, equals, value = argument.partition("=")
        if name in former:
            print(f"verglas: {name} is now called {former[name]}", file=sys.stderr)
            argument = former[name] + equals + value
        out.append(argument)
    return out
