"""The router: who wants which event, in which order, and every contradiction told at once."""
# ruff: noqa: ARG005 - which parameters a handler has is what is tested, not what it does with them

from __future__ import annotations

import functools
import itertools
import json
from typing import TYPE_CHECKING, Any, cast

import msgspec
import pydantic
import pytest
from support import NOW, SECRET, request_of

from roovet_webhooks import (
    ConfigurationError,
    Delivery,
    Event,
    EventTypeConflictError,
    LateRegistrationError,
    OrderCreated,
    Router,
    WebhookReceiver,
)
from roovet_webhooks.events import parse_envelope
from roovet_webhooks.routing import Handler, name_of

if TYPE_CHECKING:
    from collections.abc import Callable


def wanting(router: Router, event_name: str) -> list[str]:
    """Return the qualified names of who wants an event, without the enclosing test."""
    return [handler.name.rsplit(".", 1)[1] for handler, _ in router.plan().match(event_name)]


def built(router: Router, event_name: str = "order.created") -> list[object]:
    raw = json.dumps({"event": event_name, "id": "ord_1", "ts": NOW}).encode()
    return [decode(raw, parse_envelope(raw)) for _, decode in router.plan().match(event_name)]


class Settled(Event, event="transfer.settled"):
    amount: int | None = None


class Money(pydantic.BaseModel):
    id: str


def fulfil(event: Event) -> None: ...


def audit(event: Event) -> None: ...


def other(event: Event) -> None: ...


def anything(event: object) -> None: ...


def untyped(event: Any) -> None: ...  # noqa: ANN401 - it takes what comes


class TestMatching:
    @pytest.mark.parametrize(
        ("pattern", "matches", "leaves"),
        [
            ("order.created", ["order.created"], ["order.updated", "order", "Order.created", "order.created.x"]),
            ("order.*", ["order.created", "order.item.added", "order."], ["order", "orders.created", "x.order.a"]),
            ("*", ["order.created", "x", "*"], []),
            ("a.b.*", ["a.b.c"], ["a.b", "a.c"]),
        ],
    )
    def test_names_and_patterns(self, pattern: str, matches: list[str], leaves: list[str]) -> None:
        router = Router()
        router.on(pattern)(fulfil)
        assert [name for name in matches + leaves if wanting(router, name)] == matches

    def test_by_type(self) -> None:
        router = Router()
        router.on(Settled)(fulfil)
        assert wanting(router, "transfer.settled") == ["fulfil"]
        assert wanting(router, "order.created") == []
        assert [type(value) for value in built(router, "transfer.settled")] == [Settled]

    def test_event_itself_means_every_event(self) -> None:
        router = Router()
        router.on(Event)(fulfil)
        assert wanting(router, "anything") == ["fulfil"]

    def test_a_type_under_a_name(self) -> None:
        router = Router()
        router.on("order.created", type=Money)(anything)
        router.on("order.*", type=OrderCreated)(audit)
        router.on("order.created", type=dict[str, Any])(untyped)
        assert [type(value) for value in built(router)] == [Money, OrderCreated, dict]

    def test_in_the_order_of_registration(self) -> None:
        router = Router()
        router.on("*")(audit)
        router.on("order.created")(fulfil)
        router.on("order.*")(other)
        assert wanting(router, "order.created") == ["audit", "fulfil", "other"]

    def test_the_fallback_gets_what_no_other_wants(self) -> None:
        router = Router()
        router.on("order.*")(fulfil)
        assert router.fallback(other) is other
        assert wanting(router, "order.created") == ["fulfil"]
        assert wanting(router, "wallet.closed") == ["other"]
        assert [type(value) for value in built(router, "wallet.closed")] == [Event]

    def test_stacked_decorators_run_a_handler_once(self) -> None:
        router = Router()

        @router.on("order.*")
        @router.on("wallet.*")
        def once(event: Event) -> None: ...

        router.on("order.created", type=Money)(cast("Any", once))

        assert wanting(router, "order.created") == ["once"]
        # Decorators apply from the bottom: the first registration that fits gives the type.
        assert [type(value) for value in built(router)] == [Event]
        assert wanting(router, "wallet.x") == ["once"]
        assert repr(router.plan().handlers[0]).endswith("once', ['wallet.*', 'order.*', 'order.created'])")

    def test_registering_returns_the_function(self) -> None:
        assert Router().on("a.b")(fulfil) is fulfil

    def test_a_plan_without_handlers_is_empty(self) -> None:
        router = Router()
        assert not router.plan()
        router.fallback(fulfil)
        assert router.plan()


