"""Names of references and of their revisions."""

from __future__ import annotations

import re
from typing import Self

from patchserve_server.domain.errors import InvalidInputError

_REFERENCE_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_REVISION = re.compile(r"[0-9a-f]{64}")


class ReferenceId(str):
    """The name of a reference, safe as the name of a folder.

    Raises:
        InvalidInputError: it is not 1 to 64 of A-Z a-z 0-9 . _ - with a letter or a digit first.
    """

    __slots__ = ()

    def __new__(cls, text: str) -> Self:
        if not _REFERENCE_ID.fullmatch(text):
            message = (
                "A reference_id is 1 to 64 of the characters A-Z a-z 0-9 . _ - and begins with a letter or a digit."
            )
            raise InvalidInputError("reference_id", message)
        return super().__new__(cls, text)


class Revision(str):
    """The content digest of a reference (SHA-256, hexadecimal).

    Raises:
        InvalidInputError: it is not 64 lowercase hexadecimal digits. Responses and logs contain revisions, so no
            other text may get into them.
    """

    __slots__ = ()

    def __new__(cls, text: str) -> Self:
        if not _REVISION.fullmatch(text):
            message = "A revision is the 64 hexadecimal digits that the server returned, or empty for any revision."
            raise InvalidInputError("revision", message)
        return super().__new__(cls, text)


DEFAULT_REFERENCE_ID = ReferenceId("default")
