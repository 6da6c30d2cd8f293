"""What a handler does with what it was given, at any time and in any thread: no other delivery notices."""

from __future__ import annotations

import os
import sqlite3
import threading
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy
from sqlalchemy import Integer, String, text
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from inbox.test_handlers import Shop
from inbox.worlds import claimed, given, record_of, run_in_transaction, take
from roovet_webhooks import ConfigurationError, Delivery, Event
from roovet_webhooks.inbox.protocol import Verdict
from roovet_webhooks.inbox.records import Query
from roovet_webhooks.inbox.states import Outcome, State
from roovet_webhooks.receiving.bridge import SyncBridge, run

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Connection

    from inbox.worlds import SQLWorld
    from roovet_webhooks.inbox.protocol import Claim

INSERT = "INSERT INTO ledger (entry) VALUES ('late')"
ROWS = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 5000) SELECT i FROM n"


class _Base(DeclarativeBase):
    pass


class Line(_Base):
    """A row of the application's, as an ORM sees it."""

    __tablename__ = "line"

    id: Mapped[int] = mapped_column(Integer, primary_key=True)
    entry: Mapped[str] = mapped_column(String)


class Kept:
    """All that a handler can get hold of in its block."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        proxy: Any = connection.connection
        self.proxy = proxy
        self.driver: Any = proxy.driver_connection
        self.cursor: Any = self.driver.cursor()
        self.cursor.execute(ROWS)
        self.cursor.fetchone()
        self.result = connection.execute(text(ROWS), execution_options={"stream_results": True})
        self.result.fetchone()
        self.session = Session(bind=connection)
        self.line = Line(entry="once")
        self.session.add(self.line)
        self.session.commit()

    def drop(self) -> None:
        """Close what psycopg would warn of when it is collected."""
        with suppress(Exception):
            self.result.close()
        # One that was busy in another thread when the inbox closed it is left to the collector.
        with suppress(Exception):
            self.driver.close()


# What is left to do with it: an error that says that it is over, or nothing that anybody notices.
DEEDS: dict[str, Callable[[Kept], object]] = {
    "execute": lambda kept: kept.connection.execute(text(INSERT)),
    "select": lambda kept: kept.connection.execute(text("SELECT 1")).all(),
    "begin": lambda kept: kept.connection.begin(),
    "commit": lambda kept: kept.connection.commit(),
    "rollback": lambda kept: kept.connection.rollback(),
    "close": lambda kept: kept.connection.close(),
    "invalidate": lambda kept: kept.connection.invalidate(),
    "a result": lambda kept: kept.result.fetchall(),
    "a result's end": lambda kept: kept.result.close(),
    "an attribute": lambda kept: kept.line.entry,
    "a session": lambda kept: kept.session.execute(text(INSERT)),
    "a session's rollback": lambda kept: kept.session.rollback(),
    "a session's end": lambda kept: kept.session.close(),
    "the proxy's cursor": lambda kept: kept.proxy.cursor().execute(INSERT),
    "the proxy's end": lambda kept: kept.proxy.close(),
    "the driver": lambda kept: kept.driver.execute(INSERT),
    "the driver's commit": lambda kept: kept.driver.commit(),
    "the driver's rollback": lambda kept: kept.driver.rollback(),
    "the driver's end": lambda kept: kept.driver.close(),
    "the driver's BEGIN": lambda kept: kept.driver.execute("BEGIN"),
    "a cursor of the driver": lambda kept: kept.cursor.execute(INSERT),
    "the rows of a cursor": lambda kept: kept.cursor.fetchall(),
    "the end of a cursor": lambda kept: kept.cursor.close(),
}
REFUSED = {
    *("execute", "select", "begin", "invalidate", "an attribute", "a session"),
    *("the driver", "the driver's BEGIN", "a cursor of the driver"),
}


@pytest.fixture
def shop(database: SQLWorld) -> SQLWorld:
    _Base.metadata.create_all(database.engine())
    return database


def kept_of(world: SQLWorld, inbox: Any) -> Kept:  # noqa: ANN401 - a SQLInbox
    found: list[Kept] = []
    run_in_transaction(inbox, claimed(inbox, world.delivery()), lambda made: found.append(Kept(made)))
    return found[0]


@pytest.mark.parametrize("deed", DEEDS)
def test_after_the_block_it_is_dead(shop: SQLWorld, deed: str) -> None:
    inbox = shop.process()
    kept = kept_of(shop, inbox)
    delivery = shop.delivery()
    claim = claimed(inbox, delivery)
    refusals: list[Exception] = []

    def act() -> None:
        try:
            DEEDS[deed](kept)
        except Exception as error:  # noqa: BLE001 - whatever it is
            refusals.append(error)

    def in_the_midst(_connection: object, _now: int) -> str:
        act()
        thread = threading.Thread(target=act)
        thread.start()
        thread.join()
        return "done"

    # While others are recorded, and while another handler has its transaction.
    answers = [inbox.store(shop.delivery(), claim=False), inbox._run(in_the_midst)]
    later = inbox.store(shop.delivery(), claim=False)
    assert [given(answer) for answer in answers][1] == "done"
    assert given(later).verdict is Verdict.NEW
    with inbox.transaction(claim, "book") as connection:
        shop.book(connection, "before")
        act()
        shop.book(connection, "after")
    assert shop.booked() == ["after", "before"]
    assert record_of(inbox, delivery).succeeded == ("book",)
    assert len(inbox.find(Query(states=frozenset({State.READY})))) == 2
    kept.drop()
    if deed in REFUSED:
        assert len(refusals) == 3
        for error in refusals:
            assert "closed" in str(error) or "has ended" in str(error)


class Meddlers:
    """Threads that do all deeds, over and over, with what the last handler has kept."""

    def __init__(self, kept: list[Kept]) -> None:
        self._kept = kept
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._meddle, args=(first,), daemon=True) for first in (0, 7)]

    def _meddle(self, place: int) -> None:
        deeds = list(DEEDS.values())
        while not self._stop.is_set():
            place += 1
            with suppress(Exception):
                deeds[place % len(deeds)](self._kept[-1])

    def __enter__(self) -> None:
        for thread in self._threads:
            thread.start()

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(60)
            assert not thread.is_alive()
        for one in self._kept:
            one.drop()


def test_many_deliveries_beside_threads_that_use_what_was_kept(shop: SQLWorld) -> None:
    inbox = shop.process()
    kept = [kept_of(shop, inbox)]
    stored: list[str] = []
    handled: list[Delivery] = []
    failed: list[tuple[Claim, str]] = []
    with Meddlers(kept):
        for _ in range(12):
            deliveries = [shop.delivery() for _ in range(10)]
            answers = [inbox.store(delivery, claim=False) for delivery in deliveries]
            handled.append(shop.delivery())
            claim, entry = claimed(inbox, handled[-1]), handled[-1].event.id

            def work(connection: Connection, entry: str = entry) -> None:
                shop.book(connection, entry)
                kept.append(Kept(connection))

            # A meddler may end this very transaction, or cut it off from the answer to its commit.
            try:
                run_in_transaction(inbox, claim, work)
            except Exception:  # noqa: BLE001 - whatever it is
                failed.append((claim, entry))
            assert {given(answer).verdict for answer in answers} == {Verdict.NEW}
            stored += [delivery.id for delivery in deliveries]
    assert set(stored) <= {record.id for record in inbox.find(Query(limit=1000))}
    # What has failed is tried again, as a worker does. Where the commit held, so does the record, and it is refused.
    for claim, entry in failed:
        with suppress(ConfigurationError):
            run_in_transaction(inbox, claim, partial(shop.book, entry=entry))
    assert [entry for entry in shop.booked() if entry != "late"] == sorted(one.event.id for one in handled)
    assert all(record_of(inbox, one).succeeded == ("book",) for one in handled)


def test_a_statement_that_runs_in_another_thread_when_the_block_ends(shop: SQLWorld) -> None:
    inbox = shop.process()
    slow = {"sqlite": ROWS.replace("5000", "1e9").replace("SELECT i FROM", "SELECT sum(i) FROM")}
    ended: list[object] = []
    begun = threading.Event()

    def run_on(connection: Connection) -> None:
        begun.set()
        try:
            connection.execute(text(slow.get(connection.dialect.name, "SELECT pg_sleep(0.5)")))
            connection.execute(text(INSERT))
        except Exception as error:  # noqa: BLE001 - whatever it is
            ended.append(error)

    inbox._store.limit = 1.0
    claim = claimed(inbox, shop.delivery())
    threads: list[threading.Thread] = []

    def work(connection: Connection) -> None:
        threads.append(threading.Thread(target=run_on, args=(connection,)))
        threads[0].start()
        assert begun.wait(30)

    with suppress(ConfigurationError):
        run_in_transaction(inbox, claim, work)
    threads[0].join(30)
    assert not threads[0].is_alive()
    assert len(ended) == 1
    assert shop.booked() == []
    run_in_transaction(inbox, claimed(inbox, shop.delivery()), lambda connection: shop.book(connection, "another's"))
    assert shop.booked() == ["another's"]


# What a handler changes beyond its transaction


SETTINGS = {
    "sqlite": ["PRAGMA cache_size = 10", "CREATE TEMP TABLE mine (x INT)", "PRAGMA foreign_keys = ON"],
    "postgresql": [
        *("SET statement_timeout = '1h'", "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY"),
        *("SELECT set_config('work_mem', '1MB', false)", "CREATE TEMP TABLE mine (x INT)"),
        *("SELECT pg_advisory_lock(4711)", "LISTEN mine", "PREPARE mine AS SELECT 1"),
        "/* quietly */ SET timezone = 'Asia/Tokyo'",
    ],
}
SESSION = {"sqlite": "PRAGMA cache_size", "postgresql": "SELECT pg_backend_pid()"}


@pytest.mark.parametrize("own", [False, True])
def test_what_it_sets_ends_with_it(database: SQLWorld, own: bool) -> None:  # noqa: FBT001 - a case
    engine = sqlalchemy.create_engine(database.url(), pool_size=1, max_overflow=0) if own else None
    options: dict[str, Any] = {} if engine is None else {"where": engine}
    inbox = database.process(**options)
    sessions: list[object] = []

    def work(connection: Connection, statement: str | None = None) -> None:
        database.book(connection, "good")
        sessions.append(connection.exec_driver_sql(SESSION[connection.dialect.name]).scalar())
        if statement is not None:
            connection.exec_driver_sql(statement)

    for statement in SETTINGS["postgresql" if "postgresql" in database.url() else "sqlite"]:
        run_in_transaction(inbox, claimed(inbox, database.delivery()), partial(work, statement=statement))
        run_in_transaction(inbox, claimed(inbox, database.delivery()), work)
        assert (sessions[-1] == sessions[-2]) is ("sqlite" in database.url())
    assert set(database.booked()) == {"good"}
    if engine is not None:
        engine.dispose()


def test_a_handler_that_sets_nothing_keeps_the_connection_for_the_next(postgresql: SQLWorld) -> None:
    inbox = postgresql.process()
    pids: list[object] = []

    def work(connection: Connection) -> None:
        postgresql.book(connection, "once")
        pids.append(connection.execute(text("SELECT pg_backend_pid() -- SET nothing")).scalar())

    for _ in range(3):
        run_in_transaction(inbox, claimed(inbox, postgresql.delivery()), work)
    assert len(set(pids)) == 1


@pytest.mark.parametrize(
    "statement",
    [
        *("ATTACH DATABASE ':memory:' AS other", "PRAGMA journal_mode = DELETE", "PRAGMA synchronous = OFF"),
        *("PRAGMA locking_mode = EXCLUSIVE", "PRAGMA writable_schema = ON", "PRAGMA wal_checkpoint(TRUNCATE)"),
        "PRAGMA wal_checkpoint",
    ],
)
def test_what_reaches_beyond_the_transaction_is_refused(sqlite: SQLWorld, statement: str) -> None:
    inbox = sqlite.process()
    delivery = sqlite.delivery()
    with inbox.transaction(claimed(inbox, delivery), "book") as connection:
        sqlite.book(connection, "once")
        with pytest.raises(sqlalchemy.exc.ProgrammingError, match="does not let a handler's transaction attach"):
            connection.exec_driver_sql(statement)
        driver: Any = connection.connection.driver_connection
        with pytest.raises(sqlite3.ProgrammingError, match="how its file is locked or synced"):
            driver.execute(statement)
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 2
    # Nothing was done, and so nothing is wrong.
    assert sqlite.booked() == ["once"]
    assert record_of(inbox, delivery).succeeded == ("book",)


def test_what_the_guard_cannot_see_is_not_to_be_had(sqlite: SQLWorld) -> None:
    inbox = sqlite.process()
    with inbox.transaction(claimed(inbox, sqlite.delivery()), "book") as connection:
        driver: Any = connection.connection.driver_connection
        asked: list[Callable[[], object]] = [
            lambda: driver.set_authorizer(None),
            lambda: driver.blobopen("ledger", "entry", 1),
        ]
        for ask in asked:
            with pytest.raises(sqlite3.NotSupportedError, match=r"has no (blobs|authorizer)"):
                ask()
        driver.interrupt()
        assert driver.cursor().execute("SELECT 1").fetchall() == [(1,)]
        assert list(driver.execute("SELECT 2")) == [(2,)]
        engine = connection.engine
    driver.interrupt()
    with pytest.raises(ConfigurationError, match="use an engine of your own"):
        engine.connect()


# A commit by hand


COMMITS: dict[str, Callable[[Connection, Any], object]] = {
    "in a comment's shadow": lambda made, _: made.exec_driver_sql("/* done */ COMMIT"),
    "after a comment": lambda made, _: made.exec_driver_sql("-- done\nCOMMIT"),
    "after nothing": lambda made, _: made.exec_driver_sql("; COMMIT"),
    "after another statement": lambda made, _: made.exec_driver_sql(f"{INSERT}; COMMIT"),
    "the driver's": lambda _, driver: driver.commit(),
    "the driver's rollback": lambda _, driver: driver.rollback(),
    "the driver's own words": lambda _, driver: driver.execute("COMMIT"),
    "the driver's own bytes": lambda _, driver: driver.cursor().execute(
        b"COMMIT" if hasattr(driver, "pgconn") else "COMMIT"
    ),
}


@pytest.mark.parametrize("swallowed", [False, True])
@pytest.mark.parametrize("how", COMMITS)
def test_a_commit_by_hand_is_refused_before_it_acts(database: SQLWorld, how: str, swallowed: bool) -> None:  # noqa: FBT001 - a case
    inbox = database.process()
    delivery = database.delivery()
    claim = claimed(inbox, delivery)

    def work(connection: Connection) -> None:
        database.book(connection, "never")
        driver: Any = connection.connection.driver_connection
        with suppress(Exception if swallowed else ZeroDivisionError):
            COMMITS[how](connection, driver)
        with suppress(Exception):
            driver.execute(INSERT)

    # SQLite's driver executes one statement at a time, and says so.
    with pytest.raises((ConfigurationError, sqlalchemy.exc.ProgrammingError)):
        run_in_transaction(inbox, claim, work)
    assert database.booked() == []
    assert record_of(inbox, delivery).succeeded == ()
    run_in_transaction(inbox, claim, lambda connection: database.book(connection, "at last"))
    given(inbox.complete(claim, Outcome.HANDLED))
    assert database.booked() == ["at last"]


def test_a_commit_that_nobody_could_refuse_is_not_done_again(
    postgresql: SQLWorld, caplog: pytest.LogCaptureFixture
) -> None:
    shop = Shop(postgresql)

    @shop.receiver.on("*", name="book")
    def book(event: Event, delivery: Delivery) -> None:
        with delivery.transaction() as connection:
            postgresql.book(connection, event.id)
            driver: Any = connection.connection.driver_connection
            driver.pgconn.exec_(b"COMMIT")
            driver.pgconn.exec_(b"BEGIN")
            raise ValueError

    delivery = postgresql.delivery()
    assert shop.work(delivery, SyncBridge()) is None
    record = record_of(shop.inbox, delivery)
    assert (record.state, record.outcome, record.failures) == (State.DEAD, Outcome.FAILED, 1)
    assert record.succeeded == ("book",)
    assert postgresql.booked() == [delivery.event.id]
    assert "CommittedByHandler" in caplog.text
    # It may be replayed: what has succeeded does not run again.
    given(shop.inbox.replay(record.number))
    (one,) = take(shop.inbox)
    assert run(shop.receiver.handle(one, bridge=SyncBridge())) is Outcome.HANDLED
    assert postgresql.booked() == [delivery.event.id]


def test_a_rollback_that_nobody_could_refuse_is_found_after_the_commit(postgresql: SQLWorld) -> None:
    inbox = postgresql.process()
    delivery = postgresql.delivery()
    claim = claimed(inbox, delivery)

    def work(connection: Connection) -> None:
        driver: Any = connection.connection.driver_connection
        postgresql.book(connection, "never")

        # When the inbox has looked for the last time.
        @sqlalchemy.event.listens_for(connection, "commit")
        def end(_connection: Connection) -> None:
            driver.pgconn.exec_(b"ROLLBACK")
            driver.pgconn.exec_(b"BEGIN")

    with pytest.raises(ConfigurationError, match="is over before its end"):
        run_in_transaction(inbox, claim, work)
    assert postgresql.booked() == []
    assert record_of(inbox, delivery).succeeded == ()


# A handler that returns too early, or twice


def test_a_handler_that_returns_while_its_transaction_is_open_has_failed(database: SQLWorld) -> None:
    shop = Shop(database)
    go_on = threading.Event()
    raised: list[str] = []
    threads: list[threading.Thread] = []

    @shop.receiver.on("*", name="book")
    def book(event: Event, delivery: Delivery) -> None:
        entered = threading.Event()

        def write() -> None:
            try:
                with delivery.transaction() as connection:
                    entered.set()
                    assert go_on.wait(60)
                    database.book(connection, event.id)
            except Exception as error:  # noqa: BLE001 - whatever it is
                raised.append(str(error))

        threads.append(threading.Thread(target=write))
        threads[0].start()
        assert entered.wait(60)
        threading.Timer(0.3, go_on.set).start()

    delivery = database.delivery()
    assert shop.work(delivery, SyncBridge()) is None
    threads[0].join(60)
    assert len(raised) == 1
    assert database.booked() == []
    record = record_of(shop.inbox, delivery)
    assert (record.state, record.failures, record.succeeded) == (State.READY, 1, ())


@pytest.mark.parametrize("kept", [False, True])
def test_a_block_that_is_never_left_is_a_failure(database: SQLWorld, kept: bool) -> None:  # noqa: FBT001 - a case
    shop = Shop(database)
    shop.inbox._store.limit = 0.3
    blocks: list[Any] = []

    @shop.receiver.on("*", name="book")
    def book(event: Event, delivery: Delivery) -> None:
        block = delivery.transaction()
        database.book(block.__enter__(), event.id)
        if kept:
            blocks.append(block)

    delivery = database.delivery()
    assert shop.work(delivery, SyncBridge()) is None
    with suppress(Exception):
        blocks.pop().__exit__(None, None, None)
    assert database.booked() == []
    assert record_of(shop.inbox, delivery).failures == 1


def test_a_delivery_has_no_transaction_once_its_handler_has_returned(database: SQLWorld) -> None:
    shop = Shop(database)
    deliveries: list[Delivery] = []
    shop.receiver.on("*", name="book")(lambda _event, delivery: deliveries.append(delivery))
    assert shop.work(database.delivery(), SyncBridge()) is Outcome.HANDLED
    with (
        pytest.raises(ConfigurationError, match="book has returned, and what it was given"),
        deliveries[0].transaction(),
    ):
        pass


def test_a_child_that_returns_from_the_handler_ends(database: SQLWorld, capfd: pytest.CaptureFixture[str]) -> None:
    shop = Shop(database)

    @shop.receiver.on("*", name="book")
    def book(event: Event, delivery: Delivery) -> None:
        pid = os.fork()
        if pid:
            with delivery.transaction() as connection:
                database.book(connection, event.id)
            assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 1

    delivery = database.delivery()
    assert shop.work(delivery, SyncBridge()) is Outcome.HANDLED
    assert database.booked() == [delivery.event.id]
    assert "its child returned from it: the child ends" in capfd.readouterr().err


@pytest.mark.parametrize("leaves", [False, True])
def test_a_child_has_no_part_in_its_parents_transaction(database: SQLWorld, leaves: bool) -> None:  # noqa: FBT001 - a case
    inbox = database.process()
    claim = claimed(inbox, database.delivery())
    child = -1
    try:
        with inbox.transaction(claim, "book") as connection:
            database.book(connection, "once")
            child = os.fork()
            if child == 0 and not leaves:  # pragma: no cover - in a process that coverage does not see
                database.book(connection, "never")
            elif child:
                assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 3
            database.book(connection, "twice") if child else None
    except Exception:
        if child == 0:  # pragma: no cover - in a process that coverage does not see
            os._exit(3)
        raise
    if child == 0:  # pragma: no cover - in a process that coverage does not see
        os._exit(4)
    assert database.booked() == ["once", "twice"]
