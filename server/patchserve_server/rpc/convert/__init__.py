"""Protobuf to domain and back: `requests` are checked on their way in, `answers` go out."""

from patchserve_server.rpc.convert.requests import frame, load_options, loads_of, output_options, page, stream_config
from patchserve_server.rpc.convert.responses import (
    infer_response,
    load_message,
    page_token,
    reference_message,
    server_info,
    stream_event,
)

__all__ = [
    "frame",
    "infer_response",
    "load_message",
    "load_options",
    "loads_of",
    "output_options",
    "page",
    "page_token",
    "reference_message",
    "server_info",
    "stream_config",
    "stream_event",
]
