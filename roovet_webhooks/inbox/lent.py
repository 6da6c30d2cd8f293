"""The SQLite connection of one handler's transaction: guarded while the handler has it, and dead afterwards.

Two threads inside one `sqlite3.Connection` can crash the interpreter. So each call passes a gate that lets one thread
in at a time. The authorizer is Python that SQLite calls back; it stops nothing, since the gate keeps out every thread
that would wait for SQLite's own lock with the interpreter's in its hands.
"""

from __future__ import annotations

import os
import sqlite3
import threading
from contextlib import suppress
from functools import cache, wraps
from typing import TYPE_CHECKING, Any, NoReturn, cast
from weakref import WeakSet

from roovet_webhooks.inbox.limits import OVER, REFUSED, over, refused, too_long
from roovet_webhooks.inbox.threads import started

if TYPE_CHECKING:
    from collections.abc import Callable

    from roovet_webhooks.errors import ConfigurationError

_PATIENCE = 0.05  # seconds
ENDED = (
    "this connection belonged to a handler's transaction, which has ended: use it, its cursors and its results inside "
    "of the block only"
)
_FORKED = "this connection belongs to the process that was forked, and cannot be used in its child"
_DENIED = "the inbox does not let a handler's transaction attach a database, or change how its file is locked or synced"
# What a setting changes beyond its connection, or beyond its transaction. Those marked True are denied without a value.
_PRAGMAS = {
    **dict.fromkeys(("journal_mode", "locking_mode", "synchronous", "fullfsync", "checkpoint_fullfsync"), False),
    **dict.fromkeys(("query_only", "wal_autocheckpoint", "writable_schema", "schema_version"), False),
    **dict.fromkeys(("soft_heap_limit", "hard_heap_limit", "temp_store_directory", "data_store_directory"), False),
    "wal_checkpoint": True,
}


class _Gate:
    """Lets one thread at a time use a connection, and nobody once it is over.

    Attributes:
        lock: Held by the thread inside.
        lent: Whether a handler has the connection: then any thread may use it, and the authorizer is at work.
        over: Why nobody may use it any more.
        denied: Why the statement that is being prepared was refused.
        refused: Whether a handler tried to begin or end the transaction.
    """

    def __init__(self) -> None:
        self.lock: threading.RLock = threading.RLock()
        self.lent: bool = False
        self.over: str | None = None
        self.denied: str | None = None
        self.refused: bool = False
        self._pid = os.getpid()
        self._thread = threading.get_ident()

    def __enter__(self) -> None:
        if os.getpid() != self._pid:
            raise sqlite3.ProgrammingError(_FORKED)
        self.lock.acquire()
        if self.over is not None or not (self.lent or self._thread == threading.get_ident()):
            self.lock.release()
            raise sqlite3.ProgrammingError(self.over or ENDED)

    def __exit__(self, *_: object) -> None:
        self.lock.release()

    def take_back(self) -> None:
        """Shut out every other thread, once it has left."""
        with self.lock:
            self.lent = False
            self._thread = threading.get_ident()

    def authorize(self, action: int, name: str | None, value: str | None, *_: object) -> int:
        """Refuse a statement that would act on more than the handler's transaction."""
        if not self.lent:
            return sqlite3.SQLITE_OK
        if action == sqlite3.SQLITE_TRANSACTION:
            self.refused, self.denied = True, REFUSED
        elif action in {sqlite3.SQLITE_ATTACH, sqlite3.SQLITE_DETACH} or (
            action == sqlite3.SQLITE_PRAGMA and _PRAGMAS.get(str(name).lower()) in {True, value is None}
        ):
            self.denied = _DENIED
        return sqlite3.SQLITE_OK if self.denied is None else sqlite3.SQLITE_DENY


def _guarded(original: Callable[..., Any], connection_of: Callable[[Any], HandlerConnection]) -> Callable[..., Any]:
    @wraps(original)
    def call(self: object, *arguments: object, **options: object) -> object:
        connection = connection_of(self)
        with connection.gate:
            return connection.run(original, self, *arguments, **options)

    return call


class HandlerCursor(sqlite3.Cursor):
    """A cursor of a `HandlerConnection`."""

    def __init__(self, connection: HandlerConnection) -> None:
        super().__init__(connection)
        connection.cursors.add(self)

    def close(self) -> None:
        """Close it; once more is no harm, and its connection has done so when it was closed."""
        connection = _connection_of(self)
        if connection.gate.over is None:
            with connection.gate:
                super().close()


