"""Reads the images of a scan."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass

from patchserve_server.domain.store_address import is_url
from patchserve_server.imaging import ImageLimits
from patchserve_server.scan.buckets import Buckets
from patchserve_server.scan.errors import UnreadableImageError


@dataclass(frozen=True, slots=True, eq=False)
class ReadImage:
    """The bytes of an image, and their SHA-256 in hexadecimal."""

    data: bytes
    sha256: str


class ImageReader:
    """Reads files and objects. Blocking; called from several threads at once.

    Args:
        limits: of images; of larger ones, nothing is read.
        buckets: where the objects are.
    """

    def __init__(self, limits: ImageLimits, buckets: Buckets) -> None:
        self._limits = limits
        self._buckets = buckets

    def read(self, path: str) -> ReadImage:
        """The bytes of an image, with their digest: it takes longer than reading, and this is a thread for what blocks.

        Raises:
            UnreadableImageError: it does not exist, or this user may not read it.
            ImageTooLargeError: it has more bytes than allowed.
            StorageUnavailableError: its bucket does not answer, which is no fault of the image.
        """
        data = self._buckets.read(path, self._limits) if is_url(path) else self._read_file(path)
        return ReadImage(data, hashlib.sha256(data).hexdigest())

    def _read_file(self, path: str) -> bytes:
        try:
            with open(path, "rb", buffering=0) as file:  # noqa: PTH123 - a Path for each of millions takes longer
                self._limits.check_bytes(os.fstat(file.fileno()).st_size)
                return file.readall()
        except OSError as error:
            raise UnreadableImageError(f"It cannot be read: {error.strerror}.") from error
