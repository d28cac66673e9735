"""Damaged and malicious stored files are refused by name, in bounded memory, and other references still load."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fakes.damage import FILES, NOT_A_FILE, NOT_THE_FILES, OTHER, VICTIM, Harm, bank, folder, link
from fakes.damaged_banks import BANKS
from fakes.damaged_records import RECORDS
from fakes.references import content, model_content
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import safe_open

from patchserve_server.domain.errors import ReferenceDamagedError
from patchserve_server.domain.reference_id import ReferenceId
from patchserve_server.store import FolderReferenceStore, bank_file
from patchserve_server.store.damage import DamageError

CATALOG = NOT_A_FILE | NOT_THE_FILES | RECORDS | BANKS


@pytest.fixture(autouse=True)
def no_waiting_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda _: None)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "store"


@pytest.fixture
def store(root: Path) -> Iterator[FolderReferenceStore]:
    store = FolderReferenceStore(root)
    store.save(VICTIM)
    store.save(OTHER)
    yield store
    store.close()


def refusal_message(store: FolderReferenceStore, root: Path) -> str:
    with pytest.raises(ReferenceDamagedError) as caught:
        store.load(ReferenceId("victim"))
    assert caught.value.subject == "victim"
    message = caught.value.message
    assert str(root.parent) not in message
    assert message.startswith('The stored reference "victim" is damaged: its ')
    assert ". Load it again or delete it, or have the operator look for an intact revision: " in message
    assert len(message) < 400
    assert re.fullmatch(r"[ -~]+", message)
    return message


@pytest.mark.parametrize(("part", "harm"), CATALOG.values(), ids=CATALOG)
def test_a_damaged_reference_is_refused_by_name_and_can_be_replaced_or_deleted(
    store: FolderReferenceStore, root: Path, part: str, harm: Harm
) -> None:
    harm(root)
    assert part in refusal_message(store, root)
    assert content(store.load(ReferenceId("other"))) == content(OTHER)
    assert store.list_ids() == ["other", "victim"]
    store.close()
    again = FolderReferenceStore(root)
    refusal_message(again, root)
    again.save(VICTIM)
    assert content(again.load(ReferenceId("victim"))) == content(VICTIM), "loading it again repairs it"
    harm(root)
    again.delete(ReferenceId("victim"))
    assert again.list_ids() == ["other"], "it can be deleted"
    assert content(again.load(ReferenceId("other"))) == content(OTHER)
    again.save(VICTIM)
    assert content(again.load(ReferenceId("victim"))) == content(VICTIM)
    again.close()


def test_files_outside_the_store_are_neither_read_nor_changed(store: FolderReferenceStore, root: Path) -> None:
    link(folder)(root)
    outside = root.parent / "outside-victim"
    before = sorted(outside.rglob("*"))
    refusal_message(store, root)
    store.save(VICTIM)
    store.delete(ReferenceId("victim"))
    assert sorted(outside.rglob("*")) == before


def test_a_bank_that_does_not_fit_into_memory_is_refused(
    store: FolderReferenceStore, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class HugeFile:
        """Opens like any file, but does not fit into memory."""

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            self._file = safe_open(*args, **kwargs)

        def __getattr__(self, name: str) -> Any:
            return getattr(self._file, name)

        def get_tensor(self, name: str) -> None:
            raise MemoryError

    monkeypatch.setattr(bank_file, "safe_open", HugeFile)
    assert "does not fit into memory" in refusal_message(store, root)


def test_a_bank_that_is_truncated_while_it_is_open_is_refused(store: FolderReferenceStore, root: Path) -> None:
    bank_under_test = bank_file.BankFile(bank(root))
    os.truncate(bank(root), 500)
    with pytest.raises(DamageError, match="cannot be read"):
        bank_under_test.read()


@pytest.mark.parametrize("name", FILES)
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_changed_bytes_load_as_saved_or_are_refused(
    store: FolderReferenceStore, root: Path, name: str, data: st.DataObject
) -> None:
    path = FILES[name](root)
    original = path.read_bytes()
    changed = bytearray(original)
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, min(len(changed), 2000)))
        changed[place : place + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
    path.write_bytes(changed)
    try:
        loaded = store.load(ReferenceId("victim"))
    except ReferenceDamagedError:
        refusal_message(store, root)
    else:  # the change made no difference, such as another space or another date
        assert model_content(loaded.model) == model_content(VICTIM.model)
    finally:
        path.write_bytes(original)
