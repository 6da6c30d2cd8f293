"""Storing: once for an identity, with the verdict that tells the sender the truth."""

from __future__ import annotations

import shutil
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from cryptography.fernet import Fernet, MultiFernet

from inbox.worlds import DAY, LEASE, Gate, claimed, given, number_of, record_of, state_of, take
from roovet_webhooks import ConfigurationError, InboxFull, RetryPolicy
from roovet_webhooks.errors import MalformedPayload
from roovet_webhooks.inbox.protocol import Claim, Served, Stored, Verdict
from roovet_webhooks.inbox.records import Query
from roovet_webhooks.inbox.states import Outcome, State

if TYPE_CHECKING:
    from inbox.worlds import SQLWorld, World

NEW = Stored(Verdict.NEW)
DUPLICATE = Stored(Verdict.DUPLICATE)
IN_FLIGHT = Stored(Verdict.IN_FLIGHT)
TOO_OLD = Stored(Verdict.TOO_OLD)


def records(inbox: Any, **query: Any) -> list[Any]:  # noqa: ANN401 - a DurableInbox
    return list(inbox.find(Query(limit=1000, **query)))


class TestToBeHandledLater:
    """``acknowledge="stored"``: whatever the row, it is there, and the sender need not come again."""

    def test_a_new_one_and_its_copies(self, world: World) -> None:
        inbox = world.process()
        delivery = world.delivery()
        assert given(inbox.store(delivery, claim=False)) == NEW
        assert given(inbox.store(delivery, claim=False)) == DUPLICATE

    def test_a_copy_in_any_state(self, durable: World) -> None:
        inbox = durable.process()
        for end in ("claimed", "done", "dead", "purged"):
            delivery = durable.delivery()
            claim = claimed(inbox, delivery)
            if end == "dead":
                given(inbox.bury(claim, "x", Outcome.FAILED))
            elif end != "claimed":
                given(inbox.complete(claim, Outcome.HANDLED))
            if end == "purged":
                given(inbox.purge(claim.number))
            before = record_of(inbox, delivery)
            assert given(inbox.store(delivery, claim=False)) == DUPLICATE
            assert record_of(inbox, delivery) == before
        assert len(records(inbox)) == 4

    def test_all_that_is_known_is_on_record(self, durable: World) -> None:
        inbox = durable.process()
        delivery = durable.delivery("ord_ü☃", event="order.créé", tenant="Acme & Söhne")
        given(inbox.store(delivery, claim=False))
        record = record_of(inbox, delivery)
        assert (record.identity, record.id) == (delivery.identity, delivery.id)
        assert (record.event, record.resource, record.ts) == ("order.créé", "ord_ü☃", delivery.event.ts)
        assert (record.secret_name, record.received_at) == ("primary", durable.wall)
        assert (record.state, record.outcome, record.attempts, record.round) == (State.READY, None, 0, 1)
        assert (record.owner, record.lease_until, record.handed_at, record.purged) == (None, None, None, False)
        assert inbox.body(record.number) == delivery.raw


class TestAClockThatJumps:
    def test_ahead_between_the_signature_and_the_record(self, durable: World) -> None:
        inbox = durable.process()
        delivery = durable.delivery()
        durable.jump(3 * DAY)
        given(inbox.store(delivery, claim=False))
        durable.jump(-3 * DAY)
        durable.elapse(2)
        assert len(take(inbox)) == 1


