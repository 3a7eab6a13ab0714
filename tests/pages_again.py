"""A page written again by ``verglas report`` is the page that the job wrote."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from command_line import main

_TIME = re.compile(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00")


def check_page_again(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Take the page away and write it again from the other files: the same text, but for the time of writing."""
    page = folder / "report.html"
    before = page.read_text(encoding="utf-8")
    page.unlink()
    status, out, err = main(["report", str(folder)], capsys)
    assert status == 0, err
    assert out.strip() == str(page)
    assert _TIME.sub("", page.read_text(encoding="utf-8")) == _TIME.sub("", before)
