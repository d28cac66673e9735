"""Decode guards: checks before and while a decoder reads a file.

Decoders trust tables and repeated parts, so a small file can take minutes or gigabytes. Such files are rejected here;
cameras and editors do not write them.
"""

from __future__ import annotations

import io
import re

from patchserve_server.domain.errors import UndecodableImageError
from patchserve_server.imaging.tiff_guard import check_tiff

MAX_READS = 200_000
MAX_JPEG_SCANS = 32
MAX_JPEG_EXIF_SEGMENTS = 16

# Start of scan with the only lengths that libjpeg accepts. The marker alone can occur by chance in other data.
_JPEG_SCAN = re.compile(rb"\xff\xda\x00(?:\x06\x00|\x08\x01|\x0a\x02|\x0c\x03|\x0e\x04)")
_BMP_INFO_HEADER_BYTES = 40
_BMP_UNCOMPRESSED = (0, 3)  # BI_RGB, BI_BITFIELDS


class LimitedReads(io.BytesIO):
    """A file in memory that can be read at most MAX_READS times.

    A decoder in Python needs one read or more for every segment, chunk, tag, strip and junk byte. A small file with a
    million of them would occupy a thread for a minute; an ordinary image of 30 MB takes a few thousand reads.
    """

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self._remaining_reads = MAX_READS

    def read(self, size: int | None = -1, /) -> bytes:
        self._remaining_reads -= 1
        if self._remaining_reads < 0:
            raise UndecodableImageError(f"The image file has too many parts; at most {MAX_READS:,} are supported.")
        return super().read(size)


def check_decoding_cost(data: bytes) -> None:
    """Reject a file that would take far more time or memory to decode than its size justifies.

    Raises:
        UndecodableImageError: too many scans, segments, strips, tiles or tag values, or an unsupported
            compression.
    """
    if data.startswith(b"\xff\xd8"):
        _check_jpeg(data)
    elif data.startswith(b"BM"):
        _check_bmp(data)
    elif data[:2] in (b"II", b"MM"):
        check_tiff(data)


def _check_jpeg(data: bytes) -> None:
    # Each scan costs a pass over the whole image, even an empty scan of ten bytes.
    if sum(1 for _ in _JPEG_SCAN.finditer(data)) > MAX_JPEG_SCANS:
        raise UndecodableImageError(f"The JPEG has too many scans; at most {MAX_JPEG_SCANS} are supported.")
    # Pillow appends each segment to all earlier ones, which takes quadratic time.
    if data.count(b"Exif\0\0") > MAX_JPEG_EXIF_SEGMENTS:
        raise UndecodableImageError(
            f"The JPEG has too many EXIF segments; at most {MAX_JPEG_EXIF_SEGMENTS} are supported."
        )


def _check_bmp(data: bytes) -> None:
    if int.from_bytes(data[14:18], "little") >= _BMP_INFO_HEADER_BYTES:
        compression = int.from_bytes(data[30:34], "little")
        if compression not in _BMP_UNCOMPRESSED:
            raise UndecodableImageError("Compressed BMP files are not supported; send an uncompressed BMP or a PNG.")
