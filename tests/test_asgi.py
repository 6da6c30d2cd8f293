"""The ASGI adapter: mounts, lifespan, guards. What is refused, and how, is in the conformance suite."""

from __future__ import annotations

import asyncio
import logging
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Annotated, Any, cast

import httpx
import pytest
from fastapi import Depends, FastAPI
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Mount, Route
from support import OTHER_SECRET, PATH, REFUSED, SECRET, clock, headers_of, payload

from roovet_webhooks import ConfigurationError, Delivery, Event, Tenant, WebhookReceiver, WebhookRequest
from roovet_webhooks.asgi import (
    WebhookApp,
    WebhookMiddleware,
    verified_delivery,
    verified_webhook,
    webhook_exception_handlers,
)

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping

    from starlette.types import ASGIApp, Message, Receive, Scope, Send


def make_receiver(seen: list[str] | None = None, secret: Any = SECRET) -> WebhookReceiver:  # noqa: ANN401 - whatever the constructor takes
    receiver = WebhookReceiver(secret, clock=clock)

    @receiver.on("*")
    async def note(event: Event, delivery: Delivery) -> None:
        if seen is not None:
            seen.append(f"{delivery.tenant}:{event.event}")

    return receiver


def post(
    app: ASGIApp,
    path: str = PATH,
    *,
    raw: bytes | None = None,
    headers: Mapping[str, str] | None = None,
    root_path: str = "",
) -> httpx.Response:
    raw = payload() if raw is None else raw
    chosen = headers_of(raw) if headers is None else headers

    async def send() -> httpx.Response:
        transport = httpx.ASGITransport(app=app, root_path=root_path)
        async with httpx.AsyncClient(transport=transport, base_url="http://shop.example") as client:
            return await client.post(path, content=raw, headers=chosen)

    return asyncio.run(send())


def run_lifespan(app: ASGIApp, *coming: str) -> list[Message]:
    """Run the lifespan protocol with these messages of a server; return what the application sends.

    One that does not start for want of a handler or a secret raises that as well.
    """
    messages = list(coming)
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": messages.pop(0)}

    async def send(message: Message) -> None:
        sent.append(message)

    scope: Scope = {"type": "lifespan", "asgi": {"version": "3.0"}, "state": {}}

    async def call() -> None:
        await app(scope, receive, send)

    refusal = ""
    try:
        asyncio.run(call())
    except ConfigurationError as error:
        refusal = str(error)
    assert not messages
    # Servers wait for the message, test clients for the exception: both come, or neither.
    failures = [message["message"] for message in sent if message["type"] == "lifespan.startup.failed"]
    assert bool(refusal) == any(refusal in failure for failure in failures if "WebhookReceiver(" in failure)
    return sent


# The lifespan


def test_an_application_that_is_a_receiver_starts_and_stops() -> None:
    sent = run_lifespan(WebhookApp(make_receiver()), "lifespan.startup", "lifespan.shutdown")
    assert sent == [{"type": "lifespan.startup.complete"}, {"type": "lifespan.shutdown.complete"}]


def test_an_application_that_is_a_receiver_without_handlers_does_not_start() -> None:
    [sent] = run_lifespan(WebhookApp(WebhookReceiver(SECRET)), "lifespan.startup")
    assert sent["type"] == "lifespan.startup.failed"
    assert "WebhookReceiver(endpoint='default')" in sent["message"]
    assert "has no handler" in sent["message"]


def test_middleware_lets_the_application_start_and_stop() -> None:
    order: list[str] = []

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncGenerator[None]:
        order.append("up")
        yield
        order.append("down")

    app = WebhookMiddleware(Starlette(lifespan=lifespan), receiver=make_receiver())
    sent = run_lifespan(app, "lifespan.startup", "lifespan.shutdown")
    assert [message["type"] for message in sent] == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
    assert order == ["up", "down"]


def test_middleware_stops_a_startup_without_handlers() -> None:
    async def inner(_scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "lifespan.startup.complete"})

    [sent] = run_lifespan(WebhookMiddleware(inner, receiver=WebhookReceiver(SECRET)), "lifespan.startup")
    assert sent["type"] == "lifespan.startup.failed"
    assert "has no handler" in sent["message"]


def test_middleware_stops_a_startup_without_a_secret_and_shuts_the_application_down_first() -> None:
    order: list[str] = []

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncGenerator[None]:
        order.append("up")
        yield
        order.append("down")

    app = WebhookMiddleware(Starlette(lifespan=lifespan), receiver=make_receiver(secret=None))
    [sent] = run_lifespan(app, "lifespan.startup")
    assert sent["type"] == "lifespan.startup.failed"
    assert "has no signing secret" in sent["message"]
    assert order == ["up", "down"]


