"""What time it is, for a step that cannot be undone: erasing what is remembered.

A clock that is ahead for a moment (a machine whose clock has lost its battery, a virtual machine that resumes) would
have everything erased, and copies would run again. So the clock alone is not believed.

The record proves a time that has been reached: each delivery was received within the tolerance of its signature. From
there on monotonic time counts. After a restart that would hold up a store to which nothing comes, so a clock that has
kept step with monotonic time for long is believed as well.
"""

from __future__ import annotations

import threading

from roovet_webhooks import telemetry

# Seconds of monotonic time for which the clock must have kept step, and by how much it may have been off, milliseconds.
STEADY = 3600.0
_DRIFT = 60_000
# Milliseconds by which the clock may be ahead of the record before that is logged: a day without deliveries is usual.
_DOUBTED = 86_400_000


class TrustedTime:
    """Remembers what the clock and the record have said. Pure but for its log: told what time it is."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._offset: int | None = None
        self._steady_since = 0.0
        self._proven: tuple[int, float] | None = None
        self._logged = False

    def look(self, now: int, moment: float) -> None:
        """Compare the clock with monotonic time.

        Args:
            now: Milliseconds, by the store's clock.
            moment: Monotonic seconds.
        """
        with self._lock:
            self._look(now, moment)

    def _look(self, now: int, moment: float) -> None:
        offset = now - round(1000 * moment)
        if self._offset is None or abs(offset - self._offset) > _DRIFT:
            self._offset, self._steady_since = offset, moment

    def prove(self, received_at: int, moment: float) -> None:
        """Take note of a delivery.

        Args:
            received_at: When it was received, milliseconds.
            moment: Monotonic seconds, now.
        """
        with self._lock:
            if self._proven is None or received_at > self._proven_at(*self._proven, moment):
                self._proven = received_at, moment

    @staticmethod
    def _proven_at(received_at: int, since: float, moment: float) -> int:
        return received_at + round(1000 * (moment - since))

    def now(self, now: int, moment: float) -> int:
        """Return milliseconds that have been reached for sure, as far as anybody can know; never more than ``now``.

        Args:
            now: Milliseconds, by the store's clock.
            moment: Monotonic seconds.
        """
        with self._lock:
            self._look(now, moment)
            is_steady = moment - self._steady_since >= STEADY
            trusted = now if is_steady or self._proven is None else min(now, self._proven_at(*self._proven, moment))
            is_doubted = now - trusted > _DOUBTED
            is_news, self._logged = is_doubted and not self._logged, is_doubted
        if is_news:
            telemetry.log_event("inbox.clock_doubted", ahead=round((now - trusted) / 1000))
        return trusted
