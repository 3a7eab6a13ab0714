"""Jobs stopped and begun again: only ours, only on this machine, only by what they were begun with."""

from __future__ import annotations

import os
import shlex
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from verglas.errors import InputError, VerglasError
from verglas.io import read_json
from verglas.run.tenure import is_locked
from verglas.window.job import Job

_LOG = "run.log"
# These ask to be told that they go on; the others do it by themselves.
_ASK = ("refine",)


def owner_of(job: Job) -> int:
    """Process that holds a job's folder on this machine; 0: none.

    The lock says so, not ``run.json``: a number that a record holds may be another process's by now.
    """
    try:
        pid, _, host = (job.folder / ".lock").read_text(encoding="ascii").strip().partition(" ")
    except (OSError, UnicodeDecodeError):
        return 0
    mine = pid.isdecimal() and host == socket.gethostname() and is_locked(job.folder)
    return int(pid) if mine and _has_open(int(pid), job.folder / ".lock") else 0


def _has_open(pid: int, path: Path) -> bool:
    """Whether a process has a file open; taken on trust where there is no ``/proc``.

    A lock lives on in the workers of a process that was killed, and its number may be another's by then.
    """
    if not Path("/proc/self/fd").is_dir():
        return True
    with suppress(OSError):
        state = os.stat(path)
        for handle in os.listdir(f"/proc/{pid}/fd"):
            with suppress(OSError):  # closed since
                if os.path.samestat(state, os.stat(f"/proc/{pid}/fd/{handle}")):
                    return True
    return False


def can_stop(job: Job) -> bool:
    """Whether a job runs here and can be told to stop; a stage is stopped by its project."""
    return job.changeable and job.goes_on and owner_of(job) > 1


def stop(job: Job) -> str:
    """Tell a job to stop where nothing is left half done; it keeps its last checkpoint.

    Raises
    ------
    InputError
        It does not run on this machine.
    """
    pid = owner_of(job) if job.changeable else 0
    if pid <= 1:
        raise InputError(f"{job.folder}: no process of this machine works there")
    try:
        os.kill(pid, signal.SIGTERM)
    except OSError as error:
        raise InputError(f"{job.folder}: its process {pid} cannot be told to stop: {error.strerror}") from error
    return f"told process {pid} to stop; it does so where nothing is left half done"


def resume_command(job: Job) -> list[str]:
    """Arguments of ``verglas`` that go on with a job that has ended before its time; none where they are not known."""
    if not job.changeable or job.state not in ("stopped", "dead", "failed"):
        return []
    if (job.folder / "project.json").is_file():
        return ["process", "--out", str(job.folder)]
    arguments = _begun_with(job)
    more = ["--resume"] if arguments and job.command in _ASK and "--resume" not in arguments else []
    return [*arguments, *more]


def _call(job: Job) -> dict[str, Any]:
    try:
        call = read_json(job.folder / "run.json").get("call", {})
    except VerglasError:
        return {}
    return call if isinstance(call, dict) else {}


def _folder(job: Job) -> Path:
    folder = Path(str(_call(job).get("folder", "")))
    return folder if folder.is_absolute() and folder.is_dir() else job.folder.parent


def _writes_into(job: Job, arguments: Sequence[str]) -> bool:
    """Whether the command's folder is the job's: a record that was copied must not begin another's job.

    Every ``--out`` is looked at: the command takes the last one.
    """
    folders = []
    for one, value in zip(arguments, [*arguments[1:], ""], strict=True):
        name, is_joined, joined = one.partition("=")
        if name in ("--out", "-o"):
            folders.append((_folder(job) / (joined if is_joined else value)).resolve())
    return bool(folders) and all(folder == job.folder.resolve() for folder in folders)


def resume_text(job: Job) -> str:
    """The command that goes on with a job, for a terminal; empty where it is not known."""
    arguments = resume_command(job)
    return f"cd {shlex.quote(str(_folder(job)))} && verglas {shlex.join(arguments)}" if arguments else ""


def given_option(job: Job, option: str) -> Path | None:
    """The path that an option of the command had with which a job was begun, the last one; None without."""
    arguments = _begun_with(job)
    values = [
        joined if is_joined else value
        for one, value in zip(arguments, [*arguments[1:], ""], strict=bool(arguments))
        for name, is_joined, joined in [one.partition("=")]
        if name == option
    ]
    return _folder(job) / values[-1] if values else None


def repeat_text(job: Job, out: Path, option: str, value: Path) -> str:
    """The command that a job was begun with, an option set and its results in another folder; empty where not known."""
    arguments = _begun_with(job)
    if "--" in arguments:  # what is added would be taken for names of files
        return ""
    words: list[str] = []
    follows = False  # what is given anew
    for one in arguments:
        if not follows and not one.startswith(("--out=", f"{option}=")):
            words.append(one)
        follows = not follows and one in ("--out", "-o", option)
        if follows:
            words.pop()
    words += [option, str(value), "--out", str(out)]
    return f"cd {shlex.quote(str(_folder(job)))} && verglas {shlex.join(words)}" if arguments else ""


def _begun_with(job: Job) -> list[str]:
    """Arguments of ``verglas`` with which a job was begun; none where they are not known, or another's."""
    arguments = _call(job).get("arguments")
    if not isinstance(arguments, list) or not all(isinstance(one, str) for one in arguments):
        return []
    return arguments if arguments[:1] == [job.command] and _writes_into(job, arguments) else []


def resume(job: Job) -> str:
    """Begin a job again that was stopped, in a process of its own that outlasts the server.

    Raises
    ------
    InputError
        How it was begun is not known, or it runs.
    """
    arguments = resume_command(job)
    if not arguments:
        raise InputError(f"{job.folder}: it was not stopped, or how it was begun is not known: give its command")
    if is_locked(job.folder):
        raise InputError(f"{job.folder}: a process works there already")
    with open(job.folder / _LOG, "ab", opener=_not_through_link) as log:
        made = subprocess.Popen(
            [sys.executable, "-m", "verglas", *arguments],
            cwd=_folder(job),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C at the server is not meant for it
        )
    _begun.append(made)
    return f"began again as process {made.pid}; what it says goes to {_LOG}"


def _not_through_link(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW, 0o666)


_begun: list[subprocess.Popen[bytes]] = []  # asked now and then, so that those that have ended leave no zombies


def reap() -> None:
    """Let go of processes that have ended."""
    _begun[:] = [one for one in _begun if one.poll() is None]
