"""One request through obstore, with its errors in our words."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from obstore.exceptions import BaseError

from patchserve_server.store.objects.problems import Kind, problem_of
from patchserve_server.store.objects.retrying import TransientError

_Result = TypeVar("_Result")


class FailedRequestError(Exception):
    """A request has failed, and would fail again. Its `kind` is never TRANSIENT."""

    def __init__(self, kind: Kind, reason: str) -> None:
        super().__init__(reason)
        self.kind, self.reason = kind, reason


def request(send: Callable[[], _Result]) -> _Result:
    """The result of one request.

    Raises:
        TransientError: it may succeed when it is tried again.
        FailedRequestError: it would fail again.
    """
    try:
        return send()
    except (BaseError, FileNotFoundError) as error:  # the latter is how obstore says that there is no such object
        problem = problem_of(error)
    if problem.kind is Kind.TRANSIENT:
        raise TransientError(problem.reason)
    raise FailedRequestError(problem.kind, problem.reason)
