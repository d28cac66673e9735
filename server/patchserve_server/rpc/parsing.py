"""From the bytes of a message to the message, within the limits of its method."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from google.protobuf import descriptor_pool
from google.protobuf.descriptor import Descriptor
from google.protobuf.message import DecodeError

from patchserve_server.contract.methods import Method
from patchserve_server.domain.errors import MalformedMessageError, RequestTooLargeError
from patchserve_server.rpc.wire import check_message

T = TypeVar("T")

# Below it, a thread costs more time than it saves.
PARSED_ON_LOOP_BYTES: Final = 256 * 2**10


@dataclass(frozen=True, slots=True)
class MessageParser:
    """Parses the requests of one method.

    Args:
        method_name: the short name.
        descriptor: the type of the requests.
        deserialize: bytes to message.
        max_bytes: the largest request.
        max_elements: how many fields and list elements it may have.
    """

    method_name: str
    descriptor: Descriptor
    deserialize: Callable[[bytes], Any]
    max_bytes: int
    max_elements: int

    def check_size(self, data: bytes) -> None:
        """Checks the number of bytes.

        Raises:
            RequestTooLargeError: there are too many.
        """
        if len(data) > self.max_bytes:
            message = f"The message has {len(data):,} bytes; {self.method_name} takes at most {self.max_bytes:,}."
            raise RequestTooLargeError(message)

    async def check_parts(self, data: bytes) -> int:
        """Checks what the message consists of; returns about how many bytes it takes when it is parsed, its own aside.

        Raises:
            MalformedMessageError, InvalidInputError: as `check_message`.
        """
        return await _run(data, lambda: check_message(data, self.descriptor, self.max_elements))

    async def parse(self, data: bytes) -> Any:  # noqa: ANN401 - a message of any method
        """The message. Its parts are checked before.

        Raises:
            MalformedMessageError: it is not one.
        """
        try:
            return await _run(data, lambda: self.deserialize(data))
        except DecodeError as error:
            raise MalformedMessageError from error


def parser_of(
    full_name: str,
    method: Method,
    deserialize: Callable[[bytes], Any],
    *,
    max_message_bytes: int,
    max_reference_images: int,
) -> MessageParser:
    """The parser of the method /package.Service/Method."""
    _, service, name = full_name.split("/")
    return MessageParser(
        name,
        descriptor_pool.Default().FindServiceByName(service).methods_by_name[name].input_type,
        deserialize,
        method.max_request_bytes(max_message_bytes),
        method.max_request_elements(max_reference_images),
    )


async def _run(data: bytes, work: Callable[[], T]) -> T:
    return work() if len(data) <= PARSED_ON_LOOP_BYTES else await asyncio.to_thread(work)
