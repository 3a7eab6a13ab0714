"""A job alone in its folder: a lock, ``run.json`` with a heartbeat, a clean end at SIGTERM, a watchdog.

Whoever works in a folder holds a lock on it, which ends with the process however it ends. ``run.json`` says what runs,
where, and how far it is; a thread writes the time into it, so that a process that was killed, or hangs, can be told
from one that works (``verglas status``). A phase without progress leaves the stacks of all threads in ``stalled.log``.
"""

from __future__ import annotations

import faulthandler
import fcntl
import json
import os
import shutil
import signal
import socket
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, NamedTuple, TextIO

from verglas._version import __version__
from verglas.errors import InputError, VerglasError, VerglasWarning
from verglas.io import check_folder, write_bytes, write_json
from verglas.run.columns import keep_large_columns
from verglas.run.profile import ProfileRecorder
from verglas.types.forecast import Forecast, Pace
from verglas.types.listener import Listener, Silence
from verglas.types.run_state import RunState, read_run_state

BEAT_S = 15.0  # between two heartbeats
GRACE_S = 5.0  # for a job to come to a point where it can stop well, after SIGTERM
STALL_S = 600.0  # without progress, before the stacks are written; or five times the longest pause so far
_PAUSES = 5
_LOCK, _RUN, _STACKS, _ERROR = ".lock", "run.json", "stalled.log", "error.log"
TERMINATED = 128 + signal.SIGTERM


class Terminated(SystemExit):
    """SIGTERM arrived: what is kept stays, and the process ends with status 143."""

    def __init__(self) -> None:
        super().__init__(TERMINATED)

    def __str__(self) -> str:
        return "SIGTERM"


def now_text() -> str:
    """UTC, as in every file written."""
    return datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%S+00:00")


class RunEnd(NamedTuple):
    """How a run ended, as ``run.json`` has it."""

    run_state: RunState
    sentence: str
    reason: str


def end_of(error: BaseException) -> RunEnd:
    """What ``run.json`` says of a run that this ends: its state, and why.

    Examples
    --------
    >>> from verglas.run.tenure import end_of
    >>> for error in (KeyboardInterrupt(), ValueError("no poses")):
    ...     end = end_of(error)
    ...     end.run_state.value, end.sentence, end.reason
    ('stopped', 'stopped', 'interrupted')
    ('failed', 'failed: no poses', 'ValueError')
    """
    if isinstance(error, Terminated):
        return RunEnd(RunState.STOPPED, "stopped", str(error))
    if isinstance(error, KeyboardInterrupt):
        return RunEnd(RunState.STOPPED, "stopped", "interrupted")
    name = type(error).__name__
    return RunEnd(RunState.FAILED, f"failed: {str(error) or name}", name)


def _command_line() -> dict[str, Any]:
    """What was typed, and where, if this process is the command line: ``verglas serve`` begins a stopped job again."""
    program = Path(sys.argv[0]) if sys.argv else Path()
    if program.name != "verglas" and program.parts[-2:] != ("verglas", "__main__.py"):
        return {}
    return {"arguments": sys.argv[1:], "folder": os.getcwd()}


