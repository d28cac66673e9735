"""A new bank during its calibration: its rows and the images that they come from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from patchserve_server.domain.images import ModelInputs
from patchserve_server.engine.backbone.device_runtime import DeviceRuntime
from patchserve_server.engine.backbone.runtime import BF16, FP16, TF32, Runtime
from patchserve_server.engine.patchcore.pipeline import Pipeline
from patchserve_server.engine.search.bank_index import BankIndex

_ROUNDING = {TF32: 2e-3, FP16: 2e-3, BF16: 8e-3}  # four times the error of one number
_ROUNDING_OF_OTHERS = 1e-3


def rounding_of(runtime: Runtime) -> float:
    """A relative difference above that of floating-point sums in another order.

    A GPU adds in another order if it sees one image, as here, and if it sees 64.
    """
    is_gpu = isinstance(runtime, DeviceRuntime)
    return _ROUNDING.get(runtime.precision, _ROUNDING_OF_OTHERS) if is_gpu else _ROUNDING_OF_OTHERS


@dataclass(frozen=True, slots=True, eq=False)
class CalibrationBank:
    """The selected rows of a new bank, and all its rows. Equal images count as one; so do an image and its views."""

    images: Sequence[int]  # the positions of the distinct images in `vectors`: of the first of equal ones
    first_equal: Tensor  # (N * V,) int64: for each image and view, the position of its distinct image
    vectors: Tensor  # (N * V, P, D) float32, in main memory
    groups: Tensor  # (K,) int64: the distinct image of each selected row
    index: BankIndex  # of the selected rows, with these groups
    views: int  # V, of each image, itself included
    rounding: float  # as of `rounding_of`

    @classmethod
    def build(cls, pipeline: Pipeline, first_equal: Tensor, vectors: Tensor, selected: Tensor) -> CalibrationBank:
        """Builds the index.

        Args:
            pipeline: the pipeline that computed the vectors.
            first_equal: (N,) int64, as returned by `first_equal_images`.
            vectors: (N * V, P, D) float32, of all views of each image, the image itself first.
            selected: (K,) int64, rows of `vectors.flatten(0, 1)`, ascending.
        """
        views = len(vectors) // len(first_equal)
        first_equal = first_equal.mul(views).repeat_interleave(views)
        rows, groups, places = _all_rows(first_equal, vectors, pipeline.runtime.device)
        if len(selected) < len(rows):
            selected = selected.to(rows.device)
            rows, groups, places = rows[selected], groups[selected], places[selected]
        approximate = pipeline.options.approximate_search
        product = pipeline.parallel_search.product
        index = BankIndex.build(rows, groups=groups, places=places, approximate=approximate, product=product)
        return cls(
            sorted(set(first_equal.tolist())), first_equal, vectors, groups, index, views, rounding_of(pipeline.runtime)
        )

    @property
    def has_all_rows(self) -> bool:
        """Whether exactly all rows of the images are selected, and no view has rows."""
        return self.views == 1 and len(self.index) == self.vectors.shape[0] * self.vectors.shape[1]

    def index_of_all_rows(self) -> BankIndex:
        """The index of all rows, not only the selected ones."""
        rows, groups, places = _all_rows(self.first_equal, self.vectors, self.index.patches.device)
        return BankIndex.build(rows, groups=groups, places=places, product=self.index.product)

    @property
    def smallest_distance(self) -> float:
        """The lower limit of thresholds: smaller distances are rounding errors."""
        return self.rounding * float(torch.linalg.vector_norm(self.index.patches, dim=1).mean()) or self.rounding

    def patches(self, image: int) -> Tensor:
        """The patch vectors (1, P, D) of one image, on the device."""
        return self.vectors[image : image + 1].to(self.index.patches.device)

    def rows_of(self, image: int) -> Tensor:
        """The selected rows (R,) int64 of one image, including equal images."""
        return (self.groups == image).nonzero()[:, 0]

    def group(self, image: int) -> Tensor:
        """(1,): the group of the image's own rows."""
        return torch.tensor([image], device=self.index.patches.device)

    def with_spacing(self, spacing: Tensor) -> CalibrationBank:
        """A copy with the spacing (K,) of the selected rows."""
        return replace(self, index=self.index.with_spacing(spacing))


def _all_rows(first_equal: Tensor, vectors: Tensor, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """All rows (R, D) on the device, with the distinct image (R,) and the place (R,) of each."""
    image_count, positions, _ = vectors.shape
    groups = first_equal.repeat_interleave(positions).to(device)
    return vectors.flatten(0, 1).to(device), groups, torch.arange(positions, device=device).repeat(image_count)


def first_equal_images(inputs: ModelInputs) -> Tensor:
    """For each of the inputs (N, H, W, 3), the number of the first input equal to it: (N,) int64."""
    first_number: dict[bytes, int] = {}
    return torch.tensor([first_number.setdefault(image.tobytes(), number) for number, image in enumerate(inputs)])
