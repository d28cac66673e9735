"""Enums of the contract and of the client. They correspond by name: HEATMAP_SCALE_RELATIVE is HeatmapScale.RELATIVE."""

from __future__ import annotations

import enum
from typing import Any, TypeVar

from google.protobuf.descriptor import EnumDescriptor

_E = TypeVar("_E", bound=enum.StrEnum)


def to_wire(kind: type[enum.StrEnum], value: str, wire_enum: Any) -> Any:  # noqa: ANN401 - each enum has its own type
    """The number of a value in a protobuf enum.

    Raises:
        ValueError: `kind` has no such value.
    """
    return wire_enum.Value(_prefix(wire_enum.DESCRIPTOR) + kind(value).name)


def from_wire(kind: type[_E], number: int, wire_enum: Any) -> _E | None:  # noqa: ANN401 - as above
    """The member for a number; None if only a newer server knows it."""
    descriptor = wire_enum.DESCRIPTOR
    value = descriptor.values_by_number.get(number)
    return None if value is None else kind.__members__.get(value.name.removeprefix(_prefix(descriptor)))


def _prefix(descriptor: EnumDescriptor) -> str:
    return descriptor.values_by_number[0].name.removesuffix("UNSPECIFIED")
