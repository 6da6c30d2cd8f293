"""SQLite, PostgreSQL, MySQL and the others: what differs between the databases of a `DjangoInbox` stands here alone."""

from __future__ import annotations

import os
import shutil
import sqlite3
from contextlib import contextmanager
from math import inf
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any, Protocol

import django

from roovet_webhooks.findings import Finding
from roovet_webhooks.inbox.filesystem import network_file_system
from roovet_webhooks.inbox.lent import HandlerConnection, HandlerLimit
from roovet_webhooks.inbox.limits import SERVER_SECONDS, SQLITE_SECONDS, too_long
from roovet_webhooks.inbox.sql_text import ends_transaction, ends_transaction_on_mysql
from roovet_webhooks.inbox.write_lock import WriteLock

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence

    from django.db.backends.base.base import BaseDatabaseWrapper

    from roovet_webhooks.errors import ConfigurationError

# The option `transaction_mode`, and `init_command` for SQLite, came with this version of Django.
KNOWS_MODES = django.VERSION >= (5, 1)
# SQLite loses data when two connections reset the log of one file at once; mended in these and in all later ones.
_MENDED = ((3, 44, 6), (3, 50, 7), (3, 51, 3))
_WAL, _ROLLBACK = "wal", "delete"
_OFF, _FULL, _EXTRA = 0, 2, 3


@contextmanager
def instead_of(connection: BaseDatabaseWrapper, name: str, method: Callable[..., object]) -> Generator[None]:
    """Let a method of one connection be another for a block."""
    setattr(connection, name, method)
    try:
        yield
    finally:
        delattr(connection, name)


class Bound(Protocol):
    """The bound on a handler's transaction; each method does what it does in a `Limit`."""

    def begin(self) -> None:
        """Start the clock, in the transaction.

        Raises:
            InboxUnavailable: The system grants no thread for it.
        """
        ...

    def finish(self) -> None:
        """Stop the clock, and take the connection back; the handler has returned."""
        ...

    def check(self) -> None:
        """See `Limit.check`."""
        ...

    def watch(self, cursor: Any, /) -> None:  # noqa: ANN401 - the driver's own
        """See `Limit.watch`."""
        ...

    def check_whole(self) -> None:
        """See `Limit.check_whole`."""
        ...

    def exceeded(self) -> ConfigurationError | None:
        """See `Limit.exceeded`."""
        ...


class _Deadline:
    """A bound that is looked at before each statement."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._until = inf

    def begin(self) -> None:
        self._until = monotonic() + self._seconds

    def finish(self) -> None:
        """Nothing runs."""

    def check(self) -> None:
        if (exceeded := self.exceeded()) is not None:
            raise exceeded

    check_whole = check

    def watch(self, cursor: object, /) -> None:
        """Leave it to the server, which closes results with the transaction."""

    def exceeded(self) -> ConfigurationError | None:
        return too_long(self._seconds) if monotonic() > self._until else None


class _ServersDeadline(_Deadline):
    """A bound that PostgreSQL knows of: it ends a transaction in which the handler sleeps."""

    def __init__(self, seconds: float, connection: BaseDatabaseWrapper) -> None:
        super().__init__(seconds)
        self._connection = connection

    def begin(self) -> None:
        super().begin()
        wait = str(round(1000 * self._seconds))
        settings = (
            "set_config('statement_timeout', %s, true), set_config('idle_in_transaction_session_timeout', %s, true)"
        )
        _shown(self._connection, f"SELECT {settings}", wait, wait)


class Dialect:
    """A database of which nothing is known but that Django supports it.

    Attributes:
        ends: Whether the text of a statement ends a transaction.
    """

    ends: Callable[[str], bool] = staticmethod(ends_transaction)

    def now(self, _connection: BaseDatabaseWrapper, /) -> int | None:
        """Return epoch milliseconds by the server's clock, where several machines share one server."""
        return None

    def begin(self, connection: BaseDatabaseWrapper, _wait: float, /) -> int | None:
        """Execute the first statement of a transaction.

        Args:
            connection: In a transaction.
            _wait: Seconds to wait for a lock at most, where that can be set.

        Returns:
            As `now`.
        """
        return self.now(connection)

    def write_lock(self, _connection: BaseDatabaseWrapper, _wait: float, /) -> WriteLock | None:
        """Return what lets one transaction write at a time, where the database cannot do more and waits badly."""
        return None

    def is_in_memory(self, _connection: BaseDatabaseWrapper, /) -> bool:
        """Return whether another connection would lead to another database."""
        return False

    def connect(self, connection: BaseDatabaseWrapper, /) -> None:
        """Connect for a handler's transaction."""
        connection.connect()

    def bound(self, _connection: BaseDatabaseWrapper, _release: Callable[[], None], /) -> Bound:
        """Lend the connection to a handler, and bound the time that it may keep its transaction open.

        Args:
            _connection: At the beginning of the transaction.
            _release: Lets the next one write, where that has to be done at once.
        """
        return _Deadline(SERVER_SECONDS)

    def free_disk(self, _connection: BaseDatabaseWrapper, /) -> int | None:
        """Return the free bytes on the disk, where that can be known."""
        return None

    def faults(self, _connection: BaseDatabaseWrapper, /) -> Sequence[Finding]:
        """Ask the database for what about it endangers what an inbox holds."""
        return ()

    def advice(self, _connection: BaseDatabaseWrapper, /) -> Sequence[Finding]:
        """Return what in the project's settings makes trouble, without asking the database."""
        return ()


