"""Warns when another worker of an endpoint does not serve the same as this one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from roovet_webhooks import telemetry
from roovet_webhooks.inbox.serving import mismatches

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from roovet_webhooks.inbox.protocol import Served
    from roovet_webhooks.inbox.records import WorkerRecord


class Peers:
    """Compares the heartbeats of an inbox, and warns of each difference once.

    Args:
        owner: Name of this process.
        served: What it serves.
    """

    def __init__(self, owner: str, served: Iterable[Served]) -> None:
        self._owner = owner
        self._endpoints = frozenset(one.endpoint for one in served)
        self._logged: set[str] = set()

    def look(self, workers: Sequence[WorkerRecord]) -> None:
        """Compare the others with this worker."""
        # This worker first: each difference is described from its side.
        mine = [worker for worker in workers if worker.owner == self._owner and worker.endpoint in self._endpoints]
        others = [worker for worker in workers if worker.owner != self._owner and worker.endpoint in self._endpoints]
        found = {finding.message: finding for finding in mismatches([*mine, *others])}
        for message in found.keys() - self._logged:
            telemetry.log_event("worker.differs", reason=message, **found[message].evidence)
        self._logged = set(found)