class TestToBeHandledNow:
    """``acknowledge="handled"``: 200 only when it is done."""

    def test_a_new_one_is_claimed(self, world: World) -> None:
        inbox = world.process()
        delivery = world.delivery()
        claim = claimed(inbox, delivery)
        assert (claim.identity, claim.attempt, claim.succeeded) == (delivery.identity, 1, frozenset())

    def test_a_copy_beside_it_is_in_flight(self, world: World) -> None:
        inbox = world.process()
        delivery = world.delivery()
        claimed(inbox, delivery)
        assert given(inbox.store(delivery, claim=True)) == IN_FLIGHT

    @pytest.mark.parametrize("end", ["done", "dead"])
    def test_a_copy_of_an_ended_one(self, world: World, end: str) -> None:
        inbox = world.process()
        delivery = world.delivery()
        claim = claimed(inbox, delivery)
        given(inbox.complete(claim, Outcome.HANDLED) if end == "done" else inbox.bury(claim, "x", Outcome.FAILED))
        assert given(inbox.store(delivery, claim=True)) == DUPLICATE

    def test_a_copy_of_a_failed_one_runs_at_once(self, world: World) -> None:
        inbox = world.process()
        delivery = world.delivery()
        first = claimed(inbox, delivery)
        given(inbox.succeed(first, "book"))
        given(inbox.fail(first, "x", retry_in=3600))
        second = claimed(inbox, delivery)
        assert (second.attempt, set(second.succeeded)) == (2, {"book"})
        assert second.fence > first.fence

    def test_a_copy_of_one_that_waits_for_a_worker(self, world: World) -> None:
        inbox = world.process()
        delivery = world.delivery()
        given(inbox.store(delivery, claim=False))
        assert claimed(inbox, delivery).attempt == 1

    def test_only_the_reaper_frees_a_claim_that_ran_out(self, durable: World) -> None:
        inbox = durable.process()
        delivery = durable.delivery()
        first = claimed(inbox, delivery)
        durable.elapse(10 * LEASE)
        assert given(inbox.store(delivery, claim=True)) == IN_FLIGHT
        durable.reap(inbox)
        second = claimed(inbox, delivery)
        assert (second.fence, second.crashes) == (first.fence + 1, 1)

    def test_the_lease_begins(self, durable: World) -> None:
        inbox = durable.process(lease=90)
        delivery = durable.delivery()
        claim = claimed(inbox, delivery)
        record = inbox.get(claim.number)
        assert (record.state, record.owner, record.lease_until) == (State.CLAIMED, inbox.owner, durable.wall + 90)

    def test_one_whose_body_cannot_be_read_is_not_run(self, durable: World) -> None:
        delivery = durable.delivery()
        inbox = durable.process(codec=Fernet(Fernet.generate_key()))
        given(inbox.store(delivery, claim=False))
        other = durable.process(codec=Fernet(Fernet.generate_key()))
        assert given(other.store(delivery, claim=True)) == IN_FLIGHT
        assert state_of(other, delivery) is State.DEAD
        assert given(other.store(delivery, claim=True)) == DUPLICATE


