"""The shop's orders, in one database with the inbox. ``SHOP_DATABASE`` says where that is."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import Column, Integer, MetaData, Table, Text, create_engine, insert, select
from sqlalchemy.schema import CreateTable

from roovet_webhooks import DropDelivery
from roovet_webhooks.inbox.records import Query
from roovet_webhooks.inbox.sql import SQLInbox
from roovet_webhooks.inbox.states import State

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from roovet_webhooks.api import Order

engine = create_engine(f"sqlite:///{os.environ.get('SHOP_DATABASE') or Path(__file__).with_name('shop.sqlite3')}")
# A delivery that a worker held when it was killed runs again after one to two and a half leases.
inbox = SQLInbox(engine, lease=10)
fulfilled = Table(
    "fulfilled_order",
    MetaData(),
    Column("id", Text, primary_key=True),
    Column("items", Text),
    Column("total_cents", Integer),
)


def create_table() -> None:
    """Create the table where there is none."""
    with engine.begin() as connection:
        connection.execute(CreateTable(fulfilled, if_not_exists=True))


def fulfil(connection: Connection, order: Order) -> None:
    """Fulfil an order in the transaction of its delivery.

    What is written here is committed together with the record that the handler has succeeded, so no crash and no copy
    of the delivery fulfils the order again.
    """
    if connection.execute(select(fulfilled).where(fulfilled.c.id == order.id)).first():
        reason = f"{order.id} is fulfilled already"  # another delivery told of it in other words
        raise DropDelivery(reason)
    items = ", ".join(f"{item.quantity} x {item.name}" for item in order.items)
    connection.execute(insert(fulfilled).values(id=order.id, items=items, total_cents=order.total_cents))


def list_orders() -> list[dict[str, object]]:
    """Return all orders and their state: those that wait, then those that are fulfilled."""
    states = {State.READY: "received", State.CLAIMED: "received", State.DEAD: "needs attention"}
    waiting = inbox.find(Query(event="order.created", states=frozenset(states), limit=1000))
    orders: dict[str, dict[str, object]] = {
        each.resource: {"id": each.resource, "items": "", "total_cents": None, "state": states[each.state]}
        for each in waiting
    }
    with engine.connect() as connection:
        for row in connection.execute(select(fulfilled)).mappings():
            orders[row["id"]] = {**row, "state": "fulfilled"}
    return list(orders.values())
