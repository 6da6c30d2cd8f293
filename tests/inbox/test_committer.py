"""Group commit: one transaction for many, an answer for each, and none that takes others with it."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import text

from inbox.worlds import Gate, claimed, eventually, given, record_of, state_of, take
from roovet_webhooks import ConfigurationError, InboxFull, InboxUnavailable, LeaseLost
from roovet_webhooks.inbox.future import InboxFuture
from roovet_webhooks.inbox.protocol import Claim, Stored, Verdict
from roovet_webhooks.inbox.sql import committer, postgresql as postgresql_store
from roovet_webhooks.inbox.sql.committer import MAX_BATCH, Operation
from roovet_webhooks.inbox.sql.store import Conflict
from roovet_webhooks.inbox.states import Outcome, State
from roovet_webhooks.receiving.bridge import AsyncBridge, SyncBridge, run

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator

    from sqlalchemy import Connection

    from inbox.worlds import SQLWorld, World

NEW, DUPLICATE = Stored(Verdict.NEW), Stored(Verdict.DUPLICATE)


@contextmanager
def transactions(inbox: Any) -> Generator[list[str]]:  # noqa: ANN401 - a SQLInbox
    """Count how a store's transactions end."""
    ends: list[str] = []
    write = inbox._store.write

    @contextmanager
    def counted() -> Generator[Any]:
        try:
            with write() as transaction:
                yield transaction
        except BaseException as error:
            ends.append(type(error).__name__)
            raise
        ends.append("commit")

    inbox._store.write = counted
    try:
        yield ends
    finally:
        inbox._store.write = write


