"""How the store of references is, for GetServerInfo."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class StoreStatus:
    """How the store is.

    Args:
        kind: "memory", "folder", or the scheme of the URL of a shared one, such as "s3".
        url: of a shared store, without anything secret; else empty.
        is_shared: whether several servers use it.
        synced_age_s: how long ago this server has last learned what others have changed; 0 if it is not shared.
        is_reachable: whether it could be reached then. If not, references cannot be changed, and those that are not
            open here cannot be used.
    """

    kind: str
    url: str = ""
    is_shared: bool = False
    synced_age_s: float = 0.0
    is_reachable: bool = True


MEMORY: Final = StoreStatus("memory")
FOLDER: Final = StoreStatus("folder")
