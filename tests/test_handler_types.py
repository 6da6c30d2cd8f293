"""What a handler's signature says is what it gets, or it is refused where it is registered."""

from __future__ import annotations

import functools
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypedDict, TypeVar, cast

import msgspec
import pydantic
import pytest
from support import NOW, SECRET, payload, request_of

from roovet_webhooks import ConfigurationError, Delivery, Event, EventTypeConflictError, Router, WebhookReceiver
from roovet_webhooks.events import parse_envelope
from roovet_webhooks.receiving.unhandled import MOST_REMEMBERED, UnhandledLog

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from roovet_webhooks.events import Event as ForTypeCheckers

RAW = payload("order.created", amount_cents=1250)


class Model(pydantic.BaseModel):
    id: str
    amount_cents: int


class Struct(msgspec.Struct):
    amount_cents: int


class Typed(TypedDict):
    amount_cents: int


class Named(Event, event="order.created"):
    amount_cents: int = 0


class HasId(Protocol):
    @property
    def id(self) -> str: ...


T = TypeVar("T")


@dataclass
class Data:
    amount_cents: int


def got(function: Callable[..., object], event: str = "order.created") -> object:
    """Return what a handler gets that is registered without a type."""
    router = Router()
    router.on(event, name="handler")(function)
    ((_, decode),) = router.plan().match("order.created")
    return decode(RAW, parse_envelope(RAW))


def test_the_annotation_is_the_type() -> None:
    def model(event: Model) -> None: ...
    def struct(event: Struct, delivery: Delivery) -> None: ...
    def typed(event: Typed) -> None: ...
    def named(event: Named) -> None: ...
    def data(event: Data | None) -> None: ...
    async def plain(event: dict[str, Any]) -> None: ...

    assert got(model).__class__ is Model
    assert got(struct) == Struct(1250)
    assert got(typed) == {"amount_cents": 1250}
    assert got(named, "order.*").__class__ is Named
    assert got(data) == Data(1250)
    assert got(plain)["amount_cents"] == 1250  # type: ignore[index]  # a dict
    assert got(functools.partial(model)).__class__ is Model

    class Handlers:
        def model(self, event: Model) -> None: ...

        def __call__(self, event: Model) -> None: ...

    assert got(Handlers().model).__class__ is Model
    assert got(Handlers()).__class__ is Model


def test_a_class_of_the_function_that_registers_is_known() -> None:
    class Local(msgspec.Struct):
        amount_cents: int

    router = Router()

    @router.on("order.created")
    def handler(event: Local) -> None: ...

    ((_, decode),) = router.plan().match("order.created")
    assert decode(RAW, parse_envelope(RAW)) == Local(1250)


def test_what_an_event_is_gets_one() -> None:  # noqa: C901 - the kinds of annotations
    def nothing(event) -> None: ...  # type: ignore[no-untyped-def]  # noqa: ANN001 - what is tested
    def event(event: Event) -> None: ...
    def anything(event: Any) -> None: ...  # noqa: ANN401 - what is tested
    def thing(event: object) -> None: ...
    def protocol(event: HasId) -> None: ...
    def either(event: Event | None) -> None: ...
    def generic(event: T) -> T: ...  # type: ignore[empty-body]  # what is tested
    def checked(event: ForTypeCheckers) -> None: ...
    def many(*arguments: object) -> None: ...

    checked.__annotations__["event"] = "events.Event"
    for function in (nothing, event, anything, thing, protocol, either, generic, checked, many):
        assert got(function).__class__ is Event


def test_an_annotation_that_cannot_be_read_or_built_is_refused() -> None:
    def unknown(event: Path) -> None: ...
    def number(event: int) -> None: ...
    def unbuildable(event: logging.Logger) -> None: ...

    with pytest.raises(ConfigurationError, match=r"takes a 'Path', which is no name .*on\('…', type=Path\)"):
        got(unknown)
    with pytest.raises(ConfigurationError, match="takes a int, and an event is none; write event: Event"):
        got(number)
    with pytest.raises(ConfigurationError, match="cannot be built from JSON"):
        got(unbuildable)
    router = Router()
    router.on("order.created", type=Model)(unknown)  # type: ignore[arg-type]  # the type is said
    with pytest.raises(EventTypeConflictError, match=r"declares the event 'order.created' and is registered for"):

        @router.on("wallet.created")
        def other(event: Named) -> None: ...


