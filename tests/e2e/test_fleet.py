"""Servers that share a real object store, behind Envoy: they are one service, whatever happens to one of them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from conformance.languages import LANGUAGES
from e2e.harness import load, refusal
from e2e.replicas import Replica, Replicas, replicas
from e2e.rollout import under_load
from fakes.gray import gray_png
from fakes.object_servers import ObjectServer
from fakes.waiting import wait_until

from patchserve.v1.inference_pb2 import InferRequest
from patchserve.v1.reference_pb2 import DeleteReferenceRequest, Reference

KNOWN_WITHIN_S = 30  # it takes three seconds, on a machine that has the time


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory, seaweedfs: ObjectServer) -> Iterator[Replicas]:
    folder = tmp_path_factory.mktemp("fleet")
    store = {"store_url": seaweedfs.url("fleet"), "variables": seaweedfs.environment}
    with replicas(folder, 3, "--client-share", "1", score_s=0.01, **store) as running:  # type: ignore[arg-type]
        yield running


def outcome_at(server: Replica, reference_id: str, revision: str = "") -> str:
    """The revision that this server answers with, or its refusal."""
    with server.stub() as stub:
        try:
            request = InferRequest(reference_id=reference_id, image=gray_png(100), expected_revision=revision)
            return stub.Infer(request, timeout=30).reference_revision
        except grpc.RpcError as error:
            return refusal(error)[1]


def test_a_reference_that_one_server_loads_all_of_them_answer(fleet: Replicas) -> None:
    with fleet.stub() as stub:
        loaded: Reference = load(stub, "parcels")
        asked = [outcome_at(server, "parcels", loaded.revision) for server in fleet.servers]
        assert asked == [loaded.revision] * 3, "at once, when they are asked with the revision"
        with fleet.servers[0].stub() as first:
            replaced: Reference = load(first, "parcels", 2)
        for server in fleet.servers:
            wait_until(lambda: outcome_at(server, "parcels") == replaced.revision, KNOWN_WITHIN_S)  # noqa: B023
        with fleet.servers[2].stub() as last:
            last.DeleteReference(DeleteReferenceRequest(reference_id="parcels"))
        for server in fleet.servers:
            wait_until(lambda: outcome_at(server, "parcels") == "REFERENCE_NOT_FOUND", KNOWN_WITHIN_S)  # noqa: B023


def test_no_call_fails_and_no_frame_is_lost_while_every_server_is_replaced(fleet: Replicas, tmp_path: Path) -> None:
    """Python and one other client, if it is built. `python -m e2e.rollout` does more, for longer."""
    before = [server.address for server in fleet.servers]
    with under_load(fleet, tmp_path, [each for each in LANGUAGES if each.is_built][:2]) as outcomes:
        fleet.roll()
    assert not set(before) & {server.address for server in fleet.servers}
    assert [(each.language, each.failures) for each in outcomes if each.failed or each.failures] == []
    assert all(count["ok"] for each in outcomes for count in each.calls.values())
