"""How each kind of test client is made to post the bytes and headers of a request; no framework is imported.

A client is recognised by what it can do, so that subclasses of yours, and the clients of Django REST framework and
FastAPI, are as good as those they are made of.
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any, Protocol, TypedDict, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeAlias

    from roovet_webhooks.messages import WebhookRequest, WebhookResponse
    from roovet_webhooks.testing.signed import SignedRequest

    ClientLike: TypeAlias = "Receives | Posts[object] | Callable[[SignedRequest], object]"

R_co = TypeVar("R_co", covariant=True)


class Receives(Protocol):
    """A receiver: no framework at all."""

    def receive(self, request: WebhookRequest, /) -> WebhookResponse:
        """Answer a request."""
        ...


class Posts(Protocol[R_co]):
    """A test client: of Starlette and FastAPI, httpx, Django, Flask."""

    @property
    def post(self) -> Callable[..., R_co]:
        """Post to a path."""
        ...


class HttpxArguments(TypedDict):
    """What ``post`` of an httpx client takes, Starlette's and FastAPI's ``TestClient`` among them."""

    content: bytes
    headers: list[tuple[bytes, bytes]]


class DjangoArguments(TypedDict):
    """What ``post`` of Django's ``Client`` and ``RequestFactory`` takes."""

    data: bytes
    content_type: str
    headers: dict[str, str]


class FlaskArguments(TypedDict):
    """What ``post`` of Flask's test client takes."""

    data: bytes
    headers: list[tuple[str, str]]


def spelled(name: str, copy: int) -> str:
    """Return a header's name in another case for each copy: one header, but several keys of a mapping."""
    return "".join(char.upper() if copy >> place & 1 else char.lower() for place, char in enumerate(reversed(name)))[
        ::-1
    ]


def post(client: object, request: SignedRequest) -> Any:  # noqa: ANN401 - the client's own response
    """Post a request with whatever client it is; see `SignedRequest.post`.

    Raises:
        TypeError: It is no client of a known kind, and no function.
    """
    known: Any = client
    if hasattr(client, "receive_async"):
        return known.receive(request.webhook_request())
    if hasattr(client, "build_request"):
        return known.post(request.path, **request.starlette())
    if hasattr(client, "generic"):
        if any(kind.__name__ == "AsyncRequestFactory" for kind in type(client).__mro__):
            return known.post(request.path, **request.django(asynchronous=True))
        return known.post(request.path, **request.django())
    if hasattr(client, "response_wrapper"):
        return known.post(request.path, **request.flask())
    if _takes_a_request(client):
        return known(request)
    kind = type(client).__name__
    message = (
        f"{kind} is no test client that is known here: make one of the application (TestClient(app), "
        "django.test.Client(), app.test_client()), or pass a function that takes the request, with its path, "
        "body and headers, and returns the response"
    )
    raise TypeError(message)


def _takes_a_request(client: object) -> bool:
    # An application is callable too, but takes an environ or a scope; or it has a post, which decorates views.
    if not callable(client) or hasattr(client, "post"):
        return False
    try:
        inspect.signature(client).bind(client)
    except TypeError:
        return False
    return True


def status_of(response: object) -> int:
    """Return the status of any client's response, or of a number that is one.

    Raises:
        TypeError: It has none, as the request has not that a ``RequestFactory`` makes.
    """
    for value in (response, getattr(response, "status_code", None), getattr(response, "status", None)):
        if isinstance(value, int):
            return value
    message = (
        f"{type(response).__name__} is no response: a RequestFactory makes requests and sends none; pass a function "
        "that gives the request to the view: lambda request: view(request.post(RequestFactory()))"
    )
    raise TypeError(message)


def joined(lines: tuple[tuple[bytes, bytes], ...]) -> dict[str, str]:
    """Return header lines as a mapping, repeated ones joined by a comma as WSGI servers join them (RFC 9110, 5.3)."""
    names: dict[str, str] = {}
    found: dict[str, str] = {}
    for name, value in lines:
        key, text = name.decode("latin-1"), value.decode("latin-1")
        key = names.setdefault(key.lower(), key)
        found[key] = f"{found[key]},{text}" if key in found else text
    return found
