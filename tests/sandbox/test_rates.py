"""The counters behind the rate limit go by the sandbox's clock."""

from __future__ import annotations

from roovet_webhooks.sandbox.clock import SandboxClock
from roovet_webhooks.sandbox.rates import _ClockStorage


def test_a_counter_expires_by_the_clock_of_the_sandbox() -> None:
    clock = SandboxClock(lambda: 1000.0)
    counters = _ClockStorage(clock)

    assert counters.incr("key", 60, 2) == 2
    assert counters.get_expiry("key") == 1060
    clock.advance(120)

    assert counters.get("key") == 0
    assert counters.get_expiry("key") == clock() == 1120
    assert counters.incr("key", 60) == 1
    counters.clear("key")
    assert counters.get("key") == 0
    counters.incr("other", 60)
    assert counters.reset() == 1


def test_it_is_a_storage_that_is_always_there() -> None:
    counters = _ClockStorage(SandboxClock())
    assert counters.check()
    assert counters.base_exceptions is ValueError
