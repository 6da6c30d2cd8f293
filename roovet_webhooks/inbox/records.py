"""What an operator sees of an inbox: records, counts, and how to ask for them. No body, no secret."""

from __future__ import annotations

from enum import StrEnum
from typing import Literal, TypeAlias

import msgspec

from roovet_webhooks.delivery import Identity, id_of
from roovet_webhooks.errors import ConfigurationError
from roovet_webhooks.inbox.states import Outcome, State  # noqa: TC001 - types of fields, which msgspec reads

MOST_REASONS = 5
"""How many different errors `Stats` has of deliveries that no process can handle."""


class AttemptOutcome(StrEnum):
    """How an attempt ended.

    ``released`` was given back without a failure: by a drain, a cancellation, or before it had begun. ``crashed`` went
    away with its process: its lease ran out. ``unhandled`` was given back by a process without its handlers.
    """

    HANDLED = "handled"
    IGNORED = "ignored"
    DROPPED = "dropped"
    FAILED = "failed"
    RETRY_LATER = "retry_later"
    RELEASED = "released"
    CRASHED = "crashed"
    UNHANDLED = "unhandled"


RunOutcome: TypeAlias = Literal["handled", "dropped", "retry_later", "failed", "interrupted"]
"""How a run of a handler ended, in the words of the log."""


