"""Both clients: what is sent and answered, errors and retries, lists, and what a thin event is about."""

from __future__ import annotations

import copy
import dataclasses
import gc
import pickle
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import httpx2
import pytest
import stamina
from support import NOW, SECRET, payload, request_of
from support.api import BALANCE, KEY, MOMENT, Clock, FakeRoovet, Kind, answer, lister, refusal, row

from roovet_webhooks import (
    Event,
    OrderCreated,
    RetryLater,
    WebhookReceiver,
)
from roovet_webhooks.api import (
    ApiError,
    ApiStatusError,
    ApiTimeout,
    AsyncRoovetClient,
    Conflict,
    InsufficientScope,
    InvalidRequest,
    NotFetchable,
    NotFound,
    NotThereYet,
    Order,
    RateLimited,
    RoovetClient,
    ServerError,
    Transaction,
    Unauthenticated,
    UndecodableAnswer,
)
from roovet_webhooks.api.exchange import make_call
from roovet_webhooks.api.table import ENDPOINTS, TRANSFER

if TYPE_CHECKING:
    from collections.abc import Iterator

TRANSFERRED = {
    "id": "trf_abc123",
    "status": "processing",
    "amount_cents": 1234,
    "currency": "USD",
    "created_at": "2025-09-20T02:31:00Z",
}
CART = {
    "id": "cart_1",
    "status": "open",
    "items": [{"product": "prd_1", "name": "Chair", "quantity": 2, "price_cents": 5}],
    "total_cents": 10,
    "currency": "USD",
    "created_at": MOMENT,
    "updated_at": MOMENT,
}
PRODUCT = {"id": "prd_1", "name": "Chair", "price_cents": 5, "currency": "USD", "created_at": MOMENT}
EMPTY = {"data": [], "has_more": False, "next_cursor": None}


@pytest.fixture(params=[RoovetClient, AsyncRoovetClient], ids=["sync", "async"])
def kind(request: pytest.FixtureRequest) -> Kind:
    return Kind(request.param)


@pytest.fixture(autouse=True)
def _no_waits() -> Iterator[None]:
    """Let stamina repeat at once."""
    with stamina.set_testing(True, attempts=100, cap=True):
        yield


def event(name: str = "order.created", resource: str = "ord_1", ts: int = NOW) -> Event:
    return Event(event=name, id=resource, ts=ts)


# What is sent


REQUESTS = [
    (lambda c: c.wallet.balance(), BALANCE, "GET", "/api/wallet/balance", None),
    (lambda c: c.wallet.transactions(limit=2), EMPTY, "GET", "/api/wallet/transactions?limit=2", None),
    (
        lambda c: c.wallet.transactions(limit=50, starting_after="txn_123"),
        EMPTY,
        "GET",
        "/api/wallet/transactions?limit=50&starting_after=txn_123",
        None,
    ),
    (
        lambda c: c.wallet.transactions(ending_before="txn_123"),
        EMPTY,
        "GET",
        "/api/wallet/transactions?ending_before=txn_123",
        None,
    ),
    (
        lambda c: c.wallet.transfer("user_42", 1234, note="Thanks!"),
        TRANSFERRED,
        "POST",
        "/api/wallet/transfer",
        b'{"to":"user_42","amount":12.34,"currency":"USD","note":"Thanks!"}',
    ),
    (
        lambda c: c.shop.products("chair", limit=20),
        EMPTY,
        "GET",
        "/api/shop/products?query=chair&limit=20",
        None,
    ),
    (lambda c: c.shop.products(), EMPTY, "GET", "/api/shop/products", None),
    (
        lambda c: c.shop.cart({"prd_1": 2}),
        CART,
        "POST",
        "/api/shop/cart",
        b'{"items":[{"product":"prd_1","quantity":2}]}',
    ),
    (
        lambda c: c.shop.cart({"prd_1": 2}, cart="cart_1"),
        CART,
        "POST",
        "/api/shop/cart",
        b'{"items":[{"product":"prd_1","quantity":2}],"cart":"cart_1"}',
    ),
    (
        lambda c: c.shop.checkout("cart_1", "wallet"),
        row("ord_1"),
        "POST",
        "/api/shop/checkout",
        b'{"cart":"cart_1","payment_method":"wallet"}',
    ),
    (lambda c: c.shop.orders(), EMPTY, "GET", "/api/shop/orders", None),
]


