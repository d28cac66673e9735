"""The white level: the value that is white in images with 16 bits per sample.

Cameras fill only 10, 12 or 14 of them, and most files do not say how many.
"""

from __future__ import annotations

from typing import Final

from patchserve_server.domain.errors import InvalidInputError

MAX_WHITE_LEVEL: Final = 65_535


def check_white_level(white_level: int | None) -> None:
    """Check the range; None is not set.

    Raises:
        InvalidInputError: it is not 1 to 65535.
    """
    if white_level is not None and not 1 <= white_level <= MAX_WHITE_LEVEL:
        message = f"white_level must be 1 to {MAX_WHITE_LEVEL}, such as 4095 for 12 bits, not {white_level}."
        raise InvalidInputError("white_level", message)
