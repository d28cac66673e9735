"""Answers of GetServerStats."""

from __future__ import annotations

from patchserve.v1 import server_info_pb2

BOUNDS_S = (0.01, 0.1, 1.0)


def server_stats(images: int, *, uptime_s: float, process_id: str = "a") -> server_info_pb2.GetServerStatsResponse:
    """A server that has inspected so many images in 10 to 100 ms each; a fifth is anomalous, and as many failed."""
    duration = server_info_pb2.DurationHistogram(bounds_s=BOUNDS_S, counts=[0, images, 0, 0], sum_s=0.05 * images)
    message = server_info_pb2.GetServerStatsResponse(
        process_id=process_id,
        processes=1,
        uptime_s=uptime_s,
        calls_in_progress=2,
        images_in_progress=3,
        streams_open=1,
        calls=[
            server_info_pb2.CallCount(method="Infer", code="OK", count=images),
            server_info_pb2.CallCount(method="Infer", code="RESOURCE_EXHAUSTED", count=images // 5),
        ],
        failures=[server_info_pb2.FailureCount(reason="QUEUE_FULL", count=images // 5)],
        wait=duration,
        inspection=duration,
        references=[
            server_info_pb2.ReferenceStats(reference_id="line", intact=images - images // 5, anomalous=images // 5)
        ],
    )
    message.start_time.FromJsonString("2025-01-02T03:04:05Z")
    return message
