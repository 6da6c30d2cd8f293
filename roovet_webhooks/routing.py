"""Who wants which event: handlers, the `Router` they register with, and the plan a receiver dispatches by.

A router knows no secret and lives at module level, so that handlers can be written beside the code they
call and included where the application is put together.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, cast, overload

from roovet_webhooks.errors import ConfigurationError, EventTypeConflictError, LateRegistrationError
from roovet_webhooks.events import (
    Decode,
    Event,
    EventMeta,
    check_same_event,
    declared_name,
    decoder_of,
    is_event_name,
)
from roovet_webhooks.handler_types import Function, Parameters, names_of_caller, parameters_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from roovet_webhooks.delivery import Delivery
    from roovet_webhooks.errors import WebhookError
    from roovet_webhooks.messages import WebhookRequest

R = TypeVar("R")
E = TypeVar("E")
F = TypeVar("F", bound="Callable[..., object]")
T = TypeVar("T")

ANY_HANDLER = "*"
"""Stands for the name of a handler where any will do: in place of a fallback's."""

OnAny = TypeVar("OnAny", bound="Callable[[Event], object] | Callable[[Event, Delivery], object]")
OnError = TypeVar("OnError", bound="Callable[[Exception, Delivery], object]")
OnRejected = TypeVar("OnRejected", bound="Callable[[WebhookError, WebhookRequest], object]")


class Registrar(Protocol[T]):
    """What `Router.on` returns: a decorator for a handler of this event's type."""

    @overload
    def __call__(self, handler: Callable[[T], R], /) -> Callable[[T], R]: ...
    @overload
    def __call__(self, handler: Callable[[T, Delivery], R], /) -> Callable[[T, Delivery], R]: ...


class AnnotatedRegistrar(Protocol):
    """Decorates a handler whose annotation says what it takes."""

    def __call__(self, handler: F, /) -> F:
        """Register the handler, and return it."""
        ...


class Handler:
    """A user's function, the events it wants, and how to call it.

    Attributes:
        name: Stable, unique name: what the record of successes and an idempotency key are made of.
        function: The function itself.
        parameters: Its parameters.
        takes_delivery: Whether it has a second parameter.
    """

    __slots__ = ("function", "name", "parameters", "takes_delivery", "wants")

    def __init__(self, function: Function, name: str) -> None:
        self.function: Function = function
        self.name: str = name
        self.parameters: Parameters = parameters_of(function, name)
        self.takes_delivery: bool = self.parameters.takes_delivery
        self.wants: list[tuple[str, Decode, EventMeta | None]] = []

    def decoder_for(self, event_name: str) -> Decode | None:
        """Return how to build this handler's argument for the event, or ``None`` if it does not want it."""
        for pattern, decode, _ in self.wants:
            if _matches(pattern, event_name):
                return decode
        return None

    def __repr__(self) -> str:
        """Show the name and what it wants."""
        return f"Handler({self.name!r}, {[pattern for pattern, _, _ in self.wants]})"


def _matches(pattern: str, event_name: str) -> bool:
    # "order.*" stands for everything below "order.", at any depth, and not for "order" itself.
    return pattern in {"*", event_name} or (pattern.endswith(".*") and event_name.startswith(pattern[:-1]))


def covers(pattern: str, other: str) -> bool:
    """Return whether a pattern matches all that another pattern or name matches.

    Example:
        >>> covers("order.*", "order.item.*"), covers("order.*", "*"), covers("order.*", "order.created")
        (True, False, True)
    """
    return _matches(pattern, other)


def name_of(function: Function) -> str:
    """Return the stable name of a function: its module and qualified name.

    Raises:
        ConfigurationError: It has none, as a `functools.partial` has not.
    """
    module, name = getattr(function, "__module__", None), getattr(function, "__qualname__", None)
    if not isinstance(name, str):
        message = f"{function!r} has no name of its own; give it one: @router.on(…, name='…')"
        raise ConfigurationError(message)
    return f"{module}.{name}"


