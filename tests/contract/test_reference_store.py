"""What every ReferenceStore promises."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, timedelta
from itertools import count
from pathlib import Path

import numpy as np
import pytest
from fakes.object_servers import ObjectServer
from fakes.references import content, make_model, make_reference, make_subspace_model, named
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from patchserve_server.domain.digest import revision_of
from patchserve_server.domain.errors import ReferenceChangedError, ReferenceNotFoundError, RevisionNotKeptError
from patchserve_server.domain.events import Events
from patchserve_server.domain.ports import KeptRevision, ReferenceStore
from patchserve_server.domain.reference import (
    Bank,
    Calibration,
    CalibrationMethod,
    EmbeddingSpec,
    MemoryBank,
    Reference,
    ReferenceInfo,
    ReferenceModel,
    ScoreSpread,
)
from patchserve_server.domain.reference_id import ReferenceId
from patchserve_server.domain.reference_image import MEDIA_TYPES, ReferenceImage
from patchserve_server.domain.reference_options import (
    CoresetOptions,
    ReferenceOptions,
    RegionOfInterest,
    ScoringProfile,
)
from patchserve_server.domain.subspace import Subspace
from patchserve_server.serving.observed_store import ObservedStore
from patchserve_server.store import FolderReferenceStore, MemoryReferenceStore
from patchserve_server.store.objects import open_object_storage
from patchserve_server.store.shared import DigestCache, SharedReferenceStore


@dataclass
class Subject:
    """A store under test; `reopen` gives a new store on the same content, None if the content ends with the store."""

    store: ReferenceStore
    reopen: Callable[[], ReferenceStore] | None = None


HERE = ["memory", "folder", "observed", "shared"]
SERVERS = ["moto", "seaweedfs"]  # real ones, for a shared store: too slow for hundreds of examples
_PREFIXES = count()


@pytest.fixture(params=[*HERE, *SERVERS])
def subject(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Subject]:
    if request.param == "memory":
        yield Subject(MemoryReferenceStore())
        return
    if request.param == "observed":
        yield Subject(ObservedStore(MemoryReferenceStore(), Events()))
        return
    open_store: Callable[[], FolderReferenceStore | SharedReferenceStore]
    if request.param == "folder":

        def open_store() -> FolderReferenceStore:
            return FolderReferenceStore(tmp_path / "store")
    else:
        url = f"memory://contract-{next(_PREFIXES)}"
        if request.param in SERVERS:
            server: ObjectServer = request.getfixturevalue(request.param)
            url = server.url(f"references/{next(_PREFIXES)}")
            for name, value in server.environment.items():
                monkeypatch.setenv(name, value)

        def open_store() -> SharedReferenceStore:
            return SharedReferenceStore(open_object_storage(url), DigestCache(tmp_path / "cache", 2**20))

    stores = [open_store()]

    def reopen() -> ReferenceStore:
        stores[-1].close()
        stores.append(open_store())
        return stores[-1]

    yield Subject(stores[0], reopen)
    stores[-1].close()


@pytest.fixture
def store(subject: Subject) -> ReferenceStore:
    return subject.store


words = st.text(max_size=20)
raw_scores = st.floats(min_value=0, allow_nan=False, allow_infinity=False)
shares = st.floats(0, 1, exclude_min=True)
spacings = st.floats(0, exclude_min=True, allow_infinity=False, width=32)
points = st.tuples(st.floats(-0.0, 1), st.floats(-0.0, 1))
regions: st.SearchStrategy[RegionOfInterest] = st.lists(st.lists(points, min_size=3).map(tuple), max_size=3).map(tuple)
coresets = st.builds(CoresetOptions) | st.builds(CoresetOptions, ratio=shares)
coresets |= st.builds(CoresetOptions, max_patches=st.integers(16))


sizes = st.integers(0, 2**40)
names = st.text(max_size=20).filter(str.isprintable)
images = st.builds(ReferenceImage, names, st.sampled_from(["", *MEDIA_TYPES]), sizes, sizes, sizes)


false_alarm_rates = st.just((None, None)) | st.lists(st.floats(0, 1), min_size=2, max_size=2).map(sorted).map(tuple)


@st.composite
def models(draw: st.DrawFn) -> ReferenceModel:
    """Any valid model; values of vectors may be any float32, also NaN and subnormal numbers."""
    rows, dim, images, size_px = (draw(st.integers(1, 5)) for _ in range(4))
    floats = st.floats(width=32)
    profile = draw(st.sampled_from(ScoringProfile))
    inputs = draw(npst.arrays(np.uint8, (images, size_px, size_px, 3)))
    bank: Bank = MemoryBank(
        patches=draw(npst.arrays(np.float32, (rows, dim), elements=floats)),
        image_index=draw(npst.arrays(np.int32, rows, elements=st.integers(0, images - 1))),
        grid_index=draw(npst.arrays(np.int32, rows, elements=st.integers(0, 2**31 - 1))),
        spacing=draw(npst.arrays(np.float32, rows, elements=spacings)),
        inputs=inputs,
    )
    if profile is ScoringProfile.SUBSPACE:
        mean, basis = (draw(npst.arrays(np.float32, shape, elements=floats)) for shape in ((dim,), (rows, dim)))
        bank = Subspace(mean, basis, inputs)
    low, high = sorted([draw(raw_scores), draw(raw_scores)])
    spread = ScoreSpread(draw(st.integers(1, 10**6)), low, draw(raw_scores), draw(raw_scores), high)
    if draw(st.booleans()):
        spread = ScoreSpread.of(draw(st.lists(st.floats(0, 1e100), min_size=1, max_size=300)))
    return ReferenceModel(
        EmbeddingSpec(draw(words), draw(words), draw(words), draw(words)),
        ReferenceOptions(
            profile=profile,
            coreset=CoresetOptions() if profile is ScoringProfile.SUBSPACE else draw(coresets),
            search_radius=None if profile is ScoringProfile.SUBSPACE else draw(st.none() | shares),
            region_of_interest=draw(regions),
            false_alarm_rate=draw(st.none() | st.floats(0.001, 0.5)),
        ),
        bank,
        Calibration(
            draw(st.sampled_from(CalibrationMethod)),
            draw(raw_scores),
            draw(raw_scores),
            spread,
            *draw(false_alarm_rates),
        ),
        draw(st.just(1.0) | st.floats(0.1, 10)),
    )


@st.composite
def references(draw: st.DrawFn) -> Reference:
    reference_id = draw(st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", fullmatch=True))
    times = st.datetimes(timezones=st.just(UTC))
    model = draw(models())
    count = len(model.bank.inputs)
    described = draw(st.just(()) | st.tuples(*[images] * count))
    return Reference(ReferenceId(reference_id), revision_of(model), draw(times), draw(times), model, described)


@pytest.mark.parametrize("subject", HERE, indirect=True)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(reference=references())
def test_a_saved_reference_loads_unchanged(store: ReferenceStore, reference: Reference) -> None:
    store.save(reference)
    assert content(store.load(reference.reference_id)) == content(reference)


def test_an_unknown_reference_is_not_found(store: ReferenceStore) -> None:
    store.save(make_reference("other"))
    with pytest.raises(ReferenceNotFoundError, match='"parcel"'):
        store.load(ReferenceId("parcel"))
    with pytest.raises(ReferenceNotFoundError, match='"parcel"'):
        store.delete(ReferenceId("parcel"))
    assert store.list_ids() == ["other"]


def test_a_save_replaces_the_revision(store: ReferenceStore) -> None:
    first, second = make_reference(seed=1), make_reference(seed=2, patches=90, images=2)
    store.save(first)
    before = store.load(ReferenceId("parcel"))
    store.save(second)
    assert content(store.load(ReferenceId("parcel"))) == content(second)
    assert content(before) == content(first), "a loaded reference does not change"
    store.save(first)
    assert content(store.load(ReferenceId("parcel"))) == content(first)
    assert store.list_ids() == ["parcel"]


def test_a_reference_keeps_its_sensitivity(store: ReferenceStore) -> None:
    calibrated = make_reference()
    tuned = named(dataclasses.replace(calibrated.model, sensitivity=1.3))
    assert tuned.revision != calibrated.revision
    for saved in (calibrated, tuned, calibrated):
        store.save(saved)
        assert content(store.load(ReferenceId("parcel"))) == content(saved)


def test_equal_content_from_other_files_has_the_same_revision(store: ReferenceStore) -> None:
    first = make_reference(images=1)
    png, bmp = (
        dataclasses.replace(first, images=(ReferenceImage(f"a.{kind}", f"image/{kind}"),)) for kind in ("png", "bmp")
    )
    for saved in (first, png, bmp, first):
        store.save(saved)
        assert content(store.load(ReferenceId("parcel"))) == content(saved)


def test_equal_content_saved_later_has_the_later_time(store: ReferenceStore) -> None:
    first = make_reference()
    later = dataclasses.replace(first, update_time=first.update_time + timedelta(days=1))
    store.save(first)
    store.save(later)
    assert content(store.load(ReferenceId("parcel"))) == content(later)


POSSIBLE = [make_reference(seed=seed) for seed in range(3)]
CHANGES = st.sampled_from(["save 0", "save 1", "save 2", "restore", "delete", "reopen"])


@pytest.mark.parametrize("subject", HERE, indirect=True)
@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(changes=st.lists(CHANGES, max_size=12))
def test_any_sequence_of_changes_keeps_the_current_and_the_previous_revision(
    subject: Subject, changes: list[str]
) -> None:
    parcel = ReferenceId("parcel")
    with suppress(ReferenceNotFoundError):
        subject.store.delete(parcel)
    current: Reference | None = None
    previous: Reference | None = None
    for change in changes:
        kept: KeptRevision | None = None
        if change.startswith("save"):
            saved = POSSIBLE[int(change[-1])]
            kept = subject.store.save(saved)
            if current is not saved:
                current, previous = saved, current
        elif change == "reopen" and subject.reopen is not None:
            subject.store = subject.reopen()
        elif change == "restore" and current is not None and previous is not None:
            kept = subject.store.restore(parcel, previous.revision)
            current, previous = previous, current
        elif change == "delete" and current is not None:
            subject.store.delete(parcel)
            current = previous = None
        if change.startswith(("save", "restore")):
            assert (kept and kept.revision) == (previous and previous.revision)
        check_state(subject.store, current, previous)


def check_state(store: ReferenceStore, current: Reference | None, previous: Reference | None) -> None:
    parcel = ReferenceId("parcel")
    if current is None:
        with pytest.raises(ReferenceNotFoundError):
            store.load(parcel)
        with pytest.raises(ReferenceNotFoundError):
            store.describe(parcel)
        with pytest.raises(ReferenceNotFoundError):
            store.load_previous(parcel)
        with pytest.raises(ReferenceNotFoundError):
            store.restore(parcel, POSSIBLE[0].revision)
        return
    loaded = store.load(parcel)
    assert content(loaded) == content(current)
    assert loaded.previous_revision == (previous and previous.revision)
    check_described(store.describe(parcel), loaded)
    for revision in {reference.revision for reference in POSSIBLE} - {previous and previous.revision}:
        with pytest.raises(RevisionNotKeptError):
            store.restore(parcel, revision)
    if previous is None:
        with pytest.raises(RevisionNotKeptError, match="no previous revision is kept"):
            store.load_previous(parcel)
        with pytest.raises(RevisionNotKeptError, match="no previous revision is kept"):
            store.describe_previous(parcel)
    else:
        assert content(store.load_previous(parcel)) == content(previous)
        described = store.describe_previous(parcel)
        assert described == previous.info
        assert described.operation is previous.operation


def check_described(described: ReferenceInfo, loaded: Reference) -> None:
    assert described == loaded.info
    assert described.operation is loaded.operation
    assert described.previous_revision == loaded.previous_revision


def test_a_change_of_another_base_changes_nothing(store: ReferenceStore) -> None:
    first, second, third = (make_reference(seed=seed) for seed in (1, 2, 3))
    parcel = ReferenceId("parcel")
    with pytest.raises(ReferenceChangedError, match='"parcel"'):
        store.save(second, base=first.revision)
    check_state(store, None, None)
    store.save(first)
    store.save(second, base=first.revision)
    check_state(store, second, first)
    for base in (first.revision, third.revision):
        with pytest.raises(ReferenceChangedError):
            store.save(third, base=base)
        with pytest.raises(ReferenceChangedError):
            store.restore(parcel, first.revision, base=base)
        with pytest.raises(ReferenceChangedError):
            store.delete(parcel, base)
    check_state(store, second, first)
    store.restore(parcel, first.revision, base=second.revision)
    check_state(store, first, second)
    store.delete(parcel, first.revision)
    check_state(store, None, None)
    with pytest.raises(ReferenceNotFoundError):
        store.delete(parcel, first.revision)


def test_of_many_changes_of_one_base_one_wins(store: ReferenceStore) -> None:
    base, *changes = (make_reference(seed=seed) for seed in range(9))
    store.save(base)

    def save(reference: Reference) -> Reference | None:
        with suppress(ReferenceChangedError):
            store.save(reference, base=base.revision)
            return reference
        return None

    with ThreadPoolExecutor(8) as threads:
        (winner,) = filter(None, threads.map(save, changes))
    check_state(store, winner, base)


def test_a_previous_subspace_is_described_too(store: ReferenceStore) -> None:
    first, second = named(make_subspace_model(1)), named(make_subspace_model(2))
    store.save(first)
    store.save(second)
    assert store.describe_previous(ReferenceId("parcel")) == first.info


def test_a_restored_reference_is_as_it_was(store: ReferenceStore) -> None:
    """Its images' names, its sensitivity and its time; a change of these alone changes nothing that is kept."""
    first = make_reference(seed=1, images=1)
    named_image = dataclasses.replace(first, images=(ReferenceImage("a.png", "image/png"),))
    tuned = named(dataclasses.replace(first.model, sensitivity=1.3), update_time=first.update_time + timedelta(days=1))
    store.save(first)
    store.save(named_image)
    assert store.load(ReferenceId("parcel")).previous_revision is None, "equal content is no other revision"
    store.save(tuned)
    store.restore(ReferenceId("parcel"), first.revision)
    assert content(store.load(ReferenceId("parcel"))) == content(named_image)
    assert content(store.load_previous(ReferenceId("parcel"))) == content(tuned)


