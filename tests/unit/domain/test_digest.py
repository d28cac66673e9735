"""The revision digest is that of docs/format.md, whose example is written out here."""

from __future__ import annotations

import dataclasses
import hashlib
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from fakes.references import make_model, make_subspace_model

from patchserve_server.domain.digest import revision_of
from patchserve_server.domain.input_options import AspectRatio, InputOptions
from patchserve_server.domain.reference import (
    Calibration,
    CalibrationMethod,
    EmbeddingSpec,
    MemoryBank,
    ReferenceModel,
    ScoreSpread,
)
from patchserve_server.domain.reference_options import CoresetOptions, ReferenceOptions, ReferenceViews, ScoringProfile
from patchserve_server.domain.subspace import Subspace


def example() -> ReferenceModel:
    """The worked example of docs/format.md."""
    return ReferenceModel(
        spec=EmbeddingSpec("wide_resnet50_2", "00ff", 'bilinear-224/"é"', "fp32"),
        options=ReferenceOptions(
            profile=ScoringProfile.PAPER,
            coreset=CoresetOptions(ratio=0.1),
            search_radius=0.25,
            region_of_interest=(((0.0, 0.0), (1.0, 0.0), (0.5, 0.75)),),
        ),
        bank=MemoryBank(
            patches=np.array([[1.0, -2.0], [0.5, 0.0]], np.float32),
            image_index=np.array([0, 0], np.int32),
            grid_index=np.array([0, 3], np.int32),
            spacing=np.array([0.5, 1.5], np.float32),
            inputs=np.array([[[[1, 2, 3]]]], np.uint8),
        ),
        calibration=Calibration(
            CalibrationMethod.AUGMENTED_VIEWS,
            1e-05,
            12.0,
            ScoreSpread(count=4, min=0.25, mean=0.5, stddev=0.0, max=1e16),
        ),
    )


EXAMPLE = (
    b'{"calibration": {"image_threshold": 1e-05, "method": "augmented_views", "normal_scores": {"count": 4, '
    b'"max": 1e+16, "mean": 0.5, "min": 0.25, "stddev": 0.0}, "patch_threshold": 12.0}, '
    b'"options": {"approximate_search": false, "coreset": {"max_patches": null, "ratio": 0.1}, '
    b'"profile": "paper", "region_of_interest": [[[0.0, 0.0], [1.0, 0.0], [0.5, 0.75]]], "search_radius": 0.25}, '
    b'"spec": {"backbone": "wide_resnet50_2", "precision": "fp32", '
    b'"preprocessing": "bilinear-224/\\"\\u00e9\\"", "weights_digest": "00ff"}}'
    b"\npatches <f4 (2, 2)\n"
    + bytes.fromhex("0000803f 000000c0 0000003f 00000000")
    + b"\nimage_index <i4 (2,)\n"
    + bytes.fromhex("00000000 00000000")
    + b"\ngrid_index <i4 (2,)\n"
    + bytes.fromhex("00000000 03000000")
    + b"\nspacing <f4 (2,)\n"
    + bytes.fromhex("0000003f 0000c03f")
    + b"\ninputs |u1 (1, 1, 1, 3)\n"
    + bytes([1, 2, 3])
)


def test_the_worked_example_of_the_documentation_has_the_documented_digest() -> None:
    assert revision_of(example()) == hashlib.sha256(EXAMPLE).hexdigest()
    page = Path(__file__).parents[3] / "docs/format.md"
    assert revision_of(example()) in page.read_text()


def test_a_sensitivity_other_than_one_is_in_the_digest() -> None:
    tuned = dataclasses.replace(example(), sensitivity=1.5)
    message = EXAMPLE.replace(b'"spec": {', b'"sensitivity": 1.5, "spec": {')
    assert revision_of(tuned) == hashlib.sha256(message).hexdigest()


def test_the_list_of_normal_scores_is_not_in_the_digest() -> None:
    calibration = example().calibration
    spread = dataclasses.replace(calibration.normal_scores, scores=(0.25, 0.5, 0.75, 1e16))
    listed = dataclasses.replace(calibration, normal_scores=spread)
    assert revision_of(dataclasses.replace(example(), calibration=listed)) == hashlib.sha256(EXAMPLE).hexdigest()


def test_the_number_of_views_is_not_in_the_digest() -> None:
    assert revision_of(dataclasses.replace(example(), views_per_image=8)) == revision_of(example())


def test_the_rates_of_a_calibration_are_not_in_the_digest() -> None:
    calibration = dataclasses.replace(example().calibration, false_alarm_rate=0.1, false_alarm_rate_upper=0.2)
    assert revision_of(dataclasses.replace(example(), calibration=calibration)) == hashlib.sha256(EXAMPLE).hexdigest()


def test_equal_content_has_the_same_revision() -> None:
    assert revision_of(make_model(5)) == revision_of(make_model(5))


def test_the_memory_layout_does_not_change_the_revision() -> None:
    model = make_model()
    bank = dataclasses.replace(
        model.memory_bank,
        patches=np.asfortranarray(model.memory_bank.patches),
        inputs=model.memory_bank.inputs[:, :, ::-1].copy()[:, :, ::-1],
    )
    assert not bank.patches.flags.c_contiguous
    assert not bank.inputs.flags.c_contiguous
    assert revision_of(dataclasses.replace(model, bank=bank)) == revision_of(model)


