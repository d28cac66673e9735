"""An admitted call, as the operations of the contract get it."""

from __future__ import annotations

from dataclasses import dataclass

from patchserve_server.serving.admission import Permit
from patchserve_server.serving.application import Application


@dataclass(frozen=True, slots=True, eq=False)
class AdmittedCall:
    """A call that may use the application.

    Args:
        request_id: identifies the call in the log and in INTERNAL errors.
        client: the client whose share of the capacity the call uses.
        application: answers the call.
        permit: the call's permit for images. It may grow, and is released at the end of the call.
    """

    request_id: str
    client: str
    application: Application
    permit: Permit