@pytest.mark.parametrize(("make", "answered", "method", "target", "body"), REQUESTS, ids=map(str, range(len(REQUESTS))))
def test_a_request_is_as_the_documentation_shows_it(  # noqa: PLR0913, PLR0917 - a table's columns
    kind: Kind,
    make: Any,  # noqa: ANN401 - a lambda
    answered: object,
    method: str,
    target: str,
    body: bytes | None,
) -> None:
    roovet = FakeRoovet([answer(answered)])
    kind.get(make(kind.make(roovet)))
    request = roovet.request
    assert (request.method, str(request.url)) == (method, f"https://roovet.com{target}")
    assert request.headers["Authorization"] == f"Bearer {KEY}"
    assert request.headers["X-Roovet-Version"] == "2025-11-10"
    assert request.headers["Accept"] == "application/json"
    assert request.headers["User-Agent"].startswith("roovet-webhooks/")
    assert request.content == (body or b"")
    if method == "POST":
        assert request.headers["Content-Type"] == "application/json"
        assert len(request.headers["Idempotency-Key"]) == 36
    else:
        assert "Idempotency-Key" not in request.headers


def test_every_endpoint_of_the_table_is_called() -> None:
    called = {(method, target.partition("?")[0]) for _, _, method, target, _ in REQUESTS}
    assert called == {(endpoint.method, endpoint.path) for endpoint in ENDPOINTS}


@pytest.mark.parametrize("cents", [1, 10, 100, 1200, 99_999_999_999])
def test_an_amount_is_never_a_float(kind: Kind, cents: int) -> None:
    roovet = FakeRoovet([answer(TRANSFERRED)])
    kind.get(kind.make(roovet).wallet.transfer("user_42", cents))
    assert f'"amount":{Decimal(cents) / 100:.2f},'.encode() in roovet.request.content


def test_an_idempotency_key_is_the_callers_or_another_for_each_call(kind: Kind) -> None:
    roovet = FakeRoovet([answer(TRANSFERRED)])
    client = kind.make(roovet)
    kind.get(client.wallet.transfer("user_42", 1, idempotency_key="dlv_1"))
    kind.get(client.wallet.transfer("user_42", 1))
    kind.get(client.wallet.transfer("user_42", 1))
    keys = [request.headers["Idempotency-Key"] for request in roovet.requests]
    assert keys[0] == "dlv_1"
    assert len(set(keys)) == 3


@pytest.mark.parametrize(
    ("version", "sent"), [("2025-09-15", "2025-09-15"), (None, None)], ids=["an older one", "no pin"]
)
def test_the_version_can_be_pinned(kind: Kind, version: str | None, sent: str | None) -> None:
    roovet = FakeRoovet([answer(BALANCE)])
    kind.get(kind.make(roovet, version=version).wallet.balance())
    assert roovet.request.headers.get("X-Roovet-Version") == sent


@pytest.mark.parametrize(
    "make",
    [
        lambda c: c.wallet.transactions(limit=0),
        lambda c: c.wallet.transactions(limit=101),
        lambda c: c.wallet.transactions(starting_after="txn_1", ending_before="txn_2"),
        lambda c: c.wallet.transactions(starting_after=""),
        lambda c: c.wallet.transfer("", 1),
        lambda c: c.wallet.transfer("user_42", 0),
        lambda c: c.wallet.transfer("user_42", 12.34),
        lambda c: c.wallet.transfer("user_42", 1, currency="usd"),
        lambda c: c.wallet.transfer("user_42", 1, idempotency_key="a\nb"),
        lambda c: c.wallet.transfer("user_42", 1, idempotency_key=""),
        lambda c: c.shop.cart({}),
        lambda c: c.shop.cart({"prd_1": 0}),
        lambda c: c.shop.checkout("cart_1", "cash"),
        lambda c: c.shop.products("x" * 201),
    ],
    ids=map(str, range(14)),
)
def test_what_the_table_does_not_allow_is_not_sent(kind: Kind, make: Any) -> None:  # noqa: ANN401 - a lambda
    roovet = FakeRoovet([answer(EMPTY)])
    client = kind.make(roovet)
    with pytest.raises(ValueError, match=r"wallet\.|shop\.|amount_cents|idempotency_key"):
        kind.get(make(client))
    assert roovet.requests == []


