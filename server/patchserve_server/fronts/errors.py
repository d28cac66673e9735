"""Errors as JSON, so that a front raises what its engine raised."""

from __future__ import annotations

import logging
from typing import Any, Final

from patchserve_server.domain import errors
from patchserve_server.domain.errors import PatchserveError

_log = logging.getLogger(__name__)


def _kinds(base: type[PatchserveError]) -> dict[str, type[PatchserveError]]:
    found = {base.__name__: base}
    for kind in base.__subclasses__():
        found |= _kinds(kind)
    return found


_KINDS: Final = {name: kind for name, kind in _kinds(PatchserveError).items() if kind.__module__ == errors.__name__}


class EngineFailedError(Exception):
    """A bug in the engine. Its traceback is in the engine's log."""


def error_to_json(error: BaseException) -> dict[str, Any]:
    """The kind of an error and what it knows. A bug is logged here."""
    if isinstance(error, PatchserveError) and type(error).__name__ in _KINDS:
        return {"kind": type(error).__name__, "state": vars(error)}
    _log.error("A request of a front failed", exc_info=error)
    return {"kind": "", "state": {"message": type(error).__name__}}


def error_from_json(data: dict[str, Any]) -> Exception:
    """The same error, without its traceback."""
    state = data["state"]
    if (kind := _KINDS.get(data["kind"])) is None:
        return EngineFailedError(f"The engine failed with {state['message']}; its log has the traceback.")
    error = kind.__new__(kind, state["message"])
    error.args = (state["message"],)
    error.__dict__.update(state)
    return error
