"""The description of the API: the vendor's examples fit its types, and the OpenAPI document is derived from it."""

from __future__ import annotations

import copy
import json
import pickle
import subprocess
import sys
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from hypothesis import given, strategies as st
from openapi_spec_validator import validate

from roovet_webhooks.api import assumed, documented, resource
from roovet_webhooks.api.assumed import ASSUMPTIONS, Cart, CartRequest, CheckoutRequest, PageQuery, ProductQuery
from roovet_webhooks.api.documented import (
    ERROR_STATUSES,
    SCOPES,
    Balance,
    ErrorBody,
    Transaction,
    Transfer,
    TransferRequest,
)
from roovet_webhooks.api.money import MAX_CENTS, amount_of_cents, cents_of_amount
from roovet_webhooks.api.openapi import openapi_document
from roovet_webhooks.api.resource import Page, Resource
from roovet_webhooks.api.table import ENDPOINTS, TRANSACTIONS, Endpoint

# The examples of the vendor's documentation, as they stand there.
BALANCE = b'{"balance_cents": 12345, "available_cents": 12000, "currency": "USD", "updated_at": "2025-09-20T02:30:00Z"}'
PAGE = b"""{
  "data": [
    {"id":"txn_123","type":"credit","amount_cents":999,"currency":"USD","created_at":"2025-09-20T02:29:00Z"},
    {"id":"txn_122","type":"debit","amount_cents":-499,"currency":"USD","created_at":"2025-09-19T16:10:00Z"}
  ],
  "has_more": true,
  "next_cursor": "txn_122"
}"""
TRANSFER = (
    b'{"id": "trf_abc123", "status": "processing", "amount_cents": 1234, "currency": "USD",'
    b' "created_at": "2025-09-20T02:31:00Z"}'
)
TRANSFER_REQUEST = b'{"to":"user_42","amount":12.34,"currency":"USD","note":"Thanks!"}'
ERROR = (
    b'{"error": {"type": "insufficient_scope", "code": "403", "message": "Missing scope: wallet:read",'
    b' "param": "scope"}}'
)


def test_the_table_has_every_endpoint_of_the_documentation() -> None:
    assert [(row.method, row.path, row.scope) for row in ENDPOINTS] == [
        ("GET", "/api/wallet/balance", "wallet:read"),
        ("GET", "/api/wallet/transactions", "wallet:read"),
        ("POST", "/api/wallet/transfer", "wallet:write"),
        ("GET", "/api/shop/products", "shop:read"),
        ("POST", "/api/shop/cart", "shop:write"),
        ("POST", "/api/shop/checkout", "shop:write"),
        ("GET", "/api/shop/orders", "shop:read"),
    ]


@pytest.mark.parametrize("row", ENDPOINTS, ids=lambda row: row.name)
def test_a_row_agrees_with_itself(row: Endpoint[object]) -> None:
    assert row.scope in SCOPES
    assert set(row.assumptions) <= ASSUMPTIONS.keys()
    assert row.paginated == (row.query is not None and issubclass(row.query, PageQuery))
    if row.row is not None:
        assert row.answer == Page[row.row]  # type: ignore[name-defined] # a value, not an annotation
    assert (row.body is not None) == (row.method == "POST") == row.takes_idempotency_key
    assert (409 in row.error_statuses) == (row.method == "POST")


def test_only_the_balance_is_documented_whole() -> None:
    assert [row.name for row in ENDPOINTS if not row.assumptions] == ["wallet.balance"]


def test_the_documented_answers_are_read() -> None:
    at = datetime(2025, 9, 20, 2, 30, tzinfo=UTC)
    balance = resource.decode(BALANCE, Balance)
    assert balance == Balance(balance_cents=12345, available_cents=12000, currency="USD", updated_at=at)
    page = resource.decode(PAGE, Page[Transaction])
    assert [(row.id, row.amount_cents, row.source) for row in page.data] == [
        ("txn_123", 999, None),
        ("txn_122", -499, None),
    ]
    assert (page.has_more, page.next_cursor) == (True, "txn_122")
    assert resource.decode(TRANSFER, Transfer).status == "processing"
    body = msgspec.json.decode(TRANSFER_REQUEST, type=TransferRequest)
    assert cents_of_amount(body.amount) == 1234
    error = msgspec.json.decode(ERROR, type=ErrorBody).error
    assert (error.type, error.code, error.param) == ("insufficient_scope", "403", "scope")


