"""Worlds: an inbox, the processes that share it, their clocks, and a table of the application's beside it.

The suite asks a world for processes, lets time pass in it, and does not care which store the inbox is in. Another
store joins the suite with a subclass of `World` and a line in `WORLDS`.
"""

from __future__ import annotations

import atexit
import itertools
import os
import sqlite3
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, ClassVar, Self, TypeVar, cast

import sqlalchemy
from sqlalchemy import event, text
from support.services import url_of

from roovet_webhooks import Delivery, MemoryInbox, RetryPolicy, Verified
from roovet_webhooks.delivery import Dedupe, make_delivery
from roovet_webhooks.events import parse_envelope
from roovet_webhooks.inbox.future import InboxFuture
from roovet_webhooks.inbox.protocol import Claim, DurableInbox, Inbox, Verdict
from roovet_webhooks.inbox.records import Query
from roovet_webhooks.inbox.sql import SQLInbox, queries

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence
    from contextlib import AbstractContextManager

    from sqlalchemy import Engine

    from roovet_webhooks.inbox.protocol import Answer, Claimed
    from roovet_webhooks.inbox.records import RecordedDelivery
    from roovet_webhooks.inbox.states import State

T = TypeVar("T")

NOW = 1_762_782_800.0
ENDPOINT = "shop"
LEASE = 60.0
DAY = 86_400.0

_numbers = itertools.count(1)


def given(answer: Answer[T]) -> T:
    """Return an answer of an inbox, whether it is there already or comes later."""
    return cast("InboxFuture[T]", answer).result(30) if isinstance(answer, InboxFuture) else answer


class World:
    """One store, some processes, and their time.

    Attributes:
        durable: Whether deliveries outlive a process; what a world in memory does not know, it is not asked.
        wall: Unix seconds, by the clock that the store goes by.
        ticks: Monotonic seconds of the processes.
    """

    durable: ClassVar[bool] = True

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.wall = NOW
        self.ticks = 1000.0
        self.processes: list[Inbox] = []

    # What a store brings

    def make(self, **options: Any) -> Inbox:  # noqa: ANN401 - options of one inbox or another
        """Return the inbox as another process opens it, with the world's clocks."""
        raise NotImplementedError

    def book(self, connection: Any, entry: str) -> None:  # noqa: ANN401 - whatever the inbox hands to handlers
        """Write into the application's table, through the connection of a handler's transaction."""
        raise NotImplementedError

    def booked(self) -> list[str]:
        """Return what is in the application's table."""
        raise NotImplementedError

    def connecting(self, process: Any, to: Callable[[Any], None]) -> AbstractContextManager[None]:  # noqa: ANN401 - a DurableInbox
        """Have a process begin with no connection, and call a function with each connection that it makes.

        Args:
            process: The inbox.
            to: Called with the driver's connection; may raise, as a connection that cannot be made.
        """
        raise NotImplementedError

    def records(self, inbox: Any, endpoints: Sequence[str]) -> list[RecordedDelivery]:  # noqa: ANN401 - a DurableInbox
        """Return what is recorded of some endpoints."""
        return [record for endpoint in endpoints for record in inbox.find(Query(endpoint=endpoint, limit=10_000))]

    def close(self) -> None:
        """Close the processes and remove the store."""
        for process in self.processes:
            if process.durable:
                cast("DurableInbox", process).close()

    # What all worlds share

    def process(
        self,
        *,
        endpoint: str = ENDPOINT,
        retry: RetryPolicy | None = None,
        **options: Any,  # noqa: ANN401
    ) -> Any:  # noqa: ANN401 - an Inbox or a DurableInbox, as the test knows
        """Start a process with an endpoint."""
        inbox = self.make(**options)
        self.processes.append(inbox)
        if inbox.durable:
            cast("DurableInbox", inbox).attach(endpoint, retry or RetryPolicy())
        return inbox

    def delivery(  # noqa: PLR0913 - what makes a delivery
        self,
        resource: str | None = None,
        *,
        ts: float | None = None,
        event: str = "order.created",
        endpoint: str = ENDPOINT,
        tenant: str = "default",
        note: int = 0,
        dedupe: Dedupe | None = None,
    ) -> Delivery:
        """Return a delivery that has just been received, of an event that is some seconds old."""
        resource = f"ord_{next(_numbers)}" if resource is None else resource
        ts = int(self.wall - 5 if ts is None else ts)
        raw = b'{"event":"%s","id":"%s","ts":%d,"note":%d}' % (event.encode(), resource.encode(), ts, note)
        return make_delivery(
            raw,
            parse_envelope(raw),
            Verified(int(self.wall), "primary"),
            endpoint=endpoint,
            tenant=tenant,
            received_at=self.wall,
            dedupe=dedupe,
        )

    def elapse(self, seconds: float) -> None:
        """Let time pass."""
        self.wall += seconds
        self.ticks += seconds

    def jump(self, seconds: float) -> None:
        """Set the wall clock, forward or back."""
        self.wall += seconds

    def at_once(self, works: Sequence[Callable[[], T]]) -> list[T]:
        """Do some things beside each other, each in a thread that ends with it."""
        with ThreadPoolExecutor(len(works)) as pool:
            return list(pool.map(self._done_in_thread, works))

    def _done_in_thread(self, work: Callable[[], T]) -> T:
        return work()

    def crash(self, *processes: Any) -> None:  # noqa: ANN401 - durable inboxes
        """Let processes forget what they hold, as though they had died and begun anew; all of the world's when none."""
        several: tuple[Any, ...] = processes or tuple(self.processes)
        for process in several:
            maintenance = process._maintenance if hasattr(process, "_maintenance") else process._here().maintenance
            maintenance._held.clear()

    def reap(self, process: DurableInbox, *, after: float = LEASE + 1) -> list[tuple[int, bool]]:
        """Let all processes crash, and one see all claims, twice, with a time in between in which none is renewed."""
        self.crash(process, *self.processes)
        self.elapse(after)
        first: Sequence[tuple[int, bool]] = given(process.reap())
        assert first == []
        self.elapse(after)
        freed: Sequence[tuple[int, bool]] = given(process.reap())
        return list(freed)


