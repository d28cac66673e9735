"""What was answered is in the store, whatever is killed; what was deleted is gone from every server."""

from __future__ import annotations

from pathlib import Path

import pytest
from e2e import kills
from e2e.replicas import replicas
from fakes.object_servers import ObjectServer


@pytest.mark.timeout(300)
def test_kills_lose_nothing_that_was_answered(
    seaweedfs: ObjectServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kills, "SERVES_DELETED_S", 10.0)  # of a busy machine; `python -m e2e.kills` says what it takes
    variables = dict(seaweedfs.environment)
    with replicas(tmp_path, 3, *kills.FLAGS, store_url=seaweedfs.url("kills"), variables=variables) as fleet:
        seen = kills.kill_and_change(fleet, kills=6, callers=3)
    assert seen.kills == 6
    assert sum(seen.outcomes.values()) >= 3
    assert seen.lost == []
    assert seen.served_deleted == []
