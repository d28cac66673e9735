"""A disk that fails: the system's functions, told to raise."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable
from typing import Any

import pytest
from safetensors import SafetensorError

STEPS = (
    "os.fsync",
    "os.replace",
    "os.rename",
    "os.mkdir",
    "os.open",
    "io.open",
    "patchserve_server.store.bank_file.save_file",
)
"""Everything by which a save or a deletion changes the disk, but for clearing up."""

CLEARING_UP = ("os.unlink", "os.rmdir")


def failing(patch: pytest.MonkeyPatch, name: str, code: Callable[[], int | None]) -> None:
    """Asks at each call of a function which system error it shall raise; None: none."""
    module_name, _, attribute = name.rpartition(".")
    module = importlib.import_module(module_name)
    real = getattr(module, attribute)

    def step(*args: Any, **kwargs: Any) -> Any:
        number = code()
        if number is None:
            return real(*args, **kwargs)
        if attribute == "save_file":  # the library tells system errors as text
            raise SafetensorError(f"Error while serializing: I/O error: {os.strerror(number)} (os error {number})")
        raise OSError(number, os.strerror(number), str(args[0]))

    patch.setattr(module, attribute, step)


class FailingDisk:
    """Fails at one step, counted from 0, or from it on."""

    def __init__(self, at: int, code: int, *, for_good: bool = False) -> None:
        self._at = at
        self._code = code
        self._for_good = for_good
        self.steps = 0

    def __call__(self) -> int | None:
        step, self.steps = self.steps, self.steps + 1
        return self._code if step == self._at or (self._for_good and step > self._at) else None

    @property
    def reached(self) -> bool:
        return self.steps > self._at
