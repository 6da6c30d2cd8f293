"""Mounts behind what people put in front of them: the real middlewares of each ecosystem.

Those that change nothing outside of their own application are called in this process, one by one. `fastapi_behind`,
`flask_behind` and `django_behind` have all of them at once, beside those that patch whole frameworks, and are served by
a process of their own.
"""

from __future__ import annotations

import gzip
import sys
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Any, NamedTuple

from asgi_correlation_id import CorrelationIdMiddleware
from django.conf import settings
from django.test import override_settings
from flask import Flask, jsonify, request
from flask_login import LoginManager, current_user  # type: ignore[import-untyped]  # has no types
from flask_talisman import Talisman  # type: ignore[import-untyped]  # has no types
from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware
from opentelemetry.instrumentation.wsgi import OpenTelemetryMiddleware as OpenTelemetryWSGI
from secure import Secure
from secure.middleware import SecureASGIMiddleware, SecureWSGIMiddleware
from sentry_sdk.integrations.asgi import SentryAsgiMiddleware
from sentry_sdk.integrations.wsgi import SentryWsgiMiddleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.middleware.httpsredirect import HTTPSRedirectMiddleware
from starlette.middleware.sessions import SessionMiddleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.responses import JSONResponse, Response
from whitenoise import WhiteNoise  # type: ignore[import-untyped]  # has no types

from conformance import mounts
from conformance.cases import CASES, Answer, Case, Expect, Wire
from conformance.harness import Asgi, DjangoAsgi, DjangoWsgi, Harness, Wsgi
from conformance.stage import Stage

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from _typeshed.wsgi import WSGIApplication
    from flask.typing import ResponseReturnValue
    from starlette.requests import Request
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from roovet_webhooks import Delivery

GUARDED = "/guarded"

# What a request has that makes these middlewares act; a sender of webhooks has none of it.
ACTING_LINES = (b"Accept-Encoding: gzip", b"Origin: https://admin.shop.example", b"X-Forwarded-Proto: https")

_NAMES = (
    "dispatch: documented delivery",
    "dispatch: a handler fails and a retry runs",
    "dispatch: a handler asks for a later retry",
    "signature: none",
    "signature: of another body",
    "body: chunked",
    "body: byte by byte",
    "body: over the cap, chunked",
    "body: a length and chunks",
)
BEHIND_CASES = tuple(case for case in CASES if case.name in _NAMES)
assert len(BEHIND_CASES) == len(_NAMES)

GUARD_CASES = (
    Case(name="guard: documented delivery", path=GUARDED, expect=Expect(status=200, word="handled")),
    *(
        Case(name=f"guard: {case.name}", path=GUARDED, lines=case.lines, expect=case.expect)
        for case in BEHIND_CASES
        if case.name.startswith("signature:")
    ),
)


class Layer(NamedTuple):
    """A middleware.

    Attributes:
        put: Puts it in front of an application, or installs it in one.
        adds: A header that it adds to every answer, by which a test knows that it acts.
    """

    put: Callable[[Any], Any]
    adds: str | None = None


class _Appending:
    """What a middleware of one's own does: append to the list."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def appending(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"].append((b"x-appended", b"1"))
            await send(message)

        await self.app(scope, receive, appending)


class _Visits:
    """An application that changes its session at every request."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            scope["session"]["visits"] = scope["session"].get("visits", 0) + 1
        await self.app(scope, receive, send)


