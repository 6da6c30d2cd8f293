"""A receiver gives its verdicts, and nothing breaks, behind the middlewares that people really use."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import pytest

from conformance.behind import BEHIND, BEHIND_CASES, BEHIND_SERVERS, GUARD_CASES, Behind
from conformance.play import play
from conformance.servers import serving

if TYPE_CHECKING:
    from collections.abc import Generator

    from conformance.cases import Case
    from conformance.harness import Harness


@cache
def harness_of(name: str) -> Harness:
    return BEHIND[name]()


@pytest.mark.parametrize("case", BEHIND_CASES, ids=lambda case: case.name)
@pytest.mark.parametrize("name", BEHIND)
def test_the_verdict_is_the_same_behind_every_middleware(name: str, case: Case) -> None:
    play(case, harness_of(name))


@pytest.fixture(scope="session", params=BEHIND_SERVERS)
def behind_everything(request: pytest.FixtureRequest) -> Generator[Harness]:
    with serving(*BEHIND_SERVERS[request.param]) as running:
        yield Behind(running, None)


@pytest.mark.long
@pytest.mark.parametrize("case", [*BEHIND_CASES, *GUARD_CASES], ids=lambda case: case.name)
def test_the_verdict_is_the_same_behind_everything_at_once(behind_everything: Harness, case: Case) -> None:
    play(case, behind_everything)
