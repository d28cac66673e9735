"""Networks with random weights whose layers are all active."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torchvision.models import wide_resnet50_2


@dataclass(frozen=True)
class WideResNet:
    """The full network with random weights, and a file of its state dict."""

    network: nn.Module
    weights: Path


def random_wide_resnet() -> nn.Module:
    """The full network with its batch norms, the same at each call."""
    torch.manual_seed(0)
    network: nn.Module = wide_resnet50_2().eval()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_var is not None
            assert module.running_mean is not None
            nn.init.uniform_(module.weight.data, 0.5, 1.5)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
            nn.init.uniform_(module.running_mean, -0.5, 0.5)  # with only one sign, all activations would be 0
    return network


def random_transformer_weights(network: nn.Module) -> dict[str, Tensor]:
    """Values for all weights of a vision transformer, the same at each call. Their scale keeps attention uneven.

    A new network would do nothing: its layer scales are almost 0.
    """
    generator = torch.Generator().manual_seed(0)

    def values_for(name: str, shape: torch.Size) -> Tensor:
        values = torch.randn(shape, generator=generator)
        if len(shape) == 1 and not name.endswith("bias"):  # layer scales and the weights of norms
            return values.sigmoid() + 0.25
        is_matrix = len(shape) > 1 and not any(word in name for word in ("token", "pos"))
        return values / shape[1:].numel() ** 0.5 if is_matrix else values / 2

    return {name: values_for(name, values.shape) for name, values in network.state_dict().items()}
