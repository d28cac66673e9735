"""Options that several commands share. Typer reads the options of a command from its signature."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable
from typing import Any

Command = Callable[..., Any]


def parameters_of(function: Callable[..., Any]) -> list[inspect.Parameter]:
    """The parameters, with evaluated annotations."""
    return list(inspect.signature(function, eval_str=True).parameters.values())


def with_parameters(run: Command, parameters: Iterable[inspect.Parameter]) -> Command:
    """The function with another signature for Typer."""
    signature = inspect.Signature(list(parameters))
    run.__signature__ = signature  # type: ignore[attr-defined]
    run.__annotations__ = {name: parameter.annotation for name, parameter in signature.parameters.items()}
    return run


def expanded(name: str, make: Callable[..., Any]) -> Callable[[Command], Command]:
    """Decorator: replace the parameter `name` of a command by the parameters of `make`, which returns its value.

    A `make` can have such parameters itself.
    """
    own = parameters_of(make)

    def decorate(command: Command) -> Command:
        @functools.wraps(command)
        def run(*args: Any, **arguments: Any) -> Any:  # noqa: ANN401 - values of any option
            value = make(**{parameter.name: arguments.pop(parameter.name) for parameter in own})
            return command(*args, **{name: value}, **arguments)

        parameters = parameters_of(command)
        index = [parameter.name for parameter in parameters].index(name)
        return with_parameters(run, [*parameters[:index], *own, *parameters[index + 1 :]])

    return decorate
