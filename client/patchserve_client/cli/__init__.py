"""The command `patchserve`. Each module without an underscore is a subcommand."""

import typer

from patchserve_client.cli import evaluate, infer, reference, server, stream
from patchserve_client.cli._connection import read_settings

app = typer.Typer(
    name="patchserve",
    help=(
        "Ask a patchserve server whether images show damage.\n\n"
        "Exit codes: 0 success; 1 something failed; 2 wrong usage; 3 an anomaly was found (infer --fail-on-anomaly)."
    ),
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,  # plain help: the same on a terminal, in a pipe and in a log
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.callback()(read_settings)
app.add_typer(reference.app, name="reference")
app.command("infer")(infer.infer)
app.command("stream")(stream.stream)
app.command("evaluate")(evaluate.evaluate)
app.command("info")(server.info)
app.command("health")(server.health)


def main() -> None:
    """The entry point."""
    app()
