"""The table of a delivery's life is what a receiver does: every ending that it names, in its order, and no other."""

from __future__ import annotations

import itertools
import json
import time
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import pytest
from support import NOW, OTHER_SECRET, SECRET, headers_of, payload, request_of

from life import LIFE
from roovet_webhooks import (
    DropDelivery,
    InboxUnavailable,
    LeaseLost,
    MemoryInbox,
    RetryLater,
    WebhookError,
    WebhookReceiver,
    WebhookRequest,
    errors,
)
from roovet_webhooks.inbox.states import Outcome
from roovet_webhooks.messages import DROPPED, DUPLICATE, HANDLED, IGNORED, STORED, WebhookResponse

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from roovet_webhooks import Delivery
    from roovet_webhooks.inbox.protocol import Claim, Stored

    Ending = type[WebhookError] | WebhookResponse


class Down(MemoryInbox):
    def store(self, delivery: Delivery, *, claim: bool, handlers: Sequence[str] | None = None) -> Stored:
        message = f"no disk for {delivery.id}, claim={claim}, {handlers}"
        raise InboxUnavailable(message)


class Lost(MemoryInbox):
    def complete(self, claim: Claim, outcome: Outcome, **_: Any) -> None:  # noqa: ANN401 - never used
        message = f"{claim.fence} {outcome}"
        raise LeaseLost(message)


class Storing(MemoryInbox):
    """Says that it is durable, so that nothing runs before the answer."""

    durable: ClassVar[bool] = True

    def attach(self, _endpoint: str, _retry: object) -> None: ...

    def store(self, delivery: Delivery, *, claim: bool, handlers: Sequence[str] | None = None) -> Stored:
        stored = super().store(delivery, claim=claim, handlers=handlers)
        if not claim:
            self._records.clear()  # the next play begins anew
        return stored


def nothing(*_arguments: object) -> None: ...


@dataclass
class Scene:
    """A receiver and what is sent to it. All is well, until a fault changes a part."""

    handlers: bool = True
    pattern: str = "*"
    handles: Callable[[object], None] = nothing
    secret: Any = SECRET
    cap: int = 1000
    patience: float = 10.0
    dedupe: Callable[[object], str] | None = None
    inbox: MemoryInbox = field(default_factory=MemoryInbox)
    before: Callable[[MemoryInbox, bytes], object] = nothing
    method: str = "POST"
    media_type: str = "application/json"
    length: str | None = None
    signature: Callable[[str], str | None] = str
    skew: int = 0
    unsigned: str | None = None
    twice: bool = False
    signed_with: str = SECRET
    raw: bytes = field(default_factory=payload)
    body: Callable[[bytes], Iterable[bytes]] = lambda raw: iter([raw])

    def play(self) -> tuple[WebhookResponse, str, str]:
        """Send it; return the answer, and the code and the message of a refusal that hooks are told of."""
        receiver = WebhookReceiver(
            self.secret,
            max_body_bytes=self.cap,
            body_timeout=self.patience,
            dedupe=self.dedupe,
            inbox=self.inbox,
            clock=lambda: float(NOW),
        )
        if self.handlers:
            receiver.on(self.pattern, name="handle")(self.handles)
        told = [("", "")]
        receiver.on_rejected(rejected_into(told))
        with suppress(WebhookError):  # where nothing could be verified there is nothing that came before
            self.before(self.inbox, self.raw)
        signed = headers_of(self.raw, secret=self.signed_with, timestamp=NOW + self.skew)["X-Roovet-Signature"]
        headers = {
            "Content-Type": self.media_type,
            "Content-Length": self.length,
            "X-Roovet-Signature": self.signature(signed),
            "X-Roovet-Timestamp": self.unsigned,
        }
        pairs = [(name.encode(), value.encode()) for name, value in headers.items() if value is not None]
        if self.twice:
            pairs.append((b"x-roovet-signature", signed.encode()))
        answer = receiver.receive(WebhookRequest(self.method, "/", pairs, self.body(self.raw)))
        return answer, *told[-1]


def rejected_into(told: list[tuple[str, str]]) -> Callable[[WebhookError, WebhookRequest], None]:
    return lambda error, _request: told.append((error.code, str(error)))


def raises(error: Exception) -> Callable[..., Any]:
    def function(*_arguments: object) -> object:
        raise error

    return function


def late(raw: bytes) -> Iterator[bytes]:
    began = time.monotonic()
    yield raw[:1]
    while time.monotonic() == began:
        """Any time at all is too long for the scene's patience."""
    yield raw[1:]


def verified(raw: bytes) -> Delivery:
    return WebhookReceiver(SECRET, clock=lambda: float(NOW)).open(request_of(raw))


def being_handled(inbox: MemoryInbox, raw: bytes) -> None:
    assert inbox.store(verified(raw), claim=True).claim is not None


def another_handled(inbox: MemoryInbox, _raw: bytes) -> None:
    if len(inbox) == 0:
        being_handled(inbox, payload())


def done_before(inbox: MemoryInbox, raw: bytes) -> None:
    claim = inbox.store(verified(raw), claim=True).claim
    assert claim is not None
    # Also where it is an inbox that loses the claims of the receiver.
    MemoryInbox.complete(inbox, claim, Outcome.HANDLED)


class Fault(NamedTuple):
    """What is changed of a scene, and how it ends for that; ``says`` tells apart what has one error."""

    ending: Ending
    change: dict[str, Any]
    says: str = ""


