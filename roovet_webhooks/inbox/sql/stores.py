"""SQLite and PostgreSQL: how each is opened, written to, read and kept durable. What differs stands here alone."""

from __future__ import annotations

import os
import shutil
import sqlite3
import threading
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, cast

import sqlalchemy
from sqlalchemy import event, func, text
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as TimedOut
from sqlalchemy.pool import NullPool

from roovet_webhooks.errors import ConfigurationError, InboxUnavailable
from roovet_webhooks.inbox.disks import network_file_system
from roovet_webhooks.inbox.limits import SERVER_SECONDS, SQLITE_SECONDS
from roovet_webhooks.inbox.locks import Turn, Turns
from roovet_webhooks.inbox.sql import schema
from roovet_webhooks.inbox.sql.limits import postgresql_limit, sqlite_limit

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence
    from contextlib import AbstractContextManager

    from sqlalchemy import URL, Connection, Engine, Insert, Update

    from roovet_webhooks.inbox.limits import Limit

    Clock = Callable[[], float]

WAIT = 5.0  # seconds for which a lock of another process is waited for


class Undo(Exception):
    """Raised in a transaction to have it rolled back, where nothing is wrong with the connection."""


class Conflict(InboxUnavailable):
    """Two transactions waited for each other, and this one gave way: it may be tried again at once."""


class Transaction(NamedTuple):
    """An open transaction, and what time it is by the store's clock, in epoch milliseconds."""

    connection: Connection
    now: int


class Store(Protocol):
    """A database that holds an inbox.

    Attributes:
        insert: Makes an INSERT that can say what to do about a conflict.
        locks_rows: Whether rows are locked one by one, so that others can be skipped.
        limit: Seconds for which a handler may keep a transaction open.
    """

    insert: Callable[..., Any]
    locks_rows: bool
    limit: float

    def text_of(self, statement: Insert | Update, columns: Sequence[str] | None = None) -> str:
        """Return a statement as the driver takes it, with named parameters; ``columns`` are those of an INSERT."""
        ...

    def write(self) -> AbstractContextManager[Transaction]:
        """Open a transaction that is durable once it has been committed.

        Raises:
            InboxUnavailable: The database is down, locked, read-only or out of disk.
            ConfigurationError: Its tables belong to a later version.
        """
        ...

    def write_for_handler(self) -> AbstractContextManager[Transaction]:
        """Open a transaction for a handler, which may last: with a connection that nobody else waits for, if it can."""
        ...

    def read(self) -> AbstractContextManager[Transaction]:
        """Open a connection for looking only; errors as `write`."""
        ...

    def limited(self, connection: Connection) -> AbstractContextManager[Limit]:
        """Bound the time that a handler may keep its transaction open."""
        ...

    def free_disk(self) -> int | None:
        """Return the free bytes on the disk, where that can be known."""
        ...

    def fault(self) -> str | None:
        """Say what about the store's settings endangers what it holds; ``None`` when nothing does."""
        ...

    def before_fork(self) -> None:
        """Get ready for a fork of this process."""
        ...

    def after_fork(self) -> None:
        """Go on after it, in this process."""
        ...

    def forget(self) -> None:
        """Let go, in the child, of everything that the parent opened, without closing it for the parent."""
        ...

    def close(self) -> None:
        """Close all connections."""
        ...


@contextmanager
def _translated(what: str) -> Generator[None]:
    """Raise what a database says is wrong with itself as `InboxUnavailable`."""
    try:
        yield
    except (InterfaceError, OperationalError, TimedOut) as error:
        # Its text may have parameters, and so a body.
        raise unavailable(what, error) from None
    except sqlite3.Error as error:
        raise unavailable(what, error) from None  # from setting a connection up, before SQLAlchemy has it
    except DBAPIError as error:
        # A lost connection, an administrator's shutdown and a full disk come under several names.
        if not (error.connection_invalidated or type(error.orig).__name__ in _OF_THE_STORE):
            raise
        raise unavailable(what, error) from None


_CONFLICTS = frozenset({"40001", "40P01"})  # serialization_failure and deadlock_detected
# DatabaseError itself is what SQLite says of a file that is damaged, or no database.
_OF_THE_STORE = frozenset(
    {"AdminShutdown", "CrashShutdown", "CannotConnectNow", "DiskFull", "OutOfMemory", "DatabaseError"}
)


