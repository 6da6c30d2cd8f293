"""A worker runs what was recorded: everything, so many at a time, alone where it must, and until it is told to stop."""

from __future__ import annotations

import asyncio
import contextvars
import os
import signal
import threading
import time
import traceback
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, TypeVar, cast

import pytest
from support.worker import deliver, eventually, nothing, receiver_on, records_of, soon, states_of, written

from roovet_webhooks import (
    ConfigurationError,
    Delivery,
    Event,
    InboxUnavailable,
    MemoryInbox,
    RetryPolicy,
    WebhookReceiver,
)
from roovet_webhooks.inbox.future import InboxFuture
from roovet_webhooks.inbox.sql import SQLInbox
from roovet_webhooks.worker import Worker, poller as feeds, run_worker, service, working
from roovet_webhooks.worker.bridge import WorkerBridge
from roovet_webhooks.worker.capacity import MOST_AHEAD, SOON, Capacity, Throughput
from roovet_webhooks.worker.threads import Threads

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Sequence
    from pathlib import Path

    from roovet_webhooks.inbox.protocol import Claim, Claimed, OnDead, Ordering, Served
    from roovet_webhooks.inbox.sql.committer import Operation
    from roovet_webhooks.inbox.states import Outcome


T = TypeVar("T")


@contextmanager
def started(*receivers: WebhookReceiver, **options: float) -> Generator[Worker]:
    worker = Worker(*receivers, **{"poll": 0.05, "grace": 10.0, **options})  # type: ignore[arg-type] # a count is an int
    worker.start()
    try:
        yield worker
    finally:
        worker.close()
        for receiver in receivers:
            cast("SQLInbox", receiver.inbox).close()


def logged(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage().split(" ")[0] for record in caplog.records]


def test_sync_and_async_handlers_run_and_the_deliveries_are_done(tmp_path: Path) -> None:
    receiver = receiver_on(tmp_path)
    ran: list[tuple[str, str]] = []

    @receiver.on("order.created")
    def take(event: Event) -> None:
        ran.append((event.event, threading.current_thread().name))

    @receiver.on("order.paid")
    async def book(event: Event) -> None:
        await asyncio.sleep(0)
        ran.append((event.event, threading.current_thread().name))

    for event in ("order.created", "order.paid", "wallet.credited"):
        deliver(receiver, event)
    with started(receiver):
        eventually(lambda: states_of(receiver) == ["done"] * 3)
        assert [record.outcome for record in records_of(receiver)] == ["handled", "handled", "ignored"]
        deliver(receiver)
        eventually(lambda: states_of(receiver) == ["done"] * 4)
        assert [stats.workers for stats in cast("SQLInbox", receiver.inbox).stats()] == [1]
    assert sorted(ran) == [
        ("order.created", "roovet-webhooks-handler"),
        ("order.created", "roovet-webhooks-handler"),
        ("order.paid", "roovet-webhooks-worker"),
    ]


def test_several_receivers_share_a_worker(tmp_path: Path) -> None:
    orders = receiver_on(tmp_path, endpoint="orders")
    wallets = WebhookReceiver(inbox=orders.inbox, endpoint="wallets")
    (tmp_path / "other").mkdir()
    others = receiver_on(tmp_path / "other", endpoint="others")
    ran: list[str] = []
    for receiver in (orders, wallets, others):

        @receiver.on("*", name="note")
        def note(_event: Event, delivery: Delivery) -> None:
            ran.append(delivery.endpoint)

    secret = "whsec_5f2b8c1e9a7d4036b1c2d3e4f5061728"
    with wallets.override(secret=secret):
        for receiver in (orders, wallets, others):
            deliver(receiver, count=20)
    # A worker needs no secret: `wallets` has none now.
    with started(orders, wallets, others, concurrency=2):
        eventually(lambda: len(ran) == 60)
        eventually(lambda: {*states_of(orders), *states_of(wallets), *states_of(others)} == {"done"})
        beaten = {stats.endpoint: stats.workers for stats in cast("SQLInbox", orders.inbox).stats()}
        assert beaten == {"orders": 1, "wallets": 1}


