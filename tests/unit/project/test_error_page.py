"""docs/errors.md agrees with contract/status.py."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from google.rpc import code_pb2, error_details_pb2, status_pb2

from patchserve_server.contract.status import status_of
from patchserve_server.domain import errors

PAGE = Path(__file__).resolve().parents[3] / "docs" / "errors.md"
# Groups are not raised themselves. A StartupError ends the process before there is a caller.
GROUPS = (
    errors.PatchserveError,
    errors.InvalidImageError,
    errors.TemporaryError,
    errors.ExhaustedError,
    errors.UnavailableError,
)
NOT_SENT = {*GROUPS, errors.StartupError}
# Errors with a delay after which the caller may try again.
WITH_DELAY = {errors.QueueFullError, errors.NotReadyError, errors.IdleCallError}


def every_kind(root: type[errors.PatchserveError]) -> Iterator[type[errors.PatchserveError]]:
    yield root
    for kind in root.__subclasses__():
        yield from every_kind(kind)


def example(kind: type[errors.PatchserveError]) -> errors.PatchserveError:
    arguments: dict[str, Any] = {name: name for name in inspect.signature(kind).parameters if name != "retry_after_s"}
    if kind in WITH_DELAY:
        arguments["retry_after_s"] = 1.0
    return kind(**arguments)


def row(status: status_pb2.Status) -> tuple[str, str, str]:
    """Reason, code and further details, as in the rows of the page."""
    info = error_details_pb2.ErrorInfo()
    assert status.details[0].Unpack(info)
    further = [detail.TypeName().removeprefix("google.rpc.") for detail in status.details[1:]]
    return info.reason, code_pb2.Code.Name(status.code), ", ".join(further)


def test_the_page_lists_every_error_with_its_code_and_details() -> None:
    sent = [example(kind) for kind in every_kind(errors.PatchserveError) if kind not in NOT_SENT]
    expected = {row(status_of(error, "id")) for error in [*sent, RuntimeError("a bug")]}
    rows = re.findall(r"^\| ([A-Z_]+) \| ([A-Z_]+) \| ?(\w*) ?\| .+ \| .+ \|$", PAGE.read_text(), re.MULTILINE)
    assert set(rows) == expected
    assert len(rows) == len(expected)


@pytest.mark.parametrize("kind", GROUPS)
def test_errors_that_the_page_leaves_out_are_never_raised(kind: type[errors.PatchserveError]) -> None:
    package = PAGE.parents[1] / "server" / "patchserve_server"
    assert not [path for path in package.rglob("*.py") if f"raise {kind.__name__}(" in path.read_text()]
