"""Processor seconds of every test, its children's too, in the JUnit file: its cost whatever else the machine does."""

from __future__ import annotations

import os
from collections.abc import Generator
from typing import Any

import pytest


def spent_s() -> float:
    """Of this process and of the children that it waited for."""
    return sum(os.times()[:4])


class ProcessorTime:
    """A plugin: ``tools/slowest_tests.py`` reads what it leaves."""

    begun_s = 0.0

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, Any, Any]:
        """From before its fixtures are made: the first test of a module pays for them."""
        self.begun_s = spent_s()
        return (yield)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, item: pytest.Item, call: pytest.CallInfo[None]) -> Generator[None, Any, Any]:
        """The report of the teardown is the one whose properties are written."""
        if call.when == "teardown":
            item.user_properties.append(("processor_s", round(spent_s() - self.begun_s, 3)))
        return (yield)