def test_no_more_handlers_run_at_a_time_than_may(tmp_path: Path) -> None:
    receiver = receiver_on(tmp_path)
    running, most = [0], [0]
    lock = threading.Lock()

    def count(change: int) -> None:
        with lock:
            running[0] += change
            most[0] = max(most[0], running[0])

    @receiver.on("order.created")
    def slow(_event: Event) -> None:
        count(1)
        time.sleep(0.01)
        count(-1)

    @receiver.on("order.paid")
    async def also_slow(_event: Event) -> None:
        count(1)
        await asyncio.sleep(0.01)
        count(-1)

    for _ in range(20):
        deliver(receiver)
        deliver(receiver, "order.paid")
    with started(receiver, concurrency=3):
        eventually(lambda: states_of(receiver) == ["done"] * 40)
    assert most[0] == 3


def test_a_failed_delivery_is_tried_again(tmp_path: Path) -> None:
    receiver = receiver_on(tmp_path, retry=RetryPolicy(initial=0.02, max_delay=0.02))
    attempts: list[int] = []

    @receiver.on("order.created")
    def fail_twice(_event: Event, delivery: Delivery) -> None:
        attempts.append(delivery.attempt)
        if len(attempts) < 3:
            raise ValueError

    deliver(receiver)
    with started(receiver):
        eventually(lambda: states_of(receiver) == ["done"])
    assert attempts == [1, 2, 3]


def test_a_handler_that_ends_the_program_only_fails(tmp_path: Path) -> None:
    receiver = receiver_on(tmp_path, retry=RetryPolicy(max_attempts=1))

    @receiver.on("order.created")
    def leave(_event: Event) -> None:
        raise SystemExit

    @receiver.on("order.paid")
    async def leave_too(_event: Event) -> None:
        raise SystemExit

    for event in ("order.created", "order.paid", "order.created", "wallet.credited"):
        deliver(receiver, event)
    with started(receiver):
        eventually(lambda: states_of(receiver) == ["dead", "dead", "dead", "done"])
    assert {record.failures for record in records_of(receiver)} == {1, 0}


class Panic(BaseException):
    """What an extension module raises when it panics."""


