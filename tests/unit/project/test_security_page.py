"""SECURITY.md agrees with rpc/methods.py."""

from __future__ import annotations

import re
from pathlib import Path

from patchserve_server.domain.callers import Scope
from patchserve_server.rpc.methods import METHODS

PAGE = Path(__file__).resolve().parents[3] / "SECURITY.md"


def test_the_page_names_the_scope_of_every_method() -> None:
    rows = re.findall(r"^\| (?:KServe's )?(`.+) \| `(\w+)` \|$", PAGE.read_text(), re.MULTILINE)
    written = {method: scope for methods, scope in rows for method in re.findall(r"`(\w+)`", methods)}
    assert written == {
        full_name.rpartition("/")[2]: method.scope
        for full_name, method in METHODS.items()
        if isinstance(method.scope, Scope)
    }
