"""The command `serve` sets the log level of the whole process: each test gets the old one back."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def same_log_level() -> Iterator[None]:
    logger = logging.getLogger("patchserve_server")
    level = logger.level
    yield
    logger.setLevel(level)
