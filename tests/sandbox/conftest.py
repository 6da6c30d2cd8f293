"""A sandbox without a network, and a client of its API."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from roovet_webhooks.sandbox import Sandbox, SandboxClock
from roovet_webhooks.sandbox.api import ApiRequest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from roovet_webhooks.sandbox.api import Answer

NOW = 1_762_782_800.0


class ApiClient:
    """Speaks to the API of a sandbox, and checks what every answer of it has."""

    def __init__(self, sandbox: Sandbox, key: str | None = None) -> None:
        self.sandbox = sandbox
        self.key = sandbox.api_key if key is None else key
        self.last: Answer | None = None

    def request(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        raw: bytes | None = None,
        headers: dict[str, str] | None = None,
    ) -> tuple[int, Any]:
        """Make a request, and return the status and the JSON of its answer."""
        path, _, query = path.partition("?")
        pairs = [(name, value) for name, _, value in (pair.partition("=") for pair in query.split("&") if pair)]
        sent = {"authorization": f"Bearer {self.key}", "content-type": "application/json", **(headers or {})}
        content = raw if raw is not None else b"" if body is None else json.dumps(body).encode()
        self.last = self.sandbox.answer(ApiRequest(method, path, pairs, sent, content))
        answer = json.loads(self.last.body)
        if self.last.status >= 400:
            assert list(answer) == ["error"]
            assert list(answer["error"]) == ["type", "code", "message", "param"]
            assert answer["error"]["code"] == str(self.last.status)
        return self.last.status, answer

    def get(self, path: str, **options: Any) -> Any:  # noqa: ANN401 - JSON
        """Return the JSON of a success."""
        status, answer = self.request("GET", path, **options)
        assert status == 200, answer
        return answer

    def post(self, path: str, body: object, **options: Any) -> Any:  # noqa: ANN401 - JSON
        """Return the JSON of a success."""
        status, answer = self.request("POST", path, body, **options)
        assert status == 200, answer
        return answer

    def refused(
        self,
        method: str,
        path: str,
        body: object = None,
        **options: Any,  # noqa: ANN401 - those of `request`
    ) -> tuple[int, str, str | None]:
        """Return status, type and param of an error."""
        status, answer = self.request(method, path, body, **options)
        assert status >= 400, answer
        return status, answer["error"]["type"], answer["error"]["param"]

    def order(self, product: str = "prd_5", *, quantity: int = 1, payment_method: str = "card") -> Any:  # noqa: ANN401 - JSON
        """Order something, and return the order."""
        cart = self.post("/api/shop/cart", {"items": [{"product": product, "quantity": quantity}]})
        return self.post("/api/shop/checkout", {"cart": cart["id"], "payment_method": payment_method})


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    """A sandbox in memory, whose clock stands still, with room for many requests."""
    made = Sandbox(clock=SandboxClock(lambda: NOW), rate_limit=10_000)
    yield made
    made.close()


@pytest.fixture
def api(sandbox: Sandbox) -> ApiClient:
    """A client with every scope."""
    return ApiClient(sandbox)
