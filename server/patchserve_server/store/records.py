"""The two JSON records of the persisted format (docs/format.md): the pointer and the manifest."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, TypeVar

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
)

from patchserve_server.domain.errors import InvalidInputError
from patchserve_server.domain.reference import Calibration, EmbeddingSpec
from patchserve_server.domain.reference_options import ReferenceOptions

FORMAT_VERSION = 1
REVISION_PATTERN = "^[0-9a-f]{64}$"
_MAX_WORDS = 160


class DamageError(ValueError):
    """Content that breaks the format. The message says which rule, to follow "it is damaged:", and holds no path."""


def _utc(time: datetime) -> datetime:
    if time.utcoffset() != timedelta(0):
        raise ValueError("must be in UTC, with a Z")
    return time.replace(tzinfo=UTC)


UtcTime = Annotated[AwareDatetime, AfterValidator(_utc)]
Revision = Annotated[str, Field(pattern=REVISION_PATTERN)]


class _Record(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False)

    format_version: int

    @field_validator("format_version")
    @classmethod
    def _known_version(cls, version: int) -> int:
        if version != FORMAT_VERSION:
            raise ValueError(f"this server reads version {FORMAT_VERSION} only")
        return version


class Pointer(_Record):
    """Which revision of a reference is current: all that ever changes."""

    reference_id: str
    revision: Revision
    create_time: UtcTime
    update_time: UtcTime


class Manifest(_Record):
    """What a generation holds beside its arrays. Equal revisions have equal manifests: it knows no name and no time."""

    revision: Revision
    spec: EmbeddingSpec
    options: ReferenceOptions
    calibration: Calibration


RecordT = TypeVar("RecordT", Pointer, Manifest)


def encode(record: Pointer | Manifest) -> bytes:
    """The record as UTF-8 JSON."""
    return record.model_dump_json(indent=2).encode() + b"\n"


def decode(kind: type[RecordT], data: bytes) -> RecordT:
    """The record that `encode` would write, and nothing looser: no defaults, no conversions, no key twice.

    Raises:
        DamageError: the bytes are anything else.
    """
    try:
        record = kind.model_validate_json(data)
        as_written = json.loads(data, object_pairs_hook=unique_keys)
    except ValidationError as error:
        raise DamageError(f"its {kind.__name__.lower()} cannot be read ({_first_fault(error)})") from None
    except InvalidInputError as error:
        raise DamageError(
            f"its {kind.__name__.lower()} cannot be read ({quoted(error.message.removesuffix('.'))})"
        ) from None
    except ValueError as error:
        raise DamageError(f"its {kind.__name__.lower()} cannot be read ({quoted(str(error))})") from None
    if record.model_dump(mode="json") != as_written:
        raise DamageError(f"its {kind.__name__.lower()} lacks a field or writes one in another form")
    return record


def unique_keys(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """For json.loads: an object in which no key stands twice, so that no two readers can differ about it."""
    items = dict(pairs)
    if len(items) != len(pairs):
        raise ValueError("a key stands twice")
    return items


def _first_fault(error: ValidationError) -> str:
    fault = error.errors(include_url=False, include_input=False)[0]
    words = [".".join(str(part) for part in fault["loc"]), fault["msg"].removeprefix("Value error, ")]
    return quoted(": ".join(filter(None, words)))


def quoted(text: str) -> str:
    """A parser's words, which may hold the damaged file's own text: printable ASCII, and little of it."""
    return ascii(text)[1:-1][:_MAX_WORDS]
