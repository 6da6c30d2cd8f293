"""The transaction in which a handler's own rows, the record of its success and the check of its fence commit together.

The inbox alone commits it. While it is open nothing else is written to a SQLite file, and so it has a time limit
there that holds whatever the handler does.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, NoReturn, Self

from sqlalchemy import event, select

from roovet_webhooks.errors import ConfigurationError
from roovet_webhooks.inbox.limits import ends_transaction
from roovet_webhooks.inbox.rows import lost
from roovet_webhooks.inbox.sql.schema import delivery, handled
from roovet_webhooks.inbox.sql.statements import STILL_CLAIMED

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from sqlalchemy import Connection

    from roovet_webhooks.inbox.limits import Limit
    from roovet_webhooks.inbox.protocol import Claim
    from roovet_webhooks.inbox.sql.store import Store

_c = delivery.c


class _UndoneError(Exception):
    """The handler raised; the transaction is rolled back."""

    def __init__(self, error: BaseException) -> None:
        super().__init__(error)
        self.error: BaseException = error


def check_held(connection: Connection, store: Store, claim: Claim) -> None:
    """Check that a claim holds, and where rows are locked one by one keep it from being taken meanwhile.

    Raises:
        LeaseLost: Its fence has moved on.
    """
    query = select(_c.id).where(_c.id == claim.number, _c.fence == claim.fence, STILL_CLAIMED)
    if connection.execute(query.with_for_update() if store.locks_rows else query).first() is None:
        raise lost(claim)


def record_success(connection: Connection, store: Store, claim: Claim, handler: str) -> bool:
    """Record that a handler has succeeded in this round; say whether it had not before."""
    values = {"delivery_id": claim.number, "round": claim.round, "handler": handler, "fence": claim.fence}
    # RETURNING, since not every driver counts the rows of an INSERT.
    new = store.insert(handled).values(values).on_conflict_do_nothing().returning(handled.c.handler)
    return connection.execute(new).first() is not None


@contextmanager
def transaction(store: Store, claim: Claim, handler: str) -> Generator[Connection]:
    """Open the transaction of a handler.

    Raises:
        LeaseLost: The claim's fence has moved on, at the beginning or at the end; nothing was changed.
        ConfigurationError: The handler has committed or rolled back, had a transaction already, or took too long;
            nothing was changed.
    """
    try:
        with store.write_for_handler() as (connection, _):
            check_held(connection, store, claim)
            with store.limited(connection) as limit, _Guard(connection, limit) as guard:
                try:
                    yield connection
                    guard.check()
                    limit.check_whole()
                except BaseException as error:  # noqa: BLE001 - raised again, below
                    reason = limit.exceeded() or guard.refusal or error
                    if reason is not error:
                        guard.undo()
                    raise _UndoneError(reason) from None
                if not record_success(connection, store, claim, handler):
                    message = f"{handler} has had its transaction for this delivery; put all of its writes into one"
                    raise ConfigurationError(message)
                check_held(connection, store, claim)
    except _UndoneError as undone:
        # Raised out here, where what a handler's own SQL did wrong is not taken for a fault of the store.
        raise undone.error from undone.error.__cause__


class _Guard:
    """Refuses a commit or rollback by anybody but the inbox; a SQLAlchemy session on the connection only flushes.

    Attributes:
        refusal: What was refused.
    """

    def __init__(self, connection: Connection, limit: Limit) -> None:
        self.refusal: ConfigurationError | None = None
        self._connection = connection
        self._limit = limit
        self._listeners: dict[str, Callable[..., None]] = {
            "commit": self._refuse,
            "rollback": self._refuse,
            "before_cursor_execute": self._before,
        }

    def __enter__(self) -> Self:
        for name, listener in self._listeners.items():
            event.listen(self._connection, name, listener)
        return self

    def __exit__(self, *_: object) -> None:
        for name, listener in self._listeners.items():
            event.remove(self._connection, name, listener)

    def check(self) -> None:
        """Raise what was refused, if the handler has not let it pass."""
        if self.refusal is not None:
            raise self.refusal

    def _refuse(self, _connection: Connection) -> NoReturn:
        message = (
            "the inbox alone commits or rolls back a delivery's transaction, with the record of the handler's success: "
            "leave commit() and rollback() out; to undo, raise"
        )
        self.refusal = ConfigurationError(message)
        self.undo()
        raise self.refusal

    def undo(self) -> None:
        """Undo what was written and close the connection: whatever the handler does next fails."""
        self._limit.undo()
        self._connection.invalidate()

    def _before(self, connection: Connection, cursor: object, statement: str, *_others: object) -> None:
        if ends_transaction(statement):
            self._refuse(connection)
        self._limit.check()
        self._limit.watch(cursor)
