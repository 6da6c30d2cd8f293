"""Chaos: what is asked for happens, at the frequency that is asked for, and again with the same seed."""

from __future__ import annotations

from collections import Counter

import pytest

from roovet_webhooks.errors import ConfigurationError
from roovet_webhooks.sandbox import FAULTS, Chaos, make_chaos
from roovet_webhooks.sandbox.chaos import API_FAULTS, WEBHOOK_FAULTS, WEBHOOK_NUISANCES


def drawn(chaos: Chaos, attempt: int = 1) -> list[str | None]:
    return [chaos.webhook_fault(message, attempt) for message in range(500)]


def test_nothing_goes_wrong_unless_it_is_asked_for() -> None:
    assert set(drawn(Chaos())) == {None}
    assert {Chaos().api_fault(number) for number in range(100)} == {None}


def test_a_seed_repeats() -> None:
    assert drawn(make_chaos({"all": 0.2, "seed": 7})) == drawn(make_chaos({"all": 0.2, "seed": 7}))
    assert drawn(make_chaos({"all": 0.2, "seed": 7})) != drawn(make_chaos({"all": 0.2, "seed": 8}))


def test_every_fault_has_its_turn() -> None:
    counts = Counter(drawn(make_chaos({"all": 0.3})))
    assert set(counts) == {None, *WEBHOOK_FAULTS}
    chaos = make_chaos({"all": 0.3})
    assert {chaos.api_fault(number) for number in range(500)} == {None, *API_FAULTS}


def test_a_fault_is_as_frequent_as_it_is_asked_for() -> None:
    assert 150 < Counter(drawn(Chaos(cut=0.4)))["cut"] < 250
    assert set(drawn(Chaos(cut=1))) == {"cut"}


def test_later_attempts_are_not_spoiled() -> None:
    chaos = make_chaos({"all": 1, "spoils": 2})
    assert set(drawn(chaos, attempt=2)) == set(WEBHOOK_FAULTS)
    assert set(drawn(chaos, attempt=3)) == set(WEBHOOK_NUISANCES)


def test_settings_may_be_text() -> None:
    assert make_chaos({"all": "0.5", "cut": "0"}) == make_chaos({**dict.fromkeys(FAULTS, 0.5), "cut": 0})


@pytest.mark.parametrize("settings", [{"surprise": 1}, {"cut": 2}, {"cut": "often"}, {"all": -1}, {"seed": "x"}])
def test_what_is_no_chaos_is_refused_with_the_faults_there_are(settings: dict[str, object]) -> None:
    with pytest.raises(ConfigurationError, match="the faults are stale, future"):
        make_chaos(settings)