class TestRefusedRegistrations:
    @pytest.mark.parametrize("pattern", ["", "order*", "*.created", "a.*.b", "**", "*.*", "a\n", "x" * 256], ids=ascii)
    def test_a_pattern_that_is_none(self, pattern: str) -> None:
        with pytest.raises(ConfigurationError, match=r"an event is a name like 'order.created'"):
            Router().on(pattern)

    @pytest.mark.parametrize("event", [int, Money, 5, None, msgspec.Struct], ids=repr)
    def test_a_class_that_names_no_event(self, event: object) -> None:
        with pytest.raises(ConfigurationError, match="does not say which event it is"):
            Router().on(cast("Any", event))

    def test_a_class_and_a_type(self) -> None:
        with pytest.raises(ConfigurationError, match="the event class is the type"):
            Router().on(cast("Any", Settled), type=Money)

    def test_a_class_under_the_name_of_another_event(self) -> None:
        with pytest.raises(
            EventTypeConflictError, match=r"declares the event 'transfer.settled' and is registered for"
        ):
            Router().on("order.created", type=Settled)

    def test_a_type_that_nobody_can_build(self) -> None:
        with pytest.raises(ConfigurationError, match="cannot be built from JSON"):
            Router().on("order.created", type=cast("type[object]", object()))

    def test_two_classes_for_one_event(self) -> None:
        class Twin(Event, event="transfer.settled"):
            pass

        router = Router()
        router.on(Settled)(fulfil)
        with pytest.raises(EventTypeConflictError, match=r"routing.Settled and .*Twin both declare"):
            router.on(Twin)(audit)
        # What was refused leaves nothing behind.
        assert [handler.function for handler in router.plan().handlers] == [fulfil]
        router.on(Settled)(audit)
        router.on("transfer.*", type=Event)(other)

    def test_two_handlers_of_one_name(self) -> None:
        router = Router()
        router.on("a.b", name="book")(fulfil)
        with pytest.raises(
            ConfigurationError, match=r"two handlers have the name 'book': <function fulfil.*<function audit"
        ):
            router.on("b.b", name="book")(audit)

    def test_two_functions_defined_under_one_name(self) -> None:
        router = Router()

        def define() -> Callable[[Event], None]:
            def handler(event: Event) -> None: ...

            return handler

        router.on("a.b")(define())
        with pytest.raises(ConfigurationError, match="two handlers have the name"):
            router.on("a.b")(define())

    def test_two_fallbacks(self) -> None:
        router = Router()
        router.fallback(fulfil)
        with pytest.raises(ConfigurationError, match=r"\.audit and .*\.fulfil are both the fallback"):
            router.fallback(audit)

    def test_generators_would_run_nothing(self) -> None:
        def generator(event: Event) -> Any:  # noqa: ANN401 - a mistake on purpose
            yield event

        async def async_generator(event: Event) -> Any:  # noqa: ANN401 - a mistake on purpose
            yield event

        for function in (generator, async_generator, functools.partial(generator)):
            with pytest.raises(ConfigurationError, match="has a 'yield'"):
                Router().on("a.b", name="x")(function)

    @pytest.mark.parametrize(
        "function",
        [lambda: None, lambda a, b, c: None, lambda event, *, client: None, lambda *, event: None],
        ids=["none", "three", "keyword", "keyword only"],
    )
    def test_parameters_that_no_event_fits(self, function: Any) -> None:  # noqa: ANN401 - mistakes on purpose
        with pytest.raises(ConfigurationError, match=r"must take \(event\) or \(event, delivery\)"):
            Router().on("a.b")(function)

    def test_what_cannot_be_called(self) -> None:
        with pytest.raises(ConfigurationError, match="a handler must be a function, not 5"):
            Router().on("a.b", name="x")(cast("Any", 5))

    def test_a_partial_needs_a_name(self) -> None:
        function = functools.partial(lambda client, event: None, "client")
        with pytest.raises(ConfigurationError, match="has no name of its own; give it one"):
            Router().on("a.b")(function)
        router = Router()
        router.on("a.b", name="fulfil")(function)
        assert router.plan().handlers[0].name == "fulfil"
        with pytest.raises(ConfigurationError, match="no name of its own"):
            router.fallback(function)
        with pytest.raises(ConfigurationError, match="no name of its own"):
            router.on_error(cast("Any", function))


