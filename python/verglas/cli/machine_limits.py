"""``--threads``, ``--memory``, ``--device`` and ``--cluster`` of commands that have no such option of their own.

Scripts pass these to whatever they call. Threads are limited, memory is watched, and what a command cannot do is said
in a sentence instead of "no such option". Commands that plan their memory or run on a GPU take their own options.
"""

from __future__ import annotations

import _thread
import os
import signal
import threading
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import typer

_OPTIONS = ("--threads", "--memory", "--device", "--cluster")
_FLAGS = ("--json",)  # which scripts put before the command, too
_MOST_THREADS = 4096
_POLL_S = 0.2


@dataclass
class MachineLimits:
    """What a command may take.

    Attributes
    ----------
    threads : int, optional
    memory_GB : float, optional
    taken_GB : float
        What it took when it passed the limit; 0 if it did not.
    """

    threads: int | None = None
    memory_GB: float | None = None
    taken_GB: float = 0.0

    @property
    def sentence(self) -> str:
        """Why the command ended; empty if it kept its memory."""
        if not self.taken_GB:
            return ""
        return (
            f"stopped: it took {self.taken_GB:.2f} GB, more than --memory {self.memory_GB:g}; this command does not "
            "plan its memory: give more, or fewer or smaller data"
        )

    @contextmanager
    def in_force(self) -> Iterator[None]:
        """Threads limited and memory watched while a command runs."""
        with nullcontext() if self.memory_GB is None else self._watched():
            if self.threads is None:
                yield
            else:
                with _limited_threads(self.threads):
                    yield

    @contextmanager
    def _watched(self) -> Iterator[None]:
        ended = threading.Event()
        with _interruption() as number:
            watch = threading.Thread(target=self._watch, args=(ended, number), daemon=True)
            watch.start()
            finished = False
            try:
                yield
                finished = True
            finally:
                try:
                    ended.set()
                    watch.join()  # an interruption arrives here at the latest, not in what follows
                except KeyboardInterrupt:
                    if not (finished and self.taken_GB):
                        raise
                    watch.join()
                    self.taken_GB = 0.0  # the last poll came after the work: the results are there, nothing was stopped

    def _watch(self, ended: threading.Event, number: signal.Signals) -> None:
        assert self.memory_GB is not None
        taken_GB = 0.0
        while not ended.wait(_POLL_S if taken_GB else 0.0):
            taken_GB = resident_GB()
            if taken_GB > self.memory_GB:
                self.taken_GB = taken_GB
                _thread.interrupt_main(number)  # as Ctrl-C, at which jobs leave a checkpoint
                return


@contextmanager
def _interruption() -> Iterator[signal.Signals]:
    """The signal that interrupts the main thread: what a script starts in the background (``&``) ignores Ctrl-C's."""
    main = threading.current_thread() is threading.main_thread()
    if not main or signal.getsignal(signal.SIGINT) != signal.SIG_IGN:
        yield signal.SIGINT
        return
    before = signal.signal(signal.SIGUSR1, signal.default_int_handler)
    try:
        yield signal.SIGUSR1
    finally:
        signal.signal(signal.SIGUSR1, before or signal.SIG_DFL)


def behind_command(arguments: Sequence[str]) -> list[str]:
    """The arguments with these options behind the command where they stand before it: it may have them itself.

    Examples
    --------
    >>> from verglas.cli.machine_limits import behind_command
    >>> behind_command(["--memory", "8", "refine", "particles.star"])
    ['refine', '--memory', '8', 'particles.star']
    """
    before, left = [], list(arguments)
    while left and left[0].partition("=")[0] in (*_OPTIONS, *_FLAGS):
        end = 1 if "=" in left[0] or left[0] in _FLAGS else 2
        before += left[:end]
        left = left[end:]
    return [*left[:1], *before, *left[1:]]


def taken_limits(
    arguments: Sequence[str], own: Collection[str], command: str = "this command"
) -> tuple[list[str], MachineLimits]:
    """The arguments without these options, and the limits; options that the command has itself stay.

    Raises
    ------
    typer.BadParameter
        A value that is none, a device or workers that the command cannot use.

    Examples
    --------
    >>> from verglas.cli.machine_limits import taken_limits
    >>> taken_limits(["mask", "map.mrc", "--threads", "2", "--device", "cpu"], {"--out"})
    (['mask', 'map.mrc'], MachineLimits(threads=2, memory_GB=None, taken_GB=0.0))
    """
    rest: list[str] = []
    limits = MachineLimits()
    left = iter(arguments)
    for argument in left:
        name, equals, value = argument.partition("=")
        if argument == "--":
            rest += [argument, *left]
        elif name in _OPTIONS and name not in own:
            _take(limits, name, value if equals else next(left, ""), command)
        else:
            rest.append(argument)
    return rest, limits


def _take(limits: MachineLimits, name: str, value: str, command: str) -> None:
    if name == "--threads":
        if not (value.isdecimal() and 1 <= int(value) <= _MOST_THREADS):
            raise typer.BadParameter(f"expected 1 to {_MOST_THREADS}, got {value!r}", param_hint=name)
        limits.threads = int(value)
    elif name == "--memory":
        try:
            limits.memory_GB = float(value)
        except ValueError:
            limits.memory_GB = 0.0
        if not 0 < limits.memory_GB < float("inf"):
            raise typer.BadParameter(f"expected gigabytes, got {value!r}", param_hint=name)
    elif name == "--device":
        if value not in ("cpu", "auto"):
            raise typer.BadParameter(f"{command} runs on the processor only (cpu), got {value!r}", param_hint=name)
    else:
        raise typer.BadParameter(
            f"{command} does not share its work among workers; refine, class3d and process do", param_hint=name
        )


@contextmanager
def _limited_threads(threads: int) -> Iterator[None]:
    """Of libraries that are loaded, and of those that will be."""
    from threadpoolctl import threadpool_limits

    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    before = {name: os.environ.get(name) for name in names}
    os.environ.update(dict.fromkeys(names, str(threads)))
    try:
        with threadpool_limits(threads):
            yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def resident_GB() -> float:
    """Memory that this process holds now; 0 where the system does not say.

    Examples
    --------
    >>> from verglas.cli.machine_limits import resident_GB
    >>> resident_GB() >= 0
    True
    """
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    except OSError:
        return 0.0
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e9
