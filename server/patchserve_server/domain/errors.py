"""The error tree: every error that a caller may see. contract/status.py maps each one to its gRPC code.

A message says what was wrong and what is allowed. It never contains a path, a trace or a secret. The errors that only
HTTP has are in `http_errors`.
"""

from __future__ import annotations

from typing import ClassVar, Self

from patchserve_server.domain.callers import Scope


class PatchserveError(Exception):
    """Base class of all errors. `reason` is the machine-readable name (google.rpc.ErrorInfo.reason)."""

    reason: ClassVar[str]

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message

    def copy(self) -> Self:
        """The same error without its traceback, to store or to raise again. A traceback would keep a bank in memory."""
        error = type(self).__new__(type(self), *self.args)
        error.__dict__.update(self.__dict__)
        return error


class InvalidInputError(PatchserveError):
    """A request that cannot succeed without a change. `field` is the request's field, such as `output.max_regions`."""

    reason = "INVALID_FIELD"

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field

    def with_field(self, field: str) -> Self:
        """The same error for another field."""
        error = self.copy()
        error.field = field
        return error

    def with_prefix(self, prefix: str) -> Self:
        """The same error for a field of the message `prefix`: `ratio` with the prefix `coreset` is `coreset.ratio`."""
        return self.with_field(f"{prefix}.{self.field}" if self.field else prefix)


class MalformedMessageError(InvalidInputError):
    """The bytes cannot be parsed as a message of the contract, or as the form or JSON that stands for one."""

    reason = "MALFORMED_MESSAGE"

    def __init__(
        self, message: str = "The request cannot be parsed as a message of this method; see the .proto files."
    ) -> None:
        super().__init__("", message)


class RequestTooLargeError(InvalidInputError):
    """The message has more bytes than its method takes."""

    reason = "REQUEST_TOO_LARGE"

    def __init__(self, message: str) -> None:
        super().__init__("", message)


class InvalidImageError(InvalidInputError):
    """The bytes are not a supported image. `field` is `image`, or for example `images[3]` in a load."""

    reason = "INVALID_IMAGE"

    def __init__(self, message: str, field: str = "image") -> None:
        super().__init__(field, message)


class EmptyImageError(InvalidImageError):
    """The image has no bytes."""

    reason = "EMPTY_IMAGE"


class UndecodableImageError(InvalidImageError):
    """The format is not supported, or the file is truncated or damaged."""

    reason = "UNDECODABLE_IMAGE"


class ImageTooLargeError(InvalidImageError):
    """The image has more bytes or pixels than allowed."""

    reason = "IMAGE_TOO_LARGE"


class ResponseTooLargeError(InvalidInputError):
    """The response would be larger than the largest message that the server sends."""

    reason = "RESPONSE_TOO_LARGE"


class StreamProtocolError(InvalidInputError):
    """The messages of a stream came in the wrong order. Closes the stream."""

    reason = "STREAM_PROTOCOL"

    def __init__(self, message: str, field: str = "payload") -> None:
        super().__init__(field, message)


class ReferenceFileError(InvalidInputError):
    """The bytes are not a whole and undamaged file of ExportReference."""

    reason = "INVALID_REFERENCE_FILE"

    def __init__(self, message: str, field: str = "chunk") -> None:
        super().__init__(field, message)


class ReferenceNotFoundError(PatchserveError):
    reason = "REFERENCE_NOT_FOUND"

    def __init__(self, reference_id: str) -> None:
        super().__init__(
            f'There is no reference "{reference_id}". Load images of undamaged items with LoadReference first; '
            "ListReferences lists the references that exist."
        )
        self.reference_id = reference_id


class ImageNotKeptError(PatchserveError):
    """The image of a tile of the wall is not in memory."""

    reason = "IMAGE_NOT_KEPT"

    def __init__(self) -> None:
        super().__init__(
            "This image is no longer kept. The server keeps only the last images that were inspected while somebody "
            "watched."
        )


class UnknownServiceError(PatchserveError):
    """A health check asks for a service that this server does not have."""

    reason = "UNKNOWN_SERVICE"

    def __init__(self) -> None:
        super().__init__('This server has no such service. Ask for "" (alive) or "patchserve.v1.PatchCoreService".')


class PreconditionError(PatchserveError):
    """The request is valid but does not fit the reference's state. `subject` is the reference's id."""

    reason = "PRECONDITION"

    def __init__(self, subject: str, message: str) -> None:
        super().__init__(message)
        self.subject = subject


class RevisionMismatchError(PreconditionError):
    reason = "REVISION_MISMATCH"

    def __init__(self, reference_id: str, expected: str, actual: str) -> None:
        super().__init__(
            reference_id, f'Reference "{reference_id}" is at revision {actual}, not at the expected {expected}.'
        )


