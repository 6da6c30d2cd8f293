"""What a SQL inbox asks of a database, and what is wrong when the database does not do it."""

from __future__ import annotations

import sqlite3
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError, SQLAlchemyError, TimeoutError as TimedOut

from roovet_webhooks.errors import InboxUnavailable
from roovet_webhooks.inbox.faults import is_of_a_pooler, meaning_of

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Mapping, Sequence
    from contextlib import AbstractContextManager

    from sqlalchemy import Connection, Engine, Insert, Update

    from roovet_webhooks.inbox.faults import Meaning
    from roovet_webhooks.inbox.limits import Limit
    from roovet_webhooks.inbox.sql.guard import HandlerConnection

    Clock = Callable[[], float]

WAIT = 5.0  # seconds for which a lock of another process is waited for


class Undo(Exception):
    """Raised in a transaction to have it rolled back, where nothing is wrong with the connection."""


class Conflict(InboxUnavailable):
    """Two transactions waited for each other, and this one gave way: it may be tried again at once."""


class DiskFull(InboxUnavailable):
    """Nothing more can be written; what is there can be read."""


class Transaction(NamedTuple):
    """An open transaction, and what time it is by the store's clock, in epoch milliseconds."""

    connection: Connection
    now: int


class HandlerTransaction(NamedTuple):
    """As `Transaction`, for a handler."""

    connection: HandlerConnection
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

    @property
    def location(self) -> str:
        """Which database it is; see `DurableInbox.location`."""
        ...

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

    def write_for_handler(self) -> AbstractContextManager[HandlerTransaction]:
        """Open a transaction for a handler, which may last, on a connection that nothing else is recorded with."""
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

    def missing(self) -> str | None:
        """Say what of an inbox is not there, and make nothing; ``None`` when it is there, or cannot be asked."""
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

    def renew_locks(self) -> None:
        """Make locks anew, when gevent has patched what they are made of; nobody holds one."""
        ...

    def close(self) -> None:
        """Close all connections."""
        ...


@contextmanager
def translated(what: str) -> Generator[None]:
    """Raise what a database, or the way to it, says is wrong with itself as `InboxUnavailable`.

    Args:
        what: Where the inbox is.
    """
    try:
        yield
    # From setting a connection up, SQLite's own errors come before SQLAlchemy has them. An OSError is the system's: no
    # descriptor is left for a connection or for waiting on it.
    except (InterfaceError, OperationalError, TimedOut, sqlite3.Error, OSError) as error:
        # Its text may have parameters, and so a body.
        raise unavailable(what, error) from None
    except DBAPIError as error:
        # A lost connection, an administrator's shutdown and a full disk come under several names. DatabaseError itself
        # is what SQLite says of a file that is damaged, or no database.
        named = type(error.orig).__name__ == "DatabaseError"
        if not (error.connection_invalidated or named or meaning_of(error) is not None):
            raise
        raise unavailable(what, error) from None


def unavailable(what: str, error: SQLAlchemyError | sqlite3.Error | OSError) -> InboxUnavailable:
    """Return the error for a store that does not do its work, without a statement or its parameters.

    Args:
        what: Where the inbox is.
        error: What went wrong.
    """
    origin = getattr(error, "orig", None) if isinstance(error, SQLAlchemyError) else error
    # The driver's own first line; a SQLAlchemy error's text has the parameters, and so the body.
    reason = str(origin).splitlines()[0] if origin is not None and str(origin) else type(error).__name__
    kind = _KINDS.get(meaning_of(error), InboxUnavailable)
    cure = f"; {BEHIND_A_POOLER}" if is_of_a_pooler(error) else ""
    return kind(f"the inbox in {what} cannot be used: {reason[:200]}{cure}")


_KINDS: Mapping[Meaning | None, type[InboxUnavailable]] = {"conflict": Conflict, "full": DiskFull}
BEHIND_A_POOLER = "behind a pooler in transaction mode, make the engine with connect_args={'prepare_threshold': None}"


def rendered(statement: Insert | Update, engine: Engine, columns: Sequence[str] | None) -> str:
    """Return a statement as an engine's driver takes it; see `Store.text_of`."""
    compiled = statement.compile(engine, column_keys=None if columns is None else list(columns))
    return str(compiled)
