"""What an editor sees: mypy holds these in strict mode, an unused ignore included. Nothing here runs."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypedDict, assert_type

from roovet_webhooks import (
    Delivery,
    Event,
    Keyring,
    OrderCreated,
    Router,
    Secret,
    Signer,
    Tenant,
    Verified,
    Verifier,
    WebhookReceiver,
    WebhookRequest,
    WebhookResponse,
    construct_event,
    sign,
    verify,
)
from roovet_webhooks.routing import Registrar


class Settled(Event, event="transfer.settled"):
    amount_cents: int | None = None


@dataclass
class Order:
    id: str


class OrderDict(TypedDict):
    id: str


router = Router()
raw = b"{}"

assert_type(router.on(Settled), Registrar[Settled])
assert_type(router.on("order.created"), Registrar[Event])
assert_type(router.on("order.created", type=Order), Registrar[Order])
assert_type(router.on("order.created", type=OrderDict), Registrar[OrderDict])
assert_type(router.on("order.*", type=dict[str, Any], name="audit"), Registrar[dict[str, Any]])
assert_type(WebhookReceiver("x").on(OrderCreated), Registrar[OrderCreated])


@router.on(Settled)
async def book(event: Settled, delivery: Delivery) -> None:
    assert_type(event.amount_cents, int | None)
    assert_type(event.occurred_at, datetime)
    assert_type(event.extra, Mapping[str, object])
    assert_type(delivery.event, Event)
    assert_type(delivery.raw, bytes)
    assert_type(delivery.id, str)


@router.on("order.created", type=Order)
def fulfil(event: Order) -> int:
    return len(event.id)


@router.on("order.*")
@router.on("wallet.*")
def audit(event: Event) -> None: ...


# A decorator gives back what it was given.
assert_type(fulfil(Order("ord_1")), int)

# A handler may ask for less than it gets, and not for more.
router.on(Settled)(audit)
router.on("order.created")(book)  # type: ignore[arg-type]  # - must be refused
router.on("order.created", type=Order)(audit)  # type: ignore[arg-type]  # - must be refused
router.on(Settled, type=Order)  # type: ignore[call-overload]  # - must be refused
router.on(5)  # type: ignore[call-overload]  # - must be refused


def too_many(event: Event, delivery: Delivery, client: object) -> None: ...


router.on("order.created")(too_many)  # type: ignore[arg-type]  # - must be refused

assert_type(verify(raw, "t=1,v1=x", "secret"), Verified)
assert_type(Verifier(Keyring(["secret"])).verify(raw, None), Verified)
assert_type(verify(raw, b"", [Secret("x"), "y"]).secret_name, str)
assert_type(sign(raw, "secret"), str)
assert_type(Signer("secret").headers(raw), dict[str, str])
assert_type(construct_event(raw, {}, "secret"), Event)
assert_type(construct_event(raw, [(b"a", b"b")], "secret", type=Settled), Settled)
assert_type(construct_event(raw, None, "secret", type=OrderDict), OrderDict)
verify("{}", "t=1,v1=x", "secret")  # type: ignore[arg-type]  # - must be refused
verify({}, "t=1,v1=x", "secret")  # type: ignore[arg-type]  # - must be refused


def tenant(request: WebhookRequest) -> Tenant | None: ...


async def tenant_async(request: WebhookRequest) -> Tenant | None: ...


def no_tenant(request: WebhookRequest) -> str:
    return request.path


WebhookReceiver(tenant)
WebhookReceiver(tenant_async)
WebhookReceiver(no_tenant)  # type: ignore[arg-type]  # - must be refused
receiver = WebhookReceiver(["secret"], router=router)
assert_type(receiver.receive(WebhookRequest("POST", "/", [])), WebhookResponse)
assert_type(receiver.open(WebhookRequest("POST", "/", [])), Delivery)
awaitable: Awaitable[WebhookResponse] = receiver.receive_async(WebhookRequest("POST", "/", []))
hook: Callable[[Exception, Delivery], object] = router.on_error(lambda error, delivery: (error, delivery))
