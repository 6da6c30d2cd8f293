"""The client keeps within the limit of its key: nothing is sent while no request is left."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from email.utils import formatdate
from typing import TYPE_CHECKING, Any, cast

import anyio
import httpx2
import pytest
import stamina
from hypothesis import given, strategies as st
from support.api import BALANCE, KEY, START, Clock, FakeRoovet, Kind, answer, refusal

from roovet_webhooks.api import AsyncRoovetClient, RateLimited, RoovetClient
from roovet_webhooks.api.limiter import RateLimiter, retry_after

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.fixture(params=[RoovetClient, AsyncRoovetClient], ids=["sync", "async"])
def kind(request: pytest.FixtureRequest) -> Kind:
    return Kind(request.param)


@pytest.fixture(autouse=True)
def _no_waits() -> Any:  # noqa: ANN401 - a generator
    with stamina.set_testing(True, attempts=100, cap=True):
        yield


class Limited:
    """Counts requests in windows of a minute that begin with the first, and refuses those beyond the limit."""

    def __init__(self, clock: Callable[[], float], limit: int = 60, ahead: float = 0.0) -> None:
        self._clock, self.limit, self._ahead = clock, limit, ahead
        self._lock = threading.Lock()
        self._ends, self._count = 0.0, 0
        self.served = self.refused = 0

    def __call__(self, _request: httpx2.Request) -> httpx2.Response:
        with self._lock:
            now = self._clock() + self._ahead
            if now >= self._ends:
                self._ends, self._count = now + 60, 0
            self._count += 1
            headers = {
                "Date": formatdate(now, usegmt=True),
                "X-RateLimit-Limit": str(self.limit),
                "X-RateLimit-Remaining": str(max(0, self.limit - self._count)),
                "X-RateLimit-Reset": str(int(self._ends + 0.999)),
            }
            if self._count > self.limit:
                self.refused += 1
                return refusal(429, "rate_limited", **headers)
            self.served += 1
            return answer(BALANCE, 200, **headers)


@pytest.mark.parametrize("ahead", [0.0, 5000.0, -5000.0], ids=["one clock", "theirs is ahead", "theirs is behind"])
def test_200_calls_in_a_row_succeed_and_none_is_sent_while_the_limit_is_spent(kind: Kind, ahead: float) -> None:
    clock = Clock()
    roovet = Limited(clock, ahead=ahead)
    client = kind.make(roovet, clock)

    async def call() -> None:
        for _ in range(200):
            await cast("AsyncRoovetClient", client).wallet.balance()

    if kind.client is AsyncRoovetClient:
        anyio.run(call)
    else:
        for _ in range(200):
            client.wallet.balance()
    assert (roovet.served, roovet.refused) == (200, 0)
    assert len(clock.slept) == 3
    assert all(59 <= slept <= 61 for slept in clock.slept)


def test_many_threads_share_the_limit() -> None:
    clock = Clock()
    lock = threading.Lock()

    def sleep(seconds: float) -> None:
        # Each of the threads moves the one clock: by less than it waits, so that none is carried beyond another's wait.
        assert seconds > 0
        with lock:
            clock.now += 1.0

    roovet = Limited(clock)
    client = RoovetClient(KEY, transport=httpx2.MockTransport(roovet), clock=clock, sleep=sleep)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: client.wallet.balance(), range(200)))
    assert (roovet.served, roovet.refused) == (200, 0)


def test_many_tasks_share_the_limit() -> None:
    clock = Clock()
    roovet = Limited(clock)

    async def call_all() -> None:
        client = AsyncRoovetClient(KEY, transport=httpx2.MockTransport(roovet), clock=clock, sleep=clock.sleep_async)
        async with client, anyio.create_task_group() as tasks:
            for _ in range(200):
                tasks.start_soon(client.wallet.balance)

    anyio.run(call_all)
    assert (roovet.served, roovet.refused) == (200, 0)


def test_a_key_that_others_use_too_waits_and_repeats(kind: Kind) -> None:
    clock = Clock()
    spent = {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": str(int(START) + 30)}
    roovet = FakeRoovet([answer(BALANCE), refusal(429, **spent), answer(BALANCE)])
    client = kind.make(roovet, clock)
    kind.get(client.wallet.balance())
    raw = kind.get(client.wallet.balance.raw())
    assert raw.attempts == 2
    assert clock.slept == [30.0]


def test_an_answer_that_overtook_a_429_does_not_prolong_its_wait() -> None:
    clock = Clock()
    limiter = RateLimiter(clock)
    window = {"X-RateLimit-Limit": "60", "X-RateLimit-Remaining": "50", "X-RateLimit-Reset": str(int(START) + 60)}
    for _ in range(3):
        assert limiter.acquire() == 0
    limiter.release(200, window)
    limiter.release(429, {"Retry-After": "1"})
    limiter.release(200, window)
    assert limiter.acquire() == 1
    clock.now += 1
    assert limiter.acquire() == 0
    limiter.release(200, window)
    assert limiter.acquire() == 0


@pytest.mark.parametrize(
    ("headers", "wait"),
    [
        ({"Retry-After": "7", "X-RateLimit-Reset": str(int(START) + 30)}, 7.0),
        ({"X-RateLimit-Reset": str(int(START) + 30)}, 30.0),
        ({"X-RateLimit-Reset": "12"}, 12.0),
        ({"X-RateLimit-Reset": str(int(START) + 7200)}, 60.0),
        ({"X-RateLimit-Reset": str(int(START) - 5)}, 1.0),
        ({"X-RateLimit-Reset": "soon"}, 60.0),
        ({"Retry-After": formatdate(START + 9, usegmt=True), "Date": formatdate(START, usegmt=True)}, 9.0),
        ({"Retry-After": "nan"}, 60.0),
        ({}, 60.0),
    ],
    ids=map(str, range(9)),
)
def test_a_429_is_waited_for_as_long_as_it_says(headers: dict[str, str], wait: float) -> None:
    clock = Clock()
    roovet = FakeRoovet([refusal(429, **headers), answer(BALANCE)])
    Kind(RoovetClient).make(roovet, clock).wallet.balance()
    assert clock.slept == [wait]


@pytest.mark.parametrize("max_wait", [0.0, 29.0])
def test_a_wait_that_is_too_long_is_an_error_at_once(kind: Kind, max_wait: float) -> None:
    clock = Clock()
    spent = {"X-RateLimit-Limit": "60", "X-RateLimit-Remaining": "0", "X-RateLimit-Reset": str(int(START) + 30)}
    roovet = FakeRoovet([answer(BALANCE, 200, **spent)])
    client = kind.make(roovet, clock)
    kind.get(client.wallet.balance())
    with pytest.raises(RateLimited, match="no request is left for 30 s, and max_wait is") as caught:
        kind.get(client.with_options(max_wait=max_wait).wallet.balance())
    assert (caught.value.status, caught.value.retry_after, caught.value.retryable) == (429, 30.0, False)
    assert len(roovet.requests) == 1
    assert clock.slept == []


def test_without_the_headers_nothing_is_counted(kind: Kind) -> None:
    clock = Clock()
    roovet = FakeRoovet([answer(BALANCE)])
    client = kind.make(roovet, clock)
    for _ in range(70):
        kind.get(client.wallet.balance())
    assert clock.slept == []


# The limiter by itself


def headers(remaining: int, reset: float, limit: int = 60) -> dict[str, str]:
    return {
        "X-RateLimit-Limit": str(limit),
        "X-RateLimit-Remaining": str(remaining),
        "X-RateLimit-Reset": str(int(reset)),
    }


def test_before_the_first_answer_60_may_be_under_way() -> None:
    limiter = RateLimiter(Clock())
    assert [limiter.acquire() for _ in range(60)] == [0.0] * 60
    assert 0 < limiter.acquire() < 1
    limiter.release(None, {})
    assert limiter.acquire() > 0, "an unanswered request may have counted"
    limiter.release(200, headers(100, START + 60, limit=160))
    assert limiter.acquire() == 0.0


def test_what_is_under_way_is_taken_off() -> None:
    limiter = RateLimiter(Clock())
    for _ in range(3):
        limiter.acquire()
    limiter.release(200, headers(3, START + 60))
    assert limiter.acquire() == 0.0
    assert limiter.acquire() == 60.0


def test_answers_out_of_order_give_nothing_back() -> None:
    clock = Clock()
    limiter = RateLimiter(clock)
    for _ in range(3):
        limiter.acquire()
    limiter.release(200, headers(0, START + 60))
    limiter.release(200, headers(1, START + 60))
    assert limiter.acquire() == 60.0
    clock.now += 60
    assert limiter.acquire() == 0.0
    limiter.release(200, headers(0, START + 120))
    limiter.release(200, headers(50, START + 60))
    assert limiter.acquire() == 60.0, "an answer of the window before says nothing of this one"


def test_a_window_that_begins_early_counts_anew() -> None:
    limiter = RateLimiter(Clock())
    limiter.acquire()
    limiter.acquire()
    limiter.release(200, headers(0, START + 30))
    limiter.release(200, headers(9, START + 90))
    assert limiter.acquire() == 0.0


def test_an_answer_without_the_headers_does_not_end_a_wait() -> None:
    limiter = RateLimiter(Clock())
    limiter.acquire()
    limiter.acquire()
    limiter.release(200, headers(0, START + 60))
    limiter.release(500, {})
    assert limiter.acquire() == 60.0


@pytest.mark.parametrize("limit", ["0", "-5", "many"])
def test_a_limit_that_is_none_is_the_documented_one(limit: str) -> None:
    clock = Clock()
    limiter = RateLimiter(clock)
    limiter.acquire()
    limiter.release(200, {**headers(0, START + 60), "X-RateLimit-Limit": limit})
    clock.now += 60
    assert [limiter.acquire() for _ in range(60)] == [0.0] * 60
    assert limiter.acquire() > 0


@given(
    st.dictionaries(
        st.sampled_from(["Retry-After", "Date"]), st.text("0123456789.-+einfa :,GMT") | st.floats().map(str)
    )
)
def test_no_header_breaks_it(sent: dict[str, str]) -> None:
    seconds = retry_after(sent)
    assert seconds is None or seconds >= 0
    limiter = RateLimiter(Clock())
    limiter.acquire()
    limiter.release(429, sent)
    assert limiter.acquire() >= 1.0
