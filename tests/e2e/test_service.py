"""Every method over a real socket, and every error as the caller sees it."""

from __future__ import annotations

import io
from collections.abc import Iterator

import grpc
import numpy as np
import pytest
from e2e.harness import CARDS, ServerProcess, Stub, load, refusal
from fakes.images import SIZE_PX, card, encoded
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from PIL import Image

from patchserve.v1 import inference_pb2, reference_pb2, server_info_pb2
from patchserve.v1.reference_pb2 import Reference

SERVICE = "patchserve.v1.PatchCoreService"


def test_the_error_without_a_reference_says_what_to_call(stub: Stub) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        stub.Infer(inference_pb2.InferRequest(image=encoded(card())))
    code, reason, details = refusal(caught.value)
    assert (code, reason) == (grpc.StatusCode.NOT_FOUND, "REFERENCE_NOT_FOUND")
    assert "LoadReference" in str(caught.value)
    assert details["ResourceInfo"].resource_name == "default"  # type: ignore[attr-defined]


def test_a_damaged_item_is_anomalous_and_an_intact_one_is_not(stub: Stub, cards: Reference) -> None:
    assert (cards.image_count, cards.patch_count, cards.backbone) == (6, 6 * 196, "efficientnet_lite2")
    output = inference_pb2.OutputOptions(overlay=True, score_map=True)

    def infer(image: Image.Image) -> inference_pb2.InferResponse:
        return stub.Infer(inference_pb2.InferRequest(reference_id=CARDS, image=encoded(image), output=output))

    intact, damaged = infer(card(50)), infer(card(51, scratched=True))
    assert not intact.anomaly.is_anomalous
    assert damaged.anomaly.is_anomalous
    assert damaged.anomaly.score > 0.5 > intact.anomaly.score
    assert damaged.reference_revision == cards.revision
    scores = np.frombuffer(damaged.score_map.values, "<f4").reshape(damaged.score_map.height, damaged.score_map.width)
    assert np.isfinite(scores).all()
    assert (damaged.score_map.source_width_px, damaged.score_map.source_height_px) == SIZE_PX
    overlay = Image.open(io.BytesIO(damaged.overlay_png))
    assert (overlay.format, overlay.size) == ("PNG", SIZE_PX)
    assert damaged.regions
    box = damaged.regions[0].bounding_box
    assert box.x_px < 230 < box.x_px + box.width_px + 80, "the strongest region is about the scratch"
    assert damaged.timing.total_ms > damaged.timing.embed_ms > 0


@pytest.mark.parametrize(
    ("options", "kind", "size_px"),
    [
        ({}, "PNG", SIZE_PX),
        ({"overlay_max_side_px": 160}, "PNG", (160, 120)),
        ({"overlay_format": inference_pb2.OVERLAY_FORMAT_JPEG}, "JPEG", SIZE_PX),
        ({"overlay_format": inference_pb2.OVERLAY_FORMAT_WEBP, "overlay_max_side_px": 64}, "WEBP", (64, 48)),
    ],
)
@pytest.mark.usefixtures("cards")
def test_an_overlay_has_the_requested_format_and_size(
    stub: Stub, options: dict[str, int], kind: str, size_px: tuple[int, int]
) -> None:
    image = encoded(card(1, scratched=True))
    for scale in (inference_pb2.HEATMAP_SCALE_RELATIVE, inference_pb2.HEATMAP_SCALE_CALIBRATED):
        output = inference_pb2.OutputOptions(overlay=True, heatmap_scale=scale, **options)  # type: ignore[arg-type]
        response = stub.Infer(inference_pb2.InferRequest(reference_id=CARDS, image=image, output=output))
        told = response.overlay
        assert told.media_type == f"image/{kind.lower()}"
        assert (told.width_px, told.height_px) == size_px
        assert (told.source_width_px, told.source_height_px) == SIZE_PX
        assert bool(response.overlay_png) == (kind == "PNG")
        overlay = Image.open(io.BytesIO(response.overlay_png or told.image))
        assert (overlay.format, overlay.size) == (kind, size_px)
        assert response.regions[0].bounding_box.width_px > 0


@pytest.mark.usefixtures("cards")
def test_outputs_that_were_not_requested_are_not_sent(stub: Stub) -> None:
    response = stub.Infer(inference_pb2.InferRequest(reference_id=CARDS, image=encoded(card())))
    assert response.overlay_png == b""
    assert not response.HasField("overlay")
    assert not response.HasField("score_map")