class Tenure(Silence):
    """A job's hold on its folder: its record, and a listener that notes every sign of progress.

    Parameters
    ----------
    folder : Path
    command : str
        As in ``verglas COMMAND``.
    listener : Listener, optional
        Who else is told.
    """

    def __init__(self, folder: Path, command: str, listener: Listener | None = None) -> None:
        self.folder, self.listener = folder, listener or Silence()
        self._record: dict[str, Any] = {
            "verglas": __version__,
            "command": command,
            "state": "starting",
            "run_state": RunState.STARTING.value,
            "started": now_text(),
        }
        self._call = _command_line()
        self._lock, self._over = threading.Lock(), threading.Event()
        self._phase: dict[str, Any] = {"phase": "starting", "done": 0, "total": 0}
        self._sign, self._sign_text, self._longest = time.monotonic(), now_text(), 0.0
        self._dumped = False
        self._pace: Pace | None = None
        self._profile = ProfileRecorder(folder, self._record["started"])

    # ---- the record

    def write(self, **changes: Any) -> None:
        """Replace fields of ``run.json``; the heartbeat is added.

        A ``state`` that is a sentence needs a ``run_state`` beside it; one that is the word itself does not.
        """
        if "state" in changes and "run_state" not in changes:
            changes["run_state"] = RunState(changes["state"]).value
        with self._lock:
            self._record |= changes
            self._write()

    def replace(self, record: Mapping[str, Any]) -> None:
        """Replace all of ``run.json``."""
        with self._lock:
            self._record = dict(record)
            self._write()

    def _write(self) -> None:
        beat = {"pid": os.getpid(), "host": socket.gethostname(), "time": now_text(), "every_s": BEAT_S}
        progress = {**self._phase, "time": self._sign_text, "stalled_after_s": round(self.patience_s, 1)}
        times = {"heartbeat": beat, "progress": progress, **self._expectation()}
        call = {"call": self._call} if self._call else {}
        write_json(self.folder / _RUN, {**self._record, **call, **times})

    @property
    def patience_s(self) -> float:
        """How long a phase may be silent before it counts as stalled."""
        return max(STALL_S, _PAUSES * self._longest)

    def expect(self, forecast: Forecast) -> None:
        """How long the job will take, from now on: what is left of it stands in ``run.json`` with every heartbeat."""
        self._pace = Pace(forecast)
        self.write()
        self.say(str(forecast))

    def _expectation(self) -> dict[str, Any]:
        """What was forecast, and what is left: nothing of a job that ended, or that has no forecast."""
        if self._pace is None:
            return {"eta_seconds": None}
        forecast = self._pace.forecast
        return {
            "forecast": {"processor_seconds": round(forecast.processor_s, 1), "seconds": round(forecast.seconds, 1)},
            "eta_seconds": round(self._pace.left_s(), 1) if self.state.goes_on else None,
        }

    # ---- what a job tells

    def alive(self) -> None:
        """A sign of life of a job that waits for something outside."""
        _received.safe_point()
        # Monotonic: a clock that is set would make a job that works look stalled, or the other way round.
        now = time.monotonic()
        self._longest = max(self._longest, now - self._sign)
        self._sign, self._sign_text, self._dumped = now, now_text(), False

    def say(self, line: str) -> None:
        """Pass on a sentence."""
        self.alive()
        self.listener.say(line)

    def progress(self, phase: str, done: int, total: int) -> None:
        """Pass on progress, and note it."""
        _received.safe_point()
        self._profile.progress(phase, done, total)
        # The same figure again is no progress: a job that goes in circles must be told as stalled.
        if (phase, done) != (self._phase["phase"], self._phase["done"]):
            self._phase = {"phase": phase, "done": int(done), "total": int(total)}
            self.alive()
            if self._pace is not None:
                self._pace.progress(phase, done, total)
        self.listener.progress(phase, done, total)

    def iteration(self, figures: Mapping[str, Any]) -> None:
        """Pass on an iteration."""
        self.alive()
        self._profile.iteration()
        self._profile.write()
        self.listener.iteration(figures)

    def note(self, code: str, sentence: str) -> None:
        """Pass on a warning."""
        self.alive()
        self.listener.note(code, sentence)

    # ---- the thread

    def beat(self) -> None:
        """Heartbeats until the job is over."""
        due = time.monotonic() + BEAT_S
        # Every second, not every beat: SIGTERM is insisted on when its grace is over, not at the next beat.
        while not self._over.wait(min(1.0, BEAT_S)):
            _received.insist()
            if time.monotonic() < due:
                continue
            due = time.monotonic() + BEAT_S
            try:
                self.write()
            except (OSError, VerglasError) as error:  # a full disk ends the job where it writes, not here
                print(f"verglas: no heartbeat: {error}", file=sys.stderr)
            self._watch()

    def _watch(self) -> None:
        silent = time.monotonic() - self._sign
        if silent < self.patience_s or self._dumped:
            return
        # Once a pause: stacks at every beat would fill the disk of a job that hangs over the weekend.
        self._dumped = True
        where = self.folder / _STACKS
        at = f"{self._phase['phase']}, {self._phase['done']} of {self._phase['total']}"
        with open(where, "a", encoding="utf-8") as file:
            file.write(f"\n{now_text()}: no progress for {silent:.0f} s in: {at}. All threads:\n")
            file.flush()
            faulthandler.dump_traceback(file, all_threads=True)
        self.listener.say(f"no progress for {silent:.0f} s in: {at}; the stacks of all threads are in {where}")

    @property
    def state(self) -> RunState:
        """As ``run.json`` has it."""
        return read_run_state(self._record)

    def over(self, thread: threading.Thread, end: RunEnd) -> None:
        """No more heartbeats; the state, unless the job has said how it ended."""
        self._over.set()
        thread.join()
        if self.state is not RunState.STARTING:  # one that never began leaves nothing
            with suppress(OSError, VerglasError):  # a full disk: what ended the job must not be hidden by this
                self._profile.write(last=True)
        # A job that has said how it ended knows better than the exception that carried it out.
        if self.state.goes_on:
            why = {"reason": end.reason} if end.reason else {}
            self.write(state=end.sentence, run_state=end.run_state.value, finished=now_text(), **why)


