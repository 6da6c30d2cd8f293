"""From rows to claims: the deliveries that were picked, as their handlers get them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from sqlalchemy import and_, or_, select, update

from roovet_webhooks.delivery import Identity
from roovet_webhooks.errors import PayloadError
from roovet_webhooks.inbox import changes
from roovet_webhooks.inbox.protocol import Claimed
from roovet_webhooks.inbox.records import AttemptOutcome
from roovet_webhooks.inbox.rows import claim_of, delivery_of
from roovet_webhooks.inbox.sql import statements
from roovet_webhooks.inbox.sql.schema import delivery, handled
from roovet_webhooks.inbox.states import Outcome

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection, Row, Select

    from roovet_webhooks.inbox.codec import Bodies
    from roovet_webhooks.inbox.history import History

_c = delivery.c
_COLUMNS = (
    _c.id, _c.endpoint, _c.tenant, _c.key_ts, _c.key, _c.ts, _c.body, _c.codec, _c.secret_name, _c.signed_at,
    _c.received_at, _c.available_at, _c.fence, _c.failures, _c.crashes, _c.round,
    _c.handlers, _c.unhandled_since, _c.history,
)  # fmt: skip


class Claimant(NamedTuple):
    """Who claims, and how it reads what it gets.

    Attributes:
        owner: Name of the process.
        lease: Milliseconds.
        bodies: Decodes bodies.
        history: Keeps what attempts came to.
    """

    owner: str
    lease: int
    bodies: Bodies
    history: History

    def take(self, connection: Connection, query: Select[Any], now: int) -> list[Claimed]:
        """Claim the deliveries whose numbers a query picks, in the order in which they are due.

        One whose body cannot be read any more is buried instead.
        """
        values = {**changes.claimed(now=now, lease=self.lease, owner=self.owner), "fence": _c.fence + 1}
        rows = statements.taken(connection, query, values, columns=_COLUMNS).all()
        succeeded = _successes(connection, rows)
        found: list[Claimed] = []
        for row in sorted(rows, key=lambda row: (row.available_at, row.ts, row.id)):
            identity = Identity(row.endpoint, row.tenant, row.key_ts, bytes(row.key))
            claim = claim_of(row, identity, succeeded.get(row.id, ()))
            try:
                raw = self.bodies.decode(row.codec, bytes(row.body))
                found.append(Claimed(delivery_of(row, identity, raw), claim))
            except PayloadError as error:
                buried = changes.buried(claim, str(error), Outcome.UNDECODABLE, now=now)
                buried["history"] = self.history.settled(
                    claim, None, AttemptOutcome.FAILED, now=now, dead=True, reason=str(error)
                )
                connection.execute(update(delivery).where(_c.id == row.id).values(buried))
        return found


def _successes(connection: Connection, rows: Sequence[Row[Any]]) -> dict[int, frozenset[str]]:
    """Return which handlers have succeeded, of those deliveries that have been claimed before."""
    rounds = [and_(handled.c.delivery_id == row.id, handled.c.round == row.round) for row in rows if row.fence > 1]
    if not rounds:
        return {}
    found: dict[int, set[str]] = {}
    for number, handler in connection.execute(select(handled.c.delivery_id, handled.c.handler).where(or_(*rounds))):
        found.setdefault(number, set()).add(handler)
    return {number: frozenset(handlers) for number, handlers in found.items()}