def test_the_pristine_reference_is_not_anomalous(stub: Stub) -> None:
    for images in (1, 4):
        load(stub, "pristine", images)
        response = stub.Infer(inference_pb2.InferRequest(reference_id="pristine", image=encoded(card(0))))
        assert not response.anomaly.is_anomalous
        assert response.anomaly.raw_score < response.anomaly.raw_threshold
        assert response.damage.threshold == 0.5


def test_sensitivity_scales_the_thresholds_of_one_response(stub: Stub, cards: Reference) -> None:
    image = encoded(card(51, scratched=True))

    def infer(**output: float) -> inference_pb2.InferResponse:
        options = inference_pb2.OutputOptions(**output)  # type: ignore[arg-type]
        return stub.Infer(inference_pb2.InferRequest(reference_id=CARDS, image=image, output=options))

    plain, dull, keen = infer(), infer(sensitivity=0.1), infer(sensitivity=4)
    assert plain.anomaly.raw_threshold == pytest.approx(cards.threshold)
    assert dull.anomaly.raw_threshold == pytest.approx(10 * cards.threshold)
    assert keen.anomaly.raw_threshold == pytest.approx(cards.threshold / 4)
    assert dull.anomaly.raw_score == plain.anomaly.raw_score == keen.anomaly.raw_score
    assert (dull.anomaly.is_anomalous, plain.anomaly.is_anomalous, keen.anomaly.is_anomalous) == (False, True, True)
    assert dull.anomaly.anomalous_area_percentage < plain.anomaly.anomalous_area_percentage
    assert plain.anomaly.anomalous_area_percentage < keen.anomaly.anomalous_area_percentage
    assert not dull.regions
    assert dull.damage == plain.damage == keen.damage


