"""What an editor sees of the client. Nothing here runs: mypy and pyright hold it, in strict mode, as in core.py."""

from __future__ import annotations

from typing import assert_type

from roovet_webhooks import Event, OrderCreated  # noqa: TC001 - as users import it
from roovet_webhooks.api import (
    AsyncRoovetClient,
    Balance,
    Cart,
    Order,
    Product,
    RoovetClient,
    Transaction,
    Transfer,
)
from roovet_webhooks.api.drivers import AsyncPager, Pager
from roovet_webhooks.api.exchange import Answer
from roovet_webhooks.api.resource import Page


def sync(client: RoovetClient, created: OrderCreated, event: Event) -> None:
    assert_type(client.wallet.balance(), Balance)
    assert_type(client.wallet.balance().balance_cents, int)
    assert_type(client.wallet.balance.raw(), Answer[Balance])
    assert_type(client.wallet.balance.raw().value, Balance)
    assert_type(client.wallet.transfer("user_42", 1234, note="Thanks!", idempotency_key="k"), Transfer)
    assert_type(client.wallet.transactions(limit=50), Pager[Transaction])
    for transaction in client.wallet.transactions(starting_after="txn_1"):
        assert_type(transaction, Transaction)
    for page in client.shop.orders().pages():
        assert_type(page, Page[Order])
    assert_type(client.shop.orders.raw(limit=1), Answer[Page[Order]])
    for product in client.shop.products("chair", limit=20):
        assert_type(product, Product)
    assert_type(client.shop.cart({"prd_1": 1}, cart="cart_1"), Cart)
    assert_type(client.shop.checkout("cart_1", "card"), Order)
    assert_type(client.fetch(created), Order)
    assert_type(client.fetch(event), Order | Transaction)
    assert_type(client.with_options(timeout=1.0, max_attempts=1), RoovetClient)
    with client as same:
        assert_type(same, RoovetClient)


async def asynchronous(client: AsyncRoovetClient, created: OrderCreated, event: Event) -> None:
    assert_type(await client.wallet.balance(), Balance)
    assert_type(await client.wallet.balance.raw(), Answer[Balance])
    assert_type(await client.wallet.transfer("user_42", 1234), Transfer)
    assert_type(client.wallet.transactions(limit=50), AsyncPager[Transaction])
    async for transaction in client.wallet.transactions(ending_before="txn_1"):
        assert_type(transaction, Transaction)
    async for page in client.shop.orders().pages():
        assert_type(page, Page[Order])
    assert_type(await client.shop.orders.raw(limit=1), Answer[Page[Order]])
    assert_type(await client.shop.cart({"prd_1": 1}), Cart)
    assert_type(await client.shop.checkout("cart_1", "wallet"), Order)
    assert_type(await client.fetch(created), Order)
    assert_type(await client.fetch(event), Order | Transaction)
    assert_type(client.with_options(max_wait=0.0), AsyncRoovetClient)
    async with client as same:
        assert_type(same, AsyncRoovetClient)


def mistakes(client: RoovetClient, asynchronous: AsyncRoovetClient) -> None:
    client.wallet.transfer("user_42", 12.34)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    client.wallet.transfer("user_42")  # type: ignore[call-arg] # pyright: ignore[reportCallIssue]
    client.wallet.transactions(20)  # type: ignore[call-arg] # pyright: ignore[reportCallIssue]
    client.shop.checkout("cart_1", "cash")  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    client.shop.cart(["prd_1"])  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    client.with_options(retries=3)  # type: ignore[call-arg] # pyright: ignore[reportCallIssue]
    RoovetClient("rvpk", timeout="1")  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    list(asynchronous.shop.orders())  # type: ignore[call-overload] # pyright: ignore[reportArgumentType]