class Shop:
    def method(self, event: Event, delivery: Delivery) -> None: ...

    @staticmethod
    def static(event: Event) -> None: ...

    @classmethod
    def of_class(cls, event: Event) -> None: ...

    def __call__(self, event: Event) -> None: ...


def wrapped(function: Callable[..., None]) -> Callable[..., None]:
    @functools.wraps(function)
    def wrapper(*args: object, **kwargs: object) -> None:
        function(*args, **kwargs)

    return wrapper


def both(event: Event, delivery: Delivery) -> None: ...


class TestHandlers:
    @pytest.mark.parametrize(
        ("function", "takes_delivery"),
        [
            (fulfil, False),
            (both, True),
            (lambda event, d: None, True),
            (lambda event, delivery=None: None, True),
            (lambda event, retries=3: None, False),
            (lambda event, retries=3, delivery=None: None, False),
            (lambda event, *rest: None, True),
            (lambda *args: None, True),
            (lambda event, **options: None, False),
            (lambda event, *, client=None: None, False),
            (Shop().method, True),
            (Shop.static, False),
            (Shop.of_class, False),
            (Shop(), False),
            (functools.partial(both), True),
            (functools.partial(lambda client, event: None, "c"), False),
            (functools.partial(lambda event, client: None, client="c"), False),
            (functools.partial(functools.partial(lambda a, b, event, delivery: None, 1), 2), True),
            (wrapped(fulfil), False),
            (wrapped(both), True),
        ],
        ids=itertools.count(),  # in their text is an address, which differs from one process to the next
    )
    def test_a_second_parameter_takes_the_delivery(self, function: Callable[..., object], takes_delivery: bool) -> None:  # noqa: FBT001 - a case
        assert Handler(function, "x").takes_delivery is takes_delivery

    def test_names_are_stable(self) -> None:
        assert name_of(fulfil).endswith("test_routing.fulfil")
        assert name_of(Shop().method).endswith("Shop.method")
        assert name_of(wrapped(both)) == name_of(both)


