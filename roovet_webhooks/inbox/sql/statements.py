"""The SQL of an inbox. Conditions on the state are literals, so that the partial indexes serve them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import and_, bindparam, exists, func, literal_column, or_, select, tuple_, update

from roovet_webhooks.inbox.protocol import State
from roovet_webhooks.inbox.sql.schema import CLAIMED, READY, SUSPECT, delivery, is_in

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Column, ColumnElement, Connection, CursorResult, Select, Update
    from sqlalchemy.sql.base import ReadOnlyColumnCollection

    from roovet_webhooks.inbox.changes import Values
    from roovet_webhooks.inbox.protocol import OnDead, Ordering
    from roovet_webhooks.inbox.sql.store import Store

c: ReadOnlyColumnCollection[str, Column[Any]] = delivery.c
NOT_SUSPECT = c.crashes == literal_column("0")


def settling(columns: tuple[str, ...]) -> Update:
    """Return the statement that changes some columns of a claimed delivery, if its fence has not moved on."""
    return (
        update(delivery)
        .where(c.id == bindparam("its_number"), c.fence == bindparam("its_fence"), CLAIMED)
        .values({column: bindparam(column) for column in columns})
    )


def is_identity(values: Values) -> ColumnElement[bool]:
    """Return the condition that a delivery has the identity of these columns."""
    return and_(*(c[name] == values[name] for name in ("endpoint", "tenant", "key_ts", "key")))


def due(endpoint: str, now: int, *, suspect: bool | None = None) -> ColumnElement[bool]:
    """Return the condition that a delivery of an endpoint may be claimed now."""
    conditions = [READY, c.endpoint == endpoint, c.available_at <= now]
    if suspect is not None:
        conditions.append(SUSPECT if suspect else NOT_SUSPECT)
    return and_(*conditions)


def first_of_its_resource(on_dead: OnDead) -> ColumnElement[bool]:
    """Return the condition that nothing open of the same resource is claimed or stands before a delivery."""
    other = delivery.alias("other")
    o = other.c
    before = tuple_(o.ts, o.id) < tuple_(c.ts, c.id)
    blocking = [is_in(State.CLAIMED, state=o.state), and_(is_in(State.READY, state=o.state), before)]
    if on_dead == "block":
        # One whose body is gone will never run: nothing waits for it any more.
        blocking.append(and_(is_in(State.DEAD, state=o.state), o.body.is_not(None), before))
    # Said once more as the index on resources has it, or neither database would use it.
    indexed = is_in(State.READY, State.CLAIMED, State.DEAD, state=o.state)
    same = and_(o.endpoint == c.endpoint, o.tenant == c.tenant, o.resource == c.resource, o.id != c.id)
    return ~exists().where(same, indexed, or_(*blocking)).select_from(other)


def candidates(
    store: Store,
    condition: ColumnElement[bool],
    *,
    limit: int,
    ordering: Ordering,
    on_dead: OnDead,
) -> Select[Any]:
    """Return the query for the numbers of deliveries to take, the longest due first."""
    query = first(condition, limit=limit, ordering=ordering, on_dead=on_dead)
    return query.with_for_update(skip_locked=True) if store.locks_rows else query


def first(condition: ColumnElement[bool], *, limit: int, ordering: Ordering, on_dead: OnDead) -> Select[Any]:
    """Return the query for the numbers of the first deliveries, the longest due first, without taking them."""
    query = select(c.id).where(condition)
    if ordering is not None:
        query = query.where(first_of_its_resource(on_dead))
    return query.order_by(c.available_at, c.id).limit(limit)


def waiting(store: Store, window: Select[Any], condition: ColumnElement[bool]) -> Select[Any]:
    """Return the query for the numbers of those deliveries in a window that are ready and meet a condition."""
    query = select(c.id).where(c.id.in_(window), READY, condition)
    return query.with_for_update(skip_locked=True) if store.locks_rows else query


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
