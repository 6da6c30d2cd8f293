"""The reaper's decision and the keeper's rounds, with clocks that stand still unless they are moved."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest

from inbox.test_leases import Maintainable, claim_of
from roovet_webhooks import InboxUnavailable, RetryPolicy
from roovet_webhooks.inbox import maintenance as keeper_module
from roovet_webhooks.inbox.maintenance import Expiry, Lease, MaintenanceThread, Watch, expiries, log_purged, log_reaped
from roovet_webhooks.inbox.records import Purged
from roovet_webhooks.inbox.states import Outcome, State

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence
    from threading import Thread

    from roovet_webhooks.inbox.history import History
    from roovet_webhooks.inbox.protocol import Claim

NOW = 1_762_782_800_000  # milliseconds
LEASE = 60.0


class Told:
    """Stands for the history: it says what it was told."""

    def crashed(self, row: Any, *, now: int, dead: bool) -> tuple[Any, ...]:  # noqa: ANN401 - a row
        return row.id, now, dead


def row_of(number: int, *, until: int = NOW, endpoint: str = "shop", **columns: int) -> Any:  # noqa: ANN401 - a row
    counts = {"fence": 1, "failures": 0, "crashes": 0, **columns}
    return SimpleNamespace(id=number, lease_until=until, endpoint=endpoint, owner="gone", history=None, **counts)


class Reaper:
    """One observer, whose looks are at moments that a test names."""

    def __init__(self, **policies: RetryPolicy) -> None:
        self.watch = Watch(LEASE)
        self.policies = policies or {"shop": RetryPolicy()}

    def look(self, moment: float, *rows: Any, held: frozenset[tuple[int, int]] = frozenset()) -> list[Expiry]:  # noqa: ANN401 - rows
        history = cast("History", Told())
        return list(expiries(self.watch, rows, self.policies, history=history, held=held, now=NOW, moment=moment))

    def numbers(self, moment: float, *rows: Any, **options: Any) -> list[int]:  # noqa: ANN401 - as look
        return [expiry.lease.number for expiry in self.look(moment, *rows, **options)]


class TestExpiries:
    def test_a_lease_that_has_run_out_is_watched_for_one(self) -> None:
        reaper, row = Reaper(), row_of(1)
        assert [reaper.numbers(moment, row) for moment in (0, 59.9, 60)] == [[], [], [1]]

    def test_one_that_ends_too_far_away_is_watched_for_ten(self) -> None:
        reaper, far = Reaper(), row_of(1, until=NOW + 1)
        assert [reaper.numbers(moment, far) for moment in (0, 60, 599, 600)] == [[], [], [], [1]]
        assert reaper.look(600, far)[0].lease == Lease(1, 1, NOW + 1, far=True)

    def test_what_this_process_holds_is_left_alone(self) -> None:
        reaper, row = Reaper(), row_of(1, fence=3)
        reaper.look(0, row)
        assert reaper.numbers(60, row, held=frozenset({(1, 3)})) == []
        reaper.look(60, row)
        assert reaper.numbers(120, row, held=frozenset({(1, 2), (2, 3)})) == [1]

    def test_what_becomes_of_it(self) -> None:
        reaper = Reaper(shop=RetryPolicy(initial=7, max_attempts=9, max_crashes=3), wallet=RetryPolicy(max_crashes=1))
        rows = [row_of(1, crashes=1, failures=1), row_of(2, crashes=2), row_of(3, endpoint="wallet")]
        rows.append(row_of(4, failures=8))
        reaper.look(0, *rows)
        again, *dead = reaper.look(60, *rows)
        assert (again.lease, again.dead) == (Lease(1, 1, NOW), False)
        assert (again.values["state"], again.values["available_at"]) == (State.READY, NOW + 28_000)
        assert (again.values["crashes"], again.values["history"]) == (2, (1, NOW, False))
        assert [(one.lease.number, one.dead, one.values["crashes"]) for one in dead] == [
            *((2, True, 3), (3, True, 1), (4, True, 1))
        ]
        assert {one.values["outcome"] for one in dead} == {Outcome.POISONED}
        assert [one.values["history"] for one in dead] == [(2, NOW, True), (3, NOW, True), (4, NOW, True)]


def test_each_that_was_freed_is_told(caplog: pytest.LogCaptureFixture) -> None:
    log_reaped([(1, False), (2, True), (3, False)])
    assert [record.getMessage() for record in caplog.records] == [
        *("inbox.lease_expired number=1", "inbox.poisoned number=2", "inbox.lease_expired number=3")
    ]


def test_what_was_erased_is_told(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG", "roovet_webhooks")
    for bodies, tombstones in ((0, 0), (2, 0), (0, 3)):
        log_purged(Purged(bodies, tombstones))
    assert [record.getMessage() for record in caplog.records] == [
        *("inbox.pruned bodies=2 records=0", "inbox.pruned bodies=0 records=3")
    ]


class Clock:
    """Monotonic seconds that pass where somebody waits: for a thread's next round."""

    def __init__(self, rounds: int = 10**9) -> None:
        self.now = 1000.0
        self.rounds = rounds

    def __call__(self) -> float:
        return self.now

    def wait(self, seconds: float) -> bool:
        self.now += seconds
        self.rounds -= 1
        return self.rounds < 0


