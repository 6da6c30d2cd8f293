"""Processes that are killed at any moment, and senders that take no answer but a 200 for one."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from secrets import randbelow
from typing import TYPE_CHECKING, NamedTuple

import httpx

from support import PATH, headers_of, payload

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable, Sequence

# Few in the ordinary run. The long one: ROOVET_KILLS=200.
KILLS = int(os.environ.get("ROOVET_KILLS", "6"))
PATIENCE = 60.0


class Senders:
    """Send deliveries at a port, each again and again until it is acknowledged, as Roovet may or may not."""

    def __init__(self, port: int, count: int = 3) -> None:
        self.acknowledged: set[str] = set()
        self._url = f"http://127.0.0.1:{port}"
        self._sending = threading.Event()
        self._threads = [threading.Thread(target=self._send, daemon=True) for _ in range(count)]

    def start(self) -> None:
        self._sending.set()
        for thread in self._threads:
            thread.start()
        wait_until(lambda: bool(self.acknowledged))

    def stop(self) -> None:
        self._sending.clear()
        for thread in self._threads:
            thread.join(PATIENCE)
        assert not any(thread.is_alive() for thread in self._threads)

    def _send(self) -> None:
        with httpx.Client(base_url=self._url, timeout=10.0, trust_env=False) as client:
            while self._sending.is_set():
                resource = f"ord_{randbelow(10**12)}"
                # Of a second that is over, so that it is due at once.
                raw = payload("order.created", id=resource, ts=int(time.time()) - 5)
                while not self._acknowledged(client, raw):
                    time.sleep(0.05)
                self.acknowledged.add(resource)
                time.sleep(0.01)

    @staticmethod
    def _acknowledged(client: httpx.Client, raw: bytes) -> bool:
        try:
            answer = client.post(PATH, content=raw, headers=headers_of(raw, timestamp=int(time.time())))
        except httpx.HTTPError:
            return False
        return answer.status_code == httpx.codes.OK


class Killed(NamedTuple):
    """What came of the kills.

    Attributes:
        acknowledged: The resources whose delivery was answered with a 200.
        about: How to repeat it, for whoever sees it fail.
    """

    acknowledged: set[str]
    about: str


def killed_at_random(
    makers: Sequence[Callable[[], subprocess.Popen[bytes]]], port: int, *, pause: float = 0.8
) -> Killed:
    """Start processes, send deliveries, and kill one process after the other; all of them run when it is over.

    Args:
        makers: Start the processes.
        port: Where deliveries are sent to.
        pause: Seconds between two kills at most; the longer a process takes to start, the more it must be.
    """
    seed = randbelow(2**32)
    chance = random.Random(seed)  # noqa: S311 - repeatable
    running = [make() for make in makers]
    senders = Senders(port)
    senders.start()
    for _ in range(KILLS):
        time.sleep(chance.uniform(0.05, pause))
        which = chance.randrange(len(makers))
        running[which].send_signal(signal.SIGKILL)
        running[which].wait()
        running[which] = makers[which]()
    senders.stop()
    return Killed(senders.acknowledged, f"seed {seed}, {KILLS} kills, {len(senders.acknowledged)} acknowledged")


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "it did not come to that"
        time.sleep(0.05)
