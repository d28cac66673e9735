"""The table: its rows are printed as soon as they are known, and what is missing is said."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Generic, TypeVar

B = TypeVar("B")

_TABLE, _NOTES = "table.md", "notes.md"
HEAD = "| what | precision | measured | compared with | goal | reached |\n| --- | --- | --- | --- | --- | --- |"


class Output:
    """Prints the table and notes of it, and writes both into a folder at once: a run may be stopped at any time."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._table, self._notes = list[str](), list[str]()
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
            for name in (_TABLE, _NOTES):
                (folder / name).write_text("")

    def row(self, line: str) -> None:
        """A line of the table, or of its head."""
        print(line, flush=True)
        self._table.append(line)
        self._write(_TABLE, line)

    def note(self, text: str) -> None:
        """Something to be printed below the table."""
        self._notes.append(text)
        self._write(_NOTES, f"{text}\n")

    def end(self, words: str) -> None:
        """The notes, and the table once more: who sees only the end of what is printed needs it most."""
        print("", *self._notes, "The table once more:", "\n".join(self._table), words, sep="\n\n", flush=True)

    def _write(self, name: str, text: str) -> None:
        if self._folder is not None:
            with (self._folder / name).open("a") as file:
                file.write(f"{text}\n")


@dataclass(frozen=True)
class Goal:
    """Of a value, or of its ratio to another."""

    bound: float
    unit: str = "images/s"
    of_ratio: bool = False
    at_most: bool = False

    def is_reached(self, measured: Measured) -> bool | None:
        found = measured.ratio if self.of_ratio else measured.value
        if found is None or not measured.is_whole:
            return None
        return found <= self.bound if self.at_most else found >= self.bound

    @property
    def words(self) -> str:
        bound = f"{self.bound:g}" if self.of_ratio else f"{self.bound:,g} {self.unit}"
        return f"at {'most' if self.at_most else 'least'} {bound}"


@dataclass(frozen=True)
class Measured:
    """The outcome of a case."""

    value: float
    unit: str = "images/s"
    ratio: float | None = None
    to: str = ""  # what the ratio compares with
    more: str = ""  # what else was seen
    is_whole: bool = True  # False: too little was seen to say that a goal is reached

    @property
    def words(self) -> str:
        shown = f"{self.value:,.0f}" if self.value >= 100 else f"{self.value:.3g}"
        return f"{shown} {self.unit}".strip() + (f" ({self.more})" if self.more else "")

    def to_json(self) -> dict[str, object]:
        return asdict(self)


@dataclass(frozen=True)
class Case(Generic[B]):
    """Something to measure on an open bench, for so many seconds."""

    what: str
    measure: Callable[[B, float], Measured]
    goal: Goal | None = None


def row(what: str, precision: str, goal: Goal | None, outcome: Measured | str, *, judges: bool = True) -> str:
    """A line of the table.

    Args:
        what: the case.
        precision: of the network.
        goal: of the case, if it has one.
        outcome: what was measured, or why it was not.
        judges: whether the row says if the goal is reached.
    """
    if isinstance(outcome, str):
        words = "" if goal is None else goal.words
        return f"| {what} | {precision} | not measured: {outcome} | | {words} | |"
    ratio = "" if outcome.ratio is None else f"{outcome.ratio:.2f} of {outcome.to}"
    if goal is None:
        return f"| {what} | {precision} | {outcome.words} | {ratio} | | |"
    reached = {True: "yes", False: "**no**", None: ""}[goal.is_reached(outcome) if judges else None]
    return f"| {what} | {precision} | {outcome.words} | {ratio} | {goal.words} | {reached} |"
