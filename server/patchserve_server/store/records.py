"""The JSON records of the stored format (docs/format.md): pointer and manifest."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, ClassVar, Final, Self, TypeVar

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from patchserve_server.domain.errors import InvalidInputError
from patchserve_server.domain.reference import Calibration, EmbeddingSpec, ReferenceOperation
from patchserve_server.domain.reference_image import ReferenceImage
from patchserve_server.domain.reference_options import ReferenceOptions
from patchserve_server.domain.sensitivity import DEFAULT_SENSITIVITY, check_sensitivity
from patchserve_server.store.damage import DamageError, printable

POINTER_VERSION = 3
MANIFEST_VERSION = 5
HEAD_VERSION = 1
# A manifest of 50,000 images, the most that a reference can have, has two thirds of it. One of 32 MiB that is made up
# could have 16 million, and its parser would take gigabytes and hold the whole process up for seconds.
MAX_MANIFEST_VALUES: Final = 2**20
_CONTAINER_VALUES: Final = 8  # what an object or an array counts as: parsers take so much more memory for one
_MOST_PROBLEMS: Final = 1000
_TEXT: Final = re.compile(rb'"(?:[^"\\]|\\.)*+(?:"|\\?\Z)', re.DOTALL)  # also one without an end: never tried twice
REVISION_PATTERN = "^[0-9a-f]{64}$"


def _utc(time: datetime) -> datetime:
    if time.utcoffset() != timedelta(0):
        raise ValueError("must be in UTC, with a Z")
    return time.replace(tzinfo=UTC)


def checked_sensitivity(sensitivity: float) -> float:
    """The same sensitivity, in its range."""
    check_sensitivity(sensitivity)
    return sensitivity


UtcTime = Annotated[AwareDatetime, AfterValidator(_utc)]
Revision = Annotated[str, Field(pattern=REVISION_PATTERN)]


class RecordPart(BaseModel):
    """A part of a record. It accepts no conversions and no other fields."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False)


class Record(RecordPart):
    """A JSON document of one version."""

    NAME: ClassVar[str]
    VERSION: ClassVar[int]
    _READABLE: ClassVar[str]
    _ABSENT: ClassVar[dict[str, Any] | None] = None  # what this version of the record does not have
    format_version: int

    @field_validator("format_version")
    @classmethod
    def _check_version(cls, version: int) -> int:
        if version != cls.VERSION:
            raise ValueError(f"this server reads {cls._READABLE} only")
        return version

    def document(self) -> object:
        """The record as a JSON document, with exactly the fields of its version."""
        return self.model_dump(mode="json", exclude=self._ABSENT)


class _PreviousOfSecondPointer(RecordPart):
    revision: Revision
    update_time: UtcTime


class PreviousRevision(_PreviousOfSecondPointer):
    """The revision that was current before, when it was made, and by what."""

    operation: ReferenceOperation | None


class FirstPointer(Record):
    """A pointer of version 1, from before the previous revision was kept."""

    NAME = "pointer"
    VERSION = 1
    _READABLE = "version 1"
    reference_id: str
    revision: Revision
    create_time: UtcTime
    update_time: UtcTime


class SecondPointer(FirstPointer):
    """A pointer of version 2, from before it said what made a revision."""

    VERSION = 2
    _READABLE = "versions 1 and 2"
    previous: _PreviousOfSecondPointer | None

    @model_validator(mode="after")
    def _check_previous(self) -> Self:
        if self.previous is not None and self.previous.revision == self.revision:
            raise ValueError("previous is the current revision")
        return self


class Pointer(SecondPointer):
    """Which revision of a reference is current, and which one is kept besides."""

    VERSION = POINTER_VERSION
    _READABLE = "versions 1 to 3"
    operation: ReferenceOperation | None
    previous: PreviousRevision | None

    @property
    def revisions(self) -> frozenset[str]:
        """The revisions whose generations are kept."""
        return frozenset({self.revision} if self.previous is None else {self.revision, self.previous.revision})


class Head(Record):
    """What an exported reference is, and how long its parts are."""

    NAME = "head"
    VERSION = 1
    _READABLE = "version 1"
    reference_id: str
    revision: Revision
    manifest_bytes: Annotated[int, Field(ge=1)]
    bank_bytes: Annotated[int, Field(ge=1)]


_RATES: Final = {"false_alarm_rate": True, "false_alarm_rate_upper": True}
_ABSENT_BEFORE_FOUR: Final = {
    "options": {"input", "views", "scales", "false_alarm_rate", "white_level"},
    "calibration": _RATES,
}
_ABSENT_BEFORE_THREE: Final = {**_ABSENT_BEFORE_FOUR, "calibration": {**_RATES, "normal_scores": {"scores"}}}


class FirstManifest(Record):
    """A manifest of version 1, from before references had a sensitivity and described their images."""

    NAME = "manifest"
    VERSION = 1
    _READABLE = "version 1"
    _ABSENT: ClassVar[dict[str, Any] | None] = _ABSENT_BEFORE_THREE
    revision: Revision
    spec: EmbeddingSpec
    options: ReferenceOptions
    calibration: Calibration


