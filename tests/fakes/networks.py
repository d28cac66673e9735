"""A wide_resnet50_2 with random weights that every layer answers to."""

from __future__ import annotations

import torch
from torch import nn
from torchvision.models import wide_resnet50_2


def random_wide_resnet() -> nn.Module:
    """The full network, its batch norms included: the same at every call."""
    torch.manual_seed(0)
    whole: nn.Module = wide_resnet50_2().eval()
    for module in whole.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_var is not None
            assert module.running_mean is not None
            nn.init.uniform_(module.weight.data, 0.5, 1.5)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
            nn.init.uniform_(module.running_mean, -0.5, 0.5)  # all of one sign would put out every unit
    return whole
