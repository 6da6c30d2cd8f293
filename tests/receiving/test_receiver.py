"""The life of a delivery: every row of the policy table, in a sync server and in an async one."""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
import pickle
import sys
import threading
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, ClassVar, cast

import pytest
from hypothesis import given, strategies as st
from support import NOW, OTHER_SECRET, SECRET, headers_of, payload, request_of

from roovet_webhooks import (
    BodyAlreadyRead,
    BodyTimeout,
    ConfigurationError,
    Delivery,
    Event,
    FutureTimestamp,
    InboxUnavailable,
    InvalidSecretError,
    Keyring,
    LeaseLost,
    MemoryInbox,
    Router,
    Secret,
    StaleTimestamp,
    Tenant,
    VerificationError,
    WebhookError,
    WebhookReceiver,
    WebhookRequest,
    WebhookResponse,
    sign,
)
from roovet_webhooks.errors import IncompleteBody, TenantLookupFailed
from roovet_webhooks.inbox.future import InboxFuture
from roovet_webhooks.receiving.bridge import SyncBridge, run
from roovet_webhooks.receiving.tenants import Tenants

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator, Sequence
    from pathlib import Path

    from roovet_webhooks.inbox.protocol import Claim, Stored
    from roovet_webhooks.inbox.states import Outcome
    from roovet_webhooks.messages import Body

    Answer = Callable[[WebhookReceiver, WebhookRequest], WebhookResponse]


def in_sync(receiver: WebhookReceiver, request: WebhookRequest) -> WebhookResponse:
    return receiver.receive(request)


def in_async(receiver: WebhookReceiver, request: WebhookRequest) -> WebhookResponse:
    return asyncio.run(receiver.receive_async(request))


both = pytest.mark.parametrize("answer", [in_sync, in_async])


class Shop:
    """A receiver whose handlers keep what they were given."""

    def __init__(self, secret: Any = SECRET, **options: Any) -> None:  # noqa: ANN401 - a receiver's own arguments
        self.handled: list[Delivery] = []
        self.rejected: list[WebhookError] = []
        self.receiver = WebhookReceiver(secret, **{"clock": lambda: float(NOW), **options})
        self.receiver.on("order.*", name="fulfil")(self.fulfil)
        self.receiver.on_rejected(self.reject)

    def fulfil(self, event: Event, delivery: Delivery) -> None:
        assert event is delivery.event
        self.handled.append(delivery)

    def reject(self, error: WebhookError, request: WebhookRequest) -> None:
        assert isinstance(request, WebhookRequest)
        self.rejected.append(error)


def content(response: WebhookResponse) -> dict[str, Any]:
    headers = dict(response.headers)
    assert len(headers) == len(response.headers)
    assert headers[b"content-type"] == b"application/json"
    assert headers[b"content-length"] == b"%d" % len(response.body)
    value: dict[str, Any] = json.loads(response.body)
    return value


def refusal(response: WebhookResponse) -> tuple[int, str, str | None]:
    """Return status, type and param of an answer, having checked its shape."""
    value = content(response)
    assert value.keys() == {"error"}
    assert value["error"].keys() == {"type", "code", "message", "param"}
    assert value["error"]["code"] == str(response.status)
    assert isinstance(value["error"]["message"], str)
    return response.status, value["error"]["type"], value["error"]["param"]


def retry_after(response: WebhookResponse) -> bytes | None:
    return dict(response.headers).get(b"retry-after")


def with_body(body: Body, raw: bytes, *extra: tuple[bytes, bytes], secret: str = SECRET) -> WebhookRequest:
    """Return a request whose signature is that of raw and whose body is something else."""
    pairs = [(name.encode(), value.encode()) for name, value in headers_of(raw, secret=secret).items()]
    return WebhookRequest("POST", "/webhooks/roovet", [*pairs, *extra], body)


async def trickle(raw: bytes, size: int = 1) -> AsyncIterator[bytes]:
    for begin in range(0, len(raw), size):
        await asyncio.sleep(0)
        yield raw[begin : begin + size]


def untouchable() -> Iterator[bytes]:
    message = "the body was read"
    raise AssertionError(message)
    yield b""


