"""How every command shows its help and its usage errors."""

from __future__ import annotations

import difflib
import inspect
import re
import sys
from collections.abc import Sequence
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from patchserve_client.cli._output import print_error

USAGE = 2  # the exit code
_UsageError: type[Any] = inspect.getmro(typer.BadParameter)[1]  # Typer exports only this subclass
_READABLE = (
    (r"\\\[", "["),  # some versions escape this for Rich
    (r"default: \(([^)]*)\)", r"default: \1"),  # Typer puts a default that is a text in parentheses
    (r"([\d.]+)<=x<=([\d.]+)", r"\1 to \2"),
    (r"x>=([\d.]+)", r"at least \1"),
)


class Command(TyperCommand):
    """A command whose help shows options in groups."""

    def collect_usage_pieces(self, ctx: Any) -> list[str]:  # noqa: ANN401 - Typer's own types are private
        return _usage_pieces(self, ctx)

    def format_options(self, ctx: Any, formatter: Any) -> None:  # noqa: ANN401
        _write_options(self, ctx, formatter)


class Group(TyperGroup):
    """A command with subcommands. The outermost one ends the process with one line if the usage was wrong."""

    def format_options(self, ctx: Any, formatter: Any) -> None:  # noqa: ANN401
        _write_options(self, ctx, formatter)
        with formatter.section("Commands"):
            formatter.write_dl([(name, _summary(self.commands[name])) for name in self.list_commands(ctx)])

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:  # noqa: ANN401
        if not args and not ctx.resilient_parsing:
            typer.echo(ctx.get_help(), err=True)
            raise typer.Exit(USAGE)
        return super().parse_args(ctx, args)

    def main(self, args: Sequence[str] | None = None, *others: Any, **options: Any) -> Any:  # noqa: ANN401
        if not options.get("standalone_mode", True):
            return super().main(args, *others, **options)
        try:
            sys.exit(super().main(args, *others, **{**options, "standalone_mode": False}) or 0)
        except _UsageError as error:
            print_error(_usage_message(error))
            sys.exit(USAGE)


def _summary(command: Any) -> str:  # noqa: ANN401
    """The first sentence of a command's help. Typer would cut it to one line."""
    paragraph = " ".join((command.help or "").partition("\n\n")[0].split())
    return f"{paragraph.partition('. ')[0].rstrip('.')}."


def _usage_message(error: Any) -> str:  # noqa: ANN401
    is_our_own = isinstance(error, typer.BadParameter) and error.param is None and error.param_hint is None
    text = error.message if is_our_own else _without_jargon(error)
    command = f" See `{error.ctx.command_path} --help`." if error.ctx is not None else ""
    return f"{text}{'' if text.endswith(('.', '?', '!')) else '.'}{command}"


def _without_jargon(error: Any) -> str:  # noqa: ANN401
    text = " ".join(error.format_message().split())
    text = text.replace("Value error, ", "").replace("Input should be", "must be")
    text = re.sub(r", unable to parse string as an? \w+", "", text)
    variable = getattr(getattr(error, "param", None), "envvar", None)
    if variable and error.ctx is not None:  # name what was used: the option or the variable
        is_typed = error.ctx.get_parameter_source(error.param.name).name == "COMMANDLINE"
        text = re.sub(r"'--[\w-]+' \(env var: '\w+'\)", rf"'{error.param.opts[0] if is_typed else variable}'", text)
    option, possibilities = getattr(error, "option_name", None), getattr(error, "possibilities", None)
    if option and possibilities:
        (closest,) = difflib.get_close_matches(option, possibilities, n=1, cutoff=0)
        text = f"No such option: {option}. Did you mean {closest}?"
    return text


def _usage_pieces(command: Any, ctx: Any) -> list[str]:  # noqa: ANN401
    arguments = [one for one in command.get_params(ctx) if one.param_type_name == "argument"]
    names = [_argument_name(one) if one.required else f"[{_argument_name(one)}]" for one in arguments]
    return ["[OPTIONS]", *names]


def _argument_name(argument: Any) -> str:  # noqa: ANN401
    return f"{argument.metavar}..." if argument.nargs != 1 else str(argument.metavar)


def _write_options(command: Any, ctx: Any, formatter: Any) -> None:  # noqa: ANN401
    panels: dict[str, list[tuple[str, str]]] = {"Arguments": [], "Options": []}
    for parameter in command.get_params(ctx):
        record = parameter.get_help_record(ctx)
        if record is None:
            continue
        if parameter.param_type_name == "argument":
            panels["Arguments"].append((_argument_name(parameter), parameter.help or ""))
        else:
            panel = getattr(parameter, "rich_help_panel", None) or "Options"
            name = re.sub(r"[<[]([\w|-]+)[]>]$", r"\1", record[0])  # Typer puts choices in brackets
            panels.setdefault(panel, []).append((name, _readable(record[1])))
    for title, rows in panels.items():
        if rows:
            with formatter.section(title):
                formatter.write_dl(rows)


def _readable(text: str) -> str:
    for pattern, replacement in _READABLE:
        text = re.sub(pattern, replacement, text)
    return text
