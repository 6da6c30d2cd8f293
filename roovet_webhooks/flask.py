"""Mount a receiver in a Flask application; guard a view of your own."""

from __future__ import annotations

import functools
from io import BytesIO
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, Protocol, TypeVar, cast, overload

from roovet_webhooks.errors import BodyAlreadyRead, ConfigurationError, MissingExtraError, WebhookError
from roovet_webhooks.messages import error_response
from roovet_webhooks.wsgi import request_of

try:
    from flask import Blueprint, Request, Response, current_app, request
except ImportError as _missing:
    message = "Flask is not installed; run: pip install 'roovet-webhooks[flask]'"
    raise MissingExtraError(message, extra="flask") from _missing

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator

    from flask.blueprints import BlueprintSetupState

    from roovet_webhooks.delivery import Delivery
    from roovet_webhooks.messages import WebhookRequest, WebhookResponse
    from roovet_webhooks.receiver import WebhookReceiver

P = ParamSpec("P")
R = TypeVar("R")


def webhook_blueprint(receiver: WebhookReceiver, *, path: str = "/webhooks/roovet") -> Blueprint:
    """Return a blueprint that answers deliveries at a path; its name is ``roovet_<endpoint>``.

    Args:
        receiver: The receiver.
        path: The path to answer; a ``url_prefix`` of the registration comes before it.

    Raises:
        ConfigurationError: The receiver has no secret, or the path does not begin with a slash.
    """
    receiver.require_secret()
    if not path.startswith("/"):
        fault = f"path must begin with a slash, not {path!r}"
        raise ConfigurationError(fault)
    blueprint = Blueprint(f"roovet_{receiver.endpoint}", __name__)

    def receive(**path_params: object) -> Response:
        return _flask_response(receiver.receive(_request(path_params)))

    @blueprint.record
    def mount(state: BlueprintSetupState) -> None:
        # Not add_url_rule: it cannot take every method, and which are refused is the receiver's business.
        name = f"{state.name_prefix}.{state.name}.receive".lstrip(".")
        rule = state.app.url_rule_class(
            (state.url_prefix or "").rstrip("/") + path, endpoint=name, methods=None, subdomain=state.subdomain
        )
        state.app.url_map.add(rule)
        state.app.view_functions[name] = receive
        # Where the command line finds it: flask roovet worker, flask roovet inbox.
        state.app.extensions.setdefault("roovet_webhooks", {})[receiver.endpoint] = receiver

    return blueprint


class Guard(Protocol):
    """What `verified_webhook` returns: a decorator for a view, whose coroutine it runs to its end."""

    @overload
    def __call__(
        self, view: Callable[Concatenate[Delivery, P], Coroutine[Any, Any, R]], /
    ) -> Callable[P, R | Response]: ...
    @overload
    def __call__(self, view: Callable[Concatenate[Delivery, P], R], /) -> Callable[P, R | Response]: ...


def verified_webhook(receiver: WebhookReceiver) -> Guard:
    """Decorate a view ``(delivery, …)``: it runs for verified deliveries only.

    Nothing is recorded and no handler runs. Give the route ``methods=["POST"]``.

    Raises:
        ConfigurationError: The receiver has no secret.
    """
    receiver.require_secret()

    def decorate(view: Callable[Concatenate[Delivery, P], R]) -> Callable[P, R | Response]:
        @functools.wraps(view)
        def guarded(*args: P.args, **kwargs: P.kwargs) -> R | Response:
            try:
                delivery = receiver.open(_request(kwargs))
            except WebhookError as error:
                return _flask_response(error_response(error))
            # The view and what comes after it find the raw body where get_data() looks.
            vars(_current_request())["_cached_data"] = delivery.raw
            ensured: Callable[Concatenate[Delivery, P], R] = current_app.ensure_sync(view)
            return ensured(delivery, *args, **kwargs)

        return guarded

    return cast("Guard", decorate)


def _request(path_params: dict[str, Any]) -> WebhookRequest:
    # Werkzeug keeps what get_data() returned; what only the stream gave out is gone.
    state = vars(_current_request())
    cached: bytes | None = state.get("_cached_data")
    consumed = cached is None and "stream" in state
    # A later get_data() would read on, past the end, where a simple server waits for ever.
    state.setdefault("stream", BytesIO())
    return request_of(
        request.environ,
        body=_consumed() if consumed else cached,
        path_params=path_params,
        native=request,
    )


def _current_request() -> Request:
    # Flask's documented way past its proxy, which its types do not know.
    return cast("Request", cast("Any", request)._get_current_object())


def _consumed() -> Iterator[bytes]:
    fault = "the body was consumed as request.stream before the delivery was verified; use request.get_data()"
    raise BodyAlreadyRead(fault)
    yield b""


def _flask_response(response: WebhookResponse) -> Response:
    headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in response.headers]
    return Response(response.body, response.status, headers)
