"""What each step writes: column values as plain data, the same for every durable store.

A store adds the condition that a change depends on: the number, the fence, and the state that the step table
has for it. Times are epoch milliseconds, UTC.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

import msgspec

from roovet_webhooks.events import MAX_TIMESTAMP
from roovet_webhooks.inbox.states import Outcome, State, Step, next_state
from roovet_webhooks.tracebacks import shortened

if TYPE_CHECKING:
    from collections.abc import Sequence

    from roovet_webhooks.delivery import Delivery
    from roovet_webhooks.inbox.protocol import Claim

Values: TypeAlias = dict[str, Any]

_FREE: Values = {"owner": None, "lease_until": None}
_FOUND: Values = {"unhandled_since": None}


# The columns of a new delivery; what has no value yet is NULL.
INSERTED = (
    *("endpoint", "tenant", "key_ts", "key", "ts", "event", "resource", "body", "codec", "secret_name", "signed_at"),
    *("received_at", "state", "outcome", "available_at", "fence", "failures", "crashes", "round", "owner"),
    *("lease_until", "finished_at", "handlers"),
)


def milliseconds(seconds: float) -> int:
    """Return seconds as whole milliseconds."""
    return round(seconds * 1000)


def _later(now: int, seconds: float) -> int:
    """Return a time from now on that every store can hold."""
    return min(now + milliseconds(seconds), 1000 * MAX_TIMESTAMP)


def names_to_text(names: Sequence[str] | None) -> str | None:
    """Return names as a column holds them."""
    return None if names is None else msgspec.json.encode(names).decode()


def names_from_text(text: str | None) -> tuple[str, ...] | None:
    """Return the names in a column."""
    return None if text is None else msgspec.json.decode(text, type=tuple[str, ...])


def recorded(delivery: Delivery, body: bytes, codec: str, handlers: Sequence[str] | None = None) -> Values:
    """Return the columns that a delivery arrives with.

    Args:
        delivery: What was verified.
        body: Its body, encoded.
        codec: What encoded it.
        handlers: Names of the handlers that are registered for it.
    """
    identity, event = delivery.identity, delivery.event
    return {
        "endpoint": identity.endpoint,
        "tenant": identity.tenant,
        "key_ts": identity.ts,
        "key": identity.key,
        "ts": event.ts,
        "event": event.event,
        "resource": event.id,
        "body": body,
        "codec": codec,
        "secret_name": delivery.secret_name,
        "signed_at": delivery.signed_at,
        "received_at": milliseconds(delivery.received_at),
        "handlers": names_to_text(handlers),
    }


def _new() -> Values:
    return {"fence": 0, "failures": 0, "crashes": 0, "round": 1, "outcome": None, "finished_at": None, **_FREE}


# Milliseconds that the store's clock may be past the time of the request. More is a clock that has jumped.
_ONE_REQUEST = 60_000


def stored(ts: int, *, received_at: int, now: int, settle: int) -> Values:
    """Return the columns of a delivery that is stored to be handled later.

    Args:
        ts: When the event happened, Unix seconds.
        received_at: When it came, milliseconds. The signature agrees with it; a clock that has jumped ahead since then
            must not put the delivery off by the jump.
        now: Milliseconds.
        settle: Milliseconds that it waits at most for its second to end, so that one look at the resource sees all
            facts of that second.
    """
    second_ends = (ts + 1) * 1000
    now = now if now - received_at <= _ONE_REQUEST else received_at
    available_at = max(now, min(second_ends, now + settle))
    return {**_new(), "state": next_state(None, Step.STORE), "available_at": available_at}


def stored_claimed(*, now: int, lease: int, owner: str) -> Values:
    """Return the columns of a delivery whose handlers are about to run in the request that brought it."""
    state = next_state(None, Step.STORE_CLAIMED)
    return {**_new(), "state": state, "available_at": now, "fence": 1, "owner": owner, "lease_until": now + lease}


def stored_too_old(*, now: int) -> Values:
    """Return the columns of a delivery that is older than is remembered."""
    state = next_state(None, Step.STORE_TOO_OLD)
    return {**_new(), "state": state, "available_at": now, "outcome": Outcome.TOO_OLD, "finished_at": now}


def claimed(*, now: int, lease: int, owner: str) -> Values:
    """Return what a claim writes, beside the fence that it raises."""
    state = next_state(State.READY, Step.CLAIM)
    return {"state": state, "owner": owner, "lease_until": now + lease}


def completed(outcome: Outcome, *, now: int) -> Values:
    """Return what the end of a delivery writes."""
    state = next_state(State.CLAIMED, Step.COMPLETE)
    return {"state": state, "outcome": outcome, "finished_at": now, "last_error": None, **_FREE, **_FOUND}


def failed(claim: Claim, error: str, *, now: int, retry_in: float) -> Values:
    """Return what a failure writes that leaves attempts."""
    state = next_state(State.CLAIMED, Step.FAIL)
    available_at = _later(now, retry_in)
    columns = {"failures": claim.failures + 1, "last_error": shortened(error)}
    return {"state": state, "available_at": available_at, "handed_at": None, **columns, **_FREE, **_FOUND}


def released(*, now: int, retry_in: float, error: str | None = None) -> Values:
    """Return what giving a claim back writes; without an ``error`` the last one stays."""
    state = next_state(State.CLAIMED, Step.RELEASE)
    columns = {} if error is None else {"last_error": shortened(error)}
    return {"state": state, "available_at": _later(now, retry_in), "handed_at": None, **columns, **_FREE, **_FOUND}


def unhandled(claim: Claim, error: str, *, now: int, retry_in: float) -> Values:
    """Return what giving a claim back writes when this process has not all of the delivery's handlers."""
    since = now if claim.unhandled_since is None else milliseconds(claim.unhandled_since)
    return {**released(now=now, retry_in=retry_in, error=error), "unhandled_since": since}


