"""`demo`: a shop that is right passes, and one that loses, repeats or misbooks an order does not."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import closing
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner, Result

from roovet_webhooks import OrderCreated, WebhookReceiver
from roovet_webhooks.cli import demo
from roovet_webhooks.cli.root import root

if TYPE_CHECKING:
    from roovet_webhooks import Delivery
    from roovet_webhooks.api.client import RoovetClient

RIGHT = "All 3 orders were fulfilled, each once."


@pytest.fixture(autouse=True)
def _three_orders(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "90")
    monkeypatch.setattr(demo, "ORDERS", 3)
    monkeypatch.setattr(demo, "PATIENCE", 60)


def run(*arguments: str) -> Result:
    result = CliRunner().invoke(root, ["demo", *arguments])
    assert isinstance(result.exception, SystemExit | None), result.exception
    assert "whsec_" not in result.output
    assert "rvpk_" not in result.output
    return result


def test_every_order_is_fulfilled_once() -> None:
    result = run("--seed", "5")
    assert (result.exit_code, result.stderr) == (0, "")
    assert "chaos with seed 5" in result.stdout
    for words in ("altered 400", "lost answer 200", "duplicate 200", "genuine 200", RIGHT, "The books balance"):
        assert words in result.stdout


def test_a_narrow_terminal_gets_no_ribbons(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    result = run()
    assert result.exit_code == 0
    assert "  fulfilled once\n" in result.stdout
    assert max(map(len, result.stdout.splitlines())) <= 60


@pytest.mark.long
def test_as_a_stranger_runs_it() -> None:
    environment = {name: value for name, value in os.environ.items() if name != "ROOVET_WEBHOOK_SECRET"}
    result = subprocess.run(
        [sys.executable, "-m", "roovet_webhooks.cli", "demo"],
        env=environment,
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=100,
        check=False,
    )
    assert (result.returncode, result.stderr) == (0, "")
    assert "All 12 orders were fulfilled, each once." in result.stdout


def with_handler(monkeypatch: pytest.MonkeyPatch, times: int, cents: int = 0) -> None:
    """Have the shop fulfil each order so many times, for another price."""

    def receiver(shop: demo.Shop, secret: str, client: RoovetClient) -> WebhookReceiver:
        made = WebhookReceiver(secret, inbox=shop.inbox)

        @made.on(OrderCreated)
        def fulfil(event: OrderCreated, delivery: Delivery) -> None:
            order = client.fetch(event)
            with delivery.transaction() as connection, closing(connection.connection.cursor()) as cursor:
                for _ in range(times):
                    cursor.execute("INSERT INTO fulfilment VALUES (?, ?)", (order.id, order.total_cents + cents))

        return made

    monkeypatch.setattr(demo.Shop, "receiver", receiver)


def test_an_order_that_is_fulfilled_twice_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    with_handler(monkeypatch, times=2)
    result = run("--seed", "5")
    assert result.exit_code == 1
    assert "ord_1 was fulfilled 2 times." in result.stdout
    assert "roovet-webhooks demo --seed 5" in result.stdout


def test_an_order_that_is_lost_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "PATIENCE", 3)
    with_handler(monkeypatch, times=0)
    result = run()
    assert result.exit_code == 1
    assert "ord_3 was fulfilled 0 times." in result.stdout


def test_money_that_is_booked_wrong_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    with_handler(monkeypatch, times=1, cents=1)
    result = run()
    assert result.exit_code == 1
    assert "Roovet's books have " in result.stdout


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("roovet_webhooks.sandbox")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "limits", None)
    result = run()
    assert result.exit_code == 2
    assert "roovet-webhooks[sandbox]" in result.stderr