@pytest.mark.parametrize("options", [{"timeout": 0}, {"max_attempts": 0}, {"max_wait": -1}, {"version": "a\r\nb: c"}])
def test_options_that_cannot_be_meant_are_refused(kind: Kind, options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"timeout|version"):
        kind.make(FakeRoovet([]), **options)


# What is answered


def test_answers_are_typed_and_the_raw_one_is_at_hand(kind: Kind) -> None:
    roovet = FakeRoovet([answer({**BALANCE, "pending_cents": 1}, X_Request_Id="req_1", X_RateLimit_Remaining="7")])
    client = kind.make(roovet)
    balance = kind.get(client.wallet.balance())
    assert (balance.available_cents, balance.extra) == (12000, {"pending_cents": 1})
    raw = kind.get(client.wallet.balance.raw())
    assert (raw.status, raw.request_id, raw.attempts, raw.idempotency_key) == (200, "req_1", 1, None)
    assert raw.headers["x-ratelimit-remaining"] == "7"
    assert raw.value == balance
    assert b"pending_cents" in raw.body
    assert KEY not in repr(raw)


def test_a_page_can_be_asked_for_raw(kind: Kind) -> None:
    client = kind.make(FakeRoovet([answer({**EMPTY, "data": [PRODUCT]})]))
    raw = kind.get(client.shop.products.raw("chair"))
    assert [product.name for product in raw.value.data] == ["Chair"]


@pytest.mark.parametrize(
    ("answered", "words"),
    [
        (httpx2.Response(200, content=b"<html>"), "malformed"),
        (answer({**BALANCE, "balance_cents": "1"}), r"balance_cents"),
        (httpx2.Response(200, content=b"[" * 100_000), "nested|malformed"),
        (httpx2.Response(204), "truncated"),
        (httpx2.Response(302, headers={"Location": "https://elsewhere.example/"}), "redirects are not followed"),
        (httpx2.Response(304), "304"),
    ],
    ids=["html", "a wrong type", "deep", "nothing", "a redirect", "not modified"],
)
def test_an_answer_in_no_documented_form_is_an_error_of_its_own(
    kind: Kind, answered: httpx2.Response, words: str
) -> None:
    roovet = FakeRoovet([answered])
    with pytest.raises(UndecodableAnswer, match=words) as caught:
        kind.get(kind.make(roovet).wallet.balance())
    assert caught.value.status == answered.status_code
    assert caught.value.endpoint == "wallet.balance"
    assert len(roovet.requests) == 1


# Errors


STATUSES = [
    (400, InvalidRequest),
    (401, Unauthenticated),
    (403, InsufficientScope),
    (404, NotFound),
    (409, Conflict),
    (418, ApiStatusError),
    (429, RateLimited),
    (500, ServerError),
    (501, ServerError),
    (503, ServerError),
]


