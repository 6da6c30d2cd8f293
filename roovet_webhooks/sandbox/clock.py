"""The sandbox's clock: the real time, plus what a test has let pass."""

from __future__ import annotations

import threading
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


class SandboxClock:
    """A clock that can be advanced, and never goes back.

    Args:
        base: What it goes by, Unix seconds.

    Example:
        >>> clock = SandboxClock(lambda: 1762782800.0)
        >>> clock.advance(60)
        >>> clock()
        1762782860.0
    """

    def __init__(self, base: Callable[[], float] = time.time) -> None:
        self._base = base
        self._lock = threading.Lock()
        self.offset: float = 0.0

    def __call__(self) -> float:
        """Return the time, Unix seconds."""
        return self._base() + self.offset

    def milliseconds(self) -> int:
        """Return the time in Unix milliseconds, as the tables hold it."""
        return int(self() * 1000)

    def advance(self, seconds: float) -> None:
        """Let time pass.

        Args:
            seconds: How much, at least 0.

        Raises:
            ValueError: It is negative, or no finite number.
        """
        if not 0 <= seconds < float("inf"):
            message = f"time goes forward only: advance by 0 seconds or more, not {seconds!r}"
            raise ValueError(message)
        with self._lock:
            self.offset += seconds

    def __repr__(self) -> str:
        """Show how far it is ahead."""
        return f"SandboxClock(offset={self.offset:g})"


def datetime_of(milliseconds: int) -> datetime:
    """Return Unix milliseconds as an aware `datetime` of whole seconds, as the vendor shows times."""
    return datetime.fromtimestamp(milliseconds // 1000, UTC)