class TestIdentity:
    def test_concurrent_copies_make_one_row(self, durable: World) -> None:
        processes = [durable.process() for _ in range(3)]
        deliveries = [durable.delivery() for _ in range(20)]
        barrier = threading.Barrier(6, timeout=60)

        def store_all(place: int) -> list[Stored]:
            inbox = processes[place % 3]
            barrier.wait()
            pending = [inbox.store(delivery, claim=place >= 3) for delivery in deliveries]
            return [given(one) for one in pending]

        with ThreadPoolExecutor(6) as pool:
            answers = list(pool.map(store_all, range(6)))
        for verdicts in zip(*answers, strict=True):
            claims = [stored.claim for stored in verdicts if stored.claim is not None]
            assert len(claims) == 1 or Verdict.DUPLICATE in {stored.verdict for stored in verdicts}
            assert len(claims) <= 1
        assert len(records(processes[0])) == 20

    def test_tenants_are_kept_apart(self, world: World) -> None:
        inbox = world.process()
        ours = world.delivery("ord_1", ts=world.wall, tenant="a")
        theirs = world.delivery("ord_1", ts=world.wall, tenant="b")
        assert ours.raw == theirs.raw
        claim = claimed(inbox, ours)
        other = claimed(inbox, theirs)
        given(inbox.complete(claim, Outcome.HANDLED))
        assert given(inbox.store(theirs, claim=True)) == IN_FLIGHT
        given(inbox.fail(other, "x", retry_in=0))
        assert given(inbox.store(ours, claim=True)) == DUPLICATE

    def test_endpoints_are_kept_apart(self, durable: World) -> None:
        inbox = durable.process()
        one, other = (durable.delivery("ord_1", ts=durable.wall, endpoint=name) for name in ("shop", "wallet"))
        assert given(inbox.store(one, claim=False)) == given(inbox.store(other, claim=False)) == NEW
        durable.elapse(5)
        [taken] = take(inbox)
        assert taken.delivery.endpoint == "shop"

    def test_the_time_is_part_of_it(self, world: World) -> None:
        inbox = world.process()
        for ts in (1, 2):
            assert given(inbox.store(world.delivery("ord_1", ts=world.wall - ts), claim=False)) == NEW

    def test_a_key_of_the_applications(self, world: World) -> None:
        inbox = world.process()

        def by_resource(event: Any) -> str:  # noqa: ANN401 - an Event
            return str(event.id)

        first = world.delivery("ord_1", ts=world.wall - 1, dedupe=by_resource)
        again = world.delivery("ord_1", ts=world.wall - 2, note=1, dedupe=by_resource)
        other = world.delivery("ord_2", dedupe=by_resource)
        verdicts = [given(inbox.store(one, claim=False)).verdict for one in (first, again, other)]
        assert verdicts == [Verdict.NEW, Verdict.DUPLICATE, Verdict.NEW]

    def test_an_id_is_found_again(self, durable: World) -> None:
        inbox = durable.process()
        deliveries = [durable.delivery() for _ in range(3)]
        for delivery in deliveries:
            given(inbox.store(delivery, claim=False))
        assert [inbox.get(number_of(inbox, one)).id for one in deliveries] == [one.id for one in deliveries]


class TestTooOld:
    @pytest.mark.parametrize("claim", [False, True])
    def test_it_is_recorded_and_never_run(self, durable: World, claim: bool) -> None:  # noqa: FBT001 - a case
        inbox = durable.process(remember=100)
        delivery = durable.delivery(ts=durable.wall - 101)
        assert given(inbox.store(delivery, claim=claim)) == TOO_OLD
        record = record_of(inbox, delivery)
        assert (record.state, record.outcome, record.finished_at) == (State.DEAD, Outcome.TOO_OLD, durable.wall)
        assert given(inbox.store(delivery, claim=claim)) == DUPLICATE
        durable.elapse(5)
        assert not take(inbox)

    def test_at_the_limit_it_runs(self, durable: World) -> None:
        inbox = durable.process(remember=100)
        assert given(inbox.store(durable.delivery(ts=durable.wall - 100), claim=False)) == NEW

    def test_a_copy_of_one_that_is_still_open_says_so(self, durable: World) -> None:
        # Its sender would otherwise be told that it is done.
        inbox = durable.process(remember=100)
        delivery = durable.delivery(ts=durable.wall - 90)
        claimed(inbox, delivery)
        durable.elapse(20)
        late = durable.delivery(delivery.event.id, ts=delivery.event.ts)
        assert late.identity == delivery.identity
        assert given(inbox.store(late, claim=True)) == IN_FLIGHT

    def test_it_is_forgotten_no_earlier_than_it_could_come_again(self, durable: World) -> None:
        inbox = durable.process(remember=100, retain_body=1)
        delivery = durable.delivery(ts=durable.wall)
        given(inbox.complete(claimed(inbox, delivery), Outcome.HANDLED))
        durable.elapse(99)
        inbox.prune()
        assert given(inbox.store(delivery, claim=False)) == DUPLICATE
        durable.elapse(2)
        inbox.prune()
        again = durable.delivery(delivery.event.id, ts=delivery.event.ts)
        assert given(inbox.store(again, claim=False)) == TOO_OLD


