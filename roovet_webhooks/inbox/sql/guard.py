"""Keeps a handler inside of its transaction, while it has a SQLAlchemy connection and afterwards."""

from __future__ import annotations

import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NoReturn, Self

import sqlalchemy
from sqlalchemy import event
from sqlalchemy.exc import SQLAlchemyError

from roovet_webhooks.errors import ConfigurationError
from roovet_webhooks.inbox.drivers import guard_driver
from roovet_webhooks.inbox.lent import ENDED
from roovet_webhooks.inbox.limits import refused
from roovet_webhooks.inbox.sql_text import ends_transaction, outlives_transaction

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Engine, PoolProxiedConnection

    from roovet_webhooks.inbox.limits import Limit


class HandlerConnection(sqlalchemy.Connection):
    """The connection of a handler's transaction.

    Attributes:
        guard: Watches over it while a handler has it.
        is_tainted: Whether its session may not be as it was, or something that is still in use may reach into it.
            Then it must not go back to a pool.
    """

    guard: Guard | None = None
    is_tainted: bool = False

    def __init__(self, engine: Engine) -> None:
        super().__init__(engine)

    def __enter__(self) -> Self:
        """Return itself; the end of the block closes it."""
        return self

    @property
    def connection(self) -> PoolProxiedConnection:
        """The driver's connection, by which a handler can do what nobody sees."""
        found = super().connection
        if self.guard is not None:
            self.taint()
            self.guard.watch_driver(found.driver_connection)
        return found

    def taint(self) -> None:
        """Keep the session from going back to a pool, whoever closes the connection, and when."""
        proxy = super().connection
        if not self.is_tainted and proxy.is_valid:
            proxy.invalidate(soft=True)
        self.is_tainted = True

    def leave(self) -> None:
        """Close the session if it is tainted. Somebody may have closed the connection already."""
        if self.is_tainted:
            with suppress(SQLAlchemyError):
                self.invalidate()


class Guard:
    """Refuses a commit or rollback by anybody but the inbox; a SQLAlchemy session on the connection only flushes.

    Args:
        connection: In a transaction.
        limit: Bounds it.

    Attributes:
        refusal: What was refused.
    """

    def __init__(self, connection: HandlerConnection, limit: Limit) -> None:
        self.refusal: ConfigurationError | None = None
        self._connection = connection
        self._limit = limit
        self._entering = threading.Lock()
        self._running = 0
        self._owner: int | None = None  # the thread that has taken the connection back
        self._is_watching = False

    def __enter__(self) -> Self:
        """Lend the connection to the handler."""
        # Not removed: they go with the connection, and until then they refuse whoever has kept it.
        listeners: dict[str, Callable[..., None]] = {
            "commit": self._ending,
            "rollback": self._ending,
            "before_cursor_execute": self._before,
            "after_cursor_execute": self._after,
        }
        for name, listener in listeners.items():
            event.listen(self._connection, name, listener)
        self._connection.guard = self
        return self

    def __exit__(self, *_: object) -> None:
        """Take it back."""
        self.take_back()

    def take_back(self) -> None:
        """Let nobody but this thread use the connection from now on."""
        with self._entering:
            self._owner = threading.get_ident()
            if self._running:
                # A statement that failed, or one of another thread: no matter which.
                self._connection.is_tainted = True
        self._connection.guard = None

    def check(self) -> None:
        """Raise what was refused, if the handler has not let it pass."""
        if self.refusal is not None:
            raise self.refusal

    def _ending(self, _connection: object) -> None:
        if self._owner != threading.get_ident():
            self.refuse()

    def refuse(self) -> NoReturn:
        """Undo what was written, and raise."""
        self.refusal = refused()
        self.undo()
        raise self.refusal

    def undo(self) -> None:
        """Undo what was written and close the connection: whatever the handler does next fails."""
        self._limit.undo()
        self._connection.invalidate()

    def _before(self, _connection: object, cursor: object, statement: str, *_others: object) -> None:
        if self._owner == threading.get_ident():
            return
        with self._entering:
            if self._owner is not None:
                raise ConfigurationError(ENDED)
            self._running += 1
        if ends_transaction(statement):
            self.refuse()
        if outlives_transaction(statement) or getattr(cursor, "name", None):  # a cursor on the server's side
            self._connection.taint()
        self._limit.check()
        self._limit.watch(cursor)

    def _after(self, *_: object) -> None:
        if self._owner is None:
            with self._entering:
                self._running -= 1

    def watch_driver(self, driver: Any) -> None:  # noqa: ANN401 - the driver's
        """Refuse a commit or rollback with the driver's own connection, where that has to be done here."""
        if not self._is_watching:
            self._is_watching = True
            guard_driver(driver, lambda: self._ending(None))
