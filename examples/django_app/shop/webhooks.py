"""What the shop does when something happens at Roovet. ``roovet_webhooks.django`` imports this module."""

from __future__ import annotations

import logging

from django.conf import settings

from config.roovet import receiver
from roovet_webhooks import Delivery, DropDelivery, Event, OrderCreated, RetryLater
from roovet_webhooks.api import RoovetClient
from shop.models import Order

logger = logging.getLogger(__name__)
client = RoovetClient(base_url=settings.ROOVET_API_URL)


@receiver.on(OrderCreated)
def fulfil(event: OrderCreated) -> None:
    """Look the order up, and fulfil it once it is paid.

    The handler runs in the delivery's transaction, which its first query opens. What it writes is committed together
    with the record that it has succeeded, so no crash and no copy of the delivery fulfils the order again.
    """
    order = client.fetch(event)  # where Roovet does not answer, the worker tries again later
    if order.status != "paid":
        raise RetryLater(after=60, reason=f"the order is {order.status}")
    if Order.objects.filter(pk=order.id).exists():
        reason = f"{order.id} is fulfilled already"  # another delivery told of it in other words
        raise DropDelivery(reason)
    items = ", ".join(f"{item.quantity} x {item.name}" for item in order.items)
    Order.objects.create(id=order.id, items=items, total_cents=order.total_cents)


@receiver.fallback
def unknown(event: Event) -> None:
    """Say that an event came which the shop does not know yet."""
    logger.warning("no handler for %s", event.event)


@receiver.on_error
def alert(error: Exception, delivery: Delivery) -> None:
    """Say that a handler failed. The worker tries it again; what it gives up on is dead, and the page shows it."""
    logger.error("%s failed: %s", delivery.id, type(error).__name__)
