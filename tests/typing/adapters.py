"""What an editor sees of the adapters; see `core` for how a mistake is marked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, assert_type

from django.http import HttpRequest, HttpResponseBase, JsonResponse
from django.urls import path
from fastapi import Depends, FastAPI
from flask import Blueprint, Flask, Response
from flask.typing import ResponseReturnValue
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.responses import JSONResponse, Response as StarletteResponse
from starlette.routing import Route

from roovet_webhooks import Delivery, Event, WebhookReceiver, asgi, django, flask

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine

    from starlette.requests import Request

receiver = WebhookReceiver("x")


# ASGI

Starlette(middleware=[Middleware(asgi.WebhookMiddleware, receiver=receiver, path="/webhooks/roovet")])
Starlette(routes=[Route("/webhooks/roovet", asgi.WebhookApp(receiver))])
asgi.WebhookMiddleware(Starlette(), receiver=receiver)
asgi.WebhookMiddleware(Starlette(), receiver)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue] - by keyword
asgi.WebhookApp("x")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType] - no receiver
api = FastAPI(exception_handlers={**asgi.webhook_exception_handlers})
api.add_middleware(asgi.WebhookMiddleware, receiver=receiver, path="/webhooks/roovet")


@asgi.verified_webhook(receiver)
async def guarded(request: Request, delivery: Delivery) -> JSONResponse:
    return JSONResponse({"seen": delivery.event.id, "path": request.url.path})


@asgi.verified_webhook(receiver)
def guarded_sync(request: Request, delivery: Delivery) -> JSONResponse:
    return JSONResponse({"seen": delivery.event.id, "path": request.url.path})


Route("/webhooks/roovet", guarded, methods=["POST"])
endpoint: Callable[[Request], Awaitable[StarletteResponse]] = guarded_sync


@asgi.verified_webhook(receiver)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType] - it takes no delivery
async def without_delivery(request: Request) -> JSONResponse:
    return JSONResponse({"path": request.url.path})


@asgi.verified_webhook(receiver)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType] - it gets a delivery
async def with_event(request: Request, event: Event) -> JSONResponse:
    return JSONResponse({"seen": event.id, "path": request.url.path})


dependency: Callable[[Request], Awaitable[Delivery]] = asgi.verified_delivery(receiver)


@api.post("/webhooks/roovet")
async def seen(delivery: Annotated[Delivery, Depends(asgi.verified_delivery(receiver))]) -> dict[str, str]:
    return {"seen": delivery.event.id}


# Django


@django.verified_webhook(receiver)
def view(request: HttpRequest, delivery: Delivery, shop: str) -> JsonResponse:
    return JsonResponse({"seen": delivery.event.id, "path": request.path, "shop": shop})


@django.verified_webhook(receiver)
async def async_view(request: HttpRequest, delivery: Delivery) -> JsonResponse:
    return JsonResponse({"seen": delivery.event.id, "path": request.path})


assert_type(view(HttpRequest(), shop="acme"), JsonResponse)
awaited: Coroutine[Any, Any, JsonResponse] = async_view(HttpRequest())
sync_view: Callable[..., HttpResponseBase] = django.dispatch_view(receiver)
dispatched: Callable[..., Coroutine[Any, Any, HttpResponseBase]] = django.dispatch_view(receiver, asynchronous=True)
not_sync: Callable[..., HttpResponseBase] = django.dispatch_view(receiver, asynchronous=True)  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType] - it is to be awaited
urlpatterns = [
    path("webhooks/roovet", django.dispatch_view(receiver)),
    path("webhooks/async", django.dispatch_view(receiver, asynchronous=True)),
    path("webhooks/<shop>", view),
    path("webhooks/own", async_view),
]
django.dispatch_view("x")  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType] - no receiver


# Flask

app = Flask(__name__)
assert_type(flask.webhook_blueprint(receiver, path="/webhooks/roovet"), Blueprint)
app.register_blueprint(flask.webhook_blueprint(receiver))
flask.webhook_blueprint(receiver, "/webhooks/roovet")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue] - by keyword


@app.post("/webhooks/<shop>")
@flask.verified_webhook(receiver)
def flask_view(delivery: Delivery, shop: str) -> dict[str, str]:
    return {"seen": delivery.event.id, "shop": shop}


@app.post("/webhooks/async")
@flask.verified_webhook(receiver)
async def flask_async_view(delivery: Delivery) -> ResponseReturnValue:
    return {"seen": delivery.event.id}


# The guard gives the delivery; what the route captures is left.
assert_type(flask_view(shop="acme"), dict[str, str] | Response)
assert_type(flask_async_view(), ResponseReturnValue | Response)
flask_view("acme", shop="acme")  # type: ignore[misc]  # pyright: ignore[reportCallIssue] - the guard gives it


@flask.verified_webhook(receiver)  # type: ignore[arg-type]  # pyright: ignore[reportCallIssue, reportArgumentType, reportUntypedFunctionDecorator] - the delivery comes first
def no_delivery(shop: str) -> dict[str, str]:
    return {"shop": shop}