@pytest.mark.parametrize(("status", "error"), STATUSES)
def test_an_error_has_what_its_body_says(kind: Kind, status: int, error: type[ApiStatusError]) -> None:
    client = kind.make(FakeRoovet([refusal(status, "a_type", "limit", X_Request_Id="req_7")]), Clock(), max_attempts=2)
    with pytest.raises(error, match=rf"{status} a_type: It is so\. \(param limit\) \[request req_7\]") as caught:
        kind.get(client.wallet.balance())
    assert type(caught.value) is error
    assert (caught.value.status, caught.value.type, caught.value.code) == (status, "a_type", str(status))
    assert (caught.value.message, caught.value.param, caught.value.request_id) == ("It is so.", "limit", "req_7")
    assert caught.value.endpoint == "wallet.balance"
    for other in (pickle.loads(pickle.dumps(caught.value)), copy.copy(caught.value)):  # noqa: S301 - our own
        assert (type(other), str(other), vars(other)) == (error, str(caught.value), vars(caught.value))


def test_the_documented_error_names_the_scope(kind: Kind) -> None:
    detail = {"type": "insufficient_scope", "code": "403", "message": "Missing scope: wallet:read", "param": "scope"}
    with pytest.raises(InsufficientScope) as caught:
        kind.get(kind.make(FakeRoovet([answer({"error": detail}, 403)])).wallet.balance())
    assert (caught.value.scope, caught.value.type, caught.value.param) == ("wallet:read", "insufficient_scope", "scope")


@pytest.mark.parametrize("body", [b"", b"<html>", b'{"error":"no"}', b"[" * 100_000])
def test_an_error_without_the_documented_body_is_told_by_its_status(kind: Kind, body: bytes) -> None:
    with pytest.raises(NotFound, match="404 not_found: the answer has no error body") as caught:
        kind.get(kind.make(FakeRoovet([httpx2.Response(404, content=body)])).wallet.balance())
    assert caught.value.request_id is None


# Retries


TIMED_OUT = httpx2.ReadTimeout("…")
NOT_CONNECTED = httpx2.ConnectError("…")


@pytest.mark.parametrize(
    "trouble",
    [refusal(500), refusal(502), refusal(503, Retry_After="0"), refusal(504), TIMED_OUT, NOT_CONNECTED],
    ids=["500", "502", "503", "504", "timed out", "not connected"],
)
def test_what_is_safe_is_repeated_with_one_idempotency_key(kind: Kind, trouble: Any) -> None:  # noqa: ANN401 - an answer or an error
    roovet = FakeRoovet([trouble, trouble, answer(TRANSFERRED)])
    raw = kind.get(kind.make(roovet).wallet.transfer.raw("user_42", 1))
    assert raw.attempts == 3
    assert {request.headers["Idempotency-Key"] for request in roovet.requests} == {raw.idempotency_key}
    assert len({request.content for request in roovet.requests}) == 1


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 501])
def test_what_would_fail_again_is_not_repeated(kind: Kind, status: int) -> None:
    roovet = FakeRoovet([refusal(status)])
    with pytest.raises(ApiStatusError) as caught:
        kind.get(kind.make(roovet).wallet.balance())
    assert len(roovet.requests) == 1
    assert not caught.value.retryable


@pytest.mark.parametrize(
    ("error", "sent"), [(TIMED_OUT, True), (httpx2.ConnectTimeout("…"), False)], ids=["read", "connect"]
)
def test_at_the_end_of_its_attempts_a_call_says_what_it_knows(kind: Kind, error: Exception, *, sent: bool) -> None:
    roovet = FakeRoovet([error])
    with pytest.raises(ApiTimeout, match=r"wallet\.transfer: no answer within 10 s") as caught:
        kind.get(kind.make(roovet, max_attempts=3).wallet.transfer("user_42", 1))
    assert len(roovet.requests) == 3
    assert (caught.value.sent, caught.value.retryable) == (sent, True)
    assert caught.value.idempotency_key == roovet.requests[0].headers["Idempotency-Key"]


