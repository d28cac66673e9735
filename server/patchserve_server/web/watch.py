"""`/watch`: the live wall, the images that it keeps, and the latest scores of a reference. For the scope manage."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Final

from google.rpc import status_pb2
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from patchserve.v1 import inference_pb2
from patchserve_server.contract import responses
from patchserve_server.contract.methods import InitialPermit, Method
from patchserve_server.domain.callers import Scope
from patchserve_server.domain.reference_id import DEFAULT_REFERENCE_ID, ReferenceId
from patchserve_server.imaging import media_type_of
from patchserve_server.serving.wall import KeptImage
from patchserve_server.web.calls import Calls, HttpCall
from patchserve_server.web.errors import status_response
from patchserve_server.web.message_json import content_of, json_of
from patchserve_server.web.wall_json import error_event, score_json, snapshot_event, update_event

_WATCH: Final = Method(Scope.MANAGE)  # it shows what other callers send
_INSPECT: Final = Method(Scope.MANAGE, InitialPermit.IMAGE)


def routes(calls: Calls) -> list[BaseRoute]:
    handlers = {
        "/watch/scores": ("WatchScores", _WATCH, _scores),
        "/watch/images/{tile_id}": ("WatchImage", _INSPECT, _image),
        "/watch/inspections/{tile_id}:again": ("WatchInspectAgain", _INSPECT, _inspect_again),
        "/watch/inspections/{tile_id}": ("WatchInspection", _INSPECT, _inspection),
    }
    return [
        Route("/watch/events", calls.events("Watch", _WATCH, _events, status_response, _last_event)),
        *(
            Route(path, calls.endpoint(name, method, handler, status_response))
            for path, (name, method, handler) in handlers.items()
        ),
    ]


async def _events(call: HttpCall) -> AsyncGenerator[bytes]:
    """A snapshot, then an update at most four times a second, until the watcher leaves."""
    wall, reference_id = call.application.wall, _reference_id(call)
    with wall.watch(reference_id) as watcher:
        snapshot = await wall.snapshot(reference_id, call.request.headers.get("last-event-id", ""))
        yield snapshot_event(snapshot, call.application.catalog, wall.event_id)
        while True:
            update = await watcher.update()
            yield update_event(update, wall.event_id)


def _last_event(status: status_pb2.Status) -> bytes:
    return error_event(content_of(status))


async def _scores(call: HttpCall) -> Response:
    """The last scores of a reference with its current bank, the oldest first: with others they are not comparable."""
    application = call.application
    info = await application.catalog.info(_reference_id(call) or DEFAULT_REFERENCE_ID)
    scores = await application.wall.scores(info.reference_id)
    comparable = [score_json(score) for score in scores if score.calibration == info.calibration]
    return JSONResponse({"reference_id": info.reference_id, "scores": comparable})


async def _image(call: HttpCall) -> Response:
    """The image as its caller sent it; as PNG with 8 bits if it is pixels, or was read with a white level."""
    data = await call.application.file_of(call.permit, await _kept(call))
    return Response(data, media_type=media_type_of(data))


async def _inspection(call: HttpCall) -> Response:
    """What the caller was answered, with an overlay for whoever looks at it."""
    inspection = await call.application.inspection_of(call.permit, await _kept(call, with_overlay=True))
    return _json(responses.infer_response(inspection))


async def _inspect_again(call: HttpCall) -> Response:
    """What the answer would be now, at the current revision of the reference."""
    inspection = await call.application.inspect_again(call.permit, await _kept(call))
    return _json(responses.infer_response(inspection))


def _json(message: inference_pb2.InferResponse) -> Response:
    return Response(json_of(message), media_type="application/json")


async def _kept(call: HttpCall, *, with_overlay: bool = False) -> KeptImage:
    return await call.application.wall.image(call.request.path_params["tile_id"], with_overlay=with_overlay)


def _reference_id(call: HttpCall) -> ReferenceId | None:
    text = call.request.query_params.get("reference_id", "")
    return ReferenceId(text) if text else None
