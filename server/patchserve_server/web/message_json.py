"""Messages of the contract as JSON, as all our answers write them."""

from __future__ import annotations

from google.protobuf import json_format
from google.protobuf.message import Message


def json_of(message: Message) -> bytes:
    """The message in protobuf's JSON mapping.

    Fields have the names of the contract. A field that cannot be absent is always written: `"is_anomalous": false`.
    """
    text = json_format.MessageToJson(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True, indent=None
    )
    return text.encode("ascii")
