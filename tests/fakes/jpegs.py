"""JPEG files for detectors that decode."""

from __future__ import annotations

from PIL import Image

from fakes.images import encoded
from patchserve_server.domain.images import SentImage
from patchserve_server.domain.jpeg_file import JpegFile
from patchserve_server.imaging import ImageLimits, device_file


def gray_jpeg(level: int, size_px: tuple[int, int] = (24, 20)) -> bytes:
    return encoded(Image.new("RGB", size_px, (level, level, level)), quality=100)


def gray_file(level: int, size_px: tuple[int, int] = (24, 20)) -> JpegFile:
    """The same as a device gets it."""
    file = device_file(SentImage(gray_jpeg(level, size_px)), ImageLimits())
    assert file is not None
    return file
