"""`RateLimiter`: lets a request pass only while the key has one left."""

from __future__ import annotations

import threading
from contextlib import suppress
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING

from roovet_webhooks.api.assumed import RETRY_AFTER_HEADER
from roovet_webhooks.api.documented import (
    RATE_LIMIT,
    RATE_LIMIT_HEADER,
    RATE_REMAINING_HEADER,
    RATE_RESET_HEADER,
    RATE_WINDOW,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_POLL = 0.05  # seconds between looks while the first answers are awaited
_SHORTEST = 1.0  # seconds to wait after a 429: the headers have whole seconds
_SAME_WINDOW = 2.0  # seconds by which the resets of one window may differ
_EPOCH_FROM = 1_000_000_000  # a smaller X-RateLimit-Reset is no Unix time


class RateLimiter:
    """Counts the requests of a key in its window. Shared by threads and tasks.

    Before the first answer it grants the documented 60. Each answer then says how many are left; those still under way
    are taken off, as Roovet may not have counted them yet. Answers without the headers switch the counting off.

    Args:
        clock: Returns Unix seconds.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._limit = RATE_LIMIT
        self._left: int | None = RATE_LIMIT  # None: not counted
        self._until: float | None = None  # when the window ends, by our clock; None: not known yet
        self._window: float | None = None  # when it ends, by Roovet's clock
        self._refused = False  # whether a 429 holds requests back until then
        self._under_way = 0

    def acquire(self) -> float:
        """Take one request: return 0.0 for "send it", or the seconds after which to ask again."""
        with self._lock:
            now = self._clock()
            if self._until is not None and now >= self._until:
                self._left = self._limit - self._under_way
                self._until = self._window = None
                self._refused = False
            if self._left is not None:
                if self._left <= 0:
                    return _POLL if self._until is None else self._until - now
                self._left -= 1
            self._under_way += 1
            return 0.0

    def release(self, status: int | None, headers: Mapping[str, str]) -> None:
        """Learn from the answer to a request, or that none came (``status`` is ``None``)."""
        with self._lock:
            self._under_way -= 1
            if status == 429:  # noqa: PLR2004 - Too Many Requests
                self._left, self._refused = 0, True
                wait = retry_after(headers)
                if wait is None:
                    wait = _until_reset(headers, self._clock())
                self._until = self._clock() + max(_SHORTEST, RATE_WINDOW if wait is None else wait)
            elif status is not None and not self._refused:
                # An answer that overtook the 429 would make its short wait one until the window's end.
                self._learn(headers)

    def _learn(self, headers: Mapping[str, str]) -> None:
        now = self._clock()
        remaining, reset = _number(headers, RATE_REMAINING_HEADER), _number(headers, RATE_RESET_HEADER)
        wait = _until_reset(headers, now)
        if remaining is None or reset is None or wait is None:
            if self._until is None:
                self._left = None
            return
        window = reset if reset >= _EPOCH_FROM else now + reset
        left = int(remaining) - self._under_way
        if self._window is not None and self._left is not None:
            if window < self._window - _SAME_WINDOW:
                return  # an answer of the next window overtook this one
            if window <= self._window + _SAME_WINDOW:
                left = min(left, self._left)
        limit = _number(headers, RATE_LIMIT_HEADER)
        self._limit = RATE_LIMIT if limit is None or limit < 1 else int(limit)
        self._left, self._window, self._until = left, window, now + wait


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Return the seconds of ``Retry-After``, which may be a date; ``None`` without a usable one."""
    seconds = _number(headers, RETRY_AFTER_HEADER)
    if seconds is None:
        at, sent = _moment(headers, RETRY_AFTER_HEADER), _moment(headers, "Date")
        seconds = None if at is None or sent is None else at - sent
    return None if seconds is None else max(0.0, seconds)


def _until_reset(headers: Mapping[str, str], now: float) -> float | None:
    """Return the seconds until ``X-RateLimit-Reset``; at most a window, whatever the clocks say."""
    reset = _number(headers, RATE_RESET_HEADER)
    if reset is None:
        return None
    if reset >= _EPOCH_FROM:
        sent = _moment(headers, "Date")  # Roovet's clock, so that a skew of ours does no harm
        reset -= now if sent is None else sent
    return min(max(reset, 0.0), RATE_WINDOW)


def _number(headers: Mapping[str, str], name: str) -> float | None:
    with suppress(KeyError, ValueError):
        value = float(headers[name])
        if abs(value) < float("inf"):
            return value
    return None


def _moment(headers: Mapping[str, str], name: str) -> float | None:
    with suppress(KeyError, ValueError):
        return parsedate_to_datetime(headers[name]).timestamp()
    return None
