"""The client against the sandbox: both are derived from one table, and must understand each other."""

from __future__ import annotations

import gc
import itertools
from typing import TYPE_CHECKING

import httpx2
import pytest
import stamina

from roovet_webhooks import OrderCreated
from roovet_webhooks.api import (
    AsyncRoovetClient,
    Conflict,
    InsufficientScope,
    InvalidRequest,
    NotFound,
    NotThereYet,
    Order,
    RoovetClient,
    Unauthenticated,
)
from roovet_webhooks.sandbox import Sandbox, sandbox_app
from roovet_webhooks.sandbox.api import ApiRequest

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    made = Sandbox()
    yield made
    made.close()


class Counted(httpx2.BaseTransport):
    """Hands requests to a sandbox, and counts its answers by their status."""

    def __init__(self, sandbox: Sandbox) -> None:
        self._sandbox = sandbox
        self.statuses: list[int] = []

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        headers = {name.lower(): value for name, value in request.headers.items()}
        asked = ApiRequest(request.method, request.url.path, request.url.params.multi_items(), headers, request.read())
        fault = self._sandbox.draw_api_fault()
        if fault == "api_timeout":
            message = "chaos"
            raise httpx2.ReadTimeout(message)
        answer = self._sandbox.answer(asked, fault)
        self.statuses.append(answer.status)
        return httpx2.Response(answer.status, content=answer.body, headers=dict(answer.headers))


def client_of(sandbox: Sandbox, key: str | None = None) -> tuple[RoovetClient, Counted]:
    """Return a client that waits by advancing the sandbox's clock."""
    transport = Counted(sandbox)
    key = sandbox.api_key if key is None else key
    return RoovetClient(key, transport=transport, clock=sandbox.clock, sleep=sandbox.advance), transport


def buy(client: RoovetClient) -> Order:
    product = next(one for one in client.shop.products("mug") if one.available)
    return client.shop.checkout(client.shop.cart({product.id: 2}).id, "card")


def test_an_order_from_the_search_to_the_event(sandbox: Sandbox) -> None:
    client, _ = client_of(sandbox)
    order = buy(client)
    created = OrderCreated(event="order.created", id=order.id, ts=int(sandbox.clock()))
    assert client.fetch(created) == order
    with pytest.raises(NotThereYet):
        client.fetch(OrderCreated(event="order.created", id="ord_none", ts=int(sandbox.clock())))


def test_a_transfer_is_exact_and_happens_once(sandbox: Sandbox) -> None:
    client, _ = client_of(sandbox)
    before = client.wallet.balance().balance_cents
    transfers = {client.wallet.transfer("user_42", 1234, note="Thanks!", idempotency_key="k").id for _ in range(3)}
    assert len(transfers) == 1
    assert client.wallet.balance().balance_cents == before - 1234
    found = next(iter(client.wallet.transactions()))
    assert (found.amount_cents, found.source) == (-1234, transfers.pop())
    with pytest.raises(Conflict):
        client.wallet.transfer("user_42", 1235, idempotency_key="k")
    sandbox.check_books()


def test_refusals_are_errors_of_ours(sandbox: Sandbox) -> None:
    client, _ = client_of(sandbox)
    with pytest.raises(NotFound):
        client.wallet.transfer("user_nobody", 1)
    with pytest.raises(NotFound):
        client.shop.checkout("cart_none", "card")
    with pytest.raises(Conflict):
        client.wallet.transfer("user_42", 99_999_999_999)
    with pytest.raises(InvalidRequest):
        client.with_options(version="1999-01-01").wallet.balance()
    with pytest.raises(InvalidRequest):
        list(client.shop.orders(starting_after="ord_none"))
    reader, _ = client_of(sandbox, sandbox.create_key(["wallet:read"]))
    with pytest.raises(InsufficientScope) as caught:
        reader.wallet.transfer("user_42", 1)
    assert (caught.value.scope, caught.value.message) == ("wallet:write", "Missing scope: wallet:write")
    assert caught.value.request_id
    with pytest.raises(Unauthenticated):
        client_of(sandbox, "rvpk_test_of_nobody")[0].wallet.balance()


def test_200_calls_in_a_row_succeed_and_none_is_refused(sandbox: Sandbox) -> None:
    client, transport = client_of(sandbox)
    begun = sandbox.clock()
    for _ in range(200):
        client.wallet.balance()
    assert transport.statuses == [200] * 200
    assert 170 < sandbox.clock() - begun < 200


def test_orders_are_paged_in_constant_memory_and_both_ways() -> None:
    sandbox = Sandbox(rate_limit=100_000)
    client, _ = client_of(sandbox)
    product = next(one for one in client.shop.products("mug") if one.available)
    placed = [client.shop.checkout(client.shop.cart({product.id: 1}).id, "card").id for _ in range(120)]

    def alive() -> int:
        gc.collect()  # in a process with many objects the collector seldom looks at the old ones
        return sum(type(one) is Order for one in gc.get_objects())  # isinstance would wake lazy objects of Django

    before, most, listed = alive(), 0, list[str]()
    for order in client.shop.orders(limit=10):
        listed.append(order.id)
        if len(listed) % 25 == 0:
            most = max(most, alive() - before)
    assert listed == placed[::-1]
    assert most <= 2 * 10, "a page, and the one before it while it is replaced"
    back = client.shop.orders(limit=10, ending_before=placed[0])
    assert [order.id for order in back] == placed[1:]
    sandbox.close()


def test_what_chaos_breaks_is_repeated_and_acts_once(sandbox: Sandbox) -> None:
    client, transport = client_of(sandbox)
    client = client.with_options(max_attempts=50)
    before = client.wallet.balance().balance_cents
    sandbox.set_chaos(seed=7, api_error=0.2, api_rate_limited=0.1, api_timeout=0.1, api_lost_answer=0.2)
    with stamina.set_testing(True, attempts=50, cap=True):
        for _ in range(40):
            client.wallet.transfer("user_42", 1)
        assert client.wallet.balance().balance_cents == before - 40
    assert {429, 500} <= set(transport.statuses)
    sandbox.check_books()


@pytest.mark.anyio
async def test_the_async_client_over_asgi(sandbox: Sandbox) -> None:
    transport = httpx2.ASGITransport(sandbox_app(sandbox, sends=False))
    async with AsyncRoovetClient(sandbox.api_key, transport=transport, clock=sandbox.clock) as client:
        assert (await client.wallet.balance()).currency == "USD"
        names = [product.name async for product in client.shop.products("chair", limit=1)]
        assert sorted(names) == ["Folding chair", "Oak chair"]
        raw = await client.wallet.balance.raw()
    remaining = int(raw.headers["X-RateLimit-Remaining"])
    assert 0 < remaining < 60
    assert list(itertools.islice(raw.headers, 1))


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"
