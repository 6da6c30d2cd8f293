"""Mount a receiver in any ASGI application; guard an endpoint of Starlette or FastAPI.

Pure ASGI: nothing of a request is buffered but the body of a delivery, and nothing else is touched.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar, cast

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from roovet_webhooks.errors import BodyAlreadyRead, ConfigurationError, IncompleteBody, WebhookError
from roovet_webhooks.messages import WebhookRequest, WebhookResponse, error_response
from roovet_webhooks.receiving.bridge import AsyncBridge
from roovet_webhooks.receiving.misuse import check_receiver
from roovet_webhooks.signing.secrecy import forget_variables

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from roovet_webhooks.delivery import Delivery
    from roovet_webhooks.messages import Body
    from roovet_webhooks.receiving.receiver import WebhookReceiver

    # What FastAPI wants of a handler; Starlette wants less.
    Handler = Callable[[Request, Any], Coroutine[Any, Any, Response]]

R = TypeVar("R")

_BRIDGE = AsyncBridge()


class WebhookApp:
    """An ASGI application that is the receiver: for ``Route(path, WebhookApp(receiver))`` or by itself.

    Args:
        receiver: The receiver.

    Raises:
        ConfigurationError: It is no receiver, or has no secret.
    """

    def __init__(self, receiver: WebhookReceiver) -> None:
        check_receiver(receiver, "WebhookApp(receiver)")
        receiver.require_secret()
        self.receiver = receiver

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one connection."""
        if scope["type"] == "http":
            await _answer_http(self.receiver, scope, receive, send)
        elif scope["type"] == "lifespan":
            await _lifespan(self.receiver, receive, send)
        else:
            # Before the handshake, a server makes a 403 of it.
            await send({"type": "websocket.close", "code": 1000})


class WebhookMiddleware:
    """Puts a receiver in front of an application, at one path; everything else passes through untouched.

    Being outermost it reads a body before anything else can, and refuses one over the cap before anything
    buffers it.

    Args:
        app: The application.
        receiver: The receiver.
        path: The path to answer, without the ``root_path`` of the application.

    A receiver that cannot do its work stops the application's startup. It does not raise while the middleware is
    made: a server would take that for an application without a lifespan, and start.

    Raises:
        ConfigurationError: It is no receiver, or the path does not begin with a slash.
    """

    def __init__(self, app: ASGIApp, *, receiver: WebhookReceiver, path: str = "/webhooks/roovet") -> None:
        check_receiver(receiver, "WebhookMiddleware(app, receiver=receiver)")
        if not path.startswith("/"):
            message = f"path must begin with a slash, not {path!r}"
            raise ConfigurationError(message)
        self.app = app
        self.path = path
        self.receiver = receiver

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a delivery, or pass the connection on."""
        if scope["type"] == "http" and _route_path(scope) == self.path:
            await _answer_http(self.receiver, scope, receive, send)
        elif scope["type"] == "lifespan":
            await _checked_lifespan(self.receiver, self.app, scope, receive, send)
        else:
            await self.app(scope, receive, send)


def _route_path(scope: Scope) -> str:
    """Return the path below the root path, which servers have in ``path`` or leave out of it."""
    path: str = scope["path"]
    root: str = scope.get("root_path", "").rstrip("/")
    return path[len(root) :] if root and path.startswith(root + "/") else path


def _request(scope: Scope, body: Body, native: object) -> WebhookRequest:
    return WebhookRequest(
        scope["method"],
        scope["path"],
        scope["headers"],
        body,
        scope.get("path_params"),
        native=native,
        http_version=scope.get("http_version", "1.1"),
    )


class _Body:
    """The body of a connection, chunk by chunk. Not a generator: the event loop keeps books on those."""

    __slots__ = ("_more", "_receive")

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._more = True

    def __aiter__(self) -> _Body:
        return self

    async def __anext__(self) -> bytes:
        if not self._more:
            raise StopAsyncIteration
        message = await self._receive()
        if message["type"] == "http.disconnect":
            raise _disconnected()
        self._more = message.get("more_body", False)
        chunk: bytes = message.get("body", b"")
        return chunk


def _disconnected() -> IncompleteBody:
    return IncompleteBody("the sender closed the connection before the end of the body", received=0)


async def _answer_http(receiver: WebhookReceiver, scope: Scope, receive: Receive, send: Send) -> None:
    response = await receiver.receive_async(_request(scope, _Body(receive), scope), bridge=_BRIDGE)
    # A list of its own for each answer, as Starlette's responses have: a middleware outside may append to it.
    headers = list(response.headers)
    await send({"type": "http.response.start", "status": response.status, "headers": headers})
    await send({"type": "http.response.body", "body": response.body})


async def _lifespan(receiver: WebhookReceiver, receive: Receive, send: Send) -> None:
    """Speak the lifespan protocol for a receiver that is the whole application.

    Raises:
        ConfigurationError: The receiver cannot do its work.
    """
    await receive()
    if (refusal := _refusal(receiver)) is not None:
        await _refuse_startup(refusal, receiver, send)
    await send({"type": "lifespan.startup.complete"})
    await receive()
    await send({"type": "lifespan.shutdown.complete"})


async def _checked_lifespan(
    receiver: WebhookReceiver, app: ASGIApp, scope: Scope, receive: Receive, send: Send
) -> None:
    """Check the receiver once the application has started, and so has registered its handlers.

    Where it is refused, the application is shut down before the server is told. It ends what it has begun, and does
    not wait for a server that leaves, whose log would bury the reason under the traceback of a cancellation.

    Raises:
        ConfigurationError: The receiver cannot do its work.
    """
    refusal: ConfigurationError | None = None

    async def receiving() -> Message:
        return await receive() if refusal is None else {"type": "lifespan.shutdown"}

    async def checking(message: Message) -> None:
        nonlocal refusal
        if refusal is not None:
            return
        if message["type"] == "lifespan.startup.complete":
            refusal = _refusal(receiver)
        if refusal is None:
            await send(message)

    try:
        await app(scope, receiving, checking)
    finally:
        if refusal is not None:
            await _refuse_startup(refusal, receiver, send)


def _refusal(receiver: WebhookReceiver) -> ConfigurationError | None:
    """Return why the receiver cannot do its work, or ``None``."""
    try:
        receiver.check()
    except ConfigurationError as error:
        forget_variables(error)
        return error
    return None


async def _refuse_startup(refusal: ConfigurationError, receiver: WebhookReceiver, send: Send) -> NoReturn:
    """Tell the server that the application does not start, in both ways, as Starlette does.

    A server without the message takes the exception for an application without a lifespan, and starts. Starlette's
    TestClient and asgi-lifespan wait for the exception: without it they hang.
    """
    await send({"type": "lifespan.startup.failed", "message": f"{receiver!r}: {refusal}"})
    raise refusal


# Guards: a verified delivery in the hand of your own endpoint


class WebhookHTTPException(HTTPException):
    """A refusal, as FastAPI and Starlette answer it; `webhook_exception_handlers` gives it the vendor's body."""

    def __init__(self, error: WebhookError) -> None:
        self.response: WebhookResponse = error_response(error)
        headers = {
            name.decode("latin-1"): value.decode("latin-1")
            for name, value in self.response.headers
            if name not in {b"content-type", b"content-length"}
        }
        super().__init__(self.response.status, error.public_message, headers)


