"""The neutral request and response, and the vendor's shape of error."""

from __future__ import annotations

import json
from typing import cast

import pytest
from support import SECRET, headers_of, payload

from roovet_webhooks import RetryLater, WebhookRequest, error_response
from roovet_webhooks.errors import (
    ConfigurationError,
    InvalidEnvelope,
    MethodNotAllowed,
    SignatureMismatch,
    WebhookError,
)
from roovet_webhooks.messages import DROPPED, DUPLICATE, HANDLED, IGNORED, STORED, WebhookResponse, json_response


def header(response: WebhookResponse, name: bytes) -> bytes | None:
    values = [value for key, value in response.headers if key == name]
    assert len(values) <= 1
    return values[0] if values else None


def test_the_vendors_shape_of_error() -> None:
    response = error_response(InvalidEnvelope("the precise reason stays here", param="ts"))
    assert json.loads(response.body) == {
        "error": {"type": "invalid_payload", "code": "400", "message": "The body is not a valid event.", "param": "ts"}
    }
    assert response.status == 400
    assert header(response, b"content-type") == b"application/json"
    assert header(response, b"content-length") == b"%d" % len(response.body)


def test_a_missing_param_is_null() -> None:
    assert json.loads(error_response(SignatureMismatch("x")).body)["error"]["param"] is None


def test_allow() -> None:
    assert header(error_response(MethodNotAllowed("x", method="GET")), b"allow") == b"POST"
    assert header(error_response(SignatureMismatch("x")), b"allow") is None


@pytest.mark.parametrize(
    ("error", "seconds"),
    [
        (RetryLater(30), b"30"),
        (RetryLater(0), b"1"),
        (RetryLater(0.2), b"1"),
        (RetryLater(1.1), b"2"),
        (RetryLater(), None),
        (ConfigurationError(), b"60"),
        (WebhookError(), None),
    ],
    ids=["30", "zero", "less than one", "rounded up", "none", "class", "base"],
)
def test_retry_after(error: WebhookError, seconds: bytes | None) -> None:
    assert header(error_response(error), b"retry-after") == seconds


@pytest.mark.parametrize(
    ("response", "status"),
    [(STORED, "stored"), (DUPLICATE, "duplicate"), (HANDLED, "handled"), (IGNORED, "ignored"), (DROPPED, "dropped")],
    ids=["stored", "duplicate", "handled", "ignored", "dropped"],
)
def test_the_good_answers(response: WebhookResponse, status: str) -> None:
    assert (response.status, json.loads(response.body)) == (200, {"status": status})
    assert repr(response) == f"WebhookResponse(200, {response.body!r})"


def test_json_response_takes_headers() -> None:
    response = json_response(202, {"ä": 1}, [(b"x-a", b"1")])
    assert json.loads(response.body) == {"ä": 1}
    assert header(response, b"x-a") == b"1"


def test_a_request_shows_where_it_went_and_nothing_else() -> None:
    raw = payload(note="private")
    pairs = [(name.encode(), value.encode()) for name, value in headers_of(raw, secret=SECRET).items()]
    assert repr(WebhookRequest("POST", "/hooks", pairs, raw)) == "WebhookRequest('POST', '/hooks')"


def test_the_parts_of_a_request() -> None:
    bare = WebhookRequest("POST", "/", [])
    assert (bare.body, bare.path_params, bare.native, bare.needs_length) == (b"", {}, None, False)
    full = WebhookRequest("POST", "/", [], b"x", {"shop": 7}, native="theirs", needs_length=True)
    assert (full.body, full.path_params, full.native, full.needs_length) == (b"x", {"shop": 7}, "theirs", True)


def test_a_body_that_was_decoded_is_refused_at_once() -> None:
    with pytest.raises(TypeError, match="body must be the raw bytes that arrived, not str"):
        WebhookRequest("POST", "/", [], cast("bytes", "{}"))


def test_a_header_for_a_resolver() -> None:
    request = WebhookRequest("POST", "/", [(b"X-Shop", b"acme\xe9"), (b"x-twice", b"1"), (b"X-Twice", b"2")])
    assert request.header("x-shop") == "acmeé"
    assert request.header("X-SHOP") == "acmeé"
    assert request.header("x-twice") is None
    assert request.header("x-none") is None
    assert request.header("x-日本") is None
