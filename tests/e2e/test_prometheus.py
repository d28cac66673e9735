"""A real Prometheus scrapes a real server under load."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import grpc
import pytest
from e2e.harness import connect
from e2e.in_process import RunningServer, running_server
from e2e.prometheus import Prometheus, needs_prometheus, prometheus
from fakes.gray import gray_png
from fakes.waiting import wait_until

from patchserve.v1.inference_pb2 import InferRequest
from patchserve.v1.reference_pb2 import LoadReferenceRequest
from patchserve_server.telemetry.metrics.definitions import METRICS, Kind

IMAGE = gray_png(100)
CALLS = 60
TRACE_ID = "0af7651916cd43dd8448eb211c80319c"
TRACE = (("traceparent", f"00-{TRACE_ID}-b7ad6b7169203331-01"),)
# What this server does not have: TLS, tokens, drift of a reference without enough scores.
ABSENT = {"certificate_expiry_timestamp_seconds", "token_expiry_timestamp_seconds", "reference_drift"}

pytestmark = needs_prometheus


@pytest.fixture(scope="module")
def server() -> Iterator[RunningServer]:
    with running_server(metrics_port=0, max_pending_images=4, client_share=1.0) as running:
        yield running


@pytest.fixture(scope="module")
def watching(server: RunningServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """Prometheus, after it has scraped the server before, during and after its load."""
    with prometheus([urlsplit(server.metrics_url).netloc], tmp_path_factory.mktemp("prometheus")) as running:
        wait_until(lambda: running.value("up") == 1)
        put_under_load(server)
        wait_until(lambda: running.value('patchserve_rpc_requests_total{method="Infer"}') >= CALLS)
        yield running


def put_under_load(server: RunningServer) -> None:
    """More calls at a time than the server takes, some that cannot succeed, one of a recorded trace."""
    with connect(server.address) as stub, ThreadPoolExecutor(12) as pool:
        stub.LoadReference(LoadReferenceRequest(images=[IMAGE]))

        def call(number: int) -> grpc.StatusCode:
            request = InferRequest(image=IMAGE if number % 10 else b"no image")
            try:
                stub.Infer(request, metadata=TRACE)
            except grpc.RpcError as error:
                return error.code()
            return grpc.StatusCode.OK

        codes = set(pool.map(call, range(CALLS)))
    assert grpc.StatusCode.OK in codes


def test_it_takes_every_metric_that_the_table_has(watching: Prometheus) -> None:
    [target] = watching.targets()
    assert target["health"] == "up", target["lastError"]
    names = watching.names()
    for metric in METRICS:
        if metric.name not in ABSENT:
            assert metric.full_name + ("_bucket" if metric.kind is Kind.HISTOGRAM else "") in names


def test_its_numbers_are_those_of_the_load(watching: Prometheus) -> None:
    by_code = watching.query('sum by (code) (patchserve_rpc_requests_total{method="Infer"})')
    assert sum(by_code.values()) == CALLS
    answered = watching.value('patchserve_rpc_requests_total{method="Infer",code="OK"}')
    assert watching.value("patchserve_verdicts_total") == answered
    assert watching.value("patchserve_stage_duration_seconds_count{stage='search'}") == answered
    rejected = watching.value('patchserve_rpc_requests_total{method="Infer",code="RESOURCE_EXHAUSTED"}')
    assert watching.value("sum(patchserve_rejected_total)") == rejected
    assert watching.value("patchserve_rpc_in_flight") == 0
    assert watching.value("patchserve_ready") == 1


def test_the_queries_of_the_page_return_numbers(watching: Prometheus) -> None:
    page = (Path(__file__).parents[2] / "docs" / "metrics.md").read_text()
    section = page.split("## What to watch first")[1].split("\n## ")[0]
    queries = [line.split("`")[1] for line in section.splitlines() if line.startswith("|") and "`" in line]
    assert len(queries) >= 5
    for query in queries:
        wait_until(lambda: bool(watching.query(query)))  # noqa: B023 - a rate needs two scrapes


def test_it_keeps_the_exemplars(watching: Prometheus) -> None:
    exemplars = watching.exemplars("patchserve_stage_duration_seconds_bucket")
    assert {exemplar["labels"]["trace_id"] for exemplar in exemplars} == {TRACE_ID}
