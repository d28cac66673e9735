"""A pytest plugin (`-p fakes.windows`), and a module for programs: our modules as they are on Windows.

Everything is imported once as it is, so that other libraries see the real system. Then our own modules are forgotten,
what only Unix has is taken away, a `msvcrt` is put in its place, and our modules are imported again.
"""

from __future__ import annotations

import errno
import fcntl
import importlib
import os
import pkgutil
import signal
import socket
import socketserver
import sys
from collections.abc import Iterator
from importlib.abc import MetaPathFinder
from types import ModuleType
from typing import Any, Final

ONLY_UNIX: Final = ("fcntl", "resource", "pwd", "grp", "termios", "uvloop")
ONLY_LINUX: Final = (
    "patchserve_server.bootstrap.processes.", "patchserve_server.fronts.",
    "patchserve_server.telemetry.metrics.processes", "patchserve_server.telemetry.metrics.snapshots",
)  # fmt: skip
ANYWHERE: Final = frozenset(
    {"patchserve_server.bootstrap.processes.count", "patchserve_server.fronts.connected_fronts"}
)
_ATTRIBUTES: Final = {
    os: (
        "O_NOFOLLOW", "O_NONBLOCK", "O_CLOEXEC", "setpriority", "getpriority", "sched_getaffinity", "memfd_create",
        "eventfd", "sysconf", "getuid", "geteuid", "fork", "statvfs",
    ),
    signal: ("SIGHUP", "SIGKILL", "SIGUSR1", "SIGUSR2"),
    socket: ("SO_REUSEPORT",),
    socketserver: ("ThreadingUnixStreamServer", "UnixStreamServer"),
}  # fmt: skip


class _Refusing(MetaPathFinder):
    """Finds no module that only Unix has."""

    def find_spec(self, name: str, *_: object) -> None:
        if name in ONLY_UNIX:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


def own_modules() -> Iterator[str]:
    """All modules of the server and the client that are for every system."""
    for package in ("patchserve_server", "patchserve_client", "patchserve_command"):
        for module in pkgutil.walk_packages(importlib.import_module(package).__path__, f"{package}."):
            if not module.name.startswith(ONLY_LINUX) or module.name in ANYWHERE:
                yield module.name


def become_windows() -> None:
    """Do what the module says. There is no way back: for a process of its own."""
    names = [name for name in own_modules() if not name.endswith("__main__")]
    for name in names:
        importlib.import_module(name)
    for name in [name for name in sys.modules if name.partition(".")[0] in ("patchserve_server", "patchserve_client")]:
        del sys.modules[name]
    msvcrt = _msvcrt()
    for name in ONLY_UNIX:
        sys.modules.pop(name, None)
    sys.meta_path.insert(0, _Refusing())
    sys.modules["msvcrt"] = msvcrt
    for module, attributes in _ATTRIBUTES.items():
        for attribute in attributes:
            if hasattr(module, attribute):
                delattr(module, attribute)
    os.O_BINARY = 0  # type: ignore[attr-defined]
    signal.SIGBREAK = signal.SIGTERM  # type: ignore[attr-defined] # whose handler can be tried here
    sys.platform = "win32"
    for name in names:
        importlib.import_module(name)


def _msvcrt() -> ModuleType:
    """Locks of bytes, as Windows has them."""
    module: Any = ModuleType("msvcrt")
    module.LK_LOCK, module.LK_NBLCK = 1, 2

    def locking(file: int, mode: int, nbytes: int) -> None:
        assert os.lseek(file, 0, os.SEEK_CUR) > 2**30, "no byte of a file is locked"
        assert nbytes == 1
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (fcntl.LOCK_NB if mode == module.LK_NBLCK else 0))
        except BlockingIOError as error:
            raise PermissionError(errno.EACCES, "Permission denied") from error

    module.locking = locking
    result: ModuleType = module
    return result


def pytest_configure() -> None:
    """The hook of pytest."""
    become_windows()
