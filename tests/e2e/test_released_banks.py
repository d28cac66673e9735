"""A deleted bank leaves memory at once, after any error: nothing waits for the garbage collector."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator
from typing import TypeAlias

import numpy as np
import pytest
from e2e.in_process import in_process_server
from fakes.images import card, encoded

from patchserve_client import Client, InvalidArgument
from patchserve_server.serving.open_references import OpenReferences
from patchserve_server.serving.reference_use import OpenReference

INTACT = encoded(card(0))
Banks: TypeAlias = "list[weakref.ref[np.ndarray]]"


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Client, Banks]]:
    """A client of a server in this process, and every bank that it has opened."""
    banks: Banks = []
    add = OpenReferences.add

    def add_and_note(references: OpenReferences, opened: OpenReference) -> None:
        banks.append(weakref.ref(opened.scorer.model.memory_bank.patches))
        add(references, opened)

    monkeypatch.setattr(OpenReferences, "add", add_and_note)
    with in_process_server() as address, Client(address) as connected:
        gc.collect()
        gc.disable()
        yield connected, banks
        gc.enable()


@pytest.mark.parametrize("image", [INTACT, INTACT[:1500], b""], ids=["intact", "cut", "empty"])
@pytest.mark.parametrize("streamed", [False, True], ids=["single", "streamed"])
def test_a_deleted_reference_leaves_memory_at_once(client: tuple[Client, Banks], image: bytes, streamed: bool) -> None:
    calls, banks = client
    calls.load_reference(INTACT, "brief")
    if streamed:
        (found,) = calls.infer_stream([image], "brief")
        assert (found.error is None) == (image is INTACT)
    elif image is INTACT:
        calls.infer(image, "brief")
    else:
        with pytest.raises(InvalidArgument):
            calls.infer(image, "brief")
    calls.delete_reference("brief")
    # The server ends a call's task after its answer; a further call comes after that.
    for _ in range(50):
        calls.server_info()
        if banks[0]() is None:
            break
    assert len(banks) == 1
    assert banks[0]() is None
