"""How fast a worker empties an inbox: ready deliveries of a handler that does nothing, SQLite, synced at each commit.

Logging is at WARNING. Each round stores the deliveries in a new file and has one worker in this process run them.
Run: ``python tests/benchmarks/draining.py``; ``--profile`` shows where the time goes.
"""

from __future__ import annotations

import argparse
import cProfile
import logging
import pstats
import statistics
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, cast

from deliveries import PATH, SECRET, roovet_body, roovet_headers

from roovet_webhooks import Event, WebhookReceiver, WebhookRequest
from roovet_webhooks.inbox.sql import SQLInbox
from roovet_webhooks.worker import Worker

if TYPE_CHECKING:
    from collections.abc import Callable

GOAL = 2000


def write(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def filled(folder: Path, count: int, *, coroutine: bool) -> tuple[WebhookReceiver, Callable[[], int]]:
    """Return a receiver whose inbox holds so many ready deliveries, and what counts the handled ones."""
    receiver = WebhookReceiver(SECRET, inbox=SQLInbox(f"sqlite:///{folder / 'inbox.db'}", settle=0, max_waiting=count))
    handled: list[None] = []
    if coroutine:

        @receiver.on("*")
        async def note(_event: Event) -> None:
            handled.append(None)
    else:

        @receiver.on("*", name="note")
        def note_too(_event: Event) -> None:
            handled.append(None)

    inbox = cast("SQLInbox", receiver.inbox)
    answers = []
    for _ in range(count):
        body = roovet_body(300)
        headers = [(name.encode(), value.encode()) for name, value in roovet_headers(body).items()]
        answers.append(inbox.store(receiver.open(WebhookRequest("POST", PATH, headers, body)), claim=False))
    for answer in answers:
        answer.result(60)
    return receiver, lambda: len(handled)


def emptied(receiver: WebhookReceiver, handled: Callable[[], int], count: int, concurrency: int) -> float:
    """Return the seconds in which a worker runs all deliveries, its start and the last settlement included."""
    inbox = cast("SQLInbox", receiver.inbox)
    worker = Worker(receiver, concurrency=concurrency)

    def stop_when_done() -> None:
        while handled() < count:
            time.sleep(0.001)
        worker.stop()

    watch = threading.Thread(target=stop_when_done)
    watch.start()
    began = time.perf_counter()
    worker.run()
    taken = time.perf_counter() - began
    watch.join()
    (stats,) = inbox.stats()
    if stats.counts != {"ready": 0, "claimed": 0, "done": count, "dead": 0}:
        message = f"not all were done: {stats.counts}"
        raise SystemExit(message)
    inbox.close()
    return taken


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--concurrency", type=int, default=16)
    parser.add_argument("--folder", type=Path, help="on which disk; the temporary folder's by default")
    parser.add_argument("--profile", action="store_true")
    options = parser.parse_args()
    logging.basicConfig(level=logging.WARNING)
    for kind in ("coroutine", "function"):
        rates: list[float] = []
        for _ in range(options.rounds):
            with tempfile.TemporaryDirectory(dir=options.folder) as folder:
                receiver, handled = filled(Path(folder), options.count, coroutine=kind == "coroutine")
                profile = cProfile.Profile()
                if options.profile:
                    profile.enable()
                taken = emptied(receiver, handled, options.count, options.concurrency)
                profile.disable()
                rates.append(options.count / taken)
                if options.profile:
                    pstats.Stats(profile).sort_stats("tottime").print_stats(30)
        median = statistics.median(rates)
        spread = f"{min(rates):.0f} to {max(rates):.0f}"
        write(f"{kind:<10} {median:>6.0f} deliveries/s (median of {len(rates)}; {spread}); the goal is {GOAL}")


if __name__ == "__main__":
    main()
