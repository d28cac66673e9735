"""`patchserve-server config show|check|schema`: what the settings are, and what is wrong with a file of them."""

from __future__ import annotations

import argparse
import json
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from patchserve_server.cli import PROGRAM
from patchserve_server.cli.flags import GROUP_FROM, add_flags, read_or_exit
from patchserve_server.cli.parser import Commands, path_argument
from patchserve_server.config import Configuration, ConfigurationError, Settings
from patchserve_server.config.reading import check_file
from patchserve_server.config.schema import file_schema
from patchserve_server.config.settings import AT_RUN_TIME
from patchserve_server.config.shown import shown_value, toml_value
from patchserve_server.domain.words import counted

_WIDTH: Final = 100


def add_to(commands: Commands) -> None:
    title = "show the settings, check a file of them, print its schema"
    subcommands = commands.add_parser("config", help=title, description=title).add_subparsers(
        title="commands", metavar="COMMAND", required=True
    )
    description = (
        "Print every setting, its value, and where it comes from: a flag, a variable, a line of the file, or the "
        "default. With --output toml, print a file that sets the same, with all other settings as comments."
    )
    usage = f"{PROGRAM} config show [--output text|json|toml] [FLAGS of serve]"
    show = subcommands.add_parser("show", help="print every setting", description=description, usage=usage)
    show.add_argument("--output", choices=("text", "json", "toml"), default="text", metavar="FORMAT", help=_FORMATS)
    add_flags(show)
    show.set_defaults(run=_show)
    description = "Print every fault of a TOML file of settings, with its line. Exit code 1 if there is one."
    check = subcommands.add_parser("check", help="check a file", description=description)
    check.add_argument("file", type=path_argument, metavar="FILE", help="the TOML file")
    check.add_argument("--output", choices=("text", "json"), default="text", metavar="FORMAT", help="text or json")
    check.set_defaults(run=_check)
    description = "Print the JSON Schema of the TOML file. Editors complete and check the file with it."
    schema = subcommands.add_parser("schema", help="print the schema of the file", description=description)
    schema.set_defaults(run=lambda _: _print(json.dumps(file_schema(), indent=2)))


_FORMATS: Final = "text, json or toml [default: text]"


def _show(arguments: argparse.Namespace) -> None:
    configuration = read_or_exit(arguments, "config show")
    if arguments.output == "json":
        _print(json.dumps(_document(configuration), indent=2))
    elif arguments.output == "toml":
        _print("\n".join(_toml_lines(configuration)))
    else:
        _print_table(configuration)


def _document(configuration: Configuration) -> dict[str, Any]:
    settings = {}
    for name, field in Settings.model_fields.items():
        origin = configuration.origins[name]
        settings[name] = {
            "value": shown_value(getattr(configuration.settings, name)),
            "origin": origin.kind,
            "place": origin.place,
            "at_run_time": AT_RUN_TIME in field.metadata,
        }
    file = configuration.file
    return {"file": None if file is None else str(file), "settings": settings}


def _print_table(configuration: Configuration) -> None:
    from rich.console import Console  # noqa: PLC0415 - other commands print no table
    from rich.table import Table  # noqa: PLC0415 - as above

    table = Table("setting", "value", "from", box=None, pad_edge=False, header_style="bold")
    for name, origin in configuration.origins.items():
        value = shown_value(getattr(configuration.settings, name))
        style = "dim" if origin.kind == "default" else None
        table.add_row(name, "" if value is None else _plain(value), str(origin), style=style)
    console = Console(markup=False, highlight=False)
    if not console.is_terminal:
        console.width = 10_000  # a line for a setting, for those who search them
    console.print(table)


def _plain(value: str | float | bool) -> str:
    return value if isinstance(value, str) else toml_value(value)


def _toml_lines(configuration: Configuration) -> Iterator[str]:
    yield "# Settings of patchserve-server. Use it with `patchserve-server serve --config FILE`, or name it in the"
    yield "# variable PATCHSERVE_CONFIG. Flags and PATCHSERVE_* variables win. What is commented out is the default."
    for name, field in Settings.model_fields.items():
        if name in GROUP_FROM:
            yield f"\n# -- {GROUP_FROM[name]} --"
        description = " ".join((field.description or "").split())
        if AT_RUN_TIME in field.metadata:
            description += " Changes on SIGHUP."
        yield ""
        yield from textwrap.wrap(description, _WIDTH, initial_indent="# ", subsequent_indent="# ")
        origin = configuration.origins[name]
        value = shown_value(getattr(configuration.settings, name))
        if origin.kind != "default":
            yield f"{name} = {toml_value(value)}"
        else:  # the number of cores is another one elsewhere
            default = "" if value is None or field.default_factory is not None else toml_value(value)
            yield f"#{name} = {default}".rstrip()


def _check(arguments: argparse.Namespace) -> None:
    file: Path = arguments.file
    try:
        count = check_file(file)
    except ConfigurationError as error:
        problems = list(error.problems)
    else:
        problems = []
    if arguments.output == "json":
        found = [{"line": each.line or None, "key": each.key, "message": each.message} for each in problems]
        _print(json.dumps({"file": str(file), "is_valid": not problems, "problems": found}, indent=2))
    elif problems:
        _print("\n".join(map(str, problems)))
        _print(f"{counted(len(problems), 'fault')}")
    else:
        _print(f"{file}: {counted(count, 'setting')}, no fault")
    sys.exit(int(bool(problems)))


def _print(text: str) -> None:
    print(text)  # noqa: T201 - the output of the command
