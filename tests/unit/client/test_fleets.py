"""A client of several servers with one store: the reference of a call, own changes, and calls that are repeated."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from fakes.either_client import CallMethod, StreamFrames
from fakes.fake_server import NOT_SERVING, SERVICE, FakeServer, serving
from fakes.faults import Fault, changed, not_found, unavailable
from fakes.responses import png
from fakes.terminal import Run
from fakes.waiting import wait_until

from patchserve_client import (
    Aborted,
    AsyncClient,
    Client,
    FailedPrecondition,
    Frame,
    NoticeKind,
    PatchserveError,
    Unavailable,
    _loads,
)
from patchserve_client._own_changes import REMEMBERED_S, OwnChanges

LOST = Fault(grpc.StatusCode.UNAVAILABLE, "Socket closed.")

# Every method that gRPC or the client repeats, as a call of the client.
REPEATED: dict[str, tuple[str, tuple[Any, ...]]] = {
    "Infer": ("infer", (png(), "belt")),
    "GetReference": ("get_reference", ("belt",)),
    "GetServerInfo": ("server_info", ()),
    "ListLoads": ("list_loads", ("belt",)),
    "ListReferences": ("list_references", ()),
    "LoadReference": ("load_reference", ([png()], "belt")),
}
NOT_REPEATED: dict[str, tuple[str, tuple[Any, ...]]] = {
    "DeleteReference": ("delete_reference", ("belt",)),
    "GetServerStats": ("server_stats", ()),
    "TuneReference": ("tune_reference", ("belt", 2.0)),
    "RestoreReference": ("restore_reference", ("belt",)),
}


@pytest.fixture
def loaded(fake: FakeServer) -> FakeServer:
    with Client(fake.address) as client:
        client.load_reference([png()], "belt")
    fake.requests.clear()
    fake.addressed.clear()
    return fake


@pytest.mark.parametrize("method", REPEATED)
def test_a_call_that_is_safe_to_repeat_is_repeated(loaded: FakeServer, call: CallMethod, method: str) -> None:
    name, arguments = REPEATED[method]
    loaded.fail(method, LOST)
    loaded.fail(method, unavailable())
    call(loaded.address, name, *arguments)
    assert len(loaded.requests[method]) == 3


@pytest.mark.parametrize("method", NOT_REPEATED)
def test_a_change_that_would_be_made_twice_is_not_and_nor_is_what_says_how_it_is_now(
    loaded: FakeServer, call: CallMethod, method: str
) -> None:
    name, arguments = NOT_REPEATED[method]
    loaded.fail(method, LOST)
    with pytest.raises(Unavailable):
        call(loaded.address, name, *arguments)
    assert len(loaded.requests[method]) == 1


def test_the_server_says_how_long_to_wait(loaded: FakeServer, call: CallMethod) -> None:
    """GRPC's own fourth pause would be 2 s; and one that is longer than the deadline is not waited for."""
    for _ in range(4):
        loaded.fail("Infer", unavailable(retry_after_s=0.001))
    call(loaded.address, "infer", png(), "belt", timeout_s=1.0)
    loaded.fail("Infer", unavailable(retry_after_s=60.0))
    with pytest.raises(PatchserveError):
        call(loaded.address, "infer", png(), "belt", timeout_s=0.5)
    assert len(loaded.requests["Infer"]) == 6


def test_every_call_about_a_reference_names_it_in_a_header(
    loaded: FakeServer, call: CallMethod, stream_frames: StreamFrames, tmp_path: Path
) -> None:
    for name, arguments in (REPEATED | NOT_REPEATED).values():
        if name not in ("restore_reference", "delete_reference"):
            call(loaded.address, name, *arguments)
    call(loaded.address, "load_reference", [png()], "belt", mode="append")
    call(loaded.address, "infer", png())
    call(loaded.address, "list_loads")
    stream_frames(loaded.address, [png()], reference_id="belt")
    for about_all in ("GetServerInfo", "GetServerStats", "ListReferences"):
        assert set(loaded.addressed.pop(about_all)) == {None}
    assert loaded.addressed.pop("ListLoads") == ["belt", None]
    assert loaded.addressed.pop("Infer") == ["belt", "default"]
    assert {header for headers in loaded.addressed.values() for header in headers} == {"belt"}
    assert {"LoadReferenceStream", "InferStream"} <= loaded.addressed.keys()


@pytest.mark.parametrize("reference_id", ["two words", "b\u00e4lt", "-", "a" * 65, "line\nbreak"])
def test_an_id_that_no_server_takes_is_not_put_into_a_header(
    loaded: FakeServer, call: CallMethod, reference_id: str
) -> None:
    loaded.fail("GetReference", not_found("it"))
    with pytest.raises(PatchserveError):
        call(loaded.address, "get_reference", reference_id)
    assert loaded.addressed["GetReference"] == [None]


