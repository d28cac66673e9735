"""Whether a bank may be searched by a detector."""

from __future__ import annotations

import dataclasses

from patchserve_server.domain.errors import BankMismatchError
from patchserve_server.domain.reference import EmbeddingSpec, MemoryBank, ReferenceModel
from patchserve_server.engine.backbone.backbone_spec import BackboneSpec


def require_match(model: ReferenceModel, own: EmbeddingSpec, architecture: BackboneSpec) -> None:
    """Refuses a bank whose vectors cannot be compared with those of a detector.

    Args:
        model: the bank and what it was made with.
        own: the detector's spec for inputs of the same shape. Each precision serves the banks that it made, on any
            device, and no others: the distances of a bank, and so its thresholds, contain the rounding of its network.
        architecture: the detector's backbone.

    Raises:
        BankMismatchError: backbone, weights, preprocessing, precision or shapes differ.
    """
    bank, shape = model.bank, model.bank.input_shape
    positions = architecture.patches_of(shape)
    if isinstance(bank, MemoryBank):
        positions = max(positions, int(bank.grid_index.max()) + 1)
    bank_spec, own_spec = dataclasses.asdict(model.spec), dataclasses.asdict(own)
    bank_spec["patches"] = f"{positions} x {bank.feature_dim}"
    own_spec["patches"] = f"{architecture.patches_of(shape)} x {architecture.feature_dim}"
    steps = {side_px % architecture.step_px for side_px in shape.sides_px}
    bank_spec["input"] = str(shape)
    own_spec["input"] = str(shape) if steps == {0} else f"multiples of {architecture.step_px} px"
    different = [name for name in own_spec if bank_spec[name] != own_spec[name]]
    if different:
        raise BankMismatchError(
            "",
            "This reference was built with "
            + ", ".join(f"{name} {bank_spec[name]}" for name in different)
            + ", but this server runs "
            + ", ".join(f"{name} {own_spec[name]}" for name in different)
            + ". Load its images again, or start the server with the earlier settings.",
        )
