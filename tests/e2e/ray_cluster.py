"""A cluster of Ray with two nodes for tests. It runs in processes of its own, of which none is left behind."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from fakes.programs import free_port

TESTS = Path(__file__).resolve().parents[1]
STOP_TIMEOUT_S = 30


class RayCluster:
    """Commands for `ray_program.py`, which has started. `ports` are those of the proxies, by name."""

    def __init__(self, process: subprocess.Popen[str], ports: Mapping[str, int], log: Path) -> None:
        self._process = process
        self._log = log
        self.ports = ports

    @property
    def address(self) -> str:
        """The proxy of the head."""
        return f"localhost:{self.ports['grpc']}"

    def deploy(self, *, is_fake: bool = True, options: Mapping[str, Any] | None = None, **settings: Any) -> None:
        """Deploy the application, with a fake detector or a real one; returns when it is ready."""
        told = {"insecure": True, "drain_delay_s": 0.2, "log_calls": "failed", **settings}
        self._command("deploy", settings=told, options=dict(options or {}), is_fake=is_fake)

    def replicas(self) -> list[tuple[int, str]]:
        """Process ids of the replicas, and on which node each is: head or second."""
        return [(pid, node) for pid, node in self._command("replicas")]

    def kill_replica(self, node: Literal["head", "second"]) -> None:
        self._command("kill replica", node=node)

    def kill_second_node(self) -> None:
        self._command("kill node")

    def open_ids(self) -> list[list[str]]:
        """The open references of each replica."""
        found: list[list[str]] = self._command("open ids")
        return found

    def _command(self, do: str, **arguments: Any) -> Any:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"do": do, **arguments}) + "\n")
        self._process.stdin.flush()
        return self.answer()

    def answer(self) -> Any:
        """The answer to the last command."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, self._log.read_text()[-4000:]
        return json.loads(line)


@contextmanager
def ray_cluster(log: Path, **variables: str) -> Iterator[RayCluster]:
    """Start a cluster, whose processes have these environment variables."""
    folder = tempfile.mkdtemp(prefix="ray-")  # short: the paths of sockets are
    (Path(folder) / "ray").mkdir()  # it notes there which cluster is the current one
    ports = {name: free_port() for name in ("grpc", "http", "second_grpc", "second_http")}
    paths = os.pathsep.join((str(TESTS), os.environ.get("PYTHONPATH", "")))
    quiet = {
        "RAY_TMPDIR": folder,
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_SERVE_GRPC_MAX_MESSAGE_SIZE": str(64 * 2**20),
        "RAY_raylet_start_wait_time_s": "180",  # other tests may have the cores
    }
    environment = {**os.environ, **variables, **quiet, "PYTHONPATH": paths}
    with log.open("w") as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", "e2e.ray_program"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env=environment,
            start_new_session=True,
        )
    cluster = RayCluster(process, ports, log)
    assert process.stdin is not None
    try:
        process.stdin.write(json.dumps({"folder": folder, "ports": ports}) + "\n")
        process.stdin.flush()
        assert cluster.answer() == "started"
        yield cluster
    finally:
        process.stdin.close()
        try:
            process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        assert process.stdout is not None
        process.stdout.close()
        shutil.rmtree(folder, ignore_errors=True)
