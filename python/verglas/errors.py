"""The exceptions verglas raises: each message says what was wrong, where, what was expected and what to do."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

__all__ = [
    "DeviceError",
    "DeviceMemoryError",
    "FormatError",
    "InputError",
    "RowError",
    "SettingError",
    "VerglasError",
    "VerglasWarning",
]
__dir__ = partial(sorted, __all__)


class VerglasError(Exception):
    """Base of every error that verglas raises on purpose; the command line prints it as one line, exit status 1.

    Attributes
    ----------
    code : str
        The kind of error; docs/guide/errors.md says what each means and what to do. Kept in error.log of a run folder.
    """

    code = "VG-ERROR"


class InputError(VerglasError, ValueError):
    """An argument or a file's content is not what it has to be."""

    code = "VG-INPUT"


class RowError(InputError, IndexError):
    """A row that is not there; also an IndexError, which ends Python's own loops."""

    code = "VG-ROW"


class FormatError(InputError):
    """A file breaks its format; the message names the file and the line, label or particle."""

    code = "VG-FORMAT"


class SettingError(InputError):
    """Settings of a job are unknown, missing or out of bounds; all of them are named. Exit status 2: a wrong call.

    Parameters
    ----------
    job : str
        Whose settings.
    problems : sequence of (name, sentence)
        Every setting that is wrong; an empty name where the sentence names it.
    """

    code = "VG-SETTING"

    def __init__(self, job: str, problems: Sequence[tuple[str, str]]) -> None:
        self.job, self.problems = job, tuple(problems)
        super().__init__(f"{job}: " + "; ".join(f"{name}: {said}" if name else said for name, said in problems))

    def __reduce__(self) -> tuple[type[SettingError], tuple[str, tuple[tuple[str, str], ...]]]:
        return type(self), (self.job, self.problems)  # the default would hand the sentence to __init__


class DeviceError(VerglasError, RuntimeError):
    """A device cannot be used: no driver, unknown name, out of memory."""

    code = "VG-DEVICE"


class DeviceMemoryError(DeviceError):
    """A device had too little memory for what was asked; with fewer images at a time it may suffice."""

    code = "VG-DEVICE-MEMORY"


class VerglasWarning(UserWarning):
    """Something a file or an argument left out or contradicts, what was assumed, and how to say otherwise."""
