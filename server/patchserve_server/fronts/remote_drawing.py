"""Drawing by the engine of another process."""

from __future__ import annotations

from patchserve_server.domain.overlay_drawing import OverlayDrawing
from patchserve_server.fronts.codec_messages import drawing_message, raise_if_undone
from patchserve_server.fronts.devices import Devices
from patchserve_server.serving.fairness import FlowKey


class RemoteDrawing:
    """Implements `engine_ports.Drawing` over the link to the device that has least to do: any of them can draw."""

    def __init__(self, devices: Devices) -> None:
        self._devices = devices

    async def draw(self, drawing: OverlayDrawing, flow: FlowKey) -> bytes:
        head, body = drawing_message(drawing)
        device = self._devices.least_busy()
        device.in_progress += 1
        try:
            answer, data = await device.link.ask(
                {"do": "draw", "client": flow.client, "stream": flow.stream, **head}, body
            )
        finally:
            device.in_progress -= 1
        raise_if_undone(answer)
        return data
