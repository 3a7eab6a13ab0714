"""Pages that several readers ask for at the same time are made once, and are never older than the question."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from verglas.window.shared_work import SharedWork


def wait_until(true, seconds=5.0):
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.002)


class Gate:
    """A making that goes on when it is told to."""

    def __init__(self):
        self.open, self.begun = threading.Event(), []

    def __call__(self):
        self.begun.append(len(self.begun))
        made = b"%d" % self.begun[-1]
        assert self.open.wait(5)
        return made


def test_who_asks_while_a_page_is_made_gets_the_next_one_and_shares_it():
    work, gate = SharedWork(), Gate()
    with ThreadPoolExecutor(9) as pool:
        first = pool.submit(work, "/", gate)
        wait_until(lambda: gate.begun == [0])
        later = [pool.submit(work, "/", gate) for _ in range(8)]
        wait_until(lambda: len(work._next) == 1)
        time.sleep(0.05)
        gate.open.set()
        assert first.result(5) == b"0"
        assert {one.result(5) for one in later} <= {b"1", b"2"}  # a thread may have come late
    assert len(gate.begun) <= 3
    assert not work._next
    assert not work._current


def test_pages_of_other_addresses_do_not_wait():
    work, gate = SharedWork(), Gate()
    with ThreadPoolExecutor(2) as pool:
        slow = pool.submit(work, "/slow", gate)
        wait_until(lambda: gate.begun == [0])
        assert work("/quick", lambda: b"at once") == b"at once"
        gate.open.set()
        assert slow.result(5) == b"0"


def test_an_error_is_everyones_and_the_next_one_is_made_again():
    work = SharedWork()

    def fail():
        raise FileNotFoundError("gone")

    for _ in range(2):
        with pytest.raises(FileNotFoundError, match="gone"):
            work("/", fail)
    assert work("/", lambda: b"back") == b"back"


def test_what_was_changed_before_the_question_is_in_the_answer():
    work, state = SharedWork(), {"number": 0}
    lock = threading.Lock()

    def read():
        seen = state["number"]
        time.sleep(0.001)
        return b"%d" % seen

    def reader():
        for _ in range(20):
            with lock:
                state["number"] += 1
                mine = state["number"]
            assert int(work("/", read)) >= mine

    with ThreadPoolExecutor(8) as pool:
        for done in [pool.submit(reader) for _ in range(8)]:
            done.result(20)
