"""Checks of the arrays that a bank consists of."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import DTypeLike


def check_arrays(owner: object, arrays: Mapping[str, tuple[DTypeLike, int]]) -> None:
    """Check that attributes of `owner` are arrays of these types and numbers of axes, and not empty.

    Raises:
        ValueError: one is not.
    """
    for name, (dtype, axes) in arrays.items():
        array = getattr(owner, name)
        if array.dtype != dtype or array.ndim != axes or 0 in array.shape:
            raise ValueError(f"array {name} is not a non-empty {np.dtype(dtype)} array with {axes} axes")


def check_inputs(inputs: np.ndarray) -> None:
    """Check that model inputs (N, H, W, C) are RGB images.

    Raises:
        ValueError: they are not.
    """
    if inputs.shape[3] != 3:  # noqa: PLR2004
        raise ValueError("array inputs does not contain RGB images")
