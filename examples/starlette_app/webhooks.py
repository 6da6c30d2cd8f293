"""What the shop does when something happens at Roovet."""

from __future__ import annotations

import logging
import os

from roovet_webhooks import Delivery, Event, OrderCreated, RetryLater, Router
from roovet_webhooks.api import AsyncRoovetClient
from starlette_app import orders

logger = logging.getLogger(__name__)
router = Router()
client = AsyncRoovetClient(base_url=os.environ.get("ROOVET_API_URL", "http://127.0.0.1:4010"))


@router.on(OrderCreated)
async def fulfil(event: OrderCreated, delivery: Delivery) -> None:
    """Look the order up, and fulfil it once it is paid."""
    order = await client.fetch(event)  # where Roovet does not answer, the worker tries again later
    if order.status != "paid":
        raise RetryLater(after=60, reason=f"the order is {order.status}")
    await delivery.in_transaction(orders.fulfil, order)


@router.fallback
def unknown(event: Event) -> None:
    """Say that an event came which the shop does not know yet."""
    logger.warning("no handler for %s", event.event)


@router.on_error
def alert(error: Exception, delivery: Delivery) -> None:
    """Say that a handler failed. The worker tries it again; what it gives up on is dead, and the page shows it."""
    logger.error("%s failed: %s", delivery.id, type(error).__name__)
