"""Credentials: certificates, tokens and JWTs, reloaded when their files change, and the callers that they identify."""

from patchserve_server.access.authenticator import Authenticator
from patchserve_server.access.credentials import Credentials, open_credentials
from patchserve_server.access.exposure import check_exposure
from patchserve_server.access.reloading import Reloader

__all__ = ["Authenticator", "Credentials", "Reloader", "check_exposure", "open_credentials"]