@pytest.mark.parametrize(
    ("raw", "kind"), [(BALANCE, Balance), (PAGE, Page[Transaction]), (TRANSFER, Transfer), (ERROR, ErrorBody)]
)
def test_the_documented_answers_are_written_with_these_fields_and_no_others(raw: bytes, kind: Any) -> None:  # noqa: ANN401 - a type form
    assert json.loads(msgspec.json.encode(msgspec.json.decode(raw, type=kind))) == json.loads(raw)


def test_undeclared_fields_are_kept_at_every_depth() -> None:
    moment = "2025-09-20T02:30:00Z"
    cart = resource.decode(
        json.dumps(
            {
                "id": "cart_1",
                "status": "open",
                "items": [{"product": "prd_1", "name": "Chair", "quantity": 1, "price_cents": 5, "colour": "red"}],
                "total_cents": 5,
                "currency": "USD",
                "created_at": moment,
                "updated_at": moment,
                "discount": {"rate": 0.10},
            }
        ).encode(),
        Cart,
    )
    assert cart.extra == {"discount": {"rate": Decimal("0.1")}}
    assert cart.items[0].extra == {"colour": "red"}
    for other in (pickle.loads(pickle.dumps(cart)), copy.deepcopy(cart), copy.copy(cart)):  # noqa: S301 - our own
        assert other == cart
        assert other.extra == cart.extra
        assert other.items[0].extra == cart.items[0].extra
    page = resource.decode(PAGE.replace(b'"type"', b'"memo":1.10,"type"'), Page[Transaction])
    assert [row.extra for row in page.data] == [{"memo": Decimal("1.10")}] * 2


def test_extra_cannot_be_changed_and_is_empty_where_nothing_came() -> None:
    balance = resource.decode(BALANCE, Balance)
    assert balance.extra == {}
    assert pickle.loads(pickle.dumps(balance)).extra == {}  # noqa: S301 - our own
    with pytest.raises(TypeError):
        balance.extra["x"] = 1  # type: ignore[index]


@pytest.mark.parametrize(
    "raw",
    [
        BALANCE.replace(b"12345", b"123.45"),
        BALANCE.replace(b"30:00Z", b"30:00"),  # no time zone
        BALANCE.replace(b"balance_cents", b"balance"),
        b"[]",
    ],
)
def test_an_answer_that_does_not_fit_is_refused(raw: bytes) -> None:
    with pytest.raises(msgspec.ValidationError):
        resource.decode(raw, Balance)


@given(st.integers(1, MAX_CENTS))
def test_cents_and_amounts_are_the_same_money(cents: int) -> None:
    amount = amount_of_cents(cents)
    assert cents_of_amount(amount) == cents
    written = msgspec.json.Encoder(decimal_format="number").encode(TransferRequest(to="user_42", amount=amount))
    assert cents_of_amount(msgspec.json.decode(written, type=TransferRequest).amount) == cents


@pytest.mark.parametrize("cents", [0, -1, MAX_CENTS + 1, 12.0, True, "12"])
def test_what_is_no_whole_number_of_cents_is_refused(cents: Any) -> None:  # noqa: ANN401 - what an untyped caller may pass
    with pytest.raises(ValueError, match="amount_cents must be an int"):
        amount_of_cents(cents)


@pytest.mark.parametrize(
    "amount", ["0", "-1", "0.001", "12.345", "1000000000", "1e1000000000", "12.34" + "0" * 40 + "1"]
)
def test_an_amount_that_is_no_whole_number_of_cents_is_refused(amount: str) -> None:
    with pytest.raises(ValueError, match="the amount must"):
        cents_of_amount(Decimal(amount))


