"""The record as an operator works with it: look, count, replay, purge, and what tidying leaves."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from inbox.worlds import DAY, ENDPOINT, claimed, given, number_of, record_of, state_of, take
from roovet_webhooks import ConfigurationError, DeliveryNotFound, InvalidTransition, RetryPolicy
from roovet_webhooks.inbox.protocol import Verdict
from roovet_webhooks.inbox.records import Purged, Query
from roovet_webhooks.inbox.states import Outcome, State

if TYPE_CHECKING:
    from collections.abc import Callable

    from inbox.worlds import SQLWorld, World
    from roovet_webhooks import Delivery


def ended(world: World, inbox: Any, outcome: Outcome, **about: Any) -> Delivery:  # noqa: ANN401 - a DurableInbox
    """Return a delivery that has come to an end."""
    delivery = world.delivery(**about)
    claim = claimed(inbox, delivery)
    if outcome in {Outcome.HANDLED, Outcome.IGNORED, Outcome.DROPPED}:
        given(inbox.complete(claim, outcome))
    else:
        given(inbox.bury(claim, "no attempt is left", outcome))
    return delivery


QUERIES: list[tuple[dict[str, Any], list[int]]] = [
    ({}, [8, 7, 6, 5, 4, 3, 2, 1]),
    ({"limit": 2}, [8, 7]),
    ({"limit": 2, "before": 7}, [6, 5]),
    ({"endpoint": "wallet"}, [8, 7]),
    ({"tenant": "a"}, [7, 5, 3, 1]),
    ({"tenant": "A"}, []),
    ({"states": frozenset({State.DONE})}, [1]),
    ({"states": frozenset({State.DONE, State.DEAD})}, [2, 1]),
    ({"states": frozenset({State.CLAIMED, State.READY})}, [8, 7, 6, 5, 4, 3]),
    ({"outcome": Outcome.IGNORED}, [1]),
    ({"outcome": Outcome.FAILED}, [2]),
    ({"resource": "r2"}, [7, 3]),
    ({"event": "order.created"}, [5, 1]),
    ({"event": "order.*"}, [6, 5, 2, 1]),
    ({"event": "*"}, [8, 7, 6, 5, 4, 3, 2, 1]),
    ({"event": "order"}, [8, 4]),
    ({"event": "orde_.*"}, []),
    ({"tenant": "b", "endpoint": "shop", "event": "order.*"}, [6, 2]),
]


class TestFind:
    @pytest.fixture
    def inbox(self, durable: World) -> Any:  # noqa: ANN401 - a DurableInbox
        """Eight deliveries, ten seconds apart."""
        inbox = durable.process()
        self.began = durable.wall
        for number in range(8):
            given(
                inbox.store(
                    durable.delivery(
                        f"r{number % 4}",
                        event=("order.created", "order.paid", "orders.x", "order")[number % 4],
                        tenant=("a", "b")[number % 2],
                        endpoint=("shop", "wallet")[number // 6],
                    ),
                    claim=False,
                )
            )
            durable.elapse(10)
        found = given(inbox.claim(ENDPOINT, limit=3))
        given(inbox.complete(found[0].claim, Outcome.IGNORED))
        given(inbox.bury(found[1].claim, "x", Outcome.FAILED))
        return inbox

    def test_by(self, inbox: Any, subtests: pytest.Subtests) -> None:  # noqa: ANN401 - a DurableInbox
        for query, expected in QUERIES:
            with subtests.test(str(query)):
                assert [record.number for record in inbox.find(Query(**query))] == expected

    def test_by_time(self, inbox: Any) -> None:  # noqa: ANN401 - a DurableInbox
        since, until = self.began + 20, self.began + 50
        assert [record.number for record in inbox.find(Query(since=since, until=until))] == [5, 4, 3]
        assert [record.number for record in inbox.find(Query(since=self.began + 70))] == [8]
        assert [record.number for record in inbox.find(Query(until=self.began + 10))] == [1]

    def test_what_is_found_is_what_get_gives(self, inbox: Any) -> None:  # noqa: ANN401 - a DurableInbox
        for record in inbox.find(Query()):
            assert msgspec.structs.replace(inbox.get(record.number), history=()) == record

    def test_a_query_for_nothing(self) -> None:
        with pytest.raises(ConfigurationError, match="limit must be 1 or more, not 0"):
            Query(limit=0)

    def test_an_empty_inbox(self, durable: World) -> None:
        inbox = durable.process()
        assert list(inbox.find(Query())) == []
        assert list(inbox.stats()) == []


NUMBERS: dict[str, Callable[[Any], object]] = {
    "get": lambda inbox: inbox.get(77),
    "body": lambda inbox: inbox.body(77),
    "replay": lambda inbox: given(inbox.replay(77)),
    "purge": lambda inbox: given(inbox.purge(77)),
}


@pytest.mark.parametrize("operation", NUMBERS)
def test_a_number_that_is_none(durable: World, operation: str) -> None:
    with pytest.raises(DeliveryNotFound, match="the inbox has no delivery 77"):
        NUMBERS[operation](durable.process())


def test_an_id_that_is_none(durable: World) -> None:
    inbox = durable.process()
    ended(durable, inbox, Outcome.HANDLED)
    with pytest.raises(DeliveryNotFound, match="the inbox has no delivery dlv_00"):
        inbox.number_of("dlv_00")


class TestStats:
    def test_by_endpoint_and_state(self, durable: World) -> None:
        inbox = durable.process(retry=RetryPolicy(initial=1))
        claimed(inbox, durable.delivery())
        durable.reap(inbox)
        durable.elapse(10)
        due = durable.wall
        for _ in range(2):
            given(inbox.store(durable.delivery(), claim=False))
        durable.elapse(10)
        for outcome in (Outcome.HANDLED, Outcome.DROPPED, Outcome.FAILED):
            ended(durable, inbox, outcome)
        claimed(inbox, durable.delivery())
        ended(durable, inbox, Outcome.HANDLED, endpoint="wallet")
        shop, wallet = inbox.stats()
        assert shop.endpoint == "shop"
        assert shop.counts == {State.READY: 3, State.CLAIMED: 1, State.DONE: 2, State.DEAD: 1}
        assert (shop.crashed, shop.workers) == (1, 0)
        assert shop.oldest_due == due - 10 + 1
        assert (shop.dead_letters, wallet.dead_letters) == (1, 0)
        assert (wallet.endpoint, wallet.oldest_due, wallet.crashed) == ("wallet", None, 0)
        assert wallet.counts == {State.READY: 0, State.CLAIMED: 0, State.DONE: 1, State.DEAD: 0}


class TestReplay:
    def test_a_dead_one_goes_on_where_it_was(self, durable: World) -> None:
        inbox = durable.process()
        delivery = durable.delivery()
        claim = claimed(inbox, delivery)
        given(inbox.succeed(claim, "book"))
        given(inbox.fail(claim, "x", retry_in=0))
        claim = claimed(inbox, delivery)
        given(inbox.bury(claim, "mail failed", Outcome.FAILED))
        durable.elapse(100)
        given(inbox.replay(claim.number))
        record = record_of(inbox, delivery)
        assert (record.state, record.outcome, record.finished_at) == (State.READY, None, None)
        assert (record.failures, record.crashes, record.round) == (0, 0, 1)
        assert record.available_at == durable.wall
        [again] = take(inbox)
        assert (again.claim.fence, set(again.claim.succeeded), again.claim.round) == (3, {"book"}, 1)

    def test_a_done_one_begins_a_new_round(self, durable: World) -> None:
        inbox = durable.process()
        delivery = durable.delivery()
        claim = claimed(inbox, delivery)
        with inbox.transaction(claim, "book") as connection:
            durable.book(connection, "once")
        given(inbox.complete(claim, Outcome.HANDLED))
        with pytest.raises(
            InvalidTransition, match=f"delivery {claim.number} is done; a replay repeats all its effects"
        ):
            given(inbox.replay(claim.number))
        assert state_of(inbox, delivery) is State.DONE
        given(inbox.replay(claim.number, confirmed=True))
        [again] = take(inbox)
        assert (again.claim.fence, again.claim.succeeded, again.claim.round) == (2, frozenset(), 2)
        with inbox.transaction(again.claim, "book") as connection:
            durable.book(connection, "twice")
        assert durable.booked() == ["once", "twice"]
        assert record_of(inbox, delivery).succeeded == ("book",)

    def test_one_that_died_in_its_second_round(self, durable: World) -> None:
        inbox = durable.process()
        delivery = durable.delivery()
        claim = claimed(inbox, delivery)
        given(inbox.complete(claim, Outcome.HANDLED))
        given(inbox.replay(claim.number, confirmed=True))
        [again] = take(inbox)
        given(inbox.succeed(again.claim, "book"))
        given(inbox.bury(again.claim, "x", Outcome.FAILED))
        given(inbox.replay(claim.number))
        [third] = take(inbox)
        assert (third.claim.round, set(third.claim.succeeded)) == (2, {"book"})

    def test_one_that_was_too_old_has_to_be_meant(self, durable: World) -> None:
        inbox = durable.process(remember=100)
        delivery = durable.delivery(ts=durable.wall - 200)
        given(inbox.store(delivery, claim=False))
        number = number_of(inbox, delivery)
        with pytest.raises(InvalidTransition, match="was too old to run when it arrived"):
            given(inbox.replay(number))
        given(inbox.replay(number, confirmed=True))
        assert [one.delivery.id for one in take(inbox)] == [delivery.id]

    @pytest.mark.parametrize("outcome", [Outcome.HANDLED, Outcome.FAILED])
    def test_one_without_a_body_cannot_be_replayed(self, durable: World, outcome: Outcome) -> None:
        inbox = durable.process()
        number = number_of(inbox, ended(durable, inbox, outcome))
        given(inbox.purge(number))
        with pytest.raises(InvalidTransition, match=f"delivery {number} cannot be replayed: its body has been erased"):
            given(inbox.replay(number, confirmed=True))

    @pytest.mark.parametrize("state", ["ready", "claimed"])
    def test_an_open_one_cannot_be_replayed(self, durable: World, state: str) -> None:
        inbox = durable.process()
        delivery = durable.delivery()
        given(inbox.store(delivery, claim=state == "claimed"))
        with pytest.raises(InvalidTransition, match=f"a delivery that is {state} cannot be replayed"):
            given(inbox.replay(number_of(inbox, delivery), confirmed=True))

    def test_it_may_crash_and_fail_as_often_again(self, durable: World) -> None:
        inbox = durable.process(retry=RetryPolicy(initial=1, max_crashes=1))
        number = claimed(inbox, durable.delivery()).number
        for _ in range(2):
            assert durable.reap(inbox) == [(number, True)]
            given(inbox.replay(number))
            assert len(take(inbox)) == 1


class TestPurge:
    @pytest.mark.parametrize("outcome", [Outcome.HANDLED, Outcome.FAILED])
    def test_a_tombstone_stays(self, durable: World, outcome: Outcome) -> None:
        inbox = durable.process()
        delivery = ended(durable, inbox, outcome)
        number = number_of(inbox, delivery)
        before = inbox.get(number)
        given(inbox.purge(number))
        given(inbox.purge(number))
        record = inbox.get(number)
        assert (record.state, record.outcome, record.identity) == (before.state, outcome, delivery.identity)
        assert (record.purged, record.last_error) == (True, None)
        assert inbox.body(number) is None
        for claim in (False, True):
            assert given(inbox.store(delivery, claim=claim)).verdict is Verdict.DUPLICATE

    @pytest.mark.parametrize("state", ["ready", "claimed"])
    def test_an_open_one_keeps_its_body(self, durable: World, state: str) -> None:
        inbox = durable.process()
        delivery = durable.delivery()
        given(inbox.store(delivery, claim=state == "claimed"))
        number = number_of(inbox, delivery)
        with pytest.raises(InvalidTransition, match=f"a delivery that is {state} cannot be purged"):
            given(inbox.purge(number))
        assert inbox.body(number) == delivery.raw

    def test_a_tombstone_is_no_dead_letter(self, durable: World) -> None:
        inbox = durable.process()
        numbers = [number_of(inbox, ended(durable, inbox, Outcome.FAILED)) for _ in range(2)]
        given(inbox.purge(numbers[0]))
        [stats] = inbox.stats()
        assert (stats.counts[State.DEAD], stats.dead_letters) == (2, 1)
        found = [[record.number for record in inbox.find(Query(purged=purged))] for purged in (True, False)]
        assert found == [[numbers[0]], [numbers[1]]]


class TestTidy:
    def test_bodies_of_done_ones_go_first(self, durable: World) -> None:
        inbox = durable.process(retain_body=7 * DAY, remember=30 * DAY)
        done = ended(durable, inbox, Outcome.HANDLED)
        dead = ended(durable, inbox, Outcome.FAILED)
        open_ = durable.delivery()
        given(inbox.store(open_, claim=False))
        durable.elapse(7 * DAY)
        assert inbox.prune() == Purged(bodies=0, tombstones=0)
        durable.elapse(1)
        assert inbox.prune() == Purged(bodies=1, tombstones=0)
        assert inbox.prune() == Purged(bodies=0, tombstones=0)
        assert [record_of(inbox, one).purged for one in (done, dead, open_)] == [True, False, False]
        assert inbox.body(number_of(inbox, dead)) == dead.raw
        assert given(inbox.store(done, claim=False)).verdict is Verdict.DUPLICATE

    def test_tombstones_go_when_they_need_not_be_remembered(self, durable: World) -> None:
        inbox = durable.process(retain_body=7 * DAY, remember=30 * DAY)
        delivery = durable.delivery()
        claim = claimed(inbox, delivery)
        for handler in ("book", "mail"):
            given(inbox.succeed(claim, handler))
        given(inbox.complete(claim, Outcome.HANDLED))
        ended(durable, inbox, Outcome.FAILED)
        open_ = durable.delivery()
        given(inbox.store(open_, claim=False))
        durable.elapse(30 * DAY)
        assert inbox.prune() == Purged(bodies=1, tombstones=0)
        durable.elapse(1)
        assert inbox.prune() == Purged(bodies=0, tombstones=2)
        assert [record.id for record in inbox.find(Query())] == [open_.id]

    def test_nothing_of_what_is_gone_stays_behind(self, database: SQLWorld) -> None:
        inbox = database.process(remember=100)
        claim = claimed(inbox, database.delivery())
        given(inbox.succeed(claim, "book"))
        given(inbox.complete(claim, Outcome.HANDLED))
        database.elapse(101)
        inbox.prune()
        for table in ("roovet_delivery", "roovet_handled"):
            assert database.query(f"SELECT count(*) FROM {table}") == [(0,)]  # noqa: S608 - our own table

    def test_a_number_is_never_given_twice(self, durable: World) -> None:
        inbox = durable.process(remember=100)
        first = number_of(inbox, ended(durable, inbox, Outcome.HANDLED))
        durable.elapse(101)
        inbox.prune()
        assert number_of(inbox, ended(durable, inbox, Outcome.HANDLED)) > first

    def test_much_goes_in_small_transactions(self, database: SQLWorld, monkeypatch: pytest.MonkeyPatch) -> None:
        from roovet_webhooks.inbox.sql import queries as sql_queries  # noqa: PLC0415 - only databases have one

        monkeypatch.setattr(sql_queries, "TIDIED_AT_ONCE", 2)
        inbox = database.process(retain_body=10, remember=100)
        for _ in range(5):
            ended(database, inbox, Outcome.HANDLED)
        database.elapse(11)
        assert inbox.prune() == Purged(bodies=5, tombstones=0)
        database.elapse(100)
        assert inbox.prune() == Purged(bodies=0, tombstones=5)

    def test_one_that_is_replayed_is_not_forgotten(self, durable: World) -> None:
        inbox = durable.process(retain_body=DAY, remember=2 * DAY)
        delivery = ended(durable, inbox, Outcome.FAILED)
        durable.elapse(2 * DAY + 1)
        given(inbox.replay(number_of(inbox, delivery)))
        assert inbox.prune() == Purged(bodies=0, tombstones=0)
        [one] = take(inbox)
        given(inbox.complete(one.claim, Outcome.HANDLED))
        assert inbox.prune() == Purged(bodies=0, tombstones=0)


class TestAClockThatIsAhead:
    """A worker whose clock is ahead for a moment must not erase the memory of what was done."""

    def tidied(self, inbox: Any) -> Purged:  # noqa: ANN401 - a DurableInbox
        given(inbox.reap())
        tidied: Purged = inbox.prune()
        return tidied

    @pytest.mark.parametrize("begins", ["before", "then"])
    def test_it_erases_nothing(self, durable: World, begins: str, caplog: pytest.LogCaptureFixture) -> None:
        inbox = durable.process()
        delivery = ended(durable, inbox, Outcome.HANDLED)
        other = durable.process() if begins == "before" else None
        if other is not None:
            self.tidied(other)
            durable.elapse(3600)
            self.tidied(other)
        durable.jump(40 * DAY)
        other = other or durable.process()
        for _ in range(3):
            assert self.tidied(other) == Purged(bodies=0, tombstones=0)
            durable.elapse(60)
        assert caplog.text.count("inbox.clock_doubted") == 1
        durable.jump(-40 * DAY)
        assert self.tidied(other) == Purged(bodies=0, tombstones=0)
        assert given(inbox.store(delivery, claim=False)).verdict is Verdict.DUPLICATE

    def test_it_is_believed_when_it_has_kept_step_for_long(
        self, durable: World, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level("INFO")
        ended(durable, durable.process(), Outcome.HANDLED)
        durable.elapse(40 * DAY)  # and nothing comes
        other = durable.process()
        assert self.tidied(other) == Purged(bodies=0, tombstones=0)
        durable.elapse(3600)
        assert self.tidied(other) == Purged(bodies=1, tombstones=1)
        assert "inbox.pruned bodies=1 records=1" in caplog.text

    def test_what_the_record_proves_is_erased_at_once(self, durable: World) -> None:
        inbox = durable.process()
        ended(durable, inbox, Outcome.HANDLED)
        durable.elapse(40 * DAY)
        given(inbox.store(durable.delivery(), claim=False))
        assert self.tidied(durable.process()) == Purged(bodies=1, tombstones=1)

    def test_what_a_clock_in_the_past_has_ended_is_remembered(self, durable: World) -> None:
        inbox = durable.process()
        delivery = durable.delivery()
        claim = claimed(inbox, delivery)
        durable.jump(-50 * DAY)
        given(inbox.complete(claim, Outcome.HANDLED))
        durable.jump(50 * DAY)
        assert self.tidied(inbox) == Purged(bodies=0, tombstones=0)
        assert given(inbox.store(delivery, claim=False)).verdict is Verdict.DUPLICATE

    def test_so_much_at_a_time_and_no_more(self, durable: World, monkeypatch: pytest.MonkeyPatch) -> None:
        from roovet_webhooks.django import queries as django_queries  # noqa: PLC0415 - only databases have one
        from roovet_webhooks.inbox.sql import queries as sql_queries  # noqa: PLC0415 - likewise

        for each in (sql_queries, django_queries):
            monkeypatch.setattr(each, "TIDIED_AT_ONCE", 1)
            monkeypatch.setattr(each, "TIDYINGS", 2)
        inbox = durable.process(retain_body=10)
        for _ in range(3):
            ended(durable, inbox, Outcome.HANDLED)
        durable.elapse(11)
        assert [inbox.prune().bodies for _ in range(3)] == [2, 1, 0]


def test_a_healthy_store_has_no_fault(database: SQLWorld) -> None:
    assert database.process().fault() is None


def test_what_an_inbox_says_of_itself(durable: World) -> None:
    inbox = durable.process()
    assert type(inbox).__name__ in repr(inbox)
    assert "password" not in repr(inbox)
