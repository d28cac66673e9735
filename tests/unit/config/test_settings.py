"""Settings that depend on where the server runs."""

from __future__ import annotations

import os

import pytest

from patchserve_server.config import ConfigurationError, Settings, read_configuration


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="here a process runs on every core")
def test_threads_are_as_many_as_the_cores_that_the_process_may_run_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PATCHSERVE_THREADS", raising=False)
    monkeypatch.setattr("os.cpu_count", lambda: 64)
    assert Settings().threads == len(os.sched_getaffinity(0))


@pytest.mark.parametrize("text", ["s3:/bucket/prefix", "s3:bucket", "S3:/bucket", "memory:/x", "gs:"])
def test_a_url_of_a_store_with_a_missing_slash_is_no_folder(text: str) -> None:
    with pytest.raises(ConfigurationError, match="two slashes after its colon"):
        read_configuration({"store": text}, None)


@pytest.mark.parametrize(
    "text",
    [
        "s3://AKIA:hidden@bucket/prefix",
        "s3://AKIA:hid/den+hidden@bucket/prefix",
        "s3://hidden@bucket",
        "s3://AKIA:hidden/bucket",
        "s3://bucket/prefix?X-Amz-Signature=hidden",
        "s3://bucket#hidden",
        "https://account:hidden@host/x",
    ],
)
def test_what_may_be_a_key_in_the_url_of_a_store_is_refused_and_not_shown(text: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        read_configuration({"store": text}, None)
    assert "hid" not in str(caught.value)
    assert not any("hid" in str(problem) for problem in caught.value.problems)