def test_a_shutdown_that_fails_does_not_let_a_server_start() -> None:
    sent: list[Message] = []

    async def inner(_scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "lifespan.startup.complete"})
        assert await receive() == {"type": "lifespan.shutdown"}
        message = "the database is gone"
        raise OSError(message)

    async def receive() -> Message:
        return {"type": "lifespan.startup"}

    async def send(message: Message) -> None:
        sent.append(message)

    app = WebhookMiddleware(inner, receiver=WebhookReceiver(SECRET))
    with pytest.raises(ConfigurationError, match="no handler") as caught:
        asyncio.run(cast("Any", app({"type": "lifespan"}, receive, send)))
    assert isinstance(caught.value.__context__, OSError)
    assert [message["type"] for message in sent] == ["lifespan.startup.failed"]


def test_middleware_counts_what_the_application_registers_when_it_starts() -> None:
    receiver = WebhookReceiver(SECRET, clock=clock)

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncGenerator[None]:
        @receiver.on("order.created")
        def created(_event: Event) -> None: ...

        yield

    app = WebhookMiddleware(Starlette(lifespan=lifespan), receiver=receiver)
    sent = run_lifespan(app, "lifespan.startup", "lifespan.shutdown")
    assert sent[0] == {"type": "lifespan.startup.complete"}
    assert post(app).json() == {"status": "handled"}


def test_middleware_passes_on_that_the_application_failed_to_start() -> None:
    async def inner(_scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "lifespan.startup.failed", "message": "no database"})

    sent = run_lifespan(WebhookMiddleware(inner, receiver=WebhookReceiver(SECRET)), "lifespan.startup")
    assert sent == [{"type": "lifespan.startup.failed", "message": "no database"}]


# Mounts


def test_an_application_without_a_secret_is_refused_when_it_is_made() -> None:
    for make in (WebhookApp, verified_webhook, verified_delivery):
        with pytest.raises(ConfigurationError, match="has no signing secret"):
            make(make_receiver(secret=None))


def test_the_secret_of_the_environment_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROOVET_WEBHOOK_SECRET", SECRET)
    assert post(WebhookApp(make_receiver(secret=None))).status_code == 200


def test_middleware_needs_a_path_that_begins_with_a_slash() -> None:
    with pytest.raises(ConfigurationError, match="'hooks'"):
        WebhookMiddleware(Starlette(), receiver=make_receiver(), path="hooks")


async def _echo(scope: Scope, _receive: Receive, send: Send) -> None:
    await PlainTextResponse(scope["path"])(scope, _receive, send)


@pytest.mark.parametrize("path", ["/", PATH + "/", PATH + "/more", "/webhooks", "/other" + PATH])
def test_middleware_leaves_every_other_path_to_the_application(path: str) -> None:
    answer = post(WebhookMiddleware(_echo, receiver=make_receiver()), path)
    assert (answer.status_code, answer.text) == (200, path)


@pytest.mark.parametrize(
    ("root_path", "path"),
    [
        ("", PATH),
        ("/shop", "/shop" + PATH),  # the specification, and Starlette's Mount: path has the root path
        ("/shop", PATH),  # servers that leave it out of path
        ("/shop/", "/shop" + PATH),
        ("/web", PATH),  # a root path is whole segments
        ("/webhooks", "/webhooks/webhooks/roovet/more"),
    ],
)
def test_middleware_finds_its_path_below_a_root_path(root_path: str, path: str) -> None:
    answer = post(WebhookMiddleware(_echo, receiver=make_receiver()), path, root_path=root_path)
    assert ("handled" in answer.text) is (not path.endswith("/more"))


def test_middleware_inside_a_mount_answers_below_the_prefix() -> None:
    inner = WebhookMiddleware(_echo, receiver=make_receiver())
    assert post(Starlette(routes=[Mount("/shop", inner)]), "/shop" + PATH).json() == {"status": "handled"}


def test_a_websocket_is_closed_by_a_receiver_and_passed_on_by_middleware() -> None:
    sent: list[Message] = []
    seen: list[str] = []

    async def inner(scope: Scope, _receive: Receive, _send: Send) -> None:
        seen.append(scope["type"])

    async def receive() -> Message:
        raise AssertionError

    async def send(message: Message) -> None:
        sent.append(message)

    scope: Scope = {"type": "websocket", "path": PATH, "headers": []}
    asyncio.run(WebhookApp(make_receiver())(scope, receive, send))
    assert sent == [{"type": "websocket.close", "code": 1000}]
    asyncio.run(WebhookMiddleware(inner, receiver=make_receiver())(scope, receive, send))
    assert seen == ["websocket"]
    assert len(sent) == 1


