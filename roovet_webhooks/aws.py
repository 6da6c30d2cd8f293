"""Mount a receiver in AWS Lambda, behind a function URL, API Gateway or an Application Load Balancer.

The event says which of them it comes from: payload format 2.0 (function URLs, HTTP APIs), 1.0 (REST APIs, HTTP APIs),
or that of a load balancer. The answer goes out in the same format.
"""

from __future__ import annotations

import base64
import functools
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, TypedDict, TypeVar

from roovet_webhooks.errors import ConfigurationError, WebhookError
from roovet_webhooks.messages import WebhookRequest, WebhookResponse, error_response
from roovet_webhooks.receiving.misuse import check_receiver

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from roovet_webhooks.delivery import Delivery
    from roovet_webhooks.receiving.receiver import WebhookReceiver

R = TypeVar("R")

# AWS hands over whole bodies: how the sender told their length says nothing about what is left of them.
_FRAMING = frozenset({"content-length", "transfer-encoding"})


class LambdaResponse(TypedDict, total=False):
    """What Lambda hands back to the sender: ``multiValueHeaders`` replace ``headers`` where the event has them."""

    statusCode: int
    statusDescription: str
    headers: dict[str, str]
    multiValueHeaders: dict[str, list[str]]
    body: str
    isBase64Encoded: bool


def webhook_handler(receiver: WebhookReceiver) -> Callable[[Mapping[str, Any], object], LambdaResponse]:
    """Return the Lambda handler ``(event, context)`` that answers deliveries, at whatever path they come to.

    Args:
        receiver: The receiver.

    Raises:
        ConfigurationError: It is no receiver, or has no secret. From the handler: the event is no HTTP request.
    """
    check_receiver(receiver, "handler = webhook_handler(receiver)")
    receiver.require_secret()

    def handler(event: Mapping[str, Any], _context: object) -> LambdaResponse:
        return _lambda_response(receiver.receive(_request(event)), event)

    return handler


def verified_webhook(
    receiver: WebhookReceiver,
) -> Callable[[Callable[[Mapping[str, Any], Delivery], R]], Callable[[Mapping[str, Any], object], R | LambdaResponse]]:
    """Decorate a function ``(event, delivery)``: it runs for verified deliveries only, as a Lambda handler.

    Nothing is recorded and no handler of the receiver runs.

    Raises:
        ConfigurationError: As `webhook_handler`.
    """
    check_receiver(receiver, "@verified_webhook(receiver)")
    receiver.require_secret()

    def decorate(
        function: Callable[[Mapping[str, Any], Delivery], R],
    ) -> Callable[[Mapping[str, Any], object], R | LambdaResponse]:
        @functools.wraps(function)
        def guarded(event: Mapping[str, Any], _context: object) -> R | LambdaResponse:
            try:
                delivery = receiver.open(_request(event))
            except WebhookError as error:
                return _lambda_response(error_response(error), event)
            return function(event, delivery)

        return guarded

    return decorate


def _request(event: Mapping[str, Any]) -> WebhookRequest:
    http = _mapping(_mapping(event, "requestContext"), "http")
    method, path = http.get("method") or event.get("httpMethod"), http.get("path") or event.get("path")
    if method is None or path is None:
        fault = "the event is no HTTP request of a function URL, API Gateway or a load balancer"
        raise ConfigurationError(fault)
    single = _mapping(event, "headers")
    lines = _mapping(event, "multiValueHeaders") or {name: [single[name]] for name in single}
    headers = [
        (_encoded(name), _encoded(value))
        for name, values in lines.items()
        if name.lower() not in _FRAMING
        for value in values
    ]
    body = event.get("body") or ""
    raw = base64.b64decode(body) if event.get("isBase64Encoded") else _encoded(body)
    return WebhookRequest(method, path, headers, raw, event.get("pathParameters"), native=event)


def _mapping(within: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """Return a part of an event, empty where it is absent or null."""
    return within.get(name) or {}


def _encoded(text: str) -> bytes:
    # A JSON text may hold half a character: no sender must be able to end the function with one.
    return text.encode("utf-8", "surrogatepass")


def _lambda_response(response: WebhookResponse, event: Mapping[str, Any]) -> LambdaResponse:
    headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in response.headers}
    answer: LambdaResponse = {
        "statusCode": response.status,
        "body": response.body.decode(),
        "isBase64Encoded": False,
    }
    if event.get("multiValueHeaders") is not None:
        answer["multiValueHeaders"] = {name: [value] for name, value in headers.items()}
    else:
        answer["headers"] = headers
    if "elb" in _mapping(event, "requestContext"):
        answer["statusDescription"] = f"{response.status} {HTTPStatus(response.status).phrase}"
    return answer
