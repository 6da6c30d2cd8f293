"""Whatever is passed to a public function, it raises what it documents, and says what was passed and what is right."""

from __future__ import annotations

import asyncio
import http.client
import io
from typing import TYPE_CHECKING, Any, cast

import pytest
from hypothesis import given, strategies as st
from support import NOW, PATH, SECRET, headers_of, payload, request_of

from roovet_webhooks import (
    ConfigurationError,
    Event,
    Keyring,
    Router,
    Signer,
    Verifier,
    WebhookError,
    WebhookReceiver,
    WebhookRequest,
    asgi as starlette_adapter,
    aws as aws_adapter,
    construct_event,
    django as django_adapter,
    flask as flask_adapter,
    sign,
    verify,
)
from roovet_webhooks.explain import explain

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.filterwarnings("ignore:the signing secret")  # some are short

RAW = payload()
HEADER = sign(RAW, SECRET, timestamp=NOW)

scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.just(10**400),
    st.floats(),
    st.text(max_size=30),
    st.binary(max_size=30),
    st.binary(max_size=30).map(bytearray),
    st.decimals(),
    st.datetimes(),
    st.sampled_from([object(), int, dict, Event, len, RAW, HEADER, HEADER.encode(), memoryview(RAW)]),
)
names = st.one_of(st.text(max_size=20), st.integers(), st.just("X-Roovet-Signature"))
anything = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.tuples(inner, inner),
        st.dictionaries(
            st.one_of(st.text(max_size=20), st.integers(), st.just("X-Roovet-Signature")), inner, max_size=2
        ),
    ),
    max_leaves=4,
)
raws = st.one_of(anything, st.just(RAW))
secrets = st.one_of(anything, st.just(SECRET))
maybe = st.one_of(anything, st.just(HEADER), st.just({"X-Roovet-Signature": HEADER}))


def raises_what_it_documents(call: Callable[[], object], *documented: type[Exception]) -> None:
    expected: tuple[type[Exception], ...] = (WebhookError, TypeError, *documented)
    error = next(iter(errors_of(call)), None)
    assert error is None or isinstance(error, expected), repr(error)
    # A sentence of ours, not of what failed somewhere inside.
    for words in ("unsupported operand", "object is not", "expected string or bytes"):
        assert words not in str(error)


def errors_of(call: Callable[[], object]) -> list[Exception]:
    try:
        call()
    except Exception as error:  # noqa: BLE001 - what is tested
        return [error]
    return []


@given(raw=raws, signature=maybe, secret=secrets, now=anything)
def test_verify(raw: Any, signature: Any, secret: Any, now: Any) -> None:  # noqa: ANN401 - anything
    raises_what_it_documents(lambda: verify(raw, signature, secret, now=now))
    raises_what_it_documents(lambda: verify(RAW, signature, SECRET, now=NOW, timestamp_header=raw))
    raises_what_it_documents(lambda: verify(RAW, HEADER, SECRET, now=now, tolerance=raw))


@given(raw=raws, headers=maybe, secret=secrets, wanted=anything)
def test_construct_event(raw: Any, headers: Any, secret: Any, wanted: Any) -> None:  # noqa: ANN401 - anything
    raises_what_it_documents(lambda: construct_event(raw, headers, secret, now=NOW))
    raises_what_it_documents(lambda: construct_event(RAW, HEADER, SECRET, now=NOW, type=wanted))


@given(raw=raws, headers=maybe, secret=secrets, now=anything)
def test_explain(raw: Any, headers: Any, secret: Any, now: Any) -> None:  # noqa: ANN401 - anything
    raises_what_it_documents(lambda: explain(raw, headers, secret, now=now))


@given(one=anything, other=anything)
def test_what_is_made_of_secrets(one: Any, other: Any) -> None:  # noqa: ANN401 - anything
    raises_what_it_documents(lambda: Verifier(one, tolerance=other))
    raises_what_it_documents(lambda: Signer(one))
    raises_what_it_documents(lambda: sign(one, SECRET, timestamp=other), ValueError)
    raises_what_it_documents(lambda: Verifier(SECRET).verify(RAW, one, now=NOW, timestamp_header=other))


@given(method=anything, headers=st.one_of(anything, st.just([(b"a", b"b")])), body=anything)
def test_a_request(method: Any, headers: Any, body: Any) -> None:  # noqa: ANN401 - anything
    try:
        request = WebhookRequest(method, PATH, headers, body)
    except TypeError:
        return
    assert WebhookReceiver(SECRET, router=routed()).receive(request).status in {400, 405, 411, 413, 415, 500}


def routed() -> Router:
    router = Router()
    router.on("*", name="all")(lambda _event: None)
    return router


