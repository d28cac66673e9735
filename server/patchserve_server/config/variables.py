"""The PATCHSERVE_* variables: which ones are settings, and which ones belong to others."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Final

from patchserve_server.config.problems import Problem, guess
from patchserve_server.config.settings import Settings

PREFIX: Final = "PATCHSERVE_"
FILE_VARIABLE: Final = "PATCHSERVE_CONFIG"
OF_CLIENTS: Final = frozenset(
    f"{PREFIX}{name}"
    for name in (
        "SERVER", "TLS", "CA", "CERT", "KEY", "TOKEN", "TOKEN_FILE", "WEBHOOK_SECRET", "MQTT_USER", "MQTT_PASSWORD",
    )
)  # fmt: skip
"""Those of the command `patchserve`, which the same shell may have."""

# Kubernetes sets these for a Service that is called `patchserve` or `patchserve-...`, unless a pod refuses them.
_OF_KUBERNETES: Final = re.compile(
    r"PATCHSERVE(_\w+)?_(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)"
)
_LINK: Final = re.compile(r"(tcp|udp|sctp)://")


def variable_of(name: str) -> str:
    """The variable of a setting."""
    return PREFIX + name.upper()


def is_service_link(name: str, value: str) -> bool:
    """Whether Kubernetes has set the variable for one of its Services; PATCHSERVE_PORT is then no port."""
    return bool(_OF_KUBERNETES.fullmatch(name) or (name.endswith("_PORT") and _LINK.match(value)))


def unknown_variables(environment: Mapping[str, str]) -> Iterator[Problem]:
    """A problem for every variable with our prefix and a value that is no setting and no client's."""
    known = {variable_of(name) for name in Settings.model_fields} | {FILE_VARIABLE}
    for name, value in sorted(environment.items()):
        upper = name.upper()
        if not upper.startswith(PREFIX) or not value or upper in known | OF_CLIENTS or is_service_link(upper, value):
            continue
        yield Problem(f"the variable {name} is no setting{guess(upper, known)}", name)
