"""A file that somebody may still be writing."""

from __future__ import annotations

import io
import math
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Self

_SETTLED_AFTER_S = 0.5  # a file of which nothing changed for so long is finished, if the system does not say so
_OLD_AFTER_S = 3600.0  # a file that was not changed for so long is finished. The clock of a network drive may be wrong
_DAMAGED_AFTER_S = 5.0  # a file that is no image after so long never becomes one: the server says what is wrong


@dataclass(frozen=True, slots=True)
class Signature:
    """What changes with the content of a file."""

    inode: int
    size: int
    modified_ns: int

    @classmethod
    def of(cls, status: os.stat_result) -> Self:
        """The signature in the status of a file."""
        return cls(status.st_ino, status.st_size, status.st_mtime_ns)


class ArrivingFile:
    """Whole is a file that its writer has closed or moved here, or that has settled, and that is an image."""

    def __init__(self, path: Path, clock: Callable[[], float] = time.time) -> None:
        self._path, self._clock = path, clock
        self.signature = Signature(0, -1, 0)
        self._changed_at_s = 0.0
        self._is_finished = False
        self._is_checked = False  # with this signature it was not an image

    def changed(self, signature: Signature, *, is_finished: bool) -> None:
        """The system told about a change. `is_finished`: its writer has closed it, or it was moved here."""
        if signature != self.signature:
            self.signature = signature
            is_old = self._clock() - signature.modified_ns / 1e9 > _OLD_AFTER_S
            self._changed_at_s = -math.inf if is_old else self._clock()
            self._is_finished = self._is_checked = False
        self._is_finished = self._is_finished or is_finished

    def whole_image(self) -> bytes | None:
        """The content; None: the file is not whole yet.

        Raises:
            OSError: it cannot be read, or is gone.
        """
        self.changed(Signature.of(self._path.stat()), is_finished=False)
        quiet_for_s = self._clock() - self._changed_at_s
        is_overdue = quiet_for_s > _DAMAGED_AFTER_S
        if not (self._is_finished or quiet_for_s > _SETTLED_AFTER_S) or (self._is_checked and not is_overdue):
            return None
        with self._path.open("rb") as file:
            image = file.read()
            if Signature.of(os.fstat(file.fileno())) != self.signature:
                return None
        self._is_checked = True
        return image if is_overdue or _is_image(image) else None


def _is_image(data: bytes) -> bool:
    """Whether the whole image can be decoded."""
    from PIL import Image  # noqa: PLC0415 - loaded on first use

    try:
        with Image.open(io.BytesIO(data)) as image:
            image.load()
    except Image.DecompressionBombError:
        return True  # too large for us: the server decides
    except Exception:  # noqa: BLE001 - damaged data raises errors of many kinds
        return False
    return True
