"""The sender: events are signed as documented and sent again after a failure; chaos does what it is named for."""

from __future__ import annotations

import json
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

import anyio
import httpx2
import pytest

from roovet_webhooks import Keyring, Verifier, WebhookReceiver
from roovet_webhooks.asgi import WebhookApp
from roovet_webhooks.errors import ConfigurationError, VerificationError
from roovet_webhooks.retry import RetryPolicy
from roovet_webhooks.sandbox import Chaos, Sandbox, Sender, make_chaos
from roovet_webhooks.sandbox.chaos import WEBHOOK_FAULTS
from roovet_webhooks.sandbox.outbox import due_messages
from roovet_webhooks.sandbox.sender import transmission_of
from sandbox.conftest import ApiClient

if TYPE_CHECKING:
    from pathlib import Path

    from roovet_webhooks.sandbox.outbox import DueMessage

URL = "http://127.0.0.1:8000/webhooks/roovet"
FAST = RetryPolicy(initial=0.01, factor=1.0, max_delay=0.01, max_attempts=8)
BOUND = 30.0


class Endpoint:
    """Answers what it is told to, and keeps what came."""

    def __init__(self, *statuses: int) -> None:
        self.statuses = list(statuses)
        self.requests: list[tuple[bytes, dict[str, str]]] = []

    async def answer(self, request: httpx2.Request) -> httpx2.Response:
        body = await request.aread()
        self.requests.append((body, dict(request.headers)))
        return httpx2.Response(self.statuses.pop(0) if self.statuses else 200)

    @property
    def bodies(self) -> list[dict[str, Any]]:
        return [json.loads(body) for body, _ in self.requests]


def send_all(sandbox: Sandbox, answer: Any) -> None:  # noqa: ANN401 - a handler or a transport
    """Let the sender work until nothing is pending."""

    def done() -> bool:
        return not sandbox.delivery_states()["pending"]

    async def run() -> None:
        transport = answer if isinstance(answer, httpx2.AsyncBaseTransport) else httpx2.MockTransport(answer)
        with anyio.fail_after(BOUND):
            async with anyio.create_task_group() as group:
                group.start_soon(Sender(sandbox, transport=transport).run)
                while not done():  # noqa: ASYNC110 - the database tells nobody
                    await anyio.sleep(0.005)
                group.cancel_scope.cancel()

    anyio.run(run)


@pytest.fixture
def sandbox() -> Any:  # noqa: ANN401 - a fixture
    made = Sandbox(retry=FAST, rate_limit=10_000)
    yield made
    made.close()


def test_an_order_is_told_as_documented(sandbox: Sandbox) -> None:
    secret = sandbox.register(URL)
    endpoint = Endpoint()
    order = ApiClient(sandbox).order()
    send_all(sandbox, endpoint.answer)
    [(body, headers)] = endpoint.requests
    assert list(json.loads(body)) == ["event", "id", "ts"]
    assert body.startswith(b'{"event":"order.created","id":"%s","ts":' % order["id"].encode())
    assert headers["content-type"] == "application/json"
    verified = Verifier(secret).verify(
        body, headers["x-roovet-signature"], timestamp_header=headers["x-roovet-timestamp"]
    )
    assert abs(verified.timestamp - time.time()) < 60


def test_a_transfer_is_told_when_it_is_made_and_when_it_has_settled(sandbox: Sandbox) -> None:
    sandbox.register(URL)
    endpoint = Endpoint()
    transfer = ApiClient(sandbox).post("/api/wallet/transfer", {"to": "user_42", "amount": 1})
    sandbox.advance(2)
    send_all(sandbox, endpoint.answer)
    assert [(body["event"], body["id"]) for body in endpoint.bodies] == [
        ("transfer.created", transfer["id"]),
        ("transfer.settled", transfer["id"]),
    ]


def test_every_endpoint_gets_it_under_its_own_secret(sandbox: Sandbox) -> None:
    secrets = {url: sandbox.register(url) for url in (f"{URL}/1", f"{URL}/2")}
    seen: dict[str, str] = {}

    async def answer(request: httpx2.Request) -> httpx2.Response:
        url = str(request.url)
        Verifier(secrets[url]).verify(await request.aread(), request.headers["x-roovet-signature"])
        seen[url] = "verified"
        return httpx2.Response(200)

    sandbox.trigger("order.created", "ord_1")
    send_all(sandbox, answer)
    assert set(seen) == set(secrets)


