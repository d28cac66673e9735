"""The reference that is loaded from a folder when the server starts (`--preload`)."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Protocol

from patchserve_server.domain.errors import InvalidImageError, PatchserveError, StartupError
from patchserve_server.domain.reference import ReferenceInfo
from patchserve_server.domain.reference_image import NamedImage, image_name_of_file
from patchserve_server.domain.words import counted
from patchserve_server.serving.reference_builder import LoadOptions, ReferenceBuilder

_log = logging.getLogger(__name__)


class ImageFolder(Protocol):
    """A folder of encoded images. Every method blocks and may raise an OSError."""

    def __str__(self) -> str:
        """The name of the folder, for messages."""

    def names(self) -> Sequence[str]:
        """The names of the image files, in the order in which they are loaded."""

    def read(self, name: str) -> bytes:
        """The bytes of one file."""


class FolderReader:
    """The files of a folder on disk, sorted by name; hidden files and subfolders are skipped."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __str__(self) -> str:
        return str(self._path)

    def names(self) -> Sequence[str]:
        return sorted(path.name for path in self._path.iterdir() if path.is_file() and not path.name.startswith("."))

    def read(self, name: str) -> bytes:
        return (self._path / name).read_bytes()


async def preload(builder: ReferenceBuilder, folder: ImageFolder, sensitivity: float | None = None) -> ReferenceInfo:
    """Build the reference "default" from every image of the folder, with this sensitivity; None: 1.

    Raises:
        StartupError: the folder or one of its files cannot be read, or no reference can be built from them.
    """
    current_name = ""

    async def images() -> AsyncIterator[NamedImage]:
        nonlocal current_name
        for name in await asyncio.to_thread(folder.names):
            current_name = name
            yield NamedImage(await asyncio.to_thread(folder.read, name), image_name_of_file(name))

    try:
        reference = (await builder.load(LoadOptions(sensitivity=sensitivity), images())).info
    except OSError as error:
        source = f"{folder}: {current_name}" if current_name else f"{folder}"
        message = f"--preload {source}: {error.strerror or error}. Name a folder of readable images."
        raise StartupError(message) from error
    except InvalidImageError as error:  # the builder decodes each image before it asks for the next one
        raise StartupError(f"--preload {folder}: {current_name}: {error.message}") from error
    except PatchserveError as error:
        raise StartupError(f"--preload {folder}: {error.message}") from error
    found = counted(reference.image_count, "image")
    _log.info("Loaded reference %r from %s in %s", str(reference.reference_id), found, folder)
    return reference
