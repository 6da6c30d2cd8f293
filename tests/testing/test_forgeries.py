"""The forgeries: every mount refuses every one of them for what it is, and an endpoint with a hole is found out."""

from __future__ import annotations

import asyncio
import json
import re
from typing import TYPE_CHECKING, Any

import pytest
from django.test import RequestFactory
from flask import Flask, request
from support.shops import KINDS, LIVE_SECRET, opened

from roovet_webhooks import (
    Keyring,
    Secret,
    VerificationError,
    WebhookReceiver,
    WebhookResponse,
    errors,
    sign,
    verify,
)
from roovet_webhooks.flask import webhook_blueprint
from roovet_webhooks.testing import FORGERIES, NOW, PATH, SECRET, Forgery, Roovet, SignedRequest, Tampered

if TYPE_CHECKING:
    from collections.abc import Callable

BY_NAME = {forgery.name: forgery for forgery in FORGERIES}
each_forgery = pytest.mark.parametrize("forgery", FORGERIES, ids=lambda forgery: forgery.name)


# What they are


def test_each_has_a_name_of_its_own_and_a_sentence() -> None:
    assert len(BY_NAME) == len(FORGERIES) >= 35
    for forgery in FORGERIES:
        assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", forgery.name)
        assert re.fullmatch(r"[A-Z].*\.", forgery.summary)
        assert repr(forgery) == f"Forgery({forgery.name!r})"


def test_the_codes_are_those_of_the_tree() -> None:
    known = {error.code for error in vars(errors).values() if isinstance(error, type) and hasattr(error, "code")}
    # The code by which a repeated header may be told apart.
    assert {code for forgery in FORGERIES for code in forgery.codes} <= known | {"duplicate_header"}


@each_forgery
def test_it_is_a_genuine_delivery_but_for_what_its_name_says(forgery: Forgery) -> None:
    forged = forgery.request("order.created", id="ord_1", amount_cents=1250)
    genuine = b'{"event":"order.created","id":"ord_1","ts":%d,"amount_cents":1250}' % (NOW - forgery.age)
    headers = {
        "Content-Type": "application/json",
        "X-Roovet-Signature": sign(genuine, SECRET, timestamp=NOW - forgery.age),
        "X-Roovet-Timestamp": str(NOW - forgery.age),
    }
    assert (forged.body, forged.headers) != (genuine, headers) or forgery.name in {"stale", "future"}
    assert forged.headers["Content-Type"] == "application/json"
    with pytest.raises(VerificationError) as refused:
        verify(
            forged.body,
            forged.headers.get("X-Roovet-Signature"),
            SECRET,
            now=NOW,
            timestamp_header=forged.headers["X-Roovet-Timestamp"],
        )
    assert refused.value.code in forgery.codes


def test_one_byte_is_what_is_altered() -> None:
    forged = BY_NAME["body-altered"].request("order.created", id="ord_1", amount_cents=1250)
    assert forged.body == b'{"event":"order.created","id":"ord_1","ts":1762782800,"amount_cents":1251}'
    assert BY_NAME["body-altered"].request({"a": "b"}).body == b'z"a":"b"}'


def test_it_is_forged_under_whatever_secret_and_time() -> None:
    keyring = Keyring([Secret("whsec_old_5f2b8c1e9a7d4036b1c2d3e4", name="old", expires=NOW - 10), SECRET])
    forged = BY_NAME["digest-truncated"].request(secret=keyring, timestamp=NOW, path="/hooks")
    digest = forged.headers["X-Roovet-Signature"].partition("v1=")[2]
    assert sign(forged.body, SECRET, timestamp=NOW).partition("v1=")[2].startswith(digest)
    assert forged.path == "/hooks"
    # A secret that is over can still be tried.
    over = Keyring([Secret(SECRET, expires=NOW - 10)])
    assert BY_NAME["stale"].request(secret=over, timestamp=NOW * 2).body


def test_raw_bytes_are_no_event_to_forge() -> None:
    with pytest.raises(TypeError, match="a forgery is made of an event"):
        BY_NAME["stale"].request(b"{}")


def test_what_forges_shows_no_key() -> None:
    shown: list[str] = []
    forgery = Forgery("x", "X.", frozenset(), lambda genuine: shown.append(repr(genuine)) or genuine.sent())  # type: ignore[func-returns-value]  # for its effect
    forgery.request()
    assert shown == [f"Genuine(POST {PATH})"]


# Endpoints that are as they should be


@pytest.mark.parametrize("kind", KINDS)
def test_forgeries_are_refused(kind: str, tampered: Tampered, roovet: Roovet) -> None:
    with opened(kind) as shop:
        roovet.use(shop.receiver)
        if shop.is_async:
            asyncio.run(tampered.assert_refused_async(shop.client, "order.created", amount_cents=1250))
        else:
            tampered.assert_refused(shop.client, "order.created", amount_cents=1250)
        assert len(roovet.record.rejected) == 1
        roovet.record.assert_nothing_handled()


