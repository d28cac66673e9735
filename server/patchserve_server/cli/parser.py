"""The parser of command lines: errors in one line, with a guess at what was meant."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any, NoReturn, TypeAlias

from patchserve_server.config import user_path
from patchserve_server.config.problems import guess

Commands: TypeAlias = "argparse._SubParsersAction[Parser]"  # noqa: SLF001 - argparse has no public name for it


class Parser(argparse.ArgumentParser):
    """argparse without abbreviated options, and without the usage in front of an error."""

    def __init__(self, prog: str | None = None, **options: Any) -> None:  # noqa: ANN401 - those of argparse
        super().__init__(prog, **{**options, "allow_abbrev": False})

    def error(self, message: str) -> NoReturn:
        end = "" if message.endswith("?") else "."
        self.exit(2, f"{self.prog}: {message}{end} See `{self.prog} --help`.\n")

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:  # noqa: ANN401 - overloaded in argparse
        parsed, unknown = super().parse_known_args(args, namespace)
        if unknown:
            word = unknown[0].partition("=")[0]
            if word.startswith("-"):
                self.error(f"there is no option {word}{guess(word, self._option_string_actions)}")
            self.error(f"{word!r} is one argument too many")
        return parsed, unknown

    def _check_value(self, action: argparse.Action, value: Any) -> None:  # noqa: ANN401 - as in argparse
        choices = [str(choice) for choice in action.choices or ()]
        if not choices or value in choices:
            return
        if action.option_strings:
            message = f"{value!r} is not one of {', '.join(choices)}{guess(value, choices)}"
            raise argparse.ArgumentError(action, message)
        self.error(f"there is no command {value!r}{guess(value, choices) or '; there is ' + ', '.join(choices)}")


def path_argument(text: str) -> Path:
    """A path on the command line."""
    try:
        return user_path(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r}: {error}") from error
