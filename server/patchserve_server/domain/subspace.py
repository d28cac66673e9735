"""The subspace of normal patches: the bank of a reference of the SUBSPACE profile."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from patchserve_server.domain.arrays import check_arrays, check_inputs
from patchserve_server.domain.images import ModelInputs
from patchserve_server.domain.input_options import InputShape

_ARRAYS = {"mean": (np.float32, 1), "basis": (np.float32, 2), "inputs": (np.uint8, 4)}  # name -> type, number of axes


@dataclass(frozen=True, slots=True, eq=False)
class Subspace:
    """The directions in which the patch vectors of undamaged items vary, and the model inputs they were computed from.

    Raises:
        ValueError: the type or the shape of an array is not as below. `mean` and `basis` may have any values.
    """

    mean: NDArray[np.float32]  # (D,) of the patch vectors
    basis: NDArray[np.float32]  # (R, D) orthonormal rows, the direction of the largest variance first
    inputs: ModelInputs  # (N, H, W, 3)

    def __post_init__(self) -> None:
        check_arrays(self, _ARRAYS)
        if self.mean.shape != self.basis.shape[1:]:
            raise ValueError("arrays mean and basis differ in the number of features")
        check_inputs(self.inputs)

    @property
    def input_shape(self) -> InputShape:
        return InputShape(*self.inputs.shape[1:3])

    @property
    def vector_count(self) -> int:
        """How many vectors it keeps: the mean and the basis."""
        return 1 + len(self.basis)

    @property
    def feature_dim(self) -> int:
        return len(self.mean)

    @property
    def nbytes(self) -> int:
        return sum(getattr(self, array.name).nbytes for array in fields(self))
