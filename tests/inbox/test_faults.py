"""A store that fails for a while: each request is told so, no failure is remembered, and all goes on by itself."""

from __future__ import annotations

import asyncio
import errno
import sqlite3
import threading
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy
from django.db import DatabaseError

from inbox.worlds import ENDPOINT, WORLDS, claimed, eventually, given, run_in_transaction, take
from roovet_webhooks import InboxUnavailable
from roovet_webhooks.inbox.faults import is_of_a_pooler, meaning_of
from roovet_webhooks.inbox.protocol import Served, Verdict
from roovet_webhooks.inbox.records import Query
from roovet_webhooks.inbox.sql.store import translated
from roovet_webhooks.receiving.bridge import AsyncBridge, SyncBridge, run
from roovet_webhooks.worker.threads import Threads

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from inbox.worlds import SQLWorld, World

# How a session of each database is made one that only reads, as all sessions of a standby are.
ONLY_READS = {
    "sqlite3": "PRAGMA query_only=ON",
    "psycopg": "SET default_transaction_read_only = on",
    "pymysql": "SET SESSION TRANSACTION READ ONLY",
}


@pytest.fixture(params=[name for name in WORLDS if name not in {"memory", "pgbouncer"}])
def direct(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    """A durable world whose connections are its own: behind a pooler their sessions are everybody's."""
    world = WORLDS[request.param](tmp_path)
    yield world
    world.close()


class Weather:
    """What becomes of the connections that a process makes.

    Attributes:
        fault: Raised where one is made, if there is one.
        only_reads: Whether they only read.
        made: How many have been made.
    """

    def __init__(self) -> None:
        self.fault: Exception | None = None
        self.only_reads = False
        self.made = 0

    def __call__(self, driver: Any) -> None:  # noqa: ANN401 - any driver's
        self.made += 1
        if self.fault is not None:
            driver.close()
            raise self.fault
        if self.only_reads:
            cursor = driver.cursor()
            modules = [kind.__module__.partition(".")[0] for kind in type(driver).__mro__]
            cursor.execute(next(ONLY_READS[module] for module in modules if module in ONLY_READS))
            cursor.close()
            driver.commit()


def every_operation(world: World, inbox: Any) -> dict[str, Callable[[], object]]:  # noqa: ANN401 - a DurableInbox
    """Return what is asked of an inbox, and writes."""
    claim = claimed(inbox, world.delivery())
    return {
        "store": lambda: given(inbox.store(world.delivery(), claim=False)),
        "store and claim": lambda: given(inbox.store(world.delivery(), claim=True)),
        "claim": lambda: take(inbox),
        "settle": lambda: given(inbox.release(claim, retry_in=0)),
        "transaction": lambda: run_in_transaction(inbox, claim, lambda made: world.book(made, "never")),
        "heartbeat": lambda: given(inbox.heartbeat("me", [Served(ENDPOINT)])),
    }


def is_refused(operation: Callable[[], object]) -> bool:
    try:
        operation()
    except (InboxUnavailable, DatabaseError, sqlalchemy.exc.DBAPIError):  # the latter two from a handler's own SQL
        return True
    return False


class TestAServerThatOnlyReads:
    """What a connection finds that stays with the old primary after a failover."""

    def test_it_is_left_as_soon_as_there_is_another(self, direct: World) -> None:
        inbox, weather = direct.process(), Weather()
        given(inbox.store(direct.delivery(), claim=False))
        operations = every_operation(direct, inbox)
        del operations["claim"]  # where nothing is due, nothing is written
        weather.only_reads = True
        with direct.connecting(inbox, weather):
            for _ in range(2):
                for name, operation in operations.items():
                    assert is_refused(operation), name
            assert direct.booked() == []
            weather.only_reads = False
            assert given(inbox.store(direct.delivery(), claim=False)).verdict is Verdict.NEW
            for name, operation in operations.items():
                if name != "settle":
                    operation()
            operations["settle"]()

    def test_a_connection_that_writes_is_kept(self, direct: World) -> None:
        inbox, weather = direct.process(), Weather()
        with direct.connecting(inbox, weather):
            for _ in range(5):
                given(inbox.store(direct.delivery(), claim=False))
            assert weather.made == 1


class TestNoDescriptors:
    """Nothing can be opened: no socket, no file."""

    @pytest.mark.parametrize("code", [errno.EMFILE, errno.ENOSPC], ids=["EMFILE", "ENOSPC"])
    def test_the_store_is_unavailable_and_comes_back(self, direct: World, code: int) -> None:
        inbox, weather = direct.process(), Weather()
        operations = every_operation(direct, inbox)
        looks: dict[str, Callable[[], object]] = {
            "find": lambda: inbox.find(Query()),
            "stats": inbox.stats,
            "health": inbox.health,
        }
        weather.fault = OSError(code, "none is left")
        with direct.connecting(inbox, weather):
            for name, operation in {**operations, **looks}.items():
                assert is_refused(operation), name
            weather.fault = None
            for operation in {**looks, **operations}.values():
                if operation is not operations["settle"]:
                    operation()


@pytest.fixture
def threads(monkeypatch: pytest.MonkeyPatch) -> Iterator[SimpleNamespace]:
    """Have the system refuse threads while ``refused`` is set."""
    state = SimpleNamespace(refused=False, tries=0)
    start = threading.Thread.start

    def refused(thread: threading.Thread) -> None:
        if state.refused:
            state.tries += 1
            message = "can't start new thread"
            raise RuntimeError(message)
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", refused)
    yield state
    state.refused = False


class TestRefusedThreads:
    """What failed to start is not remembered as started."""

    def test_the_committer(self, database: SQLWorld, threads: SimpleNamespace) -> None:
        inbox = database.process()
        threads.refused = True
        for _ in range(2):
            with pytest.raises(InboxUnavailable, match="no thread can be started"):
                given(inbox.store(database.delivery(), claim=False))
        threads.refused = False
        assert given(inbox.store(database.delivery(), claim=False)).verdict is Verdict.NEW

    def test_the_keeper(self, durable: World, threads: SimpleNamespace, caplog: pytest.LogCaptureFixture) -> None:
        inbox = durable.process(lease=0.3)
        inbox.open()
        threads.refused = True
        claim = claimed(inbox, durable.delivery())
        with pytest.raises(InboxUnavailable):
            inbox.start_maintenance()
        with inbox.renewing(claim):
            assert "inbox.maintenance_failed code='inbox_unavailable'" in caplog.text
            threads.refused = False
            inbox.start_maintenance()
            before = inbox.get(claim.number).lease_until
            durable.elapse(1)
            eventually(lambda: inbox.get(claim.number).lease_until != before)

    def test_the_clock_of_a_handlers_transaction(self, sqlite: SQLWorld, threads: SimpleNamespace) -> None:
        inbox = sqlite.process()
        claim = claimed(inbox, sqlite.delivery())
        threads.refused = True
        with pytest.raises(InboxUnavailable):
            run_in_transaction(inbox, claim, lambda made: sqlite.book(made, "never"))
        threads.refused = False
        run_in_transaction(inbox, claim, lambda made: sqlite.book(made, "once"))
        assert sqlite.booked() == ["once"]

    def test_a_bound_that_runs_out_while_threads_are_refused(self, sqlite: SQLWorld, threads: SimpleNamespace) -> None:
        inbox = sqlite.process()
        inbox._store.limit = 0.2
        claim = claimed(inbox, sqlite.delivery())

        def work(connection: Any) -> None:  # noqa: ANN401 - a Connection
            sqlite.book(connection, "never")
            threads.refused = True
            while True:  # until its time is over
                connection.execute(sqlalchemy.text("SELECT 1")).all()

        with pytest.raises(Exception, match="open for more than"):
            run_in_transaction(inbox, claim, work)
        threads.refused = False
        assert sqlite.booked() == []
        assert given(inbox.store(sqlite.delivery(), claim=False)).verdict is Verdict.NEW

    def test_the_threads_of_a_worker(self, threads: SimpleNamespace, caplog: pytest.LogCaptureFixture) -> None:
        async def main() -> None:
            pool = Threads(2, "some")
            threads.refused = True
            calls = [asyncio.ensure_future(pool.call(lambda number=number: number)) for number in range(3)]
            await asyncio.sleep(0)
            assert threads.tries
            assert not any(call.done() for call in calls)
            threads.refused = False
            async with asyncio.timeout(30):
                assert await asyncio.gather(*calls) == [0, 1, 2]
            pool.close()

        asyncio.run(main())
        assert "worker.no_thread reason=" in caplog.text

    def test_a_pool_that_is_closed_asks_for_none(self, threads: SimpleNamespace) -> None:
        async def main() -> None:
            pool = Threads(2, "some")
            threads.refused = True
            call = asyncio.ensure_future(pool.call(int))
            await asyncio.sleep(0)
            assert threads.tries
            pool.close()
            threads.refused = False
            pool._start(asyncio.get_running_loop())
            assert pool._started == 0
            call.cancel()

        asyncio.run(main())

    def test_a_request_to_an_inbox_that_blocks(self, threads: SimpleNamespace) -> None:
        inbox: Any = SimpleNamespace(blocking=True, timeout=1)

        async def main() -> None:
            threads.refused = True
            with pytest.raises(InboxUnavailable, match="no thread can be started"):
                await AsyncBridge().wait(inbox, lambda: 5)
            threads.refused = False
            assert await AsyncBridge().wait(inbox, lambda: 5) == 5

        asyncio.run(main())

        def fault() -> int:
            message = "a fault of the inbox"
            raise RuntimeError(message)

        async def failing() -> None:
            with pytest.raises(RuntimeError, match="a fault of the inbox"):
                await AsyncBridge().wait(inbox, fault)

        asyncio.run(failing())

    def test_the_loop_of_a_sync_server(self, threads: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
        from roovet_webhooks.receiving import bridge  # noqa: PLC0415 - its loop is replaced

        monkeypatch.setattr(bridge, "_LOOP", bridge._LoopThread())

        async def five() -> int:
            return 5

        threads.refused = True
        with pytest.raises(RuntimeError, match="can't start new thread"):
            run(SyncBridge().call(five))
        threads.refused = False
        assert run(SyncBridge().call(five)) == 5


class Fault(Exception):
    """An error of a driver."""

    def __init__(self, *arguments: object, **values: object) -> None:
        super().__init__(*arguments)
        vars(self).update(values)


def wrapped(error: Exception) -> Exception:
    """Return an error as Django raises it."""
    outer = Exception("of Django")
    outer.__cause__ = error
    return outer


def of_state(state: str) -> Exception:
    """Return an error of PostgreSQL's."""
    return Fault(sqlstate=state)


def of_number(number: int) -> Exception:
    """Return an error of MySQL's."""
    return Fault(number, "a text")


def of_sqlite(code: int) -> Exception:
    """Return an error of SQLite's."""
    error = sqlite3.OperationalError("a text")
    error.sqlite_errorcode = code
    return error


MEANINGS: dict[str | None, list[Exception]] = {
    "leave": [
        *map(of_state, ("25006", "57P01", "57P02", "57P03", "08006", "08P01", "26000")),
        *map(of_number, (1053, 1290, 1792, 2006, 2013)),
        of_sqlite(sqlite3.SQLITE_READONLY_DBMOVED),
    ],
    "conflict": [*map(of_state, ("40001", "40P01")), *map(of_number, (1020, 1213))],
    "full": [of_state("53100"), of_number(1021), of_sqlite(sqlite3.SQLITE_FULL), OSError(errno.ENOSPC, "a text")],
    "unavailable": [
        *map(of_state, ("53300", "28P01", "3D000", "58030", "XX001", "42501")),
        OSError(errno.EMFILE, "a text"),
    ],
    None: [
        *map(of_state, ("23505", "42P01", "22P02")),
        *(of_number(1062), of_sqlite(sqlite3.SQLITE_BUSY), ValueError("a text"), ValueError()),
    ],
}


@pytest.mark.parametrize("meaning", list(MEANINGS))
def test_what_an_error_means_whoever_wraps_it(meaning: str | None) -> None:
    for error in MEANINGS[meaning]:
        by_sqlalchemy = sqlalchemy.exc.OperationalError("SELECT 1", {}, error)
        assert [meaning_of(one) for one in (error, by_sqlalchemy, wrapped(error))] == [meaning] * 3, repr(error)


@pytest.mark.parametrize("state", ["42P05", "26000"])
def test_a_clash_of_prepared_statements_is_told_with_its_cure(state: str) -> None:
    clash = sqlalchemy.exc.ProgrammingError("SELECT 1", {}, Fault("it exists", sqlstate=state))
    with (
        pytest.raises(InboxUnavailable, match=r"it exists; behind a pooler .* connect_args=.'prepare_threshold': None"),
        translated("PostgreSQL"),
    ):
        raise clash


def test_a_clash_of_prepared_statements_is_a_poolers() -> None:
    assert is_of_a_pooler(wrapped(Fault(sqlstate="42P05")))
    assert not is_of_a_pooler(wrapped(Fault(sqlstate="25006")))
