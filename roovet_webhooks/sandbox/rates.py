"""The rate limit of the API: so many requests a minute for each key, by the sandbox's clock."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from limits import RateLimitItemPerMinute
from limits.storage import Storage
from limits.strategies import FixedWindowRateLimiter

if TYPE_CHECKING:
    from roovet_webhooks.sandbox.clock import SandboxClock


class _ClockStorage(Storage):
    """Counters that expire by the sandbox's clock: those of the library go by the system's."""

    def __init__(self, clock: SandboxClock) -> None:
        super().__init__()
        self._clock = clock
        self._counters: dict[str, tuple[int, float]] = {}

    @property
    def base_exceptions(self) -> type[Exception]:
        return ValueError

    def incr(self, key: str, expiry: float, amount: int = 1) -> int:
        count, expires = self._counters.get(key, (0, 0.0))
        now = self._clock()
        if expires <= now:
            count, expires = 0, now + expiry
        self._counters[key] = count + amount, expires
        return count + amount

    def get(self, key: str) -> int:
        count, expires = self._counters.get(key, (0, 0.0))
        return count if self._clock() < expires else 0

    def get_expiry(self, key: str) -> float:
        expires = self._counters.get(key, (0, 0.0))[1]
        return max(expires, self._clock())

    def check(self) -> bool:
        return True

    def reset(self) -> int:
        count = len(self._counters)
        self._counters.clear()
        return count

    def clear(self, key: str) -> None:
        self._counters.pop(key, None)


class RateState(NamedTuple):
    """What a key has left.

    Attributes:
        allowed: Whether this request is within the limit.
        limit: Requests a minute.
        remaining: How many are left of them.
        reset: When the minute is over, Unix seconds.
    """

    allowed: bool
    limit: int
    remaining: int
    reset: int


class RateLimit:
    """Counts requests.

    Args:
        clock: The sandbox's clock.
        per_minute: How many requests a key may make in a minute.
    """

    def __init__(self, clock: SandboxClock, per_minute: int) -> None:
        self._item = RateLimitItemPerMinute(per_minute)
        self._storage = _ClockStorage(clock)
        self._limiter = FixedWindowRateLimiter(self._storage)

    def hit(self, key_id: int) -> RateState:
        """Count a request of a key, and return what it has left."""
        allowed = self._limiter.hit(self._item, str(key_id))
        reset, remaining = self._limiter.get_window_stats(self._item, str(key_id))
        # Rounded up: at that second the next request is within the limit.
        return RateState(allowed, self._item.amount, remaining, -int(-reset // 1))

    def forget(self) -> None:
        """Forget all requests."""
        self._storage.reset()