@pytest.mark.parametrize(
    ("error", "requests"),
    [(TIMED_OUT, 1), (refusal(500), 1), (NOT_CONNECTED, 3)],
    ids=["timed out", "500", "not connected"],
)
def test_a_write_that_is_not_idempotent_is_repeated_only_when_it_was_never_sent(error: Any, requests: int) -> None:  # noqa: ANN401 - an answer or an error
    roovet = FakeRoovet([error])
    client = RoovetClient(KEY, transport=httpx2.MockTransport(roovet), max_attempts=3)
    once = dataclasses.replace(make_call(TRANSFER, {"to": "user_42", "amount": 1}), idempotency_key=None)
    once = dataclasses.replace(once, endpoint=dataclasses.replace(TRANSFER, idempotent=False))
    with pytest.raises(ApiError):
        client._driver.send(once)  # pyright: ignore[reportPrivateUsage] - no row of the table is like that
    assert len(roovet.requests) == requests


def test_other_errors_pass_and_are_not_repeated(kind: Kind) -> None:
    roovet = FakeRoovet([ZeroDivisionError()])
    with pytest.raises(ZeroDivisionError):
        kind.get(kind.make(roovet).wallet.balance())
    assert len(roovet.requests) == 1


def test_options_can_differ_for_a_call(kind: Kind) -> None:
    roovet = FakeRoovet([refusal(500)])
    client = kind.make(roovet)
    quick = client.with_options(timeout=1.5, max_attempts=1, version=None)
    with pytest.raises(ServerError):
        kind.get(quick.wallet.balance())
    assert roovet.request.extensions["timeout"]["read"] == 1.5
    assert "X-Roovet-Version" not in roovet.request.headers
    with pytest.raises(ServerError):
        kind.get(client.shop.orders())
    assert len(roovet.requests) == 5
    assert roovet.requests[-1].extensions["timeout"]["read"] == 10.0


# Lists


def test_a_list_pages_by_itself(kind: Kind) -> None:
    rows = [row(f"ord_{number}") for number in range(250)]
    roovet = FakeRoovet([lister(rows)])
    found = kind.get(kind.make(roovet).shop.orders(limit=100))
    assert [order.id for order in found] == [one["id"] for one in rows]
    assert len(roovet.requests) == 3
    assert {request.url.params["limit"] for request in roovet.requests} == {"100"}


def test_a_list_goes_back_to_the_newest(kind: Kind) -> None:
    rows = [row(f"txn_{number}") for number in range(25)]
    roovet = FakeRoovet([lister(rows)])
    found = kind.get(kind.make(roovet).wallet.transactions(limit=10, ending_before="txn_24"))
    assert [one.id for one in found] == [f"txn_{number}" for number in reversed(range(24))]
    assert len(roovet.requests) == 3


def test_rows_that_are_added_meanwhile_move_nothing(kind: Kind) -> None:
    rows = [row(f"ord_{number}") for number in range(30)]

    def respond(request: httpx2.Request) -> httpx2.Response:
        response = lister(rows)(request)
        rows.insert(0, row(f"ord_new{len(rows)}"))
        return response

    found = kind.get(kind.make(FakeRoovet([respond])).shop.orders(limit=10))
    assert [order.id for order in found] == [f"ord_{number}" for number in range(30)]


def test_a_page_that_leads_to_itself_ends_the_list(kind: Kind) -> None:
    page = {"data": [row("txn_1")], "has_more": True, "next_cursor": "txn_1"}
    with pytest.raises(UndecodableAnswer, match="leads to txn_1 again"):
        kind.get(kind.make(FakeRoovet([answer(page)])).wallet.transactions())


def test_a_page_without_a_cursor_leads_on_by_its_last_row(kind: Kind) -> None:
    first = {"data": [row("txn_2")], "has_more": True, "next_cursor": None}
    roovet = FakeRoovet([answer(first), answer({**EMPTY, "data": [row("txn_1")]})])
    assert [one.id for one in kind.get(kind.make(roovet).wallet.transactions())] == ["txn_2", "txn_1"]
    assert roovet.requests[-1].url.params["starting_after"] == "txn_2"


def orders_alive() -> int:
    gc.collect()  # in a process with many objects the collector seldom looks at the old ones
    return sum(type(one) is Order for one in gc.get_objects())  # isinstance would wake lazy objects of Django


