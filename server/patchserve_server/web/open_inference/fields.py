"""Reads fields of a JSON object: each of the type that the protocol gives it, and none that it does not have."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Final

from patchserve.kserve import open_inference_pb2 as pb
from patchserve_server.domain.errors import InvalidInputError

_MAX_TEXT_BYTES: Final = 1024  # as in a message of gRPC
_MAX_DIMENSIONS: Final = 8
_INT64: Final = range(-(2**63), 2**63)

Parameters = Mapping[str, pb.InferParameter]


def an_object(value: object, field: str, known: Collection[str]) -> Mapping[str, Any]:
    """A JSON object that has no other fields than the known ones.

    Raises:
        InvalidInputError: it is something else, or has another field.
    """
    if not isinstance(value, dict):
        raise InvalidInputError(field, f"{field or 'The body'} must be a JSON object.")
    if unknown := [name for name in value if name not in known]:
        message = f"{field or 'The body'} has no field {unknown[0][:40]!a}; it has {', '.join(known)}."
        raise InvalidInputError(field, message)
    return value


def a_list(value: object, field: str) -> list[Any]:
    if not isinstance(value, list):
        raise InvalidInputError(field, f"{field} must be a JSON array.")
    return value


def a_text(value: object, field: str) -> str:
    """A text that fits into a message."""
    try:
        if isinstance(value, str) and len(value.encode()) <= _MAX_TEXT_BYTES:
            return value
    except UnicodeEncodeError:
        raise InvalidInputError(field, f"{field} has half of a surrogate pair.") from None
    raise InvalidInputError(field, f"{field} must be a string of at most {_MAX_TEXT_BYTES} bytes.")


def a_shape(value: object, field: str) -> list[int]:
    shape = a_list(value, field)
    if len(shape) > _MAX_DIMENSIONS or not all(_is_integer(size) and size in _INT64 for size in shape):
        raise InvalidInputError(field, f"{field} must have at most {_MAX_DIMENSIONS} whole numbers.")
    return shape


def set_parameters(message: Any, value: object, field: str) -> None:  # noqa: ANN401 - any message with parameters
    """Fills the parameters of a message from a JSON object of booleans, numbers and strings."""
    if not isinstance(value, dict):
        raise InvalidInputError(field, f"{field} must be a JSON object.")
    for name, each in value.items():
        parameter = message.parameters[a_text(name, field)]
        match each:
            case bool():
                parameter.bool_param = each
            case int() if each in _INT64:
                parameter.int64_param = each
            case float():
                parameter.double_param = each
            case str():
                parameter.string_param = a_text(each, f"{field}.{name[:40]}")
            case _:
                text = "must be a boolean, a number of 64 bits or a string."
                raise InvalidInputError(field, f"{field}.{name[:40]} {text}")


def _is_integer(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
