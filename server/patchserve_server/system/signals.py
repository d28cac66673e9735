"""The signals of a server: which ones stop it, and which one lets it read its settings and files again."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Callable
from typing import Final

if sys.platform == "win32":
    # SIGTERM cannot be sent there; Ctrl-Break is what another process can send.
    STOP_SIGNALS: Final = (signal.SIGINT, signal.SIGBREAK)

    def handle(number: signal.Signals, handler: Callable[[], None]) -> None:
        """Call the handler on the running event loop whenever this signal comes."""
        loop = asyncio.get_running_loop()
        signal.signal(number, lambda *_: loop.call_soon_threadsafe(handler))  # loops have no handlers of signals there

    def handle_reload(_: Callable[[], None]) -> None:
        """Do nothing: there is no such signal."""

    def ignore_reload() -> None:
        """Do nothing: there is no such signal."""

else:
    STOP_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)

    def handle(number: signal.Signals, handler: Callable[[], None]) -> None:
        """Call the handler on the running event loop whenever this signal comes."""
        asyncio.get_running_loop().add_signal_handler(number, handler)

    def handle_reload(handler: Callable[[], None]) -> None:
        """Call the handler on the running event loop when settings and files are to be read again: at SIGHUP."""
        handle(signal.SIGHUP, handler)

    def ignore_reload() -> None:
        """Ignore SIGHUP, which would end the process, until `handle_reload` is called."""
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
