"""The public API of the client library."""

from __future__ import annotations

import dataclasses
import enum
import inspect
import subprocess
import sys
import typing
from pathlib import Path

import pytest

import patchserve_client
from patchserve_client import AsyncClient, Client, InferOptions, LoadOptions, PatchserveError, StreamOptions

EXPORTED = [
    "Aborted",
    "AnomalyScore",
    "AspectRatio",
    "AsyncClient",
    "BoundingBox",
    "Calibration",
    "CalibrationMethod",
    "CallCount",
    "Cancelled",
    "Client",
    "DamageScore",
    "DeadlineExceeded",
    "Drift",
    "DriftState",
    "DurationHistogram",
    "EncodedOverlay",
    "EncodedReferenceImage",
    "ErrorDetails",
    "FailedPrecondition",
    "FailureCount",
    "FieldViolation",
    "Frame",
    "FrameResult",
    "Health",
    "HeatmapScale",
    "ImageSource",
    "InferOptions",
    "InferenceResult",
    "Internal",
    "InvalidArgument",
    "KeptRevision",
    "Limits",
    "LoadCost",
    "LoadMode",
    "LoadOptions",
    "LoadProgress",
    "LoadStage",
    "NotFound",
    "NoticeKind",
    "OutputOptions",
    "OverflowPolicy",
    "OverlayFormat",
    "PatchserveError",
    "PermissionDenied",
    "Polygon",
    "PreconditionViolation",
    "ReferenceImage",
    "ReferenceInfo",
    "ReferenceOperation",
    "ReferenceStats",
    "ReferenceViews",
    "Region",
    "ResourceExhausted",
    "ResultOrdering",
    "ScoreSpread",
    "ScoringProfile",
    "ServerInfo",
    "ServerStats",
    "StoreInfo",
    "StreamNotice",
    "StreamOptions",
    "Timing",
    "TlsConfig",
    "Unauthenticated",
    "Unavailable",
    "Unimplemented",
]


def exported_classes() -> list[type]:
    return [member for name in EXPORTED if inspect.isclass(member := getattr(patchserve_client, name))]


def test_exactly_these_members_are_exported() -> None:
    assert patchserve_client.__all__ == EXPORTED
    public = {name for name, member in vars(patchserve_client).items() if not name.startswith("_")}
    public -= {name for name in public if inspect.ismodule(getattr(patchserve_client, name))}
    assert public == set(EXPORTED)


@pytest.mark.parametrize("member", exported_classes(), ids=lambda member: member.__name__)
def test_every_class_is_an_error_a_frozen_dataclass_an_enum_options_or_a_client(member: type) -> None:
    assert (member.__doc__ or "").strip()
    if member in (Client, AsyncClient) or typing.is_typeddict(member):
        return
    if issubclass(member, (PatchserveError, enum.StrEnum)):
        return
    assert dataclasses.is_dataclass(member)
    assert member.__dataclass_params__.frozen  # type: ignore[attr-defined]


def public_methods(client: type) -> dict[str, typing.Any]:
    methods = inspect.getmembers(client, inspect.isfunction)
    return {name: method for name, method in methods if not name.startswith("_") or name == "__init__"}


def annotation_texts(member: type) -> list[str]:
    owners = [*public_methods(member).values()] if member in (Client, AsyncClient) else [member]
    return [str(annotation) for owner in owners for annotation in owner.__annotations__.values()]


@pytest.mark.parametrize("member", exported_classes(), ids=lambda member: member.__name__)
def test_no_annotation_names_protobuf_or_grpc(member: type) -> None:
    assert not [text for text in annotation_texts(member) if "pb2" in text or "grpc" in text or "Message" in text]


def test_both_clients_have_the_same_methods_arguments_and_options() -> None:
    def arguments(method: typing.Any) -> list[tuple[str, object, object, str]]:
        parameters = inspect.signature(method).parameters.values()
        return [(one.name, one.kind, one.default, plain(str(one.annotation))) for one in parameters]

    def plain(annotation: str) -> str:
        both_kinds = "AsyncIterable[Frame | ImageSource] | Iterable[Frame | ImageSource]"
        return (
            annotation.replace("types.", "")
            .replace("AsyncClient", "Client")
            .replace(both_kinds, "Iterable[Frame | ImageSource]")
        )

    of_sync, of_asyncio = public_methods(Client), public_methods(AsyncClient)
    assert of_sync.keys() == of_asyncio.keys()
    assert {"infer", "infer_stream", "load_reference"} <= of_sync.keys()
    for name, method in of_sync.items():
        assert arguments(of_asyncio[name]) == arguments(method), name


@pytest.mark.parametrize(
    ("method", "options"),
    [(Client.infer, InferOptions), (Client.infer_stream, StreamOptions), (Client.load_reference, LoadOptions)],
)
def test_the_keyword_options_of_a_method_are_exported_as_a_typed_dict(method: object, options: type) -> None:
    assert typing.is_typeddict(options)
    assert inspect.signature(method).parameters["options"].annotation == f"Unpack[{options.__name__}]"  # type: ignore[arg-type]
    assert not options.__required_keys__  # type: ignore[attr-defined]


def test_the_package_is_typed() -> None:
    assert (Path(patchserve_client.__file__).parent / "py.typed").is_file()


def test_the_command_starts_without_heavy_libraries() -> None:
    code = (
        "import sys, patchserve_client.cli\n"
        "print([name for name in ('numpy', 'PIL', 'rich', 'cv2', 'torch') if name in sys.modules])"
    )
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert loaded.stdout.strip() == "[]"
