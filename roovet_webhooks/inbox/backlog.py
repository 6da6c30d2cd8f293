"""Whether there is room for more, and somebody to do the work: looked at now and then, not for each delivery."""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING, Protocol

from roovet_webhooks import telemetry

if TYPE_CHECKING:
    from collections.abc import Callable

LOOK_EVERY = 1.0
ASK_FOR_WORKERS_EVERY = 60.0
HEARTBEAT_IS_OLD = 60_000


class StoreCounts(Protocol):
    """What a store can count, in a transaction that is open."""

    def free_disk(self) -> int | None:
        """Return the free bytes on the disk, where that can be known."""
        ...

    def open_deliveries(self, most: int) -> int:
        """Count the open deliveries, up to about ``most``: what a full inbox costs has a bound."""
        ...

    def workers(self, endpoint: str) -> int:
        """Count the workers of an endpoint that have been heard of within `HEARTBEAT_IS_OLD` milliseconds."""
        ...


class Backlog:
    """The limits of an inbox.

    Args:
        most: How many deliveries may be open.
        min_free_disk: Bytes that must be free.
        clock: Monotonic seconds.

    Attributes:
        full: Why no new delivery is taken, or ``None``.
    """

    def __init__(self, most: int, min_free_disk: int, clock: Callable[[], float] = monotonic) -> None:
        self.full: str | None = None
        self._most = most
        self._min_free_disk = min_free_disk
        self._clock = clock
        self._look_at = 0.0
        self._workers_needed: dict[str, float] = {}

    def is_time_to_look(self, endpoint: str, *, workers_needed: bool) -> bool:
        """Say whether to `look` again, and note that an endpoint's deliveries wait for a worker."""
        now = self._clock()
        if workers_needed and endpoint not in self._workers_needed:
            self._workers_needed[endpoint] = now + ASK_FOR_WORKERS_EVERY
        if now < self._look_at:
            return False
        self._look_at = now + LOOK_EVERY
        return True

    def look(self, counts: StoreCounts) -> None:
        """Look at the disk, the number of open deliveries and the workers' heartbeats."""
        began = self._clock()
        self.full = self.fault(counts)
        moment = self._clock()
        # A long count is made more seldom: it shares its transaction with those who wait to be answered.
        self._look_at = moment + max(LOOK_EVERY, 20 * (moment - began))
        for endpoint, ask_at in self._workers_needed.items():
            if moment >= ask_at:
                self._workers_needed[endpoint] = moment + ASK_FOR_WORKERS_EVERY
                if not counts.workers(endpoint):
                    telemetry.log_event("inbox.no_worker", endpoint=endpoint)

    def fault(self, counts: StoreCounts) -> str | None:
        """Return why no new delivery can be taken; ``None`` when there is room."""
        free = counts.free_disk()
        if free is not None and free < self._min_free_disk:
            return f"the disk has {free} bytes left, and min_free_disk is {self._min_free_disk}"
        count = counts.open_deliveries(self._most)
        return f"{count} deliveries are open, and max_backlog is {self._most}" if count >= self._most else None
