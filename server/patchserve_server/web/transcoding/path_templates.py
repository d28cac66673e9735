"""Path templates of google.api.http, such as `/v1/references/{reference_id}:infer`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

_TEMPLATE = re.compile(r"/(?P<path>[^:]+)(:(?P<verb>[A-Za-z]+))?")
_SEGMENT = re.compile(r"[a-z0-9_]+|{(?P<variable>[a-z0-9_]+)}")


def split_path(path: str) -> tuple[list[str], str]:
    """The segments of a path, still percent-encoded, and the verb after the last colon; empty: none."""
    *segments, last = path.removeprefix("/").split("/")
    last, _, verb = last.rpartition(":") if ":" in last else (last, "", "")
    return [*segments, last], verb


@dataclass(frozen=True, slots=True)
class PathTemplate:
    """A template whose variables are single segments.

    Args:
        text: as in the contract.
        segments: names, and variables in braces.
        verb: after the colon; empty: none.
    """

    text: str
    segments: tuple[str, ...]
    verb: str

    @classmethod
    def parse(cls, text: str) -> Self:
        """Raises ValueError for what the contract does not use, such as `**`."""
        match = _TEMPLATE.fullmatch(text)
        segments = match["path"].split("/") if match else []
        if match is None or not all(map(_SEGMENT.fullmatch, segments)):
            raise ValueError(f"{text} is not a path of names and {{variables}}.")
        return cls(text, tuple(segments), match["verb"] or "")

    @property
    def variables(self) -> list[str]:
        """The names of its variables."""
        return [segment.strip("{}") for segment in self.segments if segment.startswith("{")]

    def match(self, segments: Sequence[str], verb: str) -> dict[str, str] | None:
        """The value of each variable in a path, still percent-encoded; None: another path."""
        if len(segments) != len(self.segments) or verb != self.verb:
            return None
        values = {}
        for expected, segment in zip(self.segments, segments, strict=True):
            if expected.startswith("{"):
                values[expected.strip("{}")] = segment
            elif expected != segment:
                return None
        return values
