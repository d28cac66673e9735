"""The documented HTTP service: its routes, fields, sentences and errors. Its callers change the address only."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any, Final

from google.rpc import error_details_pb2, status_pb2
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from patchserve.v1 import inference_pb2, reference_pb2
from patchserve_server.contract import operations, requests
from patchserve_server.contract.methods import METHODS, PROBE, SERVICE
from patchserve_server.domain.errors import InvalidInputError, ReferenceNotFoundError, UnavailableError
from patchserve_server.domain.reference_id import DEFAULT_REFERENCE_ID
from patchserve_server.serving.application import Application
from patchserve_server.serving.readiness import Readiness
from patchserve_server.web.calls import Calls, HttpCall
from patchserve_server.web.errors import headers_of, http_status, reason_of
from patchserve_server.web.kept_overlays import KeptOverlays
from patchserve_server.web.message_json import content_of
from patchserve_server.web.multipart import Form, FormFile, read_form

SERVICE_NAME: Final = "patchserve"
NOT_LOADED: Final = "Memory bank not loaded"
NO_IMAGE: Final = "No image file provided"
_FIELDS: Final = ("image", "reference_id")
MODELS: Final = {
    "wide_resnet50_2": "WideResNet-50-2",
    "efficientnet_lite2": "EfficientNet-Lite2",
    "dinov2_vits14": "DINOv2 ViT-S/14",
    "dinov2_vits14_reg": "DINOv2 ViT-S/14 with registers",
    "dinov3_vits16": "DINOv3 ViT-S/16",
}
_OURS: Final = ("anomaly", "regions", "reference_id", "reference_revision", "timing")  # as in /v1
_PNG: Final = "image/png"
_ENDPOINTS: Final = {
    "GET /": "This description; the page, for a browser",
    "GET /health": "Whether the server is ready",
    "POST /load_reference": "Build a reference from images of undamaged items (form: image, reference_id)",
    "POST /infer": "Inspect an image; answers with the overlay as PNG (form: image, reference_id)",
    "POST /infer_json": "Inspect an image; answers with JSON (form: image, reference_id)",
    "GET /outputs/{output_image}": "The overlay that /infer_json names; kept for a while",
    "GET /openapi.json": "All other endpoints",
}


def error_response(status: status_pb2.Status) -> JSONResponse:
    content = {"status": "error", "error": _sentence(status), "reason": reason_of(status)}
    return JSONResponse(content, http_status(status), headers_of(status))


def routes(calls: Calls, readiness: Readiness, overlays: KeptOverlays) -> list[BaseRoute]:
    async def health(_: Request) -> JSONResponse:
        try:
            application = readiness.application
        except UnavailableError:
            return JSONResponse({"status": "starting"}, HTTPStatus.SERVICE_UNAVAILABLE)
        if readiness.is_serving:
            return JSONResponse({"status": "healthy", **await _state(application)})
        return JSONResponse({"status": "draining", **await _state(application)}, HTTPStatus.SERVICE_UNAVAILABLE)

    async def infer_json(call: HttpCall) -> Response:
        response = await _infer(call)
        name = overlays.add(call.client, response.overlay_png)
        return JSONResponse(_infer_content(response, name))

    async def output(call: HttpCall) -> Response:
        return Response(await overlays.find(call.request.path_params["name"]), media_type=_PNG)

    info, load, infer = (METHODS[f"/{SERVICE}/{name}"] for name in ("GetServerInfo", "LoadReference", "Infer"))
    return [
        Route("/health", calls.probe("GET /health", PROBE, health, error_response), methods=["GET"]),
        Route("/", calls.endpoint("GET /", info, _service_info, _info_error), methods=["GET"]),
        Route("/load_reference", calls.endpoint("LoadReference", load, _load, error_response), methods=["POST"]),
        Route("/infer", calls.endpoint("Infer", infer, _infer_png, error_response), methods=["POST"]),
        Route("/infer_json", calls.endpoint("Infer", infer, infer_json, error_response), methods=["POST"]),
        Route("/outputs/{name}", calls.endpoint("GET /outputs", info, output, error_response), methods=["GET"]),
    ]


async def _state(application: Application) -> dict[str, Any]:
    detector = application.detector
    return {
        "model": f"PatchCore with {MODELS.get(detector.backbone, detector.backbone)}",
        "memory_bank_loaded": await application.catalog.has(DEFAULT_REFERENCE_ID),
        "device": detector.device,
    }


async def _service_info(call: HttpCall) -> Response:
    application = call.application
    content = {
        "service": SERVICE_NAME,
        "version": application.version,
        "status": "running",
        **await _state(application),
        "backbone": application.detector.backbone,
        "endpoints": _ENDPOINTS,
    }
    return JSONResponse(content, headers={"vary": "Accept"})


async def _load(call: HttpCall) -> Response:
    request = _load_request(await read_form(call, max_files=call.application.limits.max_reference_images))
    reference = (await operations.load_reference(request, call)).reference
    content = {
        "status": "success",
        "message": "Memory bank built successfully",
        "patches": reference.patch_count,
        "feature_dim": reference.feature_dim,
        "reference_id": reference.reference_id,
        "revision": reference.revision,
        "images": reference.image_count,
    }
    return JSONResponse(content)


async def _infer_png(call: HttpCall) -> Response:
    return Response((await _infer(call)).overlay_png, media_type=_PNG)


async def _infer(call: HttpCall) -> inference_pb2.InferResponse:
    request = await _infer_request(await read_form(call, max_files=1), call)
    return await operations.infer(request, call)


def _load_request(form: Form) -> reference_pb2.LoadReferenceRequest:
    files = _images(form)
    return reference_pb2.LoadReferenceRequest(
        reference_id=form.values.get("reference_id", ""),
        images=[file.data for file in files],
        image_names=[file.filename for file in files],
    )


async def _infer_request(form: Form, call: HttpCall) -> inference_pb2.InferRequest:
    reference_id = form.values.get("reference_id", "")
    # The documented service says first that there is no bank.
    await call.application.catalog.info(requests.reference_id(reference_id))
    [file] = _images(form)
    output = inference_pb2.OutputOptions(overlay=True)
    return inference_pb2.InferRequest(
        reference_id=reference_id, image=file.data, image_name=file.filename, output=output
    )


def _images(form: Form) -> tuple[FormFile, ...]:
    """The files of the field `image`, at least one."""
    for field in (*form.values, *(file.field for file in form.files)):
        if field not in _FIELDS:
            raise InvalidInputError(field, f'This path takes no field "{field}", only: {", ".join(_FIELDS)}.')
    if any(file.field != "image" for file in form.files):
        raise InvalidInputError("reference_id", "reference_id is text, not a file.")
    if "image" in form.values:
        raise InvalidInputError("image", f"{NO_IMAGE}: image is text. curl sends a file with @: -F image=@FILE")
    if not form.files:
        raise InvalidInputError("image", NO_IMAGE)
    return form.files


def _infer_content(response: inference_pb2.InferResponse, output_image: str) -> dict[str, Any]:
    damage = response.damage
    content: dict[str, Any] = {
        "status": "success",
        "damage_percentage": damage.damage_percentage,
        "anomaly_detected": damage.anomaly_detected,
        "output_image": output_image,
        "threshold": damage.threshold,
    }
    response.ClearField("overlay_png")
    written = content_of(response)
    return content | {name: written[name] for name in _OURS}


def _info_error(status: status_pb2.Status) -> JSONResponse:
    response = error_response(status)
    response.headers["vary"] = "Accept"
    return response


def _sentence(status: status_pb2.Status) -> str:
    """The error in the words of the documented service, where it has some."""
    missing = error_details_pb2.ResourceInfo()
    if reason_of(status) != ReferenceNotFoundError.reason or not any(each.Unpack(missing) for each in status.details):
        return str(status.message)
    if missing.resource_name == DEFAULT_REFERENCE_ID:
        return NOT_LOADED
    return (
        f'{NOT_LOADED}: there is no reference "{missing.resource_name}". Send images of undamaged items to '
        "/load_reference with this reference_id first."
    )