@pytest.mark.parametrize("raised", [Panic, KeyboardInterrupt, SystemExit, GeneratorExit, asyncio.CancelledError])
@pytest.mark.parametrize("kind", ["sync", "async"])
def test_whatever_a_handler_raises_counts_and_reaches_no_loop(
    tmp_path: Path, raised: type[BaseException], kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    receiver = receiver_on(tmp_path, retry=RetryPolicy(initial=0.01, max_attempts=2))

    def broken(_event: Event) -> None:
        raise raised

    async def broken_too(event: Event) -> None:
        await asyncio.sleep(0)
        broken(event)

    receiver.on("order.created")(broken if kind == "sync" else broken_too)
    receiver.on("order.paid")(nothing)
    deliver(receiver)
    deliver(receiver, "order.paid")
    with started(receiver):
        eventually(lambda: states_of(receiver) == ["dead", "done"])
    assert [record.failures for record in records_of(receiver)] == [2, 0]
    assert {record.name for record in caplog.records} == {"roovet_webhooks"}
    failed = next(record for record in caplog.records if record.getMessage().startswith("handler.failed"))
    assert failed.exc_info is not None
    error = failed.exc_info[1]
    while error is not None:
        frames = [frame.f_globals["__name__"] for frame, _ in traceback.walk_tb(error.__traceback__)]
        assert not [name for name in frames if name.startswith("roovet_webhooks")], f"{frames}: they hold the event"
        error = error.__cause__


def test_who_waits_behind_a_blocked_loop_keeps_his_claim(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    receiver = receiver_on(tmp_path, lease=0.6)
    ran: list[str] = []
    others = receiver_on(tmp_path, lease=0.6)  # the inbox of another process

    @receiver.on("order.created", name="block")
    async def block(_event: Event) -> None:
        ran.append("block")
        time.sleep(3)  # noqa: ASYNC251 - the mistake in question

    @receiver.on("order.paid")
    async def harmless(_event: Event) -> None:
        ran.append("harmless")

    deliver(receiver)
    deliver(receiver, "order.paid", count=3)
    reaped: list[object] = []
    with started(receiver, concurrency=4):
        eventually(lambda: bool(ran))
        cast("SQLInbox", others.inbox).attach("default", RetryPolicy())
        while ran == ["block"]:
            reaped += cast("SQLInbox", others.inbox).reap().result(20)
            time.sleep(0.05)
        eventually(lambda: states_of(receiver) == ["done"] * 4)
    cast("SQLInbox", others.inbox).close()
    assert not reaped
    assert sorted(ran) == ["block", "harmless", "harmless", "harmless"]
    blocked = [vars(one)["roovet"] for one in caplog.records if one.getMessage().startswith("handler.blocked_loop")]
    # Said while it lasts, by the thread that renews, and when it is over.
    assert {one["handler"] for one in blocked} == {"block"}
    assert len(blocked) == 2
    assert blocked[1]["seconds"] >= 3 > blocked[0]["seconds"] >= 1


def test_deliveries_of_a_resource_run_one_after_the_other(tmp_path: Path) -> None:
    receiver = receiver_on(tmp_path, ordering="resource")
    ran: list[int] = []
    running: set[str] = set()
    overlaps: list[str] = []

    @receiver.on("order.created")
    def take(event: Event) -> None:
        if event.id in running:
            overlaps.append(event.id)
        running.add(event.id)
        time.sleep(0.002)
        running.discard(event.id)
        if event.id == "ord_a":
            ran.append(event.ts)

    now = int(time.time()) - 60
    for ts in (5, 3, 1, 4, 2):
        deliver(receiver, id="ord_a", ts=now + ts)
        deliver(receiver, id="ord_b", ts=now + ts)
    with started(receiver):
        eventually(lambda: states_of(receiver) == ["done"] * 10)
    assert ran == [now + ts for ts in (1, 2, 3, 4, 5)]
    assert overlaps == []


def test_a_dead_one_holds_its_resource_back_until_it_is_replayed_or_purged(tmp_path: Path) -> None:
    receiver = receiver_on(tmp_path, ordering="resource", on_dead="block", retry=RetryPolicy(max_attempts=1))

    @receiver.on("order.created")
    def fail(_event: Event) -> None:
        raise ValueError

    receiver.on("order.paid")(nothing)
    now = int(time.time()) - 60
    deliver(receiver, id="ord_a", ts=now)
    deliver(receiver, "order.paid", id="ord_a", ts=now + 1)
    deliver(receiver, "order.paid", id="ord_b", ts=now + 1)
    with started(receiver):
        eventually(lambda: states_of(receiver) == ["dead", "ready", "done"])
        time.sleep(0.2)
        assert states_of(receiver) == ["dead", "ready", "done"]
        cast("SQLInbox", receiver.inbox).purge(1).result(10)
        eventually(lambda: states_of(receiver) == ["dead", "done", "done"])


# Stopping


def test_what_runs_may_end_and_what_waits_is_given_back(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    receiver = receiver_on(tmp_path)
    begun, go_on = threading.Event(), threading.Event()

    @receiver.on("order.created")
    def wait(_event: Event) -> None:
        begun.set()
        go_on.wait(20)

    @receiver.on("order.created")
    def also(_event: Event) -> None: ...

    deliver(receiver, count=3)
    with started(receiver, concurrency=1) as worker:
        assert begun.wait(20)
        worker.stop()
        time.sleep(0.05)
        deliver(receiver)
        go_on.set()
    assert states_of(receiver) == ["done", "ready", "ready", "ready"]
    assert [(record.failures, record.crashes) for record in records_of(receiver)] == [(0, 0)] * 4
    assert logged(caplog)[-1] == "worker.stopped"


def test_what_still_runs_after_the_grace_is_given_back_and_not_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    receiver = receiver_on(tmp_path)
    begun: list[str] = []
    go_on = threading.Event()

    @receiver.on("order.created")
    def stuck(event: Event) -> None:
        begun.append(event.event)
        go_on.wait(20)

    @receiver.on("order.paid")
    async def also_stuck(event: Event) -> None:
        begun.append(event.event)
        await asyncio.sleep(20)

    deliver(receiver)
    deliver(receiver, "order.paid")
    with started(receiver, grace=0.1) as worker:
        eventually(lambda: len(begun) == 2)
        worker.stop()
        eventually(lambda: "worker.stopped" in logged(caplog))
    go_on.set()
    assert states_of(receiver) == ["ready", "ready"]
    assert [(record.attempts, record.failures, record.crashes) for record in records_of(receiver)] == [(1, 0, 0)] * 2
    stopped = next(record for record in caplog.records if record.getMessage().startswith("worker.stopped"))
    assert vars(stopped)["roovet"]["released"] == 2


def test_deliveries_that_wait_for_a_slot_are_given_back_at_once(tmp_path: Path) -> None:
    receiver = receiver_on(tmp_path)
    begun, go_on = threading.Event(), threading.Event()

    @receiver.on("order.created")
    def quick(_event: Event) -> None: ...

    @receiver.on("order.paid")
    def slow(_event: Event) -> None:
        begun.set()
        go_on.wait(20)

    deliver(receiver, count=200)
    deliver(receiver, "order.paid", count=100)
    with started(receiver, concurrency=1) as worker:
        assert begun.wait(20)
        eventually(lambda: states_of(receiver).count("claimed") >= 1)
        time.sleep(0.1)
        worker.stop()
        # While one still runs, the others are free for other workers already.
        eventually(lambda: states_of(receiver).count("claimed") == 1)
        assert states_of(receiver).count("ready") == 99
        go_on.set()
    assert sum(record.crashes + record.failures for record in records_of(receiver)) == 0


def test_who_has_had_a_slot_is_not_turned_away_and_who_has_not_is() -> None:
    async def main() -> list[str]:
        bridge = WorkerBridge(1)
        told: list[str] = []
        go_on = asyncio.Event()

        async def delivery(name: str, handlers: int) -> None:
            try:
                for _ in range(handlers):
                    await bridge.call(go_on.wait)
                told.append(f"{name} ended")
            except asyncio.CancelledError:
                told.append(f"{name} was turned away")

        first, second = (asyncio.create_task(delivery(name, 2)) for name in ("first", "second"))
        await asyncio.sleep(0)
        assert bridge.turn_away() == 1
        third = asyncio.create_task(delivery("third", 1))
        await asyncio.sleep(0)
        go_on.set()
        await asyncio.gather(first, second, third)
        bridge.close()
        return told

    assert asyncio.run(main()) == ["second was turned away", "third was turned away", "first ended"]


def test_a_suspect_that_outlasts_the_grace_is_given_back(tmp_path: Path) -> None:
    receiver = receiver_on(tmp_path)
    begun = threading.Event()

    @receiver.on("*")
    async def stuck(_event: Event) -> None:
        begun.set()
        await asyncio.sleep(20)

    deliver(receiver)
    crashed(receiver, 1)
    with started(receiver, grace=0.0) as worker:
        assert begun.wait(20)
        worker.stop()
    (record,) = records_of(receiver)
    assert (record.state, record.failures, record.crashes) == ("ready", 0, 1)


@pytest.mark.parametrize("leaves", ["itself", "a task"])
def test_a_coroutine_that_swallows_its_cancellation_keeps_no_worker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, leaves: str
) -> None:
    monkeypatch.setattr(service, "_RELEASING", 0.2)
    caplog.set_level("INFO")
    receiver = receiver_on(tmp_path)
    begun, end = threading.Event(), threading.Event()
    kept: list[asyncio.Task[None]] = []
    loops: set[asyncio.AbstractEventLoop] = set()

    async def for_ever() -> None:
        # It outlives its event loop, which the worker does not wait to empty; asyncio would complain of that.
        task: Any = asyncio.current_task()
        task._log_destroy_pending = False
        loops.add(task.get_loop())
        while not end.is_set():
            with suppress(asyncio.CancelledError):
                begun.set()
                await asyncio.sleep(0.01)

    @receiver.on("*")
    async def stubborn(_event: Event) -> None:
        if leaves == "itself":
            await for_ever()
        kept.append(asyncio.create_task(for_ever()))
        await asyncio.sleep(60)

    deliver(receiver)
    with started(receiver, grace=0.0) as worker:
        assert begun.wait(20)
        worker.stop()
    end.set()
    for loop in loops:
        loop.close()  # the worker leaves one open that has not ended
    (record,) = records_of(receiver)
    assert (record.state, record.failures, record.crashes) == ("ready", 0, 0)
    stopped = next(record for record in caplog.records if record.getMessage().startswith("worker.stopped"))
    assert vars(stopped)["roovet"]["released"] == 1


def test_a_claim_that_could_not_be_given_back_is_not_counted_as_given_back(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    receiver = receiver_on(tmp_path)
    begun = threading.Event()

    @receiver.on("*")
    async def slow(_event: Event) -> None:
        begun.set()
        await asyncio.sleep(60)

    deliver(receiver)
    with started(receiver, grace=0.0) as worker:
        assert begun.wait(20)
        written(receiver, "UPDATE roovet_delivery SET fence = fence + 1")
        worker.stop()
    stopped = next(record for record in caplog.records if record.getMessage().startswith("worker.stopped"))
    assert vars(stopped)["roovet"]["released"] == 0


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_child_that_a_handler_forks_obeys_its_signals(tmp_path: Path) -> None:
    worker = Worker(receiver_on(tmp_path))
    before = signal.getsignal(signal.SIGTERM)
    with vars(Worker)["_told_by_signals"](worker):
        assert signal.getsignal(signal.SIGTERM) is not before
        reading, writing = os.pipe()
        child = os.fork()
        if not child:
            try:
                os.write(writing, b".")
                time.sleep(60)
            finally:
                os._exit(1)
        assert os.read(reading, 1) == b"."
        os.close(reading)
        os.close(writing)
        os.kill(child, signal.SIGTERM)
        _, status = os.waitpid(child, 0)
    assert os.WTERMSIG(status) == signal.SIGTERM
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_worker_that_was_stopped_before_it_began_does_nothing(tmp_path: Path) -> None:
    receiver = receiver_on(tmp_path)
    receiver.on("*")(nothing)
    deliver(receiver)
    worker = Worker(receiver)
    worker.stop()
    worker.run()
    assert states_of(receiver) == ["ready"]


def test_a_signal_stops_it_and_leaves_no_trace(tmp_path: Path) -> None:
    receiver = receiver_on(tmp_path)
    begun = threading.Event()

    @receiver.on("*")
    def wait(_event: Event) -> None:
        begun.set()

    deliver(receiver)
    before = signal.getsignal(signal.SIGTERM)

    def log_event() -> None:
        assert begun.wait(20)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=log_event).start()
    run_worker(receiver, grace=10)
    assert states_of(receiver) == ["done"]
    assert signal.getsignal(signal.SIGTERM) == before


def test_a_worker_says_again_and_again_that_it_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "BEAT_EVERY", 0.02)
    beats: list[list[str]] = []

    class Beaten(SQLInbox):
        def heartbeat(self, owner: str, served: Iterable[Served]) -> InboxFuture[None]:
            kept = list(served)
            beats.append([one.endpoint for one in kept])
            return super().heartbeat(owner, kept)

    inbox = Beaten(f"sqlite:///{tmp_path / 'inbox.db'}")
    receiver = WebhookReceiver(inbox=inbox)
    receiver.on("*")(nothing)
    with started(receiver):
        eventually(lambda: len(beats) >= 3)
    assert beats[:3] == [["default"]] * 3


def test_a_worker_that_was_never_started_may_be_closed(tmp_path: Path) -> None:
    Worker(receiver_on(tmp_path)).close()


def test_a_worker_may_be_started_again(tmp_path: Path) -> None:
    receiver = receiver_on(tmp_path)
    receiver.on("*")(nothing)
    worker = Worker(receiver, poll=0.05)
    for count in (1, 2):
        deliver(receiver)
        worker.start()
        worker.start()
        eventually(lambda count=count: states_of(receiver) == ["done"] * count)  # type: ignore[misc] # a default binds it
        worker.close()
    worker.close()


# The store


class Flaky(SQLInbox):
    """An inbox whose store can be taken away."""

    down = False

    def _submit(self, operation: Operation[T]) -> InboxFuture[T]:
        if self.down:
            message = "the store is away"
            raise InboxUnavailable(message)
        return super()._submit(operation)


def test_an_outage_is_told_once_and_survived(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    inbox = Flaky(f"sqlite:///{tmp_path / 'inbox.db'}", settle=0)
    receiver = WebhookReceiver("whsec_5f2b8c1e9a7d4036b1c2d3e4f5061728", inbox=inbox)
    begun, go_on = threading.Event(), threading.Event()
    ran: list[str] = []

    @receiver.on("order.created")
    def take(event: Event) -> None:
        ran.append(event.id)
        begun.set()
        go_on.wait(20)

    deliver(receiver, id="ord_1")
    with started(receiver):
        assert begun.wait(20)
        inbox.down = True
        go_on.set()
        eventually(lambda: "worker.store_down" in logged(caplog))
        time.sleep(1.0)
        inbox.down = False
        deliver(receiver, id="ord_2")
        eventually(lambda: states_of(receiver) == ["done", "done"])
        eventually(lambda: "worker.store_back" in logged(caplog))
    # The handler had ended while the store was away; its end was recorded when the store was back.
    assert ran == ["ord_1", "ord_2"]
    assert logged(caplog).count("worker.store_down") == 1


def test_a_worker_starts_while_the_store_is_away(tmp_path: Path) -> None:
    inbox = Flaky(f"sqlite:///{tmp_path / 'inbox.db'}", settle=0)
    receiver = WebhookReceiver("whsec_5f2b8c1e9a7d4036b1c2d3e4f5061728", inbox=inbox)
    receiver.on("*")(nothing)
    deliver(receiver)
    inbox.down = True
    with started(receiver):
        time.sleep(0.3)
        inbox.down = False
        eventually(lambda: states_of(receiver) == ["done"])
        eventually(lambda: inbox.stats()[0].workers == 1)
    assert inbox.stats()[0].workers == 0, "one that has stopped in order is not counted until its heartbeat is old"


def test_what_was_claimed_too_late_is_given_back(tmp_path: Path) -> None:
    """The claim's answer comes after nobody waits for it any more."""
    late: list[InboxFuture[Sequence[Claimed]]] = []

    class Slow(SQLInbox):
        def claim(
            self, endpoint: str, *, limit: int, ordering: Ordering = None, on_dead: OnDead = "skip"
        ) -> InboxFuture[Sequence[Claimed]]:
            if late:
                return super().claim(endpoint, limit=limit, ordering=ordering, on_dead=on_dead)
            found = super().claim(endpoint, limit=limit, ordering=ordering, on_dead=on_dead).result(10)
            assert len(found) == 1
            late.append(InboxFuture())
            threading.Timer(0.4, answer, (found,)).start()
            return late[0]

    def answer(found: Sequence[Claimed]) -> None:
        late[0].answer(found)
        InboxFuture.wake(late)

    inbox = Slow(f"sqlite:///{tmp_path / 'inbox.db'}", settle=0, timeout=0.2)
    receiver = WebhookReceiver("whsec_5f2b8c1e9a7d4036b1c2d3e4f5061728", inbox=inbox)
    receiver.on("*")(nothing)
    deliver(receiver)
    with started(receiver):
        eventually(lambda: states_of(receiver) == ["done"])
    (record,) = records_of(receiver)
    assert (record.attempts, record.crashes) == (2, 0)


def test_a_claim_that_is_never_answered_keeps_no_worker_from_stopping(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    class Silent(SQLInbox):
        def claim(
            self, endpoint: str, *, limit: int, ordering: Ordering = None, on_dead: OnDead = "skip"
        ) -> InboxFuture[Sequence[Claimed]]:
            assert (endpoint, limit >= 1, ordering, on_dead) == ("default", True, None, "skip")
            return InboxFuture()

    inbox = Silent(f"sqlite:///{tmp_path / 'inbox.db'}", timeout=0.1)
    receiver = WebhookReceiver(inbox=inbox)
    receiver.on("*")(nothing)
    with started(receiver):
        eventually(lambda: "worker.store_down" in logged(caplog))
    assert "roovet-webhooks-worker" not in {thread.name for thread in threading.enumerate()}


def test_what_is_claimed_while_the_worker_stops_is_given_back(tmp_path: Path) -> None:
    workers: list[Worker] = []

    class Stopping(SQLInbox):
        """Blocks, as Django's does, and returns what it has claimed."""

        blocking = True

        def claim(  # type: ignore[override] # a blocking inbox answers so
            self, endpoint: str, *, limit: int, ordering: Ordering = None, on_dead: OnDead = "skip"
        ) -> Sequence[Claimed]:
            claimed = super().claim(endpoint, limit=limit, ordering=ordering, on_dead=on_dead).result(10)
            assert len(claimed) == 1
            workers[0].stop()
            time.sleep(0.1)
            return claimed

    inbox = Stopping(f"sqlite:///{tmp_path / 'inbox.db'}", settle=0)
    receiver = WebhookReceiver("whsec_5f2b8c1e9a7d4036b1c2d3e4f5061728", inbox=inbox)
    receiver.on("*")(nothing)
    deliver(receiver)
    workers.append(Worker(receiver))
    workers[0].run()
    assert states_of(receiver) == ["ready"]
    inbox.close()


def test_a_fault_of_ours_costs_one_delivery_and_not_the_worker(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    class Faulty(SQLInbox):
        def complete(self, claim: Claim, outcome: Outcome, **told: Any) -> InboxFuture[None]:  # noqa: ANN401 - handed on
            if claim.number == 1:
                raise ZeroDivisionError
            return super().complete(claim, outcome, **told)

    inbox = Faulty(f"sqlite:///{tmp_path / 'inbox.db'}", settle=0)
    receiver = WebhookReceiver("whsec_5f2b8c1e9a7d4036b1c2d3e4f5061728", inbox=inbox)
    receiver.on("*")(nothing)
    deliver(receiver)
    deliver(receiver)
    with started(receiver):
        eventually(lambda: states_of(receiver) == ["claimed", "done"])
        eventually(lambda: "worker.error" in logged(caplog))


# Suspects


def crashed(receiver: WebhookReceiver, *numbers: int) -> None:
    for number in numbers:
        written(receiver, "UPDATE roovet_delivery SET crashes = 1 WHERE id = ?", number)


def test_a_suspect_runs_alone_and_neither_it_nor_the_others_wait_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feeds, "LOOK_EVERY", 0.05)
    monkeypatch.setattr(feeds, "TURN", 0.02)
    receiver = receiver_on(tmp_path)
    running: set[str] = set()
    beside: list[set[str]] = []
    order: list[bool] = []

    def handle(event: Event, *, suspected: bool) -> None:
        running.add(event.id)
        if suspected:
            beside.append(running - {event.id})
        time.sleep(0.005)
        if suspected:
            beside.append(running - {event.id})
        running.discard(event.id)
        order.append(suspected)

    receiver.on("order.created", name="normal")(lambda event: handle(event, suspected=False))
    receiver.on("order.suspect", name="suspect")(lambda event: handle(event, suspected=True))
    deliver(receiver, count=300)
    deliver(receiver, "order.suspect", count=20)
    crashed(receiver, *range(301, 321))
    with started(receiver, concurrency=4):
        eventually(lambda: states_of(receiver) == ["done"] * 320)
    assert beside == [set()] * 40
    # Both kinds had their turns before the other was through.
    first, last = order.index(True), len(order) - 1 - order[::-1].index(True)
    assert first < 300
    assert False in order[first:last]


def test_suspects_that_cannot_be_had_hold_nobody_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feeds, "LOOK_EVERY", 0.0)
    receiver = receiver_on(tmp_path, ordering="resource")
    receiver.on("*")(nothing)
    # An earlier delivery of its resource that is due much later stands before it.
    deliver(receiver, id="ord_a", ts=int(time.time()) - 100)
    deliver(receiver, id="ord_a", ts=int(time.time()) - 50)
    crashed(receiver, 2)
    written(receiver, "UPDATE roovet_delivery SET available_at = available_at + 3600000 WHERE id = 1")
    deliver(receiver, count=50)
    with started(receiver):
        eventually(lambda: states_of(receiver) == ["ready", "ready", *["done"] * 50])


def test_a_worker_stops_while_a_suspect_waits_for_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feeds, "LOOK_EVERY", 0.0)
    receiver = receiver_on(tmp_path)
    begun, go_on = threading.Event(), threading.Event()

    @receiver.on("*")
    def slow(_event: Event) -> None:
        begun.set()
        go_on.wait(20)

    deliver(receiver)
    deliver(receiver)
    crashed(receiver, 2)
    with started(receiver) as worker:
        assert begun.wait(20)
        time.sleep(0.2)
        worker.stop()
        go_on.set()
    assert states_of(receiver) == ["done", "ready"]


# On an event loop, in a thread, and how it is made


def test_a_worker_works_while_a_block_runs(tmp_path: Path) -> None:
    receiver = receiver_on(tmp_path)
    loops: list[object] = []

    @receiver.on("*")
    async def note(_event: Event) -> None:
        loops.append(asyncio.get_running_loop())

    deliver(receiver)

    async def main() -> None:
        async with working(receiver, poll=0.05):
            await soon(lambda: states_of(receiver) == ["done"])
        assert loops == [asyncio.get_running_loop()]

    asyncio.run(main())
    deliver(receiver)
    assert states_of(receiver) == ["done", "ready"]


def test_a_block_does_not_begin_with_a_receiver_that_cannot_handle(tmp_path: Path) -> None:
    async def main() -> None:
        async with working(receiver_on(tmp_path)):
            pytest.fail("it has no handler")

    with pytest.raises(ConfigurationError, match="no handler"):
        asyncio.run(main())
    with pytest.raises(ConfigurationError, match="no handler"):
        run_worker(receiver_on(tmp_path))


def test_a_worker_that_breaks_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    class Broken(SQLInbox):
        def count_crashed(self, endpoint: str) -> InboxFuture[int]:
            raise ZeroDivisionError(endpoint)

    receiver = WebhookReceiver(inbox=Broken(f"sqlite:///{tmp_path / 'inbox.db'}"))
    receiver.on("*")(nothing)

    async def main() -> None:
        async with working(receiver):
            await soon(lambda: "worker.failed" in logged(caplog))

    asyncio.run(main())
    with pytest.raises(ZeroDivisionError):
        run_worker(receiver)


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        ({"concurrency": 0}, "concurrency"),
        ({"concurrency": "8"}, "concurrency of 1 or more.* not '8'"),
        ({"grace": -1}, "grace"),
        ({"grace": None}, "grace"),
        ({"poll": 0}, "poll"),
        ({"poll": True}, "poll"),
    ],
    ids=str,
)
def test_numbers_that_make_no_worker_are_refused(options: dict[str, Any], fault: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=fault):
        Worker(receiver_on(tmp_path), **options)


