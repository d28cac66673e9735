"""Reads the settings. Flags win over variables, variables over the file, the file over defaults."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

from pydantic import ValidationError
from pydantic_settings import EnvSettingsSource

from patchserve_server.config.problems import ConfigurationError, Problem, value_message
from patchserve_server.config.settings import Settings, user_path
from patchserve_server.config.toml_file import TomlFile
from patchserve_server.config.variables import FILE_VARIABLE, is_service_link, unknown_variables, variable_of


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a value comes from: a flag, a variable, a line of the file, or nowhere: it is the default."""

    kind: Literal["flag", "variable", "file", "default"]
    place: str = ""  # --port, PATCHSERVE_PORT or patchserve.toml:3

    def __str__(self) -> str:
        return self.place or self.kind


@dataclass(frozen=True, slots=True)
class Configuration:
    """The settings, and where each of them comes from.

    Args:
        settings: all of them.
        origins: by the names of settings.
        file: that was read; None: there is none.
    """

    settings: Settings
    origins: Mapping[str, Origin]
    file: Path | None


def flag_of(name: str) -> str:
    """The flag of a setting."""
    return "--" + name.replace("_", "-")


def read_configuration(flags: Mapping[str, str | bool], file: Path | None = None) -> Configuration:
    """Read the flags, the environment and the file.

    Args:
        flags: the texts of those that were given, by the names of settings.
        file: of --config; None: the one that PATCHSERVE_CONFIG names, or none.

    Raises:
        ConfigurationError: with every fault that was found.
    """
    file = file or _file_of_environment()
    sources = _Sources(flags, _variables(), None if file is None else TomlFile(file))
    settings = sources.settings(list(unknown_variables(os.environ)))
    origins = {name: sources.origin(name) for name in Settings.model_fields}
    return Configuration(settings, MappingProxyType(origins), file)


def check_file(file: Path) -> int:
    """Check the settings of a file alone; returns how many there are.

    Raises:
        ConfigurationError: with every fault that was found.
    """
    toml = TomlFile(file)
    _Sources({}, {}, toml).settings([])
    return len(toml.values)


def _file_of_environment() -> Path | None:
    path = os.environ.get(FILE_VARIABLE)
    try:
        return user_path(path) if path else None
    except ValueError as error:
        raise ConfigurationError([Problem(f"the variable {FILE_VARIABLE} is {path!r}: {error}")]) from error


def _variables() -> dict[str, Any]:
    """The texts of the variables that are set, by the names of settings."""
    values: dict[str, Any] = EnvSettingsSource(Settings)()
    return {name: value for name, value in values.items() if not is_service_link(variable_of(name), str(value))}


@dataclass(frozen=True, slots=True)
class _Sources:
    """What is set where, by the names of settings. The first one wins."""

    flags: Mapping[str, Any]
    variables: Mapping[str, Any]
    file: TomlFile | None

    def settings(self, problems: list[Problem]) -> Settings:
        """The settings of all sources, unless there are these problems or others.

        Raises:
            ConfigurationError: with all of them.
        """
        of_file = {} if self.file is None else self.file.values
        problems += [] if self.file is None else self.file.unknown_keys()
        try:
            settings = Settings(**{**of_file, **self.variables, **self.flags})
        except ValidationError as error:
            first = {str(each["loc"][0]): each for each in reversed(error.errors())}  # of a setting of several types
            problems += [self._problem(name, first[name]) for name in Settings.model_fields if name in first]
        if problems:
            raise ConfigurationError(problems)
        return settings

    def _problem(self, name: str, error: Mapping[str, Any]) -> Problem:
        origin, field = self.origin(name), Settings.model_fields[name]
        if self.file is not None and origin.kind == "file":
            return self.file.problem(name, value_message(name, field, error))
        place = f"the variable {origin}" if origin.kind == "variable" else str(origin)
        return Problem(value_message(place, field, error), name)

    def origin(self, name: str) -> Origin:
        """Where the value of a setting comes from."""
        if name in self.flags:
            return Origin("flag", flag_of(name))
        if name in self.variables:
            return Origin("variable", variable_of(name))
        if self.file is not None and name in self.file.values:
            return Origin("file", f"{self.file.path}:{self.file.line_of(name)}")
        return Origin("default")
