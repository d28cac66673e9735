"""The schema of the file agrees with what the server reads."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from patchserve_server.config import ConfigurationError, Settings
from patchserve_server.config.reading import check_file
from patchserve_server.config.schema import file_schema

SCHEMA = file_schema()

FILES = [
    "",
    "port = 0\ninsecure = true\nstore = 'x'\nmax_timeout_s = 1.5\nheatmap_scale = 'calibrated'",
    "fronts = 2",
    "fronts = 'auto'",
    "http_allowed_hosts = ['a', 'b']",
    "backbone_layers = [1, 2]",
    "port = 65536",
    "prot = 1",
    "[limits]\nport = 1",
    "precision = 'fp8'",
    "device = 'gpu'",
    "client_share = 0",
    "http_port = 'a'",
    "http_allowed_hosts = { a = 1 }",
    "store = 5",
]


def test_it_is_a_schema_with_every_setting_and_its_description() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    assert list(SCHEMA["properties"]) == list(Settings.model_fields)
    assert all(each["description"] for each in SCHEMA["properties"].values())
    assert "null" not in str(SCHEMA)


@pytest.mark.parametrize("content", FILES)
def test_an_editor_and_the_server_accept_the_same(content: str, tmp_path: Path) -> None:
    file = tmp_path / "patchserve.toml"
    file.write_text(content)
    document: dict[str, Any] = tomllib.loads(content)
    assert jsonschema.Draft202012Validator(SCHEMA).is_valid(document) == is_accepted(file)


def is_accepted(file: Path) -> bool:
    try:
        check_file(file)
    except ConfigurationError:
        return False
    return True
