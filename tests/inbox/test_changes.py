"""What each step writes, column by column: the same for every durable store."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from test_delivery import RAW, delivery_of

from roovet_webhooks import InvalidTransition
from roovet_webhooks.delivery import Identity
from roovet_webhooks.events import MAX_TIMESTAMP
from roovet_webhooks.inbox import changes
from roovet_webhooks.inbox.protocol import Claim
from roovet_webhooks.inbox.states import STEPS, TRANSITIONS, Outcome, State, Step, next_state

NOW = 1_762_782_800_000
FREE: dict[str, Any] = {"owner": None, "lease_until": None}
NEW: dict[str, Any] = {
    "fence": 0,
    "failures": 0,
    "crashes": 0,
    "round": 1,
    "outcome": None,
    "finished_at": None,
    **FREE,
}
CLAIM = Claim(Identity("shop", "default", 1, bytes(32)), 7, attempt=3, failures=2, crashes=1)
LAST = 1000 * MAX_TIMESTAMP  # what every store can hold


def test_what_a_delivery_arrives_with() -> None:
    delivery = delivery_of(endpoint="shop", tenant="acme")
    written = changes.recorded(delivery, b"encoded", "zlib", ("book", "mail"))
    assert written == {
        "endpoint": "shop",
        "tenant": "acme",
        "key_ts": 1_762_782_800,
        "key": delivery.identity.key,
        "ts": 1_762_782_800,
        "event": "order.created",
        "resource": "ord_1",
        "body": b"encoded",
        "codec": "zlib",
        "secret_name": "primary",
        "signed_at": NOW // 1000,
        "received_at": NOW + 1500,
        "handlers": '["book","mail"]',
    }
    deduped = changes.recorded(delivery_of(dedupe=lambda event: event.id), RAW, "none")
    assert (deduped["key_ts"], deduped["ts"], deduped["handlers"]) == (0, 1_762_782_800, None)
    stored = changes.stored(1, received_at=NOW, now=NOW, settle=0)
    assert set(changes.INSERTED) == set(written) | set(stored)
    assert len(set(changes.INSERTED)) == len(changes.INSERTED)


@pytest.mark.parametrize("names", [None, (), ("book",), ("a,b", '"', "é")])
def test_names_come_back_from_a_column(names: tuple[str, ...] | None) -> None:
    assert changes.names_from_text(changes.names_to_text(names)) == names


@pytest.mark.parametrize(("seconds", "expected"), [(0, 0), (1.5, 1500), (0.0004, 0), (0.0006, 1), (-2, -2000)])
def test_seconds_as_milliseconds(seconds: float, expected: int) -> None:
    assert changes.milliseconds(seconds) == expected
    assert isinstance(changes.milliseconds(seconds), int)


class TestStored:
    @pytest.mark.parametrize(
        ("ts", "expected"),
        [
            (NOW // 1000, NOW + 1000),  # its second ends
            (NOW // 1000 - 1, NOW),  # it has ended
            (NOW // 1000 - 500, NOW),
            (NOW // 1000 + 1, NOW + 2000),
            (NOW // 1000 + 2, NOW + 2500),  # no longer than `settle`
            (NOW // 1000 + 500, NOW + 2500),
        ],
    )
    def test_when_it_is_due(self, ts: int, expected: int) -> None:
        written = changes.stored(ts, received_at=NOW, now=NOW, settle=2500)
        assert written == {**NEW, "state": State.READY, "available_at": expected}

    @pytest.mark.parametrize(("late", "expected"), [(0, 0), (60_000, 60_000), (60_001, 0), (10**9, 0), (-5000, -5000)])
    def test_a_clock_that_has_jumped_since_puts_nothing_off(self, late: int, expected: int) -> None:
        written = changes.stored(0, received_at=NOW, now=NOW + late, settle=2500)
        assert written["available_at"] == NOW + expected

    def test_claimed_at_once(self) -> None:
        written = changes.stored_claimed(now=NOW, lease=30_000, owner="me")
        claimed = {"state": State.CLAIMED, "available_at": NOW, "fence": 1, "owner": "me", "lease_until": NOW + 30_000}
        assert written == {**NEW, **claimed}

    def test_too_old(self) -> None:
        written = changes.stored_too_old(now=NOW)
        ended = {"state": State.DEAD, "available_at": NOW, "outcome": Outcome.TOO_OLD, "finished_at": NOW}
        assert written == {**NEW, **ended}


def test_a_claim() -> None:
    written = changes.claimed(now=NOW, lease=30_000, owner="me")
    assert written == {"state": State.CLAIMED, "owner": "me", "lease_until": NOW + 30_000}


@pytest.mark.parametrize("outcome", [Outcome.HANDLED, Outcome.IGNORED, Outcome.DROPPED])
def test_an_end(outcome: Outcome) -> None:
    ended = {"state": State.DONE, "outcome": outcome, "finished_at": NOW, "last_error": None, "unhandled_since": None}
    assert changes.completed(outcome, now=NOW) == {**ended, **FREE}


@pytest.mark.parametrize(
    ("retry_in", "available_at"), [(0, NOW), (2.5, NOW + 2500), ((LAST - NOW) / 1000, LAST), (10**12, LAST)]
)
def test_what_gives_a_claim_back(retry_in: float, available_at: int) -> None:
    back = {"state": State.READY, "available_at": available_at, "handed_at": None, "unhandled_since": None, **FREE}
    assert changes.released(now=NOW, retry_in=retry_in) == back
    assert changes.released(now=NOW, retry_in=retry_in, error="z" * 501) == {**back, "last_error": "z" * 500}
    assert changes.released(now=NOW, retry_in=retry_in, error="") == {**back, "last_error": ""}
    failed = changes.failed(CLAIM, "x" * 501, now=NOW, retry_in=retry_in)
    assert failed == {**back, "failures": 3, "last_error": "x" * 500}
    unhandled = changes.unhandled(CLAIM, "nobody", now=NOW, retry_in=retry_in)
    assert unhandled == {**back, "last_error": "nobody", "unhandled_since": NOW}
    before = msgspec.structs.replace(CLAIM, unhandled_since=NOW / 1000 - 60)
    again = changes.unhandled(before, "nobody", now=NOW, retry_in=retry_in)
    assert again == {**unhandled, "unhandled_since": NOW - 60_000}


@pytest.mark.parametrize("outcome", [Outcome.FAILED, Outcome.UNDECODABLE, Outcome.POSTPONED, Outcome.UNHANDLED])
def test_a_death(outcome: Outcome) -> None:
    assert changes.buried(CLAIM, "y" * 501, outcome, now=NOW) == {
        "state": State.DEAD,
        "outcome": outcome,
        "finished_at": NOW,
        "failures": 3 if outcome is Outcome.FAILED else 2,
        "last_error": "y" * 500,
        "unhandled_since": None,
        **FREE,
    }


def test_the_end_of_a_lease() -> None:
    again = changes.expired(2, now=NOW, retry_in=2.5)
    assert "went away" in again.pop("last_error")
    back = {"state": State.READY, "available_at": NOW + 2500, "handed_at": None}
    assert again == {"crashes": 2, **back, **FREE}
    assert changes.expired(2, now=NOW, retry_in=0)["available_at"] == NOW
    assert changes.expired(2, now=NOW, retry_in=10**12)["available_at"] == LAST
    dead = changes.expired(3, now=NOW, retry_in=None)
    assert "went away" in dead.pop("last_error")
    assert dead == {"crashes": 3, "state": State.DEAD, "outcome": Outcome.POISONED, "finished_at": NOW, **FREE}


@pytest.mark.parametrize(("state", "round_"), [(State.DONE, 5), (State.DEAD, 4)])
def test_a_replay(state: State, round_: int) -> None:
    counts = {"failures": 0, "crashes": 0, "round": round_}
    nothing = {"outcome": None, "handed_at": None, "finished_at": None, "unhandled_since": None}
    assert changes.replayed(state, 4, now=NOW) == {"state": State.READY, "available_at": NOW, **counts, **nothing}


@pytest.mark.parametrize("state", [State.DONE, State.DEAD])
def test_a_purge(state: State) -> None:
    assert changes.purged(state) == {"state": state, "body": None, "last_error": None, "history": None}


@pytest.mark.parametrize("state", [State.READY, State.CLAIMED])
def test_what_is_open_is_neither_replayed_nor_purged(state: State) -> None:
    with pytest.raises(InvalidTransition, match=f"a delivery that is {state} cannot be replayed"):
        changes.replayed(state, 1, now=NOW)
    with pytest.raises(InvalidTransition, match=f"a delivery that is {state} cannot be purged"):
        changes.purged(state)


# The table itself, written a second time

READY, CLAIMED, DONE, DEAD = State.READY, State.CLAIMED, State.DONE, State.DEAD
EXPECTED: dict[Step, dict[State | None, State]] = {
    Step.STORE: {None: READY},
    Step.STORE_CLAIMED: {None: CLAIMED},
    Step.STORE_TOO_OLD: {None: DEAD},
    Step.CLAIM: {READY: CLAIMED},
    Step.RENEW: {CLAIMED: CLAIMED},
    Step.COMPLETE: {CLAIMED: DONE},
    Step.FAIL: {CLAIMED: READY},
    Step.RELEASE: {CLAIMED: READY},
    Step.BURY: {CLAIMED: DEAD},
    Step.EXPIRE: {CLAIMED: READY},
    Step.POISON: {CLAIMED: DEAD},
    Step.REPLAY: {DEAD: READY, DONE: READY},
    Step.PURGE: {DONE: DONE, DEAD: DEAD},
}


def test_the_steps_are_these() -> None:
    assert {(state, step): to for step, row in EXPECTED.items() for state, to in row.items()} == STEPS
    assert len(TRANSITIONS) == len(STEPS)
    with pytest.raises(InvalidTransition, match="a delivery that is not recorded cannot be replayed"):
        next_state(None, Step.REPLAY)


def test_what_is_stored_under_a_name_keeps_it() -> None:
    # Rows of earlier releases hold these texts.
    assert [*State] == ["ready", "claimed", "done", "dead"]
    assert [*Step] == [step.name.lower() for step in Step]
    assert [*Outcome] == [
        *("handled", "ignored", "dropped", "failed", "undecodable"),
        *("postponed", "poisoned", "too_old", "unhandled"),
    ]
    assert {State.READY: 1}["ready"] == {Step.CLAIM: 1}["claim"] == {Outcome.HANDLED: 1}["handled"] == 1  # type: ignore[index]  # what hashes alike


def test_what_a_claim_says_of_a_first_attempt() -> None:
    claim = Claim(CLAIM.identity, 1)
    assert (claim.attempt, claim.round, claim.number, claim.failures, claim.crashes) == (1, 1, 0, 0, 0)
    assert claim.succeeded == frozenset()
    assert (claim.first_received_at, claim.handlers, claim.unhandled_since, claim.history) == (None, None, None, None)
    with pytest.raises(AttributeError, match="immutable"):
        claim.fence = 2  # type: ignore[misc]  # what is refused
