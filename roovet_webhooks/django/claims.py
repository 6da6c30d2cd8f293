"""Storing, claiming and settling, by Django's ORM. Everything here runs in a transaction that the caller has opened."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from django.db.models import OuterRef, Q, QuerySet, Subquery, Value
from django.db.models.functions import Replace
from django.db.models.lookups import IsNull

from roovet_webhooks.delivery import id_of
from roovet_webhooks.django.fields import NAME_CHARACTERS, TENANT_CHARACTERS
from roovet_webhooks.django.tables import tables
from roovet_webhooks.errors import ConfigurationError, PayloadError
from roovet_webhooks.inbox import changes
from roovet_webhooks.inbox.protocol import Claimed
from roovet_webhooks.inbox.records import AttemptOutcome
from roovet_webhooks.inbox.rows import claim_of, delivery_of, lost
from roovet_webhooks.inbox.states import Outcome, State

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from roovet_webhooks.delivery import Identity
    from roovet_webhooks.django.database import Database
    from roovet_webhooks.django.models import Delivery, Handled
    from roovet_webhooks.inbox.changes import Values
    from roovet_webhooks.inbox.codec import Bodies
    from roovet_webhooks.inbox.history import History
    from roovet_webhooks.inbox.protocol import Claim, OnDead, Ordering

    Rows = QuerySet[Delivery]


def columns_of(values: Values) -> Values:
    """Return what the shared rules write as the columns of this table."""
    columns = {name: str(value) if isinstance(value, str) else value for name, value in values.items()}
    if "body" in columns:
        columns["has_body"] = columns["body"] is not None
    return columns


def inserted(identity: Identity, values: Values) -> Values:
    """Return the columns of a new row.

    Raises:
        ConfigurationError: The tenant's name is longer than the table allows.
    """
    if len(identity.tenant) > TENANT_CHARACTERS:
        message = f"the name of a tenant has {len(identity.tenant)} characters; up to {TENANT_CHARACTERS} can be stored"
        raise ConfigurationError(message)
    names = {"key": identity.key.hex(), "delivery_id": id_of(identity)}
    return {**columns_of(values), **names, "secret_name": values["secret_name"][:NAME_CHARACTERS]}


class Claims(NamedTuple):
    """Who claims where, and how it reads what it gets.

    Attributes:
        database: Where.
        owner: Name of the process.
        lease: Milliseconds.
        bodies: Decodes bodies.
        history: Keeps what attempts came to.
    """

    database: Database
    owner: str
    lease: int
    bodies: Bodies
    history: History

    def rows(self) -> Rows:
        """Return the deliveries, in no order."""
        return tables().delivery.objects.using(self.database.alias).order_by()

    def handled(self) -> QuerySet[Handled]:
        """Return the successes."""
        return tables().handled.objects.using(self.database.alias)

    # Storing

    def known(self, identity: Identity, *, lock: bool = False) -> Delivery | None:
        """Return the row of an identity, without its body.

        Args:
            identity: Which.
            lock: Whether to keep others from changing it.
        """
        rows = self.rows().filter(delivery_id=id_of(identity)).only("id", "state")
        return (rows.select_for_update() if lock else rows).first()

    def insert(self, identity: Identity, values: Values) -> int:
        """Insert a row and return its number."""
        row = tables().delivery(**inserted(identity, values))
        # In bulk, because no signal of the application's belongs into the recording of a delivery.
        self.rows().bulk_create([row])
        if row.pk is None:  # MySQL does not tell
            return self.rows().only("id").get(delivery_id=row.delivery_id).id
        return row.id

    # Claiming

    def due(self, endpoint: str, now: int, *, crashed: bool) -> Rows:
        """Return the deliveries of an endpoint that may be claimed now.

        Either those that have crashed before or those that have not: of one kind an index has the longest due first.
        """
        rows = self.rows().filter(state=State.READY.value, endpoint=endpoint, available_at__lte=now)
        return rows.filter(crashes__gt=0) if crashed else rows.filter(crashes=0)

    def pick(self, rows: Rows, endpoint: str, *, limit: int, ordering: Ordering, on_dead: OnDead) -> list[Delivery]:
        """Lock deliveries and return them, the longest due first. Those that others have locked are left out."""
        if ordering is not None:
            self._in_turn(endpoint)
            rows = rows.filter(*_first_of_its_resource(self.rows(), on_dead))
        features = self.database.connection.features
        locked = rows.select_for_update(skip_locked=features.has_select_for_update_skip_locked)
        return list(locked.order_by("available_at", "id")[:limit])

    def _in_turn(self, endpoint: str) -> None:
        """Let one claimer of an ordered endpoint look at a time: two that look at once would each find a first one."""
        write_lock = tables().turn.objects.using(self.database.alias)
        write_lock.select_for_update().get_or_create(endpoint=endpoint)

    def take(self, picked: Sequence[Delivery], now: int) -> list[Claimed]:
        """Claim deliveries, each only if it is still as it was picked, in the order in which they are due.

        One whose body cannot be read any more is buried instead.
        """
        values = columns_of(changes.claimed(now=now, lease=self.lease, owner=self.owner))
        taken = [row for row in picked if self._claim(row, values)]
        succeeded = self._successes(taken)
        found: list[Claimed] = []
        for row in sorted(taken, key=lambda row: (row.available_at, row.ts, row.id)):
            identity = row.identity
            claim = claim_of(row, identity, succeeded.get(row.id, ()))
            try:
                raw = self.bodies.decode(row.codec, bytes(row.body or b""))
                found.append(Claimed(delivery_of(row, identity, raw), claim))
            except PayloadError as error:
                buried = changes.buried(claim, str(error), Outcome.UNDECODABLE, now=now)
                buried["history"] = self.history.settled(
                    claim, None, AttemptOutcome.FAILED, now=now, dead=True, reason=str(error)
                )
                self.settle(claim, buried)
        return found

    def _claim(self, row: Delivery, values: Values) -> bool:
        fence = row.fence
        row.fence = fence + 1
        # Only a claim ends the state ready, and it raises the fence. Were the state among the conditions, PostgreSQL
        # might look for the number among all that are ready.
        same = self.rows().filter(id=row.id, fence=fence)
        return row.state == State.READY and bool(same.update(**values, fence=row.fence))

    def _successes(self, rows: Iterable[Delivery]) -> dict[int, set[str]]:
        """Return which handlers have succeeded, of those deliveries that have been claimed before."""
        rounds = {row.id: row.round for row in rows if row.fence > 1}
        found: dict[int, set[str]] = {}
        if rounds:
            successes = self.handled().filter(delivery__in=rounds).values_list("delivery_id", "round", "handler")
            for number, round_, handler in successes:
                if round_ == rounds[number]:
                    found.setdefault(number, set()).add(handler)
        return found

    # Settling

    def held(self, claim: Claim) -> Rows:
        """Return the row that a claim is on, if it still holds."""
        # What is claimed has an owner, and nothing else has. The state is not asked, for the reason that `_claim` has.
        return self.rows().filter(id=claim.number, fence=claim.fence, owner__isnull=False)

    def settle(self, claim: Claim, values: Values) -> None:
        """Change the row that a claim is on.

        Raises:
            LeaseLost: Its fence has moved on.
        """
        if not self.held(claim).update(**columns_of(values)):
            raise lost(claim)

    def check_held(self, claim: Claim, *, lock: bool) -> None:
        """Check that a claim holds.

        Args:
            claim: The claim.
            lock: Whether to keep it from being taken until the transaction ends.

        Raises:
            LeaseLost: Its fence has moved on.
        """
        held = self.held(claim).only("id")
        if (held.select_for_update() if lock else held).first() is None:
            raise lost(claim)

    def has_succeeded(self, claim: Claim, handler: str) -> bool:
        """Say whether a handler has succeeded in this round."""
        return self.handled().filter(delivery=claim.number, round=claim.round, handler=handler).exists()

    def record_success(self, claim: Claim, handler: str) -> None:
        """Record that a handler has succeeded in this round.

        Raises:
            IntegrityError: It had before.
        """
        success = {"delivery_id": claim.number, "round": claim.round, "handler": handler, "fence": claim.fence}
        self.handled().bulk_create([tables().handled(**success)])


def _first_of_its_resource(rows: Rows, on_dead: OnDead) -> list[Any]:
    """Return the conditions that nothing of the same resource is claimed or stands before a delivery that is ready."""
    same = rows.filter(**{name: OuterRef(name) for name in ("endpoint", "tenant", "resource")})
    conditions: list[Any] = [Q(id=_earliest(same, State.READY)), IsNull(_earliest(same, State.CLAIMED), rhs=True)]
    if on_dead == "block":
        before = same.filter(Q(ts__lt=OuterRef("ts")) | Q(id__lt=OuterRef("id")), ts__lte=OuterRef("ts"))
        # One without a body will never run, and one that came too late nobody has run: nothing waits for them.
        blocking = before.filter(has_body=True).exclude(outcome=Outcome.TOO_OLD.value)
        conditions.append(IsNull(_earliest(blocking, State.DEAD), rhs=True))
    return conditions


def _earliest(rows: Rows, state: State) -> Subquery:
    """Return the number of the first of some deliveries of one resource that are in a state.

    In the order of the index on resources, and with a state that stands in no statistics. PostgreSQL would else trust
    those of a time when nothing was ready, take the index on states, and read the backlog for each delivery in it.
    """
    its = Replace(OuterRef("state"), Value(State.READY.value), Value(state.value))
    return Subquery(rows.filter(state=its).order_by("ts", "id").values("id")[:1])
