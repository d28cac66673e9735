"""The screen of `patchserve top`, kept up to date on a terminal."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Final

from rich import box
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from patchserve_client._plain_text import one_line
from patchserve_client.cli._top_output import Output
from patchserve_client.cli._top_table import (
    COLORS,
    REFERENCE_TITLES,
    SERVER_TITLES,
    failures_line,
    reference_rows,
    server_cells,
    store_line,
)
from patchserve_client.top.watched_server import Sample

_ROWS_AROUND: Final = 13  # titles, lines and margins
_WIDE: Final = 130  # columns of the terminal; a narrower one does not show all
_LEFT_OUT: Final = frozenset(("streams", "loads", "p90 ms", "failed/s"))
_TEXT_COLUMNS: Final = {"server", "state", "reference", "drift"}


@contextlib.contextmanager
def on_screen() -> Iterator[Output]:
    """Yields what shows a look. At the end, the terminal is as it was before."""
    console = Console()
    with Live(Text("Asking..."), console=console, screen=True, auto_refresh=False) as live:
        yield lambda samples: live.update(drawn(samples, console.width, console.height), refresh=True)


def drawn(samples: Sequence[Sample], width: int, height: int) -> RenderableType:
    """A look at all servers in so many columns and lines."""
    parts: list[RenderableType] = [_servers(samples, frozenset() if width >= _WIDE else _LEFT_OUT)]
    messages = [f"{sample.server}: {sample.message}" for sample in samples if sample.message]
    lines = filter(None, [*messages, *map(store_line, samples), *map(failures_line, samples)])
    parts.extend(map(_plain, lines))
    rows = reference_rows(samples)
    room = max(1, height - len(samples) - len(parts) - _ROWS_AROUND)
    if rows:
        references = _table(REFERENCE_TITLES)
        for row in rows[:room]:
            references.add_row(*map(_plain, row))
        parts += ["", references]
        if len(rows) > room:
            parts.append(f"and {len(rows) - room} more")
    parts.append(Text(f"\n{datetime.now(UTC):%H:%M:%SZ}   Ctrl-C ends", style="dim"))
    return Group(*parts)


def _servers(samples: Sequence[Sample], left_out: frozenset[str]) -> Table:
    titles = [title for title in SERVER_TITLES if title not in left_out]
    table = _table(titles)
    for sample in samples:
        cells = dict(zip(SERVER_TITLES, map(_plain, server_cells(sample)), strict=False))
        cells["state"].stylize(COLORS[sample.state])
        if sample.stats is None:  # the third one is the message, which has a line of its own
            cells = {title: cells[title] for title in ("server", "state")}
        table.add_row(*(cells.get(title, "") for title in titles))
    return table


def _table(titles: Sequence[str]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for title in titles:
        is_text = title in _TEXT_COLUMNS
        table.add_column(title, justify="left" if is_text else "right")  # a title may have two lines
    return table


def _plain(text: str) -> Text:
    """Text of any origin: no markup, no control characters."""
    return Text(one_line(text), no_wrap=True, overflow="ellipsis")
