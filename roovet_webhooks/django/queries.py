"""The record as operators and the maintenance thread work with it: look, count, replay, purge, renew, free, tidy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from django.db.migrations.recorder import MigrationRecorder
from django.db.models import Count, Min, Q
from django.db.models.functions import Left

from roovet_webhooks.django.claims import columns_of
from roovet_webhooks.django.tables import tables
from roovet_webhooks.inbox import changes
from roovet_webhooks.inbox.backlog import HEARTBEAT_IS_OLD
from roovet_webhooks.inbox.maintenance import TIDYINGS
from roovet_webhooks.inbox.records import MOST_REASONS, Purged, Stats
from roovet_webhooks.inbox.rows import Found, not_found, record_of, worker_of
from roovet_webhooks.inbox.states import State
from roovet_webhooks.retry import DAY

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Sequence

    from roovet_webhooks.django.claims import Claims, Rows
    from roovet_webhooks.django.database import Database
    from roovet_webhooks.django.models import Delivery
    from roovet_webhooks.inbox.changes import Values
    from roovet_webhooks.inbox.maintenance import Expiry
    from roovet_webhooks.inbox.protocol import Claim
    from roovet_webhooks.inbox.records import Query, RecordedDelivery, WorkerRecord

APP = "roovet_webhooks"
MOST_REAPED = 1000
TIDIED_AT_ONCE = 500


# Operators


def find(claims: Claims, query: Query) -> list[RecordedDelivery]:
    """Return the deliveries that a query means, the newest first."""
    rows = _matching(claims.rows(), query).order_by("-id").defer("body", "history")[: query.limit]
    return [record_of(row, row.identity, purged=not row.has_body) for row in rows]


def _matching(rows: Rows, query: Query) -> Rows:
    exact = {name: getattr(query, name) for name in ("endpoint", "tenant", "outcome", "resource")}
    conditions: dict[str, Any] = {name: str(value) for name, value in exact.items() if value is not None}
    if query.states is not None:
        conditions["state__in"] = sorted(str(state) for state in query.states)
    if query.since is not None:
        conditions["received_at__gte"] = changes.milliseconds(query.since)
    if query.until is not None:
        conditions["received_at__lt"] = changes.milliseconds(query.until)
    if query.purged is not None:
        conditions["has_body"] = not query.purged
    if query.before is not None:
        conditions["id__lt"] = query.before
    return _named(rows.filter(**conditions), query.event)


def _named(rows: Rows, event: str | None) -> Rows:
    if event is None or event == "*":
        return rows
    if not event.endswith("*"):
        return rows.filter(event=event)
    prefix = event.removesuffix("*")
    # Not startswith, which is LIKE: SQLite's takes upper case for lower.
    return rows.alias(beginning=Left("event", len(prefix))).filter(beginning=prefix)


def get(claims: Claims, number: int) -> RecordedDelivery:
    """Return one delivery.

    Raises:
        DeliveryNotFound: There is none of that number.
    """
    row = claims.rows().defer("body").filter(id=number).first()
    if row is None:
        raise not_found(number)
    succeeded = claims.handled().filter(delivery=number, round=row.round).order_by("handler")
    names = succeeded.values_list("handler", flat=True)
    history = claims.history.read(row.history)
    return record_of(row, row.identity, purged=not row.has_body, succeeded=names, history=history)


def number_of(claims: Claims, delivery_id: str) -> int:
    """Return the number of the delivery that has an id.

    Raises:
        DeliveryNotFound: There is none.
    """
    row = claims.rows().filter(delivery_id=delivery_id).only("id").first()
    if row is None:
        raise not_found(delivery_id)
    return row.id


def body(claims: Claims, number: int) -> tuple[str, bytes] | None:
    """Return a delivery's codec and encoded body, or ``None`` when it has been purged.

    Raises:
        DeliveryNotFound: There is none of that number.
    """
    row = claims.rows().filter(id=number).only("codec", "body").first()
    if row is None:
        raise not_found(number)
    return None if row.body is None else (row.codec, bytes(row.body))


def stats(claims: Claims, now: int) -> list[Stats]:
    """Count deliveries by endpoint and state."""
    counts: dict[str, dict[State, int]] = {}
    by_state = claims.rows().values_list("endpoint", "state").annotate(count=Count("id"))
    for endpoint, state, count in by_state:
        counts.setdefault(endpoint, dict.fromkeys(State, 0))[State(state)] = count
    # By an index, which has the tombstones apart.
    dead = claims.rows().filter(has_body__in=[True], state=State.DEAD.value)
    dead_letters = dict(dead.values_list("endpoint").annotate(count=Count("id")))
    found: list[Stats] = []
    for endpoint in sorted(counts):
        waiting = claims.rows().filter(state=State.READY.value, endpoint=endpoint)
        oldest: int | None = waiting.aggregate(oldest=Min("available_at"))["oldest"]
        unhandled = waiting.filter(unhandled_since__isnull=False)
        reasons = unhandled.exclude(last_error=None).values_list("last_error", flat=True).distinct()
        found.append(
            Stats(
                endpoint=endpoint,
                counts=counts[endpoint],
                oldest_due=None if oldest is None else oldest / 1000,
                crashed=waiting.filter(crashes__gt=0).count(),
                workers=workers(claims.database, endpoint, now),
                unhandled=unhandled.count(),
                unhandled_reasons=tuple(reasons[:MOST_REASONS]),
                dead_letters=dead_letters.get(endpoint, 0),
            )
        )
    return found


def replay(claims: Claims, number: int, *, now: int, confirmed: bool) -> None:
    """Make an ended delivery ready again.

    Raises:
        DeliveryNotFound: There is none of that number.
        InvalidTransition: It is open, its body is gone, or it is done and that was not confirmed.
    """
    values = _locked(claims, number).replayed(now=now, confirmed=confirmed)
    claims.rows().filter(id=number).update(**columns_of(values))


def purge(claims: Claims, number: int) -> None:
    """Erase an ended delivery's body and error.

    Raises:
        DeliveryNotFound: There is none of that number.
        InvalidTransition: It is open.
    """
    values = changes.purged(_locked(claims, number).state)
    claims.rows().filter(id=number).update(**columns_of(values))


def _locked(claims: Claims, number: int) -> Found:
    row = claims.rows().filter(id=number).select_for_update().only("state", "round", "outcome", "has_body").first()
    if row is None:
        raise not_found(number)
    return Found(number, State(row.state), row.round, row.outcome, not row.has_body)


# Workers and limits


def heartbeat(database: Database, heartbeats: Iterable[Values], now: int) -> None:
    """Write a worker's heartbeat, and forget workers that have not been heard of for a day."""
    rows = tables().worker.objects.using(database.alias)
    for values in heartbeats:
        if not rows.filter(owner=values["owner"], endpoint=values["endpoint"]).update(**values):
            rows.bulk_create([tables().worker(**values)])
    rows.filter(seen_at__lt=now - changes.milliseconds(DAY)).delete()


