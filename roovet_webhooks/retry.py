"""When to try again, and when no more: a pure decision, made of numbers."""

from __future__ import annotations

import msgspec

from roovet_webhooks._validation import is_count, is_number
from roovet_webhooks.errors import ConfigurationError

DAY = 86_400.0
_FIRST_MISSING, _MOST_MISSING = 1.0, 300.0


class RetryPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """How long to wait before the next attempt at a delivery, and after how many it is dead.

    The wait doubles from ``initial`` up to ``max_delay``. In memory, where the sender's own retries drive the
    attempts, no delivery dies, and the wait is what a ``Retry-After`` says when a handler raised `RetryLater`
    without a time.

    Attributes:
        initial: Seconds before the second attempt.
        factor: By how much each wait is longer than the one before.
        max_delay: Seconds that no wait exceeds.
        max_attempts: How many attempts may fail or crash; with the defaults the last is about ten hours after the
            first.
        max_crashes: How many attempts may crash: end with the process that made them.
        max_age: Seconds for which a delivery may be put off: by `RetryLater` since its arrival, and for want of a
            handler (`after_missing`) since that was first found.

    Raises:
        ConfigurationError: A number is out of its range.

    Example:
        >>> [RetryPolicy().delay(attempt) for attempt in (1, 2, 3, 20)]
        [5.0, 10.0, 20.0, 3600.0]
        >>> RetryPolicy(max_attempts=2).after_failure(failures=1, crashes=0)
        5.0
        >>> RetryPolicy(max_attempts=2).after_failure(failures=2, crashes=0) is None
        True
    """

    initial: float = 5.0
    factor: float = 2.0
    max_delay: float = 3600.0
    max_attempts: int = 20
    max_crashes: int = 3
    max_age: float = 3 * DAY

    def __post_init__(self) -> None:
        """Refuse numbers that decide nothing."""
        if not all(map(is_number, (self.initial, self.factor, self.max_delay))) or not (
            0 < self.initial <= self.max_delay < float("inf") and 1 <= self.factor < float("inf")
        ):
            message = f"a retry policy needs 0 < initial <= max_delay and factor >= 1, not {self!r}"
            raise ConfigurationError(message)
        counts = is_count(self.max_attempts) and is_count(self.max_crashes) and is_number(self.max_age)
        if not (counts and self.max_attempts >= 1 and self.max_crashes >= 1 and self.max_age >= 0):
            message = (
                "a retry policy needs max_attempts and max_crashes of 1 or more and a max_age of 0 s or more, "
                f"not {self!r}"
            )
            raise ConfigurationError(message)

    def delay(self, attempt: int) -> float:
        """Return the seconds to wait after the given attempt, counted from 1."""
        try:
            return min(self.max_delay, self.initial * self.factor ** (max(attempt, 1) - 1))
        except OverflowError:
            return self.max_delay

    def after_failure(self, *, failures: int, crashes: int) -> float | None:
        """Return the seconds to wait after an attempt that failed, or ``None``: no attempt is left.

        Args:
            failures: How many attempts have failed, this one included.
            crashes: How many have crashed.
        """
        spent = failures + crashes
        return None if spent >= self.max_attempts else self.delay(spent)

    def after_crash(self, *, failures: int, crashes: int) -> float | None:
        """Return the seconds to wait after an attempt that crashed, or ``None``; arguments as `after_failure`."""
        return None if crashes >= self.max_crashes else self.after_failure(failures=failures, crashes=crashes)

    def after_missing(self, *, age: float) -> float | None:
        """Return the seconds to wait for a process that has all handlers of a delivery, or ``None``: too long.

        Short at first, since while a deployment rolls the next process may have them, and up to five minutes later.

        Args:
            age: Seconds since a process first went without one of them.
        """
        return None if age >= self.max_age else min(max(_FIRST_MISSING, age / 10), _MOST_MISSING)

    def after_postponement(self, *, age: float, after: float) -> float | None:
        """Return the seconds to wait after a handler raised `RetryLater`, or ``None``: it has been put off too long.

        Args:
            age: Seconds since the delivery arrived.
            after: Seconds that the handler asked for.
        """
        return None if age >= self.max_age else after