def unavailable(what: str, error: SQLAlchemyError | sqlite3.Error) -> InboxUnavailable:
    """Return the error for a store that does not do its work, without a statement or its parameters."""
    origin = error if isinstance(error, sqlite3.Error) else getattr(error, "orig", None)
    # The driver's own first line; a SQLAlchemy error's text has the parameters, and so the body.
    reason = str(origin).splitlines()[0] if origin is not None and str(origin) else type(error).__name__
    conflict = getattr(origin, "sqlstate", None) in _CONFLICTS
    return (Conflict if conflict else InboxUnavailable)(f"the inbox in {what} cannot be used: {reason[:200]}")


def _rendered(statement: Insert | Update, engine: Engine, columns: Sequence[str] | None) -> str:
    compiled = statement.compile(engine, column_keys=None if columns is None else list(columns))
    return str(compiled)


class SQLiteStore:
    """A SQLite file: one writer connection a process, in WAL mode, synced at each commit, turns taken by a lock file.

    Args:
        url: ``sqlite:///path``.
        clock: Unix seconds.

    Raises:
        ConfigurationError: It names no file, or one on a network file system.
    """

    # Serialises writers of several processes: before 3.51.3 SQLite can lose data when two of them reset the log.
    insert: Callable[..., Any] = staticmethod(sqlite.insert)
    locks_rows = False
    limit = SQLITE_SECONDS

    def __init__(self, url: URL, clock: Clock) -> None:
        path = url.database
        if not path or ":memory:" in path or "mode=memory" in path or url.query.get("mode") == "memory":
            message = "an inbox in SQLite needs a file: sqlite:///roovet.db; in memory it would not be durable"
            raise ConfigurationError(message)
        self.path: str = os.path.realpath(path.removeprefix("file:").partition("?")[0])
        self._what = f"SQLite ({self.path})"
        _refuse_network(self.path)
        self._clock = clock
        self._url = sqlalchemy.URL.create("sqlite", database=self.path)
        self._turns = Turns(f"{self.path}.lock", WAIT)
        self._turn: Turn | None = None
        self._engine = self._make_engine()
        self._connection: Connection | None = None
        self._others: set[Connection] = set()  # of those who look, and of a handler whose time is over
        self._file: tuple[int, int] | None = None
        self._stopped = False
        self._forked_open = False

    def _make_engine(self) -> Engine:
        engine = sqlalchemy.create_engine(
            self._url,
            poolclass=NullPool,
            connect_args={"check_same_thread": False, "isolation_level": None, "timeout": WAIT},
            hide_parameters=True,
            paramstyle="named",
        )
        event.listen(engine, "begin", _begin_immediate)
        return engine

    def text_of(self, statement: Insert | Update, columns: Sequence[str] | None = None) -> str:
        """Render a statement; see `Store.text_of`."""
        return _rendered(statement, self._engine, columns)

    @contextmanager
    def write(self) -> Generator[Transaction]:
        """Open a durable transaction; see `Store.write`."""
        if self._forked_open:
            raise ConfigurationError(_FORKED_OPEN)
        turn = self._turn = self._turns.take()
        try:
            with _translated(self._what):
                connection = self._writer()
                try:
                    with connection.begin():
                        yield Transaction(connection, self._now())
                except Undo:
                    raise
                except BaseException:
                    # After a full disk, an I/O error or a handler's commit a new connection finds what is there.
                    self._discard(connection, turn)
                    raise
        finally:
            turn.give_back()

    write_for_handler = write

    def _discard(self, connection: Connection, turn: Turn) -> None:
        if not turn.is_over:
            self._disconnect()
            return
        with suppress(InboxUnavailable), self._turns.held():
            _close(connection)
            self._others.discard(connection)

    def _let_go(self) -> None:
        """End the turn of a transaction that has been rolled back, though its handler still runs."""
        connection, turn = self._connection, self._turn
        if connection is not None and turn is not None:
            self._others.add(connection)
            self._connection = None
            turn.give_back()

    def _now(self) -> int:
        return round(self._clock() * 1000)

    def _writer(self) -> Connection:
        if self._connection is not None and self._file != self._identity():
            # The file was replaced or removed: what is written to the old one would be lost.
            self._disconnect()
        if self._connection is None or self._connection.invalidated or self._connection.closed:
            self._connection = self._connect()
        return self._connection

    def _connect(self) -> Connection:
        connection = self._engine.connect()
        try:
            self._set_up(_driver(connection))
            with connection.begin():
                schema.prepare(connection)
        except BaseException:
            connection.close()
            raise
        self._file = self._identity()
        return connection

    def _set_up(self, driver: sqlite3.Connection) -> None:
        mode = driver.execute("PRAGMA journal_mode=WAL").fetchone()[0]
        if mode != "wal":
            message = f"the inbox in {self._what} cannot use a write-ahead log (journal_mode is {mode!r})"
            raise ConfigurationError(message)
        driver.execute("PRAGMA synchronous=FULL")
        # What an index of a million deliveries takes: 64 MiB, as it is needed.
        driver.execute("PRAGMA cache_size=-65536")

    def _identity(self) -> tuple[int, int] | None:
        try:
            found = os.stat(self.path)  # noqa: PTH116 - once a transaction: Path.stat takes twice as long
        except OSError:
            return None
        return found.st_dev, found.st_ino

    @contextmanager
    def read(self) -> Generator[Transaction]:
        """Open a connection for looking; see `Store.read`."""
        with self.write():
            pass  # The tables are there, and of this version.
        with _translated(self._what):
            connection = self._engine.connect()
            self._others.add(connection)
            try:
                _driver(connection).execute("PRAGMA query_only=ON")
                yield Transaction(connection.execution_options(roovet_reads=True), self._now())
            finally:
                # The last connection to close moves the log into the file, which is a write.
                with self._turns.held():
                    connection.close()
                    self._others.discard(connection)

    def limited(self, connection: Connection) -> AbstractContextManager[Limit]:
        """Bound a transaction; see `Store.limited`."""
        return sqlite_limit(connection, self.limit, self._let_go)

    def free_disk(self) -> int | None:
        """Return the free bytes on the disk that holds the file."""
        return shutil.disk_usage(Path(self.path).parent).free

    def fault(self) -> str | None:
        """Say what endangers what the file holds: nothing, since each connection is set up here."""
        return None

    def _disconnect(self) -> None:
        if self._connection is not None:
            connection, self._connection = self._connection, None
            _close(connection)

    # SQLite keeps its locks by process and believes in a child that it has those of its parent: a file that was open
    # during a fork is not safe in the child, whatever it opens anew. So none is open then.

    def before_fork(self) -> None:
        """Close the connection, and let nobody open one; see `Store.before_fork`."""
        turn = self._turn
        inside = turn is not None and not turn.is_over and turn.thread == threading.get_ident()
        self._stopped = not inside and self._turns.stop()
        if self._stopped and self._connection is not None:
            with suppress(InboxUnavailable), self._turns.while_stopped():
                self._disconnect()

    def after_fork(self) -> None:
        """Go on in the parent; see `Store.after_fork`."""
        if self._stopped:
            self._turns.go_on()

    def forget(self) -> None:  # pragma: no cover - in a child, which coverage does not see; tests fork
        """Begin anew in the child; see `Store.forget`."""
        self._turns.close()
        if self._connection is not None or self._others:
            self._forked_open = True
            _inherited.extend(filter(None, (self._connection, *self._others)))
        self._connection = None
        self._others = set()
        self._turns = Turns(f"{self.path}.lock", WAIT)
        self._engine = self._make_engine()

    def __repr__(self) -> str:
        """Show where it is."""
        return self._what

    def close(self) -> None:
        """Close the connection; see `Store.close`."""
        with self._turns.held():
            self._disconnect()
        self._turns.close()


