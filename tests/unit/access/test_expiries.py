"""When credentials expire."""

from __future__ import annotations

from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

from patchserve_server.access.credentials import Credentials
from patchserve_server.access.expiries import expiries_of
from patchserve_server.access.tokens import new_token, reloading_tokens
from patchserve_server.domain.callers import Scope, TlsIdentity
from patchserve_server.domain.readings import Reading

SOON, LATER = datetime(2030, 1, 1, tzinfo=UTC), datetime(2031, 1, 1, tzinfo=UTC)


def test_the_last_token_of_a_name_counts_and_one_without_an_end_has_none(tmp_path: Any) -> None:
    lines = [
        new_token(name, [Scope.INFER], expires)[1]
        for name, expires in [("belt", LATER), ("belt", SOON), ("shop", SOON), ("shop", None), ("dock", SOON)]
    ]
    file = tmp_path / "tokens"
    file.write_text("\n".join(lines))
    tokens = reloading_tokens(file)
    identity: Any = SimpleNamespace(value=TlsIdentity(b"", b"", expires=SOON))
    assert list(expiries_of(Credentials(identity, None, (), tokens))()) == [
        Reading("certificate_expiry_timestamp_seconds", SOON.timestamp()),
        Reading("token_expiry_timestamp_seconds", SOON.timestamp(), ("dock",)),
        Reading("token_expiry_timestamp_seconds", LATER.timestamp(), ("belt",)),
    ]


def test_without_credentials_nothing_expires() -> None:
    assert list(expiries_of(Credentials(None, None, ()))()) == []