class TestBatches:
    def test_what_comes_together_shares_a_transaction(self, database: SQLWorld) -> None:
        inbox = database.process()
        given(inbox.store(database.delivery(), claim=False))
        with transactions(inbox) as ends:
            with Gate(inbox):
                answers = [inbox.store(database.delivery(), claim=False) for _ in range(50)]
            assert [given(answer) for answer in answers] == [NEW] * 50
        assert ends == ["commit"] * 2

    def test_no_more_than_a_batch_at_once(self, database: SQLWorld) -> None:
        inbox = database.process()
        given(inbox.store(database.delivery(), claim=False))
        with transactions(inbox) as ends:
            with Gate(inbox):
                answers = [inbox.store(database.delivery(), claim=False) for _ in range(MAX_BATCH + 1)]
            assert [given(answer) for answer in answers] == [NEW] * (MAX_BATCH + 1)
        assert ends == ["commit"] * 3

    def test_nothing_is_answered_before_the_commit(self, database: SQLWorld) -> None:
        inbox = database.process()
        given(inbox.store(database.delivery(), claim=False))
        seen: list[bool] = []
        with Gate(inbox):
            answer = inbox.store(database.delivery(), claim=False)
            inbox._run(lambda _connection, _now: seen.append(answer.done()))
        given(answer)
        assert seen == [False]

    def test_a_duplicate_inside(self, database: SQLWorld) -> None:
        inbox = database.process()
        known, twice = database.delivery(), database.delivery()
        given(inbox.store(known, claim=False))
        with Gate(inbox):
            answers = [inbox.store(one, claim=False) for one in (database.delivery(), known, twice, twice)]
        assert [given(answer) for answer in answers] == [NEW, DUPLICATE, NEW, DUPLICATE]

    def test_a_duplicate_costs_no_connection(self, sqlite: SQLWorld) -> None:
        inbox = sqlite.process()
        known = sqlite.delivery()
        given(inbox.store(known, claim=False))
        connection = inbox._store._connection
        assert given(inbox.store(known, claim=False)) == DUPLICATE
        assert inbox._store._connection is connection

    def test_rows_are_written_in_one_order_whatever_is_done_to_them(self, database: SQLWorld) -> None:
        # Two processes that take rows in different orders wait for each other.
        inbox = database.process()
        inbox.open()
        inbox._backlog._look_at = float("inf")  # nothing else shares the batch
        deliveries = [database.delivery(ts=database.wall - age) for age in range(6, 0, -1)]
        with transactions(inbox) as ends:
            with Gate(inbox):
                for place, delivery in enumerate(deliveries[::-1]):
                    inbox.store(delivery, claim=place % 2 == 0)
            given(inbox._run(lambda _connection, _now: None))
        assert set(ends) == {"commit"}
        numbers = [inbox.number_of(delivery.id) for delivery in deliveries]
        assert numbers == sorted(numbers)

    def test_stale_claims_inside(self, database: SQLWorld) -> None:
        inbox = database.process()
        claims = [claimed(inbox, database.delivery()) for _ in range(4)]
        given(inbox.release(claims[2], retry_in=0))
        with Gate(inbox):
            answers = [inbox.complete(claim, Outcome.HANDLED) for claim in claims]
        assert [given(answer) for place, answer in enumerate(answers) if place != 2] == [None] * 3
        with pytest.raises(LeaseLost):
            given(answers[2])

    @pytest.mark.parametrize(
        "error", [ValueError("mine"), ConfigurationError("mine"), SystemExit(1)], ids=lambda error: type(error).__name__
    )
    def test_one_that_raises_takes_no_other_with_it(self, database: SQLWorld, error: BaseException) -> None:
        inbox = database.process()
        delivery = database.delivery()

        def fault(connection: Connection, _now: int) -> None:
            connection.execute(text("INSERT INTO ledger (entry) VALUES ('half')"))
            raise error

        with Gate(inbox):
            before = inbox.store(delivery, claim=False)
            bad = inbox._run(fault)
            after = inbox.store(database.delivery(), claim=False)
        assert (given(before), given(after)) == (NEW, NEW)
        with pytest.raises(type(error)) as caught:
            given(bad)
        assert caught.value is error
        assert database.booked() == []
        assert state_of(inbox, delivery) is State.READY
        with pytest.raises(type(error)):
            given(inbox._run(fault))
        given(inbox.store(database.delivery(), claim=False))

    @pytest.mark.parametrize("alone", [True, False])
    def test_an_error_of_the_database_shows_no_parameter(self, database: SQLWorld, alone: bool) -> None:  # noqa: FBT001 - a case
        inbox = database.process()

        def fault(connection: Connection, _now: int) -> None:
            connection.execute(text("INSERT INTO roovet_meta VALUES (:name, :secret)"), [
                {"name": "version", "secret": "private"},
            ])  # fmt: skip

        with Gate(inbox):
            others = [] if alone else [inbox.store(database.delivery(), claim=False) for _ in range(3)]
            bad = inbox._run(fault)
        assert [given(other) for other in others] == [NEW] * len(others)
        fault_of_all = r"the store refused an operation: (IntegrityError|UniqueViolation)"
        with pytest.raises(InboxUnavailable, match=fault_of_all) as caught:
            given(bad)
        assert "private" not in str(caught.value)
        assert caught.value.__cause__ is None

    def test_each_waiter_gets_an_error_of_its_own(self, database: SQLWorld) -> None:
        inbox = database.process()
        given(inbox.store(database.delivery(), claim=False))

        def down() -> Any:  # noqa: ANN401 - a context manager that does not open
            raise InboxUnavailable("down")  # noqa: EM101 - a fault that a store reports

        with Gate(inbox):
            answers = [inbox.store(database.delivery(), claim=False) for _ in range(3)]
            write, inbox._store.write = inbox._store.write, down
        errors: set[int] = set()
        for answer in answers:
            with pytest.raises(InboxUnavailable, match="down") as caught:
                given(answer)
            errors.add(id(caught.value))
            answers_kept = caught  # alive, so that no two have one address
            assert answers_kept
        inbox._store.write = write
        given(inbox.store(database.delivery(), claim=False))

    @pytest.mark.parametrize(("seconds", "tries"), [(0.5, 2), (1.5, 1)], ids=["at once", "late"])
    def test_what_failed_at_once_is_tried_again(
        self, database: SQLWorld, monkeypatch: pytest.MonkeyPatch, seconds: float, tries: int
    ) -> None:
        # What took its time would take it again, and whoever waits has less and less of it.
        inbox = database.process()
        inbox.open()
        now = [0.0]
        tried: list[float] = []

        def down() -> Any:  # noqa: ANN401 - a context manager that does not open
            tried.append(now[0])
            now[0] += seconds
            raise InboxUnavailable("down")  # noqa: EM101 - a fault that a store reports

        monkeypatch.setattr(committer, "monotonic", lambda: now[0])
        with Gate(inbox):
            inbox._backlog._look_at = float("inf")  # nothing else shares the batch
            answer = inbox.store(database.delivery(), claim=False)
            write, inbox._store.write = inbox._store.write, down
        with pytest.raises(InboxUnavailable, match="down"):
            given(answer)
        assert len(tried) == tries
        inbox._store.write = write
        assert given(inbox.store(database.delivery(), claim=False)) == NEW

    def test_nothing_is_kept_alive_until_the_next_comes(self, sqlite: SQLWorld) -> None:
        inbox = sqlite.process()

        def alive() -> int:
            gc.collect()
            return sum(issubclass(type(one), Operation) for one in gc.get_objects())

        before = alive()
        given(inbox.store(sqlite.delivery(), claim=False))
        eventually(lambda: alive() <= before)


