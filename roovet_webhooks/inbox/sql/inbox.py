"""`SQLInbox`: the durable inbox, in SQLite or PostgreSQL."""

from __future__ import annotations

import os
from contextlib import contextmanager, suppress
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar
from weakref import WeakSet

from sqlalchemy import delete, func, not_, or_, select, tuple_

from roovet_webhooks.errors import InboxError, InboxUnavailable
from roovet_webhooks.inbox import changes
from roovet_webhooks.inbox.backlog import Backlog
from roovet_webhooks.inbox.changes import milliseconds
from roovet_webhooks.inbox.codec import Bodies
from roovet_webhooks.inbox.history import History, check_record_errors
from roovet_webhooks.inbox.maintenance import MaintenanceThread, Watch, expiries, log_purged, log_reaped
from roovet_webhooks.inbox.options import check_numbers, new_owner
from roovet_webhooks.inbox.records import AttemptOutcome, Health
from roovet_webhooks.inbox.rows import heartbeats, lost
from roovet_webhooks.inbox.sql import queries, statements
from roovet_webhooks.inbox.sql.claims import Claimant
from roovet_webhooks.inbox.sql.committer import Committer, GrantingOperation, Operation, RowOperation
from roovet_webhooks.inbox.sql.counts import SQLCensus, all_workers
from roovet_webhooks.inbox.sql.recording import Recorder
from roovet_webhooks.inbox.sql.schema import BY_CLAIM, CLAIMED, delivery, versions, worker, write_nothing_new
from roovet_webhooks.inbox.sql.transactions import check_held, record_success, transaction
from roovet_webhooks.inbox.sql.urls import store_of
from roovet_webhooks.inbox.threads import kind_of_threads
from roovet_webhooks.inbox.trusted_time import TrustedTime
from roovet_webhooks.retry import DAY

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Generator, Iterable, Sequence
    from contextlib import AbstractContextManager

    from sqlalchemy import URL, Connection, Engine

    from roovet_webhooks.delivery import Delivery
    from roovet_webhooks.inbox.changes import Values
    from roovet_webhooks.inbox.codec import Codec
    from roovet_webhooks.inbox.future import InboxFuture
    from roovet_webhooks.inbox.history import RecordErrors
    from roovet_webhooks.inbox.protocol import Claim, Claimed, OnDead, Ordering, Served, Stored
    from roovet_webhooks.inbox.records import Purged, Query, RecordedAttempt, RecordedDelivery, Stats, WorkerRecord
    from roovet_webhooks.inbox.states import Outcome
    from roovet_webhooks.retry import RetryPolicy

T = TypeVar("T")

_c = delivery.c
_MOST_REAPED = 1000


