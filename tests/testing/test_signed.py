"""`signed_request`: the body is Roovet's, the signature holds, and each framework's client sends both as they are."""

from __future__ import annotations

import asyncio
import json
from collections import UserDict
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import httpx
import msgspec
import pytest
from conformance.mounts import configure_django
from fastapi import FastAPI
from flask import Flask
from pydantic import BaseModel, Field
from starlette.applications import Starlette
from support.shops import KINDS, opened

from roovet_webhooks import Event, InvalidSecretError, OrderCreated, WebhookResponse, verify
from roovet_webhooks.events import parse_envelope
from roovet_webhooks.testing import NOW, PATH, SECRET, Clock, Roovet, SignedRequest, signed_request
from roovet_webhooks.testing.bodies import php_json

if TYPE_CHECKING:
    from collections.abc import Mapping

VECTORS = json.loads((Path(__file__).parents[1] / "signing" / "vectors" / "php_sender.json").read_text("utf-8"))
PHP_BODIES = {vector["name"]: vector["raw"] for vector in VECTORS if vector.get("raw")}


class Settled(Event, event="transfer.settled"):
    amount_cents: int | None = None


class Struct(msgspec.Struct):
    id: str
    amount: Decimal


@dataclass
class Refund:
    id: str
    at: datetime


@attrs.define
class Payout:
    id: str


class Order(BaseModel):
    id: str
    amount_cents: int = Field(alias="amountCents")


@dataclass
class Holder:
    order: Order


def payload_of(request: SignedRequest) -> Any:  # noqa: ANN401 - JSON
    return json.loads(request.body)


# Bodies


@pytest.mark.parametrize("raw", PHP_BODIES.values(), ids=PHP_BODIES)
def test_a_body_is_what_php_writes(raw: str) -> None:
    assert php_json(json.loads(raw)) == raw
    assert signed_request(json.loads(raw)).body == raw.encode()


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (1.0, "1"),
        (-2.50, "-2.5"),
        (1e-7, "1.0e-7"),
        (1.5e-10, "1.5e-10"),
        (1e25, "1.0e+25"),
        (0.1, "0.1"),
        ("\x7f\x00\x1f", '"\x7f\\u0000\\u001f"'),
        ("a/b<>&'", '"a/b<>&\'"'),
        ((1, [True, None]), "[1,[true,null]]"),
    ],
)
def test_what_php_writes_differently_is_written_its_way(value: object, written: str) -> None:
    assert php_json(value) == written


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_number_that_is_not_json_is_refused(value: float) -> None:
    with pytest.raises(ValueError, match="is not JSON"):
        signed_request("order.created", amount=value)


def test_a_name_and_fields_make_the_documented_body() -> None:
    request = signed_request("order.created", id="ord_123")
    assert request.body == b'{"event":"order.created","id":"ord_123","ts":1762782800}'


def test_each_delivery_has_a_resource_of_its_own() -> None:
    first, second = payload_of(signed_request("order.created")), payload_of(signed_request("order.created"))
    assert first["id"] != second["id"]
    assert first["id"].startswith("ord_")
    assert list(first) == ["event", "id", "ts"]


@pytest.mark.parametrize(
    ("event", "fields", "content"),
    [
        (Settled, {"id": "trf_1", "amount_cents": 5}, {"event": "transfer.settled", "id": "trf_1", "amount_cents": 5}),
        (
            Settled(event="transfer.settled", id="trf_1", ts=7),
            {"note": "x"},
            {"event": "transfer.settled", "id": "trf_1", "ts": 7, "amount_cents": None, "note": "x"},
        ),
        (
            parse_envelope(b'{"event":"a","id":"b","ts":7,"more":1.0}'),
            {"id": "c"},
            {"event": "a", "id": "c", "ts": 7, "more": 1},
        ),
        (Struct("s_1", Decimal("1.10")), {"event": "e"}, {"event": "e", "id": "s_1", "amount": "1.10"}),
        (
            Refund("ref_1", datetime(2025, 11, 10, tzinfo=UTC)),
            {"event": "e"},
            {"event": "e", "id": "ref_1", "at": "2025-11-10T00:00:00Z"},
        ),
        (Payout("po_1"), {"event": "e"}, {"event": "e", "id": "po_1"}),
        (Order(id="ord_1", amountCents=3), {"event": "e"}, {"event": "e", "id": "ord_1", "amountCents": 3}),
        (
            Holder(Order(id="ord_1", amountCents=3)),
            {"event": "e", "id": "h_1"},
            {"event": "e", "id": "h_1", "order": {"id": "ord_1", "amountCents": 3}},
        ),
    ],
    ids=["class", "event", "parsed event", "struct", "dataclass", "attrs", "pydantic", "model within"],
)
def test_an_event_may_be_anything_that_a_handler_takes(event: Any, fields: dict[str, Any], content: object) -> None:  # noqa: ANN401 - that is the point
    assert payload_of(signed_request(event, **fields)) == {"ts": NOW, **content}  # type: ignore[dict-item]  # a dict, whatever its values


