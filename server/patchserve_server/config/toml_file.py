"""The TOML file: its settings, and the line of each."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from pydantic_settings import TomlConfigSettingsSource

from patchserve_server.config.problems import ConfigurationError, Problem, guess
from patchserve_server.config.settings import Settings

_PLACE: Final = re.compile(r" \(at (?:line (?P<line>\d+), column \d+|end of document)\)$")


class TomlFile:
    """The settings of a file, by name. Their values are not checked yet.

    Args:
        path: of the file.

    Raises:
        ConfigurationError: it cannot be read, or is no TOML.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._text = path.read_text(encoding="utf-8")  # for the lines
            if self._text.startswith("\ufeff"):
                raise self._unusable("it begins with a byte order mark; save it as UTF-8 without one.", 1)
            self._content = TomlConfigSettingsSource(Settings, toml_file=path).toml_data
        except OSError as error:
            raise self._unusable(f"{error.strerror}. Name a file that the server's user can read.") from error
        except tomllib.TOMLDecodeError as error:
            place = _PLACE.search(str(error))
            line = 0 if place is None else int(place["line"] or len(self._text.splitlines()))
            raise self._unusable(f"it is no valid TOML: {_PLACE.sub('', str(error))}.", line) from error
        except UnicodeDecodeError as error:
            raise self._unusable(f"it is no text in UTF-8, as TOML must be (byte {error.start}).") from error
        except RecursionError as error:
            raise self._unusable("it is no valid TOML: arrays or tables are nested too deeply.") from error

    @property
    def values(self) -> Mapping[str, Any]:
        """What it sets, by the names of settings."""
        return {key: value for key, value in self._content.items() if key in Settings.model_fields}

    def line_of(self, key: str) -> int:
        """The line in which a key of the first level begins, from 1; 0: not found."""
        start = re.compile(rf"\s*(?:\[+\s*)?[\"']?{re.escape(key)}[\"']?\s*[].=]")
        lines = self._text.splitlines(keepends=True)
        for number, line in enumerate(lines, 1):
            # What looks like the key may be a part of a text of several lines: then the lines before are no TOML.
            if start.match(line) and _is_without("".join(lines[: number - 1]), key):
                return number
        return 0

    def problem(self, key: str, message: str) -> Problem:
        """A problem with a key of this file."""
        return Problem(message, key, str(self.path), self.line_of(key))

    def unknown_keys(self) -> Iterator[Problem]:
        """A problem for every key that is no setting."""
        for key, value in self._content.items():
            if key in Settings.model_fields:
                continue
            inner = [name for name in value if name in Settings.model_fields] if isinstance(value, dict) else []
            if inner:
                yield self.problem(key, f"there is no table {key!r}; settings, such as {inner[0]}, are in no table.")
            else:
                yield self.problem(key, f"there is no setting {key!r}{guess(key, Settings.model_fields)}")

    def _unusable(self, message: str, line: int = 0) -> ConfigurationError:
        return ConfigurationError([Problem(message, "", str(self.path), line)])


def _is_without(text: str, key: str) -> bool:
    """Whether a text is TOML, and does not have the key."""
    try:
        return key not in tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return False
