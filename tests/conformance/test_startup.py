"""A server starts with a receiver that can do its work, and with no other."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, cast

import pytest
from asgi_lifespan import LifespanManager
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.testclient import TestClient
from support import SECRET

from conformance.cases import CREATED, Case
from conformance.play import fresh
from conformance.servers import NotStarted, serving
from roovet_webhooks import ConfigurationError, WebhookReceiver
from roovet_webhooks.asgi import WebhookApp, WebhookMiddleware

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.types import ASGIApp

ASGI_SERVERS = [
    "uvicorn-h11",
    *(pytest.param(name, marks=pytest.mark.long) for name in ("uvicorn-httptools", "hypercorn", "granian-asgi")),
]


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


def _with_a_handler() -> WebhookReceiver:
    receiver = WebhookReceiver()
    receiver.fallback(lambda _event: None)
    return receiver


def _fastapi() -> FastAPI:
    app = FastAPI()
    app.add_middleware(WebhookMiddleware, receiver=_with_a_handler())
    return app


NOT_READY: dict[str, tuple[Callable[[], ASGIApp], str]] = {
    "application without handlers": (lambda: WebhookApp(WebhookReceiver(SECRET)), "has no handler"),
    "middleware without handlers": (
        lambda: WebhookMiddleware(Starlette(), receiver=WebhookReceiver(SECRET)),
        "has no handler",
    ),
    "middleware without a secret": (_fastapi, "has no signing secret"),
    "middleware around one without a secret": (
        lambda: WebhookMiddleware(_fastapi(), receiver=_with_a_handler(), path="/other"),
        "has no signing secret",
    ),
}


@pytest.mark.parametrize("what", NOT_READY)
def test_a_test_client_raises_why_the_application_does_not_start(what: str) -> None:
    make, reason = NOT_READY[what]
    with pytest.raises(ConfigurationError, match=reason), TestClient(make()):
        pass


@pytest.mark.parametrize("what", NOT_READY)
def test_a_lifespan_manager_raises_why_the_application_does_not_start(what: str) -> None:
    make, reason = NOT_READY[what]

    async def start() -> None:
        async with LifespanManager(cast("Any", make())):
            pass

    with pytest.raises(ConfigurationError, match=reason):
        asyncio.run(start())


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
