"""The URL of a store, and where its credentials come from."""

from __future__ import annotations

from pathlib import Path

import pytest

from patchserve_server.domain.errors import StartupError
from patchserve_server.domain.store_address import StoreAddress, parse_address
from patchserve_server.store.objects import open_object_storage
from patchserve_server.store.objects.aws_profile import read_profile

SECRET = "wJalrXUtnFEMI"


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("s3://bucket", StoreAddress("s3", "bucket", "")),
        ("s3://bucket/", StoreAddress("s3", "bucket", "")),
        ("gs://my.bucket-1/a/b_c/", StoreAddress("gs", "my.bucket-1", "a/b_c")),
        ("az://container/plant=4", StoreAddress("az", "container", "plant=4")),
        ("memory://", StoreAddress("memory", "", "")),
        ("memory://trial", StoreAddress("memory", "trial", "")),
    ],
)
def test_a_url_names_a_bucket_and_a_prefix(url: str, address: StoreAddress) -> None:
    assert parse_address(url) == address
    assert parse_address(str(address)) == address


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("ftp://bucket/a", "cannot begin with ftp://"),
        ("s3://", "names no bucket"),
        ("s3:///prefix", "names no bucket"),
        ("s3:/bucket/prefix", "two slashes after its colon"),
        ("s3:", "two slashes after its colon"),
        ("s3://a", "name of a bucket"),
        ("s3://bu cket", "name of a bucket"),
        ("s3://bucket/a//b", "contains ''"),
        ("s3://bucket/../b", "contains '..'"),
        ("s3://bucket/ä", "contains"),
        ("s3://bucket/" + "a/" * 300, "allowed"),
        ("s3://localhost:9000/bucket", "AWS_ENDPOINT_URL"),
        ("s3://bucket:x/", "cannot be parsed"),
        ("s3://[bucket/", "cannot be parsed"),
    ],
)
def test_a_url_that_names_none_is_refused_with_what_is_allowed(url: str, message: str) -> None:
    with pytest.raises(StartupError) as caught:
        open_object_storage(url)
    assert message in caught.value.message


@pytest.mark.parametrize(
    "url",
    [
        f"s3://AKIAIOSFODNN7:{SECRET}@bucket/prefix",
        f"az://container/prefix?sig={SECRET}",
        f"s3://bucket/prefix#{SECRET}",
        f"s3://{SECRET}@bucket",
    ],
)
def test_credentials_in_a_url_are_refused_and_not_repeated(url: str) -> None:
    with pytest.raises(StartupError, match="Credentials never go there") as caught:
        open_object_storage(url)
    assert SECRET not in caught.value.message


def test_an_endpoint_with_credentials_is_refused_and_not_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://key:{SECRET}@localhost:9000")
    with pytest.raises(StartupError, match="AWS_ENDPOINT_URL contains credentials") as caught:
        open_object_storage("s3://bucket/prefix")
    assert SECRET not in caught.value.message


def test_variables_that_the_provider_cannot_use_are_told_without_their_values(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_NAME", "account")
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_KEY", SECRET)  # is no base64
    with pytest.raises(StartupError, match="az://container") as caught:
        open_object_storage("az://container")
    assert SECRET not in caught.value.message


def test_stores_in_memory_with_one_name_are_one() -> None:
    open_object_storage("memory://one").put("a", b"1")
    assert open_object_storage("memory://one").find("a")
    assert open_object_storage("memory://other").find("a") is None


CREDENTIALS = f"""
[default]
aws_access_key_id = DEFAULT
aws_secret_access_key = {SECRET}

[plant]
aws_access_key_id = PLANT
aws_secret_access_key = {SECRET}
aws_session_token = token
"""
CONFIG = """
[default]
region = eu-central-1

[profile plant]
region = eu-west-1

[profile role]
role_arn = arn:aws:iam::1:role/x
"""


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / ".aws").mkdir()
    (tmp_path / ".aws" / "credentials").write_text(CREDENTIALS)
    (tmp_path / ".aws" / "config").write_text(CONFIG)
    return tmp_path


def test_keys_come_from_the_files_of_aws(home: Path) -> None:
    profile = read_profile({}, home)
    assert (profile.access_key_id, profile.session_token, profile.region) == ("DEFAULT", None, "eu-central-1")
    profile = read_profile({"AWS_PROFILE": "plant"}, home)
    assert (profile.access_key_id, profile.session_token, profile.region) == ("PLANT", "token", "eu-west-1")
    assert SECRET not in repr(profile)


def test_the_variables_of_keys_and_roles_come_first(home: Path) -> None:
    for variable in ("AWS_ACCESS_KEY_ID", "AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_CONTAINER_CREDENTIALS_FULL_URI"):
        profile = read_profile({variable: "x"}, home)
        assert (profile.access_key_id, profile.region) == (None, "eu-central-1")


def test_a_profile_without_keys_is_refused_with_what_to_do(home: Path) -> None:
    with pytest.raises(StartupError, match="export-credentials"):
        read_profile({"AWS_PROFILE": "role"}, home)
    with pytest.raises(StartupError, match="'nobody' has no keys"):
        read_profile({"AWS_PROFILE": "nobody"}, home)


def test_without_files_the_machine_may_have_a_role(tmp_path: Path) -> None:
    assert read_profile({}, tmp_path).access_key_id is None


def test_a_file_that_cannot_be_parsed_is_named_and_not_quoted(home: Path) -> None:
    other = home / "other"
    other.write_text(f"[default]\naws_secret_access_key {SECRET}\n")
    with pytest.raises(StartupError, match="cannot be read") as caught:
        read_profile({"AWS_SHARED_CREDENTIALS_FILE": str(other)}, home)
    assert SECRET not in caught.value.message
