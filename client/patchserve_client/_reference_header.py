"""The header that names the reference of a call, so that a balancer can send it to a server that has it in memory."""

from __future__ import annotations

import re
from typing import Final

from google.protobuf.message import Message

REFERENCE_HEADER: Final = "x-patchserve-reference"
DEFAULT_ID: Final = "default"
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", re.ASCII)  # the server rejects every other one


def reference_of(request: Message) -> str:
    """The reference that a request is about; empty if it is about none, or about all."""
    reference_id = getattr(request, "reference_id", None)
    if reference_id is None:
        return ""
    means_all = request.DESCRIPTOR.name == "ListLoadsRequest"
    return reference_id or ("" if means_all else DEFAULT_ID)


def reference_header(reference_id: str) -> tuple[tuple[str, str], ...]:
    """Metadata with the id; nothing if it is empty or not valid."""
    return ((REFERENCE_HEADER, reference_id),) if _ID.fullmatch(reference_id) else ()
