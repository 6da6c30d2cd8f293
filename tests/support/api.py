"""A small Roovet for the tests of the client: it answers in process, counts requests and keeps what it was sent."""

from __future__ import annotations

import inspect
import json
from collections.abc import AsyncIterable, Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, cast

import anyio
import httpx2

from roovet_webhooks.api import AsyncRoovetClient, RoovetClient

KEY = "rvpk_test_0f9e8d7c6b5a49382716"
START = 1_762_782_800.0
MOMENT = "2025-11-10T13:53:20Z"
BALANCE = {"balance_cents": 12345, "available_cents": 12000, "currency": "USD", "updated_at": "2025-09-20T02:30:00Z"}

Answerer = Callable[[httpx2.Request], httpx2.Response]
AnyClient = RoovetClient | AsyncRoovetClient


class Clock:
    """A clock that only a sleep moves."""

    def __init__(self) -> None:
        self.now = START
        self.slept: list[float] = []

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds

    async def sleep_async(self, seconds: float) -> None:
        self.sleep(seconds)
        await anyio.lowlevel.checkpoint()


def answer(body: object, status: int = 200, **headers: str) -> httpx2.Response:
    """Return an answer with a JSON body."""
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    return httpx2.Response(status, json=body, headers=given)


def refusal(status: int, kind: str = "some_type", param: str | None = None, **headers: str) -> httpx2.Response:
    """Return an error in the documented form."""
    detail = {"type": kind, "code": str(status), "message": "It is so.", **({"param": param} if param else {})}
    return answer({"error": detail}, status, **headers)


@dataclass
class FakeRoovet:
    """Gives one answer after another, or an answer made for the request; errors of httpx2 are raised."""

    answers: list[httpx2.Response | Exception | Answerer]
    requests: list[httpx2.Request] = field(default_factory=list)

    def __call__(self, request: httpx2.Request) -> httpx2.Response:
        self.requests.append(request)
        given = self.answers[0] if len(self.answers) == 1 else self.answers.pop(0)
        if isinstance(given, Exception):
            raise given
        if isinstance(given, httpx2.Response):
            # A response can be read once.
            return httpx2.Response(given.status_code, headers=given.headers, content=given.content)
        return given(request)

    @property
    def request(self) -> httpx2.Request:
        """The only request."""
        (request,) = self.requests
        return request


@dataclass
class Kind:
    """One of the two clients, and how a test gets at what it returns."""

    client: type[AnyClient]

    def make(
        self,
        roovet: Answerer,
        clock: Clock | None = None,
        api_key: str | None = KEY,
        **options: Any,  # noqa: ANN401 - the client's options
    ) -> AnyClient:
        """Return a client of a fake Roovet."""
        transport = httpx2.MockTransport(roovet)
        if self.client is RoovetClient:
            if clock is not None:
                options |= {"clock": clock, "sleep": clock.sleep}
            return RoovetClient(api_key, transport=transport, **options)
        if clock is not None:
            options |= {"clock": clock, "sleep": clock.sleep_async}
        return AsyncRoovetClient(api_key, transport=transport, **options)

    def get(self, made: Any) -> Any:  # noqa: ANN401 - whatever the client returns
        """Return a call's value, or a list's rows, of either client."""

        async def outcome() -> object:
            if isinstance(made, AsyncIterable):
                return [row async for row in cast("AsyncIterable[object]", made)]
            return await made

        if inspect.isawaitable(made) or isinstance(made, AsyncIterable):
            return anyio.run(outcome)
        return list(cast("Iterable[object]", made)) if isinstance(made, Iterable) else made


def row(name: str, **fields: object) -> dict[str, object]:
    """Return an order or a transaction, by the prefix of its id."""
    common: dict[str, object] = {"id": name, "currency": "USD", "created_at": MOMENT}
    if name.startswith("ord_"):
        common |= {"status": "paid", "items": [], "total_cents": 5, "payment_method": "card"}
    else:
        common |= {"type": "credit", "amount_cents": 5}
    return common | fields


def lister(rows: list[dict[str, object]]) -> Answerer:
    """Return what answers requests for pages of rows, which are most recent first."""
    names = [one["id"] for one in rows]

    def respond(request: httpx2.Request) -> httpx2.Response:
        query = request.url.params
        limit = int(query.get("limit", "20"))
        if "ending_before" in query:
            end = names.index(query["ending_before"])
            data = rows[max(0, end - limit) : end]
            more = end > limit
        else:
            begin = names.index(query["starting_after"]) + 1 if "starting_after" in query else 0
            data = rows[begin : begin + limit]
            more = begin + limit < len(rows)
        return answer({"data": data, "has_more": more, "next_cursor": data[-1]["id"] if more else None})

    return respond


def body_of(request: httpx2.Request) -> Any:  # noqa: ANN401 - JSON
    """Return the body of a request, decoded."""
    return json.loads(request.content)
