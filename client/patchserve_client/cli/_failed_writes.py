"""Files that could not be written: said once, counted, and an error at the end. The inspection goes on."""

from __future__ import annotations

from pathlib import Path

from patchserve_client._counted import counted
from patchserve_client.cli._output import print_note


class FailedWrites:
    """Counts the files of one folder. `noun` and `plural` name them, such as "overlay" and "overlays"."""

    def __init__(self, folder: Path, noun: str, plural: str) -> None:
        self._folder, self._noun, self._plural = folder, noun, plural
        self._count = 0

    def add(self, error: OSError) -> None:
        """One was not written."""
        self._count += 1
        if self._count == 1:
            cause = error.strerror or str(error)
            print_note(f"Warning: {self._folder}: {cause}. The inspection goes on without some {self._plural}.")

    def fail_if_any(self) -> None:
        """Report the number.

        Raises:
            OSError: there were some.
        """
        if self._count:
            raise OSError(f"{counted(self._count, self._noun, self._plural)} could not be written to {self._folder}.")
