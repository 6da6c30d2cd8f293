"""The Lambda adapter: events and answers in each shape. What is refused, and how, is in the conformance suite."""

from __future__ import annotations

import json
from typing import Any

import pytest
from conformance.lambdas import KINDS, MULTIPLE, answer_of, event_of
from support import PATH, SECRET, clock, headers_of, payload

from roovet_webhooks import ConfigurationError, Delivery, Event, Tenant, WebhookReceiver, WebhookRequest
from roovet_webhooks.aws import verified_webhook, webhook_handler


def make_receiver(secret: Any = SECRET) -> WebhookReceiver:  # noqa: ANN401 - whatever the constructor takes
    receiver = WebhookReceiver(secret, clock=clock)
    receiver.fallback(lambda _event: None)
    return receiver


def event_with(kind: str, raw: bytes, *, encoded: bool = False) -> dict[str, Any]:
    headers = [(name.encode(), value.encode()) for name, value in headers_of(raw).items()]
    return event_of(kind, "POST", PATH, headers, raw, encoded=encoded)


@pytest.mark.parametrize("encoded", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_a_guarded_function_gets_the_verified_delivery_and_answers_as_it_likes(kind: str, *, encoded: bool) -> None:
    raw = payload()

    @verified_webhook(make_receiver())
    def seen(event: Any, delivery: Delivery) -> str:  # noqa: ANN401 - the event, whatever it is
        assert delivery.raw == raw
        return f"{event['isBase64Encoded']} {delivery.event.event}"

    assert seen.__name__ == "seen"
    event = event_with(kind, raw, encoded=encoded)
    assert seen(event, None) == f"{encoded} {json.loads(raw)['event']}"
    event["body"] = ""
    refused = seen(event, None)
    assert isinstance(refused, dict)
    assert answer_of(kind, dict(refused)).status == 400


@pytest.mark.parametrize("kind", KINDS)
def test_a_resolver_finds_the_event_and_what_its_route_captured(kind: str) -> None:
    found: list[object] = []

    def resolve(request: WebhookRequest) -> Tenant:
        found.extend((request.native, dict(request.path_params), request.path))
        return Tenant("shop", SECRET)

    event = event_with(kind, payload())
    answer = webhook_handler(make_receiver(resolve))(event, None)
    assert answer["statusCode"] == 200
    assert found == [event, event.get("pathParameters") or {}, PATH]


@pytest.mark.parametrize("kind", KINDS)
def test_a_signature_that_stands_twice_is_refused_where_the_event_shows_it(kind: str) -> None:
    raw = payload()
    event = event_with(kind, raw)
    if kind in MULTIPLE:
        event["multiValueHeaders"]["X-Roovet-Signature"] *= 2
        assert webhook_handler(make_receiver())(event, None)["statusCode"] == 400


def test_the_test_console_of_a_rest_api_has_headers_or_none() -> None:
    raw = payload()
    event = event_with("rest_api", raw)
    event["multiValueHeaders"] = None
    answer = webhook_handler(make_receiver())(event, None)
    assert answer["statusCode"] == 200
    assert answer["headers"]["content-type"] == "application/json"
    event["headers"] = None
    assert webhook_handler(make_receiver())(event, None)["statusCode"] == 415


def test_half_a_character_in_the_body_or_a_header_is_refused_and_ends_nothing() -> None:
    event = event_with("function_url", payload())
    for change in ({"body": "\ud800"}, {"headers": {**event["headers"], "X-Roovet-Signature": "\ud800"}}):
        assert webhook_handler(make_receiver())({**event, **change}, None)["statusCode"] == 400


@pytest.mark.parametrize(
    "event",
    [{}, {"Records": [{"eventSource": "aws:sqs"}]}, {"requestContext": {"connectionId": "x", "eventType": "MESSAGE"}}],
    ids=["nothing", "a queue", "a web socket"],
)
def test_an_event_that_is_no_request_is_refused_by_name(event: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match="no HTTP request"):
        webhook_handler(make_receiver())(event, None)


@pytest.mark.parametrize("mount", [webhook_handler, verified_webhook])
def test_a_missing_secret_is_refused_at_mount(mount: Any) -> None:  # noqa: ANN401 - either of two
    with pytest.raises(ConfigurationError, match="has no signing secret"):
        mount(make_receiver(None))


def test_handlers_run_before_the_answer() -> None:
    receiver = WebhookReceiver(SECRET, clock=clock)
    seen: list[str] = []

    @receiver.on("*")
    async def note(event: Event) -> None:
        seen.append(event.id)

    answer = webhook_handler(receiver)(event_with("alb", payload()), None)
    assert (answer["statusDescription"], len(seen)) == ("200 OK", 1)
