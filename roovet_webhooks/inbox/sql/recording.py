"""How a delivery gets into the record: with all that come at the time, or by itself where its copy may be claimed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import select

from roovet_webhooks.errors import InboxFull
from roovet_webhooks.inbox import changes
from roovet_webhooks.inbox.protocol import Claim, Stored, Verdict
from roovet_webhooks.inbox.sql import statements
from roovet_webhooks.inbox.sql.committer import GrantingOperation, RowOperation
from roovet_webhooks.inbox.sql.schema import delivery as table
from roovet_webhooks.inbox.states import State

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sqlalchemy import Connection

    from roovet_webhooks.delivery import Delivery, Identity
    from roovet_webhooks.inbox.backlog import Backlog
    from roovet_webhooks.inbox.changes import Values
    from roovet_webhooks.inbox.sql.claims import Claimant
    from roovet_webhooks.inbox.sql.committer import Operation
    from roovet_webhooks.inbox.sql.store import Store

_c = table.c
_NEW, _DUPLICATE = Stored(Verdict.NEW), Stored(Verdict.DUPLICATE)
_IN_FLIGHT, _TOO_OLD = Stored(Verdict.IN_FLIGHT), Stored(Verdict.TOO_OLD)


def _duplicate() -> Stored:
    return _DUPLICATE


class Recorder:
    """Records deliveries.

    Args:
        store: Where.
        backlog: Knows whether there is room.
        claimant: Claims those that are handled in the request that brings them.
        remember: Milliseconds; what is older when it arrives is recorded as dead.
        settle: Milliseconds that a delivery waits at most for its second to end.
    """

    def __init__(self, store: Store, backlog: Backlog, claimant: Claimant, *, remember: int, settle: int) -> None:
        self._store = store
        self._backlog = backlog
        self._claimant = claimant
        self._remember = remember
        self._settle = settle
        self._insert = store.insert(table).on_conflict_do_nothing()
        self._insert_text = store.text_of(self._insert, changes.INSERTED)

    def recording(
        self,
        delivery: Delivery,
        *,
        claim: bool,
        handlers: Sequence[str] | None,
        hold: Callable[[Sequence[Claim]], None],
        give_back: Callable[[Sequence[Claim]], None],
    ) -> Operation[Stored]:
        """Return the operation that records a delivery.

        Args:
            delivery: What came.
            claim: Whether it is to be handled at once.
            handlers: Names of the handlers that are registered for it.
            hold: Takes claims that were granted.
            give_back: Takes claims back that were granted when nobody waited any more.
        """
        name, body = self._claimant.bodies.encode(delivery.raw)
        values = changes.recorded(delivery, body, name, handlers)
        too_old = 1000 * delivery.event.ts < values["received_at"] - self._remember
        row = (1, delivery.endpoint, delivery.tenant, values["key_ts"], values["key"])

        def known(connection: Connection) -> Stored | None:
            return self._known(connection, values, claim=claim)

        if claim or self._backlog.full is not None:

            def record(connection: Connection, now: int) -> Stored:
                return self._record(connection, now, delivery.identity, values, too_old=too_old, claim=claim)

            def granted(stored: Stored) -> None:
                hold([stored.claim] if stored.claim else [])

            def undo(stored: Stored) -> None:
                give_back([stored.claim] if stored.claim else [])

            return GrantingOperation(record, granted, undo, row=row, bounded=True, known=known)

        def parameters(now: int) -> Values:
            return {**values, **(changes.stored_too_old(now=now) if too_old else self._stored(values, now))}

        return RowOperation(
            self._insert_text,
            parameters,
            changed=_TOO_OLD if too_old else _NEW,
            unchanged=_duplicate,
            row=row,
            bounded=True,
            known=known,
        )

    @staticmethod
    def _known(connection: Connection, values: Values, *, claim: bool) -> Stored | None:
        """Return the answer for a copy of what is recorded; ``None`` where that takes a write, or it is no copy."""
        state = connection.execute(select(_c.state).where(statements.is_identity(values))).scalar()
        if state is None or (claim and state == State.READY):
            return None
        return _IN_FLIGHT if claim and state == State.CLAIMED else _DUPLICATE

    def _stored(self, values: Values, now: int) -> Values:
        return changes.stored(values["ts"], received_at=values["received_at"], now=now, settle=self._settle)

    def _record(  # noqa: PLR0913 - what is known of a delivery
        self, connection: Connection, now: int, identity: Identity, values: Values, *, too_old: bool, claim: bool
    ) -> Stored:
        """Record a delivery by itself: one whose copy may have to be claimed, or for which there may be no room."""
        full = self._backlog.full
        if full is None:
            if too_old:
                new = changes.stored_too_old(now=now)
            elif claim:
                new = changes.stored_claimed(now=now, lease=self._claimant.lease, owner=self._claimant.owner)
            else:
                new = self._stored(values, now)
            number = connection.execute(self._insert.values({**values, **new}).returning(_c.id)).scalar()
            if number is not None:
                if too_old:
                    return _TOO_OLD
                return Stored(Verdict.NEW, Claim(identity, 1, number=number)) if claim else _NEW
        found = connection.execute(select(_c.id, _c.state).where(statements.is_identity(values))).first()
        if found is None:
            message = f"no new deliveries are accepted: {full or 'the record has just been tidied; once more'}"
            raise InboxFull(message)
        if not claim or found.state in {State.DONE, State.DEAD}:
            return _DUPLICATE
        if found.state == State.CLAIMED:
            # Alive or not: only the reaper, which does not trust the clock alone, frees it.
            return _IN_FLIGHT
        query = statements.unlocked(self._store, select(_c.id).where(_c.id == found.id, statements.STILL_READY))
        taken = self._claimant.take(connection, query, now)
        return Stored(Verdict.NEW, taken[0].claim) if taken else _IN_FLIGHT
