"""The matrix products that an exact search can start with. They differ in speed, never in the result."""

from __future__ import annotations

from enum import StrEnum

import torch

_INT8_INSTRUCTIONS = ("avx512_vnni", "avx_vnni", "amx_int8")
_BFLOAT16_INSTRUCTIONS = ("avx512_bf16", "amx_bf16")
_LARGEST_INT8 = 127


class SearchProduct(StrEnum):
    """The number format of the first product of a search."""

    FP32 = "fp32"
    BF16 = "bf16"
    INT8 = "int8"


def can_multiply(product: SearchProduct, device: torch.device) -> bool:
    """Whether this processor has instructions for the product. Whether they are faster must be measured.

    On a GPU there is only FP32: products are no bottleneck there.
    """
    if product is SearchProduct.FP32:
        return True
    if device.type != "cpu" or not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return False
    capabilities = torch.cpu.get_capabilities()
    if product is SearchProduct.BF16:
        return any(capabilities.get(name) for name in _BFLOAT16_INSTRUCTIONS)
    return any(capabilities.get(name) for name in _INT8_INSTRUCTIONS) and _int8_is_exact()


def _int8_is_exact() -> bool:
    """Whether sums of the largest products are right: older instructions add pairs in 16 bits, which overflow."""
    columns = 512
    ones = torch.ones((64, columns), dtype=torch.int8)
    signs = torch.tensor([1, -1], dtype=torch.int8).repeat(columns // 2)
    largest = torch.cat((ones, -ones, ones * signs)) * _LARGEST_INT8
    found = torch._int_mm(largest, largest.T)  # noqa: SLF001 - torch's only product of int8 in int32
    exact = largest.double() @ largest.double().T
    return bool((found == exact).all())
