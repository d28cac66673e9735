"""Both clients against a scripted server: what is sent, what is retried, what comes back."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeAlias

import grpc
import numpy as np
import pytest
from fakes.fake_server import NOT_SERVING, SERVICE, FakeServer, Fault, png, reference, serving

from patchserve.v1 import inference_pb2, reference_pb2
from patchserve_client import (
    AsyncClient,
    Cancelled,
    Client,
    DeadlineExceeded,
    FailedPrecondition,
    Health,
    InferenceResult,
    InvalidArgument,
    LoadProgress,
    NotFound,
    PatchserveError,
    ReferenceInfo,
    ResourceExhausted,
    TlsConfig,
    Unavailable,
    Unimplemented,
    _calls,
)

NOT_READY = Fault(grpc.StatusCode.UNAVAILABLE, "Still warming up.", "NOT_READY")
Ask: TypeAlias = Callable[..., Any]


@pytest.fixture
def fake() -> Iterator[FakeServer]:
    with serving() as server:
        yield server


def ask_sync(address: str, method: str, *args: Any, client: dict[str, Any] | None = None, **options: Any) -> Any:
    with Client(address, **(client or {})) as opened:
        answer = getattr(opened, method)(*args, **options)
        return list(answer) if isinstance(answer, Iterator) else answer


def ask_asyncio(address: str, method: str, *args: Any, client: dict[str, Any] | None = None, **options: Any) -> Any:
    async def main() -> Any:
        async with AsyncClient(address, **(client or {})) as opened:
            answer = getattr(opened, method)(*args, **options)
            return [item async for item in answer] if hasattr(answer, "__aiter__") else await answer

    return asyncio.run(main())


@pytest.fixture(params=[ask_sync, ask_asyncio], ids=["sync", "asyncio"])
def ask(request: pytest.FixtureRequest) -> Ask:
    """Calls a method of a fresh client of either kind, and gives what it returns; of an iterator a list."""
    chosen: Ask = request.param
    return chosen


def test_infer_sends_its_options_and_returns_a_result(fake: FakeServer, ask: Ask) -> None:
    result = ask(
        fake.address,
        "infer",
        png("red"),
        "belt",
        overlay=True,
        heatmap_scale="calibrated",
        score_map=True,
        max_regions=3,
        overlay_format="webp",
        overlay_max_side_px=16,
        expected_revision="abc",
    )
    assert isinstance(result, InferenceResult)
    assert result.anomaly.is_anomalous
    assert result.overlay is not None
    assert (result.overlay.format, result.overlay.size) == ("WEBP", (16, 12))
    np.testing.assert_array_equal(result.score_map, [[0, 1, 2], [3, 4, 5]])
    (request,) = fake.requests["Infer"]
    assert (request.reference_id, request.expected_revision) == ("belt", "abc")
    assert (request.output.overlay, request.output.score_map, request.output.max_regions) == (True, True, 3)
    assert request.output.overlay_format == inference_pb2.OVERLAY_FORMAT_WEBP
    assert request.output.overlay_max_side_px == 16


def test_a_reference_is_loaded_listed_shown_and_deleted(fake: FakeServer, ask: Ask) -> None:
    loaded = ask(fake.address, "load_reference", [png(), png("blue")], "belt", profile="paper", coreset_ratio=0.5)
    assert isinstance(loaded, ReferenceInfo)
    assert (loaded.reference_id, loaded.image_count, loaded.profile) == ("belt", 2, "paper")
    assert fake.requests["LoadReference"][0].coreset.ratio == 0.5
    assert ask(fake.address, "get_reference", "belt") == loaded
    assert ask(fake.address, "list_references") == [loaded]
    assert ask(fake.address, "delete_reference", "belt", expected_revision="x") == loaded.revision
    assert fake.requests["DeleteReference"][0].expected_revision == "x"
    with pytest.raises(NotFound) as caught:
        ask(fake.address, "get_reference", "belt")
    assert (caught.value.reason, caught.value.resource_name) == ("REFERENCE_NOT_FOUND", "belt")


def test_a_search_radius_and_a_region_of_interest_go_both_ways(fake: FakeServer, ask: Ask) -> None:
    region = (((0.1, 0.0), (0.9, 0.0), (0.5, 1.0)), ((0.0, 0.0), (1 / 3, 0.0), (0.0, 0.2)))
    options = {"search_radius": 0.1, "region_of_interest": (iter(polygon) for polygon in region)}
    loaded = ask(fake.address, "load_reference", [png()], "belt", **options)
    (request,) = fake.requests["LoadReference"]
    assert request.search_radius == 0.1
    assert [[(point.x, point.y) for point in polygon.points] for polygon in request.region_of_interest] == [
        list(polygon) for polygon in region
    ]
    assert (loaded.search_radius, loaded.region_of_interest) == (0.1, region)
    assert hash(loaded) == hash(ask(fake.address, "get_reference", "belt"))

    loaded = ask(
        fake.address, "load_reference", [png()], "belt", mode="append", **{**options, "region_of_interest": region}
    )
    (start,) = fake.requests["LoadReferenceStream"]
    assert (start.search_radius, start.region_of_interest) == (0.1, request.region_of_interest)

    loaded = ask(fake.address, "load_reference", [png()])
    assert not fake.requests["LoadReference"][-1].HasField("search_radius")
    assert not fake.requests["LoadReference"][-1].region_of_interest
    assert (loaded.search_radius, loaded.region_of_interest) == (None, ())


def test_a_list_is_fetched_page_by_page(fake: FakeServer, ask: Ask) -> None:
    for name in "edcba":
        fake.references[name] = reference(name, 1)
    assert [one.reference_id for one in ask(fake.address, "list_references")] == list("abcde")
    assert [request.page_token for request in fake.requests["ListReferences"]] == ["", "b", "d"]


def test_loads_under_way_are_listed_by_reference_or_all(fake: FakeServer, ask: Ask) -> None:
    assert ask(fake.address, "list_loads") == []
    fake.loads = [reference_pb2.Load(reference_id=name, steps_done=3) for name in ("belt", "box")]
    (belt,) = ask(fake.address, "list_loads", "belt")
    assert isinstance(belt, LoadProgress)
    assert (belt.reference_id, belt.steps_done) == ("belt", 3)
    assert [load.reference_id for load in ask(fake.address, "list_loads")] == ["belt", "box"]


@pytest.mark.parametrize("images", [png(), bytearray(png()), np.zeros((4, 4, 3), np.uint8)])
def test_a_single_image_is_a_set_of_one(fake: FakeServer, ask: Ask, images: Any) -> None:
    assert ask(fake.address, "load_reference", images).image_count == 1


def test_a_single_path_is_a_set_of_one(fake: FakeServer, ask: Ask, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png())
    for path in (tmp_path / "a.png", str(tmp_path / "a.png")):
        assert ask(fake.address, "load_reference", path).image_count == 1


def test_an_error_tells_what_the_server_told(fake: FakeServer, ask: Ask) -> None:
    with pytest.raises(InvalidArgument) as caught:
        ask(fake.address, "infer", b"no image")
    assert caught.value.reason == "UNDECODABLE_IMAGE"
    assert caught.value.field_violations[0].field == "image"
    assert isinstance(caught.value.__cause__, grpc.RpcError)


@pytest.mark.parametrize(
    ("method", "args", "rpc"),
    [
        ("infer", (png(),), "Infer"),
        ("infer", (bytes(2 * 2**20),), "Infer"),  # more than gRPC buffers for a retry unless told to
        ("load_reference", ([png()],), "LoadReference"),
        ("server_info", (), "GetServerInfo"),
        ("list_references", (), "ListReferences"),
        ("list_loads", (), "ListLoads"),
    ],
)
def test_what_is_safe_to_repeat_is_repeated(
    fake: FakeServer, ask: Ask, method: str, args: tuple[Any, ...], rpc: str
) -> None:
    fake.fail(rpc, NOT_READY, times=2)
    try:
        ask(fake.address, method, *args)
    except InvalidArgument:
        assert args == (bytes(2 * 2**20),)  # arrived, and was found to be no image
    assert len(fake.requests[rpc]) == 3


def test_repeating_ends(fake: FakeServer, ask: Ask) -> None:
    fake.fail("Infer", NOT_READY, times=9)
    with pytest.raises(Unavailable) as caught:
        ask(fake.address, "infer", png())
    assert caught.value.reason == "NOT_READY"
    assert len(fake.requests["Infer"]) == 4


def test_only_unavailable_is_repeated(fake: FakeServer, ask: Ask) -> None:
    fake.fail("Infer", Fault(grpc.StatusCode.RESOURCE_EXHAUSTED, "Full.", "QUEUE_FULL"))
    with pytest.raises(ResourceExhausted):
        ask(fake.address, "infer", png())
    assert len(fake.requests["Infer"]) == 1


def test_a_delete_is_not_repeated(fake: FakeServer, ask: Ask) -> None:
    fake.fail("DeleteReference", NOT_READY)
    with pytest.raises(Unavailable):
        ask(fake.address, "delete_reference", "belt")
    assert len(fake.requests["DeleteReference"]) == 1


def test_an_append_is_repeated_only_where_it_names_the_revision(fake: FakeServer, ask: Ask) -> None:
    fake.fail("LoadReference", NOT_READY)
    ask(fake.address, "load_reference", [png()], mode="append", expected_revision="abc")
    assert len(fake.requests["LoadReference"]) == 2
    assert not fake.requests["LoadReferenceStream"]
    fake.fail("LoadReferenceStream", NOT_READY)
    with pytest.raises(Unavailable) as caught:
        ask(fake.address, "load_reference", [png()], mode="append")
    assert caught.value.reason == "NOT_READY"
    assert len(fake.requests["LoadReferenceStream"]) == 1


def test_an_append_adds(fake: FakeServer, ask: Ask) -> None:
    ask(fake.address, "load_reference", [png(), png()])
    assert ask(fake.address, "load_reference", [png()], mode="append").image_count == 3


def test_a_set_over_one_message_is_streamed_without_being_held(
    fake: FakeServer, ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = len(png())
    monkeypatch.setattr(_calls, "UNARY_LOAD_BYTES", 3 * size)
    assert ask(fake.address, "load_reference", [png()] * 3, "small").image_count == 3
    assert not fake.requests["LoadReferenceStream"]
    assert ask(fake.address, "load_reference", (png() for _ in range(5)), "large", profile="paper").image_count == 5
    (start,) = fake.requests["LoadReferenceStream"]
    assert (start.reference_id, len(start.images)) == ("large", 0)
    assert fake.references["large"].profile == start.profile


@pytest.mark.parametrize("mode", ["replace", "append"])
def test_a_set_that_breaks_off_is_not_loaded(fake: FakeServer, ask: Ask, mode: str) -> None:
    def images() -> Iterator[bytes]:
        yield png()
        yield png()
        raise LookupError("the third is missing")

    fake.build_s = 30
    with pytest.raises(LookupError, match="third"):
        ask(fake.address, "load_reference", images(), mode=mode)
    if mode == "append":  # by stream: the server has seen the first ones
        assert fake.stream_ended.wait(10)
        assert fake.load_cancelled
    assert not fake.references


def test_a_streamed_load_tells_the_servers_own_error(fake: FakeServer, ask: Ask) -> None:
    for _ in range(10):  # the server ends the call while images are on their way: every order of events must do
        fake.fail("LoadReferenceStream", Fault(grpc.StatusCode.FAILED_PRECONDITION, "Other weights.", "BANK_MISMATCH"))
        with pytest.raises(FailedPrecondition) as caught:
            ask(fake.address, "load_reference", [bytes(200_000)] * 20, mode="append")
        assert caught.value.reason == "BANK_MISMATCH"


@pytest.mark.parametrize("mode", ["replace", "append"])
def test_a_load_ends_at_its_deadline(fake: FakeServer, ask: Ask, mode: str) -> None:
    fake.delay_s = 30
    with pytest.raises(DeadlineExceeded):
        ask(fake.address, "load_reference", [png()], mode=mode, client={"load_timeout_s": 0.2})
    with pytest.raises(DeadlineExceeded):
        ask(fake.address, "load_reference", [png()], mode=mode, timeout_s=0.2)


def test_a_call_ends_at_its_deadline(fake: FakeServer, ask: Ask) -> None:
    fake.delay_s = 30
    with pytest.raises(DeadlineExceeded, match=r"127\.0\.0\.1"):
        ask(fake.address, "infer", png(), client={"timeout_s": 0.2})
    with pytest.raises(DeadlineExceeded):
        ask(fake.address, "server_info", timeout_s=0.2)


def test_the_token_goes_with_every_call_and_is_not_shown(fake: FakeServer, ask: Ask) -> None:
    client = {"token": "s3cret"}
    ask(fake.address, "load_reference", [png()], client=client)
    ask(fake.address, "load_reference", [png()], mode="append", client=client)
    ask(fake.address, "infer", png(), client=client)
    if ask is ask_sync:
        ask(fake.address, "infer_stream", [png()], client=client)
    assert {seen["authorization"] for seen in fake.metadata} == {"Bearer s3cret"}
    with Client(fake.address, token="s3cret") as opened:
        assert "s3cret" not in repr(opened) + repr(vars(opened))
    ask(fake.address, "server_info")
    assert "authorization" not in fake.metadata[-1]


def test_a_token_may_come_from_a_function_and_is_asked_for_with_every_call(fake: FakeServer, ask: Ask) -> None:
    tokens = iter(["first", "second", ""])
    client = {"token": lambda: next(tokens)}
    for expected in ("Bearer first", "Bearer second", None):
        ask(fake.address, "server_info", client=client)
        assert fake.metadata[-1].get("authorization") == expected


@pytest.mark.parametrize("server", ["192.0.2.1:50051", "example.test:50051", "[2001:db8::1]:1", "dns:///localhost:1"])
def test_a_token_goes_unencrypted_to_this_machine_only(server: str) -> None:
    for token in ("s3cret", lambda: "s3cret"):
        with pytest.raises(ValueError, match="unencrypted") as caught:
            Client(server, token=token)
        assert "s3cret" not in str(caught.value)
        Client(server, token=token, tls=TlsConfig()).close()
        Client(server, token=token, insecure_token=True).close()
    Client(server).close()
    for here in ("localhost:1", "127.0.0.1:1", "[::1]:1"):
        Client(here, token="s3cret").close()


def test_a_message_over_the_limit_is_refused_here(fake: FakeServer, ask: Ask) -> None:
    with pytest.raises(ResourceExhausted):
        ask(fake.address, "infer", bytes(2 * 2**20), client={"max_message_mib": 1})
    assert not fake.requests["Infer"]


def test_a_message_over_grpcs_own_limit_passes_both_ways(fake: FakeServer, ask: Ask) -> None:
    large = bytes(5 * 2**20)
    with pytest.raises(InvalidArgument):  # it arrived, and is no image
        ask(fake.address, "infer", large)
    fake.overlay = large
    assert ask(fake.address, "infer", png(), overlay=True).encoded_overlay.data == large


def test_health_tells_alive_from_ready(fake: FakeServer, ask: Ask) -> None:
    assert ask(fake.address, "health") == Health(alive=True, ready=True)
    asyncio.run(fake.health.set(SERVICE, NOT_SERVING))
    assert ask(fake.address, "health") == Health(alive=True, ready=False)
    fake.health._server_status.pop(SERVICE)
    assert ask(fake.address, "health") == Health(alive=True, ready=False)


def test_no_server_is_said_with_its_name(ask: Ask) -> None:
    with pytest.raises(Unavailable, match="No server answers at localhost:1: ") as caught:
        ask("localhost:1", "health")
    assert caught.value.reason == ""


def test_another_service_at_the_address_is_said(ask: Ask) -> None:
    server = grpc.server(thread_pool=None)  # type: ignore[arg-type]
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        with pytest.raises(Unimplemented):
            ask(f"127.0.0.1:{port}", "server_info")
    finally:
        server.stop(None)


@pytest.mark.parametrize("address", ["", "http://localhost:50051", "https://example.com"])
def test_an_address_that_is_no_host_and_port_is_refused(address: str) -> None:
    with pytest.raises(ValueError, match="HOST:PORT"):
        Client(address)


def test_this_machines_ports_are_not_asked_of_a_proxy(fake: FakeServer) -> None:
    code = f"from patchserve_client import Client; print(Client({fake.address!r}, timeout_s=20).health())"
    environment = {**os.environ, "http_proxy": "http://127.0.0.1:1", "grpc_proxy": "http://127.0.0.1:1"}
    for name in ("no_proxy", "NO_PROXY", "no_grpc_proxy"):
        environment.pop(name, None)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, env=environment)
    assert done.stdout == "Health(alive=True, ready=True)\n", done.stderr


async def test_the_loop_runs_while_an_image_is_read(fake: FakeServer) -> None:
    """A pipe that nobody has written to yet stands for a slow disk: only a free loop can write to it."""
    reading, writing = os.pipe()
    async with AsyncClient(fake.address) as client:
        pending = asyncio.create_task(client.infer(f"/dev/fd/{reading}"))
        await asyncio.sleep(0)
        with os.fdopen(writing, "wb") as pipe:
            pipe.write(png())
        assert (await pending).reference_id == "default"
    os.close(reading)


async def test_a_cancelled_task_is_cancelled_and_a_closed_client_says_so(fake: FakeServer) -> None:
    fake.delay_s = 30
    client = AsyncClient(fake.address)
    waiting = asyncio.create_task(client.infer(png()))
    await asyncio.to_thread(fake.wait_for_request, "Infer")
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    waiting = asyncio.create_task(client.infer(png()))
    await asyncio.to_thread(fake.wait_for_request, "Infer", 2)
    await client.close()
    with pytest.raises(Cancelled):
        await waiting


@pytest.fixture(scope="module")
def pem(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A certificate for localhost that signs itself, good for both sides, and its key."""
    folder = tmp_path_factory.mktemp("tls")
    files = {"cert": folder / "cert.pem", "key": folder / "key.pem"}
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    command += ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-days", "2"]
    try:
        subprocess.run([*command, "-out", files["cert"], "-keyout", files["key"]], capture_output=True, check=True)
    except FileNotFoundError:
        pytest.skip("openssl is not installed: there is no certificate to test with")
    return files


def test_tls_and_mutual_tls(pem: dict[str, Path], ask: Ask) -> None:
    pair = (pem["key"].read_bytes(), pem["cert"].read_bytes())
    credentials = grpc.ssl_server_credentials([pair], root_certificates=pair[1], require_client_auth=True)
    with serving(credentials) as fake:
        both = TlsConfig(ca_file=pem["cert"], cert_file=pem["cert"], key_file=pem["key"])
        assert ask(fake.address, "health", client={"tls": both}) == Health(alive=True, ready=True)
        for wrong in (None, TlsConfig(), TlsConfig(ca_file=pem["cert"])):
            with pytest.raises(PatchserveError):
                ask(fake.address, "health", client={"tls": wrong})


def test_half_a_certificate_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="key_file"):
        TlsConfig(cert_file="cert.pem")
    with pytest.raises(FileNotFoundError):
        Client("localhost:1", tls=TlsConfig(ca_file=tmp_path / "missing.pem"))
