"""What an error of obstore means. Its text contains URLs, which may contain a signature: none of it is passed on."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum, auto
from typing import Final

from obstore.exceptions import (
    AlreadyExistsError,
    InvalidPathError,
    NotModifiedError,
    NotSupportedError,
    PermissionDeniedError,
    PreconditionError,
    UnauthenticatedError,
    UnknownConfigurationKeyError,
)


class Kind(Enum):
    """What to do about it."""

    MISSING = auto()
    EXISTS = auto()
    CHANGED = auto()
    UNCHANGED = auto()  # a conditional read: it is still the same
    NO_BUCKET = auto()
    REFUSED = auto()  # it would fail again
    TRANSIENT = auto()  # it may succeed when it is tried again; a write may have been done


@dataclass(frozen=True, slots=True)
class Problem:
    """`reason` completes "the store cannot be read (...)"."""

    kind: Kind
    reason: str


_STATUS: Final = re.compile(r"status code: (\d{3})\b")
_CODE: Final = re.compile(r"<Code>([A-Za-z]{1,60})</Code>")
_CREDENTIALS: Final = re.compile(r"169\.254\.169\.254|metadata\.google|169\.254\.170\.|oauth2|performing token request")
_NO_BUCKET: Final = ("NoSuchBucket", "ContainerNotFound", "specified container does not exist")
_CONFLICTS: Final = ("ConditionalRequestConflict", "OperationAborted")  # of S3: two at the same time, try again
_TRANSIENT_STATUSES: Final = (408, 409, 425, 429)
_NEVER_TRANSIENT: Final = (501, 505)
_MIN_SERVER_ERROR: Final = 500
_WRONG_REGION: Final = "incorrectly configured region"
_SAID: Final = {
    _WRONG_REGION: "the bucket is in another region; set AWS_REGION",
    "Encountered object with invalid path": (
        'it has an object whose key has nothing, "." or ".." between two slashes; remove that object'
    ),
}


def problem_of(error: Exception) -> Problem:
    """What an error of obstore, raised by one request, means."""
    text = str(error)
    if any(word in text for word in _NO_BUCKET):
        return Problem(Kind.NO_BUCKET, "the bucket does not exist")
    if isinstance(error, AlreadyExistsError):
        is_conflict = any(word in text for word in _CONFLICTS)
        return Problem(Kind.TRANSIENT if is_conflict else Kind.EXISTS, "others write at the same time")
    for kinds, kind in _KINDS.items():
        if isinstance(error, kinds):
            return Problem(kind, _reason(text))
    return Problem(Kind.TRANSIENT if _may_pass(text) else Kind.REFUSED, _reason(text))


_KINDS: Final[dict[type[Exception] | tuple[type[Exception], ...], Kind]] = {
    FileNotFoundError: Kind.MISSING,  # obstore's own NotFoundError is this one
    PreconditionError: Kind.CHANGED,
    NotModifiedError: Kind.UNCHANGED,
    (
        PermissionDeniedError,
        UnauthenticatedError,
        NotSupportedError,
        InvalidPathError,
        UnknownConfigurationKeyError,
    ): Kind.REFUSED,
}


def _may_pass(text: str) -> bool:
    if _WRONG_REGION in text:
        return False
    if (status := _status(text)) is None:
        return True  # no answer, or none that is whole
    return status in _TRANSIENT_STATUSES or (status >= _MIN_SERVER_ERROR and status not in _NEVER_TRANSIENT)


def _status(text: str) -> int | None:
    match = _STATUS.search(text)
    return int(match[1]) if match else None


def _reason(text: str) -> str:
    """What is known, in our own words: nothing of the text but a status and the service's code."""
    if _CREDENTIALS.search(text):
        return "no credentials: none in the environment or in files, and no role of this machine"
    if (said := next((reason for words, reason in _SAID.items() if words in text), None)) is not None:
        return said
    if (status := _status(text)) is not None:
        code = _CODE.search(text)
        return f"it answered {status}{f' {code[1]}' if code else ''}"
    if "body error" in text or "Interrupted" in text:
        return "its answer ended early"
    if "error sending request" in text or "Timeout" in text:
        return "it does not answer"
    return "its answer cannot be understood"
