"""What becomes of events that a process does not handle, or not as the process that accepted them would have.

Several versions of an application, or several applications, may work on one store: while a deployment rolls, after a
handler was renamed, where a worker was started with the wrong module. A delivery therefore keeps the names of the
handlers that were registered when it was accepted, and ends as done only once these have run.
"""

from __future__ import annotations

import difflib
from time import monotonic
from typing import TYPE_CHECKING, NamedTuple

from roovet_webhooks import telemetry
from roovet_webhooks.routing import ANY_HANDLER

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from roovet_webhooks.events import Decode
    from roovet_webhooks.inbox.protocol import Claim
    from roovet_webhooks.routing import Handler, Plan

AGAIN_AFTER = 60.0
MOST_REMEMBERED = 1024


class Coverage(NamedTuple):
    """What a process may run of a delivery, and what of it belongs to another.

    Attributes:
        runs: The handlers that may run here.
        missing: Names of handlers that were registered when the delivery was accepted, and are not here.
        held: Names of handlers here that must not run, since each could be a missing one under a new name.
    """

    runs: Sequence[tuple[Handler, Decode]]
    missing: tuple[str, ...] = ()
    held: tuple[str, ...] = ()

    @property
    def complete(self) -> bool:
        """Whether the delivery is done once these handlers have succeeded."""
        return not (self.missing or self.held)

    @property
    def reason(self) -> str:
        """Which handlers are missing, for the log and the record."""
        if not self.missing:
            return (
                f"{_listed(self.held)} was not registered when the delivery was accepted, and a handler that has "
                "succeeded is not registered here: if it was renamed, give it its old name, on(…, name='…')"
            )
        reason = f"not registered in this process, but where the delivery was accepted: {_listed(self.missing)}"
        return f"{reason} (here: {_listed(self.held)})" if self.held else reason


def coverage(claim: Claim, matched: Sequence[tuple[Handler, Decode]]) -> Coverage:
    """Compare the handlers of this process with those for which a delivery was accepted.

    Args:
        claim: The claim on it.
        matched: The handlers here that want its event.
    """
    expected = claim.handlers
    here = {handler.name for handler, _ in matched}
    if expected is None or here.issuperset(expected) or (here and ANY_HANDLER in expected):
        return Coverage(matched)
    absent = [name for name in expected if name not in here]
    held = tuple(handler.name for handler, _ in matched if handler.name not in expected)
    runs = [(handler, decode) for handler, decode in matched if handler.name in expected]
    return Coverage(runs, tuple(name for name in absent if name not in claim.succeeded), held)


def _listed(names: Sequence[str]) -> str:
    return ", ".join("any handler" if name == ANY_HANDLER else name for name in names)


class UnhandledLog:
    """Logs what is not handled: each event without a handler once, and each missing handler once a minute.

    Args:
        clock: Monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        # Names come from a verified sender, but nothing bounds how many there are.
        self._ignored: set[str] = set()
        self._missing: dict[tuple[str, ...], float] = {}

    def ignored(self, event: str, plan: Plan, endpoint: str) -> None:
        """Warn of an event that no handler wants, with the registered name that is most like it."""
        if event in self._ignored or len(self._ignored) >= MOST_REMEMBERED:
            return
        self._ignored.add(event)
        near = difflib.get_close_matches(event, plan.patterns, n=1)
        telemetry.log_event("event.unhandled", event_type=event, nearest=near[0] if near else None, endpoint=endpoint)

    def missing(self, found: Coverage, context: Mapping[str, object]) -> None:
        """Report handlers that this process lacks."""
        now = self._clock()
        names = (*found.missing, *found.held)
        if now < self._missing.get(names, now):
            return
        if len(self._missing) >= MOST_REMEMBERED:
            self._missing.clear()
        self._missing[names] = now + AGAIN_AFTER
        telemetry.log_event("handler.missing", handlers=list(found.missing), reason=found.reason, **context)
