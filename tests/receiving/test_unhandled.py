"""What a process logs of handlers that it lacks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from roovet_webhooks.receiving.unhandled import MOST_REMEMBERED, Coverage, UnhandledLog

if TYPE_CHECKING:
    import pytest


def test_a_missing_handler_is_logged_once_a_minute_and_the_memory_of_it_is_bounded(
    caplog: pytest.LogCaptureFixture,
) -> None:
    log = UnhandledLog(lambda: 0.0)
    for number in range(MOST_REMEMBERED):
        log.missing(Coverage((), (f"handler-{number}",)), {})
    caplog.clear()

    log.missing(Coverage((), ("handler-0",)), {})
    assert caplog.records == []

    log.missing(Coverage((), ("one more",)), {})
    log.missing(Coverage((), ("handler-0",)), {})
    assert len(caplog.records) == 2
