"""The retry policy: waits that grow and end."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given, strategies as st

from roovet_webhooks import ConfigurationError, RetryPolicy


def test_the_wait_doubles_up_to_the_most() -> None:
    policy = RetryPolicy(initial=5, factor=2, max_delay=60)
    assert [policy.delay(attempt) for attempt in range(1, 7)] == [5, 10, 20, 40, 60, 60]


def test_attempts_are_counted_from_one() -> None:
    assert RetryPolicy().delay(0) == RetryPolicy().delay(-3) == RetryPolicy().delay(1) == 5


@pytest.mark.parametrize(
    "numbers",
    [
        {"initial": 0},
        {"initial": -1},
        {"initial": math.nan},
        {"initial": 10, "max_delay": 9},
        {"max_delay": math.inf},
        {"factor": 0.5},
        {"factor": math.inf},
        {"factor": math.nan},
        {"initial": "5"},
        {"factor": None},
        {"max_delay": "3600"},
        {"initial": True},
    ],
    ids=str,
)
def test_numbers_that_decide_nothing_are_refused(numbers: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match="a retry policy needs 0 < initial <= max_delay and factor >= 1"):
        RetryPolicy(**numbers)


@pytest.mark.parametrize(
    "numbers",
    [
        *({"max_attempts": 0}, {"max_attempts": 2.5}, {"max_attempts": True}, {"max_crashes": "3"}, {"max_crashes": 0}),
        *({"max_age": -1}, {"max_age": "3d"}),
    ],
    ids=str,
)
def test_limits_that_are_none_are_refused(numbers: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match="needs max_attempts and max_crashes of 1 or more and a max_age"):
        RetryPolicy(**numbers)


@given(st.floats(0.001, 1000), st.floats(1, 1e4), st.floats(1000, 1e6), st.integers(-5, 10**9), st.integers(0, 10**6))
def test_a_wait_never_shrinks_and_never_ends_the_process(
    first: float, factor: float, most: float, attempt: int, more: int
) -> None:
    policy = RetryPolicy(initial=first, factor=factor, max_delay=most)
    assert first <= policy.delay(attempt) <= policy.delay(attempt + more) <= most


def test_the_defaults_are_those_that_are_documented() -> None:
    policy = RetryPolicy()
    assert (policy.initial, policy.factor, policy.max_delay) == (5, 2, 3600)
    assert (policy.max_attempts, policy.max_crashes, policy.max_age) == (20, 3, 259_200)


def test_the_smallest_limits_are_limits() -> None:
    policy = RetryPolicy(initial=1, max_delay=1, factor=1, max_attempts=1, max_crashes=1, max_age=0)
    assert policy.delay(9) == 1
    assert policy.after_failure(failures=1, crashes=0) is None
    assert policy.after_crash(failures=0, crashes=1) is None
    assert policy.after_missing(age=0) is policy.after_postponement(age=0, after=1) is None


def test_failures_and_crashes_together_use_up_the_attempts() -> None:
    policy = RetryPolicy(initial=1, factor=2, max_delay=100, max_attempts=5, max_crashes=3)
    failed = [
        [policy.after_failure(failures=failures, crashes=crashes) for crashes in (0, 2)] for failures in (1, 2, 3)
    ]
    assert failed == [[1, 4], [2, 8], [4, None]]
    crashed = [[policy.after_crash(failures=failures, crashes=crashes) for crashes in (1, 2, 3)] for failures in (0, 3)]
    assert crashed == [[1, 2, None], [8, None, None]]


def test_how_long_a_delivery_may_be_put_off() -> None:
    policy = RetryPolicy(max_age=10_000)
    assert [policy.after_postponement(age=age, after=7) for age in (0, 9_999.9, 10_000, 10_001)] == [7, 7, None, None]
    waits = [policy.after_missing(age=age) for age in (0, 10, 20, 2_990, 3_000, 9_999, 10_000)]
    assert waits == [1, 1, 2, 299, 300, 300, None]


def test_a_policy_is_a_value_with_named_parts() -> None:
    policy = RetryPolicy()
    with pytest.raises(AttributeError, match="immutable"):
        policy.initial = 0  # type: ignore[misc]  # what is refused
    positional: Any = RetryPolicy
    with pytest.raises(TypeError, match="positional"):
        positional(5)
