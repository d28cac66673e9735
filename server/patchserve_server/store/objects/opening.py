"""Opens the objects that a URL names."""

from __future__ import annotations

import threading
from typing import Final

from patchserve_server.domain.errors import StartupError
from patchserve_server.domain.store_address import StoreAddress, parse_address
from patchserve_server.store.objects.memory import MemoryObjectStorage
from patchserve_server.store.objects.retrying import Retrying, RetryPolicy
from patchserve_server.store.objects.storage import ObjectStorage

_IN_MEMORY: Final[dict[str, MemoryObjectStorage]] = {}  # one for each name, for all servers of a process
_OPENING: Final = threading.Lock()


def open_object_storage(url: str, policy: RetryPolicy | None = None) -> ObjectStorage:
    """The objects of an s3://, gs://, az:// or memory:// URL. Nothing is asked of the service yet.

    Args:
        url: the bucket and the prefix of all keys; docs/stores.md.
        policy: how long requests are tried; None: the default.

    Raises:
        StartupError: the URL or the variables of the provider are wrong, or the extra `store` is not installed.
    """
    address = parse_address(url)
    if address.scheme == "memory":
        with _OPENING:
            return _IN_MEMORY.setdefault(str(address), MemoryObjectStorage(str(address)))
    return _remote(address, policy or RetryPolicy())


def _remote(address: StoreAddress, policy: RetryPolicy) -> ObjectStorage:
    try:
        from patchserve_server.store.objects.clients import client_maker, service_of  # noqa: PLC0415 - an extra
        from patchserve_server.store.objects.remote import RemoteObjectStorage  # noqa: PLC0415
        from patchserve_server.store.objects.transfer import Clients  # noqa: PLC0415
    except ModuleNotFoundError as error:
        if error.name != "obstore":
            raise
        raise StartupError(
            f"A store at {address.scheme}:// needs the extra store ({error.name} is missing): "
            "install patchserve[store]."
        ) from error
    service = service_of(address)
    return RemoteObjectStorage(str(address), service, Clients(client_maker(address)), Retrying(policy))
