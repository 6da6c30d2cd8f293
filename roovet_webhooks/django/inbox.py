"""`DjangoInbox`: the durable inbox in a database of the project, beside the tables of its applications."""

from __future__ import annotations

import functools
import os
from contextlib import contextmanager
from time import monotonic
from typing import TYPE_CHECKING, ClassVar, NamedTuple, TypeVar

from django.db import connections

from roovet_webhooks.django import queries
from roovet_webhooks.django.claims import Claims
from roovet_webhooks.django.database import Database
from roovet_webhooks.django.fields import NAME_CHARACTERS
from roovet_webhooks.django.lending import close_if_stale
from roovet_webhooks.django.tables import tables
from roovet_webhooks.django.transactions import handler_transaction
from roovet_webhooks.errors import ConfigurationError, InboxFull
from roovet_webhooks.inbox import changes
from roovet_webhooks.inbox.backlog import Backlog
from roovet_webhooks.inbox.changes import milliseconds
from roovet_webhooks.inbox.codec import Bodies
from roovet_webhooks.inbox.history import History, check_record_errors
from roovet_webhooks.inbox.maintenance import MaintenanceThread, Watch, expiries, log_purged, log_reaped
from roovet_webhooks.inbox.options import check_numbers, new_owner
from roovet_webhooks.inbox.protocol import Claim, Claimed, Stored, Verdict
from roovet_webhooks.inbox.records import AttemptOutcome, Health
from roovet_webhooks.inbox.rows import heartbeats, lost
from roovet_webhooks.inbox.states import Outcome, State
from roovet_webhooks.inbox.threads import kind_of_threads
from roovet_webhooks.inbox.trusted_time import TrustedTime
from roovet_webhooks.retry import DAY

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Generator, Iterable, Sequence

    from django.db.backends.base.base import BaseDatabaseWrapper

    from roovet_webhooks.delivery import Delivery
    from roovet_webhooks.django.models import Delivery as DeliveryRow
    from roovet_webhooks.django.transactions import HandlerTransaction
    from roovet_webhooks.findings import Finding
    from roovet_webhooks.inbox.changes import Values
    from roovet_webhooks.inbox.codec import Codec
    from roovet_webhooks.inbox.history import RecordErrors
    from roovet_webhooks.inbox.protocol import OnDead, Ordering, Served
    from roovet_webhooks.inbox.records import Purged, Query, RecordedAttempt, RecordedDelivery, Stats, WorkerRecord
    from roovet_webhooks.retry import RetryPolicy

T = TypeVar("T")


class _Process(NamedTuple):
    """What belongs to one process, and is made anew after a fork."""

    pid: int
    kind: object
    owner: str
    watch: Watch
    time: TrustedTime
    maintenance: MaintenanceThread


