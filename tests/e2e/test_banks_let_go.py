"""A bank that is deleted leaves memory at once, whatever failed with it: nothing waits for the garbage collector."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator

import pytest
from e2e.guarded import serving
from fakes.images import card, encoded

from patchserve_client import Client, InvalidArgument
from patchserve_server.domain.reference import Reference
from patchserve_server.serving.catalog import Catalog

INTACT = encoded(card(0))


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Client, list[weakref.ref[Reference]]]]:
    """A client of a server in this process, and every reference that the server has kept."""
    kept: list[weakref.ref[Reference]] = []
    keep = Catalog._keep

    def noting(catalog: Catalog, reference: Reference) -> None:
        kept.append(weakref.ref(reference))
        keep(catalog, reference)

    monkeypatch.setattr(Catalog, "_keep", noting)
    with serving() as address, Client(address) as connected:
        gc.collect()
        gc.disable()
        yield connected, kept
        gc.enable()


@pytest.mark.parametrize("image", [INTACT, INTACT[:1500], b""], ids=["intact", "cut", "empty"])
@pytest.mark.parametrize("streamed", [False, True], ids=["single", "streamed"])
def test_nothing_of_a_deleted_reference_stays(
    client: tuple[Client, list[weakref.ref[Reference]]], image: bytes, streamed: bool
) -> None:
    calls, kept = client
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
        if kept[0]() is None:
            break
    assert len(kept) == 1
    assert kept[0]() is None
