"""A memory bank, prepared for searching."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from patchserve_server.engine.search.bfloat16_bounds import Bfloat16Bounds
from patchserve_server.engine.search.int8_bounds import Int8Bounds
from patchserve_server.engine.search.ivf_index import IvfIndex, cell_count, ivf_pays
from patchserve_server.engine.search.row_norms import RowNorms
from patchserve_server.engine.search.search_product import SearchProduct

_BOUNDS: dict[SearchProduct, type[Bfloat16Bounds | Int8Bounds]] = {
    SearchProduct.BF16: Bfloat16Bounds,
    SearchProduct.INT8: Int8Bounds,
}
LEAST_ROWS_OF_BOUNDS = 2000  # in a smaller bank the bounds cost more than they save


@dataclass(frozen=True, slots=True, eq=False)
class BankIndex:
    """A memory bank prepared for searching, on the device of its rows. Create it with `build`.

    `groups` and `places` are only needed for searches that exclude rows.
    """

    patches: Tensor  # (P, D) float32
    norms: RowNorms
    groups: Tensor | None = None  # (P,) int32, the image that a row comes from
    places: Tensor | None = None  # (P,) int32, the row's position in the patch grid, 0..G-1
    spacing: Tensor | None = None  # (P,) float32, above 0; used by scores, not by the search
    product: SearchProduct = SearchProduct.FP32
    bounds: Bfloat16Bounds | Int8Bounds | None = None
    ivf: IvfIndex | None = None
    centroids: BankIndex | None = None  # of the IVF index

    def __post_init__(self) -> None:
        if tuple(self.patches.shape) != (len(self.norms.squared), len(self.norms.center)):
            raise ValueError(f"The norms do not fit a bank of shape {tuple(self.patches.shape)}.")
        for name in ("groups", "places", "spacing"):
            values = getattr(self, name)
            if values is not None and values.shape != self.patches.shape[:1]:
                raise ValueError(f"{name} must have one value for each of {len(self)} rows, not {tuple(values.shape)}.")
        if self.bounds is not None and len(self.bounds) != len(self):
            raise ValueError(f"The bounds have {len(self.bounds)} rows, but the bank has {len(self)}.")
        if (self.ivf is None) != (self.centroids is None):
            raise ValueError("An IVF index needs the index of its centroids, and the reverse.")

    @classmethod
    def build(
        cls,
        patches: Tensor,
        *,
        groups: Tensor | None = None,
        places: Tensor | None = None,
        spacing: Tensor | None = None,
        approximate: bool = False,
        product: SearchProduct = SearchProduct.FP32,
    ) -> BankIndex:
        """Index of a bank (P, D) float32, which is not copied.

        Args:
            patches: the rows, P above 0.
            groups: (P,) integer.
            places: (P,) integer.
            spacing: (P,) float32.
            approximate: use an IVF index if it makes the search faster. Building one takes seconds.
            product: the first product of exact searches; `can_multiply` says whether this processor has it.

        Raises:
            ValueError: the shapes do not fit together.
        """
        index = cls(patches, RowNorms.build(patches), _int32(groups), _int32(places), spacing, product)
        return index._accelerated(approximate=approximate)

    def subset(self, rows: Tensor, *, approximate: bool = False) -> BankIndex:
        """Index of a copy of the rows (K,) int64. It reuses center and norms.

        A search in it finds the same distances as in `build(patches[rows])`.
        """
        groups, places, spacing = (
            None if values is None else values[rows] for values in (self.groups, self.places, self.spacing)
        )
        index = BankIndex(self.patches[rows], self.norms.subset(rows), groups, places, spacing, self.product)
        if self.bounds is not None and not approximate and _bounds_type(len(index), self.product):
            return replace(index, bounds=self.bounds.subset(rows))
        return index._accelerated(approximate=approximate)

    def with_spacing(self, spacing: Tensor) -> BankIndex:
        """A copy of the index with the spacing (P,) float32 of the rows."""
        return replace(self, spacing=spacing)

    def __len__(self) -> int:
        return len(self.patches)

    @property
    def nbytes(self) -> int:
        """All memory of the index, including its rows."""
        parts = (self.patches, self.norms, self.groups, self.places, self.spacing, self.bounds, self.ivf)
        return sum(part.nbytes for part in (*parts, self.centroids) if part is not None)

    def _accelerated(self, *, approximate: bool) -> BankIndex:
        if approximate and ivf_pays(len(self), self.patches.device):
            ivf = IvfIndex.build(self.patches)
            return replace(self, ivf=ivf, centroids=BankIndex.build(ivf.centroids, product=self.product))
        if bounds := _bounds_type(len(self), self.product):
            return replace(self, bounds=bounds.build(self.patches, self.norms.center))
        return self


def predict_nbytes(
    rows: int,
    dim: int,
    device: torch.device,
    *,
    approximate: bool = False,
    values_per_row: int = 0,
    product: SearchProduct = SearchProduct.FP32,
) -> int:
    """`BankIndex.nbytes` of an index before it is built.

    Args:
        rows: P.
        dim: D.
        device: where the rows will be.
        approximate: as in `BankIndex.build`.
        values_per_row: how many of groups, places and spacing the index will have.
        product: as in `BankIndex.build`.
    """
    nbytes = 4 * rows * (dim + values_per_row) + RowNorms.predict_nbytes(rows, dim)
    if approximate and ivf_pays(rows, device):
        centroids = predict_nbytes(cell_count(rows), dim, device, product=product)
        return nbytes + IvfIndex.predict_nbytes(rows, dim) + centroids
    if bounds := _bounds_type(rows, product):
        return nbytes + bounds.predict_nbytes(rows, dim)
    return nbytes


def _int32(values: Tensor | None) -> Tensor | None:
    return None if values is None else values.int()


def _bounds_type(rows: int, product: SearchProduct) -> type[Bfloat16Bounds | Int8Bounds] | None:
    """The bounds of an index with this many rows; None if they cost more than they save."""
    return _BOUNDS.get(product) if rows >= LEAST_ROWS_OF_BOUNDS else None