def test_only_memory_that_no_current_revision_uses_counts(store: ReferenceStore) -> None:
    first, other = make_reference(seed=1), make_reference(seed=2)
    tuned = named(dataclasses.replace(first.model, sensitivity=1.3))
    store.save(first)
    kept = store.save(tuned)
    assert kept == KeptRevision(first.revision, 0), "they share a bank"
    kept = store.save(other)
    assert kept is not None
    assert kept.revision == tuned.revision
    assert kept.nbytes == (0 if store.is_durable else tuned.model.bank.nbytes)
    if kept.nbytes:
        store.forget_previous(ReferenceId("parcel"))
        store.forget_previous(ReferenceId("nobody"))
        check_state(store, other, None)


def test_ids_are_listed_in_order(store: ReferenceStore) -> None:
    ids = ["b", "B", "a", "a.b", "a-b", "a_b", "10", "9", "current.json", "f" * 64, "z" * 64]
    for seed, reference_id in enumerate(ids):
        store.save(make_reference(reference_id, seed))
    assert store.list_ids() == sorted(ids)
    for seed, reference_id in enumerate(ids):
        assert content(store.load(ReferenceId(reference_id))) == content(make_reference(reference_id, seed))


def test_an_empty_store_lists_nothing(store: ReferenceStore) -> None:
    assert store.list_ids() == []


