"""What an inbox promises: the states of a delivery, the steps between them, and the operations.

The step table is data; every store moves by it and by nothing else. A claim carries a fence, a counter that
every new claim raises and nothing lowers: whoever comes back with an older one changes nothing.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, ClassVar, Protocol, TypeAlias, TypeVar

import msgspec

from roovet_webhooks.delivery import Identity  # noqa: TC001 - a field's type, which msgspec reads
from roovet_webhooks.errors import InvalidTransition

if TYPE_CHECKING:
    from collections.abc import Mapping
    from concurrent.futures import Future

    from roovet_webhooks.delivery import Delivery

T = TypeVar("T")

Answer: TypeAlias = "T | Future[T]"
"""What an operation returns, or a Future of it.

One that has to wait for a disk returns a Future: one committer then serves all the requests that arrive together, and
no thread waits for it.
"""


class State(StrEnum):
    """Where a recorded delivery stands."""

    # Enum hashes in Python; the step table is asked twice a delivery.
    __hash__ = str.__hash__

    READY = "ready"
    CLAIMED = "claimed"
    DONE = "done"


class Step(StrEnum):
    """What moves a delivery from one state to another."""

    __hash__ = str.__hash__

    CLAIM = "claim"
    COMPLETE = "complete"
    FAIL = "fail"
    RELEASE = "release"


class Outcome(StrEnum):
    """How a done delivery ended."""

    __hash__ = str.__hash__

    HANDLED = "handled"
    IGNORED = "ignored"
    DROPPED = "dropped"


STEPS: Mapping[tuple[State, Step], State] = {
    (State.READY, Step.CLAIM): State.CLAIMED,
    (State.CLAIMED, Step.COMPLETE): State.DONE,
    (State.CLAIMED, Step.FAIL): State.READY,
    (State.CLAIMED, Step.RELEASE): State.READY,
}
"""Which state a step leads to from which; what is not here is refused. A delivery begins in the first `State`."""


def next_state(state: State, step: Step) -> State:
    """Return the state that a step leads to.

    Raises:
        InvalidTransition: The table has no such step.
    """
    try:
        return STEPS[state, step]
    except KeyError:
        message = f"a delivery that is {state} cannot {step}"
        raise InvalidTransition(message) from None


class Claim(msgspec.Struct, frozen=True, gc=False):
    """The right to run a delivery's handlers, until its fence has moved on.

    Attributes:
        identity: Which delivery.
        fence: Higher than that of every earlier claim of the delivery.
        attempt: Which claim of the delivery this is, from 1.
        succeeded: Names of the handlers that succeeded in earlier attempts and do not run again.
    """

    identity: Identity
    fence: int
    attempt: int = 1
    succeeded: frozenset[str] = frozenset()


class Verdict(StrEnum):
    """What storing a delivery found."""

    NEW = "new"
    DUPLICATE = "duplicate"
    IN_FLIGHT = "in_flight"


class Stored(msgspec.Struct, frozen=True, gc=False):
    """The answer to `Inbox.store`.

    Attributes:
        verdict: ``NEW`` when it is to be handled (a retry of a failed one included), ``DUPLICATE`` when it
            is recorded and there is nothing to do, ``IN_FLIGHT`` when another request is handling it.
        claim: The claim, where one was asked for and given.
    """

    verdict: Verdict
    claim: Claim | None = None


class Inbox(Protocol):
    """A record of deliveries. Methods are called from any thread and may be called at the same time.

    Attributes:
        durable: Whether a stored delivery survives the process; only then may it be acknowledged before its
            handlers have run.
        blocking: Whether a call may wait, so that an event loop must make it in a thread. Answering with a
            Future is the other way to wait.
    """

    durable: ClassVar[bool]
    blocking: ClassVar[bool]

    def store(self, delivery: Delivery, *, claim: bool) -> Answer[Stored]:
        """Record a delivery, once for its identity.

        Args:
            delivery: What was verified.
            claim: Whether to claim it for the caller, who will run its handlers.

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

    def complete(self, claim: Claim, outcome: Outcome) -> Answer[None]:
        """End a claimed delivery as done.

        Raises:
            LeaseLost: The fence has moved on.
        """
        ...

    def fail(self, claim: Claim, error: str, *, retry_in: float) -> Answer[None]:
        """Give a claim back after a failure, which counts.

        Args:
            claim: The claim.
            error: What went wrong, without a secret or a body.
            retry_in: Seconds to wait before the next attempt, where the inbox itself drives the attempts.

        Raises:
            LeaseLost: The fence has moved on.
        """
        ...

    def release(self, claim: Claim, *, retry_in: float) -> Answer[None]:
        """Give a claim back without counting a failure; arguments and errors as `fail`."""
        ...