@pytest.mark.parametrize("kind", ["receiver", "flask", "starlette async"])
def test_where_no_receiver_is_in_use_the_genuine_delivery_must_be_accepted(kind: str, tampered: Tampered) -> None:
    with opened(kind) as shop, shop.receiver.override(secret=SECRET, clock=lambda: NOW):
        if shop.is_async:
            asyncio.run(tampered.assert_refused_async(shop.client))
        else:
            tampered.assert_refused(shop.client)


def test_a_function_may_answer_with_a_status(roovet: Roovet) -> None:
    tampered = roovet.tampered(BY_NAME["body-altered"])
    answers = iter([401, 204])
    tampered.assert_refused(lambda _request: next(answers))


def test_a_receiver_that_accepts_truncated_digests_takes_one_forgery_and_no_other(roovet: Roovet) -> None:
    with opened("receiver", accept_truncated=True) as shop:
        roovet.use(shop.receiver)
        taken = []
        for forgery in FORGERIES:
            try:
                roovet.tampered(forgery).assert_refused(shop.client)
            except AssertionError:
                taken.append(forgery.name)
    assert taken == ["digest-truncated"]


# Endpoints that are not


def refused(error: str, tampered: Tampered, client: Any, **options: Any) -> None:  # noqa: ANN401 - of assert_refused
    with pytest.raises(AssertionError, match=error) as failed:
        tampered.assert_refused(client, **options)
    assert str(failed.value).startswith(f"the forgery {tampered.forgery.name!r} ")
    assert str(failed.value).endswith(tampered.forgery.summary)
    assert SECRET not in str(failed.value)


def test_an_endpoint_that_takes_anything_fails_with_every_forgery(tampered: Tampered) -> None:
    refused("got in: it was answered 200", tampered, lambda _request: 200)


def reserialising(app: Any) -> Any:  # noqa: ANN401 - WSGI
    """Return a middleware that parses a body and writes it again, as if that changed nothing."""

    def middleware(environ: dict[str, Any], start_response: Any) -> Any:  # noqa: ANN401 - WSGI
        from io import BytesIO  # noqa: PLC0415 - of this middleware

        body = environ["wsgi.input"].read()
        written = json.dumps(json.loads(body), separators=(",", ":")).encode()
        environ.update({"wsgi.input": BytesIO(written), "CONTENT_LENGTH": str(len(written))})
        return app(environ, start_response)

    return middleware


def test_a_middleware_that_writes_the_body_again_is_found_out(roovet: Roovet) -> None:
    with opened("flask") as shop:
        roovet.use(shop.receiver)
        application: Flask = shop.client.application
        application.wsgi_app = reserialising(application.wsgi_app)  # type: ignore[method-assign]  # Flask's documented way
        refused("got in", roovet.tampered(BY_NAME["body-reserialised"]), shop.client)
        roovet.tampered(BY_NAME["body-altered"]).assert_refused(shop.client)


def unguarded(verifying: Callable[[bytes, str], bool]) -> Any:  # noqa: ANN401 - a client
    """Return the client of an endpoint that verifies in a way of its own."""
    app = Flask("shop")

    @app.post(PATH)
    def seen() -> tuple[str, int]:
        holds = verifying(request.get_data(), request.headers.get("X-Roovet-Signature", ""))
        return "", 200 if holds else 400

    return app.test_client()


def _found(verifying: Callable[[bytes, str], bool], roovet: Roovet) -> set[str]:
    client, found = unguarded(verifying), set()
    for forgery in FORGERIES:
        try:
            roovet.tampered(forgery).assert_refused(client)
        except AssertionError as error:
            assert "got in" in str(error) or "was answered 500" in str(error)  # noqa: PT017 - which of many it is, is the point
            found.add(forgery.name)
    return found


def _home_made(raw: bytes, header: str) -> bool:
    """Verify as many do: fields by a split, no look at the time."""
    fields = dict(item.strip().split("=", 1) for item in header.split(","))
    return sign(raw, SECRET, timestamp=int(fields["t"])).partition("v1=")[2] == fields["v1"].lower()


def test_a_verification_that_many_write_is_found_out(roovet: Roovet) -> None:
    found = _found(_home_made, roovet)
    assert found >= {"stale", "future", "white-space", "digest-in-upper-case", "oversized-header", "not-ascii"}
    assert found >= {"no-signature", "garbage-signature", "no-timestamp", "another-scheme"}, "a 500 is no refusal"
    assert "body-altered" not in found


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (404, f"was answered 404: nothing takes a POST at {PATH}"),
        (405, "was answered 405: nothing takes a POST"),
        (500, "was answered 500, which refuses nothing"),
        (503, "was answered 503, which refuses nothing"),
        (307, "was answered 307, which refuses nothing"),
    ],
)
def test_what_is_no_refusal_proves_nothing(status: int, error: str, roovet: Roovet) -> None:
    refused(error, roovet.tampered(BY_NAME["stale"]), lambda _request: status)


