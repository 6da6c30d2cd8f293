"""What stands still in a test: the signing secret, the path, and the time."""

from __future__ import annotations

SECRET = "whsec_for_tests_5f2b8c1e9a7d4036b1c2d3e4"  # noqa: S105 - signs tests, and nothing else
PATH = "/webhooks/roovet"
NOW = 1_762_782_800  # 2025-11-10T13:53:20Z, the time of the vendor's example


class Clock:
    """A clock that stands still until it is told to go on: ``WebhookReceiver(clock=…)`` takes it.

    Args:
        now: Where it stands, Unix seconds.

    Example:
        >>> clock = Clock()
        >>> clock.tick(301)
        >>> clock()
        1762783101.0
    """

    def __init__(self, now: float = NOW) -> None:
        self._now = float(now)

    def __call__(self) -> float:
        """Return the time, Unix seconds."""
        return self._now

    def tick(self, seconds: float = 1.0) -> None:
        """Let time pass.

        Raises:
            ValueError: The seconds are negative, infinite or NaN. For what was signed ahead of the clock, sign
                it so: ``age=-301``.
        """
        if not 0 <= seconds < float("inf"):
            message = f"time passes by 0 seconds or more, not {seconds!r}; sign ahead of the clock with age=-…"
            raise ValueError(message)
        self._now += seconds

    def __repr__(self) -> str:
        """Show the time."""
        return f"Clock({self._now!r})"
