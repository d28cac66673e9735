"""Pointers and manifests that are refused, and a part of each message."""

from __future__ import annotations

import math

from fakes.damage import OTHER, VICTIM, Harm, cut, drop, edit, manifest, pad, pointer, sparse, swap, write

PICKLE = b"\x80\x04\x95\x10\x00\x00\x00\x00\x00\x00\x00\x8c\x05posix\x94."

IMAGE: dict[str, object] = {"name": "", "media_type": "image/png", "width_px": 1, "height_px": 1, "size_bytes": 1}

KEPT: dict[str, object] = {"revision": OTHER.revision, "update_time": "2025-01-01T00:00:00Z", "operation": "load"}

NOT_THE_JSON = {
    f"{file.__name__} {what}": (words, write(file, data))
    for file in (manifest, pointer)
    for what, words, data in (
        ("empty", "Invalid JSON", b""),
        ("zeros", "Invalid JSON", bytes(100)),
        ("a pickle", "Invalid JSON", PICKLE),
        ("not UTF-8", "Invalid JSON", b'{"format_version": "\xff\xfe"}'),
        ("UTF-16", "Invalid JSON", '{"format_version": 1}'.encode("utf-16")),
        ("a deep list", "Invalid JSON: recursion limit", b"[" * 4000),
        ("a deep object", "Invalid JSON: recursion limit", b'{"a":' * 800),
        ("deep in an unknown field", "Invalid JSON: recursion limit", b'{"x": ' + b"[" * 1500 + b"]" * 1500 + b"}"),
        ("a list", "Input should be an object", b"[]"),
        ("null", "Input should be an object", b"null"),
        ("a huge number", "format_version: ", b'{"format_version": ' + b"9" * 3900 + b"}"),
    )
}

VERSIONS = {
    f"{file.__name__} version {value!r}": (f"format_version: {words}", edit(file, "format_version", value))
    for file, versions in ((manifest, "versions 1 to 5"), (pointer, "versions 1 to 3"))
    for value, words in (
        (0, f"this server reads {versions} only"),
        (6, f"this server reads {versions} only"),
        (-1, f"this server reads {versions} only"),
        (10**30, f"this server reads {versions} only"),
        (1.5, "Input should be a valid integer"),
        (1.0, "Input should be a valid integer"),
        (True, "Input should be a valid integer"),
        ("1", "Input should be a valid integer"),
        (None, "Input should be a valid integer"),
    )
}

POINTERS = {
    "pointer too large": ("its pointer is larger than 4096 bytes", pad(pointer, 4096)),
    "pointer a tebibyte": ("its pointer is larger than 4096 bytes", sparse(pointer, b"{")),
    "pointer cut": ("Invalid JSON", cut(pointer, 40)),
    "pointer with a duplicate key": ("duplicate key", swap(pointer, b'"revision"', b'"revision": "x", "revision"')),
    "pointer with an extra field": ("more: Extra inputs", edit(pointer, "more", 1)),
    "pointer of another": ("its pointer belongs to another reference", edit(pointer, "reference_id", "other")),
    "pointer to nothing": ("its manifest is missing", edit(pointer, "revision", "0" * 64)),
    "pointer upwards": ("revision: String should match", edit(pointer, "revision", f"../other/{OTHER.revision}")),
    "pointer in capitals": ("revision: String should match", edit(pointer, "revision", VICTIM.revision.upper())),
    "pointer with a newline": ("revision: String should match", edit(pointer, "revision", VICTIM.revision + "\n")),
    "pointer a number": ("revision: Input should be a valid string", edit(pointer, "revision", 5)),
    **{
        f"pointer without {key}": (f"{key}: Field required", drop(pointer, key))
        for key in ("format_version", "reference_id", "revision", "create_time", "update_time", "operation", "previous")
    },
    "pointer of version 1 with what later ones have": ("Extra inputs", edit(pointer, "format_version", 1)),
    "pointer of version 2 with an operation": ("operation: Extra inputs", edit(pointer, "format_version", 2)),
    **{
        f"pointer operation {value!r}": (words, edit(pointer, "operation", value))
        for value, words in (
            ("LOAD", "operation: Input should be 'load', 'append', 'tune' or 'import'"),
            ("", "operation: Input should be"),
            (1, "operation: Input should be"),
            ([], "operation: Input should be"),
        )
    },
    **{
        f"pointer previous {value!r}": (words, edit(pointer, "previous", value))
        for value, words in (
            (OTHER.revision, "previous: Input should be an object"),
            ([], "previous: Input should be an object"),
            ({}, "previous.revision: Field required"),
            (KEPT | {"more": 1}, "previous.more: Extra inputs"),
            (KEPT | {"revision": f"../other/{OTHER.revision}"}, "previous.revision: String should match"),
            (KEPT | {"revision": ".."}, "previous.revision: String should match"),
            (KEPT | {"revision": None}, "previous.revision: Input should be a valid string"),
            (KEPT | {"update_time": 0}, "previous.update_time: "),
            (KEPT | {"operation": "restore"}, "previous.operation: Input should be"),
            (KEPT | {"update_time": "2025-01-01T00:00:00.5Z"}, "a field in another form"),
            (KEPT | {"revision": VICTIM.revision}, "previous is the current revision"),
        )
    },
    **{
        f"pointer time {value}": (words, edit(pointer, "create_time", value))
        for value, words in (
            ("", "create_time: "),
            (0, "create_time: "),
            (None, "create_time: "),
            ("2025-01-01", "create_time: "),
            ("2025-02-30T00:00:00Z", "create_time: "),
            ("99999-01-01T00:00:00Z", "create_time: "),
            ("2025-01-01T00:00:00", "create_time: Input should have timezone"),
            ("2025-01-01T00:00:00+01:00", "create_time: must be in UTC"),
            ("2025-01-01T00:00:00+00:00", "a field in another form"),
            ("2025-01-01T00:00:00.5Z", "a field in another form"),
            ("2025-01-01 00:00:00Z", "a field in another form"),
        )
    },
}

