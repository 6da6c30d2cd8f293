"""The record as an operator works with it: look, count, replay, purge, tidy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import and_, delete, func, select, update

from roovet_webhooks.delivery import Identity, id_of
from roovet_webhooks.inbox import changes
from roovet_webhooks.inbox.maintenance import TIDYINGS
from roovet_webhooks.inbox.records import MOST_REASONS, Purged, Stats
from roovet_webhooks.inbox.rows import Found, not_found, record_of
from roovet_webhooks.inbox.sql.counts import workers
from roovet_webhooks.inbox.sql.schema import (
    BY_BODY,
    BY_CRASHED,
    BY_DUE,
    BY_END,
    BY_HANDLER,
    CRASHED,
    DONE,
    ENDED,
    HAS_BODY,
    READY,
    UNHANDLED,
    delivery,
    handled,
    is_in,
)
from roovet_webhooks.inbox.sql.statements import STILL_DONE, STILL_ENDED, by_index, by_number
from roovet_webhooks.inbox.states import State

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sqlalchemy import ColumnElement, Connection

    from roovet_webhooks.inbox.future import InboxFuture
    from roovet_webhooks.inbox.history import History
    from roovet_webhooks.inbox.records import Query, RecordedAttempt, RecordedDelivery
    from roovet_webhooks.inbox.sql.store import Store

    Work = Callable[[Connection, int], int]
    Run = Callable[[Work], InboxFuture[int]]

_c = delivery.c
_PURGED = _c.body.is_(None).label("purged")
_COLUMNS = [column for column in delivery.columns if column.name not in {"body", "history"}]
TIDIED_AT_ONCE = 500


def find(connection: Connection, query: Query) -> list[RecordedDelivery]:
    """Return the deliveries that a query means, the newest first."""
    given = {name: getattr(query, name) for name in ("endpoint", "tenant", "outcome", "resource")}
    conditions: list[ColumnElement[bool]] = [_c[name] == value for name, value in given.items() if value is not None]
    if query.states is not None:
        conditions.append(is_in(*sorted(query.states)))
    if query.event is not None:
        if query.event.endswith("*"):
            conditions.append(_c.event.startswith(query.event.removesuffix("*"), autoescape=True))
        else:
            conditions.append(_c.event == query.event)
    if query.since is not None:
        conditions.append(_c.received_at >= changes.milliseconds(query.since))
    if query.until is not None:
        conditions.append(_c.received_at < changes.milliseconds(query.until))
    if query.purged is not None:
        conditions.append(_c.body.is_(None) if query.purged else HAS_BODY)
    if query.before is not None:
        conditions.append(_c.id < query.before)
    rows = select(*_COLUMNS, _PURGED).where(and_(True, *conditions)).order_by(_c.id.desc()).limit(query.limit)  # noqa: FBT003 - SQL's own
    return [_record(row) for row in connection.execute(rows)]


def get(connection: Connection, number: int, history: History) -> RecordedDelivery:
    """Return one delivery, with its attempts.

    Raises:
        DeliveryNotFound: There is none of that number.
    """
    row = connection.execute(select(*_COLUMNS, _c.history, _PURGED).where(_c.id == number)).first()
    if row is None:
        raise not_found(number)
    done = select(handled.c.handler).where(handled.c.delivery_id == number, handled.c.round == row.round)
    succeeded = tuple(connection.execute(done.order_by(handled.c.handler)).scalars())
    return _record(row, succeeded, history.read(row.history))


def number_of(connection: Connection, delivery_id: str) -> int:
    """Return the number of the delivery that has an id.

    The id is made of the identity, and no index holds it: writing one would cost each delivery more than this search
    costs an operator, about a second for a million.

    Raises:
        DeliveryNotFound: There is none.
    """
    identities = select(_c.id, _c.endpoint, _c.tenant, _c.key_ts, _c.key)
    with connection.execute(identities.execution_options(yield_per=5000)) as rows:
        for number, endpoint, tenant, ts, key in rows:
            if id_of(Identity(endpoint, tenant, ts, bytes(key))) == delivery_id:
                return int(number)
    raise not_found(delivery_id)


def body(connection: Connection, number: int) -> tuple[str, bytes] | None:
    """Return a delivery's codec and encoded body, or ``None`` when it has been purged.

    Raises:
        DeliveryNotFound: There is none of that number.
    """
    row = connection.execute(select(_c.codec, _c.body).where(_c.id == number)).first()
    if row is None:
        raise not_found(number)
    return None if row.body is None else (row.codec, bytes(row.body))


def stats(connection: Connection, now: int) -> list[Stats]:
    """Count deliveries by endpoint and state."""
    columns = (_c.endpoint, _c.state, func.count(), func.count(_c.body))
    counts: dict[str, dict[State, int]] = {}
    dead_letters: dict[str, int] = {}
    for endpoint, state, count, bodies in connection.execute(
        by_number(select(*columns).group_by(_c.endpoint, _c.state))
    ):
        counts.setdefault(endpoint, dict.fromkeys(State, 0))[State(state)] = count
        if state == State.DEAD:
            dead_letters[endpoint] = bodies
    found: list[Stats] = []
    for endpoint in sorted(counts):
        ready = by_index(select(func.min(_c.available_at)).where(READY, _c.endpoint == endpoint), BY_DUE)
        oldest = connection.execute(ready).scalar()
        crashed = select(func.count()).select_from(delivery).where(READY, CRASHED, _c.endpoint == endpoint)
        unhandled, reasons = _unhandled(connection, endpoint)
        found.append(
            Stats(
                endpoint=endpoint,
                counts=counts[endpoint],
                oldest_due=None if oldest is None else oldest / 1000,
                crashed=connection.execute(by_index(crashed, BY_CRASHED)).scalar_one(),
                workers=workers(connection, endpoint, now),
                unhandled=unhandled,
                unhandled_reasons=reasons,
                dead_letters=dead_letters.get(endpoint, 0),
            )
        )
    return found


def _unhandled(connection: Connection, endpoint: str) -> tuple[int, tuple[str, ...]]:
    """Count the deliveries that wait for a handler that no process has had, and return some of their errors."""
    where = (READY, UNHANDLED, _c.endpoint == endpoint)
    count = connection.execute(by_index(select(func.count()).select_from(delivery).where(*where), BY_HANDLER))
    errors = by_index(select(_c.last_error).where(*where, _c.last_error.is_not(None)), BY_HANDLER)
    return count.scalar_one(), tuple(connection.execute(errors.distinct().limit(MOST_REASONS)).scalars())


def replay(connection: Connection, store: Store, number: int, *, now: int, confirmed: bool) -> None:
    """Make an ended delivery ready again.

    Raises:
        DeliveryNotFound: There is none of that number.
        InvalidTransition: It is open, its body is gone, or it is done and that was not confirmed.
    """
    values = _locked(connection, store, number).replayed(now=now, confirmed=confirmed)
    connection.execute(update(delivery).where(_c.id == number).values(values))


def purge(connection: Connection, store: Store, number: int) -> None:
    """Erase an ended delivery's body and error.

    Raises:
        DeliveryNotFound: There is none of that number.
        InvalidTransition: It is open.
    """
    values = changes.purged(_locked(connection, store, number).state)
    connection.execute(update(delivery).where(_c.id == number).values(values))


def newest(connection: Connection, now: int) -> tuple[int | None, int]:
    """Return when the last delivery was received, and what time it is, in milliseconds."""
    return connection.execute(select(_c.received_at).order_by(_c.id.desc()).limit(1)).scalar(), now


def prune(run: Run, *, bodies_before: int, records_before: int) -> Purged:
    """Erase what has been kept long enough, in small transactions that hold nobody up, and not in too many of them.

    Args:
        run: Carries work out in a transaction.
        bodies_before: Bodies of deliveries that were received and done before are erased; milliseconds.
        records_before: Records of deliveries that were received and ended before are removed; milliseconds.
    """

    def bodies(connection: Connection, _now: int) -> int:
        kept_long = _c.finished_at < bodies_before, _c.received_at < bodies_before
        old = by_index(select(_c.id).where(DONE, HAS_BODY, *kept_long), BY_BODY).limit(TIDIED_AT_ONCE)
        erased = update(delivery).where(_c.id.in_(old), STILL_DONE).values(changes.purged(State.DONE))
        return connection.execute(erased).rowcount

    def tombstones(connection: Connection, _now: int) -> int:
        kept_long = _c.finished_at < records_before, _c.received_at < records_before
        ended = by_index(select(_c.id).where(ENDED, *kept_long), BY_END)
        numbers = list(connection.execute(ended.limit(TIDIED_AT_ONCE)).scalars())
        connection.execute(delete(handled).where(handled.c.delivery_id.in_(numbers)))
        return connection.execute(delete(delivery).where(_c.id.in_(numbers), STILL_ENDED)).rowcount

    return Purged(*(_repeated(run, work) for work in (bodies, tombstones)))


def _repeated(
    run: Callable[[Callable[[Connection, int], int]], InboxFuture[int]], work: Callable[[Connection, int], int]
) -> int:
    total = 0
    for _ in range(TIDYINGS):
        changed = run(work).result()
        total += changed
        if not changed:
            break
    return total


def _locked(connection: Connection, store: Store, number: int) -> Found:
    query = select(_c.state, _c.round, _c.outcome, _PURGED).where(_c.id == number)
    row = connection.execute(query).first()
    # What is claimed its handler may have locked, and nobody waits for that.
    if row is not None and row.state in {State.DONE, State.DEAD} and store.locks_rows:
        row = connection.execute(query.with_for_update()).first()
    if row is None:
        raise not_found(number)
    return Found(number, State(row.state), row.round, row.outcome, row.purged)


def _record(
    row: Any,  # noqa: ANN401 - a row of many columns
    succeeded: Sequence[str] = (),
    history: tuple[RecordedAttempt, ...] = (),
) -> RecordedDelivery:
    identity = Identity(row.endpoint, row.tenant, row.key_ts, bytes(row.key))
    return record_of(row, identity, purged=row.purged, succeeded=succeeded, history=history)