class TestAnswers:
    @both
    def test_handled(self, answer: Answer) -> None:
        shop = Shop()
        raw = payload(note="hello")
        response = answer(shop.receiver, request_of(raw))
        assert (response.status, content(response)) == (200, {"status": "handled"})
        (delivery,) = shop.handled
        assert delivery.raw == raw
        assert delivery.event.extra == {"note": "hello"}
        assert (delivery.secret_name, delivery.signed_at, delivery.received_at) == ("default", NOW, float(NOW))
        assert (delivery.endpoint, delivery.tenant, delivery.attempt) == ("default", "default", 1)

    @both
    def test_ignored_is_recorded(self, answer: Answer) -> None:
        shop = Shop()
        request = request_of(payload("wallet.closed"))
        assert content(answer(shop.receiver, request)) == {"status": "ignored"}
        assert content(answer(shop.receiver, request)) == {"status": "duplicate"}

    @both
    def test_a_duplicate_runs_nothing(self, answer: Answer) -> None:
        shop = Shop()
        raw = payload()
        assert content(answer(shop.receiver, request_of(raw))) == {"status": "handled"}
        again = request_of(raw, headers_of(raw, timestamp=NOW + 5))
        assert content(answer(shop.receiver, again)) == {"status": "duplicate"}
        assert len(shop.handled) == 1

    @both
    @pytest.mark.parametrize(
        "lengths", [("Content-Length",), ("Transfer-Encoding",), ("Content-Length", "Transfer-Encoding")]
    )
    @pytest.mark.parametrize(
        ("method", "kind"), [("GET", "application/json"), ("POST", "text/plain"), ("POST", "application/json")]
    )
    def test_a_refused_request_with_two_lengths_ends_the_connection(
        self, answer: Answer, method: str, kind: str, lengths: tuple[str, ...]
    ) -> None:
        values = {"Content-Length": "2", "Transfer-Encoding": "chunked"}
        headers = {"Content-Type": kind, **{name: values[name] for name in lengths}}
        response = answer(Shop().receiver, request_of(b"{}", headers, method=method))
        assert response.status >= 400
        assert ((b"connection", b"close") in response.headers) == (len(lengths) == 2)

    @both
    @pytest.mark.parametrize(
        ("change", "expected", "code"),
        [
            ({"method": "GET"}, (405, "method_not_allowed", None), "method_not_allowed"),
            ({"drop": "Content-Type"}, (415, "unsupported_media_type", None), "unsupported_media_type"),
            ({"set": {"Content-Type": "text/plain"}}, (415, "unsupported_media_type", None), "unsupported_media_type"),
            ({"set": {"Content-Encoding": "gzip"}}, (415, "unsupported_media_type", None), "unsupported_media_type"),
            ({"set": {"Content-Length": "1048577"}}, (413, "payload_too_large", None), "payload_too_large"),
            ({"set": {"Content-Length": "x"}}, (411, "length_required", None), "length_required"),
            ({"drop": "X-Roovet-Signature"}, (400, "verification_failed", None), "missing_signature"),
            ({"set": {"X-Roovet-Signature": "x"}}, (400, "verification_failed", None), "malformed_signature"),
            ({"clock": NOW + 301}, (400, "verification_failed", None), "stale"),
            ({"clock": NOW - 301}, (400, "verification_failed", None), "future"),
            ({"set": {"X-Roovet-Timestamp": "1"}}, (400, "verification_failed", None), "timestamp_header_mismatch"),
        ],
        ids=str,
    )
    def test_refused_before_the_body_is_read(
        self, answer: Answer, change: dict[str, Any], expected: tuple[int, str, str | None], code: str
    ) -> None:
        shop = Shop(clock=lambda: float(change.get("clock", NOW)))
        headers = {**headers_of(b"{}"), **change.get("set", {})}
        headers.pop(change.get("drop", ""), None)
        request = request_of(b"", headers, method=change.get("method", "POST"))
        request.body = untouchable()
        response = answer(shop.receiver, request)
        assert refusal(response) == expected
        assert dict(response.headers).get(b"allow") == (b"POST" if expected[0] == 405 else None)
        assert [error.code for error in shop.rejected] == [code]
        assert not shop.handled

    @both
    @pytest.mark.parametrize(
        ("raw", "param"),
        [
            (b"", None),
            (b"not json", None),
            (b"[]", None),
            (b'{"id":"a","ts":1}', "event"),
            (b'{"event":"a","ts":1}', "id"),
            (b'{"event":"a","id":"b"}', "ts"),
            (b'{"event":"a","id":"b","ts":-1}', "ts"),
            (b'{"event":"a","id":"b","ts":253402300800}', "ts"),
        ],
    )
    def test_signed_but_no_event(self, answer: Answer, raw: bytes, param: str | None) -> None:
        shop = Shop()
        assert refusal(answer(shop.receiver, request_of(raw))) == (400, "invalid_payload", param)
        assert not shop.handled

    @both
    def test_after_the_envelope_nothing_is_the_senders_fault(self, answer: Answer) -> None:
        class Strict(Event, event="order.created"):
            amount: int

        shop = Shop()
        shop.receiver.on(Strict, name="strict")(lambda _event: None)
        response = answer(shop.receiver, request_of(payload(amount="twelve")))
        assert refusal(response) == (500, "handler_failed", None)
        assert len(shop.handled) == 1

    @both
    def test_every_verification_failure_gets_the_same_answer(self, answer: Answer) -> None:
        raw = payload()
        good = headers_of(raw)
        signature = good["X-Roovet-Signature"]
        cases: list[tuple[bytes, dict[str, str]]] = [
            (raw, {"Content-Type": "application/json"}),
            (raw, {**good, "X-Roovet-Signature": ""}),
            (raw, {**good, "X-Roovet-Signature": "x=1"}),
            (raw, {**good, "X-Roovet-Signature": signature[:-32]}),
            (raw, headers_of(raw, secret=OTHER_SECRET)),
            (raw, headers_of(raw, timestamp=NOW - 301)),
            (raw, headers_of(raw, timestamp=NOW + 301)),
            (raw, {**good, "X-Roovet-Timestamp": "1"}),
            (raw + b" ", good),
            (b"", good),
        ]
        shop = Shop()
        unknown = Shop(lambda _request: None)
        answers = [answer(shop.receiver, request_of(body, headers)) for body, headers in cases]
        answers.append(answer(unknown.receiver, request_of(raw)))
        told = {(response.status, tuple(response.headers), response.body) for response in answers}
        assert len(told) == 1
        codes = {error.code for error in shop.rejected + unknown.rejected}
        assert codes == {
            "missing_signature",
            "malformed_signature",
            "signature_mismatch",
            "stale",
            "future",
            "timestamp_header_mismatch",
            "unknown_tenant",
        }
        digest = signature.split("v1=")[1]
        for error in shop.rejected + unknown.rejected:
            assert isinstance(error, VerificationError)
            shown = f"{error} {error!r} {dict(error.evidence)} {pickle.dumps(error)!r}"
            assert SECRET not in shown
            assert digest not in shown

    @both
    def test_accept_truncated(self, answer: Answer) -> None:
        raw = payload()
        cut = {**headers_of(raw), "X-Roovet-Signature": sign(raw, SECRET, timestamp=NOW)[:-32]}
        assert answer(Shop().receiver, request_of(raw, cut)).status == 400
        assert answer(Shop(accept_truncated=True).receiver, request_of(raw, cut)).status == 200

    @both
    @pytest.mark.parametrize("skew", [-60, 60])
    def test_the_tolerance_reaches_both_ways(self, answer: Answer, skew: int) -> None:
        shop = Shop(tolerance=60)
        raw = payload()
        assert answer(shop.receiver, request_of(raw, headers_of(raw, timestamp=NOW + skew))).status == 200
        beyond = headers_of(raw, timestamp=NOW + skew + (1 if skew > 0 else -1))
        assert answer(shop.receiver, request_of(raw, beyond)).status == 400

    @both
    def test_a_fault_of_ours_shows_a_stranger_nothing(self, answer: Answer, caplog: pytest.LogCaptureFixture) -> None:
        def broken() -> float:
            message = "inside"
            raise RuntimeError(message)

        response = answer(Shop(clock=broken).receiver, request_of())
        assert refusal(response) == (500, "internal_error", None)
        assert b"inside" not in response.body
        assert "receiver.error" in caplog.text


