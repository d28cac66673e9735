"""The counts of the server as a message."""

from __future__ import annotations

from google.protobuf.timestamp_pb2 import Timestamp

from patchserve.v1 import server_info_pb2
from patchserve_server.serving.application import Application
from patchserve_server.serving.statistics import Histogram, OutcomeCounts


def server_stats(application: Application) -> server_info_pb2.GetServerStatsResponse:
    """What the server has counted until now."""
    statistics = application.statistics
    start_time = Timestamp()
    start_time.FromDatetime(statistics.start_time)
    return server_info_pb2.GetServerStatsResponse(
        process_id=statistics.process_id,
        processes=statistics.processes,
        start_time=start_time,
        uptime_s=statistics.uptime_s,
        calls_in_progress=application.calls.held.count,
        images_in_progress=application.images.held.count,
        loads_in_progress=application.loads.held.count,
        streams_open=statistics.streams_open,
        calls=[
            server_info_pb2.CallCount(method=method, code=code, count=count)
            for (method, code), count in sorted(statistics.calls.items())
        ],
        failures=[
            server_info_pb2.FailureCount(reason=reason, count=count)
            for reason, count in sorted(statistics.failures.items())
        ],
        wait=_histogram(statistics.wait),
        inspection=_histogram(statistics.inspection),
        references=[
            *(_reference(reference_id, counts) for reference_id, counts in sorted(statistics.references.items())),
            *([_reference("", statistics.other)] if statistics.other.total else []),
        ],
    )


def _histogram(histogram: Histogram) -> server_info_pb2.DurationHistogram:
    return server_info_pb2.DurationHistogram(
        bounds_s=histogram.BOUNDS_S, counts=histogram.counts, sum_s=histogram.sum_s
    )


def _reference(reference_id: str, counts: OutcomeCounts) -> server_info_pb2.ReferenceStats:
    return server_info_pb2.ReferenceStats(
        reference_id=reference_id, intact=counts.intact, anomalous=counts.anomalous, failed=counts.failed
    )
