"""The table of metrics."""

from __future__ import annotations

import re

from patchserve_server.contract.status import CODES
from patchserve_server.domain import errors
from patchserve_server.domain.errors import PatchserveError
from patchserve_server.serving.observed_store import ObservedSharedReferences, ObservedStore
from patchserve_server.telemetry.metrics.definitions import METRICS, REJECTIONS, STORE_OPERATIONS, Kind


def test_names_and_units_are_those_that_prometheus_asks_for() -> None:
    assert len({metric.full_name for metric in METRICS}) == len(METRICS)
    for metric in METRICS:
        assert re.fullmatch(r"patchserve_[a-z_]+", metric.full_name)
        if metric.unit in {"seconds", "bytes"}:
            assert metric.name.endswith(f"_{metric.unit}")
        assert list(metric.buckets) == sorted(set(metric.buckets))
        assert (metric.kind is Kind.HISTOGRAM) == bool(metric.buckets)
        assert all(len(known) == len(metric.labels) for known in metric.known)


def subclasses(kind: type[PatchserveError]) -> set[type[PatchserveError]]:
    return {each for below in kind.__subclasses__() for each in (below, *subclasses(below))}


def test_every_rejection_begins_at_zero() -> None:
    kinds = subclasses(errors.ExhaustedError) | subclasses(errors.UnavailableError)
    kinds -= {errors.FrameDroppedError}  # of a frame; a call goes on
    assert {kind.reason for kind in REJECTIONS} == {kind.reason for kind in kinds}
    assert {CODES[errors.ExhaustedError], CODES[errors.UnavailableError]} == {8, 14}


def test_the_errors_of_every_operation_of_the_store_begin_at_zero() -> None:
    observed = {**vars(ObservedSharedReferences), **vars(ObservedStore)}
    operations = {name for name, each in observed.items() if callable(each) and not name.startswith("_")}
    operations -= {"synced_age_s"}  # asks nothing of the store
    assert set(STORE_OPERATIONS) == operations