def buried(claim: Claim, error: str, outcome: Outcome, *, now: int) -> Values:
    """Return what the death of a delivery writes; a last failure counts like any other."""
    state = next_state(State.CLAIMED, Step.BURY)
    failures = claim.failures + (outcome is Outcome.FAILED)
    columns = {"failures": failures, "last_error": shortened(error)}
    return {"state": state, "outcome": outcome, "finished_at": now, **columns, **_FREE, **_FOUND}


def expired(crashes: int, *, now: int, retry_in: float | None) -> Values:
    """Return what the end of a lease writes.

    Args:
        crashes: How many leases of this delivery have now run out.
        now: Milliseconds.
        retry_in: Seconds to wait before the next attempt; ``None`` when none is left.
    """
    error = "the process that handled it went away, or lost the store, before it was done"
    values: Values = {"crashes": crashes, "last_error": error, **_FREE}
    if retry_in is None:
        state = next_state(State.CLAIMED, Step.POISON)
        return {**values, "state": state, "outcome": Outcome.POISONED, "finished_at": now}
    state = next_state(State.CLAIMED, Step.EXPIRE)
    return {**values, "state": state, "available_at": _later(now, retry_in), "handed_at": None}


def replayed(state: State, round_: int, *, now: int) -> Values:
    """Return what a replay writes, from the state and round in which it finds the delivery.

    Raises:
        InvalidTransition: The delivery is open.
    """
    new = next_state(state, Step.REPLAY)
    counts = {"failures": 0, "crashes": 0, "round": round_ + (state is State.DONE)}
    return {
        "state": new,
        "outcome": None,
        "available_at": now,
        "handed_at": None,
        "finished_at": None,
        **_FOUND,
        **counts,
    }


def purged(state: State) -> Values:
    """Return what a purge writes.

    Raises:
        InvalidTransition: The delivery is open.
    """
    return {"state": next_state(state, Step.PURGE), "body": None, "last_error": None, "history": None}
