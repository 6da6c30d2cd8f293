"""From rows to claims, deliveries and records, and what may become of a row: the same for every durable store.

A row is any object with the columns of `changes.INSERTED` as attributes, as far as they are needed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from roovet_webhooks.delivery import Delivery
from roovet_webhooks.errors import DeliveryNotFound, InvalidTransition, LeaseLost
from roovet_webhooks.events import parse_envelope
from roovet_webhooks.inbox import changes
from roovet_webhooks.inbox.protocol import Claim
from roovet_webhooks.inbox.records import RecordedDelivery, WorkerRecord
from roovet_webhooks.inbox.states import Outcome, State
from roovet_webhooks.routing import ANY_HANDLER

if TYPE_CHECKING:
    from collections.abc import Iterable

    from roovet_webhooks.delivery import Identity
    from roovet_webhooks.inbox.changes import Values
    from roovet_webhooks.inbox.protocol import Served
    from roovet_webhooks.inbox.records import RecordedAttempt


def claim_of(row: Any, identity: Identity, succeeded: Iterable[str]) -> Claim:  # noqa: ANN401 - a row
    """Return the claim on a row that has just been claimed."""
    return Claim(
        identity,
        row.fence,
        row.fence,
        frozenset(succeeded),
        row.id,
        row.round,
        row.failures,
        row.crashes,
        row.received_at / 1000,
        changes.names_from_text(row.handlers),
        _seconds(row.unhandled_since),
        None if row.history is None else bytes(row.history),
    )


def delivery_of(row: Any, identity: Identity, raw: bytes) -> Delivery:  # noqa: ANN401 - a row
    """Return the delivery of a row that has just been claimed.

    Raises:
        PayloadError: The body is no event any more.
    """
    return Delivery(
        identity=identity,
        event=parse_envelope(raw),
        raw=raw,
        secret_name=row.secret_name,
        signed_at=row.signed_at,
        received_at=row.received_at / 1000,
        attempt=row.fence,
    )


def record_of(
    row: Any,  # noqa: ANN401 - a row
    identity: Identity,
    *,
    purged: bool,
    succeeded: Iterable[str] = (),
    history: tuple[RecordedAttempt, ...] = (),
) -> RecordedDelivery:
    """Return what an operator sees of a row."""
    return RecordedDelivery(
        number=row.id,
        identity=identity,
        event=row.event,
        resource=row.resource,
        ts=row.ts,
        state=State(row.state),
        outcome=None if row.outcome is None else Outcome(row.outcome),
        received_at=row.received_at / 1000,
        available_at=row.available_at / 1000,
        attempts=row.fence,
        failures=row.failures,
        crashes=row.crashes,
        round=row.round,
        owner=row.owner,
        lease_until=_seconds(row.lease_until),
        handed_at=_seconds(row.handed_at),
        finished_at=_seconds(row.finished_at),
        last_error=row.last_error,
        secret_name=row.secret_name,
        purged=purged,
        succeeded=tuple(succeeded),
        history=history,
    )


def worker_of(row: Any) -> WorkerRecord:  # noqa: ANN401 - a row
    """Return what an operator sees of a worker's heartbeat."""
    return WorkerRecord(
        owner=row.owner,
        endpoint=row.endpoint,
        seen_at=row.seen_at / 1000,
        handlers=changes.names_from_text(row.handlers),
        patterns=changes.names_from_text(row.patterns),
    )


def heartbeats(owner: str, served: Iterable[Served], now: int) -> list[Values]:
    """Return the rows of a worker's heartbeat."""
    return [
        {
            "owner": owner,
            "endpoint": one.endpoint,
            "seen_at": now,
            "handlers": changes.names_to_text(one.handlers),
            "patterns": changes.names_to_text(one.patterns),
        }
        for one in served
    ]


def _seconds(moment: int | None) -> float | None:
    return None if moment is None else moment / 1000


class Found(NamedTuple):
    """What decides whether a delivery can be replayed or purged."""

    number: int
    state: State
    round: int
    outcome: str | None
    purged: bool

    def replayed(self, *, now: int, confirmed: bool) -> Values:
        """Return what a replay writes.

        Raises:
            InvalidTransition: It is open, its body is gone, or it is done or was too old and that was not confirmed.
        """
        values = changes.replayed(self.state, self.round, now=now)
        if self.purged:
            message = f"delivery {self.number} cannot be replayed: its body has been erased"
            raise InvalidTransition(message)
        if self.state == State.DONE and not confirmed:
            message = f"delivery {self.number} is done; a replay repeats all its effects and has to be confirmed"
            raise InvalidTransition(message)
        if self.outcome == Outcome.TOO_OLD and not confirmed:
            message = f"delivery {self.number} was too old to run when it arrived; its replay has to be confirmed"
            raise InvalidTransition(message)
        if self.outcome in {Outcome.UNHANDLED, Outcome.IGNORED}:
            # What was registered when it was accepted did not do: now it is whatever a process has for it.
            values["handlers"] = changes.names_to_text((ANY_HANDLER,))
        return values


def lost(claim: Claim) -> LeaseLost:
    """Return the error for a claim whose fence has moved on."""
    return LeaseLost(f"claim {claim.fence} of delivery {claim.number} is over; it changed nothing")


def not_found(which: object) -> DeliveryNotFound:
    """Return the error for a delivery that is not there."""
    return DeliveryNotFound(f"the inbox has no delivery {which}")
