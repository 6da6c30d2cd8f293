"""A model of the inbox, and a machine that does anything in any order to both.

The machine plays processes that store, claim, crash, come back as zombies, settle, drain, reap and tidy, operators
that replay and purge, an engine to which deliveries are handed, and a clock that is set forward and back. The model
says what each step answers and leaves. What has to hold at every moment are the invariants of the design, by number.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from hypothesis import settings, strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from support import SECRET

from inbox.worlds import DAY, LEASE, NOW, given
from roovet_webhooks import (
    ConfigurationError,
    Delivery,
    DropDelivery,
    Event,
    InvalidTransition,
    LeaseLost,
    RetryLater,
    RetryPolicy,
    WebhookReceiver,
)
from roovet_webhooks.inbox.protocol import Claim, Claimed, Stored, Verdict
from roovet_webhooks.inbox.records import RecordedDelivery
from roovet_webhooks.inbox.states import Outcome, State
from roovet_webhooks.receiving.bridge import SyncBridge, run

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from inbox.worlds import World
    from roovet_webhooks.delivery import Identity
    from roovet_webhooks.inbox.records import RecordedDelivery

EXAMPLES = int(os.environ.get("ROOVET_TEST_MODEL_EXAMPLES", settings().max_examples // 8))
STEPS = int(os.environ.get("ROOVET_TEST_MODEL_STEPS", "40"))

POLICY = RetryPolicy(initial=5, factor=2, max_delay=60, max_attempts=4, max_crashes=3, max_age=20 * DAY)
REMEMBER, RETAIN = 30 * DAY, 7 * DAY
HANDLERS = ("book", "mail")  # the first writes in the inbox's transaction, the second anywhere
OPEN = {State.READY, State.CLAIMED}
PROCESSES = 3

picks = st.integers(0, 10**6)
seconds = st.sampled_from([0.0, 0.5, 1.0, 5.0, 30.0, 61.0, 122.0, 3600.0, DAY, 8 * DAY, 31 * DAY])
jumps = st.sampled_from([-2 * DAY, -3600.0, -70.0, 70.0, 3600.0, 2 * DAY])
ends = st.sampled_from(["ok", "ok", "fail", "later", "drop"])


class Row:
    """What the model knows of a delivery."""

    def __init__(self, delivery: Delivery) -> None:
        self.delivery = delivery
        self.state = State.READY
        self.number: int | None = None
        self.outcome: Outcome | None = None
        self.available_at = self.received_at = delivery.received_at
        self.fence = self.failures = self.crashes = 0
        self.round = 1
        self.handed_at: float | None = None
        self.finished_at: float | None = None
        self.body = True
        self.succeeded: set[str] = set()
        self.touched = 0.0  # ticks at which its claim was made or renewed

    @property
    def place(self) -> tuple[int, int]:
        """Where it stands among those of its resource."""
        assert self.number is not None
        return self.delivery.event.ts, self.number

    def holds(self, claim: Claim) -> bool:
        """Say whether a claim is the one that there is."""
        return self.state is State.CLAIMED and self.fence == claim.fence

    def end(self, state: State, outcome: Outcome, now: float) -> None:
        self.state, self.outcome, self.finished_at = state, outcome, now

    def give_back(self, available_at: float) -> None:
        self.state, self.available_at, self.handed_at = State.READY, available_at, None


class Process:
    """A process: its inbox, its receivers, and what it holds."""

    def __init__(self, world: World, endpoints: Sequence[str], machine: Machine) -> None:
        options = {"remember": REMEMBER, "retain_body": RETAIN} if world.durable else {"remember": DAY}
        self.inbox: Any = world.make(**options)
        self.held: list[Held] = []
        self.receivers = {
            endpoint: WebhookReceiver(
                SECRET, endpoint=endpoint, inbox=self.inbox, retry=POLICY, clock=lambda: machine.world.wall
            )
            for endpoint in endpoints
        }
        for receiver in self.receivers.values():
            receiver.on("*", name="book")(machine.book if world.durable else machine.mail_as_book)
            receiver.on("*", name="mail")(machine.mail)


class Held(NamedTuple):
    """A claim that a process has, which may be over without its knowing."""

    process: Process
    delivery: Delivery
    claim: Claim
    used: list[str]  # the handlers that have run under it step by step


class Machine(RuleBasedStateMachine):
    """Does anything to an inbox, and compares it with the model."""

    examples = 0

    def __init__(self, world: World) -> None:
        super().__init__()
        self.world = world

    @initialize()
    def begin(self) -> None:
        Machine.examples += 1
        prefix = f"e{os.getpid()}-{time.monotonic_ns()}"
        # One endpoint runs in any order, and one keeps the order of each resource.
        self.free, self.ordered = f"{prefix}-free", f"{prefix}-ordered"
        self.world.wall = NOW
        self.rows: dict[Identity, Row] = {}
        self.acknowledged: dict[Identity, float] = {}
        self.known: list[Delivery] = []
        self.mails: Counter[tuple[str, int, str]] = Counter()
        self.ends: dict[str, str] = {}
        self.committed: Counter[str] = Counter(self.ledger())
        self.began_with = dict(self.committed)
        self.handed: list[int] = []
        self.processes = [self.start() for _ in range(PROCESSES if self.world.durable else 1)]
        if self.world.durable:
            self.processes[0].inbox.open()
        self.zombies: list[Process] = []

    def start(self) -> Process:
        return Process(self.world, (self.free, self.ordered), self)

    def ledger(self) -> list[str]:
        return self.world.booked() if self.world.durable else []

    # What handlers do

    def _end_of(self, handler: str) -> None:
        errors = {"fail": ValueError("it failed"), "later": RetryLater(7), "drop": DropDelivery()}
        if (error := errors.get(self.ends.get(handler, "ok"))) is not None:
            raise error

    def book(self, _event: Event, delivery: Delivery) -> None:
        with delivery.transaction() as connection:
            self.world.book(connection, self.entry(delivery.identity, "book"))
            self._end_of("book")

    def mail(self, _event: Event, delivery: Delivery) -> None:
        self._end_of("mail")
        self.mails[delivery.id, self.rows[delivery.identity].round, "mail"] += 1

    def mail_as_book(self, _event: Event, _delivery: Delivery) -> None:
        self._end_of("book")

    def entry(self, identity: Identity, handler: str) -> str:
        row = self.rows[identity]
        return f"{row.delivery.id} {row.round} {handler}"

    # Time

    @rule(by=seconds)
    def elapse(self, by: float) -> None:
        self.world.elapse(by)

    @rule(by=jumps)
    def jump(self, by: float) -> None:
        self.world.jump(by)

    # Storing

    @rule(
        resource=st.integers(0, 2),
        tenant=st.sampled_from("ab"),
        age=st.integers(0, 3),
        note=st.integers(0, 1),
        ordered=st.booleans(),
    )
    def make(self, resource: int, tenant: str, age: int, note: int, ordered: bool) -> None:  # noqa: FBT001 - a case
        delivery = self.world.delivery(
            f"r{resource}",
            ts=int(self.world.wall) - age,
            tenant=tenant,
            note=note,
            endpoint=self.ordered if ordered else self.free,
        )
        self.known.append(delivery)
        self._store(self._process(resource), delivery, claim=False)

    @precondition(lambda self: self.known)
    @rule(process=picks, which=picks, claim=st.booleans())
    def send(self, process: int, which: int, claim: bool) -> None:  # noqa: FBT001 - a case
        delivery = self._again(which)
        self._store(self._process(process), delivery, claim=claim and delivery.endpoint == self.free)

    @precondition(lambda self: self.known and self.world.durable)
    @rule(which=picks, claim=st.booleans())
    def send_twice_at_once(self, which: int, claim: bool) -> None:  # noqa: FBT001 - a case
        delivery = self._again(which)
        claim = claim and delivery.endpoint == self.free
        expected = self._verdicts(delivery, claim=claim)

        def store(process: Process) -> Stored:
            answer: Stored = given(process.inbox.store(delivery, claim=claim))
            return answer

        answers = self.world.at_once([partial(store, process) for process in self.processes[:2]])
        for answer, process in sorted(
            zip(answers, self.processes, strict=False), key=lambda pair: pair[0].verdict not in {"new", "too_old"}
        ):
            assert answer.verdict is next(expected), "2. One row per identity, also under concurrent stores"
            self._stored(process, delivery, answer)

    def _again(self, which: int) -> Delivery:
        """Return a copy of a delivery that arrives now."""
        old = self.known[which % len(self.known)]
        event, note = old.event, cast("int", old.event.extra["note"])
        copy = self.world.delivery(event.id, ts=event.ts, tenant=old.tenant, note=note, endpoint=old.endpoint)
        assert copy.identity == old.identity
        return copy

    def _process(self, pick: int) -> Process:
        return self.processes[pick % len(self.processes)]

    def _row(self, identity: Identity) -> Row | None:
        """Return the row of an identity, unless a store in memory has forgotten it."""
        row = self.rows.get(identity)
        forgets = not self.world.durable and row is not None and row.state is not State.CLAIMED
        if forgets and row is not None and row.touched <= self.world.ticks - DAY:
            del self.rows[identity]
            return None
        return row

    def _verdicts(self, delivery: Delivery, *, claim: bool) -> Any:  # noqa: ANN401 - an iterator
        """Yield what storing it answers: once, and then again at the same time."""
        row = self._row(delivery.identity)
        if row is None:
            too_old = self.world.durable and delivery.event.ts < delivery.received_at - REMEMBER
            yield Verdict.TOO_OLD if too_old else Verdict.NEW
            yield Verdict.IN_FLIGHT if claim and not too_old else Verdict.DUPLICATE
        elif row.state is State.READY and claim:
            yield Verdict.NEW
            yield Verdict.IN_FLIGHT
        else:
            in_flight = row.state is State.CLAIMED and (claim or not self.world.durable)
            for _ in range(2):
                yield Verdict.IN_FLIGHT if in_flight else Verdict.DUPLICATE

    def _store(self, process: Process, delivery: Delivery, *, claim: bool) -> None:
        expected = next(self._verdicts(delivery, claim=claim))
        answer: Stored = given(process.inbox.store(delivery, claim=claim))
        assert answer.verdict is expected
        assert (answer.claim is not None) == (claim and expected is Verdict.NEW)
        self._stored(process, delivery, answer)

    def _stored(self, process: Process, delivery: Delivery, answer: Stored) -> None:
        now = self.world.wall
        self.acknowledged.setdefault(delivery.identity, now)
        row = self.rows.get(delivery.identity)
        if answer.verdict is Verdict.TOO_OLD:
            row = self.rows[delivery.identity] = Row(delivery)
            row.end(State.DEAD, Outcome.TOO_OLD, now)
        elif answer.verdict is Verdict.NEW and row is None:
            row = self.rows[delivery.identity] = Row(delivery)
            row.touched = self.world.ticks
            if answer.claim is None:
                row.available_at = max(now, min(delivery.event.ts + 1, now + 1))
        if answer.claim is not None:
            assert row is not None
            self._claimed(process, Claimed(delivery.numbered(answer.claim.attempt), answer.claim))

    # Claims

    def _claimed(self, process: Process, found: Claimed) -> None:
        row, claim = self.rows[found.claim.identity], found.claim
        assert row.state is State.READY
        if self.world.durable:
            assert claim.fence == row.fence + 1, "3. The fence strictly rises"
            assert (claim.failures, claim.crashes, claim.round) == (row.failures, row.crashes, row.round)
            assert found.delivery.attempt == claim.fence
        assert claim.fence > row.fence, "3. The fence strictly rises"
        assert claim.succeeded == row.succeeded
        assert found.delivery.raw == row.delivery.raw
        if row.number is None:
            row.number = claim.number
        row.state, row.fence, row.touched = State.CLAIMED, claim.fence, self.world.ticks
        process.held.append(Held(process, found.delivery, claim, []))

    def _candidates(self, endpoint: str, *, crashed: bool | None) -> list[Row]:
        """Return what may be claimed now, the longest due first."""
        self._learn_numbers()
        rows = [row for row in self.rows.values() if row.delivery.endpoint == endpoint]
        due = [
            row
            for row in rows
            if row.state is State.READY
            and row.available_at <= self.world.wall
            and (crashed is None or crashed == (row.crashes > 0))
            and (endpoint == self.free or self._is_first(row, rows))
        ]
        return sorted(due, key=lambda row: (row.available_at, row.number))

    def _is_first(self, row: Row, rows: Iterable[Row]) -> bool:
        same = [
            other
            for other in rows
            if other is not row
            and (other.delivery.tenant, other.delivery.event.id) == (row.delivery.tenant, row.delivery.event.id)
        ]
        return not any(
            other.state is State.CLAIMED or (other.state is State.READY and other.place < row.place) for other in same
        )

    def _order(self, endpoint: str) -> dict[str, Any]:
        return {"ordering": "resource"} if endpoint == self.ordered else {}

    durable = precondition(lambda self: self.world.durable)

    @durable
    @rule(process=picks, limit=st.integers(1, 5), ordered=st.booleans(), crashed=st.booleans())
    def claim(self, process: int, limit: int, ordered: bool, crashed: bool) -> None:  # noqa: FBT001 - a case
        endpoint = self.ordered if ordered else self.free
        one = self._process(process)
        limit = 1 if crashed else limit
        expected = self._candidates(endpoint, crashed=crashed)[:limit]
        if crashed:
            found = given(one.inbox.claim_isolated(endpoint, **self._order(endpoint)))
        else:
            found = given(one.inbox.claim(endpoint, limit=limit, **self._order(endpoint)))
        assert [item.claim.number for item in found] == sorted(
            (cast("int", row.number) for row in expected),
            key=lambda number: next(
                (r.available_at, r.delivery.event.ts, number) for r in expected if r.number == number
            ),
        )
        for item in found:
            self._claimed(one, item)

    @durable
    @rule(
        ordered=st.booleans(),
        limit=st.integers(1, 4),
        again_after=st.sampled_from([0.0, 60.0, 10 * DAY]),
        mark=st.booleans(),
    )
    def enqueue(self, ordered: bool, limit: int, again_after: float, mark: bool) -> None:  # noqa: FBT001 - a case
        endpoint = self.ordered if ordered else self.free
        window = self._candidates(endpoint, crashed=None)[:limit]
        now = self.world.wall
        expected = [row for row in window if row.handed_at is None or row.handed_at <= now - again_after]
        found = given(
            self._process(limit).inbox.enqueue(endpoint, limit=limit, again_after=again_after, **self._order(endpoint))
        )
        assert list(found) == sorted(cast("int", row.number) for row in expected)
        for row in expected:
            row.handed_at = now
        # 14. The engine may lose, repeat and reorder: what it has is a bag of numbers, from which it draws as it likes.
        if mark:
            self.handed = [*found, *self.handed, *found]

    @durable
    @rule(process=picks, which=picks, keep=st.booleans())
    def run_by_number(self, process: int, which: int, keep: bool) -> None:  # noqa: FBT001 - a case
        if not self.handed:
            return
        place = which % len(self.handed)
        number = self.handed[place] if keep else self.handed.pop(place)
        row = next((row for row in self.rows.values() if row.number == number), None)
        endpoint = self.free if row is None else row.delivery.endpoint
        may = row is not None and row in self._candidates(endpoint, crashed=None)
        one = self._process(process)
        found = given(one.inbox.claim_number(number, **self._order(endpoint)))
        assert (found is not None) == may
        if found is not None:
            self._claimed(one, found)

    def _held(self, pick: int, *, used: bool | None = None) -> Held | None:
        everybody = [*self.processes, *self.zombies]
        claims = [held for one in everybody for held in one.held if used is None or bool(held.used) == used]
        return claims[pick % len(claims)] if claims else None

    def _valid(self, held: Held) -> bool:
        row = self._row(held.claim.identity)
        return row is not None and row.holds(held.claim)

    def _let_go(self, held: Held) -> None:
        held.process.held.remove(held)

    # Running, in one go

    @rule(which=picks, book=ends, mail=ends)
    def attempt(self, which: int, book: str, mail: str) -> None:
        held = self._held(which, used=False)
        if held is None:
            return
        self.ends = {"book": book, "mail": mail}
        row, valid = self.rows.get(held.claim.identity), self._valid(held)
        expected = self._expected(held, row, valid=valid)
        receiver = held.process.receivers[held.delivery.endpoint]
        outcome = run(receiver.handle(Claimed(held.delivery, held.claim), bridge=SyncBridge()))
        assert outcome is expected
        self._let_go(held)

    def _expected(self, held: Held, row: Row | None, *, valid: bool) -> Outcome | None:  # noqa: C901, PLR0912 - as the steps of an attempt
        """Say how an attempt ends, and let the model make it."""
        failed, later, dropped = False, False, False
        for handler in HANDLERS:
            if dropped or handler in held.claim.succeeded:
                continue
            end = self.ends.get(handler, "ok")
            transaction = handler == "book" and self.world.durable
            if transaction and not valid:
                failed = True  # its claim is lost, and so it does not even begin
            elif end == "ok":
                if not valid:
                    return None
                if transaction:
                    self._commit(held)
                cast("Row", row).succeeded.add(handler)
            elif end == "fail":
                failed = True
            elif end == "later":
                later = True
            else:
                dropped = True
        if not valid or row is None:
            return None
        now, claim = self.world.wall, held.claim
        if failed:
            wait = POLICY.after_failure(failures=claim.failures + 1, crashes=claim.crashes)
            row.failures += 1
            if wait is None and self.world.durable:
                row.end(State.DEAD, Outcome.FAILED, now)
            else:
                row.give_back(now + (wait or 0))
            return None
        if later:
            if self.world.durable and now - held.delivery.received_at >= POLICY.max_age:
                row.end(State.DEAD, Outcome.POSTPONED, now)
            else:
                row.give_back(now + 7)
            return None
        outcome = Outcome.DROPPED if dropped else Outcome.HANDLED
        self._complete(row, outcome)
        return outcome

    def _complete(self, row: Row, outcome: Outcome) -> None:
        if outcome is Outcome.HANDLED:
            assert row.succeeded >= set(HANDLERS), "5. done(handled) means that every handler succeeded in that round"
        row.end(State.DONE, outcome, self.world.wall)

    def _commit(self, held: Held) -> None:
        entry = self.entry(held.claim.identity, "book")
        assert not self.committed[entry], "4. At most one effect per (delivery, round, handler)"
        self.committed[entry] += 1

    # Running, step by step

    @durable
    @rule(which=picks, ok=st.booleans())
    def transact(self, which: int, ok: bool) -> None:  # noqa: FBT001 - a case
        held = self._held(which)
        if held is None:
            return
        row = self.rows.get(held.claim.identity)
        expected: type[Exception] | None = None
        if not self._valid(held):
            expected = LeaseLost
        elif not ok:
            expected = ZeroDivisionError
        elif "book" in cast("Row", row).succeeded:
            expected = ConfigurationError
        happened: type[Exception] | None = None
        try:
            with held.process.inbox.transaction(held.claim, "book") as connection:
                self.world.book(connection, self.entry(held.claim.identity, "book"))
                if not ok:
                    raise ZeroDivisionError  # noqa: TRY301 - as a handler does
        except (LeaseLost, ZeroDivisionError, ConfigurationError) as error:
            happened = type(error)
        assert happened is expected
        held.used.append("book")
        if happened is None:
            self._commit(held)
            cast("Row", row).succeeded.add("book")

    @rule(which=picks)
    def succeed(self, which: int) -> None:
        if (held := self._held(which)) is not None:
            held.used.append("mail")
            if self._settle(held, held.process.inbox.succeed, "mail"):
                self.rows[held.claim.identity].succeeded.add("mail")

    def _settle(self, held: Held, operation: Any, *arguments: Any, **options: Any) -> bool:  # noqa: ANN401 - as each has them
        """Do something with a claim, and say whether it still held."""
        valid = self._valid(held)
        if valid:
            given(operation(held.claim, *arguments, **options))
            return True
        try:
            given(operation(held.claim, *arguments, **options))
        except LeaseLost:
            return False
        message = "3. A stale claim changes no row and no effect"
        raise AssertionError(message)

    @rule(which=picks, way=st.sampled_from(["complete", "fail", "release", "bury"]))
    def settle(self, which: int, way: str) -> None:
        held = self._held(which)
        if held is None:
            return
        row, inbox, claim, now = self.rows.get(held.claim.identity), held.process.inbox, held.claim, self.world.wall
        if way == "complete" and row is not None and not row.succeeded >= set(HANDLERS) and self._valid(held):
            return  # no attempt does
        self._let_go(held)
        if way == "complete":
            if self._settle(held, inbox.complete, Outcome.HANDLED):
                self._complete(cast("Row", row), Outcome.HANDLED)
        elif way == "release":
            if self._settle(held, inbox.release, retry_in=0.0):
                cast("Row", row).give_back(now)
        elif way == "fail" and POLICY.after_failure(failures=claim.failures + 1, crashes=claim.crashes) is not None:
            if self._settle(held, inbox.fail, "it failed", retry_in=5.0):
                row = cast("Row", row)
                row.failures += 1
                row.give_back(now + 5)
        elif self._settle(held, inbox.bury, "it failed", Outcome.FAILED):
            row = cast("Row", row)
            row.failures += 1
            row.end(State.DEAD, Outcome.FAILED, now)

    # Processes

    @durable
    @rule(process=picks)
    def renew(self, process: int) -> None:
        everybody = [*self.processes, *self.zombies]
        one = everybody[process % len(everybody)]
        inbox = one.inbox
        claims = [held.claim for held in one.held]
        if not claims:
            return
        valid = {held.claim.number for held in one.held if self._valid(held)}
        # Of one delivery it may have an old claim and a new one: a keeper has the newest alone.
        newest = {claim.number: claim for claim in sorted(claims, key=lambda claim: claim.fence)}
        assert set(inbox.renew(list(newest.values()))) == valid
        for claim in newest.values():
            row = self.rows.get(claim.identity)
            if row is not None and row.holds(claim):
                row.touched = self.world.ticks

    @durable
    @rule(process=picks)
    def crash(self, process: int) -> None:
        """Lose a process. It may come back and go on with what it held, for all that others know."""
        place = process % len(self.processes)
        self.zombies.append(self.processes[place])
        self.processes[place] = self.start()
        for gone in self.zombies[:-2]:
            gone.inbox.close()
            self.zombies.remove(gone)

    @durable
    @rule(process=picks)
    def drain(self, process: int) -> None:
        """Stop a process as it should be stopped: it gives back what it holds, which counts as nothing."""
        place = process % len(self.processes)
        one = self.processes[place]
        for held in list(one.held):
            before = self.rows.get(held.claim.identity)
            counts = None if before is None else (before.failures, before.crashes)
            self._let_go(held)
            if self._settle(held, one.inbox.release, retry_in=0.0):
                row = self.rows[held.claim.identity]
                row.give_back(self.world.wall)
                assert (row.failures, row.crashes) == counts, "7. A drain changes neither"
        one.inbox.close()
        self.processes[place] = self.start()

    @durable
    @rule(process=picks)
    def reap(self, process: int) -> None:
        self._reap(self._process(process))

    def _reap(self, process: Process) -> None:
        freed = given(process.inbox.reap())
        self._learn_numbers()
        numbered = {row.number: row for row in self.rows.values()}
        for number, dead in freed:
            if number not in numbered:
                continue  # of an example before, on an endpoint that nobody asks about any more
            row = numbered[number]
            assert row.state is State.CLAIMED
            assert self.world.ticks - row.touched >= LEASE, "9. A live, renewing claim is never expired"
            row.crashes += 1
            wait = POLICY.after_crash(failures=row.failures, crashes=row.crashes)
            assert dead == (wait is None)
            if wait is None:
                row.end(State.DEAD, Outcome.POISONED, self.world.wall)
            else:
                row.give_back(self.world.wall + wait)

    # Operators

    def _learn_numbers(self) -> None:
        if any(row.number is None for row in self.rows.values()):
            for identity, record in self._records().items():
                self.rows[identity].number = record.number

    @precondition(lambda self: self.world.durable and self.rows)
    @rule(which=picks, confirmed=st.booleans())
    def replay(self, which: int, confirmed: bool) -> None:  # noqa: FBT001 - a case
        self._learn_numbers()
        row = list(self.rows.values())[which % len(self.rows)]
        needs_word = row.state is State.DONE or row.outcome is Outcome.TOO_OLD
        refused = row.state in OPEN or not row.body or (needs_word and not confirmed)
        try:
            given(self._process(which).inbox.replay(row.number, confirmed=confirmed))
        except InvalidTransition:
            assert refused, "12. Replay without a body, or while claimed, is refused, and nothing else"
            return
        assert not refused, "12. Replay without a body, or while claimed, is refused"
        if row.state is State.DONE:
            row.round += 1
            row.succeeded = set()
        row.failures = row.crashes = 0
        row.outcome = row.finished_at = None
        row.give_back(self.world.wall)

    @precondition(lambda self: self.world.durable and self.rows)
    @rule(which=picks)
    def purge(self, which: int) -> None:
        self._learn_numbers()
        row = list(self.rows.values())[which % len(self.rows)]
        try:
            given(self._process(which).inbox.purge(row.number))
        except InvalidTransition:
            assert row.state in OPEN
        else:
            assert row.state not in OPEN
            row.body = False

    @durable
    @rule(process=picks)
    def prune(self, process: int) -> None:
        self._process(process).inbox.prune()
        # It may erase less, where the clock has jumped.
        now, records = self.world.wall, self._records()
        for identity, row in list(self.rows.items()):
            record = records.get(identity)
            ended = None if row.finished_at is None else max(row.finished_at, row.received_at)
            if record is None:
                assert ended is not None
                assert ended < now - REMEMBER, "1. What was acknowledged is remembered"
                del self.rows[identity]
                self.acknowledged.pop(identity, None)
            elif record.purged and row.body:
                assert row.state is State.DONE
                assert ended is not None
                assert ended < now - RETAIN
                row.body = False

    # What must hold at every moment

    def _records(self) -> dict[Identity, RecordedDelivery]:
        found = self.world.records(self.processes[0].inbox, (self.free, self.ordered))
        return {record.identity: record for record in found}

    @invariant()
    def holds(self) -> None:
        if not (self.world.durable and hasattr(self, "processes")):
            return
        records = self._records()
        for check in INVARIANTS.values():
            check(self, records)

    def teardown(self) -> None:
        if not hasattr(self, "processes"):
            return
        try:
            if self.world.durable:
                self._end_well()
        finally:
            for process in (*self.processes, *self.zombies):
                if self.world.durable:
                    process.inbox.close()

    def _end_well(self) -> None:
        """10. Healthy workers and finite handlers: everything ends done or dead."""
        self.ends = {}
        worker = self.start()
        self.processes.append(worker)
        try:
            for _ in range(400):
                if not any(row.state in OPEN for row in self.rows.values()):
                    break
                self.world.elapse(LEASE / 2 if any(r.state is State.CLAIMED for r in self.rows.values()) else 3600.0)
                self._reap(worker)
                for endpoint in (self.free, self.ordered):
                    found = list(given(worker.inbox.claim(endpoint, limit=50, **self._order(endpoint))))
                    found += given(worker.inbox.claim_isolated(endpoint, **self._order(endpoint)))
                    for item in found:
                        self._claimed(worker, item)
                for held in list(worker.held):
                    row = self.rows[held.claim.identity]
                    expected = self._expected(held, row, valid=True)
                    receiver = worker.receivers[held.delivery.endpoint]
                    assert run(receiver.handle(Claimed(held.delivery, held.claim), bridge=SyncBridge())) is expected
                    self._let_go(held)
            self.holds()
            assert not [row.state for row in self.rows.values() if row.state in OPEN], (
                "10. Healthy workers and finite handlers: everything ends done or dead"
            )
        finally:
            with suppress(ValueError):
                self.zombies.append(worker)
                self.processes.remove(worker)


Records = dict["Identity", "RecordedDelivery"]


def acknowledged_is_remembered(machine: Machine, records: Records) -> None:
    """1. Acknowledged: a row or tombstone exists until `remember` is over."""
    assert machine.acknowledged.keys() <= records.keys()


def one_row_for_each_identity(machine: Machine, records: Records) -> None:
    """2. One row per identity, also under concurrent stores."""
    assert records.keys() == machine.rows.keys()
    numbers = [record.number for record in records.values()]
    assert len(numbers) == len(set(numbers))


def the_fence_and_the_row_are_those_of_the_model(machine: Machine, records: Records) -> None:
    """3. The fence strictly rises; a stale claim changes no row and no effect."""
    for identity, record in records.items():
        row = machine.rows[identity]
        if row.number is None:
            row.number = record.number
        seen = (record.state, record.outcome, record.attempts, record.available_at, record.handed_at)
        assert seen == (row.state, row.outcome, row.fence, row.available_at, row.handed_at), identity
        assert (record.number, record.finished_at, record.purged) == (row.number, row.finished_at, not row.body)
        assert record.round == row.round


def an_effect_is_a_success(machine: Machine, records: Records) -> None:  # noqa: ARG001 - as all have them
    """4. Effect and success record are one, at most one per (delivery, round, handler)."""
    booked = Counter(machine.ledger())
    assert booked == machine.committed
    assert set(booked.values()) <= {1}


def done_is_done_by_all(machine: Machine, records: Records) -> None:
    """5. done(handled): every registered handler succeeded in that round."""
    inbox = machine.processes[0].inbox
    done = [record for record in records.values() if record.outcome is Outcome.HANDLED]
    for record in done[-2:]:  # the last of them: to ask for each costs a transaction
        assert set(inbox.get(record.number).succeeded) == set(HANDLERS)
        assert machine.rows[record.identity].succeeded == set(HANDLERS)


def an_owner_is_a_claim(machine: Machine, records: Records) -> None:  # noqa: ARG001 - as all have them
    """6. An owner if and only if claimed; no body only where done or dead."""
    for record in records.values():
        assert (record.owner is not None) == (record.lease_until is not None) == (record.state is State.CLAIMED)
        assert not record.purged or record.state not in OPEN
        assert (record.outcome is not None) == (record.finished_at is not None) == (record.state not in OPEN)


def attempts_are_bounded(machine: Machine, records: Records) -> None:
    """7. failures + crashes stay within the policy; a drain changes neither."""
    for identity, record in records.items():
        assert record.failures + record.crashes <= POLICY.max_attempts
        assert record.crashes <= POLICY.max_crashes
        row = machine.rows[identity]
        assert (record.failures, record.crashes) == (row.failures, row.crashes)


def the_order_is_kept(machine: Machine, records: Records) -> None:
    """8. Ordered: at most one claimed per resource. That none is before a lower open one, each claim checks."""
    claimed = Counter(
        (record.identity.tenant, record.resource)
        for record in records.values()
        if record.identity.endpoint == machine.ordered and record.state is State.CLAIMED
    )
    assert set(claimed.values()) <= {1}


def a_clock_ends_no_living_claim(machine: Machine, records: Records) -> None:
    """9. Clock jumps double nothing; a live, renewing claim is never expired. What is freed is checked there, too."""
    for identity, record in records.items():
        if record.state is State.CLAIMED:
            assert machine.rows[identity].holds(Claim(identity, record.attempts))


def all_ends(machine: Machine, records: Records) -> None:  # noqa: ARG001 - as all have them
    """10. Healthy workers and finite handlers: everything ends done or dead. The end of each example plays them."""
    assert all(record.available_at < NOW + 10_000 * DAY for record in records.values())


def a_poison_is_alone(machine: Machine, records: Records) -> None:
    """11. A poison kills no neighbour: what has crashed is never in one claim with anything else."""
    for process in (*machine.processes, *machine.zombies):
        for held in process.held:
            record = records.get(held.claim.identity)
            assert (
                record is None
                or held.claim.crashes <= record.crashes
                or record.round > held.claim.round
                or (record.attempts > held.claim.fence or record.crashes == 0)
            )


def a_replay_needs_a_body(machine: Machine, records: Records) -> None:  # noqa: ARG001 - as all have them
    """12. Replay without a body, or while claimed, is refused: nothing open has lost its body."""
    assert not [record for record in records.values() if record.state in OPEN and record.purged]


def tenants_are_apart(machine: Machine, records: Records) -> None:
    """13. No action on one tenant touches another's rows: each row is what its own tenant's actions made of it."""
    for identity, record in records.items():
        assert record.identity.tenant == machine.rows[identity].delivery.tenant
        assert record.resource == machine.rows[identity].delivery.event.id


def a_hand_over_is_only_a_mark(machine: Machine, records: Records) -> None:
    """14. Hand-over repeated, lost or reordered: the same final state. No mark outlives a return to ready."""
    for identity, record in records.items():
        assert record.handed_at == machine.rows[identity].handed_at


INVARIANTS = {
    1: acknowledged_is_remembered,
    2: one_row_for_each_identity,
    3: the_fence_and_the_row_are_those_of_the_model,
    4: an_effect_is_a_success,
    5: done_is_done_by_all,
    6: an_owner_is_a_claim,
    7: attempts_are_bounded,
    8: the_order_is_kept,
    9: a_clock_ends_no_living_claim,
    10: all_ends,
    11: a_poison_is_alone,
    12: a_replay_needs_a_body,
    13: tenants_are_apart,
    14: a_hand_over_is_only_a_mark,
}
