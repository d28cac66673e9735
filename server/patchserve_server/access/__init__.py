"""Credentials: files of certificates and tokens that are read again when they change, and who a call comes from."""

from patchserve_server.access.authenticator import Authenticator
from patchserve_server.access.credentials import Credentials, open_credentials
from patchserve_server.access.reloading import keep_fresh

__all__ = ["Authenticator", "Credentials", "keep_fresh", "open_credentials"]