def _starlette_response(response: WebhookResponse) -> Response:
    headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in response.headers}
    return Response(response.body, response.status, headers)


async def _answer(_request: Request, error: Exception) -> Response:
    return _starlette_response(cast("WebhookHTTPException", error).response)


webhook_exception_handlers: Mapping[int | type[Exception], Handler] = {WebhookHTTPException: _answer}
"""For ``FastAPI(exception_handlers={**webhook_exception_handlers})``: refusals in the vendor's error shape."""


def verified_delivery(receiver: WebhookReceiver) -> Callable[[Request], Awaitable[Delivery]]:
    """Return a FastAPI dependency that is the verified delivery: ``Depends(verified_delivery(receiver))``.

    Nothing is recorded and no handler runs.

    Raises:
        ConfigurationError: It is no receiver, or has no secret.
        WebhookHTTPException: From the dependency: the request is refused.
    """
    check_receiver(receiver, "Depends(verified_delivery(receiver))")
    receiver.require_secret()

    async def dependency(request: Request) -> Delivery:
        try:
            return await _open(receiver, request)
        except WebhookError as error:
            raise WebhookHTTPException(error) from None

    # The annotation as an object: FastAPI reads it, and our imports of it are for type checkers only.
    dependency.__annotations__ = {"request": Request}
    return dependency


def verified_webhook(
    receiver: WebhookReceiver,
) -> Callable[[Callable[[Request, Delivery], object]], Callable[[Request], Awaitable[Response]]]:
    """Decorate a Starlette endpoint ``(request, delivery)``, sync or async: it runs for verified deliveries only.

    Nothing is recorded and no handler runs.

    Raises:
        ConfigurationError: It is no receiver, or has no secret.
    """
    check_receiver(receiver, "@verified_webhook(receiver)")
    receiver.require_secret()

    def decorate(endpoint: Callable[[Request, Delivery], object]) -> Callable[[Request], Awaitable[Response]]:
        @functools.wraps(endpoint)
        async def guarded(request: Request) -> Response:
            try:
                delivery = await _open(receiver, request)
            except WebhookError as error:
                return _starlette_response(error_response(error))
            return cast("Response", await _BRIDGE.call(endpoint, request, delivery))

        return guarded

    return decorate


async def _open(receiver: WebhookReceiver, request: Request) -> Delivery:
    # A raw copy that the application has made is as good as the stream.
    cached: bytes | None = getattr(request, "_body", None)
    body = _stream(request) if cached is None else cached
    delivery = await receiver.open_async(_request(request.scope, body, request), bridge=_BRIDGE)
    # The endpoint and what comes after it find the raw body where request.body() and request.json() look.
    vars(request)["_body"] = delivery.raw
    return delivery


async def _stream(request: Request) -> AsyncIterator[bytes]:
    try:
        async for chunk in request.stream():
            yield chunk
    except ClientDisconnect:
        raise _disconnected() from None
    except RuntimeError:
        message = "the body was consumed as a stream before the delivery was verified; read it with request.body()"
        raise BodyAlreadyRead(message) from None
