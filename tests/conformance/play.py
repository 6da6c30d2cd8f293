"""Puts one case to one harness, and checks the verdict and everything that the handlers saw."""

from __future__ import annotations

import itertools
import os
from hashlib import sha256
from typing import TYPE_CHECKING

import pytest

from conformance.stage import CASE_HEADER

if TYPE_CHECKING:
    from conformance.cases import Case
    from conformance.harness import Harness

_numbers = itertools.count(1)


def fresh() -> str:
    """Return the id of a resource that no other case has."""
    return f"ord_{os.getpid()}_{next(_numbers)}"


def play(case: Case, harness: Harness) -> None:
    """Send the case, then what follows it, and check each answer, each run and each reason."""
    verdict = case.verdict(harness.traits)
    if verdict.expect is None:
        pytest.skip(verdict.reason)
    resource = fresh()
    for step, (wire, expect) in enumerate(zip(case.wires(resource), (verdict.expect, *case.then), strict=True)):
        tag = f"{resource}.{step}"
        before = harness.record()
        answer = harness.send(wire._replace(lines=(f"{CASE_HEADER}: {tag}".encode(), *wire.lines)))
        ours = expect.check(answer, bodiless=wire.method == b"HEAD")
        after = harness.record()
        runs = [run.split(":") for run in after.seen[len(before.seen) :]]
        assert [f"{handler}:{attempt}" for handler, attempt, *_ in runs] == list(expect.runs if ours else ())
        body = sha256(b"".join(wire.chunks)).hexdigest()
        assert all(run[-1] == body for run in runs), "a handler saw other bytes than were signed"
        told = [line.split()[0] for line in after.rejected if line.endswith(f" {tag}")]
        reasons = [] if expect.code is None else [expect.code]
        # Who has gone away does not know whether the refusal has been told yet.
        assert told == reasons or (not ours and told == []), f"{told} instead of {reasons}"