class DjangoInbox:
    """A durable inbox in a database of the project: what it has answered for is on disk, and takes effect once.

    ``INSTALLED_APPS`` must have ``roovet_webhooks.django``, and its migrations must have been applied. It may be made
    before Django has loaded its applications; its tables are looked for when it is first used.

    Args:
        using: The database, as ``settings.DATABASES`` names it.
        atomic: Whether a sync handler runs in the delivery's transaction without asking for it: what it writes through
            the ORM, to this database, then happens once, together with the record that it has succeeded. The
            transaction begins with the handler's first query. A handler that must not run in one is served by an
            inbox with ``atomic=False``, and opens `Delivery.transaction` where it writes.
        lease: Seconds for which a claim holds unless it is renewed. What a process held that went away is free again
            after one to two and a half leases.
        remember: Seconds for which the same delivery does not run again; an event that is older when it arrives
            is recorded as dead and never run.
        settle: Seconds, at most 1, that a delivery waits for the second of its ``ts`` to end.
        retain_body: Seconds after which the body of a done delivery is erased.
        max_backlog: How many deliveries may be open; above that, new ones are refused with a 503.
        min_free_disk: Bytes that must be free on the disk of a SQLite file for new deliveries to be accepted.
        timeout: Seconds to wait for others who write: for a lock on PostgreSQL, and for a turn on SQLite, where
            ``OPTIONS["timeout"]`` of the settings comes on top.
        codec: Encrypts bodies at rest: an object with ``encrypt`` and ``decrypt``, such as ``cryptography``'s
            ``MultiFernet``.
        record_errors: What is kept of an error in the history of attempts: ``"full"`` keeps its class, its message and
            a short traceback, until the body is erased; ``"class"`` keeps its class alone.
        clock: Unix seconds. ``None`` takes the server's clock on PostgreSQL and MySQL, and else the process's.

    Raises:
        ConfigurationError: A number is out of its range.

    Example::

        receiver = WebhookReceiver(inbox=DjangoInbox())
    """

    durable: ClassVar[bool] = True
    blocking: ClassVar[bool] = True

    def __init__(  # noqa: PLR0913 - the options of an inbox, all but one by keyword
        self,
        using: str = "default",
        *,
        atomic: bool = True,
        lease: float = 60.0,
        remember: float = 30 * DAY,
        settle: float = 1.0,
        retain_body: float = 7 * DAY,
        max_backlog: int = 1_000_000,
        min_free_disk: int = 64 * 1024 * 1024,
        timeout: float = 10.0,
        codec: Codec | None = None,
        record_errors: RecordErrors = "full",
        clock: Callable[[], float] | None = None,
    ) -> None:
        seconds = {"lease": lease, "remember": remember, "retain_body": retain_body, "timeout": timeout}
        check_numbers(seconds=seconds, settle=settle, counts={"max_backlog": max_backlog}, min_free_disk=min_free_disk)
        self.using: str = using
        self.atomic: bool = atomic
        self.lease: float = lease
        self.timeout: float = timeout
        self._remember, self._settling_time = remember, milliseconds(settle)
        self._retain_body = milliseconds(retain_body)
        self._bodies = Bodies(codec)
        self._record_errors: RecordErrors = check_record_errors(record_errors)
        self._database = Database(using, timeout, clock)
        self._backlog = Backlog(max_backlog, min_free_disk)
        self._policies: dict[str, RetryPolicy] = {}
        self._ticks: Callable[[], float] = monotonic
        self._process = self._new_process()

    def _new_process(self) -> _Process:
        maintenance = MaintenanceThread(_Maintainable(self), self.lease, self._moment)
        time = TrustedTime()
        return _Process(os.getpid(), kind_of_threads(), new_owner(), Watch(self.lease), time, maintenance)

    def _moment(self) -> float:
        """Return monotonic seconds."""
        return self._ticks()

    def _here(self) -> _Process:
        if self._process.pid != os.getpid() or self._process.kind is not kind_of_threads():
            self._process = self._new_process()
        return self._process

    @property
    def owner(self) -> str:
        """Name of this process."""
        return self._here().owner

    @property
    def _claims(self) -> Claims:
        owner = self.owner
        history = History(self._bodies, self._record_errors, owner)
        return Claims(self._database, owner, milliseconds(self.lease), self._bodies, history)

    @property
    def location(self) -> str:
        """Which store this is; see `DurableInbox.location`."""
        return self._database.location

    def open(self) -> None:
        """Look whether the inbox can be used; the tables come from ``manage.py migrate``.

        Raises:
            InboxUnavailable: The database cannot be reached, or has no such tables.
            ConfigurationError: The settings have no such database, or it can hold no inbox.
        """
        rows = tables().delivery.objects
        self._database.check()
        self._database.read(rows.using(self.using).filter(id=0).exists)

    # Recording

    def store(self, delivery: Delivery, *, claim: bool, handlers: Sequence[str] | None = None) -> Stored:
        """Record a delivery; see `Inbox.store`."""
        name, body = self._bodies.encode(delivery.raw)
        values = changes.recorded(delivery, body, name, handlers)
        too_old = delivery.event.ts < delivery.received_at - self._remember
        look = self._backlog.is_time_to_look(delivery.endpoint, workers_needed=not claim)
        claims = self._claims
        self._here().time.prove(values["received_at"], self._moment())

        def store(now: int) -> Stored:
            if look:
                self._backlog.look(queries.StoreCounts(claims, now))
            known = claims.known(delivery.identity, lock=claim)
            if known is not None:
                return _stored_again(claims, known, now) if claim else Stored(Verdict.DUPLICATE)
            if self._backlog.full is not None:
                message = f"no new deliveries are accepted: {self._backlog.full}"
                raise InboxFull(message)
            if too_old:
                claims.insert(delivery.identity, {**values, **changes.stored_too_old(now=now)})
                return Stored(Verdict.TOO_OLD)
            if not claim:
                arrived = values["received_at"]
                new = changes.stored(delivery.event.ts, received_at=arrived, now=now, settle=self._settling_time)
                claims.insert(delivery.identity, {**values, **new})
                return Stored(Verdict.NEW)
            new = changes.stored_claimed(now=now, lease=claims.lease, owner=claims.owner)
            number = claims.insert(delivery.identity, {**values, **new})
            return Stored(Verdict.NEW, Claim(delivery.identity, 1, number=number))

        stored = self._database.run(store)
        if claim:
            self._hold([stored.claim] if stored.claim else [])
        return stored

    # Claims

    def attach(self, endpoint: str, retry: RetryPolicy) -> None:
        """Say how often an endpoint's deliveries may crash; see `DurableInbox.attach`.

        Raises:
            ConfigurationError: The endpoint's name is longer than an index of every database can hold.
        """
        if len(endpoint) > NAME_CHARACTERS:
            message = f"the name of an endpoint in a DjangoInbox has up to {NAME_CHARACTERS} characters: {endpoint!r}"
            raise ConfigurationError(message)
        self._policies[endpoint] = retry

    @contextmanager
    def renewing(self, claim: Claim) -> Generator[bool]:
        """Renew a claim for as long as its handlers run; see `Inbox.renewing`."""
        maintenance = self._here().maintenance
        try:
            yield maintenance.keep(claim)
        finally:
            maintenance.stop_renewing(claim)

    def _hold(self, claims: Sequence[Claim]) -> None:
        self._here().maintenance.hold(claims)

    def confirm(self, claim: Claim) -> None:
        """Renew a claim now; see `Inbox.confirm`."""
        if not self.renew([claim]):
            raise lost(claim)
        self._hold([claim])

    def claim(
        self, endpoint: str, *, limit: int, ordering: Ordering = None, on_dead: OnDead = "skip"
    ) -> Sequence[Claimed]:
        """Claim what is due and has never crashed; see `DurableInbox.claim`."""
        return self._claim(endpoint, limit, ordering, on_dead, crashed=False)

    def claim_isolated(
        self, endpoint: str, *, ordering: Ordering = None, on_dead: OnDead = "skip"
    ) -> Sequence[Claimed]:
        """Claim one delivery that has crashed before; see `DurableInbox.claim_isolated`."""
        return self._claim(endpoint, 1, ordering, on_dead, crashed=True)

    def _claim(
        self, endpoint: str, limit: int, ordering: Ordering, on_dead: OnDead, *, crashed: bool
    ) -> Sequence[Claimed]:
        claims = self._claims

        def claim(now: int) -> Sequence[Claimed]:
            due = claims.due(endpoint, now, crashed=crashed)
            return claims.take(claims.pick(due, endpoint, limit=limit, ordering=ordering, on_dead=on_dead), now)

        found = self._database.run(claim)
        self._hold([one.claim for one in found])
        return found

    def claim_number(self, number: int, *, ordering: Ordering = None, on_dead: OnDead = "skip") -> Claimed | None:
        """Claim one delivery by its number; see `DurableInbox.claim_number`."""
        claims = self._claims

        def claim(now: int) -> Claimed | None:
            row = claims.rows().filter(id=number).only("endpoint", "state").first()
            if row is None or row.state != State.READY:
                return None
            due = claims.rows().filter(id=number, available_at__lte=now)
            picked = claims.pick(due, row.endpoint, limit=1, ordering=ordering, on_dead=on_dead)
            return next(iter(claims.take(picked, now)), None)

        found = self._database.run(claim)
        self._hold([found.claim] if found else [])
        return found

    def count_crashed(self, endpoint: str) -> int:
        """Count due deliveries that have crashed before; see `DurableInbox.count_crashed`."""
        return self._database.read_at(lambda now: self._claims.due(endpoint, now, crashed=True).count())

    def enqueue(  # noqa: PLR0913 - one argument a rule
        self,
        endpoint: str,
        *,
        limit: int,
        again_after: float,
        ordering: Ordering = None,
        on_dead: OnDead = "skip",
        with_each: Callable[[BaseDatabaseWrapper, Sequence[int]], None] | None = None,
    ) -> Sequence[int]:
        """Mark due deliveries as handed to an engine; see `DurableInbox.enqueue`."""
        claims = self._claims

        def enqueue(now: int) -> Sequence[int]:
            lately = now - milliseconds(again_after)
            picked: list[DeliveryRow] = []
            for crashed in (False, True):
                due = claims.due(endpoint, now, crashed=crashed).only("id", "available_at", "handed_at")
                picked += claims.pick(due, endpoint, limit=limit, ordering=ordering, on_dead=on_dead)
            window = sorted(picked, key=lambda row: (row.available_at, row.id))[:limit]
            numbers = sorted(row.id for row in window if row.handed_at is None or row.handed_at <= lately)
            claims.rows().filter(id__in=numbers).update(handed_at=now)
            if with_each is not None and numbers:
                with_each(self._database.connection, numbers)
            return numbers

        return self._database.run(enqueue)

    # Settling

    def succeed(self, claim: Claim, handler: str) -> None:
        """Record a handler's success; see `Inbox.succeed`."""
        claims = self._claims

        def succeed(_now: int) -> None:
            claims.check_held(claim, lock=True)
            if not claims.has_succeeded(claim, handler):
                claims.record_success(claim, handler)

        self._database.run(succeed)

    def complete(self, claim: Claim, outcome: Outcome, *, attempt: RecordedAttempt | None = None) -> None:
        """End a delivery; see `Inbox.complete`."""
        ended = functools.partial(self._claims.history.settled, claim, attempt, AttemptOutcome(outcome))
        self._settle(claim, lambda now: changes.completed(outcome, now=now), ended)

    def fail(self, claim: Claim, error: str, *, retry_in: float, attempt: RecordedAttempt | None = None) -> None:
        """Give a claim back after a failure; see `Inbox.fail`."""
        history = self._claims.history
        error = history.error(error, attempt)
        ended = functools.partial(history.settled, claim, attempt, AttemptOutcome.FAILED, reason=error)
        self._settle(claim, lambda now: changes.failed(claim, error, now=now, retry_in=retry_in), ended)

    def release(
        self, claim: Claim, *, retry_in: float, error: str | None = None, attempt: RecordedAttempt | None = None
    ) -> None:
        """Give a claim back; see `Inbox.release`."""
        history = self._claims.history
        reason = None if error is None else history.error(error, attempt)
        ended = functools.partial(history.settled, claim, attempt, AttemptOutcome.RELEASED, reason=reason)
        self._settle(claim, lambda now: changes.released(now=now, retry_in=retry_in, error=reason), ended)

    def return_unhandled(
        self, claim: Claim, error: str, *, retry_in: float, attempt: RecordedAttempt | None = None
    ) -> None:
        """Give a claim back for want of a handler; see `DurableInbox.return_unhandled`."""
        ended = functools.partial(self._claims.history.settled, claim, attempt, AttemptOutcome.UNHANDLED, reason=error)
        self._settle(claim, lambda now: changes.unhandled(claim, error, now=now, retry_in=retry_in), ended)

    def bury(self, claim: Claim, error: str, outcome: Outcome, *, attempt: RecordedAttempt | None = None) -> None:
        """End a delivery as dead; see `Inbox.bury`."""
        history = self._claims.history
        error = history.error(error, attempt)
        ended = functools.partial(history.settled, claim, attempt, AttemptOutcome.FAILED, dead=True, reason=error)
        self._settle(claim, lambda now: changes.buried(claim, error, outcome, now=now), ended)

    def _settle(self, claim: Claim, values: Callable[[int], Values], ended: Callable[..., bytes]) -> None:
        self._database.run(lambda now: self._claims.settle(claim, {**values(now), "history": ended(now=now)}))

    # Transactions of handlers

    @contextmanager
    def transaction(self, claim: Claim, handler: str) -> Generator[BaseDatabaseWrapper]:
        """Open a transaction that commits with the record of a success; see `DurableInbox.transaction`."""
        with handler_transaction(self._claims, claim, handler) as opened:
            opened.begin()
            yield opened.connection

    @contextmanager
    def implicit_transaction(self, claim: Claim, handler: str) -> Generator[HandlerTransaction | None]:
        """Open the transaction in which a sync handler runs; see `DurableInbox.implicit_transaction`."""
        try:
            if self.atomic:
                with handler_transaction(self._claims, claim, handler) as opened:
                    yield opened
            else:
                yield None
        finally:
            # In a thread that serves no request nobody else closes what the handler has used.
            for connection in connections.all(initialized_only=True):
                close_if_stale(connection)

    # Keeping

    def start_maintenance(self) -> None:
        """Start the thread that renews, reaps and tidies; the first claim starts it too."""
        self.open()
        self._here().maintenance.start()

    def renew(self, claims: Sequence[Claim]) -> Collection[int]:
        """Renew claims of this process; see `Maintainable.renew`."""
        return self._database.run(lambda now: queries.renew(self._claims, claims, now))

    def reap_now(self) -> int:
        """Free overdue claims and tell of it; see `Maintainable.reap_now`."""
        freed = self.reap()
        log_reaped(freed)
        return len(freed)

    def reap(self) -> Sequence[tuple[int, bool]]:
        """Free deliveries whose claims have run out; see `DurableInbox.reap`."""
        claims, watch, held = self._claims, self._here().watch, self._here().maintenance.holding()

        def reap(now: int) -> Sequence[tuple[int, bool]]:
            self._here().time.look(now, self._moment())
            rows = queries.overdue(claims, self._policies.keys(), now)
            moment, history = self._moment(), claims.history
            return queries.free(
                claims, expiries(watch, rows, self._policies, history=history, held=held, now=now, moment=moment)
            )

        return self._database.run(reap)

    def heartbeat(self, owner: str, served: Iterable[Served]) -> None:
        """Write a worker's heartbeat; see `DurableInbox.heartbeat`."""
        wanted = list(served)
        self._database.run(lambda now: queries.heartbeat(self._database, heartbeats(owner, wanted, now), now))

    def retire(self, owner: str, endpoints: Iterable[str]) -> None:
        """Forget a worker that has stopped; see `DurableInbox.retire`."""
        rows = tables().worker.objects.using(self.using).filter(owner=owner, endpoint__in=list(endpoints))
        self._database.run(lambda _now: rows.delete())

    def workers(self) -> Sequence[WorkerRecord]:
        """Return the workers that are alive; see `DurableInbox.workers`."""
        return self._database.read_at(lambda now: queries.all_workers(self._database, now))

    # Operators

    def find(self, query: Query) -> Sequence[RecordedDelivery]:
        """Return recorded deliveries; see `DurableInbox.find`."""
        return self._database.read(lambda: queries.find(self._claims, query))

    def get(self, number: int) -> RecordedDelivery:
        """Return one recorded delivery; see `DurableInbox.get`."""
        return self._database.read(lambda: queries.get(self._claims, number))

    def read_history(self, stored: bytes | memoryview | None) -> tuple[RecordedAttempt, ...]:
        """Return the attempts in a stored history."""
        return self._claims.history.read(stored)

    def number_of(self, delivery_id: str) -> int:
        """Return the number of a delivery by its id; see `DurableInbox.number_of`."""
        return self._database.read(lambda: queries.number_of(self._claims, delivery_id))

    def body(self, number: int) -> bytes | None:
        """Return a delivery's raw body; see `DurableInbox.body`."""
        stored = self._database.read(lambda: queries.body(self._claims, number))
        return None if stored is None else self._bodies.decode(*stored)

    def stats(self) -> Sequence[Stats]:
        """Count deliveries by endpoint and state; see `DurableInbox.stats`."""
        return self._database.read_at(lambda now: queries.stats(self._claims, now))

    # Of a replay or a purge no sender is told, so that an operator's transaction may be around them.

    def replay(self, number: int, *, confirmed: bool = False) -> None:
        """Make an ended delivery ready again; see `DurableInbox.replay`."""
        work = functools.partial(queries.replay, self._claims, number, confirmed=confirmed)
        self._database.run(lambda now: work(now=now), durable=False)

    def purge(self, number: int) -> None:
        """Erase an ended delivery's body; see `DurableInbox.purge`."""
        self._database.run(lambda _now: queries.purge(self._claims, number), durable=False)

    def prune(self) -> Purged:
        """Erase what has been kept long enough; see `DurableInbox.prune`."""
        claims, time = self._claims, self._here().time
        received_at, now = self._database.run(lambda now: queries.newest(claims, now))
        if received_at is not None:
            time.prove(received_at, self._moment())
        now = time.now(now, self._moment())
        bodies_before, records_before = now - self._retain_body, now - milliseconds(self._remember)
        purged = queries.prune(claims, self._database.run, bodies_before=bodies_before, records_before=records_before)
        log_purged(purged)
        return purged

    def faults(self) -> Sequence[Finding]:
        """Return what about the database endangers what the inbox holds."""
        return self._database.read(lambda: self._database.dialect.faults(self._database.connection))

    def advice(self) -> Sequence[Finding]:
        """Return what in the project's settings makes trouble; the database is not asked."""
        return self._database.dialect.advice(self._database.connection)

    def fault(self) -> str | None:
        """Say what is wrong about the database, and what to do about it; ``None`` when nothing is."""
        return "; ".join(f"{fault.message}: {fault.remedy}" for fault in [*self.faults(), *self.advice()]) or None

    def health(self) -> Health:
        """Look at the store itself; see `DurableInbox.health`."""
        self._database.check()
        look = functools.partial(queries.StoreCounts, self._claims)
        full, now = self._database.run(lambda now: (self._backlog.fault(look(now)), now), durable=False)
        schema = self._database.read(lambda: queries.schema(self._database))
        return Health(store=repr(self), schema=schema, clock=now / 1000, full=full, fault=self.fault())

    def close(self) -> None:
        """Stop the thread, until the inbox is used again. Connections are Django's."""
        if self._process.pid == os.getpid():
            self._process.maintenance.close()
            self._process = self._new_process()

    def __repr__(self) -> str:
        """Show where it lives."""
        return f"DjangoInbox(using={self.using!r})"


class _Maintainable:
    """The inbox as its maintenance thread sees it, whose thread keeps no connection while it sleeps."""

    def __init__(self, inbox: DjangoInbox) -> None:
        self._inbox = inbox

    def renew(self, claims: Sequence[Claim]) -> Collection[int]:
        with self._closing():
            return self._inbox.renew(claims)

    def reap_now(self) -> int:
        with self._closing():
            return self._inbox.reap_now()

    def prune(self) -> object:
        with self._closing():
            return self._inbox.prune()

    @contextmanager
    def _closing(self) -> Generator[None]:
        try:
            yield
        finally:
            connections[self._inbox.using].close()


def _stored_again(claims: Claims, known: DeliveryRow, now: int) -> Stored:
    """Answer for a delivery that is recorded already, and that its sender wants handled at once."""
    if known.state == State.CLAIMED:
        # Alive or not: only the reaper, which does not trust the clock alone, frees it.
        return Stored(Verdict.IN_FLIGHT)
    if known.state != State.READY:
        return Stored(Verdict.DUPLICATE)
    taken = claims.take(list(claims.rows().filter(id=known.id)), now)
    return Stored(Verdict.NEW, taken[0].claim) if taken else Stored(Verdict.IN_FLIGHT)