class HandlerConnection(sqlite3.Connection):
    """A connection for one transaction of one handler.

    Attributes:
        gate: Decides who may use it.
        cursors: Those that are alive. One that is open keeps a closed connection from letting go of the file.
    """

    gate: _Gate
    cursors: WeakSet[sqlite3.Cursor]

    def __init__(self, *arguments: Any, **options: Any) -> None:  # noqa: ANN401 - those of sqlite3.connect
        vars(self).update(gate=_Gate(), cursors=WeakSet())
        super().__init__(*arguments, **options)

    def __setattr__(self, name: str, value: object) -> None:
        """Set an attribute; ``isolation_level`` and ``autocommit`` can end a transaction."""
        with self.gate:
            self.run(super().__setattr__, name, value)

    def run(self, function: Callable[..., Any], *arguments: object, **options: object) -> Any:  # noqa: ANN401 - its result
        """Call a method of the driver's, inside of the gate."""
        gate = self.gate
        if gate.lent and not self.in_transaction:
            self._end(OVER)
            raise sqlite3.ProgrammingError(OVER)
        try:
            return function(*arguments, **options)
        except sqlite3.DatabaseError:
            denied, gate.denied = gate.denied, None
            if denied is None:
                raise
            if gate.refused:
                self._end(REFUSED)
            raise sqlite3.ProgrammingError(denied) from None

    def cursor(self, factory: type[sqlite3.Cursor] = sqlite3.Cursor) -> HandlerCursor:  # type: ignore[override]  # a class
        """Return a cursor of a class, guarded."""
        with self.gate:
            return _guarded_cursors(factory)(self)

    def blobopen(self, *_: Any, **__: Any) -> NoReturn:  # noqa: ANN401 - whatever it is called with
        """Refuse: a blob is a way past the guards."""
        message = "a handler's connection has no blobs"
        raise sqlite3.NotSupportedError(message)

    def set_authorizer(self, *_: Any, **__: Any) -> NoReturn:  # noqa: ANN401 - whatever it is called with
        """Refuse: the guards are an authorizer themselves."""
        message = "a handler's connection has no authorizer of the handler's"
        raise sqlite3.NotSupportedError(message)

    def interrupt(self) -> None:
        """Stop the statement that runs, in whichever thread."""
        if self.gate.over is None:
            super().interrupt()

    def close(self) -> None:
        """Close it, and undo what was not committed; once more is no harm."""
        if self.gate.over is None:
            with self.gate:
                self._end(ENDED)

    # What the inbox calls

    def lend(self) -> None:
        """Let a handler use it, in any thread, unless it is over by now."""
        with self.gate.lock:
            if self.gate.over is None:
                super().set_authorizer(self.gate.authorize)
                self.gate.lent = True

    def kill(self, reason: str) -> None:
        """Undo what was written and close it, from any thread and whatever runs.

        Args:
            reason: What those are told who use it from now on.
        """
        gate = self.gate
        gate.over = gate.over or reason
        while not gate.lock.acquire(timeout=_PATIENCE):
            with suppress(sqlite3.ProgrammingError):  # closed
                super().interrupt()
        try:
            self._end(reason)
        finally:
            gate.lock.release()

    def _end(self, reason: str) -> None:
        """Close it, in the thread that is inside of the gate."""
        self.gate.over, self.gate.lent = self.gate.over or reason, False
        for cursor in list(self.cursors):
            with suppress(sqlite3.ProgrammingError):  # its connection is closed
                sqlite3.Cursor.close(cursor)
        # By name, since what closes a connection that a statement keeps busy undoes nothing yet.
        with suppress(sqlite3.Error):
            super().rollback()
        super().close()


@cache
def _guarded_cursors(factory: type[sqlite3.Cursor]) -> type[HandlerCursor]:
    if issubclass(HandlerCursor, factory):
        return HandlerCursor
    bases: Any = (factory, HandlerCursor)
    return type(factory.__name__, bases, {})


def _guard(guarded: type, theirs: type, connection_of: Callable[[Any], HandlerConnection]) -> None:
    """Guard every method of the driver's, also one that a later version brings."""
    for name, method in vars(theirs).items():
        if callable(method) and not isinstance(method, type) and name not in vars(guarded) and name != "__iter__":
            setattr(guarded, name, _guarded(method, connection_of))


def _connection_of(cursor: sqlite3.Cursor) -> HandlerConnection:
    return cast("HandlerConnection", cursor.connection)


def _itself(connection: HandlerConnection) -> HandlerConnection:
    return connection


_guard(HandlerConnection, sqlite3.Connection, _itself)
_guard(HandlerCursor, sqlite3.Cursor, _connection_of)


class HandlerLimit:
    """Bounds the time for which a handler has a `HandlerConnection`. It is a `Limit`.

    Args:
        driver: In a transaction.
        seconds: For which it may stay open.
        release: Lets the next writer begin, while the handler of this one still runs.
    """

    def __init__(self, driver: HandlerConnection, seconds: float, release: Callable[[], None]) -> None:
        self._driver = driver
        self._seconds = seconds
        self._release = release
        self._expired = False
        self._timer = threading.Timer(seconds, self._end)
        self._timer.daemon = True

    def begin(self) -> None:
        """Start the clock, and lend the connection.

        Raises:
            InboxUnavailable: The system grants no thread for the clock.
        """
        started(self._timer)
        self._driver.lend()

    def _end(self) -> None:
        self._expired = True
        self._driver.kill(str(too_long(self._seconds)))
        self._release()

    def check(self) -> None:
        """Check that it goes on; see `Limit.check`."""
        if (ended := self.exceeded()) is not None:
            raise ended
        if self._driver.gate.over is not None or not self._driver.in_transaction:
            raise over()

    def watch(self, cursor: object, /) -> None:
        """Leave it to the connection, which knows its cursors."""

    def check_whole(self) -> None:
        """Take the connection back and check; see `Limit.check_whole`."""
        self.finish()
        self.check()

    def finish(self) -> None:
        """Take the connection back from every thread, and stop the clock."""
        # In this order: a statement that another thread has begun is interrupted when the time is over.
        self._driver.gate.take_back()
        self._timer.cancel()
        if self._timer.ident is not None:  # it has begun
            self._timer.join()

    def exceeded(self) -> ConfigurationError | None:
        """Return the error for what ended it; see `Limit.exceeded`."""
        if self._expired:
            return too_long(self._seconds)
        return refused() if self._driver.gate.refused else None

    def undo(self) -> None:
        """Undo what was written; see `Limit.undo`."""
        self.finish()
        self._driver.kill(REFUSED)

    def check_committed(self) -> None:
        """Leave it to the gate, which let nobody else in; see `Limit.check_committed`."""

    def was_committed(self) -> bool:
        """Return ``False``: the authorizer lets nothing commit; see `Limit.was_committed`."""
        return False
