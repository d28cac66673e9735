"""The runner in Python: the client package for the cases that it can express, the generated stubs for the others.

The package hides the messages of streams and the pages of lists, and sends no nonsense: those cases use the stubs.
"""

from __future__ import annotations

import argparse
import base64
import dataclasses
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
from conformance.calls import TIMEOUT_S, Caller, Json, outcome, read_cases

from patchserve_client import Client, EncodedReferenceImage, InferenceResult, PatchserveError, ReferenceInfo, TlsConfig
from patchserve_client._address import parsed
from patchserve_client._connection import Connection

_ENUM_PREFIXES = re.compile("^(ASPECT_RATIO|HEATMAP_SCALE|OVERLAY_FORMAT|LOAD_MODE|SCORING_PROFILE)_")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--server", required=True)
    parser.add_argument("--cases", required=True, type=Path)
    parser.add_argument("--images", required=True, type=Path)
    for name in ("--ca", "--cert", "--key", "--token"):
        parser.add_argument(name)
    given = parser.parse_args()
    tls = TlsConfig(given.ca, given.cert, given.key) if given.ca else None
    connection = Connection(parsed(given.server), TIMEOUT_S, TIMEOUT_S, tls, given.token, 64)
    credentials, options = connection.credentials(), connection.options()
    channel = (
        grpc.secure_channel(given.server, credentials, options)
        if credentials
        else grpc.insecure_channel(given.server, options)
    )
    with channel:
        caller = Caller(channel, given.images, given.token)
        for case in read_cases(given.cases):
            call = TYPED.get(case["rpc"])
            if call is None:
                result = caller.run(case)
            else:
                token = case.get("token", given.token) or None
                with Client(given.server, timeout_s=case.get("timeout_s", TIMEOUT_S), tls=tls, token=token) as client:
                    result = typed(call, client, case["request"], given.images)
            print(json.dumps({"name": case["name"], **result}), flush=True)


def typed(call: Callable[..., Json], client: Client, request: Json, images: Path) -> Json:
    """The outcome of a call of the client package."""
    try:
        return outcome([call(client, **arguments(request, images))], None, [])
    except PatchserveError as error:
        return outcome([], error, [])


def arguments(request: Json, images: Path) -> dict[str, Any]:
    """The fields of a message as arguments of the package: flat, with short enum names."""
    flat: dict[str, Any] = {}
    for key, value in request.items():
        name = re.sub("[A-Z]", lambda letter: f"_{letter[0].lower()}", key)
        if name == "output":
            flat |= arguments(value, images)
        elif name == "coreset":
            flat |= {f"coreset_{part}": number for part, number in arguments(value, images).items()}
        elif name == "input":
            flat |= input_arguments(arguments(value, images))
        elif name == "images":
            flat[name] = [(images / image[1:]).read_bytes() for image in value]  # without names, as other languages
        elif name == "image":
            flat[name] = images / value[1:]
        else:
            flat[name] = _ENUM_PREFIXES.sub("", value).lower() if str(value).isupper() else value
    return flat


def input_arguments(options: dict[str, Any]) -> dict[str, Any]:
    """The options of the input size as arguments of the package."""
    side_px, auto = options.pop("longer_side_px", None), options.pop("auto", False)
    return options if side_px is None and not auto else options | {"input_px": "auto" if auto else side_px}


def input_message(fields: dict[str, Any]) -> Json | None:
    """Takes the fields of an InputOptions message out of those of a reference. None: the load set none."""
    side_px, aspect = fields.pop("input_px"), fields.pop("aspect")
    tiles = {name: value for name in ("tile_px", "tile_overlap") if (value := fields.pop(name)) is not None}
    if side_px is None and aspect == "squeeze" and not tiles:
        return None
    side = {} if side_px is None else {"auto": True} if side_px == "auto" else {"longer_side_px": side_px}
    return side | {"aspect": f"ASPECT_RATIO_{aspect.upper()}"} | tiles


