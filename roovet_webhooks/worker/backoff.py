"""A store or a broker that is away: told once when it goes and once when it is back, and tried more and more seldom."""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING

from roovet_webhooks import telemetry

if TYPE_CHECKING:
    from collections.abc import Callable

_FIRST_WAIT = 0.25
_LONGEST_WAIT = 15.0


class OutageBackoff:
    """Keeps the account of what cannot be reached.

    Args:
        what: ``store`` or ``broker``.
        endpoint: Whose work has to wait.
        clock: Monotonic seconds.
    """

    def __init__(self, what: str, endpoint: str, clock: Callable[[], float] = monotonic) -> None:
        self._what = what
        self._endpoint = endpoint
        self._clock = clock
        self._since: float | None = None
        self._wait = _FIRST_WAIT

    def failed(self, reason: str) -> float:
        """Note a failure, and return how many seconds to wait before the next try."""
        if self._since is None:
            self._since = self._clock()
            telemetry.log_event(f"worker.{self._what}_down", reason=reason, endpoint=self._endpoint)
        wait, self._wait = self._wait, min(2 * self._wait, _LONGEST_WAIT)
        return wait

    def over(self) -> None:
        """Note a success."""
        if self._since is not None:
            lasted = round(self._clock() - self._since, 1)
            telemetry.log_event(f"worker.{self._what}_back", seconds=lasted, endpoint=self._endpoint)
            self._since, self._wait = None, _FIRST_WAIT
