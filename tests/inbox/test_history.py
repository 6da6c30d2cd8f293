"""The history of attempts: each end of an attempt is in it, with what an operator needs and nothing that is secret."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest
from cryptography.fernet import Fernet
from sqlalchemy import text

from inbox.test_attempts import Shop, raise_
from inbox.worlds import DAY, claimed, given, number_of, take
from roovet_webhooks import ConfigurationError, DropDelivery, Event, RetryLater, RetryPolicy
from roovet_webhooks.inbox import history
from roovet_webhooks.inbox.records import AttemptOutcome, Query, RecordedAttempt, RecordedRun
from roovet_webhooks.inbox.sql import schema
from roovet_webhooks.inbox.states import Outcome, State
from roovet_webhooks.receiving.bridge import AsyncBridge
from roovet_webhooks.tracebacks import message_of, short_traceback

if TYPE_CHECKING:
    from inbox.worlds import SQLWorld, World
    from roovet_webhooks import Delivery

ENDS = [
    (None, AttemptOutcome.HANDLED, "handled"),
    (DropDelivery("not ours"), AttemptOutcome.DROPPED, "dropped"),
    (RetryLater(5, "the bank sleeps"), AttemptOutcome.RETRY_LATER, "retry_later"),
    (ValueError("no such account"), AttemptOutcome.FAILED, "failed"),
    (SystemExit(3), AttemptOutcome.FAILED, "failed"),
]
FAILED = RecordedRun(
    handler="book", outcome="failed", duration=0.5, error="ValueError", message="no such account", traceback="x.py:1"
)


def attempt(number: int = 1, *runs: RecordedRun) -> RecordedAttempt:
    return RecordedAttempt(number=number, outcome=AttemptOutcome.FAILED, duration=0.7, runs=runs or (FAILED,))


class TestEveryEnd:
    """What a receiver's attempt leaves."""

    def recorded(self, shop: Shop, world: World) -> Any:  # noqa: ANN401 - a record
        given(shop.inbox.store(world.delivery(), claim=False))
        world.elapse(5)
        with suppress(SystemExit):
            shop.work()
        return shop.inbox.get(shop.inbox.find(Query())[0].number)

    @pytest.mark.parametrize(("error", "outcome", "run"), ENDS, ids=[str(end[1]) for end in ENDS[:-1]] + ["exit"])
    def test_is_recorded(
        self, sqlite: SQLWorld, error: BaseException | None, outcome: AttemptOutcome, run: str
    ) -> None:
        shop = Shop(sqlite)
        shop.handler("book", lambda _event, _delivery: None if error is None else raise_(error))
        [one] = self.recorded(shop, sqlite).history
        assert (one.number, one.outcome, one.dead, one.owner) == (1, outcome, False, shop.inbox.owner)
        assert one.ended_at == sqlite.wall
        assert one.duration >= 0
        [ran] = one.runs
        assert (ran.handler, ran.outcome, ran.error) == ("book", run, None if error is None else type(error).__name__)
        assert ran.message == (None if error is None else str(error))
        if run == "failed":
            assert ran.traceback.splitlines()[-1].startswith(__file__.replace("test_history", "test_attempts"))
            assert "in raise_: raise error" in ran.traceback
        else:
            assert ran.traceback is None

    def test_nobody_wants_it(self, database: SQLWorld) -> None:
        shop = Shop(database)
        shop.receiver.on("transfer.settled")(lambda _event: None)
        [one] = self.recorded(shop, database).history
        assert (one.outcome, one.runs) == (AttemptOutcome.IGNORED, ())

    def test_the_reason_of_a_retry_later_is_the_last_error(self, database: SQLWorld) -> None:
        shop = Shop(database)
        shop.handler("book", lambda _event, _delivery: raise_(RetryLater(5, "the bank sleeps")))
        assert self.recorded(shop, database).last_error == "retry later: book (the bank sleeps)"

    def test_of_several_handlers_each_run(self, database: SQLWorld) -> None:
        shop = Shop(database, retry=RetryPolicy(max_attempts=1))
        shop.handler("book")
        shop.handler("mail", lambda _event, _delivery: raise_(OSError("no route")))
        shop.handler("count", lambda _event, _delivery: raise_(RetryLater()))
        record = self.recorded(shop, database)
        [one] = record.history
        assert one.dead
        assert [(run.handler, run.outcome) for run in one.runs] == [
            ("book", "handled"),
            ("mail", "failed"),
            ("count", "retry_later"),
        ]
        assert record.last_error.startswith("failed: mail (OSError: no route), count (")

    def test_a_cancelled_one_says_which_handler_ran(self, sqlite: SQLWorld) -> None:
        shop = Shop(sqlite, "async")
        started = asyncio.Event()

        async def slow(_event: Event, _delivery: Delivery) -> None:
            started.set()
            await asyncio.Event().wait()

        shop.receiver.on("*", name="slow")(slow)
        given(shop.inbox.store(sqlite.delivery(), claim=False))
        sqlite.elapse(5)
        [one] = given(shop.inbox.claim("shop", limit=1))

        async def main() -> None:
            task = asyncio.create_task(shop.receiver.handle(one, bridge=AsyncBridge()))
            await started.wait()
            task.cancel()
            await asyncio.wait([task])

        asyncio.run(main())
        [ended] = shop.inbox.get(one.claim.number).history
        assert ended.outcome is AttemptOutcome.RELEASED
        assert [(run.handler, run.outcome) for run in ended.runs] == [("slow", "interrupted")]

    def test_neither_the_body_nor_a_secret_is_in_it(self, sqlite: SQLWorld) -> None:
        shop = Shop(sqlite)

        def fail(_event: Event, delivery: Delivery) -> None:
            message = (
                f"{delivery.raw.decode()} {delivery.raw!r} whsec_0123456 rvpk_0123456 https://me:pass@bank.example"
            )
            raise ValueError(message)

        shop.handler("book", fail)
        record = self.recorded(shop, sqlite)
        [run] = record.history[0].runs
        assert run.message == "(body) b'(body)' whsec_… rvpk_… https://me:…@bank.example"
        assert record.last_error == f"failed: book (ValueError: {run.message})"


