"""Receivers in AWS Lambda: events in each shape that AWS documents, and the answer that each shape wants."""

from __future__ import annotations

import base64
import json
from functools import partial
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from conformance.cases import Answer, Wire
from conformance.harness import Record, joined, pairs_of
from conformance.stage import Stage
from roovet_webhooks.aws import webhook_handler

if TYPE_CHECKING:
    from collections.abc import Callable

    from conformance.harness import Harness, Pairs

EVENTS = Path(__file__).parent / "aws_events"
KINDS = ("function_url", "http_api_2", "http_api_1", "rest_api", "alb", "alb_multi")
MULTIPLE = frozenset({"http_api_1", "rest_api", "alb_multi"})


def event_of(  # noqa: PLR0913 - a request has this many parts
    kind: str, method: str, path: str, headers: Pairs, body: bytes, *, encoded: bool
) -> dict[str, Any]:
    """Return an event as the Lambda runtime hands it to a function.

    Args:
        kind: One of `KINDS`.
        method: The method.
        path: The path, with a query if need be.
        headers: The header lines.
        body: The body.
        encoded: Whether it comes in base64, as what AWS does not take for text.
    """
    event: dict[str, Any] = json.loads((EVENTS / f"{kind}.json").read_text("utf-8"))
    path, _, query = path.partition("?")
    if event.get("version") == "2.0":
        event["rawPath"], event["rawQueryString"] = path, query
        event["requestContext"]["http"].update(method=method, path=path)
    else:
        event["path"], event["httpMethod"] = path, method
    if kind in MULTIPLE:
        for name, value in headers:
            event["multiValueHeaders"].setdefault(name.decode(), []).append(value.decode("latin-1"))
    if "headers" in event:
        event["headers"].update((name.decode(), value.decode("latin-1")) for name, value in joined(headers).items())
    event["body"] = base64.b64encode(body).decode() if encoded else body.decode()
    event["isBase64Encoded"] = encoded
    # Nothing but JSON gets through.
    received: dict[str, Any] = json.loads(json.dumps(event))
    return received


def answer_of(kind: str, response: dict[str, Any]) -> Answer:
    """Check that an answer has the shape that AWS wants for this kind of event, and return it."""
    response = json.loads(json.dumps(response))
    status = response["statusCode"]
    expected = {"statusCode", "body", "isBase64Encoded", "multiValueHeaders" if kind in MULTIPLE else "headers"}
    if kind.startswith("alb"):
        expected.add("statusDescription")
        assert response["statusDescription"] == f"{status} {HTTPStatus(status).phrase}"
    assert set(response) == expected
    assert response["isBase64Encoded"] is False
    headers = response.get("headers") or {name: value for name, [value] in response["multiValueHeaders"].items()}
    return Answer(status, headers, response["body"].encode())


class Lambda:
    """Calls Lambda handlers, one for each path."""

    def __init__(self, kind: str, *, encoded: bool) -> None:
        self.stage = Stage()
        self.kind = kind
        self.encoded = encoded
        # One value a name, as WSGI servers have it.
        self.traits = frozenset({"lambda"} if kind in MULTIPLE else {"lambda", "wsgi"})
        self.handlers = {path: webhook_handler(receiver) for path, receiver in self.stage.receivers.items()}

    def record(self) -> Record:
        """Return what has happened so far."""
        return Record(list(self.stage.seen), list(self.stage.rejected))

    def send(self, wire: Wire) -> Answer | None:
        """Send a request as an event."""
        pairs = pairs_of(wire)
        names = [name.lower() for name, _ in pairs]
        if not wire.complete or {b"content-length", b"transfer-encoding"} <= set(names):
            pytest.skip("AWS hands over whole requests")
        if any(name.lower() == b"content-length" and not value.isdigit() for name, value in pairs):
            pytest.skip("AWS refuses this by itself")
        if self.kind == "alb" and len(set(names)) < len(names):
            pytest.skip("without multi-value headers, the load balancer passes on the last line of a name only")
        target, body = wire.target.decode(), b"".join(wire.chunks)
        # What is no text comes encoded, whatever the rest does.
        encoded = self.encoded or not _is_text(body)
        event = event_of(self.kind, wire.method.decode(), target, pairs, body, encoded=encoded)
        handler = self.handlers[target.partition("?")[0]]
        return answer_of(self.kind, dict(handler(event, None)))


def _is_text(body: bytes) -> bool:
    try:
        body.decode()
    except UnicodeDecodeError:
        return False
    return True


# Every other one with its body in base64.
LAMBDAS: dict[str, Callable[[], Harness]] = {
    f"aws {kind}": partial(Lambda, kind, encoded=encoded)
    for kind, encoded in zip(KINDS, (False, True) * 3, strict=True)
}
