"""What an editor sees of the package's face. Nothing here runs: mypy and pyright hold it, in strict mode.

A line marked as a mistake must be refused by both: each has an ignore for either checker, and one that is of no use is
an error for the checker whose it is.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TypedDict, assert_type

from pydantic import BaseModel

from roovet_webhooks import (
    Delivery,
    DropDelivery,
    Event,
    HandlerFailed,
    InvalidEnvelope,
    Keyring,
    MalformedSignature,
    MemoryInbox,
    OrderCreated,
    RetryLater,
    RetryPolicy,
    Router,
    Secret,
    SignatureMismatch,
    Signer,
    StaleTimestamp,
    Tenant,
    VerificationError,
    Verified,
    Verifier,
    WebhookError,
    WebhookReceiver,
    WebhookRequest,
    WebhookResponse,
    construct_event,
    error_response,
    sign,
    verify,
)
from roovet_webhooks.django import DjangoInbox
from roovet_webhooks.inbox.protocol import DurableInbox  # noqa: TC001 - as users import it
from roovet_webhooks.inbox.sql import SQLInbox
from roovet_webhooks.routing import AnnotatedRegistrar, Registrar


class Settled(Event, event="transfer.settled"):
    amount_cents: int | None = None


@dataclass
class Order:
    id: str


class OrderDict(TypedDict):
    id: str


class OrderModel(BaseModel):
    id: str


raw = b"{}"
router = Router()


# Events

assert_type(Settled(event="transfer.settled", id="trf_1", ts=1), Settled)
assert_type(Settled("transfer.settled", "trf_1", 1, amount_cents=5).amount_cents, int | None)
Settled(event="transfer.settled", id="trf_1")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue] - no ts
Settled("transfer.settled", "trf_1", 1).id = "x"  # pyright: ignore[reportAttributeAccessIssue] - frozen, which mypy does not learn from a metaclass


def read(event: Settled, created: OrderCreated) -> None:
    assert_type(event.id, str)
    assert_type(event.ts, int)
    assert_type(event.occurred_at, datetime)
    assert_type(event.extra, Mapping[str, object])
    assert_type(created.event, str)
    event.amount  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]  # noqa: B018 - no such field


# Registering: the event says what the handler gets

assert_type(router.on(Settled), Registrar[Settled])
assert_type(router.on(Event), Registrar[Event])
assert_type(router.on("order.created"), AnnotatedRegistrar)
assert_type(router.on("order.created", type=Order), Registrar[Order])
assert_type(router.on("order.created", type=OrderDict), Registrar[OrderDict])
assert_type(router.on("order.created", type=OrderModel), Registrar[OrderModel])
assert_type(router.on("order.*", type=dict[str, Any], name="audit"), Registrar[dict[str, Any]])
assert_type(WebhookReceiver("x").on(OrderCreated), Registrar[OrderCreated])
router.on(Settled, type=Order)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType] - the class is the type
router.on(5)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue, reportArgumentType] - no event
router.on("order.created", type="Order")  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType] - a name is no type


@router.on(Settled)
async def book(event: Settled, delivery: Delivery) -> None:
    assert_type(event.amount_cents, int | None)
    assert_type(delivery.event, Event)
    assert_type(delivery.raw, bytes)
    assert_type(delivery.id, str)
    assert_type(delivery.key, str)
    assert_type(delivery.tenant, str)
    assert_type(delivery.attempt, int)
    assert_type(delivery.received_at, float)


@router.on("order.created", type=Order)
def fulfil(event: Order) -> int:
    return len(event.id)


@router.on("order.*")
@router.on("wallet.*")
def audit(event: Event) -> None: ...


class Service:
    def handle(self, event: Settled) -> None: ...


# A decorator gives back what it was given.
assert_type(fulfil(Order("ord_1")), int)
awaited: Coroutine[Any, Any, None] = book(Settled("transfer.settled", "trf_1", 1), next(iter([])))

# A handler may ask for less than it gets, and not for more; a parameter of its own needs a default.
router.on(Settled)(audit)
router.on(Settled)(Service().handle)
router.on(Settled)(lambda event: event.amount_cents)


def defaulted(event: Settled, *, retries: int = 3) -> None: ...
def too_many(event: Event, delivery: Delivery, client: object) -> None: ...
def nothing() -> None: ...
def swapped(delivery: Delivery, event: Settled) -> None: ...
def keyword_only(*, event: Settled) -> None: ...


router.on(Settled)(defaulted)
router.on("order.created")(book)  # the annotation is the type
router.on("order.created", type=Order)(audit)  # type: ignore[arg-type]  # pyright: ignore[reportCallIssue, reportArgumentType] - it wants an Event
router.on(OrderCreated)(Service().handle)  # type: ignore[arg-type]  # pyright: ignore[reportCallIssue, reportArgumentType] - it wants a Settled
router.on(Settled)(too_many)  # type: ignore[arg-type]  # pyright: ignore[reportCallIssue, reportArgumentType] - nobody gives it a client
router.on(Settled)(nothing)  # type: ignore[arg-type]  # pyright: ignore[reportCallIssue, reportArgumentType] - it takes no event
router.on(Settled)(swapped)  # type: ignore[arg-type]  # pyright: ignore[reportCallIssue, reportArgumentType] - the event comes first
router.on(Settled)(keyword_only)  # type: ignore[arg-type]  # pyright: ignore[reportCallIssue, reportArgumentType] - by position only
router.on(Settled)(5)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue, reportArgumentType] - no function


@router.on(Settled)  # type: ignore[arg-type]  # pyright: ignore[reportCallIssue, reportArgumentType, reportUntypedFunctionDecorator] - it wants an Order
def wrong(event: Order) -> None: ...


@router.on("order.created", type=Order)  # type: ignore[arg-type]  # pyright: ignore[reportCallIssue, reportArgumentType, reportUntypedFunctionDecorator] - it wants a dict
async def wrong_async(event: dict[str, Any]) -> None: ...


# The fallback and the hooks


@router.fallback
def other(event: Event, delivery: Delivery) -> str:
    return f"{event.id} {delivery.id}"


@Router().fallback
async def other_async(event: Event) -> None: ...


@router.on_error
def alert(error: Exception, delivery: Delivery) -> None: ...


@router.on_rejected
async def count(error: WebhookError, request: WebhookRequest) -> int:
    return error.status + len(request.path)


assert_type(other(Event("a", "b", 1), next(iter([]))), str)
Router().fallback(book)  # type: ignore[type-var]  # pyright: ignore[reportArgumentType] - any event may come
Router().fallback(too_many)  # type: ignore[type-var]  # pyright: ignore[reportArgumentType] - nobody gives it a client
router.on_error(audit)  # type: ignore[type-var]  # pyright: ignore[reportArgumentType] - it gets an error and a delivery
router.on_rejected(alert)  # type: ignore[type-var]  # pyright: ignore[reportArgumentType] - it gets a request, no delivery
router.include(Router())
router.include(audit)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType] - no router


# Sign, verify, construct

assert_type(verify(raw, "t=1,v1=x", "secret"), Verified)
assert_type(verify(raw, b"", [Secret("x"), "y", b"z"], tolerance=60, now=1.5, timestamp_header=b"1").secret_name, str)
assert_type(verify(raw, None, Keyring(["secret"])).timestamp, int)
assert_type(Verifier(Keyring(["secret"]), accept_truncated=True).verify(raw, None), Verified)
assert_type(sign(raw, "secret", timestamp=1), str)
assert_type(Signer("secret").sign(raw), str)
assert_type(Signer("secret").headers(raw), dict[str, str])
assert_type(construct_event(raw, {}, "secret"), Event)
assert_type(construct_event(raw, "t=1,v1=x", "secret", now=1), Event)
assert_type(construct_event(raw, [(b"a", b"b")], "secret", type=Settled), Settled)
assert_type(construct_event(raw, [("a", "b")], "secret", type=Order, tolerance=1), Order)
assert_type(construct_event(raw, None, "secret", type=OrderDict), OrderDict)
assert_type(construct_event(raw, None, "secret", type=OrderModel), OrderModel)
verify("{}", "t=1,v1=x", "secret")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType] - text is not the raw body
verify({}, "t=1,v1=x", "secret")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType] - nor is what was parsed
verify(raw, {"X-Roovet-Signature": ""}, "secret")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType] - one header's value
verify(raw, "t=1,v1=x", None)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType] - there must be a secret
verify(raw, "t=1,v1=x", "secret", 300)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue] - options go by keyword
construct_event("{}", {}, "secret")  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType] - text is not the raw body
Secret("x", expires="tomorrow")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType] - a time
Secret("x", expires=datetime(2026, 1, 1, tzinfo=UTC), not_before=1.5)
Keyring("secret")
Tenant(5, "secret")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType] - its name


# Receivers and resolvers


def tenant(request: WebhookRequest) -> Tenant | None:
    assert_type(request.header("host"), str | None)
    assert_type(request.path_params, Mapping[str, object])
    return Tenant(request.path, ["x", Secret("y")])


async def tenant_async(request: WebhookRequest) -> Tenant | None: ...


async def tenant_always(request: WebhookRequest) -> Tenant:
    return Tenant(request.path, "secret")


def no_tenant(request: WebhookRequest) -> str:
    return request.path


def no_request() -> Tenant | None: ...


def dedupe(event: Event) -> str:
    return event.id


def no_key(event: Event) -> int:
    return event.ts


WebhookReceiver()
WebhookReceiver(tenant)
WebhookReceiver(tenant_async)
WebhookReceiver(tenant_always)
WebhookReceiver(Keyring([Secret("x")]), inbox=MemoryInbox(), retry=RetryPolicy(), dedupe=dedupe, handlers=["a"])
WebhookReceiver(no_tenant)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType] - it gives no tenant
WebhookReceiver(no_request)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType] - it takes no request
WebhookReceiver("x", dedupe=no_key)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType] - a text or bytes
WebhookReceiver("x", acknowledge="later")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType] - no such mode
WebhookReceiver("x", clock=datetime.now)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType] - seconds
WebhookReceiver("x", inbox="sqlite:///x", acknowledge="stored", ordering="resource", on_dead="block")
WebhookReceiver("x", inbox=DjangoInbox("default", atomic=False))
durable: tuple[DurableInbox, ...] = (SQLInbox("sqlite:///x"), DjangoInbox())
WebhookReceiver("x", inbox=5)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType] - no inbox

receiver = WebhookReceiver(["secret"], router=router)
request = WebhookRequest("POST", "/", [(b"a", b"b")], [b"chunk"])
assert_type(receiver.receive(request), WebhookResponse)
assert_type(receiver.open(request), Delivery)
answered: Coroutine[Any, Any, WebhookResponse] = receiver.receive_async(request)
opened: Awaitable[Delivery] = receiver.open_async(request)
WebhookRequest("POST", "/", [("a", "b")])  # type: ignore[list-item]  # pyright: ignore[reportArgumentType] - bytes
WebhookRequest("POST", "/", [], "body")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType] - bytes
with receiver.override(secret="x", clock=lambda: 1) as overridden:
    assert_type(overridden, WebhookReceiver)
receiver.override(secret=no_tenant)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType] - it gives no tenant
hook: Callable[[Exception, Delivery], object] = receiver.on_error(lambda error, delivery: (error, delivery))


# Errors and their evidence


def evidence(error: VerificationError, stale: StaleTimestamp, malformed: MalformedSignature) -> WebhookResponse:
    assert_type(error.code, str)
    assert_type(error.status, int)
    assert_type(error.retry_after, float | None)
    assert_type(error.evidence, Mapping[str, object])
    assert_type(stale.skew, float)
    assert_type(malformed.item, int | None)
    return error_response(error)


def more_evidence(mismatch: SignatureMismatch, envelope: InvalidEnvelope, failed: HandlerFailed) -> None:
    assert_type(mismatch.secrets_tried, tuple[str, ...])
    assert_type(envelope.param, str | None)
    assert_type(failed.handlers, tuple[str, ...])


raised: tuple[WebhookError, ...] = RetryLater(after=30, reason="later"), DropDelivery("no money moved")
RetryLater("soon")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType] - seconds
secrets: Sequence[Secret] = Keyring(["x"]).active(1.0)
names: Iterator[Secret] = iter(Keyring(["x"]))
