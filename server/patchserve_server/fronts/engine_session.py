"""The engine's end of the link to one front: what the front may ask for, and what is held for it."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from patchserve_server.domain.ports import DetectorInfo
from patchserve_server.domain.reference_id import ReferenceId, Revision
from patchserve_server.domain.reference_image import NamedImage
from patchserve_server.fronts.connected_fronts import ConnectedFronts
from patchserve_server.fronts.drawings import Drawings
from patchserve_server.fronts.engine_transfers import EngineTransfers
from patchserve_server.fronts.flows import SessionFlows
from patchserve_server.fronts.frames import Body, Head
from patchserve_server.fronts.incoming import Incoming
from patchserve_server.fronts.pinned_scores import PinnedScores
from patchserve_server.fronts.pixels import SharedPixels
from patchserve_server.fronts.remote_drift import drift_message
from patchserve_server.fronts.session import Session
from patchserve_server.serving.admission import Admission, Capacity
from patchserve_server.serving.batching import Batcher
from patchserve_server.serving.catalog import Catalog
from patchserve_server.serving.drift import DriftWatch
from patchserve_server.serving.engine_ports import Drawing
from patchserve_server.serving.reference_builder import LoadOptions, ReferenceBuilder
from patchserve_server.serving.reference_images import ReferenceImages
from patchserve_server.serving.reference_transfer import ReferenceTransfer
from patchserve_server.serving.values import body_of, from_json_bytes

_EVERYTHING: Final = Capacity(2**62, 2**62)  # the front has admitted it


@dataclass(frozen=True, slots=True, eq=False)
class Engine:
    """What an engine process has.

    Args:
        version: of the server.
        detector: the description of its detector.
        catalog: of all references.
        batcher: scores, in turn between the clients of all fronts.
        drawing: draws, likewise; None: its device does not decode.
        builder: makes references.
        reference_images: reads the images of references.
        transfer: writes and reads references as single files.
        drift: gets the scores of all fronts.
        fronts: all that are connected.
        limits: those of ServerLimits that are the engine's, by name.
        pixels: the memory that is shared with each front of this machine, by the front's number.
        session_numbers: of the sessions.
    """

    version: str
    detector: DetectorInfo
    catalog: Catalog
    batcher: Batcher
    drawing: Drawing | None
    builder: ReferenceBuilder
    reference_images: ReferenceImages
    transfer: ReferenceTransfer
    drift: DriftWatch
    fronts: ConnectedFronts
    limits: Mapping[str, int] = field(default_factory=dict)
    pixels: Sequence[SharedPixels] = ()
    session_numbers: Iterator[int] = field(default_factory=itertools.count)


class EngineSession(Session):
    """Answers one front. When its link ends, everything that is held for it is released."""

    def __init__(self, engine: Engine) -> None:
        flows = SessionFlows(next(engine.session_numbers))
        drawings = None if engine.drawing is None else Drawings(engine.drawing, flows)
        super().__init__(
            engine.version, PinnedScores(engine.catalog.use, engine.batcher, flows), drawings, engine.pixels
        )
        self._engine = engine
        self._loads: dict[int, Incoming[NamedImage]] = {}
        self._admission = Admission("image", _EVERYTHING, share=1, largest=_EVERYTHING)
        self._transfers = EngineTransfers(engine.transfer)
        self._answers |= {
            "info": self._info,
            "has": self._has,
            "sync": self._sync,
            "page": self._page,
            "store_status": self._store_status,
            "load": self._load,
            "load_image": self._load_image,
            "load_end": self._load_end,
            "list_loads": self._list_loads,
            "reference_image": self._reference_image,
            "tune": self._tune,
            "restore": self._restore,
            "history": self._history,
            "delete": self._delete,
            "ask_others": self._ask_others,
            **self._transfers.answers,
        }

    def _told(self, message: Head, body: bytes) -> None:
        match message["tell"]:
            case "scored":
                reference_id, revision = ReferenceId(message["id"]), Revision(message["revision"])
                self._engine.drift.add(reference_id, revision, message["score"])
            case "export_end":
                self._transfers.end_export(message["export"])
            case "others":
                self._engine.fronts.tell_others(self.link, message, body)

    def _welcome(self) -> tuple[Head, Body]:
        self._engine.fronts.add(self.link)
        for known in self._engine.drift.known():
            self.link.tell(*drift_message(*known))
        head = {"knows_all": self._engine.catalog.shared is None, "limits": self._engine.limits}
        return head, body_of(self._engine.detector)

    async def _info(self, request: Head, _: bytes) -> tuple[Head, Body]:
        reference_id, expected = ReferenceId(request["id"]), _revision(request["expected"])
        return {}, body_of(await self._engine.catalog.info(reference_id, expected))

    async def _sync(self, _request: Head, _body: bytes) -> tuple[Head, Body]:
        """What was told before is known when this is answered."""
        return {}, b""

    async def _has(self, request: Head, _: bytes) -> tuple[Head, Body]:
        return {"has": await self._engine.catalog.has(ReferenceId(request["id"]))}, b""

    async def _page(self, request: Head, _: bytes) -> tuple[Head, Body]:
        infos, has_more = await self._engine.catalog.page(request["after"], request["size"])
        return {"has_more": has_more}, body_of(infos)

    async def _store_status(self, _request: Head, _: bytes) -> tuple[Head, Body]:
        return {}, body_of(await self._engine.catalog.store_status())

    async def _load(self, request: Head, body: bytes) -> tuple[Head, Body]:
        options, number = from_json_bytes(LoadOptions, body), request["load"]
        load = self._loads[number] = Incoming[NamedImage]()
        try:
            return {}, body_of(await self._engine.builder.load(options, load.items(), request["total"]))
        finally:
            del self._loads[number]

    async def _load_image(self, request: Head, body: bytes) -> tuple[Head, Body]:
        if (load := self._loads.get(request["load"])) is not None:  # else it has ended, and the front is told why
            await load.put(NamedImage(body, request["name"]))
        return {}, b""

    async def _load_end(self, request: Head, _: bytes) -> tuple[Head, Body]:
        if (load := self._loads.get(request["load"])) is not None:
            load.end()
        return {}, b""

    async def _list_loads(self, request: Head, _: bytes) -> tuple[Head, Body]:
        reference_id = None if request["id"] is None else ReferenceId(request["id"])
        return {}, body_of(self._engine.builder.active_loads(reference_id))

    async def _reference_image(self, request: Head, _: bytes) -> tuple[Head, Body]:
        with self._admission.permit(request["client"]) as permit:
            image = await self._engine.reference_images.read(
                permit, ReferenceId(request["id"]), request["index"], _revision(request["expected"])
            )
        return {"name": image.name, "revision": image.revision}, image.png

    async def _tune(self, request: Head, _: bytes) -> tuple[Head, Body]:
        reference_id, expected = ReferenceId(request["id"]), _revision(request["expected"])
        return {}, body_of(await self._engine.catalog.tune(reference_id, request["sensitivity"], expected))

    async def _restore(self, request: Head, _: bytes) -> tuple[Head, Body]:
        revision, expected = _revision(request["revision"]), _revision(request["expected"])
        return {}, body_of(await self._engine.catalog.restore(ReferenceId(request["id"]), revision, expected))

    async def _history(self, request: Head, _: bytes) -> tuple[Head, Body]:
        return {}, body_of(await self._engine.catalog.history(ReferenceId(request["id"])))

    async def _delete(self, request: Head, _: bytes) -> tuple[Head, Body]:
        reference_id, expected = ReferenceId(request["id"]), _revision(request["expected"])
        return {"revision": await self._engine.catalog.delete(reference_id, expected)}, b""

    async def _ask_others(self, request: Head, _: bytes) -> tuple[Head, Body]:
        question = {"do": "answer", "name": request["name"], "question": request["question"]}
        answers = await self._engine.fronts.ask_others(self.link, question)
        head: Head = {
            "answers": [answer["answer"] for answer, _ in answers],
            "sizes": [len(body) for _, body in answers],
        }
        return head, b"".join(body for _, body in answers)

    def _ended(self) -> None:
        super()._ended()
        self._engine.fronts.discard(self.link)
        self._transfers.end_all()


def _revision(text: Any) -> Revision | None:  # noqa: ANN401 - of a message
    return None if text is None else Revision(text)