class Router:
    """Handlers and hooks, in the order of their registration.

    Example:
        >>> router = Router()
        >>> @router.on("order.*")
        ... def audit(event: Event) -> None:
        ...     print(event.event, event.id)
    """

    def __init__(self) -> None:
        self._entries: list[Handler | Router] = []
        self._fallback: Handler | None = None
        self._error_hooks: list[Function] = []
        self._rejected_hooks: list[Function] = []
        self._frozen_by: str | None = None

    @overload
    def on(self, event: type[E], /, *, name: str | None = ...) -> Registrar[E]: ...
    @overload
    def on(self, event: str, /, *, type: type[E], name: str | None = ...) -> Registrar[E]: ...
    @overload
    def on(self, event: str, /, *, name: str | None = ...) -> AnnotatedRegistrar: ...

    def on(
        self,
        event: type[Any] | str,
        /,
        *,
        type: type[Any] | None = None,  # noqa: A002 - the word a user reads best
        name: str | None = None,
    ) -> Any:
        """Register a handler for an event.

        The handler takes the event, and a second parameter if it wants the `Delivery`. It may be a function
        or a coroutine function. Its success is recorded under its name, so give a function that you may
        rename or move a ``name`` that stays. A function may be registered several times: it runs once a
        delivery, with the type of the first registration that fits.

        Args:
            event: An `Event` class that names its event (`Event` itself means every event), or a name, or
                a pattern: ``order.*`` for all below ``order.``, ``*`` for all.
            type: What to build from the payload, where ``event`` is text: any type that msgspec or
                pydantic can build. When ``None``, what the handler's parameter is annotated with, and `Event`
                without an annotation.
            name: Stable name of the handler; its module and qualified name when ``None``.

        Raises:
            ConfigurationError: The event, the type or the function cannot be what they are given for, no event can
                match, or another handler has the name.
            EventTypeConflictError: Two event classes claim one event.
            LateRegistrationError: The first delivery has been dispatched.
        """
        pattern, wanted = _pattern_and_type(event, type)
        decode = decoder_of(wanted)

        def register(function: Function) -> Function:
            its_name = name or name_of(function)
            self._check_open(its_name)
            parameters, namespace = parameters_of(function, its_name), names_of_caller()
            parameters.check(namespace)
            given, build = wanted, decode
            if isinstance(event, str) and type is None:
                _, given = _pattern_and_type(event, parameters.wanted(namespace))
                build = decoder_of(given)
            claim = given if isinstance(given, EventMeta) and given.__event_name__ else None
            if claim is not None:
                for known in self._claims():
                    check_same_event(known, claim)
            self._handler(function, its_name).wants.append((pattern, build, claim))
            return function

        return register

    def fallback(self, function: OnAny) -> OnAny:
        """Register the handler for events that no other handler wants; it takes a plain `Event`.

        Raises:
            ConfigurationError: There is one already, or it cannot take a plain `Event`.
            LateRegistrationError: The first delivery has been dispatched.
        """
        name = name_of(function)
        self._check_open(name)
        if self._fallback is not None:
            message = f"{name} and {self._fallback.name} are both the fallback; keep one"
            raise ConfigurationError(message)
        handler, namespace = Handler(function, name), names_of_caller()
        handler.parameters.check(namespace)
        if (wanted := handler.parameters.wanted(namespace)) is not Event:
            message = f"the fallback {name} takes a plain Event, not {wanted!r}; register that with on('…')"
            raise ConfigurationError(message)
        self._fallback = handler
        return function

    def on_error(self, function: OnError) -> OnError:
        """Register a hook ``(error, delivery)``, called for each handler that fails. It changes nothing.

        Raises:
            LateRegistrationError: The first delivery has been dispatched.
        """
        self._check_open(name_of(function))
        self._error_hooks.append(function)
        return function

    def on_rejected(self, function: OnRejected) -> OnRejected:
        """Register a hook ``(error, request)``, called for each request that is refused. It changes nothing.

        The request is a stranger's: count it, compare it, but trust nothing of it.

        Raises:
            LateRegistrationError: The first delivery has been dispatched.
        """
        self._check_open(name_of(function))
        self._rejected_hooks.append(function)
        return function

    def include(self, router: Router) -> None:
        """Take in another router's handlers and hooks, at this place in the order.

        Raises:
            ConfigurationError: The other router includes this one or is included already, or two handlers have
                one name.
            EventTypeConflictError: Two event classes claim one event.
            LateRegistrationError: The first delivery has been dispatched.
        """
        self._check_open("an included router")
        if not isinstance(cast("object", router), Router):
            message = f"include() takes a Router, not a {type(router).__name__}"
            raise ConfigurationError(message)
        if self in router.walk():
            message = "a router cannot include itself, directly or through another"
            raise ConfigurationError(message)
        self._entries.append(router)
        try:
            self.plan()
        except ConfigurationError:
            self._entries.pop()
            raise

    def walk(self) -> Iterator[Router]:
        """Yield this router and all it includes."""
        yield self
        for entry in self._entries:
            if isinstance(entry, Router):
                yield from entry.walk()

    def plan(self) -> Plan:
        """Put all handlers in order and check that none contradicts another.

        Raises:
            ConfigurationError: Two handlers have one name, a router is included twice, or there are two fallbacks.
            EventTypeConflictError: Two event classes claim one event.
        """
        routers = list(self.walk())
        if len(set(routers)) < len(routers):
            message = "a router is included twice, perhaps through another; its handlers would run twice"
            raise ConfigurationError(message)
        return Plan(
            handlers=list(self._handlers()),
            fallbacks=[router._fallback for router in routers if router._fallback is not None],
            error_hooks=[hook for router in routers for hook in router._error_hooks],
            rejected_hooks=self.rejected_hooks(),
        )

    def rejected_hooks(self) -> list[Function]:
        """Return the hooks for refused requests: these work even where the handlers contradict each other."""
        return [hook for router in self.walk() for hook in router._rejected_hooks]

    def freeze(self, endpoint: str) -> None:
        """Refuse every registration from now on: the receiver ``endpoint`` has begun to dispatch."""
        for router in self.walk():
            router._frozen_by = router._frozen_by or endpoint

    def _handlers(self) -> Iterator[Handler]:
        for entry in self._entries:
            if isinstance(entry, Router):
                yield from entry._handlers()
            else:
                yield entry

    def _claims(self) -> Iterator[EventMeta]:
        for handler in self._handlers():
            yield from (claim for _, _, claim in handler.wants if claim is not None)

    def _handler(self, function: Function, name: str) -> Handler:
        for handler in self._handlers():
            if handler.name == name:
                if handler.function is not function:
                    raise _same_name(handler, function)
                return handler
        handler = Handler(function, name)
        self._entries.append(handler)
        return handler

    def _check_open(self, name: str) -> None:
        if self._frozen_by is not None:
            message = (
                f"{name} was registered after the receiver {self._frozen_by!r} had dispatched its first delivery, "
                "which it would have missed; import its module where the application starts "
                "(or name it: WebhookReceiver(handlers=['…']))"
            )
            raise LateRegistrationError(message)


