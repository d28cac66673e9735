"""Parameters that standard clients send, and that change nothing here. Any other could change the meaning: an error."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, TypeAlias

from patchserve.kserve import open_inference_pb2 as pb
from patchserve_server.domain.errors import InvalidInputError

Value: TypeAlias = bool | int | float | str | None
IsNeutral: TypeAlias = Callable[[Value], bool]


def value_of(parameter: pb.InferParameter) -> Value:
    """The value, or None if none is set."""
    value: Value = getattr(parameter, parameter.WhichOneof("parameter_choice") or "", None)
    return value


def _is_flag(value: Value) -> bool:
    return isinstance(value, bool)


def _is_count(value: Value) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_off(value: Value) -> bool:
    return isinstance(value, int) and not value


INPUT_PARAMETERS: Final[Mapping[str, IsNeutral]] = {"binary_data_size": _is_count}
OUTPUT_PARAMETERS: Final[Mapping[str, IsNeutral]] = {
    "binary_data": _is_flag,  # a response has the form of its request: raw or typed contents
    "classification": _is_off,
}
REQUEST_PARAMETERS: Final[Mapping[str, IsNeutral]] = {
    "binary_data_output": _is_flag,
    "priority": _is_count,  # callers take turns here
    "sequence_id": _is_off,
    "sequence_start": _is_off,
    "sequence_end": _is_off,
    "triton_enable_empty_final_response": _is_off,
}


def check_parameters(parameters: Mapping[str, pb.InferParameter], neutral: Mapping[str, IsNeutral], field: str) -> None:
    """Check that the parameters of a tensor change nothing.

    Raises:
        InvalidInputError: one could change the meaning of the request.
    """
    for name, parameter in parameters.items():
        is_neutral = neutral.get(name)
        if is_neutral is None or not is_neutral(value_of(parameter)):
            message = (
                f"{name[:40]} is not supported with this value. {field} may have {', '.join(neutral)} where they "
                "change nothing; there is no shared memory and no classification."
            )
            raise InvalidInputError(field, message)