@contextmanager
def tenure(
    folder: Path, command: str, listener: Listener | None = None, *, record: Mapping[str, Any] | None = None
) -> Iterator[Tenure]:
    """Hold a folder for a job: made if it is not there, locked, watched; ``run.json`` says how the job ended.

    The job itself says when it leaves the state "starting", and may say how it ended. One that fails before has left
    nothing: its ``run.json`` is removed, and the folder if there is nothing else in it.

    Parameters
    ----------
    folder : Path
    command : str
    listener : Listener, optional
    record : mapping, optional
        What ``run.json`` holds from the start.

    Raises
    ------
    InputError
        It is a file, cannot be made, another process works in it, or it holds what another command left.
    Terminated
        SIGTERM arrived.
    """
    # The lock first: a second process must not even look at, still less replace, what the first has written.
    with lock_project(folder), _terminable():
        hold = Tenure(folder, command, listener)
        before = folder / _RUN
        # What an earlier job said there: put back if this one fails before it begins.
        was = before.read_bytes() if before.is_file() else None
        _refuse_results_of_another(folder, command, was)
        hold.write(**(record or {}))
        thread = threading.Thread(target=hold.beat, name="heartbeat", daemon=True)
        thread.start()
        try:
            yield hold
            hold.over(thread, RunEnd(RunState.FINISHED, "finished", ""))
            if hold.state is RunState.FINISHED and (wrong := keep_large_columns(folder)):
                hold.listener.say(f"columns of the particles are not kept: {wrong}")
        except BaseException as error:
            has_begun = hold.state is not RunState.STARTING
            hold.over(thread, end_of(Terminated() if _received.raised else error))
            if isinstance(error, Exception):
                if has_begun:
                    _keep_traceback(folder, error)
                else:
                    _take_back(before, was)
            raise


def _refuse_results_of_another(folder: Path, command: str, record: bytes | None) -> None:
    """Files of one name would be written over: particles.star of classes by that of a refinement, without a word."""
    if record is None:
        return
    try:
        other = json.loads(record).get("command", command)
    except (ValueError, AttributeError):  # cut off by a power cut: nothing says whose results these are
        return
    if other != command:
        raise InputError(
            f"{folder}: holds the results of verglas {other}, which {command} would write over; name another folder"
        )


def _keep_traceback(folder: Path, error: Exception) -> None:
    """What failed, with its code and where in the program, for ``verglas bugreport``."""
    code = getattr(error, "code", "VG-UNEXPECTED")
    text = "".join(traceback.format_exception(error))
    # A disk that is full is what failed, perhaps: its error must not be hidden by this one.
    with suppress(OSError), open(folder / _ERROR, "a", encoding="utf-8") as file:
        file.write(f"\n{now_text()} {code}: {error}\n{text}")


def _take_back(path: Path, was: bytes | None) -> None:
    """What lay there before a job that never began."""
    if was is not None:
        write_bytes(path, was)
    else:
        path.unlink(missing_ok=True)