MANIFESTS = {
    "manifest too large": ("its manifest is larger than 33554432 bytes", pad(manifest, 2**25)),
    "manifest a tebibyte": ("its manifest is larger than 33554432 bytes", sparse(manifest, b"{")),
    "manifest cut": ("Invalid JSON", cut(manifest, 200)),
    "manifest with a duplicate key": (
        "duplicate key",
        swap(manifest, b'"ratio"', b'"ratio": 0.2, "ratio"'),
    ),
    **{
        f"manifest without {key}": (f"{key}: Field required", drop(manifest, key))
        for key in (
            *("format_version", "revision", "spec", "options", "calibration", "sensitivity", "images"),
            "views_per_image",
        )
    },
    **{
        f"manifest views {value!r}": (words, edit(manifest, "views_per_image", value))
        for value, words in (
            (0, "views_per_image: Input should be greater than or equal to 1"),
            (1.0, "views_per_image: Input should be a valid integer"),
            ("8", "views_per_image: Input should be a valid integer"),
        )
    },
    "manifest of version 1 with a sensitivity": ("sensitivity: Extra inputs", edit(manifest, "format_version", 1)),
    "manifest of version 4 with views": ("views_per_image: Extra inputs", edit(manifest, "format_version", 4)),
    **{
        f"manifest scores {value!r}": (words, edit(manifest, "calibration.normal_scores.scores", value))
        for value, words in (
            (None, "scores: Input should be a valid array"),
            (0.25, "scores: Input should be a valid array"),
            (["0.25"] * 3, "scores.0: Input should be a valid number"),
            ([0.25, float("nan"), 0.5], "scores.1: Input should be a finite number"),
            ([0.25, 0.5], "list of normal scores contradicts the numbers"),
            ([0.25, 0.25, 0.3, 0.5], "list of normal scores contradicts the numbers"),
            ([0.25, 0.3, 0.4], "list of normal scores contradicts the numbers"),
            ([0.3, 0.4, 0.5], "list of normal scores contradicts the numbers"),
            ([0.25, 0.6, 0.5], "list of normal scores contradicts the numbers"),
        )
    },
    "manifest without scores": ("lacks a field", drop(manifest, "calibration.normal_scores.scores")),
    **{
        f"manifest sensitivity {value!r}": (words, edit(manifest, "sensitivity", value))
        for value, words in (
            (0, "sensitivity must be 0.1 to 10"),
            (10.5, "sensitivity must be 0.1 to 10"),
            (-1.0, "sensitivity must be 0.1 to 10"),
            (float("nan"), "sensitivity: Input should be a finite number"),
            ("1", "sensitivity: Input should be a valid number"),
            (True, "sensitivity: Input should be a valid number"),
            (None, "sensitivity: Input should be a valid number"),
            (2.0, "does not match its revision"),
        )
    },
    **{
        f"manifest images {value!r}": (words, edit(manifest, "images", value))
        for value, words in (
            (None, "images: Input should be a valid array"),
            ([{}], "lacks a field"),
            ([{"name": "a"}] * 3, "lacks a field"),
            ([IMAGE | {"name": "a\n"}] * 3, "printable characters"),
            ([IMAGE | {"name": "a" * 129}] * 3, "at most 128 bytes"),
            ([IMAGE | {"media_type": "text/html"}] * 3, "unknown media type"),
            ([IMAGE | {"width_px": -1}] * 3, "negative size"),
            ([IMAGE | {"width_px": 1.0}] * 3, "width_px: Input should be a valid integer"),
            ([IMAGE | {"more": 1}] * 3, "images.0.more: Unexpected"),
            ([IMAGE] * 2, "does not describe each of its images"),
        )
    },
    "manifest without spec.precision": ("spec.precision: Field required", drop(manifest, "spec.precision")),
    "manifest without max": ("max: Field required", drop(manifest, "calibration.normal_scores.max")),
    "manifest without max_patches": ("lacks a field", drop(manifest, "options.coreset.max_patches")),
    **{
        f"manifest without options.{key}": ("lacks a field", drop(manifest, f"options.{key}"))
        for key in ("profile", "coreset", "search_radius", "region_of_interest", "approximate_search")
    },
    "manifest with an extra field": ("more: Extra inputs", edit(manifest, "more", 1)),
    "manifest with an extra field in spec": ("spec.more: Unexpected", edit(manifest, "spec.more", 1)),
    "manifest with an extra field in options": ("options.more: Unexpected", edit(manifest, "options.more", 1)),
    "manifest with a profile in spec": ("spec.profile: Unexpected", edit(manifest, "spec.profile", "notebook")),
    "manifest with a very long field name": (r"spec.x\n/x\n/x", edit(manifest, "spec." + "x\n/" * 3000, 1)),
    "manifest of another revision": ("belongs to another revision", edit(manifest, "revision", OTHER.revision)),
    "manifest without a revision": ("revision: String should match", edit(manifest, "revision", "")),
    "manifest with another backbone": ("does not match its revision", edit(manifest, "spec.backbone", "other")),
    "manifest with another ratio": ("does not match its revision", edit(manifest, "options.coreset.ratio", 0.2)),
    "manifest with another threshold": (
        "does not match its revision",
        edit(manifest, "calibration.image_threshold", 0.70001),
    ),
    "manifest with half a patch": ("options.coreset.max_patches: ", edit(manifest, "options.coreset.max_patches", 1.0)),
    "manifest with an unknown profile": ("options.profile: ", edit(manifest, "options.profile", "magic")),
    "manifest with the profile of a subspace": ("coreset cannot be", edit(manifest, "options.profile", "subspace")),
    "manifest with a profile in capitals": ("options.profile: ", edit(manifest, "options.profile", "NOTEBOOK")),
    "manifest with an unknown method": ("calibration.method: ", edit(manifest, "calibration.method", "guess")),
    "manifest with an overflow": (
        "finite number",
        swap(manifest, b'"image_threshold": 0.7', b'"image_threshold": 1e999'),
    ),
    **{
        f"manifest {name} {value!r}": (words, edit(manifest, f"calibration.{name}", value))
        for name in ("image_threshold", "patch_threshold")
        for value, words in (
            (float("nan"), f"{name}: Input should be a finite number"),
            (float("inf"), f"{name}: Input should be a finite number"),
            (-0.5, "a threshold is negative"),
            ("0.7", f"{name}: Input should be a valid number"),
            (None, f"{name}: Input should be a valid number"),
            (True, f"{name}: Input should be a valid number"),
            ([], f"{name}: Input should be a valid number"),
        )
    },
    **{
        f"manifest {name} {value!r}": (words, edit(manifest, f"calibration.normal_scores.{name}", value))
        for name, value, words in (
            ("count", 0, "numbers of the normal scores contradict each other"),
            ("count", 3.0, "count: Input should be a valid integer"),
            ("count", 2**70, "list of normal scores contradicts the numbers"),
            ("stddev", 0.2, "does not match its revision"),
            ("min", 0.6, "numbers of the normal scores contradict each other"),
            ("min", -0.1, "numbers of the normal scores contradict each other"),
            ("stddev", -0.1, "numbers of the normal scores contradict each other"),
            ("mean", float("nan"), "mean: Input should be a finite number"),
            ("max", float("-inf"), "max: Input should be a finite number"),
        )
    },
}

