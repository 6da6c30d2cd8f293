"""The inbox of a single process: nothing survives a restart, and nothing is needed for it.

Its promise is deduplication: while the process lives, and for as long as it remembers, the same delivery is
not run twice, and a failed one may be tried again. Whether it is tried again is up to the sender, and Roovet
promises no retries: for money, use a durable inbox.
"""

from __future__ import annotations

from collections import OrderedDict
from contextlib import nullcontext
from itertools import count
from threading import Lock
from time import monotonic
from typing import TYPE_CHECKING, ClassVar

import msgspec

from roovet_webhooks.errors import ConfigurationError, InboxFull, LeaseLost
from roovet_webhooks.inbox.protocol import Claim, Stored, Verdict
from roovet_webhooks.inbox.states import Outcome, State, Step, next_state

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from contextlib import AbstractContextManager

    from roovet_webhooks.delivery import Delivery, Identity
    from roovet_webhooks.inbox.records import RecordedAttempt

DAY = 86_400.0
SWEEP_INTERVAL = 1.0
_DUPLICATE = Stored(Verdict.DUPLICATE)
_IN_FLIGHT = Stored(Verdict.IN_FLIGHT)
_KEPT = nullcontext(True)  # noqa: FBT003 - the value of the context
_NOTHING: frozenset[str] = frozenset()


class _Record(msgspec.Struct, gc=False):
    stored_at: float
    state: State = State.READY
    fence: int = 0
    attempts: int = 0
    succeeded: frozenset[str] = _NOTHING
    outcome: Outcome | None = None

    def move(self, step: Step) -> None:
        self.state = next_state(self.state, step)


class MemoryInbox:
    """An inbox in memory, bounded in time and number.

    A claim has no lease here: it lives as long as the handlers it was given for, in this very process.

    Args:
        remember: Seconds for which a delivery is remembered; 24 hours by default, the window of which the
            vendor speaks ("Pagination & Idempotency").
        max_deliveries: How many are remembered; the oldest that is not being handled goes first.
        clock: Monotonic seconds.

    Raises:
        ConfigurationError: A bound is not positive.
    """

    durable: ClassVar[bool] = False
    blocking: ClassVar[bool] = False

    def __init__(
        self,
        *,
        remember: float = DAY,
        max_deliveries: int = 100_000,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        if not (remember > 0 and max_deliveries > 0):
            message = f"remember ({remember!r} s) and max_deliveries ({max_deliveries!r}) must be positive"
            raise ConfigurationError(message)
        self._remember = remember
        self._max = max_deliveries
        self._clock = clock
        self._fences = count(1)
        self._sweep_at = 0.0
        self._lock = Lock()
        self._records: OrderedDict[Identity, _Record] = OrderedDict()

    @property
    def timeout(self) -> float | None:
        """No bound: nothing here waits."""
        return None

    def __len__(self) -> int:
        """Count the remembered deliveries."""
        return len(self._records)

    def store(
        self,
        delivery: Delivery,
        *,
        claim: bool,
        handlers: Sequence[str] | None = None,  # noqa: ARG002 - this process has them as long as the record lives
    ) -> Stored:
        """Record a delivery; see `Inbox.store`."""
        identity = delivery.identity
        now = self._clock()
        with self._lock:
            record = self._records.get(identity)
            if record is not None and self._expired(record, now):
                del self._records[identity]
                record = None
            if record is None:
                if now >= self._sweep_at or len(self._records) >= self._max:
                    self._make_room(now)
                record = self._records[identity] = _Record(now)
            elif record.state is State.CLAIMED:
                return _IN_FLIGHT
            elif record.state is not State.READY or not claim:
                return _DUPLICATE
            if not claim:
                return Stored(Verdict.NEW)
            record.move(Step.CLAIM)
            # One counter for all: a delivery that was forgotten and comes back never repeats a fence.
            record.fence = next(self._fences)
            record.attempts += 1
            return Stored(Verdict.NEW, Claim(identity, record.fence, record.attempts, record.succeeded))

    def renewing(self, claim: Claim) -> AbstractContextManager[bool]:  # noqa: ARG002 - it has no lease to renew
        """Do nothing; see `Inbox.renewing`."""
        return _KEPT

    def confirm(self, claim: Claim) -> None:
        """Check that a claim holds; see `Inbox.confirm`."""
        with self._lock:
            self._held(claim)

    def succeed(self, claim: Claim, handler: str) -> None:
        """Record a handler's success; see `Inbox.succeed`."""
        with self._lock:
            record = self._held(claim)
            record.succeeded |= {handler}

    def complete(self, claim: Claim, outcome: Outcome, *, attempt: RecordedAttempt | None = None) -> None:  # noqa: ARG002 - nothing of it is kept
        """End a delivery; see `Inbox.complete`."""
        with self._lock:
            record = self._held(claim)
            record.move(Step.COMPLETE)
            record.outcome = outcome
            record.succeeded = _NOTHING

    def fail(self, claim: Claim, error: str, *, retry_in: float, attempt: RecordedAttempt | None = None) -> None:  # noqa: ARG002 - the sender drives retries
        """Give a claim back after a failure; see `Inbox.fail`. The next copy from the sender runs it."""
        with self._lock:
            self._held(claim).move(Step.FAIL)

    def release(
        self,
        claim: Claim,
        *,
        retry_in: float,  # noqa: ARG002 - the sender drives retries
        error: str | None = None,  # noqa: ARG002 - there is nobody to show it to
        attempt: RecordedAttempt | None = None,  # noqa: ARG002 - there is nobody to show it to
    ) -> None:
        """Give a claim back; see `Inbox.release`. The next copy from the sender runs it."""
        with self._lock:
            self._held(claim).move(Step.RELEASE)

    def bury(self, claim: Claim, error: str, outcome: Outcome, *, attempt: RecordedAttempt | None = None) -> None:  # noqa: ARG002 - there is nobody to show it to
        """End a delivery as dead; see `Inbox.bury`. A copy from the sender does not run it."""
        with self._lock:
            record = self._held(claim)
            record.move(Step.BURY)
            record.outcome = outcome

    def _held(self, claim: Claim) -> _Record:
        record = self._records.get(claim.identity)
        if record is None or record.fence != claim.fence or record.state is not State.CLAIMED:
            message = f"claim {claim.fence} is over; it changed nothing"
            raise LeaseLost(message)
        return record

    def _expired(self, record: _Record, now: float) -> bool:
        return record.state is not State.CLAIMED and record.stored_at <= now - self._remember

    def _make_room(self, now: float) -> None:
        """Forget what is over; with the lock held.

        Raises:
            InboxFull: Every remembered delivery is being handled right now.
        """
        self._sweep_at = now + SWEEP_INTERVAL
        busy = 0
        while self._records:
            identity, record = next(iter(self._records.items()))
            if not self._expired(record, now) and len(self._records) < self._max:
                return
            if record.state is not State.CLAIMED:
                del self._records[identity]
                continue
            busy += 1
            if busy > len(self._records):
                message = f"{len(self._records)} deliveries are being handled at once, and no more are taken"
                raise InboxFull(message)
            self._records.move_to_end(identity)
