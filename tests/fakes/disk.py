"""A disk that fails: functions of the system that raise."""

from __future__ import annotations

import os
import pkgutil
from collections.abc import Callable
from typing import Any

import pytest

STEPS = (
    "os.fsync",
    "os.replace",
    "os.rename",
    "os.mkdir",
    "os.open",
    "io.open",
    "patchserve_server.store.bank_file.save_file",
)
"""The functions by which a save or a deletion changes the disk, except for the cleanup."""

CLEANUP = ("os.unlink", "os.rmdir")


def failing(patch: pytest.MonkeyPatch, name: str, code: Callable[[], int | None]) -> None:
    """Make a function raise system errors. Each call asks `code` for the number of the error; None: no error."""
    module_name, _, attribute = name.rpartition(".")
    module = pkgutil.resolve_name(module_name)
    real = getattr(module, attribute)

    def step(*args: Any, **kwargs: Any) -> Any:
        number = code()
        if number is None:
            return real(*args, **kwargs)
        if attribute == "save_file":  # the library reports system errors as text
            from safetensors import SafetensorError  # noqa: PLC0415 - the client's tests run without it

            raise SafetensorError(f"Error while serializing: I/O error: {os.strerror(number)} (os error {number})")
        raise OSError(number, os.strerror(number), str(args[0]))

    patch.setattr(module, attribute, step)


class FailingDisk:
    """Fails at one step, counted from 0; with `for_good` also at every later step."""

    def __init__(self, step: int, code: int, *, for_good: bool = False) -> None:
        self._failing_step = step
        self._code = code
        self._for_good = for_good
        self.steps = 0

    def __call__(self) -> int | None:
        step, self.steps = self.steps, self.steps + 1
        return self._code if step == self._failing_step or (self._for_good and step > self._failing_step) else None

    @property
    def reached(self) -> bool:
        return self.steps > self._failing_step