def test_two_receivers_stand_in_front_of_one_application() -> None:
    first, second = make_receiver(), make_receiver(secret=OTHER_SECRET)
    app = Starlette(
        middleware=[
            Middleware(WebhookMiddleware, receiver=first),
            Middleware(WebhookMiddleware, receiver=second, path="/webhooks/second"),
        ]
    )
    raw = payload()
    other = headers_of(raw, secret=OTHER_SECRET)
    assert post(app).status_code == 200
    assert post(app, raw=raw, headers=other).status_code == 400
    assert post(app, "/webhooks/second", raw=raw, headers=other).status_code == 200


def test_a_body_over_the_cap_is_not_read_to_its_end() -> None:
    receiver = WebhookReceiver(SECRET, clock=clock, max_body_bytes=100)
    receiver.fallback(lambda _event: None)
    asked = 0
    sent: list[Message] = []

    async def receive() -> Message:
        nonlocal asked
        asked += 1
        return {"type": "http.request", "body": b"x" * 60, "more_body": True}

    async def send(message: Message) -> None:
        sent.append(message)

    headers = [(name.lower().encode(), value.encode()) for name, value in headers_of(b"x").items()]
    scope: Scope = {"type": "http", "method": "POST", "path": PATH, "headers": headers}
    asyncio.run(WebhookMiddleware(_echo, receiver=receiver)(scope, receive, send))
    assert sent[0]["status"] == 413
    assert asked == 2


# Tenants by path


async def _async_tenant(request: WebhookRequest) -> Tenant | None:
    return _tenant(request)


def _tenant(request: WebhookRequest) -> Tenant | None:
    name = request.path_params["tenant"]
    assert request.path == f"/hooks/{name}"
    if name == "down":
        message = "the table of tenants is locked"
        raise OSError(message)
    return {"acme": Tenant("acme", SECRET), "bolt": Tenant("bolt", OTHER_SECRET)}.get(str(name))


@pytest.mark.parametrize("resolver", [_tenant, _async_tenant])
def test_a_resolver_finds_the_tenant_in_the_path(resolver: Any) -> None:  # noqa: ANN401 - sync or async
    seen: list[str] = []
    app = Starlette(routes=[Route("/hooks/{tenant}", WebhookApp(make_receiver(seen, resolver)))])
    raw = payload()
    other = headers_of(raw, secret=OTHER_SECRET)
    assert post(app, "/hooks/acme", raw=raw).status_code == 200
    assert post(app, "/hooks/bolt", raw=raw, headers=other).json() == {"status": "handled"}
    assert seen == ["acme:order.created", "bolt:order.created"]
    # Another tenant's signature, and a tenant that nobody knows, look the same from outside.
    for path in ("/hooks/acme", "/hooks/nobody"):
        refused = post(app, path, raw=raw, headers=other)
        assert (refused.status_code, refused.json()) == (400, REFUSED)
    down = post(app, "/hooks/down", raw=raw)
    assert down.status_code == 503
    assert int(down.headers["retry-after"]) > 0
    assert len(seen) == 2


# Guards in Starlette


def guarded_sync(request: Request, delivery: Delivery) -> Response:
    return JSONResponse([request.method, delivery.event.id, delivery.raw.decode()])


async def guarded_async(request: Request, delivery: Delivery) -> Response:
    # Who is guarded may read the body in the usual way.
    return JSONResponse([request.method, delivery.event.id, (await request.body()).decode()])


@pytest.mark.parametrize("endpoint", [guarded_sync, guarded_async])
def test_a_guard_hands_over_a_verified_delivery(endpoint: Callable[[Request, Delivery], object]) -> None:
    receiver = WebhookReceiver(SECRET, clock=clock)  # without a handler: a guard dispatches nothing
    guard = verified_webhook(receiver)(endpoint)
    assert guard.__name__ == endpoint.__name__
    app = Starlette(routes=[Route("/own", guard, methods=["POST"])])
    raw = payload(id="ord_7")
    for _ in range(2):  # nothing is recorded, so nothing is a duplicate
        assert post(app, "/own", raw=raw).json() == ["POST", "ord_7", raw.decode()]
    forged = post(app, "/own", raw=raw, headers=headers_of(raw, secret=OTHER_SECRET))
    assert (forged.status_code, forged.json()) == (400, REFUSED)
    assert forged.headers["content-type"] == "application/json"


def reading_first(read: Callable[[Request], Awaitable[object]]) -> ASGIApp:
    """Return an application whose endpoint reads the request before the guard does."""
    guard = verified_webhook(make_receiver())(guarded_async)

    async def endpoint(request: Request) -> Response:
        await read(request)
        return await guard(request)

    return Starlette(routes=[Route(PATH, endpoint, methods=["POST"])])


async def _drain(request: Request) -> None:
    async for _ in request.stream():
        pass


@pytest.mark.parametrize("read", [Request.body, Request.json])
def test_a_guard_uses_the_raw_copy_of_a_body_that_was_read_first(read: Callable[[Request], Awaitable[object]]) -> None:
    assert post(reading_first(read)).status_code == 200


