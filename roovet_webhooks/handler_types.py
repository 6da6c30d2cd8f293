"""What a handler's own signature says: which type of event it wants, and whether its parameters are in order."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeAlias, TypeVar, cast, get_args

from roovet_webhooks.delivery import Delivery
from roovet_webhooks.errors import ConfigurationError
from roovet_webhooks.events import Event
from roovet_webhooks.signing.secrecy import OUR_MODULES

Function: TypeAlias = Callable[..., object]
"""A function of the user's, sync or async."""

_RIGHT = "def {}(event: Event, delivery: Delivery)"
# No body of an event is one of these.
_SCALARS = (str, bytes, int, float, bool, type(None))
_UNKNOWN: Any = object()
_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


class Parameters(NamedTuple):
    """The parameters of a handler.

    Attributes:
        function: The handler.
        name: Its name.
        takes_delivery: Whether it has a second parameter.
        positional: What can be given to it by position.
    """

    function: Function
    name: str
    takes_delivery: bool
    positional: tuple[inspect.Parameter, ...]

    def check(self, namespace: Mapping[str, object]) -> None:
        """Refuse parameters that would be given something else than they say.

        Args:
            namespace: Names that are known where the handler is registered, beside those of its module.

        Raises:
            ConfigurationError: It is a method of a class body, event and delivery are swapped, or the second parameter
                is no delivery.
        """
        short = self.name.rpartition(".")[2]
        right = _RIGHT.format(short if short.isidentifier() else "handler")
        first, second = (*self.positional[:2], None, None)[:2]
        if first is not None and first.name in {"self", "cls"} and inspect.isfunction(self.function):
            message = (
                f"{self.name} is a method in the body of a class, and would get the event as {first.name}; register "
                f"the method of an instance: router.on('…')(Handlers().{short})"
            )
            raise ConfigurationError(message)
        kinds = [_resolved(parameter, self.function, namespace) for parameter in (first, second)]
        if not self.takes_delivery:
            second, kinds[1] = None, _UNKNOWN
        swapped = (
            _is(kinds[0], Delivery)
            or _is(kinds[1], Event)
            or (first is not None and first.name == "delivery")
            or (second is not None and second.name == "event")
        )
        if swapped:
            message = f"{self.name} has the event and the delivery in the wrong order; write {right}"
            raise ConfigurationError(message)
        if isinstance(kinds[1], type) and not _holds(kinds[1], Delivery):
            message = f"the second parameter of {self.name} is the delivery, not a {kinds[1].__name__}; write {right}"
            raise ConfigurationError(message)

    def wanted(self, namespace: Mapping[str, object]) -> object:
        """Return the type of event that the annotation of the first parameter asks for; `Event` without one.

        Args:
            namespace: As `check` takes it.

        Raises:
            ConfigurationError: The annotation cannot be read, or no event can be one.
        """
        first = self.positional[0] if self.positional else None
        kind = _resolved(first, self.function, namespace)
        if kind is _UNKNOWN:
            text = "" if first is None or not isinstance(first.annotation, str) else first.annotation
            if text.rpartition(".")[2] in {"", "Event", "object", "Any"}:
                return Event
            message = (
                f"{self.name} takes a {text!r}, which is no name that is known there, so that nothing can build it: "
                f"import it outside of `if TYPE_CHECKING:`, or give it, on('…', type={text})"
            )
            raise ConfigurationError(message)
        if _takes_event(kind):
            return Event
        if kind in _SCALARS:
            message = f"{self.name} takes a {getattr(kind, '__name__', kind)}, and an event is none; write event: Event"
            raise ConfigurationError(message)
        return kind


def parameters_of(function: Function, name: str) -> Parameters:
    """Return the parameters of a handler.

    Raises:
        ConfigurationError: It is not callable with an event, or is a generator and would never run.
    """
    if not callable(function):
        message = f"a handler must be a function, not {function!r}"
        raise ConfigurationError(message)
    unwrapped = inspect.unwrap(innermost(function))
    if inspect.isgeneratorfunction(unwrapped) or inspect.isasyncgenfunction(unwrapped):
        message = f"the handler {name} has a 'yield', so calling it would run nothing; return instead"
        raise ConfigurationError(message)
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError) as error:
        message = f"the parameters of {name} are not known ({error}); write {_RIGHT.format('handler')} around it"
        raise ConfigurationError(message) from None
    positional = tuple(each for each in signature.parameters.values() if each.kind in _POSITIONAL)
    for count in (2, 1):
        try:
            bound = signature.bind(*[None] * count)
        except TypeError:
            continue
        # A second parameter with a default is the author's own, except where it is called delivery.
        names = list(bound.arguments)
        if count == 2 and len(names) == 2 and names[1] != "delivery":  # noqa: PLR2004 - event and delivery
            parameter = signature.parameters[names[1]]
            if parameter.default is not inspect.Parameter.empty:
                continue
        return Parameters(function, name, count == 2, positional)  # noqa: PLR2004 - event and delivery
    message = f"the handler {name} must take (event) or (event, delivery), not {signature}"
    raise ConfigurationError(message)


def innermost(function: Function) -> Function:
    """Return the function inside any number of `functools.partial`."""
    while isinstance(function, functools.partial):
        function = cast("functools.partial[object]", function).func
    return function


def names_of_caller() -> Mapping[str, object]:
    """Return the local names of the application's code that led here.

    A class that is defined beside a handler is known nowhere else.
    """
    frame = inspect.currentframe()
    while frame is not None and frame.f_globals.get("__name__", "").startswith(OUR_MODULES):
        frame = frame.f_back
    return {} if frame is None else dict(frame.f_locals)


def _resolved(parameter: inspect.Parameter | None, function: Function, namespace: Mapping[str, object]) -> Any:  # noqa: ANN401 - any type form
    """Return the annotation of a parameter; `_UNKNOWN` where it has none, or one that cannot be read here."""
    if parameter is None or parameter.annotation is inspect.Parameter.empty:
        return _UNKNOWN
    annotation: object = parameter.annotation
    if not isinstance(annotation, str):
        return annotation
    inner: Any = inspect.unwrap(innermost(function))
    if not hasattr(inner, "__globals__"):  # an object that can be called
        inner = vars(cast("type[object]", type(inner))).get("__call__")
    known: dict[str, object] = getattr(inner, "__globals__", {})
    try:
        return eval(annotation, known, dict(namespace))  # noqa: S307 - the application's own annotation
    except Exception:  # noqa: BLE001 - a name for type checkers only, or whatever else
        return _UNKNOWN


def _is(kind: object, wanted: type) -> bool:
    return isinstance(kind, type) and wanted in kind.__mro__


def _takes_event(kind: Any) -> bool:  # noqa: ANN401 - any type form
    return kind is Any or isinstance(kind, TypeVar) or Event in get_args(kind) or _holds(kind, Event)


def _holds(kind: Any, wanted: type) -> bool:  # noqa: ANN401 - any type form
    # Not issubclass, which a TypedDict refuses to answer.
    return kind in wanted.__mro__ or bool(getattr(kind, "_is_protocol", False))