class MemoryWorld(World):
    """One process, and nothing of it stays."""

    durable = False

    def make(self, **options: Any) -> MemoryInbox:  # noqa: ANN401 - its options
        return MemoryInbox(clock=lambda: self.ticks, **options)


class SQLWorld(World):
    """A database that `SQLInbox` knows.

    Args:
        folder: For files.
        prepared: Whether an inbox has been opened in it before.

    Attributes:
        locks_rows: Whether a handler's transaction locks its delivery's row alone.
    """

    locks_rows: ClassVar[bool] = True

    def __init__(self, folder: Path, *, prepared: bool = True) -> None:
        super().__init__(folder)
        self._eye: sqlalchemy.Connection | None = None
        self.set_up(prepared=prepared)

    def set_up(self, *, prepared: bool) -> None:
        """Make the database."""
        raise NotImplementedError

    def url(self) -> str:
        """Return where it is."""
        raise NotImplementedError

    def make(self, **options: Any) -> SQLInbox:  # noqa: ANN401 - its options
        options = {"where": self.url(), "lease": LEASE, "clock": lambda: self.wall, **options}
        inbox = SQLInbox(**options)
        inbox._ticks = lambda: self.ticks
        return inbox

    def engine(self) -> Engine:
        """Return an engine for looking at the tables, with no connection of its own."""
        return sqlalchemy.create_engine(self.url(), poolclass=sqlalchemy.NullPool)

    @contextmanager
    def connecting(self, process: Any, to: Callable[[Any], None]) -> Generator[None]:  # noqa: ANN401 - a SQLInbox
        store = process._store
        engines = {id(engine.pool): engine for engine in (store._engine, getattr(store, "_handlers", store._engine))}

        looking = [True]  # a listener of a pool goes with it into the next, and cannot be removed there

        def connected(driver: Any, _record: object) -> None:  # noqa: ANN401 - any driver's
            if looking:
                to(driver)

        for engine in engines.values():
            event.listen(engine.pool, "connect", connected)
        self._let_connections_go(process)
        try:
            yield
        finally:
            looking.clear()

    def _let_connections_go(self, process: Any) -> None:  # noqa: ANN401 - a SQLInbox
        for engine in (process._store._engine, process._store._handlers):
            engine.dispose()

    def eye(self) -> sqlalchemy.Connection:
        """Return a connection that looks at the tables, and stays open."""
        if self._eye is None:
            self._eye = self.engine().connect().execution_options(isolation_level="AUTOCOMMIT")
        return self._eye

    @contextmanager
    def looking(self) -> Generator[sqlalchemy.Connection]:
        """Yield a connection for one look or one change."""
        yield self.eye()

    def records(self, inbox: Any, endpoints: Sequence[str]) -> list[RecordedDelivery]:  # noqa: ANN401 - a SQLInbox
        """Return what is recorded, without asking the inbox."""
        del inbox
        eye = self.eye()
        return [
            record for endpoint in endpoints for record in queries.find(eye, Query(endpoint=endpoint, limit=10_000))
        ]

    def book(self, connection: Any, entry: str) -> None:  # noqa: ANN401 - a Connection
        connection.execute(text("INSERT INTO ledger (entry) VALUES (:entry)"), {"entry": entry})

    def booked(self) -> list[str]:
        return sorted(entry for (entry,) in self.query("SELECT entry FROM ledger"))

    def query(self, statement: str, **values: object) -> list[tuple[Any, ...]]:
        """Return the rows of a query."""
        with self.looking() as connection:
            return [tuple(row) for row in connection.execute(text(statement), values)]

    def execute(self, statement: str, **values: object) -> None:
        """Change the tables behind the inbox's back."""
        with self.looking() as connection:
            connection.execute(text(statement), values)


