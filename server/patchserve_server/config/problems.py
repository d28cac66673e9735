"""What is wrong with settings, in words: where, what, and what is allowed."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from pydantic.fields import FieldInfo


@dataclass(frozen=True, slots=True)
class Problem:
    """One fault of a configuration.

    Args:
        message: what is wrong, and what is allowed: a sentence that names the flag, the variable or the key.
        key: the setting, or the word that is none.
        file: that has the fault; empty: none has it.
        line: of the file, from 1; 0: not known.
    """

    message: str
    key: str = ""
    file: str = ""
    line: int = 0

    def __str__(self) -> str:
        line = f", line {self.line}" if self.line else ""
        return f"{self.file}{line}: {self.message}" if self.file else self.message


class ConfigurationError(Exception):
    """Settings cannot be used. It has every fault that was found."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(sorted(problems, key=lambda problem: problem.line or math.inf))  # from the file's top
        super().__init__("; ".join(map(str, self.problems)))


def value_message(place: str, field: FieldInfo, error: Mapping[str, Any]) -> str:
    """What is wrong with the value of a setting, from an error of pydantic. `place` is the flag, variable or key."""
    value = error["input"]
    if isinstance(value, Mapping):
        return f"{place} is a table; it must be {allowed_values(field)}."
    if error["type"] == "value_error":  # of a validator of ours
        return f"{place} is {_shown(value)}: {error['ctx']['error']}"
    return f"{place} is {value!r}; it must be {allowed_values(field)}."


def allowed_values(field: FieldInfo) -> str:
    """The values of a setting in words."""
    kind = int if field.annotation == int | None else field.annotation
    if get_origin(kind) is Literal:
        return f"one of {', '.join(get_args(kind))}"
    if kind is bool:
        return "true or false"
    if kind in (int, float):
        return " ".join(["a number" if kind is float else "a whole number", *_bounds(field)])
    if Path in (kind, *(part for each in get_args(kind) for part in (each, *get_args(each)))):  # Path | None, checked
        return "a path"
    return f"one of {', '.join(map(str, field.examples))}" if field.examples else "a text that is not empty"


def _shown(value: object) -> str:
    """The value without what may be a password or a key in a URL."""
    return re.sub(r"(?<=://)(?:.*@|[^/']*:[^/']*)|(?<=[?#])[^']+", "***", repr(value))


def _bounds(field: FieldInfo) -> list[str]:
    bounds = {
        name: getattr(item, name) for item in field.metadata for name in ("gt", "ge", "le") if hasattr(item, name)
    }
    if "ge" in bounds and "le" in bounds:
        return [f"from {bounds['ge']:g} to {bounds['le']:g}"]
    words = {"gt": "above", "ge": "of at least", "le": "and at most"}
    return [f"{words[name]} {bound:g}" for name, bound in bounds.items()]


def guess(word: str, known: Iterable[str]) -> str:
    """`. Did you mean X?`, or nothing if no known word is similar. The case of letters counts for nothing."""
    by_lower = {each.lower(): each for each in known}
    similar = difflib.get_close_matches(word.lower(), by_lower, n=1)
    return f". Did you mean {by_lower[similar[0]]}?" if similar else ""
