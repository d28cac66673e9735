"""What the tests of commands share. `serve` sets the log level of the process: each test gets the old one back."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator

import pytest

from patchserve_server.cli import main

Run = Callable[..., tuple[int | str | None, str, str]]


@pytest.fixture(autouse=True)
def same_log_level() -> Iterator[None]:
    logger = logging.getLogger("patchserve_server")
    level = logger.level
    yield
    logger.setLevel(level)


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs `patchserve-server store`; returns the exit code or the last message, stdout and stderr."""
    monkeypatch.delenv("PATCHSERVE_STORE", raising=False)

    def invoke(*arguments: object) -> tuple[int | str | None, str, str]:
        monkeypatch.setattr(sys, "argv", ["patchserve-server", "store", *map(str, arguments)])
        code: int | str | None = 0
        try:
            main()
        except SystemExit as ended:
            code = ended.code
        stdout, stderr = capsys.readouterr()
        return code, stdout, stderr

    return invoke
