"""What an inbox promises: its operations, and the claims that they grant.

A claim carries a fence, a counter that every new claim raises and nothing lowers. A process that comes back with an
older fence changes nothing.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple, Protocol, TypeAlias, TypeVar

import msgspec

from roovet_webhooks.delivery import Delivery, Identity  # noqa: TC001 - types of fields, read at run time

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from contextlib import AbstractContextManager

    from roovet_webhooks.inbox.future import InboxFuture
    from roovet_webhooks.inbox.records import (
        Health,
        Purged,
        Query,
        RecordedAttempt,
        RecordedDelivery,
        Stats,
        WorkerRecord,
    )
    from roovet_webhooks.inbox.states import Outcome
    from roovet_webhooks.retry import RetryPolicy

T = TypeVar("T")

Answer: TypeAlias = "T | InboxFuture[T]"
"""What an operation returns, or that it is pending.

One that has to wait for a disk returns it as pending: one committer then serves all the requests that arrive together,
and no thread waits for it.
"""

ERROR_CHARACTERS = 500


class Claim(msgspec.Struct, frozen=True, gc=False):
    """The right to run a delivery's handlers, until its fence has moved on.

    Attributes:
        identity: Which delivery.
        fence: Higher than that of every earlier claim of the delivery.
        attempt: Which claim of the delivery this is, from 1.
        succeeded: Names of the handlers that succeeded in earlier attempts and do not run again.
        number: The delivery's number in a durable inbox; 0 in memory.
        round: Which round this is: a replay of a done delivery begins a new one.
        failures: Attempts that failed so far.
        crashes: Leases that ran out so far.
        first_received_at: When the delivery first came, Unix seconds, of one that has been recorded before: its sender
            may have sent it again since.
        handlers: Names of the handlers that were registered for the delivery when it was accepted, see
            `Plan.expected`. ``None`` when that was not recorded, or does not matter any more.
        unhandled_since: Since when it has been going back because a process had not all of them, Unix seconds.
        history: Its earlier attempts, as the inbox has stored them.
    """

    identity: Identity
    fence: int
    attempt: int = 1
    succeeded: frozenset[str] = frozenset()
    number: int = 0
    round: int = 1
    failures: int = 0
    crashes: int = 0
    first_received_at: float | None = None
    handlers: tuple[str, ...] | None = None
    unhandled_since: float | None = None
    history: bytes | None = None


class Served(NamedTuple):
    """What a worker serves of one endpoint.

    Attributes:
        endpoint: Name of the receiver.
        handlers: Names of its handlers.
        patterns: Names and patterns of the events that they want.
    """

    endpoint: str
    handlers: tuple[str, ...] = ()
    patterns: tuple[str, ...] = ()


class Verdict(StrEnum):
    """What storing a delivery found."""

    NEW = "new"
    DUPLICATE = "duplicate"
    IN_FLIGHT = "in_flight"
    TOO_OLD = "too_old"


class Stored(msgspec.Struct, frozen=True, gc=False):
    """The answer to `Inbox.store`.

    Attributes:
        verdict: ``NEW`` when it is to be handled (a retry of a failed one included), ``DUPLICATE`` when it
            is recorded and there is nothing to do, ``IN_FLIGHT`` when another request is handling it,
            ``TOO_OLD`` when it was recorded as dead because it is older than the inbox remembers.
        claim: The claim, where one was asked for and given.
    """

    verdict: Verdict
    claim: Claim | None = None


class Claimed(NamedTuple):
    """A delivery and the right to run its handlers."""

    delivery: Delivery
    claim: Claim


class Inbox(Protocol):
    """A record of deliveries. Methods are called from any thread and may be called at the same time.

    Attributes:
        durable: Whether a stored delivery survives the process; only then may it be acknowledged before its
            handlers have run, and only then does the inbox itself drive the attempts.
        blocking: Whether a call may wait, so that an event loop must make it in a thread. Answering with a
            `InboxFuture` is the other way to wait.
    """

    durable: ClassVar[bool]
    blocking: ClassVar[bool]

    @property
    def timeout(self) -> float | None:
        """Seconds after which whoever waits for an answer of this inbox is told that it is unavailable."""
        ...

    def renewing(self, claim: Claim) -> AbstractContextManager[bool]:
        """Renew a claim while its handlers run; whatever then becomes of it, it is renewed no longer.

        The value is whether the claim is known to hold; if not, `confirm` it before the first handler runs.
        """
        ...

    def confirm(self, claim: Claim) -> Answer[None]:
        """Renew a claim now.

        Raises:
            LeaseLost: The fence has moved on.
        """
        ...

    def store(self, delivery: Delivery, *, claim: bool, handlers: Sequence[str] | None = None) -> Answer[Stored]:
        """Record a delivery, once for its identity.

        Args:
            delivery: What was verified.
            claim: Whether to claim it for the caller, who will run its handlers.
            handlers: Names of the handlers that are registered for it, so that no process ends it without them.

        Raises:
            InboxFull: There is no room for another open delivery.
            InboxUnavailable: The store cannot be reached.
        """
        ...

    def succeed(self, claim: Claim, handler: str) -> Answer[None]:
        """Record that a handler succeeded, so that a retry leaves it out.

        Raises:
            LeaseLost: The fence has moved on.
        """
        ...

    def complete(self, claim: Claim, outcome: Outcome, *, attempt: RecordedAttempt | None = None) -> Answer[None]:
        """End a claimed delivery as done.

        Args:
            claim: The claim.
            outcome: How it ended.
            attempt: What is known of the attempt, for the history of a durable inbox.

        Raises:
            LeaseLost: The fence has moved on.
        """
        ...

    def fail(
        self, claim: Claim, error: str, *, retry_in: float, attempt: RecordedAttempt | None = None
    ) -> Answer[None]:
        """Give a claim back after a failure, which counts.

        Args:
            claim: The claim.
            error: What went wrong, without a secret or a body.
            retry_in: Seconds to wait before the next attempt, where the inbox itself drives the attempts.
            attempt: As `complete` takes it; the errors of its runs are put after ``error``.

        Raises:
            LeaseLost: The fence has moved on.
        """
        ...

    def release(
        self, claim: Claim, *, retry_in: float, error: str | None = None, attempt: RecordedAttempt | None = None
    ) -> Answer[None]:
        """Give a claim back without counting a failure; arguments and errors as `fail`.

        Without an ``error`` the last one stays.
        """
        ...

    def bury(
        self, claim: Claim, error: str, outcome: Outcome, *, attempt: RecordedAttempt | None = None
    ) -> Answer[None]:
        """End a claimed delivery as dead: no attempt is left, or none could succeed.

        Args:
            claim: The claim.
            error: What went wrong, without a secret or a body.
            outcome: Why it is dead.
            attempt: As `fail` takes it.

        Raises:
            LeaseLost: The fence has moved on.
        """
        ...


Ordering: TypeAlias = Literal["resource"] | None
OnDead: TypeAlias = Literal["skip", "block"]


class ImplicitTransaction(Protocol):
    """A transaction in which a handler runs."""

    def part(self) -> AbstractContextManager[object]:
        """Undo what a block writes if it raises, and nothing else; the value is the connection."""
        ...


class DurableInbox(Inbox, Protocol):
    """An inbox that outlives the process, and from which workers take deliveries.

    It reaps, renews and tidies from a thread of its own, in each process that claims.
    """

    @property
    def location(self) -> str:
        """Which store this is, without a password: two inboxes of one location hold the same deliveries."""
        ...

    @property
    def owner(self) -> str:
        """Name of this process, which its claims and heartbeats bear."""
        ...

    @property
    def lease(self) -> float:
        """Seconds for which a claim holds unless it is renewed."""
        ...

    def open(self) -> None:
        """Connect, and create or upgrade the tables.

        Raises:
            InboxUnavailable: The store cannot be reached or written to.
            ConfigurationError: Its tables belong to a later version.
        """
        ...

    def attach(self, endpoint: str, retry: RetryPolicy) -> None:
        """Say how often the deliveries of an endpoint may crash: what the reaper goes by."""
        ...

    def claim(
        self, endpoint: str, *, limit: int, ordering: Ordering = None, on_dead: OnDead = "skip"
    ) -> Answer[Sequence[Claimed]]:
        """Claim deliveries that are due and have never crashed, the longest due first.

        A claim holds for a lease, and is renewed until the `renewing` around its handlers ends, or it is released.

        Args:
            endpoint: Whose deliveries.
            limit: How many at most.
            ordering: ``"resource"`` claims at most one delivery of a resource, and the earliest by ``ts`` first.
            on_dead: With an ordering, whether a dead delivery holds back the later ones of its resource.
        """
        ...

    def claim_isolated(
        self, endpoint: str, *, ordering: Ordering = None, on_dead: OnDead = "skip"
    ) -> Answer[Sequence[Claimed]]:
        """Claim one due delivery whose lease has run out before, to be run with nothing beside it."""
        ...

    def claim_number(
        self, number: int, *, ordering: Ordering = None, on_dead: OnDead = "skip"
    ) -> Answer[Claimed | None]:
        """Claim one delivery by its number, if it is ready and due: what an engine's task does."""
        ...

    def return_unhandled(
        self, claim: Claim, error: str, *, retry_in: float, attempt: RecordedAttempt | None = None
    ) -> Answer[None]:
        """Give a claim back because this process has not all of the delivery's handlers. It counts as no failure.

        Args:
            claim: The claim.
            error: Which handlers are missing.
            retry_in: Seconds to wait before the next attempt.
            attempt: What the attempt came to, for the history.

        Raises:
            LeaseLost: The fence has moved on.
        """
        ...

    def count_crashed(self, endpoint: str) -> Answer[int]:
        """Count the due deliveries whose lease has run out before."""
        ...

    def enqueue(  # noqa: PLR0913 - one argument a rule
        self,
        endpoint: str,
        *,
        limit: int,
        again_after: float,
        ordering: Ordering = None,
        on_dead: OnDead = "skip",
        with_each: Callable[[Any, Sequence[int]], None] | None = None,
    ) -> Answer[Sequence[int]]:
        """Mark due deliveries as handed to an engine and return their numbers.

        Args:
            endpoint: Whose deliveries.
            limit: How many may be handed over and not claimed at a time: of the due ones, the first so many are looked
                at. A backlog so does not all go to the engine, there to be handed over again and again.
            again_after: Seconds after which one that was handed over and is still ready is handed over again.
            ordering: As `claim` takes it.
            on_dead: As `claim` takes it.
            with_each: Called in the same transaction with its connection and the numbers: for an engine that keeps
                its tasks in the same database.
        """
        ...

    def start_maintenance(self) -> None:
        """Start to renew, reap and tidy, in a thread of the inbox."""
        ...

    def reap(self) -> Answer[Sequence[tuple[int, bool]]]:
        """Free deliveries whose claims have run out; return their numbers, and whether they are dead of it."""
        ...

    def heartbeat(self, owner: str, served: Iterable[Served]) -> Answer[None]:
        """Write a worker's heartbeat, and what it serves."""
        ...

    def retire(self, owner: str, endpoints: Iterable[str]) -> Answer[None]:
        """Forget a worker of endpoints: it has stopped in order."""
        ...

    def workers(self) -> Answer[Sequence[WorkerRecord]]:
        """Return the workers that have been heard of within a minute, one record for each of their endpoints."""
        ...

    def transaction(self, claim: Claim, handler: str) -> AbstractContextManager[object]:
        """Open a transaction that commits a handler's rows together with the record of its success.

        Raises:
            LeaseLost: The fence has moved on.
        """
        ...

    def implicit_transaction(
        self, claim: Claim, handler: str
    ) -> AbstractContextManager[ImplicitTransaction | None] | None:
        """Return what a sync handler runs in without asking for it.

        Returns:
            ``None`` for nothing. Else what is entered around it, in its thread; the value is the transaction that
            commits what it wrote together with the record of its success, or ``None`` when that is no transaction.
        """
        ...

    def find(self, query: Query) -> Sequence[RecordedDelivery]:
        """Return recorded deliveries, the newest first."""
        ...

    def number_of(self, delivery_id: str) -> int:
        """Return the number of a delivery by its id; it may have to look through all of them.

        Raises:
            DeliveryNotFound: There is none.
        """
        ...

    def get(self, number: int) -> RecordedDelivery:
        """Return one recorded delivery.

        Raises:
            DeliveryNotFound: There is none of that number.
        """
        ...

    def body(self, number: int) -> bytes | None:
        """Return the raw body of a delivery, ``None`` when it has been purged.

        Raises:
            DeliveryNotFound: There is none of that number.
        """
        ...

    def replay(self, number: int, *, confirmed: bool = False) -> Answer[None]:
        """Make a dead delivery ready again, or a done one in a new round.

        Args:
            number: Which.
            confirmed: For a done one: whether it is meant that all its effects happen again.

        Raises:
            DeliveryNotFound: There is none of that number.
            InvalidTransition: It is ready or claimed, its body is gone, or it is done and that was not confirmed.
        """
        ...

    def purge(self, number: int) -> Answer[None]:
        """Erase the body and the error of a done or dead delivery; a tombstone keeps it from running again.

        Raises:
            DeliveryNotFound: There is none of that number.
            InvalidTransition: It is ready or claimed.
        """
        ...

    def prune(self) -> Purged:
        """Erase what has been kept long enough, in small transactions; the inbox's own thread calls it."""
        ...

    def stats(self) -> Sequence[Stats]:
        """Count deliveries by endpoint and state."""
        ...

    def fault(self) -> str | None:
        """Say which of the store's settings endangers what it holds; ``None`` when none does."""
        ...

    def health(self) -> Health:
        """Look at the store itself: its clock, its room, its tables, its settings.

        Raises:
            InboxUnavailable: The store cannot be reached or written to.
        """
        ...

    def close(self) -> None:
        """Finish what was submitted, stop the threads and close the connections."""
        ...
