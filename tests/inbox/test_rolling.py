"""Several versions of an application on one inbox: what was accepted for a handler does not end without it."""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING, Any

import pytest
from support import PATH, SECRET, headers_of

from inbox.worlds import ENDPOINT, given, record_of
from roovet_webhooks import ConfigurationError, DropDelivery, RetryPolicy, WebhookReceiver, WebhookRequest
from roovet_webhooks.engines.running import Receivers, TaskBridge
from roovet_webhooks.inbox.protocol import Served
from roovet_webhooks.inbox.states import Outcome, State
from roovet_webhooks.operations import check, inbox_in
from roovet_webhooks.receiving.bridge import SyncBridge, run
from roovet_webhooks.receiving.unhandled import AGAIN_AFTER, UnhandledLog
from roovet_webhooks.worker import Worker
from roovet_webhooks.worker.peers import Peers

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from inbox.worlds import World
    from roovet_webhooks import Delivery, Event
    from roovet_webhooks.inbox.records import RecordedDelivery


class Version:
    """A process with a version of the application: a receiver with an inbox of its own on the world's store."""

    def __init__(
        self,
        world: World,
        *names: str,
        event: str = "transfer.settled",
        fallback: str = "",
        **options: Any,  # noqa: ANN401 - a receiver's
    ) -> None:
        self.world = world
        self.inbox = world.process()
        self.receiver = WebhookReceiver(
            SECRET, endpoint=ENDPOINT, inbox=self.inbox, clock=lambda: world.wall, tolerance=1e9, **options
        )
        self.runs: list[str] = []
        self.fails: set[str] = set()
        for name in names:
            self.receiver.on(event, name=name)(self._handler(name))
        if fallback:
            self.receiver.fallback(self._handler(fallback))

    def _handler(self, name: str) -> Callable[[Event], None]:
        def handler(_event: Event) -> None:
            self.runs.append(name)
            if name in self.fails:
                raise ValueError(name)

        return handler

    def accept(self, delivery: Delivery) -> tuple[int, str]:
        """Receive a delivery, and return the answer."""
        pairs = headers_of(delivery.raw, timestamp=int(self.world.wall)).items()
        encoded = [(name.encode(), value.encode()) for name, value in pairs]
        response = self.receiver.receive(WebhookRequest("POST", PATH, encoded, delivery.raw))
        content = json.loads(response.body)
        return response.status, str(content.get("status") or content["error"]["type"])

    def work(self) -> Outcome | None:
        """Run the one delivery that is due by now."""
        self.world.elapse(400)
        (one,) = given(self.inbox.claim(ENDPOINT, limit=10))
        return run(self.receiver.handle(one, bridge=SyncBridge()))

    def record(self, delivery: Delivery) -> RecordedDelivery:
        return record_of(self.inbox, delivery)

    def unhandled(self) -> tuple[int, Sequence[str]]:
        (stats,) = self.inbox.stats()
        return stats.unhandled, stats.unhandled_reasons


def transfer(world: World) -> Delivery:
    return world.delivery(event="transfer.settled")


def test_a_new_event_waits_for_a_process_that_knows_it(durable: World) -> None:
    old, new = Version(durable, "fulfil", event="order.created"), Version(durable, "book")
    delivery = transfer(durable)
    assert new.accept(delivery) == (200, "stored")
    for attempt in (1, 2):
        assert old.work() is None
        record = old.record(delivery)
        assert (record.state, record.failures, record.attempts) == (State.READY, 0, attempt)
        assert "book" in (record.last_error or "")
        assert old.unhandled() == (1, (record.last_error,))
    assert new.work() is Outcome.HANDLED
    assert (old.runs, new.runs) == ([], ["book"])
    assert new.record(delivery).last_error is None
    assert new.unhandled() == (0, ())


