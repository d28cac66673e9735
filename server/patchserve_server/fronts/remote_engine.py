"""A front's end of its link to the engine."""

from __future__ import annotations

import asyncio
import itertools
import ssl

from patchserve_server.domain.errors import EngineLostError
from patchserve_server.domain.events import Events
from patchserve_server.domain.ports import DetectorInfo
from patchserve_server.fronts.devices import Devices
from patchserve_server.fronts.endpoints import connect
from patchserve_server.fronts.frames import Body, Head
from patchserve_server.fronts.link import MISSES, WATCH_S, Link
from patchserve_server.fronts.pixels import SharedPixels
from patchserve_server.fronts.remote_drawing import RemoteDrawing
from patchserve_server.fronts.remote_drift import RemoteDrift
from patchserve_server.fronts.remote_loads import RemoteLoads, RemoteReferenceImages
from patchserve_server.fronts.remote_references import RemoteReferences
from patchserve_server.fronts.remote_scoring import RemoteScoring
from patchserve_server.fronts.remote_transfer import RemoteTransfer
from patchserve_server.serving.peers import Answer, Peers, Question
from patchserve_server.serving.values import from_json_bytes


class RemoteEngine:
    """The engine, from `connect` until `lost`. Then another one is made.

    Args:
        pixels: the memory that this front shares with it; None: it is on another machine.
        events: hears of changes of references.
        peers: the other fronts, which can be reached through it.
        devices: those of other processes; that of this engine is added.
    """

    def __init__(
        self, pixels: SharedPixels | None, events: Events, peers: Peers, devices: Devices | None = None
    ) -> None:
        self._peers = peers
        self.limits: dict[str, int] = {}  # those of ServerLimits that are the engine's, by name
        self.lost = asyncio.Event()
        self.link = Link(self, self.lost.set)
        self._pixels = pixels
        self._devices = devices or Devices()
        self.references = RemoteReferences(self.link, events, self._devices)
        self.scoring = RemoteScoring()
        self.drawing = RemoteDrawing(self._devices)
        self.loads = RemoteLoads(self.link)
        self.transfer = RemoteTransfer(self.link)
        self.drift = RemoteDrift(self.link)
        self.reference_images = RemoteReferenceImages(self.link, self.references)

    async def connect(
        self, address: str, *, version: str, front: int | None, tls: ssl.SSLContext | None = None
    ) -> DetectorInfo:
        """Connects to the engine, and learns of all references that it knows. Returns the description of its detector.

        Args:
            address: of the engine.
            version: of this front.
            front: its number, if it shares memory with the engine.
            tls: for an engine on another machine; None: plain text.

        Raises:
            OSError: nobody listens there, or does not answer for a while.
            UnavailableError: it has another version, or ended meanwhile.
        """
        hello: Head = {"do": "hello", "version": version, "pixels": front}
        async with asyncio.timeout(WATCH_S * MISSES):
            await connect(self.link.connection, address, tls)
            answer, body = await self.link.ask(hello)
        self.limits = answer["limits"]
        self.references.knows_all = bool(answer["knows_all"])
        self._peers.line = self
        self._devices.add(self.link, self._pixels)
        self.link.watch()
        return from_json_bytes(DetectorInfo, body)

    async def answer(self, request: Head, _body: bytes, /) -> tuple[Head, Body]:
        if request["do"] == "answer":
            answer, body = await self._peers.answer(request["name"], request["question"])
            return {"answer": answer}, body
        return {}, b""  # to `acknowledge`: what was told before is known

    def told(self, message: Head, body: bytes) -> None:
        if message["tell"] == "known":
            self.references.learn(message, body)
        elif message["tell"] == "drift":
            self.drift.learn(message, body)
        elif message["tell"] == "others":
            self._peers.hear(message["name"], body)

    async def ask_others(self, name: str, question: Question) -> list[Answer]:
        """What the other fronts answer; nothing if the engine is lost."""
        try:
            head, body = await self.link.ask({"do": "ask_others", "name": name, "question": question})
        except EngineLostError:
            return []
        ends = itertools.accumulate(head["sizes"])
        return [
            (answer, body[end - size : end])
            for answer, size, end in zip(head["answers"], head["sizes"], ends, strict=True)
        ]

    def tell_others(self, name: str, body: bytes) -> None:
        self.link.tell({"tell": "others", "name": name}, body)

    def close(self) -> None:
        """Ends the link."""
        if self._peers.line is self:
            self._peers.line = None
        self.link.close()
