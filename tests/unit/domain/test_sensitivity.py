"""A sensitivity means the same wherever it is set."""

from __future__ import annotations

import dataclasses

import pytest
from fakes.references import make_model, named
from hypothesis import given
from hypothesis import strategies as st

from patchserve_server.domain.errors import InvalidInputError
from patchserve_server.domain.inspection import OutputOptions
from patchserve_server.domain.reference import ReferenceModel
from patchserve_server.domain.sensitivity import check_sensitivity

CALIBRATED = make_model(patches=4)
sensitivities = st.floats(0.1, 10)


def tuned(sensitivity: float) -> ReferenceModel:
    return dataclasses.replace(CALIBRATED, sensitivity=sensitivity)


@given(own=sensitivities, requested=sensitivities)
def test_that_of_a_request_replaces_that_of_the_reference(own: float, requested: float) -> None:
    calibrated, info = named(CALIBRATED).info, named(tuned(own)).info
    assert info.thresholds(requested) == calibrated.thresholds(requested)
    assert info.thresholds() == calibrated.thresholds(own)
    assert info.thresholds(1.0) == calibrated.thresholds() == info.calibration


@given(own=sensitivities, other=sensitivities)
def test_equal_sensitivities_and_no_others_give_equal_revisions(own: float, other: float) -> None:
    assert (named(tuned(own)).revision == named(tuned(other)).revision) == (own == other)


@pytest.mark.parametrize("sensitivity", [0.0, -1.0, 0.0999, 10.001, float("nan"), float("inf"), float("-inf")])
def test_a_sensitivity_out_of_range_is_refused(sensitivity: float) -> None:
    for use in (check_sensitivity, tuned, lambda value: OutputOptions(sensitivity=value)):
        with pytest.raises(InvalidInputError, match=r"sensitivity must be 0\.1 to 10, not "):
            use(sensitivity)