def _open_lock(folder: Path) -> TextIO:
    """The lock file of a folder, locked; both made if they are not there."""
    for _ in range(_PAUSES):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            # Not "w", which would wipe the owner's name before it is known whether the lock is free.
            handle = open(folder / _LOCK, "a+", encoding="ascii")  # noqa: SIM115  closed by the caller
        except FileNotFoundError:  # removed between the two by a job that ended without having begun
            continue
        except OSError as error:
            raise InputError(f"cannot write into {folder}: {error.strerror}") from error
        try:
            _lock_file(handle, folder)
            there = (folder / _LOCK).stat()
        except FileNotFoundError:
            handle.close()
            continue
        except BaseException:
            handle.close()
            raise
        # A job that ended may have removed the file while this one waited for it: a lock on nothing locks nobody out.
        if there.st_ino == os.fstat(handle.fileno()).st_ino:
            return handle
        handle.close()
    raise InputError(f"cannot write into {folder}: somebody keeps removing it")


def _lock_file(handle: TextIO, folder: Path) -> None:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        handle.seek(0)
        owner, _, host = handle.read().strip().partition(" ")
        raise InputError(
            f"{folder}: another process ({owner or 'unknown'}) works in this folder on {host or 'some machine'}; "
            "wait for it, end it, or name another folder"
        ) from error
    except OSError as error:  # file systems without locks
        # No error: on such a file system no job could run at all.
        warnings.warn(
            VerglasWarning(f"{folder}: cannot be locked ({error.strerror}): keep other jobs out of it yourself"),
            stacklevel=6,
        )


@contextmanager
def lock_project(folder: Path) -> Iterator[None]:
    """Alone in a folder: the lock ends with the process, however it ends.

    Raises
    ------
    InputError
        Another process works in it; it is a file or cannot be made.
    """
    check_folder(folder)
    fresh = not folder.exists()
    with _open_lock(folder) as handle:
        handle.truncate(0)
        handle.write(f"{os.getpid()} {socket.gethostname()}")
        handle.flush()
        try:
            yield
        finally:
            # Somebody may have removed it meanwhile: the job's own error is what is to be said then.
            if fresh and folder.is_dir() and [path.name for path in folder.iterdir()] == [_LOCK]:
                shutil.rmtree(folder, ignore_errors=True)  # a job that never began leaves no folder


def is_locked(folder: Path) -> bool:
    """Whether a process works in a folder, as far as this machine can tell."""
    try:
        with open(folder / _LOCK, encoding="ascii") as handle:
            # Shared: two who ask at the same time must not take each other for the owner.
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


class _Signal:
    """SIGTERM, noted when it comes, and raised where the job tells how far it is.

    There it leaves nothing half done, such as a module half imported. A job that tells nothing for some seconds is
    ended where it is, as is one that gets the signal again.
    """

    def __init__(self) -> None:
        self.came: float | None = None
        self.raised = False

    def __call__(self, number: int, frame: object) -> None:
        if self.came is not None and not self.raised:
            self.raised = True
            raise Terminated
        self.came = time.monotonic()

    def safe_point(self) -> None:
        # In another thread it would end that thread's work alone, and the job would go on without it.
        if self.came is not None and not self.raised and threading.current_thread() is threading.main_thread():
            self.raised = True
            raise Terminated

    def insist(self) -> None:
        """From the thread of heartbeats: the grace is over."""
        if self.came is not None and not self.raised and time.monotonic() - self.came > GRACE_S:
            # A thread cannot raise in another one; a second signal can, wherever the main thread is.
            os.kill(os.getpid(), signal.SIGTERM)


_received = _Signal()


@contextmanager
def _terminable() -> Iterator[None]:
    """SIGTERM ends in Terminated; a handler that the caller has set stays, and threads cannot have one."""
    global _received
    main = threading.current_thread() is threading.main_thread()
    # A caller with a handler of its own knows better how its process is to end.
    if not main or signal.getsignal(signal.SIGTERM) != signal.SIG_DFL:
        yield
        return
    _received = _Signal()
    signal.signal(signal.SIGTERM, _received)
    try:
        yield
        _received.safe_point()
    except Exception as error:  # what an interrupted library makes of it is not what happened
        if _received.raised:
            raise Terminated from error
        raise
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        _received = _Signal()