class SQLInbox:
    """A durable inbox in a SQL database: what it has answered for is on disk, and takes effect once.

    Args:
        where: ``sqlite:///path``, ``postgresql+psycopg://…``, or the application's own SQLAlchemy engine, so that the
            inbox lives beside its tables. Of an engine for SQLite the file and the ``connect`` listeners are taken.
        lease: Seconds for which a claim holds unless it is renewed. What a process held that went away is free again
            after one to two and a half leases.
        remember: Seconds for which the same delivery does not run again; an event that is older when it arrives
            is recorded as dead and never run.
        settle: Seconds, at most 1, that a delivery waits for the second of its ``ts`` to end.
        retain_body: Seconds after which the body of a done delivery is erased.
        max_backlog: How many deliveries may be open; above that, new ones are refused with a 503.
        min_free_disk: Bytes that must be free on the disk of a SQLite file for new deliveries to be accepted.
        max_waiting: How many operations may wait for the store at once.
        timeout: Seconds after which whoever waits for the store is told that it is unavailable.
        codec: Encrypts bodies at rest: an object with ``encrypt`` and ``decrypt``, such as ``cryptography``'s
            ``MultiFernet``.
        record_errors: What is kept of an error in the history of attempts: ``"full"`` keeps its class, its message and
            a short traceback, until the body is erased; ``"class"`` keeps its class alone.
        clock: Unix seconds. ``None`` takes the process's clock for SQLite, and the server's for PostgreSQL.

    Raises:
        ConfigurationError: It cannot live there, or a number is out of its range.
    """

    durable: ClassVar[bool] = True
    blocking: ClassVar[bool] = False

    def __init__(  # noqa: PLR0913 - the options of an inbox, all but one by keyword
        self,
        where: str | URL | Engine,
        *,
        lease: float = 60.0,
        remember: float = 30 * DAY,
        settle: float = 1.0,
        retain_body: float = 7 * DAY,
        max_backlog: int = 1_000_000,
        min_free_disk: int = 64 * 1024 * 1024,
        max_waiting: int = 10_000,
        timeout: float = 10.0,
        codec: Codec | None = None,
        record_errors: RecordErrors = "full",
        clock: Callable[[], float] | None = None,
    ) -> None:
        numbers = {"lease": lease, "remember": remember, "retain_body": retain_body, "timeout": timeout}
        counts = {"max_backlog": max_backlog, "max_waiting": max_waiting}
        check_numbers(seconds=numbers, settle=settle, counts=counts, min_free_disk=min_free_disk)
        self.lease: float = lease
        self.timeout: float = timeout
        self._remember, self._settle, self._retain_body = (
            milliseconds(time) for time in (remember, settle, retain_body)
        )
        self._max_waiting = max_waiting
        self._bodies = Bodies(codec)
        self._record_errors: RecordErrors = check_record_errors(record_errors)
        self._store = store_of(where, clock)
        self._backlog = Backlog(max_backlog, min_free_disk)
        self._settlings: dict[tuple[str, ...], str] = {}
        self._policies: dict[str, RetryPolicy] = {}
        self._ticks = monotonic
        self._begin()
        _inboxes.add(self)

    def _begin(self) -> None:
        """Make what belongs to one process: its name, its threads."""
        self._kind = kind_of_threads()
        self.owner: str = new_owner()
        self._history = History(self._bodies, self._record_errors, self.owner)
        self._claimant = Claimant(self.owner, milliseconds(self.lease), self._bodies, self._history)
        self._recorder = Recorder(
            self._store, self._backlog, self._claimant, remember=self._remember, settle=self._settle
        )
        self._watch = Watch(self.lease)
        self._time = TrustedTime()
        self._committer = Committer(self._store, self._max_waiting)
        self._maintenance = MaintenanceThread(self, self.lease, self._moment)

    def _moment(self) -> float:
        """Return monotonic seconds."""
        return self._ticks()

    def _submit(self, operation: Operation[T]) -> InboxFuture[T]:
        if self._kind is not kind_of_threads():
            self._store.renew_locks()
            self._begin()
        return self._committer.submit(operation)

    def _run(self, apply: Callable[[Connection, int], T]) -> InboxFuture[T]:
        return self._submit(Operation(apply))

    @property
    def location(self) -> str:
        """Which store this is; see `DurableInbox.location`."""
        return self._store.location

    def open(self) -> None:
        """Connect, and create or upgrade the tables, now rather than at the first delivery.

        Raises:
            InboxUnavailable: The store cannot be reached or written to.
            ConfigurationError: Its tables belong to a later version.
        """
        self._now(self._run(write_nothing_new))

    def _now(self, answer: InboxFuture[T]) -> T:
        """Wait for an answer in this thread."""
        try:
            return answer.result(self.timeout)
        except TimeoutError:
            message = f"the inbox has not answered for {self.timeout:g} s"
            raise InboxUnavailable(message) from None

    # Recording

    def store(self, delivery: Delivery, *, claim: bool, handlers: Sequence[str] | None = None) -> InboxFuture[Stored]:
        """Record a delivery; see `Inbox.store`."""
        if self._backlog.is_time_to_look(delivery.endpoint, workers_needed=not claim):
            self._run(self._look)
        self._time.prove(milliseconds(delivery.received_at), self._moment())
        hold, give_back = self._maintenance.hold, self._give_back
        return self._submit(
            self._recorder.recording(delivery, claim=claim, handlers=handlers, hold=hold, give_back=give_back)
        )

    def _look(self, connection: Connection, now: int) -> None:
        self._backlog.look(SQLCensus(self._store, connection, now))

    # Claims

    def attach(self, endpoint: str, retry: RetryPolicy) -> None:
        """Say how often an endpoint's deliveries may crash; see `DurableInbox.attach`."""
        self._policies[endpoint] = retry

    @contextmanager
    def renewing(self, claim: Claim) -> Generator[bool]:
        """Renew a claim for as long as its handlers run; see `Inbox.renewing`."""
        try:
            yield self._maintenance.keep(claim)
        finally:
            self._maintenance.stop_renewing(claim)

    def confirm(self, claim: Claim) -> InboxFuture[None]:
        """Renew a claim now; see `Inbox.confirm`."""
        renewing = self._renewing([claim])

        def confirm(connection: Connection, now: int) -> None:
            if not renewing(connection, now):
                raise lost(claim)

        return self._submit(GrantingOperation(confirm, lambda _: self._maintenance.hold([claim])))

    def claim(
        self, endpoint: str, *, limit: int, ordering: Ordering = None, on_dead: OnDead = "skip"
    ) -> InboxFuture[Sequence[Claimed]]:
        """Claim what is due and has never crashed; see `DurableInbox.claim`."""
        return self._granting(self._claiming(endpoint, limit, ordering, on_dead, crashed=False))

    def claim_isolated(
        self, endpoint: str, *, ordering: Ordering = None, on_dead: OnDead = "skip"
    ) -> InboxFuture[Sequence[Claimed]]:
        """Claim one delivery that has crashed before; see `DurableInbox.claim_isolated`."""
        return self._granting(self._claiming(endpoint, 1, ordering, on_dead, crashed=True))

    def _claiming(
        self, endpoint: str, limit: int, ordering: Ordering, on_dead: OnDead, *, crashed: bool
    ) -> Callable[[Connection, int], Sequence[Claimed]]:
        def claim(connection: Connection, now: int) -> Sequence[Claimed]:
            if ordering is not None:
                statements.in_turn(connection, self._store, endpoint)
            due = statements.due(endpoint, now, crashed=crashed)
            query = statements.candidates(self._store, due, limit=limit, ordering=ordering, on_dead=on_dead)
            return self._claimant.take(connection, query, now)

        return claim

    def claim_number(
        self, number: int, *, ordering: Ordering = None, on_dead: OnDead = "skip"
    ) -> InboxFuture[Claimed | None]:
        """Claim one delivery by its number; see `DurableInbox.claim_number`."""

        def claim(connection: Connection, now: int) -> Claimed | None:
            endpoint = connection.execute(select(_c.endpoint).where(_c.id == number)).scalar()
            if endpoint is None:
                return None
            if ordering is not None:
                statements.in_turn(connection, self._store, endpoint)
            due = select(_c.id).where(_c.id == number, statements.STILL_READY, _c.available_at <= now)
            query = statements.candidates(self._store, due, limit=1, ordering=ordering, on_dead=on_dead)
            return next(iter(self._claimant.take(connection, query, now)), None)

        return self._submit(
            GrantingOperation(
                claim,
                lambda one: self._maintenance.hold([] if one is None else [one.claim]),
                lambda one: self._give_back([] if one is None else [one.claim]),
            )
        )

    def _granting(self, claim: Callable[[Connection, int], Sequence[Claimed]]) -> InboxFuture[Sequence[Claimed]]:
        return self._submit(
            GrantingOperation(
                claim,
                lambda found: self._maintenance.hold([one.claim for one in found]),
                lambda found: self._give_back([one.claim for one in found]),
            )
        )

    def _give_back(self, claims: Sequence[Claim]) -> None:
        """Release claims that were granted when nobody waited for them any more: no attempt has been made."""
        for claim in claims:
            self._maintenance.stop_renewing(claim)
            with suppress(InboxError):  # it has been closed, and the reaper will do it
                self.release(claim, retry_in=0)

    def count_crashed(self, endpoint: str) -> InboxFuture[int]:
        """Count due deliveries that have crashed before; see `DurableInbox.count_crashed`."""
        return self._run(
            lambda connection, now: connection.execute(
                statements.due(endpoint, now, func.count(), crashed=True)
            ).scalar_one()
        )

    def enqueue(  # noqa: PLR0913 - one argument a rule
        self,
        endpoint: str,
        *,
        limit: int,
        again_after: float,
        ordering: Ordering = None,
        on_dead: OnDead = "skip",
        with_each: Callable[[Connection, Sequence[int]], None] | None = None,
    ) -> InboxFuture[Sequence[int]]:
        """Mark due deliveries as handed to an engine; see `DurableInbox.enqueue`."""

        def enqueue(connection: Connection, now: int) -> Sequence[int]:
            lately = _c.handed_at > now - milliseconds(again_after)
            due = statements.due(endpoint, now)
            window = statements.first(due, limit=limit, ordering=ordering, on_dead=on_dead)
            query = statements.waiting(self._store, window, or_(_c.handed_at.is_(None), not_(lately)))
            rows = statements.taken(connection, query, {"handed_at": now}, columns=[_c.id])
            numbers = sorted(rows.scalars())
            if with_each is not None and numbers:
                with_each(connection, numbers)
            return numbers

        return self._run(enqueue)

    # Settling

    def succeed(self, claim: Claim, handler: str) -> InboxFuture[None]:
        """Record a handler's success; see `Inbox.succeed`."""

        def succeed(connection: Connection, _now: int) -> None:
            check_held(connection, self._store, claim)
            record_success(connection, self._store, claim, handler)

        return self._run(succeed)

    def complete(self, claim: Claim, outcome: Outcome, *, attempt: RecordedAttempt | None = None) -> InboxFuture[None]:
        """End a delivery; see `Inbox.complete`."""
        ended = partial(self._history.settled, claim, attempt, AttemptOutcome(outcome))
        return self._end(claim, lambda now: changes.completed(outcome, now=now), ended)

    def fail(
        self, claim: Claim, error: str, *, retry_in: float, attempt: RecordedAttempt | None = None
    ) -> InboxFuture[None]:
        """Give a claim back after a failure; see `Inbox.fail`."""
        error = self._history.error(error, attempt)
        ended = partial(self._history.settled, claim, attempt, AttemptOutcome.FAILED, reason=error)
        return self._end(claim, lambda now: changes.failed(claim, error, now=now, retry_in=retry_in), ended)

    def release(
        self, claim: Claim, *, retry_in: float, error: str | None = None, attempt: RecordedAttempt | None = None
    ) -> InboxFuture[None]:
        """Give a claim back; see `Inbox.release`."""
        reason = None if error is None else self._history.error(error, attempt)
        ended = partial(self._history.settled, claim, attempt, AttemptOutcome.RELEASED, reason=reason)
        return self._end(claim, lambda now: changes.released(now=now, retry_in=retry_in, error=reason), ended)

    def return_unhandled(
        self, claim: Claim, error: str, *, retry_in: float, attempt: RecordedAttempt | None = None
    ) -> InboxFuture[None]:
        """Give a claim back for want of a handler; see `DurableInbox.return_unhandled`."""
        ended = partial(self._history.settled, claim, attempt, AttemptOutcome.UNHANDLED, reason=error)
        return self._end(claim, lambda now: changes.unhandled(claim, error, now=now, retry_in=retry_in), ended)

    def bury(
        self, claim: Claim, error: str, outcome: Outcome, *, attempt: RecordedAttempt | None = None
    ) -> InboxFuture[None]:
        """End a delivery as dead; see `Inbox.bury`."""
        error = self._history.error(error, attempt)
        ended = partial(self._history.settled, claim, attempt, AttemptOutcome.FAILED, dead=True, reason=error)
        return self._end(claim, lambda now: changes.buried(claim, error, outcome, now=now), ended)

    def _end(self, claim: Claim, values: Callable[[int], Values], ended: Callable[..., bytes]) -> InboxFuture[None]:
        which = {"its_number": claim.number, "its_fence": claim.fence}
        statement = self._settling((*values(0), "history"))

        def unchanged() -> None:
            raise lost(claim)

        operation: RowOperation[None] = RowOperation(
            statement,
            lambda now: {**values(now), "history": ended(now=now), **which},
            changed=None,
            unchanged=unchanged,
            row=(0, statement, claim.number),
        )
        return self._submit(operation)

    def _settling(self, columns: tuple[str, ...]) -> str:
        text = self._settlings.get(columns)
        if text is None:
            statement = statements.settling(columns)
            text = self._settlings[columns] = self._store.text_of(statement)
        return text

    def transaction(self, claim: Claim, handler: str) -> AbstractContextManager[Connection]:
        """Open a transaction that commits with the record of a success; see `DurableInbox.transaction`."""
        return transaction(self._store, claim, handler)

    def implicit_transaction(self, claim: Claim, handler: str) -> None:
        """Enclose nothing: a handler asks for its transaction; see `DurableInbox.implicit_transaction`."""

    # Keeping

    def start_maintenance(self) -> None:
        """Start the thread that renews, reaps and tidies; the first claim starts it too."""
        self.open()
        self._maintenance.start()

    def renew(self, claims: Sequence[Claim]) -> Collection[int]:
        """Renew claims of this process; see `Maintainable.renew`."""
        return self._now(self._run(self._renewing(claims)))

    def _renewing(self, claims: Sequence[Claim]) -> Callable[[Connection, int], Collection[int]]:
        fences = {claim.number: claim.fence for claim in claims}

        def renew(connection: Connection, now: int) -> Collection[int]:
            same = tuple_(_c.id, _c.fence).in_(fences.items())
            held = statements.by_number(select(_c.id).where(_c.id.in_(fences), same, statements.STILL_CLAIMED))
            numbers = set(connection.execute(held).scalars())
            values = {"lease_until": now + self._claimant.lease}
            # One that its handler's transaction has locked is no less held.
            statements.taken(connection, statements.unlocked(self._store, held), values, columns=[_c.id])
            return numbers

        return renew

    def reap_now(self) -> int:
        """Free overdue claims, in this thread; see `Maintainable.reap_now`."""
        freed = self._now(self.reap())
        log_reaped(freed)
        return len(freed)

    def reap(self) -> InboxFuture[Sequence[tuple[int, bool]]]:
        """Free deliveries whose claims have run out; see `DurableInbox.reap`."""
        names = ("id", "fence", "lease_until", "endpoint", "failures", "crashes", "owner", "history")
        columns = [_c[name] for name in names]

        def reap(connection: Connection, now: int) -> Sequence[tuple[int, bool]]:
            self._time.look(now, self._moment())
            too_far = now + 2 * self._claimant.lease
            wrong = or_(_c.lease_until < now, _c.lease_until > too_far)
            claims: Any = select(*columns).where(
                CLAIMED, wrong, statements.plain(_c.endpoint).in_(list(self._policies))
            )
            query: Any = statements.by_index(claims, BY_CLAIM).order_by(_c.lease_until).limit(_MOST_REAPED)
            # One that its handler's transaction has locked lives, although nobody can renew it.
            rows = connection.execute(statements.unlocked(self._store, query)).all()
            freed: list[tuple[int, bool]] = []
            overdue_claims = expiries(
                self._watch,
                rows,
                self._policies,
                history=self._history,
                held=self._maintenance.holding(),
                now=now,
                moment=self._moment(),
            )
            for lease, values, dead in overdue_claims:
                same = (_c.id == lease.number, _c.fence == lease.fence, _c.lease_until == lease.until)
                overdue = statements.unlocked(self._store, select(_c.id).where(*same, statements.STILL_CLAIMED))
                taken = statements.taken(connection, overdue, values, columns=[_c.id])
                freed += [(row.id, dead) for row in taken]
            return freed

        return self._run(reap)

    def heartbeat(self, owner: str, served: Iterable[Served]) -> InboxFuture[None]:
        """Write a worker's heartbeat; see `DurableInbox.heartbeat`."""
        wanted = list(served)
        upsert = self._store.insert(worker)
        key = [worker.c.owner, worker.c.endpoint]
        values = {name: upsert.excluded[name] for name in ("seen_at", "handlers", "patterns")}
        upsert = upsert.on_conflict_do_update(index_elements=key, set_=values)

        def heartbeat(connection: Connection, now: int) -> None:
            if rows := heartbeats(owner, wanted, now):
                connection.execute(upsert, rows)
            connection.execute(delete(worker).where(worker.c.seen_at < now - milliseconds(DAY)))

        return self._run(heartbeat)

    def retire(self, owner: str, endpoints: Iterable[str]) -> InboxFuture[None]:
        """Forget a worker that has stopped; see `DurableInbox.retire`."""
        rows = delete(worker).where(worker.c.owner == owner, worker.c.endpoint.in_(list(endpoints)))

        def retire(connection: Connection, _now: int) -> None:
            connection.execute(rows)

        return self._run(retire)

    def workers(self) -> InboxFuture[Sequence[WorkerRecord]]:
        """Return the workers that are alive; see `DurableInbox.workers`."""
        return self._run(all_workers)

    # Operators

    def find(self, query: Query) -> Sequence[RecordedDelivery]:
        """Return recorded deliveries; see `DurableInbox.find`."""
        with self._store.read() as (connection, _):
            return queries.find(connection, query)

    def get(self, number: int) -> RecordedDelivery:
        """Return one recorded delivery; see `DurableInbox.get`."""
        with self._store.read() as (connection, _):
            return queries.get(connection, number, self._history)

    def number_of(self, delivery_id: str) -> int:
        """Return the number of a delivery by its id; see `DurableInbox.number_of`."""
        with self._store.read() as (connection, _):
            return queries.number_of(connection, delivery_id)

    def body(self, number: int) -> bytes | None:
        """Return a delivery's raw body; see `DurableInbox.body`."""
        with self._store.read() as (connection, _):
            stored = queries.body(connection, number)
        return None if stored is None else self._bodies.decode(*stored)

    def stats(self) -> Sequence[Stats]:
        """Count deliveries by endpoint and state; see `DurableInbox.stats`."""
        with self._store.read() as (connection, now):
            return queries.stats(connection, now)

    def replay(self, number: int, *, confirmed: bool = False) -> InboxFuture[None]:
        """Make an ended delivery ready again; see `DurableInbox.replay`."""
        return self._run(
            lambda connection, now: queries.replay(connection, self._store, number, now=now, confirmed=confirmed)
        )

    def purge(self, number: int) -> InboxFuture[None]:
        """Erase an ended delivery's body; see `DurableInbox.purge`."""
        return self._run(lambda connection, _now: queries.purge(connection, self._store, number))

    def prune(self) -> Purged:
        """Erase what has been kept long enough; see `DurableInbox.prune`."""
        received_at, now = self._run(queries.newest).result()
        if received_at is not None:
            self._time.prove(received_at, self._moment())
        now = self._time.now(now, self._moment())
        purged = queries.prune(self._run, bodies_before=now - self._retain_body, records_before=now - self._remember)
        log_purged(purged)
        return purged

    def missing(self) -> str | None:
        """Say what of it is not there yet, and make nothing: the first use makes it. ``None`` when it is there."""
        return self._store.missing()

    def fault(self) -> str | None:
        """Say which of the store's settings endangers what it holds; ``None`` when none does."""
        return self._store.fault()

    def health(self) -> Health:
        """Look at the store itself; see `DurableInbox.health`."""
        with self._store.read() as (connection, now):
            version, _ = versions(connection)
            full = self._backlog.fault(SQLCensus(self._store, connection, now))
        where = repr(self._store)
        return Health(store=where, schema=str(version), clock=now / 1000, full=full, fault=self.fault())

    def close(self) -> None:
        """Finish what was submitted, stop the threads and close the connections."""
        self._maintenance.close()
        self._committer.close()
        self._store.close()

    def __repr__(self) -> str:
        """Show where it lives, without a password."""
        return f"SQLInbox({self._store!r})"

    # Threads and connections stay with the process that made them.

    @staticmethod
    def before_fork() -> None:
        """Get all inboxes ready for a fork."""
        for inbox in _inboxes:
            inbox._store.before_fork()

    @staticmethod
    def after_fork() -> None:
        """Go on in the parent."""
        for inbox in _inboxes:
            inbox._store.after_fork()

    @staticmethod
    def begin_as_child() -> None:  # pragma: no cover - in a child, which coverage does not see; tests fork
        """Begin anew in the child."""
        for inbox in _inboxes:
            inbox._store.forget()
            inbox._begin()


_inboxes: WeakSet[SQLInbox] = WeakSet()
if hasattr(os, "register_at_fork"):  # pragma: no branch - Windows does not fork
    os.register_at_fork(
        before=SQLInbox.before_fork, after_in_parent=SQLInbox.after_fork, after_in_child=SQLInbox.begin_as_child
    )
