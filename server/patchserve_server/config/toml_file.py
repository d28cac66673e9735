"""The TOML file: its settings, and the line of each."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any, Final

from pydantic_settings import TomlConfigSettingsSource

from patchserve_server.config.problems import ConfigurationError, Problem, guess
from patchserve_server.config.settings import Settings

_MAX_BYTES: Final = 2**18  # one with all settings and their descriptions has 10,000
_MAX_UNKNOWN: Final = 100  # keys that are named, of those that are no settings
# How a line begins that sets a key of the first level, also within a table, such as [port] or port.x = 1.
_KEY: Final = re.compile(r"""\s*(?:\[+\s*)?(?:"([^"\n]*)"|'([^'\n]*)'|([A-Za-z0-9_-]+))\s*[].=]""")
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
        if path.exists() and not path.is_dir() and not path.is_file():
            raise self._unusable("it is no plain file; pipes and devices cannot be read again.")
        try:
            if path.stat().st_size > _MAX_BYTES:
                raise self._unusable(f"it has more than {_MAX_BYTES:,} bytes.")
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
        except ValueError as error:  # of Python, which makes no number of that many digits
            raise self._unusable("it has a number with too many digits.") from error
        except RecursionError as error:
            raise self._unusable("it is no valid TOML: arrays or tables are nested too deeply.") from error

        self._lines_of = self._lines_by_key()

    @property
    def values(self) -> Mapping[str, Any]:
        """What it sets, by the names of settings."""
        return {key: value for key, value in self._content.items() if key in Settings.model_fields}

    def line_of(self, key: str) -> int:
        """The line in which a key of the first level begins, from 1; 0: not found."""
        found = self._lines_of.get(key, [])
        if len(found) == 1:
            return found[0]
        lines = self._text.splitlines(keepends=True)
        for number in found:
            # What looks like the key may be a part of a text of several lines: then the lines before are no TOML.
            if _is_without("".join(lines[: number - 1]), key):
                return number
        return 0

    def problem(self, key: str, message: str) -> Problem:
        """A problem with a key of this file."""
        return Problem(message, key, str(self.path), self.line_of(key))

    def unknown_keys(self) -> Iterator[Problem]:
        """A problem for every key that is no setting."""
        unknown = {key: value for key, value in self._content.items() if key not in Settings.model_fields}
        for key, value in islice(unknown.items(), _MAX_UNKNOWN):
            inner = [name for name in value if name in Settings.model_fields] if isinstance(value, dict) else []
            if inner:
                yield self.problem(key, f"there is no table {key!r}; settings, such as {inner[0]}, are in no table.")
            else:
                yield self.problem(key, f"there is no setting {key!r}{guess(key, Settings.model_fields)}")

        if len(unknown) > _MAX_UNKNOWN:
            yield Problem(
                f"there are {len(unknown) - _MAX_UNKNOWN} more keys that are no settings.", "", str(self.path)
            )

    def _lines_by_key(self) -> dict[str, list[int]]:
        """The lines, from 1, that look as if each key began in them."""
        lines: dict[str, list[int]] = {}
        for number, line in enumerate(self._text.splitlines(keepends=True), 1):
            if match := _KEY.match(line):
                lines.setdefault(next(filter(None, match.groups()), ""), []).append(number)
        return lines

    def _unusable(self, message: str, line: int = 0) -> ConfigurationError:
        return ConfigurationError([Problem(message, "", str(self.path), line)])


def _is_without(text: str, key: str) -> bool:
    """Whether a text is TOML, and does not have the key."""
    try:
        return key not in tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return False
