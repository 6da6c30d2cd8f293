"""The transactions of handlers under Django: what they write there is there once, whatever they do meanwhile."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest
from django.db import IntegrityError, connections, transaction
from support.django_databases import KINDS, Entry, Shop, databases, opened_shop

from roovet_webhooks import (
    ConfigurationError,
    DropDelivery,
    Event,
    LeaseLost,
    RetryLater,
)
from roovet_webhooks.django import dialects
from roovet_webhooks.inbox.protocol import Served
from roovet_webhooks.inbox.records import Query
from roovet_webhooks.inbox.states import Outcome, State
from roovet_webhooks.receiving.bridge import AsyncBridge

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    from django.db.backends.base.base import BaseDatabaseWrapper

    from roovet_webhooks import Delivery


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], str]]:
    with databases(tmp_path_factory.mktemp("databases")) as made:
        yield made


@pytest.fixture(params=KINDS)
def shop(request: pytest.FixtureRequest, made: Callable[[str], str]) -> Iterator[Shop]:
    yield from opened_shop(made(request.param))


@pytest.fixture
def on_sqlite(made: Callable[[str], str]) -> Iterator[Shop]:
    yield from opened_shop(made("sqlite"))


def _write_and_raise(shop: Shop, block: AbstractContextManager[object]) -> None:
    with block:
        shop.write("never")
        raise KeyError


# What a handler writes without asking


def test_what_a_handler_writes_is_committed_with_its_success(shop: Shop) -> None:
    seen: list[tuple[bool, int]] = []

    @shop.receiver.on("*", name="book")
    def book(_event: Event) -> None:
        shop.write("book")
        connection = connections[shop.alias]
        elsewhere = connection.copy()
        try:
            with elsewhere.cursor() as cursor:
                cursor.execute("SELECT count(*) FROM till_entry")
                seen.append((connection.in_atomic_block, cursor.fetchone()[0]))
        finally:
            elsewhere.close()

    shop.deliver()
    assert shop.work() is Outcome.HANDLED
    assert seen == [(True, 0)]
    assert shop.entries() == ["book"]
    assert shop.record().succeeded == ("book",)
    assert not connections[shop.alias].in_atomic_block


def test_a_crash_after_the_commit_does_not_repeat_it(shop: Shop) -> None:
    shop.receiver.on("*", name="book")(lambda _event: shop.write("book"))
    shop.deliver()
    claimed = shop.take()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shop.inbox, "complete", _crash)  # the process dies here
        with pytest.raises(KeyboardInterrupt):
            shop.handle(claimed)
    shop.inbox.release(claimed.claim, retry_in=0)
    assert shop.work() is Outcome.HANDLED
    assert shop.entries() == ["book"]


def _crash(*_arguments: object, **_options: object) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("error", "state"),
    [
        (ValueError("no"), State.READY),
        (RetryLater(after=0), State.READY),
        (DropDelivery("not for us"), State.DONE),
        (ConfigurationError("its own"), State.READY),
    ],
    ids=lambda value: type(value).__name__,
)
def test_whatever_a_handler_raises_undoes_what_it_wrote(shop: Shop, error: Exception, state: State) -> None:
    @shop.receiver.on("*")
    def book(_event: Event) -> None:
        shop.write("never")
        raise error

    shop.deliver()
    shop.work()
    assert shop.entries() == []
    record = shop.record()
    assert (record.state, record.succeeded) == (state, ())


def test_each_of_several_handlers_has_its_own(shop: Shop) -> None:
    fails = [True]

    @shop.receiver.on("*", name="book")
    def book(_event: Event) -> None:
        shop.write("book")

    @shop.receiver.on("*", name="mail")
    def mail(_event: Event) -> None:
        shop.write("mail")
        if fails:
            raise ValueError

    @shop.receiver.on("*", name="later")
    def later(_event: Event) -> None:
        shop.write("later")

    shop.deliver()
    claimed = shop.take()
    assert shop.handle(claimed) is None
    assert shop.entries() == ["book", "later"]
    assert shop.record().succeeded == ("book", "later")
    fails.clear()
    assert shop.handle(_again(shop)) is Outcome.HANDLED
    assert shop.entries() == ["book", "later", "mail"]


def _again(shop: Shop) -> Any:  # noqa: ANN401 - a Claimed
    """Claim a delivery that waits for its next attempt."""
    number = shop.record().number
    shop.inbox._database.run(lambda now: shop.inbox._claims.rows().filter(id=number).update(available_at=now))
    return shop.take()


def test_a_claim_that_is_lost_meanwhile_commits_nothing(shop: Shop) -> None:
    @shop.receiver.on("*")
    def book(_event: Event) -> None:
        shop.write("never")
        _steal(shop)

    shop.deliver()
    assert shop.work() is None
    assert shop.entries() == []
    assert shop.record().succeeded == ()


def _steal(shop: Shop) -> None:
    """Take a claim away: on SQLite only the transaction itself could, which then undoes that, too."""
    shop.inbox._claims.rows().update(fence=99)


def test_a_claim_that_was_lost_before_runs_no_query(shop: Shop) -> None:
    ran: list[str] = []

    @shop.receiver.on("*")
    def book(_event: Event) -> None:
        ran.append("begun")
        try:
            shop.write("never")
        except LeaseLost:
            # Who lets it pass has no second chance.
            with pytest.raises(LeaseLost):
                shop.write("never")
        ran.append("ended")

    shop.deliver()
    claimed = shop.take()
    shop.inbox.release(claimed.claim, retry_in=0)
    assert shop.handle(claimed) is None
    assert ran == ["begun", "ended"]
    assert shop.entries() == []
    assert shop.record().state is State.READY


def test_a_handler_that_does_not_touch_the_database_is_recorded_as_well(shop: Shop) -> None:
    shop.receiver.on("*", name="mail")(lambda _event: None)
    shop.deliver()
    assert shop.work() is Outcome.HANDLED
    assert shop.record().succeeded == ("mail",)


def test_a_coroutine_handler_asks_for_it(shop: Shop) -> None:
    @shop.receiver.on("*", name="book")
    async def book(_event: Event, delivery: Delivery) -> None:
        def write(connection: BaseDatabaseWrapper) -> str:
            assert connection.in_atomic_block
            shop.write("book")
            return connection.alias

        assert await delivery.in_transaction(write) == shop.alias

    shop.deliver()
    assert asyncio.run(shop.receiver.handle(shop.take(), bridge=AsyncBridge())) is Outcome.HANDLED
    assert shop.entries() == ["book"]
    assert shop.record().succeeded == ("book",)


def test_a_function_that_returns_an_awaitable_is_told_what_to_do(
    on_sqlite: Shop, caplog: pytest.LogCaptureFixture
) -> None:
    async def work() -> None:
        on_sqlite.write("never")

    future: asyncio.Future[None] = asyncio.Future(loop=asyncio.new_event_loop())
    on_sqlite.receiver.on("order.created", name="one")(lambda _event: work())
    on_sqlite.receiver.on("order.created", name="other")(lambda _event: future)
    on_sqlite.deliver()
    assert on_sqlite.work() is None
    assert "make it a coroutine function" in caplog.text
    assert on_sqlite.record().failures == 1
    assert on_sqlite.entries() == []
    future.get_loop().close()


# What a handler does with the transaction


def test_a_handler_that_asks_gets_a_part_of_it(shop: Shop) -> None:
    @shop.receiver.on("*", name="book")
    def book(_event: Event, delivery: Delivery) -> None:
        shop.write("before")
        with delivery.transaction() as connection:
            assert connection is connections[shop.alias]
            shop.write("in")
        with pytest.raises(ConfigurationError, match="put all of its writes into one"), delivery.transaction():
            pass
        shop.write("after")

    shop.deliver()
    assert shop.work() is Outcome.HANDLED
    assert shop.entries() == ["before", "in", "after"]


def test_a_part_that_raises_is_undone_alone(shop: Shop) -> None:
    @shop.receiver.on("*")
    def book(_event: Event, delivery: Delivery) -> None:
        shop.write("before")
        with pytest.raises(KeyError):
            _write_and_raise(shop, delivery.transaction())
        with delivery.transaction():
            shop.write("once more")

    shop.deliver()
    assert shop.work() is Outcome.HANDLED
    assert shop.entries() == ["before", "once more"]


def test_savepoints_are_the_handler_s_own(shop: Shop) -> None:
    @shop.receiver.on("*")
    def book(_event: Event) -> None:
        shop.write("kept")
        with pytest.raises(KeyError):
            _write_and_raise(shop, transaction.atomic(using=shop.alias))
        sid = transaction.savepoint(using=shop.alias)
        shop.write("undone, too")
        transaction.savepoint_rollback(sid, using=shop.alias)

    shop.deliver()
    assert shop.work() is Outcome.HANDLED
    assert shop.entries() == ["kept"]


def test_what_is_left_for_after_the_commit_runs_after_it(shop: Shop) -> None:
    seen: list[tuple[bool, tuple[str, ...]]] = []

    @shop.receiver.on("*", name="book")
    def book(_event: Event) -> None:
        shop.write("book")
        transaction.on_commit(look, using=shop.alias)

    def look() -> None:
        # It may use the inbox: the transaction is over.
        seen.append((connections[shop.alias].in_atomic_block, shop.record().succeeded))
        shop.inbox.heartbeat("somebody", [Served("default")])

    shop.deliver()
    assert shop.work() is Outcome.HANDLED
    assert seen == [(False, ("book",))]


def test_what_fails_after_the_commit_is_told_and_repeats_nothing(shop: Shop, caplog: pytest.LogCaptureFixture) -> None:
    @shop.receiver.on("*", name="book")
    def book(_event: Event, delivery: Delivery) -> None:
        def once_more() -> None:
            with delivery.transaction():
                shop.write("never")

        shop.write("book")
        transaction.on_commit(once_more, using=shop.alias)

    @shop.receiver.on("*", name="mail")
    def mail(_event: Event, delivery: Delivery) -> None:
        with delivery.transaction():
            transaction.on_commit(_fail, using=shop.alias)

    shop.deliver()
    assert shop.work() is Outcome.HANDLED
    assert shop.entries() == ["book"]
    told = [record.getMessage() for record in caplog.records]
    assert sum(message.startswith("handler.failed_after_commit") for message in told) == 2


def _fail() -> None:
    message = "after the commit"
    raise OSError(message)


def test_a_rollback_that_a_handler_asks_for_is_a_failure(shop: Shop, caplog: pytest.LogCaptureFixture) -> None:
    @shop.receiver.on("*")
    def book(_event: Event) -> None:
        shop.write("never")
        transaction.set_rollback(True, using=shop.alias)

    shop.deliver()
    assert shop.work() is None
    assert shop.entries() == []
    assert shop.record().failures == 1
    assert "marked for a rollback" in caplog.text


def test_a_database_error_that_a_handler_lets_pass_is_a_failure(shop: Shop) -> None:
    first = shop.write("first")

    @shop.receiver.on("*")
    def book(_event: Event) -> None:
        shop.write("never")
        with pytest.raises(IntegrityError):
            Entry.objects.using(shop.alias).create(id=first.id)

    shop.deliver()
    assert shop.work() is None
    assert shop.entries() == ["first"]
    assert shop.record().failures == 1


def test_a_constraint_that_is_checked_at_the_commit_is_the_handler_s_failure(
    shop: Shop, caplog: pytest.LogCaptureFixture
) -> None:
    @shop.receiver.on("*")
    def book(_event: Event) -> None:
        shop.write("never", of_id=4711)

    shop.deliver()
    assert shop.work() is None
    assert shop.entries() == []
    assert "IntegrityError" in caplog.text
    assert "InboxUnavailable" not in caplog.text


@pytest.mark.parametrize("statement", ["COMMIT", " rollback ", "BEGIN"])
def test_sql_that_would_end_the_transaction_is_refused(shop: Shop, statement: str) -> None:
    @shop.receiver.on("*")
    def book(_event: Event) -> None:
        shop.write("never")
        with connections[shop.alias].cursor() as cursor:
            with pytest.raises(ConfigurationError, match="the inbox alone commits"):
                cursor.execute(statement)
            # Who lets it pass has no second chance.
            with pytest.raises(ConfigurationError):
                cursor.execute("SELECT 1")

    shop.deliver()
    assert shop.work() is None
    assert shop.entries() == []


def test_a_transaction_that_was_ended_behind_our_back_is_a_failure(
    shop: Shop, caplog: pytest.LogCaptureFixture
) -> None:
    @shop.receiver.on("*")
    def book(_event: Event) -> None:
        shop.write("never")
        connections[shop.alias].connection.commit()

    shop.deliver()
    assert shop.work() is None
    record = shop.record()
    assert (record.failures, record.succeeded) == (1, ())
    assert shop.entries() == []
    assert "ConfigurationError" in caplog.text


def test_a_connection_that_a_handler_closes_is_a_failure(shop: Shop) -> None:
    @shop.receiver.on("*")
    def book(_event: Event) -> None:
        shop.write("never")
        connections[shop.alias].close()

    shop.deliver()
    assert shop.work() is None
    assert shop.entries() == []
    assert shop.record().failures == 1


def test_another_thread_has_no_part_in_it(shop: Shop) -> None:
    @shop.receiver.on("*")
    def book(_event: Event, delivery: Delivery) -> None:
        found: list[object] = []

        def work() -> None:
            try:
                with delivery.transaction():
                    shop.write("never")
            except ConfigurationError as error:
                found.append(str(error))
            finally:
                connections[shop.alias].close()

        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        [told] = found
        assert "belongs to the thread in which the handler was called" in str(told)

    shop.deliver()
    assert shop.work() is Outcome.HANDLED
    assert shop.entries() == []


def test_a_durable_block_of_the_handler_s_own_needs_an_inbox_that_is_not_atomic(on_sqlite: Shop) -> None:
    @on_sqlite.receiver.on("*", name="book")
    def book(_event: Event) -> None:
        with transaction.atomic(using=on_sqlite.alias, durable=True):
            on_sqlite.write("book")

    on_sqlite.deliver()
    claimed = on_sqlite.take()
    assert on_sqlite.handle(claimed) is None
    assert on_sqlite.entries() == []
    on_sqlite.inbox.atomic = False
    assert on_sqlite.handle(_again(on_sqlite)) is Outcome.HANDLED
    assert on_sqlite.entries() == ["book"]


# Without it


def test_without_atomic_a_handler_asks_for_its_transaction(shop: Shop) -> None:
    shop.inbox.atomic = False

    @shop.receiver.on("*", name="book")
    def book(_event: Event, delivery: Delivery) -> None:
        shop.write("at once")
        assert not connections[shop.alias].in_atomic_block
        with pytest.raises(KeyError):
            _write_and_raise(shop, delivery.transaction())
        with delivery.transaction():
            shop.write("book")
        raise ValueError

    @shop.receiver.on("*", name="mail")
    def mail(_event: Event) -> None:
        shop.write("mail")

    shop.deliver()
    # What fails after its commit does not run again.
    assert shop.work() is Outcome.HANDLED
    assert shop.entries() == ["at once", "book", "mail"]
    assert shop.record().succeeded == ("book", "mail")


# Time


def test_slow_work_before_the_first_query_holds_nobody_up(on_sqlite: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dialects, "SQLITE_SECONDS", 1.0)
    answers: list[str] = []

    @on_sqlite.receiver.on("*")
    def book(_event: Event) -> None:
        time.sleep(1.2)
        thread = threading.Thread(target=lambda: answers.append(on_sqlite.deliver()))
        thread.start()
        thread.join()
        on_sqlite.write("book")

    on_sqlite.deliver()
    assert on_sqlite.work() is Outcome.HANDLED
    assert answers == ["stored"]
    assert on_sqlite.entries() == ["book"]


@pytest.mark.parametrize("swallowed", [False, True])
def test_a_transaction_that_takes_too_long_is_undone_and_lets_others_write(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, *, swallowed: bool
) -> None:
    for name in ("SQLITE_SECONDS", "SERVER_SECONDS"):
        monkeypatch.setattr(dialects, name, 0.3)
    answers: list[str] = []

    @shop.receiver.on("*")
    def book(_event: Event) -> None:
        shop.write("never")
        time.sleep(0.6)
        thread = threading.Thread(target=lambda: answers.append(shop.deliver()))
        thread.start()
        thread.join()
        try:
            shop.write("never")
        except Exception:
            if not swallowed:
                raise

    shop.deliver()
    assert shop.work() is None
    assert answers == ["stored"]
    assert shop.entries() == []
    [late, early] = shop.inbox.find(Query())
    assert (early.failures, shop.inbox.get(early.number).succeeded, late.failures) == (1, (), 0)
    # The connection is as it was.
    shop.write("later")
    assert shop.entries() == ["later"]


def test_a_result_that_outlives_the_time_keeps_no_lock(on_sqlite: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    # What ends the long statement ends a rollback too, for as long as another result is open.
    monkeypatch.setattr(dialects, "SQLITE_SECONDS", 0.2)
    rows = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1e9) SELECT {} FROM n"
    kept: list[Any] = []

    @on_sqlite.receiver.on("*")
    def book(_event: Event) -> None:
        on_sqlite.write("never")
        for what in ("i", "sum(i)"):
            kept.append(connections["sqlite"].cursor())
            kept[-1].execute(rows.format(what))

    on_sqlite.deliver()
    assert on_sqlite.work() is None
    answers: list[str] = []
    thread = threading.Thread(target=lambda: answers.append(on_sqlite.deliver()))
    thread.start()
    thread.join()
    assert [*answers, on_sqlite.deliver()] == ["stored", "stored"]
    on_sqlite.write("later")
    assert on_sqlite.entries() == ["later"]


def test_a_long_handler_keeps_its_claim_meanwhile(shop: Shop) -> None:
    """Until its end a handler's transaction locks nothing of the inbox's, where rows are locked one by one."""
    if shop.alias == "sqlite":
        pytest.skip("SQLite has one writer")
    renewed: list[set[int]] = []

    @shop.receiver.on("*")
    def book(_event: Event) -> None:
        shop.write("book")
        thread = threading.Thread(target=lambda: renewed.append(set(shop.inbox.renew([claimed.claim]))))
        thread.start()
        thread.join()

    shop.deliver()
    claimed = shop.take()
    assert shop.handle(claimed) is Outcome.HANDLED
    assert renewed == [{claimed.claim.number}]
