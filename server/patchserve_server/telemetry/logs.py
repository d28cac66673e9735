"""The log of the process: JSON lines for programs, readable lines for people."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, Literal, TextIO

from patchserve_server.domain.call_events import OK_LOG
from patchserve_server.telemetry.log_handler import BackgroundHandler
from patchserve_server.telemetry.log_lines import Format, writer_of

_OURS: Final = "patchserve_server"


@contextmanager
def open_logs(
    level: str,
    calls: Literal["all", "failed"] = "all",
    log_format: Literal["auto", "json", "text"] = "auto",
    *,
    process: str = "",
    stream: TextIO | None = None,
) -> Iterator[None]:
    """Logs to standard error, or to another stream. At its end, all lines are written.

    If the process logs already, only the levels are set.

    Args:
        level, calls: as of `set_levels`. Of libraries, warnings and errors are logged.
        log_format: auto is text on a terminal, else JSON.
        process: the name of the process, if the server has several.
        stream: where lines go.
    """
    root, stream = logging.getLogger(), stream or sys.stderr
    set_levels(level, calls)
    if root.handlers:
        yield
        return
    # No line has them, and finding them out costs as much as the rest of a record.
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    logging._srcfile = None  # noqa: SLF001 - the way that its documentation names
    handler = BackgroundHandler(stream, writer_of(_format(log_format, stream), process))
    root.addHandler(handler)
    try:
        yield
    finally:
        root.removeHandler(handler)
        handler.close()


def set_levels(level: str, calls: Literal["all", "failed"] = "all") -> None:
    """Change what is logged, at any time.

    Args:
        level: the lowest level of our messages: debug, info, warning or error.
        calls: which calls have a line at level info: all, or those that fail or change a reference.
    """
    logging.getLogger(_OURS).setLevel(level.upper())
    logging.getLogger(OK_LOG).setLevel(logging.NOTSET if calls == "all" or level == "debug" else logging.WARNING)


def _format(log_format: Literal["auto", "json", "text"], stream: TextIO) -> Format:
    is_terminal = stream.isatty()
    if log_format == "json" or (log_format == "auto" and not is_terminal):
        return "json"
    return "color" if is_terminal and not os.environ.get("NO_COLOR") else "text"
