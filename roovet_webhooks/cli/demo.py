"""``demo``: orders at a local Roovet under chaos, received, recorded and fulfilled once each."""

from __future__ import annotations

import logging
import sqlite3
import time
from collections import Counter
from contextlib import ExitStack, asynccontextmanager, closing
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, NamedTuple

import click
from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table
from rich.text import Text
from starlette.applications import Starlette
from starlette.routing import Route

from roovet_webhooks.asgi import WebhookApp
from roovet_webhooks.cli.text import plain
from roovet_webhooks.events import OrderCreated
from roovet_webhooks.receiving.receiver import WebhookReceiver
from roovet_webhooks.retry import RetryPolicy
from roovet_webhooks.serving import PATH, log_to, serving
from roovet_webhooks.worker import working

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence

    from roovet_webhooks.api.assumed import Order
    from roovet_webhooks.api.client import RoovetClient
    from roovet_webhooks.delivery import Delivery
    from roovet_webhooks.sandbox import Sandbox

WRONG = 1
ORDERS = 12
PATIENCE = 12.0  # seconds until every order has to be fulfilled
_POLL = 0.05
_NARROW = 70  # columns below which a table is too narrow to be read
_CHAOS: dict[str, object] = {
    "duplicate": 0.2,
    "delay": 0.15,
    "stale": 0.1,
    "altered": 0.15,
    "wrong_secret": 0.1,
    "cut": 0.1,
    "lost_answer": 0.15,
    "delay_seconds": 0.4,
}
_RETRIES = RetryPolicy(initial=0.2, factor=1.5, max_delay=1.0, max_attempts=20)


class OrderResult(NamedTuple):
    """What became of one order.

    Attributes:
        order: The order.
        sent: What was sent of it: ``genuine``, or what chaos made of it.
        answered: What the receiver answered each time.
        fulfilled: How often it was fulfilled.
    """

    order: Order
    sent: list[str]
    answered: list[str]
    fulfilled: int


class Shop:
    """The shop's own table, in the database of the inbox.

    Args:
        folder: Where the database is.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / "shop.db"
        self.inbox: str = f"sqlite:///{self._path}"
        with closing(sqlite3.connect(self._path)) as connection:
            connection.execute("CREATE TABLE fulfilment (order_id TEXT, total_cents INTEGER)")

    def receiver(self, secret: str, client: RoovetClient) -> WebhookReceiver:
        """Return a receiver that fetches an order and fulfils it, as a shop's would."""
        from sqlalchemy import text  # noqa: PLC0415 - needs the extra inbox

        receiver = WebhookReceiver(secret, inbox=self.inbox)

        @receiver.on(OrderCreated)
        def fulfil(event: OrderCreated, delivery: Delivery) -> None:
            order = client.fetch(event)
            with delivery.transaction() as connection:
                row = {"order_id": order.id, "total_cents": order.total_cents}
                connection.execute(text("INSERT INTO fulfilment VALUES (:order_id, :total_cents)"), row)

        return receiver

    def fulfilled(self) -> Counter[str]:
        """Return how often each order was fulfilled."""
        return Counter(order_id for order_id, _ in self._rows())

    def revenue_cents(self) -> int:
        """Return what the fulfilled orders cost."""
        return sum(cents for _, cents in self._rows())

    def _rows(self) -> list[tuple[str, int]]:
        with closing(sqlite3.connect(self._path)) as connection:
            return connection.execute("SELECT order_id, total_cents FROM fulfilment").fetchall()


def application(receiver: WebhookReceiver) -> Starlette:
    """Return an application with a receiver and a worker."""

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncGenerator[None]:
        async with working(receiver, poll=_POLL):
            yield

    return Starlette(routes=[Route(PATH, WebhookApp(receiver))], lifespan=lifespan)


def place_orders(client: RoovetClient) -> list[Order]:
    """Order something several times, and return the orders."""
    products = [product for product in client.shop.products() if product.available]
    orders: list[Order] = []
    for number in range(ORDERS):
        cart = client.shop.cart({products[number % len(products)].id: number % 3 + 1})
        orders.append(client.shop.checkout(cart.id, "card"))
    return orders


def results_of(orders: Sequence[Order], sandbox: Sandbox, shop: Shop) -> list[OrderResult]:
    """Return what became of each order."""
    sent: dict[str, list[str]] = {order.id: [] for order in orders}
    answered: dict[str, list[str]] = {order.id: [] for order in orders}
    for message in sandbox.deliveries(limit=1000):
        for attempt in message["attempts"]:
            sent[message["resource"]].append(attempt["chaos"] or "genuine")
            answered[message["resource"]].append(str(attempt["status"] or "-"))
    fulfilled = shop.fulfilled()
    return [OrderResult(order, sent[order.id], answered[order.id], fulfilled[order.id]) for order in orders]


