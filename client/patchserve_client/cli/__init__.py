"""The command `patchserve`. Each module without an underscore is a subcommand."""

import typer

from patchserve_client.cli import bench, evaluate, infer, reference, server, stream, top
from patchserve_client.cli._commands import Command, Group
from patchserve_client.cli._connection import read_settings

app = typer.Typer(
    cls=Group,
    name="patchserve",
    help=(
        "Ask a patchserve server whether images show damage.\n\n"
        "Exit codes: 0 success; 1 something failed; 2 wrong usage; 3 an anomaly was found (--fail-on-anomaly)."
    ),
    rich_markup_mode=None,  # plain help: the same on a terminal, in a pipe and in a log
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.callback()(read_settings)
app.add_typer(reference.app, name="reference")
app.command("infer", cls=Command)(infer.infer)
app.command("stream", cls=Command)(stream.stream)
app.command("evaluate", cls=Command)(evaluate.evaluate)
app.command("bench", cls=Command)(bench.bench)
app.command("top", cls=Command)(top.top)
app.command("info", cls=Command)(server.info)
app.command("health", cls=Command)(server.health)


def main() -> None:
    """Run the command line of this process."""
    app()
