"""The header that names a reference is for balancers: the server answers what the request says."""

from __future__ import annotations

from collections.abc import Iterator

import grpc
import pytest
import requests
from e2e.in_process import RunningServer, running_server
from fakes.images import card, encoded

from patchserve.v1 import inference_pb2, service_pb2_grpc
from patchserve_client import Client

HEADER = "x-patchserve-reference"
TIMEOUT_S = 30
IMAGE = encoded(card(0))


@pytest.fixture(scope="module")
def server() -> Iterator[RunningServer]:
    with running_server() as running:
        with Client(running.address) as client:
            client.load_reference([IMAGE], "belt")
        yield running


@pytest.mark.parametrize("value", ["belt", "nobody", "", "../../etc", "a" * 4000])
def test_it_changes_no_answer(server: RunningServer, value: str) -> None:
    with grpc.insecure_channel(server.address) as channel:
        stub = service_pb2_grpc.PatchCoreServiceStub(channel)
        request = inference_pb2.InferRequest(reference_id="belt", image=IMAGE)
        found = stub.Infer(request, timeout=TIMEOUT_S, metadata=((HEADER, value), (HEADER, value)))
        assert found.reference_id == "belt"
        request.reference_id = "other"
        with pytest.raises(grpc.RpcError) as caught:
            stub.Infer(request, timeout=TIMEOUT_S, metadata=((HEADER, value),))
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND
    answer = requests.post(
        f"{server.http_url}/v1/references/belt:infer",
        files={"image": IMAGE},
        headers={HEADER: value},
        timeout=TIMEOUT_S,
    )
    assert answer.status_code == 200, answer.text
    assert answer.json()["reference_id"] == "belt"


def test_one_that_is_too_large_is_refused_and_costs_nobody_else(server: RunningServer) -> None:
    with grpc.insecure_channel(server.address) as channel:
        stub = service_pb2_grpc.PatchCoreServiceStub(channel)
        request = inference_pb2.InferRequest(reference_id="belt", image=IMAGE)
        with pytest.raises(grpc.RpcError) as caught:
            stub.Infer(request, timeout=TIMEOUT_S, metadata=((HEADER, "a" * 100_000),))
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    answer = requests.get(f"{server.http_url}/health", headers={HEADER: "a" * 100_000}, timeout=TIMEOUT_S)
    assert answer.status_code == 431
    with Client(server.address) as client:
        assert client.infer(IMAGE, "belt").reference_id == "belt"