class TestWhoWaitsNoMore:
    """What is granted to nobody is given back at once: it would else be taken for a crash."""

    def claims(self, world: World, inbox: Any, way: str) -> Callable[[], InboxFuture[Any]]:  # noqa: ANN401 - a SQLInbox
        delivery = world.delivery()
        if way == "store":
            return lambda: inbox.store(delivery, claim=True)
        given(inbox.store(delivery, claim=False))
        if way == "suspect":
            take(inbox)
            world.reap(inbox)
            world.elapse(60)
            return lambda: inbox.claim_isolated("shop")
        if way == "number":
            number = inbox.number_of(delivery.id)
            return lambda: inbox.claim_number(number)
        return lambda: inbox.claim("shop", limit=5)

    ways = pytest.mark.parametrize("way", ["store", "claim", "suspect", "number"])

    def check(self, inbox: Any, way: str) -> None:  # noqa: ANN401 - a SQLInbox
        given(inbox._run(lambda _connection, _now: None))
        record = inbox.get(1)
        assert (record.state, record.owner) == (State.READY, None)
        assert record.crashes == (1 if way == "suspect" else 0)
        assert record.failures == 0

    @ways
    def test_before_it_has_begun(self, database: SQLWorld, way: str) -> None:
        inbox = database.process()
        submit = self.claims(database, inbox, way)
        with Gate(inbox):
            submit().cancel()
        given(inbox._run(lambda _connection, _now: None))
        if way == "store":
            assert list(inbox.stats()) == []
        else:
            self.check(inbox, way)
            assert inbox.get(1).attempts == (1 if way == "suspect" else 0)

    @ways
    def test_while_it_runs(self, database: SQLWorld, way: str) -> None:
        inbox = database.process()
        submit = self.claims(database, inbox, way)
        with Gate(inbox):
            answer = submit()
            inbox._run(lambda _connection, _now: answer.cancel())
        self.check(inbox, way)

    @ways
    def test_after_it_was_granted(self, database: SQLWorld, way: str) -> None:
        inbox = database.process()
        answer = self.claims(database, inbox, way)()
        given(answer)
        answer.cancel()
        answer.cancel()
        self.check(inbox, way)

    @pytest.mark.parametrize("way", ["suspect", "number", "store"])
    def test_nothing_was_granted(self, database: SQLWorld, way: str) -> None:
        inbox = database.process()
        if way == "store":
            delivery = database.delivery()
            claimed(inbox, delivery)
            answer = inbox.store(delivery, claim=True)
        else:
            answer = inbox.claim_isolated("shop") if way == "suspect" else inbox.claim_number(5)
        given(answer)
        answer.cancel()
        given(inbox._run(lambda _connection, _now: None))

    def test_after_the_inbox_was_closed(self, sqlite: SQLWorld) -> None:
        inbox = sqlite.process()
        answer = inbox.store(sqlite.delivery(), claim=True)
        given(answer)
        inbox.close()
        answer.cancel()

    def test_while_the_inbox_closes(self, sqlite: SQLWorld) -> None:
        inbox, other = sqlite.process(), sqlite.process()
        delivery = sqlite.delivery()
        given(inbox.store(delivery, claim=False))
        with ThreadPoolExecutor() as pool:
            with Gate(inbox):
                answer = inbox.claim("shop", limit=5)
                inbox._run(lambda _connection, _now: answer.cancel())
                closing = pool.submit(inbox.close)
                time.sleep(0.05)
            closing.result(30)
        record = record_of(other, delivery)
        assert (record.state, record.attempts) == (State.READY, 1)

    @pytest.mark.parametrize("kind", ["sync", "async"])
    def test_a_waiter_whose_time_is_over(self, database: SQLWorld, kind: str) -> None:
        inbox = database.process(timeout=0.1)
        delivery = database.delivery()
        given(inbox.store(delivery, claim=False))
        bridge: Any = SyncBridge() if kind == "sync" else AsyncBridge()
        waiting = bridge.wait(inbox, inbox.claim, "shop", limit=5)
        with Gate(inbox), pytest.raises(InboxUnavailable, match=r"the inbox has not answered for 0.1 s"):
            drive(kind, waiting)
        given(inbox._run(lambda _connection, _now: None))
        assert record_of(inbox, delivery).attempts == 0

    def test_a_task_that_is_cancelled(self, database: SQLWorld) -> None:
        inbox = database.process()
        delivery = database.delivery()
        given(inbox.store(delivery, claim=False))
        begun = threading.Event()
        go_on = threading.Event()

        def slow(_connection: object, _now: int) -> None:
            begun.set()
            assert go_on.wait(60)

        async def main() -> None:
            with Gate(inbox):
                task = asyncio.create_task(AsyncBridge().wait(inbox, inbox.claim, "shop", limit=5))
                await asyncio.sleep(0.01)
                inbox._run(slow)
            await asyncio.to_thread(begun.wait, 60)  # the claim has been made, and not been committed
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            go_on.set()

        asyncio.run(main())
        given(inbox._run(lambda _connection, _now: None))
        record = record_of(inbox, delivery)
        assert (record.state, record.attempts, record.crashes) == (State.READY, 1, 0)
        given(inbox.store(database.delivery(), claim=False))

    def test_a_loop_that_has_gone(self, sqlite: SQLWorld) -> None:
        inbox = sqlite.process()
        gate = Gate(inbox)
        with gate:
            answers: list[InboxFuture[Any]] = []

            async def main() -> None:
                answers.append(inbox.store(sqlite.delivery(), claim=False))
                task = asyncio.create_task(answers[0].wait())
                await asyncio.sleep(0.01)
                task.cancel()

            asyncio.run(main())
        given(inbox.store(sqlite.delivery(), claim=False))