@pytest.mark.parametrize(
    ("query", "sent"),
    [
        (PageQuery, {"limit": "0"}),
        (PageQuery, {"limit": "101"}),
        (PageQuery, {"limit": "1.5"}),
        (PageQuery, {"starting_after": ""}),
        (ProductQuery, {"query": "x" * 201}),
    ],
)
def test_a_query_out_of_bounds_is_refused(query: type[msgspec.Struct], sent: dict[str, str]) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(sent, query, strict=False)


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        (TransferRequest, {"to": "user_42", "amount": 1, "amout": 2}),
        (TransferRequest, {"to": "", "amount": 1}),
        (TransferRequest, {"to": "user_42", "amount": 1, "currency": "usd"}),
        (CartRequest, {"items": []}),
        (CartRequest, {"items": [{"product": "prd_1", "quantity": 0}]}),
        (CheckoutRequest, {"cart": "cart_1", "payment_method": "cash"}),
    ],
)
def test_a_body_out_of_bounds_is_refused(kind: type[msgspec.Struct], body: dict[str, object]) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(json.dumps(body), type=kind)


def test_every_resource_says_where_it_comes_from() -> None:
    kinds = {value for module in (documented, assumed) for value in vars(module).values() if isinstance(value, type)}
    ours = {kind for kind in Resource.__subclasses__() if kind.__module__.startswith("roovet_webhooks.")}
    assert {kind for kind in kinds if issubclass(kind, Resource)} - {Resource} == ours


def test_the_openapi_document_is_valid_and_has_every_row() -> None:
    document = openapi_document(server="http://127.0.0.1:8000")
    validate(document)
    operations = {
        (method.upper(), path): operation
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    }
    assert operations.keys() == {(row.method, row.path) for row in ENDPOINTS}
    for row in ENDPOINTS:
        operation = operations[row.method, row.path]
        assert operation["security"] == [{"key": [row.scope]}]
        assert {int(status) for status in operation["responses"]} == {200, *row.error_statuses}
        assert all(ASSUMPTIONS[topic] in operation["description"] for topic in row.assumptions)
        headers = [one["name"] for one in operation["parameters"] if one["in"] == "header"]
        assert ("Idempotency-Key" in headers) == row.takes_idempotency_key
    assert document["components"]["responses"].keys() == {str(status) for status in ERROR_STATUSES}
    assert document["servers"] == [{"url": "http://127.0.0.1:8000"}]
    json.dumps(document)


def test_the_openapi_document_has_the_bounds_and_the_words_of_the_types() -> None:
    document = openapi_document()
    parameters = {one["name"]: one for one in document["paths"][TRANSACTIONS.path]["get"]["parameters"]}
    assert parameters["limit"]["schema"] == {"type": "integer", "minimum": 1, "maximum": 100, "default": 20}
    assert all(one["description"] for one in parameters.values())
    amount = document["components"]["schemas"]["TransferRequest"]["properties"]["amount"]
    assert amount["type"] == "number"
    assert "format" not in amount
    for schema in document["components"]["schemas"].values():
        assert all(prop["description"] for prop in schema["properties"].values())


def test_a_new_endpoint_is_one_row() -> None:
    class Shelf(Resource, frozen=True, kw_only=True):
        """A shelf.

        Attributes:
            id: ``shl_…``.
        """

        id: str

    row = Endpoint(
        name="shop.shelf", method="GET", path="/api/shop/shelf", scope="shop:read", summary="Shows it.", answer=Shelf
    )
    document = openapi_document(endpoints=[row])
    validate(document)
    assert document["components"]["schemas"]["Shelf"]["properties"]["id"]["description"] == "`shl_…`."


def test_the_description_loads_neither_a_client_nor_a_framework() -> None:
    program = (
        "import sys, roovet_webhooks\n"
        "assert not any(name.startswith(('roovet_webhooks.api', 'roovet_webhooks.sandbox')) for name in sys.modules)\n"
        "import roovet_webhooks.api.table, roovet_webhooks.api.openapi\n"
        "print(*{'httpx2', 'httpx', 'stamina', 'starlette', 'django', 'flask', 'sqlalchemy'} & sys.modules.keys())"
    )
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)  # noqa: S603 - our own
    assert ran.stdout.strip() == ""
