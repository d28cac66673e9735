"""Lower bounds of distances by one product in bfloat16, for processors that multiply it faster than float32.

Of a vector x, less a common center, stay x' rounded to bfloat16 and the length of x - x'. As

    q b  <=  q'b' + |q - q'| |b'| + |q| |b - b'|

half of |q - b|^2 = |q|^2 + |b|^2 - 2 qb has a lower bound in which every term is something of q times something of b:
a few more columns of the same product. So nothing here is a guess: a row whose bound is above a distance is farther.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

_ROWS_AT_ONCE = 256
_MORE_COLUMNS = 8
_ROUNDED_UP = 1 + 2.0**-7  # times this a number is no smaller after rounding to bfloat16 than it was before


@dataclass(frozen=True, slots=True, eq=False)
class Bfloat16Bounds:
    """The rows of a bank in bfloat16, in half of the bank's memory."""

    columns: Tensor  # (P, D + 8) bfloat16
    center: Tensor  # (D,) float32

    @classmethod
    def of(cls, patches: Tensor, center: Tensor) -> Bfloat16Bounds:
        """The sketch of a bank (P, D) float32. Any center (D,) will do; the mean makes the bounds tight."""
        columns = _empty_columns(patches)
        for part in _parts(patches):
            rounded, norm, lost, halved = _taken_apart(patches[part] - center)
            longest = norm * _ROUNDED_UP  # of x'
            torch.cat((rounded, torch.ones_like(halved), halved, _up(longest), _up(lost)), dim=1, out=columns[part])
        return cls(columns, center)

    def of_queries(self, queries: Tensor) -> Tensor:
        """(Q, D + 8) bfloat16: times `columns`, transposed, a bound for each query and row."""
        columns = _empty_columns(queries)
        for part in _parts(queries):
            rounded, norm, lost, halved = _taken_apart(queries[part] - self.center)
            torch.cat((-rounded, halved, torch.ones_like(halved), -_up(lost), -_up(norm)), dim=1, out=columns[part])
        return columns

    def highest_bound(self, distances: Tensor) -> Tensor:
        """(Q,) bfloat16: a row with a bound above it is farther away than the distance (Q,).

        The bounds come out rounded, so this is rounded too: that keeps the order of any two numbers. The distance may
        be a little short itself, and products too small for a float32 count as 0.
        """
        lost = self.columns.shape[1] * torch.finfo(torch.float32).tiny
        return distances.square().mul(0.5 * (1 + 1e-4)).add(lost).to(self.columns.dtype)


def multiplies_bfloat16(device: torch.device) -> bool:
    """Whether the processor has instructions for it; without them torch takes many times as long as for float32.

    On a GPU the products in float32 are no bottleneck.
    """
    if device.type != "cpu" or not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return False
    able = torch.cpu.get_capabilities()
    return bool(able.get("avx512_bf16") or able.get("amx_bf16"))


def _empty_columns(vectors: Tensor) -> Tensor:
    return vectors.new_empty((len(vectors), vectors.shape[1] + _MORE_COLUMNS), dtype=torch.bfloat16)


def _parts(vectors: Tensor) -> list[slice]:
    return [slice(start, start + _ROWS_AT_ONCE) for start in range(0, len(vectors), _ROWS_AT_ONCE)]


def _taken_apart(centered: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Of (N, D): rounded (N, D) bfloat16; norm (N, 1); length lost (N, 1); half the squared norm (N, 3), in bfloat16.

    The third is made longer and the last smaller by the most that sums of D + 8 products in float32 can be wrong.
    """
    sums = (centered.shape[1] + 2 * _MORE_COLUMNS) * torch.finfo(torch.float32).eps / 2
    rounded = centered.bfloat16()
    norm = torch.linalg.vector_norm(centered, dim=1, keepdim=True, dtype=torch.float64)
    lost = torch.linalg.vector_norm(centered - rounded, dim=1, keepdim=True) * (1 + sums) + sums * norm
    halved = norm.square() * (0.5 - sums)
    first = halved.bfloat16()
    second = (halved - first).bfloat16()
    third = (halved - first - second).bfloat16()
    return rounded, norm, lost, torch.cat((first, second, third), dim=1)


def _up(lengths: Tensor) -> Tensor:
    return (lengths * _ROUNDED_UP).bfloat16()
