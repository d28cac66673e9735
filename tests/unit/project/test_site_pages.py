"""The pages that only the site fills: the reference of the Python client and the help of the commands."""

from __future__ import annotations

import re
from pathlib import Path

import patchserve_client

REPO = Path(__file__).resolve().parents[3]


def test_the_reference_of_the_python_client_has_every_exported_name_once() -> None:
    page = (REPO / "docs" / "reference" / "python.md").read_text()
    assert sorted(re.findall(r"^::: patchserve_client\.(\w+)$", page, re.MULTILINE)) == sorted(
        patchserve_client.__all__
    )