class RecordedRun(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What one handler did in an attempt.

    Attributes:
        handler: Name of the handler.
        outcome: How its run ended.
        duration: Seconds that it took.
        error: Class of what it raised, if it raised.
        message: The message of that, at most 500 characters, or the reason of a `RetryLater` or `DropDelivery`.
        traceback: Where in the application's code it was raised, one frame a line, the innermost last.
    """

    handler: str
    outcome: RunOutcome
    duration: float
    error: str | None = None
    message: str | None = None
    traceback: str | None = None


class RecordedAttempt(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One attempt at a delivery.

    Attributes:
        number: Which attempt it was, from 1.
        outcome: How it ended.
        ended_at: When, Unix seconds by the store's clock; of a crash, when it was noticed.
        duration: Seconds that it took; ``None`` where nobody knows.
        dead: Whether it was the last: no attempt was left, or none could succeed.
        owner: Which process made it, ``host:pid:…``.
        reason: Why it ended so, where that was no handler's doing.
        runs: What its handlers did, in their order; at most the last 20.
    """

    number: int
    outcome: AttemptOutcome
    ended_at: float = 0.0
    duration: float | None = None
    dead: bool = False
    owner: str | None = None
    reason: str | None = None
    runs: tuple[RecordedRun, ...] = ()


class RecordedDelivery(msgspec.Struct, frozen=True, kw_only=True):
    """A recorded delivery, without its body.

    Attributes:
        number: Its number in this inbox.
        identity: What makes it this delivery and no other.
        event: Name of the event.
        resource: The resource it is about.
        ts: When it happened, Unix seconds.
        state: Where it stands.
        outcome: How it ended, once it has.
        received_at: When it arrived, Unix seconds.
        available_at: From when it may be claimed, Unix seconds.
        attempts: How often it has been claimed.
        failures: How many attempts failed since it was stored or replayed.
        crashes: How many leases ran out since it was stored or replayed.
        round: 1, and one more for each replay after it was done.
        owner: Which process holds it, while it is claimed.
        lease_until: Until when, Unix seconds.
        handed_at: When it was last handed to an engine, Unix seconds.
        finished_at: When it ended, Unix seconds.
        last_error: What went wrong last, cut short.
        secret_name: Name of the secret that verified it.
        purged: Whether its body is gone.
        succeeded: Names of the handlers that succeeded in this round, where there are several; filled by `get`.
        history: Its attempts, the oldest first: the last 20, as far as they fit into 32 KiB; filled by `get`, and
            erased with the body.
    """

    number: int
    identity: Identity
    event: str
    resource: str
    ts: int
    state: State
    outcome: Outcome | None
    received_at: float
    available_at: float
    attempts: int
    failures: int
    crashes: int
    round: int
    owner: str | None
    lease_until: float | None
    handed_at: float | None
    finished_at: float | None
    last_error: str | None
    secret_name: str
    purged: bool
    succeeded: tuple[str, ...] = ()
    history: tuple[RecordedAttempt, ...] = ()

    @property
    def id(self) -> str:
        """The delivery's id, the same as `Delivery.id`."""
        return id_of(self.identity)


class Query(msgspec.Struct, frozen=True, kw_only=True):
    """Which recorded deliveries are meant; what is ``None`` does not matter.

    Attributes:
        endpoint: Name of the receiver.
        tenant: Whose they are.
        states: In which states.
        outcome: How they ended.
        event: Name of the event, or a pattern like ``order.*``.
        resource: The resource they are about.
        since: Received at or after this time, Unix seconds.
        until: Received before this time, Unix seconds.
        purged: Whether their bodies are gone.
        before: Numbers below this one: how to ask for the next page.
        limit: How many at most.

    Raises:
        ConfigurationError: The limit is below 1.
    """

    endpoint: str | None = None
    tenant: str | None = None
    states: frozenset[State] | None = None
    outcome: Outcome | None = None
    event: str | None = None
    resource: str | None = None
    since: float | None = None
    until: float | None = None
    purged: bool | None = None
    before: int | None = None
    limit: int = 100

    def __post_init__(self) -> None:
        """Refuse a query that asks for nothing."""
        if self.limit < 1:
            message = f"limit must be 1 or more, not {self.limit}"
            raise ConfigurationError(message)


class Stats(msgspec.Struct, frozen=True, kw_only=True):
    """How many deliveries of an endpoint stand where.

    Attributes:
        endpoint: Name of the receiver.
        counts: Number of deliveries by state; every state is there.
        oldest_due: When the oldest delivery that waits became due, Unix seconds; ``None`` when none waits.
        crashed: Open deliveries whose lease has run out before.
        workers: Workers whose heartbeat is younger than a minute.
        unhandled: Deliveries that wait because no process that claimed them had all of their handlers.
        unhandled_reasons: Which handlers those were: some of the different errors.
        dead_letters: Dead deliveries whose body is there, so that they can be replayed or purged; the other dead ones
            are tombstones.
    """

    endpoint: str
    counts: dict[State, int]
    oldest_due: float | None
    crashed: int
    workers: int
    unhandled: int = 0
    unhandled_reasons: tuple[str, ...] = ()
    dead_letters: int = 0


class WorkerRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A worker of an endpoint, as its last heartbeat says.

    Attributes:
        owner: Name of its process: host, process id and a random part.
        endpoint: Name of the receiver.
        seen_at: When it was last heard of, Unix seconds.
        handlers: Names of its handlers; ``None`` when it has not said so, as an older version does not.
        patterns: Names and patterns of the events that they want; ``None`` likewise.
    """

    owner: str
    endpoint: str
    seen_at: float
    handlers: tuple[str, ...] | None
    patterns: tuple[str, ...] | None


class Purged(msgspec.Struct, frozen=True):
    """What a tidying did.

    Attributes:
        bodies: Bodies erased, of deliveries that ended longer ago than bodies are retained.
        tombstones: Records removed, of deliveries older than is remembered.
    """

    bodies: int
    tombstones: int


class Health(msgspec.Struct, frozen=True, kw_only=True):
    """How a store stands, for whoever looks after it.

    Attributes:
        store: Where it is, without a password.
        schema: Which version its tables have.
        clock: What time it is by the store's clock, Unix seconds.
        full: Why no new delivery is taken; ``None`` when there is room.
        fault: Which setting endangers what it holds; ``None`` when none does.
    """

    store: str
    schema: str
    clock: float
    full: str | None
    fault: str | None
