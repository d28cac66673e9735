"""The limit on a response. A message above the limit would make gRPC end the call or the whole stream."""

from __future__ import annotations

from google.protobuf.message import Message

from patchserve_server.domain.errors import ResponseTooLargeError


def check_response_size(response: Message | bytes, limit_bytes: int, field: str = "output") -> None:
    """Rejects a response that cannot be sent.

    Args:
        response: the complete message, or its bytes.
        limit_bytes: the largest message that the server sends.
        field: the field of the request that made the response so large.

    Raises:
        ResponseTooLargeError: it is larger.
    """
    check_size(len(response) if isinstance(response, bytes) else response.ByteSize(), limit_bytes, field)


def check_size(size_bytes: int, limit_bytes: int, field: str = "output") -> None:
    """The same for a response of which only the size is known.

    Raises:
        ResponseTooLargeError: it is larger.
    """
    if size_bytes > limit_bytes:
        message = (
            f"The response would have {size_bytes:,} bytes; at most {limit_bytes:,} are sent. Ask for a JPEG overlay "
            "or a smaller overlay_max_side_px, or send fewer images at once."
        )
        raise ResponseTooLargeError(field, message)
