"""The thread that looks after claims: renews those of this process, and frees those of processes that have gone.

A lease is a promise in wall-clock time, and wall clocks jump. So nobody is declared gone by the clock alone: a
claim is freed when it was seen unchanged, by one observer, for a full lease of that observer's own monotonic time.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from roovet_webhooks import telemetry
from roovet_webhooks.errors import InboxError
from roovet_webhooks.inbox import changes
from roovet_webhooks.inbox.threads import started

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence, Set as AbstractSet

    from roovet_webhooks.inbox.changes import Values
    from roovet_webhooks.inbox.history import History
    from roovet_webhooks.inbox.protocol import Claim
    from roovet_webhooks.inbox.records import Purged
    from roovet_webhooks.retry import RetryPolicy

TIDY_EVERY = 60.0
# Transactions of one tidying, at most: what a clock erases that is wrong in spite of all has a bound, and can be seen.
TIDYINGS = 20
CLOSING = 10.0  # seconds
# Whoever has a longer lease renews it three times in its own time: one of up to thirty times ours is safe from us.
PATIENCE_WHERE_FAR = 10


class Lease(NamedTuple):
    """A claim as the reaper sees it: any of its parts changes when it is renewed, settled or claimed anew.

    Attributes:
        number: Which delivery.
        fence: Which claim of it.
        until: When it runs out by the store's clock, milliseconds.
        far: Whether that is further away than it can be, unless somebody has another lease or the clock was set back.
    """

    number: int
    fence: int
    until: int
    far: bool = False


class Watch:
    """Remembers since when claims have been seen unchanged. Pure: told what there is and what time it is.

    Args:
        lease: Seconds for which a claim must have been seen unchanged; ten times that, where it ends too far away.
    """

    def __init__(self, lease: float) -> None:
        self._lease = lease
        self._since: dict[Lease, float] = {}

    def overdue(self, seen: Iterable[Lease], now: float) -> list[Lease]:
        """Return the claims that have not changed for a lease.

        Args:
            seen: All claims whose lease has run out by the store's clock, or is too far away; what is not among them
                is forgotten.
            now: Monotonic seconds.
        """
        self._since = {lease: self._since.get(lease, now) for lease in seen}
        patience = {False: self._lease, True: self._lease * PATIENCE_WHERE_FAR}
        return [lease for lease, since in self._since.items() if now - since >= patience[lease.far]]


class Expiry(NamedTuple):
    """What becomes of a claim that has run out.

    Attributes:
        lease: The claim; whoever carries this out compares all of it.
        values: The columns to write.
        dead: Whether no attempt is left.
    """

    lease: Lease
    values: Values
    dead: bool


def expiries(  # noqa: PLR0913 - what decides, and what time it is
    watch: Watch,
    rows: Iterable[Any],
    policies: Mapping[str, RetryPolicy],
    *,
    history: History,
    held: AbstractSet[tuple[int, int]] = frozenset(),
    now: int,
    moment: float,
) -> Iterator[Expiry]:
    """Yield what becomes of those claims that have not changed for a lease.

    Args:
        watch: What has been seen so far.
        rows: The claims whose lease has run out by the store's clock, or is too far away; with the columns
            ``id``, ``fence``, ``lease_until``, ``endpoint``, ``failures``, ``crashes``, ``owner`` and ``history``.
        policies: How often the deliveries of an endpoint may crash.
        history: Keeps that it crashed.
        held: Numbers and fences of claims that live because this process holds them, however late it renews them.
        now: Milliseconds.
        moment: Monotonic seconds.
    """
    found = {row.id: row for row in rows if (row.id, row.fence) not in held}
    seen = [Lease(row.id, row.fence, row.lease_until, row.lease_until > now) for row in found.values()]
    for lease in watch.overdue(seen, moment):
        row = found[lease.number]
        crashes = row.crashes + 1
        wait = policies[row.endpoint].after_crash(failures=row.failures, crashes=crashes)
        values = changes.expired(crashes, now=now, retry_in=wait)
        values["history"] = history.crashed(row, now=now, dead=wait is None)
        yield Expiry(lease, values, wait is None)


def log_reaped(freed: Iterable[tuple[int, bool]]) -> None:
    """Tell which claims have run out, and which deliveries are dead of it."""
    for number, dead in freed:
        telemetry.log_event("inbox.poisoned" if dead else "inbox.lease_expired", number=number)


def log_purged(purged: Purged) -> None:
    """Log what a tidying has erased."""
    if purged.bodies or purged.tombstones:
        telemetry.log_event("inbox.pruned", bodies=purged.bodies, records=purged.tombstones)


class Maintainable(Protocol):
    """What a maintenance thread asks of its inbox. Each may raise `InboxError`."""

    def renew(self, claims: Sequence[Claim]) -> Collection[int]:
        """Renew claims and return the numbers of those that are still held."""
        ...

    def reap_now(self) -> int:
        """Free overdue claims."""
        ...

    def prune(self) -> object:
        """Erase what has been kept long enough."""
        ...


class _Held(NamedTuple):
    """A claim of this process.

    Attributes:
        claim: The claim.
        since: Monotonic seconds at which the store last granted or renewed it; ``None`` when it has done neither here.
    """

    claim: Claim
    since: float | None


class MaintenanceThread:
    """Renews, reaps and tidies, from a daemon thread that starts with the first claim or worker.

    A claim is renewed from the moment it is granted, not from the moment its handlers start: an event loop that a
    handler blocks starts nothing.

    Args:
        kept: The inbox.
        lease: Seconds.
        clock: Monotonic seconds.
    """

    def __init__(self, kept: Maintainable, lease: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._kept = kept
        self._lease = lease
        self._clock = clock
        self._held: dict[int, _Held] = {}
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._logged: dict[str, str] = {}

    def hold(self, claims: Iterable[Claim]) -> None:
        """Renew claims from now on, which the store has just granted or renewed.

        Called with none, too, when somebody has asked for a claim: what stands in the way may be the claim of a process
        that is gone, which nobody else may be there to free.
        """
        moment = self._clock()
        with self._lock:
            for claim in claims:
                self._held[claim.number] = _Held(claim, moment)
        self._ensure_started()

    def keep(self, claim: Claim) -> bool:
        """Renew a claim from now on, and return whether it is known to hold.

        It is while the store has confirmed it within half a lease: nobody frees what was renewed within a whole one.
        """
        with self._lock:
            held = self._held.get(claim.number)
            if held is None or held.claim.fence != claim.fence:
                held = self._held[claim.number] = _Held(claim, None)
        self._ensure_started()
        return held.since is not None and self._clock() - held.since < self._lease / 2

    def _ensure_started(self) -> None:
        # Where no thread can be had, the next claim or heartbeat asks for one again; a lease is longer than that.
        self._try("start", self.start)

    def stop_renewing(self, claim: Claim) -> None:
        """Renew a claim no more."""
        with self._lock:
            held = self._held.get(claim.number)
            if held is not None and held.claim.fence == claim.fence:
                del self._held[claim.number]

    def holding(self) -> AbstractSet[tuple[int, int]]:
        """Return the numbers and fences of the claims that this process holds."""
        with self._lock:
            return {(number, held.claim.fence) for number, held in self._held.items()}

    def start(self) -> None:
        """Start the thread, if it does not run.

        Raises:
            InboxUnavailable: The system grants no thread, for now.
        """
        with self._lock:
            if self._thread is None:
                thread = threading.Thread(target=self._serve, name="roovet-webhooks-maintenance", daemon=True)
                self._thread = started(thread)

    def close(self) -> None:
        """Stop the thread. One that waits for its store for too long is left behind."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join(CLOSING)

    def _serve(self) -> None:
        tidy_at = self._clock()
        while not self._stopping.wait(self._lease / 3):
            telemetry.report_blocked_loops()
            self._try("renew", self.renew)
            self._try("reap", self._kept.reap_now)
            if self._clock() >= tidy_at:
                tidy_at = self._clock() + TIDY_EVERY
                self._try("prune", self._kept.prune)

    def _try(self, name: str, work: Callable[[], object]) -> None:
        try:
            work()
            self._logged.pop(name, None)
        except InboxError as error:
            # Once an outage, however long it lasts.
            if self._logged.get(name) != str(error):
                self._logged[name] = str(error)
                telemetry.log_event("inbox.maintenance_failed", code=error.code, reason=str(error))
        except Exception as error:  # noqa: BLE001 - the thread must outlive whatever goes wrong once
            telemetry.log_event("inbox.maintenance_failed", error)

    def renew(self) -> None:
        """Renew what is held, and forget what is lost: who runs it will learn so from the fence."""
        with self._lock:
            claims = [held.claim for held in self._held.values()]
        if not claims:
            return
        moment = self._clock()
        renewed = self._kept.renew(claims)
        with self._lock:
            for claim in claims:
                held = self._held.get(claim.number)
                if held is None or held.claim.fence != claim.fence:
                    continue  # settled, or claimed anew meanwhile
                if claim.number in renewed:
                    self._held[claim.number] = _Held(claim, moment)
                else:
                    del self._held[claim.number]
