"""SIGKILL at random moments of loads and appends: what comes back is whole, the old revision or the new."""

from __future__ import annotations

import asyncio
import random
import signal
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

from grpc import aio

from patchserve.v1 import inference_pb2, reference_pb2
from reliability.scene import GOOD, Result, Stub, client, progress, server

_REFERENCES = ("a", "b", "c")
_LONGEST_S = 1.5


@dataclass
class _Known:
    """What may be found of one reference: what was acknowledged last, and what was asked for and not answered."""

    revision: str = ""
    images: int = 0
    asked: int | None = None  # how many images the reference has if the last call took effect
    problems: list[str] = field(default_factory=list)

    def check(self, found: reference_pb2.Reference | None) -> None:
        if found is None:
            if self.revision:
                self.problems.append("an acknowledged revision is gone")
        elif found.revision != self.revision and (self.asked is None or found.image_count != self.asked):
            self.problems.append(f"{found.image_count} images where {self.images} or {self.asked} were to be")
        elif found.revision == self.revision and found.image_count != self.images:
            self.problems.append("an old revision of another size")
        self.revision, self.images = (found.revision, found.image_count) if found else ("", 0)
        self.asked = None


async def _change(stub: Stub, name: str, known: _Known, dice: random.Random) -> None:
    """Loads and appends until the connection breaks."""
    while True:
        append = bool(known.revision) and known.images < 5 and dice.random() < 0.6
        images = dice.sample(GOOD, dice.randint(1, 2))
        mode = reference_pb2.LOAD_MODE_APPEND if append else reference_pb2.LOAD_MODE_REPLACE
        known.asked = len(images) + (known.images if append else 0)
        request = reference_pb2.LoadReferenceRequest(reference_id=name, images=images, mode=mode)
        try:
            loaded = (await stub.LoadReference(request)).reference
        except aio.AioRpcError:
            return
        known.revision, known.images, known.asked = loaded.revision, loaded.image_count, None


async def _found(stub: Stub, known: dict[str, _Known]) -> None:
    listed = (await stub.ListReferences(reference_pb2.ListReferencesRequest())).references
    found = {reference.reference_id: reference for reference in listed}
    for name, expected in known.items():
        expected.check(found.get(name))
        if name in found:
            answer = await stub.Infer(inference_pb2.InferRequest(reference_id=name, image=GOOD[0]), timeout=60)
            if answer.reference_revision != found[name].revision:
                expected.problems.append("an answer of another revision")


async def run(count: int, seed: int = 0) -> Result:
    dice, known = random.Random(seed), {name: _Known() for name in _REFERENCES}
    kept = changed = 0
    begun = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder, progress() as bar:
        task = bar.add_task("kill", total=count)
        for _ in range(count + 1):  # the last one only looks
            async with server("--store", str(Path(folder) / "store")) as running, client(running.address) as stub:
                before = {name: one.revision for name, one in known.items()}
                await _found(stub, known)
                kept += sum(known[name].revision == revision for name, revision in before.items())
                changed += sum(known[name].revision != revision for name, revision in before.items())
                if "is not served" in running.log:
                    next(iter(known.values())).problems.append(running.log)
                changes = [asyncio.create_task(_change(stub, name, one, dice)) for name, one in known.items()]
                await asyncio.sleep(dice.random() * _LONGEST_S)
                await running.stop(signal.SIGKILL)
                await asyncio.gather(*changes)
            bar.advance(task)
    return {
        "kills": count,
        "found_as_acknowledged": kept,
        "found_as_asked_for": changed,
        "problems": [problem for one in known.values() for problem in one.problems],
        "took_s": time.perf_counter() - begun,
    }
