"""The faces of the server, gRPC and HTTP, with what they share."""

from __future__ import annotations

from patchserve_server.access import Credentials, check_exposure
from patchserve_server.access.expiries import expiries_of
from patchserve_server.bootstrap.limits import MIB, http_connections, reading_limits
from patchserve_server.bootstrap.server import HttpFace, Server
from patchserve_server.config import Settings, words_of
from patchserve_server.domain.errors import StartupError
from patchserve_server.domain.readings import Reading
from patchserve_server.rpc.server import GrpcServer
from patchserve_server.rpc.transport import Listening
from patchserve_server.serving.entrance import Entrance
from patchserve_server.serving.failure_log import FailureLog
from patchserve_server.serving.observation import Observation
from patchserve_server.serving.peers import Peers
from patchserve_server.serving.readiness import Readiness
from patchserve_server.serving.reception import Reception
from patchserve_server.serving.refusal_pacing import RefusalPacing
from patchserve_server.web.listening import HttpListening

_DELAYED_REFUSALS_PER_CALL = 4  # of --max-calls; each needs 20 KiB, and what its caller has sent unread


def create_server(
    settings: Settings,
    credentials: Credentials,
    observation: Observation,
    peers: Peers | None = None,
    *,
    shares_port: bool = False,
) -> Server:
    """The server, which listens nowhere yet. `shares_port`: other processes of it listen on the same port."""
    check_exposure(settings.host, credentials, insecure=settings.insecure)
    entrance = create_entrance(settings, credentials, observation, peers)
    grpc = GrpcServer(listening_of(settings, credentials, shares_port=shares_port), entrance, credentials.authenticator)
    return Server(entrance, grpc, _create_http_face(settings, entrance, credentials, shares_port=shares_port))


def create_entrance(
    settings: Settings, credentials: Credentials, observation: Observation, peers: Peers | None = None
) -> Entrance:
    """What all faces share. `peers`: the other fronts of the server."""
    entrance = Entrance(
        Readiness(),
        Reception(settings.max_idle_streams),
        RefusalPacing(_DELAYED_REFUSALS_PER_CALL * settings.max_calls),
        FailureLog(),
        observation.events,
        peers or Peers(),
    )
    readiness = entrance.readiness
    observation.readings.add(lambda: [Reading("ready", int(readiness.is_serving))])
    observation.readings.add(expiries_of(credentials))
    return entrance


def listening_of(settings: Settings, credentials: Credentials, *, shares_port: bool = False) -> Listening:
    """Where gRPC listens, and the limits of its messages and calls."""
    identity = credentials.identity
    return Listening(
        settings.host,
        settings.port,
        settings.max_message_mib * MIB,
        settings.max_calls,
        settings.stream_write_timeout_s,
        settings.max_reference_images,
        reading_limits(settings),
        settings.max_connection_age_s,
        identity=(lambda: identity.value) if identity else None,
        shares_port=shares_port,
    )


def _create_http_face(
    settings: Settings, entrance: Entrance, credentials: Credentials, *, shares_port: bool
) -> HttpFace | None:
    if settings.http_port is None:
        return None
    try:
        from patchserve_server.web.server import HttpServer  # noqa: PLC0415 - only if it is used: an extra
    except ModuleNotFoundError as error:
        raise StartupError(
            f"--http-port needs the extra http ({error.name} is missing): install patchserve[http]."
        ) from None
    identity = credentials.identity
    listening = HttpListening(
        host=settings.host,
        port=settings.http_port,
        max_message_bytes=settings.max_message_mib * MIB,
        first_message_timeout_s=settings.first_message_timeout_s,
        write_timeout_s=settings.stream_write_timeout_s,
        max_connections=http_connections(settings),
        client_share=settings.client_share,
        large_messages=reading_limits(settings).large_places,
        max_connection_age_s=settings.max_connection_age_s,
        identity=(lambda: identity.value) if identity else None,
        shares_port=shares_port,
        allowed_origins=words_of(settings.http_allowed_origins),
        allowed_hosts=words_of(settings.http_allowed_hosts),
    )
    return HttpServer(listening, entrance, credentials.authenticator)
