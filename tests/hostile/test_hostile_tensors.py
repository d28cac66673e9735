"""Tensors of the Open Inference Protocol with a wrong shape, type or length."""

from __future__ import annotations

import struct
from collections.abc import Callable

import grpc
import numpy as np
import pytest
from e2e.harness import load, refusal
from e2e.in_process import in_process_server
from fakes.images import card, encoded
from fakes.tensors import request_of_files, request_of_pixels, values
from hypothesis import given
from hypothesis import strategies as st

from patchserve.kserve import open_inference_pb2 as pb
from patchserve.kserve import open_inference_pb2_grpc
from patchserve.v1 import service_pb2_grpc
from patchserve_server.contract import kserve
from patchserve_server.contract.tensors import join_bytes, split_bytes
from patchserve_server.domain.errors import InvalidInputError
from patchserve_server.domain.inspection import HeatmapScale, OverlayFormat
from patchserve_server.domain.raw_frame import PIXEL_FORMATS, RawFrame

MAX_IMAGES = 4
PIXELS = np.zeros((2, 2, 3), np.uint8)
Damage = Callable[[pb.ModelInferRequest], object]


def files() -> pb.ModelInferRequest:
    return request_of_files("parcel", b"one", b"two")


def pixels() -> pb.ModelInferRequest:
    return request_of_pixels("parcel", PIXELS)


def typed_files() -> pb.ModelInferRequest:
    return request_of_files("parcel", b"one", b"two", typed=True)


def typed_pixels() -> pb.ModelInferRequest:
    return request_of_pixels("parcel", PIXELS, typed=True)


def bayer() -> pb.ModelInferRequest:
    return request_of_pixels("parcel", np.zeros((2, 6, 4), np.uint16), pixel_format="BayerRG12")


def typed_bayer() -> pb.ModelInferRequest:
    return request_of_pixels("parcel", np.zeros((2, 6, 4), np.uint16), pixel_format="bayerrg12", typed=True)


def planar() -> pb.ModelInferRequest:
    return request_of_pixels("parcel", np.zeros((6, 4), np.uint8), pixel_format="nv12")


def shaped(*shape: int) -> Damage:
    def damage(request: pb.ModelInferRequest) -> None:
        request.inputs[0].shape[:] = shape

    return damage


def raw(data: bytes) -> Damage:
    def damage(request: pb.ModelInferRequest) -> None:
        request.raw_input_contents[0] = data

    return damage


def parameter(key: str, **value: object) -> Damage:
    return lambda request: request.parameters[key].MergeFrom(pb.InferParameter(**value))  # type: ignore[arg-type]


