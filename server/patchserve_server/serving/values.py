"""Values as JSON, between processes of one server: of the same version, so the classes themselves are the schema."""

from __future__ import annotations

import base64
import dataclasses
import functools
import json
import types
from datetime import datetime
from typing import Any, Final, TypeVar, Union, cast, get_args, get_origin, get_type_hints

from pydantic import ConfigDict, TypeAdapter

T = TypeVar("T")
_ANYTHING: Final = TypeAdapter[Any](Any, config=ConfigDict(ser_json_bytes="base64"))
_MADE_BY: Final[dict[Any, Any]] = {datetime: datetime.fromisoformat, bytes: base64.urlsafe_b64decode}
"""What makes a value of its JSON, where its class does not."""


def to_json(value: object) -> Any:  # noqa: ANN401 - whatever JSON has
    """A value of dataclasses, enumerations, times, tuples, texts, bytes and numbers. Numbers stay exact."""
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
    if origin is dict:
        return {_value(arguments[0], key): _value(arguments[1], item) for key, item in data.items()}
    if dataclasses.is_dataclass(kind):
        return cast(Any, kind)(**{name: _value(each, data[name]) for name, each in _fields(cast(type, kind)).items()})
    return _MADE_BY.get(kind, kind)(data)


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
