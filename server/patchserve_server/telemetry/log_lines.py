"""A line of the log: what it has, and how it is written."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final, Literal, TypeAlias

import structlog

from patchserve_server.domain.call_events import CallInfo, current_call
from patchserve_server.domain.trace_parent import trace_id_of
from patchserve_server.telemetry.log_text import harmless, traceback_lines

Fields: TypeAlias = dict[str, Any]
Write: TypeAlias = Callable[[Fields], str]
Format: TypeAlias = Literal["json", "text", "color"]

# What each record has by itself; all else was given to the call that logged it, as `extra`.
_OWN: Final = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime"}


def fields_of(record: logging.LogRecord) -> Fields:
    """What a line has. Called by whoever logs: later, nobody knows for which call it was."""
    fields: Fields = {"timestamp": record.created, "level": record.levelname.lower(), "logger": record.name}
    fields["event"] = record.getMessage()
    if len(record.__dict__) > len(_OWN) - 2:
        given = record.__dict__.items()  # with what libraries such as Ray put into each record, for themselves
        fields |= {key: value for key, value in given if key not in _OWN and not key.startswith("_")}
    if (call := current_call.get()) is not None:
        fields |= _fields_of_call(call)
    if record.exc_info and record.exc_info[1] is not None:  # at once: it holds what the failed call held
        fields["exception"] = "".join(traceback.format_exception(record.exc_info[1]))
    return fields


def _fields_of_call(call: CallInfo) -> Fields:
    fields: Fields = {"request_id": call.request_id, "face": call.face, "method": call.method_name}
    fields["client"] = call.client
    if call.reference_id is not None:
        fields["reference"] = call.reference_id
    if call.trace_parent:
        fields["trace_id"] = trace_id_of(call.trace_parent)
    return fields


def writer_of(kind: Format, process: str = "") -> Write:
    """Writes a line, without its end.

    Args:
        kind: how it is written.
        process: the name of the process, if the server has several.
    """
    renderer: Any
    if kind == "json":
        renderer = structlog.processors.JSONRenderer()
    else:
        renderer = structlog.dev.ConsoleRenderer(
            colors=kind == "color", pad_event_to=0, exception_formatter=structlog.dev.plain_traceback, sort_keys=False
        )

    def write(fields: Fields) -> str:
        level, exception = fields["level"], fields.pop("exception", None)
        fields = {key: harmless(value) for key, value in fields.items()}
        fields["timestamp"] = _time_text(fields["timestamp"])
        if process:
            fields["process"] = process
        if exception is not None:
            fields["exception"] = traceback_lines(exception, indent="" if kind == "json" else "    ")
        return str(renderer(None, level, fields))

    return write


def _time_text(seconds: float) -> str:
    """UTC, such as 2026-11-29T10:20:30.405Z."""
    return f"{datetime.fromtimestamp(seconds, UTC).isoformat(timespec='milliseconds')[:-6]}Z"