def drive(kind: str, work: Any) -> object:  # noqa: ANN401 - a coroutine
    return asyncio.run(work) if kind == "async" else run(work)


class TestBounds:
    def test_a_full_queue_refuses_new_work_and_ends_old(self, database: SQLWorld) -> None:
        inbox = database.process(max_waiting=3)
        old = [claimed(inbox, database.delivery()) for _ in range(5)]
        with Gate(inbox):
            accepted = [inbox.store(database.delivery(), claim=False) for _ in range(3)]
            for claim in (False, True):
                with pytest.raises(InboxFull, match="3 operations are waiting for the store already"):
                    inbox.store(database.delivery(), claim=claim)
            # A settlement that is refused would have its handlers run twice.
            settled = [inbox.complete(claim, Outcome.HANDLED) for claim in old]
        assert [given(one) for one in accepted] == [NEW] * 3
        assert [given(one) for one in settled] == [None] * 5
        assert given(inbox.store(database.delivery(), claim=False)) == NEW

    def test_one_that_does_not_answer_in_time(self, database: SQLWorld) -> None:
        inbox = database.process()
        inbox.open()
        inbox.timeout = 0.05
        with Gate(inbox):
            with pytest.raises(InboxUnavailable, match=r"the inbox has not answered for 0.05 s"):
                inbox.open()
            with pytest.raises(InboxUnavailable):
                inbox.reap_now()
            with pytest.raises(InboxUnavailable):
                inbox.renew([claimed_elsewhere(database)])


def claimed_elsewhere(database: SQLWorld) -> Claim:
    return Claim(database.delivery().identity, 1, number=1)


