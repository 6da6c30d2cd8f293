"""Every case under every way to mount a receiver, called in this process."""

from __future__ import annotations

from functools import cache

import pytest

from conformance.cases import CASES, Case
from conformance.harness import IN_PROCESS, Harness
from conformance.lambdas import LAMBDAS
from conformance.play import play

MOUNTS = {**IN_PROCESS, **LAMBDAS}


@cache
def harness_of(name: str) -> Harness:
    return MOUNTS[name]()


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
@pytest.mark.parametrize("name", MOUNTS)
def test_the_verdict_is_the_same_under_every_mount(name: str, case: Case) -> None:
    play(case, harness_of(name))


def test_every_case_has_a_name_of_its_own() -> None:
    assert len({case.name for case in CASES}) == len(CASES)
