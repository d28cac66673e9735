"""How many values JSON has is known before it is parsed."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from patchserve_server.store.damage import DamageError
from patchserve_server.store.records import check_values

texts = st.text(st.sampled_from('a,[{}]"\\\n'), max_size=8)
documents: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.integers() | texts, lambda parts: st.lists(parts) | st.dictionaries(texts, parts), max_leaves=20
)


def counted(value: object) -> int:
    """Each value but the first of its object or array, and eight for each object and array."""
    parts = list(value.values()) if isinstance(value, dict) else value
    if not isinstance(parts, list):
        return 0
    return 8 + max(0, len(parts) - 1) + sum(map(counted, parts))


@given(documents, st.booleans())
def test_values_are_counted_outside_of_texts(document: object, is_short: bool) -> None:
    data = json.dumps(document, indent=None if is_short else 2).encode()
    count = counted(document)
    check_values(data, "manifest", count)
    if count:
        with pytest.raises(DamageError, match="its manifest has more than"):
            check_values(data, "manifest", count - 1)
