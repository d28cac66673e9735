"""The int8 precision over a restart."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import grpc
import pytest
from e2e.harness import Stub, connect, load, refusal
from e2e.in_process import in_process_server
from fakes.images import card, encoded

from patchserve.v1 import inference_pb2
from patchserve.v1.server_info_pb2 import GetServerInfoRequest
from patchserve_server.domain.ports import Detector


def inspect(stub: Stub, *, scratched: bool) -> inference_pb2.InferResponse:
    answer = stub.Infer(inference_pb2.InferRequest(image=encoded(card(9, scratched=scratched))))
    answer.ClearField("timing")
    return answer


@pytest.mark.timeout(300)
def test_an_int8_bank_survives_a_restart_and_is_refused_in_fp32(detector: Detector, tmp_path: Path) -> None:
    settings: dict[str, Any] = {"store": tmp_path, "backbone": "efficientnet_lite2", "precision": "int8"}
    with in_process_server(**settings) as address, connect(address) as stub:
        assert stub.GetServerInfo(GetServerInfoRequest()).precision == "int8"
        load(stub, "default")
        answers = [inspect(stub, scratched=scratched) for scratched in (False, True)]
        assert [answer.anomaly.is_anomalous for answer in answers] == [False, True]
    networks = {path.name: path.stat().st_mtime_ns for path in (tmp_path / ".networks").glob("*.safetensors")}
    assert networks
    with in_process_server(**settings) as address, connect(address) as stub:
        assert [inspect(stub, scratched=scratched) for scratched in (False, True)] == answers
    assert {path.name for path in (tmp_path / ".networks").iterdir()} == set(networks)
    with (
        in_process_server(store=tmp_path, detector=detector) as address,
        connect(address) as stub,
        pytest.raises(grpc.RpcError) as refused,
    ):
        inspect(stub, scratched=True)
    code, reason, _ = refusal(refused.value)
    assert (code, reason) == (grpc.StatusCode.FAILED_PRECONDITION, "BANK_MISMATCH")
