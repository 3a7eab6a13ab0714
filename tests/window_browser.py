"""A server as a user starts it, and Chromium that draws in software; for the tests of the window's pages."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browser import chromium

playwright = pytest.importorskip("playwright.sync_api")

# Pixels of the screen that the smallest words take, of what is shown.
SMALLEST = """() => { let least = Infinity, which = "none"; const m = one => one.getScreenCTM();
  const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walk.nextNode()) {
    const text = walk.currentNode.textContent.trim(), one = walk.currentNode.parentElement;
    if (!text || ['SCRIPT', 'STYLE', 'OPTION', 'TITLE', 'title'].includes(one.tagName)) { continue; }
    if (!one.getClientRects().length) { continue; }
    const drawing = one.closest('svg'), scale = drawing ? Math.hypot(m(one).a, m(one).b) : one.currentCSSZoom || 1;
    const size = parseFloat(getComputedStyle(one).fontSize) * scale;
    if (size < least) { least = size; which = text; }
  }
  return [least, which]; }"""

# A software renderer: the same pixels on every machine.
_ARGUMENTS = ["--no-sandbox", "--disable-dev-shm-usage", "--use-gl=angle", "--use-angle=swiftshader"]
_ARGUMENTS += ["--enable-unsafe-swiftshader"]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as made:
        one = made.chromium.launch(executable_path=chromium(), args=_ARGUMENTS)
        yield one
        one.close()


class Server:
    """``verglas serve`` as a user starts it: a process, whose first line is the address."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.command = [sys.executable, "-m", "verglas", "serve", str(folder), *options]
        self.start()

    def start(self) -> None:
        self.process = subprocess.Popen(self.command, stdout=subprocess.PIPE, text=True, env=dict(os.environ))
        assert self.process.stdout is not None
        self.address = self.process.stdout.readline().strip()
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+/\?token=[\w-]{20,}", self.address)

    def stop(self, number: int = signal.SIGTERM) -> None:
        self.process.send_signal(number)
        self.process.wait(20)
        assert self.process.stdout is not None
        self.process.stdout.close()


def until(page: Any, condition: str, seconds: float = 15.0) -> None:
    """Wait in Python: to wait in the page would need eval, which its policy forbids."""
    end = time.monotonic() + seconds
    while not page.evaluate(condition):
        assert time.monotonic() < end, condition
        page.wait_for_timeout(50)
