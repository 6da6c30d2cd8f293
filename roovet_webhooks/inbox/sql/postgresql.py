"""PostgreSQL: the application's own engine or a URL, durable whatever the session says."""

from __future__ import annotations

import threading
from contextlib import contextmanager, suppress
from time import monotonic
from typing import TYPE_CHECKING, Any, cast

import sqlalchemy
from sqlalchemy import event, func, select, text
from sqlalchemy.dialects import postgresql
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from roovet_webhooks.errors import InboxUnavailable
from roovet_webhooks.inbox.deadlines import GRACE, LOOK_SECONDS, OWN_SECONDS, SCHEMA_SECONDS, cut_after
from roovet_webhooks.inbox.drivers import close_safely
from roovet_webhooks.inbox.faults import meaning_of
from roovet_webhooks.inbox.limits import SERVER_SECONDS, over, too_long
from roovet_webhooks.inbox.sql import schema
from roovet_webhooks.inbox.sql.guard import HandlerConnection
from roovet_webhooks.inbox.sql.store import WAIT, HandlerTransaction, Transaction, rendered, translated

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence
    from contextlib import AbstractContextManager

    from sqlalchemy import URL, Connection, Engine, Insert, Update

    from roovet_webhooks.errors import ConfigurationError
    from roovet_webhooks.inbox.limits import Limit
    from roovet_webhooks.inbox.sql.store import Clock


class PostgreSQLStore:
    """A PostgreSQL database, through the application's own engine or one made from a URL.

    Handlers take their connections from that engine, and wait where the application has used up its pool. What is
    recorded and settled does not: it has a pool of its own, made like the engine's.

    Args:
        engine: With the driver psycopg.
        clock: Unix seconds; the database's own clock when ``None``.
    """

    insert: Callable[..., Any] = staticmethod(postgresql.insert)
    locks_rows = True
    limit = SERVER_SECONDS

    def __init__(self, engine: Engine, clock: Clock | None) -> None:
        own = sqlalchemy.create_engine(engine.url, pool=engine.pool.recreate(), hide_parameters=True)
        self._engine, self._handlers = (
            one.execution_options(isolation_level="READ COMMITTED") for one in (own, engine)
        )
        event.listen(own, "commit", _check_open)
        self._mine = [own]
        self._clock = clock
        port = f":{engine.url.port}" if engine.url.port else ""
        self._what = f"PostgreSQL ({engine.url.host or 'local'}{port}/{engine.url.database})"
        self._prepared = False
        self._preparing = threading.Lock()

    @classmethod
    def from_url(cls, url: URL, clock: Clock | None) -> PostgreSQLStore:
        """Make an engine that notices a database that has gone, within seconds, and that works behind a pooler."""
        engine = sqlalchemy.create_engine(
            url,
            # What the URL says itself stands.
            connect_args={name: value for name, value in _CONNECT.items() if name not in url.query},
            pool_timeout=WAIT,
            max_overflow=-1,  # as many as there are handlers at work, and they are bounded
            hide_parameters=True,
        )
        store = cls(engine, clock)
        store._mine.append(engine)
        return store

    def text_of(self, statement: Insert | Update, columns: Sequence[str] | None = None) -> str:
        """Render a statement; see `Store.text_of`."""
        return rendered(statement, self._engine, columns)

    @contextmanager
    def write(self) -> Generator[Transaction]:
        """Open a durable transaction; see `Store.write`."""
        with self._transaction(OWN_SECONDS) as transaction:
            yield transaction

    @contextmanager
    def read(self) -> Generator[Transaction]:
        """Open a transaction for looking; see `Store.read`."""
        with self._transaction(LOOK_SECONDS) as transaction:
            yield transaction

    @contextmanager
    def write_for_handler(self) -> Generator[HandlerTransaction]:
        """Open a handler's transaction; see `Store.write_for_handler`."""
        with translated(self._what), _left_when_lost(self._handlers):
            self._prepare()
            with (
                HandlerConnection(self._handlers) as connection,
                cut_after(connection.connection.driver_connection, self.limit + GRACE),
            ):
                close_safely(connection.connection.driver_connection)
                try:
                    with connection.begin():
                        yield HandlerTransaction(connection, self._set_up(connection))
                        _check_open(connection)
                finally:
                    # Whoever gets it next must not meet what this handler has left in it.
                    connection.leave()

    @contextmanager
    def _transaction(self, seconds: float) -> Generator[Transaction]:
        with translated(self._what), _left_when_lost(self._engine):
            self._prepare()
            with _begun(self._engine, seconds) as connection:
                yield Transaction(connection, self._set_up(connection))

    def _set_up(self, connection: Connection) -> int:
        """Make the transaction durable whatever the session says, bound its waiting, and ask for the time."""
        wait = str(round(1000 * WAIT))
        settings = [func.set_config("synchronous_commit", "on", True), func.set_config("lock_timeout", wait, True)]  # noqa: FBT003 - SQL's own
        clock = func.floor(func.extract("epoch", func.clock_timestamp()) * 1000).label("now")
        row = connection.execute(select(clock, *settings)).one()
        return int(row.now) if self._clock is None else round(self._clock() * 1000)

    def _prepare(self) -> None:
        if self._prepared:
            return
        if not self._preparing.acquire(timeout=WAIT):
            message = f"the tables of the inbox in {self._what} are being made or upgraded"
            raise InboxUnavailable(message)
        try:
            if not self._prepared:
                with _begun(self._engine, SCHEMA_SECONDS) as connection:
                    connection.execute(text("SELECT pg_advisory_xact_lock(hashtext('roovet_webhooks.schema'))"))
                    schema.prepare(connection)
                self._prepared = True
        finally:
            self._preparing.release()

    def limited(self, connection: Connection) -> AbstractContextManager[Limit]:
        """Bound a transaction; see `Store.limited`."""
        return postgresql_limit(connection, self.limit, self._was_committed)

    def _was_committed(self, number: int) -> bool:
        with suppress(InboxUnavailable), self.read() as (connection, _):
            return connection.execute(select(func.txid_status(number))).scalar() == "committed"
        return False  # if it was, the record of the success has been, too

    def free_disk(self) -> int | None:
        """Return nothing: a client cannot see the server's disk."""
        return None

    def fault(self) -> str | None:
        """Say which setting of the server endangers what it holds."""
        with self.read() as (connection, _):
            off = [
                name
                for name in ("fsync", "full_page_writes")
                if cast("str", connection.execute(text(f"SHOW {name}")).scalar_one()) != "on"
            ]
        if not off:
            return None
        return f"the server runs with {' and '.join(off)} off: a power cut can lose what was acknowledged; turn it on"

    def missing(self) -> str | None:
        """Say what is not there; see `Store.missing`."""
        try:
            with self._engine.connect() as connection:
                found = sqlalchemy.inspect(connection).has_table(schema.meta.name)
        except SQLAlchemyError:
            return None
        return None if found else "none of its tables is there"

    def before_fork(self) -> None:
        """Do nothing: the connections are the parent's, and the child makes its own."""

    after_fork = before_fork

    def forget(self) -> None:  # pragma: no cover - in a child, which coverage does not see; tests fork
        """Let go of what a parent process opened; see `Store.forget`."""
        for engine in (self._engine, self._handlers):
            engine.dispose(close=False)
        self._preparing = threading.Lock()

    @property
    def location(self) -> str:
        """Server, database, and the options of its URL, which may name a schema."""
        options = {name: value for name, value in self._engine.url.query.items() if name in {"host", "port", "options"}}
        return f"{self._what} {sorted(options.items())}" if options else self._what

    def renew_locks(self) -> None:
        """Make locks anew, and the pools, which have some; see `Store.renew_locks`."""
        for engine in (self._engine, self._handlers):
            engine.dispose()
        self._preparing = threading.Lock()

    def __repr__(self) -> str:
        """Show where it is, without a password."""
        return self._what

    def close(self) -> None:
        """Close the connections, but for those of the application's engine."""
        for engine in self._mine:
            engine.dispose()


