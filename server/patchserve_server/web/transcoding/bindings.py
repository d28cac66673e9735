"""Which unary method of the contract belongs to which path and method of HTTP, as the `google.api.http` options say."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from urllib.parse import unquote

from google.api import annotations_pb2, http_pb2
from google.protobuf import message_factory
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.message import Message

from patchserve_server.domain.errors import InvalidInputError
from patchserve_server.domain.http_errors import HttpMethodError, UnknownPathError
from patchserve_server.web.transcoding.path_templates import PathTemplate, split_path


@dataclass(frozen=True, slots=True)
class Binding:
    """One way to call a method.

    Args:
        method: of the contract.
        http_method: such as `GET`.
        template: its path.
        takes_body: whether the body is the whole message, apart from the variables of the path. If not, the other
            fields are in the query.
    """

    method: MethodDescriptor
    http_method: str
    template: PathTemplate
    takes_body: bool

    def new_request(self) -> Message:
        """An empty request."""
        return message_factory.GetMessageClass(self.method.input_type)()


def bindings_of(service: ServiceDescriptor) -> list[Binding]:
    """The bindings of all methods that are not streams.

    Raises:
        ValueError: an option is not one that this module understands.
    """
    unary = [method for method in service.methods if not (method.client_streaming or method.server_streaming)]
    return [binding for method in unary for binding in _bindings(method)]


def _bindings(method: MethodDescriptor) -> Iterator[Binding]:
    rule: http_pb2.HttpRule = method.GetOptions().Extensions[annotations_pb2.http]
    for one in (rule, *rule.additional_bindings):
        verb = one.WhichOneof("pattern")
        if verb in {None, "custom"} or one.body not in {"", "*"} or one.response_body:
            raise ValueError(f"The HTTP route of {method.full_name} is not understood: {one}")
        template = PathTemplate.parse(getattr(one, verb))
        for name in template.variables:
            field = method.input_type.fields_by_name[name]
            if field.message_type is not None or field.is_repeated:
                raise ValueError(f"{method.full_name}: {name} cannot be in a path.")
        yield Binding(method, verb.upper(), template, takes_body=one.body == "*")


class Router:
    """Finds the binding of a request."""

    def __init__(self, bindings: Sequence[Binding]) -> None:
        self._bindings = bindings

    def find(self, http_method: str, path: str) -> tuple[Binding, dict[str, str]]:
        """The binding, and the values of the path's variables.

        Args:
            http_method: such as `GET`; a HEAD is a GET without the body of its answer.
            path: percent-encoded.

        Raises:
            UnknownPathError: no binding has this path.
            HttpMethodError: those that have it take other methods.
            InvalidInputError: a variable is empty or not UTF-8.
        """
        segments, verb = split_path(path)
        candidates = {
            binding.http_method: (binding, values)
            for binding in self._bindings
            if (values := binding.template.match(segments, verb)) is not None
        }
        if not candidates:
            raise UnknownPathError(path)
        found = candidates.get("GET" if http_method == "HEAD" else http_method)
        if found is None:
            raise HttpMethodError(tuple(sorted({*candidates, *(["HEAD"] if "GET" in candidates else [])})))
        binding, values = found
        return binding, {name: _decoded(name, value) for name, value in values.items()}


def _decoded(name: str, value: str) -> str:
    try:
        text = unquote(value, errors="strict")
    except UnicodeDecodeError:
        raise InvalidInputError(name, f"{name} in the path is not UTF-8.") from None
    if not text:
        raise InvalidInputError(name, f"{name} in the path is empty.")
    return text
