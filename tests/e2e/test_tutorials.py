"""Every tutorial runs, block by block, and prints what it shows."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from e2e.harness import server_process
from e2e.tutorials import (
    GRPC,
    HTTP,
    METRICS,
    PROMETHEUS,
    TUTORIALS,
    assert_same_output,
    blocks_of,
    run_tutorial,
)
from fakes.programs import program

NAMES = sorted(path.name for path in TUTORIALS.glob("*.md") if path.name != "README.md")


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


@pytest.fixture(scope="module")
def addresses() -> Iterator[dict[str, str]]:
    """Those of the pages, and those of a server that has all ports."""
    metrics = free_port()
    with server_process("--http-port", "0", "--metrics-port", str(metrics)) as server:
        http = server.http_url.removeprefix("http://")
        yield {GRPC: server.address, HTTP: http, METRICS: f"localhost:{metrics}", PROMETHEUS: str(free_port())}


@pytest.mark.parametrize("name", NAMES)
def test_a_tutorial_runs_and_prints_what_it_shows(name: str, addresses: dict[str, str], tmp_path: Path) -> None:
    if name == "metrics.md":
        program("prometheus")
    assert any(block.shown for block in blocks_of(name))
    run_tutorial(name, addresses, tmp_path)


@pytest.mark.parametrize(
    ("shown", "printed"),
    [
        ("000.jpg anomalous 1.37 x", "000.jpg   anomalous  1.38 x\n"),
        ("12 images in 0.3 s", "12 images in 4.1 s"),
        ("7.6 MiB of memory in use, 58 ms an image", "6.4 MiB of memory in use, 51 ms an image"),
        ("ready: …", "ready: anything, 17 of it"),
        ("first\n…\nlast", "first\nsecond\nthird\nlast"),
    ],
)
def test_outputs_may_differ_where_processors_do(shown: str, printed: str) -> None:
    assert_same_output(shown, printed)


@pytest.mark.parametrize(
    ("shown", "printed"),
    [
        ("000.jpg anomalous 1.37 x", "000.jpg intact 1.37 x"),
        ("000.jpg anomalous 1.37 x", "000.jpg anomalous 1.67 x"),
        ("12 images", "13 images"),
        ("one", "one\ntwo"),
        ("one\ntwo", "one"),
    ],
)
def test_other_outputs_fail(shown: str, printed: str) -> None:
    with pytest.raises(AssertionError):
        assert_same_output(shown, printed)
