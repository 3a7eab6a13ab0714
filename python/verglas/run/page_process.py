"""The page of a running refinement, drawn beside it by a process: ``python -m verglas.run.page_process FOLDER``.

Figures take seconds of processor. In the job they would stand between its iterations; here they take what it leaves.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

_NICE = 10
_WAIT_S = 3.0  # for a process that was told to end: less than a job has after SIGTERM (tenure.GRACE_S)
# What it ends with when it is told to, by the job or by Ctrl-C or a signal to all processes of the job: no failure.
_TOLD_TO_END = (130, -signal.SIGINT, -signal.SIGTERM)


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
        self._process: subprocess.Popen[str] | None = None

    def ask(self) -> None:
        """Have the page drawn as the folder is now; while one is being drawn, the next request counts."""
        if self._process is not None and self._process.poll() is None:
            return
        self.wait()
        # Modules from where this process has them; the folder it runs in comes first only if it does so here.
        modules = {"PYTHONPATH": os.pathsep.join(p or os.getcwd() for p in sys.path), "PYTHONSAFEPATH": "1"}
        environment = {**os.environ, **modules, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        try:
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
                env=environment,
            )
        except OSError as error:  # no memory or process to be had, no interpreter: nothing that a job should end of
            self._say(f"{self.folder}: its page was not drawn: {error}")

    def wait(self) -> None:
        """Until the page is drawn; says why, where it could not be."""
        process, self._process = self._process, None
        if process is None:
            return
        _, told = process.communicate()
        if process.returncode != 0 and process.returncode not in _TOLD_TO_END:
            lines = told.strip().splitlines() or [f"exit status {process.returncode}"]
            self._say(f"{self.folder}: its page was not drawn: {lines[-1]}")

    def stop(self) -> None:
        """Give up the page that is being drawn: the next one is written by the job, and must not be replaced by it."""
        process = self._process
        if process is None or process.poll() is not None:
            self.wait()
            return
        self._process = None
        process.send_signal(signal.SIGINT)  # not SIGTERM: what it has half written is taken away
        try:
            process.communicate(timeout=_WAIT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()


def _main(folder: str) -> None:
    """Draw a page with what processor others leave."""
    if hasattr(os, "nice"):
        os.nice(_NICE)
    from verglas.report.refine import write_refine_page

    try:
        write_refine_page(folder)
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    _main(sys.argv[1])
