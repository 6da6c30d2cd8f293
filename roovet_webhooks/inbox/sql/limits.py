"""The limits of handler transactions as a SQL store sets them."""

from __future__ import annotations

from contextlib import contextmanager
from time import monotonic
from typing import TYPE_CHECKING, cast

from sqlalchemy import func, select

from roovet_webhooks.inbox.limits import SQLiteLimit, over, too_long

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Generator

    from sqlalchemy import Connection

    from roovet_webhooks.errors import ConfigurationError
    from roovet_webhooks.inbox.limits import Limit


@contextmanager
def sqlite_limit(connection: Connection, seconds: float, let_go: Callable[[], None]) -> Generator[Limit]:
    """Bound a transaction on SQLite, whose writers all wait for it.

    Args:
        connection: In a transaction.
        seconds: For which it may stay open.
        let_go: Lets the next writer begin, while the handler of this one still runs.
    """
    limit = SQLiteLimit(cast("sqlite3.Connection", connection.connection.driver_connection), seconds, let_go)
    limit.begin()
    try:
        yield limit
    finally:
        limit.finish()


class _PostgreSQLLimit:
    def __init__(self, connection: Connection, seconds: float) -> None:
        self._connection = connection
        self._seconds = seconds
        self._deadline = monotonic() + seconds
        self._number = connection.execute(select(func.txid_current())).scalar_one()

    def exceeded(self) -> ConfigurationError | None:
        return too_long(self._seconds) if monotonic() > self._deadline else None

    def check(self) -> None:
        if (exceeded := self.exceeded()) is not None:
            raise exceeded

    def check_whole(self) -> None:
        if self._connection.execute(select(func.txid_current())).scalar_one() != self._number:
            raise over()

    def undo(self) -> None:
        """Leave it to the server: it rolls back what a closed connection has not committed."""


@contextmanager
def postgresql_limit(connection: Connection, seconds: float) -> Generator[Limit]:
    """Bound a transaction on PostgreSQL; the server ends one that sleeps in it."""
    wait = str(round(1000 * seconds))
    names = ("statement_timeout", "idle_in_transaction_session_timeout")
    connection.execute(select(*(func.set_config(name, wait, True) for name in names)))  # noqa: FBT003 - SQL's own
    yield _PostgreSQLLimit(connection, seconds)
