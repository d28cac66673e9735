"""A server in int8: a load, its verdicts, a restart with the same ones, and a server in fp32 that refuses its bank."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest
from e2e.harness import MESSAGE_OPTIONS, ServerProcess, Stub, load, refusal
from fakes.images import card, encoded

from patchserve.v1 import inference_pb2, service_pb2_grpc
from patchserve.v1.server_info_pb2 import GetServerInfoRequest


@contextmanager
def serving(store: Path, precision: str) -> Iterator[Stub]:
    server = ServerProcess("--store", str(store), "--precision", precision)
    try:
        with grpc.insecure_channel(server.wait_ready(), options=MESSAGE_OPTIONS) as channel:
            yield service_pb2_grpc.PatchCoreServiceStub(channel)
    finally:
        assert server.stop() == 0, server.log
    assert "Traceback" not in "".join(server.log)


def inspect(stub: Stub, *, scratched: bool) -> inference_pb2.InferResponse:
    answer = stub.Infer(inference_pb2.InferRequest(image=encoded(card(9, scratched=scratched))))
    answer.ClearField("timing")
    return answer


@pytest.mark.timeout(300)
def test_a_server_in_int8(tmp_path: Path) -> None:
    with serving(tmp_path, "int8") as stub:
        assert stub.GetServerInfo(GetServerInfoRequest()).precision == "int8"
        load(stub, "default")
        answers = [inspect(stub, scratched=scratched) for scratched in (False, True)]
        assert [answer.anomaly.is_anomalous for answer in answers] == [False, True]
    networks = {path.name: path.stat().st_mtime_ns for path in (tmp_path / ".networks").glob("*.safetensors")}
    assert networks
    with serving(tmp_path, "int8") as stub:
        assert [inspect(stub, scratched=scratched) for scratched in (False, True)] == answers
    assert {path.name for path in (tmp_path / ".networks").iterdir()} == set(networks)
    with serving(tmp_path, "fp32") as stub, pytest.raises(grpc.RpcError) as refused:
        inspect(stub, scratched=True)
    code, reason, _ = refusal(refused.value)
    assert (code, reason) == (grpc.StatusCode.FAILED_PRECONDITION, "BANK_MISMATCH")
