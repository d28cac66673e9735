"""A child process: `python -m patchserve_server.bootstrap.processes.child`, with its assignment on standard input.

It takes no signals: a service manager may send them to every process of the server. Its parent writes commands to its
standard input, whose end means that the parent has gone.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import Callable
from functools import partial
from typing import Final

from patchserve_server.bootstrap.live_settings import LiveSettings
from patchserve_server.bootstrap.process import configure_process, new_event_loop, set_log_level
from patchserve_server.bootstrap.processes.assignment import Alive, Assignment, Failed, Report, report_line
from patchserve_server.config import Settings
from patchserve_server.domain.errors import StartupError
from patchserve_server.telemetry.logs import open_logs

FORCED_EXIT_CODE: Final = 130
DRAIN: Final = b"drain\n"
RELOAD: Final = b"reload\n"
ANSWER: Final = b"answer\n"
SETTINGS: Final = b"settings "  # and all of them, as JSON


def report(message: Report) -> None:
    """Tell the parent."""
    print(report_line(message), flush=True)  # noqa: T201 - the parent reads it


class Commands:
    """What the parent commands.

    Args:
        live: the settings of this process, which the parent may change.
        reload: called when files are to be read again.
    """

    def __init__(self, live: LiveSettings, reload: Callable[[], None] = lambda: None) -> None:
        self._live = live
        self._reload = reload
        self.busy_s: Callable[[], float] = lambda: 0.0
        live.on_change(set_log_level)
        self.stop: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def listen(self) -> None:
        """Obeys until the parent has gone."""
        reader = asyncio.StreamReader()
        await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
        while line := await reader.readline():
            if line == RELOAD:
                self._reload()
            elif line == ANSWER:
                report(Alive(self.busy_s()))
            elif line.startswith(SETTINGS):
                self._live.change(Settings(**json.loads(line.removeprefix(SETTINGS))))
            elif not self.stop.done():
                self.stop.set_result(None)
        if self.stop.done():  # the parent has not waited for the end: a second signal
            os._exit(FORCED_EXIT_CODE)
        self.stop.set_result(None)


def main() -> None:
    """Run the part that the first line of standard input assigns."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    assignment = Assignment.from_line(_first_line())
    settings = assignment.read_settings()
    configure_process()
    try:
        with (
            open_logs(settings.log_level, settings.log_calls, settings.log_format, process=assignment.name),
            asyncio.Runner(loop_factory=partial(new_event_loop, settings)) as runner,
        ):
            runner.run(_run(assignment))
    except StartupError as error:
        report(Failed(error.message))
        sys.exit(1)


async def _run(assignment: Assignment) -> None:
    if assignment.role == "engine":
        from patchserve_server.bootstrap.processes.engine import run_engine  # noqa: PLC0415 - a front needs no torch

        await run_engine(assignment)
    elif assignment.role == "device":
        from patchserve_server.bootstrap.processes.device import run_device  # noqa: PLC0415 - as above

        await run_device(assignment)
    else:
        from patchserve_server.bootstrap.processes.front import run_front  # noqa: PLC0415 - as above

        await run_front(assignment)


def _first_line() -> bytes:
    line = bytearray()
    while not line.endswith(b"\n"):  # byte by byte: what follows is read by the event loop
        line += os.read(sys.stdin.fileno(), 1) or sys.exit(1)
    return bytes(line)


if __name__ == "__main__":
    main()