def changes(client: Client) -> Iterator[str]:
    """Makes every change that a client remembers, one after the other; yields the revision."""
    yield client.load_reference([png("green")], "belt").revision
    yield client.load_reference([png("blue")], "belt", mode="append").revision
    yield client.tune_reference("belt", 2.0).revision


def test_after_a_change_calls_ask_for_its_revision(fake: FakeServer) -> None:
    with Client(fake.address) as client, Client(fake.address) as other:
        for revision in changes(client):
            client.infer(png(), "belt")
            other.infer(png(), "belt")
            list(client.infer_stream([png()], "belt"))
            asked, without = fake.requests["Infer"][-2:]
            assert asked.expected_revision == fake.requests["InferStream"][-1].expected_revision == revision != ""
            assert without.expected_revision == ""
        client.infer(png(), "belt", expected_revision="abc")
        assert fake.requests["Infer"][-1].expected_revision == "abc"
        client.infer(png())
        assert fake.requests["Infer"][-1].expected_revision == ""
        client.delete_reference("belt")
        assert fake.requests["DeleteReference"][-1].expected_revision == revision
        client.load_reference([png()], "belt")
        client.delete_reference("belt")
        client.infer(png(), "belt")
        assert fake.requests["Infer"][-1].expected_revision == ""


def test_if_somebody_else_has_changed_it_the_call_is_made_once_more_without(fake: FakeServer) -> None:
    with Client(fake.address) as client:
        revision = client.load_reference([png()], "belt").revision
        fake.changed_by_others.add("belt")
        assert client.infer(png(), "belt").reference_id == "belt"
        client.infer(png(), "belt")  # and is forgotten
        assert [request.expected_revision for request in fake.requests["Infer"]] == [revision, "", ""]
        with pytest.raises(FailedPrecondition):
            client.infer(png(), "belt", expected_revision=revision)


@pytest.mark.parametrize("resume_for_s", [0.0, 30.0])
def test_a_stream_begins_once_more_too_and_loses_no_frame(fake: FakeServer, resume_for_s: float) -> None:
    fake.changed_by_others.add("belt")
    notices: list[Any] = []
    frames = [Frame(png(), str(number)) for number in range(40)]

    async def with_asyncio() -> list[Any]:
        async with AsyncClient(fake.address) as client:
            await client.load_reference([png()], "belt")
            stream = client.infer_stream(frames, "belt", resume_for_s=resume_for_s, on_notice=notices.append)
            return [result async for result in stream]

    with Client(fake.address) as client:
        client.load_reference([png()], "belt")
        stream = client.infer_stream(frames, "belt", resume_for_s=resume_for_s, on_notice=notices.append)
        results = list(stream)
    for received in (results, asyncio.run(with_asyncio())):
        assert [(result.frame_id, result.sequence) for result in received] == [(str(n), n) for n in range(40)]
    asked = [bool(config.expected_revision) for config in fake.requests["InferStream"]]
    assert asked == [True, False, True, False]
    assert notices == []


def test_a_resumed_stream_takes_the_revision_that_is_current_then(fake: FakeServer) -> None:
    fake.stream_ends.append((1, LOST))
    kinds = []
    with Client(fake.address) as client:
        client.load_reference([png()], "belt")
        stream = client.infer_stream(
            [png()] * 3, "belt", resume_for_s=30.0, on_notice=lambda notice: kinds.append(notice.kind)
        )
        assert len(list(stream)) == 3
    assert [bool(config.expected_revision) for config in fake.requests["InferStream"]] == [True, False]
    assert kinds == [NoticeKind.RECONNECTING, NoticeKind.RESUMED]


def test_a_change_is_remembered_for_a_while() -> None:
    now_s = 0.0
    own = OwnChanges(lambda: now_s)
    own.note("belt", "a")
    now_s = REMEMBERED_S / 2
    own.note("box", "b")
    assert (own.revision_of("belt"), own.revision_of("box"), own.revision_of("bag")) == ("a", "b", "")
    now_s = REMEMBERED_S
    assert (own.revision_of("belt"), own.revision_of("box")) == ("", "b")
    own.note("box", "c")
    own.forget("bag")
    now_s = 1.5 * REMEMBERED_S
    assert own.revision_of("box") == "c"
    own.forget("box")
    assert own.revision_of("box") == ""