def test_a_new_handler_beside_one_that_is_known_runs_and_the_other_does_not_run_twice(durable: World) -> None:
    old, new = Version(durable, "audit"), Version(durable, "audit", "book")
    new.accept(transfer(durable))
    assert old.work() is None
    assert new.work() is Outcome.HANDLED
    assert (old.runs, new.runs) == (["audit"], ["book"])


def test_what_a_known_handler_does_meanwhile_counts_as_it_always_does(durable: World) -> None:
    old, new = Version(durable, "audit"), Version(durable, "audit", "book")
    delivery = transfer(durable)
    new.accept(delivery)
    assert old.work() is None
    assert old.record(delivery).failures == 0
    durable.elapse(1)
    old.fails = {"audit"}
    other = transfer(durable)
    new.accept(other)
    durable.elapse(400)
    for one in given(old.inbox.claim(ENDPOINT, limit=10)):
        run(old.receiver.handle(one, bridge=SyncBridge()))
    assert (old.record(delivery).failures, old.record(other).failures) == (0, 1)


@pytest.mark.parametrize("succeeded", [False, True], ids=["before it succeeded", "after it succeeded"])
def test_a_renamed_handler_repeats_no_effect(durable: World, succeeded: bool) -> None:  # noqa: FBT001 - a case
    old, new = Version(durable, "book", "audit"), Version(durable, "book_transfer", "audit")
    delivery = transfer(durable)
    old.accept(delivery)
    old.fails = {"audit"} if succeeded else {"audit", "book"}
    assert old.work() is None
    assert new.work() is None
    assert new.runs == ["audit"]
    assert "book_transfer" in (new.record(delivery).last_error or "")
    # The name that it had before is all that is needed.
    mended = Version(durable, "book", "audit")
    assert mended.work() is Outcome.HANDLED
    assert mended.runs == ([] if succeeded else ["book"])


def test_a_handler_that_is_gone_after_it_succeeded_is_not_waited_for(durable: World) -> None:
    old, new = Version(durable, "book", "audit"), Version(durable, "audit")
    old.accept(transfer(durable))
    old.fails = {"audit"}
    assert old.work() is None
    assert new.work() is Outcome.HANDLED
    assert (old.runs, new.runs) == (["book", "audit"], ["audit"])


def test_one_that_nobody_can_handle_is_dead_by_the_policy_and_can_be_replayed(durable: World) -> None:
    policy = RetryPolicy(max_age=1000)
    old, new = Version(durable, "book"), Version(durable, "book_transfer", retry=policy)
    delivery = transfer(durable)
    old.accept(delivery)
    durable.elapse(50_000)  # how long it waited for any process does not count
    assert [new.work() for _ in range(3)] == [None] * 3
    assert new.record(delivery).state is State.READY
    assert new.work() is None
    record = new.record(delivery)
    assert (record.state, record.outcome, record.failures) == (State.DEAD, Outcome.UNHANDLED, 0)
    assert "book" in (record.last_error or "")
    assert new.unhandled() == (0, ())
    given(new.inbox.replay(record.number))
    nobody = Version(durable, "fulfil", event="order.created")
    assert nobody.work() is None
    assert new.work() is Outcome.HANDLED
    assert new.runs == ["book_transfer"]


def test_the_waiting_begins_anew_when_an_attempt_was_made_in_between(durable: World) -> None:
    policy = RetryPolicy(max_age=1000)
    old, new = Version(durable, "fulfil", event="order.created", retry=policy), Version(durable, "book", retry=policy)
    delivery = transfer(durable)
    new.accept(delivery)
    new.fails = {"book"}
    for _ in range(4):
        assert old.work() is None
        assert new.work() is None
    assert new.record(delivery).state is State.READY
    assert new.record(delivery).failures == 4


def test_what_nobody_wanted_ends_ignored_unless_somebody_wants_it_now(durable: World) -> None:
    old, new = Version(durable, "fulfil", event="order.created"), Version(durable, "book")
    old.accept(transfer(durable))
    assert new.work() is Outcome.HANDLED
    delivery = transfer(durable)
    old.accept(delivery)
    assert old.work() is Outcome.IGNORED
    given(old.inbox.replay(old.record(delivery).number, confirmed=True))
    assert old.work() is None  # it is replayed for somebody to handle it
    assert new.work() is Outcome.HANDLED