def test_a_list_of_1000_holds_one_page() -> None:
    rows = [row(f"ord_{number}", items=[]) for number in range(1000)]
    client = RoovetClient(KEY, transport=httpx2.MockTransport(lister(rows)))
    before, most, count = orders_alive(), 0, 0
    for count, _ in enumerate(client.shop.orders(limit=50), start=1):
        if count % 250 == 101:
            most = max(most, orders_alive() - before)
    assert count == 1000
    assert most <= 2 * 50, "a page, and the one before it while it is replaced"


# What a thin event is about


def test_an_order_is_found_among_the_recent_ones(kind: Kind) -> None:
    roovet = FakeRoovet([lister([row(f"ord_{number}") for number in range(250)])])
    order = kind.get(kind.make(roovet).fetch(event(resource="ord_130")))
    assert isinstance(order, Order)
    assert order.id == "ord_130"
    assert len(roovet.requests) == 2


@pytest.mark.parametrize("resource", ["txn_3", "trf_3"])
def test_a_transfer_is_found_by_its_transaction(kind: Kind, resource: str) -> None:
    roovet = FakeRoovet([lister([row(f"txn_{number}", source=f"trf_{number}") for number in range(5)])])
    found = kind.get(kind.make(roovet).fetch(event("transfer.settled", resource)))
    assert isinstance(found, Transaction)
    assert (found.id, found.source) == ("txn_3", "trf_3")


def test_what_is_not_there_yet_is_a_reason_to_retry_later(kind: Kind) -> None:
    roovet = FakeRoovet([lister([row(f"ord_{number}") for number in range(5)])])
    with pytest.raises(NotThereYet, match="ord_99 is not there yet") as caught:
        kind.get(kind.make(roovet).fetch(event(resource="ord_99")))
    assert isinstance(caught.value, RetryLater)
    assert pickle.loads(pickle.dumps(caught.value)).resource == "ord_99"  # noqa: S301 - our own


@pytest.mark.parametrize(("name", "requests"), [("order.created", 1), ("order.paid", 10)])
def test_what_was_just_created_is_not_looked_for_in_the_past(kind: Kind, name: str, requests: int) -> None:
    roovet = FakeRoovet([lister([row(f"ord_{number}", created_at="2025-11-10T12:00:00Z") for number in range(2000)])])
    with pytest.raises(NotThereYet):
        kind.get(kind.make(roovet).fetch(event(name, "ord_new")))
    assert len(roovet.requests) == requests


def test_how_far_back_is_for_the_caller_to_say(kind: Kind) -> None:
    roovet = FakeRoovet([lister([row(f"ord_{number}") for number in range(200)])])
    client = kind.make(roovet)
    with pytest.raises(NotThereYet):
        kind.get(client.fetch(event("order.paid", "ord_7"), recent=7))
    assert kind.get(client.fetch(event("order.paid", "ord_7"), recent=8)).id == "ord_7"
    assert len(roovet.requests) == 2


def test_what_the_api_has_no_list_of_is_refused(kind: Kind) -> None:
    roovet = FakeRoovet([answer(EMPTY)])
    with pytest.raises(NotFetchable, match=r"'usr_1' of 'user\.created'"):
        kind.get(kind.make(roovet).fetch(event("user.created", "usr_1")))
    assert roovet.requests == []


def test_a_handler_that_lets_it_pass_is_tried_again_later() -> None:
    roovet = FakeRoovet([answer(EMPTY), answer({**EMPTY, "data": [row("ord_1")]})])
    client = RoovetClient(KEY, transport=httpx2.MockTransport(roovet))
    receiver = WebhookReceiver(SECRET, clock=lambda: float(NOW))
    fulfilled: list[str] = []

    @receiver.on(OrderCreated)
    def fulfil(created: OrderCreated) -> None:
        fulfilled.append(client.fetch(created).id)

    request = request_of(payload(id="ord_1"))
    assert receiver.receive(request).status == 503
    assert receiver.receive(request).status == 200
    assert fulfilled == ["ord_1"]
