"""A subspace checks itself, and belongs to its profile only."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from fakes.references import make_model, make_subspace_model
from numpy.typing import NDArray

from patchserve_server.domain.input_options import InputShape
from patchserve_server.domain.subspace import Subspace

MODEL = make_subspace_model()
BANK = MODEL.bank
assert isinstance(BANK, Subspace)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"mean": BANK.mean.astype(np.float64)}, "array mean is not a non-empty float32 array with 1 axes"),
        ({"mean": BANK.mean[:0]}, "mean"),
        ({"mean": BANK.mean[:-1]}, "arrays mean and basis differ in the number of features"),
        ({"basis": BANK.basis[0]}, "array basis is not a non-empty float32 array with 2 axes"),
        ({"basis": BANK.basis[:0]}, "basis"),
        ({"inputs": BANK.inputs[..., :2]}, "array inputs does not contain RGB images"),
        ({"inputs": BANK.inputs[0]}, "inputs"),
    ],
)
def test_a_subspace_of_contradicting_arrays_is_refused(arrays: dict[str, NDArray[Any]], message: str) -> None:
    assert isinstance(BANK, Subspace)
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(BANK, **arrays)


def test_a_bank_of_another_profile_is_refused() -> None:
    for model, other in ((MODEL, make_model()), (make_model(), MODEL)):
        with pytest.raises(ValueError, match="not one of its profile"):
            dataclasses.replace(model, bank=other.bank)


def test_only_a_memory_bank_is_given_as_one() -> None:
    assert make_model().memory_bank.vector_count == 60
    with pytest.raises(TypeError, match="SUBSPACE"):
        _ = MODEL.memory_bank


def test_it_says_how_large_it_is() -> None:
    assert (BANK.vector_count, BANK.feature_dim, BANK.input_shape) == (1 + 5, 8, InputShape(4, 4))
    assert BANK.nbytes == 4 * 6 * 8 + BANK.inputs.nbytes