class TestKept:
    """What a store keeps, and for how long."""

    def test_every_attempt_in_its_order(self, durable: World) -> None:
        inbox = durable.process(retry=RetryPolicy(initial=1))
        delivery = durable.delivery()
        claim = claimed(inbox, delivery)
        durable.elapse(10)
        given(inbox.fail(claim, "failed", retry_in=0, attempt=attempt()))
        [one] = take(inbox)
        given(inbox.release(one.claim, retry_in=0))
        [one] = take(inbox)
        durable.reap(inbox)
        durable.elapse(5)
        [one] = given(inbox.claim_isolated("shop"))
        given(inbox.complete(one.claim, Outcome.HANDLED))
        given(inbox.replay(claim.number, confirmed=True))
        [one] = take(inbox)
        given(inbox.bury(one.claim, "nobody knows it\x00\ud800", Outcome.UNDECODABLE))
        record = inbox.get(claim.number)
        ends = [(one.number, one.outcome.value, one.dead, one.owner) for one in record.history]
        assert ends == [
            (1, "failed", False, inbox.owner),
            (2, "released", False, inbox.owner),
            (3, "crashed", False, inbox.owner),
            (4, "handled", False, inbox.owner),
            (5, "failed", True, inbox.owner),
        ]
        assert record.history[0].runs == (FAILED,)
        assert record.history[0].duration == 0.7
        assert record.history[4].reason == "nobody knows it\N{REPLACEMENT CHARACTER}?"
        assert sorted(one.ended_at for one in record.history) == [one.ended_at for one in record.history]
        assert inbox.find(Query())[0].history == ()

    def test_a_poison_s_last_crash_is_marked(self, durable: World) -> None:
        inbox = durable.process(retry=RetryPolicy(max_crashes=1))
        claim = claimed(inbox, durable.delivery())
        assert durable.reap(inbox) == [(claim.number, True)]
        [one] = inbox.get(claim.number).history
        assert (one.outcome, one.dead, one.ended_at) == (AttemptOutcome.CRASHED, True, durable.wall)

    def test_the_last_error_has_class_and_message(self, durable: World) -> None:
        inbox = durable.process()
        claim = claimed(inbox, durable.delivery())
        given(inbox.fail(claim, "failed", retry_in=0, attempt=attempt()))
        assert inbox.get(claim.number).last_error == "failed: book (ValueError: no such account)"

    def test_classes_alone_where_no_more_may_be_kept(self, durable: World) -> None:
        inbox = durable.process(record_errors="class")
        claim = claimed(inbox, durable.delivery())
        given(inbox.fail(claim, "failed", retry_in=0, attempt=attempt()))
        record = inbox.get(claim.number)
        assert record.last_error == "failed: book (ValueError)"
        [run] = record.history[0].runs
        assert (run.error, run.message, run.traceback) == ("ValueError", None, None)

    def test_an_option_that_is_none(self, durable: World) -> None:
        with pytest.raises(ConfigurationError, match="record_errors must be 'full' or 'class', not 'all'"):
            durable.make(record_errors="all")

    def test_it_is_encrypted_where_bodies_are(self, database: SQLWorld) -> None:
        codec = Fernet(Fernet.generate_key())
        inbox = database.process(codec=codec)
        claim = claimed(inbox, database.delivery())
        given(inbox.fail(claim, "failed", retry_in=0, attempt=attempt()))
        [(stored, error)] = database.query("SELECT history, last_error FROM roovet_delivery")
        assert b"account" not in bytes(stored)
        assert error == "failed: book (ValueError)"
        assert inbox.get(claim.number).history[0].runs == (FAILED,)
        # Whoever has lost the key sees the record nevertheless, and goes on with a history that begins anew.
        for other in (database.process(), database.process(codec=Fernet(Fernet.generate_key()))):
            assert other.get(claim.number).history == ()

    def test_it_goes_with_the_body(self, durable: World) -> None:
        inbox = durable.process(retain_body=DAY)
        numbers = []
        for outcome in (Outcome.HANDLED, Outcome.DROPPED):
            delivery = durable.delivery()
            given(inbox.complete(claimed(inbox, delivery), outcome, attempt=attempt()))
            numbers.append(number_of(inbox, delivery))
        given(inbox.purge(numbers[0]))
        assert [len(inbox.get(number).history) for number in numbers] == [0, 1]
        durable.elapse(DAY + 1)
        inbox.prune()
        assert inbox.get(numbers[1]).history == ()

    def test_the_newest_are_kept(self, durable: World, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(history, "MOST_ATTEMPTS", 3)
        inbox = durable.process()
        claim = claimed(inbox, durable.delivery())
        for _ in range(4):
            given(inbox.release(claim, retry_in=0))
            [one] = take(inbox)
            claim = one.claim
        assert [one.number for one in inbox.get(claim.number).history] == [2, 3, 4]

    def test_long_ones_make_room_for_the_newest(self, sqlite: SQLWorld) -> None:
        inbox = sqlite.process()
        claim = claimed(inbox, sqlite.delivery())
        run = RecordedRun(handler="book", outcome="failed", duration=0, message="m" * 500, traceback="t" * 1500)
        for number in range(1, 6):
            given(inbox.fail(claim, "failed", retry_in=0, attempt=attempt(number, *[run] * 30)))
            [one] = take(inbox)
            claim = one.claim
        [(size,)] = sqlite.query("SELECT length(history) FROM roovet_delivery")
        assert size < 2 * history.MOST_BYTES
        [kept] = inbox.get(claim.number).history
        assert (kept.number, len(kept.runs)) == (5, 20)


def test_an_older_store_gets_it(database: SQLWorld) -> None:
    claim = claimed(database.process(), database.delivery())
    database.execute("ALTER TABLE roovet_delivery DROP COLUMN history")
    database.execute("UPDATE roovet_meta SET value = '2' WHERE name = 'version'")
    inbox = database.process()
    inbox.open()
    assert database.query("SELECT value FROM roovet_meta WHERE name = 'version'") == [(str(schema.VERSION),)]
    given(inbox.complete(claim, Outcome.HANDLED))
    record = inbox.get(claim.number)
    assert record.state is State.DONE
    assert [one.outcome for one in record.history] == ["handled"]


def test_a_process_of_the_version_before_goes_on(database: SQLWorld) -> None:
    inbox = database.process()
    claim = claimed(inbox, database.delivery())
    with database.looking() as eye:  # what it writes: no history
        eye.execute(text("UPDATE roovet_delivery SET state = 'ready', owner = NULL, lease_until = NULL"))
    [one] = take(inbox)
    assert one.claim.number == claim.number
    given(inbox.complete(one.claim, Outcome.HANDLED))
    assert [one.number for one in inbox.get(claim.number).history] == [2]


def raised(function: Any) -> Exception:  # noqa: ANN401 - a function
    with pytest.raises(Exception) as caught:  # noqa: PT011 - whichever it is
        function()
    # Without the frame of this function.
    caught.value.__traceback__ = caught.value.__traceback__ and caught.value.__traceback__.tb_next
    return caught.value


class TestTracebacks:
    def test_a_group_tells_what_is_in_it(self) -> None:
        def inner() -> None:
            message = "no route"
            raise OSError(message)

        def outer() -> None:
            message = "two tasks"
            raise ExceptionGroup(message, [raised(inner)])

        group = raised(outer)
        assert message_of(group) == "two tasks (1 sub-exception); OSError: no route"
        assert short_traceback(group).endswith("in inner: raise OSError(message)")

    def test_a_message_that_raises(self) -> None:
        class Mute(Exception):
            def __str__(self) -> str:
                raise ValueError

        assert message_of(Mute()) == "(its message cannot be read)"

    def test_an_application_that_is_an_installed_package(self) -> None:
        code = compile("def book():\n    raise ValueError\n", "/venv/lib/site-packages/shop/webhooks.py", "exec")
        names: dict[str, Any] = {}
        exec(code, names)  # noqa: S102 - a frame of a file that is not there
        assert short_traceback(raised(names["book"])) == "/venv/lib/site-packages/shop/webhooks.py:2 in book"
