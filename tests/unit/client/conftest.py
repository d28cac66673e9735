"""A scripted server, both clients, and the command line."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from fakes.either_client import CallMethod, StreamFrames, call_asyncio, call_sync, stream_asyncio, stream_sync
from fakes.fake_server import FakeServer, serving
from fakes.responses import png
from fakes.terminal import Run
from typer.testing import CliRunner

from patchserve_client.cli import app


@pytest.fixture
def fake() -> Iterator[FakeServer]:
    with serving() as server:
        yield server


@pytest.fixture(params=[call_sync, call_asyncio], ids=["sync", "asyncio"])
def call(request: pytest.FixtureRequest) -> CallMethod:
    """Calls a method of a new client of either kind."""
    chosen: CallMethod = request.param
    return chosen


@pytest.fixture(params=[stream_sync, stream_asyncio], ids=["sync", "asyncio"])
def stream_frames(request: pytest.FixtureRequest) -> StreamFrames:
    """Streams frames through a new client of either kind."""
    chosen: StreamFrames = request.param
    return chosen


@pytest.fixture
def run(fake: FakeServer, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs a command line against the fake server; returns exit code, stdout and stderr."""
    monkeypatch.setenv("PATCHSERVE_SERVER", fake.address)
    monkeypatch.delenv("PATCHSERVE_TOKEN", raising=False)

    def invoke(*arguments: object) -> tuple[int, str, str]:
        result = CliRunner().invoke(app, list(map(str, arguments)))
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result.exit_code, result.stdout, result.stderr

    return invoke


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two intact images, an anomalous one, and files that are not images."""
    images = tmp_path / "new"
    images.mkdir()
    for name, color in (("a", "green"), ("b", "red"), ("c", "blue")):
        (images / f"{name}.png").write_bytes(png(color))
    (images / "notes.txt").write_text("not an image")
    (images / ".hidden.png").write_bytes(b"")
    return images