def test_the_wrong_path_proves_nothing(roovet: Roovet) -> None:
    with opened("flask") as shop:
        roovet.use(shop.receiver)
        refused("nothing takes a POST at /hook,", roovet.tampered(BY_NAME["stale"]), shop.client, path="/hook")


def test_an_endpoint_that_refuses_everything_proves_nothing(roovet: Roovet) -> None:
    with opened("flask") as shop:
        refused("the genuine delivery was answered 400 as well", roovet.tampered(BY_NAME["wrong-secret"]), shop.client)


def test_a_refusal_by_another_receiver_proves_nothing(roovet: Roovet) -> None:
    with opened("flask") as shop:
        roovet.use(WebhookReceiver(LIVE_SECRET))
        refused("not by the receiver that is in use", roovet.tampered(BY_NAME["wrong-secret"]), shop.client)


def test_a_refusal_for_another_reason_proves_nothing(roovet: Roovet) -> None:
    with opened("flask") as shop:
        roovet.use(shop.receiver)
        stale: Callable[[SignedRequest], object] = lambda _request: roovet.post(shop.client, "order.created", age=301)  # noqa: E731 - shorter than a def
        error = "for another reason, .*: stale.* at /webhooks/roovet: signed 301 s ago.*; not signature_mismatch"
        refused(error, roovet.tampered(BY_NAME["body-altered"]), stale)


def test_a_refusal_after_the_fact_is_found_out(roovet: Roovet) -> None:
    receiver = WebhookReceiver(LIVE_SECRET)
    receiver.fallback(lambda _event: None)
    roovet.use(receiver)

    def answer(_request: SignedRequest) -> int:
        assert roovet.post(receiver, "order.created", id="ord_1").status == 200
        return 400

    refused(
        r"was refused, and all the same there is order.created ord_1: handled \(200\)",
        roovet.tampered(BY_NAME["stale"]),
        answer,
    )


def test_the_last_refusal_must_be_the_forgerys_own(roovet: Roovet) -> None:
    # What was refused before this forgery is not taken for it.
    with opened("receiver") as shop:
        roovet.use(shop.receiver)
        shop.receiver.receive(roovet.request("order.created", age=301).webhook_request())
        refused("not by the receiver that is in use", roovet.tampered(BY_NAME["stale"]), lambda _request: 400)


# Clients that cannot be asked


def test_an_async_client_has_a_method_of_its_own(roovet: Roovet) -> None:
    tampered = roovet.tampered(BY_NAME["stale"])
    with opened("starlette async") as shop, pytest.raises(TypeError, match=r"await tampered\.assert_refused_async"):
        tampered.assert_refused(shop.client)

    class Future:
        def __await__(self) -> Any:  # noqa: ANN401 - never awaited
            yield

    with pytest.raises(TypeError, match=r"await tampered\.assert_refused_async"):
        tampered.assert_refused(lambda _request: Future())


def test_a_request_is_no_response(roovet: Roovet) -> None:
    with pytest.raises(TypeError, match="WSGIRequest is no response: a RequestFactory makes requests"):
        roovet.tampered(BY_NAME["stale"]).assert_refused(RequestFactory())


def test_a_request_factory_works_through_a_function(roovet: Roovet) -> None:
    with opened("django guard") as shop:
        from django.urls import resolve  # noqa: PLC0415 - it reads the settings

        roovet.use(shop.receiver)
        view = resolve(PATH).func
        roovet.tampered(BY_NAME["body-altered"]).assert_refused(lambda request: view(request.post(RequestFactory())))


def test_any_response_with_a_status_will_do(roovet: Roovet) -> None:
    answers = iter([WebhookResponse(400, (), b""), WebhookResponse(200, (), b"")])
    roovet.tampered(BY_NAME["stale"]).assert_refused(lambda _request: next(answers))
    assert repr(roovet.tampered(BY_NAME["stale"])) == "Tampered('stale')"


def test_a_forgery_can_be_sent_by_hand(roovet: Roovet) -> None:
    app = Flask("shop")
    receiver = WebhookReceiver(LIVE_SECRET)
    receiver.fallback(lambda _event: None)
    app.register_blueprint(webhook_blueprint(receiver))
    roovet.use(receiver)
    forged = roovet.tampered(BY_NAME["wrong-secret"]).request("transfer.settled", id="trf_1")
    assert forged.post(app.test_client()).status_code == 400
    assert json.loads(forged.body) == {"event": "transfer.settled", "id": "trf_1", "ts": NOW}
