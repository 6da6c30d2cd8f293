"""What handlers say, and what then becomes of a delivery in an inbox."""

from __future__ import annotations

import asyncio
import pickle
from typing import TYPE_CHECKING, Any

import pytest
from support import SECRET, payload, request_of

from inbox.worlds import ENDPOINT, NOW, given, record_of, take
from roovet_webhooks import (
    ConfigurationError,
    Delivery,
    DropDelivery,
    Event,
    RetryLater,
    RetryPolicy,
    WebhookReceiver,
)
from roovet_webhooks.inbox.states import Outcome, State
from roovet_webhooks.receiving.bridge import AsyncBridge, SyncBridge, run

if TYPE_CHECKING:
    from collections.abc import Callable

    from inbox.worlds import SQLWorld
    from roovet_webhooks.receiving.bridge import Bridge

BRIDGES = pytest.mark.parametrize("bridge", [SyncBridge(), AsyncBridge()], ids=["sync", "async"])


class Model(Event):
    amount_cents: int


class Shop:
    """A receiver on a world's inbox, and a worker's part of it."""

    def __init__(self, world: SQLWorld, **options: Any) -> None:  # noqa: ANN401 - the receiver's own
        self.inbox = world.process()
        self.receiver = WebhookReceiver(
            SECRET, inbox=self.inbox, endpoint=ENDPOINT, clock=lambda: world.wall, tolerance=1e9, **options
        )
        self._world = world

    def work(self, delivery: Delivery, bridge: Bridge) -> Outcome | None:
        if not given(self.inbox.store(delivery, claim=False)).claim:
            self._world.elapse(5)
        (one,) = take(self.inbox)
        if isinstance(bridge, SyncBridge):
            return run(self.receiver.handle(one, bridge=bridge))
        return asyncio.run(self.receiver.handle(one, bridge=bridge))


@BRIDGES
def test_a_coroutine_has_its_transaction_in_a_thread(database: SQLWorld, bridge: Bridge) -> None:
    shop = Shop(database)

    @shop.receiver.on("*")
    async def book(event: Event, delivery: Delivery) -> None:
        with pytest.raises(ConfigurationError, match=r"await delivery\.in_transaction"), delivery.transaction():
            raise AssertionError
        await delivery.in_transaction(database.book, event.id)

    delivery = database.delivery()
    assert shop.work(delivery, bridge) is Outcome.HANDLED
    assert database.booked() == [delivery.event.id]


def test_a_delivery_with_a_transaction_is_not_pickled(database: SQLWorld) -> None:
    shop = Shop(database)

    @shop.receiver.on("*")
    def book(_event: Event, delivery: Delivery) -> None:
        with pytest.raises(TypeError, match="cannot be pickled"):
            pickle.dumps(delivery)

    assert shop.work(database.delivery(), SyncBridge()) is Outcome.HANDLED


def test_without_an_inbox_there_is_no_transaction(database: SQLWorld) -> None:
    with pytest.raises(ConfigurationError, match="only in a handler that runs from a durable inbox"):
        database.delivery().transaction()


@pytest.mark.parametrize(
    "raised", [ValueError("too late"), DropDelivery("too late"), RetryLater(5)], ids=["error", "drop", "later"]
)
def test_what_is_raised_after_the_commit_changes_nothing(
    database: SQLWorld, raised: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    shop = Shop(database)

    @shop.receiver.on("*")
    def book(event: Event, delivery: Delivery) -> None:
        with delivery.transaction() as connection:
            database.book(connection, event.id)
        raise raised

    delivery = database.delivery()
    assert shop.work(delivery, SyncBridge()) is Outcome.HANDLED
    assert database.booked() == [delivery.event.id]
    assert "handler.failed_after_commit" in caplog.text


def dead_of(shop: Shop, delivery: Delivery) -> tuple[State, Outcome | None]:
    assert shop.work(delivery, SyncBridge()) is None
    found = record_of(shop.inbox, delivery)
    return found.state, found.outcome


def test_a_type_that_does_not_fit_is_not_tried_again(database: SQLWorld) -> None:
    shop = Shop(database)

    @shop.receiver.on("*", type=Model)
    def book(_event: Model) -> None: ...

    assert dead_of(shop, database.delivery()) == (State.DEAD, Outcome.UNDECODABLE)


def test_put_off_for_too_long(database: SQLWorld, caplog: pytest.LogCaptureFixture) -> None:
    shop = Shop(database, retry=RetryPolicy(max_age=0))

    @shop.receiver.on("*")
    def book(_event: Event) -> None:
        raise RetryLater(3)

    assert dead_of(shop, database.delivery()) == (State.DEAD, Outcome.POSTPONED)
    assert "delivery.dead" in caplog.text


@pytest.mark.parametrize(
    "numbers", [{"max_attempts": 0}, {"max_crashes": 0}, {"max_age": -1}], ids=lambda numbers: next(iter(numbers))
)
def test_a_policy_that_allows_nothing(numbers: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match="max_attempts and max_crashes of 1 or more"):
        RetryPolicy(**numbers)


@pytest.mark.parametrize("level", ["DEBUG", "INFO"])
def test_what_is_stored_is_told_to_who_listens(
    database: SQLWorld, caplog: pytest.LogCaptureFixture, level: str
) -> None:
    caplog.set_level(level, "roovet_webhooks")
    shop = Shop(database)
    handle: Callable[[Event], None] = lambda _event: None  # noqa: E731 - nobody runs it
    shop.receiver.on("*", name="book")(handle)
    request = request_of(payload(ts=int(NOW)))
    bodies = [shop.receiver.receive(request).body for _ in range(2)]
    assert bodies == [b'{"status":"stored"}', b'{"status":"duplicate"}']
    told = [record.getMessage().split(" ")[0] for record in caplog.records if record.name == "roovet_webhooks"]
    assert told == [*(["delivery.stored"] if level == "DEBUG" else []), "delivery.duplicate"]
