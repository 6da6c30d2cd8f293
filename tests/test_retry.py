"""The retry policy: waits that grow and end."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from roovet_webhooks import ConfigurationError, RetryPolicy


def test_the_wait_doubles_up_to_the_most() -> None:
    policy = RetryPolicy(first=5, factor=2, most=60)
    assert [policy.delay(attempt) for attempt in range(1, 7)] == [5, 10, 20, 40, 60, 60]


def test_attempts_are_counted_from_one() -> None:
    assert RetryPolicy().delay(0) == RetryPolicy().delay(-3) == RetryPolicy().delay(1) == 5


@pytest.mark.parametrize(
    "numbers",
    [
        {"first": 0},
        {"first": -1},
        {"first": math.nan},
        {"first": 10, "most": 9},
        {"most": math.inf},
        {"factor": 0.5},
        {"factor": math.inf},
        {"factor": math.nan},
        {"first": "5"},
        {"factor": None},
    ],
    ids=str,
)
def test_numbers_that_decide_nothing_are_refused(numbers: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match="a retry policy needs 0 < first <= most and factor >= 1"):
        RetryPolicy(**numbers)


@pytest.mark.parametrize(
    "numbers",
    [{"max_attempts": 0}, {"max_attempts": 2.5}, {"max_crashes": "3"}, {"max_age": -1}, {"max_age": "3d"}],
    ids=str,
)
def test_limits_that_are_none_are_refused(numbers: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match="needs max_attempts and max_crashes of 1 or more and a max_age"):
        RetryPolicy(**numbers)


@given(st.floats(0.001, 1000), st.floats(1, 1e4), st.floats(1000, 1e6), st.integers(-5, 10**9), st.integers(0, 10**6))
def test_a_wait_never_shrinks_and_never_ends_the_process(
    first: float, factor: float, most: float, attempt: int, more: int
) -> None:
    policy = RetryPolicy(first=first, factor=factor, most=most)
    assert first <= policy.delay(attempt) <= policy.delay(attempt + more) <= most
