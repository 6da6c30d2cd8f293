"""A shop in Starlette that acts on the webhooks of Roovet, with async handlers.

Run it from the root of the repository::

    ROOVET_WEBHOOK_SECRET=whsec_example_5f2b8c1e9a7d .venv/bin/uvicorn --app-dir examples starlette_app:app

Deliveries go to ``/webhooks/roovet``; ``/ledger`` shows what the handlers have written.
"""

from __future__ import annotations

import os
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.responses import JSONResponse
from starlette.routing import Route

from roovet_webhooks import WebhookReceiver
from roovet_webhooks.asgi import WebhookMiddleware
from starlette_app.ledger import ledger
from starlette_app.webhooks import router

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from starlette.requests import Request

receiver = WebhookReceiver(router=router)


@asynccontextmanager
async def lifespan(_app: Starlette) -> AsyncIterator[None]:
    """Keep the ledger open while the application runs; ``LEDGER`` says where it is kept."""
    async with ledger.opened(os.environ.get("LEDGER") or Path(__file__).with_name("ledger.sqlite3")):
        yield


async def show(_request: Request) -> JSONResponse:
    """Show the ledger."""
    return JSONResponse(await ledger.entries())


app = Starlette(
    routes=[Route("/ledger", show)],
    lifespan=lifespan,
    middleware=[Middleware(WebhookMiddleware, receiver=receiver, path="/webhooks/roovet")],
)
