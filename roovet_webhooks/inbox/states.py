"""The states of a recorded delivery, and the steps between them.

The step table is data. Every store moves by it and by nothing else.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, NamedTuple

from roovet_webhooks.errors import InvalidTransition

if TYPE_CHECKING:
    from collections.abc import Mapping


class State(StrEnum):
    """Where a recorded delivery stands."""

    # Enum hashes in Python; the step table is asked twice a delivery.
    __hash__ = str.__hash__

    READY = "ready"
    CLAIMED = "claimed"
    DONE = "done"
    DEAD = "dead"


class Step(StrEnum):
    """What moves a delivery from one state to another."""

    __hash__ = str.__hash__

    STORE = "store"
    STORE_CLAIMED = "store_claimed"
    STORE_TOO_OLD = "store_too_old"
    CLAIM = "claim"
    RENEW = "renew"
    COMPLETE = "complete"
    FAIL = "fail"
    RELEASE = "release"
    BURY = "bury"
    EXPIRE = "expire"
    POISON = "poison"
    REPLAY = "replay"
    PURGE = "purge"


class Outcome(StrEnum):
    """How a delivery ended: the first three as done, the others as dead."""

    __hash__ = str.__hash__

    HANDLED = "handled"
    IGNORED = "ignored"
    DROPPED = "dropped"
    FAILED = "failed"
    UNDECODABLE = "undecodable"
    POSTPONED = "postponed"
    POISONED = "poisoned"
    TOO_OLD = "too_old"
    UNHANDLED = "unhandled"


class Transition(NamedTuple):
    """A row of the step table.

    Attributes:
        state: Where the delivery stands; ``None`` when it is not recorded yet.
        step: What happens.
        to: Where it stands then.
        when: What makes it happen, for a reader.
        change: What else changes in the record, for a reader.
    """

    state: State | None
    step: Step
    to: State
    when: str
    change: str = ""


TRANSITIONS: tuple[Transition, ...] = (
    Transition(None, Step.STORE, State.READY, "stored, to be handled later", "claimable once its second has ended"),
    Transition(None, Step.STORE_CLAIMED, State.CLAIMED, "stored, handled at once", "fence, owner, lease"),
    Transition(None, Step.STORE_TOO_OLD, State.DEAD, "stored, older than is remembered", "never run"),
    Transition(State.READY, Step.CLAIM, State.CLAIMED, "its handlers are about to run", "fence + 1, owner, lease"),
    Transition(State.CLAIMED, Step.RENEW, State.CLAIMED, "its handlers still run", "lease"),
    Transition(State.CLAIMED, Step.COMPLETE, State.DONE, "handled, ignored or dropped", "outcome"),
    Transition(State.CLAIMED, Step.FAIL, State.READY, "a handler failed, attempts are left", "failures + 1, delay"),
    Transition(
        State.CLAIMED,
        Step.RELEASE,
        State.READY,
        "RetryLater, a drain, a handler that is not here",
        "delay; not counted",
    ),
    Transition(State.CLAIMED, Step.BURY, State.DEAD, "the last failure, undecodable, put off too long", "outcome"),
    Transition(State.CLAIMED, Step.EXPIRE, State.READY, "its lease ran out, attempts are left", "crashes + 1"),
    Transition(State.CLAIMED, Step.POISON, State.DEAD, "its lease ran out once too often", "crashes + 1, outcome"),
    Transition(State.DEAD, Step.REPLAY, State.READY, "replayed", "failures and crashes 0; successes are kept"),
    Transition(State.DONE, Step.REPLAY, State.READY, "replayed, and confirmed", "a new round"),
    Transition(State.DONE, Step.PURGE, State.DONE, "purged", "the body is gone, a tombstone stays"),
    Transition(State.DEAD, Step.PURGE, State.DEAD, "purged", "the body is gone, a tombstone stays"),
)

STEPS: Mapping[tuple[State | None, Step], State] = {(row.state, row.step): row.to for row in TRANSITIONS}
"""Which state a step leads to from which; what is not here is refused. ``None`` is a delivery not recorded yet."""


_OPERATORS_STEPS = {Step.REPLAY: "be replayed", Step.PURGE: "be purged"}  # to operators, who ask for these


def next_state(state: State | None, step: Step) -> State:
    """Return the state that a step leads to.

    Raises:
        InvalidTransition: The table has no such step.
    """
    try:
        return STEPS[state, step]
    except KeyError:
        message = f"a delivery that is {state or 'not recorded'} cannot {_OPERATORS_STEPS.get(step, step)}"
        raise InvalidTransition(message) from None
