"""Tasks that continue after their caller has left."""

from __future__ import annotations

import asyncio
from typing import Any


def retrieve_error(task: asyncio.Task[Any]) -> None:
    """A done callback. It keeps asyncio from logging an error that nobody waits for: the caller has left."""
    if not task.cancelled():
        task.exception()