class TestClosing:
    def test_what_was_submitted_is_carried_out(self, database: SQLWorld) -> None:
        inbox = database.process()
        with ThreadPoolExecutor() as pool:
            with Gate(inbox):
                answers = [inbox.store(database.delivery(), claim=False) for _ in range(MAX_BATCH + 10)]
                closing = pool.submit(inbox.close)
                time.sleep(0.05)
                assert not closing.done()
            closing.result(30)
        assert [given(answer) for answer in answers] == [NEW] * len(answers)
        with pytest.raises(InboxUnavailable, match="the inbox has been closed"):
            inbox.store(database.delivery(), claim=False)

    def test_twice_and_unused(self, database: SQLWorld) -> None:
        inbox = database.process()
        inbox.close()
        inbox.close()
        with pytest.raises(InboxUnavailable, match="the inbox has been closed"):
            inbox.store(database.delivery(), claim=False)
        assert inbox._committer._serving is None

    @pytest.mark.long
    def test_every_operation_is_answered_whenever_it_closes(self, sqlite: SQLWorld) -> None:
        for _ in range(20):
            inbox = sqlite.process()
            inbox.open()
            answers: list[InboxFuture[Any]] = []

            def submit_until_closed(inbox: Any = inbox, answers: list[Any] = answers) -> None:  # noqa: ANN401 - a SQLInbox
                with suppress(InboxUnavailable):
                    while True:
                        answers.append(inbox.store(sqlite.delivery(), claim=False))

            with ThreadPoolExecutor() as pool:
                submitting = pool.submit(submit_until_closed)
                time.sleep(0.005)
                inbox.close()
                submitting.result(30)
            assert all(answer.done() for answer in answers)


