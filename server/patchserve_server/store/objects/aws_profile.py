"""The files of AWS profiles: keys and region. obstore reads the environment and roles itself, but no files."""

from __future__ import annotations

import configparser
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from patchserve_server.domain.errors import StartupError

_HAS_CREDENTIALS: Final = (  # what comes before the files, or is the role of a container
    "AWS_ACCESS_KEY_ID",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
)


@dataclass(frozen=True, slots=True, repr=False)
class AwsProfile:
    """What the files say of the chosen profile; None: nothing."""

    access_key_id: str | None = None
    secret_access_key: str | None = None
    session_token: str | None = None
    region: str | None = None


def read_profile(environment: Mapping[str, str], home: Path) -> AwsProfile:
    """The profile `AWS_PROFILE`, or "default", of the files that the AWS tools share.

    Its keys are left out where the environment has credentials: those come first.

    Raises:
        StartupError: a file cannot be read; or a profile that AWS_PROFILE chooses has no keys of its own.
    """
    chosen = environment.get("AWS_PROFILE")
    name = chosen or "default"
    credentials = _section(_path(environment, "AWS_SHARED_CREDENTIALS_FILE", home / ".aws" / "credentials"), name)
    section = name if name == "default" else f"profile {name}"
    config = _section(_path(environment, "AWS_CONFIG_FILE", home / ".aws" / "config"), section)
    found = {**config, **credentials}
    region = found.get("region")
    if any(environment.get(variable) for variable in _HAS_CREDENTIALS):
        return AwsProfile(region=region)
    key, secret = found.get("aws_access_key_id"), found.get("aws_secret_access_key")
    if key and secret:
        return AwsProfile(key, secret, found.get("aws_session_token"), region)
    if chosen:
        raise StartupError(
            f"The AWS profile {chosen!r} has no keys in the credentials file. Profiles of roles, SSO or programs are "
            "not read: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, as `aws configure export-credentials --format "
            "env` prints them, or use the role of the machine."
        )
    return AwsProfile(region=region)


def _path(environment: Mapping[str, str], variable: str, default: Path) -> Path:
    return Path(environment[variable]).expanduser() if environment.get(variable) else default


def _section(path: Path, name: str) -> Mapping[str, str]:
    parser = configparser.ConfigParser(interpolation=None, default_section="")
    try:
        parser.read(path, encoding="utf-8")
    except (OSError, UnicodeError, configparser.Error):
        raise StartupError(f"The AWS file {path} cannot be read.") from None  # a message of the parser quotes the file
    return dict(parser.items(name)) if parser.has_section(name) else {}
