"""Settings that depend on where the server runs."""

from __future__ import annotations

import os

import pytest

from patchserve_server.config import ConfigurationError, Settings, read_configuration
from patchserve_server.domain.errors import StartupError
from patchserve_server.store.objects import open_object_storage


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
    "text", ["s3://bu cket", "s3://b/../c", "gs://b/a//c", "az://c/ä", "s3://a", "s3://b/" + "a/" * 300]
)
def test_a_url_that_no_store_can_have_is_refused_before_a_start(text: str) -> None:
    with pytest.raises(StartupError) as refused:
        open_object_storage(text)
    with pytest.raises(ConfigurationError) as caught:
        read_configuration({"store": text}, None)
    assert refused.value.message in str(caught.value), "by the same rule"


@pytest.mark.parametrize(("text", "url"), [("S3://bucket/a/", "s3://bucket/a"), ("memory://", "memory://")])
def test_a_url_of_a_store_is_written_in_one_way(text: str, url: str) -> None:
    assert Settings(store=text).store_url == url


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
