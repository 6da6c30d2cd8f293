"""Which handler keeps an event loop from running anything else, and for how long.

It is the commonest mistake in async code, and nothing shows it but that everything else is late. Each step of a
coroutine handler is timed; one that is long is reported when it is over, and while it lasts by whoever calls
`report_blocked_loops` from another thread.
"""

from __future__ import annotations

from threading import get_ident
from time import monotonic
from typing import TYPE_CHECKING

from roovet_webhooks.telemetry import log
from roovet_webhooks.telemetry.instrumentation import RUNNING

if TYPE_CHECKING:
    from types import TracebackType

    from roovet_webhooks.telemetry.instrumentation import HandlerRun

# Seconds. A heartbeat and a probe of a load balancer wait that long without harm.
BLOCKED = 1.0


class LoopStep:
    """A block in which a handler's coroutine runs until it awaits something."""

    __slots__ = ("_around", "_began", "_reported", "_run", "_thread")

    def __enter__(self) -> None:
        """Take the time."""
        self._reported = False
        self._run: HandlerRun | None = RUNNING.get()
        self._thread = get_ident()
        self._around = _steps.get(self._thread)
        self._began = monotonic()
        _steps[self._thread] = self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Report the step if it was long."""
        if self._around is None:
            del _steps[self._thread]
        else:
            _steps[self._thread] = self._around
        self._report(monotonic())

    def report_once(self, now: float) -> None:
        """Report the step while it lasts, if it has lasted long."""
        if not self._reported:
            self._reported = self._report(now)

    def _report(self, now: float) -> bool:
        seconds = now - self._began
        if seconds < BLOCKED or self._run is None:
            return False
        log.log_event("handler.blocked_loop", seconds=round(seconds, 1), handler=self._run.handler, **self._run.context)
        return True


# By thread: each runs one event loop.
_steps: dict[int, LoopStep] = {}


def report_blocked_loops() -> None:
    """Report handlers that block an event loop of this process right now, each step once."""
    now = monotonic()
    for step in list(_steps.values()):
        step.report_once(now)
