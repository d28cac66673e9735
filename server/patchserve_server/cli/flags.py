"""The flags of `patchserve-server serve`: one for each setting, in groups."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any, Final, Literal, get_args, get_origin

from pydantic.fields import FieldInfo

from patchserve_server.cli import PROGRAM
from patchserve_server.cli.parser import Parser, path_argument
from patchserve_server.config import Configuration, ConfigurationError, Settings, read_configuration
from patchserve_server.config.problems import allowed_values
from patchserve_server.config.reading import flag_of
from patchserve_server.config.variables import FILE_VARIABLE

_FILE: Final = "config_file"

GROUP_FROM: Final = {
    "host": "listening",
    "auth_tokens": "callers",
    "backbone": "model",
    "store": "references",
    "save_outputs": "outputs",
    "max_message_mib": "limits",
    "default_timeout_s": "time limits",
    "max_batch_size": "batches and threads",
    "engine": "an engine elsewhere",
    "drain_delay_s": "end of the server",
    "log_level": "log",
}
"""Title of a group by its first setting; a group goes on until the next one begins."""
_UNITS: Final = {"mib": "MIB", "s": "SECONDS", "ms": "MILLISECONDS", "megapixels": "MEGAPIXELS", "days": "DAYS"}


def add_flags(parser: Parser) -> None:
    """Add --config and a flag for every setting. Their values stay texts; absent flags are left out."""
    help_text = f"TOML file with settings [variable: {FILE_VARIABLE}]"
    parser.add_argument("--config", type=path_argument, dest=_FILE, metavar="FILE", help=help_text)
    group: argparse._ArgumentGroup | None = None
    for name, field in Settings.model_fields.items():
        if name in GROUP_FROM or group is None:
            group = parser.add_argument_group(GROUP_FROM.get(name, "settings"))
        options: dict[str, Any] = {"dest": name, "default": argparse.SUPPRESS, "help": _help(field)}
        if field.annotation is bool:
            group.add_argument(flag_of(name), action=argparse.BooleanOptionalAction, **options)
        else:
            group.add_argument(flag_of(name), metavar=_metavar(name, field), **options)


def read(arguments: argparse.Namespace) -> Configuration:
    """The settings of these flags, of variables and of the file.

    Raises:
        ConfigurationError: with every fault that was found.
    """
    flags = {name: value for name, value in vars(arguments).items() if name in Settings.model_fields}
    return read_configuration(flags, getattr(arguments, _FILE))


def read_or_exit(arguments: argparse.Namespace, command: str) -> Configuration:
    """The same; if there is a fault, prints all of them and exits with code 2."""
    try:
        return read(arguments)
    except ConfigurationError as error:
        for problem in error.problems:
            print(f"{PROGRAM} {command}: {problem}", file=sys.stderr)  # noqa: T201
        sys.exit(2)


def _metavar(name: str, field: FieldInfo) -> str:
    if name == "store":
        return "FOLDER|URL"
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
