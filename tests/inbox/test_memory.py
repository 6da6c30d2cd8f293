"""The inbox in memory: a state machine with fences, bounded in time and number."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TYPE_CHECKING, Any, cast

import msgspec
import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from test_delivery import delivery_of

from roovet_webhooks import ConfigurationError, Delivery, InboxFull, InvalidTransition, LeaseLost, MemoryInbox
from roovet_webhooks.delivery import Identity
from roovet_webhooks.inbox.protocol import Claim, Stored, Verdict
from roovet_webhooks.inbox.states import STEPS, Outcome, State, Step, next_state

if TYPE_CHECKING:
    from collections.abc import Callable


def numbered(number: int) -> Delivery:
    return delivery_of(b'{"event":"a","id":"r%d","ts":1}' % number)


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def claimed(inbox: MemoryInbox, delivery: Delivery) -> Claim:
    stored = inbox.store(delivery, claim=True)
    assert stored.verdict is Verdict.NEW
    assert stored.claim is not None
    return stored.claim


@pytest.mark.parametrize("state", State)
@pytest.mark.parametrize("step", Step)
def test_the_table_is_all_there_is(state: State, step: Step) -> None:
    if (state, step) in STEPS:
        assert next_state(state, step) is STEPS[state, step]
    else:
        with pytest.raises(InvalidTransition, match=rf"a delivery that is {state} cannot (be )?{step}"):
            next_state(state, step)


def test_only_a_replay_leaves_an_end() -> None:
    ended = {State.DONE, State.DEAD}
    assert {step for (state, step), to in STEPS.items() if state in ended and to is not state} == {Step.REPLAY}


def test_a_new_delivery_is_claimed_at_once() -> None:
    inbox = MemoryInbox()
    delivery = numbered(1)
    claim = claimed(inbox, delivery)
    assert (claim.identity, claim.attempt, claim.succeeded) == (delivery.identity, 1, frozenset())
    assert inbox.store(delivery, claim=True) == inbox.store(delivery, claim=False) == Stored(Verdict.IN_FLIGHT)


@pytest.mark.parametrize("outcome", Outcome)
def test_a_done_delivery_is_a_duplicate(outcome: Outcome) -> None:
    inbox = MemoryInbox()
    inbox.complete(claimed(inbox, numbered(1)), outcome)
    assert inbox.store(numbered(1), claim=True) == Stored(Verdict.DUPLICATE)
    assert len(inbox) == 1


def test_a_failure_frees_the_delivery_and_keeps_who_succeeded() -> None:
    inbox = MemoryInbox()
    first = claimed(inbox, numbered(1))
    inbox.succeed(first, "book")
    inbox.fail(first, "failed", retry_in=5)
    second = claimed(inbox, numbered(1))
    assert (second.attempt, set(second.succeeded)) == (2, {"book"})
    assert second.fence > first.fence
    inbox.succeed(second, "mail")
    inbox.release(second, retry_in=0)
    assert claimed(inbox, numbered(1)).succeeded == {"book", "mail"}


def test_an_old_fence_changes_nothing() -> None:
    inbox = MemoryInbox()
    old = claimed(inbox, numbered(1))
    inbox.release(old, retry_in=0)
    for with_new in (False, True):
        if with_new:
            claimed(inbox, numbered(1))
        operations: list[Callable[[], None]] = [
            lambda: inbox.succeed(old, "x"),
            lambda: inbox.complete(old, Outcome.HANDLED),
            lambda: inbox.fail(old, "x", retry_in=0),
            lambda: inbox.release(old, retry_in=0),
        ]
        for operation in operations:
            with pytest.raises(LeaseLost, match=f"claim {old.fence} is over"):
                operation()
    assert inbox.store(numbered(1), claim=True).verdict is Verdict.IN_FLIGHT


def test_recorded_without_a_claim() -> None:
    inbox = MemoryInbox()
    assert inbox.store(numbered(1), claim=False) == Stored(Verdict.NEW)
    assert inbox.store(numbered(1), claim=False) == Stored(Verdict.DUPLICATE)
    assert claimed(inbox, numbered(1)).attempt == 1


def test_it_forgets_after_its_time() -> None:
    clock = Clock()
    inbox = MemoryInbox(remember=10, clock=clock)
    inbox.complete(claimed(inbox, numbered(1)), Outcome.HANDLED)
    clock.now += 9.9
    assert inbox.store(numbered(1), claim=True).verdict is Verdict.DUPLICATE
    clock.now += 0.1
    assert claimed(inbox, numbered(1)).attempt == 1


def test_what_is_over_is_swept_out_by_what_comes() -> None:
    clock = Clock()
    inbox = MemoryInbox(remember=10, clock=clock)
    for number in range(5):
        inbox.complete(claimed(inbox, numbered(number)), Outcome.HANDLED)
    clock.now += 11
    claimed(inbox, numbered(9))
    assert len(inbox) == 1


def test_what_is_being_handled_is_never_forgotten() -> None:
    clock = Clock()
    inbox = MemoryInbox(remember=10, max_deliveries=2, clock=clock)
    busy = claimed(inbox, numbered(1))
    clock.now += 100
    for number in range(2, 6):
        inbox.complete(claimed(inbox, numbered(number)), Outcome.HANDLED)
    assert len(inbox) == 2
    assert inbox.store(numbered(1), claim=True).verdict is Verdict.IN_FLIGHT
    inbox.complete(busy, Outcome.HANDLED)


def test_the_oldest_goes_first() -> None:
    inbox = MemoryInbox(max_deliveries=2)
    for number in (1, 2, 3):
        inbox.complete(claimed(inbox, numbered(number)), Outcome.HANDLED)
    assert inbox.store(numbered(2), claim=True).verdict is Verdict.DUPLICATE
    assert inbox.store(numbered(3), claim=True).verdict is Verdict.DUPLICATE
    assert claimed(inbox, numbered(1)).attempt == 1


def test_it_is_full_when_all_are_being_handled() -> None:
    inbox = MemoryInbox(max_deliveries=2)
    first = claimed(inbox, numbered(1))
    claimed(inbox, numbered(2))
    for _ in range(2):
        with pytest.raises(InboxFull, match="2 deliveries are being handled at once"):
            inbox.store(numbered(3), claim=True)
    assert inbox.store(numbered(1), claim=True).verdict is Verdict.IN_FLIGHT
    inbox.complete(first, Outcome.HANDLED)
    claimed(inbox, numbered(3))
    assert len(inbox) == 2


def test_a_delivery_that_was_forgotten_repeats_no_fence() -> None:
    inbox = MemoryInbox(max_deliveries=1)
    fences: list[int] = []
    for number in (1, 2, 1, 2):
        claim = claimed(inbox, numbered(number))
        inbox.complete(claim, Outcome.HANDLED)
        fences.append(claim.fence)
    assert fences == sorted(set(fences))


def test_a_delivery_that_comes_anew_takes_its_place_at_the_end() -> None:
    clock = Clock()
    inbox = MemoryInbox(remember=10, max_deliveries=2, clock=clock)
    inbox.complete(claimed(inbox, numbered(1)), Outcome.HANDLED)
    clock.now += 5
    inbox.complete(claimed(inbox, numbered(2)), Outcome.HANDLED)
    clock.now += 6
    inbox.complete(claimed(inbox, numbered(1)), Outcome.HANDLED)
    inbox.complete(claimed(inbox, numbered(3)), Outcome.HANDLED)
    assert inbox.store(numbered(1), claim=True).verdict is Verdict.DUPLICATE
    assert claimed(inbox, numbered(2)).attempt == 1


def test_it_remembers_for_a_day_unless_told_otherwise() -> None:
    clock = Clock()
    inbox = MemoryInbox(clock=clock)
    inbox.complete(claimed(inbox, numbered(1)), Outcome.HANDLED)
    clock.now += 86_399
    assert inbox.store(numbered(1), claim=True).verdict is Verdict.DUPLICATE
    clock.now += 1
    assert claimed(inbox, numbered(1)).attempt == 1


def test_it_remembers_a_hundred_thousand_unless_told_otherwise() -> None:
    inbox, delivery = MemoryInbox(), numbered(0)
    for number in range(100_000):
        identity = msgspec.structs.replace(delivery.identity, ts=number)
        inbox.store(msgspec.structs.replace(delivery, identity=identity), claim=False)
    assert len(inbox) == 100_000
    inbox.store(numbered(1), claim=False)
    assert len(inbox) == 100_000


def test_a_look_at_what_is_over_costs_once_a_second() -> None:
    clock = Clock()
    inbox = MemoryInbox(remember=0.5, clock=clock)
    inbox.store(numbered(1), claim=False)
    clock.now += 0.9
    inbox.store(numbered(2), claim=False)
    assert len(inbox) == 2
    clock.now += 0.1
    inbox.store(numbered(3), claim=False)
    assert len(inbox) == 2


def test_what_was_buried_is_not_run_again() -> None:
    inbox = MemoryInbox()
    claim = claimed(inbox, numbered(1))
    inbox.bury(claim, "no attempt is left", Outcome.FAILED)
    assert inbox.store(numbered(1), claim=True) == Stored(Verdict.DUPLICATE)
    with pytest.raises(LeaseLost):
        inbox.bury(claim, "again", Outcome.FAILED)


def test_it_holds_nothing_that_outlives_the_process() -> None:
    inbox = MemoryInbox()
    claim = claimed(inbox, numbered(1))
    assert (inbox.durable, inbox.blocking, inbox.timeout) == (False, False, None)
    with inbox.renewing(claim) as is_sure:
        assert is_sure is True
    inbox.confirm(claim)


@pytest.mark.parametrize(
    "bounds", [{"remember": 0}, {"remember": float("nan")}, {"max_deliveries": 0}, {"remember": -1}], ids=str
)
def test_a_bound_that_is_none(bounds: dict[str, int]) -> None:
    with pytest.raises(ConfigurationError, match="must be positive"):
        MemoryInbox(**cast("Any", bounds))


def test_of_many_threads_one_gets_the_claim() -> None:
    inbox = MemoryInbox()
    threads = 8
    barrier = threading.Barrier(threads, timeout=30)
    delivery = numbered(1)

    def take(_: int) -> Verdict:
        barrier.wait()
        return inbox.store(delivery, claim=True).verdict

    with ThreadPoolExecutor(threads) as pool:
        verdicts = list(pool.map(take, range(threads)))
    assert sorted(verdicts) == sorted([Verdict.NEW] + [Verdict.IN_FLIGHT] * (threads - 1))


class SlowRecords(OrderedDict[Identity, Any]):
    """Records that take a while to look up, so that others come in between."""

    def get(self, key: Identity, default: Any = None, /) -> Any:  # noqa: ANN401 - a record
        found = super().get(key, default)
        time.sleep(0.005)
        return found


def test_nobody_comes_between_the_look_and_the_claim() -> None:
    inbox = MemoryInbox()
    inbox._records = SlowRecords()
    barrier = threading.Barrier(4, timeout=30)

    def take(delivery: Delivery) -> Stored:
        barrier.wait()
        return inbox.store(delivery, claim=True)

    for number in range(3):
        with ThreadPoolExecutor(4) as pool:
            stored = list(pool.map(take, [numbered(number)] * 4))
        assert sorted(one.verdict for one in stored) == [*[Verdict.IN_FLIGHT] * 3, Verdict.NEW]
        [claim] = [one.claim for one in stored if one.claim is not None]

        def settle(name: str, claim: Claim = claim) -> bool:
            barrier.wait()
            with suppress(LeaseLost):
                getattr(inbox, name)(claim, *SETTLEMENTS[name][0], **SETTLEMENTS[name][1])
                return True
            return False

        with ThreadPoolExecutor(4) as pool:
            assert sum(pool.map(settle, SETTLEMENTS)) == 1


SETTLEMENTS: dict[str, tuple[tuple[Any, ...], dict[str, Any]]] = {
    "complete": ((Outcome.HANDLED,), {}),
    "fail": (("x",), {"retry_in": 0}),
    "release": ((), {"retry_in": 0}),
    "bury": (("x", Outcome.FAILED), {}),
}


def test_handlers_that_succeed_at_the_same_time_are_all_remembered() -> None:
    inbox = MemoryInbox()
    inbox._records = SlowRecords()
    claim = claimed(inbox, numbered(1))
    names = [f"h{number}" for number in range(4)]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda name: inbox.succeed(claim, name), names))
    inbox.release(claim, retry_in=0)
    assert claimed(inbox, numbered(1)).succeeded == set(names)


class Machine(RuleBasedStateMachine):
    """Any order of operations, beside a model that remembers everything."""

    @initialize(room=st.integers(1, 4))
    def begin(self, room: int) -> None:
        self.clock = Clock()
        self.room = room
        self.inbox = MemoryInbox(remember=10, max_deliveries=room, clock=self.clock)
        self.held: dict[int, Claim] = {}
        self.over: list[Claim] = []
        self.last_fence = 0

    @rule(number=st.integers(0, 5), claim=st.booleans())
    def store(self, number: int, claim: bool) -> None:  # noqa: FBT001 - a generated case
        try:
            stored = self.inbox.store(numbered(number), claim=claim)
        except InboxFull:
            assert len(self.held) == self.room
            assert number not in self.held
            return
        assert (stored.verdict is Verdict.IN_FLIGHT) == (number in self.held)
        if stored.claim is not None:
            assert claim
            assert stored.claim.fence > self.last_fence
            self.last_fence = stored.claim.fence
            self.held[number] = stored.claim

    @rule(number=st.integers(0, 5), way=st.sampled_from(["complete", "fail", "release"]))
    def settle(self, number: int, way: str) -> None:
        claim = self.held.pop(number, None)
        if claim is None:
            return
        self.over.append(claim)
        if way == "complete":
            self.inbox.complete(claim, Outcome.HANDLED)
            assert self.inbox.store(numbered(number), claim=False).verdict in {Verdict.DUPLICATE, Verdict.NEW}
        elif way == "fail":
            self.inbox.fail(claim, "x", retry_in=0)
        else:
            self.inbox.release(claim, retry_in=0)

    @rule(number=st.integers(0, 5))
    def succeed(self, number: int) -> None:
        if number in self.held:
            self.inbox.succeed(self.held[number], "x")

    @rule()
    def come_back_late(self) -> None:
        for claim in self.over:
            with pytest.raises(LeaseLost):
                self.inbox.complete(claim, Outcome.HANDLED)

    @rule(seconds=st.floats(0, 12))
    def wait(self, seconds: float) -> None:
        self.clock.now += seconds

    @invariant()
    def bounded(self) -> None:
        assert len(self.held) <= len(self.inbox) <= self.room


TestMachine = Machine.TestCase