class TestBodies:
    @both
    @pytest.mark.parametrize("size", [1, 7, 10_000])
    def test_sync_chunks(self, answer: Answer, size: int) -> None:
        shop = Shop()
        raw = payload(note="x" * 50)
        chunks = (raw[begin : begin + size] for begin in range(0, len(raw), size))
        assert answer(shop.receiver, with_body(chunks, raw)).status == 200
        assert shop.handled[0].raw == raw

    @pytest.mark.parametrize("size", [1, 7, 10_000])
    def test_async_chunks(self, size: int) -> None:
        shop = Shop()
        raw = payload(note="x" * 50)
        assert in_async(shop.receiver, with_body(trickle(raw, size), raw)).status == 200
        assert shop.handled[0].raw == raw

    def test_async_chunks_that_have_all_arrived(self) -> None:
        async def arrived(raw: bytes) -> AsyncIterator[bytes]:
            yield raw[:9]
            yield raw[9:]

        shop = Shop()
        raw = payload()
        assert in_async(shop.receiver, with_body(arrived(raw), raw)).status == 200
        assert shop.handled[0].raw == raw

    @both
    def test_empty_chunks_change_nothing(self, answer: Answer) -> None:
        shop = Shop()
        raw = payload()
        assert answer(shop.receiver, with_body([b"", raw[:5], b"", raw[5:9], raw[9:], b""], raw)).status == 200
        assert shop.handled[0].raw == raw

    def test_an_async_body_in_a_sync_server_is_our_fault(self, caplog: pytest.LogCaptureFixture) -> None:
        raw = payload()
        assert in_sync(Shop().receiver, with_body(trickle(raw), raw)).status == 500
        assert "use receive_async" in caplog.text

    @both
    def test_the_cap_counts_what_comes(self, answer: Answer) -> None:
        raw = payload(note="x" * 100)
        for cap, status in ((len(raw), 200), (len(raw) - 1, 413)):
            for body in (raw, [raw[:50], raw[50:]], [raw[:50], raw[50:-1], raw[-1:]]):
                shop = Shop(max_body_bytes=cap)
                assert answer(shop.receiver, with_body(body, raw)).status == status
                assert len(shop.handled) == (status == 200)

    def test_the_cap_counts_an_async_body(self) -> None:
        shop = Shop(max_body_bytes=20)
        raw = payload()
        assert refusal(in_async(shop.receiver, with_body(trickle(raw), raw))) == (413, "payload_too_large", None)

    @both
    def test_a_body_over_the_cap_costs_no_memory_beyond_it(self, answer: Answer) -> None:
        cap = 1_048_576
        shop = Shop(max_body_bytes=cap)
        in_sync(shop.receiver, request_of())
        endless = itertools.repeat(b"x" * 65_536)
        tracemalloc.start()
        try:
            response = answer(shop.receiver, with_body(endless, b"{}"))
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert response.status == 413
        assert peak < 3 * cap

    def test_a_body_of_single_bytes_costs_its_own_size(self) -> None:
        raw = payload(note="x" * 200_000)
        # Reading it under tracemalloc takes its time, which is not what is tested.
        shop = Shop(body_timeout=3600)
        in_sync(shop.receiver, request_of())
        pieces = (raw[place : place + 1] for place in range(len(raw)))
        tracemalloc.start()
        try:
            response = in_sync(shop.receiver, with_body(pieces, raw))
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert response.status == 200
        assert peak < 4 * len(raw)

    @both
    def test_consumed_by_someone_else_is_said_so(self, answer: Answer) -> None:
        shop = Shop()
        raw = payload()
        response = answer(shop.receiver, with_body(b"", raw, (b"content-length", b"%d" % len(raw))))
        assert refusal(response) == (500, "internal_error", None)
        assert isinstance(shop.rejected[0], BodyAlreadyRead)
        assert "has consumed the body" in str(shop.rejected[0])

    @pytest.mark.parametrize(
        ("version", "header", "expected"),
        [
            *(("1.0", b"x-other", BodyAlreadyRead), ("1.1", b"x-other", BodyAlreadyRead)),
            *(("2", b"x-other", IncompleteBody), ("3", b"x-other", IncompleteBody)),
            *(("1.1", b"upgrade", IncompleteBody), ("1.1", b"Upgrade", IncompleteBody)),
        ],
    )
    def test_nobody_is_blamed_where_a_stranger_can_declare_what_he_does_not_send(
        self, version: str, header: bytes, expected: type[Exception]
    ) -> None:
        shop = Shop()
        raw = payload()
        request = with_body(b"", raw, (b"content-length", b"%d" % len(raw)), (header, b"h2c"))
        request.http_version = version
        shop.receiver.receive(request)
        assert [type(error) for error in shop.rejected] == [expected]

    @both
    def test_a_declared_length_that_is_true(self, answer: Answer) -> None:
        raw = payload()
        declared = (b"content-length", b"%d" % len(raw))
        for body in (raw, [raw[:9], raw[9:]]):
            assert answer(Shop().receiver, with_body(body, raw, declared)).status == 200

    @both
    def test_cut_short(self, answer: Answer) -> None:
        shop = Shop()
        raw = payload()
        response = answer(shop.receiver, with_body([raw[:10]], raw, (b"content-length", b"%d" % len(raw))))
        assert refusal(response) == (400, "invalid_request", None)
        assert dict(shop.rejected[0].evidence) == {"received": 10, "declared": len(raw)}

    def test_the_clock_is_looked_at_between_reads(self, monkeypatch: pytest.MonkeyPatch) -> None:
        now = itertools.count(step=6)
        monkeypatch.setattr("roovet_webhooks.receiving.bridge.time", SimpleNamespace(monotonic=lambda: next(now)))
        shop = Shop(body_timeout=10)
        raw = payload()
        response = in_sync(shop.receiver, with_body(itertools.chain([raw[:5], raw[5:9]], untouchable()), raw))
        assert refusal(response) == (408, "timeout", None)
        assert cast("BodyTimeout", shop.rejected[0]).timeout == 10

    def test_an_async_body_that_stalls(self) -> None:
        async def stalls() -> AsyncIterator[bytes]:
            yield b"{"
            await asyncio.Event().wait()

        # However slow the machine: this body never ends, so that only the timeout can end the request.
        shop = Shop(body_timeout=0.01)
        assert refusal(in_async(shop.receiver, with_body(stalls(), b"{}"))) == (408, "timeout", None)
        assert isinstance(shop.rejected[0], BodyTimeout)

    def test_a_failure_of_the_body_is_not_taken_for_a_timeout(self) -> None:
        async def breaks() -> AsyncIterator[bytes]:
            yield b"{"
            await asyncio.sleep(0)
            message = "connection lost"
            raise ConnectionError(message)

        assert in_async(Shop().receiver, with_body(breaks(), b"{}")).status == 500


