"""SQLite: one file, one writer connection a process and one for each handler's transaction, and turns between all."""

from __future__ import annotations

import os
import shutil
import sqlite3
import threading
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import quote

import sqlalchemy
from sqlalchemy import event
from sqlalchemy.dialects import sqlite
from sqlalchemy.dialects.sqlite.base import SQLiteCompiler
from sqlalchemy.pool import NullPool

from roovet_webhooks.errors import ConfigurationError, InboxUnavailable
from roovet_webhooks.inbox import lent
from roovet_webhooks.inbox.filesystem import network_file_system
from roovet_webhooks.inbox.limits import SQLITE_SECONDS
from roovet_webhooks.inbox.sql import schema
from roovet_webhooks.inbox.sql.guard import HandlerConnection
from roovet_webhooks.inbox.sql.store import WAIT, HandlerTransaction, Transaction, Undo, rendered, translated
from roovet_webhooks.inbox.write_lock import HeldWriteLock, WriteLock

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence
    from contextlib import AbstractContextManager

    from sqlalchemy import URL, Connection, Engine, Insert, Update

    from roovet_webhooks.inbox.limits import Limit
    from roovet_webhooks.inbox.sql.store import Clock


class SQLiteStore:
    """A SQLite file: one writer connection a process, in WAL mode, synced at each commit, turns taken by a lock file.

    Args:
        url: ``sqlite:///path``.
        clock: Unix seconds.
        engine: The application's own. Its file is opened here, and its ``connect`` listeners are called: foreign keys
            that a handler relies on are checked in its transaction too.

    Raises:
        ConfigurationError: It names no file, or one on a network file system.
    """

    # Serialises writers of several processes: before 3.51.3 SQLite can lose data when two of them reset the log.
    insert: Callable[..., Any] = staticmethod(sqlite.insert)
    locks_rows = False
    limit = SQLITE_SECONDS

    def __init__(self, url: URL, clock: Clock, engine: Engine | None = None) -> None:
        path = url.database
        if not path or ":memory:" in path or "mode=memory" in path or url.query.get("mode") == "memory":
            message = "an inbox in SQLite needs a file: sqlite:///roovet.db; in memory it would not be durable"
            raise ConfigurationError(message)
        self.path: str = os.path.realpath(path.removeprefix("file:").partition("?")[0])
        self._what = f"SQLite ({self.path})"
        _refuse_network(self.path)
        self._clock = clock
        self._theirs = engine
        self._url = sqlalchemy.URL.create("sqlite", database=self.path)
        self._write_lock = WriteLock(f"{self.path}.lock", WAIT)
        self._held: HeldWriteLock | None = None
        self._make_engines()
        self._connection: Connection | None = None
        self._others: set[Connection] = set()  # of handlers, and of those who look
        self._file: tuple[int, int] | None = None
        self._stopped = False
        self._forked_open = False

    def _make_engines(self) -> None:
        self._engine = self._make_engine()
        self._handlers = self._make_engine(factory=lent.HandlerConnection)
        event.listen(self._handlers, "do_connect", self._refuse_others)

    def _make_engine(self, **arguments: object) -> Engine:
        engine = sqlalchemy.create_engine(
            self._url,
            poolclass=NullPool,
            pool_reset_on_return=None,
            connect_args={"check_same_thread": False, "isolation_level": None, "timeout": WAIT, **arguments},
            hide_parameters=True,
            paramstyle="named",
        )
        engine.dialect.statement_compiler = _Compiler
        event.listen(engine, "begin", _begin_immediate)
        event.listen(engine, "commit", _check_open)
        event.listen(engine, "connect", self._connected)
        return engine

    def _connected(self, driver: sqlite3.Connection, record: object) -> None:
        if self._theirs is not None:
            self._theirs.pool.dispatch.connect(driver, record)
        # After those: also of one who only looks, since the last connection to close writes.
        driver.execute("PRAGMA synchronous=FULL")

    def _refuse_others(self, *_: object) -> None:
        """Refuse a handler that takes another connection from its connection's engine: it would write out of turn."""
        held = self._held
        if held is None or held.is_over or held.thread != threading.get_ident():
            raise ConfigurationError(_NOT_YOURS)

    def text_of(self, statement: Insert | Update, columns: Sequence[str] | None = None) -> str:
        """Render a statement; see `Store.text_of`."""
        return rendered(statement, self._engine, columns)

    @contextmanager
    def _write_locked(self) -> Generator[HeldWriteLock]:
        if self._forked_open:  # pragma: no cover - in a child, which coverage does not see; tests fork
            raise ConfigurationError(_FORKED_OPEN)
        held = self._held = self._write_lock.take()
        try:
            with translated(self._what):
                yield held
        finally:
            held.give_back()

    @contextmanager
    def write(self) -> Generator[Transaction]:
        """Open a durable transaction; see `Store.write`."""
        with self._write_locked():
            connection = self._writer()
            try:
                with connection.begin():
                    yield Transaction(connection, self._now())
                _check_ended(connection)
            except Undo:
                raise
            except BaseException:
                # After a full disk or an I/O error a new connection finds what is there.
                self._disconnect()
                raise

    @contextmanager
    def write_for_handler(self) -> Generator[HandlerTransaction]:
        """Open a handler's transaction, on a connection that is closed with it; see `Store.write_for_handler`."""
        with self._write_locked():
            self._writer()  # the tables are there, and of this version
            connection = HandlerConnection(self._handlers)
            driver = cast("lent.HandlerConnection", _driver(connection))
            self._others.add(connection)
            try:
                with connection.begin():
                    yield HandlerTransaction(connection, self._now())
            finally:
                # What the handler has kept is dead, whether SQLAlchemy still has the connection or not.
                driver.close()
                connection.close()
                self._others.discard(connection)

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
        with translated(self._what):
            connection = self._engine.connect()
            self._others.add(connection)
            try:
                _driver(connection).execute("PRAGMA query_only=ON")
                yield Transaction(connection.execution_options(roovet_reads=True), self._now())
            finally:
                # The last connection to close moves the log into the file, which is a write.
                with self._write_lock.held():
                    connection.close()
                    self._others.discard(connection)

    def limited(self, connection: Connection) -> AbstractContextManager[Limit]:
        """Bound a transaction; see `Store.limited`."""
        return sqlite_limit(connection, self.limit, cast("HeldWriteLock", self._held).give_back)

    def free_disk(self) -> int | None:
        """Return the free bytes on the disk that holds the file."""
        return shutil.disk_usage(Path(self.path).parent).free

    def fault(self) -> str | None:
        """Say what endangers what the file holds: nothing, since each connection is set up here."""
        return None

    def missing(self) -> str | None:
        """Say what is not there; see `Store.missing`."""
        if not Path(self.path).exists():
            return f"the file {self.path} does not exist"
        try:
            there = _has_tables(self.path)
        except sqlite3.Error:
            return None
        return None if there else "none of its tables is there"

    def _disconnect(self) -> None:
        connection, self._connection = cast("Connection", self._connection), None
        connection.close()

    # SQLite keeps its locks by process and believes in a child that it has those of its parent: a file that was open
    # during a fork is not safe in the child, whatever it opens anew. So none is open then.

    def before_fork(self) -> None:
        """Close the connection, and let nobody open one; see `Store.before_fork`."""
        held = self._held
        inside = held is not None and not held.is_over and held.thread == threading.get_ident()
        self._stopped = not inside and self._write_lock.stop()
        if self._stopped and self._connection is not None:
            with suppress(InboxUnavailable), self._write_lock.while_stopped():
                self._disconnect()

    def after_fork(self) -> None:
        """Go on in the parent; see `Store.after_fork`."""
        if self._stopped:
            self._write_lock.go_on()

    def forget(self) -> None:  # pragma: no cover - in a child, which coverage does not see; tests fork
        """Begin anew in the child; see `Store.forget`."""
        self._write_lock.close()
        if self._connection is not None or self._others:
            self._forked_open = True
            _inherited.extend(filter(None, (self._connection, *self._others)))
        self._connection = None
        self._others = set()
        self._write_lock = WriteLock(f"{self.path}.lock", WAIT)
        self._make_engines()

    @property
    def location(self) -> str:
        """The path of its file, without symbolic links."""
        return self._what

    def renew_locks(self) -> None:
        """Make locks anew; see `Store.renew_locks`."""
        self._write_lock.close()
        self._write_lock = WriteLock(f"{self.path}.lock", WAIT)

    def __repr__(self) -> str:
        """Show where it is."""
        return self._what

    def close(self) -> None:
        """Close the connection; see `Store.close`."""
        if self._connection is not None:  # else even the lock file may not be there, and is not made
            with self._write_lock.held():
                self._disconnect()
        self._write_lock.close()


