"""How long a handler may keep a transaction open, and what ends it when it does not."""

from __future__ import annotations

import sqlite3
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Protocol
from weakref import WeakValueDictionary

from roovet_webhooks.errors import ConfigurationError, InboxUnavailable
from roovet_webhooks.inbox.threads import started

if TYPE_CHECKING:
    from collections.abc import Callable

_PATIENCE = 0.05  # seconds
# SQLite has one writer, and everybody waits for it.
SQLITE_SECONDS = 2.0
SERVER_SECONDS = 30.0


class Limit(Protocol):
    """The bound on one transaction."""

    def check(self) -> None:
        """Check before a statement that the transaction goes on.

        Raises:
            ConfigurationError: It took too long, or something ended it other than the inbox.
        """
        ...

    def watch(self, cursor: Any, /) -> None:  # noqa: ANN401 - the driver's own
        """Take note of a cursor, whose result may have to be closed before anything can be undone."""
        ...

    def check_whole(self) -> None:
        """Check at the end that the transaction is the one that was opened; errors as `check`."""
        ...

    def exceeded(self) -> ConfigurationError | None:
        """Return the error for what ended it, its time or a refusal: what the handler saw of its end says nothing."""
        ...

    def undo(self) -> None:
        """Undo what was written, and refuse whatever is tried from now on."""
        ...

    def check_committed(self) -> None:
        """Check after the commit that it is this transaction that was committed; errors as `check`."""
        ...

    def was_committed(self) -> bool:
        """Return whether what was to be undone has been committed, by something that the inbox could not refuse."""
        ...


def too_long(seconds: float) -> ConfigurationError:
    """Return the error for a transaction that was open for more than so many seconds."""
    return ConfigurationError(
        f"the handler kept its transaction open for more than {seconds:g} s, and was rolled back: do slow work "
        "first, and open the transaction last"
    )


OVER = (
    "the handler's transaction is over before its end: SQL of its own ended it, or the database did after an error "
    "that the handler caught; only the inbox commits it, and lets no error pass"
)
REFUSED = (
    "the inbox alone commits or rolls back a delivery's transaction, with the record of the handler's success: leave "
    "commit() and rollback() out; to undo, raise"
)


def over() -> ConfigurationError:
    """Return the error for a transaction that has ended before its end."""
    return ConfigurationError(OVER)


def refused() -> ConfigurationError:
    """Return the error for a commit or rollback by a handler."""
    return ConfigurationError(REFUSED)


class SQLiteLimit:
    """Ends a transaction from another thread.

    No authorizer and no progress handler help with it: a connection that calls back into Python while two threads use
    it can stop both for ever, one with the interpreter's lock and one with the connection's.
    """

    def __init__(self, driver: sqlite3.Connection, seconds: float, let_go: Callable[[], None]) -> None:
        self._driver = driver
        self._seconds = seconds
        self._let_go = let_go
        self._expired = False
        # By their ids: what a handler lets go is not kept here.
        self._cursors: WeakValueDictionary[int, sqlite3.Cursor] = WeakValueDictionary()
        self._over = threading.Event()
        self._timer = _timer(seconds, self._end)

    def begin(self) -> None:
        """Start the clock.

        Raises:
            InboxUnavailable: The system grants no thread to watch it.
        """
        started(self._timer)

    def _end(self) -> None:
        self._expired = True
        # Only a statement that runs is interrupted: while a result is open, an interrupt would stop the rollback too.
        interrupt = _timer(_PATIENCE, self._interrupt)
        try:
            started(interrupt)
        except InboxUnavailable:
            # The handler's next statement, or its end, lets the rollback in.
            self._roll_back()
        else:
            self._roll_back()
            interrupt.cancel()
            interrupt.join()
        if not self._is_open():
            self._let_go()

    def _interrupt(self) -> None:
        with suppress(sqlite3.ProgrammingError):  # closed
            self._driver.interrupt()

    def _is_open(self) -> bool:
        with suppress(sqlite3.ProgrammingError):  # closed
            return self._driver.in_transaction
        return False

    def _roll_back(self) -> None:
        while True:
            try:
                # In this order: after the rollback each write of the handler's would commit itself.
                self._driver.execute("PRAGMA query_only=ON")
                self._driver.rollback()
            except sqlite3.OperationalError:
                if not self._over.wait(_PATIENCE):
                    continue
            except sqlite3.ProgrammingError:
                pass  # closed
            return

    def watch(self, cursor: sqlite3.Cursor, /) -> None:
        """Take note of a cursor; see `Limit.watch`."""
        self._cursors[id(cursor)] = cursor

    def undo(self) -> None:
        """Undo what was written; see `Limit.undo`."""
        self.finish()
        self._roll_back()

    def check(self) -> None:
        """Check that it goes on; see `Limit.check`."""
        if self._expired:
            raise too_long(self._seconds)
        if not self._is_open():
            raise over()

    def check_whole(self) -> None:
        """Stop the clock and check; see `Limit.check_whole`."""
        self.finish()
        self.check()

    def finish(self) -> None:
        """Stop watching the time, in the handler's thread. Nobody may close the connection before."""
        self._over.set()
        self._timer.cancel()
        self._timer.join()
        if self._expired:
            # One that is open keeps up the interrupt, which stops the rollback, and then keeps a closed connection from
            # letting go of the file. Not closed from the timer's thread: no two threads may use a cursor.
            for cursor in list(self._cursors.values()):
                with suppress(sqlite3.ProgrammingError):  # its connection is closed
                    cursor.close()

    def exceeded(self) -> ConfigurationError | None:
        """Return the error if it was too late; see `Limit.exceeded`."""
        return too_long(self._seconds) if self._expired else None

    def check_committed(self) -> None:
        """Leave it to Django; see `Limit.check_committed`."""

    def was_committed(self) -> bool:
        """Return nothing that is known; see `Limit.was_committed`."""
        return False


def _timer(seconds: float, function: Callable[[], None]) -> threading.Timer:
    timer = threading.Timer(seconds, function)
    timer.daemon = True
    return timer