# What the server's host has not acknowledged within 10 s, or does not answer to when it is asked whether it is still
# there, is a lost connection. Without a question a host that died in the middle of a statement is waited for by hours.
# A pooler in transaction mode gives each transaction another session, in which a prepared statement is unknown.
_CONNECT = {
    "connect_timeout": round(WAIT),
    "tcp_user_timeout": round(2000 * WAIT),
    "keepalives": 1,
    "keepalives_idle": round(WAIT),
    "keepalives_interval": round(WAIT),
    "keepalives_count": 2,
    "prepare_threshold": None,
}


@contextmanager
def _begun(engine: Engine, seconds: float) -> Generator[Connection]:
    """Open a transaction whose connection is cut at the end of a time, whatever bounds the engine sets."""
    with (
        engine.connect() as connection,
        cut_after(connection.connection.driver_connection, seconds),
        connection.begin(),
    ):
        yield connection


@contextmanager
def _left_when_lost(engine: Engine) -> Generator[None]:
    """Leave all connections of an engine behind when the server that they lead to ends them, or only reads.

    After a failover pooled connections can stay with a server that has become a standby. It answers each of them, and
    writes nothing. New connections lead where the address leads now.
    """
    try:
        yield
    except DBAPIError as error:
        if meaning_of(error) == "leave":
            engine.dispose()
        raise


def _check_open(connection: Connection) -> None:
    # The server answers the commit of a transaction that has failed with a rollback, and that of none with a warning.
    driver: Any = connection.connection.driver_connection
    status = driver.info.transaction_status.name
    if status != "INTRANS":
        message = f"the transaction was not committed: it had ended, or failed, before ({status})"
        raise InboxUnavailable(message)


class _PostgreSQLLimit:
    def __init__(self, connection: Connection, seconds: float, was_committed: Callable[[int], bool]) -> None:
        self._connection = connection
        self._seconds = seconds
        self._was_committed = was_committed
        wait = str(round(1000 * seconds))
        names = ("statement_timeout", "idle_in_transaction_session_timeout")
        settings = (func.set_config(name, wait, True) for name in names)  # noqa: FBT003 - SQL's own
        self._number: int = connection.execute(select(func.txid_current(), *settings)).one()[0]
        self._deadline = monotonic() + seconds

    def exceeded(self) -> ConfigurationError | None:
        return too_long(self._seconds) if monotonic() > self._deadline else None

    def check(self) -> None:
        if (exceeded := self.exceeded()) is not None:
            raise exceeded

    def watch(self, cursor: object, /) -> None:
        """Leave it to the server, which closes results with the transaction."""

    def check_whole(self) -> None:
        if self._connection.execute(select(func.txid_current())).scalar_one() != self._number:
            raise over()

    def undo(self) -> None:
        """Leave it to the server: it rolls back what a closed connection has not committed."""

    def check_committed(self) -> None:
        if not self.was_committed():
            raise over()

    def was_committed(self) -> bool:
        return self._was_committed(self._number)


@contextmanager
def postgresql_limit(connection: Connection, seconds: float, was_committed: Callable[[int], bool]) -> Generator[Limit]:
    """Bound a transaction on PostgreSQL; the server ends one that sleeps in it."""
    yield _PostgreSQLLimit(connection, seconds, was_committed)