async def _timed(incoming: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
    response = await call_next(incoming)
    response.headers["x-process-time"] = "1"
    return response


ASGI_LAYERS: dict[str, Layer] = {
    "appending": Layer(_Appending, "x-appended"),
    "GZipMiddleware": Layer(lambda app: GZipMiddleware(app, minimum_size=1), "content-encoding"),
    "CORSMiddleware": Layer(lambda app: CORSMiddleware(app, allow_origins=["*"]), "access-control-allow-origin"),
    "TrustedHostMiddleware": Layer(lambda app: TrustedHostMiddleware(app, allowed_hosts=["shop.example", "127.0.0.1"])),
    "HTTPSRedirectMiddleware": Layer(HTTPSRedirectMiddleware),
    "SessionMiddleware": Layer(lambda app: SessionMiddleware(_Visits(app), secret_key="none"), "set-cookie"),
    "BaseHTTPMiddleware": Layer(lambda app: BaseHTTPMiddleware(app, dispatch=_timed), "x-process-time"),
    "asgi-correlation-id": Layer(CorrelationIdMiddleware, "x-request-id"),
    "secure": Layer(
        lambda app: SecureASGIMiddleware(app, secure=Secure.with_default_headers()), "strict-transport-security"
    ),
    "Sentry": Layer(SentryAsgiMiddleware),
    "OpenTelemetry": Layer(OpenTelemetryMiddleware),
}


def _talisman(app: Flask) -> None:
    Talisman(app)


def _login(app: Flask) -> None:
    app.secret_key = "none"
    LoginManager(app).user_loader(lambda _user: None)

    @app.before_request
    def look() -> None:
        # As applications do that log who sends which form.
        assert not current_user.is_authenticated
        assert not request.form


def _in_front(middleware: Callable[[Any], Any]) -> Callable[[Flask], None]:
    def install(app: Flask) -> None:
        app.wsgi_app = middleware(app.wsgi_app)  # type: ignore[method-assign]  # the documented way

    return install


FLASK_LAYERS: dict[str, Layer] = {
    "Flask-Talisman": Layer(_talisman, "content-security-policy"),
    "Flask-Login": Layer(_login),
    "WhiteNoise": Layer(_in_front(lambda app: WhiteNoise(app, autorefresh=True))),
    "secure": Layer(
        _in_front(lambda app: SecureWSGIMiddleware(app, secure=Secure.with_default_headers())),
        "strict-transport-security",
    ),
    "Sentry": Layer(_in_front(SentryWsgiMiddleware)),
    "OpenTelemetry": Layer(_in_front(OpenTelemetryWSGI)),
}

DJANGO_MIDDLEWARE: dict[str, tuple[str, str | None]] = {
    "GZipMiddleware": ("django.middleware.gzip.GZipMiddleware", None),  # leaves what is under 200 bytes
    "django-cors-headers": ("corsheaders.middleware.CorsMiddleware", "access-control-allow-origin"),
    "WhiteNoise": ("whitenoise.middleware.WhiteNoiseMiddleware", None),
    "SECURE_SSL_REDIRECT": ("django.middleware.security.SecurityMiddleware", "strict-transport-security"),
    "LocaleMiddleware": ("django.middleware.locale.LocaleMiddleware", "content-language"),
}
DJANGO_EXTRA: dict[str, Any] = {
    "CORS_ALLOW_ALL_ORIGINS": True,
    "SECURE_SSL_REDIRECT": True,
    "SECURE_HSTS_SECONDS": 60,
    "SECURE_PROXY_SSL_HEADER": ("HTTP_X_FORWARDED_PROTO", "https"),
    "WHITENOISE_AUTOREFRESH": True,
}


def acting(wire: Wire) -> Wire:
    """Return the request with what makes the middlewares act."""
    return wire._replace(lines=(*wire.lines, *ACTING_LINES))


def plain(answer: Answer | None, adds: str | None) -> Answer | None:
    """Check that the middleware has acted, and take its compression off."""
    if answer is None or answer.headers.get("content-type") != "application/json":
        return answer
    assert adds is None or adds in answer.headers, f"the middleware added no {adds}"
    if answer.headers.get("content-encoding") != "gzip":
        return answer
    assert int(answer.headers["content-length"]) == len(answer.body)
    body = gzip.decompress(answer.body)
    return answer._replace(body=body, headers={**answer.headers, "content-length": str(len(body))})


class Behind:
    """A harness whose requests pass through a middleware."""

    def __init__(self, inner: Harness, adds: str | None) -> None:
        self.inner = inner
        self.adds = adds
        self.traits = inner.traits
        self.record = inner.record

    def send(self, wire: Wire) -> Answer | None:
        """Send a request through the middleware."""
        return plain(self.inner.send(acting(wire)), self.adds)


def _asgi(name: str, mount: Callable[[Stage], ASGIApp]) -> Harness:
    layer = ASGI_LAYERS[name]
    return Behind(Asgi(lambda stage: layer.put(mount(stage)), scheme="https"), layer.adds)


def _fastapi_function(stage: Stage) -> ASGIApp:
    app = mounts.fastapi_routes(stage)
    app.middleware("http")(_timed)
    return app


def _flask(name: str) -> Harness:
    layer = FLASK_LAYERS[name]

    def mount(stage: Stage) -> WSGIApplication:
        app = mounts.flask_app(stage)
        layer.put(app)
        return app.wsgi_app

    return Behind(Wsgi(mount), layer.adds)


def _django(name: str, kind: type[DjangoWsgi | DjangoAsgi]) -> Harness:
    middleware, adds = DJANGO_MIDDLEWARE[name]
    mounts.configure_django()
    usual = mounts.DJANGO_SETTINGS["MIDDLEWARE"]
    extra = {**DJANGO_EXTRA, "MIDDLEWARE": list(dict.fromkeys([middleware, *usual]))}

    class Overridden(kind):  # type: ignore[misc, valid-type]  # either of two
        def __init__(self) -> None:
            with override_settings(**extra):
                super().__init__()

        def send(self, wire: Wire) -> Answer | None:
            with override_settings(**extra):
                answer: Answer | None = super().send(wire)
                return answer

    return Behind(Overridden(), adds)


BEHIND: dict[str, Callable[[], Harness]] = {
    **{f"{name}, route": partial(_asgi, name, mounts.starlette_routes) for name in ASGI_LAYERS},
    **{f"{name}, middleware": partial(_asgi, name, mounts.starlette_middleware) for name in ASGI_LAYERS},
    "FastAPI's @app.middleware": lambda: Behind(Asgi(_fastapi_function), "x-process-time"),
    **{f"{name}, flask": partial(_flask, name) for name in FLASK_LAYERS},
    **{f"{name}, django wsgi": partial(_django, name, DjangoWsgi) for name in DJANGO_MIDDLEWARE},
    **{f"{name}, django asgi": partial(_django, name, DjangoAsgi) for name in DJANGO_MIDDLEWARE},
}


# All at once, and what patches whole frameworks: in a process of its own


def _patch_everything(integration: str, name: str) -> None:
    import sentry_sdk  # noqa: PLC0415 - only where it may patch
    from opentelemetry.instrumentation.propagators import (  # noqa: PLC0415 - as above
        TraceResponsePropagator,
        set_global_response_propagator,
    )
    from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415 - as above
    from opentelemetry.trace import set_tracer_provider  # noqa: PLC0415 - as above

    sentry_sdk.init(
        dsn="https://key@sentry.invalid/1",
        transport=lambda _event: None,  # nothing leaves this process
        # All that it finds would be patched otherwise, and loaded for it.
        auto_enabling_integrations=False,
        integrations=[getattr(import_module(f"sentry_sdk.integrations.{integration}"), name)()],
        traces_sample_rate=1.0,
        send_default_pii=True,
        max_request_body_size="always",
    )
    set_tracer_provider(TracerProvider())
    set_global_response_propagator(TraceResponsePropagator())  # type: ignore[no-untyped-call]  # has no types


def fastapi_behind() -> ASGIApp:
    """Return a FastAPI application behind everything."""
    _patch_everything("fastapi", "FastApiIntegration")
    from roovet_webhooks.asgi import verified_webhook  # noqa: PLC0415 - what is patched comes first

    stage = Stage()
    app = mounts.fastapi_routes(stage)

    @verified_webhook(stage.guarding())
    async def guarded(_request: Request, _delivery: Delivery) -> Response:
        return JSONResponse({"status": "handled"})

    app.add_route(GUARDED, guarded, methods=["POST"])
    for layer in ASGI_LAYERS.values():
        app.add_middleware(layer.put)
    app.middleware("http")(_timed)
    return app


def flask_behind() -> WSGIApplication:
    """Return a Flask application behind everything."""
    _patch_everything("flask", "FlaskIntegration")
    from opentelemetry.instrumentation.flask import FlaskInstrumentor  # noqa: PLC0415 - only where it may patch

    from roovet_webhooks.flask import verified_webhook  # noqa: PLC0415 - what is patched comes first

    stage = Stage()
    app = mounts.flask_app(stage)

    @app.post(GUARDED)
    @verified_webhook(stage.guarding())
    def guarded(_delivery: Delivery) -> ResponseReturnValue:
        return jsonify({"status": "handled"})

    FlaskInstrumentor().instrument_app(app)  # type: ignore[no-untyped-call]  # has no types
    for layer in FLASK_LAYERS.values():
        layer.put(app)
    return app


def django_behind() -> WSGIApplication:
    """Return a Django project behind everything."""
    usual = mounts.DJANGO_SETTINGS
    auth = ["django.contrib.auth", "django.contrib.contenttypes", "django.contrib.sessions"]
    settings.configure(
        **{
            **usual,
            **DJANGO_EXTRA,
            "INSTALLED_APPS": [*auth, "corsheaders", *usual["INSTALLED_APPS"]],
            "MIDDLEWARE": [
                *(middleware for middleware, _ in DJANGO_MIDDLEWARE.values()),
                *(each for each in usual["MIDDLEWARE"] if "security" not in each),
                "django.contrib.sessions.middleware.SessionMiddleware",
                "django.contrib.auth.middleware.AuthenticationMiddleware",
                "django.contrib.auth.middleware.LoginRequiredMiddleware",
            ],
            "LOGIN_URL": "/login",
        }
    )
    _patch_everything("django", "DjangoIntegration")
    import django  # noqa: PLC0415 - what is patched comes first
    from opentelemetry.instrumentation.django import DjangoInstrumentor  # noqa: PLC0415 - as above

    DjangoInstrumentor().instrument()
    django.setup()
    from django.contrib.auth.decorators import login_not_required  # noqa: PLC0415 - after the set-up
    from django.http import HttpRequest, JsonResponse  # noqa: PLC0415 - after the set-up
    from django.urls import path  # noqa: PLC0415 - after the set-up

    from roovet_webhooks.django import verified_webhook  # noqa: PLC0415 - after the set-up

    stage = Stage()

    @verified_webhook(stage.guarding())
    def guarded(_request: HttpRequest, _delivery: Delivery) -> JsonResponse:
        return JsonResponse({"status": "handled"})

    name = mounts.django_urls(stage, asynchronous=False)
    settings.ROOT_URLCONF = name
    patterns = vars(sys.modules[name])["urlpatterns"]
    patterns[-1].callback = login_not_required(patterns[-1].callback)
    patterns.append(path(GUARDED.removeprefix("/"), guarded))
    return mounts.django_wsgi()


BEHIND_SERVERS: dict[str, tuple[str, str, frozenset[str]]] = {
    "uvicorn h11, fastapi": ("uvicorn-h11", "fastapi_behind", frozenset()),
    "gunicorn, flask": ("gunicorn", "flask_behind", frozenset({"wsgi"})),
    "gunicorn, django": ("gunicorn", "django_behind", frozenset({"wsgi"})),
}
