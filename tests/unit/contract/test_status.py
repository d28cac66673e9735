"""Every error has its code and details, and a status contains nothing internal."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from google.rpc import code_pb2, error_details_pb2, status_pb2

from patchserve_server.contract.status import CODES, status_of
from patchserve_server.domain import errors


def every_kind(kind: type[errors.PatchserveError]) -> Iterator[type[errors.PatchserveError]]:
    yield kind
    for subclass in kind.__subclasses__():
        yield from every_kind(subclass)


def test_every_error_that_a_call_can_raise_has_a_code() -> None:
    without = {kind for kind in every_kind(errors.PatchserveError) if not set(kind.__mro__) & set(CODES)}
    assert without == {errors.PatchserveError, errors.TemporaryError, errors.StartupError}


def test_every_error_has_its_own_reason() -> None:
    reasons = [kind.reason for kind in every_kind(errors.PatchserveError) if kind is not errors.PatchserveError]
    assert len(set(reasons)) == len(reasons)


def details(status: status_pb2.Status) -> dict[str, object]:
    """The details of a status by the names of their types."""
    by_name: dict[str, object] = {}
    for packed in status.details:
        kind = getattr(error_details_pb2, packed.type_url.rpartition(".")[2])
        by_name[kind.__name__] = message = kind()
        assert packed.Unpack(message)
    return by_name


@pytest.mark.parametrize(
    ("error", "code", "reason", "detail", "text"),
    [
        (
            errors.EmptyImageError("m").with_field("images[3]"),
            "INVALID_ARGUMENT",
            "EMPTY_IMAGE",
            "BadRequest",
            "images[3]",
        ),
        (errors.StreamProtocolError("m"), "INVALID_ARGUMENT", "STREAM_PROTOCOL", "BadRequest", "payload"),
        (errors.ReferenceNotFoundError("box"), "NOT_FOUND", "REFERENCE_NOT_FOUND", "ResourceInfo", "box"),
        (errors.BankMismatchError("box", "m"), "FAILED_PRECONDITION", "BANK_MISMATCH", "PreconditionFailure", "box"),
        (errors.ReferenceChangedError("box"), "ABORTED", "REFERENCE_CHANGED", "ResourceInfo", "box"),
        (errors.QueueFullError("m", 0.5), "RESOURCE_EXHAUSTED", "QUEUE_FULL", "RetryInfo", "500000000"),
        (errors.DrainingError(), "UNAVAILABLE", "DRAINING", "RetryInfo", "seconds: 1"),
        (errors.DeadlineError("m"), "DEADLINE_EXCEEDED", "DEADLINE", None, ""),
        (errors.MemoryBudgetError("m"), "RESOURCE_EXHAUSTED", "MEMORY_BUDGET", None, ""),
    ],
)
def test_an_error_has_its_code_reason_and_details(
    error: errors.PatchserveError, code: str, reason: str, detail: str | None, text: str
) -> None:
    status = status_of(error, "r1")
    assert status.code == code_pb2.Code.Value(code)
    assert status.message == error.message
    sent = details(status)
    info = sent.pop("ErrorInfo")
    assert isinstance(info, error_details_pb2.ErrorInfo)
    assert (info.reason, info.domain) == (reason, "patchserve.v1")
    assert list(sent) == ([detail] if detail else [])
    if detail:
        assert text in str(sent[detail])


def test_a_bug_is_reported_with_its_request_id_and_nothing_else(caplog: pytest.LogCaptureFixture) -> None:
    status = status_of(ValueError("/secret/path"), "r1")
    assert status.code == code_pb2.INTERNAL
    assert "r1" in status.message
    assert "secret" not in str(status)
    assert "/secret/path" in caplog.text
