"""Several devices: the one with least to do is next, all know every change, and one that dies costs its own calls."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import grpc
from e2e.harness import load
from e2e.processes import server_of_processes
from fakes.gray import gray_png
from fakes.waiting import wait_until

from patchserve.v1.inference_pb2 import InferRequest
from patchserve.v1.reference_pb2 import DeleteReferenceRequest

DEVICES = ("--device", "cpu,cpu")


def outcome_of(stub: object, reference_id: str) -> grpc.StatusCode:
    try:
        stub.Infer(InferRequest(reference_id=reference_id, image=gray_png(100)), timeout=60)  # type: ignore[attr-defined]
    except grpc.RpcError as error:
        return error.code()
    return grpc.StatusCode.OK


def test_two_devices_answer_more_at_once_and_one_that_dies_costs_its_own_calls() -> None:
    flags = (*DEVICES, "--client-share", "1", "--max-batch-size", "1")
    with server_of_processes(*flags, score_s=0.5) as server, server.stub_at(0) as one, ThreadPoolExecutor(40) as pool:
        for name in ("first", "second"):
            load(one, name, 1)
        assert outcome_of(one, "first") is grpc.StatusCode.OK
        calls = [pool.submit(outcome_of, one, name) for name in ("first", "second") * 16]
        wait_until(lambda: server.log.count('"Infer"') > 10 or sum(call.done() for call in calls) > 4)
        pid = server.kill("device 1")
        codes = [call.result() for call in calls]
        assert codes.count(grpc.StatusCode.OK) > 16, "the other one goes on"
        assert set(codes) <= {grpc.StatusCode.OK, grpc.StatusCode.UNAVAILABLE}
        assert grpc.StatusCode.UNAVAILABLE in codes, "it has had some"
        assert outcome_of(one, "second") is grpc.StatusCode.OK
        wait_until(lambda: server.pid_of("device 1") not in (0, pid))
    assert "Device 1 is lost; the others go on" in server.log
    assert "The engine is lost" not in server.log


def test_a_change_is_known_to_every_device_when_it_is_answered() -> None:
    with server_of_processes(*DEVICES) as server, server.stub_at(0) as one, server.stub_at(1) as other:
        with ThreadPoolExecutor(40) as pool:
            for count in range(1, 5):
                revision = load(one, "shared", count % 3 + 1).revision
                request = InferRequest(reference_id="shared", image=gray_png(100))
                calls = [pool.submit(stub.Infer, request) for stub in (one, other) * 16]
                assert {call.result().reference_revision for call in calls} == {revision}
        one.DeleteReference(DeleteReferenceRequest(reference_id="shared"))
        assert outcome_of(other, "shared") is grpc.StatusCode.NOT_FOUND