# Connections of a parent process: closing one in the child would truncate the log under the parent.
_inherited: list[Connection] = []
_FORKED_OPEN = (
    "this process was forked while its parent had the inbox's file open, in a handler's transaction or to look at it, "
    "and SQLite cannot be used on both sides of that: fork elsewhere, or start a new process"
)


def _close(connection: Connection) -> None:
    try:
        connection.close()
    except SQLAlchemyError:
        connection.invalidate()


def _driver(connection: Connection) -> sqlite3.Connection:
    return cast("sqlite3.Connection", connection.connection.driver_connection)


def _begin_immediate(connection: Connection) -> None:
    begin = "BEGIN" if connection.get_execution_options().get("roovet_reads") else "BEGIN IMMEDIATE"
    connection.exec_driver_sql(begin)


def _refuse_network(path: str) -> None:
    kind = network_file_system(path)
    if kind is not None:
        message = (
            f"the inbox {path} would lie on a network file system ({kind}), whose locks SQLite cannot rely on: "
            "use a local disk, or PostgreSQL"
        )
        raise ConfigurationError(message)


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
        self._mine = [own]
        self._clock = clock
        self._what = f"PostgreSQL ({engine.url.host or 'local'}/{engine.url.database})"
        self._prepared = False
        self._preparing = threading.Lock()

    @classmethod
    def from_url(cls, url: URL, clock: Clock | None) -> PostgreSQLStore:
        """Make an engine that notices a database that has gone, within seconds."""
        engine = sqlalchemy.create_engine(
            url,
            connect_args={"connect_timeout": round(WAIT), "tcp_user_timeout": round(2000 * WAIT)},
            pool_timeout=WAIT,
            max_overflow=-1,  # as many as there are handlers at work, and they are bounded
            hide_parameters=True,
        )
        store = cls(engine, clock)
        store._mine.append(engine)
        return store

    def text_of(self, statement: Insert | Update, columns: Sequence[str] | None = None) -> str:
        """Render a statement; see `Store.text_of`."""
        return _rendered(statement, self._engine, columns)

    @contextmanager
    def write(self) -> Generator[Transaction]:
        """Open a durable transaction; see `Store.write`."""
        with self._transaction(self._engine) as transaction:
            yield transaction

    read = write

    @contextmanager
    def write_for_handler(self) -> Generator[Transaction]:
        """Open a handler's transaction; see `Store.write_for_handler`."""
        with self._transaction(self._handlers) as transaction:
            yield transaction

    @contextmanager
    def _transaction(self, engine: Engine) -> Generator[Transaction]:
        with _translated(self._what):
            self._prepare()
            with engine.begin() as connection:
                yield Transaction(connection, self._set_up(connection))

    def _set_up(self, connection: Connection) -> int:
        """Make the transaction durable whatever the session says, bound its waiting, and ask for the time."""
        wait = str(round(1000 * WAIT))
        settings = [func.set_config("synchronous_commit", "on", True), func.set_config("lock_timeout", wait, True)]  # noqa: FBT003 - SQL's own
        clock = func.floor(func.extract("epoch", func.clock_timestamp()) * 1000).label("now")
        row = connection.execute(sqlalchemy.select(clock, *settings)).one()
        return int(row.now) if self._clock is None else round(self._clock() * 1000)

    def _prepare(self) -> None:
        with self._preparing:
            if not self._prepared:
                with self._engine.begin() as connection:
                    connection.execute(text("SELECT pg_advisory_xact_lock(hashtext('roovet_webhooks.schema'))"))
                    schema.prepare(connection)
                self._prepared = True

    def limited(self, connection: Connection) -> AbstractContextManager[Limit]:
        """Bound a transaction; see `Store.limited`."""
        return postgresql_limit(connection, self.limit)

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

    def before_fork(self) -> None:
        """Do nothing: the connections are the parent's, and the child makes its own."""

    after_fork = before_fork

    def forget(self) -> None:  # pragma: no cover - in a child, which coverage does not see; tests fork
        """Let go of what a parent process opened; see `Store.forget`."""
        for engine in (self._engine, self._handlers):
            engine.dispose(close=False)
        self._preparing = threading.Lock()

    def __repr__(self) -> str:
        """Show where it is, without a password."""
        return self._what

    def close(self) -> None:
        """Close the connections, but for those of the application's engine."""
        for engine in self._mine:
            engine.dispose()


def store_of(where: str | URL | Engine, clock: Clock | None) -> SQLiteStore | PostgreSQLStore:
    """Return the store that a URL or an engine names.

    Raises:
        ConfigurationError: It is not one that an inbox can live in.
    """
    if isinstance(where, sqlalchemy.Engine):
        name, url = where.dialect.name, where.url
        if name == "postgresql":
            return PostgreSQLStore(where, clock)
    else:
        try:
            url = sqlalchemy.make_url(where)
            name = url.get_backend_name()
            if name == "postgresql":
                return PostgreSQLStore.from_url(url, clock)
        except (SQLAlchemyError, ImportError) as error:
            message = (
                "inbox= must be a database URL such as 'sqlite:///roovet.db' or "
                "'postgresql+psycopg://user@host/database', or a SQLAlchemy engine that is not an async one "
                f"({type(error).__name__})"
            )
            raise ConfigurationError(message) from None
    if name == "sqlite":
        return SQLiteStore(url, clock or time.time)
    message = f"an inbox lives in SQLite or PostgreSQL, not in {name!r}"
    raise ConfigurationError(message)
