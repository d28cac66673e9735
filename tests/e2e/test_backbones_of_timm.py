"""Vision transformers and networks by name, in a server: load, inspect, restart, and no mixing of banks."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import grpc
import pytest
import timm
import torch
from e2e.harness import Stub, connect, load, refusal
from e2e.in_process import in_process_server
from fakes.images import card, encoded
from fakes.networks import random_transformer_weights
from safetensors.torch import save_file

from patchserve.v1 import inference_pb2
from patchserve.v1.server_info_pb2 import GetServerInfoRequest
from patchserve_server.domain.ports import Detector


def inspect(stub: Stub, *, scratched: bool) -> inference_pb2.InferResponse:
    answer = stub.Infer(inference_pb2.InferRequest(image=encoded(card(9, scratched=scratched))))
    answer.ClearField("timing")
    return answer


class Network(NamedTuple):
    backbone: str
    layers: str | None
    name: str  # of timm
    bank_shape: tuple[int, int]  # of four images


@pytest.mark.timeout(400)
@pytest.mark.parametrize(
    "network",
    [
        Network("dinov2_vits14", None, "vit_small_patch14_dinov2", (4 * 256, 384)),
        Network("timm:test_vit", "2,5", "test_vit", (4 * 196, 128)),
    ],
)
def test_a_bank_survives_a_restart_and_is_refused_by_another_backbone(
    detector: Detector, tmp_path: Path, network: Network
) -> None:
    weights = tmp_path / "seeded.safetensors"
    with torch.device("meta"):
        empty = timm.create_model(network.name, pretrained=False)
    save_file(random_transformer_weights(empty), weights)
    settings: dict[str, Any] = {
        "store": tmp_path / "store",
        "backbone": network.backbone,
        "backbone_layers": network.layers,
        "weights": weights,
        "precision": "auto",
    }
    with in_process_server(**settings) as address, connect(address) as stub:
        info = stub.GetServerInfo(GetServerInfoRequest())
        assert info.backbone.startswith(network.backbone)
        assert info.weights_source == "the file seeded.safetensors"
        reference = load(stub, "default")
        assert (reference.patch_count, reference.feature_dim) == network.bank_shape
        answers = [inspect(stub, scratched=scratched) for scratched in (False, True)]
        assert answers[0].anomaly.raw_score < answers[1].anomaly.raw_score
    with in_process_server(**settings) as address, connect(address) as stub:
        assert [inspect(stub, scratched=scratched) for scratched in (False, True)] == answers
    with (
        in_process_server(store=tmp_path / "store", detector=detector) as address,
        connect(address) as stub,
        pytest.raises(grpc.RpcError) as refused,
    ):
        inspect(stub, scratched=True)
    code, reason, _ = refusal(refused.value)
    assert (code, reason) == (grpc.StatusCode.FAILED_PRECONDITION, "BANK_MISMATCH")
