"""A receiver with a durable inbox of ours: what its answers promise, what an attempt leaves, what faults cost.

The inbox of Django runs handlers inside of their transaction, which test_django_transactions has in its own words.
"""

from __future__ import annotations

import asyncio
import json
import sqlite3
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest
from support import PATH, SECRET, headers_of

from inbox.worlds import DAY, LEASE, given, state_of
from roovet_webhooks import (
    ConfigurationError,
    Delivery,
    DropDelivery,
    Event,
    InboxUnavailable,
    LeaseLost,
    RetryLater,
    RetryPolicy,
    WebhookReceiver,
    WebhookRequest,
    WebhookResponse,
)
from roovet_webhooks.inbox.handler_transaction import HandlerScope
from roovet_webhooks.inbox.records import Query
from roovet_webhooks.inbox.sql import postgresql, sqlite
from roovet_webhooks.inbox.states import Outcome, State
from roovet_webhooks.receiving.bridge import AsyncBridge, SyncBridge, run

if TYPE_CHECKING:
    from collections.abc import Callable

    from inbox.worlds import SQLWorld, World
    from roovet_webhooks.inbox.protocol import Claimed

both = pytest.mark.parametrize("kind", ["sync", "async"])


class Shop:
    """A receiver in a world, its handlers, and a way to send to it and to work for it."""

    def __init__(self, world: World, kind: str = "sync", **options: Any) -> None:  # noqa: ANN401 - a receiver's options
        self.world = world
        self.kind = kind
        self.inbox: Any = options.pop("inbox", None) or world.make()
        world.processes.append(self.inbox)
        self.receiver = WebhookReceiver(
            SECRET, endpoint="shop", inbox=self.inbox, clock=lambda: world.wall, tolerance=10**9, **options
        )
        self.runs: list[str] = []

    def handler(self, name: str, function: Callable[[Event, Delivery], Any] = lambda _event, _delivery: None) -> None:
        def sync_handler(event: Event, delivery: Delivery) -> None:
            self.runs.append(name)
            function(event, delivery)

        async def async_handler(event: Event, delivery: Delivery) -> None:
            self.runs.append(name)
            result = function(event, delivery)
            if asyncio.iscoroutine(result):
                await result

        self.receiver.on("*", name=name)(async_handler if self.kind == "async" else sync_handler)

    def request(self, delivery: Delivery) -> WebhookRequest:
        pairs = headers_of(delivery.raw, timestamp=int(self.world.wall)).items()
        encoded = [(name.encode(), value.encode()) for name, value in pairs]
        return WebhookRequest("POST", PATH, encoded, delivery.raw)

    def send(self, delivery: Delivery) -> WebhookResponse:
        request = self.request(delivery)
        if self.kind == "async":
            return asyncio.run(self.receiver.receive_async(request))
        return self.receiver.receive(request)

    def word(self, delivery: Delivery) -> tuple[int, str]:
        response = self.send(delivery)
        content = json.loads(response.body)
        return response.status, str(content.get("status") or content["error"]["type"])

    def work(self) -> list[Outcome | None]:
        """Do what a worker does with what is due."""
        claimed: list[Claimed] = list(given(self.inbox.claim("shop", limit=50)))
        claimed += given(self.inbox.claim_isolated("shop"))
        return [self.handle(one) for one in claimed]

    def handle(self, claimed: Claimed) -> Outcome | None:
        if self.kind == "async":
            return asyncio.run(self.receiver.handle(claimed, bridge=AsyncBridge()))
        return run(self.receiver.handle(claimed, bridge=SyncBridge()))


def retry_after(response: WebhookResponse) -> bytes | None:
    return dict(response.headers).get(b"retry-after")


