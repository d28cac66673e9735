"""How long a caller should wait, as gRPC's own retries read it; the RetryInfo of a status is for programs."""

from __future__ import annotations

from typing import Final

from google.rpc import error_details_pb2, status_pb2

_HEADER: Final = "grpc-retry-pushback-ms"


def pushback(failure: status_pb2.Status) -> tuple[tuple[str, str], ...]:
    """Trailing metadata with the delay of a RetryInfo, in milliseconds; nothing if the status has none.

    https://github.com/grpc/proposal/blob/master/A6-client-retries.md#pushback
    """
    retry = error_details_pb2.RetryInfo()
    if not any(detail.Unpack(retry) for detail in failure.details):
        return ()
    return ((_HEADER, str(retry.retry_delay.ToMilliseconds())),)