def test_a_dict_is_the_whole_payload() -> None:
    assert signed_request({"id": "x"}).body == b'{"id":"x"}'
    assert signed_request({"id": "x"}, id=5).body == b'{"id":5}'


def test_bytes_are_sent_as_they_are() -> None:
    raw = b'\xff {"event": "spaced" }\r\n'
    request = signed_request(raw)
    assert request.body is raw
    assert verify(raw, request.headers["X-Roovet-Signature"], SECRET, now=NOW).timestamp == NOW
    with pytest.raises(TypeError, match="raw bytes are the whole body, so id, note cannot be added"):
        signed_request(raw, id="x", note="y")


@pytest.mark.parametrize(
    ("event", "fields", "error", "match"),
    [
        (5, {}, TypeError, "not int"),
        (["order.created"], {}, TypeError, "not list"),
        (object(), {}, TypeError, "a object cannot stand in a payload"),
        ("order.created", {"x": object()}, TypeError, "a object cannot stand in a payload"),
        ('{"event":"order.created"}', {}, TypeError, "JSON text goes in as bytes"),
        (Event, {}, ValueError, "Event does not say which event it is; add event="),
        (Payout("po_1"), {}, ValueError, "Payout does not say which event it is"),
        (Payout, {}, ValueError, "Payout does not say which event it is"),
        ("order.created", {"timestamp": -1}, ValueError, "must be Unix seconds"),
        ("order.created", {"secret": "short"}, InvalidSecretError, "fewer than 16"),
        (UserDict(a=1), {"event": UserDict}, TypeError, "cannot stand in a payload"),
    ],
)
def test_what_makes_no_delivery_is_refused_with_a_reason(
    event: Any,  # noqa: ANN401 - wrong on purpose
    fields: dict[str, Any],
    error: type[Exception],
    match: str,
) -> None:
    with pytest.raises(error, match=match):
        signed_request(event, **fields)


# Signatures


def test_the_signature_is_of_the_fixed_time_unless_told_otherwise() -> None:
    def header(**options: Any) -> str:  # noqa: ANN401 - the arguments
        return signed_request("order.created", **options).headers["X-Roovet-Signature"].partition(",")[0]

    assert header() == f"t={NOW}"
    assert header(age=301) == f"t={NOW - 301}"
    assert header(age=-10) == f"t={NOW + 10}"
    assert header(timestamp=1000, age=1) == "t=999"
    assert payload_of(signed_request("order.created", age=301))["ts"] == NOW - 301


def test_the_secret_and_the_path_may_be_others() -> None:
    request = signed_request("order.created", secret=["whsec_new_5f2b8c1e9a7d4036b1c2"], path="/hooks")
    assert request.path == request.webhook_request().path == "/hooks"
    header = request.headers["X-Roovet-Signature"]
    assert verify(request.body, header, "whsec_new_5f2b8c1e9a7d4036b1c2", now=NOW).timestamp == NOW


def test_it_shows_neither_body_nor_signature() -> None:
    request = signed_request("order.created", id="ord_1")
    assert repr(request) == f"SignedRequest(POST {PATH}, {len(request.body)} bytes)"


def test_the_neutral_request_has_it_all() -> None:
    request = signed_request("order.created")
    neutral = request.webhook_request({"shop": "acme"})
    assert (neutral.method, neutral.path, neutral.body) == ("POST", PATH, request.body)
    assert neutral.path_params == {"shop": "acme"}
    assert neutral.header("x-roovet-signature") == request.headers["X-Roovet-Signature"]


# Clients

AWKWARD = b'{"event":"order.created","id":"ord_\xc3\xa9 1","ts":1762782800,"a" : "\\/"}\r\n'


@pytest.mark.parametrize("kind", KINDS)
def test_a_delivery_is_accepted_through_every_client(kind: str, roovet: Roovet) -> None:
    with opened(kind) as shop:
        record = roovet.use(shop.receiver)
        for event in ("order.created", AWKWARD):
            answer = roovet.post(shop.client, event)
            answer = asyncio.run(answer) if shop.is_async else answer
            assert getattr(answer, "status_code", None) or answer.status == 200
            assert record.handled[-1].raw == AWKWARD if isinstance(event, bytes) else True
    assert len(record.handled) == 2
    assert record.deliveries[0].outcome == ("opened" if shop.guards else "handled")


@pytest.mark.parametrize("kind", KINDS)
def test_a_request_is_the_same_delivery_however_often_it_is_posted(kind: str, roovet: Roovet) -> None:
    with opened(kind) as shop:
        record = roovet.use(shop.receiver)
        request = roovet.request("order.created", id="ord_1")
        for _ in range(2):
            answer = request.post(shop.client)
            if shop.is_async:
                asyncio.run(answer)
    assert len({recorded.delivery.id for recorded in record.deliveries}) == 1
    assert [recorded.outcome for recorded in record.deliveries] == (
        ["opened", "opened"] if shop.guards else ["handled", "duplicate"]
    )


