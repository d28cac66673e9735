"""Ids of references and revisions have only safe characters and a limited length."""

from __future__ import annotations

import pytest

from patchserve_server.domain.errors import InvalidInputError
from patchserve_server.domain.reference_id import ReferenceId, Revision


@pytest.mark.parametrize("name", ["a", "B", "10", "a.b", "a-b", "a_b", "current.json", "z" * 64])
def test_valid_ids_are_accepted(name: str) -> None:
    assert ReferenceId(name) == name


@pytest.mark.parametrize("name", ["", ".", "..", ".lock", "a/b", "../a", "a\0", "a\n", "\u00e9", "x" * 65, "-a"])
def test_invalid_ids_are_refused(name: str) -> None:
    with pytest.raises(InvalidInputError, match="1 to 64") as caught:
        ReferenceId(name)
    assert caught.value.field == "reference_id"


@pytest.mark.parametrize("text", ["", "0" * 63, "0" * 65, "A" * 64, "0" * 63 + "\n", "g" * 64])
def test_revisions_are_64_hexadecimal_digits(text: str) -> None:
    assert Revision("0a" * 32) == "0a" * 32
    with pytest.raises(InvalidInputError, match="64 hexadecimal digits"):
        Revision(text)
