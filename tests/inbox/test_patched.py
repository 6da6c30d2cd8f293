"""What threads are made of changes after an inbox was made: gevent has patched it. What it had is made anew."""

from __future__ import annotations

import socket
import threading
from typing import TYPE_CHECKING, Any

import pytest

from inbox.worlds import claimed, given, run_in_transaction
from roovet_webhooks.inbox import deadlines
from roovet_webhooks.inbox.protocol import Stored, Verdict
from roovet_webhooks.inbox.states import Outcome
from roovet_webhooks.receiving.bridge import SyncBridge, run

if TYPE_CHECKING:
    from collections.abc import Callable

    from inbox.worlds import World

NEW = Stored(Verdict.NEW)


@pytest.fixture
def patch(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Have locks be of another kind from now on."""
    made = threading.Lock

    def patch() -> None:
        def lock() -> Any:  # noqa: ANN401 - a lock
            return made()

        monkeypatch.setattr(threading, "Lock", lock)

    return patch


@pytest.mark.parametrize("used", [False, True], ids=["unused", "used"])
def test_an_inbox_goes_on(durable: World, patch: Callable[[], None], used: bool) -> None:  # noqa: FBT001 - a case
    inbox = durable.process()
    known = durable.delivery()
    if used:
        given(inbox.store(known, claim=False))
    owner = inbox.owner
    patch()
    assert given(inbox.store(known, claim=False)).verdict is (Verdict.DUPLICATE if used else Verdict.NEW)
    assert inbox.owner != owner
    claim = claimed(inbox, durable.delivery())
    with inbox.renewing(claim):
        run_in_transaction(inbox, claim, lambda connection: durable.book(connection, "once"))
        given(inbox.complete(claim, Outcome.HANDLED))
    assert durable.booked() == ["once"]


def test_the_loop_of_a_sync_server(patch: Callable[[], None]) -> None:
    async def thread() -> threading.Thread:
        return threading.current_thread()

    before = run(SyncBridge().call(thread))
    assert run(SyncBridge().call(thread)) is before
    patch()
    assert run(SyncBridge().call(thread)) is not before


def test_the_watchdog(patch: Callable[[], None], monkeypatch: pytest.MonkeyPatch) -> None:
    watchdog = deadlines._Watchdog()
    monkeypatch.setattr(deadlines, "_WATCHDOG", watchdog)
    before = watchdog._lock
    patch()
    near, far = socket.socketpair()
    with near, far, deadlines.cut_after(near, 60):
        assert watchdog._lock is not before