def workers(database: Database, endpoint: str, now: int) -> int:
    """Count the workers of an endpoint that have been heard of within a minute."""
    rows = tables().worker.objects.using(database.alias)
    return rows.filter(endpoint=endpoint, seen_at__gte=now - HEARTBEAT_IS_OLD).count()


def all_workers(database: Database, now: int) -> list[WorkerRecord]:
    """Return the workers that have been heard of within a minute."""
    rows = tables().worker.objects.using(database.alias).filter(seen_at__gte=now - HEARTBEAT_IS_OLD)
    return [worker_of(row) for row in rows.order_by("endpoint", "owner")]


class StoreCounts(NamedTuple):
    """What is counted for the limits; see `roovet_webhooks.inbox.backlog.StoreCounts`."""

    claims: Claims
    now: int

    def free_disk(self) -> int | None:
        """Return the free bytes on the disk."""
        database = self.claims.database
        return database.dialect.free_disk(database.connection)

    def open_deliveries(self, most: int) -> int:
        """Count the open deliveries, at most so many of each state."""
        states = (State.READY.value, State.CLAIMED.value)
        return sum(self.claims.rows().filter(state=state)[:most].count() for state in states)

    def workers(self, endpoint: str) -> int:
        """Count the workers of an endpoint."""
        return workers(self.claims.database, endpoint, self.now)