def test_what_is_not_acknowledged_is_sent_again_as_the_same_bytes(sandbox: Sandbox) -> None:
    sandbox.register(URL)
    endpoint = Endpoint(500, 302, 404)
    sandbox.trigger("order.created", "ord_1")
    send_all(sandbox, endpoint.answer)
    assert len({body for body, _ in endpoint.requests}) == 1
    [entry] = sandbox.deliveries()
    assert [attempt["status"] for attempt in entry["attempts"]] == [500, 302, 404, 200]
    assert entry["state"] == "delivered"


def test_it_gives_up_in_the_end(sandbox: Sandbox) -> None:
    sandbox.register(URL)
    sandbox.trigger("order.created", "ord_1")
    send_all(sandbox, Endpoint(*[500] * 8).answer)
    assert sandbox.delivery_states() == {"pending": 0, "delivered": 0, "failed": 1}
    assert len(sandbox.deliveries()[0]["attempts"]) == 8


def test_retries_can_be_switched_off() -> None:
    sandbox = Sandbox(retry=None)
    sandbox.register(URL)
    sandbox.trigger("order.created", "ord_1")
    results: list[Any] = []
    sandbox.on_sent = lambda due, result, retry_in: results.append((due.event, result.status, retry_in))
    send_all(sandbox, Endpoint(500).answer)
    assert sandbox.delivery_states()["failed"] == 1
    assert results == [("order.created", 500, None)]
    sandbox.close()


@pytest.mark.parametrize("error", [httpx2.ConnectError("refused"), httpx2.ReadTimeout("slow")])
def test_an_endpoint_that_does_not_answer_is_tried_again(sandbox: Sandbox, error: Exception) -> None:
    sandbox.register(URL)
    sandbox.trigger("order.created", "ord_1")
    failures = [error]

    async def answer(_request: httpx2.Request) -> httpx2.Response:
        if failures:
            raise failures.pop()
        return httpx2.Response(200)

    send_all(sandbox, answer)
    first, second = sandbox.deliveries()[0]["attempts"]
    assert (first["status"], second["status"]) == (None, 200)
    assert first["error"]


def test_what_was_not_sent_survives_a_restart(tmp_path: Path) -> None:
    first = Sandbox(tmp_path / "sandbox.db")
    first.register(URL)
    first.trigger("order.created", "ord_1")
    first.close()
    endpoint = Endpoint()
    second = Sandbox(tmp_path / "sandbox.db")
    send_all(second, endpoint.answer)
    assert [body["id"] for body in endpoint.bodies] == ["ord_1"]
    second.close()


def test_an_event_is_resent_as_the_same_bytes(sandbox: Sandbox) -> None:
    sandbox.register(URL)
    endpoint = Endpoint()
    sandbox.resend(sandbox.trigger("order.created", "ord_1", {"note": "é/ü"}))
    send_all(sandbox, endpoint.answer)
    assert len(endpoint.requests) == 2
    assert len({body for body, _ in endpoint.requests}) == 1
    assert endpoint.bodies[0]["note"] == "é/ü"
    with pytest.raises(LookupError, match="no event 99"):
        sandbox.resend(99)


def test_the_log_is_paged(sandbox: Sandbox) -> None:
    sandbox.register(URL)
    for number in range(3):
        sandbox.trigger("order.created", f"ord_{number}")
    newest = sandbox.deliveries(limit=2)
    assert [entry["resource"] for entry in newest] == ["ord_2", "ord_1"]
    assert [entry["resource"] for entry in sandbox.deliveries(before=newest[-1]["id"])] == ["ord_0"]


class TestRotation:
    def test_both_secrets_sign_for_a_while(self, sandbox: Sandbox) -> None:
        old = sandbox.register(URL)
        new = sandbox.rotate(URL, overlap=60)
        endpoint = Endpoint()
        sandbox.trigger("order.created", "ord_1")
        send_all(sandbox, endpoint.answer)
        [(body, headers)] = endpoint.requests
        for secret in (old, new):
            Verifier(secret).verify(body, headers["x-roovet-signature"])

    def test_then_the_new_one_alone(self, sandbox: Sandbox) -> None:
        old = sandbox.register(URL)
        new = sandbox.rotate(URL, overlap=60)
        sandbox.advance(60)
        sandbox.trigger("order.created", "ord_1")
        endpoint = Endpoint()
        send_all(sandbox, endpoint.answer)
        [(body, headers)] = endpoint.requests
        Verifier(new, tolerance=120).verify(body, headers["x-roovet-signature"])
        with pytest.raises(VerificationError):
            Verifier(old, tolerance=120).verify(body, headers["x-roovet-signature"])

    def test_an_unknown_endpoint_cannot_be_rotated(self, sandbox: Sandbox) -> None:
        with pytest.raises(ConfigurationError, match="no endpoint"):
            sandbox.rotate(URL)