class TestTotality:
    methods = st.one_of(st.just("POST"), st.just("POST"), st.sampled_from(["GET", "post", ""]), st.text(max_size=10))
    raws = st.one_of(
        st.binary(max_size=200),
        st.builds(lambda junk: payload()[:20] + junk + payload()[20:], st.binary(max_size=5)),
        st.builds(payload),
    )
    names = st.sampled_from(
        [b"content-type", b"content-length", b"content-encoding", b"x-roovet-signature", b"x-roovet-timestamp"]
    )

    @staticmethod
    @st.composite
    def requests(draw: st.DrawFn) -> WebhookRequest:
        raw = draw(TestTotality.raws)
        pairs: list[tuple[bytes, bytes]] = []
        if draw(st.booleans()):
            secret = draw(st.sampled_from([SECRET, SECRET, OTHER_SECRET]))
            headers = headers_of(raw, secret=secret, timestamp=NOW + draw(st.sampled_from([0, 0, -301, 301])))
            pairs = [(name.encode(), value.encode()) for name, value in headers.items()]
        extra = st.tuples(st.one_of(TestTotality.names, st.binary(max_size=8)), st.binary(max_size=40))
        pairs += draw(st.lists(extra, max_size=2))
        body = draw(st.sampled_from([raw, [raw], [raw[:3], raw[3:]], []]))
        return WebhookRequest(draw(TestTotality.methods), draw(st.text(max_size=20)), pairs, cast("Body", body))

    def check(self, shop: Shop, response: WebhookResponse) -> None:
        if response.status == 200:
            assert content(response)["status"] in {"handled", "ignored", "duplicate"}
            return
        status, kind, param = refusal(response)
        if status == 500:
            # The one 500: a length was declared, and somebody else has read the body.
            assert isinstance(shop.rejected[-1], BodyAlreadyRead)
        else:
            assert 400 <= status < 500
        assert kind
        assert param in {None, "event", "id", "ts"}
        assert SECRET.encode() not in response.body

    @given(sent=requests())
    def test_in_a_sync_server(self, sent: WebhookRequest) -> None:
        shop = Shop()
        self.check(shop, shop.receiver.receive(sent))

    @given(sent=requests())
    def test_in_an_async_server(self, sent: WebhookRequest) -> None:
        shop = Shop()
        self.check(shop, asyncio.run(shop.receiver.receive_async(sent)))

    @given(sent=requests())
    def test_open_gives_a_delivery_or_an_error_of_the_tree(self, sent: WebhookRequest) -> None:
        shop = Shop()
        try:
            delivery = shop.receiver.open(sent)
        except WebhookError as error:
            assert shop.rejected[-1] is error  # noqa: PT017 - an error is one of two good ends
        else:
            assert isinstance(delivery, Delivery)


