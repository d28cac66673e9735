"""benchmarks/gpu/networks.py: torch alone chooses its kernels by speed, and what the server runs does not."""

from __future__ import annotations

import torch
from gpu.networks import plain_run
from torch import nn

from patchserve_server.engine.backbone.architectures import BACKBONES
from patchserve_server.engine.backbone.graphs import Pass
from patchserve_server.engine.backbone.torch_runtime import NormalizedLayers


def test_only_torch_alone_chooses_kernels_by_speed() -> None:
    seen = list[tuple[bool, bool]]()

    class Graphs:
        def capture(self, run: Pass) -> Pass:
            seen.append((torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic))
            return run

    before = torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic
    module = NormalizedLayers(nn.Conv2d(3, 1, 1), BACKBONES["efficientnet_lite2"])
    plain_run(module, 1, torch.device("cpu"), Graphs())()
    assert seen == [(True, False)]
    assert (torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic) == before