class TestEndpoints:
    @pytest.mark.parametrize(
        "url", ["", "127.0.0.1:8000", "ftp://host/", "http://", "http://user:pass@host/", "http://a b/"]
    )
    def test_what_cannot_be_posted_to_is_refused(self, sandbox: Sandbox, url: str) -> None:
        with pytest.raises(ConfigurationError, match="http or https URL"):
            sandbox.register(url)

    def test_a_secret_of_ones_own_replaces_the_first(self, sandbox: Sandbox) -> None:
        sandbox.register(URL)
        assert sandbox.register(URL, "whsec_of_my_own_000000000000") == "whsec_of_my_own_000000000000"
        assert sandbox.endpoints() == [URL]

    def test_nothing_more_goes_to_one_that_was_removed(self, sandbox: Sandbox) -> None:
        sandbox.register(URL)
        sandbox.trigger("order.created", "ord_1")
        assert sandbox.unregister(URL)
        assert not sandbox.unregister(URL)
        assert sandbox.delivery_states()["pending"] == 0

    def test_a_scope_that_there_is_not_is_refused(self, sandbox: Sandbox) -> None:
        with pytest.raises(ConfigurationError, match="no scope shop:all"):
            sandbox.create_key(["shop:all"])


def due(sandbox: Sandbox) -> DueMessage:
    sandbox.register(URL, "whsec_for_chaos_000000000000")
    sandbox.trigger("order.created", "ord_123")
    with sandbox.database.begin() as connection:
        [message] = due_messages(connection, sandbox.clock.milliseconds(), limit=1)
    return message


class TestChaos:
    CODES = {  # noqa: RUF012 - read only
        "stale": "stale",
        "future": "future",
        "altered": "signature_mismatch",
        "wrong_secret": "signature_mismatch",
        "truncated": "malformed_signature",
    }

    @pytest.mark.parametrize("fault", CODES)
    def test_what_spoils_a_delivery_is_refused_for_what_it_is(self, sandbox: Sandbox, fault: str) -> None:
        message = due(sandbox)
        now = time.time()
        sent = transmission_of(message, fault, Chaos(), now)
        with pytest.raises(VerificationError) as caught:
            Verifier("whsec_for_chaos_000000000000").verify(sent.body, sent.headers["X-Roovet-Signature"], now=now)
        assert caught.value.code == self.CODES[fault]

    def test_a_truncated_digest_is_the_vendors_sample(self, sandbox: Sandbox) -> None:
        now = time.time()
        sent = transmission_of(due(sandbox), "truncated", Chaos(), now)
        verifier = Verifier("whsec_for_chaos_000000000000", accept_truncated=True)
        verifier.verify(sent.body, sent.headers["X-Roovet-Signature"], now=now)

    def test_a_burst_gathers(self, sandbox: Sandbox) -> None:
        message = due(sandbox)
        waits = [transmission_of(message, "burst", Chaos(delay_seconds=2), now).wait for now in (100.5, 101.75)]
        assert waits == [1.5, 0.25]
        assert transmission_of(message, "burst", Chaos(delay_seconds=0), 100.5).wait == 0

    @pytest.mark.parametrize("fault", WEBHOOK_FAULTS)
    def test_each_fault_in_the_end_delivers(self, fault: str) -> None:
        chaos = make_chaos({fault: 1, "delay_seconds": 0.05, "spoils": 2})
        sandbox = Sandbox(retry=FAST, chaos=chaos)
        seen: Counter[str] = Counter()
        receiver = WebhookReceiver(Keyring(["whsec_for_chaos_000000000000"]))

        @receiver.on("*")
        def count(event: Any) -> None:  # noqa: ANN401 - an event
            seen[event.id] += 1

        sandbox.register(URL, "whsec_for_chaos_000000000000")
        for number in range(3):
            sandbox.trigger("order.created", f"ord_{number}")
        send_all(sandbox, httpx2.ASGITransport(WebhookApp(receiver)))
        assert seen == {f"ord_{number}": 1 for number in range(3)}
        assert sandbox.delivery_states() == {"pending": 0, "delivered": 3, "failed": 0}
        faults = {attempt["chaos"] for entry in sandbox.deliveries() for attempt in entry["attempts"]}
        assert fault in faults
        sandbox.close()
