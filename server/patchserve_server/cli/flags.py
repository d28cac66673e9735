"""The flags of `patchserve-server serve`: one for each setting, in groups."""

from __future__ import annotations

import argparse
from collections.abc import Container, Mapping
from pathlib import Path
from typing import Any, Final, Literal, get_args, get_origin

from pydantic.fields import FieldInfo

from patchserve_server.cli.parser import Parser
from patchserve_server.config import Settings

_GROUP_FROM: Final = {
    "host": "listening",
    "auth_tokens": "callers",
    "backbone": "model",
    "store": "references",
    "save_outputs": "outputs",
    "max_message_mib": "limits",
    "default_timeout_s": "time limits",
    "max_batch_size": "batches and threads",
    "drain_delay_s": "end of the server",
    "log_level": "log",
}
"""Title of a group by its first setting; a group goes on until the next one begins."""
_UNITS: Final = {"mib": "MIB", "s": "SECONDS", "ms": "MILLISECONDS", "megapixels": "MEGAPIXELS", "days": "DAYS"}


def add_flags(parser: Parser) -> None:
    """Add a flag for every setting. Its value stays a text, which Settings parses; absent flags are left out."""
    group: argparse._ArgumentGroup | None = None
    for name, field in Settings.model_fields.items():
        if name in _GROUP_FROM or group is None:
            group = parser.add_argument_group(_GROUP_FROM.get(name, "settings"))
        options: dict[str, Any] = {"dest": name, "default": argparse.SUPPRESS, "help": _help(field)}
        if field.annotation is bool:
            group.add_argument(_flag(name), action=argparse.BooleanOptionalAction, **options)
        else:
            group.add_argument(_flag(name), metavar=_metavar(name, field), **options)


def problem_text(problem: Mapping[str, Any], flags: Container[str]) -> str:
    """What is wrong with a setting, and what is allowed. It names the flag or the variable that has the value."""
    name = str(problem["loc"][0])
    place = _flag(name) if name in flags else f"the variable PATCHSERVE_{name.upper()}"
    if problem["type"] == "value_error":  # of a validator of ours
        return f"{place} is {problem['input']!r}: {problem['ctx']['error']}"
    return f"{place} is {problem['input']!r}; it must be {allowed_values(Settings.model_fields[name])}."


def allowed_values(field: FieldInfo) -> str:
    """The values of a setting in words."""
    kind = int if field.annotation == int | None else field.annotation
    if get_origin(kind) is Literal:
        return f"one of {', '.join(get_args(kind))}"
    if kind is bool:
        return "true or false"
    if kind in (int, float, int | None):
        return " ".join(["a number" if kind is float else "a whole number", *_bounds(field)])
    return f"one of {', '.join(map(str, field.examples))}" if field.examples else "a text that is not empty"


def _bounds(field: FieldInfo) -> list[str]:
    bounds = {
        name: getattr(item, name) for item in field.metadata for name in ("gt", "ge", "le") if hasattr(item, name)
    }
    if "ge" in bounds and "le" in bounds:
        return [f"from {bounds['ge']:g} to {bounds['le']:g}"]
    words = {"gt": "above", "ge": "of at least", "le": "and at most"}
    return [f"{words[name]} {bound:g}" for name, bound in bounds.items()]


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def _metavar(name: str, field: FieldInfo) -> str:
    last_word = name.rpartition("_")[2]
    if any(Path in (kind, *get_args(kind)) for kind in get_args(field.annotation)):  # Path | None, checked or not
        return "FOLDER" if (field.description or "").startswith("Folder") else "FILE"
    if field.annotation in (int, float) and last_word != "port":
        return _UNITS.get(last_word, "NUMBER")
    return last_word.upper()


def _help(field: FieldInfo) -> str:
    notes = [allowed_values(field)] if get_origin(field.annotation) is Literal else []
    if field.default_factory is not None:
        notes.append("default: the number of cores")
    elif field.default is not None and field.annotation is not bool:
        notes.append(f"default: {field.default}")
    text = " ".join((field.description or "").split())
    return (f"{text} [{'; '.join(notes)}]" if notes else text).replace("%", "%%")