def test_a_reference_says_how_many_images_it_has_and_what_they_were(stub: Stub) -> None:
    first, second = encoded(card(0)), encoded(card(1), "PNG")
    request = reference_pb2.LoadReferenceRequest(
        reference_id="described", images=[first, second], image_names=["first.jpg", ""]
    )
    stub.LoadReference(request)
    start = reference_pb2.LoadReferenceRequest(reference_id="described", mode=reference_pb2.LOAD_MODE_APPEND)
    messages = [
        reference_pb2.LoadReferenceStreamRequest(start=start),
        reference_pb2.LoadReferenceStreamRequest(image=first, image_name="third"),
    ]
    stub.LoadReferenceStream(iter(messages))
    response = stub.GetReference(reference_pb2.GetReferenceRequest(reference_id="described"))
    assert response.reference.image_count == len(response.images) == 3
    assert [(image.name, image.media_type, image.size_bytes) for image in response.images] == [
        ("first.jpg", "image/jpeg", len(first)),
        ("", "image/png", len(second)),
        ("third", "image/jpeg", len(first)),
    ]
    assert {(image.width_px, image.height_px) for image in response.images} == {(320, 240)}
    messages[1].image_name = "\n"
    with pytest.raises(grpc.RpcError) as caught:
        stub.LoadReferenceStream(iter(messages))
    code, reason, details = refusal(caught.value)
    assert (code, reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD")
    assert details["BadRequest"].field_violations[0].field == "image_name"  # type: ignore[attr-defined]


def test_a_tuned_reference_judges_with_its_own_sensitivity_unless_a_request_has_one(stub: Stub) -> None:
    loaded = load(stub, "tuned", 3)
    image = encoded(card(51, scratched=True))

    def infer(**output: float) -> inference_pb2.InferResponse:
        options = inference_pb2.OutputOptions(**output)  # type: ignore[arg-type]
        return stub.Infer(inference_pb2.InferRequest(reference_id="tuned", image=image, output=options))

    def tune(sensitivity: float, expected: str = "") -> reference_pb2.Reference:
        request = reference_pb2.TuneReferenceRequest(
            reference_id="tuned", sensitivity=sensitivity, expected_revision=expected
        )
        return stub.TuneReference(request).reference

    before, tried = infer(), infer(sensitivity=0.3)
    tuned = tune(0.3, loaded.revision)
    assert (loaded.sensitivity, tuned.sensitivity) == (1, 0.3)
    assert tuned.threshold == pytest.approx(loaded.threshold / 0.3)
    assert (tuned.calibration, tuned.bank_bytes) == (loaded.calibration, loaded.bank_bytes)
    described = stub.GetReference(reference_pb2.GetReferenceRequest(reference_id="tuned")).reference
    described.ClearField("drift")  # only descriptions have it
    assert described == tuned
    after = infer()
    assert (before.anomaly.is_anomalous, after.anomaly.is_anomalous) == (True, False)
    assert after.anomaly == tried.anomaly, "tuning gives what the same sensitivity gave as an option"
    assert after.damage == before.damage
    assert infer(sensitivity=1).anomaly == before.anomaly
    with pytest.raises(grpc.RpcError) as caught:
        tune(2, loaded.revision)
    assert refusal(caught.value)[:2] == (grpc.StatusCode.FAILED_PRECONDITION, "REVISION_MISMATCH")
    for out_of_range in (0, 0.09, 10.5, float("nan")):
        with pytest.raises(grpc.RpcError) as caught:
            tune(out_of_range)
        code, reason, details = refusal(caught.value)
        assert (code, reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD")
        assert details["BadRequest"].field_violations[0].field == "sensitivity"  # type: ignore[attr-defined]
    assert tune(1).revision == loaded.revision


def test_append_equals_loading_all_at_once(stub: Stub) -> None:
    together = load(stub, "together", 4)
    first = load(stub, "grown", 2)
    images = [encoded(card(seed)) for seed in (2, 3)]
    request = reference_pb2.LoadReferenceRequest(
        reference_id="grown",
        images=images,
        mode=reference_pb2.LOAD_MODE_APPEND,
        expected_revision=first.revision,
    )
    grown = stub.LoadReference(request).reference
    assert grown.revision == together.revision != first.revision
    assert grown.create_time == first.create_time
    with pytest.raises(grpc.RpcError) as caught:
        stub.LoadReference(request)
    assert refusal(caught.value)[:2] == (grpc.StatusCode.FAILED_PRECONDITION, "REVISION_MISMATCH")


def test_a_streamed_load_equals_a_unary_one(stub: Stub) -> None:
    unary = load(stub, "unary", 3)

    def messages() -> Iterator[reference_pb2.LoadReferenceStreamRequest]:
        start = reference_pb2.LoadReferenceRequest(reference_id="streamed", images=[encoded(card(0))])
        yield reference_pb2.LoadReferenceStreamRequest(start=start)
        for seed in (1, 2):
            yield reference_pb2.LoadReferenceStreamRequest(image=encoded(card(seed)))

    assert stub.LoadReferenceStream(messages()).reference.revision == unary.revision


@pytest.mark.parametrize("profile", ["NOTEBOOK", "PAPER"])
def test_every_profile_works_with_a_coreset(stub: Stub, profile: str) -> None:
    number = reference_pb2.ScoringProfile.Value(f"SCORING_PROFILE_{profile}")
    loaded = load(stub, f"coreset-{profile}", 3, profile=number, coreset={"ratio": 0.1})
    assert loaded.patch_count == pytest.approx(0.1 * 3 * 196, abs=1)
    assert loaded.profile == number
    image = encoded(card(51, scratched=True))
    assert stub.Infer(inference_pb2.InferRequest(reference_id=f"coreset-{profile}", image=image)).anomaly.is_anomalous


def test_verdict_sees_larger_images_and_keeps_its_false_alarm_rate(stub: Stub) -> None:
    verdict = {"profile": reference_pb2.SCORING_PROFILE_VERDICT}
    default, rare = load(stub, "verdict", 6, **verdict), load(stub, "rare", 6, **verdict, false_alarm_rate=0.02)
    assert (rare.input_width_px, rare.input_height_px, rare.patch_count) == (320, 320, 6 * 400)
    assert not default.HasField("false_alarm_rate")
    assert default.calibration.false_alarm_rate == pytest.approx(0.15)
    assert (rare.false_alarm_rate, rare.calibration.false_alarm_rate) == pytest.approx((0.02, 0.02))
    assert rare.calibration.false_alarm_rate < rare.calibration.false_alarm_rate_upper < 0.15
    assert rare.calibration.image_threshold > default.calibration.image_threshold

    for scratched in (False, True):
        image = encoded(card(50, scratched=scratched))
        response = stub.Infer(inference_pb2.InferRequest(reference_id="rare", image=image))
        assert response.anomaly.is_anomalous == scratched

    with pytest.raises(grpc.RpcError, match="another false_alarm_rate"):
        load(stub, "rare", 7, mode=reference_pb2.LOAD_MODE_APPEND, false_alarm_rate=0.03)
    longer = load(stub, "rare", 7, mode=reference_pb2.LOAD_MODE_APPEND)
    assert (longer.image_count, longer.false_alarm_rate) == (6 + 7, 0.02)
    assert longer.calibration.false_alarm_rate == pytest.approx(0.02)


def strip(left: float, right: float) -> reference_pb2.RelativePolygon:
    """The vertical strip between two shares of the width."""
    corners = [(left, 0), (right, 0), (right, 1), (left, 1)]
    return reference_pb2.RelativePolygon(points=[reference_pb2.RelativePoint(x=x, y=y) for x, y in corners])


def test_only_the_region_of_interest_counts(stub: Stub) -> None:
    intact, damaged = (encoded(card(50, scratched=scratched), "PNG") for scratched in (False, True))

    def infer(image: bytes, **region: reference_pb2.RelativePolygon) -> inference_pb2.InferResponse:
        ((name, polygon),) = region.items()
        loaded = load(stub, name, 6, region_of_interest=[polygon])
        assert list(loaded.region_of_interest) == [polygon]
        output = inference_pb2.OutputOptions(score_map=True, overlay=True)
        response = stub.Infer(inference_pb2.InferRequest(reference_id=name, image=image, output=output))
        assert Image.open(io.BytesIO(response.overlay_png)).size == SIZE_PX
        response.ClearField("overlay_png")
        response.ClearField("timing")
        return response

    without = infer(damaged, without=strip(0, 0.4))  # the scratch is farther to the right
    assert without == infer(intact, without=strip(0, 0.4))
    scores = np.frombuffer(without.score_map.values, "<f4").reshape(without.score_map.height, without.score_map.width)
    border = round(0.4 * without.score_map.width)
    assert np.isfinite(scores[:, : border - 1]).all()
    assert np.isnan(scores[:, border + 1 :]).all()

    about = infer(damaged, about=strip(0.4, 0.9))
    assert about.anomaly.is_anomalous
    assert all(region.bounding_box.x_px >= 0.39 * SIZE_PX[0] for region in about.regions)
    assert about.regions


def test_with_a_search_radius_a_normal_part_in_another_place_is_anomalous(stub: Stub) -> None:
    anywhere, near = load(stub, "anywhere", 6), load(stub, "near", 6, search_radius=0.1)
    assert not anywhere.HasField("search_radius")
    assert (near.search_radius, near.patch_count) == (0.1, anywhere.patch_count)
    assert near.revision != anywhere.revision

    def score(reference_id: str, image: Image.Image) -> float:
        request = inference_pb2.InferRequest(reference_id=reference_id, image=encoded(image))
        return stub.Infer(request).anomaly.score

    assert score("near", card(50)) < 0.5 < score("near", card(51, scratched=True))
    mirrored = card(50).transpose(Image.Transpose.FLIP_LEFT_RIGHT)  # its label is on the other side
    assert score("near", mirrored) > max(0.5, score("anywhere", mirrored))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("search_radius", 0),
        ("search_radius", float("nan")),
        ("region_of_interest", [reference_pb2.RelativePolygon()]),
        ("region_of_interest", [strip(0, 320)]),
    ],
)
def test_an_invalid_option_is_named(stub: Stub, field: str, value: object) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        load(stub, "unfit", 1, **{field: value})
    code, reason, details = refusal(caught.value)
    assert (code, reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD")
    assert details["BadRequest"].field_violations[0].field == field  # type: ignore[attr-defined]


def test_an_append_with_other_options_is_refused(stub: Stub) -> None:
    chosen = {"search_radius": 0.2, "region_of_interest": [strip(0, 0.5)]}
    before = load(stub, "fixed", 1, **chosen)
    for other in ({"search_radius": 0.3}, {"region_of_interest": [strip(0.5, 1)]}):
        with pytest.raises(grpc.RpcError) as caught:
            load(stub, "fixed", 1, mode=reference_pb2.LOAD_MODE_APPEND, **{**chosen, **other})
        assert refusal(caught.value)[:2] == (grpc.StatusCode.FAILED_PRECONDITION, "PRECONDITION")
        assert f"another {next(iter(other))}, which APPEND cannot change" in str(caught.value)
    after = load(stub, "fixed", 2, mode=reference_pb2.LOAD_MODE_APPEND, **chosen)
    assert (after.image_count, after.search_radius) == (3, 0.2)
    assert after.region_of_interest == before.region_of_interest


def test_the_list_is_paged(stub: Stub) -> None:
    for name in ("page-a", "page-b", "page-c"):
        load(stub, name, 1)
    seen: list[str] = []
    token = ""
    while True:
        page = stub.ListReferences(reference_pb2.ListReferencesRequest(page_size=2, page_token=token))
        assert len(page.references) <= 2
        seen += [reference.reference_id for reference in page.references]
        token = page.next_page_token
        if not token:
            break
    assert seen == sorted(set(seen))
    assert {"page-a", "page-b", "page-c"} <= set(seen)


def test_a_deleted_reference_is_gone(stub: Stub) -> None:
    loaded = load(stub, "gone", 1)
    with pytest.raises(grpc.RpcError) as caught:
        stub.DeleteReference(reference_pb2.DeleteReferenceRequest(reference_id="gone", expected_revision="0" * 64))
    assert refusal(caught.value)[1] == "REVISION_MISMATCH"
    deleted = stub.DeleteReference(reference_pb2.DeleteReferenceRequest(reference_id="gone"))
    assert deleted.revision == loaded.revision
    with pytest.raises(grpc.RpcError) as caught:
        stub.GetReference(reference_pb2.GetReferenceRequest(reference_id="gone"))
    assert refusal(caught.value)[0] == grpc.StatusCode.NOT_FOUND


@pytest.mark.parametrize(
    ("images", "field", "reason"),
    [
        ([], "images", "INVALID_FIELD"),
        ([b""], "images[0]", "EMPTY_IMAGE"),
        ([encoded(card()), b"GIF89a not an image"], "images[1]", "UNDECODABLE_IMAGE"),
        ([encoded(card()), encoded(card(1))[:2000]], "images[1]", "UNDECODABLE_IMAGE"),
    ],
)
def test_a_bad_image_is_named_and_the_old_revision_stays(
    stub: Stub, images: list[bytes], field: str, reason: str
) -> None:
    before = load(stub, "steady", 1)
    with pytest.raises(grpc.RpcError) as caught:
        stub.LoadReference(reference_pb2.LoadReferenceRequest(reference_id="steady", images=images))
    code, got, details = refusal(caught.value)
    assert (code, got) == (grpc.StatusCode.INVALID_ARGUMENT, reason)
    assert details["BadRequest"].field_violations[0].field == field  # type: ignore[attr-defined]
    after = stub.GetReference(reference_pb2.GetReferenceRequest(reference_id="steady")).reference
    after.ClearField("drift")  # only descriptions have it
    assert after == before


@pytest.mark.usefixtures("cards")
def test_a_deadline_is_kept(stub: Stub) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        stub.Infer(inference_pb2.InferRequest(reference_id=CARDS, image=encoded(card())), timeout=0.001)
    assert caught.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    assert stub.Infer(inference_pb2.InferRequest(reference_id=CARDS, image=encoded(card())), timeout=30)


def test_server_info_describes_the_server(stub: Stub) -> None:
    info = stub.GetServerInfo(server_info_pb2.GetServerInfoRequest())
    assert (info.backbone, info.device, info.precision) == ("efficientnet_lite2", "cpu", "fp32")
    assert len(info.weights_digest) == 64
    assert info.fallback_reason == ""
    assert info.limits.max_image_bytes == 32 * 2**20
    assert info.limits.max_image_pixels == 64_000_000
    assert info.limits.max_image_side_px == 65_535
    assert info.limits.max_message_bytes == 64 * 2**20


def test_health_and_reflection_answer(server: ServerProcess) -> None:
    with grpc.insecure_channel(server.address) as channel:
        health = health_pb2_grpc.HealthStub(channel)
        for service in ("", SERVICE):
            answer = health.Check(health_pb2.HealthCheckRequest(service=service))
            assert answer.status == health_pb2.HealthCheckResponse.SERVING
        watch = health.Watch(health_pb2.HealthCheckRequest(service=SERVICE))
        assert next(watch).status == health_pb2.HealthCheckResponse.SERVING
        watch.cancel()
        with pytest.raises(grpc.RpcError) as caught:
            health.Check(health_pb2.HealthCheckRequest(service="nobody"))
        assert caught.value.code() == grpc.StatusCode.NOT_FOUND
        services = set(ProtoReflectionDescriptorDatabase(channel).get_services())
        assert {SERVICE, "grpc.health.v1.Health"} <= services
