"""Guards of a driver's own connection, without a server."""

from __future__ import annotations

import socket
import threading
from typing import TYPE_CHECKING

from roovet_webhooks.inbox import drivers
from roovet_webhooks.inbox.drivers import close_safely

if TYPE_CHECKING:
    import pytest


class Driver:
    """What `close_safely` needs of psycopg's connection."""

    pgconn = object()

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.ours, self.theirs = socket.socketpair()
        self.closes = 0

    def fileno(self) -> int:
        return self.ours.fileno()

    def close(self) -> None:
        self.closes += 1


def test_an_idle_connection_is_closed_at_once() -> None:
    driver = Driver()
    close_safely(driver)
    close_safely(driver)

    driver.close()

    assert driver.closes == 1
    assert not driver.lock.locked()
    for end in (driver.ours, driver.theirs):
        end.close()


def test_a_busy_connection_is_cut_and_then_closed() -> None:
    driver = Driver()
    close_safely(driver)

    def wait_for_the_server() -> None:
        with driver.lock:
            inside.set()
            assert driver.ours.recv(1) == b""  # the end of what was cut
            assert driver.closes == 0

    inside = threading.Event()
    thread = threading.Thread(target=wait_for_the_server)
    thread.start()
    assert inside.wait(30)
    driver.close()
    thread.join(30)

    assert driver.closes == 1
    for end in (driver.ours, driver.theirs):
        end.close()


def test_one_that_stays_busy_is_left_to_the_collector(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drivers, "_PATIENCE", 0.01)
    driver = Driver()
    close_safely(driver)

    with driver.lock:
        driver.close()

    assert driver.closes == 0
    for end in (driver.ours, driver.theirs):
        end.close()