class TestReadiness:
    @both
    def test_without_a_handler(self, answer: Answer) -> None:
        receiver = WebhookReceiver(SECRET, endpoint="shop")
        response = answer(receiver, request_of())
        assert refusal(response) == (503, "not_ready", None)
        assert retry_after(response) == b"60"
        with pytest.raises(ConfigurationError, match="the receiver 'shop' has no handler"):
            receiver.check()

    @both
    def test_without_a_secret(self, answer: Answer) -> None:
        shop = Shop(None)
        response = answer(shop.receiver, request_of())
        assert refusal(response) == (503, "not_ready", None)
        assert retry_after(response) == b"60"
        for check in (shop.receiver.check, shop.receiver.require_secret):
            with pytest.raises(ConfigurationError, match=r"has no signing secret: pass .* ROOVET_WEBHOOK_SECRET"):
                check()

    @both
    def test_handlers_that_contradict_each_other_later(self, answer: Answer) -> None:
        shop = Shop()
        router = Router()
        shop.receiver.include(router)
        router.fallback(lambda _event: None)
        shop.receiver.fallback(lambda _event: None)
        assert refusal(answer(shop.receiver, request_of())) == (503, "not_ready", None)
        assert [error.code for error in shop.rejected] == ["configuration_error"]

    def test_a_ready_one(self) -> None:
        shop = Shop()
        shop.receiver.check()
        shop.receiver.receive(request_of())
        shop.receiver.check()
        Shop(lambda _request: None).receiver.check()

    def test_modules_named_are_imported(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        router = Router()
        (tmp_path / "shop_hooks_for_test.py").write_text(
            "from shop_router_for_test import router\n@router.on('order.created')\ndef fulfil(event): ...\n"
        )
        monkeypatch.syspath_prepend(tmp_path)
        monkeypatch.setitem(sys.modules, "shop_router_for_test", cast("Any", SimpleNamespace(router=router)))
        for handlers in (["shop_hooks_for_test"], "shop_hooks_for_test"):
            receiver = WebhookReceiver(SECRET, router=router, handlers=handlers, clock=lambda: NOW)
            receiver.check()
            assert receiver.receive(request_of()).status == 200
            monkeypatch.delitem(sys.modules, "shop_hooks_for_test")
            router = Router()
            monkeypatch.setitem(sys.modules, "shop_router_for_test", cast("Any", SimpleNamespace(router=router)))

    @pytest.mark.parametrize(
        ("options", "fault"),
        [
            ({"endpoint": "My Shop"}, "endpoint must be a name of a-z"),
            ({"endpoint": ""}, "endpoint must be"),
            ({"endpoint": "shop\n"}, "endpoint must be"),
            ({"max_body_bytes": 0}, "max_body_bytes must be"),
            ({"body_timeout": 0}, "body_timeout must be"),
            ({"body_timeout": float("nan")}, "body_timeout must be"),
            ({"tolerance": -1}, "tolerance must be"),
            ({"tolerance": float("inf")}, "tolerance must be"),
            ({"inbox": 5}, "must be a database URL such as 'sqlite:///roovet.db'.*, not int"),
            ({"inbox": "roovet.db"}, "must be a database URL"),
            ({"inbox": "sqlite://"}, "needs a file"),
            ({"ordering": "resource"}, "needs a durable inbox"),
            ({"ordering": "ts"}, "ordering must be None or 'resource', not 'ts'"),
            ({"on_dead": "wait"}, "on_dead must be 'skip' or 'block', not 'wait'"),
            ({"on_dead": "block"}, "on_dead='block' holds back nothing without ordering='resource'"),
            ({"retry": 5}, "retry must be a RetryPolicy, not 5"),
            ({"engine": "celery"}, r"engine must be one, such as CeleryEngine\(app\), not str"),
            ({"endpoint": 5}, "endpoint must be a name of a-z, 0-9, _ and -, not 5"),
            ({"max_body_bytes": "1"}, "max_body_bytes must be a number of bytes above 0, not '1'"),
            ({"body_timeout": "1"}, "body_timeout must be a number of seconds above 0, not '1'"),
            ({"acknowledge": "later"}, "acknowledge must be 'stored' or 'handled'"),
            ({"acknowledge": "stored"}, "would answer before the handlers have run"),
            ({"endpoint": "A", "max_body_bytes": -1}, "endpoint must be .*; max_body_bytes must be"),
        ],
        ids=str,
    )
    def test_an_option_that_cannot_be(self, options: dict[str, Any], fault: str) -> None:
        with pytest.raises(ConfigurationError, match=fault):
            WebhookReceiver(SECRET, **options)

    def test_acknowledge_handled_is_what_memory_does(self) -> None:
        assert Shop(acknowledge="handled").receiver.receive(request_of()).status == 200

    @pytest.mark.parametrize(
        "secret",
        ["", "short", "rvpk_live_0123456789abcdef0123", [], b"", 5],
        ids=["empty", "short", "API key", "none", "no bytes", "number"],
    )
    def test_a_bad_secret_fails_at_construction(self, secret: object) -> None:
        with pytest.raises(ConfigurationError):
            WebhookReceiver(cast("str", secret))

    def test_it_shows_its_endpoint(self) -> None:
        assert repr(WebhookReceiver(SECRET, endpoint="shop")) == "WebhookReceiver(endpoint='shop')"

    def test_its_endpoint_is_part_of_every_delivery(self) -> None:
        shop = Shop(endpoint="shop-2")
        shop.receiver.receive(request_of())
        assert shop.handled[0].endpoint == "shop-2"


class TestSecrets:
    def test_of_the_environment(self, monkeypatch: pytest.MonkeyPatch) -> None:
        shop = Shop(None)
        monkeypatch.setenv("ROOVET_WEBHOOK_SECRET", SECRET)
        shop.receiver.check()
        assert shop.receiver.receive(request_of()).status == 200
        assert shop.handled[0].secret_name == "default"

    @pytest.mark.parametrize(
        ("value", "name"),
        [
            (f"{OTHER_SECRET},{SECRET}", "secret-2"),
            (f"{SECRET},{OTHER_SECRET}", "secret-1"),
            (f",{SECRET},,{OTHER_SECRET},", "secret-1"),
            (f"{SECRET},", "default"),
            (f",{SECRET}", "default"),
        ],
        ids=["second", "first", "gaps", "comma after", "comma before"],
    )
    def test_commas_separate_several(self, monkeypatch: pytest.MonkeyPatch, value: str, name: str) -> None:
        monkeypatch.setenv("ROOVET_WEBHOOK_SECRET", value)
        shop = Shop(None)
        assert shop.receiver.receive(request_of()).status == 200
        assert shop.handled[0].secret_name == name

    @pytest.mark.parametrize(
        "value",
        [",", ", ", f"{SECRET}, {OTHER_SECRET}", "short", f"'{SECRET}'"],
        ids=["comma", "comma and space", "space after a comma", "short", "quoted"],
    )
    def test_a_bad_one_in_the_environment(self, monkeypatch: pytest.MonkeyPatch, value: str) -> None:
        monkeypatch.setenv("ROOVET_WEBHOOK_SECRET", value)
        with pytest.raises(InvalidSecretError):
            Shop(None).receiver.check()

    def test_an_empty_variable_is_an_absent_one(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("ROOVET_WEBHOOK_SECRET", "")
        with pytest.raises(ConfigurationError, match="has no signing secret"):
            Shop(None).receiver.require_secret()

    @pytest.mark.parametrize(
        ("setting", "accepted"),
        [(SECRET, SECRET), (None, OTHER_SECRET), ("", OTHER_SECRET)],
        ids=["set", "absent", "empty"],
    )
    def test_a_frameworks_setting_comes_before_the_environment(
        self, monkeypatch: pytest.MonkeyPatch, setting: str | None, accepted: str
    ) -> None:
        monkeypatch.setenv("ROOVET_WEBHOOK_SECRET", OTHER_SECRET)
        shop = Shop(None)
        shop.receiver.default_secret(lambda: setting)
        raw = payload()
        assert shop.receiver.receive(request_of(raw, headers_of(raw, secret=accepted))).status == 200

    def test_a_secret_that_was_given_comes_first(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("ROOVET_WEBHOOK_SECRET", OTHER_SECRET)
        shop = Shop(SECRET)
        shop.receiver.default_secret(lambda: OTHER_SECRET)
        assert shop.receiver.receive(request_of()).status == 200

    @pytest.mark.parametrize(
        "secret",
        [SECRET.encode(), Secret(SECRET), [OTHER_SECRET, SECRET], (SECRET,), Keyring([SECRET])],
        ids=lambda secret: type(secret).__name__,
    )
    def test_in_every_form(self, secret: object) -> None:
        assert Shop(secret).receiver.receive(request_of()).status == 200

    def test_a_rotation_goes_by_the_receivers_clock(self) -> None:
        old = Secret(SECRET, name="old", expires=NOW + 10)
        clock = SimpleNamespace(now=NOW + 9)
        shop = Shop([Secret(OTHER_SECRET, name="new"), old], clock=lambda: clock.now)
        assert shop.receiver.receive(request_of()).status == 200
        assert shop.handled[0].secret_name == "old"
        clock.now += 1
        assert shop.receiver.receive(request_of()).status == 400


def tenant_of(request: WebhookRequest) -> Tenant | None:
    secrets = {"acme": SECRET, "globex": OTHER_SECRET}
    name = str(request.path_params.get("shop", request.header("x-shop") or ""))
    return Tenant(name, secrets[name]) if name in secrets else None


async def tenant_of_async(request: WebhookRequest) -> Tenant | None:
    await asyncio.sleep(0)
    return tenant_of(request)


class TestTenants:
    @both
    @pytest.mark.parametrize("resolver", [tenant_of, tenant_of_async])
    def test_resolved_by_the_request(self, answer: Answer, resolver: object) -> None:
        shop = Shop(resolver)
        shop.receiver.check()
        raw = payload()
        for name, secret in (("acme", SECRET), ("globex", OTHER_SECRET)):
            request = with_body(raw, raw, (b"x-shop", name.encode()), secret=secret)
            # The same bytes from two tenants are two deliveries.
            assert content(answer(shop.receiver, request)) == {"status": "handled"}
        assert [delivery.tenant for delivery in shop.handled] == ["acme", "globex"]
        assert len({delivery.id for delivery in shop.handled}) == 2
        # Nobody signs for another.
        assert answer(shop.receiver, with_body(raw, raw, (b"x-shop", b"globex"), secret=SECRET)).status == 400
        assert answer(shop.receiver, with_body(raw, raw, (b"x-shop", b"initech"))).status == 400
        assert [error.code for error in shop.rejected] == ["signature_mismatch", "unknown_tenant"]

    @both
    @pytest.mark.parametrize("kind", ["sync", "async", "Tenant of a wrong type"])
    def test_a_lookup_that_fails_is_asked_again(self, answer: Answer, kind: str) -> None:
        def broken(_request: WebhookRequest) -> Tenant:
            message = "database at 10.0.0.7 is down"
            raise OSError(message)

        async def broken_async(request: WebhookRequest) -> Tenant:
            return broken(request)

        wrong = lambda _request: SECRET  # noqa: E731 - one of three
        shop = Shop({"sync": broken, "async": broken_async}.get(kind, wrong))
        request = request_of()
        request.body = untouchable()
        response = answer(shop.receiver, request)
        assert refusal(response) == (503, "unavailable", None)
        assert retry_after(response) == b"10"
        assert b"10.0.0.7" not in response.body
        assert isinstance(shop.rejected[0], TenantLookupFailed)
        # What the operator reads: what it was that failed, where anything was raised.
        assert isinstance(shop.rejected[0].__cause__, OSError if kind in {"sync", "async"} else type(None))

    def test_another_secret_changes_nothing_else(self) -> None:
        tenants = Tenants(None, endpoint="shop", tolerance=7, accept_truncated=True)
        tenants.ask_first(lambda: Secret(SECRET, name="from the settings"))
        for same, expected in (
            (tenants.with_secret(None), "from the settings"),
            (tenants.with_secret(SECRET), "default"),
        ):
            same.require()
            name, verifier = run(same.resolve(request_of(), SyncBridge()))
            assert (name, verifier.tolerance, verifier.accept_truncated) == ("default", 7, True)
            assert [secret.name for secret in verifier.keyring] == [expected]
        with pytest.raises(ConfigurationError, match="the receiver 'shop' has no signing secret"):
            Tenants(None, endpoint="shop", tolerance=7, accept_truncated=True).with_secret(None).require()

    def test_the_resolver_runs_after_the_headers_are_checked(self) -> None:
        def never(_request: WebhookRequest) -> Tenant | None:
            message = "the resolver ran"
            raise AssertionError(message)

        shop = Shop(never)
        raw = payload()
        stale = headers_of(raw, timestamp=1)
        assert shop.receiver.receive(request_of(raw, stale)).status == 400
        assert isinstance(shop.rejected[0], StaleTimestamp)

    def test_an_answer_is_not_cached(self) -> None:
        tenants = iter([Tenant("a", SECRET), Tenant("b", OTHER_SECRET)])
        shop = Shop(lambda _request: next(tenants))
        raw = payload()
        assert shop.receiver.receive(request_of(raw)).status == 200
        assert shop.receiver.receive(request_of(raw)).status == 400


class TestRetries:
    @both
    def test_a_retry_runs_only_what_has_not_succeeded(self, answer: Answer) -> None:
        shop = Shop()
        attempts: list[int] = []

        def flaky(event: Event, delivery: Delivery) -> None:
            attempts.append(delivery.attempt)
            if len(attempts) < 3:
                raise OSError(event.id)

        shop.receiver.on("*", name="flaky")(flaky)
        request = request_of()
        statuses = [answer(shop.receiver, request).status for _ in range(4)]
        assert statuses == [500, 500, 200, 200]
        assert attempts == [1, 2, 3]
        assert len(shop.handled) == 1

    def test_in_flight_in_a_second_thread(self) -> None:
        begun, go = threading.Event(), threading.Event()
        shop = Shop()

        def slow(_event: Event) -> None:
            begun.set()
            assert go.wait(30)

        shop.receiver.on("*", name="slow")(slow)
        request = request_of()
        with ThreadPoolExecutor(1) as pool:
            first = pool.submit(shop.receiver.receive, request)
            try:
                assert begun.wait(30)
                second = shop.receiver.receive(request)
            finally:
                go.set()
            assert content(first.result(30)) == {"status": "handled"}
        assert refusal(second) == (503, "in_flight", None)
        assert retry_after(second) == b"2"
        assert content(shop.receiver.receive(request)) == {"status": "duplicate"}
        assert len(shop.handled) == 1

    def test_in_flight_in_a_second_task(self) -> None:
        shop = Shop()

        async def scenario() -> list[WebhookResponse]:
            begun, go = asyncio.Event(), asyncio.Event()

            async def slow(_event: Event) -> None:
                begun.set()
                await go.wait()

            shop.receiver.on("*", name="slow")(slow)
            request = request_of()
            first = asyncio.create_task(shop.receiver.receive_async(request))
            await asyncio.wait_for(begun.wait(), 30)
            second = await shop.receiver.receive_async(request)
            go.set()
            return [await first, second, await shop.receiver.receive_async(request)]

        first, second, third = asyncio.run(scenario())
        assert content(first) == {"status": "handled"}
        assert refusal(second) == (503, "in_flight", None)
        assert content(third) == {"status": "duplicate"}

    @both
    def test_dedupe_decides_what_is_the_same(self, answer: Answer) -> None:
        shop = Shop(dedupe=lambda event: f"{event.event} {event.extra['number']}")
        first = answer(shop.receiver, request_of(payload(number=1)))
        second = answer(shop.receiver, request_of(payload(number=1)))
        third = answer(shop.receiver, request_of(payload(number=2)))
        assert [content(one)["status"] for one in (first, second, third)] == ["handled", "duplicate", "handled"]


class PendingInbox(MemoryInbox):
    """Answers later, from another thread."""

    def store(self, delivery: Delivery, *, claim: bool, handlers: Sequence[str] | None = None) -> Any:  # noqa: ANN401 - pending where the parent's is there
        answer: InboxFuture[Stored] = InboxFuture()
        stored = super().store(delivery, claim=claim, handlers=handlers)

        def later() -> None:
            answer.answer(stored)
            InboxFuture.wake([answer])

        threading.Thread(target=later).start()
        return answer


class BlockingInbox(MemoryInbox):
    """May block, so that no event loop may call it."""

    blocking: ClassVar[bool] = True

    def __init__(self) -> None:
        super().__init__()
        self.threads: set[int] = set()

    def store(self, delivery: Delivery, *, claim: bool, handlers: Sequence[str] | None = None) -> Stored:
        self.threads.add(threading.get_ident())
        return super().store(delivery, claim=claim, handlers=handlers)


class TestInboxes:
    @both
    def test_one_that_answers_later(self, answer: Answer) -> None:
        shop = Shop(inbox=PendingInbox())
        request = request_of()
        assert content(answer(shop.receiver, request)) == {"status": "handled"}
        assert content(answer(shop.receiver, request)) == {"status": "duplicate"}

    @both
    def test_one_that_blocks_is_called_in_a_thread_where_there_is_a_loop(self, answer: Answer) -> None:
        inbox = BlockingInbox()
        assert answer(Shop(inbox=inbox).receiver, request_of()).status == 200
        assert (threading.get_ident() in inbox.threads) == (answer is in_sync)

    @both
    def test_one_that_is_down(self, answer: Answer) -> None:
        class Down(MemoryInbox):
            def store(self, delivery: Delivery, *, claim: bool, handlers: Sequence[str] | None = None) -> Stored:
                message = f"no disk for {delivery.id}, claim={claim}, {handlers}"
                raise InboxUnavailable(message)

        shop = Shop(inbox=Down())
        response = answer(shop.receiver, request_of())
        assert refusal(response) == (503, "unavailable", None)
        assert retry_after(response) == b"10"
        assert b"disk" not in response.body
        assert not shop.handled

    @both
    def test_one_that_is_full(self, answer: Answer) -> None:
        inbox = MemoryInbox(max_deliveries=1)
        shop = Shop(inbox=inbox)
        inbox.store(shop.receiver.open(request_of()), claim=True)
        response = answer(shop.receiver, request_of())
        assert refusal(response) == (503, "unavailable", None)
        assert [error.code for error in shop.rejected] == ["inbox_full"]

    @both
    def test_a_claim_that_was_lost(self, answer: Answer) -> None:
        class Lost(MemoryInbox):
            def complete(self, claim: Claim, outcome: Outcome, **_: Any) -> None:  # noqa: ANN401 - never used
                message = f"{claim.fence} {outcome}"
                raise LeaseLost(message)

        assert refusal(answer(Shop(inbox=Lost()).receiver, request_of())) == (503, "unavailable", None)


class TestOpen:
    def test_a_delivery_in_hand_is_not_recorded(self) -> None:
        shop = Shop()
        request = request_of()
        one, other = shop.receiver.open(request), asyncio.run(shop.receiver.open_async(request))
        assert one.id == other.id
        assert not shop.handled
        # Nothing has been dispatched, so that handlers may still come.
        shop.receiver.on("*", name="late")(lambda _event: None)
        assert content(shop.receiver.receive(request)) == {"status": "handled"}

    def test_no_handler_is_needed(self) -> None:
        assert WebhookReceiver(SECRET, clock=lambda: NOW).open(request_of()).event.event == "order.created"

    def test_a_refusal_is_raised_and_told(self, caplog: pytest.LogCaptureFixture) -> None:
        shop = Shop()
        request = request_of(b"{}", headers_of(b"{} "))
        opens: list[Callable[[], object]] = [
            lambda: shop.receiver.open(request),
            lambda: asyncio.run(shop.receiver.open_async(request)),
        ]
        for opened in opens:
            with pytest.raises(VerificationError) as caught:
                opened()
            assert shop.rejected[-1] is caught.value
        assert caplog.text.count("delivery.rejected") == 2


class TestHooks:
    @both
    def test_a_hook_that_raises_changes_nothing(self, answer: Answer, caplog: pytest.LogCaptureFixture) -> None:
        shop = Shop()

        async def broken(_error: WebhookError, _request: WebhookRequest) -> None:
            message = "the hook broke"
            raise RuntimeError(message)

        def broken_too(_error: WebhookError, _request: WebhookRequest) -> None:
            message = "the hook broke"
            raise RuntimeError(message)

        shop.receiver.on_rejected(broken)
        shop.receiver.on_rejected(broken_too)
        assert refusal(answer(shop.receiver, request_of(b"{}", {}))) == (415, "unsupported_media_type", None)
        assert caplog.text.count("hook.failed") == 2
        assert len(shop.rejected) == 1

    def test_hooks_of_routers_are_called_before_and_after_the_first_delivery(self) -> None:
        router = Router()
        told: list[str] = []
        router.on_rejected(lambda error, request: told.append(f"{error.code} {request.path}"))
        shop = Shop(router=router)
        bad = request_of(b"{}", {}, path="/a")
        shop.receiver.receive(bad)
        shop.receiver.receive(request_of())
        shop.receiver.receive(bad)
        assert told == ["unsupported_media_type /a"] * 2

    def test_the_log_has_the_reason_and_a_bounded_path(self, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.WARNING, "roovet_webhooks")
        Shop().receiver.receive(request_of(b"{}", {}, path="/" + "x" * 5000))
        (record,) = caplog.records
        told = vars(record)["roovet"]
        assert (told["code"], told["status"], told["endpoint"]) == ("unsupported_media_type", 415, "default")
        assert len(told["path"]) == 200


class TestOverride:
    def test_secret_clock_and_inbox_for_the_length_of_a_test(self) -> None:
        shop = Shop(clock=lambda: 0.0)
        inbox = MemoryInbox()
        raw = payload()
        request = request_of(raw, headers_of(raw, secret=OTHER_SECRET))
        with shop.receiver.override(secret=OTHER_SECRET, clock=lambda: NOW, inbox=inbox) as receiver:
            assert receiver is shop.receiver
            assert receiver.receive(request).status == 200
        assert len(inbox) == 1
        assert shop.receiver.receive(request).status == 400
        assert isinstance(shop.rejected[-1], FutureTimestamp)

    def test_the_receivers_own_inbox_comes_back(self) -> None:
        shop = Shop()
        inbox = MemoryInbox()
        request = request_of()
        with shop.receiver.override(inbox=inbox):
            assert content(shop.receiver.receive(request)) == {"status": "handled"}
        assert content(shop.receiver.receive(request)) == {"status": "handled"}
        with shop.receiver.override(inbox=inbox):
            assert content(shop.receiver.receive(request)) == {"status": "duplicate"}

    def test_one_part_leaves_the_others(self) -> None:
        shop = Shop(clock=lambda: 0.0)
        with shop.receiver.override(clock=lambda: NOW):
            assert shop.receiver.receive(request_of()).status == 200
        with shop.receiver.override(secret=tenant_of), shop.receiver.override(clock=lambda: NOW):
            raw = payload()
            assert shop.receiver.receive(with_body(raw, raw, (b"x-shop", b"acme"))).status == 200

    def test_no_secret(self) -> None:
        shop = Shop()
        with shop.receiver.override(secret=None), pytest.raises(ConfigurationError):
            shop.receiver.require_secret()
        shop.receiver.require_secret()

    def test_it_ends_with_an_error_too(self) -> None:
        shop = Shop()
        with pytest.raises(InvalidSecretError), shop.receiver.override(clock=lambda: 0.0, secret="short"):
            pass
        assert shop.receiver.receive(request_of()).status == 200
