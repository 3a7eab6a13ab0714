"""One call of the command line inside the process of the tests."""

from __future__ import annotations

import pytest

from verglas.cli import app as application


def main(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    """Exit status, output and error output of one call in this process."""
    with pytest.raises(SystemExit) as stopped:
        application.main(arguments)
    out, err = capsys.readouterr()
    return int(stopped.value.code or 0), out, err