CHANGES: dict[str, dict[str, Any]] = {
    "spec": {
        "backbone": "x",
        "weights_digest": "x",
        "preprocessing": "x",
        "precision": "x",
    },
    "options": {
        "profile": ScoringProfile.NOTEBOOK,
        "coreset": CoresetOptions(),
        "search_radius": None,
        "region_of_interest": (),
        "approximate_search": True,
        "input": InputOptions(longer_side_px=320),
        "views": ReferenceViews.AUTO,
        "scales": 2,
        "false_alarm_rate": 0.02,
        "white_level": 4095,
    },
    "calibration": {
        "method": CalibrationMethod.LEAVE_ONE_OUT,
        "image_threshold": 2e-05,
        "patch_threshold": math.nextafter(12.0, 13.0),
        "normal_scores": ScoreSpread(count=4, min=0.25, mean=0.5, stddev=0.0, max=2e16),
    },
    "bank": {
        "patches": np.array([[1.0, -2.0], [0.5, -0.0]], np.float32),
        "image_index": np.array([0, 1], np.int32),
        "grid_index": np.array([1, 3], np.int32),
        "spacing": np.array([0.5, 1.0], np.float32),
        "inputs": np.array([[[[1, 2, 4]]]], np.uint8),
    },
}
NOT_IN_IT: dict[str, dict[str, Any]] = {"calibration": {"false_alarm_rate": None, "false_alarm_rate_upper": None}}
# Some values are possible only together with another one.
TOGETHER: dict[str, dict[str, Any]] = {
    "approximate_search": {"search_radius": None},
    "scales": {"search_radius": None},
    "image_index": {"inputs": np.array([[[[1, 2, 3]]], [[[1, 2, 3]]]], np.uint8)},
}
CORESET_CHANGES: dict[str, Any] = {"ratio": 0.2, "max_patches": 16}
INPUT_CHANGES: tuple[dict[str, Any], ...] = (
    {"longer_side_px": 448},
    {"auto": True},
    {"aspect": AspectRatio.KEEP},
    {"tile_px": 448},
    {"tile_px": 448, "tile_overlap": 0.5},
)
REGION_CHANGES = (
    (((0.0, 0.0), (1.0, 0.0), (0.75, 0.5)),),
    (((1.0, 0.0), (0.5, 0.75), (0.0, 0.0)),),
    (((0.0, 0.0), (1.0, 0.0), (0.5, 0.75)),) * 2,
    (((0.0, 0.0), (1.0, 0.0), (0.5, 0.75)) * 2,),
)
SPREAD_CHANGES: dict[str, Any] = {"count": 5, "min": 0.125, "mean": 0.75, "stddev": 0.5, "max": 1.0}


def changed_models() -> Iterator[ReferenceModel]:
    """The example, with one value changed each time."""
    model = example()
    for part, changes in CHANGES.items():
        for name, value in changes.items():
            others = TOGETHER.get(name, {})
            changed = dataclasses.replace(getattr(model, part), **others, **{name: value})
            yield dataclasses.replace(model, **{part: changed})
    for values in INPUT_CHANGES:
        yield dataclasses.replace(model, options=dataclasses.replace(model.options, input=InputOptions(**values)))
    for name, value in CORESET_CHANGES.items():
        coreset = CoresetOptions(**{name: value})
        yield dataclasses.replace(model, options=dataclasses.replace(model.options, coreset=coreset))
    yield dataclasses.replace(model, sensitivity=2.0)
    for region in REGION_CHANGES:
        yield dataclasses.replace(model, options=dataclasses.replace(model.options, region_of_interest=region))
    for name, value in SPREAD_CHANGES.items():
        spread = dataclasses.replace(model.calibration.normal_scores, **{name: value})
        yield dataclasses.replace(model, calibration=dataclasses.replace(model.calibration, normal_scores=spread))


def test_every_change_of_a_value_changes_the_revision() -> None:
    two_images = dataclasses.replace(example().bank, **TOGETHER["image_index"])
    models = [example(), dataclasses.replace(example(), bank=two_images), *changed_models()]
    revisions = [revision_of(model) for model in models]
    assert len(set(revisions)) == len(revisions)


def test_every_value_of_a_subspace_changes_the_revision() -> None:
    model = make_subspace_model()
    bank = model.bank
    assert isinstance(bank, Subspace)
    others = [
        dataclasses.replace(bank, mean=np.nextafter(bank.mean, np.float32(9))),
        dataclasses.replace(bank, basis=-bank.basis),
        dataclasses.replace(bank, inputs=bank.inputs[:, :, ::-1].copy()),
    ]
    revisions = {revision_of(dataclasses.replace(model, bank=each)) for each in (bank, *others)}
    assert len(revisions) == 4


def test_the_changes_cover_every_field() -> None:
    model = example()
    for whole, changes in (
        *((getattr(model, part), {**changes, **NOT_IN_IT.get(part, {})}) for part, changes in CHANGES.items()),
        (model.options.coreset, CORESET_CHANGES),
        (model.calibration.normal_scores, {**SPREAD_CHANGES, "scores": ()}),
    ):
        assert set(changes) == {field.name for field in dataclasses.fields(whole)}
    assert set().union(*INPUT_CHANGES) == {field.name for field in dataclasses.fields(InputOptions)}
    assert {*CHANGES, "sensitivity", "views_per_image"} == {field.name for field in dataclasses.fields(model)}


def test_another_shape_changes_the_revision_even_if_the_bytes_are_equal() -> None:
    model = example()
    one, four = (
        dataclasses.replace(model, bank=dataclasses.replace(model.bank, inputs=np.zeros(shape, np.uint8)))
        for shape in ((1, 2, 2, 3), (4, 1, 1, 3))
    )
    assert revision_of(one) != revision_of(four)
