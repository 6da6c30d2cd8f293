"""Every step of the table, from every state: those it has are made, and all others are refused and change nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, cast

import msgspec
import pytest

from inbox.worlds import DAY, LEASE, claimed, given, number_of, record_of
from roovet_webhooks import InvalidTransition, LeaseLost, RetryPolicy
from roovet_webhooks.inbox.protocol import Claim, Verdict
from roovet_webhooks.inbox.states import STEPS, TRANSITIONS, Outcome, State, Step

if TYPE_CHECKING:
    from collections.abc import Callable

    from inbox.worlds import World
    from roovet_webhooks import Delivery
    from roovet_webhooks.inbox.protocol import Stored

STATES: list[State | None] = [None, *State]


class Case(NamedTuple):
    """A delivery that stands somewhere, and the last claim there was of it."""

    world: World
    inbox: Any
    endpoint: str
    delivery: Delivery
    claim: Claim


def brought_to(world: World, inbox: Any, state: State | None, step: Step) -> Case:  # noqa: ANN401 - a DurableInbox
    """Return a delivery in a state, on an endpoint of its own."""
    endpoint = f"{state or 'none'}-{step}"
    inbox.attach(endpoint, RetryPolicy(max_crashes=1 if step is Step.POISON else 3))
    delivery = world.delivery(endpoint=endpoint)
    if state is None:
        return Case(world, inbox, endpoint, delivery, Claim(delivery.identity, 1, number=10**9))
    claim = claimed(inbox, delivery)
    if state is State.READY:
        given(inbox.release(claim, retry_in=0))
    elif state is State.DONE:
        given(inbox.complete(claim, Outcome.HANDLED))
    elif state is State.DEAD:
        given(inbox.bury(claim, "no attempt is left", Outcome.FAILED))
    return Case(world, inbox, endpoint, delivery, claim)


def stored(case: Case, *, claim: bool, later: float = 0) -> bool:
    """Store it (again), and say whether that made a row or a claim."""
    delivery = msgspec.structs.replace(case.delivery, received_at=case.delivery.received_at + later)
    answer = cast("Stored", given(case.inbox.store(delivery, claim=claim)))
    return answer.verdict in {Verdict.NEW, Verdict.TOO_OLD}


def freed(case: Case) -> bool:
    return number_of(case.inbox, case.delivery) in {number for number, _ in case.world.reap(case.inbox)}


def settled(operation: Callable[[Case], Any]) -> Callable[[Case], bool]:
    def play(case: Case) -> bool:
        try:
            given(operation(case))
        except (LeaseLost, InvalidTransition):
            return False
        return True

    return play


PLAY: dict[Step, Callable[[Case], bool]] = {
    Step.STORE: lambda case: stored(case, claim=False),
    Step.STORE_CLAIMED: lambda case: stored(case, claim=True),
    Step.STORE_TOO_OLD: lambda case: stored(case, claim=False, later=40 * DAY),
    Step.CLAIM: lambda case: bool(given(case.inbox.claim(case.endpoint, limit=5))),
    Step.RENEW: lambda case: bool(case.inbox.renew([case.claim])),
    Step.COMPLETE: settled(lambda case: case.inbox.complete(case.claim, Outcome.HANDLED)),
    Step.FAIL: settled(lambda case: case.inbox.fail(case.claim, "it failed", retry_in=5)),
    Step.RELEASE: settled(lambda case: case.inbox.release(case.claim, retry_in=0)),
    Step.BURY: settled(lambda case: case.inbox.bury(case.claim, "it failed", Outcome.FAILED)),
    Step.EXPIRE: freed,
    Step.POISON: freed,
    Step.REPLAY: settled(lambda case: case.inbox.replay(number_of(case.inbox, case.delivery), confirmed=True)),
    Step.PURGE: settled(lambda case: case.inbox.purge(number_of(case.inbox, case.delivery))),
}

# A request that brings a copy of what is ready claims it: the step is CLAIM, by another way.
ALSO: dict[tuple[State | None, Step], State] = {(State.READY, Step.STORE_CLAIMED): State.CLAIMED}
OF_A_ROW = {Step.EXPIRE, Step.POISON, Step.REPLAY, Step.PURGE}


def test_there_is_a_play_for_each_step() -> None:
    assert set(PLAY) == set(Step)
    assert {row.step for row in TRANSITIONS} == set(Step)


@pytest.mark.parametrize("state", STATES, ids=str)
def test_the_table_is_what_happens(durable: World, state: State | None, subtests: pytest.Subtests) -> None:
    inbox = durable.process()
    for step in Step:
        if state is None and step in OF_A_ROW:
            continue  # there is no number to ask with; see the tests of numbers that are none
        case = brought_to(durable, inbox, state, step)
        before = None if state is None else record_of(inbox, case.delivery)
        to = STEPS.get((state, step)) or ALSO.get((state, step))
        with subtests.test(step.value):
            assert PLAY[step](case) == (to is not None)
            if to is not None:
                assert record_of(inbox, case.delivery).state is to
            elif before is not None:
                assert record_of(inbox, case.delivery) == before
                assert inbox.body(before.number) == case.delivery.raw


@pytest.mark.parametrize("step", [Step.COMPLETE, Step.FAIL, Step.RELEASE, Step.BURY])
@pytest.mark.parametrize("state", [State.READY, State.CLAIMED, State.DONE, State.DEAD])
def test_the_table_in_memory(memory: World, state: State, step: Step) -> None:
    inbox = memory.process()
    delivery = memory.delivery()
    claim = claimed(inbox, delivery)
    if state is State.READY:
        inbox.release(claim, retry_in=0)
    elif state is not State.CLAIMED:
        inbox.complete(claim, Outcome.HANDLED)
    case = Case(memory, inbox, "shop", delivery, claim)
    assert PLAY[step](case) == (state is State.CLAIMED)
    expected = Verdict.NEW if (state, step) in FREE or state is State.READY else Verdict.DUPLICATE
    assert inbox.store(delivery, claim=True).verdict is expected


FREE = {(State.CLAIMED, Step.FAIL), (State.CLAIMED, Step.RELEASE)}


class TestWhatASettlementWrites:
    def test_complete(self, durable: World) -> None:
        inbox = durable.process()
        delivery = durable.delivery()
        claim = claimed(inbox, delivery)
        given(inbox.fail(claim, "at first", retry_in=0))
        [again] = given(inbox.claim("shop", limit=1))
        durable.elapse(3)
        given(inbox.complete(again.claim, Outcome.DROPPED))
        record = record_of(inbox, delivery)
        assert (record.state, record.outcome, record.finished_at) == (State.DONE, Outcome.DROPPED, durable.wall)
        assert (record.owner, record.lease_until, record.last_error) == (None, None, None)
        assert (record.attempts, record.failures, record.crashes, record.round) == (2, 1, 0, 1)

    def test_fail(self, durable: World) -> None:
        inbox = durable.process()
        delivery = durable.delivery()
        given(inbox.fail(claimed(inbox, delivery), "x" * 600, retry_in=7.5))
        record = record_of(inbox, delivery)
        assert (record.state, record.available_at) == (State.READY, durable.wall + 7.5)
        assert (record.failures, record.crashes, record.last_error) == (1, 0, "x" * 500)
        assert (record.owner, record.lease_until, record.finished_at) == (None, None, None)
        assert given(inbox.claim("shop", limit=1)) == []
        durable.elapse(7.5)
        [again] = given(inbox.claim("shop", limit=1))
        assert (again.claim.fence, again.claim.failures, again.delivery.attempt) == (2, 1, 2)

    def test_release_counts_nothing(self, durable: World) -> None:
        inbox = durable.process()
        delivery = durable.delivery()
        given(inbox.release(claimed(inbox, delivery), retry_in=2))
        record = record_of(inbox, delivery)
        assert (record.state, record.available_at) == (State.READY, durable.wall + 2)
        assert (record.failures, record.crashes, record.last_error, record.owner) == (0, 0, None, None)

    @pytest.mark.parametrize(("outcome", "failures"), [(Outcome.FAILED, 1), (Outcome.UNDECODABLE, 0)])
    def test_bury(self, durable: World, outcome: Outcome, failures: int) -> None:
        inbox = durable.process()
        delivery = durable.delivery()
        given(inbox.bury(claimed(inbox, delivery), "y" * 600, outcome))
        record = record_of(inbox, delivery)
        assert (record.state, record.outcome, record.failures) == (State.DEAD, outcome, failures)
        assert (record.finished_at, record.last_error, record.purged) == (durable.wall, "y" * 500, False)

    def test_a_claim(self, durable: World) -> None:
        inbox = durable.process()
        delivery = durable.delivery()
        given(inbox.store(delivery, claim=False))
        durable.elapse(5)
        [one] = given(inbox.claim("shop", limit=1))
        record = record_of(inbox, delivery)
        assert (record.state, record.owner, record.lease_until) == (State.CLAIMED, inbox.owner, durable.wall + LEASE)
        claim = one.claim
        assert (claim.identity, claim.number) == (delivery.identity, record.number)
        assert (claim.fence, claim.attempt, claim.round, claim.failures, claim.crashes) == (1, 1, 1, 0, 0)
        assert one.delivery == delivery

    def test_renew(self, durable: World) -> None:
        inbox = durable.process()
        delivery = durable.delivery()
        claim = claimed(inbox, delivery)
        durable.elapse(20)
        assert inbox.renew([claim]) == {claim.number}
        assert record_of(inbox, delivery).lease_until == durable.wall + LEASE

    def test_expire(self, durable: World) -> None:
        inbox = durable.process(retry=RetryPolicy(initial=9, max_crashes=2))
        delivery = durable.delivery()
        number = claimed(inbox, delivery).number
        assert durable.reap(inbox) == [(number, False)]
        record = record_of(inbox, delivery)
        assert (record.state, record.failures, record.crashes) == (State.READY, 0, 1)
        assert (record.available_at, record.owner, record.lease_until) == (durable.wall + 9, None, None)
        assert "went away" in (record.last_error or "")

    def test_poison(self, durable: World) -> None:
        inbox = durable.process(retry=RetryPolicy(max_crashes=1))
        delivery = durable.delivery()
        number = claimed(inbox, delivery).number
        assert durable.reap(inbox) == [(number, True)]
        record = record_of(inbox, delivery)
        assert (record.state, record.outcome, record.crashes) == (State.DEAD, Outcome.POISONED, 1)
        assert record.finished_at == durable.wall
