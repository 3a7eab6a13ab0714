"""The page of a running job, drawn beside it by a process: ``python -m verglas.run.page_process FOLDER``.

Figures take seconds of processor. In the job they would stand between its iterations; here they take what it leaves.
A refinement's page is drawn from its folder; others are what the job hands over
(:class:`verglas.run.live_page.LivePage`). The process ends with its job, however that ends.
"""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

_NICE = 10
_TOLD_BYTES = 4096  # of what a page that failed said, from its end
_WAIT_S = 3.0  # for a process that was told to end: less than a job has after SIGTERM (tenure.GRACE_S)
# What it ends with when it is told to, by the job or by Ctrl-C or a signal to all processes of the job: no failure.
_TOLD_TO_END = (130, -signal.SIGINT, -signal.SIGTERM)
# Of the environment: the end of a pipe whose other end the job holds, which closes when the job ends, even by SIGKILL.
_JOB_ENDS = "VERGLAS_PAGE_JOB_ENDS"


def _page_command(folder: Path) -> list[str]:
    return [sys.executable, "-m", "verglas.run.page_process", str(folder)]


class PageProcess:
    """Draws pages of a folder on request, one at a time.

    Parameters
    ----------
    folder : Path
        The run folder.
    say : callable
        Told why a page could not be drawn.
    command : sequence of str, optional
        What draws a page.

    Examples
    --------
    >>> import sys
    >>> from pathlib import Path
    >>> from verglas.run.page_process import PageProcess
    >>> pages = PageProcess(Path("run"), print, [sys.executable, "-c", "raise SystemExit('no figures')"])
    >>> pages.ask(); pages.wait()
    run: its page was not drawn: no figures
    """

    def __init__(self, folder: Path, say: Callable[[str], None], command: Sequence[str] | None = None) -> None:
        self.folder, self._say = folder, say
        self._command = _page_command(folder) if command is None else list(command)
        self._process: subprocess.Popen[bytes] | None = None
        self._told: IO[bytes] | None = None
        self._held: int | None = None  # the end of the pipe

    def ask(self, write: Callable[..., Any] | None = None, *arguments: Any) -> None:
        """Have the page drawn as the folder is now; while one is being drawn, the next request counts.

        Parameters
        ----------
        write : callable, optional
            A function of a module that writes the page, in place of a refinement's.
        *arguments
            What it takes; handed over as they are now.
        """
        if self._process is not None and self._process.poll() is None:
            return
        self.wait()
        # A file without a name, not a pipe: a page may hold more than a pipe does, and nobody reads it for a second.
        try:
            with tempfile.TemporaryFile() as handed:
                pickle.dump(None if write is None else (write, arguments), handed)
                handed.seek(0)
                self._begin(handed)
        except OSError as error:  # no room, memory or process, no interpreter: nothing that a job should end of
            self._let_go()
            self._say(f"{self.folder}: its page was not drawn: {error}")

    def _begin(self, handed: Any) -> None:
        # A file: a pipe that nobody reads is full after 64 kB of warnings, and the process would wait for ever.
        self._told = tempfile.TemporaryFile()  # noqa: SIM115
        ends, self._held = os.pipe()
        # Modules from where this process has them; the folder it runs in comes first only if it does so here.
        modules = {"PYTHONPATH": os.pathsep.join(p or os.getcwd() for p in sys.path), "PYTHONSAFEPATH": "1"}
        environment = {**os.environ, **modules, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        try:
            self._process = subprocess.Popen(
                self._command,
                stdin=handed,
                stdout=subprocess.DEVNULL,
                stderr=self._told,
                env=environment | {_JOB_ENDS: str(ends)},
                pass_fds=(ends,),
            )
        finally:
            os.close(ends)

    def _let_go(self) -> None:
        if self._held is not None:
            os.close(self._held)
            self._held = None
        if self._told is not None:
            self._told.close()
            self._told = None

    def _last_words(self) -> list[str]:
        if self._told is None:
            return []
        self._told.seek(max(0, self._told.seek(0, os.SEEK_END) - _TOLD_BYTES))
        return self._told.read().decode(errors="replace").strip().splitlines()

    def wait(self) -> None:
        """Until the page is drawn; says why, where it could not be."""
        process, self._process = self._process, None
        if process is None:
            return
        process.wait()
        told = self._last_words()
        self._let_go()
        if process.returncode != 0 and process.returncode not in _TOLD_TO_END:
            why = told[-1] if told else f"exit status {process.returncode}"
            self._say(f"{self.folder}: its page was not drawn: {why}")

    def stop(self) -> None:
        """Give up the page that is being drawn: the next one is written by the job, and must not be replaced by it."""
        process = self._process
        if process is None or process.poll() is not None:
            self.wait()
            return
        self._process = None
        process.send_signal(signal.SIGINT)  # not SIGTERM: what it has half written is taken away
        try:
            process.wait(timeout=_WAIT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        self._let_go()


def _end_with_job(ends: int) -> None:
    """End as told to when the job has ended: nobody waits for the page, and a job that goes on writes its own."""
    os.read(ends, 1)  # until the job's end of the pipe closes
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(_WAIT_S)
    os._exit(130)  # a library that does not come back to Python


def _main(folder: str) -> None:
    """Draw a page with what processor others leave."""
    # A shell that starts jobs in the background has them ignore Ctrl-C, and what they start.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with suppress(KeyError):  # started by hand
            threading.Thread(target=_end_with_job, args=(int(os.environ.pop(_JOB_ENDS)),), daemon=True).start()
        if hasattr(os, "nice"):
            os.nice(_NICE)
        request = pickle.load(sys.stdin.buffer)  # of the job that started this process
        if request is None:
            from verglas.report.refine import write_refine_page

            write_refine_page(folder)
        else:
            write, arguments = request
            write(*arguments)
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    _main(sys.argv[1])
