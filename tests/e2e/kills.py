"""Servers on one store are killed again and again while callers change references.

    python -m e2e.kills --kills 200

with tests/ on the path does it with three servers, SeaweedFS and Envoy, and prints what it saw.
"""

from __future__ import annotations

import argparse
import random
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import grpc
from e2e.replicas import Replica, Replicas, replicas
from fakes.images import card, encoded
from fakes.object_servers import seaweedfs_server

from patchserve.v1 import inference_pb2, reference_pb2
from patchserve_client import (
    Aborted,
    Client,
    DeadlineExceeded,
    FailedPrecondition,
    NotFound,
    TlsConfig,
    Unavailable,
)

POLL_S = 2.3  # the longest time from one poll to the next
SERVES_DELETED_S = POLL_S + 1.0
UNKNOWN = (Unavailable, DeadlineExceeded)  # the change may have been made
FLAGS = ("--client-share", "1", "--max-pending-loads", "32")  # all callers have the address of Envoy
_IMAGES = [encoded(card(seed), "PNG") for seed in range(6)]


@dataclass
class Caller:
    """Changes one reference, and knows how many images it may have now. 0: there is no such reference."""

    reference_id: str
    client: Client
    rng: random.Random
    allowed: set[int] = field(default_factory=lambda: {0})
    revision: str = ""  # of the last answered load; empty: not known
    outcomes: Counter[str] = field(default_factory=Counter)
    deleted: Callable[[str], None] = lambda _reference_id: None

    def change(self) -> None:
        """One change of a random kind. What is answered is certain; what is not may have happened."""
        kind = self.rng.choices(("replace", "append", "delete"), (2, 4, 2))[0]
        if kind == "append" and not self.revision:
            kind = "replace"
        try:
            getattr(self, f"_{kind}")()
            self.outcomes[f"{kind}: answered"] += 1
        except UNKNOWN as error:
            self.outcomes[f"{kind}: {type(error).__name__}"] += 1
            self.revision = ""

    def _replace(self) -> None:
        self.allowed = {*self.allowed, 1}
        info = self.client.load_reference([self._image()], self.reference_id)
        self._loaded(info.image_count, {1}, info.revision)

    def _append(self) -> None:
        expected = {count + 1 for count in self.allowed}
        self.allowed = self.allowed | expected
        try:
            info = self.client.load_reference(
                [self._image()], self.reference_id, mode="append", expected_revision=self.revision
            )
        except (Aborted, FailedPrecondition, NotFound) as error:
            # A repeated call finds what the first one did, whose answer was lost.
            self.outcomes[f"append: {type(error).__name__}"] += 1
            self.revision = ""
            return
        self._loaded(info.image_count, expected, info.revision)

    def _delete(self) -> None:
        self.allowed = {*self.allowed, 0}
        try:
            self.client.delete_reference(self.reference_id)
        except NotFound:
            assert 0 in self.allowed
        self.allowed, self.revision = {0}, ""
        self.deleted(self.reference_id)

    def _loaded(self, count: int, expected: set[int], revision: str) -> None:
        assert count in expected, (self.reference_id, count, expected)
        self.allowed, self.revision = {count}, revision

    def _image(self) -> bytes:
        return self.rng.choice(_IMAGES)


@dataclass
class Seen:
    """What came of it."""

    kills: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    lost: list[str] = field(default_factory=list)  # references that are not what was answered
    served_deleted: list[str] = field(default_factory=list)  # answered too long after they were deleted
    seconds: float = 0.0


def kill_and_change(fleet: Replicas, *, kills: int, callers: int = 6, seed: int = 1) -> Seen:
    """Kills random servers while callers change references, and then compares all servers with what was answered."""
    seen, begun_at_s = Seen(), time.monotonic()

    def check_deleted(reference_id: str) -> None:
        """No server may answer for it any more. The caller loads it again only after this."""
        time.sleep(SERVES_DELETED_S)
        deleted_at_s = time.monotonic() - SERVES_DELETED_S
        for server in list(fleet.servers):
            if _image_count(server, reference_id):
                while _image_count(server, reference_id) and time.monotonic() < deleted_at_s + 30:
                    time.sleep(0.1)
                served_s = time.monotonic() - deleted_at_s
                seen.served_deleted.append(f"{reference_id} at {server.address} for {served_s:.1f} s")

    with ExitStack() as stack:
        everyone = [
            Caller(
                f"changed-{number}",
                stack.enter_context(Client(fleet.address, tls=TlsConfig(ca_file=fleet.ca_file), timeout_s=20)),
                random.Random(seed + number),
                deleted=check_deleted,
            )
            for number in range(callers)
        ]
        _change_all(fleet, everyone, kills, random.Random(seed), seen)
    time.sleep(SERVES_DELETED_S)
    for caller in everyone:
        seen.outcomes += caller.outcomes
        for server in fleet.servers:
            count = _image_count(server, caller.reference_id)
            if count not in caller.allowed:
                seen.lost.append(f"{caller.reference_id} at {server.address}: {count} images, not {caller.allowed}")
    seen.seconds = time.monotonic() - begun_at_s
    return seen


def _change_all(fleet: Replicas, everyone: Sequence[Caller], kills: int, rng: random.Random, seen: Seen) -> None:
    ends = threading.Event()

    def run(caller: Caller) -> None:
        while not ends.is_set():
            caller.change()

    with ThreadPoolExecutor(len(everyone)) as pool:
        running = [pool.submit(run, caller) for caller in everyone]
        try:
            while seen.kills < kills and not any(each.done() for each in running):
                server = rng.choice(fleet.servers)
                time.sleep(rng.uniform(0, 0.5))
                fleet.kill(server)
                seen.kills += 1
                fleet.start_again(server)
        finally:
            ends.set()
        for each in running:
            each.result()


def _image_count(server: Replica, reference_id: str) -> int | None:
    """How many images the reference has, after an inspection with it; 0: there is none; None: the server is away."""
    try:
        with server.stub() as stub:
            request = inference_pb2.InferRequest(reference_id=reference_id, image=_IMAGES[0])
            stub.Infer(request, timeout=20)
            described = stub.GetReference(reference_pb2.GetReferenceRequest(reference_id=reference_id), timeout=20)
            return len(described.images)
    except grpc.RpcError as error:
        if error.code() is grpc.StatusCode.NOT_FOUND:
            return 0
        if error.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED):
            return None
        raise


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "store").mkdir()
        with (
            seaweedfs_server(folder / "store") as store,
            replicas(folder, 3, *FLAGS, store_url=store.url("kills"), variables=dict(store.environment)) as fleet,
        ):
            seen = kill_and_change(fleet, kills=arguments.kills, seed=arguments.seed)
    print(f"{seen.kills} kills in {seen.seconds:.0f} s; {sum(seen.outcomes.values())} changes:")
    for outcome, count in sorted(seen.outcomes.items()):
        print(f"  {outcome}: {count}")
    print(f"answered and lost, or half there: {seen.lost or 'none'}")
    print(f"served more than {SERVES_DELETED_S:.1f} s after they were deleted: {seen.served_deleted or 'none'}")


if __name__ == "__main__":
    main()
