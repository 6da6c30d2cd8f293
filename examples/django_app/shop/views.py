"""What the shop shows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.http import JsonResponse
from django.shortcuts import render

from config.roovet import inbox
from roovet_webhooks.inbox.records import Query
from roovet_webhooks.inbox.states import State
from shop.models import Order

if TYPE_CHECKING:
    from django.http import HttpRequest, HttpResponse


def page(request: HttpRequest) -> HttpResponse:
    """Show the orders."""
    orders = list_orders()
    for order in orders:
        order["total"] = "" if order["total_cents"] is None else f"{order['total_cents'] / 100:,.2f}"
    return render(request, "shop/orders.html", {"orders": orders})


def as_json(_request: HttpRequest) -> JsonResponse:
    """Show the orders as JSON."""
    return JsonResponse(list_orders(), safe=False)


def list_orders() -> list[dict[str, Any]]:
    """Return all orders and their state: those that wait, then those that are fulfilled."""
    states = {State.READY: "received", State.CLAIMED: "received", State.DEAD: "needs attention"}
    waiting = inbox.find(Query(event="order.created", states=frozenset(states), limit=1000))
    orders: dict[str, dict[str, Any]] = {
        each.resource: {"id": each.resource, "items": "", "total_cents": None, "state": states[each.state]}
        for each in waiting
    }
    for row in Order.objects.values("id", "items", "total_cents"):
        orders[row["id"]] = {**row, "state": "fulfilled"}
    return list(orders.values())
