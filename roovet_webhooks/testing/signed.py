"""`signed_request`: one line for a delivery as Roovet would send it, and the test clients that post it.

No framework is imported. A client is recognised by what it can do, so subclasses of yours, and the clients of Django
REST framework and FastAPI, work like those that they are made of.
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypedDict, TypeVar, overload

from roovet_webhooks.messages import WebhookRequest
from roovet_webhooks.signing.secrecy import forgets_secret
from roovet_webhooks.signing.verifier import Signer
from roovet_webhooks.testing.bodies import body_of
from roovet_webhooks.testing.fixed import NOW, PATH, SECRET

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import TypeAlias

    from roovet_webhooks.messages import WebhookResponse
    from roovet_webhooks.signing.keys import SecretLike
    from roovet_webhooks.testing.bodies import EventLike

    ClientLike: TypeAlias = "Receives | Posts[object] | Callable[[SignedRequest], object]"


R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)


class SignedRequest:
    """A delivery to be posted, as often as you like: the same bytes are the same delivery.

    Args:
        body: The body, byte for byte.
        lines: Pairs of name and value, each header as often as it is to be sent.
        path: Where to post it.
    """

    __slots__ = ("body", "lines", "path")

    def __init__(self, body: bytes, lines: tuple[tuple[bytes, bytes], ...], path: str = PATH) -> None:
        self.body: bytes = body
        self.lines: tuple[tuple[bytes, bytes], ...] = lines
        self.path: str = path

    @property
    def headers(self) -> dict[str, str]:
        """The headers as a mapping; one that stands several times is joined with commas."""
        return joined(self.lines)

    def webhook_request(self, path_params: Mapping[str, object] | None = None) -> WebhookRequest:
        """Return the request that belongs to no framework, for ``receiver.receive`` and ``receiver.open``.

        Args:
            path_params: What a route would have captured, for a resolver of tenants.
        """
        return WebhookRequest("POST", self.path, self.lines, self.body, path_params)

    def starlette(self) -> HttpxArguments:
        """Return what ``TestClient.post(path, **…)`` of Starlette and FastAPI takes, and any client of httpx."""
        # As bytes: httpx would refuse to encode a text that is not ASCII.
        return {"content": self.body, "headers": list(self.lines)}

    def flask(self) -> FlaskArguments:
        """Return what ``app.test_client().post(path, **…)`` takes."""
        decoded = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in self.lines]
        return {"data": self.body, "headers": decoded}

    @overload
    def django(self, *, asynchronous: Literal[False] = ...) -> DjangoArguments: ...
    @overload
    def django(self, *, asynchronous: Literal[True]) -> dict[str, Any]: ...

    def django(self, *, asynchronous: bool = False) -> DjangoArguments | dict[str, Any]:
        """Return what ``post(path, **…)`` of Django's ``Client`` and ``RequestFactory`` takes.

        Args:
            asynchronous: For ``AsyncClient`` and ``AsyncRequestFactory``.
        """
        content_type = next((value for name, value in self.lines if name.lower() == b"content-type"), b"")
        arguments: dict[str, Any] = {"data": self.body, "content_type": content_type.decode("latin-1")}
        if not asynchronous:
            # With the type once more, because Django leaves that of an empty body out.
            return {**arguments, "headers": self.headers}
        # By keyword, not by headers=: some versions of Django give those underscores for hyphens.
        for name, value in self.lines:
            if not (self.body and name.lower() == b"content-type"):
                key = name.decode("latin-1")
                copies = sum(known.lower() == key.lower() for known in arguments)
                arguments[spelled(key, copies)] = value.decode("latin-1")
        return arguments

    @overload
    def post(self, client: Receives, /) -> WebhookResponse: ...
    @overload
    def post(self, client: Posts[R], /) -> R: ...
    @overload
    def post(self, client: Callable[[SignedRequest], R], /) -> R: ...

    def post(self, client: object, /) -> object:
        """Post it with a test client, and return the client's own response.

        Args:
            client: A test client of Starlette, FastAPI, Django, Django REST framework or Flask, or one of httpx; a
                `WebhookReceiver`, which answers with a `WebhookResponse`; or a function that takes this request.
                An async client gives something to await.

        Raises:
            TypeError: It is none of these.
        """
        return post_with(client, self)

    def __repr__(self) -> str:
        """Show where it goes; body and signature stay out of logs."""
        return f"SignedRequest(POST {self.path}, {len(self.body)} bytes)"


@forgets_secret
def signed_request(
    event: EventLike,
    /,
    *,
    secret: SecretLike = SECRET,
    timestamp: int | None = None,
    age: int = 0,
    path: str = PATH,
    **fields: object,
) -> SignedRequest:
    """Return a delivery, signed, with the body that Roovet would have sent.

    Args:
        event: The name of an event, or an `Event` class that declares one; an instance of such a class, of a Struct,
            a dataclass, an attrs class or a pydantic model; a dict, which is the whole payload and is not completed;
            or the body itself as bytes, sent byte for byte.
        secret: The signing secret, as a receiver takes it.
        timestamp: When it is signed, Unix seconds; the fixed time `NOW` when ``None``.
        age: Seconds by which the signature is older than that; negative for one from the future.
        path: Where to post it.
        **fields: Fields of the payload. An event that is no dict gets an ``id`` of its own and a ``ts``, the time of
            signing, unless they are given. A field that has the name of an argument goes in by a dict.

    Raises:
        TypeError: No body can be made of the event.
        ValueError: Nothing says which event it is, or the time cannot be signed.
        InvalidSecretError: The secret cannot be one.

    Example:
        >>> request = signed_request("order.created", id="ord_1", amount_cents=1250)
        >>> request.body
        b'{"event":"order.created","id":"ord_1","ts":1762782800,"amount_cents":1250}'
        >>> request.headers["X-Roovet-Signature"][:20]
        't=1762782800,v1=cb8a'
    """
    signed_at = (NOW if timestamp is None else timestamp) - age
    body = body_of(event, fields, ts=signed_at)
    headers = Signer(secret).headers(body, timestamp=signed_at)
    lines = tuple((name.encode("ascii"), value.encode("ascii")) for name, value in headers.items())
    return SignedRequest(body, lines, path)


# Test clients


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


def post_with(client: object, request: SignedRequest) -> Any:  # noqa: ANN401 - the client's own response
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