def schema(database: Database) -> str:
    """Return the name of the last migration of the tables that has been applied."""
    applied = [name for app, name in MigrationRecorder(database.connection).applied_migrations() if app == APP]
    return max(applied, default="none")


# Maintenance


def renew(claims: Claims, held: Sequence[Claim], now: int) -> Collection[int]:
    """Renew claims of this process, and return the numbers of those that are held."""
    return {
        claim.number
        # In one order, so that two who renew cannot wait for each other.
        for claim in sorted(held, key=lambda claim: claim.number)
        if claims.held(claim).update(lease_until=now + claims.lease)
    }


def overdue(claims: Claims, endpoints: Collection[str], now: int) -> list[Delivery]:
    """Return the claims whose lease has run out by the clock, or is further away than it can be."""
    columns = ("id", "fence", "lease_until", "endpoint", "failures", "crashes", "owner", "history")
    claimed = claims.rows().filter(state=State.CLAIMED.value, endpoint__in=endpoints).only(*columns)
    # In the order of an index: SQLite, once analyzed, would rather read the whole table than sort what is claimed.
    claimed = claimed.order_by("endpoint", "crashes", "available_at", "id")
    if claims.database.connection.features.has_select_for_update_skip_locked:
        # One that its handler's transaction has locked lives, although nobody can renew it.
        claimed = claimed.select_for_update(skip_locked=True)
    late, far = Q(lease_until__lt=now), Q(lease_until__gt=now + 2 * claims.lease)
    return [row for wrong in (late, far) for row in claimed.filter(wrong)[:MOST_REAPED]]


def free(claims: Claims, expiries: Iterable[Expiry]) -> list[tuple[int, bool]]:
    """Free deliveries whose claims have run out; return their numbers, and whether they are dead of it."""
    freed: list[tuple[int, bool]] = []
    for lease, values, dead in expiries:
        same = claims.rows().filter(id=lease.number, fence=lease.fence, lease_until=lease.until)
        if same.update(**columns_of(values)):
            freed.append((lease.number, dead))
    return freed


def newest(claims: Claims, now: int) -> tuple[int | None, int]:
    """Return when the last delivery was received, and what time it is, in milliseconds."""
    return claims.rows().order_by("-id").values_list("received_at", flat=True).first(), now


def prune(
    claims: Claims, run: Callable[[Callable[[int], int]], int], *, bodies_before: int, records_before: int
) -> Purged:
    """Erase what has been kept long enough, in small transactions that hold nobody up, and not in too many of them.

    Args:
        claims: Where.
        run: Carries work out in a transaction.
        bodies_before: Bodies of deliveries that were received and done before are erased; milliseconds.
        records_before: Records of deliveries that were received and ended before are removed; milliseconds.
    """

    def bodies(_now: int) -> int:
        # Not has_body=True, of which Django makes a condition that no index of SQLite's serves.
        done = claims.rows().filter(has_body__in=[True], state=State.DONE.value)
        rows = done.filter(finished_at__lt=bodies_before, received_at__lt=bodies_before)
        return rows.filter(id__in=_some(rows)).update(**columns_of(changes.purged(State.DONE)))

    def tombstones(_now: int) -> int:
        # What has not ended has not finished; said of the state, SQLite would look at all that have ended.
        rows = claims.rows().filter(finished_at__lt=records_before, received_at__lt=records_before)
        numbers = _some(rows)
        claims.handled().filter(delivery__in=numbers).delete()
        return rows.filter(id__in=numbers).delete()[0]

    return Purged(*(_repeated(run, work) for work in (bodies, tombstones)))


def _some(rows: Rows) -> list[int]:
    return list(rows.values_list("id", flat=True)[:TIDIED_AT_ONCE])


def _repeated(run: Callable[[Callable[[int], int]], int], work: Callable[[int], int]) -> int:
    total = 0
    for _ in range(TIDYINGS):
        changed = run(work)
        total += changed
        if not changed:
            break
    return total