@pytest.mark.parametrize(
    ("headers", "words"),
    [
        ([HEADER], "this is a list with a str in it"),
        ([("X-Roovet-Signature", HEADER, 1)], "this is a list with a tuple in it"),
        ({"X-Roovet-Signature": [HEADER]}, "must be str or bytes, not list; pass its one element"),
        ({"x-roovet-signature": 5}, "must be str or bytes, not int"),
        ({1: "x"}, "this is a dict with a name that is a int"),
        (5, r"construct_event\(raw, request.headers, secret\); this is a int"),
    ],
)
def test_headers_of_a_wrong_shape(headers: Any, words: str) -> None:  # noqa: ANN401 - anything
    with pytest.raises(TypeError, match=words):
        construct_event(RAW, headers, SECRET, now=NOW)


def test_headers_of_the_standard_library() -> None:
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers_of(RAW).items())
    headers = http.client.parse_headers(io.BytesIO(lines.encode() + b"\r\n"))
    assert construct_event(RAW, headers, SECRET, now=NOW).event == "order.created"  # type: ignore[arg-type]  # it has items
    assert construct_event(RAW, [[b"X-Roovet-Signature", HEADER.encode()]], SECRET, now=NOW).event == "order.created"  # type: ignore[list-item]  # as ASGI servers have them
    with pytest.raises(WebhookError, match="there is no X-Roovet-Signature header"):
        construct_event(RAW, {"X-Roovet-Signature": None}, SECRET, now=NOW)  # type: ignore[arg-type]  # as .get gives it


@pytest.mark.parametrize("now", ["1762782800", True, 10**400, [NOW]])
def test_a_time_that_is_none(now: Any) -> None:  # noqa: ANN401 - anything
    with pytest.raises(TypeError, match="now must be a number of Unix seconds, not this"):
        verify(RAW, HEADER, SECRET, now=now)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"headers": {"a": "b"}}, r"not dict; pass \[\(name.encode"),
        ({"headers": [("a", "b")]}, "pairs of str"),
        ({"headers": ["ab"]}, "list of str"),
        ({"headers": 5}, "not int"),
        ({"body": "{}"}, "decoding may have changed"),
        ({"body": bytearray(b"{}")}, r"not bytearray; pass bytes\(body\)"),
        ({"body": {"event": "a.b"}}, "not dict; pass the raw body"),
        ({"method": b"POST"}, "must be str, not bytes and str"),
    ],
)
def test_parts_of_a_request(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(TypeError, match=words):
        WebhookRequest(**{"method": "POST", "path": PATH, "headers": [], **changes})


def test_a_receiver_takes_requests_of_its_own() -> None:
    receiver = WebhookReceiver(SECRET, router=routed())
    words = "a receiver takes a WebhookRequest, not dict"
    for call in (receiver.receive, receiver.open):
        with pytest.raises(TypeError, match=words):
            call(cast("Any", {}))
    for later in (receiver.receive_async, receiver.open_async):
        with pytest.raises(TypeError, match=words):
            asyncio.run(later(cast("Any", {})))
    with receiver.override(clock=lambda: NOW):
        assert receiver.open(request_of(RAW)).event.event == "order.created"


def view(*_arguments: object) -> None: ...


MOUNTS: dict[str, Callable[[Any], object]] = {
    "WebhookApp(receiver)": starlette_adapter.WebhookApp,
    "WebhookMiddleware(app, receiver=receiver)": lambda value: starlette_adapter.WebhookMiddleware(
        view,  # type: ignore[arg-type]  # any application
        receiver=value,
    ),
    "Depends(verified_delivery(receiver))": starlette_adapter.verified_delivery,
    "@verified_webhook(receiver)": starlette_adapter.verified_webhook,
    "app.register_blueprint(webhook_blueprint(receiver))": flask_adapter.webhook_blueprint,
    "@verified_webhook(receiver) ": flask_adapter.verified_webhook,
    'path("webhooks/roovet", dispatch_view(receiver))': django_adapter.dispatch_view,
    "@verified_webhook(receiver)  ": django_adapter.verified_webhook,
    "handler = webhook_handler(receiver)": aws_adapter.webhook_handler,
    "@verified_webhook(receiver)   ": aws_adapter.verified_webhook,
}


@pytest.mark.parametrize("call", MOUNTS)
@pytest.mark.parametrize(
    ("value", "words"),
    [
        (Router(), "this one has a Router; a router knows no secret"),
        (view, "this one has a function"),
        (WebhookReceiver, "this one has the class WebhookReceiver; that is the class, make one"),
        (None, "this one has a NoneType"),
        (Keyring([SECRET]), "this one has a Keyring"),
    ],
    ids=["router", "function", "class", "none", "keyring"],
)
def test_an_adapter_without_a_receiver(call: str, value: object, words: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        MOUNTS[call](value)
    assert str(refused.value).startswith(f"write {call.strip()}, with a WebhookReceiver; ")
    assert words in str(refused.value)


def test_a_bare_guard_names_the_view() -> None:
    with pytest.raises(ConfigurationError, match="over view; it is missing the receiver in parentheses"):
        flask_adapter.verified_webhook(view)  # type: ignore[arg-type]  # what is tested