class TestLimits:
    def look(self, inbox: Any) -> None:  # noqa: ANN401 - a SQLInbox
        given(inbox._run(inbox._look))

    def look_is_over(self, inbox: Any) -> None:  # noqa: ANN401 - a SQLInbox
        given(inbox._run(lambda _connection, _now: None))

    @pytest.mark.parametrize("claim", [False, True])
    def test_above_max_backlog_nothing_new(self, database: SQLWorld, claim: bool) -> None:  # noqa: FBT001 - a case
        inbox = database.process(max_backlog=3)
        known = [database.delivery() for _ in range(3)]
        first = claimed(inbox, known[0])
        for delivery in known[1:]:
            given(inbox.store(delivery, claim=False))
        self.look(inbox)
        with pytest.raises(InboxFull, match="accepted: 3 deliveries are open, and max_backlog is 3"):
            given(inbox.store(database.delivery(), claim=claim))
        assert len(records(inbox)) == 3
        given(inbox.complete(first, Outcome.HANDLED))
        self.look(inbox)
        assert given(inbox.store(database.delivery(), claim=False)) == NEW

    def test_a_full_inbox_tells_the_truth_about_what_it_has(self, database: SQLWorld) -> None:
        inbox = database.process(max_backlog=2)
        done, in_flight, failed = (database.delivery() for _ in range(3))
        given(inbox.complete(claimed(inbox, done), Outcome.HANDLED))
        claimed(inbox, in_flight)
        given(inbox.fail(claimed(inbox, failed), "x", retry_in=60))
        self.look(inbox)
        for claim in (False, True):
            with pytest.raises(InboxFull):
                given(inbox.store(database.delivery(), claim=claim))
        for delivery in (done, in_flight, failed):
            assert given(inbox.store(delivery, claim=False)) == DUPLICATE
        # With claim=True 200 would mean that it has been handled.
        assert given(inbox.store(done, claim=True)) == DUPLICATE
        assert given(inbox.store(in_flight, claim=True)) == IN_FLIGHT
        again = claimed(inbox, failed)
        assert (again.attempt, again.failures) == (2, 1)

    def test_what_is_too_old_takes_no_room_in_the_backlog(self, database: SQLWorld) -> None:
        inbox = database.process(max_backlog=1, remember=100)
        given(inbox.store(database.delivery(), claim=False))
        self.look(inbox)
        with pytest.raises(InboxFull):
            given(inbox.store(database.delivery(ts=database.wall - 200), claim=False))

    def test_little_disk(self, sqlite: SQLWorld, monkeypatch: pytest.MonkeyPatch) -> None:
        inbox = sqlite.process(min_free_disk=1000)
        known = sqlite.delivery()
        given(inbox.store(known, claim=False))
        monkeypatch.setattr(shutil, "disk_usage", lambda _path: SimpleNamespace(free=999))
        self.look(inbox)
        with pytest.raises(InboxFull, match="the disk has 999 bytes left, and min_free_disk is 1000"):
            given(inbox.store(sqlite.delivery(), claim=False))
        assert given(inbox.store(known, claim=False)) == DUPLICATE
        monkeypatch.undo()
        self.look(inbox)
        assert given(inbox.store(sqlite.delivery(), claim=False)) == NEW

    def test_the_disk_of_a_server_is_its_own_affair(self, postgresql: SQLWorld) -> None:
        inbox = postgresql.process(min_free_disk=2**60)
        self.look(inbox)
        assert given(inbox.store(postgresql.delivery(), claim=False)) == NEW

    def test_room_that_is_found_lets_in_who_waits_behind_the_look(self, database: SQLWorld) -> None:
        inbox = database.process(max_backlog=1)
        known = database.delivery()
        claim = claimed(inbox, known)
        self.look(inbox)
        given(inbox.complete(claim, Outcome.HANDLED))
        with Gate(inbox):
            # Submitted while the inbox says that it is full, and carried out when it no longer is.
            inbox._run(inbox._look)
            answers = [inbox.store(one, claim=False) for one in (known, database.delivery())]
        assert [given(answer) for answer in answers] == [DUPLICATE, NEW]

    def test_the_limits_are_looked_at_by_themselves(self, database: SQLWorld) -> None:
        inbox = database.process(max_backlog=2)
        now = [0.0]
        inbox._backlog._clock = lambda: now[0]
        for seconds in (0, 0, 30):  # the first look finds nothing, the second is not due
            now[0] += seconds
            assert given(inbox.store(database.delivery(), claim=False)) == NEW
        self.look_is_over(inbox)
        with pytest.raises(InboxFull):
            given(inbox.store(database.delivery(), claim=False))

    def test_a_long_look_is_made_more_seldom(self, sqlite: SQLWorld) -> None:
        inbox = sqlite.process()
        backlog = inbox._backlog
        times = iter([100.0, 103.0])
        backlog._clock = lambda: next(times)
        self.look(inbox)
        assert backlog._look_at == 103 + 20 * 3

    def test_no_worker_is_told_once_a_minute(self, database: SQLWorld, caplog: pytest.LogCaptureFixture) -> None:
        inbox = database.process()
        now = [0.0]
        inbox._backlog._clock = lambda: now[0]

        def told_after(seconds: float) -> int:
            caplog.clear()
            now[0] += seconds
            database.elapse(seconds)
            given(inbox.store(database.delivery(), claim=False))
            self.look_is_over(inbox)
            return Counter(record.getMessage() for record in caplog.records)["inbox.no_worker endpoint='shop'"]

        assert [told_after(seconds) for seconds in (0, 59, 2, 30, 31)] == [0, 0, 1, 0, 1]
        database.elapse(30)
        given(inbox.heartbeat("worker-1", [Served("shop")]))
        assert [told_after(seconds) for seconds in (60, 61)] == [0, 1]