class TestInclude:
    def test_at_its_place_in_the_order(self) -> None:
        inner, router = Router(), Router()
        router.on("*")(audit)
        router.include(inner)
        router.on("*")(other)
        inner.on("*")(fulfil)
        assert wanting(router, "x") == ["audit", "fulfil", "other"]

    def test_nested_routers_bring_hooks_and_the_fallback(self) -> None:
        inner, middle, router = Router(), Router(), Router()
        middle.include(inner)
        router.include(middle)
        inner.fallback(fulfil)
        hook = inner.on_error(lambda error, delivery: None)
        rejected = middle.on_rejected(lambda error, request: None)
        plan = router.plan()
        assert plan.fallback is not None
        assert plan.fallback.function is fulfil
        assert list(plan.error_hooks) == [hook]
        assert list(plan.rejected_hooks) == [rejected]

    def test_a_circle(self) -> None:
        inner, router = Router(), Router()
        router.include(inner)
        for outer, included in ((router, router), (inner, router)):
            with pytest.raises(ConfigurationError, match="a router cannot include itself"):
                outer.include(included)

    def test_twice(self) -> None:
        inner, router = Router(), Router()
        inner.on("*")(fulfil)
        router.include(inner)
        with pytest.raises(ConfigurationError, match="is included twice"):
            router.include(inner)
        assert wanting(router, "x") == ["fulfil"]

    def test_twice_through_another(self) -> None:
        inner, middle, router = Router(), Router(), Router()
        inner.on("*")(fulfil)
        middle.include(inner)
        router.include(inner)
        with pytest.raises(ConfigurationError, match="is included twice"):
            router.include(middle)
        assert wanting(router, "x") == ["fulfil"]

    def test_twice_by_a_later_hand(self) -> None:
        inner, middle, router = Router(), Router(), Router()
        router.include(inner)
        router.include(middle)
        middle.include(inner)
        with pytest.raises(ConfigurationError, match="is included twice"):
            router.plan()

    def test_names_in_conflict(self) -> None:
        inner, router = Router(), Router()
        inner.on("a.b", name="book")(fulfil)
        router.on("a.b", name="book")(audit)
        with pytest.raises(ConfigurationError, match="two handlers have the name 'book'"):
            router.include(inner)
        assert [handler.function for handler in router.plan().handlers] == [audit]

    def test_the_same_function_in_two_routers(self) -> None:
        inner, router = Router(), Router()
        inner.on("a.b")(fulfil)
        router.on("b.b")(fulfil)
        with pytest.raises(ConfigurationError, match="two handlers have the name"):
            router.include(inner)

    def test_event_classes_in_conflict(self) -> None:
        class Twin(Event, event="transfer.settled"):
            pass

        inner, router = Router(), Router()
        inner.on(Twin)(fulfil)
        router.on(Settled)(audit)
        with pytest.raises(EventTypeConflictError, match="both declare"):
            router.include(inner)

    def test_fallbacks_in_conflict(self) -> None:
        inner, router = Router(), Router()
        inner.fallback(fulfil)
        router.fallback(audit)
        with pytest.raises(ConfigurationError, match=r"\.audit and .*\.fulfil are both the fallback"):
            router.include(inner)


class TestLateRegistration:
    def test_after_the_first_delivery_it_names_both(self) -> None:
        inner, router = Router(), Router()
        router.include(inner)
        router.on("*")(fulfil)
        receiver = WebhookReceiver(SECRET, router=router, endpoint="shop", clock=lambda: NOW)
        # A stranger's request ends nothing.
        assert receiver.receive(request_of(headers={})).status == 415
        receiver.on("*")(other)
        assert receiver.receive(request_of()).status == 200
        late: list[Callable[[], object]] = [
            lambda: receiver.on("x.b")(audit),
            lambda: router.on("x.b")(audit),
            lambda: inner.on("x.b")(audit),
            lambda: inner.on(Settled)(fulfil),
            lambda: inner.fallback(audit),
            lambda: inner.on_error(cast("Any", audit)),
            lambda: inner.on_rejected(cast("Any", audit)),
        ]
        for register in late:
            with pytest.raises(LateRegistrationError, match=r"test_routing\.(audit|fulfil) was .* receiver 'shop'"):
                register()
        with pytest.raises(LateRegistrationError, match="an included router"):
            inner.include(Router())

    def test_the_first_receiver_is_the_one_named(self) -> None:
        router = Router()
        router.freeze("one")
        router.freeze("two")
        with pytest.raises(LateRegistrationError, match="'one'"):
            router.on("a.b")(fulfil)


def test_a_receiver_has_a_router_and_is_none() -> None:
    receiver = WebhookReceiver(SECRET)
    with pytest.raises(ConfigurationError, match=r"include\(\) takes a Router, not a WebhookReceiver"):
        Router().include(cast("Router", receiver))
    with pytest.raises(ConfigurationError, match="takes a Router"):
        WebhookReceiver(SECRET, router=cast("Router", receiver))
