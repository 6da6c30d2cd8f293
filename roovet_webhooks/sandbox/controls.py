"""The sandbox's own controls, below a path that the vendor does not have: endpoints, keys, clock, chaos, deliveries."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anyio
import msgspec
from starlette.responses import Response
from starlette.routing import Route

from roovet_webhooks.api.documented import SCOPES
from roovet_webhooks.errors import ConfigurationError
from roovet_webhooks.sandbox import seed
from roovet_webhooks.sandbox.refusal import error_body

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.requests import Request

    from roovet_webhooks.sandbox.core import Sandbox

CONTROLS = "/_sandbox"

_DAY = 86_400.0
_MAX_ROWS = 1000


class EndpointSettings(msgspec.Struct, forbid_unknown_fields=True):
    """An endpoint to register: its URL, and its signing secret where it has one already."""

    url: str
    secret: str | None = None


class RotationSettings(msgspec.Struct, forbid_unknown_fields=True):
    """An endpoint whose secret is replaced; both sign for ``overlap`` seconds."""

    url: str
    overlap: float = _DAY


class KeySettings(msgspec.Struct, forbid_unknown_fields=True):
    """A key to make."""

    scopes: tuple[str, ...] = SCOPES
    user_id: str = seed.OWNER


class ClockSettings(msgspec.Struct, forbid_unknown_fields=True):
    """By how many seconds to advance the clock."""

    advance: float


class TriggerSettings(msgspec.Struct, forbid_unknown_fields=True):
    """An event to send."""

    event: str
    id: str
    fields: dict[str, Any] = {}


class ResendSettings(msgspec.Struct, forbid_unknown_fields=True):
    """An event to send once more."""

    number: int


class Nothing(msgspec.Struct):
    """No settings."""


class _Controls:
    """What each control does; a body that it takes is JSON of the type that its route names."""

    def __init__(self, sandbox: Sandbox) -> None:
        self._sandbox = sandbox

    def status(self, _request: Request, _given: Nothing) -> object:
        return {
            "now": self._sandbox.clock(),
            "clock_ahead": self._sandbox.clock.offset,
            "endpoints": self._sandbox.endpoints(),
            "messages": self._sandbox.delivery_states(),
            "balances_cents": self._sandbox.check_books(),
            "chaos": self._sandbox.chaos,
            "retries": self._sandbox.retry is not None,
        }

    def register(self, _request: Request, given: EndpointSettings) -> object:
        return {"url": given.url, "signing_secret": self._sandbox.register(given.url, given.secret)}

    def unregister(self, request: Request, _given: Nothing) -> object:
        return {"removed": self._sandbox.unregister(request.query_params.get("url", ""))}

    def rotate(self, _request: Request, given: RotationSettings) -> object:
        return {"url": given.url, "signing_secret": self._sandbox.rotate(given.url, overlap=given.overlap)}

    def create_key(self, _request: Request, given: KeySettings) -> object:
        key = self._sandbox.create_key(given.scopes, user_id=given.user_id)
        return {"api_key": key, "scopes": given.scopes, "user_id": given.user_id}

    def advance(self, _request: Request, given: ClockSettings) -> object:
        self._sandbox.advance(given.advance)
        return {"now": self._sandbox.clock(), "clock_ahead": self._sandbox.clock.offset}

    def set_chaos(self, _request: Request, given: dict[str, object]) -> object:
        return self._sandbox.set_chaos(**given)

    def reset(self, _request: Request, _given: Nothing) -> object:
        self._sandbox.reset()
        return {"reset": True}

    def trigger(self, _request: Request, given: TriggerSettings) -> object:
        return {"number": self._sandbox.trigger(given.event, given.id, given.fields)}

    def resend(self, _request: Request, given: ResendSettings) -> object:
        self._sandbox.resend(given.number)
        return {"number": given.number}

    def deliveries(self, request: Request, _given: Nothing) -> object:
        limit = min(max(int(request.query_params.get("limit", "100")), 1), _MAX_ROWS)
        before = request.query_params.get("before")
        return {"data": self._sandbox.deliveries(limit=limit, before=None if before is None else int(before))}


def control_routes(sandbox: Sandbox) -> list[Route]:
    """Return the routes of the controls of a sandbox, below `CONTROLS`."""
    controls = _Controls(sandbox)
    return [
        _route("/", controls.status),
        _route("/endpoints", controls.register, EndpointSettings),
        _route("/endpoints", controls.unregister, method="DELETE"),
        _route("/endpoints/rotate", controls.rotate, RotationSettings),
        _route("/keys", controls.create_key, KeySettings),
        _route("/clock", controls.advance, ClockSettings),
        _route("/chaos", controls.set_chaos, dict[str, object]),
        _route("/reset", controls.reset, Nothing),
        _route("/events", controls.trigger, TriggerSettings),
        _route("/events/resend", controls.resend, ResendSettings),
        _route("/deliveries", controls.deliveries),
    ]


def _route(
    path: str, act: Callable[[Request, Any], object], settings: type[object] | None = None, *, method: str = "GET"
) -> Route:
    """Return a route whose body is JSON of a type, and whose faults are clear errors."""

    async def answer(request: Request) -> Response:
        body = await request.body()
        try:
            given = Nothing() if settings is None else msgspec.json.decode(body or b"{}", type=settings)
            content = await anyio.to_thread.run_sync(act, request, given)
        except LookupError as error:
            return _json(404, error_body(404, str(error)))
        except (ConfigurationError, ValueError) as error:
            return _json(400, error_body(400, str(error)))
        return _json(200, msgspec.json.encode(content))

    return Route(path, answer, methods=[method if settings is None else "POST"])


def _json(status: int, body: bytes) -> Response:
    return Response(body, status, media_type="application/json")
