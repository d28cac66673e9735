"""The deadline of a call on its way through Ray, which forgets it: as the header that gRPC itself uses on the wire.

gRPC takes it out of the metadata that it receives, so no caller can set it.
"""

from __future__ import annotations

from typing import Final

HEADER: Final = "grpc-timeout"
_MILLISECONDS: Final = "m"
_MAX_MS: Final = 99_999_999  # eight digits


def header_of(remaining_s: float) -> str:
    """The value for so many seconds."""
    return f"{min(_MAX_MS, max(0, round(remaining_s * 1000)))}{_MILLISECONDS}"


def seconds_of(header: str) -> float | None:
    """The seconds of a value; None: there is no header."""
    return int(header.removesuffix(_MILLISECONDS)) / 1000 if header else None