class TimedKept(Maintainable):
    """Notes when its keeper did what."""

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self.clock = clock
        self.renewed_at: list[float] = []
        self.tidied_at: list[float] = []
        self.meanwhile: list[Callable[[], object]] = []

    def renew(self, claims: Sequence[Claim]) -> Collection[int]:
        self.renewed_at.append(self.clock.now)
        for act in self.meanwhile:
            act()
        return super().renew(claims)

    def prune(self) -> object:
        self.tidied_at.append(self.clock.now)
        return super().prune()


def still_keeper(lease: float = LEASE, rounds: int = 10**9) -> tuple[MaintenanceThread, TimedKept, Clock]:
    """Return a keeper whose thread is this one: nothing happens but what a test does."""
    clock = Clock(rounds)
    kept = TimedKept(clock)
    maintenance = MaintenanceThread(kept, lease, clock=clock)
    maintenance._thread = threading.current_thread()
    maintenance._stopping = cast("Any", clock)
    return maintenance, kept, clock


class TestRounds:
    def test_a_claim_is_renewed_three_times_in_a_lease(self) -> None:
        maintenance, kept, clock = still_keeper(rounds=9)
        begun = clock.now
        maintenance.hold([claim_of(1)])
        maintenance._serve()
        assert [at - begun for at in kept.renewed_at] == [20.0 * number for number in range(1, 10)]
        assert kept.reaps == 9

    def test_it_tidies_at_once_and_then_once_a_minute(self) -> None:
        maintenance, kept, clock = still_keeper(rounds=13)
        begun = clock.now
        maintenance._serve()
        assert [at - begun for at in kept.tidied_at] == [20, 80, 140, 200, 260]

    def test_what_fails_keeps_nothing_else_from_its_turn(self, caplog: pytest.LogCaptureFixture) -> None:
        maintenance, kept, _ = still_keeper(rounds=3)
        maintenance.hold([claim_of(1)])
        fault = ValueError("a fault")
        kept.errors = [fault, fault, fault]
        maintenance._serve()
        assert (len(kept.renewals), kept.reaps, kept.tidies) == (3, 3, 1)
        told = [(record.getMessage(), record.exc_info and record.exc_info[1]) for record in caplog.records]
        assert told == [("inbox.maintenance_failed", fault)] * 3

    def test_it_looks_for_blocked_event_loops_each_time(self, monkeypatch: pytest.MonkeyPatch) -> None:
        looks: list[int] = []
        monkeypatch.setattr("roovet_webhooks.telemetry.report_blocked_loops", lambda: looks.append(1))
        maintenance, _, _ = still_keeper(rounds=4)
        maintenance._serve()
        assert len(looks) == 4

    def test_each_kind_of_work_has_its_own_outage(self, caplog: pytest.LogCaptureFixture) -> None:
        maintenance, kept, _ = still_keeper(rounds=2)
        down = InboxUnavailable("down")
        kept.errors = [down, down]
        kept.reap_now = failing(down)  # type: ignore[method-assign]  # one that is down
        maintenance.hold([claim_of(1)])
        maintenance._serve()
        told = "inbox.maintenance_failed code='inbox_unavailable' reason='down'"
        assert [record.getMessage() for record in caplog.records] == [told, told]


def failing(error: Exception) -> Callable[[], int]:
    def fail(*_: object) -> int:
        raise error

    return fail


