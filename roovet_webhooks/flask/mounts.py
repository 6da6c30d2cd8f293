"""Mount a receiver in a Flask application; guard a view of your own."""

from __future__ import annotations

import functools
from io import BytesIO
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, Protocol, TypeVar, cast, overload

from roovet_webhooks.errors import BodyAlreadyRead, ConfigurationError, MissingExtraError, WebhookError
from roovet_webhooks.messages import error_response
from roovet_webhooks.receiving.misuse import check_receiver
from roovet_webhooks.receiving.wsgi import read_input, request_of, response_headers

try:
    from flask import Blueprint, Request, Response, current_app, request
    from werkzeug.wsgi import LimitedStream
except ImportError as _missing:
    message = "Flask is not installed; run: pip install 'roovet-webhooks[flask]'"
    raise MissingExtraError(message, extra="flask") from _missing

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator
    from wsgiref.types import InputStream

    from flask.blueprints import BlueprintSetupState

    from roovet_webhooks.delivery import Delivery
    from roovet_webhooks.messages import WebhookRequest, WebhookResponse
    from roovet_webhooks.receiving.receiver import WebhookReceiver

P = ParamSpec("P")
R = TypeVar("R")


def webhook_blueprint(receiver: WebhookReceiver, *, path: str = "/webhooks/roovet") -> Blueprint:
    """Return a blueprint that answers deliveries at a path; its name is ``roovet_<endpoint>``.

    Args:
        receiver: The receiver.
        path: The path to answer; a ``url_prefix`` of the registration comes before it.

    Raises:
        ConfigurationError: It is no receiver, or has no secret, or the path does not begin with a slash.
    """
    check_receiver(receiver, "app.register_blueprint(webhook_blueprint(receiver))")
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
        ConfigurationError: It is no receiver, or has no secret.
    """
    check_receiver(receiver, "@verified_webhook(receiver)")
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
    body: bytes | Iterator[bytes] | None = state.get("_cached_data")
    if body is None and (stream := state.get("stream")) is not None:
        body = _rest_of(stream, parsed="form" in state)
    # A later get_data() would read on, past the end, where a simple server waits for ever.
    state["stream"] = BytesIO()
    return request_of(request.environ, body=body, path_params=path_params, native=request)


def _current_request() -> Request:
    # Flask's documented way past its proxy, which its types do not know.
    return cast("Request", cast("Any", request)._get_current_object())


def _rest_of(stream: InputStream, *, parsed: bool) -> Iterator[bytes]:
    """Yield the body from a stream that the application has had in its hand.

    Args:
        stream: The stream.
        parsed: It was made by a look at ``request.form``, ``.values`` or ``.files``, which reads nothing of JSON.

    Raises:
        BodyAlreadyRead: The application has read from it.
    """
    fault = "the body was consumed as request.stream before the delivery was verified; use request.get_data()"
    # What Werkzeug puts around wsgi.input counts what was read of it.
    position = stream.tell() if isinstance(stream, LimitedStream) else None
    if position:
        raise BodyAlreadyRead(fault)
    nothing = True
    for chunk in read_input(request.environ, stream):
        nothing = False
        yield chunk
    if nothing and position is None and not parsed:
        # A chunked body, of which the server itself tells the end: here is no count to ask.
        raise BodyAlreadyRead(fault)


def _flask_response(response: WebhookResponse) -> Response:
    return Response(response.body, response.status, response_headers(response))