def test_receivers_that_make_no_worker_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="needs a receiver"):
        Worker()
    with pytest.raises(ConfigurationError, match="keeps its deliveries in memory"):
        Worker(WebhookReceiver(inbox=MemoryInbox()))
    with pytest.raises(ConfigurationError, match="needs receivers, not str"):
        Worker(cast("Any", "shop.webhooks:receiver"))
    receiver = receiver_on(tmp_path)
    with pytest.raises(ConfigurationError, match="same endpoint"):
        Worker(receiver, WebhookReceiver(inbox=receiver.inbox))


# Parts


def test_the_pace_is_what_ended_lately() -> None:
    pace = Throughput(0.0)
    assert pace.ahead(0.01) == 0
    pace.ended(100)
    assert pace.ahead(0.1) == int(1000 * SOON)
    assert pace.ahead(0.11) == int(1000 * SOON)
    assert pace.ahead(10.0) == 0
    pace.ended(1_000_000)
    assert pace.ahead(11.0) == MOST_AHEAD


def test_slow_handlers_have_nothing_claimed_ahead() -> None:
    async def main() -> None:
        now = [0.0]
        floor = Capacity(4, 1, lambda: now[0])
        assert await floor.take() == 4
        now[0] = 10.0
        floor.give(4, ended=4)
        assert await floor.take() == 4

    asyncio.run(main())


