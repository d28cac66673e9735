"""Messages of the contract as JSON, as all our answers write them."""

from __future__ import annotations

from typing import Any, Final

from google.protobuf import json_format
from google.protobuf.message import Message

# Fields have the names of the contract. A field that cannot be absent is always written: `"is_anomalous": false`.
_MAPPING: Final[dict[str, Any]] = {"preserving_proto_field_name": True, "always_print_fields_with_no_presence": True}


def json_of(message: Message) -> bytes:
    """The message in protobuf's JSON mapping."""
    return json_format.MessageToJson(message, indent=None, **_MAPPING).encode("ascii")


def content_of(message: Message) -> dict[str, Any]:
    """The same as Python's objects, for a larger JSON."""
    return json_format.MessageToDict(message, **_MAPPING)
