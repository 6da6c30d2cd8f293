"""What stands behind every mount of the suite: the same receivers, and a record of what their handlers saw."""

from __future__ import annotations

import json
import threading
from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING

from support import SECRET

from roovet_webhooks import (
    Delivery,
    DropDelivery,
    Event,
    OrderCreated,
    RetryLater,
    Router,
    SignatureMismatch,
    WebhookError,
    WebhookReceiver,
    WebhookRequest,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

HOOK = "/webhooks/roovet"
FALLBACK = "/webhooks/fallback"
IMPATIENT = "/webhooks/impatient"
EMPTY = "/webhooks/empty"
CONTROL = "/control/"

CASE_HEADER = "X-Case"
CAP = 32_768
PATIENCE_SECONDS = 60.0


@dataclass
class Priced:
    """A type that refuses a genuine event without a price."""

    price: int


class Stage:
    """Receivers by path, and what happened in them."""

    def __init__(self) -> None:
        self.seen: list[str] = []
        self.rejected: list[str] = []
        self._gates: dict[str, threading.Event] = {}
        self.receivers: Mapping[str, WebhookReceiver] = {
            HOOK: self._receiver("default", self._router()),
            FALLBACK: self._receiver("fallback", self._fallback_router()),
            IMPATIENT: self._receiver("impatient", self._router(), body_timeout=0.1),
            EMPTY: self._receiver("empty", Router()),
        }

    def _receiver(self, endpoint: str, router: Router, *, body_timeout: float = 10.0) -> WebhookReceiver:
        receiver = WebhookReceiver(
            SECRET, router=router, endpoint=endpoint, max_body_bytes=CAP, body_timeout=body_timeout
        )

        @receiver.on_rejected
        def note(error: WebhookError, request: WebhookRequest) -> None:
            self.rejected.append(f"{error.code} {request.header(CASE_HEADER)}")

        return receiver

    def guarding(self) -> WebhookReceiver:
        """Return a receiver for a view of one's own."""
        return self._receiver("guarded", Router())

    def note(self, handler: str, delivery: Delivery) -> None:
        """Record that a handler ran, and over which bytes."""
        self.seen.append(f"{handler}:{delivery.attempt}:{delivery.event.id}:{sha256(delivery.raw).hexdigest()}")

    def gate(self, resource: str) -> threading.Event:
        """Return what the gated handler of a resource waits for."""
        return self._gates.setdefault(resource, threading.Event())

    def control(self, path: str) -> bytes:
        """Answer a control route, ``seen`` or ``open/<id>``, with the whole record as JSON."""
        if path.startswith("open/"):
            self.gate(path.removeprefix("open/")).set()
        return json.dumps({"seen": self.seen, "rejected": self.rejected}).encode()

    def _router(self) -> Router:  # noqa: C901 - a list of handlers, each of two or three lines
        router = Router()

        @router.on(OrderCreated)
        def created(event: OrderCreated, delivery: Delivery) -> None:
            assert type(event) is OrderCreated
            self.note("created", delivery)

        @router.on("wallet.*")
        async def wallet(event: Event, delivery: Delivery) -> None:
            assert event.event == "wallet.credited"
            self.note("wallet", delivery)

        @router.on("order.failing")
        def failing(_event: Event, delivery: Delivery) -> None:
            self.note("failing", delivery)
            if delivery.attempt == 1:
                message = "the first attempt fails"
                raise LookupError(message)

        @router.on("order.later")
        async def later(_event: Event, delivery: Delivery) -> None:
            self.note("later", delivery)
            if delivery.attempt == 1:
                raise RetryLater(after=7, reason="not yet")

        @router.on("order.dropped")
        def dropped(_event: Event, delivery: Delivery) -> None:
            self.note("dropped", delivery)
            reason = "of no interest"
            raise DropDelivery(reason)

        @router.on("order.priced", type=Priced)
        def priced(event: Priced, delivery: Delivery) -> None:
            assert isinstance(event.price, int)
            self.note("priced", delivery)

        @router.on("order.impostor")
        def impostor(_event: Event, delivery: Delivery) -> None:
            self.note("impostor", delivery)
            message = "a handler has no say in what is verified"
            raise SignatureMismatch(message)

        @router.on("order.gated")
        def gated(event: Event, delivery: Delivery) -> None:
            self.note("gated", delivery)
            assert self.gate(event.id).wait(PATIENCE_SECONDS)
            self.note("passed", delivery)

        return router

    def _fallback_router(self) -> Router:
        router = Router()

        @router.fallback
        async def other(event: Event, delivery: Delivery) -> None:
            assert type(event) is Event
            self.note("other", delivery)

        return router