class _SQLite(Dialect):
    def begin(self, connection: BaseDatabaseWrapper, _wait: float, /) -> int | None:
        # A write, though it changes nothing: it waits for its turn. One that only read first would be refused at once
        # with "database is locked" when it came to write after somebody else had.
        with connection.cursor() as cursor:
            cursor.execute("UPDATE roovet_webhooks_worker SET seen_at = seen_at WHERE 0")
        return None

    def write_lock(self, connection: BaseDatabaseWrapper, wait: float, /) -> WriteLock | None:
        # SQLite's own waiting starves some of those who wait. The lock file is one more beside SQLite's own.
        path = _path_of(connection)
        return WriteLock(None if path is None else f"{path}.lock", wait / 2)  # which waits twice that for a thread

    def is_in_memory(self, connection: BaseDatabaseWrapper, /) -> bool:
        return _path_of(connection) is None

    def connect(self, connection: BaseDatabaseWrapper, /) -> None:
        parameters: Callable[[], dict[str, Any]] = connection.get_connection_params
        with instead_of(connection, "get_connection_params", lambda: {**parameters(), "factory": HandlerConnection}):
            connection.connect()

    def bound(self, connection: BaseDatabaseWrapper, release: Callable[[], None], /) -> Bound:
        driver = connection.connection
        if not isinstance(driver, HandlerConnection):
            return _Deadline(SQLITE_SECONDS)
        driver.lend()
        return HandlerLimit(driver, SQLITE_SECONDS, release)

    def free_disk(self, connection: BaseDatabaseWrapper, /) -> int | None:
        path = _path_of(connection)
        return None if path is None else shutil.disk_usage(Path(path).parent).free

    def faults(self, connection: BaseDatabaseWrapper, /) -> Sequence[Finding]:
        with connection.cursor() as cursor:
            synchronous, journal = (
                cursor.execute(f"PRAGMA {name}").fetchone()[0] for name in ("synchronous", "journal_mode")
            )
        found = [*_journal(journal), *_place(_path_of(connection))]
        # With a rollback journal that is deleted at each commit, only EXTRA syncs the folder that it was deleted from.
        needed = _EXTRA if journal == _ROLLBACK else _FULL
        if synchronous < needed:
            found.append(
                Finding(
                    "roovet_webhooks.W001",
                    f"SQLite runs with synchronous={_LEVELS[synchronous]} and journal_mode={journal}: a power cut can "
                    "lose deliveries that were acknowledged",
                    _set_to("PRAGMA synchronous=EXTRA"),
                )
            )
        return found

    def advice(self, connection: BaseDatabaseWrapper, /) -> Sequence[Finding]:
        mode = str(connection.settings_dict["OPTIONS"].get("transaction_mode") or "DEFERRED").upper()
        if not KNOWS_MODES or mode != "DEFERRED":
            return ()
        return [
            Finding(
                "roovet_webhooks.W003",
                "SQLite begins transactions deferred: one of the application's that reads before it writes fails with "
                "'database is locked' when the inbox writes in between",
                "set OPTIONS['transaction_mode'] = 'IMMEDIATE' for this database",
            )
        ]


def _path_of(connection: Any) -> str | None:  # noqa: ANN401 - SQLite's knows whether it is in memory
    """Return the file of a SQLite database; ``None`` when it has none."""
    if connection.is_in_memory_db():
        return None
    return os.path.realpath(str(connection.settings_dict["NAME"]).removeprefix("file:").partition("?")[0])


_LEVELS = ("OFF", "NORMAL", "FULL", "EXTRA")


def _set_to(pragma: str) -> str:
    if KNOWS_MODES:
        return f"set OPTIONS['init_command'] = '{pragma};' for this database"
    return (
        f"execute '{pragma}' on each new connection, from a receiver of django.db.backends.signals.connection_created"
    )


def _place(path: str | None) -> Sequence[Finding]:
    kind = None if path is None else network_file_system(path)
    if kind is None:
        return ()
    return [
        Finding(
            "roovet_webhooks.W001",
            f"the database {path} lies on a network file system ({kind}), whose locks SQLite cannot rely on",
            "use a local disk, or a database server",
        )
    ]


