"""A server with several fronts beside a server with one, on one store in a real bucket."""

from __future__ import annotations

from pathlib import Path

import grpc
import pytest
from e2e.harness import Stub, connect, load, refusal
from e2e.in_process import in_process_server
from e2e.processes import server_of_processes
from e2e.streaming import Feed, config, frame
from fakes.calibrated_detector import CalibratedDetector
from fakes.gray import gray_png
from fakes.object_servers import ObjectServer
from fakes.waiting import wait_until

from patchserve.v1.inference_pb2 import InferRequest
from patchserve.v1.reference_pb2 import DeleteReferenceRequest, ListReferencesRequest
from patchserve.v1.server_info_pb2 import GetServerInfoRequest
from patchserve.v1.stream_pb2 import NOTICE_KIND_REFERENCE_CHANGED


def revision_of(stub: Stub, expected: str = "") -> str:
    request = InferRequest(reference_id="belt", image=gray_png(100), expected_revision=expected)
    return stub.Infer(request, timeout=60).reference_revision


def code_of(stub: Stub) -> grpc.StatusCode:
    try:
        revision_of(stub)
    except grpc.RpcError as error:
        return refusal(error)[0]
    return grpc.StatusCode.OK


def test_every_front_learns_what_other_servers_change(
    moto: ObjectServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in moto.environment.items():
        monkeypatch.setenv(name, value)
    store = moto.url("fronts")
    with (
        server_of_processes("--store", store, "--store-cache", str(tmp_path / "one")) as server,
        in_process_server(store=store, store_cache=tmp_path / "other", detector=CalibratedDetector()) as address,
        connect(address) as other,
        server.stub_at(0) as first,
        server.stub_at(1) as second,
    ):
        assert code_of(first) is grpc.StatusCode.NOT_FOUND
        old = load(other, "belt", 3).revision
        assert revision_of(first) == revision_of(second, old) == old
        feed = Feed(config("belt"), frame(0, gray_png(100)))
        responses = first.InferStream(iter(feed), timeout=60)
        assert next(responses).ready.reference_revision == old
        assert next(responses).result.response.reference_revision == old
        new = load(other, "belt", 5).revision
        assert revision_of(second, new) == revision_of(first) == new, "what one front has answered, all know"
        assert next(responses).notice.kind == NOTICE_KIND_REFERENCE_CHANGED
        own = load(second, "belt", 7).revision
        assert revision_of(other, own) == revision_of(first) == own
        assert [each.revision for each in first.ListReferences(ListReferencesRequest()).references] == [own]
        for stub in (first, second):
            about = stub.GetServerInfo(GetServerInfoRequest()).store
            assert (about.kind, about.url, about.shared, about.reachable) == ("s3", store, True, True)
        other.DeleteReference(DeleteReferenceRequest(reference_id="belt"))
        wait_until(lambda: {code_of(first), code_of(second)} == {grpc.StatusCode.NOT_FOUND}, timeout_s=20)
        with pytest.raises(grpc.RpcError) as ended:
            list(responses)
        assert refusal(ended.value)[:2] == (grpc.StatusCode.NOT_FOUND, "REFERENCE_NOT_FOUND")
