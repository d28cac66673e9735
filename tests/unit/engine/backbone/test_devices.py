"""Which device a name stands for."""

from __future__ import annotations

import pytest
import torch

from patchserve_server.domain.errors import StartupError
from patchserve_server.engine.backbone.devices import resolve_device

CPU = torch.device("cpu")


@pytest.mark.parametrize("name", ["gpu", "cuda:", "cuda:x", "cpu:0", ""])
def test_an_unknown_device_is_rejected_with_the_known_ones(name: str) -> None:
    with pytest.raises(StartupError, match=f'Unknown device "{name}". Use auto, cpu, cuda or cuda:N'):
        resolve_device(name)


def test_without_cuda_auto_is_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert resolve_device("auto") == resolve_device("cpu") == CPU
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    with pytest.raises(StartupError, match=r"used here: nvidia-smi must .* CUDA 13\.0 or newer\. Use --device cpu"):
        resolve_device("cuda")
    monkeypatch.setattr(torch.version, "cuda", None)
    with pytest.raises(StartupError, match=r"used here: torch .* is built without CUDA.*\. Use --device cpu"):
        resolve_device("cuda")


def test_with_cuda_auto_is_the_first_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert resolve_device("cpu") == CPU
    assert resolve_device("auto") == resolve_device("cuda") == torch.device("cuda", 0)
    assert resolve_device("cuda:1") == torch.device("cuda", 1)
    with pytest.raises(StartupError, match=r'no device "cuda:2" here\. The last one is cuda:1'):
        resolve_device("cuda:2")


def test_cuda_computes_reproducibly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", False)
    resolve_device("cuda")
    assert not torch.backends.cudnn.allow_tf32
    assert torch.backends.cudnn.deterministic


def test_sums_of_products_on_cuda_are_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    names = ("allow_tf32", "allow_fp16_reduced_precision_reduction", "allow_bf16_reduced_precision_reduction")
    products = torch.backends.cuda.matmul
    before = [getattr(products, name) for name in names]
    for name in names:
        setattr(products, name, True)
    try:
        resolve_device("cuda")
        assert [getattr(products, name) for name in names] == [False] * 3
        assert torch.get_float32_matmul_precision() == "highest"
    finally:
        for name, value in zip(names, before, strict=True):
            setattr(products, name, value)