@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_request_factory_of_django_makes_a_request_for_a_view(*, asynchronous: bool, roovet: Roovet) -> None:
    configure_django()
    from django import test  # noqa: PLC0415 - it reads the settings

    factory = test.AsyncRequestFactory() if asynchronous else test.RequestFactory()
    request = roovet.post(factory, "order.created", id="ord_1")
    assert (request.method, request.path, request.content_type) == ("POST", PATH, "application/json")
    assert json.loads(request.body)["id"] == "ord_1"
    assert request.headers["X-Roovet-Signature"].startswith(f"t={NOW},v1=")


def test_the_client_of_the_rest_framework(roovet: Roovet) -> None:
    with opened("django") as shop:
        from rest_framework.test import APIClient  # type: ignore[import-untyped]  # noqa: PLC0415 - it reads the settings

        record = roovet.use(shop.receiver)
        assert roovet.post(APIClient(), "order.created", id="ord_1").status_code == 200
        record.assert_handled("order.created", id="ord_1")


def test_the_bundles_are_what_the_clients_take(roovet: Roovet) -> None:
    request = roovet.request("order.created")
    with opened("starlette") as shop:
        roovet.use(shop.receiver)
        assert shop.client.post(request.path, **request.starlette()).json() == {"status": "handled"}
    with opened("flask") as shop:
        roovet.use(shop.receiver)
        assert shop.client.post(request.path, **request.flask()).json == {"status": "handled"}
    with opened("django") as shop:
        roovet.use(shop.receiver)
        assert shop.client.post(request.path, **request.django()).json() == {"status": "handled"}
    with opened("django async") as shop:
        roovet.use(shop.receiver)
        answer = asyncio.run(shop.client.post(request.path, **request.django(asynchronous=True)))
        assert answer.json() == {"status": "handled"}


class Heard:
    """An ASGI application that keeps the headers it gets."""

    def __init__(self) -> None:
        self.headers: list[tuple[bytes, bytes]] = []

    async def __call__(self, scope: Mapping[str, Any], _receive: object, send: Any) -> None:  # noqa: ANN401 - ASGI's own
        self.headers = scope["headers"]
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})


def test_a_repeated_header_and_bytes_that_are_not_ascii_are_sent_as_they_are() -> None:
    request = SignedRequest(b"{}", ((b"X-One", b"\xff"), (b"x-one", b"2"), (b"Content-Type", b"application/json")))
    assert request.headers == {"X-One": "\xff,2", "Content-Type": "application/json"}
    heard = Heard()

    async def post() -> None:
        transport = httpx.ASGITransport(heard)
        async with httpx.AsyncClient(transport=transport, base_url="http://shop.example") as client:
            await request.post(client)

    asyncio.run(post())
    assert [(name, value) for name, value in heard.headers if name == b"x-one"] == [
        (b"x-one", b"\xff"),
        (b"x-one", b"2"),
    ]
    configure_django()
    from django.test import AsyncRequestFactory, RequestFactory  # noqa: PLC0415 - it reads the settings

    scope = vars(request.post(AsyncRequestFactory()))["scope"]
    assert [value for name, value in scope["headers"] if name == b"x-one"] == [b"\xff", b"2"]
    assert [value for name, value in scope["headers"] if name == b"content-type"] == [b"application/json"]
    assert request.post(RequestFactory()).META["HTTP_X_ONE"] == "\xff,2"


def test_a_function_may_send_it() -> None:
    assert signed_request("order.created").post(lambda request: request.path) == PATH


@pytest.mark.parametrize(
    "application", [Flask("shop"), FastAPI(), Starlette(), object(), None], ids=lambda it: type(it).__name__
)
def test_what_is_no_client_is_refused_with_what_to_do(application: Any) -> None:  # noqa: ANN401 - wrong on purpose
    with pytest.raises(TypeError, match=f"{type(application).__name__} is no test client .*TestClient"):
        signed_request("order.created").post(application)


def test_a_receiver_answers_with_its_own_response(roovet: Roovet) -> None:
    with opened("receiver") as shop:
        roovet.use(shop.receiver)
        answer = roovet.post(shop.receiver, OrderCreated, id="ord_1")
        assert isinstance(answer, WebhookResponse)
        assert answer.body == b'{"status":"handled"}'


# The clock


def test_the_clock_stands_still_until_it_is_told_to_go_on() -> None:
    clock = Clock()
    assert clock() == clock() == NOW
    clock.tick()
    clock.tick(0.5)
    assert clock() == NOW + 1.5
    assert repr(Clock(5)) == "Clock(5.0)"


@pytest.mark.parametrize("seconds", [-1, float("inf"), float("nan")])
def test_time_does_not_run_backwards(seconds: float) -> None:
    with pytest.raises(ValueError, match="age="):
        Clock().tick(seconds)
