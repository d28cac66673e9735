"""Domain values as JSON. Front and engine have the same version, so the classes themselves are the schema."""

from __future__ import annotations

import dataclasses
import enum
import functools
import json
import types
from datetime import datetime
from typing import Any, Final, TypeVar, Union, cast, get_args, get_origin, get_type_hints

from pydantic import TypeAdapter

T = TypeVar("T")
_ANYTHING: Final = TypeAdapter[Any](Any)


def to_json(value: object) -> Any:  # noqa: ANN401 - whatever JSON has
    """A value of dataclasses, enumerations, times, tuples, texts and numbers. Numbers stay exact."""
    return _ANYTHING.dump_python(value, mode="json")


def body_of(value: object) -> bytes:
    """The same as the bytes of a body."""
    return json.dumps(to_json(value)).encode()


def from_json(kind: type[T], data: Any) -> T:  # noqa: ANN401
    """The value of this class.

    Raises:
        KeyError, TypeError, ValueError: it is not one.
    """
    return cast(T, _value(kind, data))


def _value(kind: Any, data: Any) -> Any:  # noqa: ANN401
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        (own_kind,) = (each for each in arguments if each is not type(None))
        return None if data is None else _value(own_kind, data)
    if origin is tuple:
        if arguments[-1] is Ellipsis:
            return tuple(_value(arguments[0], item) for item in data)
        return tuple(_value(each, item) for each, item in zip(arguments, data, strict=True))
    if dataclasses.is_dataclass(kind):
        return cast(Any, kind)(**{name: _value(each, data[name]) for name, each in _fields(cast(type, kind)).items()})
    if issubclass(kind, enum.Enum):
        return kind(data)
    return datetime.fromisoformat(data) if kind is datetime else kind(data)


@functools.cache
def _fields(kind: type) -> dict[str, Any]:
    hints = get_type_hints(kind)
    return {field.name: hints[field.name] for field in dataclasses.fields(kind)}


def from_json_bytes(kind: type[T], body: bytes) -> T:
    """The value of this class that a body has.

    Raises:
        KeyError, TypeError, ValueError: it has none.
    """
    return from_json(kind, json.loads(body))
