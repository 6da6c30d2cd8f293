"""The SQL of an inbox. Conditions on the state are literals, so that the partial indexes serve them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from sqlalchemy import and_, bindparam, func, literal_column, or_, select, tuple_, update

from roovet_webhooks.inbox.sql.schema import (
    BY_CLAIM,
    BY_CRASHED,
    BY_DUE,
    BY_RESOURCE,
    CRASHED,
    READY,
    delivery,
    is_in,
)
from roovet_webhooks.inbox.states import Outcome, State

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Column, ColumnElement, Connection, CursorResult, FromClause, Index, Select, Update
    from sqlalchemy.sql.base import ReadOnlyColumnCollection
    from sqlalchemy.sql.selectable import HasHints

    from roovet_webhooks.inbox.changes import Values
    from roovet_webhooks.inbox.protocol import OnDead, Ordering
    from roovet_webhooks.inbox.sql.store import Store

Q = TypeVar("Q", bound="HasHints")

c: ReadOnlyColumnCollection[str, Column[Any]] = delivery.c
NEVER_CRASHED = c.crashes == literal_column("0")


def plain(column: ColumnElement[Any]) -> ColumnElement[Any]:
    """Return a column that no index fits, for a condition by which PostgreSQL is not to look for rows.

    With statistics from before there was any load it believes that there is next to nothing in a state, and that any
    index which has it would do.
    """
    return func.coalesce(column, literal_column("''"))


# Of a row that is named by its number.
_state = plain(c.state)
STILL_READY = is_in(State.READY, state=_state)
STILL_CLAIMED = is_in(State.CLAIMED, state=_state)
STILL_DONE = is_in(State.DONE, state=_state)
STILL_ENDED = is_in(State.DONE, State.DEAD, state=_state)


def by_index(query: Q, index: Index, table: FromClause = delivery) -> Q:
    """Return a query that SQLite answers by an index: by itself it takes the one of several that was made first."""
    return query.with_hint(table, f"INDEXED BY {index.name}", "sqlite")


def by_number(query: Q) -> Q:
    """Return a query that SQLite answers in the order of numbers, by those that it names or by all."""
    return query.with_hint(delivery, "NOT INDEXED", "sqlite")


def unlocked(store: Store, query: Select[Any]) -> Select[Any]:
    """Return a query without the rows that another transaction has locked: nobody waits for a handler."""
    return query.with_for_update(skip_locked=True) if store.locks_rows else query


def settling(columns: tuple[str, ...]) -> Update:
    """Return the statement that changes some columns of a claimed delivery, if its fence has not moved on."""
    return (
        update(delivery)
        .where(c.id == bindparam("its_number"), c.fence == bindparam("its_fence"), STILL_CLAIMED)
        .values({column: bindparam(column) for column in columns})
    )


def is_identity(values: Values) -> ColumnElement[bool]:
    """Return the condition that a delivery has the identity of these columns."""
    return and_(*(c[name] == values[name] for name in ("endpoint", "tenant", "key_ts", "key")))


def due(endpoint: str, now: int, *columns: ColumnElement[Any], crashed: bool | None = None) -> Select[Any]:
    """Return the query for columns of the deliveries of an endpoint that may be claimed now.

    Args:
        endpoint: Its name.
        now: Milliseconds.
        columns: The columns; the number when none is given.
        crashed: Whether only those that have crashed are meant, or only those that have not; ``None`` means both.
    """
    query = select(*(columns or (c.id,))).select_from(delivery)
    query = query.where(READY, c.endpoint == endpoint, c.available_at <= now)
    if crashed is not None:
        query = query.where(CRASHED if crashed else NEVER_CRASHED)
    return by_index(query, BY_CRASHED if crashed else BY_DUE)


def first_of_its_resource(on_dead: OnDead) -> ColumnElement[bool]:
    """Return the condition that nothing open of the same resource is claimed or stands before a delivery."""
    claimed, earlier = delivery.alias("claimed"), delivery.alias("earlier")
    e = earlier.c
    waits = is_in(State.READY, state=plain(e.state))
    if on_dead == "block":
        # One whose body is gone will never run, and one that was too old was not meant to: nothing waits for those.
        waited_for = and_(e.body.is_not(None), e.outcome != Outcome.TOO_OLD)
        waits = or_(waits, and_(is_in(State.DEAD, state=plain(e.state)), waited_for))
    # The condition of the index, word for word, or neither database would use it.
    indexed = is_in(State.READY, State.CLAIMED, State.DEAD, state=e.state)
    before = tuple_(e.ts, e.id) < tuple_(c.ts, c.id)
    first = by_index(select(e.id).where(*_same_resource(earlier), indexed, before, waits), BY_RESOURCE, earlier)
    running = select(claimed.c.id).where(*_same_resource(claimed), is_in(State.CLAIMED, state=claimed.c.state))
    # Single values and an order: of an EXISTS PostgreSQL may make a join, and read all that is open for each row.
    first = first.order_by(e.endpoint, e.tenant, e.resource, e.ts, e.id).limit(1)
    running = by_index(running, BY_CLAIM, claimed).limit(1)
    return and_(running.scalar_subquery().is_(None), first.scalar_subquery().is_(None))


def _same_resource(other: FromClause) -> list[ColumnElement[bool]]:
    return [other.c[name] == c[name] for name in ("endpoint", "tenant", "resource")]


def candidates(store: Store, due: Select[Any], *, limit: int, ordering: Ordering, on_dead: OnDead) -> Select[Any]:
    """Return the query for the numbers of deliveries to take, the longest due first."""
    return unlocked(store, first(due, limit=limit, ordering=ordering, on_dead=on_dead))


def first(due: Select[Any], *, limit: int, ordering: Ordering, on_dead: OnDead) -> Select[Any]:
    """Return the query for the numbers of the first deliveries, the longest due first, without taking them."""
    if ordering is not None:
        due = due.where(first_of_its_resource(on_dead))
    return due.order_by(c.available_at, c.id).limit(limit)


def waiting(store: Store, window: Select[Any], condition: ColumnElement[bool]) -> Select[Any]:
    """Return the query for the numbers of those deliveries in a window that are ready and meet a condition."""
    return unlocked(store, by_number(select(c.id).where(c.id.in_(window), STILL_READY, condition)))


def in_turn(connection: Connection, store: Store, endpoint: str) -> None:
    """Let one claimer of an ordered endpoint look at a time: two that look at once would each find a first one."""
    if store.locks_rows:
        key = func.hashtext(f"roovet_webhooks.order.{endpoint}")
        connection.execute(select(func.pg_advisory_xact_lock(key)))


def taken(
    connection: Connection, query: Select[Any], values: Values, *, columns: Sequence[ColumnElement[Any]]
) -> CursorResult[Any]:
    """Change the rows that a query picks, and return columns of them as they are now."""
    picked = query.cte("picked")
    statement = update(delivery).where(c.id.in_(select(picked.c.id))).values(values).returning(*columns)
    return connection.execute(statement)
