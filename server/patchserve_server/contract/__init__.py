"""Converts protobuf to checked domain values (`requests`), and domain values to protobuf (`responses`)."""

from patchserve_server.contract.requests import (
    expected_revision,
    frame,
    image_name,
    load_options,
    loads_of,
    named_images,
    output_options,
    page,
    reference_id,
    stream_config,
)
from patchserve_server.contract.responses import (
    cost_message,
    image_message,
    infer_response,
    load_message,
    page_token,
    reference_message,
    server_info,
    stream_event,
)

__all__ = [
    "cost_message",
    "expected_revision",
    "frame",
    "image_message",
    "image_name",
    "infer_response",
    "load_message",
    "load_options",
    "loads_of",
    "named_images",
    "output_options",
    "page",
    "page_token",
    "reference_id",
    "reference_message",
    "server_info",
    "stream_config",
    "stream_event",
]
