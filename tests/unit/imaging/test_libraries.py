"""Importing changes no other library; one call sets them up; decoding is safe with and without it.

Each test runs in a process of its own: settings of libraries hold for a whole process, and pytest has its own warning
filters.
"""

from __future__ import annotations

import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest
from fakes.images import encoded
from PIL import Image

SETTINGS = "cv2.getNumThreads(), Image.MAX_IMAGE_PIXELS, warnings.filters"
UNCONFIGURED, CONFIGURED = "", "imaging.configure_libraries()\n"


def run(program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=True)


def test_importing_imaging_changes_no_other_library() -> None:
    program = (
        "import warnings, cv2; from PIL import Image\n"
        f"before = repr(({SETTINGS}))\n"
        "from patchserve_server import imaging\n"
        f"print(before == repr(({SETTINGS})))\n"
    )
    assert run(program).stdout == "True\n"


def test_configuring_again_changes_nothing() -> None:
    program = (
        "import warnings, cv2; from PIL import Image; from patchserve_server import imaging\n"
        f"imaging.configure_libraries(); before = repr(({SETTINGS}))\n"
        f"imaging.configure_libraries(); print(before == repr(({SETTINGS})))\n"
        "print(cv2.getNumThreads(), Image.MAX_IMAGE_PIXELS)\n"
    )
    assert run(program).stdout.splitlines() == ["True", "1 None"]


def test_a_configured_process_prints_no_warnings_about_images() -> None:
    program = (
        "import sys; from patchserve_server import imaging\n"
        "import warnings; warnings.simplefilter('error', append=True)\n"
        "imaging.configure_libraries()\n"
        "print(imaging.decode_image(bytes.fromhex(sys.argv[1]), imaging.ImageLimits()).size)\n"
    )
    image = Image.fromarray(np.arange(16 * 16 * 3, dtype=np.uint8).reshape(16, 16, 3))
    damaged_exif = b"Exif\0\0" + struct.pack("<2sHLHHHLLL", b"II", 42, 8, 1, 0x010F, 2, 4000, 4000, 0)
    palette = encoded(image.convert("P"), "PNG", transparency=bytes(range(256)))
    for data in (palette, encoded(image, "JPEG", exif=damaged_exif)):
        done = run(program, data.hex())
        assert (done.stdout, done.stderr) == ("(16, 16)\n", "")


DECODE = (
    "import sys; from patchserve_server import imaging\n"
    "{configure}"
    "from patchserve_server.domain.errors import InvalidImageError\n"
    "limits = imaging.ImageLimits(max_pixels=50_000)\n"
    "for data in map(bytes.fromhex, sys.argv[1:]):\n"
    "    try: print(imaging.decode_image(data, limits).tobytes().hex())\n"
    "    except InvalidImageError as error: print(type(error).__name__, error.message)\n"
)


def png_header(width: int, height: int) -> bytes:
    """A PNG file that ends where its pixels begin."""
    header = b"IHDR" + struct.pack(">2I5B", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + header + struct.pack(">I4x4s", zlib.crc32(header), b"IDAT")


@pytest.mark.parametrize("configure", [UNCONFIGURED, CONFIGURED], ids=["unconfigured", "configured"])
def test_our_own_limits_hold_whether_or_not_the_libraries_are_configured(configure: str) -> None:
    image = Image.fromarray(np.arange(4 * 5 * 3, dtype=np.uint8).reshape(4, 5, 3))
    # Pillow's own limits are 90 million pixels (it warns) and 179 million (it refuses).
    headers = [png_header(*size_px) for size_px in ((300, 200), (10_000, 10_000), (30_000, 30_000), (65_535, 65_535))]
    files = [encoded(image, "PNG"), *headers]
    decoded, *errors = run(DECODE.format(configure=configure), *(data.hex() for data in files)).stdout.splitlines()
    assert decoded == image.tobytes().hex()
    assert len(errors) == len(headers)
    for error in errors:
        assert error.startswith("ImageTooLargeError The image has ")
        assert error.endswith(" pixels; at most 50,000 are allowed.")


@pytest.mark.parametrize("kind", ["tiff_lzw", "tiff_deflate", "jpeg"])
def test_a_damaged_tiff_writes_nothing_to_the_log(kind: str) -> None:
    tiff = encoded(
        Image.fromarray(np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)), "TIFF", compression=kind
    )
    damaged = tiff[:200] + bytes(100) + tiff[300:]
    done = run(DECODE.format(configure=CONFIGURED), damaged.hex(), (tiff[:150] + b"\xff" * 20 + tiff[170:]).hex())
    assert done.stderr == ""
    assert "UndecodableImageError" in done.stdout