CASES: list[tuple[str, Callable[[], pb.ModelInferRequest], Damage, str]] = [
    ("no model name", files, lambda r: r.ClearField("model_name"), "model_name"),
    ("a path as the model name", files, lambda r: setattr(r, "model_name", "../x"), "model_name"),
    ("a version that is not a revision", files, lambda r: setattr(r, "model_version", "1"), "model_version"),
    ("no input", files, lambda r: r.ClearField("inputs"), "inputs"),
    ("two inputs", files, lambda r: r.inputs.append(r.inputs[0]), "inputs"),
    ("an unknown input", files, lambda r: setattr(r.inputs[0], "name", "x"), "inputs[0].name"),
    ("floats", pixels, lambda r: setattr(r.inputs[0], "datatype", "FP32"), "inputs[0].datatype"),
    ("files as UINT8", files, lambda r: setattr(r.inputs[0], "datatype", "UINT8"), "inputs[0].datatype"),
    (
        "shared memory",
        files,
        lambda r: r.inputs[0].parameters["shared_memory_region"].MergeFrom(pb.InferParameter(string_param="a")),
        "inputs[0].parameters",
    ),
    (
        "another number of raw bytes than there are",
        files,
        lambda r: r.inputs[0].parameters["binary_data_size"].MergeFrom(pb.InferParameter(int64_param=15)),
        "inputs[0].parameters.binary_data_size",
    ),
    (
        "a size that is a text",
        files,
        lambda r: r.inputs[0].parameters["binary_data_size"].MergeFrom(pb.InferParameter(string_param="14")),
        "inputs[0].parameters",
    ),
    ("a sequence", files, parameter("sequence_id", int64_param=7), "parameters"),
    ("a time limit", files, parameter("timeout", int64_param=1000), "parameters"),
    ("an empty last response", files, parameter("triton_enable_empty_final_response", bool_param=True), "parameters"),
    ("no shape", files, shaped(), "inputs[0].shape"),
    ("files in rows", files, shaped(1, 2), "inputs[0].shape"),
    ("no file", files, shaped(0), "inputs[0].shape"),
    ("minus one file", files, shaped(-1), "inputs[0].shape"),
    ("too many files", files, shaped(MAX_IMAGES + 1), "inputs[0].shape"),
    ("2^63 - 1 files", files, shaped(2**63 - 1), "inputs[0].shape"),
    ("gray pixels", pixels, shaped(2, 2), "inputs[0].shape"),
    ("four channels", pixels, shaped(1, 3, 4), "inputs[0].shape"),
    ("channels first", pixels, shaped(3, 2, 2), "inputs[0].shape"),
    ("no rows", pixels, shaped(0, 2, 3), "inputs[0].shape"),
    ("negative sides", pixels, shaped(-2, -2, 3), "inputs[0].shape"),
    ("five axes", pixels, shaped(1, 1, 2, 2, 3), "inputs[0].shape"),
    ("sides whose product overflows", pixels, shaped(2**62, 4, 3), "raw_input_contents[0]"),
    ("too many images", pixels, shaped(MAX_IMAGES + 1, 2, 2, 3), "inputs[0].shape"),
    ("fewer pixels than the shape says", pixels, shaped(2, 3, 3), "raw_input_contents[0]"),
    ("more pixels than the shape says", pixels, shaped(2, 1, 3), "raw_input_contents[0]"),
    ("no contents", pixels, lambda r: r.ClearField("raw_input_contents"), "inputs[0].contents"),
    ("no contents of files", files, lambda r: r.ClearField("raw_input_contents"), "inputs[0].contents"),
    ("raw contents twice", files, lambda r: r.raw_input_contents.append(b""), "raw_input_contents"),
    (
        "both contents",
        typed_files,
        lambda r: r.raw_input_contents.append(join_bytes([b"1", b"2"])),
        "inputs[0].contents",
    ),
    ("both, one empty", files, lambda r: r.inputs[0].contents.SetInParent(), "inputs[0].contents"),
    (
        "bytes in the field of floats",
        typed_files,
        lambda r: r.inputs[0].contents.fp32_contents.append(1),
        "inputs[0].contents",
    ),
    ("fewer typed files", typed_files, shaped(3), "inputs[0].contents"),
    ("fewer typed pixels", typed_pixels, shaped(2, 3, 3), "inputs[0].contents"),
    ("typed pixels of a huge image", typed_pixels, shaped(2**62, 2**62, 3), "inputs[0].contents"),
    (
        "a pixel of 256",
        typed_pixels,
        lambda r: r.inputs[0].contents.uint_contents.__setitem__(3, 256),
        "inputs[0].contents",
    ),
    ("truncated in a length", files, raw(join_bytes([b"one"]) + b"\3\0"), "raw_input_contents[0]"),
    ("truncated in an element", files, raw(join_bytes([b"one", b"two"])[:-1]), "raw_input_contents[0]"),
    ("more elements than the shape says", files, raw(join_bytes([b"one", b"two", b""])), "raw_input_contents[0]"),
    ("a length of 4 GiB", files, raw(struct.pack("<I", 2**32 - 1) + b"one"), "raw_input_contents[0]"),
    ("big-endian lengths", files, raw(b"\0\0\0\3one\0\0\0\3two"), "raw_input_contents[0]"),
    ("empty contents", files, raw(b""), "raw_input_contents[0]"),
    ("an unknown output", files, lambda r: r.outputs.add(name="logits"), "outputs[0].name"),
    ("an output twice", files, lambda r: [r.outputs.add(name="score") for _ in range(2)], "outputs[1].name"),
    ("100,000 outputs", files, lambda r: [r.outputs.add(name="score") for _ in range(10**5)], "outputs[1].name"),
    (
        "classification",
        files,
        lambda r: r.outputs.add(name="score").parameters["classification"].MergeFrom(pb.InferParameter(int64_param=1)),
        "outputs[0].parameters",
    ),
    ("an unknown parameter", files, parameter("sensitivty", double_param=1), "parameters"),
    ("a string instead of a number", files, parameter("sensitivity", string_param="1"), "parameters.sensitivity"),
    ("a bool instead of a number", files, parameter("sensitivity", bool_param=True), "parameters.sensitivity"),
    ("not a number", files, parameter("sensitivity", double_param=float("nan")), "parameters.sensitivity"),
    ("beyond float32", files, parameter("sensitivity", double_param=1e300), "parameters.sensitivity"),
    ("no value", files, parameter("sensitivity"), "parameters.sensitivity"),
    ("an unknown scale", files, parameter("heatmap_scale", string_param="hot"), "parameters.heatmap_scale"),
    ("a number instead of a format", files, parameter("overlay_format", int64_param=1), "parameters.overlay_format"),
    ("a negative side", files, parameter("overlay_max_side_px", int64_param=-1), "parameters.overlay_max_side_px"),
    ("a huge side", files, parameter("overlay_max_side_px", uint64_param=2**64 - 1), "parameters.overlay_max_side_px"),
    ("an unknown pixel format", pixels, parameter("pixel_format", string_param="rgb24"), "parameters.pixel_format"),
    ("a number as a pixel format", pixels, parameter("pixel_format", int64_param=8), "parameters.pixel_format"),
    ("a pixel format of files", files, parameter("pixel_format", string_param="mono8"), "parameters.pixel_format"),
    ("deep pixels as UINT8", pixels, parameter("pixel_format", string_param="rgb12"), "inputs[0].datatype"),
    ("a Bayer frame as UINT8", bayer, lambda r: setattr(r.inputs[0], "datatype", "UINT8"), "inputs[0].datatype"),
    ("YUV pixels with three samples", pixels, parameter("pixel_format", string_param="yuv422_8"), "inputs[0].shape"),
    ("a Bayer frame of odd height", bayer, shaped(2, 3, 8), "inputs[0].shape"),
    ("a Bayer frame of odd width", bayer, shaped(16, 3), "inputs[0].shape"),
    ("a tiny Bayer frame", bayer, shaped(1, 2, 24), "inputs[0].shape"),
    ("a Bayer frame in color", bayer, shaped(2, 4, 2, 3), "inputs[0].shape"),
    ("a Bayer frame of one axis", bayer, shaped(48), "inputs[0].shape"),
    ("a Bayer frame of half its bytes", bayer, lambda r: raw(r.raw_input_contents[0][:48])(r), "raw_input_contents[0]"),
    ("too many Bayer frames", bayer, shaped(MAX_IMAGES + 1, 4, 4), "inputs[0].shape"),
    ("a Bayer frame whose sides overflow", bayer, shaped(2**62, 2**62), "raw_input_contents[0]"),
    ("planes that do not fit", planar, shaped(4, 6), "inputs[0].shape"),
    ("planes of odd width", planar, shaped(24, 1), "inputs[0].shape"),
    (
        "a sample of 2^16",
        typed_bayer,
        lambda r: r.inputs[0].contents.uint_contents.__setitem__(47, 2**16),
        "inputs[0].contents",
    ),
    ("a white level of 0", files, parameter("white_level", int64_param=0), "parameters.white_level"),
    ("a white level above 16 bits", files, parameter("white_level", uint64_param=2**64 - 1), "parameters.white_level"),
    ("a negative white level", files, parameter("white_level", int64_param=-1), "parameters.white_level"),
    ("a fraction as a white level", files, parameter("white_level", double_param=4095.0), "parameters.white_level"),
    ("a text as a white level", files, parameter("white_level", string_param="4095"), "parameters.white_level"),
    ("a switch as a white level", files, parameter("white_level", bool_param=True), "parameters.white_level"),
    ("half a pixel", files, parameter("overlay_max_side_px", double_param=20.5), "parameters.overlay_max_side_px"),
]


