"""The receivers of a stage, mounted as each framework's users would mount them, beside a control route."""

from __future__ import annotations

import sys
from contextlib import asynccontextmanager
from types import ModuleType
from typing import TYPE_CHECKING, Any, cast

import django
from django.conf import settings
from django.core.asgi import get_asgi_application
from django.core.wsgi import get_wsgi_application
from django.http import HttpRequest, HttpResponse
from django.urls import path as django_path
from fastapi import FastAPI
from flask import Flask, Response as FlaskResponse
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.responses import Response
from starlette.routing import Mount, Route

from conformance.stage import CONTROL, EMPTY, Stage
from roovet_webhooks.asgi import WebhookApp, WebhookMiddleware
from roovet_webhooks.flask import webhook_blueprint

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable

    from _typeshed.wsgi import WSGIApplication
    from starlette.requests import Request
    from starlette.types import ASGIApp

    from roovet_webhooks import Delivery, Event, WebhookReceiver

DJANGO_SETTINGS: dict[str, Any] = {
    "ALLOWED_HOSTS": ["*"],
    "DATABASES": {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
    "DEBUG": True,
    "INSTALLED_APPS": ["roovet_webhooks.django"],
    "LOGGING_CONFIG": None,
    # What a stranger's request meets in most projects, in front of the view.
    "MIDDLEWARE": [
        "django.middleware.security.SecurityMiddleware",
        "django.middleware.common.CommonMiddleware",
        "django.middleware.csrf.CsrfViewMiddleware",
        "django.middleware.clickjacking.XFrameOptionsMiddleware",
    ],
    "SECRET_KEY": "not a secret: nothing here is signed with it",
    "USE_TZ": True,
}


def configure_django() -> None:
    """Set Django up, once in a process."""
    if not settings.configured:
        settings.configure(**DJANGO_SETTINGS)
        django.setup()


def _control_route(stage: Stage) -> Route:
    async def control(request: Request) -> Response:
        return Response(stage.control(request.path_params["what"]), media_type="application/json")

    return Route(CONTROL + "{what:path}", control)


def starlette_routes(stage: Stage) -> ASGIApp:
    """Return a Starlette application with a route for each receiver."""
    routes = [Route(path, WebhookApp(receiver)) for path, receiver in stage.receivers.items()]
    return Starlette(routes=[*routes, _control_route(stage)])


def starlette_mount(stage: Stage) -> ASGIApp:
    """Return the routes below a prefix: they have a ``root_path``."""
    return Starlette(routes=[Mount("/shop", starlette_routes(stage))])


def starlette_middleware(stage: Stage) -> ASGIApp:
    """Return a Starlette application with the receivers in front of it.

    All but the one without handlers, with which the middleware would refuse to start.
    """
    middleware = [
        Middleware(WebhookMiddleware, receiver=receiver, path=path)
        for path, receiver in stage.receivers.items()
        if path != EMPTY
    ]
    routes = [Route(EMPTY, WebhookApp(stage.receivers[EMPTY])), _control_route(stage)]
    return Starlette(routes=routes, middleware=middleware)


async def _pass(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
    return await call_next(request)


def starlette_behind(stage: Stage) -> ASGIApp:
    """Return the routes behind a middleware that hands on the body piece by piece, under a task group of its own."""
    return BaseHTTPMiddleware(starlette_routes(stage), dispatch=_pass)


def handlers_at_startup(stage: Stage) -> ASGIApp:
    """Return an application that registers its only handler when it starts."""
    receiver = stage.receivers[EMPTY]

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncGenerator[None]:
        @receiver.on("order.created")
        async def created(_event: Event, delivery: Delivery) -> None:
            stage.note("created", delivery)

        yield

    app = Starlette(routes=[_control_route(stage)], lifespan=lifespan)
    return WebhookMiddleware(app, receiver=receiver)


def fastapi_routes(stage: Stage) -> FastAPI:
    """Return a FastAPI application with a route for each receiver."""
    app = FastAPI()
    for path, receiver in stage.receivers.items():
        app.add_route(path, WebhookApp(receiver))  # type: ignore[arg-type]  # its types do not know that it takes an ASGI application
    app.router.routes.append(_control_route(stage))
    return app


def flask_app(stage: Stage) -> Flask:
    """Return a Flask application with a blueprint for each receiver."""
    app = Flask(__name__)
    for path, receiver in stage.receivers.items():
        app.register_blueprint(webhook_blueprint(receiver, path=path))

    @app.get(CONTROL + "<path:what>")
    def control(what: str) -> FlaskResponse:
        return FlaskResponse(stage.control(what), mimetype="application/json")

    return app


def flask_blueprints(stage: Stage) -> WSGIApplication:
    """Return that application as a server calls it."""
    return flask_app(stage).wsgi_app


def django_urls(stage: Stage, *, asynchronous: bool) -> str:
    """Return the name of a URLconf with a view for each receiver."""
    configure_django()
    from roovet_webhooks.django import dispatch_view  # noqa: PLC0415 - it reads the settings

    def control(_request: HttpRequest, what: str) -> HttpResponse:
        return HttpResponse(stage.control(what), content_type="application/json")

    def view(receiver: WebhookReceiver) -> Callable[..., Any]:
        return dispatch_view(receiver, asynchronous=True) if asynchronous else dispatch_view(receiver)

    urls = ModuleType(f"conformance_urls_{id(stage)}")
    vars(urls)["urlpatterns"] = [
        *(django_path(path.removeprefix("/"), view(receiver)) for path, receiver in stage.receivers.items()),
        django_path(CONTROL.removeprefix("/") + "<path:what>", control),
    ]
    sys.modules[urls.__name__] = urls
    return urls.__name__


def django_wsgi() -> WSGIApplication:
    """Return the Django project under WSGI."""
    application: WSGIApplication = get_wsgi_application()
    return application


def django_asgi() -> ASGIApp:
    """Return the Django project under ASGI."""
    return cast("ASGIApp", get_asgi_application())
