"""Whoever logs never waits for whoever reads the log."""

from __future__ import annotations

import io
import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from fakes.waiting import wait_until

from patchserve_server.telemetry.log_handler import BackgroundHandler
from patchserve_server.telemetry.log_lines import Fields


def text_of(fields: Fields) -> str:
    return str(fields["event"])


@contextmanager
def logger(handler: logging.Handler) -> Iterator[logging.Logger]:
    log = logging.Logger("test", logging.DEBUG)  # noqa: LOG001 - of this test alone
    log.addHandler(handler)
    yield log
    handler.close()


class BlockedStream(io.StringIO):
    """Takes nothing until it is opened, like a pipe that nobody reads."""

    def __init__(self) -> None:
        super().__init__()
        self.opened = threading.Event()
        self.is_waiting = threading.Event()

    def write(self, text: str) -> int:
        self.is_waiting.set()
        self.opened.wait()
        return super().write(text)


def test_lines_are_written_soon_and_in_order() -> None:
    stream = io.StringIO()
    with logger(BackgroundHandler(stream, text_of)) as log:
        for number in range(100):
            log.info("line %d", number)
        wait_until(lambda: stream.getvalue().count("\n") == 100)
    assert stream.getvalue().split() == " ".join(f"line {number}" for number in range(100)).split()


def test_the_end_of_the_process_loses_no_line() -> None:
    stream = io.StringIO()
    with logger(BackgroundHandler(stream, text_of)) as log:
        log.info("last")
    assert stream.getvalue() == "last\n"


def test_a_blocked_reader_holds_nobody_up_and_costs_bounded_memory() -> None:
    stream = BlockedStream()
    with logger(BackgroundHandler(stream, text_of, max_waiting=10)) as log:
        log.info("first")
        assert stream.is_waiting.wait(30)
        for number in range(1000):
            log.info("line %d", number)
        stream.opened.set()
        wait_until(lambda: "left out" in stream.getvalue())
    lines = stream.getvalue().splitlines()
    assert lines[:2] == ["first", "line 0"]
    assert lines[-1] == "990 lines are left out here: whoever reads the log is too slow"
    assert len(lines) == 12


def test_a_line_that_cannot_be_written_says_so_and_the_next_ones_follow() -> None:
    stream = io.StringIO()

    def write(fields: Fields) -> str:
        if fields["event"] == "bad":
            raise ValueError
        return text_of(fields)

    with logger(BackgroundHandler(stream, write)) as log:
        log.info("bad")
        log.info("good")
    assert stream.getvalue().splitlines() == ["A line of test cannot be written: ValueError", "good"]


def test_a_reader_that_has_gone_disturbs_nobody() -> None:
    class Closed(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError

    with logger(BackgroundHandler(Closed(), text_of)) as log:
        log.info("line")