def findings_of(results: Sequence[OrderResult], sandbox: Sandbox, shop: Shop) -> list[str]:
    """Return what is not as it must be."""
    found = [f"{result.order.id} was fulfilled {result.fulfilled} times" for result in results if result.fulfilled != 1]
    paid, booked = sandbox.check_books()["shop"], shop.revenue_cents()
    if paid != booked:
        found.append(f"Roovet's books have {paid} cents for the shop, the shop's table {booked}")
    return found


@click.command(short_help="See all of it work, without any set-up.")
@click.option("--seed", type=int, default=None, help="Draw the same chaos again; a new one by default.")
def demo(*, seed: int | None) -> int:
    """See it work: orders at a local Roovet under chaos, each fulfilled once.

    Starts a sandbox, a receiver with an inbox in SQLite, and a worker, on free ports of this machine. A dozen orders
    are placed. Their webhooks come late, twice, altered, forged, stale or cut; the handler fetches each order with the
    API's client and fulfils it. The exit status is 0 when every order was fulfilled once and the books balance, and 1
    otherwise.

    Example: roovet-webhooks demo
    """
    # The sandbox says which extra is missing.
    from roovet_webhooks.sandbox import Sandbox, make_chaos, new_secret, sandbox_app  # noqa: I001, PLC0415
    from roovet_webhooks.api.client import RoovetClient  # noqa: PLC0415

    console = Console(highlight=False)
    seed = time.time_ns() % 10_000 if seed is None else seed
    with ExitStack() as stack:
        # What the receiver logs stands in the table.
        stack.enter_context(log_to(logging.NullHandler()))
        shop = Shop(Path(stack.enter_context(TemporaryDirectory(prefix="roovet-demo-", ignore_cleanup_errors=True))))
        sandbox = Sandbox(chaos=make_chaos({**_CHAOS, "seed": seed}), retry=_RETRIES, rate_limit=10_000)
        stack.callback(sandbox.close)
        api = stack.enter_context(serving(sandbox_app(sandbox), path="", lifespan=True, date_header=False))
        client = stack.enter_context(RoovetClient(sandbox.api_key, base_url=api))
        secret = new_secret()
        receiver = shop.receiver(secret, client)
        url = stack.enter_context(serving(application(receiver), lifespan=True))
        sandbox.register(url, secret)
        console.print(f"\nRoovet on [bold]{api}[/bold]\na shop on [bold]{url}[/bold]\nchaos with seed {seed}\n")
        orders = place_orders(client)
        _wait(console, sandbox, shop)
        results = results_of(orders, sandbox, shop)
        findings = findings_of(results, sandbox, shop)
    _show(console, results)
    for finding in findings:
        console.print(f"[bold red]{finding}.[/bold red]")
    if findings:
        console.print(f"To see it again: roovet-webhooks demo --seed {seed}")
        return WRONG
    total = sum(result.order.total_cents for result in results)
    console.print(f"[bold green]All {len(results)} orders were fulfilled, each once.[/bold green]")
    console.print(f"The books balance: {total / 100:,.2f} USD paid, {total / 100:,.2f} USD booked.")
    return 0


def _wait(console: Console, sandbox: Sandbox, shop: Shop) -> None:
    """Show how many orders are fulfilled, until all are and nothing more is to be sent."""
    columns = (TextColumn("Fulfilled"), BarColumn(), MofNCompleteColumn())
    end = time.monotonic() + PATIENCE
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("", total=ORDERS)
        while time.monotonic() < end:
            done = len(shop.fulfilled())
            progress.update(task, completed=done)
            if done == ORDERS and not sandbox.delivery_states()["pending"]:
                return
            time.sleep(_POLL)


def _show(console: Console, results: Sequence[OrderResult]) -> None:
    if console.width < _NARROW:
        for result in results:
            console.print(Text(f"{result.order.id}  {_amount(result)}", "bold"))
            console.print(Text(f"  {_sent(result)}\n  fulfilled {_times(result)}", _style(result)))
        return
    table = Table(box=box.HORIZONTALS, header_style="bold", pad_edge=False)
    table.add_column("Order")
    table.add_column("USD", justify="right")
    table.add_column("Sent, and answered")
    table.add_column("Fulfilled")
    for result in results:
        fulfilled = Text(_times(result), _style(result))
        table.add_row(result.order.id, _amount(result), plain(_sent(result)), fulfilled)
    console.print(table)


def _amount(result: OrderResult) -> str:
    return f"{result.order.total_cents / 100:,.2f}"


def _sent(result: OrderResult) -> str:
    pairs = zip(result.sent, result.answered, strict=True)
    return ", ".join(f"{what.replace('_', ' ')} {answer}" for what, answer in pairs)


def _times(result: OrderResult) -> str:
    return {0: "not", 1: "once"}.get(result.fulfilled, f"{result.fulfilled} times")


def _style(result: OrderResult) -> str:
    return "green" if result.fulfilled == 1 else "bold red"
