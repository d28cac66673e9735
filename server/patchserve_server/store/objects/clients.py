"""Makes the clients of obstore. Credentials come from the environment, files and roles, never through our hands."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeAlias
from urllib.parse import urlsplit

from obstore.exceptions import BaseError
from obstore.store import AzureStore, GCSStore, S3Store

from patchserve_server.domain.errors import StartupError
from patchserve_server.domain.store_address import StoreAddress
from patchserve_server.store.objects.aws_profile import read_profile

if TYPE_CHECKING:
    from obstore.store import ClientConfig, RetryConfig, S3Config

Client: TypeAlias = S3Store | GCSStore | AzureStore
MakeClient: TypeAlias = Callable[[float, float], Client]
"""Makes a client from the seconds that a request may take, and those that may pass without any byte of an answer."""

_CONNECT_TIMEOUT_S: Final = 2.0
_ENDPOINT_VARIABLES: Final[Mapping[str, tuple[str, ...]]] = {
    "s3": ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT"),
    "az": ("AZURE_STORAGE_ENDPOINT", "AZURE_ENDPOINT"),
}
_NO_RETRIES: Final[RetryConfig] = {"max_retries": 0, "retry_timeout": timedelta(seconds=1)}  # `retrying` does that


def service_of(address: StoreAddress) -> str:
    """The kind of service, and its endpoint if a variable sets one. For Azure, also the account.

    Raises:
        StartupError: the endpoint is no URL, or contains credentials.
    """
    endpoint = _endpoint(address.scheme)
    account = os.environ.get("AZURE_STORAGE_ACCOUNT_NAME", "") if address.scheme == "az" else ""
    return " ".join(word for word in (address.scheme, account, endpoint) if word)


def client_maker(address: StoreAddress) -> MakeClient:
    """Makes clients for the bucket of this address.

    Raises:
        StartupError: when a client is made: the settings of the provider are incomplete or wrong.
    """

    def make(request_s: float, pause_s: float) -> Client:
        try:
            return _KINDS[address.scheme](address, _client_config(request_s, pause_s))
        except (BaseError, ValueError) as error:
            raise StartupError(
                f"The store {address} cannot be used with the variables of its provider that are set "
                f"({type(error).__name__}); docs/stores.md lists them."
            ) from None  # its text may quote a key

    return make


def _client_config(request_s: float, pause_s: float) -> ClientConfig:
    return {
        "allow_http": True,  # where the operator's own endpoint begins with http://
        "connect_timeout": timedelta(seconds=_CONNECT_TIMEOUT_S),
        "read_timeout": timedelta(seconds=pause_s),
        "timeout": timedelta(seconds=request_s),
        "user_agent": "patchserve",
    }


def _s3(address: StoreAddress, client: ClientConfig) -> Client:
    profile = read_profile(os.environ, Path.home())
    config: S3Config = {"conditional_put": "etag"}
    if endpoint := _endpoint("s3"):
        config["endpoint"] = endpoint
    if profile.region and not (os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")):
        config["region"] = profile.region
    if profile.access_key_id and profile.secret_access_key:
        config["access_key_id"], config["secret_access_key"] = profile.access_key_id, profile.secret_access_key
        if profile.session_token:
            config["session_token"] = profile.session_token
    return S3Store(
        address.bucket, prefix=address.prefix or None, config=config, client_options=client, retry_config=_NO_RETRIES
    )


def _gs(address: StoreAddress, client: ClientConfig) -> Client:
    return GCSStore(address.bucket, prefix=address.prefix or None, client_options=client, retry_config=_NO_RETRIES)


def _az(address: StoreAddress, client: ClientConfig) -> Client:
    return AzureStore(address.bucket, prefix=address.prefix or None, client_options=client, retry_config=_NO_RETRIES)


_KINDS: Final[Mapping[str, Callable[[StoreAddress, ClientConfig], Client]]] = {"s3": _s3, "gs": _gs, "az": _az}


def _endpoint(scheme: str) -> str:
    for variable in _ENDPOINT_VARIABLES.get(scheme, ()):
        if endpoint := os.environ.get(variable):
            _check_endpoint(variable, endpoint)
            return endpoint
    return ""


def _check_endpoint(variable: str, endpoint: str) -> None:
    if "@" in endpoint or "?" in endpoint:
        raise StartupError(f"{variable} contains credentials; set the variables for keys instead.")
    if urlsplit(endpoint).scheme not in ("http", "https"):
        raise StartupError(f"{variable} must be a URL that begins with http:// or https://.")