class TestCodec:
    def test_bodies_at_rest(self, durable: World) -> None:
        key = Fernet.generate_key()
        inbox = durable.process(codec=Fernet(key))
        delivery = durable.delivery("ord_private")
        given(inbox.store(delivery, claim=False))
        number = number_of(inbox, delivery)
        assert inbox.body(number) == delivery.raw
        with pytest.raises(ConfigurationError, match="the inbox has no codec"):
            durable.process().body(number)
        with pytest.raises(MalformedPayload, match=r"cannot be decrypted with the codec .*: InvalidToken"):
            durable.process(codec=Fernet(Fernet.generate_key())).body(number)

    def test_nothing_of_a_body_lies_open(self, sqlite: SQLWorld) -> None:
        inbox = sqlite.process(codec=Fernet(Fernet.generate_key()))
        given(inbox.store(sqlite.delivery("ord_1", event="order.created", note=918273645), claim=False))
        inbox.close()
        assert b"918273645" not in (sqlite.folder / "roovet.db").read_bytes()

    def test_a_key_is_replaced(self, durable: World) -> None:
        old, new = Fernet(Fernet.generate_key()), Fernet(Fernet.generate_key())
        before = durable.process(codec=old)
        deliveries = [durable.delivery() for _ in range(2)]
        given(before.store(deliveries[0], claim=False))
        after = durable.process(codec=MultiFernet([new, old]))
        given(after.store(deliveries[1], claim=False))
        durable.elapse(5)
        assert [one.delivery.raw for one in take(after)] == [delivery.raw for delivery in deliveries]

    def test_what_came_before_the_codec_stays_readable(self, durable: World) -> None:
        delivery = durable.delivery()
        given(durable.process().store(delivery, claim=False))
        durable.elapse(5)
        [one] = take(durable.process(codec=Fernet(Fernet.generate_key())))
        assert one.delivery.raw == delivery.raw

    def test_a_wrong_key_buries(self, durable: World) -> None:
        inbox = durable.process(codec=Fernet(Fernet.generate_key()))
        delivery = durable.delivery()
        given(inbox.store(delivery, claim=False))
        durable.elapse(5)
        other = durable.process(codec=Fernet(Fernet.generate_key()))
        assert take(other) == []
        record = record_of(other, delivery)
        assert (record.state, record.outcome, record.failures) == (State.DEAD, Outcome.UNDECODABLE, 0)
        assert "cannot be decrypted" in (record.last_error or "")
        # With the right key it runs after all.
        given(inbox.replay(record.number))
        [one] = take(inbox)
        assert one.delivery.raw == delivery.raw

    def test_a_worker_without_the_codec_harms_nothing(self, durable: World) -> None:
        # It was forgotten where the worker is set up: no fault of the deliveries.
        inbox = durable.process(codec=Fernet(Fernet.generate_key()))
        delivery = durable.delivery()
        given(inbox.store(delivery, claim=False))
        durable.elapse(5)
        with pytest.raises(ConfigurationError, match="the inbox has no codec"):
            take(durable.process())
        assert state_of(inbox, delivery) is State.READY
        assert len(take(inbox)) == 1

    def test_what_is_no_codec(self, durable: World) -> None:
        with pytest.raises(ConfigurationError, match=r"codec must have encrypt and decrypt, .*; str has not"):
            durable.process(codec="secret")


