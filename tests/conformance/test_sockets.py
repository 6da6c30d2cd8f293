"""Every case over real sockets, under the servers that people run."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from conformance.cases import CASES, DUPLICATE, Case, Expect, handled
from conformance.play import fresh, play
from conformance.servers import SERVERS, Connection, Server, serving, until

if TYPE_CHECKING:
    from collections.abc import Generator


@pytest.fixture(scope="session", params=SERVERS)
def server(request: pytest.FixtureRequest) -> Generator[Server]:
    with serving(*SERVERS[request.param]) as running:
        yield running


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_verdict_is_the_same_under_every_server(server: Server, case: Case) -> None:
    play(case, server)


GATED = Case(name="a handler that takes its time", event="order.gated", expect=handled("gated:1"))
IN_FLIGHT = Expect(status=503, word="in_flight", header=("retry-after", "2"))


def runs_of(server: Server, resource: str) -> list[str]:
    return [run.split(":")[0] for run in server.record().seen if f":{resource}:" in run]


def test_a_copy_of_a_delivery_that_is_being_handled_waits_its_turn(server: Server) -> None:
    resource = fresh()
    [wire] = GATED.wires(resource)
    with Connection(server.port) as first:
        first.send(wire)
        until(lambda: runs_of(server, resource) == ["gated"])
        IN_FLIGHT.check(server.send(wire))
        server.control(f"open/{resource}")
        GATED.expect.check(first.answer())
    DUPLICATE.check(server.send(wire))
    assert runs_of(server, resource) == ["gated", "passed"]


def test_a_sender_that_goes_away_does_not_cancel_a_handler(server: Server) -> None:
    resource = fresh()
    [wire] = GATED.wires(resource)
    with Connection(server.port) as first:
        first.send(wire)
        until(lambda: runs_of(server, resource) == ["gated"])
    server.control(f"open/{resource}")
    until(lambda: runs_of(server, resource) == ["gated", "passed"])
    # The answer that nobody waited for is on record, whether or not it has been settled this very moment.
    answers = (DUPLICATE.status, IN_FLIGHT.status)
    answer = server.send(wire)
    assert answer is not None
    assert answer.status in answers
    assert runs_of(server, resource) == ["gated", "passed"]