class SQLiteWorld(SQLWorld):
    """A file."""

    locks_rows = False

    def set_up(self, *, prepared: bool) -> None:
        self.path = self.folder / "roovet.db"
        if prepared:
            self.path.write_bytes(_prepared_file())
        else:
            self.execute("CREATE TABLE ledger (entry TEXT)")

    def url(self) -> str:
        return f"sqlite:///{self.path}"

    def _let_connections_go(self, process: Any) -> None:  # noqa: ANN401 - a SQLInbox
        if process._store._connection is not None:
            process._store._disconnect()

    @contextmanager
    def looking(self) -> Generator[sqlalchemy.Connection]:
        # Not the eye: the file may be replaced, and none may be open during a fork.
        with self.engine().begin() as connection:
            yield connection

    def close(self) -> None:
        super().close()
        if self._eye is not None:
            self._eye.close()
        if self.path.exists():
            with closing(sqlite3.connect(self.path)) as connection:
                assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


@cache
def _prepared_file() -> bytes:
    with TemporaryDirectory() as folder:
        world = SQLiteWorld(Path(folder), prepared=False)
        world.process().open()
        world.close()
        return world.path.read_bytes()


class PostgreSQLWorld(SQLWorld):
    """A schema of its own in the database of the environment.

    One that is as it was made but for its rows is emptied and used again: making and dropping it takes longer than most
    tests do.
    """

    _SHAPE = """
        SELECT relname, attname FROM pg_attribute JOIN pg_class ON pg_class.oid = attrelid
        WHERE relnamespace = CAST(:schema AS regnamespace) AND NOT attisdropped ORDER BY relname, attname
    """
    _VERSIONS = "SELECT name, value FROM roovet_meta ORDER BY name"
    _EMPTYING = """
        WITH a AS (DELETE FROM ledger), b AS (DELETE FROM roovet_delivery), c AS (DELETE FROM roovet_handled),
             d AS (DELETE FROM roovet_worker)
        SELECT setval(pg_get_serial_sequence('roovet_delivery', 'id'), 1, false)
    """
    _free: ClassVar[list[tuple[str, sqlalchemy.Connection]]] = []
    _as_made: ClassVar[tuple[object, ...]] = ()

    def set_up(self, *, prepared: bool) -> None:
        self._base = url_of("postgresql")
        self._prepared = prepared
        if prepared and self._free:
            self.schema, self._eye = self._free.pop()
            return
        self.schema = self._new_name()
        self.execute("SET synchronous_commit = off")  # what the eye itself does need not last
        self.execute(f"CREATE SCHEMA {self.schema}")
        self.execute("CREATE TABLE ledger (entry TEXT)")
        if prepared:
            inbox = self.make()
            inbox.open()
            inbox.close()
            type(self)._as_made = (self.query(self._SHAPE, schema=self.schema), self.query(self._VERSIONS))

    def _new_name(self) -> str:
        return f"roovet_test_{os.getpid()}_{next(_numbers)}"

    def url(self) -> str:
        url = sqlalchemy.make_url(self._base).update_query_dict({"options": f"-csearch_path={self.schema}"})
        return url.render_as_string(hide_password=False)

    def close(self) -> None:
        eye = self.eye()
        try:
            super().close()
        finally:
            if self._prepared and self._is_as_made():
                self.execute(self._EMPTYING)
                self._free.append((self.schema, eye))
            else:
                _drop(self.schema, eye)

    def _is_as_made(self) -> bool:
        shape, versions = self._as_made
        return self.query(self._SHAPE, schema=self.schema) == shape and self.query(self._VERSIONS) == versions

    @classmethod
    def drop_all(cls) -> None:
        """Drop what could be used again."""
        while cls._free:
            _drop(*cls._free.pop())


