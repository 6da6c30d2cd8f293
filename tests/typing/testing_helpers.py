"""What an editor sees of `roovet_webhooks.testing`; see `core` for how a mistake is marked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypedDict, assert_type

import attrs
import httpx
import httpx2
import msgspec
from django.core.handlers.wsgi import WSGIRequest
from django.http import HttpRequest
from django.test import AsyncClient, Client, RequestFactory
from flask import Flask
from pydantic import BaseModel
from starlette.applications import Starlette
from starlette.testclient import TestClient
from werkzeug.test import TestResponse

from roovet_webhooks import (
    Delivery,
    Event,
    MemoryInbox,
    OrderCreated,
    SignatureMismatch,
    Tenant,
    WebhookReceiver,
    WebhookRequest,
    WebhookResponse,
)
from roovet_webhooks.testing import (
    FORGERIES,
    NOW,
    PATH,
    SECRET,
    Clock,
    Forgery,
    Record,
    Recorded,
    Rejection,
    Roovet,
    SignedRequest,
    Tampered,
    recording,
    signed_request,
)

if TYPE_CHECKING:
    from collections.abc import Coroutine


class Settled(Event, event="transfer.settled"):
    amount_cents: int | None = None


class Struct(msgspec.Struct):
    id: str


@dataclass
class Data:
    id: str


@attrs.define
class Attrs:
    id: str


class Model(BaseModel):
    id: str


class Payload(TypedDict):
    id: str


payload: Payload = {"id": "ord_1"}


# Requests: the client's own response comes back

request = signed_request("order.created", id="ord_1", amount_cents=1250)
assert_type(request, SignedRequest)
assert_type(request.body, bytes)
assert_type(request.headers, dict[str, str])
assert_type(request.lines, tuple[tuple[bytes, bytes], ...])
assert_type(request.webhook_request(), WebhookRequest)
assert_type(signed_request(Settled, id="trf_1"), SignedRequest)
assert_type(signed_request(Settled("transfer.settled", "trf_1", NOW)), SignedRequest)
signed_request(Struct("x"), event="order.created", secret=["x", "y"], timestamp=NOW, age=5, path=PATH)
signed_request(Data("x"), event="order.created")
signed_request(Attrs("x"), event="order.created")
signed_request(Model(id="x"), event="order.created")
signed_request(payload)
signed_request({"event": "order.created"})
signed_request(b"{}")
signed_request(5)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType] - no event
signed_request(["order.created"])  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType] - no event
signed_request(Data)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType] - a class that names no event
signed_request("order.created", timestamp="now")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType] - Unix seconds

starlette, flask, receiver = TestClient(Starlette()), Flask("x").test_client(), WebhookReceiver("x")
assert_type(request.post(starlette), httpx2.Response)
assert_type(request.post(flask), TestResponse)
assert_type(request.post(Client()).status_code, int)
assert_type(request.post(RequestFactory()), WSGIRequest)
assert_type(request.post(httpx.Client()), httpx.Response)
awaited: Coroutine[Any, Any, httpx.Response] = request.post(httpx.AsyncClient())
assert_type(request.post(receiver), WebhookResponse)
assert_type(request.post(lambda sent: sent.path), str)
starlette.post(request.path, **request.starlette())
flask.post(request.path, **request.flask())
Client().post(request.path, **request.django())
request.post("client")  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue, reportArgumentType] - no client


async def asynchronously() -> None:
    assert_type((await request.post(AsyncClient())).status_code, int)
    await AsyncClient().post(request.path, **request.django(asynchronous=True))


# Roovet


def resolver(request: WebhookRequest) -> Tenant | None: ...


with Roovet(secret=SECRET, path=PATH, clock=Clock(NOW)) as roovet:
    assert_type(roovet, Roovet)
    assert_type(roovet.clock(), float)
    assert_type(roovet.use(receiver), Record)
    roovet.use(receiver, secret=resolver, inbox=MemoryInbox())
    roovet.use(starlette)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType] - the receiver, not its client
    assert_type(roovet.request(Settled, id="trf_1", age=5), SignedRequest)
    assert_type(roovet.post(starlette, "order.created", id="ord_1"), httpx2.Response)
    assert_type(roovet.post(flask, OrderCreated), TestResponse)
    assert_type(roovet.post(receiver, payload), WebhookResponse)
    roovet.post("order.created")  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue] - a client comes first
    roovet.clock.tick("1 h")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType] - seconds
Roovet(clock=lambda: NOW)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType] - one that ticks


# Forgeries

assert_type(FORGERIES, tuple[Forgery, ...])
assert_type(FORGERIES[0].request(Settled, id="trf_1"), SignedRequest)
assert_type(FORGERIES[0].codes, frozenset[str])
tampered = Roovet().tampered(FORGERIES[0])
assert_type(tampered, Tampered)
tampered.assert_refused(starlette)
tampered.assert_refused(lambda forged: len(forged.body), Settled, id="trf_1", path="/hooks")


async def refused() -> None:
    await tampered.assert_refused_async(AsyncClient(), "order.created")
    tampered.assert_refused("client")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType] - no client


# Records

with recording(receiver, receiver) as record:
    assert_type(record, Record)
    assert_type(record.assert_handled(Settled, id="trf_1", times=1), Delivery)
    assert_type(record.assert_rejected(SignatureMismatch), Rejection)
    assert_type(record.assert_rejected("stale").code, str)
    assert_type(record.deliveries, list[Recorded])
    assert_type(record.handled, list[Delivery])
    record.assert_handled(Data)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType] - a class that names no event
    record.assert_rejected(HttpRequest)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType] - no error
