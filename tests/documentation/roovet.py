"""What the pages' calls to the API of Roovet are answered with: nothing leaves this process."""

from __future__ import annotations

import httpx2

from roovet_webhooks.api.documented import BASE_URL

_MOMENT = "2025-11-10T13:53:20Z"
_COMMON = {"currency": "USD", "created_at": _MOMENT}
_ITEMS = [{"product": "prd_1", "name": "Chair", "quantity": 2, "price_cents": 4900}]
_ORDER = {
    "id": "ord_123",
    "status": "paid",
    "items": _ITEMS,
    "total_cents": 9800,
    "payment_method": "wallet",
    **_COMMON,
}
_PAGE = {"has_more": False, "next_cursor": None}
_ANSWERS: dict[str, dict[str, object]] = {
    "/api/wallet/balance": {
        "balance_cents": 12345,
        "available_cents": 12000,
        "currency": "USD",
        "updated_at": _MOMENT,
    },
    "/api/wallet/transactions": {
        "data": [{"id": "txn_123", "type": "credit", "amount_cents": 999, **_COMMON}],
        **_PAGE,
    },
    "/api/wallet/transfer": {"id": "trf_abc123", "status": "processing", "amount_cents": 1234, **_COMMON},
    "/api/shop/products": {"data": [{"id": "prd_1", "name": "Chair", "price_cents": 4900, **_COMMON}], **_PAGE},
    "/api/shop/cart": {
        "id": "cart_1",
        "status": "open",
        "items": _ITEMS,
        "total_cents": 9800,
        "updated_at": _MOMENT,
        **_COMMON,
    },
    "/api/shop/checkout": _ORDER,
    "/api/shop/orders": {"data": [_ORDER], **_PAGE},
}


def answer(request: httpx2.Request) -> httpx2.Response:
    """Answer a request as Roovet would."""
    assert str(request.url).startswith(BASE_URL)
    return httpx2.Response(200, json=_ANSWERS[request.url.path], headers={"X-RateLimit-Remaining": "59"})


async def answer_async(request: httpx2.Request) -> httpx2.Response:
    """Answer a request as Roovet would."""
    return answer(request)


def stand_in() -> None:
    """Let clients of this process reach these answers in place of the network."""
    setattr(httpx2.HTTPTransport, "handle_request", lambda _self, request: answer(request))  # noqa: B010 - a method
    setattr(httpx2.AsyncHTTPTransport, "handle_async_request", lambda _self, request: answer_async(request))  # noqa: B010 - a method
