"""The applications that `serve.py` compares, each served by uvicorn: ``python candidates.py NAME LOG_FILE``.

Writes the port it was given to standard output, and serves until it is terminated. ``GET /count`` says how many
deliveries have reached the innermost function of the application.
"""

from __future__ import annotations

import argparse
import logging
import socket
import sqlite3
import sys
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
import structlog
import uvicorn
from deliveries import PATH, SECRET
from starlette.applications import Starlette
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from roovet_webhooks import Event, WebhookReceiver
from roovet_webhooks.asgi import WebhookApp, WebhookMiddleware

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.requests import Request
    from starlette.types import ASGIApp, Receive, Scope, Send

_count = 0


def arrived() -> None:
    global _count  # noqa: PLW0603 - the cheapest count there is, and the same for every candidate
    _count += 1


async def count(_request: Request) -> Response:
    return PlainTextResponse(str(_count))


COUNT = Route("/count", count)


class TransferSettled(Event, event="transfer.settled"):
    amount_cents: int | None = None
    currency: str | None = None
    to: str | None = None


def receiver() -> WebhookReceiver:
    made = WebhookReceiver(SECRET)

    @made.on(TransferSettled)
    async def book(event: TransferSettled) -> None:  # noqa: ARG001 - a handler that costs nothing
        arrived()

    return made


def empty() -> ASGIApp:
    async def endpoint(request: Request) -> Response:
        await request.body()
        arrived()
        return PlainTextResponse("ok")

    return Starlette(routes=[Route(PATH, endpoint, methods=["POST"]), COUNT])


def empty_logged() -> ASGIApp:
    """Return the empty route with one line of log a request, of the fields that a receiver writes."""
    log = structlog.get_logger("empty")

    async def endpoint(request: Request) -> Response:
        await request.body()
        arrived()
        log.info(
            "delivery.handled",
            duration=0.000012,
            event_type="transfer.settled",
            resource=f"trf_{_count}",
            delivery="dlv_e7b5d8de2c1d5a0e41d6f1a3c0b0f7aa",
            endpoint="default",
            tenant="default",
            secret="default",
            attempt=1,
        )
        return PlainTextResponse("ok")

    return Starlette(routes=[Route(PATH, endpoint, methods=["POST"]), COUNT])


def bare() -> ASGIApp:
    """Return what no framework can beat: ASGI spoken by hand, with Starlette behind it for the count."""
    inner = Starlette(routes=[COUNT])
    headers = [(b"content-type", b"text/plain"), (b"content-length", b"2")]

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] != PATH:
            await inner(scope, receive, send)
            return
        while (await receive()).get("more_body"):
            pass
        arrived()
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"ok"})

    return app


def middleware() -> ASGIApp:
    return WebhookMiddleware(Starlette(routes=[COUNT]), receiver=receiver(), path=PATH)


def route() -> ASGIApp:
    return Starlette(routes=[Route(PATH, WebhookApp(receiver())), COUNT])


def durable() -> ASGIApp:
    """Return a receiver that answers once a delivery is on disk, in SQLite; a worker would run the handlers."""
    path = Path(sys.argv[2]).with_suffix(".db")
    made = WebhookReceiver(SECRET, inbox=f"sqlite:///{path}")

    @made.on(TransferSettled)
    async def book(event: TransferSettled) -> None: ...

    async def stored(_request: Request) -> Response:
        with closing(sqlite3.connect(path)) as connection:
            (found,) = connection.execute("SELECT count(*) FROM roovet_delivery").fetchone()
        return PlainTextResponse(str(found))

    return WebhookMiddleware(Starlette(routes=[Route("/count", stored)]), receiver=made, path=PATH)


def celery_delay() -> ASGIApp:
    """Return an endpoint that reads its body and hands it to Celery, through a Redis on this machine."""
    import celery  # noqa: PLC0415 - at the top it would load in every server that is measured

    app = celery.Celery("bench", broker="redis://127.0.0.1:6379/15")
    app.conf.task_ignore_result = True

    @app.task(name="bench.process")  # type: ignore[untyped-decorator]  # Celery ships no annotations
    def process(body: str) -> None: ...

    async def endpoint(request: Request) -> Response:
        process.delay((await request.body()).decode())
        arrived()
        return PlainTextResponse("ok")

    return Starlette(routes=[Route(PATH, endpoint, methods=["POST"]), COUNT])


