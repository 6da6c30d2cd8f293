"""When to try again: a pure decision, made of numbers."""

from __future__ import annotations

import msgspec

from roovet_webhooks.errors import ConfigurationError


class RetryPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """How long to wait before the next attempt at a delivery.

    The wait doubles from ``first`` up to ``most``. In memory, where the sender's own retries drive the
    attempts, it is what a ``Retry-After`` says when a handler raised `RetryLater` without a time.

    Attributes:
        first: Seconds before the second attempt.
        factor: By how much each wait is longer than the one before.
        most: Seconds that no wait exceeds.

    Raises:
        ConfigurationError: A number is out of its range.

    Example:
        >>> [RetryPolicy().delay(attempt) for attempt in (1, 2, 3, 20)]
        [5.0, 10.0, 20.0, 3600.0]
    """

    first: float = 5.0
    factor: float = 2.0
    most: float = 3600.0

    def __post_init__(self) -> None:
        """Refuse numbers that decide nothing."""
        if not (0 < self.first <= self.most < float("inf") and 1 <= self.factor < float("inf")):
            message = f"a retry policy needs 0 < first <= most and factor >= 1, not {self!r}"
            raise ConfigurationError(message)

    def delay(self, attempt: int) -> float:
        """Return the seconds to wait after the given attempt, counted from 1."""
        try:
            return min(self.most, self.first * self.factor ** (max(attempt, 1) - 1))
        except OverflowError:
            return self.most
