"""The life of a delivery as a table: each step of `WebhookReceiver`, and every way in which a delivery can end there.

`test_life.py` plays every ending with a real receiver. The picture and the table in `docs/explanation/semantics.md`
are compared with this table.
"""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from support import NOW, OTHER_SECRET, SECRET, headers_of, payload, request_of

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


class Phase(StrEnum):
    """What the receiver does with the body until a step has passed."""

    HEAD = "nothing of the body is read"
    BODY = "the body is counted and fed to the MAC, not parsed"
    DELIVERY = "Roovet signed it"


class Step(NamedTuple):
    """One check of the receiver: what has to hold, and each way in which a delivery ends when it does not."""

    holds: str
    phase: Phase
    faults: list[Fault]


LIFE: tuple[Step, ...] = (
    Step(
        "the receiver has a handler", Phase.HEAD, [Fault(errors.ConfigurationError, {"handlers": False}, "no handler")]
    ),
    Step("the method is POST", Phase.HEAD, [Fault(errors.MethodNotAllowed, {"method": "GET"})]),
    Step(
        "the body is declared as plain JSON in UTF-8",
        Phase.HEAD,
        [Fault(errors.UnsupportedMediaType, {"media_type": "text/plain"})],
    ),
    Step("a declared length is valid", Phase.HEAD, [Fault(errors.LengthRequired, {"length": "x"})]),
    Step(
        "a declared length is within the cap",
        Phase.HEAD,
        [Fault(errors.PayloadTooLarge, {"length": "1001"}, "declared")],
    ),
    Step(
        "there is one signature, of the right form",
        Phase.HEAD,
        [
            Fault(errors.MissingSignature, {"signature": nothing}),
            Fault(errors.DuplicateHeader, {"twice": True}),
            Fault(errors.MalformedSignature, {"signature": str.upper}),
        ],
    ),
    Step(
        "its time is within the tolerance, and nothing contradicts it",
        Phase.HEAD,
        [
            Fault(errors.StaleTimestamp, {"skew": -301}),
            Fault(errors.FutureTimestamp, {"skew": 301}),
            Fault(errors.TimestampHeaderMismatch, {"unsigned": "1"}),
        ],
    ),
    Step(
        "there is a secret, and the tenant is known",
        Phase.HEAD,
        [
            Fault(errors.ConfigurationError, {"secret": None}, "no signing secret"),
            Fault(errors.UnknownTenant, {"secret": nothing}),
            Fault(errors.TenantLookupFailed, {"secret": raises(OSError())}),
        ],
    ),
    Step(
        "the body comes whole, in time and within the cap",
        Phase.BODY,
        [
            Fault(errors.PayloadTooLarge, {"cap": 1}, "exceeds"),
            Fault(errors.BodyTimeout, {"patience": 5e-324, "body": late}),
            Fault(errors.IncompleteBody, {"length": "999", "body": lambda raw: [raw]}),
            Fault(errors.BodyAlreadyRead, {"length": "999", "body": lambda _raw: []}),
        ],
    ),
    Step(
        "a digest agrees under an active secret",
        Phase.BODY,
        [Fault(errors.SignatureMismatch, {"signed_with": OTHER_SECRET})],
    ),
    Step(
        "the body is an event",
        Phase.DELIVERY,
        [Fault(errors.MalformedPayload, {"raw": b"no JSON"}), Fault(errors.InvalidEnvelope, {"raw": b"{}"})],
    ),
    Step(
        "dedupe, if there is one, gives it a key",
        Phase.DELIVERY,
        [Fault(errors.ConfigurationError, {"dedupe": raises(KeyError())}, "dedupe")],
    ),
    Step(
        "the inbox takes it",
        Phase.DELIVERY,
        [
            Fault(errors.InboxUnavailable, {"inbox": Down()}),
            Fault(errors.InboxFull, {"inbox": MemoryInbox(max_deliveries=1), "before": another_handled}),
        ],
    ),
    Step(
        "it is not being handled right now", Phase.DELIVERY, [Fault(errors.DeliveryInFlight, {"before": being_handled})]
    ),
    Step("it was not done before", Phase.DELIVERY, [Fault(DUPLICATE, {"before": done_before})]),
    Step("its handlers are to run before the answer", Phase.DELIVERY, [Fault(STORED, {"inbox": Storing()})]),
    Step(
        "its handlers succeed",
        Phase.DELIVERY,
        [
            Fault(errors.HandlerFailed, {"handles": raises(ValueError())}),
            Fault(errors.RetryLater, {"handles": raises(RetryLater())}),
            Fault(errors.LeaseLost, {"inbox": Lost()}),
            Fault(HANDLED, {}),
            Fault(IGNORED, {"pattern": "wallet.*"}),
            Fault(DROPPED, {"handles": raises(DropDelivery())}),
        ],
    ),
)