class TestSeveralCommitters:
    def test_overlapping_batches_do_not_wait_for_each_other(
        self, postgresql: SQLWorld, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(postgresql_store, "WAIT", 60)  # a busy machine is no deadlock
        processes = [postgresql.process() for _ in range(3)]
        for process in processes:
            process.open()
        deliveries = [postgresql.delivery() for _ in range(200)]
        conflicts: list[Conflict] = []
        for process in processes:
            watch_conflicts(process, conflicts)

        def store_all(place: int) -> list[Verdict]:
            inbox = processes[place % 3]
            mine = deliveries if place % 2 else deliveries[::-1]
            answers = [inbox.store(delivery, claim=place >= 3) for delivery in mine]
            return [given(answer).verdict for answer in answers]

        with ThreadPoolExecutor(6) as pool:
            verdicts = [verdict for found in pool.map(store_all, range(6)) for verdict in found]
        assert len(verdicts) == 1200
        assert set(verdicts) <= {Verdict.NEW, Verdict.DUPLICATE, Verdict.IN_FLIGHT}
        assert postgresql.query("SELECT count(*) FROM roovet_delivery") == [(200,)]
        assert not conflicts

    @pytest.mark.parametrize("times", [1, 2, 3])
    def test_one_that_gave_way_is_tried_again(self, database: SQLWorld, times: int) -> None:
        inbox = database.process()
        inbox.open()
        inbox._backlog._look_at = float("inf")  # nothing else shares the batch
        write = inbox._store.write
        left = [times]
        fault = Conflict("it gave way")

        @contextmanager
        def conflicting() -> Iterator[Any]:
            with write() as transaction:
                yield transaction
                if left[0]:
                    left[0] -= 1
                    raise fault

        with Gate(inbox):
            answers = [inbox.store(database.delivery(), claim=False) for _ in range(3)]
            inbox._store.write = conflicting
        # Together, one by one, and at last each for itself: the first of these gives way a third time.
        outcomes = [type(error) for error in map(error_of, answers)]
        assert outcomes.count(Conflict) == (1 if times == 3 else 0)
        assert outcomes.count(type(None)) == 3 - outcomes.count(Conflict)

    def test_a_deadlock_of_the_server_is_a_conflict(self, postgresql: SQLWorld) -> None:
        inbox = postgresql.process()
        claims = [claimed(inbox, postgresql.delivery()) for _ in range(2)]
        numbers = [claim.number for claim in claims]
        mine, theirs = threading.Event(), threading.Event()
        lock = "SELECT 1 FROM roovet_delivery WHERE id = {} FOR UPDATE"
        tries: list[int] = []

        def one_way(connection: Connection, _now: int) -> str:
            tries.append(1)
            connection.exec_driver_sql(lock.format(numbers[0]))
            mine.set()
            theirs.wait(30)
            connection.exec_driver_sql(lock.format(numbers[1]))
            return "done"

        def other_way() -> None:
            with postgresql.engine().begin() as connection:
                connection.exec_driver_sql("SET LOCAL deadlock_timeout = '10s'")  # the inbox's side finds it
                connection.exec_driver_sql(lock.format(numbers[1]))
                theirs.set()
                mine.wait(30)
                connection.exec_driver_sql(lock.format(numbers[0]))

        with ThreadPoolExecutor() as pool:
            other = pool.submit(other_way)
            assert given(inbox._run(one_way)) == "done"
            other.result(30)
        assert len(tries) == 2


def watch_conflicts(inbox: Any, found: list[Conflict]) -> None:  # noqa: ANN401 - a SQLInbox
    write = inbox._store.write

    @contextmanager
    def watched() -> Iterator[Any]:
        try:
            with write() as transaction:
                yield transaction
        except Conflict as conflict:
            found.append(conflict)
            raise

    inbox._store.write = watched


def error_of(answer: InboxFuture[Any]) -> BaseException | None:
    try:
        given(answer)
    except InboxUnavailable as error:
        return error
    return None


class TestPending:
    def test_an_answer_that_is_there(self) -> None:
        pending: InboxFuture[int] = InboxFuture()
        assert not pending.done()
        pending.answer(5)
        assert pending.done()
        assert pending.result(0) == 5
        assert asyncio.run(pending.wait()) == 5

    def test_an_error(self) -> None:
        pending: InboxFuture[Any] = InboxFuture()
        pending.answer(ValueError("x"))
        with pytest.raises(ValueError, match="x"):
            pending.result()
        with pytest.raises(ValueError, match="x"):
            asyncio.run(pending.wait())

    def test_an_answer_that_comes_while_a_thread_waits(self) -> None:
        pending: InboxFuture[str] = InboxFuture()
        with ThreadPoolExecutor() as pool:
            waiter = pool.submit(pending.result)
            time.sleep(0.02)
            pending.answer("late")
            InboxFuture.wake([pending])
            assert waiter.result(30) == "late"

    def test_an_answer_that_comes_while_a_loop_waits(self) -> None:
        async def main() -> list[str]:
            pendings: list[InboxFuture[str]] = [InboxFuture() for _ in range(3)]
            tasks = [asyncio.create_task(pending.wait(30)) for pending in pendings]
            await asyncio.sleep(0.01)

            def answer() -> None:
                for place, pending in enumerate(pendings):
                    pending.answer(f"answer {place}")
                InboxFuture.wake(pendings)

            await asyncio.to_thread(answer)
            return await asyncio.gather(*tasks)

        assert asyncio.run(main()) == ["answer 0", "answer 1", "answer 2"]

    def test_none_in_time(self) -> None:
        undone: list[int] = []
        for kind in ("sync", "async"):
            pending: InboxFuture[int] = InboxFuture(undone.append)
            with pytest.raises(TimeoutError):
                _ = pending.result(0.01) if kind == "sync" else asyncio.run(pending.wait(0.01))
            assert pending.cancelled
            pending.answer(5)
            InboxFuture.wake([pending])
        assert undone == [5, 5]

    def test_a_loop_that_is_closed_is_not_woken(self) -> None:
        pending: InboxFuture[int] = InboxFuture()
        loop = asyncio.new_event_loop()

        async def leave() -> None:
            task = loop.create_task(pending.wait())
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            task.cancel()

        loop.run_until_complete(leave())
        loop.close()
        pending.answer(1)
        InboxFuture.wake([pending])

    def test_an_answer_that_arrives_with_the_end_of_the_time_counts(self) -> None:
        undone: list[int] = []

        async def main() -> int:
            pending: InboxFuture[int] = InboxFuture(undone.append)
            task = asyncio.create_task(pending.wait(0.01))
            await asyncio.sleep(0)
            time.sleep(0.05)  # noqa: ASYNC251 - the loop is busy meanwhile
            pending.answer(7)
            InboxFuture.wake([pending])
            return await task

        assert asyncio.run(main()) == 7
        assert not undone

    def test_every_interleaving_of_one_that_answers_and_one_that_gives_up(self) -> None:
        for _ in range(300):
            undone: list[int] = []
            pending: InboxFuture[int] = InboxFuture(undone.append)

            def answer(pending: InboxFuture[int] = pending) -> None:
                pending.answer(1)
                InboxFuture.wake([pending])

            thread = threading.Thread(target=answer)
            thread.start()
            pending.cancel()
            thread.join()
            assert undone  # once or twice, and never not at all
