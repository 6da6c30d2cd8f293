"""The sandbox over HTTP: the API, its explorer, the controls, chaos that takes time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from openapi_spec_validator import validate
from starlette.testclient import TestClient

from roovet_webhooks.sandbox import Sandbox, make_chaos, sandbox_app

if TYPE_CHECKING:
    from collections.abc import Iterator

URL = "http://127.0.0.1:9/webhooks/roovet"  # nothing listens there


@pytest.fixture
def http(sandbox: Sandbox) -> Iterator[TestClient]:
    with TestClient(sandbox_app(sandbox, sends=False)) as client:
        client.headers["Authorization"] = f"Bearer {sandbox.api_key}"
        yield client


def test_the_api_answers_with_its_headers(http: TestClient) -> None:
    answer = http.get("/api/wallet/transactions", params={"limit": 2})
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-ratelimit-limit"] == "10000"
    assert answer.headers["x-request-id"].startswith("req_")
    assert len(answer.json()["data"]) == 2


def test_a_body_that_is_too_long_is_refused(http: TestClient) -> None:
    body = b'{"to":"' + b"x" * 70_000 + b'"}'
    answer = http.post("/api/wallet/transfer", content=body, headers={"content-type": "application/json"})
    assert (answer.status_code, answer.json()["error"]["type"]) == (400, "invalid_request")


@pytest.mark.parametrize("path", ["/", "/api", "/nothing", "/_sandbox/nothing"])
def test_elsewhere_there_is_nothing(http: TestClient, path: str) -> None:
    answer = http.get(path)
    assert answer.status_code == 404


def test_the_explorer_and_all_it_needs_come_from_here(http: TestClient) -> None:
    page = http.get("/explorer")
    assert "default-src 'self'" in page.headers["content-security-policy"]
    for path in ("start.js", "assets/swagger-ui.css", "assets/swagger-ui-bundle.js"):
        assert f"explorer/{path}" in page.text
        assert http.get(f"/explorer/{path}").status_code == 200
    assert "http" not in page.text
    document = http.get("/openapi.json").json()
    validate(document)
    assert document["servers"] == [{"url": "http://testserver"}]


def test_the_api_may_be_slow_or_never_answer(sandbox: Sandbox, http: TestClient) -> None:
    sandbox.chaos = make_chaos({"api_slow": 1, "delay_seconds": 0.01})
    assert http.get("/api/wallet/balance").status_code == 200
    sandbox.chaos = make_chaos({"api_timeout": 1, "timeout_seconds": 0.01})
    assert http.get("/api/wallet/balance").status_code == 500


class TestControls:
    def post(self, http: TestClient, path: str, **content: object) -> Any:  # noqa: ANN401 - JSON
        answer = http.post(f"/_sandbox/{path}", json=content)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def test_the_state_shows_no_secret(self, sandbox: Sandbox, http: TestClient) -> None:
        made = self.post(http, "endpoints", url=URL)
        state = http.get("/_sandbox/")
        assert state.json()["endpoints"] == [URL]
        assert state.json()["messages"] == {"pending": 0, "delivered": 0, "failed": 0}
        assert made["signing_secret"] not in state.text
        assert sandbox.api_key not in state.text

    def test_endpoints(self, sandbox: Sandbox, http: TestClient) -> None:
        made = self.post(http, "endpoints", url=URL, secret="whsec_of_my_own_000000000000")
        assert made == {"url": URL, "signing_secret": "whsec_of_my_own_000000000000"}
        assert self.post(http, "endpoints/rotate", url=URL)["signing_secret"].startswith("whsec_")
        assert http.delete("/_sandbox/endpoints", params={"url": URL}).json() == {"removed": True}
        assert sandbox.endpoints() == []

    def test_keys(self, http: TestClient) -> None:
        made = self.post(http, "keys", scopes=["shop:read"], user_id="user_9")
        headers = {"Authorization": f"Bearer {made['api_key']}"}
        assert http.get("/api/shop/orders", headers=headers).status_code == 200
        assert http.get("/api/wallet/balance", headers=headers).status_code == 403

    def test_the_clock_goes_forward(self, sandbox: Sandbox, http: TestClient) -> None:
        assert self.post(http, "clock", advance=60)["clock_ahead"] == 60
        assert sandbox.clock.offset == 60

    def test_chaos(self, sandbox: Sandbox, http: TestClient) -> None:
        assert self.post(http, "chaos", all=0.5, cut=0, seed=7)["stale"] == 0.5
        assert (sandbox.chaos.cut, sandbox.chaos.seed) == (0, 7)

    def test_events(self, http: TestClient) -> None:
        self.post(http, "endpoints", url=URL)
        number = self.post(http, "events", event="order.created", id="ord_7", fields={"note": "x"})["number"]
        assert self.post(http, "events/resend", number=number) == {"number": number}
        entries = http.get("/_sandbox/deliveries", params={"limit": 1}).json()["data"]
        assert [(entry["event"], entry["resource"]) for entry in entries] == [("order.created", "ord_7")]
        before = {"before": entries[0]["id"]}
        assert len(http.get("/_sandbox/deliveries", params=before).json()["data"]) == 1

    def test_a_reset(self, http: TestClient) -> None:
        self.post(http, "reset")
        assert http.get("/api/shop/products").status_code == 200

    @pytest.mark.parametrize(
        ("path", "content", "status"),
        [
            ("endpoints", {"url": "nowhere"}, 400),
            ("endpoints", {}, 400),
            ("endpoints", {"url": URL, "surprise": 1}, 400),
            ("endpoints/rotate", {"url": URL}, 400),
            ("keys", {"scopes": ["all"]}, 400),
            ("clock", {"advance": -1}, 400),
            ("clock", {"advance": 1e400}, 400),
            ("chaos", {"cut": 2}, 400),
            ("events/resend", {"number": 99}, 404),
        ],
    )
    def test_what_cannot_be_done_is_a_clear_error(
        self, http: TestClient, path: str, content: dict[str, object], status: int
    ) -> None:
        if content.get("advance") == 1e400:
            answer = http.post(f"/_sandbox/{path}", content=b'{"advance":1e400}')
        else:
            answer = http.post(f"/_sandbox/{path}", json=content)
        assert answer.status_code == status
        assert answer.json()["error"]["message"]


def test_it_sends_while_it_runs() -> None:
    sandbox = Sandbox(retry=None)
    sent: list[tuple[str, str | None]] = []
    sandbox.on_sent = lambda due, result, _retry_in: sent.append((due.event, result.error))
    sandbox.register(URL)
    with TestClient(sandbox_app(sandbox)) as client:
        sandbox.trigger("order.created", "ord_1")
        for _ in range(2000):
            client.get("/_sandbox/")
            if sent:
                break
    assert sent[0][0] == "order.created"
    assert str(sent[0][1]).startswith("ConnectError")
    sandbox.close()
