"""Keeps one child process running."""

from __future__ import annotations

import asyncio
import json
import logging
import sys
import time
from asyncio.subprocess import PIPE, Process
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from patchserve_server.bootstrap.processes.assignment import Alive, Assignment, Ready, Report, report_of
from patchserve_server.bootstrap.processes.child import ANSWER, DRAIN, RELOAD, SETTINGS
from patchserve_server.config import Settings
from patchserve_server.domain.errors import StartupError
from patchserve_server.fronts.link import MISSES, WATCH_S

COMMAND: tuple[str, ...] = (sys.executable, "-m", "patchserve_server.bootstrap.processes.child")
_SHORT_S: Final = 10.0  # a child that ends sooner is started again only after a while
_LONGEST_PAUSE_S: Final = 30.0

_log = logging.getLogger(__name__)


class ChildKeeper:
    """Starts a child, and starts it again when it ends. One that is ready but no longer answers is ended.

    Args:
        assignment: of the child.
        ended: called with its number when it has ended though nobody stopped it.
    """

    def __init__(self, assignment: Assignment, ended: Callable[[int], None]) -> None:
        self._assignment = assignment
        self._ended = ended
        self._process: Process | None = None
        self._is_stopping = False
        self._alive: Alive | None = None  # None: it has not answered yet
        self.ready: asyncio.Future[Ready] = asyncio.get_running_loop().create_future()

    async def keep(self) -> None:
        """Runs the child until `stop` is called.

        Raises:
            StartupError: it has ended before it was ready for the first time.
        """
        pause_s = 0.0
        while not self._is_stopping:
            await asyncio.sleep(pause_s)
            started_s = time.monotonic()
            code = await self._run()
            if self._is_stopping:
                return
            if not self.ready.done():
                raise StartupError(f"The {self._assignment.name} ended with code {code} before it was ready.")
            _log.error("The %s ended (code %d) and is started again", self._assignment.name, code)
            self._ended(self._assignment.number)
            is_short = time.monotonic() - started_s < _SHORT_S
            pause_s = min(_LONGEST_PAUSE_S, 2 * pause_s or 0.5) if is_short else 0.0

    async def _run(self) -> int:
        self._process = process = await asyncio.create_subprocess_exec(
            *COMMAND,
            self._assignment.name,  # for those who list processes
            stdin=PIPE,
            stdout=PIPE,
            pass_fds=self._assignment.files,
            start_new_session=True,
        )
        watching: asyncio.Task[None] | None = None
        try:
            self._write(self._assignment.to_line())
            if process.stdout is not None:
                while line := await process.stdout.readline():
                    report = report_of(line)
                    self._take(report)
                    if isinstance(report, Ready):
                        watching = asyncio.create_task(self._watch(process))
            return await process.wait()
        finally:
            if watching is not None:
                watching.cancel()
            if process.returncode is None:
                process.kill()
                await process.wait()

    async def _watch(self, process: Process) -> None:
        """Kills a process that lives, but does not answer, or computes something that nobody waits for any more."""
        missed, name = 0, self._assignment.name
        while not self._is_stopping:
            self._alive = None
            self._write(ANSWER)
            await asyncio.sleep(WATCH_S)
            missed = missed + 1 if self._alive is None else 0
            if missed >= MISSES:
                _log.error("The %s does not answer for %g s and is killed", name, MISSES * WATCH_S)
                process.kill()
            elif self._alive is not None and self._alive.busy_s > self._assignment.settings["max_timeout_s"]:
                _log.error("The %s computes one batch for longer than --max-timeout-s and is killed", name)
                process.kill()

    def _take(self, report: Report) -> None:
        if isinstance(report, Alive):
            self._alive = report
        elif isinstance(report, Ready):
            if not self.ready.done():
                self.ready.set_result(report)
        elif self.ready.done():
            _log.error("The %s cannot start: %s", self._assignment.name, report.message)
        else:
            raise StartupError(report.message)

    def _write(self, line: bytes) -> None:
        if self._process is not None and self._process.stdin is not None:
            with suppress(OSError):  # it has just ended
                self._process.stdin.write(line)

    def reload(self) -> None:
        """Lets the child read its files again."""
        self._write(RELOAD)

    def change(self, settings: Settings) -> None:
        """Gives the child other settings, now and when it is started again."""
        self._assignment = self._assignment.with_settings(settings)
        self._write(SETTINGS + json.dumps(self._assignment.settings).encode() + b"\n")

    async def stop(self, limit_s: float) -> None:
        """Lets the child drain and end; kills it if it takes longer."""
        self._is_stopping = True
        process = self._process
        if process is None or process.returncode is not None:
            return
        self._write(DRAIN)
        try:
            async with asyncio.timeout(limit_s):
                await process.wait()
        except TimeoutError:
            _log.error("The %s does not end and is killed", self._assignment.name)
            process.kill()
