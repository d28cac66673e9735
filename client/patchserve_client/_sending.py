"""The sending side of a request stream, as gRPC's sender thread draws it."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from typing import Generic, TypeVar

_T = TypeVar("_T")


class Outbox(Generic[_T]):
    """Messages that the caller's iterable makes.

    What it raises is kept, since gRPC would log it and tell the caller of an UNKNOWN error.
    After such an error the request stream ends as if it were complete, so that what was sent is still answered;
    `on_error` may cancel the call instead.
    """

    def __init__(self, messages: Iterable[_T], on_error: Callable[[], object] | None = None) -> None:
        self._messages = messages
        self._on_error = on_error
        self._error: Exception | None = None

    def __iter__(self) -> Generator[_T]:
        try:
            yield from self._messages
        except Exception as error:  # noqa: BLE001 - raised again in the caller's thread
            self._error = error
            if self._on_error is not None:
                self._on_error()

    @contextmanager
    def error_first(self) -> Iterator[None]:
        """Raises what the iterable raised, instead of whatever came of it."""
        try:
            yield
        except Exception:
            if self._error is None:
                raise
        if self._error is not None:
            raise self._error
