"""`roovet_sandbox`: the API and the webhooks of Roovet in a test, without a port and without waiting."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import TYPE_CHECKING, Any

import anyio
import flask
import httpx2
import pytest
from starlette.applications import Starlette
from starlette.routing import Route
from starlette.testclient import TestClient

from roovet_webhooks import Event, OrderCreated, WebhookReceiver
from roovet_webhooks.api.errors import ServerError
from roovet_webhooks.asgi import WebhookApp
from roovet_webhooks.flask import webhook_blueprint

if TYPE_CHECKING:
    from collections.abc import Callable

    from roovet_webhooks.testing import LocalRoovet, Roovet

PATH = "/webhooks/roovet"


@pytest.fixture
def receiver(roovet: Roovet, roovet_sandbox: LocalRoovet) -> WebhookReceiver:
    """A receiver whose handler fetches what an event is about."""
    made = WebhookReceiver()

    @made.on(OrderCreated)
    def fulfil(event: OrderCreated) -> None:
        assert roovet_sandbox.client.fetch(event).status == "paid"

    @made.on("transfer.*")
    def note(event: Event) -> None: ...

    roovet.use(made)
    return made


def starlette_client(receiver: WebhookReceiver) -> object:
    return TestClient(Starlette(routes=[Route(PATH, WebhookApp(receiver))]))


def flask_client(receiver: WebhookReceiver) -> object:
    app = flask.Flask(__name__)
    app.register_blueprint(webhook_blueprint(receiver, path=PATH))
    return app.test_client()


@pytest.mark.parametrize("make", [starlette_client, flask_client, lambda receiver: receiver])
def test_an_order_reaches_a_handler(
    roovet: Roovet,
    roovet_sandbox: LocalRoovet,
    receiver: WebhookReceiver,
    make: Callable[[WebhookReceiver], Any],
) -> None:
    roovet_sandbox.forward(make(receiver))
    order = roovet_sandbox.checkout(quantity=2)
    assert order.total_cents == 2500
    assert roovet_sandbox.deliver() == [200]
    roovet.record.assert_handled("order.created", id=order.id)
    assert roovet_sandbox.deliver() == []


def test_time_passes_when_the_test_says_so(
    roovet: Roovet, roovet_sandbox: LocalRoovet, receiver: WebhookReceiver
) -> None:
    roovet_sandbox.forward(receiver)
    transfer = roovet_sandbox.client.wallet.transfer("user_42", 1250)
    assert roovet_sandbox.deliver() == [200]
    roovet_sandbox.advance(2)
    assert roovet_sandbox.deliver() == [200]
    roovet.record.assert_handled("transfer.settled", id=transfer.id)


def test_a_failure_is_sent_again_later(roovet_sandbox: LocalRoovet) -> None:
    statuses = [500, 200]
    roovet_sandbox.forward(lambda _request: statuses.pop(0))
    roovet_sandbox.trigger("order.created", "ord_7", note="x")
    assert roovet_sandbox.deliver() == [500]
    assert roovet_sandbox.deliver() == []
    roovet_sandbox.advance(2)
    assert roovet_sandbox.deliver() == [200]


def test_chaos_delivers_each_once(roovet: Roovet, roovet_sandbox: LocalRoovet, receiver: WebhookReceiver) -> None:
    roovet_sandbox.forward(receiver)
    orders = [roovet_sandbox.checkout().id for _ in range(20)]
    roovet_sandbox.chaos(all=0.5, seed=3, api_error=0, api_rate_limited=0, api_lost_answer=0, api_timeout=0)
    statuses: list[int | None] = []
    for _ in range(10):
        statuses += roovet_sandbox.deliver()
        roovet_sandbox.advance(300)
    handled = [made.delivery for made in roovet.record.deliveries if made.outcome == "handled"]
    counts = Counter(delivery.event.id for delivery in handled)
    assert counts == dict.fromkeys(orders, 1)
    assert {200, 400, None} <= set(statuses)
    assert roovet_sandbox.sandbox.delivery_states()["pending"] == 0


def test_the_api_fails_when_it_is_asked_to(roovet_sandbox: LocalRoovet) -> None:
    roovet_sandbox.chaos(api_error=1)
    with pytest.raises(ServerError):
        roovet_sandbox.client.wallet.balance()


def test_a_client_waits_by_letting_the_clock_tick(roovet_sandbox: LocalRoovet) -> None:
    before = roovet_sandbox.clock()
    for _ in range(130):
        roovet_sandbox.client.wallet.balance()
    assert 120 <= roovet_sandbox.clock() - before <= 180


def test_an_async_client_waits_by_letting_the_clock_tick(roovet_sandbox: LocalRoovet) -> None:
    before = roovet_sandbox.clock()

    async def play() -> None:
        for _ in range(130):
            await roovet_sandbox.async_client.wallet.balance()

    anyio.run(play)
    assert 120 <= roovet_sandbox.clock() - before <= 180


def test_async_clients(roovet: Roovet, roovet_sandbox: LocalRoovet, receiver: WebhookReceiver) -> None:
    async def play() -> None:
        app = Starlette(routes=[Route(PATH, WebhookApp(receiver))])
        async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="http://shop.localhost") as client:
            roovet_sandbox.forward(client)
            roovet_sandbox.forward(receiver)
            order = roovet_sandbox.checkout()
            balance = await roovet_sandbox.async_client.wallet.balance()
            assert balance.currency == "USD"
            with pytest.raises(TypeError, match="deliver_async"):
                roovet_sandbox.deliver()
            assert await roovet_sandbox.deliver_async() == [200, 200]
            roovet.record.assert_handled("order.created", id=order.id)
            async with roovet_sandbox.async_client:
                pass

    anyio.run(play)


def test_a_port_where_one_is_wanted(roovet_sandbox: LocalRoovet) -> None:
    url = roovet_sandbox.serve()
    headers = {"Authorization": f"Bearer {roovet_sandbox.sandbox.api_key}"}
    assert httpx2.get(f"{url}/api/wallet/balance", headers=headers).status_code == 200


def test_it_shows_no_secret(roovet_sandbox: LocalRoovet) -> None:
    assert repr(roovet_sandbox) == "LocalRoovet(clock=Clock(1762782800.0))"


def test_a_client_that_answers_later_is_refused(roovet_sandbox: LocalRoovet) -> None:
    loop = asyncio.new_event_loop()
    roovet_sandbox.forward(lambda _request: loop.create_future())
    roovet_sandbox.trigger("order.created", "ord_7")
    with pytest.raises(TypeError, match="this client is async"):
        roovet_sandbox.deliver()
    loop.close()