def stripe_starlette() -> ASGIApp:
    import stripe  # noqa: PLC0415 - at the top it would load in every server that is measured

    async def endpoint(request: Request) -> Response:
        payload = await request.body()
        try:
            event = stripe.Webhook.construct_event(payload, request.headers.get("stripe-signature", ""), SECRET)
        except (ValueError, stripe.SignatureVerificationError):
            return Response(status_code=400)
        if event.type == "payment_intent.succeeded":
            arrived()
        return JSONResponse({"success": True})

    return Starlette(routes=[Route(PATH, endpoint, methods=["POST"]), COUNT])


def stripe_fastapi() -> ASGIApp:
    import fastapi  # noqa: PLC0415 - at the top it would load in every server that is measured
    import stripe  # noqa: PLC0415 - the same

    app = fastapi.FastAPI()

    async def endpoint(request: fastapi.Request, stripe_signature: Annotated[str, fastapi.Header()]) -> dict[str, bool]:
        payload = await request.body()
        try:
            event = stripe.Webhook.construct_event(payload, stripe_signature, SECRET)
        except (ValueError, stripe.SignatureVerificationError) as error:
            raise fastapi.HTTPException(400) from error
        if event.type == "payment_intent.succeeded":
            arrived()
        return {"success": True}

    # As objects: the names are local, and FastAPI reads annotations from the module's.
    endpoint.__annotations__ = {
        "request": fastapi.Request,
        "stripe_signature": Annotated[str, fastapi.Header()],
        "return": dict[str, bool],
    }
    app.post(PATH)(endpoint)
    app.router.routes.append(COUNT)
    return app


CANDIDATES: dict[str, Callable[[], ASGIApp]] = {
    "empty": empty,
    "empty-logged": empty_logged,
    "bare": bare,
    "middleware": middleware,
    "middleware-slow-json": middleware,
    "middleware-quiet": middleware,
    "route": route,
    "durable": durable,
    "celery-delay": celery_delay,
    "stripe-starlette": stripe_starlette,
    "stripe-fastapi": stripe_fastapi,
}


def log_as_in_production(path: Path, *, level: int = logging.INFO, fast: bool = True) -> None:
    """Configure structlog to write JSON lines to a file; ``fast`` as its page on performance advises."""

    def encode(event: object, default: Callable[[object], object]) -> bytes:
        return msgspec.json.encode(event, enc_hook=default)

    renderer = structlog.processors.JSONRenderer(serializer=encode) if fast else structlog.processors.JSONRenderer()
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.BytesLoggerFactory(path.open("ab"))
        if fast
        else structlog.WriteLoggerFactory(path.open("a", encoding="utf-8")),
        cache_logger_on_first_use=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", choices=CANDIDATES)
    parser.add_argument("log", type=Path)
    parser.add_argument("--plain", action="store_true", help="h11 and asyncio, as uvicorn without its extras")
    options = parser.parse_args()
    log_as_in_production(
        options.log,
        level=logging.WARNING if options.name.endswith("-quiet") else logging.INFO,
        fast=not options.name.endswith("-slow-json"),
    )
    # With the protocol named, asyncio sets TCP_NODELAY on what it accepts, as on a socket of its own.
    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listening.bind(("127.0.0.1", 0))
    listening.listen(128)
    sys.stdout.write(f"{listening.getsockname()[1]}\n")
    sys.stdout.flush()
    config = uvicorn.Config(
        CANDIDATES[options.name](),
        loop="asyncio" if options.plain else "uvloop",
        http="h11" if options.plain else "httptools",
        access_log=False,
        log_level="warning",
    )
    uvicorn.Server(config).run(sockets=[listening])


if __name__ == "__main__":
    main()
