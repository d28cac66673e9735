"""The port of one bucket: objects by key, changed only where nobody else has changed them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Version:
    """What a conditional request compares. Services compare one or the other, so both are kept.

    Raises:
        ValueError: there is neither an ETag nor a version. Empty ones are none.
    """

    e_tag: str | None = None
    version: str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "e_tag", self.e_tag or None)
        object.__setattr__(self, "version", self.version or None)
        if self.e_tag is None and self.version is None:
            raise ValueError("a version of an object needs an ETag or a version")

    def is_same(self, other: Version) -> bool:
        """Whether both are of the same bytes. A list knows the ETag only."""
        if self.e_tag is not None and other.e_tag is not None:
            return self.e_tag == other.e_tag
        return self.version is not None and self.version == other.version


@dataclass(frozen=True, slots=True, eq=False)
class StoredObject:
    """The bytes of an object, and what they are at."""

    data: bytes
    version: Version


@dataclass(frozen=True, slots=True)
class ListedObject:
    """An object without its bytes."""

    key: str
    size_bytes: int
    modified_time: datetime  # UTC, by the clock of the service
    version: Version


class ObjectError(Exception):
    """What a caller of the port decides about. It never reaches a caller of the server."""

    def __init__(self, key: str, message: str) -> None:
        super().__init__(f'the object "{key}" {message}')
        self.key = key


class ObjectMissingError(ObjectError):
    def __init__(self, key: str) -> None:
        super().__init__(key, "does not exist")


class ObjectExistsError(ObjectError):
    def __init__(self, key: str) -> None:
        super().__init__(key, "exists already")


class ObjectChangedError(ObjectError):
    """Somebody else has changed or deleted the object.

    `may_have_been_written`: an answer was lost, so the data may have been written, and been replaced since.
    """

    def __init__(self, key: str, *, may_have_been_written: bool = False) -> None:
        super().__init__(key, "was changed by somebody else")
        self.may_have_been_written = may_have_been_written


class ObjectTooLargeError(ObjectError):
    def __init__(self, key: str, max_bytes: int) -> None:
        super().__init__(key, f"is larger than {max_bytes} bytes")


class ObjectStorage(Protocol):
    """The objects below one prefix of a bucket. Blocking; called from several threads at once.

    What fails is tried again until a deadline, and then raises a StorageUnavailableError; what is not permitted raises
    it at once. A write whose answer was lost is resolved by what is stored afterwards: if that equals `data`, the write
    was done. So **data of `replace` holds a nonce**, random for each call.
    """

    @property
    def name(self) -> str:
        """Its URL, which contains nothing secret."""

    @property
    def service(self) -> str:
        """Who answers: the kind of service, and its endpoint if that is not the provider's own."""

    def get(self, key: str, *, max_bytes: int, unless: Version | None = None) -> StoredObject | None:
        """The object; None if it is still at the version `unless`.

        Raises:
            ObjectMissingError: there is none.
            ObjectTooLargeError: it is larger than `max_bytes`. Its bytes were not read.
        """

    def get_to_file(self, key: str, path: Path, *, max_bytes: int) -> None:
        """Writes the object to a new file, or over an old one. The caller verifies its content, and syncs it.

        Raises:
            ObjectMissingError: there is none.
            ObjectTooLargeError: it is larger than `max_bytes`. Nothing was written.
            OSError: the file cannot be written.
        """

    def find(self, key: str) -> ListedObject | None:
        """The object without its bytes; None: there is none."""

    def create(self, key: str, data: bytes) -> Version:
        """Writes an object that must not exist.

        Raises:
            ObjectExistsError: it exists. A retry that finds this very `data` has created it.
        """

    def create_from_file(self, key: str, path: Path) -> Version:
        """Writes an object that must not exist, without holding its bytes in memory.

        Raises:
            ObjectExistsError: it exists.
            OSError: the file cannot be read.
        """

    def replace(self, key: str, data: bytes, version: Version) -> Version:
        """Writes an object that must be at this version: the swap.

        Raises:
            ObjectChangedError: it is at another version, or gone.
        """

    def put(self, key: str, data: bytes) -> Version:
        """Writes an object, whatever is there."""

    def put_from_file(self, key: str, path: Path) -> Version:
        """Writes an object, whatever is there, without holding its bytes in memory.

        Raises:
            OSError: the file cannot be read.
        """

    def copy(self, key: str, new_key: str) -> None:
        """Copies an object within the service, over whatever is there.

        Raises:
            ObjectMissingError: there is none.
        """

    def delete(self, key: str) -> None:
        """Deletes an object, whatever its version. One that is missing is fine."""

    def list(self, prefix: str) -> Iterator[ListedObject]:
        """The objects whose keys begin with `prefix`, which ends in "/" or is empty; in the order of their keys."""

    def close(self) -> None:
        """Ends the connections. No method may be called afterwards."""
