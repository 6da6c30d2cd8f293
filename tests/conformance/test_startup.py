"""A server starts with a receiver that can do its work, and with no other."""

from __future__ import annotations

import pytest

from conformance.cases import CREATED, Case
from conformance.play import fresh
from conformance.servers import NotStarted, serving

ASGI_SERVERS = ("uvicorn-h11", "uvicorn-httptools", "hypercorn", "granian-asgi")


@pytest.mark.parametrize("mount", ["middleware_without_handlers", "app_alone_without_handlers"])
@pytest.mark.parametrize("server", ASGI_SERVERS)
def test_a_receiver_without_handlers_does_not_start(server: str, mount: str) -> None:
    with pytest.raises(NotStarted) as caught, serving(server, mount):
        pass
    code, said = caught.value.args
    assert code != 0
    assert "the receiver 'empty' has no handler, so every delivery would be lost" in said
    # The reason is not buried under what became of an application that was left waiting.
    assert "CancelledError" not in said


@pytest.mark.parametrize("server", ASGI_SERVERS)
def test_a_handler_that_is_registered_at_startup_counts(server: str) -> None:
    with serving(server, "handlers_at_startup") as running:
        [wire] = Case(name="good", expect=CREATED).wires(fresh())
        CREATED.check(running.send(wire))
        assert len(running.record().seen) == 1


@pytest.mark.parametrize("server", ASGI_SERVERS)
def test_a_receiver_may_be_the_whole_application(server: str) -> None:
    with serving(server, "app_alone") as running:
        [wire] = Case(name="good", expect=CREATED).wires(fresh())
        CREATED.check(running.send(wire))