# For each step, in order, every way in which it can end.
FAULTS: list[list[Fault]] = [
    [Fault(errors.ConfigurationError, {"handlers": False}, "no handler")],
    [Fault(errors.MethodNotAllowed, {"method": "GET"})],
    [Fault(errors.UnsupportedMediaType, {"media_type": "text/plain"})],
    [Fault(errors.LengthRequired, {"length": "x"})],
    [Fault(errors.PayloadTooLarge, {"length": "1001"}, "declared")],
    [
        Fault(errors.MissingSignature, {"signature": nothing}),
        Fault(errors.DuplicateHeader, {"twice": True}),
        Fault(errors.MalformedSignature, {"signature": str.upper}),
    ],
    [
        Fault(errors.StaleTimestamp, {"skew": -301}),
        Fault(errors.FutureTimestamp, {"skew": 301}),
        Fault(errors.TimestampHeaderMismatch, {"unsigned": "1"}),
    ],
    [
        Fault(errors.ConfigurationError, {"secret": None}, "no signing secret"),
        Fault(errors.UnknownTenant, {"secret": nothing}),
        Fault(errors.TenantLookupFailed, {"secret": raises(OSError())}),
    ],
    [
        Fault(errors.PayloadTooLarge, {"cap": 1}, "exceeds"),
        Fault(errors.BodyTimeout, {"patience": 5e-324, "body": late}),
        Fault(errors.IncompleteBody, {"length": "999", "body": lambda raw: [raw]}),
        Fault(errors.BodyAlreadyRead, {"length": "999", "body": lambda _raw: []}),
    ],
    [Fault(errors.SignatureMismatch, {"signed_with": OTHER_SECRET})],
    [
        Fault(errors.MalformedPayload, {"raw": b"no JSON"}),
        Fault(errors.InvalidEnvelope, {"raw": b"{}"}),
    ],
    [Fault(errors.ConfigurationError, {"dedupe": raises(KeyError())}, "dedupe")],
    [
        Fault(errors.InboxUnavailable, {"inbox": Down()}),
        Fault(errors.InboxFull, {"inbox": MemoryInbox(max_deliveries=1), "before": another_handled}),
    ],
    [Fault(errors.DeliveryInFlight, {"before": being_handled})],
    [Fault(DUPLICATE, {"before": done_before})],
    [Fault(STORED, {"inbox": Storing()})],
    [
        Fault(errors.HandlerFailed, {"handles": raises(ValueError())}),
        Fault(errors.RetryLater, {"handles": raises(RetryLater())}),
        Fault(errors.LeaseLost, {"inbox": Lost()}),
        Fault(HANDLED, {}),
        Fault(IGNORED, {"pattern": "wallet.*"}),
        Fault(DROPPED, {"handles": raises(DropDelivery())}),
    ],
]


def check(fault: Fault, change: dict[str, Any]) -> None:
    """Play a scene with a change, and find that it ends as the fault does."""
    answer, code, message = Scene(**change).play()
    if isinstance(fault.ending, WebhookResponse):
        assert (answer.status, answer.body) == (fault.ending.status, fault.ending.body)
        return
    assert answer.status == fault.ending.status
    assert json.loads(answer.body)["error"]["type"] == fault.ending.type
    if code:
        assert code == fault.ending.code
        assert fault.says in message


ALL = [(step, fault) for step, faults in enumerate(FAULTS) for fault in faults]


def test_each_step_has_exactly_the_endings_of_the_table() -> None:
    assert len(FAULTS) == len(LIFE)
    for step, faults in zip(LIFE, FAULTS, strict=True):
        assert [fault.ending for fault in faults] == [*step.refusals, *step.endings]


def name_of(fault: Fault) -> str:
    ending = fault.ending
    return ending.body.decode() if isinstance(ending, WebhookResponse) else ending.__name__


@pytest.mark.parametrize(("step", "fault"), ALL, ids=[f"{step}-{name_of(fault)}" for step, fault in ALL])
def test_a_fault_ends_a_delivery_at_its_step_and_before_any_later_one(step: int, fault: Fault) -> None:
    check(fault, fault.change)
    for later, other in ALL:
        # Two changes of one part cannot be had together.
        if later > step and not fault.change.keys() & other.change.keys():
            check(fault, {**other.change, **fault.change})


def test_each_two_neighbours_are_told_apart() -> None:
    exclusive = {
        # One length cannot be both malformed and too large, no malformed signature has a time, and
        # one record is in one state.
        (3, 4),
        (13, 14),
    }
    for step, (faults, following) in enumerate(itertools.pairwise(FAULTS)):
        together = [
            (fault, other)
            for fault, other in itertools.product(faults, following)
            if not fault.change.keys() & other.change.keys()
        ]
        assert bool(together) != ((step, step + 1) in exclusive)


def test_every_refusal_of_the_tree_is_in_the_table() -> None:
    told = {error for step in LIFE for error in step.refusals}
    answers = {
        value
        for value in vars(errors).values()
        if isinstance(value, type)
        and issubclass(value, (errors.RequestError, errors.VerificationError, errors.PayloadError, errors.InboxError))
        and not value.__subclasses__()
    }
    # What an operator's mistake raises in a tool answers no request.
    assert answers - told == {errors.DeliveryNotFound, errors.InvalidTransition}


def test_phases_do_not_mix() -> None:
    phases = [step.phase for step in LIFE]
    assert [phase for phase, _ in itertools.groupby(phases)] == list(dict.fromkeys(phases))
