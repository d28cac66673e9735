"""What the client library shows, and what it must not."""

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
from patchserve_client import AsyncClient, Client, PatchserveError

EXPORTED = [
    "Aborted",
    "AnomalyScore",
    "AsyncClient",
    "BoundingBox",
    "Calibration",
    "CalibrationMethod",
    "Cancelled",
    "Client",
    "DamageScore",
    "DeadlineExceeded",
    "EncodedOverlay",
    "ErrorDetails",
    "FailedPrecondition",
    "FieldViolation",
    "Frame",
    "FrameResult",
    "Health",
    "HeatmapScale",
    "ImageSource",
    "InferenceResult",
    "Internal",
    "InvalidArgument",
    "Limits",
    "LoadMode",
    "LoadProgress",
    "LoadStage",
    "NotFound",
    "NoticeKind",
    "OverflowPolicy",
    "OverlayFormat",
    "PatchserveError",
    "PermissionDenied",
    "Polygon",
    "PreconditionViolation",
    "ReferenceInfo",
    "Region",
    "ResourceExhausted",
    "ResultOrdering",
    "ScoreSpread",
    "ScoringProfile",
    "ServerInfo",
    "StreamNotice",
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
def test_every_class_is_an_error_a_frozen_dataclass_an_enum_or_a_client(member: type) -> None:
    assert (member.__doc__ or "").strip()
    if member in (Client, AsyncClient) or issubclass(member, (PatchserveError, enum.StrEnum)):
        return
    assert dataclasses.is_dataclass(member)
    assert member.__dataclass_params__.frozen  # type: ignore[attr-defined]


def test_no_annotation_names_protobuf_or_grpc() -> None:
    texts = [
        str(field.type)
        for one in exported_classes()
        if dataclasses.is_dataclass(one)
        for field in dataclasses.fields(one)
    ]
    for client in (Client, AsyncClient):
        for name, method in inspect.getmembers(client, inspect.isfunction):
            if not name.startswith("_"):
                texts += map(str, typing.cast("dict[str, object]", method.__annotations__).values())
    assert texts
    assert not [text for text in texts if "pb2" in text or "grpc" in text or "Message" in text]


def test_both_clients_have_the_same_methods_and_arguments() -> None:
    def shape(client: type) -> dict[str, list[tuple[str, object, object]]]:
        methods = inspect.getmembers(client, inspect.isfunction)
        return {
            name: [(one.name, one.kind, one.default) for one in inspect.signature(method).parameters.values()]
            for name, method in methods
            if not name.startswith("_") or name == "__init__"
        }

    assert shape(AsyncClient) == shape(Client)


def test_the_package_is_typed() -> None:
    assert (Path(patchserve_client.__file__).parent / "py.typed").is_file()


def test_the_command_starts_without_the_heavy_libraries() -> None:
    code = (
        "import sys, patchserve_client.cli\n"
        "print([name for name in ('numpy', 'PIL', 'rich', 'cv2', 'torch') if name in sys.modules])"
    )
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert loaded.stdout.strip() == "[]"