class TestWhetherAClaimHolds:
    def test_for_half_a_lease_after_it_was_granted(self) -> None:
        maintenance, _, clock = still_keeper()
        maintenance.hold([claim_of(1)])
        held: list[bool] = []
        for seconds in (0, 29.9, 0.1, 60):
            clock.now += seconds
            held.append(maintenance.keep(claim_of(1)))
        assert held == [True, True, False, False]

    def test_and_after_it_was_renewed(self) -> None:
        maintenance, kept, clock = still_keeper()
        maintenance.hold([claim_of(1)])
        clock.now += 40
        maintenance.renew()
        assert maintenance.keep(claim_of(1))
        # From when the store was asked, not from when it answered.
        kept.meanwhile.append(lambda: clock.wait(30))
        maintenance.renew()
        assert not maintenance.keep(claim_of(1))

    def test_of_one_that_was_not_granted_here_nothing_is_known(self) -> None:
        maintenance, kept, _ = still_keeper()
        assert not maintenance.keep(claim_of(1))
        assert maintenance.holding() == {(1, 1)}
        maintenance.renew()
        assert maintenance.keep(claim_of(1))
        assert kept.renewals == [[1]]

    def test_another_claim_of_the_same_delivery_is_another(self) -> None:
        maintenance, _, _ = still_keeper()
        maintenance.hold([claim_of(1, 1)])
        assert not maintenance.keep(claim_of(1, 2))
        assert maintenance.holding() == {(1, 2)}

    def test_what_was_lost_is_held_no_more(self) -> None:
        maintenance, kept, _ = still_keeper()
        maintenance.hold([claim_of(1), claim_of(2)])
        kept.lost = {1}
        maintenance.renew()
        assert maintenance.holding() == {(2, 1)}
        assert not maintenance.keep(claim_of(1))
        maintenance.stop_renewing(claim_of(1))
        maintenance.stop_renewing(claim_of(2))
        assert maintenance.holding() == set()

    @pytest.mark.parametrize("lost", [False, True])
    def test_what_changes_while_the_store_is_asked_stays_as_it_was_changed(self, lost: bool) -> None:  # noqa: FBT001 - a case
        maintenance, kept, clock = still_keeper()
        maintenance.hold([claim_of(1, 1), claim_of(2), claim_of(3)])
        kept.lost = {1, 2} if lost else set()
        clock.now += 25
        kept.meanwhile += [
            lambda: clock.wait(10),
            lambda: maintenance.hold([claim_of(1, 2)]),
            lambda: maintenance.stop_renewing(claim_of(2)),
        ]
        maintenance.renew()
        assert maintenance.holding() == {(1, 2), (3, 1)}
        clock.now += 15  # 25 since the store was asked, 15 since the new claim was granted
        assert maintenance.keep(claim_of(1, 2))
        assert maintenance.keep(claim_of(3))


class TestThread:
    def test_it_keeps_no_process_from_ending(self) -> None:
        maintenance = MaintenanceThread(Maintainable(), 1000)
        try:
            maintenance.start()
            thread = maintenance._thread
            assert thread is not None
            assert thread.daemon
            assert thread.is_alive()
        finally:
            maintenance.close()
        assert not thread.is_alive()

    @pytest.mark.parametrize("entry", ["hold", "hold nothing", "keep", "start"])
    def test_there_is_one(self, entry: str, monkeypatch: pytest.MonkeyPatch) -> None:
        threads: list[Thread] = []

        def slowly(thread: Thread) -> Thread:
            threads.append(thread)
            time.sleep(0.005)
            thread.start()
            return thread

        monkeypatch.setattr(keeper_module, "started", slowly)
        maintenance = MaintenanceThread(Maintainable(), 1000)
        entries: dict[str, Callable[[], object]] = {
            "hold": lambda: maintenance.hold([claim_of(1)]),
            "hold nothing": lambda: maintenance.hold([]),
            "keep": lambda: maintenance.keep(claim_of(1)),
            "start": maintenance.start,
        }
        try:
            with ThreadPoolExecutor(4) as pool:
                list(pool.map(lambda _: entries[entry](), range(4)))
            assert len(threads) == 1
        finally:
            maintenance.close()

    def test_one_that_cannot_be_started_is_tried_again(
        self, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        maintenance = MaintenanceThread(Maintainable(), 1000)
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", failing(RuntimeError("can't start new thread")))
            maintenance.hold([claim_of(1)])
            with pytest.raises(InboxUnavailable):
                maintenance.start()
        assert "inbox.maintenance_failed" in caplog.text
        try:
            maintenance.keep(claim_of(2))
            assert maintenance._thread is not None
            assert maintenance._thread.is_alive()
            assert maintenance.holding() == {(1, 1), (2, 1)}
        finally:
            maintenance.close()

    def test_one_that_waits_for_its_store_is_left_behind(self, monkeypatch: pytest.MonkeyPatch) -> None:
        entered, opened = threading.Event(), threading.Event()

        class Stuck(Maintainable):
            def reap_now(self) -> int:
                entered.set()
                assert opened.wait(60)
                return 0

        monkeypatch.setattr(keeper_module, "CLOSING", 0.01)
        maintenance = MaintenanceThread(Stuck(), 0.03)
        maintenance.start()
        thread = cast("Thread", maintenance._thread)
        assert entered.wait(60)
        maintenance.close()
        assert thread.is_alive()
        opened.set()
        thread.join(60)
        assert not thread.is_alive()
