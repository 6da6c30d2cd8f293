"""Views: a receiver as one, and a guard for your own."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, Literal, TypeVar, cast, overload

from asgiref.sync import iscoroutinefunction, sync_to_async
from django.apps import apps
from django.conf import settings
from django.db import connections, transaction
from django.http import HttpResponse

from roovet_webhooks.django.inbox import DjangoInbox
from roovet_webhooks.django.project_checks import MARK
from roovet_webhooks.django.tables import NOT_INSTALLED
from roovet_webhooks.errors import BodyAlreadyRead, ConfigurationError, IncompleteBody, WebhookError
from roovet_webhooks.handler_types import innermost
from roovet_webhooks.messages import WebhookRequest, WebhookResponse, error_response
from roovet_webhooks.receiving.bridge import AsyncBridge
from roovet_webhooks.receiving.misuse import check_receiver
from roovet_webhooks.receiving.tenants import SECRET_VARIABLE
from roovet_webhooks.receiving.wsgi import CHUNK_BYTES, request_of, response_headers

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Iterator

    from django.core.handlers.asgi import ASGIRequest
    from django.core.handlers.wsgi import WSGIRequest
    from django.http import HttpRequest, HttpResponseBase

    from roovet_webhooks.delivery import Delivery
    from roovet_webhooks.receiving.receiver import WebhookReceiver
    from roovet_webhooks.signing.keys import SecretLike

    View = Callable[..., HttpResponseBase]
    AsyncView = Callable[..., Coroutine[Any, Any, HttpResponseBase]]

# What a view returns; a view stays sync or async, so that path() accepts what is made of it.
R = TypeVar("R")

mounted: list[WebhookReceiver] = []
"""The receivers that views have been made of, for the system check."""


async def _in_thread(function: Callable[..., object], *arguments: object) -> object:
    # Thread-sensitive, as Django's own: the thread that holds the request's database connections.
    return await sync_to_async(function, thread_sensitive=True)(*arguments)


_BRIDGE = AsyncBridge(_in_thread)


@overload
def dispatch_view(receiver: WebhookReceiver, *, asynchronous: Literal[False] = ...) -> View: ...


@overload
def dispatch_view(receiver: WebhookReceiver, *, asynchronous: Literal[True]) -> AsyncView: ...


def dispatch_view(receiver: WebhookReceiver, *, asynchronous: bool = False) -> View | AsyncView:
    """Return the view that answers deliveries; mount it with ``path("webhooks/roovet", …)``.

    It is exempt from CSRF protection and from ``LoginRequiredMiddleware``, since the signature is what proves the
    sender, and from ``APPEND_SLASH``, since no sender follows a redirect. It runs outside ``ATOMIC_REQUESTS``, since
    a handler's failure must not undo the record of it.

    Args:
        receiver: The receiver. Without a secret of its own it takes ``settings.ROOVET_WEBHOOK_SECRET``.
        asynchronous: Make an async view, for a project under ASGI.

    Raises:
        ConfigurationError: It is no receiver; or ``roovet_webhooks.django`` is not among the ``INSTALLED_APPS``, and
            there is no secret, as its system check would say, or the inbox is a `DjangoInbox`, whose tables it brings.
    """
    check_receiver(receiver, 'path("webhooks/roovet", dispatch_view(receiver))')
    _mount(receiver)

    def view(request: HttpRequest, **path_params: object) -> HttpResponse:
        return _django_response(receiver.receive(_request(request, path_params)), request)

    async def async_view(request: HttpRequest, **path_params: object) -> HttpResponse:
        request_ = _request(request, path_params)
        return _django_response(await receiver.receive_async(request_, bridge=_BRIDGE), request)

    chosen = _exempt(async_view if asynchronous else view)
    for alias in connections:
        chosen = transaction.non_atomic_requests(using=alias)(chosen)
    return cast("View | AsyncView", chosen)


def verified_webhook(receiver: WebhookReceiver) -> Callable[[Callable[..., R]], Callable[..., R]]:
    """Decorate a view ``(request, delivery, …)``, sync or async: it runs for verified deliveries only.

    Nothing is recorded and no handler runs. The view is exempt from CSRF protection, from ``LoginRequiredMiddleware``
    and from ``APPEND_SLASH``.

    Args:
        receiver: As `dispatch_view` takes it.

    Raises:
        ConfigurationError: As `dispatch_view`.
    """
    check_receiver(receiver, "@verified_webhook(receiver)")
    _mount(receiver, dispatches=False)

    def decorate(view: Callable[..., R]) -> Callable[..., R]:
        @functools.wraps(view)
        def guarded(request: HttpRequest, *args: Any, **kwargs: Any) -> object:  # noqa: ANN401 - the view's own
            try:
                delivery = receiver.open(_request(request, kwargs))
            except WebhookError as error:
                return _django_response(error_response(error), request)
            _keep(request, delivery)
            return view(request, delivery, *args, **kwargs)

        @functools.wraps(view)
        async def async_guarded(request: HttpRequest, *args: Any, **kwargs: Any) -> object:  # noqa: ANN401 - the view's own
            try:
                delivery = await receiver.open_async(_request(request, kwargs), bridge=_BRIDGE)
            except WebhookError as error:
                return _django_response(error_response(error), request)
            _keep(request, delivery)
            return await cast("Awaitable[object]", view(request, delivery, *args, **kwargs))

        chosen = async_guarded if _is_async(view) else guarded
        return cast("Callable[..., R]", _exempt(chosen))

    return decorate


def _exempt(view: Any) -> Any:  # noqa: ANN401 - whatever kind of view it is
    """Exempt a view of ours from what a project demands of every view, and no sender of webhooks can do.

    Django's own decorators make a sync view of an async one in version 4.2.
    """
    setattr(view, MARK, True)
    view.csrf_exempt = True
    view.login_required = False  # for LoginRequiredMiddleware, since Django 5.1
    view.should_append_slash = False  # no sender follows a redirect
    return view


def _is_async(view: Callable[..., object]) -> bool:
    # Of a class with async handlers, method_decorator passes on the `dispatch` of an instance, which is a plain
    # function, and its result is awaited all the same.
    instance = getattr(innermost(view), "__self__", None)
    # asgiref's own test: it knows the views that Django marks as coroutines on Python 3.11.
    return iscoroutinefunction(view) or getattr(instance, "view_is_async", False)  # pyright: ignore[reportDeprecated]


def _mount(receiver: WebhookReceiver, *, dispatches: bool = True) -> None:
    receiver.default_secret(_secret_of_settings)
    if not apps.is_installed("roovet_webhooks.django"):
        receiver.require_secret()
        if isinstance(receiver.inbox, DjangoInbox):
            raise ConfigurationError(NOT_INSTALLED)
    elif dispatches and receiver not in mounted:
        mounted.append(receiver)


def _secret_of_settings() -> SecretLike | None:
    return getattr(settings, SECRET_VARIABLE, None)


def _request(request: HttpRequest, path_params: dict[str, Any]) -> WebhookRequest:
    cached: bytes | None = getattr(request, "_body", None)
    if cached is None and getattr(request, "_read_started", False):
        body: bytes | Iterator[bytes] | None = _consumed()
    else:
        body = cached
    scope = getattr(cast("ASGIRequest", request), "scope", None)
    if scope is None:
        # A later request.body would read on, past the end, where a simple server waits for ever.
        request._read_started = True  # type: ignore[attr-defined]
        environ = cast("WSGIRequest", request).environ
        return request_of(environ, body=body, path_params=path_params, native=request)
    if body is None:
        body = _spooled(request)
    return WebhookRequest(scope["method"], scope["path"], scope["headers"], body, path_params, native=request)


def _keep(request: HttpRequest, delivery: Delivery) -> None:
    """Leave the raw body where ``request.body`` and Django REST framework look for it."""
    request._body = delivery.raw


def _spooled(request: HttpRequest) -> Iterator[bytes]:
    """Yield the body that Django's ASGI handler has spooled."""
    try:
        while chunk := request.read(CHUNK_BYTES):
            yield chunk
    except OSError as error:
        fault = "Django could not read the body it had spooled"
        raise IncompleteBody(fault, received=0) from error


def _consumed() -> Iterator[bytes]:
    fault = "the body was consumed with request.read() before the delivery was verified; use request.body"
    raise BodyAlreadyRead(fault)
    yield b""


def _django_response(response: WebhookResponse, request: HttpRequest) -> HttpResponse:
    if hasattr(request, "scope"):
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in response.headers}
    else:
        headers = dict(response_headers(response))
    return HttpResponse(response.body, status=response.status, headers=headers)
