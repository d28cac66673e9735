"""The errors of requests over HTTP that gRPC cannot have."""

from __future__ import annotations

from patchserve_server.domain.errors import InvalidInputError, PatchserveError


class MalformedRequestError(InvalidInputError):
    """What came is not HTTP, or its parts contradict each other."""

    reason = "MALFORMED_REQUEST"

    def __init__(self) -> None:
        super().__init__("", "The request is not valid HTTP/1.1. gRPC has another port.")


class HeadersTooLargeError(InvalidInputError):
    """The headers of a request are larger than the server takes."""

    reason = "HEADERS_TOO_LARGE"

    def __init__(self, message: str) -> None:
        super().__init__("", message)


class UnsupportedMediaTypeError(InvalidInputError):
    """The body of an HTTP request is of a type that its path does not take."""

    reason = "UNSUPPORTED_MEDIA_TYPE"

    def __init__(self, message: str) -> None:
        super().__init__("content-type", message)


class UpgradeRequiredError(InvalidInputError):
    """This path of HTTP is for WebSockets only."""

    reason = "UPGRADE_REQUIRED"

    def __init__(self) -> None:
        super().__init__("upgrade", "InferStream needs a WebSocket: open this URL with ws:// or wss://.")


class UnknownPathError(PatchserveError):
    """The HTTP face has nothing at this path."""

    reason = "UNKNOWN_PATH"

    def __init__(self, path: str) -> None:
        slash = " No path ends with a slash." if path.endswith("/") else ""
        super().__init__(
            f"There is nothing at this path.{slash} GET / and GET /openapi.json list the paths that exist."
        )


class HttpMethodError(PatchserveError):
    """The path exists, but not for this method of HTTP. `allowed` has those that it takes."""

    reason = "HTTP_METHOD"

    def __init__(self, allowed: tuple[str, ...]) -> None:
        super().__init__(f"This path takes {' and '.join(allowed)} only.")
        self.allowed = allowed


class OutputNotFoundError(PatchserveError):
    """The HTTP face does not keep this overlay, or no longer."""

    reason = "OUTPUT_NOT_FOUND"

    def __init__(self) -> None:
        super().__init__(
            "There is no such output, or no longer: outputs are kept for a few minutes, and fewer of them if there are "
            "many. Send the image again."
        )


class OtherSiteError(PatchserveError):
    """A browser sent the request for a site that may not use this server."""

    reason = "OTHER_SITE"

    def __init__(self) -> None:
        super().__init__("A page of another site sent this request. --http-allowed-origins lists the sites that may.")


class UnknownHostError(PatchserveError):
    """The request asks for a host that is not this server."""

    reason = "UNKNOWN_HOST"

    def __init__(self) -> None:
        super().__init__(
            "This server does not know the host of this request. It answers for localhost, for IP addresses, and for "
            "the names that --http-allowed-hosts lists."
        )
