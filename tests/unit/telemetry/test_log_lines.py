"""A line of the log has what is known of its call, and is JSON or text for people."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterator

import pytest
from fakes.calls import FakeCall

from patchserve_server.domain.call_events import current_call
from patchserve_server.domain.reference_id import ReferenceId
from patchserve_server.telemetry.log_lines import Format, fields_of, writer_of

HOSTILE = 'a "quoted"\nlevel=error \x1b[2J\u202egnp.exe\x00\udcff'


@pytest.fixture
def call() -> Iterator[FakeCall]:
    call = FakeCall()
    token = current_call.set(call)
    yield call
    current_call.reset(token)


def record(message: str, *args: object, **extra: object) -> logging.LogRecord:
    logger = logging.getLogger("patchserve_server.some")
    return logger.makeRecord(logger.name, logging.INFO, "file.py", 1, message, args, None, extra=extra)


def test_a_line_has_time_level_logger_message_and_the_fields_that_were_given() -> None:
    (line,) = writer_of("json")(fields_of(record("Opened %s", "box", bytes=7))).splitlines()
    written = json.loads(line)
    assert written.pop("timestamp").endswith("Z")
    assert written == {"level": "info", "logger": "patchserve_server.some", "event": "Opened box", "bytes": 7}


def test_a_line_of_a_call_names_the_call_and_what_is_known_of_it(call: FakeCall) -> None:
    fields = fields_of(record("late"))
    about = {"request_id": call.request_id, "face": "grpc", "method": "Infer", "client": "peer ipv4:10.0.0.1"}
    assert {name: fields[name] for name in about} == about
    assert not {"reference", "trace_id"} & fields.keys()
    call.reference_id, call.trace_parent = ReferenceId("box"), f"00-{'cd' * 16}-{'ef' * 8}-01"
    fields = fields_of(record("later"))
    assert (fields["reference"], fields["trace_id"]) == ("box", "cd" * 16)


def test_an_error_is_written_out_when_it_is_logged() -> None:
    """Later it would keep in memory what the failed call held."""
    try:
        int(HOSTILE)
    except ValueError:
        logged = record("It failed")
        logged.exc_info = sys.exc_info()
    fields = fields_of(logged)
    assert not [value for value in fields.values() if isinstance(value, BaseException)]
    exception = json.loads(writer_of("json")(fields))["exception"]
    assert exception.startswith("Traceback (most recent call last):\n")
    assert "\x1b" not in exception


@pytest.mark.parametrize("kind", ["json", "text", "color"])
def test_hostile_text_is_one_line_that_no_terminal_obeys(kind: Format) -> None:
    line = writer_of(kind)(fields_of(record("%s", HOSTILE, frame_id=HOSTILE, client="x" * 1_000_000)))
    assert len(line.splitlines()) == 1
    assert len(line) < 5000
    assert not set("\u202e\x00\udcff") & set(line)
    assert "\x1b[2J" not in line
    if kind == "json":
        assert json.loads(line)["level"] == "info"
    if kind != "color":
        assert "\x1b" not in line


def test_a_value_with_blanks_cannot_look_like_another_field() -> None:
    line = writer_of("text")(fields_of(record("call", reference="box client=admin")))
    assert "reference='box client=admin'" in line


def test_one_of_several_processes_says_which_it_is() -> None:
    assert json.loads(writer_of("json", "front 1")(fields_of(record("Stopped"))))["process"] == "front 1"
