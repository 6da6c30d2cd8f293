"""The transaction in which a handler's own rows, the record of its success and the check of its fence commit together.

The inbox alone commits it. While it is open nothing else is written to a SQLite file, and so it has a time limit
there that holds whatever the handler does.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from sqlalchemy import select

from roovet_webhooks.errors import ConfigurationError
from roovet_webhooks.inbox.limits import committed_by
from roovet_webhooks.inbox.rows import lost
from roovet_webhooks.inbox.sql.guard import Guard
from roovet_webhooks.inbox.sql.schema import delivery, handled
from roovet_webhooks.inbox.sql.statements import STILL_CLAIMED

if TYPE_CHECKING:
    from collections.abc import Generator

    from sqlalchemy import Connection

    from roovet_webhooks.inbox.limits import Limit
    from roovet_webhooks.inbox.protocol import Claim
    from roovet_webhooks.inbox.sql.store import Store

_c = delivery.c


class _UndoneError(Exception):
    """The handler raised; the transaction is rolled back."""

    def __init__(self, error: BaseException, limit: Limit) -> None:
        super().__init__(error)
        self.error: BaseException = error
        self.limit: Limit = limit


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

    The success is recorded first. So whatever commits the handler's rows commits the record with them, and a retry does
    not run the handler again.

    Raises:
        LeaseLost: The claim's fence has moved on, at the beginning or at the end; nothing was changed.
        ConfigurationError: The handler has tried to commit or roll back, had a transaction already, or took too long;
            nothing was changed.
        CommittedByHandler: The handler has committed in a way that could not be refused.
    """
    try:
        with store.write_for_handler() as (connection, _):
            check_held(connection, store, claim)
            if not record_success(connection, store, claim, handler):
                message = f"{handler} has had its transaction for this delivery; put all of its writes into one"
                raise ConfigurationError(message)
            with store.limited(connection) as limit, Guard(connection, limit) as guard:
                try:
                    yield connection
                    guard.take_back()
                    guard.check()
                    limit.check_whole()
                except BaseException as error:  # noqa: BLE001 - raised again, below
                    guard.take_back()
                    reason = limit.exceeded() or guard.refusal or error
                    if reason is not error:
                        guard.undo()
                    raise _UndoneError(reason, limit) from None
            check_held(connection, store, claim)
        if connection.is_tainted:
            limit.check_committed()
    except _UndoneError as undone:
        # Raised out here, where what a handler's own SQL did wrong is not taken for a fault of the store.
        if undone.limit.was_committed():
            raise committed_by(handler) from undone.error
        raise undone.error from undone.error.__cause__
