"""SECURITY.md says what rpc/authorization.py does."""

from __future__ import annotations

import re
from pathlib import Path

from patchserve_server.rpc.authorization import KSERVE, SCOPES, SERVICE

PAGE = Path(__file__).resolve().parents[3] / "SECURITY.md"


def test_the_page_names_the_scope_of_every_method() -> None:
    rows = re.findall(r"^\| (?:KServe's )?(`.+) \| `(\w+)` \|$", PAGE.read_text(), re.MULTILINE)
    written = {method: scope for methods, scope in rows for method in re.findall(r"`(\w+)`", methods)}
    assert written == {
        path.rpartition("/")[2]: scope
        for path, scope in SCOPES.items()
        if path.startswith((f"/{SERVICE}/", f"/{KSERVE}/"))
    }
