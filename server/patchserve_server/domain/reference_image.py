"""The images that a reference was built from, as they were loaded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from patchserve_server.domain.errors import InvalidInputError

MAX_IMAGE_NAME_BYTES: Final = 128
MEDIA_TYPES: Final = ("image/jpeg", "image/png", "image/webp", "image/bmp", "image/tiff")


def check_image_name(name: str) -> None:
    """Check the name of an image: people read it, so it must not contain control characters.

    Raises:
        InvalidInputError: it is too long or not printable.
    """
    if len(name.encode()) > MAX_IMAGE_NAME_BYTES or not name.isprintable():
        message = f"The name of an image is at most {MAX_IMAGE_NAME_BYTES} bytes of printable characters."
        raise InvalidInputError("image_name", message)


def image_name_of_file(name: str) -> str:
    """A file's name as the name of an image: with ? in place of what is not printable, and of a long name the end."""
    printable = "".join(character if character.isprintable() else "?" for character in name)
    return printable.encode()[-MAX_IMAGE_NAME_BYTES:].decode(errors="ignore")


@dataclass(frozen=True, slots=True, eq=False)
class NamedImage:
    """An encoded image of a load, and its name; empty: none.

    Raises:
        InvalidInputError: the name is too long or not printable.
    """

    data: bytes
    name: str = ""

    def __post_init__(self) -> None:
        check_image_name(self.name)


@dataclass(frozen=True, slots=True)
class ReferenceImage:
    """What is known of an image that a reference was built from. Without a media type, nothing is known.

    Raises:
        InvalidInputError: the name is too long or not printable.
        ValueError: the media type is not one of MEDIA_TYPES, or a number is negative.
    """

    name: str = ""
    media_type: str = ""
    width_px: int = 0  # upright
    height_px: int = 0
    size_bytes: int = 0  # encoded

    def __post_init__(self) -> None:
        check_image_name(self.name)
        if self.media_type not in ("", *MEDIA_TYPES) or min(self.width_px, self.height_px, self.size_bytes) < 0:
            raise ValueError("an image has an unknown media type or a negative size")