class RevisionNotKeptError(PreconditionError):
    """The revision to put back is not the one that the server keeps besides the current one."""

    reason = "REVISION_NOT_KEPT"

    def __init__(self, reference_id: str, revision: str | None, kept: str | None) -> None:
        kept_text = f"only {kept} is kept" if kept else "no previous revision is kept"
        wanted = f"Revision {revision} of reference" if revision else "Reference"
        super().__init__(reference_id, f'{wanted} "{reference_id}" cannot be restored: {kept_text}.')


class BankMismatchError(PreconditionError):
    """The bank was built with another backbone, other weights or another precision, so it cannot be used."""

    reason = "BANK_MISMATCH"

    def for_reference(self, reference_id: str) -> BankMismatchError:
        """The same error with the id of the reference, which the engine does not know."""
        return BankMismatchError(reference_id, self.message)


class ReferenceDamagedError(PreconditionError):
    """The stored files of the reference are damaged."""

    reason = "REFERENCE_DAMAGED"


class ReferenceChangedError(PatchserveError):
    """Another call changed the reference in the meantime; the caller may retry."""

    reason = "REFERENCE_CHANGED"

    def __init__(self, reference_id: str) -> None:
        super().__init__(f'Another call changed reference "{reference_id}" at the same time; try again.')
        self.reference_id = reference_id


class TemporaryError(PatchserveError):
    """A temporary condition. `retry_after_s` is when a retry makes sense; None: unknown or never."""

    reason = "TEMPORARY"

    def __init__(self, message: str, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class ExhaustedError(TemporaryError):
    """A limit was reached."""

    reason = "EXHAUSTED"


class QueueFullError(ExhaustedError):
    reason = "QUEUE_FULL"


class IdleCallError(ExhaustedError):
    """The caller sent nothing for a while, and another call needed the place, or too many of its streams were idle."""

    reason = "IDLE"

    def __init__(self, message: str, retry_after_s: float = 1.0) -> None:
        super().__init__(message, retry_after_s)


class FrameDroppedError(ExhaustedError):
    """The frame was dropped in favor of a newer one (DROP_OLDEST)."""

    reason = "FRAME_DROPPED"


class MemoryBudgetError(ExhaustedError):
    """The reference does not fit into the memory limit."""

    reason = "MEMORY_BUDGET"


class StorageFullError(ExhaustedError):
    """The store could not save: disk full or quota reached. The old revision stays."""

    reason = "STORAGE_FULL"


class UnavailableError(TemporaryError):
    """The server cannot serve now."""

    reason = "UNAVAILABLE"


class NotReadyError(UnavailableError):
    reason = "NOT_READY"


class DrainingError(UnavailableError):
    reason = "DRAINING"

    def __init__(self) -> None:
        super().__init__("The server is shutting down; continue with another one.", retry_after_s=1.0)


class EngineLostError(UnavailableError):
    """The engine ended or hangs, or a front cannot reach it. The call may be repeated."""

    reason = "ENGINE_LOST"

    def __init__(self) -> None:
        message = "The server has lost its engine, and waits until it is back. Try again shortly."
        super().__init__(message, retry_after_s=1.0)


class StorageUnavailableError(UnavailableError):
    """The store could not be read or written (read-only, input/output error). Open references still serve.

    `is_absent`: there is no such store. That is no outage, though somebody may make it.
    """

    reason = "STORAGE_UNAVAILABLE"

    def __init__(self, message: str, retry_after_s: float | None = None, *, is_absent: bool = False) -> None:
        super().__init__(message, retry_after_s)
        self.is_absent = is_absent


class DeadlineError(PatchserveError):
    """The deadline of a call, or the time limit of a frame, has passed."""

    reason = "DEADLINE"


class StalledReaderError(DeadlineError):
    """The caller does not read its responses."""

    reason = "READER_STALLED"


class MessageTimeoutError(DeadlineError):
    """The caller did not send the first message of its call in time."""

    reason = "MESSAGE_TIMEOUT"


class UnauthenticatedError(PatchserveError):
    """The call needs a credential and has none. A message never repeats what the caller sent."""

    reason = "NO_CREDENTIALS"

    def __init__(self, message: str = "This server requires a token: send `authorization: Bearer TOKEN`.") -> None:
        super().__init__(message)


class InvalidCredentialsError(UnauthenticatedError):
    reason = "INVALID_CREDENTIALS"

    def __init__(self, message: str = "The bearer token is not valid here.") -> None:
        super().__init__(message)


class ExpiredCredentialsError(UnauthenticatedError):
    reason = "CREDENTIALS_EXPIRED"

    def __init__(self) -> None:
        super().__init__("The bearer token has expired; get a new one.")


class PermissionDeniedError(PatchserveError):
    """The credential is valid but lacks the scope that the method needs."""

    reason = "SCOPE_MISSING"

    def __init__(self, method: str, scope: Scope) -> None:
        super().__init__(f'{method} needs a token with the scope "{scope}", which this token does not have.')


class StartupError(PatchserveError):
    """The server cannot start with these settings. The message says what to do; the CLI prints it and exits."""

    reason = "STARTUP"
