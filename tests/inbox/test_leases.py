"""Claims: their fences, their leases, the reaper that goes by its own time, and the thread that keeps them."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from inbox.worlds import LEASE, claimed, eventually, given, number_of, record_of, run_in_transaction, state_of, take
from roovet_webhooks import InboxUnavailable, LeaseLost, RetryPolicy
from roovet_webhooks.delivery import Identity
from roovet_webhooks.inbox.maintenance import Lease, MaintenanceThread, Watch
from roovet_webhooks.inbox.protocol import Claim, Verdict
from roovet_webhooks.inbox.states import Outcome, State

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from inbox.worlds import SQLWorld, World

STALE: dict[str, Callable[[Any, Claim], object]] = {
    "complete": lambda inbox, claim: given(inbox.complete(claim, Outcome.HANDLED)),
    "fail": lambda inbox, claim: given(inbox.fail(claim, "x", retry_in=0)),
    "release": lambda inbox, claim: given(inbox.release(claim, retry_in=0)),
    "bury": lambda inbox, claim: given(inbox.bury(claim, "x", Outcome.FAILED)),
    "succeed": lambda inbox, claim: given(inbox.succeed(claim, "late")),
    "transaction": lambda inbox, claim: run_in_transaction(inbox, claim, lambda _connection: None),
}


class TestFence:
    @pytest.mark.parametrize("operation", STALE)
    @pytest.mark.parametrize("then", ["given back", "claimed by another", "claimed here again", "done"])
    def test_a_stale_claim_changes_nothing(self, durable: World, operation: str, then: str) -> None:
        inbox, other = durable.process(), durable.process()
        delivery = durable.delivery()
        stale = claimed(inbox, delivery)
        durable.reap(other)
        if then != "given back":
            fresh = claimed(inbox if then == "claimed here again" else other, delivery)
            assert fresh.fence == stale.fence + 1
            if then == "done":
                given(other.complete(fresh, Outcome.HANDLED))
        before = record_of(other, delivery)
        with pytest.raises(LeaseLost, match=f"claim {stale.fence} .*is over; it changed nothing"):
            STALE[operation](inbox, stale)
        assert record_of(other, delivery) == before

    @pytest.mark.parametrize("then", ["given back", "claimed by another", "claimed here again", "done"])
    def test_a_stale_claim_is_not_renewed_and_renews_no_other(self, durable: World, then: str) -> None:
        inbox, other = durable.process(), durable.process()
        delivery = durable.delivery()
        stale = claimed(inbox, delivery)
        durable.reap(other)
        if then != "given back":
            fresh = claimed(inbox if then == "claimed here again" else other, delivery)
            if then == "done":
                given(other.complete(fresh, Outcome.HANDLED))
        before = record_of(other, delivery)
        durable.elapse(10)
        assert inbox.renew([stale]) == set()
        assert record_of(other, delivery) == before

    def test_a_stale_claim_in_memory(self, memory: World) -> None:
        inbox = memory.process()
        delivery = memory.delivery()
        stale = claimed(inbox, delivery)
        inbox.release(stale, retry_in=0)
        fresh = claimed(inbox, delivery)
        for name, operation in STALE.items():
            if name != "transaction":
                with pytest.raises(LeaseLost):
                    operation(inbox, stale)
        inbox.complete(fresh, Outcome.HANDLED)

    def test_the_fence_only_rises(self, durable: World) -> None:
        inbox = durable.process(retry=RetryPolicy(initial=1, max_crashes=50))
        delivery = durable.delivery()
        fences: list[int] = []
        for end in ("fail", "release", "crash", "bury", "complete", "fail"):
            claim = claimed(inbox, delivery)
            fences.append(claim.fence)
            if end == "crash":
                durable.reap(inbox)
            elif end in {"bury", "complete"}:
                STALE[end](inbox, claim)
                given(inbox.replay(claim.number, confirmed=True))
            else:
                STALE[end](inbox, claim)
        assert fences == [1, 2, 3, 4, 5, 6]
        assert record_of(inbox, delivery).round == 2

    def test_the_process_that_holds_it_does_not_matter(self, durable: World) -> None:
        # The fence does: an engine may hand a claim on.
        inbox, other = durable.process(), durable.process()
        delivery = durable.delivery()
        given(other.complete(claimed(inbox, delivery), Outcome.HANDLED))
        assert state_of(inbox, delivery) is State.DONE


class TestReaper:
    def test_a_claim_is_freed_after_a_lease_of_the_reapers_time(self, durable: World) -> None:
        inbox, other = durable.process(), durable.process()
        number = claimed(inbox, durable.delivery()).number
        durable.elapse(LEASE)
        assert given(other.reap()) == []  # it has not run out
        durable.elapse(1)
        assert given(other.reap()) == []  # seen for the first time
        durable.elapse(LEASE - 1)
        assert given(other.reap()) == []
        durable.elapse(1)
        assert given(other.reap()) == [(number, False)]

    def test_what_is_renewed_lives(self, durable: World) -> None:
        inbox, other = durable.process(), durable.process()
        claim = claimed(inbox, durable.delivery())
        for _ in range(10):
            durable.elapse(LEASE + 1)  # late, and late again
            assert given(other.reap()) == []
            assert inbox.renew([claim]) == {claim.number}
        given(inbox.complete(claim, Outcome.HANDLED))

    def test_each_claim_begins_anew(self, durable: World) -> None:
        inbox, other = durable.process(), durable.process()
        delivery = durable.delivery()
        claim = claimed(inbox, delivery)
        durable.elapse(LEASE + 1)
        assert given(other.reap()) == []
        given(inbox.release(claim, retry_in=0))
        claimed(inbox, delivery)
        durable.elapse(LEASE + 1)
        assert given(other.reap()) == []

    @pytest.mark.parametrize("seconds", [3600, 86_400, -3600, -86_400])
    def test_a_jump_of_the_clock_ends_no_living_claim(self, durable: World, seconds: float) -> None:
        inbox, other = durable.process(), durable.process()
        claim = claimed(inbox, durable.delivery())
        for _ in range(8):
            durable.jump(seconds)
            assert given(other.reap()) == []
            durable.elapse(LEASE / 3)
            assert inbox.renew([claim]) == {claim.number}
            assert given(other.reap()) == []
        given(inbox.complete(claim, Outcome.HANDLED))

    @pytest.mark.parametrize("seconds", [3600, 86_400, -3600, -86_400])
    def test_a_jump_of_the_clock_strands_nothing(self, durable: World, seconds: float) -> None:
        inbox, other = durable.process(), durable.process(retry=RetryPolicy(initial=1))
        delivery = durable.delivery()
        number = claimed(inbox, delivery).number
        durable.jump(seconds)
        freed: list[tuple[int, bool]] = []
        # Where the clock has gone back, a lease ends too far away: of that the reaper makes sure for ten times as long.
        for _ in range(25 if seconds < 0 else 5):
            durable.elapse(LEASE / 2 + 1)
            freed += given(other.reap())
        assert freed == [(number, False)]
        durable.elapse(2)
        assert len(given(other.claim_isolated("shop"))) == 1

    @pytest.mark.parametrize("seconds", [3600, -3600])
    def test_two_leases_after_each_other_are_two(self, durable: World, seconds: float) -> None:
        # The clock goes back to where a lease ends at the same millisecond as one before: the fence tells them apart.
        inbox, other = durable.process(), durable.process()
        delivery = durable.delivery()
        durable.elapse(LEASE + 1)
        first = claimed(inbox, delivery)
        durable.jump(seconds)
        given(other.reap())
        given(inbox.release(first, retry_in=0))
        durable.jump(-seconds)
        second = claimed(inbox, delivery)
        durable.ticks += LEASE
        durable.jump(LEASE + 1)
        assert given(other.reap()) == []
        assert inbox.renew([second]) == {second.number}

    def test_a_process_with_a_longer_lease_is_left_alone(self, durable: World) -> None:
        long = durable.process(lease=10 * LEASE)
        short = durable.process()
        claim = claimed(long, durable.delivery())
        for _ in range(30):
            durable.elapse(3 * LEASE)
            assert given(short.reap()) == []
            assert long.renew([claim]) == {claim.number}

    def test_only_its_own_endpoints(self, durable: World) -> None:
        shop, wallet = durable.process(), durable.process(endpoint="wallet")
        number = claimed(shop, durable.delivery()).number
        assert durable.reap(wallet) == []
        assert durable.reap(shop) == [(number, False)]

    def test_each_endpoint_by_its_own_policy(self, durable: World) -> None:
        inbox = durable.process(retry=RetryPolicy(initial=7))
        inbox.attach("wallet", RetryPolicy(max_crashes=1))
        shop = claimed(inbox, durable.delivery()).number
        wallet = claimed(inbox, durable.delivery(endpoint="wallet")).number
        assert sorted(durable.reap(inbox)) == [(shop, False), (wallet, True)]

    def test_crashes_and_failures_together_are_bounded(self, durable: World) -> None:
        inbox = durable.process(retry=RetryPolicy(initial=1, max_attempts=3, max_crashes=3))
        delivery = durable.delivery()
        for _ in range(2):
            given(inbox.fail(claimed(inbox, delivery), "x", retry_in=0))
        number = claimed(inbox, delivery).number
        assert durable.reap(inbox) == [(number, True)]
        record = record_of(inbox, delivery)
        assert (record.failures, record.crashes, record.outcome) == (2, 1, Outcome.POISONED)

    def test_many_at_once(self, durable: World) -> None:
        inbox = durable.process()
        numbers = [claimed(inbox, durable.delivery()).number for _ in range(30)]
        assert sorted(durable.reap(inbox)) == [(number, False) for number in numbers]

    def test_two_reapers_free_it_once(self, durable: World) -> None:
        inbox, one, two = (durable.process() for _ in range(3))
        delivery = durable.delivery()
        number = claimed(inbox, delivery).number
        for _ in range(2):
            durable.elapse(LEASE + 1)
            found = [given(one.reap()), given(two.reap())]
        assert found == [[(number, False)], []]
        assert record_of(inbox, delivery).crashes == 1

    def test_nobody_reaps_what_he_holds(self, durable: World) -> None:
        # However late it is renewed: from the moment it is granted, whatever has become of its handlers.
        inbox, other = durable.process(), durable.process()
        for delivery in (last := durable.delivery(), durable.delivery(), durable.delivery()):
            given(inbox.store(delivery, claim=False))
        durable.elapse(5)
        third = given(inbox.claim_number(number_of(inbox, last)))
        [first, second] = take(inbox)
        stored = claimed(inbox, durable.delivery())
        for _ in range(3):
            durable.elapse(LEASE + 1)
            assert given(inbox.reap()) == []
        assert len(given(other.reap())) == 0
        claims = [first.claim, second.claim, third.claim, stored]
        assert inbox.renew(claims) == {claim.number for claim in claims}

    def test_what_is_held_no_more_is_reaped(self, durable: World) -> None:
        inbox = durable.process()
        claim = claimed(inbox, durable.delivery())
        with inbox.renewing(claim) as is_sure:
            assert is_sure
        durable.elapse(LEASE + 1)
        assert given(inbox.reap()) == []
        durable.elapse(LEASE + 1)
        assert given(inbox.reap()) == [(claim.number, False)]

    def test_whether_a_claim_holds_can_be_asked(self, durable: World) -> None:
        inbox = durable.process(retry=RetryPolicy(initial=1))
        delivery = durable.delivery()
        claim = claimed(inbox, delivery)
        durable.elapse(LEASE / 2)
        with inbox.renewing(claim) as is_sure:
            assert not is_sure
            given(inbox.confirm(claim))
            with inbox.renewing(claim) as is_sure_now:
                assert is_sure_now
        durable.reap(durable.process())
        with inbox.renewing(claim) as is_sure:
            assert not is_sure
        with pytest.raises(LeaseLost):
            given(inbox.confirm(claim))

    def test_in_memory_too(self, memory: World) -> None:
        inbox = memory.process()
        claim = claimed(inbox, memory.delivery())
        with inbox.renewing(claim) as is_sure:
            assert is_sure
            inbox.confirm(claim)
            inbox.complete(claim, Outcome.HANDLED)
        with pytest.raises(LeaseLost):
            inbox.confirm(claim)

    def test_a_copy_frees_what_a_dead_process_held(self, durable: World) -> None:
        # In the process that answers the sender's retries nothing else may ever claim, and no worker run.
        inbox, gone = durable.process(lease=0.3), durable.process()
        inbox._ticks = time.monotonic
        delivery = durable.delivery()
        claimed(gone, delivery)
        durable.crash(gone)
        durable.elapse(LEASE + 1)
        answers: list[Verdict] = []

        def sent_again() -> bool:
            answers.append(given(inbox.store(delivery, claim=True)).verdict)
            return answers[-1] is Verdict.NEW

        eventually(sent_again)
        assert answers[0] is Verdict.IN_FLIGHT

    def test_it_says_what_it_did(self, durable: World, caplog: pytest.LogCaptureFixture) -> None:
        inbox = durable.process(retry=RetryPolicy(initial=1, max_crashes=2))
        delivery = durable.delivery()
        told: list[str] = []
        for _ in range(2):
            number = claimed(inbox, delivery).number
            durable.crash(inbox)
            durable.elapse(LEASE + 1)
            assert inbox.reap_now() == 0
            durable.elapse(LEASE + 1)
            assert inbox.reap_now() == 1
            told += [record.getMessage() for record in caplog.records]
            caplog.clear()
        assert told == [f"inbox.lease_expired number={number}", f"inbox.poisoned number={number}"]


class TestPoison:
    """What took a process with it runs alone, so that it takes nothing else."""

    def crashed(self, world: World, inbox: Any, count: int = 1) -> None:  # noqa: ANN401 - a DurableInbox
        for _ in range(count):
            claimed(inbox, world.delivery())
        world.reap(inbox)
        world.elapse(3600)

    def test_a_suspect_is_claimed_alone(self, durable: World) -> None:
        inbox = durable.process()
        self.crashed(durable, inbox, 2)
        healthy = durable.delivery()
        given(inbox.store(healthy, claim=False))
        durable.elapse(5)
        assert given(inbox.count_crashed("shop")) == 2
        assert [one.delivery.id for one in take(inbox)] == [healthy.id]
        [crashed] = given(inbox.claim_isolated("shop"))
        assert crashed.claim.crashes == 1
        assert given(inbox.count_crashed("shop")) == 1

    def test_there_is_none(self, durable: World) -> None:
        inbox = durable.process()
        given(inbox.store(durable.delivery(), claim=False))
        durable.elapse(5)
        assert given(inbox.count_crashed("shop")) == 0
        assert given(inbox.claim_isolated("shop")) == []

    def test_one_that_is_not_due_is_left_alone(self, durable: World) -> None:
        inbox = durable.process(retry=RetryPolicy(initial=30))
        claimed(inbox, durable.delivery())
        durable.reap(inbox)
        assert given(inbox.count_crashed("shop")) == 0
        assert given(inbox.claim_isolated("shop")) == []
        durable.elapse(30)
        assert given(inbox.count_crashed("shop")) == 1

    def test_one_that_ends_well_is_a_suspect_no_more_after_a_replay(self, durable: World) -> None:
        inbox = durable.process()
        self.crashed(durable, inbox)
        [crashed] = given(inbox.claim_isolated("shop"))
        given(inbox.complete(crashed.claim, Outcome.HANDLED))
        given(inbox.replay(crashed.claim.number, confirmed=True))
        assert given(inbox.count_crashed("shop")) == 0
        assert len(take(inbox)) == 1

    def test_a_release_keeps_the_suspicion(self, durable: World) -> None:
        inbox = durable.process()
        self.crashed(durable, inbox)
        [crashed] = given(inbox.claim_isolated("shop"))
        given(inbox.release(crashed.claim, retry_in=0))
        assert take(inbox) == []
        assert given(inbox.count_crashed("shop")) == 1

    def test_a_poison_ends_dead_and_its_neighbours_done(self, durable: World) -> None:
        inbox = durable.process(retry=RetryPolicy(initial=1, max_crashes=3))
        poison = durable.delivery("poison")
        innocents = [durable.delivery() for _ in range(31)]
        for delivery in (*innocents[:15], poison, *innocents[15:]):
            given(inbox.store(delivery, claim=False))
        durable.elapse(5)
        deaths = 0
        while found := take(inbox, limit=32) or given(inbox.claim_isolated("shop")):
            if any(one.delivery.id == poison.id for one in found):
                deaths += 1  # the process, and all that it held
                durable.reap(inbox)
                durable.elapse(10)
            else:
                for one in found:
                    given(inbox.complete(one.claim, Outcome.HANDLED))
        assert deaths == 3
        assert {state_of(inbox, one) for one in innocents} == {State.DONE}
        record = record_of(inbox, poison)
        assert (record.state, record.outcome, record.crashes) == (State.DEAD, Outcome.POISONED, 3)


class TestNothingWaitsForAHandler:
    """In PostgreSQL a handler's transaction locks its row; nobody else may wait for it, and least of all all others."""

    def test_the_committer_goes_on(self, postgresql: SQLWorld, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("roovet_webhooks.inbox.sql.postgresql.WAIT", 50)  # longer than a busy machine takes
        inbox, other = postgresql.process(), postgresql.process()
        delivery = postgresql.delivery()
        claim = claimed(inbox, delivery)
        postgresql.elapse(LEASE + 1)
        given(other.reap())
        postgresql.elapse(LEASE + 1)
        with inbox.transaction(claim, "book") as connection:
            postgresql.book(connection, "once")
            started = time.monotonic()
            # A tick of the keeper, a copy, a look of another process's reaper: each shares a batch with an accept.
            renewed: list[Collection[int]] = []
            thread = threading.Thread(target=lambda: renewed.append(inbox.renew([claim])))
            thread.start()
            accepts = [inbox.store(postgresql.delivery(), claim=False)]
            copies = [inbox.store(delivery, claim=mode) for mode in (True, False)]
            accepts.append(inbox.store(postgresql.delivery(), claim=False))
            freed = other.reap()
            accepts.append(other.store(postgresql.delivery(), claim=False))
            for pending in (*accepts, *copies):
                given(pending)
            assert given(freed) == []
            thread.join(30)
            assert renewed == [{claim.number}], "what is locked by its own handler is still held"
            assert time.monotonic() - started < 25, "somebody has waited for the lock"
        given(inbox.complete(claim, Outcome.HANDLED))


class TestWatch:
    def test_what_has_not_changed_for_a_lease(self) -> None:
        watch = Watch(10)
        one, two = Lease(1, 1, 500), Lease(2, 1, 600)
        assert watch.overdue([one], 0) == []
        assert watch.overdue([one, two], 9) == []
        assert watch.overdue([one, two], 10) == [one]
        assert watch.overdue([one, two], 19.9) == [one, two]

    def test_what_ends_too_far_away_is_watched_for_longer(self) -> None:
        watch = Watch(10)
        far = Lease(1, 1, 10**9, far=True)
        assert watch.overdue([far], 0) == []
        assert watch.overdue([far], 99.9) == []
        assert watch.overdue([far], 100) == [far]

    @pytest.mark.parametrize("changed", [Lease(1, 2, 500), Lease(1, 1, 501)])
    def test_what_has_changed_begins_anew(self, changed: Lease) -> None:
        watch = Watch(10)
        assert watch.overdue([Lease(1, 1, 500)], 0) == []
        assert watch.overdue([changed], 10) == []
        assert watch.overdue([changed], 20) == [changed]

    def test_what_has_gone_is_forgotten(self) -> None:
        watch = Watch(10)
        one = Lease(1, 1, 500)
        assert watch.overdue([one], 0) == []
        assert watch.overdue([], 5) == []
        assert watch.overdue([one], 11) == []


class Maintainable:
    """What a keeper keeps, as a record of its calls."""

    def __init__(self) -> None:
        self.renewals: list[list[int]] = []
        self.lost: set[int] = set()
        self.reaps = self.tidies = 0
        self.errors: list[Exception] = []

    def renew(self, claims: Sequence[Claim]) -> Collection[int]:
        self.renewals.append([claim.number for claim in claims])
        if self.errors:
            raise self.errors.pop()
        return {claim.number for claim in claims} - self.lost

    def reap_now(self) -> int:
        self.reaps += 1
        return 0

    def prune(self) -> object:
        self.tidies += 1
        return None


def claim_of(number: int, fence: int = 1) -> Claim:
    return Claim(Identity("shop", "default", 1, bytes(32)), fence, number=number)


class TestKeeper:
    def test_it_renews_reaps_and_tidies(self) -> None:
        kept = Maintainable()
        maintenance = MaintenanceThread(kept, 0.03)
        try:
            maintenance.hold([claim_of(1)])
            eventually(lambda: len(kept.renewals) >= 2 and kept.reaps >= 2)
            assert kept.tidies == 1
            maintenance.stop_renewing(claim_of(1))
            maintenance.renew()  # after this no renewal can be under way that began before
            count = len(kept.renewals)
            reaps = kept.reaps
            eventually(lambda: kept.reaps > reaps + 1)
            assert len(kept.renewals) <= count + 1
        finally:
            maintenance.close()

    def test_it_tidies_now_and_then(self) -> None:
        now = [0.0]
        kept = Maintainable()
        maintenance = MaintenanceThread(kept, 0.03, clock=lambda: now[0])
        maintenance.start()
        maintenance.start()
        try:
            eventually(lambda: kept.tidies == 1)
            now[0] += 3600
            eventually(lambda: kept.tidies == 2)
        finally:
            maintenance.close()

    def test_what_is_lost_is_renewed_no_more(self) -> None:
        kept = Maintainable()
        maintenance = MaintenanceThread(kept, 1000)
        try:
            maintenance.hold([claim_of(1), claim_of(2)])
            kept.lost = {2}
            maintenance.renew()
            maintenance.renew()
            assert kept.renewals == [[1, 2], [1]]
        finally:
            maintenance.close()

    def test_an_old_claim_lets_no_new_one_go(self) -> None:
        kept = Maintainable()
        maintenance = MaintenanceThread(kept, 1000)
        try:
            maintenance.hold([claim_of(1, 2)])
            maintenance.stop_renewing(claim_of(1, 1))
            maintenance.stop_renewing(claim_of(9))
            maintenance.renew()
            assert kept.renewals == [[1]]
        finally:
            maintenance.close()

    def test_nothing_held_asks_for_nothing(self) -> None:
        kept = Maintainable()
        MaintenanceThread(kept, 1000).renew()
        assert kept.renewals == []

    @pytest.mark.parametrize(
        ("error", "told"),
        [
            (InboxUnavailable("down"), "inbox.maintenance_failed code='inbox_unavailable' reason='down'"),
            (ValueError("a fault"), "inbox.maintenance_failed"),
        ],
    )
    def test_it_outlives_what_goes_wrong(self, error: Exception, told: str, caplog: pytest.LogCaptureFixture) -> None:
        kept = Maintainable()
        kept.errors = [error]
        maintenance = MaintenanceThread(kept, 0.03)
        try:
            maintenance.hold([claim_of(1)])
            eventually(lambda: len(kept.renewals) >= 2)
        finally:
            maintenance.close()
        assert told in [record.getMessage() for record in caplog.records]

    def test_an_outage_is_told_once(self, caplog: pytest.LogCaptureFixture) -> None:
        kept = Maintainable()
        down, locked = InboxUnavailable("down"), InboxUnavailable("locked")
        maintenance = MaintenanceThread(kept, 0.03)
        for errors in ([down] * 3, [locked, down], [down]):
            kept.errors = list(errors)
            count = len(kept.renewals) + len(errors)
            maintenance.hold([claim_of(1)])
            eventually(lambda: len(kept.renewals) > count)  # noqa: B023 - within this round
        maintenance.close()
        told = [record.getMessage().partition("reason=")[2] for record in caplog.records]
        assert told == ["'down'", "'down'", "'locked'", "'down'"]

    def test_one_that_never_ran_closes(self) -> None:
        MaintenanceThread(Maintainable(), 1).close()


class TestKeeping:
    """`renewing` and the thread behind it, with a real clock."""

    def test_a_claim_outlives_its_lease(self, database: SQLWorld) -> None:
        inbox = database.process(lease=0.3, clock=None)
        inbox._ticks = time.monotonic
        delivery = database.delivery(ts=time.time() - 10)
        claim = claimed(inbox, delivery)
        with inbox.renewing(claim):
            time.sleep(1)
            assert state_of(inbox, delivery) is State.CLAIMED
            given(inbox.complete(claim, Outcome.HANDLED))
        assert record_of(inbox, delivery).crashes == 0

    def test_one_that_is_kept_no_more_is_freed(self, database: SQLWorld) -> None:
        inbox = database.process(lease=0.3, clock=None, retry=RetryPolicy(initial=0.001))
        inbox._ticks = time.monotonic
        delivery = database.delivery(ts=time.time() - 10)
        inbox.start_maintenance()
        with inbox.renewing(claimed(inbox, delivery)):
            pass
        eventually(lambda: state_of(inbox, delivery) is State.READY)
        assert record_of(inbox, delivery).crashes == 1

    def test_in_memory_there_is_nothing_to_keep(self, memory: World) -> None:
        inbox = memory.process()
        claim = claimed(inbox, memory.delivery())
        with inbox.renewing(claim):
            inbox.complete(claim, Outcome.HANDLED)