def test_a_fallback_stands_for_any_handler(durable: World) -> None:
    old, other = Version(durable, fallback="rest"), Version(durable, "fulfil", event="order.created")
    old.accept(transfer(durable))
    assert other.work() is None
    assert "any handler" in old.unhandled()[1][0]
    new = Version(durable, "book", fallback="rest")
    assert new.work() is Outcome.HANDLED
    assert new.runs == ["book"]
    # But no fallback stands for a handler.
    new.accept(transfer(durable))
    assert old.work() is None
    assert old.runs == []
    assert new.work() is Outcome.HANDLED


def test_a_dropped_delivery_waits_for_nobody(durable: World) -> None:
    old, new = Version(durable), Version(durable, "audit", "book")

    @old.receiver.on("*", name="audit")
    def audit(_event: Event) -> None:
        raise DropDelivery

    new.accept(transfer(durable))
    assert old.work() is Outcome.DROPPED


def test_in_handled_mode_the_sender_is_told_to_come_again(durable: World) -> None:
    old = Version(durable, "fulfil", event="order.created", acknowledge="handled")
    new = Version(durable, "book", acknowledge="handled")
    delivery = transfer(durable)
    new.fails = {"book"}
    assert new.accept(delivery) == (500, "handler_failed")
    assert old.accept(delivery) == (503, "unavailable")
    new.fails = set()
    assert new.accept(delivery) == (200, "handled")
    assert old.accept(delivery) == (200, "duplicate")


def test_an_engine_gives_back_what_its_process_does_not_know(durable: World) -> None:
    old, new = Version(durable, "fulfil", event="order.created"), Version(durable, "book")
    delivery = transfer(durable)
    new.accept(delivery)
    number = new.record(delivery).number
    for version, state in ((old, State.READY), (new, State.DONE)):
        durable.elapse(400)
        assert given(new.inbox.enqueue(ENDPOINT, limit=10, again_after=60)) == [number]
        receivers = Receivers("celery")
        receivers.add(version.receiver)
        run(receivers.run(ENDPOINT, number, TaskBridge()))
        assert new.record(delivery).state is state
    assert new.runs == ["book"]


def test_an_engine_takes_one_receiver_of_an_endpoint(durable: World) -> None:
    receivers = Receivers("celery")
    one, other = Version(durable, "book"), Version(durable, "book")
    for _ in range(2):
        receivers.add(one.receiver)
    with pytest.raises(ConfigurationError, match="two receivers of the endpoint 'shop' have one engine"):
        receivers.add(other.receiver)


# Two receivers of one endpoint on one store


def test_two_receivers_of_one_endpoint_are_refused_where_one_process_sees_both(durable: World) -> None:
    shop, bank = Version(durable, "fulfil", event="order.created"), Version(durable, "book")
    message = "two receivers of the endpoint 'shop' share .*: one handles transfer.settled, the other order.created"
    shop.receiver.check()
    for refuse in (bank.receiver.check, bank.receiver.check_handlers):
        with pytest.raises(ConfigurationError, match=message):
            refuse()
    with pytest.raises(ConfigurationError, match="two receivers have the same endpoint and the same inbox"):
        Worker(shop.receiver, bank.receiver)


def test_two_receivers_with_the_same_handlers_are_no_twins(durable: World) -> None:
    one, other = Version(durable, "book", "audit"), Version(durable, "audit", "book")
    one.receiver.check()
    other.receiver.check()


def test_a_receiver_that_is_gone_is_no_twin(durable: World) -> None:
    before = Version(durable, "book")
    before.receiver.check()
    before.me = before  # type: ignore[attr-defined]  # only the collector frees it
    del before
    Version(durable, "book_transfer").receiver.check()