class TestSeveralHandlers:
    def test_successes_are_kept_through_failures_and_crashes(self, durable: World) -> None:
        inbox = durable.process(retry=RetryPolicy(initial=1))
        delivery = durable.delivery()
        claim = claimed(inbox, delivery)
        given(inbox.succeed(claim, "book"))
        given(inbox.succeed(claim, "book"))
        given(inbox.fail(claim, "mail failed", retry_in=0))
        claim = claimed(inbox, delivery)
        assert claim.succeeded == {"book"}
        with inbox.transaction(claim, "mail"):
            pass
        durable.reap(inbox)
        claim = claimed(inbox, delivery)
        assert claim.succeeded == {"book", "mail"}
        assert record_of(inbox, delivery).succeeded == ("book", "mail")

    def test_a_batch_gets_each_its_own(self, durable: World) -> None:
        inbox = durable.process()
        deliveries = [durable.delivery() for _ in range(4)]
        for place, delivery in enumerate(deliveries):
            claim = claimed(inbox, delivery)
            for handler in ("a", "b", "c")[:place]:
                given(inbox.succeed(claim, handler))
            given(inbox.release(claim, retry_in=0))
        found = {one.delivery.id: set(one.claim.succeeded) for one in take(inbox)}
        assert [found[one.id] for one in deliveries] == [set(), {"a"}, {"a", "b"}, {"a", "b", "c"}]

    def test_in_memory_too(self, memory: World) -> None:
        inbox = memory.process()
        delivery = memory.delivery()
        claim = claimed(inbox, delivery)
        inbox.succeed(claim, "book")
        inbox.release(claim, retry_in=0)
        assert claimed(inbox, delivery).succeeded == {"book"}


def test_a_claim_of_nothing(durable: World) -> None:
    inbox = durable.process()
    ghost = Claim(durable.delivery().identity, 1, number=10**12)
    assert inbox.renew([ghost]) == set()


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        ({"lease": 0}, r"positive numbers for lease \(0 s\)"),
        ({"remember": float("inf")}, "remember"),
        ({"retain_body": -1}, "retain_body"),
        ({"timeout": float("nan")}, "timeout"),
        ({"settle": 1.5}, r"settle \(1.5 s, at most 1\)"),
        ({"max_backlog": 0}, r"for max_backlog \(0\)"),
        ({"max_waiting": 0, "lease": -1}, r"lease \(-1 s\), max_waiting \(0\)"),
        ({"remember": "30d", "settle": None}, r"remember \('30d' s\), settle \(None s, at most 1\)"),
        ({"max_backlog": "1000", "max_waiting": 1.5}, r"max_backlog \('1000'\), max_waiting \(1.5\)"),
        ({"min_free_disk": -1}, r"min_free_disk \(-1 bytes\)"),
        ({"lease": True}, r"lease \(True s\)"),
    ],
    ids=str,
)
def test_numbers_that_cannot_be(sqlite: SQLWorld, options: dict[str, Any], fault: str) -> None:
    with pytest.raises(ConfigurationError, match=fault):
        sqlite.process(**options)
