"""The application: its deployment, with what follows from the settings. A config file of Ray may say otherwise."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from ray import serve

from patchserve_server.ray.arguments import given_settings
from patchserve_server.ray.replica import Replica

NAME: Final = "patchserve"
_ROUTER: Final = "patchserve_server.ray.router:ReferenceRouter"
_STATS_PERIOD_S: Final = 2.0
_HEALTH_PERIOD_S: Final = 5.0
_END_MARGIN_S: Final = 5.0  # what Ray and the replica need beside the drain


def build_application(arguments: Mapping[str, object], replica: type[Replica] = Replica) -> serve.Application:
    """The application of `patchserve_server.ray.app`, with replicas of this class."""
    settings, given = given_settings(arguments)
    deployment: serve.Deployment = serve.deployment(  # type: ignore[assignment] # with a class, it is one
        replica,
        name=NAME,
        # Above it, Ray asks another replica. The server itself queues so many images.
        max_ongoing_requests=settings.max_pending_images,
        max_queued_requests=settings.max_calls,
        graceful_shutdown_timeout_s=settings.drain_delay_s + settings.drain_grace_s + _END_MARGIN_S,
        graceful_shutdown_wait_loop_s=0.5,
        health_check_period_s=_HEALTH_PERIOD_S,
        request_router_config={
            "request_router_class": _ROUTER,
            "request_routing_stats_period_s": _STATS_PERIOD_S,
        },
    )
    bound: serve.Application = deployment.bind(given)
    return bound