class SecondManifest(FirstManifest):
    """A manifest of version 2, from before calibrations had a list of their scores."""

    VERSION = 2
    _READABLE = "versions 1 and 2"
    sensitivity: Annotated[float, AfterValidator(checked_sensitivity)]
    images: tuple[ReferenceImage, ...]


class ThirdManifest(SecondManifest):
    """A manifest of version 3, from before references chose the size of their model inputs and a false alarm rate."""

    VERSION = 3
    _READABLE = "versions 1 to 3"
    _ABSENT: ClassVar[dict[str, Any] | None] = _ABSENT_BEFORE_FOUR


class FourthManifest(ThirdManifest):
    """A manifest of version 4, from before it said how many views the bank was made of."""

    VERSION = 4
    _READABLE = "versions 1 to 4"
    _ABSENT = None


class Manifest(FourthManifest):
    """A generation without its arrays. It has no name and no time.

    Equal revisions have equal manifests, except for `images`, the number of views, the list of normal scores and the
    false alarm rates of the calibration, on which no score depends.
    """

    VERSION = MANIFEST_VERSION
    _READABLE = "versions 1 to 5"
    views_per_image: Annotated[int, Field(ge=1)] | None


_OLD_MANIFESTS: Final = (FirstManifest, SecondManifest, ThirdManifest, FourthManifest)
RecordT = TypeVar("RecordT", bound=Record)


def decode_pointer(data: bytes) -> Pointer:
    """The pointer of any version.

    Raises:
        DamageError: the bytes are not a pointer.
    """
    version = version_in(data)
    if version == FirstPointer.VERSION:
        first = decode_record(FirstPointer, data)
        return Pointer(**{**dict(first), "format_version": POINTER_VERSION, "operation": None, "previous": None})
    if version == SecondPointer.VERSION:
        second = decode_record(SecondPointer, data)
        previous = None if second.previous is None else PreviousRevision(**dict(second.previous), operation=None)
        return Pointer(**{**dict(second), "format_version": POINTER_VERSION, "operation": None, "previous": previous})
    return decode_record(Pointer, data)


def decode_manifest(data: bytes) -> Manifest:
    """The manifest of any version. A value that an old version does not have is the default.

    Raises:
        DamageError: the bytes are not a manifest.
    """
    check_values(data, Manifest.NAME, MAX_MANIFEST_VALUES)
    version = version_in(data)
    old = next((kind for kind in _OLD_MANIFESTS if version == kind.VERSION), None)
    if old is None:
        return decode_record(Manifest, data)
    defaults = {"sensitivity": DEFAULT_SENSITIVITY, "images": (), "views_per_image": None}
    return Manifest(**{**defaults, **dict(decode_record(old, data)), "format_version": MANIFEST_VERSION})


def check_values(data: bytes, name: str, max_values: int) -> None:
    """Look for too many values in JSON before it is parsed. Each of its objects and arrays counts as eight.

    Raises:
        DamageError: there are more.
    """
    if _values_in(data) > max_values and _has_more_outside_of_texts(data, max_values):
        raise DamageError(f"its {name} has more than {max_values:,} values")


def _has_more_outside_of_texts(data: bytes, max_values: int) -> bool:
    values = end = 0
    for text in _TEXT.finditer(data):
        values += _values_in(data[end : text.start()])
        if values > max_values:
            return True
        end = text.end()
    return values + _values_in(data[end:]) > max_values


def _values_in(data: bytes) -> int:
    return data.count(b",") + _CONTAINER_VALUES * (data.count(b"[") + data.count(b"{"))


def version_in(data: bytes) -> object:
    """What these bytes have in the place of a version; None: nothing."""
    with suppress(ValueError, RecursionError):
        document = json.loads(data)
        return document.get("format_version") if isinstance(document, dict) else None
    return None


def encode_record(record: Record) -> bytes:
    """The record as JSON in UTF-8."""
    return record.model_dump_json(indent=2).encode() + b"\n"


def decode_record(kind: type[RecordT], data: bytes) -> RecordT:
    """The record that `encode_record` wrote. It accepts no defaults, no conversions and no duplicate keys.

    Raises:
        DamageError: the bytes are not such a record.
    """
    name = kind.NAME
    try:
        record = kind.model_validate_json(data)
        as_written = json.loads(data, object_pairs_hook=unique_keys)
    except ValidationError as error:
        raise DamageError(f"its {name} cannot be read ({_first_problem(error)})") from None
    except InvalidInputError as error:
        raise DamageError(f"its {name} cannot be read ({printable(error.message.removesuffix('.'))})") from None
    except ValueError as error:
        raise DamageError(f"its {name} cannot be read ({printable(str(error))})") from None
    if record.document() != as_written:
        raise DamageError(f"its {name} lacks a field or has a field in another form")
    return record


def unique_keys(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """For json.loads: reject an object with a duplicate key, because readers disagree about which value counts."""
    items = dict(pairs)
    if len(items) != len(pairs):
        raise ValueError("duplicate key")
    return items


def _first_problem(error: ValidationError) -> str:
    if (count := error.error_count()) > _MOST_PROBLEMS:  # their list would take a kB for each
        return f"{count:,} problems"
    problem = error.errors(include_url=False, include_input=False)[0]
    field = ".".join(str(part) for part in problem["loc"])
    message = problem["msg"].removeprefix("Value error, ")
    return printable(f"{field}: {message}" if field else message)
