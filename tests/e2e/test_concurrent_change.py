"""Many clients change and use one reference at once."""

from __future__ import annotations

import random
import threading
from collections import Counter
from pathlib import Path

import grpc
from e2e.harness import Stub, connect, refusal
from e2e.in_process import in_process_server
from fakes.gray import gray_png

from patchserve.v1 import inference_pb2, reference_pb2, server_info_pb2

CLIENTS, STEPS = 8, 40
REPLACE, APPEND = reference_pb2.LOAD_MODE_REPLACE, reference_pb2.LOAD_MODE_APPEND
EXPECTED = {
    (grpc.StatusCode.NOT_FOUND, "REFERENCE_NOT_FOUND"),  # somebody deleted it
    (grpc.StatusCode.ABORTED, "REFERENCE_CHANGED"),  # somebody was faster
    (grpc.StatusCode.RESOURCE_EXHAUSTED, "QUEUE_FULL"),  # too many loads at once
}


class Client:
    """Calls at random; records the revisions that it made and the revisions in its responses."""

    def __init__(self, address: str, seed: int) -> None:
        self._address = address
        self._random = random.Random(seed)
        self.made: set[str] = set()
        self.seen: set[str] = set()
        self.refused: Counter[tuple[grpc.StatusCode, str]] = Counter()
        self.failure: BaseException | None = None

    def run(self) -> None:
        try:
            with connect(self._address) as stub:
                for _ in range(STEPS):
                    try:
                        self._step(stub)
                    except grpc.RpcError as error:
                        self.refused[refusal(error)[:2]] += 1
        except BaseException as error:  # noqa: BLE001 - the test shows it
            self.failure = error

    def _step(self, stub: Stub) -> None:
        match self._random.choices(["infer", "load", "append", "tune", "delete"], [10, 4, 3, 3, 1])[0]:
            case "infer":
                answer = stub.Infer(inference_pb2.InferRequest(image=gray_png(100)), timeout=60)
                self.seen.add(answer.reference_revision)
            case "delete":
                stub.DeleteReference(reference_pb2.DeleteReferenceRequest(), timeout=60)
            case "tune":
                tune = reference_pb2.TuneReferenceRequest(sensitivity=self._random.uniform(0.1, 10))
                self.made.add(stub.TuneReference(tune, timeout=60).reference.revision)
            case mode:
                request = reference_pb2.LoadReferenceRequest(
                    images=[gray_png(self._random.randrange(256))], mode=APPEND if mode == "append" else REPLACE
                )
                self.made.add(stub.LoadReference(request, timeout=60).reference.revision)


def test_every_answer_comes_from_a_complete_revision(tmp_path: Path) -> None:
    with in_process_server(store=tmp_path / "store", client_share=1) as address:
        clients = [Client(address, seed) for seed in range(CLIENTS)]
        threads = [threading.Thread(target=client.run) for client in clients]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        with connect(address) as stub:
            last = list(stub.ListReferences(reference_pb2.ListReferencesRequest()).references)
    assert [client.failure for client in clients] == [None] * CLIENTS
    made = set().union(*(client.made for client in clients))
    seen = set().union(*(client.seen for client in clients))
    assert seen
    assert seen <= made
    assert {each.revision for each in last} <= made
    refusals = sum((client.refused for client in clients), Counter[tuple[grpc.StatusCode, str]]())
    assert set(refusals) <= EXPECTED, refusals
    with in_process_server(store=tmp_path / "store") as address, connect(address) as stub:
        again = list(stub.ListReferences(reference_pb2.ListReferencesRequest()).references)
        assert again == last
        assert stub.GetServerInfo(server_info_pb2.GetServerInfoRequest()).version
