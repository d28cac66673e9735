"""`reference load --skip-bad`: a load without the images that cannot be used."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from patchserve_client import InvalidArgument, ReferenceInfo
from patchserve_client.cli._failures import fail, message_of
from patchserve_client.cli._loading import rejected_file

Load = Callable[[list[Path]], ReferenceInfo]


@dataclass(frozen=True, slots=True)
class Skipped:
    """A file that was left out, and why."""

    file: Path
    problem: str
    reason: str  # of the server; empty: this machine cannot read the file

    def as_json(self) -> dict[str, Any]:
        return {"file": str(self.file), "reason": self.reason, "message": self.problem}


def load_usable(load: Load, files: list[Path], on_skip: Callable[[Skipped], None]) -> ReferenceInfo:
    """Load the files that can be used. `on_skip` gets the others.

    A server rejects a load as a whole and names the bad image, so this tries again without it. A rejected load changes
    nothing, so no try can add images twice.

    Raises:
        typer.Exit: no file can be used.
        PatchserveError: an error that is not about one image.
    """
    usable = list(files)
    while usable:
        try:
            return load(usable)
        except (InvalidArgument, OSError) as error:
            skipped = _skipped(error, usable)
            if skipped is None:
                raise
        usable.remove(skipped.file)
        on_skip(skipped)
    raise fail("None of the files can be used. Nothing was loaded.")


def _skipped(error: InvalidArgument | OSError, files: list[Path]) -> Skipped | None:
    if isinstance(error, InvalidArgument):
        file = rejected_file(error, files)
        return None if file is None else Skipped(file, message_of(error), error.reason)
    file = next((file for file in files if error.filename is not None and str(error.filename) == str(file)), None)
    return None if file is None else Skipped(file, error.strerror or str(error), "")