# Workers that do not serve the same


def heartbeat(version: Version) -> None:
    given(version.inbox.heartbeat(version.inbox.owner, [version.receiver.served()]))


def problems(version: Version) -> list[tuple[str, str]]:
    """Return what a check of the inbox finds about handlers: level and message."""
    inbox = inbox_in([version.receiver])
    found = check(inbox, [version.receiver])
    return [(one.level, one.message) for one in found if one.subject == f"handlers of {ENDPOINT}"]


def test_a_check_finds_workers_that_do_not_serve_the_same(durable: World) -> None:
    old, new = Version(durable, "fulfil", event="order.created"), Version(durable, "book")
    heartbeat(new)
    assert problems(new) == []
    heartbeat(old)
    ((level, message),) = problems(new)
    assert level == "warning"
    assert f"{old.inbox.owner} alone has the handler fulfil for the event order.created" in message
    assert f"{new.inbox.owner} alone has the handler book for the event transfer.settled" in message
    durable.elapse(61)  # the old one has stopped
    heartbeat(new)
    assert problems(new) == []


def test_a_check_finds_handlers_that_no_worker_has(durable: World) -> None:
    shop, bank = Version(durable, "fulfil", event="order.created"), Version(durable, "book")
    assert problems(bank) == []  # without a worker nothing is known of what it would serve
    heartbeat(shop)
    assert problems(bank) == [("error", "this application has the handler book, and no worker has it")]
    bank.accept(transfer(durable))
    assert shop.work() is None
    heartbeat(shop)
    message = f"1 wait for a handler that the processes which claimed them did not have: {bank.unhandled()[1][0]}"
    assert ("error", message) in problems(bank)


def test_a_check_finds_events_that_no_worker_handles(durable: World) -> None:
    one, other = Version(durable, "handle", event="order.*"), Version(durable, "handle")
    heartbeat(one)
    assert problems(other) == [("error", "this application has a handler for transfer.settled, and no worker has it")]
    assert problems(Version(durable, "handle", event="order.item.*")) == []


def test_a_worker_of_an_older_version_says_nothing(durable: World) -> None:
    new = Version(durable, "book")
    heartbeat(new)
    given(new.inbox.heartbeat("old", [Served(ENDPOINT, None, None)]))  # type: ignore[arg-type]  # as older rows are
    assert problems(new) == []


def test_a_worker_warns_once_of_others(durable: World, caplog: pytest.LogCaptureFixture) -> None:
    old, new = Version(durable, "fulfil", event="order.created"), Version(durable, "book")
    peers = Peers(new.inbox.owner, [new.receiver.served()])
    given(old.inbox.heartbeat("elsewhere", [Served("other", ("x",), ("x",))]))
    with caplog.at_level(logging.WARNING, "roovet_webhooks"):
        for version in (new, old, new):
            heartbeat(version)
            peers.look(given(new.inbox.workers()))
    (record,) = caplog.records
    assert record.getMessage().startswith("worker.differs")
    assert "book" in record.getMessage()
    assert "fulfil" in record.getMessage()


# What the log says


def told(caplog: pytest.LogCaptureFixture, event: str) -> list[dict[str, Any]]:
    return [vars(record)["roovet"] for record in caplog.records if record.getMessage().startswith(event + " ")]


def test_the_log_names_missing_handlers_once_a_minute(durable: World, caplog: pytest.LogCaptureFixture) -> None:
    old, new = Version(durable, "fulfil", event="order.created"), Version(durable, "book")
    now = [0.0]
    old.receiver._unhandled = UnhandledLog(lambda: now[0])
    new.accept(transfer(durable))
    for seconds in (0.0, AGAIN_AFTER - 1, AGAIN_AFTER):
        now[0] = seconds
        assert old.work() is None
    first, again = told(caplog, "handler.missing")
    assert first["handlers"] == again["handlers"] == ["book"]
    assert (first["attempt"], again["attempt"]) == (1, 3)
