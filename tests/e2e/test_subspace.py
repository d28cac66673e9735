"""A reference with the SUBSPACE profile on a real server: loaded, used, extended, and used again after a restart."""

from __future__ import annotations

from pathlib import Path

import grpc
import pytest
from e2e.harness import Stub, connect, load, refusal, server_process
from fakes.images import card, encoded

from patchserve.v1 import inference_pb2, reference_pb2

SUBSPACE = reference_pb2.SCORING_PROFILE_SUBSPACE


def infer(stub: Stub, seed: int, *, scratched: bool = False) -> inference_pb2.AnomalyScore:
    image = encoded(card(seed, scratched=scratched))
    return stub.Infer(inference_pb2.InferRequest(reference_id="belt", image=image)).anomaly


def test_a_subspace_is_loaded_used_extended_and_found_again(tmp_path: Path) -> None:
    store = ("--store", str(tmp_path / "store"))
    with server_process(*store) as server, connect(server.address) as stub:
        bank = load(stub, "bank", 4)
        first = load(stub, "belt", 4, profile=SUBSPACE)
        assert first.profile == SUBSPACE
        assert (first.image_count, first.feature_dim) == (4, bank.feature_dim)
        inputs_bytes = 4 * first.input_width_px * first.input_height_px * 3
        vector_bytes = 4 * first.patch_count * first.feature_dim
        assert first.bank_bytes == inputs_bytes + vector_bytes
        assert first.patch_count < bank.patch_count / 2, "components, not patches"
        append = reference_pb2.LoadReferenceRequest(
            reference_id="belt", mode=reference_pb2.LOAD_MODE_APPEND, images=[encoded(card(at)) for at in (4, 5)]
        )
        extended = stub.LoadReference(append).reference
        assert (extended.image_count, extended.profile) == (6, SUBSPACE)
        assert extended.revision == load(stub, "together", 6, profile=SUBSPACE).revision
        intact, damaged = infer(stub, 50), infer(stub, 51, scratched=True)
        assert not intact.is_anomalous
        assert damaged.is_anomalous
    with server_process(*store) as server, connect(server.address) as stub:
        stored = stub.GetReference(reference_pb2.GetReferenceRequest(reference_id="belt")).reference
        assert (stored.revision, stored.patch_count) == (extended.revision, extended.patch_count)
        assert (infer(stub, 50), infer(stub, 51, scratched=True)) == (intact, damaged)
        restored = stub.RestoreReference(reference_pb2.RestoreReferenceRequest(reference_id="belt")).reference
        assert restored.revision == first.revision
        assert infer(stub, 51, scratched=True).is_anomalous


@pytest.mark.parametrize(
    ("field", "value"), [("coreset", {"ratio": 0.1}), ("search_radius", 0.2), ("approximate_search", True)]
)
def test_what_only_a_bank_of_patches_can_have_is_refused(stub: Stub, field: str, value: object) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        load(stub, "refused", 1, profile=SUBSPACE, **{field: value})
    code, reason, details = refusal(caught.value)
    assert (code, reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD")
    assert details["BadRequest"].field_violations[0].field == field  # type: ignore[attr-defined]
    assert f"{field} cannot be combined with the profile SUBSPACE" in str(caught.value)