def _pattern_and_type(event: object, wanted: object) -> tuple[str, object]:
    if isinstance(event, str):
        if event != "*" and not (is_event_name(event) or (event.endswith(".*") and is_event_name(event[:-1] + "x"))):
            hint = f"; for all events of a resource write {event + '.*'!r}" if is_event_name(event + ".x") else ""
            message = f"an event is a name like 'order.created', a pattern like 'order.*', or '*', not {event!r}{hint}"
            raise ConfigurationError(message)
        declared = declared_name(wanted)
        if declared is not None and not _matches(event, declared):
            message = f"{wanted!r} declares the event {declared!r} and is registered for {event!r}"
            raise EventTypeConflictError(message)
        return event, Event if wanted is None else wanted
    if wanted is not None:
        message = f"on({event!r}, type=…): the event class is the type; give type= with a name or a pattern"
        raise ConfigurationError(message)
    if event is Event:
        return "*", Event
    declared = declared_name(event)
    if declared is None:
        message = (
            f"{event!r} does not say which event it is; declare it as class X(Event, event='order.created'), "
            "or register by name: on('order.created', type=…)"
        )
        raise ConfigurationError(message)
    return declared, event


def _same_name(handler: Handler, function: Function) -> ConfigurationError:
    return ConfigurationError(
        f"two handlers have the name {handler.name!r}: {handler.function!r} and {function!r}; "
        "names are what successes are recorded by: give one of them another, on(…, name='…')"
    )


class Plan:
    """What a receiver dispatches by: the handlers and hooks of a router and all it includes, fixed.

    Attributes:
        handlers: All handlers, in order.
        fallback: The handler for what no other wants, or ``None``.
        error_hooks: Called for each handler that fails.
        rejected_hooks: Called for each request that is refused.
    """

    def __init__(
        self,
        *,
        handlers: Sequence[Handler],
        fallbacks: Sequence[Handler],
        error_hooks: Sequence[Function],
        rejected_hooks: Sequence[Function],
    ) -> None:
        named: dict[str, Handler] = {}
        claims: dict[str, EventMeta] = {}
        for handler in handlers:
            if (other := named.setdefault(handler.name, handler)) is not handler:
                raise _same_name(other, handler.function)
            for _, _, claim in handler.wants:
                if claim is not None and claim.__event_name__ is not None:
                    check_same_event(claims.setdefault(claim.__event_name__, claim), claim)
        if len(fallbacks) > 1:
            message = f"{fallbacks[0].name} and {fallbacks[1].name} are both the fallback; keep one"
            raise ConfigurationError(message)
        self.handlers = handlers
        self.fallback: Handler | None = fallbacks[0] if fallbacks else None
        self.error_hooks = error_hooks
        self.rejected_hooks = rejected_hooks
        # Event names come from a verified sender, but nothing bounds how many there are.
        self.match: Callable[[str], tuple[tuple[Handler, Decode], ...]] = functools.lru_cache(maxsize=1024)(self._match)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of all handlers, the fallback's last."""
        return tuple(handler.name for handler in (*self.handlers, *filter(None, (self.fallback,))))

    @property
    def patterns(self) -> tuple[str, ...]:
        """Names and patterns of the events that are wanted; ``*`` where there is a fallback."""
        patterns = [pattern for handler in self.handlers for pattern, _, _ in handler.wants]
        return tuple(dict.fromkeys([*patterns, *(["*"] if self.fallback is not None else [])]))

    def expected(self, event_name: str) -> tuple[str, ...]:
        """Return the names of the handlers that want an event: what is recorded with a delivery.

        For an event that only the fallback takes this is `ANY_HANDLER`.
        """
        names = tuple(handler.name for handler, _ in self.match(event_name))
        return (ANY_HANDLER,) if self.fallback is not None and names == (self.fallback.name,) else names

    def __bool__(self) -> bool:
        """Say whether there is any handler at all."""
        return bool(self.handlers) or self.fallback is not None

    def _match(self, event_name: str) -> tuple[tuple[Handler, Decode], ...]:
        wanted = tuple(
            (handler, decode) for handler in self.handlers if (decode := handler.decoder_for(event_name)) is not None
        )
        if not wanted and self.fallback is not None:
            return ((self.fallback, decoder_of(Event)),)
        return wanted