class _Compiler(SQLiteCompiler):
    """Says in a statement which index serves it, as `statements.by_index` has hinted; SQLAlchemy leaves that out."""

    def get_from_hint_text(self, table: object, text: str | None) -> str | None:
        """Return the hint as it is."""
        del table
        return text


# Connections of a parent process: closing one in the child would truncate the log under the parent.
_inherited: list[Connection] = []
_FORKED_OPEN = (
    "this process was forked while its parent had the inbox's file open, in a handler's transaction or to look at it, "
    "and SQLite cannot be used on both sides of that: fork elsewhere, or start a new process"
)


_NOT_HELD = (
    "the inbox's transaction was ended by somebody else, who must have got hold of its connection; nothing was recorded"
)
_NOT_YOURS = (
    "the engine of a handler's connection is the inbox's own: for a transaction beside the delivery's, use an engine "
    "of your own"
)


def _has_tables(path: str) -> bool:
    # Read-only, or its close would move the log into the file with no turn taken.
    with closing(sqlite3.connect(f"file:{quote(path)}?mode=ro", timeout=WAIT, uri=True)) as driver:
        tables = driver.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
    return (schema.meta.name,) in tables


def _driver(connection: Connection) -> sqlite3.Connection:
    return cast("sqlite3.Connection", connection.connection.driver_connection)


def _begin_immediate(connection: Connection) -> None:
    begin = "BEGIN" if connection.get_execution_options().get("roovet_reads") else "BEGIN IMMEDIATE"
    connection.exec_driver_sql(begin)


def _check_open(connection: Connection) -> None:
    # A commit of no transaction would pass without a word.
    if not _driver(connection).in_transaction:
        raise InboxUnavailable(_NOT_HELD)


def _check_ended(connection: Connection) -> None:
    if _driver(connection).in_transaction:
        raise InboxUnavailable(_NOT_HELD)


def _refuse_network(path: str) -> None:
    kind = network_file_system(path)
    if kind is not None:
        message = (
            f"the inbox {path} would lie on a network file system ({kind}), whose locks SQLite cannot rely on: "
            "use a local disk, or PostgreSQL"
        )
        raise ConfigurationError(message)


@contextmanager
def sqlite_limit(connection: Connection, seconds: float, release: Callable[[], None]) -> Generator[Limit]:
    """Bound a transaction on SQLite, whose writers all wait for it.

    Args:
        connection: In a transaction.
        seconds: For which it may stay open.
        release: Lets the next writer begin, while the handler of this one still runs.
    """
    limit = lent.HandlerLimit(cast("lent.HandlerConnection", _driver(connection)), seconds, release)
    limit.begin()
    try:
        yield limit
    finally:
        limit.finish()
