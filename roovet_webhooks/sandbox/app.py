"""The sandbox over HTTP: the vendor's API, its explorer, and the sandbox's own controls."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import anyio
from starlette.applications import Starlette
from starlette.responses import Response
from starlette.routing import Mount, Route

from roovet_webhooks.sandbox.api import MAX_BODY_BYTES, Answer, ApiRequest
from roovet_webhooks.sandbox.controls import CONTROLS, control_routes
from roovet_webhooks.sandbox.explorer import explorer_routes
from roovet_webhooks.sandbox.refusal import error_body
from roovet_webhooks.sandbox.sender import Sender

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from starlette.requests import Request

    from roovet_webhooks.sandbox.core import Sandbox


def sandbox_app(sandbox: Sandbox, *, sends: bool = True) -> Starlette:
    """Return the sandbox as an ASGI application.

    Args:
        sandbox: The sandbox.
        sends: Whether it sends what is due while it runs; a test may send by itself.
    """

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncGenerator[None]:
        async with anyio.create_task_group() as background:
            if sends:
                background.start_soon(Sender(sandbox).run)
            yield
            background.cancel_scope.cancel()

    async def answer(request: Request) -> Response:
        fault = sandbox.draw_api_fault()
        if fault == "api_timeout":
            await anyio.sleep(sandbox.chaos.timeout_seconds)
        elif fault == "api_slow":
            await anyio.sleep(sandbox.chaos.delay_seconds)
        body = await _body(request)
        headers = dict(request.headers.items())
        asked = ApiRequest(request.method, request.url.path, request.query_params.multi_items(), headers, body)
        return _response(await anyio.to_thread.run_sync(sandbox.answer, asked, fault))

    async def unknown(request: Request) -> Response:
        message = (
            f"there is nothing at {request.url.path}; the API is below /api/, the sandbox's controls below {CONTROLS}"
        )
        return _response(Answer(404, error_body(404, message)))

    methods = ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]
    return Starlette(
        routes=[
            Route("/api/{path:path}", answer, methods=methods),
            Mount(CONTROLS, routes=control_routes(sandbox)),
            *explorer_routes(),
            Route("/{path:path}", unknown, methods=methods),
        ],
        lifespan=lifespan,
    )


async def _body(request: Request) -> bytes:
    """Return the body, or its beginning where it is too long: the API refuses it by its length."""
    content = bytearray()
    async for chunk in request.stream():
        content += chunk
        if len(content) > MAX_BODY_BYTES:
            break
    return bytes(content)


def _response(answer: Answer) -> Response:
    return Response(answer.body, answer.status, dict(answer.headers), media_type="application/json")