def test_a_guard_says_when_a_body_was_consumed_first(caplog: pytest.LogCaptureFixture) -> None:
    answer = post(reading_first(_drain))
    assert answer.status_code == 500
    assert answer.json()["error"]["message"] == "The delivery could not be read."
    [record] = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert "code='body_already_read'" in record.getMessage()
    assert "request.body()" in record.getMessage()


def test_a_guard_answers_a_sender_that_has_gone() -> None:
    answered: list[int] = []

    async def receive() -> Message:
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        answered.append(message.get("status", 0))

    headers = [(name.lower().encode(), value.encode()) for name, value in headers_of(payload()).items()]
    scope: Scope = {"type": "http", "method": "POST", "path": PATH, "headers": headers}
    request = Request(scope, receive)
    guard = verified_webhook(make_receiver())(guarded_async)

    async def call() -> Response:
        return await guard(request)

    assert asyncio.run(call()).status_code == 400


# Something in front that reads


class _ReadsFirst(BaseHTTPMiddleware):
    async def dispatch(self, request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
        await (request.body() if request.headers.get("x-how") == "body" else _drain(request))
        return await call_next(request)


@pytest.mark.parametrize("mount", [WebhookApp, lambda receiver: verified_webhook(receiver)(guarded_async)])
def test_middleware_in_front_may_read_the_body_and_must_not_consume_it(
    mount: Callable[[WebhookReceiver], Any], caplog: pytest.LogCaptureFixture
) -> None:
    app = Starlette(
        routes=[Route(PATH, mount(make_receiver()), methods=["POST"])], middleware=[Middleware(_ReadsFirst)]
    )
    raw = payload()
    assert post(app, raw=raw, headers={**headers_of(raw), "x-how": "body"}).status_code == 200
    assert post(app, raw=raw, headers={**headers_of(raw), "x-how": "stream"}).status_code == 500
    assert "code='body_already_read'" in caplog.text


# FastAPI


# FastAPI resolves the annotations of endpoints among the names of the module.
DELIVERED = verified_delivery(WebhookReceiver(SECRET, clock=clock))


def fastapi_app(*, handlers: bool) -> FastAPI:
    app = FastAPI(exception_handlers={**webhook_exception_handlers} if handlers else None)

    @app.post("/own")
    async def own(delivery: Annotated[Delivery, Depends(DELIVERED)]) -> dict[str, object]:
        return {"id": delivery.event.id, "attempt": delivery.attempt}

    @app.post("/parsed")
    def parsed(body: dict[str, Any], delivery: Annotated[Delivery, Depends(DELIVERED)]) -> bool:
        return bool(body["id"] == delivery.event.id)

    @app.post("/read")
    async def read(request: Request, delivery: Annotated[Delivery, Depends(DELIVERED)]) -> bool:
        return await request.body() == delivery.raw

    @app.put("/put")
    async def put(delivery: Annotated[Delivery, Depends(DELIVERED)]) -> str:
        return delivery.id

    return app


@pytest.mark.parametrize("handlers", [True, False])
def test_a_dependency_is_the_verified_delivery(*, handlers: bool) -> None:
    app = fastapi_app(handlers=handlers)
    raw = payload(id="ord_8")
    assert post(app, "/own", raw=raw).json() == {"id": "ord_8", "attempt": 1}
    assert post(app, "/parsed", raw=raw).json() is True
    assert post(app, "/read", raw=raw).json() is True


def test_a_dependency_refuses_in_the_framework_s_shape_or_in_the_vendor_s() -> None:
    raw = payload()
    forged = headers_of(raw, secret=OTHER_SECRET)
    plain = post(fastapi_app(handlers=False), "/own", raw=raw, headers=forged)
    assert (plain.status_code, plain.json()) == (400, {"detail": "The delivery could not be verified."})
    shaped = post(fastapi_app(handlers=True), "/own", raw=raw, headers=forged)
    assert (shaped.status_code, shaped.json()) == (400, REFUSED)


@pytest.mark.parametrize("handlers", [True, False])
def test_a_dependency_keeps_the_headers_of_a_refusal(*, handlers: bool) -> None:
    async def send() -> httpx.Response:
        transport = httpx.ASGITransport(app=fastapi_app(handlers=handlers))
        async with httpx.AsyncClient(transport=transport, base_url="http://shop.example") as client:
            return await client.put("/put", content=b"{}")

    answer = asyncio.run(send())
    assert (answer.status_code, answer.headers["allow"]) == (405, "POST")
    assert int(answer.headers["content-length"]) == len(answer.content)


def test_the_dependency_leaves_no_trace_in_the_documentation_of_the_interface() -> None:
    paths = fastapi_app(handlers=True).openapi()["paths"]
    assert "parameters" not in paths["/own"]["post"]
    assert "requestBody" not in paths["/own"]["post"]