RADII = {
    f"manifest search_radius {value!r}": (words, edit(manifest, "options.search_radius", value))
    for value, words in (
        (0, "above 0 and at most 1"),
        (-0.0, "above 0 and at most 1"),
        (-0.25, "above 0 and at most 1"),
        (math.nextafter(1, 2), "above 0 and at most 1"),
        (2, "above 0 and at most 1"),
        (float("nan"), "options.search_radius: Input should be a finite number"),
        (float("inf"), "options.search_radius: Input should be a finite number"),
        ("NaN", "options.search_radius: Input should be a valid number"),
        ("0.25", "options.search_radius: Input should be a valid number"),
        (True, "options.search_radius: Input should be a valid number"),
        ([0.25], "options.search_radius: Input should be a valid number"),
        (0.5, "does not match its revision"),
        (None, "does not match its revision"),
    )
}

TRIANGLE = [[0, 0], [1, 0], [0.5, 0.75]]
REGIONS = {
    f"manifest region_of_interest {name}": (words, edit(manifest, "options.region_of_interest", value))
    for name, words, value in (
        ("null", "options.region_of_interest: Input should be a valid array", None),
        ("a text", "options.region_of_interest: Input should be a valid array", "all"),
        ("an object", "options.region_of_interest: Input should be a valid array", {"points": TRIANGLE}),
        ("of objects", "region_of_interest.0: Input should be a valid array", [{"points": TRIANGLE}]),
        ("one polygon only", "region_of_interest.0.0: Input should be a valid array", TRIANGLE),
        ("of objects as points", "region_of_interest.0.0: Input should be a valid array", [[{"x": 0, "y": 0}] * 3]),
        ("of texts as points", "region_of_interest.0.0: Input should be a valid array", [["00"] * 3]),
        ("of no points", "at least 3 points", [TRIANGLE, []]),
        ("of 2 points", "at least 3 points", [TRIANGLE[:2]]),
        ("of 501 points in one", "at most 500 points", [TRIANGLE * 167]),
        ("of 501 points in many", "at most 500 points", [TRIANGLE] * 167),
        ("with one axis", "region_of_interest.0.2.1: Field required", [[[0, 0], [1, 0], [0]]]),
        ("with three axes", "region_of_interest.0.2: Tuple should have at most 2", [[[0, 0], [1, 0], [0, 1, 0]]]),
        ("left of it", "fractions of the image's width and height, 0 to 1", [[[0, 0], [1, 0], [-0.1, 1]]]),
        ("below it", "fractions of the image's width and height, 0 to 1", [[[0, 0], [1, 0], [0, 1.1]]]),
        ("in pixels", "fractions of the image's width and height, 0 to 1", [[[0, 0], [223, 0], [0, 223]]]),
        ("with a huge number", "region_of_interest.0.2.1: Input should be a finite", [[[0, 0], [1, 0], [0, 10**400]]]),
        ("of NaN", "region_of_interest.0.2.1: Input should be a finite", [[[0, 0], [1, 0], [0, float("nan")]]]),
        ("of booleans", "region_of_interest.0.0.0: Input should be a valid number", [[[True, 0], [1, 0], [0, 1]]]),
        ("changed", "does not match its revision", [[[0, 0], [1, 0], [0.5, 0.5]]]),
        ("reversed", "does not match its revision", [TRIANGLE[::-1]]),
        ("twice", "does not match its revision", [TRIANGLE, TRIANGLE]),
        ("removed", "does not match its revision", []),
    )
}

RECORDS: dict[str, tuple[str, Harm]] = NOT_THE_JSON | VERSIONS | POINTERS | MANIFESTS | RADII | REGIONS
