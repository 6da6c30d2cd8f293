"""Every case over real sockets, under the servers that people run."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from conformance.cases import CASES, CREATED, DUPLICATE, Case, Expect, handled
from conformance.play import fresh, play
from conformance.servers import SERVERS, Connection, Server, serving, until
from conformance.stage import HOOK

if TYPE_CHECKING:
    from collections.abc import Generator


# One of each kind runs in an ordinary run, and the others in a long one.
OF_EACH_KIND = {"uvicorn h11, starlette", "hypercorn, starlette", "granian, flask", "gunicorn, django"}
_PARAMS = [pytest.param(name, marks=() if name in OF_EACH_KIND else pytest.mark.long) for name in SERVERS]


@pytest.fixture(scope="session", params=_PARAMS)
def server(request: pytest.FixtureRequest) -> Generator[Server]:
    with serving(*SERVERS[request.param]) as running:
        yield running


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_verdict_is_the_same_under_every_server(server: Server, case: Case) -> None:
    play(case, server)


LENGTHS = {"of the chunks": None, "within them": 5, "beyond them": 5000}


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize(
    "head",
    [
        b"POST %b HTTP/1.1\r\nContent-Type: application/json",
        b"POST %b HTTP/1.1\r\nContent-Type: text/plain",
        b"PUT %b HTTP/1.1",
    ],
    ids=["delivery", "of another type", "put"],
)
def test_what_follows_a_request_with_two_lengths_is_no_second_request(server: Server, head: bytes, length: str) -> None:
    if "runserver" in server.traits:
        pytest.skip("Django's development server goes by the length, and leaves no say over the connection")
    [wire] = Case(name="good", expect=CREATED).wires(fresh())
    chunks = b"%x\r\n%b\r\n0\r\n\r\n" % (len(wire.chunks[0]), wire.chunks[0])
    lines = [
        head % HOOK.encode(),
        b"Host: shop.example",
        *(line for line in wire.lines if line.startswith(b"X-")),
        b"Content-Length: %d" % (LENGTHS[length] or len(chunks)),
        b"Transfer-Encoding: chunked",
    ]
    smuggled = b"GET /control/seen HTTP/1.1\r\nHost: shop.example\r\n\r\n"
    with Connection(server.port) as connection:
        connection.send_raw(b"\r\n".join(lines) + b"\r\n\r\n" + chunks + smuggled)
        # gunicorn and others take the rest for the body, and wait for it: the sender goes.
        received = connection.until_closed()
    assert received.count(b"HTTP/1.1 ") + received.count(b"HTTP/1.0 ") == 1
    assert b"seen" not in received


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
