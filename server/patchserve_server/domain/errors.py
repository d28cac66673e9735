"""The error tree. Every error that a caller may see is one of these; rpc/status.py gives each its gRPC code.

A message says what was wrong and what is allowed. It never holds a path, a trace or a secret.
"""

from __future__ import annotations

from typing import ClassVar

from patchserve_server.domain.callers import Scope


class PatchserveError(Exception):
    """The root. `reason` is the machine-readable name (google.rpc.ErrorInfo.reason)."""

    reason: ClassVar[str]

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class InvalidInputError(PatchserveError):
    """A request that can never succeed as it is. `field` is the request's field, such as `output.max_regions`."""

    reason = "INVALID_FIELD"

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field


class MalformedMessageError(InvalidInputError):
    """Bytes that are no message of the contract."""

    reason = "MALFORMED_MESSAGE"

    def __init__(self) -> None:
        super().__init__("", "The bytes of the request are no message of this method; see the server's .proto files.")


class InvalidImageError(InvalidInputError):
    """Bytes that are no image we take. `field` defaults to `image`; a load names the image, such as `images[3]`."""

    reason = "INVALID_IMAGE"

    def __init__(self, message: str, field: str = "image") -> None:
        super().__init__(field, message)

    def at(self, field: str) -> InvalidImageError:
        """The same error, said of another field."""
        return type(self)(self.message, field)


class EmptyImageError(InvalidImageError):
    """No bytes at all."""

    reason = "EMPTY_IMAGE"


class UndecodableImageError(InvalidImageError):
    """Not a format that we take, truncated or damaged."""

    reason = "UNDECODABLE_IMAGE"


class ImageTooLargeError(InvalidImageError):
    """More bytes or pixels than allowed."""

    reason = "IMAGE_TOO_LARGE"


class StreamProtocolError(InvalidInputError):
    """Messages of a stream in an order that the contract does not allow. Closes the stream."""

    reason = "STREAM_PROTOCOL"

    def __init__(self, message: str, field: str = "payload") -> None:
        super().__init__(field, message)


class ReferenceNotFoundError(PatchserveError):
    reason = "REFERENCE_NOT_FOUND"

    def __init__(self, reference_id: str) -> None:
        super().__init__(
            f'There is no reference "{reference_id}". Load images of undamaged items with LoadReference first; '
            "ListReferences tells what is there."
        )
        self.reference_id = reference_id


class PreconditionError(PatchserveError):
    """The request is sound but does not fit what is there. `subject` is the reference's id."""

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


class BankMismatchError(PreconditionError):
    """A bank that another backbone, other weights or another precision made: never mixed, never guessed."""

    reason = "BANK_MISMATCH"

    def of(self, reference_id: str) -> BankMismatchError:
        """The same error, with the id of the reference, which the engine does not know."""
        return BankMismatchError(reference_id, self.message)


class ReferenceDamagedError(PreconditionError):
    """A stored reference whose files do not hold what they should."""

    reason = "REFERENCE_DAMAGED"


class ReferenceChangedError(PatchserveError):
    """Another call changed the reference in between; trying again is sound."""

    reason = "REFERENCE_CHANGED"

    def __init__(self, reference_id: str) -> None:
        super().__init__(f'Another call changed reference "{reference_id}" at the same time; try again.')
        self.reference_id = reference_id


class ExhaustedError(PatchserveError):
    """A bound was reached. `retry_after_s` is when trying again makes sense, None where it does not."""

    reason = "EXHAUSTED"

    def __init__(self, message: str, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class QueueFullError(ExhaustedError):
    reason = "QUEUE_FULL"


class FrameDroppedError(ExhaustedError):
    """A frame that made room for a newer one (DROP_OLDEST)."""

    reason = "FRAME_DROPPED"


class MemoryBudgetError(ExhaustedError):
    """A bank that does not fit the memory budget."""

    reason = "MEMORY_BUDGET"


class StorageFullError(ExhaustedError):
    """The store could not take a save: disk full or quota reached. The old revision stays."""

    reason = "STORAGE_FULL"


class UnavailableError(PatchserveError):
    """Not able to serve just now. `retry_after_s` is when trying again makes sense."""

    reason = "UNAVAILABLE"

    def __init__(self, message: str, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class NotReadyError(UnavailableError):
    reason = "NOT_READY"


class DrainingError(UnavailableError):
    reason = "DRAINING"


class StorageUnavailableError(UnavailableError):
    """The store could not be read or written (read-only, input/output error). What is in memory still serves."""

    reason = "STORAGE_UNAVAILABLE"


class DeadlineError(PatchserveError):
    """Nobody waits any more, or a frame grew older than its stream allows."""

    reason = "DEADLINE"


class StalledReaderError(DeadlineError):
    """A caller does not read the answers that wait for it."""

    reason = "READER_STALLED"


class UnauthenticatedError(PatchserveError):
    """A call without a credential, where one is needed. No message ever holds what was sent."""

    reason = "NO_CREDENTIALS"

    def __init__(
        self, message: str = "This server needs a token: send the metadata `authorization: Bearer TOKEN`."
    ) -> None:
        super().__init__(message)


class InvalidCredentialsError(UnauthenticatedError):
    reason = "INVALID_CREDENTIALS"

    def __init__(self, message: str = "The bearer token is none that this server takes.") -> None:
        super().__init__(message)


class ExpiredCredentialsError(UnauthenticatedError):
    reason = "CREDENTIALS_EXPIRED"

    def __init__(self) -> None:
        super().__init__("The bearer token has expired; get a new one.")


class PermissionDeniedError(PatchserveError):
    """A credential that is good, without the scope that the method needs."""

    reason = "SCOPE_MISSING"

    def __init__(self, method: str, scope: Scope) -> None:
        super().__init__(f'{method} needs a token with the scope "{scope}", which this one does not have.')


class StartupError(PatchserveError):
    """The server cannot start as it was told to. The message says what to do; the CLI prints it and exits."""

    reason = "STARTUP"
