"""A real server of several processes, whose engine has a FakeDetector."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import grpc
from e2e.harness import MESSAGE_OPTIONS, ServerProcess, Stub, until_stopped
from fakes.waiting import wait_until

PROGRAM = (sys.executable, str(Path(__file__).parents[1] / "fakes" / "parent_process.py"))


class SeveralProcesses(ServerProcess):
    """A parent, an engine and fronts.

    Args:
        score_s: how long a batch takes.
        silence_s: how long a process may be silent; None: as long as in earnest.
        fronts: how many.
        decode: where JPEG files are decoded.
    """

    def __init__(
        self,
        *flags: str,
        score_s: float = 0.0,
        silence_s: float | None = None,
        fronts: int = 2,
        decode: str = "cpu",
    ) -> None:
        variables = {"FAKE_SCORE_S": str(score_s), "FAKE_SILENCE_S": str(silence_s or ""), "FAKE_DECODE": decode}
        super().__init__("--fronts", str(fronts), *flags, program=PROGRAM, variables=variables)
        self.fronts = fronts

    def pid_of(self, name: str) -> int:
        """The process of the engine, or of a front; 0: there is none now."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        for pid in children:
            try:
                command = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if name.encode() in command:
                return int(pid)
        return 0

    def kill(self, name: str) -> int:
        """Ends the engine or a front at once; returns what was its process."""
        pid = self.pid_of(name)
        os.kill(pid, signal.SIGKILL)
        return pid

    @contextmanager
    def stub_at(self, front: int) -> Iterator[Stub]:
        """A stub whose connection belongs to this front: the system chooses, so it tries again."""
        with ExitStack() as stack:
            while True:
                channel = stack.enter_context(
                    grpc.insecure_channel(self.address, [*MESSAGE_OPTIONS, ("grpc.use_local_subchannel_pool", 1)])
                )
                before = [self._sockets(each) for each in range(self.fronts)]
                grpc.channel_ready_future(channel).result(30)
                with suppress(TimeoutError):  # an old connection may have been closed meanwhile
                    wait_until(lambda: [self._sockets(each) for each in range(self.fronts)] != before, 5)  # noqa: B023
                if self._sockets(front) > before[front]:
                    break
            yield Stub(channel)

    def _sockets(self, front: int) -> int:
        folder = Path(f"/proc/{self.pid_of(f'front {front}')}/fd")
        count = 0
        for file in folder.iterdir():
            try:
                count += str(file.readlink()).startswith("socket:")
            except OSError:
                continue
        return count


@contextmanager
def server_of_processes(
    *flags: str, score_s: float = 0.0, silence_s: float | None = None, decode: str = "cpu"
) -> Iterator[SeveralProcesses]:
    """Several processes, as `until_stopped`."""
    with until_stopped(SeveralProcesses(*flags, score_s=score_s, silence_s=silence_s, decode=decode)) as server:
        yield server
