"""Which store a command is about, and how it is opened."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final, NoReturn, TypeAlias

from patchserve_server.cli import PROGRAM
from patchserve_server.cli.flags import read_or_exit
from patchserve_server.cli.parser import Parser, path_argument
from patchserve_server.config.variables import FILE_VARIABLE
from patchserve_server.domain.errors import PatchserveError, StorageUnavailableError
from patchserve_server.domain.store_address import is_url
from patchserve_server.store import FolderReferenceStore
from patchserve_server.store.objects import ObjectStorage, open_object_storage
from patchserve_server.store.objects.store_file import open_store_file, read_store_file
from patchserve_server.store.os_errors import reason_of
from patchserve_server.store.shared import DigestCache, SharedReferenceStore, Surroundings

Store: TypeAlias = FolderReferenceStore | SharedReferenceStore
_READERS: Final = 16  # threads that read many small objects
_ADVICE: Final = "`patchserve-server doctor --store URL` says more; docs/stores.md is about credentials and rights."
_NOTHING: Final = 1  # bytes that a cache may keep: each read is one of the bucket


def add_store_flags(parser: Parser) -> None:
    """The setting of `serve`, from the same places."""
    parser.add_argument("--store", default=argparse.SUPPRESS, metavar="FOLDER|URL", help="the store [PATCHSERVE_STORE]")
    help_text = f"TOML file with settings of `serve` [variable: {FILE_VARIABLE}]"
    parser.add_argument("--config", type=path_argument, dest="config_file", metavar="FILE", help=help_text)


def store_of(arguments: argparse.Namespace, command: str) -> Path | str:
    """The folder or the URL that the flags, the variables or the file name. Exits with code 2 if there is none."""
    settings = read_or_exit(arguments, f"store {command}").settings
    if settings.store is None:
        _exit_2(command, "no store is named: --store, PATCHSERVE_STORE, or `store` in the file of --config.")
    return settings.store if is_url(settings.store) else existing_folder(settings.store, command)


def existing_folder(text: str, command: str) -> Path:
    """A folder that is there. Exits with code 2 if it is not."""
    folder = Path(text)
    if not folder.is_dir():
        _exit_2(command, f"there is no folder {text}.")
    return folder


@contextmanager
def errors(command: str) -> Iterator[None]:
    """Ends the program with what went wrong."""
    try:
        yield
    except StorageUnavailableError as error:
        sys.exit(f"{PROGRAM} store {command}: {error.message} {_ADVICE}")
    except PatchserveError as error:
        sys.exit(f"{PROGRAM} store {command}: {error.message}")
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        sys.exit(f"{PROGRAM} store {command}: {where}{reason_of(error)}")


@contextmanager
def bucket(url: str, command: str) -> Iterator[tuple[ObjectStorage, Surroundings]]:
    """The objects of a bucket that is a store, and threads. Ends the program if it is none; writes nothing."""
    with closing(open_object_storage(url)) as storage, ThreadPoolExecutor(_READERS) as readers:
        if read_store_file(storage) is None:
            sys.exit(f"{PROGRAM} store {command}: There is no store at {url}. Is it the URL of `serve --store`?")
        yield storage, Surroundings(each=readers.map)


@contextmanager
def opened(where: Path | str, *, is_target: bool = False) -> Iterator[Store]:
    """The references of a store. No server may use a folder meanwhile. A target is made if it is not there."""
    if isinstance(where, Path):
        with closing(FolderReferenceStore(where)) as store:
            yield store
        return
    storage = open_object_storage(where)
    if is_target:
        open_store_file(storage)
    with (
        TemporaryDirectory(prefix="patchserve-") as folder,
        closing(SharedReferenceStore(storage, DigestCache(Path(folder), _NOTHING))) as store,
    ):
        yield store


def _exit_2(command: str, message: str) -> NoReturn:
    print(f"{PROGRAM} store {command}: {message}", file=sys.stderr)  # noqa: T201
    sys.exit(2)
