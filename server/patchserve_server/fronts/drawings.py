"""The engine's end of what one front lets it draw."""

from __future__ import annotations

from patchserve_server.domain.jpeg_file import DeviceCodecError
from patchserve_server.fronts.codec_messages import drawing_from, undone
from patchserve_server.fronts.flows import SessionFlows
from patchserve_server.fronts.frames import Body, Head
from patchserve_server.serving.engine_ports import Drawing


class Drawings:
    """Draws for a front.

    Args:
        drawing: draws, in turn between the clients of all fronts.
        flows: of the front.
    """

    def __init__(self, drawing: Drawing, flows: SessionFlows) -> None:
        self._drawing = drawing
        self._flows = flows
        self.answers = {"draw": self._draw}

    async def _draw(self, request: Head, body: bytes) -> tuple[Head, Body]:
        try:
            return {}, await self._drawing.draw(drawing_from(request, body), self._flows.of(request))
        except DeviceCodecError as error:
            return undone(error), b""
