"""The table of a delivery's life is what a receiver does: every ending that it names, in its order, and no other."""

from __future__ import annotations

import itertools
import json
from typing import TYPE_CHECKING, Any

import pytest

from receiving.life import LIFE, Fault, Phase, Scene
from roovet_webhooks import errors
from roovet_webhooks.messages import WebhookResponse

if TYPE_CHECKING:
    from collections.abc import Iterator


def check(fault: Fault, change: dict[str, Any]) -> None:
    """Play a scene with a change, and find that it ends as the fault does."""
    answer, code, message = Scene(**change).play()
    if isinstance(fault.ending, WebhookResponse):
        assert (answer.status, answer.body) == (fault.ending.status, fault.ending.body)
        return
    assert answer.status == fault.ending.status
    assert json.loads(answer.body)["error"]["type"] == fault.ending.type
    if code:
        assert code == fault.ending.code
        assert fault.says in message


ALL = [(number, fault) for number, step in enumerate(LIFE) for fault in step.faults]


def name_of(fault: Fault) -> str:
    ending = fault.ending
    return ending.body.decode() if isinstance(ending, WebhookResponse) else ending.__name__


@pytest.mark.parametrize(("step", "fault"), ALL, ids=[f"{step}-{name_of(fault)}" for step, fault in ALL])
def test_a_fault_ends_a_delivery_at_its_step_and_before_any_later_one(step: int, fault: Fault) -> None:
    check(fault, fault.change)
    for later, other in ALL:
        # Two changes of one part cannot be had together.
        if later > step and not fault.change.keys() & other.change.keys():
            check(fault, {**other.change, **fault.change})


def test_each_two_neighbours_are_told_apart() -> None:
    exclusive = {
        # One length cannot be both malformed and too large, no malformed signature has a time, and
        # one record is in one state.
        (3, 4),
        (13, 14),
    }
    for number, (step, following) in enumerate(itertools.pairwise(LIFE)):
        together = [
            (fault, other)
            for fault, other in itertools.product(step.faults, following.faults)
            if not fault.change.keys() & other.change.keys()
        ]
        assert bool(together) != ((number, number + 1) in exclusive)


def test_every_refusal_of_the_tree_is_in_the_table() -> None:
    told = {fault.ending for _, fault in ALL}
    answers = {
        value
        for value in vars(errors).values()
        if isinstance(value, type)
        and issubclass(value, (errors.RequestError, errors.VerificationError, errors.PayloadError, errors.InboxError))
        and not value.__subclasses__()
    }
    # What an operator's mistake raises in a tool answers no request.
    assert answers - told == {errors.DeliveryNotFound, errors.InvalidTransition}


AT_THE_HEAD = [(step, fault) for step, fault in ALL if LIFE[step].phase is Phase.HEAD]


def unread(_raw: bytes) -> Iterator[bytes]:
    pytest.fail("the body was read")
    yield b""


@pytest.mark.parametrize(
    ("step", "fault"), AT_THE_HEAD, ids=[f"{step}-{name_of(fault)}" for step, fault in AT_THE_HEAD]
)
def test_a_delivery_that_ends_by_its_headers_has_no_byte_of_its_body_read(step: int, fault: Fault) -> None:
    assert LIFE[step].phase is Phase.HEAD
    check(fault, {**fault.change, "body": unread})


def test_phases_do_not_mix() -> None:
    phases = [step.phase for step in LIFE]
    assert [phase for phase, _ in itertools.groupby(phases)] == list(dict.fromkeys(phases))