def _drop(schema: str, eye: sqlalchemy.Connection) -> None:
    eye.execute(text(f"DROP SCHEMA {schema} CASCADE"))
    eye.close()


atexit.register(PostgreSQLWorld.drop_all)


WORLDS: dict[str, Callable[[Path], World]] = {
    "memory": MemoryWorld,
    "sqlite": SQLiteWorld,
    "postgresql": PostgreSQLWorld,
}


class Gate:
    """Keeps an inbox's committer busy, so that what is submitted meanwhile shares the next transaction."""

    def __init__(self, inbox: Any) -> None:  # noqa: ANN401 - a SQLInbox
        self.inbox = inbox
        self.entered = threading.Event()
        self.opened = threading.Event()

    def wait(self, _connection: object, _now: int) -> None:
        self.entered.set()
        assert self.opened.wait(60)

    def __enter__(self) -> Self:
        self.busy = self.inbox._run(self.wait)
        assert self.entered.wait(60)
        return self

    def __exit__(self, *_: object) -> None:
        self.opened.set()
        given(self.busy)


# What tests say often


def claimed(inbox: Inbox, delivery: Delivery) -> Claim:
    """Store a delivery in the request that runs it, and return the claim."""
    stored = given(inbox.store(delivery, claim=True))
    assert stored.verdict is Verdict.NEW
    assert stored.claim is not None
    return stored.claim


def run_in_transaction(inbox: Any, claim: Claim, work: Callable[[Any], object], *, handler: str = "book") -> None:  # noqa: ANN401 - a DurableInbox, whose connection is its own
    """Do something in a handler's transaction."""
    with inbox.transaction(claim, handler) as connection:
        work(connection)


def number_of(inbox: DurableInbox, delivery: Delivery) -> int:
    """Return the number of a delivery."""
    return inbox.number_of(delivery.id)


def record_of(inbox: DurableInbox, delivery: Delivery) -> RecordedDelivery:
    """Return the record of a delivery."""
    return inbox.get(number_of(inbox, delivery))


def state_of(inbox: DurableInbox, delivery: Delivery) -> State:
    """Return where a delivery stands."""
    return record_of(inbox, delivery).state


def take(inbox: DurableInbox, *, limit: int = 10, **options: Any) -> Sequence[Claimed]:  # noqa: ANN401 - as claim has them
    """Claim what is due."""
    return given(inbox.claim(ENDPOINT, limit=limit, **options))


def resources(found: Sequence[Claimed]) -> list[str]:
    """Return what claimed deliveries are about."""
    return [one.delivery.event.id for one in found]


def eventually(condition: Callable[[], object], *, seconds: float = 30) -> None:
    """Wait until a thread has done its work."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it has not happened"
        time.sleep(0.01)