def test_a_thread_pool_carries_values_errors_and_context() -> None:
    variable = contextvars.ContextVar("variable", default="unset")

    async def main() -> None:
        pool = Threads(2, "pool")
        variable.set("set")
        assert await pool.call(variable.get) == "set"
        with pytest.raises(ZeroDivisionError):
            await pool.call(lambda: 1 / 0)

        def interrupt() -> None:
            raise KeyboardInterrupt

        with pytest.raises(RuntimeError, match="raised KeyboardInterrupt"):
            await pool.call(interrupt)
        names = await asyncio.gather(*(pool.call(name_of_thread) for _ in range(6)))
        assert len(set(names)) == 2
        pool.close()
        eventually(lambda: "pool" not in {thread.name for thread in threading.enumerate()})

    asyncio.run(main())


def name_of_thread() -> int:
    time.sleep(0.02)
    return threading.get_ident()


def test_a_thread_outlives_the_loop_that_it_works_for() -> None:
    go_on = threading.Event()

    async def main() -> Callable[[], object]:
        pool = Threads(1, "orphan")
        task = asyncio.create_task(pool.call(go_on.wait))
        await asyncio.sleep(0.05)
        task.cancel()
        return pool.close

    asyncio.run(main())
    go_on.set()
    eventually(lambda: "orphan" not in {thread.name for thread in threading.enumerate()})