@pytest.mark.parametrize(("make", "damage", "field"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_an_invalid_request_is_reported_by_its_field(
    make: Callable[[], pb.ModelInferRequest], damage: Damage, field: str
) -> None:
    request = make()
    kserve.infer_request(request, MAX_IMAGES)  # valid without the damage
    damage(request)
    with pytest.raises(InvalidInputError) as caught:
        kserve.infer_request(request, MAX_IMAGES)
    assert caught.value.field == field
    assert len(caught.value.message) < (500 if "pixel_format" in field else 250)


def test_outputs_and_parameters_that_are_left_out_have_the_defaults_of_our_contract() -> None:
    options = kserve.infer_request(request_of_files("parcel", b"one", outputs=["score"]), MAX_IMAGES).options
    assert not options.overlay
    assert not options.score_map
    assert options.max_regions == 0
    request = files()
    request.parameters["overlay_format"].string_param = "webp"
    request.parameters["heatmap_scale"].string_param = "relative"
    options = kserve.infer_request(request, MAX_IMAGES).options
    assert options.overlay
    assert options.score_map
    assert (options.overlay_format, options.heatmap_scale) == (OverlayFormat.WEBP, HeatmapScale.RELATIVE)


def test_parameters_of_standard_clients_that_change_nothing_are_accepted() -> None:
    request = request_of_files("parcel", b"one", b"two", outputs=["score", "is_anomalous"])
    before = kserve.infer_request(request, MAX_IMAGES)
    request.inputs[0].parameters["binary_data_size"].int64_param = len(request.raw_input_contents[0])
    request.outputs[0].parameters["binary_data"].bool_param = True
    request.outputs[0].parameters["classification"].int64_param = 0
    for name in ("binary_data_output", "sequence_start", "sequence_end", "triton_enable_empty_final_response"):
        request.parameters[name].bool_param = name == "binary_data_output"
    request.parameters["sequence_id"].int64_param = 0
    request.parameters["priority"].uint64_param = 3
    after = kserve.infer_request(request, MAX_IMAGES)
    assert (after.images, after.options, after.outputs) == (before.images, before.options, before.outputs)


@given(st.lists(st.binary(max_size=50), max_size=10))
def test_split_bytes_reverses_join_bytes(elements: list[bytes]) -> None:
    assert split_bytes(join_bytes(elements), len(elements)) == elements


@given(st.binary(max_size=64), st.integers(0, 10))
def test_any_bytes_are_split_or_refused(raw: bytes, count: int) -> None:
    try:
        elements = split_bytes(raw, count)
    except InvalidInputError:
        return
    assert len(elements) == count
    assert join_bytes(elements) == raw


@given(st.lists(st.binary(max_size=20), min_size=1, max_size=5), st.data())
def test_truncated_bytes_are_always_refused(elements: list[bytes], data: st.DataObject) -> None:
    raw = join_bytes(elements)
    end = data.draw(st.integers(0, len(raw) - 1))
    with pytest.raises(InvalidInputError):
        split_bytes(raw[:end], len(elements))


@given(st.data(), st.integers(1, 3), st.integers(1, 4), st.integers(1, 4), st.booleans())
def test_pixels_are_received_as_they_were_sent(
    data: st.DataObject, count: int, height: int, width: int, typed: bool
) -> None:
    size = count * height * width * 3
    sent = np.frombuffer(data.draw(st.binary(min_size=size, max_size=size)), np.uint8)
    request = request_of_pixels("parcel", sent.reshape(count, height, width, 3), typed=typed)
    images = kserve.infer_request(request, MAX_IMAGES).images
    received = [image.content.samples for image in images if isinstance(image.content, RawFrame)]
    assert np.array_equal(np.stack(received), sent.reshape(count, height, width, 3))


@given(st.sampled_from(sorted(PIXEL_FORMATS)), st.integers(1, 3), st.integers(2, 4), st.integers(2, 4), st.booleans())
def test_frames_of_every_format_are_received_as_they_were_sent(
    name: str, count: int, half_height: int, half_width: int, typed: bool
) -> None:
    format_ = PIXEL_FORMATS[name]
    rows = half_height * 3 if format_.layout.is_planar else half_height * 2
    channels = format_.layout.samples_per_pixel
    shape = (count, rows, half_width * 2, *([channels] if channels > 1 else []))
    sent = np.random.default_rng(0).integers(0, 2**format_.bits, shape, dtype=format_.dtype)
    request = request_of_pixels("parcel", sent, typed=typed, pixel_format=name.upper())
    images = [image.content for image in kserve.infer_request(request, MAX_IMAGES).images]
    assert [image.pixel_format for image in images if isinstance(image, RawFrame)] == [format_] * count
    assert np.array_equal(np.stack([image.samples for image in images if isinstance(image, RawFrame)]), sent)


def test_over_a_socket_the_server_answers_invalid_requests_and_then_valid_ones() -> None:
    image = encoded(card(1))
    with in_process_server(max_image_megapixels=1) as address, grpc.insecure_channel(address) as channel:
        load(service_pb2_grpc.PatchCoreServiceStub(channel), "parcel", 1)
        stub = open_inference_pb2_grpc.GRPCInferenceServiceStub(channel)
        for _, make, damage, _field in CASES:
            request = make()
            damage(request)
            with pytest.raises(grpc.RpcError) as caught:
                stub.ModelInfer(request, timeout=20)
            code, reason, details = refusal(caught.value)
            assert (code, reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD")
            assert details["BadRequest"].field_violations[0].field  # type: ignore[attr-defined]
        large = np.zeros((1001, 1000, 3), np.uint8)
        with pytest.raises(grpc.RpcError) as caught:
            stub.ModelInfer(request_of_pixels("parcel", large))
        assert refusal(caught.value)[:2] == (grpc.StatusCode.INVALID_ARGUMENT, "IMAGE_TOO_LARGE")
        with pytest.raises(grpc.RpcError) as caught:
            stub.ModelInfer(request_of_pixels("parcel", np.zeros((1, 65_536, 3), np.uint8)))
        assert "65,535 per side" in str(caught.value)
        response = stub.ModelInfer(request_of_files("parcel", image, outputs=["score"]))
        assert len(values(response, "score")) == 1