def test_delete_removes_one_reference_only(store: ReferenceStore) -> None:
    store.save(make_reference("parcel", 1))
    store.save(make_reference("parcel", 2))
    store.save(make_reference("other", 3))
    store.delete(ReferenceId("parcel"))
    with pytest.raises(ReferenceNotFoundError):
        store.load(ReferenceId("parcel"))
    with pytest.raises(ReferenceNotFoundError):
        store.delete(ReferenceId("parcel"))
    assert store.list_ids() == ["other"]
    store.save(make_reference("parcel", 1))
    assert content(store.load(ReferenceId("parcel"))) == content(make_reference("parcel", 1))


@pytest.mark.parametrize("order", ["F", "strided"])
def test_the_memory_layout_of_the_arrays_does_not_matter(store: ReferenceStore, order: str) -> None:
    model = make_model()
    patches = model.memory_bank.patches
    not_contiguous = np.asfortranarray(patches) if order == "F" else np.repeat(patches, 2, axis=1)[:, ::2]
    assert not not_contiguous.flags.c_contiguous
    saved = dataclasses.replace(model, bank=dataclasses.replace(model.memory_bank, patches=not_contiguous))
    store.save(named(saved))
    assert content(store.load(ReferenceId("parcel"))) == content(named(model))


def test_threads_can_save_load_and_delete_one_reference(store: ReferenceStore) -> None:
    """A reader gets one complete revision or none, whatever the writers do. So does one who restores."""
    possible = [make_reference(seed=seed) for seed in range(8)]
    contents = {content(reference) for reference in possible}

    def work(task: int) -> tuple[object, ...] | None:
        try:
            if task % 4 == 0:
                store.save(possible[task // 4 % len(possible)])
            elif task % 16 == 5:
                store.delete(ReferenceId("parcel"))
            elif task % 16 == 6:
                store.restore(ReferenceId("parcel"), store.load_previous(ReferenceId("parcel")).revision)
            elif task % 16 == 7:
                return content(store.load_previous(ReferenceId("parcel")))
            else:
                return content(store.load(ReferenceId("parcel")))
        except (ReferenceNotFoundError, RevisionNotKeptError):
            pass
        return None

    with ThreadPoolExecutor(8) as threads:
        loaded = set(threads.map(work, range(160)))
    assert loaded - {None} <= contents
    store.save(possible[0])
    assert content(store.load(ReferenceId("parcel"))) == content(possible[0])


def test_threads_can_save_different_references(store: ReferenceStore) -> None:
    saved = [make_reference(f"item-{seed:02}", seed) for seed in range(24)]
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(store.save, saved))
        loaded = list(threads.map(store.load, [reference.reference_id for reference in saved]))
    assert [content(reference) for reference in loaded] == [content(reference) for reference in saved]
    assert store.list_ids() == [reference.reference_id for reference in saved]


@pytest.mark.parametrize("subject", ["folder", "shared", *SERVERS], indirect=True)
def test_saved_references_are_there_after_a_restart(subject: Subject) -> None:
    assert subject.reopen is not None
    current, deleted = make_reference("kept", 1), make_reference("deleted", 2)
    for reference in (make_reference("kept", 3), current, deleted):
        subject.store.save(reference)
    subject.store.delete(ReferenceId("deleted"))
    again = subject.reopen()
    assert again.list_ids() == ["kept"]
    assert content(again.load(ReferenceId("kept"))) == content(current)