@both
class TestAnswers:
    def test_stored(self, database: SQLWorld, kind: str) -> None:
        shop = Shop(database, kind)
        shop.handler("book")
        delivery = database.delivery()
        assert shop.word(delivery) == (200, "stored")
        assert shop.word(delivery) == (200, "duplicate")
        assert shop.runs == []
        database.elapse(5)
        assert shop.work() == [Outcome.HANDLED]
        assert shop.runs == ["book"]
        assert shop.word(delivery) == (200, "duplicate")

    def test_handled(self, database: SQLWorld, kind: str) -> None:
        shop = Shop(database, kind, acknowledge="handled")
        shop.handler("book")
        delivery = database.delivery()
        assert shop.word(delivery) == (200, "handled")
        assert shop.word(delivery) == (200, "duplicate")
        assert shop.runs == ["book"]
        assert state_of(shop.inbox, delivery) is State.DONE

    def test_handled_fails_and_is_sent_again(self, database: SQLWorld, kind: str) -> None:
        shop = Shop(database, kind, acknowledge="handled")
        faults = [ValueError("x")]
        shop.handler("book")
        shop.handler("mail", lambda _event, _delivery: raise_(faults.pop()) if faults else None)
        delivery = database.delivery()
        assert shop.word(delivery) == (500, "handler_failed")
        assert shop.word(delivery) == (200, "handled")
        assert shop.runs == ["book", "mail", "mail"]

    def test_in_flight(self, database: SQLWorld, kind: str) -> None:
        shop = Shop(database, kind, acknowledge="handled")
        shop.handler("book")
        delivery = database.delivery()
        given(shop.inbox.store(delivery, claim=True))
        response = shop.send(delivery)
        assert (response.status, retry_after(response)) == (503, b"2")

    def test_too_old(self, database: SQLWorld, kind: str) -> None:
        shop = Shop(database, kind)
        shop.handler("book")
        delivery = database.delivery(ts=database.wall - 31 * DAY)
        assert shop.word(delivery) == (200, "stored")
        assert state_of(shop.inbox, delivery) is State.DEAD


def raise_(error: BaseException) -> None:
    raise error


