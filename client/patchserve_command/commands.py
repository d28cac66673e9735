"""All commands of `patchserve`: those of the client, and those that need the engine of the server in this process."""

from __future__ import annotations

from patchserve_client.cli import app
from patchserve_client.cli._commands import Command
from patchserve_command.scan import scan

app.command("scan", cls=Command)(scan)

__all__ = ["app"]
