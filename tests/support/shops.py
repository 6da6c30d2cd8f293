"""One receiver, mounted or guarding in each framework, with that framework's own test client."""

from __future__ import annotations

from contextlib import contextmanager, nullcontext
from types import ModuleType
from typing import TYPE_CHECKING, Any, NamedTuple

import httpx
from conformance.mounts import configure_django
from fastapi import Depends, FastAPI
from flask import Flask
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from roovet_webhooks import Delivery, DropDelivery, Event, RetryLater, WebhookReceiver, asgi, flask as flask_adapter
from roovet_webhooks.testing import PATH

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from starlette.requests import Request

# What a shop runs with outside of its tests: neither this secret nor the real time fits what a test signs.
LIVE_SECRET = "whsec_live_7a1c9e4b2d8f6053e1a2b3c4"


class Shop(NamedTuple):
    """A mounted receiver.

    Attributes:
        receiver: The receiver.
        client: The framework's test client.
        guards: Whether it guards a view, instead of dispatching.
        is_async: Whether the client's answers are to be awaited.
    """

    receiver: WebhookReceiver
    client: Any
    guards: bool = False
    is_async: bool = False


def make_receiver(**options: Any) -> WebhookReceiver:  # noqa: ANN401 - the receiver's own
    receiver = WebhookReceiver(LIVE_SECRET, **options)

    @receiver.on("order.created")
    def fulfil(_event: Event) -> None: ...

    @receiver.on("order.failed")
    def fail(_event: Event) -> None:
        message = "a handler's own"
        raise LookupError(message)

    @receiver.on("order.dropped")
    def drop(_event: Event) -> None:
        raise DropDelivery

    @receiver.on("order.later")
    def later(_event: Event) -> None:
        raise RetryLater(after=7)

    return receiver


def _starlette(receiver: WebhookReceiver) -> Any:  # noqa: ANN401 - a client
    return TestClient(asgi.WebhookMiddleware(Starlette(), receiver=receiver, path=PATH))


def _starlette_async(receiver: WebhookReceiver) -> Any:  # noqa: ANN401 - a client
    app = asgi.WebhookMiddleware(Starlette(), receiver=receiver, path=PATH)
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://shop.example")


def _starlette_guard(receiver: WebhookReceiver) -> Any:  # noqa: ANN401 - a client
    @asgi.verified_webhook(receiver)
    def seen(_request: Request, delivery: Delivery) -> JSONResponse:
        return JSONResponse({"seen": delivery.event.id})

    return TestClient(Starlette(routes=[Route(PATH, seen, methods=["POST"])]))


def _fastapi_guard(receiver: WebhookReceiver) -> Any:  # noqa: ANN401 - a client
    app = FastAPI()
    verified = Depends(asgi.verified_delivery(receiver))

    @app.post(PATH)
    async def seen(delivery: Delivery = verified) -> dict[str, str]:
        return {"seen": delivery.event.id}

    return TestClient(app)


def _flask(receiver: WebhookReceiver) -> Any:  # noqa: ANN401 - a client
    app = Flask("shop")
    app.register_blueprint(flask_adapter.webhook_blueprint(receiver, path=PATH))
    return app.test_client()


def _flask_guard(receiver: WebhookReceiver) -> Any:  # noqa: ANN401 - a client
    app = Flask("shop")

    @app.post(PATH)
    @flask_adapter.verified_webhook(receiver)
    def seen(delivery: Delivery) -> dict[str, str]:
        return {"seen": delivery.event.id}

    return app.test_client()


@contextmanager
def _django(view: Callable[[WebhookReceiver], Any], client: str, receiver: WebhookReceiver) -> Iterator[Any]:
    configure_django()
    from django import test  # noqa: PLC0415 - it reads the settings
    from django.urls import path  # noqa: PLC0415 - it reads the settings

    urls = ModuleType("urls_of_a_shop")
    vars(urls)["urlpatterns"] = [path(PATH.removeprefix("/"), view(receiver))]
    with test.override_settings(ROOT_URLCONF=urls):
        yield vars(test)[client](enforce_csrf_checks=True)


def _dispatching(receiver: WebhookReceiver) -> Any:  # noqa: ANN401 - a view
    from roovet_webhooks.django import dispatch_view  # noqa: PLC0415 - it reads the settings

    return dispatch_view(receiver)


def _dispatching_async(receiver: WebhookReceiver) -> Any:  # noqa: ANN401 - a view
    from roovet_webhooks.django import dispatch_view  # noqa: PLC0415 - it reads the settings

    return dispatch_view(receiver, asynchronous=True)


def _guarded(receiver: WebhookReceiver) -> Any:  # noqa: ANN401 - a view
    from django.http import HttpRequest, JsonResponse  # noqa: PLC0415 - it reads the settings

    from roovet_webhooks.django import verified_webhook  # noqa: PLC0415 - it reads the settings

    @verified_webhook(receiver)
    def seen(_request: HttpRequest, delivery: Delivery) -> JsonResponse:
        return JsonResponse({"seen": delivery.event.id})

    return seen


_CLIENTS: dict[str, Callable[[WebhookReceiver], Any]] = {
    "receiver": lambda receiver: receiver,
    "starlette": _starlette,
    "starlette async": _starlette_async,
    "starlette guard": _starlette_guard,
    "fastapi guard": _fastapi_guard,
    "flask": _flask,
    "flask guard": _flask_guard,
}
_DJANGO: dict[str, tuple[Callable[[WebhookReceiver], Any], str]] = {
    "django": (_dispatching, "Client"),
    "django async": (_dispatching_async, "AsyncClient"),
    "django guard": (_guarded, "Client"),
}
KINDS = (*_CLIENTS, *_DJANGO)


@contextmanager
def opened(kind: str, **options: Any) -> Iterator[Shop]:  # noqa: ANN401 - the receiver's own
    """Open a shop of a kind, with a receiver of these options."""
    receiver = make_receiver(**options)
    with _django(*_DJANGO[kind], receiver) if kind in _DJANGO else nullcontext(_CLIENTS[kind](receiver)) as client:
        yield Shop(receiver, client, kind.endswith("guard"), kind.endswith("async"))