def test_event_and_delivery_in_the_wrong_order_are_refused() -> None:
    def annotated(first: Delivery, second: Event) -> None: ...
    def named(delivery, event) -> None: ...  # type: ignore[no-untyped-def]  # noqa: ANN001 - what is tested
    def half(thing, event) -> None: ...  # type: ignore[no-untyped-def]  # noqa: ANN001 - what is tested
    def alone(delivery: Delivery) -> None: ...
    def second(first: object, event: Named) -> None: ...

    for function in (annotated, named, half, alone, second):
        with pytest.raises(ConfigurationError, match=r"wrong order; write def handler\(event: Event, delivery: Deli"):
            got(function)
        with pytest.raises(ConfigurationError, match="wrong order"):
            Router().fallback(cast("Any", function))
    with pytest.raises(ConfigurationError, match=r"write def annotated\(event: Event"):
        Router().on("order.created", type=Model)(cast("Any", annotated))


def test_a_second_parameter_that_is_no_delivery_is_refused() -> None:
    def handler(event: Event, session: Path) -> None: ...
    def defaulted(event: Event, count: int = 1) -> None: ...

    handler.__annotations__["session"] = int
    with pytest.raises(ConfigurationError, match=r"the second parameter of .* is the delivery, not a int"):
        Router().on("order.created", name="handler")(cast("Any", handler))
    assert got(defaulted).__class__ is Event


def test_a_method_in_a_class_body_is_refused() -> None:
    router = Router()
    with pytest.raises(ConfigurationError, match=r"would get the event as self; .*router.on\('…'\)\(Handlers\(\).book"):

        class Handlers:
            @router.on("order.created")
            def book(self, event: Event) -> None: ...

    class Bound:
        @classmethod
        def book(cls, event: Event) -> None: ...

        @staticmethod
        def note(event: Event) -> None: ...

    router.on("order.created")(Bound.book)
    router.on("order.created")(Bound().note)
    assert len(router.plan().handlers) == 2


def test_a_fallback_takes_a_plain_event() -> None:
    def handler(event: Model) -> None: ...

    with pytest.raises(ConfigurationError, match=r"takes a plain Event, not <class '.*Model'>"):
        Router().fallback(handler)  # type: ignore[type-var]  # what is tested


def test_a_callable_without_a_signature_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="the parameters of dict are not known"):
        Router().on("order.created", name="dict")(dict)


# Patterns that match nothing, and events that nobody wants


@pytest.mark.parametrize(
    "name", ["order", "order.", ".created", " order.created", "order.created ", "order created", "order..x", "order. x"]
)
def test_a_name_that_no_event_has_is_refused(name: str) -> None:
    with pytest.raises(ConfigurationError, match=r"an event is a name like 'order\.created'"):
        Router().on(name)
    with pytest.raises(ConfigurationError, match=r"must be a name such as 'order\.created'"):

        class Wrong(Event, event=name):
            pass


def test_the_name_of_a_resource_is_shown_as_a_pattern() -> None:
    with pytest.raises(ConfigurationError, match=r"for all events of a resource write 'order\.\*'"):
        Router().on("order")
    Router().on("order.item.*")


def told(caplog: pytest.LogCaptureFixture) -> list[tuple[str, str | None]]:
    records = [vars(record)["roovet"] for record in caplog.records if record.getMessage().startswith("event.unhandled")]
    return [(record["event_type"], record["nearest"]) for record in records]


def test_an_event_that_nobody_wants_is_a_warning_once(caplog: pytest.LogCaptureFixture) -> None:
    receiver = WebhookReceiver(SECRET, clock=lambda: NOW)
    receiver.on("order.created", name="fulfil")(lambda _event: None)
    receiver.on("wallet.*", name="audit")(lambda _event: None)
    with caplog.at_level(logging.WARNING, "roovet_webhooks"):
        for event in ("order.create", "order.create", "transfer.settled", "order.created", "wallet.empty"):
            receiver.receive(request_of(payload(event)))
    assert told(caplog) == [("order.create", "order.created"), ("transfer.settled", None)]


def test_how_many_names_are_remembered_has_a_bound(caplog: pytest.LogCaptureFixture) -> None:
    log, plan = UnhandledLog(), Router().plan()
    with caplog.at_level(logging.WARNING, "roovet_webhooks"):
        for number in range(MOST_REMEMBERED + 5):
            log.ignored(f"order.{number}", plan, "shop")
    assert len(told(caplog)) == MOST_REMEMBERED
