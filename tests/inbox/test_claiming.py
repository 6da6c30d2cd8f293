"""Claiming: what is due, in which order, how much at once, and one at a time for each resource."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import text

from inbox.worlds import DAY, ENDPOINT, claimed, given, number_of, record_of, resources, state_of, take
from roovet_webhooks import ConfigurationError, RetryPolicy
from roovet_webhooks.inbox.protocol import Served
from roovet_webhooks.inbox.states import Outcome, State

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection

    from inbox.worlds import SQLWorld, World
    from roovet_webhooks import Delivery
    from roovet_webhooks.inbox.protocol import Claimed


def stored(world: World, inbox: Any, *resources: str, **about: Any) -> list[Delivery]:  # noqa: ANN401 - a DurableInbox
    """Store deliveries that are due a moment later, a second of `ts` apart."""
    deliveries = [
        world.delivery(resource, ts=world.wall - 100 + place, **about) for place, resource in enumerate(resources)
    ]
    for delivery in deliveries:
        given(inbox.store(delivery, claim=False))
        world.elapse(0.01)
    return deliveries


class TestDue:
    def test_the_longest_due_first(self, durable: World) -> None:
        inbox = durable.process()
        stored(durable, inbox, "a", "b", "c")
        assert resources(take(inbox, limit=2)) == ["a", "b"]
        assert resources(take(inbox, limit=2)) == ["c"]
        assert resources(take(inbox, limit=2)) == []

    def test_when_the_second_of_its_time_has_ended(self, durable: World) -> None:
        inbox = durable.process()
        durable.wall = float(int(durable.wall))
        delivery = durable.delivery("a", ts=durable.wall)
        given(inbox.store(delivery, claim=False))
        durable.elapse(0.999)
        assert take(inbox) == []
        durable.elapse(0.001)
        assert resources(take(inbox)) == ["a"]

    @pytest.mark.parametrize(
        ("settle", "ts", "wait"), [(0, 0, 0), (0.25, 0, 0.25), (1, -1, 0), (1, 500, 1), (1, -9, 0)]
    )
    def test_it_waits_no_longer_than_told(self, durable: World, settle: float, ts: int, wait: float) -> None:
        inbox = durable.process(settle=settle)
        durable.wall = float(int(durable.wall))
        delivery = durable.delivery("a", ts=durable.wall + ts)
        given(inbox.store(delivery, claim=False))
        assert record_of(inbox, delivery).available_at == durable.wall + wait

    def test_what_failed_comes_after_its_wait(self, durable: World) -> None:
        inbox = durable.process()
        first, second = stored(durable, inbox, "a", "b")
        [one] = take(inbox, limit=1)
        given(inbox.fail(one.claim, "x", retry_in=30))
        assert resources(take(inbox)) == ["b"]
        durable.elapse(30)
        [again] = take(inbox)
        assert (again.delivery.id, again.delivery.attempt) == (first.id, 2)
        assert state_of(inbox, second) is State.CLAIMED

    def test_only_of_its_endpoint(self, durable: World) -> None:
        inbox = durable.process()
        stored(durable, inbox, "a", endpoint="wallet")
        assert take(inbox) == []
        assert resources(given(inbox.claim("wallet", limit=5))) == ["a"]

    def test_of_all_tenants(self, durable: World) -> None:
        inbox = durable.process()
        for tenant in ("t1", "t2"):
            stored(durable, inbox, "a", tenant=tenant)
        assert [one.delivery.tenant for one in take(inbox)] == ["t1", "t2"]

    def test_two_workers_share_and_never_the_same(self, durable: World) -> None:
        inbox = durable.process()
        count = 60
        stored(durable, inbox, *(f"r{number}" for number in range(count)))
        workers = [durable.process() for _ in range(4)]
        barrier = threading.Barrier(4, timeout=60)

        def work(worker: Any) -> list[str]:  # noqa: ANN401 - a DurableInbox
            barrier.wait()
            found: list[str] = []
            while batch := take(worker, limit=3):
                found += resources(batch)
            return found

        with ThreadPoolExecutor(4) as pool:
            shares = list(pool.map(work, workers))
        together = [one for share in shares for one in share]
        # A claimer that passes over what others have locked may find nothing, and leave the rest to the next.
        together += resources(take(inbox, limit=count))
        assert sorted(together) == sorted(f"r{number}" for number in range(count))

    def test_the_delivery_is_whole(self, durable: World) -> None:
        inbox = durable.process()
        [delivery] = stored(durable, inbox, "a")
        [one] = take(inbox)
        assert one.delivery == delivery
        assert one.delivery.event.extra == {"note": 0}
        assert one.claim.identity == delivery.identity

    def test_one_that_no_longer_parses_is_buried(self, database: SQLWorld) -> None:
        inbox = database.process()
        bad, good = stored(database, inbox, "a", "b")
        database.execute("UPDATE roovet_delivery SET body = :body WHERE resource = 'a'", body=b"[]")
        assert resources(take(inbox)) == ["b"]
        record = record_of(inbox, bad)
        assert (record.state, record.outcome, record.attempts) == (State.DEAD, Outcome.UNDECODABLE, 1)
        assert record.last_error == "the body is JSON, but not an object"
        assert state_of(inbox, good) is State.CLAIMED


class TestByNumber:
    def test_one_that_is_due(self, durable: World) -> None:
        inbox = durable.process()
        first, second = stored(durable, inbox, "a", "b")
        one = given(inbox.claim_number(number_of(inbox, second)))
        assert one.delivery.id == second.id
        assert given(inbox.claim_number(number_of(inbox, second))) is None
        assert state_of(inbox, first) is State.READY

    def test_one_that_is_not_due(self, durable: World) -> None:
        inbox = durable.process()
        claim = claimed(inbox, durable.delivery())
        given(inbox.fail(claim, "x", retry_in=10))
        assert given(inbox.claim_number(claim.number)) is None
        durable.elapse(10)
        assert given(inbox.claim_number(claim.number)) is not None

    def test_one_that_is_none(self, durable: World) -> None:
        assert given(durable.process().claim_number(10**9)) is None

    @pytest.mark.parametrize("end", ["done", "dead"])
    def test_one_that_has_ended(self, durable: World, end: str) -> None:
        inbox = durable.process()
        claim = claimed(inbox, durable.delivery())
        given(inbox.complete(claim, Outcome.HANDLED) if end == "done" else inbox.bury(claim, "x", Outcome.FAILED))
        assert given(inbox.claim_number(claim.number)) is None

    def test_one_that_must_wait_for_another(self, durable: World) -> None:
        inbox = durable.process()
        first, second = stored(durable, inbox, "a", "a")
        assert given(inbox.claim_number(number_of(inbox, second), ordering="resource")) is None
        one = given(inbox.claim_number(number_of(inbox, first), ordering="resource"))
        assert given(inbox.claim_number(number_of(inbox, second), ordering="resource")) is None
        given(inbox.complete(one.claim, Outcome.HANDLED))
        assert given(inbox.claim_number(number_of(inbox, second), ordering="resource")) is not None


class TestOrder:
    """``ordering="resource"``: one at a time for each resource, the earliest first."""

    def take(self, inbox: Any, limit: int = 10, **options: Any) -> Sequence[Claimed]:  # noqa: ANN401 - a DurableInbox
        return take(inbox, limit=limit, ordering="resource", **options)

    def test_one_of_each_resource(self, durable: World) -> None:
        inbox = durable.process()
        stored(durable, inbox, "a", "a", "b", "a", "c", "b")
        found = self.take(inbox)
        assert resources(found) == ["a", "b", "c"]
        assert resources(self.take(inbox)) == []
        given(inbox.complete(found[0].claim, Outcome.HANDLED))
        [second] = self.take(inbox)
        assert (second.delivery.event.id, second.claim.number) == ("a", 2)

    def test_by_their_time_and_not_by_their_arrival(self, durable: World) -> None:
        inbox = durable.process()
        late = durable.delivery("a", ts=durable.wall - 10)
        early = durable.delivery("a", ts=durable.wall - 20)
        for delivery in (late, early):
            given(inbox.store(delivery, claim=False))
            durable.elapse(1)
        [first] = self.take(inbox)
        assert first.delivery.id == early.id
        given(inbox.complete(first.claim, Outcome.HANDLED))
        [second] = self.take(inbox)
        assert second.delivery.id == late.id

    def test_of_one_second_by_their_arrival(self, durable: World) -> None:
        inbox = durable.process()
        same = [durable.delivery("a", ts=durable.wall - 10, note=note) for note in range(3)]
        for delivery in same:
            given(inbox.store(delivery, claim=False))
        order: list[str] = []
        while found := self.take(inbox):
            order += [one.delivery.id for one in found]
            given(inbox.complete(found[0].claim, Outcome.HANDLED))
        assert order == [delivery.id for delivery in same]

    def test_a_retrying_predecessor_holds_the_others_back(self, durable: World) -> None:
        inbox = durable.process()
        first, second = stored(durable, inbox, "a", "a")
        [one] = self.take(inbox)
        given(inbox.fail(one.claim, "x", retry_in=60))
        durable.elapse(30)
        assert self.take(inbox) == []
        durable.elapse(30)
        [one] = self.take(inbox)
        assert one.delivery.id == first.id
        given(inbox.complete(one.claim, Outcome.HANDLED))
        assert [found.delivery.id for found in self.take(inbox)] == [second.id]

    def test_one_that_crashed_holds_them_back_too(self, durable: World) -> None:
        inbox = durable.process(retry=RetryPolicy(initial=1))
        stored(durable, inbox, "a", "a")
        [one] = self.take(inbox)
        durable.reap(inbox)
        durable.elapse(5)
        assert self.take(inbox) == []
        [crashed] = given(inbox.claim_isolated(ENDPOINT, ordering="resource"))
        assert crashed.claim.number == one.claim.number
        given(inbox.complete(crashed.claim, Outcome.HANDLED))
        assert len(self.take(inbox)) == 1

    def test_a_suspect_waits_for_its_turn(self, durable: World) -> None:
        inbox = durable.process(retry=RetryPolicy(initial=1))
        _, second = stored(durable, inbox, "a", "a")
        [first] = self.take(inbox)
        # Behind the back of the order, as an operator's claim by number would do it.
        other = given(inbox.claim_number(number_of(inbox, second)))
        durable.crash(inbox)
        durable.elapse(61)
        given(inbox.reap())
        inbox.renew([first.claim])
        durable.elapse(61)
        assert given(inbox.reap()) == [(other.claim.number, False)]
        durable.elapse(5)
        assert given(inbox.claim_isolated(ENDPOINT, ordering="resource")) == []
        given(inbox.complete(first.claim, Outcome.HANDLED))
        assert len(given(inbox.claim_isolated(ENDPOINT, ordering="resource"))) == 1

    @pytest.mark.parametrize(("on_dead", "expected"), [("skip", ["a"]), ("block", [])])
    def test_a_dead_predecessor(self, durable: World, on_dead: str, expected: list[str]) -> None:
        inbox = durable.process()
        stored(durable, inbox, "a", "a", "b")
        dead = self.take(inbox, limit=2, on_dead=on_dead)
        for one in dead:
            given(inbox.bury(one.claim, "x", Outcome.FAILED))
        assert resources(self.take(inbox, on_dead=on_dead)) == expected
        # Replayed and done it lets the others go.
        given(inbox.replay(dead[0].claim.number))
        [again] = self.take(inbox, limit=1, on_dead=on_dead) if on_dead == "block" else [None]
        if again is not None:
            assert again.claim.number == dead[0].claim.number
            given(inbox.complete(again.claim, Outcome.HANDLED))
            assert resources(self.take(inbox, on_dead=on_dead)) == ["a"]

    def test_a_dead_one_holds_back_only_what_comes_after_it(self, durable: World) -> None:
        inbox = durable.process()
        stored(durable, inbox, "a", "a")
        later = given(inbox.claim_number(2))
        given(inbox.bury(later.claim, "x", Outcome.FAILED))
        assert len(self.take(inbox, on_dead="block")) == 1

    def test_nothing_waits_for_a_dead_one_that_will_never_run(self, durable: World) -> None:
        inbox = durable.process()
        given(inbox.store(durable.delivery("a", ts=durable.wall - 40 * DAY), claim=False))
        stored(durable, inbox, "a", "a")
        dead = self.take(inbox, limit=1, on_dead="block")
        assert [one.claim.number for one in dead] == [2]  # the first was too old when it came
        given(inbox.bury(dead[0].claim, "x", Outcome.FAILED))
        assert self.take(inbox, on_dead="block") == []
        given(inbox.purge(2))
        assert [one.claim.number for one in self.take(inbox, on_dead="block")] == [3]

    def test_tenants_and_endpoints_do_not_wait_for_each_other(self, durable: World) -> None:
        inbox = durable.process()
        for tenant in ("t1", "t2"):
            stored(durable, inbox, "a", tenant=tenant)
        stored(durable, inbox, "a", endpoint="wallet")
        assert len(self.take(inbox)) == 2
        assert len(given(inbox.claim("wallet", limit=5, ordering="resource"))) == 1

    def test_others_run_meanwhile(self, durable: World) -> None:
        inbox = durable.process()
        stored(durable, inbox, *["hot"] * 20, "b", "c")
        assert resources(self.take(inbox, limit=3)) == ["hot", "b", "c"]

    def test_without_an_ordering_nothing_waits(self, durable: World) -> None:
        inbox = durable.process()
        stored(durable, inbox, "a", "a", "a")
        assert len(take(inbox)) == 3

    @pytest.mark.long
    def test_claimers_at_the_same_time_keep_the_order(self, durable: World) -> None:
        inbox = durable.process()
        stored(durable, inbox, *(f"r{number % 5}" for number in range(60)))
        workers = [durable.process() for _ in range(4)]
        running: dict[str, int] = {}
        lock = threading.Lock()
        faults: list[str] = []
        seen: dict[str, list[int]] = {}

        def work(worker: Any) -> None:  # noqa: ANN401 - a DurableInbox
            idle = 0
            while idle < 5:
                found = self.take(worker, limit=2)
                idle = 0 if found else idle + 1
                for one in found:
                    name = one.delivery.event.id
                    with lock:
                        running[name] = running.get(name, 0) + 1
                        if running[name] > 1:
                            faults.append(f"two of {name} at once")
                        seen.setdefault(name, []).append(one.delivery.event.ts)
                    time.sleep(0.001)
                    with lock:
                        running[name] -= 1
                    given(worker.complete(one.claim, Outcome.HANDLED))

        with ThreadPoolExecutor(4) as pool:
            list(pool.map(work, workers))
        work(inbox)
        assert not faults
        assert sum(map(len, seen.values())) == 60
        assert all(times == sorted(times) for times in seen.values())


class TestHandOver:
    def over(self, inbox: Any, **options: Any) -> list[int]:  # noqa: ANN401 - a DurableInbox
        return list(given(inbox.enqueue(ENDPOINT, **{"limit": 10, "again_after": 60, **options})))

    def test_what_is_due_once(self, durable: World) -> None:
        inbox = durable.process()
        first, second = stored(durable, inbox, "a", "b")
        given(inbox.fail(claimed(inbox, durable.delivery()), "x", retry_in=1000))
        numbers = [number_of(inbox, one) for one in (first, second)]
        assert self.over(inbox, limit=1) == numbers[:1]
        assert self.over(inbox) == numbers[1:]
        assert self.over(inbox) == []
        record = record_of(inbox, first)
        assert (record.state, record.handed_at, record.attempts) == (State.READY, durable.wall, 0)

    def test_again_where_nothing_has_come_of_it(self, durable: World) -> None:
        inbox = durable.process()
        [delivery] = stored(durable, inbox, "a")
        number = number_of(inbox, delivery)
        assert self.over(inbox) == [number]
        durable.elapse(59.9)
        assert self.over(inbox) == []
        durable.elapse(0.1)
        assert self.over(inbox) == [number]

    @pytest.mark.parametrize("back", ["fail", "release", "crash", "replay"])
    def test_each_return_to_ready_clears_the_mark(self, durable: World, back: str) -> None:
        inbox = durable.process(retry=RetryPolicy(initial=1))
        [delivery] = stored(durable, inbox, "a")
        number = number_of(inbox, delivery)
        assert self.over(inbox, again_after=10**6) == [number]
        one = given(inbox.claim_number(number))
        if back == "fail":
            given(inbox.fail(one.claim, "x", retry_in=0))
        elif back == "release":
            given(inbox.release(one.claim, retry_in=0))
        elif back == "crash":
            durable.reap(inbox)
            durable.elapse(1)
        else:
            given(inbox.bury(one.claim, "x", Outcome.FAILED))
            given(inbox.replay(number))
        assert record_of(inbox, delivery).handed_at is None
        assert self.over(inbox, again_after=10**6) == [number]

    def test_what_runs_or_has_ended_is_not_handed_over(self, durable: World) -> None:
        inbox = durable.process()
        claimed(inbox, durable.delivery())
        given(inbox.complete(claimed(inbox, durable.delivery()), Outcome.HANDLED))
        durable.elapse(5)
        assert self.over(inbox) == []

    def test_in_order(self, durable: World) -> None:
        inbox = durable.process()
        deliveries = stored(durable, inbox, "a", "a", "b")
        numbers = [number_of(inbox, one) for one in deliveries]
        assert self.over(inbox, ordering="resource") == [numbers[0], numbers[2]]
        assert self.over(inbox, ordering="resource") == []
        one = given(inbox.claim_number(numbers[0], ordering="resource"))
        given(inbox.complete(one.claim, Outcome.HANDLED))
        assert self.over(inbox, ordering="resource") == [numbers[1]]

    def test_a_suspect_is_handed_over_like_any(self, durable: World) -> None:
        inbox = durable.process(retry=RetryPolicy(initial=1))
        number = claimed(inbox, durable.delivery()).number
        durable.reap(inbox)
        durable.elapse(5)
        assert self.over(inbox) == [number]

    def test_only_of_its_endpoint(self, durable: World) -> None:
        inbox = durable.process()
        stored(durable, inbox, "a", endpoint="wallet")
        assert self.over(inbox) == []

    def test_together_with_the_tasks_of_an_engine(self, database: SQLWorld) -> None:
        inbox = database.process()
        [delivery] = stored(database, inbox, "a")
        number = number_of(inbox, delivery)

        def enqueue(connection: Connection, numbers: Sequence[int]) -> None:
            for one in numbers:
                database.book(connection, f"task {one}")

        assert self.over(inbox, with_each=enqueue) == [number]
        assert self.over(inbox, with_each=enqueue) == []
        assert database.booked() == [f"task {number}"]

    @pytest.mark.parametrize("error", [ValueError("x"), ConfigurationError("the engine is not set up")], ids=repr)
    def test_no_mark_without_the_task(self, database: SQLWorld, error: Exception) -> None:
        inbox = database.process()
        [delivery] = stored(database, inbox, "a")

        def enqueue(connection: Connection, _numbers: Sequence[int]) -> None:
            connection.execute(text("INSERT INTO ledger (entry) VALUES ('half a task')"))
            raise error

        accepts = [inbox.store(database.delivery(), claim=False) for _ in range(3)]
        with pytest.raises(type(error)):
            self.over(inbox, with_each=enqueue)
        assert [given(one).verdict for one in accepts] == ["new"] * 3
        assert database.booked() == []
        assert record_of(inbox, delivery).handed_at is None
        assert number_of(inbox, delivery) in self.over(inbox)


def test_heartbeats(durable: World) -> None:
    inbox = durable.process()
    stored(durable, inbox, "a")
    stored(durable, inbox, "a", endpoint="wallet")

    def workers() -> list[int]:
        return [stats.workers for stats in inbox.stats()]

    assert workers() == [0, 0]
    given(inbox.heartbeat("one", [Served("shop"), Served("wallet")]))
    given(inbox.heartbeat("two", [Served("shop")]))
    given(inbox.heartbeat("two", [Served("shop")]))
    assert workers() == [2, 1]
    durable.elapse(61)
    given(inbox.heartbeat("two", [Served("shop")]))
    assert workers() == [1, 0]
    given(inbox.heartbeat("nobody", []))
    assert workers() == [1, 0]
    given(inbox.heartbeat("two", [Served("wallet")]))
    given(inbox.retire("one", ["shop", "wallet"]))
    given(inbox.retire("two", ["shop"]))
    assert workers() == [0, 1]
