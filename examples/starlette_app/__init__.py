"""A shop's back office in Starlette, with coroutines: a thin event is looked up at Roovet, and the order fulfilled once.

Run it from the root of the repository, beside the sandbox (README, "Examples")::

    ROOVET_API_KEY=rvpk_test_example_0000 ROOVET_WEBHOOK_SECRET=whsec_example_5f2b8c1e9a7d .venv/bin/uvicorn --app-dir examples starlette_app:app

Deliveries go to ``/webhooks/roovet``. ``/`` shows the orders, and ``/orders.json`` the same as JSON. The server runs a
worker beside it. More of them, in processes of their own, are ``roovet-webhooks worker starlette_app:receiver``.
"""  # noqa: E501 - a command is one line

from __future__ import annotations

import logging
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.responses import JSONResponse
from starlette.routing import Route
from starlette.templating import Jinja2Templates

from roovet_webhooks import WebhookReceiver
from roovet_webhooks.asgi import WebhookMiddleware
from roovet_webhooks.worker import working
from starlette_app import orders
from starlette_app.webhooks import router

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from starlette.requests import Request
    from starlette.responses import Response

receiver = WebhookReceiver(inbox=orders.inbox, router=router)
templates = Jinja2Templates(Path(__file__).with_name("templates"))


@asynccontextmanager
async def lifespan(_app: Starlette) -> AsyncIterator[None]:
    """Run a worker while the application runs, and show on the terminal what becomes of each delivery."""
    logging.basicConfig()
    logging.getLogger("roovet_webhooks").setLevel(logging.INFO)
    orders.create_table()
    async with working(receiver):
        yield


def page(request: Request) -> Response:
    """Show the orders. A plain function: Starlette calls it in a thread."""
    return templates.TemplateResponse(request, "orders.html", {"orders": orders.list_orders()})


def as_json(_request: Request) -> Response:
    """Show the orders as JSON."""
    return JSONResponse(orders.list_orders())


app = Starlette(
    routes=[Route("/", page), Route("/orders.json", as_json)],
    lifespan=lifespan,
    middleware=[Middleware(WebhookMiddleware, receiver=receiver, path="/webhooks/roovet")],
)