def reference(info: ReferenceInfo) -> Json:
    """The Reference message of this information, without times."""
    fields = dataclasses.asdict(info)
    fields["profile"] = info.profile and f"SCORING_PROFILE_{info.profile.name}"
    fields["views"] = info.views and f"REFERENCE_VIEWS_{info.views.name}"
    method = info.calibration.method
    fields["calibration"]["method"] = method and f"CALIBRATION_METHOD_{method.name}"
    coreset = {"ratio": fields.pop("coreset_ratio"), "max_patches": fields.pop("coreset_max_patches")}
    fields["coreset"] = {name: value for name, value in coreset.items() if value}
    fields["input"] = input_message(fields)
    if info.drift is not None:
        fields["drift"]["state"] = info.drift.state and f"DRIFT_STATE_{info.drift.state.name}"
        fields["drift"] = {name: value for name, value in fields["drift"].items() if value and name != "since"}
    left_out = (
        "create_time",
        "update_time",
        "region_of_interest",
        "cost",
        *(name for name in fields if not fields[name]),
    )
    return {name: value for name, value in fields.items() if name not in left_out}


def described_reference(info: ReferenceInfo) -> Json:
    """The GetReferenceResponse message of this information."""
    images = [{name: value for name, value in dataclasses.asdict(image).items() if value} for image in info.images]
    return {"reference": reference(dataclasses.replace(info, images=())), "images": images}


def inference(result: InferenceResult) -> Json:
    """The InferResponse message of this result, without timing."""
    fields = dataclasses.asdict(dataclasses.replace(result, score_map=None, encoded_overlay=None))
    message = {name: fields[name] for name in ("reference_id", "reference_revision", "damage", "anomaly", "regions")}
    for region in message["regions"]:
        region["polygon"] = [{"x_px": x_px, "y_px": y_px} for x_px, y_px in region["polygon"]]
    if (overlay := result.encoded_overlay) is not None:
        message["overlay"] = dataclasses.asdict(overlay)
        image = base64.b64encode(message["overlay"].pop("data")).decode()
        if overlay.media_type == "image/png":
            message["overlay_png"] = image
        else:
            message["overlay"]["image"] = image
    if result.score_map is not None:
        height, width = result.score_map.shape
        values = base64.b64encode(result.score_map.astype("<f4").tobytes()).decode()
        message["score_map"] = {"height": height, "width": width, "values": values}
    return message


def reference_image(image: EncodedReferenceImage) -> Json:
    """The GetReferenceImageResponse message of this image."""
    fields = dataclasses.asdict(image)
    data = base64.b64encode(fields.pop("data")).decode()
    return {**fields, "image": data}


def server_info(client: Client) -> Json:
    fields = dataclasses.asdict(client.server_info())
    fields["heatmap_scale"] = f"HEATMAP_SCALE_{fields['heatmap_scale'].name}"
    return fields


TYPED: dict[str, Callable[..., Json]] = {
    "LoadReference": lambda client, images=(), **fields: {
        "reference": reference(client.load_reference(images, **fields))
    },
    "GetReference": lambda client, **fields: described_reference(client.get_reference(**fields)),
    "TuneReference": lambda client, reference_id="default", sensitivity=0.0, **fields: {
        "reference": reference(client.tune_reference(reference_id, sensitivity, **fields))
    },
    "RestoreReference": lambda client, reference_id="default", **fields: {
        "reference": reference(client.restore_reference(reference_id, **fields))
    },
    "GetReferenceImage": lambda client, **fields: reference_image(client.reference_image(**fields)),
    "DeleteReference": lambda client, **fields: {"revision": client.delete_reference(**fields)},
    "Infer": lambda client, image=b"", **fields: inference(client.infer(image, **fields)),
    "GetServerInfo": server_info,
}

if __name__ == "__main__":
    main()
