"""SIGKILL at random moments of loads and appends: every reference is complete, in its old or its new revision."""

from __future__ import annotations

import asyncio
import random
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

from grpc import aio

from patchserve.v1 import inference_pb2, reference_pb2
from reliability.harness import GOOD, Result, Stub, client, progress, server

_REFERENCES = ("a", "b", "c")
_MAX_WAIT_S = 1.5


@dataclass
class _Expected:
    """The two states that a reference may have: the last acknowledged one, and that of the call in progress."""

    revision: str = ""
    images: int = 0
    pending_images: int | None = None  # image count if the call in progress took effect
    problems: list[str] = field(default_factory=list)

    def check(self, actual: reference_pb2.Reference | None) -> None:
        if actual is None:
            if self.revision:
                self.problems.append("an acknowledged revision is missing")
        elif actual.revision != self.revision and actual.image_count != self.pending_images:
            self.problems.append(f"{actual.image_count} images instead of {self.images} or {self.pending_images}")
        elif actual.revision == self.revision and actual.image_count != self.images:
            self.problems.append("the acknowledged revision has another image count")
        self.revision, self.images = (actual.revision, actual.image_count) if actual else ("", 0)
        self.pending_images = None


async def _change(stub: Stub, name: str, expected: _Expected, rng: random.Random) -> None:
    """Load and append until the connection breaks."""
    while True:
        append = bool(expected.revision) and expected.images < 5 and rng.random() < 0.6
        images = rng.sample(GOOD, rng.randint(1, 2))
        mode = reference_pb2.LOAD_MODE_APPEND if append else reference_pb2.LOAD_MODE_REPLACE
        expected.pending_images = len(images) + (expected.images if append else 0)
        request = reference_pb2.LoadReferenceRequest(reference_id=name, images=images, mode=mode)
        try:
            loaded = (await stub.LoadReference(request)).reference
        except aio.AioRpcError:
            return
        expected.revision, expected.images, expected.pending_images = loaded.revision, loaded.image_count, None


async def _check_all(stub: Stub, expected: dict[str, _Expected]) -> None:
    listed = (await stub.ListReferences(reference_pb2.ListReferencesRequest())).references
    actual = {reference.reference_id: reference for reference in listed}
    for name, state in expected.items():
        state.check(actual.get(name))
        if name in actual:
            response = await stub.Infer(inference_pb2.InferRequest(reference_id=name, image=GOOD[0]), timeout=60)
            if response.reference_revision != actual[name].revision:
                state.problems.append("a response from another revision")


async def run(count: int, seed: int = 0) -> Result:
    rng, expected = random.Random(seed), {name: _Expected() for name in _REFERENCES}
    acknowledged = pending = 0
    started_s = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder, progress() as bar:
        bar_task = bar.add_task("kill", total=count)
        for _ in range(count + 1):  # the last start only checks
            async with server("--store", str(Path(folder) / "store")) as running, client(running.address) as stub:
                before = {name: state.revision for name, state in expected.items()}
                await _check_all(stub, expected)
                acknowledged += sum(expected[name].revision == revision for name, revision in before.items())
                pending += sum(expected[name].revision != revision for name, revision in before.items())
                if "is not served" in running.log:
                    next(iter(expected.values())).problems.append(running.log)
                changes = [asyncio.create_task(_change(stub, name, state, rng)) for name, state in expected.items()]
                await asyncio.sleep(rng.random() * _MAX_WAIT_S)
                await running.kill()
                await asyncio.gather(*changes)
            bar.advance(bar_task)
    return {
        "kills": count,
        "found_as_acknowledged": acknowledged,
        "found_as_requested": pending,
        "problems": [problem for state in expected.values() for problem in state.problems],
        "took_s": time.perf_counter() - started_s,
    }