@both
class TestAttempts:
    """What a worker's attempt leaves in the record."""

    def end(self, world: World, kind: str, error: BaseException | None, **options: Any) -> tuple[Shop, Any]:  # noqa: ANN401 - options, a record
        shop = Shop(world, kind, **options)
        shop.handler("book", lambda _event, _delivery: None if error is None else raise_(error))
        delivery = world.delivery()
        given(shop.inbox.store(delivery, claim=False))
        world.elapse(5)
        shop.work()
        return shop, shop.inbox.get(shop.inbox.number_of(delivery.id))

    def test_a_failure_is_counted_and_waits(self, database: SQLWorld, kind: str) -> None:
        shop, record = self.end(database, kind, ValueError("s3cr3t"), retry=RetryPolicy(initial=7))
        assert (record.state, record.failures) == (State.READY, 1)
        assert record.last_error == "failed: book (ValueError: s3cr3t)"
        assert record.available_at == database.wall + 7
        database.elapse(7)
        assert shop.work() == [None]
        assert shop.inbox.get(record.number).available_at == database.wall + 14

    def test_the_last_failure_buries(self, database: SQLWorld, kind: str) -> None:
        _, record = self.end(database, kind, ValueError("x"), retry=RetryPolicy(max_attempts=1))
        assert (record.state, record.outcome, record.failures) == (State.DEAD, Outcome.FAILED, 1)

    def test_failures_and_crashes_together(self, database: SQLWorld, kind: str) -> None:
        policy = RetryPolicy(initial=1, max_attempts=2, max_crashes=2)
        shop = Shop(database, kind, retry=policy)
        shop.handler("book", lambda _event, _delivery: raise_(ValueError("x")))
        delivery = database.delivery()
        given(shop.inbox.store(delivery, claim=True))
        database.reap(shop.inbox)
        database.elapse(5)
        assert shop.work() == [None]
        record = shop.inbox.find(Query())[0]
        assert (record.state, record.failures, record.crashes) == (State.DEAD, 1, 1)

    def test_a_drop(self, database: SQLWorld, kind: str) -> None:
        _, record = self.end(database, kind, DropDelivery("not for us"))
        assert (record.state, record.outcome) == (State.DONE, Outcome.DROPPED)

    def test_nobody_wants_it(self, database: SQLWorld, kind: str) -> None:
        shop = Shop(database, kind)
        shop.receiver.on("transfer.settled")(lambda _event: None)
        given(shop.inbox.store(database.delivery(), claim=False))
        database.elapse(5)
        assert shop.work() == [Outcome.IGNORED]

    @pytest.mark.parametrize(("after", "wait"), [(30, 30), (None, 5), (0, 0)])
    def test_later(self, database: SQLWorld, kind: str, after: float | None, wait: float) -> None:
        _, record = self.end(database, kind, RetryLater(after))
        assert (record.state, record.failures) == (State.READY, 0)
        assert record.available_at == database.wall + wait

    def test_later_than_there_is_time(self, database: SQLWorld, kind: str) -> None:
        shop, record = self.end(database, kind, RetryLater(1e300))
        assert (record.state, record.failures) == (State.READY, 0)
        assert record.available_at > database.wall + 300 * DAY
        assert shop.work() == []

    def test_put_off_for_too_long(self, database: SQLWorld, kind: str) -> None:
        shop, record = self.end(database, kind, RetryLater(60, "not yet\x00"), retry=RetryPolicy(max_age=100))
        database.elapse(100)
        assert shop.work() == [None]
        record = shop.inbox.get(record.number)
        assert (record.state, record.outcome, record.failures) == (State.DEAD, Outcome.POSTPONED, 0)
        assert record.last_error == "put off for longer than 100 s: book (not yet\N{REPLACEMENT CHARACTER})"

    def test_put_off_for_too_long_since_it_first_came(self, database: SQLWorld, kind: str) -> None:
        # A sender's copies are new requests; the delivery is as old as it was.
        shop = Shop(database, kind, retry=RetryPolicy(max_age=100), acknowledge="handled")
        shop.handler("book", lambda _event, _delivery: raise_(RetryLater(0)))
        delivery = database.delivery()
        for _ in range(2):
            assert shop.send(delivery).status == 503
            database.elapse(60)
        assert shop.send(delivery).status == 500
        assert shop.inbox.find(Query())[0].outcome == Outcome.POSTPONED
        assert shop.word(delivery) == (200, "duplicate")

    def test_one_that_no_type_fits_is_buried_at_once(self, database: SQLWorld, kind: str) -> None:
        class Paid(Event, event="order.created"):
            amount: int

        shop = Shop(database, kind)
        shop.receiver.on(Paid)(lambda _event: None)
        given(shop.inbox.store(database.delivery(), claim=False))
        database.elapse(5)
        assert shop.work() == [None]
        record = shop.inbox.find(Query())[0]
        assert (record.state, record.outcome, record.failures) == (State.DEAD, Outcome.UNDECODABLE, 0)

    def test_only_those_that_have_not_succeeded_run_again(self, database: SQLWorld, kind: str) -> None:
        shop = Shop(database, kind, retry=RetryPolicy(initial=1))
        faults = [ValueError("x"), ValueError("y")]
        for name in ("a", "b", "c"):
            shop.handler(name, lambda _e, _d, name=name: raise_(faults.pop()) if name == "b" and faults else None)  # type: ignore[misc]
        given(shop.inbox.store(database.delivery(), claim=False))
        for _ in range(3):
            database.elapse(5)
            shop.work()
        assert shop.runs == ["a", "b", "c", "b", "b"]
        assert shop.inbox.find(Query())[0].state is State.DONE

    def test_its_number_is_that_of_the_claim(self, database: SQLWorld, kind: str) -> None:
        shop = Shop(database, kind, retry=RetryPolicy(initial=1))
        attempts: list[int] = []

        def fail(_event: Event, delivery: Delivery) -> None:
            attempts.append(delivery.attempt)
            raise ValueError

        shop.handler("book", fail)
        given(shop.inbox.store(database.delivery(), claim=False))
        for _ in range(3):
            database.elapse(60)
            shop.work()
        assert attempts == [1, 2, 3]

    def test_a_lost_claim_is_told_and_changes_nothing(
        self, database: SQLWorld, kind: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        shop = Shop(database, kind)
        shop.handler("book", lambda _event, _delivery: database.reap(shop.inbox))
        delivery = database.delivery()
        given(shop.inbox.store(delivery, claim=False))
        database.elapse(5)
        assert shop.work() == [None]
        assert state_of(shop.inbox, delivery) is State.READY
        assert any("code='lease_lost'" in record.getMessage() for record in caplog.records)


class TestTheEndOfAProcess:
    """What is stopped from outside is nobody's failure; what ends its own process is."""

    def test_a_cancelled_attempt_is_given_back(self, database: SQLWorld) -> None:
        shop = Shop(database, "async")
        started = asyncio.Event()

        async def slow(_event: Event, _delivery: Delivery) -> None:
            started.set()
            await asyncio.sleep(60)

        shop.receiver.on("*", name="slow")(slow)
        delivery = database.delivery()
        given(shop.inbox.store(delivery, claim=False))
        database.elapse(5)
        [one] = given(shop.inbox.claim("shop", limit=1))

        async def main() -> None:
            task = asyncio.create_task(shop.receiver.handle(one, bridge=AsyncBridge()))
            await started.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

        asyncio.run(main())
        record = shop.inbox.get(one.claim.number)
        assert (record.state, record.failures, record.crashes) == (State.READY, 0, 0)
        assert record.available_at == database.wall

    def test_a_cancellation_stays_one_when_the_claim_cannot_be_given_back(self, database: SQLWorld) -> None:
        shop = Shop(database, "async")
        started = asyncio.Event()

        async def slow(_event: Event, _delivery: Delivery) -> None:
            started.set()
            await asyncio.sleep(60)

        shop.receiver.on("*", name="slow")(slow)
        given(shop.inbox.store(database.delivery(), claim=False))
        database.elapse(5)
        [one] = given(shop.inbox.claim("shop", limit=1))

        async def main() -> None:
            task = asyncio.create_task(shop.receiver.handle(one, bridge=AsyncBridge()))
            await started.wait()
            database.reap(shop.inbox)  # whoever is cancelled has lost the claim already
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

        asyncio.run(main())
        assert shop.inbox.get(one.claim.number).crashes == 1

    @pytest.mark.parametrize("acknowledge", ["stored", "handled"])
    def test_a_handler_that_ends_its_process_is_a_failure(self, database: SQLWorld, acknowledge: str) -> None:
        # It would else be given back uncounted, and end each process that takes it, for ever.
        shop = Shop(database, acknowledge=acknowledge)
        shop.handler("exit", lambda _event, _delivery: raise_(SystemExit(1)))
        delivery = database.delivery()
        if acknowledge == "handled":
            with pytest.raises(SystemExit):
                shop.send(delivery)
        else:
            given(shop.inbox.store(delivery, claim=False))
            database.elapse(5)
            with pytest.raises(SystemExit):
                shop.work()
        record = shop.inbox.find(Query())[0]
        assert (record.state, record.failures) == (State.READY, 1)

    def test_a_key_that_stops_the_process_is_a_failure_too(self, database: SQLWorld) -> None:
        # Nobody can tell it from one that the handler raises at each attempt.
        shop = Shop(database)
        shop.handler("slow", lambda _event, _delivery: raise_(KeyboardInterrupt()))
        given(shop.inbox.store(database.delivery(), claim=False))
        database.elapse(5)
        with pytest.raises(KeyboardInterrupt):
            shop.work()
        record = shop.inbox.find(Query())[0]
        assert (record.state, record.failures, record.crashes) == (State.READY, 1, 0)


class Panic(BaseException):
    """What an extension module raises when it panics."""


RAISED: dict[str, Callable[[], BaseException]] = {
    "panic": lambda: Panic("it broke"),
    "exit of a generator": GeneratorExit,
    "group": lambda: BaseExceptionGroup("several", [KeyboardInterrupt(), ValueError()]),
    "cancellation of its own": asyncio.CancelledError,
}


@both
@pytest.mark.parametrize("acknowledge", ["stored", "handled"])
@pytest.mark.parametrize("raised", RAISED)
class TestWhatIsNoException:
    def test_it_is_a_failure_that_counts(self, sqlite: SQLWorld, raised: str, acknowledge: str, kind: str) -> None:
        shop = Shop(sqlite, kind, acknowledge=acknowledge, retry=RetryPolicy(initial=1, max_attempts=2))
        shop.handler("break", lambda _event, _delivery: raise_(RAISED[raised]()))
        shop.handler("book")
        delivery = sqlite.delivery()
        for attempt in (1, 2):
            if acknowledge == "handled":
                assert shop.send(delivery).status == 500
            else:
                if attempt == 1:
                    given(shop.inbox.store(delivery, claim=False))
                sqlite.elapse(5)
                assert shop.work() == [None]
            record = shop.inbox.find(Query())[0]
            assert (record.failures, record.crashes) == (attempt, 0)
        assert (record.state, record.outcome) == (State.DEAD, Outcome.FAILED)
        assert shop.runs == ["break", "book", "break"]  # the other one is not held up by it


@both
class TestBeforeTheFirstHandler:
    """A claim may wait for its turn: in a worker that is stopped for a while, or whose event loop is blocked."""

    def shop(self, world: World, kind: str) -> tuple[Shop, Claimed]:
        shop = Shop(world, kind)
        shop.handler("book")
        given(shop.inbox.store(world.delivery(), claim=False))
        world.elapse(5)
        [one] = given(shop.inbox.claim("shop", limit=1))
        return shop, one

    def test_a_claim_that_is_over_runs_nothing(
        self, database: SQLWorld, kind: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        shop, one = self.shop(database, kind)
        database.reap(database.process())
        assert shop.handle(one) is None
        assert shop.runs == []
        assert "delivery.failed" in caplog.text
        assert "lease_lost" in caplog.text
        assert shop.inbox.get(one.claim.number).crashes == 1

    def test_a_claim_that_could_not_be_renewed_for_long_is_asked_about(self, database: SQLWorld, kind: str) -> None:
        shop, one = self.shop(database, kind)
        database.elapse(LEASE)
        assert shop.handle(one) is Outcome.HANDLED
        assert shop.runs == ["book"]


def test_a_coroutine_that_is_thrown_away_closes_its_handler(sqlite: SQLWorld) -> None:
    shop = Shop(sqlite, "async")
    told: list[str] = []

    async def waits(_event: Event, _delivery: Delivery) -> None:
        try:
            await asyncio.sleep(0)
        finally:
            told.append("closed")

    shop.receiver.on("*", name="waits")(waits)
    given(shop.inbox.store(sqlite.delivery(), claim=False))
    sqlite.elapse(5)
    [one] = given(shop.inbox.claim("shop", limit=1))
    work = shop.receiver.handle(one, bridge=AsyncBridge())
    work.send(None)
    work.close()
    assert told == ["closed"]
    # Nothing can be awaited any more: the lease runs out, and that counts.
    assert shop.inbox.get(one.claim.number).state is State.CLAIMED


class TestHandlersTransactions:
    """`Delivery.transaction` and `Delivery.in_transaction`, in handlers of both kinds."""

    def shop(self, world: World, kind: str, work: Callable[[Any], Any], **options: Any) -> Shop:  # noqa: ANN401 - a connection, options
        shop = Shop(world, kind, retry=RetryPolicy(initial=1), **options)

        def in_block(_event: Event, delivery: Delivery) -> None:
            with delivery.transaction() as connection:
                work(connection)

        def in_thread(_event: Event, delivery: Delivery) -> Any:  # noqa: ANN401 - a coroutine
            return delivery.in_transaction(work)

        shop.handler("book", in_thread if kind == "async" else in_block)
        given(shop.inbox.store(world.delivery(), claim=False))
        world.elapse(5)
        return shop

    @both
    def test_once(self, database: SQLWorld, kind: str) -> None:
        shop = self.shop(database, kind, lambda connection: database.book(connection, "once"))
        assert shop.work() == [Outcome.HANDLED]
        record = shop.inbox.get(1)
        assert (record.state, record.succeeded) == (State.DONE, ("book",))
        assert database.booked() == ["once"]

    @both
    def test_a_coroutine_under_a_sync_server(self, database: SQLWorld, kind: str) -> None:
        shop = self.shop(database, "async", lambda connection: database.book(connection, "once"))
        shop.kind = kind
        assert shop.work() == [Outcome.HANDLED]
        assert database.booked() == ["once"]

    @both
    def test_not_at_all(self, database: SQLWorld, kind: str) -> None:
        faults = [ValueError("x")]

        def work(connection: Any) -> None:  # noqa: ANN401 - a connection
            database.book(connection, "once")
            if faults:
                raise faults.pop()

        shop = self.shop(database, kind, work)
        assert shop.work() == [None]
        assert database.booked() == []
        database.elapse(5)
        assert shop.work() == [Outcome.HANDLED]
        assert database.booked() == ["once"]

    @both
    def test_a_process_that_dies_after_the_commit_repeats_nothing(self, database: SQLWorld, kind: str) -> None:
        shop = self.shop(database, kind, lambda connection: database.book(connection, "once"))
        complete = shop.inbox.complete
        shop.inbox.complete = lambda *_arguments, **_options: raise_(InboxUnavailable("the process dies here"))
        assert shop.work() == [None]
        shop.inbox.complete = complete
        database.elapse(200)
        database.reap(shop.inbox)
        database.elapse(5)
        assert shop.work() in ([Outcome.HANDLED], [])
        assert shop.runs == ["book"]
        assert database.booked() == ["once"]

    @both
    def test_an_error_after_the_commit(self, database: SQLWorld, kind: str, caplog: pytest.LogCaptureFixture) -> None:
        shop = Shop(database, kind)

        def sync_work(_event: Event, delivery: Delivery) -> None:
            with delivery.transaction() as connection:
                database.book(connection, "once")
            raise ValueError

        async def async_work(_event: Event, delivery: Delivery) -> None:
            await delivery.in_transaction(database.book, "once")
            raise ValueError

        shop.receiver.on("*", name="book")(async_work if kind == "async" else sync_work)
        given(shop.inbox.store(database.delivery(), claim=False))
        database.elapse(5)
        assert shop.work() == [Outcome.HANDLED]
        assert database.booked() == ["once"]
        assert any("handler.failed_after_commit" in record.getMessage() for record in caplog.records)

    @both
    @pytest.mark.parametrize("nested", [True, False])
    def test_a_second_one(self, database: SQLWorld, kind: str, nested: bool) -> None:  # noqa: FBT001 - a case
        shop = Shop(database, kind)

        def sync_work(_event: Event, delivery: Delivery) -> None:
            with delivery.transaction() as connection:
                database.book(connection, "first")
                if nested:
                    delivery.transaction().__enter__()
            delivery.transaction().__enter__()

        async def async_work(_event: Event, delivery: Delivery) -> None:
            def first(connection: Any) -> None:  # noqa: ANN401 - a connection
                database.book(connection, "first")
                if nested:
                    delivery.transaction().__enter__()

            await delivery.in_transaction(first)
            await delivery.in_transaction(database.book, "second")

        shop.receiver.on("*", name="book")(async_work if kind == "async" else sync_work)
        errors: list[Exception] = []
        shop.receiver.on_error(lambda error, _delivery: errors.append(error))
        given(shop.inbox.store(database.delivery(), claim=False))
        database.elapse(5)
        shop.work()
        assert [type(error) for error in errors] == [ConfigurationError]
        assert "put all of its writes into one" in str(errors[0])
        assert database.booked() == ([] if nested else ["first"])

    def test_a_block_in_a_coroutine_is_refused(self, database: SQLWorld) -> None:
        shop = Shop(database, "async")

        async def work(_event: Event, delivery: Delivery) -> None:
            with delivery.transaction():
                pass

        shop.receiver.on("*", name="book")(work)
        errors: list[Exception] = []
        shop.receiver.on_error(lambda error, _delivery: errors.append(error))
        given(shop.inbox.store(database.delivery(), claim=False))
        database.elapse(5)
        assert shop.work() == [None]
        assert "await delivery.in_transaction(function)" in str(errors[0])

    @both
    def test_what_the_function_returns(self, database: SQLWorld, kind: str) -> None:
        found: list[object] = []
        shop = Shop(database, "async")

        async def work(_event: Event, delivery: Delivery) -> None:
            found.append(await delivery.in_transaction(lambda _connection, one, two: one + two, 2, 3))

        shop.receiver.on("*", name="book")(work)
        shop.kind = kind
        given(shop.inbox.store(database.delivery(), claim=False))
        database.elapse(5)
        assert shop.work() == [Outcome.HANDLED]
        assert found == [5]

    @both
    def test_a_claim_that_is_lost(self, database: SQLWorld, kind: str) -> None:
        shop = Shop(database, kind)

        def sync_work(_event: Event, delivery: Delivery) -> None:
            database.reap(shop.inbox)
            with delivery.transaction() as connection:
                database.book(connection, "never")

        async def async_work(_event: Event, delivery: Delivery) -> None:
            database.reap(shop.inbox)
            await delivery.in_transaction(database.book, "never")

        shop.receiver.on("*", name="book")(async_work if kind == "async" else sync_work)
        errors: list[Exception] = []
        shop.receiver.on_error(lambda error, _delivery: errors.append(error))
        given(shop.inbox.store(database.delivery(), claim=False))
        database.elapse(5)
        assert shop.work() == [None]
        assert [type(error) for error in errors] == [LeaseLost]
        assert database.booked() == []
        assert shop.inbox.get(1).state is State.READY

    def test_without_a_durable_inbox(self, memory: World) -> None:
        receiver = WebhookReceiver(SECRET, clock=lambda: memory.wall, tolerance=10**9)
        errors: list[Exception] = []
        receiver.on_error(lambda error, _delivery: errors.append(error))

        @receiver.on("*")
        def work(_event: Event, delivery: Delivery) -> None:
            with delivery.transaction():
                pass

        raw = memory.delivery().raw
        pairs = headers_of(raw, timestamp=int(memory.wall)).items()
        encoded = [(name.encode(), value.encode()) for name, value in pairs]
        assert receiver.receive(WebhookRequest("POST", PATH, encoded, raw)).status == 500
        assert "only in a handler that runs from a durable inbox" in str(errors[0])

    def test_a_scope_is_not_pickled(self, sqlite: SQLWorld) -> None:
        scope = HandlerScope(sqlite.process(), None, "book", SyncBridge())  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="cannot be pickled"):
            scope.__reduce__()


@both
class TestFaultsOfTheStore:
    """503 with ``Retry-After``, and on again without a restart."""

    @pytest.fixture(autouse=True)
    def _hasty(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for store in (postgresql, sqlite):
            monkeypatch.setattr(store, "WAIT", 0.2)

    def check(self, shop: Shop, world: World, *, acknowledge: str = "stored") -> None:
        response = shop.send(world.delivery())
        assert (response.status, retry_after(response)) == (503, b"10")
        content = json.loads(response.body)
        assert content["error"]["type"] == "unavailable"
        assert "SQLite" not in response.body.decode()
        assert shop.runs == [], acknowledge

    @pytest.mark.parametrize("acknowledge", ["stored", "handled"])
    def test_locked(self, sqlite: SQLWorld, kind: str, acknowledge: str) -> None:
        shop = Shop(sqlite, kind, acknowledge=acknowledge)
        shop.handler("book")
        shop.receiver.check()
        with closing(sqlite3.connect(sqlite.folder / "roovet.db", isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            self.check(shop, sqlite)
            other.execute("ROLLBACK")
        assert shop.word(sqlite.delivery()) == (200, acknowledge)

    def test_slow(self, database: SQLWorld, kind: str) -> None:
        shop = Shop(database, kind, inbox=database.make(timeout=0.1))
        shop.handler("book")
        shop.inbox.timeout = 30
        shop.inbox.open()
        shop.inbox.timeout = 0.1
        entered, go_on = threading.Event(), threading.Event()

        def slow(_connection: object, _now: int) -> None:
            entered.set()
            go_on.wait(60)

        shop.inbox._run(slow)
        entered.wait(30)
        self.check(shop, database)
        go_on.set()
        shop.inbox.timeout = 30
        assert shop.word(database.delivery()) == (200, "stored")
        assert len(shop.inbox.find(Query())) == 1, "what was refused had not begun, and need not be done"

    def test_full(self, database: SQLWorld, kind: str) -> None:
        shop = Shop(database, kind, inbox=database.make(max_backlog=1))
        shop.handler("book")
        assert shop.word(database.delivery()) == (200, "stored")
        given(shop.inbox._run(shop.inbox._look))
        self.check(shop, database)
        database.elapse(5)
        assert shop.work() == [Outcome.HANDLED]
        shop.runs.clear()
        given(shop.inbox._run(shop.inbox._look))
        assert shop.word(database.delivery()) == (200, "stored")

    def test_a_receiver_starts_without_its_store(
        self, sqlite: SQLWorld, kind: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        folder = sqlite.folder / "later"
        shop = Shop(sqlite, kind, inbox=sqlite.make(where=f"sqlite:///{folder}/roovet.db"))
        shop.handler("book")
        shop.receiver.check()
        shop.receiver.check()
        told = [record for record in caplog.records if "inbox.unavailable" in record.getMessage()]
        assert len(told) == 1, "once an outage, however often it is looked at"
        self.check(shop, sqlite)
        folder.mkdir()
        assert shop.word(sqlite.delivery()) == (200, "stored")

    def test_a_body_is_in_no_log(self, sqlite: SQLWorld, kind: str, caplog: pytest.LogCaptureFixture) -> None:
        shop = Shop(sqlite, kind)
        shop.handler("book")
        shop.receiver.check()
        with closing(sqlite3.connect(sqlite.folder / "roovet.db", isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            shop.send(sqlite.delivery(note=918273645))
        assert caplog.records
        for record in caplog.records:
            assert "918273645" not in record.getMessage()
            assert "918273645" not in str(record.exc_info)


def test_a_slow_handler_slows_no_accept(database: SQLWorld) -> None:
    shop = Shop(database)
    go_on = threading.Event()
    entered = threading.Event()

    def slow(_event: Event, _delivery: Delivery) -> None:
        entered.set()
        go_on.wait(60)

    shop.handler("slow", slow)
    given(shop.inbox.store(database.delivery(), claim=False))
    database.elapse(5)
    with ThreadPoolExecutor() as pool:
        working = pool.submit(shop.work)
        try:
            assert entered.wait(30)
            for _ in range(20):
                assert shop.word(database.delivery()) == (200, "stored")
            assert not working.done()
        finally:
            go_on.set()
        assert working.result(30) == [Outcome.HANDLED]


def test_an_inbox_is_replaced_for_a_test(sqlite: SQLWorld) -> None:
    shop = Shop(sqlite)
    shop.handler("book")
    other = sqlite.process(where=f"sqlite:///{sqlite.folder}/other.db")
    delivery = sqlite.delivery()
    with shop.receiver.override(inbox=other):
        assert shop.word(delivery) == (200, "stored")
    assert state_of(other, delivery) is State.READY
    assert shop.inbox.find(Query()) == []