def _journal(journal: str) -> Sequence[Finding]:
    if journal in {"memory", "off"}:
        return [
            Finding(
                "roovet_webhooks.W001",
                f"SQLite runs with journal_mode={journal}: a process that dies while it writes can destroy the file",
                _set_to("PRAGMA journal_mode=DELETE"),
            )
        ]
    version = sqlite3.sqlite_version_info
    mended = version >= _MENDED[-1] or any(version[:2] == one[:2] and version >= one for one in _MENDED)
    if journal != _WAL or mended:
        return ()
    return [
        Finding(
            "roovet_webhooks.W002",
            f"SQLite {sqlite3.sqlite_version} can lose data in journal_mode=WAL when two processes write at once "
            "(sqlite.org/wal.html#walresetbug)",
            f"use SQLite 3.51.3 or later, or {_set_to('PRAGMA journal_mode=DELETE; PRAGMA synchronous=EXTRA')}",
        )
    ]


_POSTGRESQL_NOW = "floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint"


class _PostgreSQL(Dialect):
    def now(self, connection: BaseDatabaseWrapper, /) -> int | None:
        return int(_shown(connection, f"SELECT {_POSTGRESQL_NOW}"))

    def begin(self, connection: BaseDatabaseWrapper, wait: float, /) -> int | None:
        # Durable whatever the session or the server says.
        settings = "set_config('synchronous_commit', 'on', true), set_config('lock_timeout', %s, true)"
        return int(_shown(connection, f"SELECT {_POSTGRESQL_NOW}, {settings}", str(round(1000 * wait))))

    def bound(self, connection: BaseDatabaseWrapper, _release: Callable[[], None], /) -> Bound:
        return _ServersDeadline(SERVER_SECONDS, connection)

    def faults(self, connection: BaseDatabaseWrapper, /) -> Sequence[Finding]:
        off = [name for name in ("fsync", "full_page_writes") if _shown(connection, f"SHOW {name}") != "on"]
        return [_unsafe_server(", ".join(f"{name}=off" for name in off), "on")] if off else ()


class _MySQL(Dialect):
    ends = staticmethod(ends_transaction_on_mysql)

    def now(self, connection: BaseDatabaseWrapper, /) -> int | None:
        # UNIX_TIMESTAMP() has no fractions, and with an argument it is ambiguous for an hour each year.
        return int(_shown(connection, "SELECT TIMESTAMPDIFF(MICROSECOND, '1970-01-01', UTC_TIMESTAMP(6)) DIV 1000"))

    def faults(self, connection: BaseDatabaseWrapper, /) -> Sequence[Finding]:
        found: list[Finding] = []
        unsafe = [
            f"{name}={value}"
            for name, wanted in (("innodb_flush_log_at_trx_commit", "1"), ("innodb_doublewrite", "1"))
            if (value := _variable(connection, name)) != wanted
        ]
        if _variable(connection, "log_bin") == "1" and _variable(connection, "sync_binlog") != "1":
            unsafe.append(f"sync_binlog={_variable(connection, 'sync_binlog')}")
        if unsafe:
            found.append(_unsafe_server(", ".join(unsafe), "1"))
        charset = _variable(connection, "character_set_client")
        if charset != "utf8mb4":
            found.append(
                Finding(
                    "roovet_webhooks.W005",
                    f"the connection uses the character set {charset}: a delivery with a character outside of it in "
                    "the name of its event or resource cannot be stored",
                    "set OPTIONS['charset'] = 'utf8mb4' for this database",
                )
            )
        return found


def _unsafe_server(settings: str, value: str) -> Finding:
    return Finding(
        "roovet_webhooks.W004",
        f"the database server runs with {settings}: a power cut can lose deliveries that were acknowledged",
        f"set them to {value} in the server's configuration",
    )


def _variable(connection: BaseDatabaseWrapper, name: str) -> str:
    value = _shown(connection, f"SELECT @@GLOBAL.{name}" if name != "character_set_client" else f"SELECT @@{name}")
    return {"ON": "1", "OFF": "0"}.get(str(value), str(value))


def _shown(connection: BaseDatabaseWrapper, query: str, *parameters: str) -> Any:  # noqa: ANN401 - whatever it is
    with connection.cursor() as cursor:
        cursor.execute(query, parameters or None)
        return cursor.fetchone()[0]


_DIALECTS: dict[str, Dialect] = {"sqlite": _SQLite(), "postgresql": _PostgreSQL(), "mysql": _MySQL()}
_OTHER = Dialect()


def dialect_of(connection: BaseDatabaseWrapper) -> Dialect:
    """Return what is special about a connection's database."""
    return _DIALECTS.get(connection.vendor, _OTHER)