@pytest.mark.parametrize("held_bytes", [0, 2**20], ids=["read again", "held"])
def test_an_append_that_was_aborted_is_made_once_more(
    fake: FakeServer, call: CallMethod, monkeypatch: pytest.MonkeyPatch, held_bytes: int
) -> None:
    monkeypatch.setattr(_loads, "HELD_BYTES", held_bytes)
    call(fake.address, "load_reference", [png()], "belt")
    fake.fail("LoadReferenceStream", changed("belt"))
    images = [png("green"), png("blue")]
    assert call(fake.address, "load_reference", images, "belt", mode="append").image_count == 3
    fake.fail("LoadReferenceStream", changed("belt"), times=2)
    with pytest.raises(Aborted):  # once more, and not for ever
        call(fake.address, "load_reference", images, "belt", mode="append")


def test_images_of_an_iterator_are_sent_again_if_they_are_few(
    fake: FakeServer, call: CallMethod, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake.fail("LoadReferenceStream", changed("belt"))
    images = (png(color) for color in ("green", "blue"))
    assert call(fake.address, "load_reference", images, "belt", mode="append").image_count == 2
    monkeypatch.setattr(_loads, "HELD_BYTES", 0)
    fake.fail("LoadReferenceStream", changed("belt"))
    with pytest.raises(Aborted):
        call(fake.address, "load_reference", (png(color) for color in ("green", "blue")), "belt", mode="append")


def test_an_append_that_names_its_base_is_not_moved_to_another(fake: FakeServer, call: CallMethod) -> None:
    fake.fail("LoadReference", changed("belt"))
    with pytest.raises(Aborted):
        call(fake.address, "load_reference", [png()], "belt", mode="append", expected_revision="abc")


def test_an_append_after_an_own_change_goes_to_its_revision(fake: FakeServer) -> None:
    with Client(fake.address) as client:
        first = client.load_reference([png()], "belt").revision
        fake.changed_by_others.add("belt")
        client.load_reference([png("blue")], "belt", mode="append")
        assert [start.expected_revision for start in fake.requests["LoadReferenceStream"]] == [first, ""]
        assert fake.references["belt"].image_count == 2


def test_a_streamed_load_that_replaces_is_repeated(
    fake: FakeServer, call: CallMethod, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_loads, "HELD_BYTES", 0)
    fake.fail("LoadReferenceStream", unavailable(), times=2)
    assert call(fake.address, "load_reference", [png(), png()], "belt").image_count == 2
    fake.fail("LoadReferenceStream", unavailable(), times=9)
    with pytest.raises(Unavailable):
        call(fake.address, "load_reference", [png(), png()], "belt")
    assert len(fake.requests["LoadReferenceStream"]) == 3 + 5
    fake.faults.clear()
    fake.fail("LoadReferenceStream", unavailable())
    with pytest.raises(Unavailable):
        call(fake.address, "load_reference", (png() for _ in range(2)), "belt")


def test_nothing_is_open_after_streams_and_loads_that_were_repeated_or_left(fake: FakeServer) -> None:
    fake.stream_ends.extend([(1, LOST)] * 3)
    with Client(fake.address) as client:
        client.load_reference([png()], "belt")
        fake.changed_by_others.add("belt")
        list(client.infer_stream([png()] * 5, "belt", resume_for_s=30.0))
        left = client.infer_stream((png() for _ in range(1000)), "belt")
        next(left)
        left.close()
        wait_until(lambda: fake.open_streams == 0)


def test_calls_take_turns_on_several_servers_that_are_ready() -> None:
    with serving() as one, serving() as two:
        several = f"ipv4:{one.address},{two.address}"
        with Client(several) as client:
            wait_until(lambda: both_answer(client, one, two))
            asyncio.run(one.health.set(SERVICE, NOT_SERVING))
            wait_until(lambda: all_go_to(two, one, client))
            asyncio.run(two.health.set(SERVICE, NOT_SERVING))


def both_answer(client: Client, one: FakeServer, two: FakeServer) -> bool:
    client.infer(png())
    return bool(one.requests["Infer"] and two.requests["Infer"])


def all_go_to(server: FakeServer, other: FakeServer, client: Client) -> bool:
    before = len(server.requests["Infer"]), len(other.requests["Infer"])
    for _ in range(4):
        client.infer(png())
    return (len(server.requests["Infer"]), len(other.requests["Infer"])) == (before[0] + 4, before[1])


def test_a_server_that_ends_costs_no_call() -> None:
    with serving() as one:
        with serving() as two:
            client = Client(f"ipv4:{one.address},{two.address}")
            wait_until(lambda: both_answer(client, one, two))
        for _ in range(20):
            client.infer(png())
        client.close()


def test_the_shell_appends_once_more_too(
    fake: FakeServer, run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_loads, "HELD_BYTES", 0)
    assert run("reference", "load", folder, "--id", "belt")[0] == 0
    fake.fail("LoadReferenceStream", changed("belt"))
    code, out, _ = run("reference", "load", folder, "--id", "belt", "--append")
    assert code == 0
    assert "6 images" in out
